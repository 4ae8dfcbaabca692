import { assert, describe, it } from "@effect/vitest";
import * as ConfigProvider from "effect/ConfigProvider";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as Option from "effect/Option";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Address } from "../src/Address.js";
import { type FeatureName, FeatureValue, fileText } from "../src/Feature.js";
import type { Change } from "../src/FeatureTable.js";
import { MemoryFleet } from "../src/MemoryFleet.js";
import { NameqClient } from "../src/NameqClient.js";

/** A host with a client, and the rest of its fleet. */
interface World {
  readonly layer: Layer.Layer<NameqClient>;
  /** What another host does. */
  readonly offer: (host: string, feature: string, json: string) => Effect.Effect<void>;
  readonly withdraw: (host: string, feature: string) => Effect.Effect<void>;
  /** What the client's host itself advertises. */
  readonly own: Effect.Effect<Record<string, string>>;
}

const memory: Effect.Effect<World> = Effect.sync(() => {
  const fleet = new MemoryFleet();
  return {
    layer: NameqClient.layerMemory({ fleet }),
    offer: (host, feature, json) => fleet.set(host as Address, feature as FeatureName, FeatureValue(json)),
    withdraw: (host, feature) => fleet.set(host as Address, feature as FeatureName, undefined),
    own: Effect.sync(() => {
      const { features } = fleet.tableAt("10.0.0.1" as Address).tree(undefined);
      return Object.fromEntries(
        [...features].flatMap(([feature, hosts]) => {
          const value = hosts.get("127.0.0.1" as Address)?.value;
          return value === undefined ? [] : [[feature, value]];
        }),
      );
    }),
  };
});

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-client-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true })),
);

const quiet = Logger.remove(Logger.defaultLogger);

const directories: Effect.Effect<
  World & { readonly stateDir: string; readonly featureDir: string },
  never,
  Scope.Scope
> = Effect.map(temporary, (path) => {
  const stateDir = join(path, "state");
  const featureDir = join(path, "features.d");
  return {
    stateDir,
    featureDir,
    layer: Layer.provideMerge(NameqClient.layer({ stateDir, featureDir }), quiet),
    offer: (host, feature, json) =>
      Effect.sync(() => {
        const temporary = join(path, "temporary");
        fs.mkdirSync(join(stateDir, "features", feature), { recursive: true });
        fs.writeFileSync(temporary, fileText(FeatureValue(json)));
        fs.renameSync(temporary, join(stateDir, "features", feature, host));
      }),
    withdraw: (host, feature) => Effect.sync(() => fs.rmSync(join(stateDir, "features", feature, host))),
    own: Effect.sync(() =>
      Object.fromEntries(
        fs
          .readdirSync(featureDir)
          .filter((name) => !name.startsWith("."))
          .map((name) => [name, JSON.stringify(JSON.parse(fs.readFileSync(join(featureDir, name), "utf8")))]),
      ),
    ),
  };
});

const Db = Schema.Struct({ port: Schema.Int, since: Schema.Date });

const show = (change: Change): string => {
  switch (change._tag) {
    case "Booted":
      return "booted";
    case "Problem":
      return `problem ${change.reason}`;
    case "Removed":
      return `- ${change.feature} ${change.host}`;
    default:
      return `${change._tag === "Added" ? "+" : "="} ${change.feature} ${change.host} ${change.json}`;
  }
};

/** Pulls one change at a time, in the scope. */
const listen = <A, E>(stream: Stream.Stream<A, E>) =>
  Effect.map(Stream.toPull(Stream.rechunk(stream, 1)), (pull) => ({
    next: Effect.map(pull, (chunk) => [...chunk][0] as A).pipe(
      Effect.mapError((error) => Option.getOrElse(error, () => "ended" as const)),
    ),
  }));

const later = "30 millis";

