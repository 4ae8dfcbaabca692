import { assert, describe, it } from "@effect/vitest";
import * as Array from "effect/Array";
import * as Effect from "effect/Effect";
import * as fc from "effect/FastCheck";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import * as Address from "../src/Address.js";
import { FeatureValue, fileText, type FeatureName, type HostFeatures } from "../src/Feature.js";
import { Metrics } from "../src/Metrics.js";
import { StateTree, type StateTreeError } from "../src/StateTree.js";
import { type EntryKind, MemoryFiles } from "../src/TreeFiles.js";

const host = (n: number): Address.Address => Address.parse(`10.0.${n >> 8}.${n & 255}`)!;
const a = host(1);
const b = host(2);

const features = (values: Record<string, string>): HostFeatures =>
  new Map(Object.entries(values).map(([name, value]) => [name as FeatureName, FeatureValue(value)]));

const nothing = features({});

/** One state directory, on disk or in memory, seen and changed from outside the service. */
interface World {
  readonly layer: Layer.Layer<StateTree, StateTreeError, Metrics>;
  readonly place: (path: string, kind: EntryKind, text?: string) => void;
  readonly erase: (path: string) => void;
  readonly exists: (path: string) => boolean;
  readonly read: (path: string) => string | undefined;
  /** Differs when a file was written again, though with the same content. */
  readonly identity: (path: string) => unknown;
}

const memory: Effect.Effect<World> = Effect.sync(() => {
  const files = new MemoryFiles();
  return {
    layer: StateTree.layerMemory(files),
    place: (path, kind, text) => files.place(path, kind, text),
    erase: (path) => files.erase(path),
    exists: (path) => files.identity(path) !== undefined,
    read: (path) => files.read(path),
    identity: (path) => files.identity(path),
  };
});

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-tree-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

const disk: Effect.Effect<World & { readonly directory: string }, never, Scope.Scope> = Effect.map(
  temporaryDirectory,
  (parent) => {
    const directory = join(parent, "a", "state");
    const at = (path: string): string => join(directory, path);
    return {
      directory,
      layer: StateTree.layer({ directory }),
      place: (path, kind, text = "") => {
        fs.mkdirSync(join(at(path), ".."), { recursive: true });
        if (kind === "directory") fs.mkdirSync(at(path), { recursive: true });
        else if (kind === "file") fs.writeFileSync(at(path), text, { mode: 0o444 });
        else fs.symlinkSync(parent, at(path));
      },
      erase: (path) => fs.rmSync(at(path), { recursive: true }),
      exists: (path) => fs.lstatSync(at(path), { throwIfNoEntry: false }) !== undefined,
      read: (path) => (fs.existsSync(at(path)) ? fs.readFileSync(at(path), "utf8") : undefined),
      identity: (path) => {
        const { ino, mtimeNs } = fs.lstatSync(at(path), { bigint: true });
        return `${ino} ${mtimeNs}`;
      },
    };
  },
);

/** One life of the service with its writer running: from its start to its end, without a withdrawal. */
const life = <A, E>(
  world: Pick<World, "layer">,
  body: (tree: StateTree.Service, metrics: Metrics.Service) => Effect.Effect<A, E>,
): Effect.Effect<A, E | StateTreeError> =>
  Effect.gen(function* () {
    const tree = yield* StateTree;
    return yield* Effect.raceFirst(body(tree, yield* Metrics), tree.run);
  }).pipe(Effect.provide(world.layer.pipe(Layer.provideMerge(Metrics.layer))));

/** Lets virtual time pass until all wishes stand in the tree. */
const flushed = Effect.fnUntraced(function* (tree: StateTree.Service) {
  const flushing = yield* Effect.fork(tree.flush);
  while (Option.isNone(yield* Fiber.poll(flushing))) yield* TestClock.adjust("5 millis");
});

interface Line {
  readonly level: string;
  readonly text: string;
}

const recordLines = (lines: Array<Line>): Layer.Layer<never> =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ logLevel, message }) => {
      lines.push({ level: logLevel.label, text: Array.ensure(message).join(" ") });
    }),
  );

