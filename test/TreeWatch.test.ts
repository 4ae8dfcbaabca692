import { assert, describe, it } from "@effect/vitest";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import type * as Scope from "effect/Scope";
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { breathe } from "../src/DirectoryHints.js";
import { type FeatureName, fileText, FeatureValue } from "../src/Feature.js";
import type { Subscription } from "../src/FeatureTable.js";
import { TreeWatch } from "../src/TreeWatch.js";
import * as Watches from "../src/Watches.js";
import { Told } from "./Told.js";

/** A state directory written as a daemon writes it, and spoilt as others may spoil it. */
class StateDir {
  private serial = 0;
  constructor(readonly path: string) {}
  at(...names: ReadonlyArray<string>): string {
    return join(this.path, "features", ...names);
  }
  /** Renames a file into place; `text` need not be JSON. */
  put(feature: string, host: string, text: string): void {
    for (const path of [this.at(feature), join(this.path, ".tmp")]) {
      if (!fs.existsSync(path)) fs.mkdirSync(path, { recursive: true });
    }
    const temporary = join(this.path, ".tmp", String(this.serial++));
    fs.writeFileSync(temporary, text, { mode: 0o444 });
    fs.renameSync(temporary, this.at(feature, host));
  }
  remove(...names: ReadonlyArray<string>): void {
    fs.rmSync(this.at(...names), { recursive: true });
  }
}

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-watch-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true })),
);
const stateDir = Effect.map(temporary, (path) => new StateDir(join(path, "state")));

const name = (text: string) => text as FeatureName;

const subscribe = (only?: ReadonlyArray<string>) =>
  Effect.flatMap(TreeWatch, (tree) => tree.subscribe(only?.map(name)));

/** Listens until all that was there has been told. */
const booted = (subscription: Subscription) =>
  Effect.gen(function* () {
    const told = new Told();
    yield* told.until(subscription, ({ boots }) => boots === 1);
    return told;
  });

const reasons = (told: Told) => told.problems.map(({ reason, path }) => [reason, path.split("/").slice(-2).join("/")]);

const quiet = Logger.remove(Logger.defaultLogger);
const watching = (path: string, start?: Parameters<typeof TreeWatch.layerWithHints>[1]) =>
  Layer.provideMerge(start === undefined ? TreeWatch.layer(path) : TreeWatch.layerWithHints(path, start), quiet);

/** Watches that give no hint, as when every event is lost. */
const silent = { watch: () => undefined, unwatch: () => undefined, hints: () => Effect.never };

/** Renames in the burst. For all of 100,000, set TMPDIR to a tmpfs. */
const burst = Number(process.env["NAMEQ_TEST_BURST"] ?? 1_500);