const contract = (label: string, world: Effect.Effect<World, never, Scope.Scope>) => {
  const withClient = <A, E>(
    body: (nameq: NameqClient.Service, world: World) => Effect.Effect<A, E, Scope.Scope>,
  ): Effect.Effect<A, E, Scope.Scope> =>
    Effect.flatMap(world, (world) =>
      Effect.flatMap(NameqClient, (nameq) => body(nameq, world)).pipe(Effect.provide(world.layer)),
    );

  describe(`NameqClient ${label}`, () => {
    it.scopedLive("sets any JSON value, one that a schema encodes, and one given as exact text, and removes them", () =>
      withClient((nameq, { own }) =>
        Effect.gen(function* () {
          yield* nameq.set("web", true);
          yield* nameq.set("nothing", null);
          yield* nameq.set("db", { tags: ["<a>", "b"], drop: undefined });
          yield* nameq.set("typed", { port: 1, since: new Date(0) }, Db);
          yield* nameq.setJson("exact", " [ 0.10 ] ");
          assert.deepStrictEqual(Object.keys(yield* own).toSorted(), ["db", "exact", "nothing", "typed", "web"]);
          const { db, typed, web, nothing } = yield* own;
          assert.strictEqual(web, "true");
          assert.strictEqual(nothing, "null");
          assert.deepStrictEqual(JSON.parse(db ?? ""), { tags: ["<a>", "b"] });
          assert.strictEqual(typed, '{"port":1,"since":"1970-01-01T00:00:00.000Z"}');
          for (const name of ["db", "exact", "nothing", "typed", "web"]) yield* nameq.remove(name);
          yield* nameq.remove("web");
          assert.deepStrictEqual(yield* own, {});
        }),
      ),
    );

    it.scopedLive("refuses bad names and values with errors that say what is allowed, and sets nothing", () =>
      withClient((nameq, { own }) =>
        Effect.gen(function* () {
          yield* nameq.set("kept", 1);
          const cyclic: Record<string, unknown> = {};
          cyclic["self"] = cyclic;
          for (const value of [undefined, () => 1, Number.NaN, [Number.POSITIVE_INFINITY], 1n, cyclic]) {
            const error = yield* Effect.flip(nameq.set("kept", value));
            assert.strictEqual(error._tag, "InvalidValue");
            assert.include(error.message, "kept");
          }
          const unfit = yield* Effect.flip(nameq.set("kept", { port: 0.5, since: new Date(0) }, Db));
          assert.strictEqual(unfit._tag, "InvalidValue");
          const half = yield* Effect.flip(nameq.setJson("kept", "[1"));
          assert.include(half.message, "character 3");
          const deep = yield* Effect.flip(nameq.setJson("kept", "[".repeat(99) + "]".repeat(99)));
          assert.include(deep.message, "deep");
          for (const name of ["", "a/b", "..", "ä", "x".repeat(256)]) {
            const attempts = [
              nameq.set(name, 1),
              nameq.setJson(name, "1"),
              Effect.scoped(nameq.setScoped(name, 1)),
              nameq.remove(name),
              nameq.hosts(name),
              nameq.find([name]),
              Stream.runDrain(nameq.watch(name)),
              Stream.runDrain(nameq.feature(name, Db).changes),
              nameq.feature(name, Db).current,
            ];
            for (const attempt of attempts) {
              const error = yield* Effect.flip(attempt as Effect.Effect<unknown, { _tag: string; message: string }>);
              assert.strictEqual(error._tag, "InvalidFeatureName");
              assert.include(error.message, "A-Z a-z 0-9 - _");
            }
          }
          assert.strictEqual((yield* Effect.flip(nameq.find([])))._tag, "InvalidFeatureName");
          assert.deepStrictEqual(yield* own, { kept: "1" });
        }),
      ),
    );

    it.scopedLive("removes a scoped feature when its scope closes and when its fiber is interrupted", () =>
      withClient((nameq, { own }) =>
        Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* nameq.setScoped("web", 1);
              assert.deepStrictEqual(yield* own, { web: "1" });
            }),
          );
          assert.deepStrictEqual(yield* own, {});
          const set = yield* Deferred.make<void>();
          const fiber = yield* nameq
            .setScoped("db", { port: 1, since: new Date(0) }, Db)
            .pipe(
              Effect.zipRight(Deferred.succeed(set, undefined)),
              Effect.zipRight(Effect.never),
              Effect.scoped,
              Effect.fork,
            );
          yield* Deferred.await(set);
          assert.deepStrictEqual(Object.keys(yield* own), ["db"]);
          yield* Fiber.interrupt(fiber);
          assert.deepStrictEqual(yield* own, {});
        }),
      ),
    );

    it.scopedLive("streams what is there, that this was all, and each change with its exact value", () =>
      withClient((nameq, { offer, withdraw }) =>
        Effect.gen(function* () {
          yield* offer("10.0.0.2", "db", '{"port":12345678901234567890}');
          const { next } = yield* listen(nameq.changes);
          const first = yield* next;
          assert.strictEqual(show(first), '+ db 10.0.0.2 {"port":12345678901234567890}');
          assert.deepStrictEqual(first._tag === "Added" && first.value, { port: 12345678901234567000 });
          assert.strictEqual(show(yield* next), "booted");
          yield* offer("fd00::1", "web", "true");
          assert.strictEqual(show(yield* next), "+ web fd00::1 true");
          yield* offer("10.0.0.2", "db", "0.10");
          assert.strictEqual(show(yield* next), "= db 10.0.0.2 0.10");
          yield* withdraw("10.0.0.2", "db");
          assert.strictEqual(show(yield* next), "- db 10.0.0.2");
        }),
      ),
    );

    it.scopedLive("brings a slow subscriber to the newest state, without slowing another", () =>
      withClient((nameq, { offer, withdraw }) =>
        Effect.gen(function* () {
          yield* offer("10.0.0.2", "db", "0");
          yield* offer("10.0.0.3", "db", "0");
          const slow = yield* listen(nameq.changes);
          const fast = yield* listen(nameq.changes);
          for (const { next } of [slow, fast]) {
            const start = [yield* next, yield* next, yield* next];
            assert.strictEqual(start.map(show).toSorted().join(), "+ db 10.0.0.2 0,+ db 10.0.0.3 0,booted");
          }
          for (let i = 1; i <= 50; i++) {
            yield* offer("10.0.0.2", "db", String(i));
            while (show(yield* fast.next) !== `= db 10.0.0.2 ${i}`);
          }
          yield* withdraw("10.0.0.3", "db");
          assert.strictEqual(show(yield* fast.next), "- db 10.0.0.3");
          assert.deepStrictEqual([show(yield* slow.next), show(yield* slow.next)].toSorted(), [
            "- db 10.0.0.3",
            "= db 10.0.0.2 50",
          ]);
          yield* offer("10.0.0.4", "db", '"end"');
          assert.strictEqual(show(yield* slow.next), '+ db 10.0.0.4 "end"');
        }),
      ),
    );

    it.scopedLive("gives a snapshot, and the hosts of a feature, the newest first", () =>
      withClient((nameq, { offer }) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* nameq.hosts("db"), []);
          for (const host of ["10.0.0.3", "10.0.0.2", "127.0.0.1"]) {
            yield* offer(host, "db", `"${host}"`);
            yield* Effect.sleep(later);
          }
          yield* offer("10.0.0.9", "web", "1");
          if (label === "in memory") yield* nameq.set("db", "127.0.0.1");
          assert.deepStrictEqual((yield* nameq.hosts("db")).map(String), ["127.0.0.1", "10.0.0.2", "10.0.0.3"]);
          const { features, problems } = yield* nameq.snapshot;
          assert.deepStrictEqual([...features.keys()].toSorted().map(String), ["db", "web"]);
          assert.strictEqual(features.get("db" as FeatureName)?.get("10.0.0.2" as Address)?.value, "10.0.0.2");
          assert.deepStrictEqual(problems, []);
        }),
      ),
    );

    it.scopedLive("finds the hosts that there are, waits for one to come, and times out with advice", () =>
      withClient((nameq, { offer }) =>
        Effect.gen(function* () {
          yield* offer("10.0.0.9", "other", "1");
          for (const timeout of ["20 millis", 0]) {
            const error = yield* Effect.flip(nameq.find(["db", "web"], { timeout: timeout as "20 millis" }));
            assert.strictEqual(error._tag, "FindTimeout");
            assert.include(error.message, "db or web");
          }
          const waiting = yield* Effect.fork(nameq.find(["db", "web"], { timeout: "1 minute" }));
          yield* Effect.sleep(later);
          yield* offer("10.0.0.2", "web", "2");
          const shown = (offers: ReadonlyArray<{ feature: string; host: string; value: unknown }>) =>
            offers.map(({ feature, host, value }) => [feature, host, value]);
          assert.deepStrictEqual(shown(yield* Fiber.join(waiting)), [["web", "10.0.0.2", 2]]);
          yield* Effect.sleep(later);
          yield* offer("10.0.0.3", "db", "3");
          assert.deepStrictEqual(shown(yield* nameq.find(["db", "web"], { timeout: 0 })), [
            ["db", "10.0.0.3", 3],
            ["web", "10.0.0.2", 2],
          ]);
        }),
      ),
    );

    it.scopedLive("watches the whole of one feature, again at each change", () =>
      withClient((nameq, { offer, withdraw }) =>
        Effect.gen(function* () {
          yield* offer("10.0.0.2", "db", "2");
          const { next } = yield* listen(nameq.watch("db"));
          const map = Effect.map(next, (hosts) => Array.from(hosts, ([host, { value }]) => [String(host), value]));
          assert.deepStrictEqual(yield* map, [["10.0.0.2", 2]]);
          yield* offer("10.0.0.9", "other", "1");
          yield* offer("10.0.0.3", "db", "3");
          assert.deepStrictEqual((yield* map).toSorted(), [
            ["10.0.0.2", 2],
            ["10.0.0.3", 3],
          ]);
          yield* withdraw("10.0.0.2", "db");
          assert.deepStrictEqual(yield* map, [["10.0.0.3", 3]]);
          yield* withdraw("10.0.0.3", "db");
          assert.deepStrictEqual(yield* map, []);
        }),
      ),
    );

    it.scopedLive("decodes a typed feature; a value that does not fit is an event, and no host", () =>
      withClient((nameq, { offer, withdraw, own }) =>
        Effect.gen(function* () {
          const db = nameq.feature("db", Db);
          const date = "1970-01-01T00:00:00.000Z";
          yield* offer("10.0.0.2", "db", `{"port":1,"since":"${date}"}`);
          const { next } = yield* listen(db.changes);
          const watched = yield* listen(db.watch);
          const first = yield* next;
          assert.deepStrictEqual(first._tag === "Added" && first.value, { port: 1, since: new Date(0) });
          assert.strictEqual((yield* next)._tag, "Booted");
          assert.deepStrictEqual([...(yield* watched.next).keys()].map(String), ["10.0.0.2"]);

          yield* offer("10.0.0.2", "db", '{"port":"none"}');
          const bad = yield* next;
          assert.strictEqual(bad._tag, "Undecodable");
          if (bad._tag !== "Undecodable") return;
          assert.strictEqual(bad.json, '{"port":"none"}');
          assert.include(bad.message, "10.0.0.2");
          assert.strictEqual((yield* watched.next).size, 0);
          assert.strictEqual((yield* db.current).size, 0);

          yield* offer("10.0.0.2", "db", `{"port":2,"since":"${date}"}`);
          assert.strictEqual((yield* next)._tag, "Updated");
          assert.strictEqual((yield* db.current).get("10.0.0.2" as Address)?.port, 2);
          yield* withdraw("10.0.0.2", "db");
          assert.strictEqual((yield* next)._tag, "Removed");

          yield* db.set({ port: 3, since: new Date(0) });
          assert.deepStrictEqual(yield* own, { db: `{"port":3,"since":"${date}"}` });
          yield* db.remove;
          yield* Effect.scoped(db.setScoped({ port: 3, since: new Date(0) }));
          assert.deepStrictEqual(yield* own, {});
        }),
      ),
    );

    it.scopedLive("ends a subscription with its scope, and can be subscribed to again", () =>
      withClient((nameq, { offer }) =>
        Effect.gen(function* () {
          for (let i = 0; i < 3; i++) {
            yield* offer("10.0.0.2", "db", String(i));
            const first = yield* Stream.runHead(nameq.changes);
            assert.strictEqual(Option.isSome(first) && show(first.value), `+ db 10.0.0.2 ${i}`);
          }
        }),
      ),
    );
  });
};