const contract = (name: string, make: Effect.Effect<World, never, Scope.Scope>) =>
  describe(`StateTree on ${name}`, () => {
    it.scoped("shows each feature of each host as an indented file, and nothing before it is wished", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: '{"port":5432}', web: "true" }));
            tree.update(Address.ownHost, features({ db: "12345678901234567890" }));
            assert.isFalse(world.exists("features/db"));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), '{\n\t"port": 5432\n}\n');
            assert.strictEqual(world.read(`features/web/${a}`), "true\n");
            assert.strictEqual(world.read("features/db/127.0.0.1"), "12345678901234567890\n");
            assert.isFalse(world.exists(".tmp/nameq"));
            assert.strictEqual(metrics.value("tree_writes"), 3);
          }),
        );
      }),
    );

    it.scoped("changes no set that it was given, however it differs from the next one", () =>
      Effect.gen(function* () {
        const world = yield* make;
        const first = features({ db: "1", web: "true" });
        const second = features({ db: "2", cache: "0" });
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            for (const set of [first, second, first, second, nothing, first]) {
              tree.settle();
              tree.update(a, set);
              yield* flushed(tree);
              for (const name of ["db", "web", "cache"]) {
                const value = set.get(name as FeatureName);
                assert.strictEqual(
                  world.read(`features/${name}/${a}`),
                  value === undefined ? undefined : fileText(value),
                );
              }
            }
          }),
        );
        assert.deepStrictEqual(first, features({ db: "1", web: "true" }));
        assert.deepStrictEqual(second, features({ db: "2", cache: "0" }));
      }),
    );

    it.scoped("writes what changed and removes what went, and leaves the rest alone", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, features({ same: "1", changed: "1", gone: "1" }));
            yield* flushed(tree);
            const same = world.identity(`features/same/${a}`);
            tree.update(a, features({ same: "1", changed: "2" }));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/changed/${a}`), "2\n");
            assert.isFalse(world.exists(`features/gone/${a}`));
            assert.isTrue(world.exists("features/gone"));
            assert.deepStrictEqual(world.identity(`features/same/${a}`), same);
            assert.deepStrictEqual([metrics.value("tree_writes"), metrics.value("tree_removals")], [4, 1]);
            tree.update(a, nothing);
            tree.update(b, nothing);
            yield* flushed(tree);
            assert.isFalse(world.exists(`features/same/${a}`));
          }),
        );
      }),
    );

    it.scoped("writes a small change at once while nothing else waits, and leaves the rest to the writer", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            const many = (value: string) => Object.fromEntries(Array.makeBy(40, (n) => [`many-${n}`, value] as const));
            tree.update(a, features({ small: "1", ...many("1") }));
            yield* flushed(tree);
            tree.update(a, features({ small: "2", ...many("1") }));
            assert.strictEqual(world.read(`features/small/${a}`), "2\n");
            assert.strictEqual(metrics.value("tree_writes"), 42);
            tree.update(a, features({ small: "2", ...many("2") }));
            assert.isBelow(metrics.value("tree_writes"), 82);
            tree.update(b, features({ small: "3" }));
            assert.isFalse(world.exists(`features/small/${b}`));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/many-39/${a}`), "2\n");
            assert.strictEqual(world.read(`features/small/${b}`), "3\n");
            assert.strictEqual(metrics.value("tree_writes"), 83);
          }),
        );
      }),
    );

    it.scoped("writes only the latest of many wishes for a host", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            for (let i = 0; i < 1000; i++) tree.update(a, features({ n: String(i), [`only-${i}`]: "0" }));
            tree.update(a, features({ n: "1000" }));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/n/${a}`), "1000\n");
            assert.strictEqual(metrics.value("tree_writes"), 1);
            assert.isFalse(world.exists("features/only-0"));
          }),
        );
      }),
    );

    it.scoped("lets a new feature directory stand 5 ms before its first file, while other files go on", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ old: "1" }));
            yield* flushed(tree);
            tree.update(a, features({ new: "1", old: "2" }));
            tree.update(b, features({ new: "1", old: "1" }));
            yield* TestClock.adjust("0 millis");
            assert.isTrue(world.exists("features/new"));
            assert.strictEqual(world.read(`features/old/${a}`), "2\n");
            assert.strictEqual(world.read(`features/old/${b}`), "1\n");
            yield* TestClock.adjust("4 millis");
            assert.isFalse(world.exists(`features/new/${a}`));
            assert.isFalse(world.exists(`features/new/${b}`));
            yield* TestClock.adjust("1 millis");
            assert.isTrue(world.exists(`features/new/${a}`));
            assert.isTrue(world.exists(`features/new/${b}`));
          }),
        );
      }),
    );

    it.scoped("removes a feature directory that stayed empty for ten minutes, and no other", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place("features/found-empty", "directory");
        world.place("features/has-foreign/README", "file", "keep");
        world.place("features/not.a.name", "directory");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ used: "1", leaving: "1", returning: "1" }));
            yield* flushed(tree);
            yield* TestClock.adjust("5 minutes");
            tree.update(a, features({ used: "1" }));
            yield* flushed(tree);
            yield* TestClock.adjust("299 seconds");
            assert.isTrue(world.exists("features/found-empty"));
            yield* TestClock.adjust("1 seconds");
            assert.isFalse(world.exists("features/found-empty"));
            assert.isTrue(world.exists("features/leaving"));
            tree.update(a, features({ used: "1", returning: "1" }));
            yield* flushed(tree);
            yield* TestClock.adjust("5 minutes");
            assert.isFalse(world.exists("features/leaving"));
            assert.isTrue(world.exists(`features/returning/${a}`));
            assert.isTrue(world.exists(`features/used/${a}`));
            assert.isTrue(world.exists("features/has-foreign/README"));
            assert.isTrue(world.exists("features/not.a.name"));
            tree.update(b, features({ leaving: "2" }));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/leaving/${b}`), "2\n");
            world.erase("features/has-foreign/README");
            yield* TestClock.adjust("10 minutes");
            assert.isFalse(world.exists("features/has-foreign"));
          }),
        );
      }),
    );

    it.scoped("keeps what it finds at start until membership is known, then removes what nobody wished for", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1", web: "1" }));
            tree.update(b, features({ db: "1" }));
            tree.update(Address.ownHost, features({ mine: "1" }));
            yield* flushed(tree);
          }),
        );
        const kept = world.identity(`features/db/${a}`);
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            yield* TestClock.adjust("1 minutes");
            assert.strictEqual(world.read(`features/db/${b}`), "1\n");
            tree.update(a, features({ db: "1" }));
            yield* flushed(tree);
            assert.isFalse(world.exists(`features/web/${a}`));
            assert.strictEqual(world.read(`features/db/${b}`), "1\n");
            assert.strictEqual(world.read("features/mine/127.0.0.1"), "1\n");
            tree.settle();
            tree.settle();
            yield* flushed(tree);
            assert.isFalse(world.exists(`features/db/${b}`));
            assert.isFalse(world.exists("features/mine/127.0.0.1"));
            assert.deepStrictEqual(world.identity(`features/db/${a}`), kept);
            assert.strictEqual(metrics.value("tree_writes"), 0);
          }),
        );
      }),
    );

    it.scoped("writes a found file again when its content is not what is wished", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place(`features/db/${a}`, "file", "1\n");
        world.place(`features/web/${a}`, "file", "1");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "2", web: "1" }));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), "2\n");
            assert.strictEqual(world.read(`features/web/${a}`), "1\n");
          }),
        );
      }),
    );

    it.scoped("adds on a provisional wish, but changes and removes found files only on a firm one", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place(`features/db/${a}`, "file", "1\n");
        world.place(`features/web/${a}`, "file", "1\n");
        world.place(`features/db/${b}`, "file", "1\n");
        world.place(`features/web/${b}`, "file", "1\n");
        const provisional = { provisional: true };
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "2", new: "1", briefly: "1" }), provisional);
            tree.update(b, features({ db: "2", new: "1" }), provisional);
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), "1\n");
            assert.strictEqual(world.read(`features/web/${a}`), "1\n");
            assert.strictEqual(world.read(`features/new/${a}`), "1\n");
            // what was not found follows every wish
            tree.update(a, features({ db: "2", new: "2" }), provisional);
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/new/${a}`), "2\n");
            assert.isFalse(world.exists(`features/briefly/${a}`));
            tree.update(a, features({ db: "3" }));
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), "3\n");
            assert.isFalse(world.exists(`features/web/${a}`));
            assert.strictEqual(world.read(`features/db/${b}`), "1\n");
            tree.settle();
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${b}`), "2\n");
            assert.isFalse(world.exists(`features/web/${b}`));
            tree.update(b, features({ db: "4" }), provisional);
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${b}`), "4\n");
            assert.isFalse(world.exists(`features/new/${b}`));
          }),
        );
      }),
    );

    it.scoped("treats the same wish as firm when it comes again firmly", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place(`features/db/${a}`, "file", "1\n");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            const wish = features({ db: "2" });
            tree.update(a, wish, { provisional: true });
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), "1\n");
            tree.update(a, wish);
            yield* flushed(tree);
            assert.strictEqual(world.read(`features/db/${a}`), "2\n");
          }),
        );
      }),
    );

    it.scoped("never touches entries that cannot be its own", () =>
      Effect.gen(function* () {
        const world = yield* make;
        const foreign = [
          "features/README.md",
          "features/.hidden/10.0.0.1",
          "features/a.b/10.0.0.1",
          "features/db/notes",
          "features/db/.10.0.0.1",
          "features/db/010.0.0.1",
          "features/db/FD00::1",
          "features/db/fd00:0::1",
          "features/db/10.0.0.9/inside",
          ".tmp/of-another-program",
          "elsewhere/10.0.0.1",
        ];
        for (const path of foreign) world.place(path, "file", "keep");
        world.place("features/link", "other");
        world.place("features/db/10.0.0.8", "other");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1" }));
            tree.settle();
            yield* flushed(tree);
            tree.update(a, nothing);
            yield* flushed(tree);
            yield* TestClock.adjust("20 minutes");
            yield* tree.withdraw;
          }),
        );
        for (const path of foreign) assert.strictEqual(world.read(path), "keep", path);
        assert.isTrue(world.exists("features/link"));
        assert.isTrue(world.exists("features/db/10.0.0.8"));
      }),
    );

    it.scoped("reports what stands in the way of a feature once, writes the rest, and recovers when it is gone", () => {
      const lines: Array<Line> = [];
      return Effect.gen(function* () {
        const world = yield* make;
        world.place("features/link", "other");
        world.place("features/plain", "file", "keep");
        world.place(`features/db/${a}/inside`, "file", "keep");
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, features({ link: "1", plain: "1", good: "1" }));
            tree.update(b, features({ link: "1" }));
            yield* TestClock.adjust("1 minutes");
            assert.strictEqual(world.read(`features/good/${a}`), "1\n");
            assert.strictEqual(world.read("features/plain"), "keep");
            assert.isAbove(metrics.value("tree_errors", "ENOTDIR"), 6);
            assert.deepStrictEqual(
              lines.map(({ level }) => level),
              ["ERROR"],
            );
            assert.match(lines[0]!.text, /features\/link\/10\.0\.0\.1.*ENOTDIR.*remove or rename/);
            world.erase("features/link");
            world.erase("features/plain");
            yield* TestClock.adjust("38 seconds");
            assert.strictEqual(world.read(`features/link/${b}`), "1\n");
            assert.strictEqual(world.read(`features/plain/${a}`), "1\n");
            assert.deepStrictEqual(
              lines.map(({ level }) => level),
              ["ERROR", "INFO"],
            );
            tree.update(a, features({ db: "1" }));
            yield* TestClock.adjust("1 seconds");
            assert.match(lines[2]!.text, /features\/db\/10\.0\.0\.1.*EISDIR/);
            assert.isFalse(world.exists(".tmp/nameq"));
            assert.strictEqual(world.read(`features/db/${a}/inside`), "keep");
          }),
        );
      }).pipe(Effect.provide(recordLines(lines)));
    });

    it.scoped("does not let what fails for a host hold up its next wish", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place("features/bad", "file");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ bad: "1", good: "1" }));
            yield* TestClock.adjust("10 minutes");
            tree.update(a, features({ bad: "1", good: "2" }));
            yield* TestClock.adjust("0 millis");
            assert.strictEqual(world.read(`features/good/${a}`), "2\n");
          }),
        );
      }),
    );

    for (const gone of ["", "features", "features/db", ".tmp"]) {
      it.scoped(`makes ${gone === "" ? "the whole tree" : gone} again when it was removed from outside`, () =>
        Effect.gen(function* () {
          const world = yield* make;
          yield* life(world, (tree) =>
            Effect.gen(function* () {
              tree.update(a, features({ db: "1", web: "1" }));
              tree.update(b, features({ db: "1" }));
              tree.settle();
              yield* flushed(tree);
              const kept = gone === "features/db" ? world.identity(`features/web/${a}`) : undefined;
              world.erase(gone);
              // no wish: the writer sees it by itself
              yield* TestClock.adjust("6 seconds");
              for (const path of [`features/db/${a}`, `features/web/${a}`, `features/db/${b}`]) {
                assert.strictEqual(world.read(path), "1\n", path);
              }
              if (kept !== undefined) assert.deepStrictEqual(world.identity(`features/web/${a}`), kept);
              world.erase(gone);
              tree.update(a, features({ db: "2", other: "1" }));
              yield* TestClock.adjust("500 millis");
              assert.strictEqual(world.read(`features/db/${a}`), "2\n");
              assert.strictEqual(world.read(`features/other/${a}`), "1\n");
              assert.strictEqual(world.read(`features/db/${b}`), "1\n");
              assert.isFalse(world.exists(`features/web/${a}`));
            }),
          );
        }),
      );
    }

    it.scoped("goes on when one file was removed from outside", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1" }));
            yield* flushed(tree);
            world.erase(`features/db/${a}`);
            tree.update(a, nothing);
            yield* flushed(tree);
            assert.strictEqual(metrics.value("tree_errors", "ENOENT"), 0);
          }),
        );
      }),
    );

    it.scoped("takes a directory that appears from outside as it takes those found at start", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.settle();
            world.place(`features/db/${a}`, "file", "1\n");
            world.place(`features/web/${b}`, "file", "1\n");
            const found = world.identity(`features/db/${a}`);
            tree.update(a, features({ db: "1" }));
            yield* TestClock.adjust("6 seconds");
            assert.deepStrictEqual(world.identity(`features/db/${a}`), found);
            assert.isFalse(world.exists(`features/web/${b}`));
          }),
        );
      }),
    );

    it.scoped("removes its own leftover from .tmp at start", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place(".tmp/nameq", "file", "half");
        yield* life(world, () => Effect.void);
        assert.isFalse(world.exists(".tmp/nameq"));
      }),
    );

    it.scoped("withdraws every file it shows, also found ones, and leaves directories", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place(`features/found/${b}`, "file", "1\n");
        world.place("features/found/notes", "file", "keep");
        yield* Effect.gen(function* () {
          const tree = yield* StateTree;
          const running = yield* Effect.fork(tree.run);
          for (let i = 1; i < 200; i++) tree.update(host(i), features({ db: "1", web: "1" }), { provisional: true });
          yield* flushed(tree);
          yield* Fiber.interrupt(running);
          tree.update(a, features({ late: "1" }));
          yield* tree.withdraw;
          tree.update(a, features({ db: "1" }));
          tree.settle();
          yield* tree.withdraw;
        }).pipe(Effect.provide(world.layer), Effect.provide(Metrics.layer));
        for (let i = 1; i < 200; i++) assert.isFalse(world.exists(`features/db/${host(i)}`));
        assert.isFalse(world.exists(`features/found/${b}`));
        assert.isFalse(world.exists("features/late"));
        assert.isTrue(world.exists("features/db"));
        assert.isTrue(world.exists("features/found/notes"));
      }),
    );

    it.scoped("flushes what was wished before the flush, not what is wished after", () =>
      Effect.gen(function* () {
        const world = yield* make;
        world.place("features/bad", "file");
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            yield* tree.flush;
            tree.update(a, features({ db: "1" }));
            const flushing = yield* Effect.fork(tree.flush);
            yield* Effect.yieldNow();
            tree.update(b, features({ bad: "1" }));
            yield* TestClock.adjust("1 minutes");
            yield* Fiber.join(flushing);
            assert.strictEqual(world.read(`features/db/${a}`), "1\n");
            const stuck = yield* Effect.fork(tree.flush);
            yield* TestClock.adjust("1 minutes");
            assert.isTrue(Option.isNone(yield* Fiber.poll(stuck)));
            yield* Fiber.interrupt(stuck);
          }),
        );
      }),
    );

    it.scoped("is refused while another service has the directory, and not after", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* life(world, () =>
          Effect.gen(function* () {
            const error = yield* Effect.flip(life(world, () => Effect.void));
            assert.strictEqual(error.reason, "Locked");
            assert.match(error.message, /belongs to another nameq serve.*--state-dir/);
          }),
        );
        yield* life(world, () => Effect.void);
      }),
    );

    it.scoped("loses nothing when its writer is interrupted and started again", () =>
      Effect.gen(function* () {
        const world = yield* make;
        yield* Effect.gen(function* () {
          const tree = yield* StateTree;
          for (let i = 1; i <= 300; i++) tree.update(host(i), features({ db: "1", web: String(i) }));
          for (const turns of [0, 1, 2, 3, 5]) {
            const running = yield* Effect.fork(tree.run);
            yield* TestClock.adjust("5 millis");
            for (let i = 0; i < turns; i++) yield* Effect.promise(() => new Promise((done) => setImmediate(done)));
            yield* Fiber.interrupt(running);
            assert.isFalse(world.exists(".tmp/nameq"));
            for (let i = 1; i <= 300; i += 7) tree.update(host(i), features({ db: String(turns), web: "1" }));
          }
          const running = yield* Effect.fork(tree.run);
          yield* flushed(tree);
          yield* Fiber.interrupt(running);
        }).pipe(Effect.provide(world.layer), Effect.provide(Metrics.layer));
        for (let i = 1; i <= 300; i++) {
          const again = i % 7 === 1;
          assert.strictEqual(world.read(`features/db/${host(i)}`), again ? "5\n" : "1\n");
          assert.strictEqual(world.read(`features/web/${host(i)}`), again ? "1\n" : `${i}\n`);
        }
      }),
    );
  });

contract("disk", disk);
contract("memory", memory);

describe("StateTree on disk", () => {
  for (const mask of [0o022, 0o077, 0]) {
    it.scoped(`makes files and directories of exact modes under umask ${mask.toString(8).padStart(3, "0")}`, () =>
      Effect.gen(function* () {
        const { directory, ...world } = yield* disk;
        yield* Effect.acquireRelease(
          Effect.sync(() => process.umask(mask)),
          (before) => Effect.sync(() => process.umask(before)),
        );
        yield* life(world, (tree) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1", web: "1" }));
            yield* flushed(tree);
          }),
        );
        const mode = (path: string): string => (fs.lstatSync(join(directory, path)).mode & 0o7777).toString(8);
        assert.deepStrictEqual(
          ["..", "", "features", ".tmp", "features/db", `features/db/${a}`, `features/web/${a}`].map(mode),
          ["755", "755", "755", "700", "755", "444", "444"],
        );
      }),
    );
  }

  it.scopedLive("never lets a reader see half a file", () =>
    Effect.gen(function* () {
      const { directory, ...world } = yield* disk;
      const path = join(directory, "features/db", a);
      const values = [1, 100, 20_000].map((length) => `"${"x".repeat(length)}"`);
      yield* life(world, (tree) =>
        Effect.gen(function* () {
          tree.update(a, features({ db: values[0]! }));
          yield* tree.flush;
          const stop = new Int32Array(new SharedArrayBuffer(4));
          const texts = values.map((value) => fileText(FeatureValue(value)));
          const reader = new Worker(
            `const { parentPort, workerData: { path, texts, stop } } = require("node:worker_threads");
             const fs = require("node:fs");
             const seen = new Set();
             while (Atomics.load(stop, 0) === 0) seen.add(texts.indexOf(fs.readFileSync(path, "utf8")));
             parentPort.postMessage([...seen]);`,
            { eval: true, workerData: { path, texts, stop } },
          );
          const seen = yield* Effect.fork(
            Effect.async<ReadonlyArray<number>, Error>((resume) => {
              reader.once("message", (which: ReadonlyArray<number>) => resume(Effect.succeed(which)));
              reader.once("error", (error: Error) => resume(Effect.fail(error)));
            }),
          );
          yield* Effect.promise(() => new Promise((online) => reader.once("online", online)));
          for (let i = 0; i < 1000; i++) {
            tree.update(a, features({ db: values[i % values.length]! }));
            yield* tree.flush;
          }
          Atomics.store(stop, 0, 1);
          const which = yield* Fiber.join(seen);
          assert.notInclude(which, -1);
          assert.isAbove(which.length, 1);
        }),
      );
    }),
  );

  it.scoped("neither writes nor reads through a symbolic link that stands at a file's place", () =>
    Effect.gen(function* () {
      const { directory, ...world } = yield* disk;
      const outside = join(directory, "../outside");
      const link = join(directory, "features/db", a);
      const swapped = join(directory, "features/db", b);
      world.place(`features/db/${b}`, "file", "2\n");
      fs.writeFileSync(outside, "2\n", { mode: 0o444 });
      fs.symlinkSync(outside, link);
      yield* life(world, (tree) =>
        Effect.gen(function* () {
          fs.rmSync(swapped);
          fs.symlinkSync(outside, swapped);
          tree.update(a, features({ db: "3" }));
          tree.update(b, features({ db: "2" }));
          yield* flushed(tree);
        }),
      );
      assert.strictEqual(fs.readFileSync(outside, "utf8"), "2\n");
      assert.isTrue(fs.lstatSync(link).isFile());
      assert.isTrue(fs.lstatSync(swapped).isFile());
    }),
  );

  it.scoped("says what to do when the directory cannot be made", () =>
    Effect.gen(function* () {
      const { directory } = yield* disk;
      fs.mkdirSync(join(directory, ".."), { recursive: true });
      fs.writeFileSync(directory, "");
      for (const path of [directory, join(directory, "below")]) {
        const error = yield* Effect.flip(life({ layer: StateTree.layer({ directory: path }) }, () => Effect.void));
        assert.strictEqual(error.reason, "Unusable");
        assert.include(error.message, path);
        assert.match(error.message, /EEXIST|ENOTDIR/);
        assert.match(error.message, /--state-dir/);
      }
      fs.rmSync(directory);
      fs.mkdirSync(directory);
      fs.symlinkSync("/", join(directory, "features"));
      const error = yield* Effect.flip(life({ layer: StateTree.layer({ directory }) }, () => Effect.void));
      assert.match(error.message, /ENOTDIR.*features/);
    }),
  );

  it.scopedLive("ends when the directory was removed and another service has it now", () =>
    Effect.gen(function* () {
      const { directory, ...world } = yield* disk;
      yield* Effect.gen(function* () {
        const tree = yield* StateTree;
        fs.rmSync(directory, { recursive: true });
        const error = yield* life(world, () =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1" }));
            fs.rmSync(join(directory, "features"), { recursive: true });
            fs.rmSync(join(directory, ".tmp"), { recursive: true });
            return yield* Effect.flip(tree.run);
          }),
        );
        assert.strictEqual(error.reason, "Locked");
        assert.strictEqual(error.holder?.pid, process.pid);
      }).pipe(Effect.provide(world.layer), Effect.provide(Metrics.layer), Effect.provide(recordLines([])));
    }),
  );
});

describe("StateTree on files that fail", () => {
  for (const code of ["ENOSPC", "EACCES", "EROFS"]) {
    it.scoped(`retries ${code} with back-off, reports it once, and writes all when it is over`, () => {
      const lines: Array<Line> = [];
      return Effect.gen(function* () {
        const files = new MemoryFiles();
        yield* life({ layer: StateTree.layerMemory(files) }, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, features({ db: "1", web: "1" }));
            yield* flushed(tree);
            files.fault = (operation) => (operation === "write" || operation === "rename" ? code : undefined);
            tree.update(a, features({ web: "2" }));
            for (let i = 2; i <= 100; i++) tree.update(host(i), features({ db: String(i) }));
            yield* TestClock.adjust("10 minutes");
            // a removal does not wait for what cannot be written
            assert.isUndefined(files.read(`features/db/${a}`));
            assert.strictEqual(files.read(`features/web/${a}`), "1\n");
            const tries = metrics.value("tree_errors", code) / 100;
            assert.isAbove(tries, 20);
            assert.isBelow(tries, 40);
            assert.strictEqual(lines.length, 1);
            assert.strictEqual(lines[0]!.level, "ERROR");
            assert.include(lines[0]!.text, code);
            files.fault = undefined;
            yield* TestClock.adjust("38 seconds");
            for (let i = 2; i <= 100; i++) assert.strictEqual(files.read(`features/db/${host(i)}`), `${i}\n`);
            assert.strictEqual(files.read(`features/web/${a}`), "2\n");
            assert.isUndefined(files.read(".tmp/nameq"));
            assert.deepStrictEqual(
              lines.map(({ level }) => level),
              ["ERROR", "INFO"],
            );
          }),
        );
      }).pipe(Effect.provide(recordLines(lines)));
    });
  }

  it.scoped("starts on a full disk, says so once, and writes all when there is room", () => {
    const lines: Array<Line> = [];
    return Effect.gen(function* () {
      const files = new MemoryFiles();
      files.makeDirectory("");
      // below what cannot be made, everything fails for another reason, which is not to be told
      files.fault = (operation, path) => (operation === "makeDirectory" && !path.includes("/") ? "ENOSPC" : undefined);
      yield* life({ layer: StateTree.layerMemory(files) }, (tree, metrics) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("1 minutes");
          tree.update(a, features({ db: "1" }));
          tree.update(b, features({ db: "2" }));
          tree.settle();
          yield* TestClock.adjust("9 minutes");
          assert.isAbove(metrics.value("tree_errors", "ENOSPC"), 100);
          assert.isBelow(metrics.value("tree_errors", "ENOSPC"), 130);
          files.fault = undefined;
          yield* TestClock.adjust("5100 millis");
          assert.deepStrictEqual(
            [...files.features.get("db")!],
            [
              [a, "1\n"],
              [b, "2\n"],
            ],
          );
          assert.deepStrictEqual(
            lines.map(({ level, text }) => `${level} ${text}`),
            [
              "ERROR cannot make memory/features (ENOSPC), will try again: free space or inodes on its file system",
              "INFO files in memory can be written again",
            ],
          );
        }),
      );
    }).pipe(Effect.provide(recordLines(lines)));
  });

  it.scoped("does not start where it may not write", () =>
    Effect.gen(function* () {
      const files = new MemoryFiles();
      files.makeDirectory("");
      files.fault = (operation) => (operation === "makeDirectory" ? "EACCES" : undefined);
      const error = yield* Effect.flip(life({ layer: StateTree.layerMemory(files) }, () => Effect.void));
      assert.strictEqual(error.reason, "Unusable");
    }),
  );

  it.scoped("shows what it can while one file fails", () =>
    Effect.gen(function* () {
      const files = new MemoryFiles();
      files.fault = (operation, path) => (operation === "rename" && path === `features/db/${a}` ? "EIO" : undefined);
      yield* life({ layer: StateTree.layerMemory(files) }, (tree) =>
        Effect.gen(function* () {
          tree.update(a, features({ db: "1", web: "1" }));
          tree.update(b, features({ db: "1" }));
          yield* TestClock.adjust("1 minutes");
          assert.deepStrictEqual([...files.features.get("db")!], [[b, "1\n"]]);
          assert.deepStrictEqual([...files.features.get("web")!], [[a, "1\n"]]);
          assert.isUndefined(files.read(".tmp/nameq"));
        }),
      );
    }),
  );

  it.scoped("reads a directory that it could not read at start when it can be read", () =>
    Effect.gen(function* () {
      const files = new MemoryFiles();
      files.place(`features/db/${a}`, "file", "1\n");
      files.fault = (operation, path) => (operation === "list" && path === "features/db" ? "EACCES" : undefined);
      yield* life({ layer: StateTree.layerMemory(files) }, (tree, metrics) =>
        Effect.gen(function* () {
          tree.settle();
          yield* TestClock.adjust("1 minutes");
          assert.strictEqual(files.read(`features/db/${a}`), "1\n");
          assert.isAbove(metrics.value("tree_errors", "EACCES"), 1);
          files.fault = undefined;
          yield* TestClock.adjust("5 seconds");
          assert.isUndefined(files.read(`features/db/${a}`));
        }),
      );
    }),
  );

  it.scoped("asks nothing of the disk for what has not changed", () =>
    Effect.gen(function* () {
      const files = new MemoryFiles();
      yield* life({ layer: StateTree.layerMemory(files) }, (tree) =>
        Effect.gen(function* () {
          tree.update(a, features({ db: "1", web: "1" }));
          yield* flushed(tree);
          tree.update(a, features({ db: "1" }));
          yield* flushed(tree);
          tree.update(a, features({ db: "1", web: "1" }));
          yield* flushed(tree);
          yield* TestClock.adjust("6 seconds");
          const operations: Array<string> = [];
          files.fault = (operation, path) => void operations.push(`${operation} ${path}`);
          tree.update(a, features({ web: "1", db: "1" }));
          tree.settle();
          yield* flushed(tree);
          yield* TestClock.adjust("11 minutes");
          assert.deepStrictEqual(operations, []);
          tree.update(a, features({ web: "1", db: "2" }));
          yield* flushed(tree);
          assert.deepStrictEqual(operations, ["write .tmp/nameq", `rename features/db/${a}`]);
        }),
      );
    }),
  );

  for (const operation of ["write", "unlink"] as const) {
    it.scoped(`takes a wish that comes in the middle of a host's ${operation}s`, () =>
      Effect.gen(function* () {
        const files = new MemoryFiles();
        const many = (value: string): HostFeatures =>
          features(Object.fromEntries(Array.makeBy(200, (i) => [`f${i}`, value])));
        yield* life({ layer: StateTree.layerMemory(files) }, (tree, metrics) =>
          Effect.gen(function* () {
            tree.update(a, many("1"));
            yield* flushed(tree);
            let operations = 0;
            files.fault = (which) => {
              if (which === operation && ++operations === 100) tree.update(a, features({ f0: "3" }));
              return undefined;
            };
            tree.update(a, operation === "write" ? many("2") : nothing);
            yield* flushed(tree);
            const shown = [...files.features].filter(([, texts]) => texts.size > 0);
            assert.deepStrictEqual(shown, [["f0" as const, new Map([[String(a), "3\n"]])]]);
            assert.isAtMost(metrics.value("tree_writes"), 301);
          }),
        );
      }),
    );
  }

  it.scoped("hears no wish any more while it withdraws", () =>
    Effect.gen(function* () {
      const files = new MemoryFiles();
      yield* life({ layer: StateTree.layerMemory(files) }, (tree) =>
        Effect.gen(function* () {
          for (let i = 1; i <= 100; i++) tree.update(host(i), features({ db: "1" }));
          yield* flushed(tree);
          files.fault = (operation, path) => {
            if (operation === "unlink" && path.endsWith(".50")) tree.update(a, features({ db: "2" }));
            return undefined;
          };
          yield* tree.withdraw;
          assert.strictEqual(files.features.get("db")!.size, 0);
        }),
      );
    }),
  );

  it.scoped("reports a withdrawal that fails, removes the rest, and ends", () => {
    const lines: Array<Line> = [];
    return Effect.gen(function* () {
      const files = new MemoryFiles();
      yield* life({ layer: StateTree.layerMemory(files) }, (tree) =>
        Effect.gen(function* () {
          for (let i = 1; i <= 100; i++) tree.update(host(i), features({ db: "1" }));
          yield* flushed(tree);
          files.fault = (operation, path) => (operation === "unlink" && path.endsWith("7") ? "EIO" : undefined);
          yield* tree.withdraw;
          assert.strictEqual(files.features.get("db")!.size, 10);
          assert.strictEqual(lines.length, 1);
        }),
      );
    }).pipe(Effect.provide(recordLines(lines)));
  });

  it.effect("comes to the wished tree after a crash at any operation", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.tuple(
              fc.integer({ min: 1, max: 6 }),
              fc.dictionary(fc.constantFrom("a", "b", "c"), fc.constantFrom("1", '{"k":[1]}', "null")),
              fc.boolean(),
            ),
            { maxLength: 30 },
          ),
          fc.integer({ min: 1, max: 120 }),
          fc.constantFrom("crash" as const, "interrupt" as const),
          (wishes, at, how) => Effect.runPromise(crashAndRestart(wishes, at, how)),
        ),
        { numRuns: 200 },
      ),
    ),
  );
});