describe("TreeWatch", () => {
  it.scopedLive("tells what is there, that this was all, and then every change", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", '{\n\t"port": 12345678901234567890\n}\n');
      dir.put("db", "127.0.0.1", "1e400");
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        assert.strictEqual(told.get("db", "10.0.0.1"), '{"port":12345678901234567890}');
        assert.strictEqual(told.get("db", "127.0.0.1"), "1e400");

        dir.put("db", "fd00::1", "null\n");
        yield* told.until(subscription, () => told.get("db", "fd00::1") === "null");
        dir.put("db", "fd00::1", "[1]\n");
        yield* told.until(subscription, () => told.get("db", "fd00::1") === "[1]");
        dir.remove("db", "10.0.0.1");
        yield* told.until(subscription, () => told.get("db", "10.0.0.1") === undefined);
        assert.deepStrictEqual(told.problems, []);
        assert.strictEqual(told.state.size, 2);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("tells files that came with their directory, whole directories that go, and their return", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("a", "10.0.0.1", "1");
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        for (let round = 0; round < 3; round++) {
          for (let i = 0; i < 20; i++) for (let h = 1; h < 4; h++) dir.put(`new${i}`, `10.0.0.${h}`, String(round));
          yield* told.until(subscription, ({ state }) => state.size === 61);
          for (let i = 0; i < 20; i++) dir.remove(`new${i}`);
          yield* told.until(subscription, ({ state }) => state.size === 1);
        }
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("goes on, and sees changes fast again, when a directory was replaced by another", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("a", "10.0.0.1", "1");
      dir.put("a", "10.0.0.2", "1");
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        fs.mkdirSync(dir.at("b"));
        fs.writeFileSync(dir.at("b", "10.0.0.1"), "2");
        fs.renameSync(dir.at("a"), join(dir.path, "old"));
        fs.renameSync(dir.at("b"), dir.at("a"));
        yield* told.until(
          subscription,
          () => told.get("a", "10.0.0.1") === "2" && told.get("a", "10.0.0.2") === undefined && told.state.size === 1,
        );
        dir.put("a", "10.0.0.3", "3");
        yield* told.until(subscription, () => told.get("a", "10.0.0.3") === "3");
        fs.writeFileSync(join(dir.path, "old", "10.0.0.9"), "9");
        dir.put("a", "10.0.0.4", "4");
        yield* told.until(subscription, () => told.get("a", "10.0.0.4") === "4");
        assert.strictEqual(told.get("a", "10.0.0.9"), undefined);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("waits for a state directory that is not there, and bears that it goes and comes back", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        assert.deepStrictEqual(reasons(told), [["Missing", "state/features"]]);
        assert.include(told.problems[0]?.message, "nameq serve");
        dir.put("db", "10.0.0.1", "1");
        yield* told.until(subscription, ({ state }) => state.size === 1);
        fs.renameSync(dir.path, `${dir.path}.old`);
        yield* told.until(subscription, ({ state, problems }) => state.size === 0 && problems.length === 2);
        dir.put("db", "10.0.0.1", "2");
        dir.put("web", "10.0.0.1", "2");
        yield* told.until(subscription, ({ state }) => state.size === 2);
        dir.put("web", "10.0.0.2", "3");
        yield* told.until(subscription, ({ state }) => state.size === 3);
        assert.deepStrictEqual(reasons(told), [
          ["Missing", "state/features"],
          ["Missing", "state/features"],
        ]);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("reports what is foreign, no JSON or unreadable, once, and goes on with the rest", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", "1");
      dir.put("db", "10.0.0.2", '{"half":');
      dir.put("db", "10.0.0.3", "");
      dir.put("db", "10.0.0.4", `${"[".repeat(65)}${"]".repeat(65)}`);
      dir.put("db", "README", "text");
      dir.put("db", "FD00::1", "1");
      dir.put("db", "10.0.0.05", "1");
      dir.put("db", ".hidden", "text");
      fs.mkdirSync(dir.at("db", "10.0.0.6"));
      fs.symlinkSync("10.0.0.7", dir.at("db", "10.0.0.7"));
      fs.truncateSync((fs.writeFileSync(dir.at("db", "10.0.0.8"), "1"), dir.at("db", "10.0.0.8")), 5_000_000);
      execFileSync("mkfifo", [dir.at("db", "10.0.0.9")]);
      fs.mkdirSync(dir.at("bad name"));
      fs.writeFileSync(dir.at("file"), "1");
      fs.mkdirSync(dir.at(".dot"));
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        assert.deepStrictEqual(
          reasons(told).toSorted(),
          [
            ["Foreign", "db/10.0.0.05"],
            ["Foreign", "db/10.0.0.6"],
            ["Foreign", "db/10.0.0.9"],
            ["Foreign", "db/FD00::1"],
            ["Foreign", "db/README"],
            ["Foreign", "features/bad name"],
            ["Foreign", "features/file"],
            ["NotJson", "db/10.0.0.2"],
            ["NotJson", "db/10.0.0.3"],
            ["NotJson", "db/10.0.0.4"],
            ["TooLarge", "db/10.0.0.8"],
            ["Unreadable", "db/10.0.0.7"],
          ].toSorted(),
        );
        assert.deepStrictEqual([...told.state], [["db/10.0.0.1", "1"]]);

        // a sweep tells nothing of it again
        yield* Effect.sleep("1200 millis");
        const problems = told.problems.length;
        dir.put("db", "10.0.0.2", '{"half":2}');
        dir.put("db", "10.0.0.1", "no JSON any more");
        fs.rmSync(dir.at("db", "10.0.0.7"));
        dir.put("db", "10.0.0.7", "7");
        yield* told.until(
          subscription,
          () => told.get("db", "10.0.0.2") !== undefined && told.get("db", "10.0.0.7") === "7" && told.state.size === 2,
        );
        assert.deepStrictEqual(reasons(told).slice(problems), [["NotJson", "db/10.0.0.1"]]);

        const tree = yield* Effect.flatMap(TreeWatch, ({ read }) => read());
        assert.strictEqual(tree.problems.length, 11);
        for (const { path, message } of tree.problems) assert.include(message, path);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("follows symbolic links, of the state directory, of a feature and of a file", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", "1");
      const link = `${dir.path}.link`;
      fs.symlinkSync(dir.path, link);
      fs.symlinkSync("db", dir.at("alias"));
      fs.symlinkSync("10.0.0.1", dir.at("db", "10.0.0.2"));
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        assert.strictEqual(told.state.size, 4);
        dir.put("db", "10.0.0.3", "3");
        yield* told.until(
          subscription,
          () => told.get("alias", "10.0.0.3") === "3" && told.get("db", "10.0.0.3") === "3",
        );
        assert.deepStrictEqual(told.problems, []);
      }).pipe(Effect.provide(watching(link)));
    }),
  );

  it.scopedLive("tells nothing when a file is written again with the same value", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", '{"a":1}');
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        dir.put("db", "10.0.0.1", '{\n\t"a": 1\n}\n');
        dir.put("db", "10.0.0.2", "2");
        yield* told.until(subscription, ({ state }) => state.size === 2);
        assert.strictEqual(told.changes, 2);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive(
    "tells a subscriber to some features nothing of the others, and takes up others when they are asked for",
    () =>
      Effect.gen(function* () {
        const dir = yield* stateDir;
        dir.put("db", "10.0.0.1", "1");
        dir.put("web", "10.0.0.1", "not read");
        yield* Effect.gen(function* () {
          const db = yield* subscribe(["db", "later"]);
          const told = yield* booted(db);
          assert.deepStrictEqual([...told.state], [["db/10.0.0.1", "1"]]);
          assert.deepStrictEqual(told.problems, []);
          const web = yield* subscribe(["web"]);
          assert.deepStrictEqual(reasons(yield* booted(web)), [["NotJson", "web/10.0.0.1"]]);
          dir.put("web", "10.0.0.2", "2");
          dir.put("later", "10.0.0.2", "3");
          yield* told.until(db, ({ state }) => state.size === 2);
          assert.strictEqual(told.get("later", "10.0.0.2"), "3");
        }).pipe(Effect.provide(watching(dir.path)));
      }),
  );

  it.scopedLive("shares one watch among all subscribers, and ends it with the last", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", "1");
      let starts = 0;
      let standing = 0;
      const start = Effect.acquireRelease(
        Effect.sync(() => {
          starts++;
          standing++;
          return silent;
        }),
        () => Effect.sync(() => standing--),
      );
      yield* Effect.gen(function* () {
        yield* Effect.flatMap(TreeWatch, ({ read }) => read());
        assert.strictEqual(starts, 0);
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* booted(yield* subscribe());
            yield* Effect.scoped(Effect.flatMap(subscribe(["db"]), booted));
            yield* booted(yield* subscribe());
            assert.deepStrictEqual([starts, standing], [1, 1]);
          }),
        );
        assert.strictEqual(standing, 0);
        yield* Effect.scoped(Effect.flatMap(subscribe(), booted));
        assert.deepStrictEqual([starts, standing], [2, 0]);
      }).pipe(Effect.provide(watching(dir.path, start)));
    }),
  );

  it.scopedLive("sees every kind of change without a single event", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("a", "10.0.0.1", "1");
      dir.put("a", "10.0.0.2", "1");
      dir.put("b", "10.0.0.1", "1");
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        dir.put("a", "10.0.0.1", "2");
        dir.remove("a", "10.0.0.2");
        dir.remove("b");
        dir.put("c", "10.0.0.1", "3");
        const expected = ["a/10.0.0.1=2", "c/10.0.0.1=3"];
        const now = () => Array.from(told.state, ([key, json]) => `${key}=${json}`).toSorted();
        yield* told.until(subscription, () => now().join() === expected.join());
        // within one tick of file time, the size and perhaps the inode as before
        for (let i = 0; i < 5; i++) dir.put("a", "10.0.0.1", String(i + 4));
        yield* told.until(subscription, () => told.get("a", "10.0.0.1") === "8");
      }).pipe(Effect.provide(watching(dir.path, Effect.succeed(silent))));
    }),
  );

  it.scopedLive("names the system's limit when watches cannot be had, goes on without, and tries again", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", "1");
      const failing = new Map<number, string>();
      let lifted = false;
      const watches: Watches.Watches = {
        watch: (id, path) => failing.set(id, path),
        unwatch: () => undefined,
        hints: (look) =>
          Effect.suspend(() => {
            const hints = Array.from(failing.keys(), (id) => ({
              id,
              names: undefined,
              failure: lifted ? undefined : "ENOSPC",
            }));
            failing.clear();
            return Effect.delay(Effect.succeed(look(hints)), "20 millis");
          }),
      };
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        yield* told.until(subscription, ({ problems }) => problems.length === 1);
        assert.strictEqual(told.problems[0]?.reason, "Unwatched");
        assert.include(told.problems[0]?.message, "fs.inotify.max_user_watches");
        dir.put("db", "10.0.0.2", "2");
        yield* told.until(subscription, ({ state }) => state.size === 2);
        lifted = true;
        const tree = yield* TreeWatch;
        yield* Effect.repeat(Effect.delay(tree.read(), "20 millis"), {
          until: ({ problems }) => problems.length === 0,
        });
        assert.strictEqual(told.problems.length, 1);
      }).pipe(Effect.provide(watching(dir.path, Effect.succeed(watches))));
    }),
  );

  it.scoped("looks at once where a hint says, and at all when hints may be lost, and logs what it finds", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("a", "10.0.0.1", "1");
      const ids = new Map<string, number>();
      let hint: (given: { id?: number | undefined; names?: ReadonlyArray<string> }) => void = () => undefined;
      const watches: Watches.Watches = {
        watch: (id, path) => ids.set(basename(path), id),
        unwatch: () => undefined,
        hints: (look) =>
          Effect.async((resume) => {
            hint = (given) => {
              const steps = look([{ id: given.id ?? Watches.everywhere, names: given.names, failure: undefined }]);
              if (steps.next().done !== true) resume(Effect.succeed(steps));
            };
          }),
      };
      const lines: Array<string> = [];
      const logger = Logger.make(({ message }) => lines.push(String(message)));
      // the clock stands: there is one sweep, and no other for want of hints
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        dir.put("a", "10.0.0.1", "2");
        hint({ id: ids.get("a"), names: ["10.0.0.1"] });
        yield* told.until(subscription, () => told.get("a", "10.0.0.1") === "2");
        dir.put("a", "10.0.0.1", "no JSON");
        hint({ id: ids.get("a"), names: ["10.0.0.1"] });
        yield* Effect.repeat(breathe, { until: () => lines.length > 0 });
        assert.include(lines[0], "10.0.0.1 is not JSON");
        dir.put("b", "10.0.0.1", "3");
        hint({});
        yield* told.until(subscription, () => told.get("b", "10.0.0.1") === "3");
      }).pipe(
        Effect.provide(TreeWatch.layerWithHints(dir.path, Effect.succeed(watches))),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      );
    }),
  );

  it.scopedLive("fails its subscribers, rather than leave them waiting, when it breaks", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      const broken = { ...silent, hints: () => Effect.die("broken") };
      const exit = yield* Effect.flatMap(subscribe(), ({ pull }) => Effect.exit(Effect.forever(pull))).pipe(
        Effect.provide(watching(dir.path, Effect.succeed(broken))),
      );
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause));
    }),
  );

  it.scopedLive("shows the final state after a burst of renames in random order that blocks the loop", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      const features = 10;
      const hosts = 30;
      for (let f = 0; f < features; f++) for (let h = 1; h <= hosts; h++) dir.put(`f${f}`, `10.0.0.${h}`, "0");
      yield* Effect.gen(function* () {
        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        const slow = yield* subscribe();
        const slowTold = yield* booted(slow);
        const expected = new Map(told.state);
        // a linear congruential generator: the same order in every run
        let random = 1;
        for (let i = 0; i < burst; i++) {
          random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
          const feature = `f${(random >>> 8) % features}`;
          const host = `10.0.0.${((random >>> 16) % hosts) + 1}`;
          if (random % 8 === 0) {
            if (expected.delete(`${feature}/${host}`)) dir.remove(feature, host);
          } else {
            dir.put(feature, host, fileText(FeatureValue(`{"i":${i}}`)));
            expected.set(`${feature}/${host}`, `{"i":${i}}`);
          }
        }
        const exact = (told: Told) =>
          told.state.size === expected.size && [...expected].every(([key, json]) => told.state.get(key) === json);
        yield* told.until(subscription, exact);
        // who did not listen meanwhile is told each pair once
        yield* slowTold.until(slow, exact);
        assert.isAtMost(slowTold.changes, features * hosts * 2);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );

  it.scopedLive("reads once without a watch, all or some features, and from the watch when there is one", () =>
    Effect.gen(function* () {
      const dir = yield* stateDir;
      dir.put("db", "10.0.0.1", "1");
      dir.put("web", "10.0.0.1", "no JSON");
      yield* Effect.gen(function* () {
        const tree = yield* TreeWatch;
        const shown = ({
          features,
        }: {
          features: ReadonlyMap<string, ReadonlyMap<string, { readonly value: string }>>;
        }) =>
          [...features].flatMap(([feature, hosts]) =>
            Array.from(hosts, ([host, { value }]) => `${feature}/${host}=${value}`),
          );
        const all = yield* tree.read();
        assert.deepStrictEqual(shown(all), ["db/10.0.0.1=1"]);
        assert.deepStrictEqual(
          all.problems.map(({ reason }) => reason),
          ["NotJson"],
        );
        const some = yield* tree.read([name("db"), name("none")]);
        assert.deepStrictEqual(shown(some), ["db/10.0.0.1=1"]);
        assert.deepStrictEqual(some.problems, []);

        const subscription = yield* subscribe();
        const told = yield* booted(subscription);
        dir.put("db", "10.0.0.1", "2");
        yield* told.until(subscription, () => told.get("db", "10.0.0.1") === "2");
        const live = yield* tree.read([name("db")]);
        dir.put("db", "10.0.0.1", "3");
        yield* told.until(subscription, () => told.get("db", "10.0.0.1") === "3");
        assert.deepStrictEqual(shown(live), ["db/10.0.0.1=2"]);
      }).pipe(Effect.provide(watching(dir.path)));
    }),
  );
});