contract("in memory", memory);
contract("on directories", directories);

describe("NameqClient.layer", () => {
  it.scopedLive("streams problems in the tree among the changes", () =>
    Effect.gen(function* () {
      const { layer, offer } = yield* directories;
      yield* offer("10.0.0.2", "db", "no JSON");
      yield* Effect.gen(function* () {
        const { next } = yield* Effect.flatMap(NameqClient, ({ changes }) => listen(changes));
        assert.strictEqual(show(yield* next), "problem NotJson");
        assert.strictEqual(show(yield* next), "booted");
      }).pipe(Effect.provide(layer));
    }),
  );

  it.scopedLive("interrupts a subscription that outlives it, rather than leave it waiting", () =>
    Effect.gen(function* () {
      const { layer } = yield* directories;
      const { next } = yield* Effect.flatMap(NameqClient, ({ changes }) => listen(changes)).pipe(Effect.provide(layer));
      assert.isTrue(Exit.isInterrupted(yield* Effect.exit(Effect.forever(next))));
    }),
  );

  it.scopedLive("writes nothing to the state directory, whatever is asked", () =>
    Effect.gen(function* () {
      const { layer, offer, stateDir } = yield* directories;
      yield* offer("10.0.0.2", "db", "1");
      const listing = () =>
        fs.readdirSync(stateDir, { recursive: true }).map((name) => {
          const { ino, mtimeMs, ctimeMs } = fs.statSync(join(stateDir, String(name)));
          return [name, ino, mtimeMs, ctimeMs];
        });
      const before = listing();
      yield* Effect.gen(function* () {
        const nameq = yield* NameqClient;
        yield* nameq.set("web", 1);
        yield* nameq.remove("web");
        yield* nameq.snapshot;
        yield* nameq.find(["db"]);
        yield* Stream.runDrain(Stream.take(nameq.changes, 2));
      }).pipe(Effect.provide(layer));
      assert.deepStrictEqual(listing(), before);
    }),
  );

  it.scopedLive("fails with the file system's reason when the feature directory cannot be written", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      fs.writeFileSync(join(path, "file"), "");
      const layer = NameqClient.layer({ featureDir: join(path, "file", "features") });
      const error = yield* Effect.flatMap(NameqClient, (nameq) => Effect.flip(nameq.set("web", 1))).pipe(
        Effect.provide(layer),
      );
      assert.strictEqual(error._tag, "FeatureFileError");
    }),
  );

  it.scopedLive("logs once why nothing is found", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const lines: Array<string> = [];
      const layer = Layer.merge(
        NameqClient.layer({ stateDir: path }),
        Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ message }) => lines.push(String(message))),
        ),
      );
      yield* Effect.gen(function* () {
        const nameq = yield* NameqClient;
        for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* nameq.hosts("db"), []);
      }).pipe(Effect.provide(layer));
      assert.strictEqual(lines.length, 1);
      assert.include(lines[0], "nameq serve");
    }),
  );

  it.scopedLive("takes its directories from the environment", () =>
    Effect.gen(function* () {
      const { featureDir, stateDir, offer, own } = yield* directories;
      yield* offer("10.0.0.2", "db", "1");
      const environment = new Map([
        ["NAMEQ_STATE_DIR", stateDir],
        ["NAMEQ_FEATURE_DIR", featureDir],
      ]);
      yield* Effect.gen(function* () {
        const nameq = yield* NameqClient;
        yield* nameq.set("web", 1);
        assert.deepStrictEqual((yield* nameq.hosts("db")).map(String), ["10.0.0.2"]);
      }).pipe(Effect.provide(NameqClient.layerConfig), Effect.withConfigProvider(ConfigProvider.fromMap(environment)));
      assert.deepStrictEqual(yield* own, { web: "1" });
    }),
  );
});