const crashAndRestart = (
  wishes: ReadonlyArray<readonly [number, Record<string, string>, boolean]>,
  at: number,
  how: "crash" | "interrupt",
): Effect.Effect<void, StateTreeError> =>
  Effect.gen(function* () {
    const files = new MemoryFiles();
    const layer = StateTree.layerMemory(files);
    const allowed = new Set(["1\n", fileText(FeatureValue('{"k":[1]}')), "null\n"]);
    let operations = 0;
    const first = yield* Effect.fork(
      life({ layer }, (tree) =>
        Effect.gen(function* () {
          for (const [n, values, provisional] of wishes) {
            tree.update(host(n), features(values), { provisional });
            yield* Effect.yieldNow();
          }
          tree.settle();
          yield* tree.flush;
        }),
      ),
    );
    files.fault = () => {
      if (++operations >= at) {
        if (how === "crash") throw new Error("crashed");
        first.unsafeInterruptAsFork(first.id());
      }
      return undefined;
    };
    yield* Fiber.await(first);
    files.fault = undefined;
    if (how === "interrupt") assert.isUndefined(files.read(".tmp/nameq"));
    for (const texts of files.features.values()) for (const text of texts.values()) assert.isTrue(allowed.has(text));
    const wished = new Map(wishes.map(([n, values]) => [host(n), features(values)]));
    yield* life({ layer }, (tree) =>
      Effect.gen(function* () {
        for (const [address, values] of wished) tree.update(address, values);
        tree.settle();
        yield* tree.flush;
      }),
    );
    assert.isUndefined(files.read(".tmp/nameq"));
    const shown = [...files.features].flatMap(([name, texts]) =>
      [...texts].map(([address, text]) => `${name} ${address} ${text}`),
    );
    const expected = [...wished].flatMap(([address, values]) =>
      [...values].map(([name, value]) => `${name} ${address} ${fileText(value)}`),
    );
    assert.deepStrictEqual(shown.toSorted(), expected.toSorted());
  });