describe("NameqClient.layerMemory", () => {
  const at = (fleet: MemoryFleet, address: string) =>
    Effect.provide(NameqClient, NameqClient.layerMemory({ fleet, address }));

  it.effect("shows clients of one fleet each other, and each itself as 127.0.0.1", () =>
    Effect.gen(function* () {
      const fleet = new MemoryFleet();
      const a = yield* at(fleet, "10.0.0.1");
      yield* a.set("web", "a");
      const b = yield* at(fleet, "10.0.0.2");
      yield* b.set("web", "b");
      assert.deepStrictEqual((yield* a.hosts("web")).toSorted().map(String), ["10.0.0.2", "127.0.0.1"]);
      assert.deepStrictEqual((yield* b.hosts("web")).toSorted().map(String), ["10.0.0.1", "127.0.0.1"]);
      yield* fleet.leave("10.0.0.2");
      assert.deepStrictEqual((yield* a.hosts("web")).map(String), ["127.0.0.1"]);
      yield* b.set("web", "back");
      assert.strictEqual((yield* a.hosts("web")).length, 2);
    }),
  );

  it.effect("keeps fleets apart, and refuses an address that is none", () =>
    Effect.gen(function* () {
      const a = yield* at(new MemoryFleet(), "10.0.0.1");
      const b = yield* at(new MemoryFleet(), "10.0.0.2");
      yield* a.set("web", 1);
      assert.deepStrictEqual(yield* b.hosts("web"), []);
      assert.isTrue(Exit.isFailure(yield* Effect.exit(at(new MemoryFleet(), "host-a"))));
    }),
  );
});
