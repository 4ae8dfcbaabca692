import { assert, describe, it } from "@effect/vitest";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as fc from "effect/FastCheck";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as SubscriptionRef from "effect/SubscriptionRef";
import * as TestClock from "effect/TestClock";
import * as TestContext from "effect/TestContext";
import * as TestServices from "effect/TestServices";
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type * as DirectoryHints from "../src/DirectoryHints.js";
import * as Feature from "../src/Feature.js";
import type { FeatureName, FeatureSet } from "../src/Feature.js";
import { FeatureSource, maxFileSize } from "../src/FeatureSource.js";
import { Metrics } from "../src/Metrics.js";

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-source-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

const setOf = (json: string): FeatureSet => {
  const parsed = Feature.parseSet(json);
  if (typeof parsed !== "object" || "_tag" in parsed) throw new Error(`no set: ${json}`);
  return parsed.set;
};

const silent = Logger.remove(Logger.defaultLogger);

/** Every snapshot of a source so far, as text. */
const observe = Effect.gen(function* () {
  const source = yield* FeatureSource;
  const seen = yield* SubscriptionRef.make<ReadonlyArray<string>>([]);
  yield* Effect.forkScoped(
    Stream.runForEach(source.snapshots, (set) => SubscriptionRef.update(seen, (texts) => [...texts, set.text])),
  );
  const untilRight = (what: string, right: (text: string) => boolean) =>
    TestServices.provideLive(
      seen.changes.pipe(
        Stream.filter((texts) => texts.length > 0 && right(texts.at(-1)!)),
        Stream.runHead,
        Effect.timeout("20 seconds"),
        Effect.catchAll(() =>
          Effect.flatMap(seen.get, (texts) => Effect.dieMessage(`no ${what}, last ${texts.at(-1)?.slice(0, 200)}`)),
        ),
        Effect.asVoid,
      ),
    );
  return {
    untilRight,
    /** Waits until the newest snapshot is this one. */
    until: (json: string) => untilRight(json.slice(0, 200), (text) => text === json),
    seen: seen.get,
  };
});

/** Feature files as somebody outside the source writes them. */
interface Files {
  readonly layer: Layer.Layer<FeatureSource>;
  readonly write: (name: string, text: string) => Effect.Effect<void>;
  readonly remove: (name: string) => Effect.Effect<void>;
}

const inMemory = (features: FeatureSet): Effect.Effect<Files> =>
  Effect.map(FeatureSource.makeMemory(features), (memory) => ({
    layer: FeatureSource.layerMemory(memory),
    write: (name, text) => memory.write(name as FeatureName, text),
    remove: (name) => memory.remove(name as FeatureName),
  }));

const onDisk = (features: FeatureSet): Effect.Effect<Files, never, Scope.Scope> =>
  Effect.map(temporaryDirectory, (directory) => ({
    layer: FeatureSource.layer({ directory, features }).pipe(Layer.provide(Metrics.layer)),
    write: (name, text) =>
      Effect.sync(() => {
        fs.writeFileSync(join(directory, ".new"), text);
        fs.renameSync(join(directory, ".new"), join(directory, name));
      }),
    remove: (name) => Effect.sync(() => fs.unlinkSync(join(directory, name))),
  }));

for (const [where, make] of [
  ["in memory", inMemory],
  ["on disk", onDisk],
] as const) {
  describe(`features from arguments and files ${where}`, () => {
    it.scopedLive("start with the arguments, and with the files that are there", () =>
      Effect.gen(function* () {
        const files = yield* make(setOf('{"arg":1,"both":2,"hidden":4}'));
        yield* files.write("both", "3");
        yield* files.write("hidden", " ");
        yield* files.write("broken", "{");
        const { seen, until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* until('{"arg":1,"both":3}');
        assert.deepStrictEqual(yield* seen, ['{"arg":1,"both":3}']);
      }),
    );

    it.scopedLive("a file overrides the argument of its name, which is back when the file goes", () =>
      Effect.gen(function* () {
        const files = yield* make(setOf('{"web":1}'));
        const { until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* until('{"web":1}');
        yield* files.write("web", "2");
        yield* until('{"web":2}');
        yield* files.write("db", '{ "port" : 5432 }\n');
        yield* until('{"db":{"port":5432},"web":2}');
        yield* files.remove("web");
        yield* until('{"db":{"port":5432},"web":1}');
        yield* files.remove("db");
        yield* until('{"web":1}');
      }),
    );

    for (const [kind, text] of [
      ["an empty", ""],
      ["a blank", " \n\t\r\n"],
    ] as const) {
      it.scopedLive(`${kind} file removes the argument of its name until it goes`, () =>
        Effect.gen(function* () {
          const files = yield* make(setOf('{"db":1,"web":1}'));
          const { until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
          yield* until('{"db":1,"web":1}');
          yield* files.write("web", text);
          yield* until('{"db":1}');
          yield* files.remove("web");
          yield* until('{"db":1,"web":1}');
        }),
      );
    }

    it.scopedLive("a file that becomes invalid leaves its last good value until it is valid or gone", () =>
      Effect.gen(function* () {
        const files = yield* make(setOf('{"web":1}'));
        const { seen, until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* until('{"web":1}');
        yield* files.write("web", '{"half":');
        yield* files.write("a", "1");
        yield* until('{"a":1,"web":1}');
        yield* files.write("web", "2");
        yield* until('{"a":1,"web":2}');
        yield* files.write("web", "2 3");
        yield* files.write("a", "2");
        yield* until('{"a":2,"web":2}');
        yield* files.write("web", "3");
        yield* until('{"a":2,"web":3}');
        yield* files.write("web", "]");
        yield* files.remove("web");
        yield* until('{"a":2,"web":1}');
        assert.strictEqual((yield* seen).length, 6);
      }),
    );

    it.scopedLive("null is a value, and numbers stay as they were written", () =>
      Effect.gen(function* () {
        const files = yield* make(Feature.empty);
        const { until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* files.write("a", "null");
        yield* files.write("b", "[12345678901234567890, 1e400, 0.10]");
        yield* until('{"a":null,"b":[12345678901234567890,1e400,0.10]}');
      }),
    );

    it.scopedLive("a file written again with the same value in other white space is no change", () =>
      Effect.gen(function* () {
        const files = yield* make(Feature.empty);
        const { seen, until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* files.write("web", '{"a":1}');
        yield* until('{"web":{"a":1}}');
        const before = (yield* seen).length;
        yield* files.write("web", '\n{ "a" : 1 }\n');
        yield* files.write("z", "1");
        yield* until('{"web":{"a":1},"z":1}');
        assert.strictEqual((yield* seen).length, before + 1);
      }),
    );

    it.scopedLive("past the most that a node may have, the last names are left out", () =>
      Effect.gen(function* () {
        const names = Array.from({ length: Feature.maxFeatures }, (_, n) => `m${String(n).padStart(4, "0")}`);
        const full = Feature.fromEntries(names.map((name) => [name as FeatureName, Feature.FeatureValue("1")]));
        const files = yield* make(full);
        const { until } = yield* observe.pipe(Effect.provide([files.layer, silent]));
        yield* until(full.text);
        yield* files.write("z", "1");
        yield* files.write("a", "1");
        yield* until(`{"a":1,${full.text.slice(1).replace(/,"m4095":1/, "")}`);
        yield* files.remove("a");
        yield* until(full.text);
      }),
    );
  });
}

describe("features in memory", () => {
  it.scopedLive("are set, removed and replaced by value, and outlive a source", () =>
    Effect.gen(function* () {
      const memory = yield* FeatureSource.makeMemory(setOf('{"arg":1}'));
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { until } = yield* observe;
          yield* memory.set("web" as FeatureName, Feature.FeatureValue('{"a":1}'));
          yield* until('{"arg":1,"web":{"a":1}}');
          yield* memory.replace(setOf('{"db":[2]}'));
          yield* until('{"arg":1,"db":[2]}');
        }),
      ).pipe(Effect.provide(FeatureSource.layerMemory(memory)));
      const { until } = yield* observe.pipe(Effect.provide(FeatureSource.layerMemory(memory)));
      yield* until('{"arg":1,"db":[2]}');
    }),
  );
});

describe("features without a directory", () => {
  it.scoped("are the arguments, in one snapshot", () =>
    Effect.gen(function* () {
      const { seen } = yield* observe.pipe(
        Effect.provide(FeatureSource.layer({ features: setOf('{"b":1, "a":2}') }).pipe(Layer.provide(Metrics.layer))),
      );
      yield* TestClock.adjust("1 hour");
      assert.deepStrictEqual(yield* seen, ['{"a":2,"b":1}']);
    }),
  );
});

/** Longer than any tick of file times: between a look and what must differ from it. */
const realTick = TestServices.provideLive(Effect.sleep("12 millis"));

/**
 * A source over a real directory in a test's own time, with a watch that sees only what the test says. What is logged
 * and counted is kept.
 */
const inHand = (
  arguments_: string,
  prepare: (directory: string) => void = (directory) => {
    fs.mkdirSync(directory);
  },
) =>
  Effect.gen(function* () {
    const directory = join(yield* temporaryDirectory, "features");
    prepare(directory);
    const logs: Array<string> = [];
    let event: ((name: string | null) => void) | undefined;
    const watch: DirectoryHints.Watch = (_, onEvent) => {
      event = onEvent;
      return { close: () => void (event = undefined) };
    };
    const metrics = yield* Layer.build(Metrics.layer);
    const { seen } = yield* observe.pipe(
      Effect.provide(FeatureSource.layer({ directory, features: setOf(arguments_), hints: { watch } })),
      Effect.provide(metrics),
      Effect.provide(
        Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ logLevel, message }) => void logs.push(`${logLevel.label} ${String(message)}`)),
        ),
      ),
    );
    const path = (name: string) => join(directory, name);
    const settle = Effect.gen(function* () {
      for (let n = 0; n < 2; n++) {
        yield* realTick;
        yield* TestClock.adjust("3 seconds");
      }
    });
    yield* TestClock.adjust(0);
    yield* settle;
    return {
      directory,
      logs,
      path,
      seen,
      count: (reason: string) => Context.get(metrics, Metrics).value("feature_file_errors", reason),
      /** In place, as `echo` in a shell does. */
      write: (name: string, text: string | Buffer) => fs.writeFileSync(path(name), text),
      /** A watch event; it is looked at before this ends. */
      see: (name: string | null) =>
        Effect.suspend(() => {
          event?.(name);
          return TestClock.adjust(0);
        }),
      /** Long enough for everything that is not seen by the watch. */
      settle,
      last: Effect.map(seen, (texts) => texts.at(-1)),
    };
  });

describe("a feature directory, by what was seen of it", () => {
  it.scoped("a file that is half-written does not flap, and is not reported", () =>
    Effect.gen(function* () {
      const source = yield* inHand('{"web":0}');
      source.write("web", "[1]");
      yield* source.see("web");
      for (const part of ["", "[", "[2", "[2]"]) {
        assert.strictEqual(yield* source.last, '{"web":[1]}');
        source.write("web", part);
        yield* source.see("web");
      }
      assert.deepStrictEqual(yield* source.seen, ['{"web":0}', '{"web":[1]}', '{"web":[2]}']);
      yield* source.settle;
      assert.deepStrictEqual(source.logs, []);
    }),
  );

  it.scoped("a file that stays blank for a tenth of a second is believed", () =>
    Effect.gen(function* () {
      const source = yield* inHand('{"web":0}');
      source.write("web", "");
      yield* source.see("web");
      yield* TestClock.adjust("90 millis");
      assert.strictEqual(yield* source.last, '{"web":0}');
      yield* TestClock.adjust("20 millis");
      assert.strictEqual(yield* source.last, "{}");
    }),
  );

  it.scoped("a file that was long invalid and is blank for a moment keeps its last good value", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      source.write("web", "1");
      yield* source.settle;
      source.write("web", "{");
      yield* source.settle;
      source.write("web", "");
      yield* source.see("web");
      source.write("web", "2");
      yield* source.see("web");
      assert.deepStrictEqual(yield* source.seen, ["{}", '{"web":1}', '{"web":2}']);
    }),
  );

  it.scoped("a blank file that comes with old times, by a link, is believed in the end too", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.now() + 3_600_000);
      const source = yield* inHand('{"web":0}');
      source.write(".one", "1");
      source.write(".blank", "");
      fs.symlinkSync(".one", source.path("web"));
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":1}');
      fs.unlinkSync(source.path("web"));
      fs.symlinkSync(".blank", source.path("web"));
      yield* source.see("web");
      assert.strictEqual(yield* source.last, '{"web":1}');
      yield* source.settle;
      assert.strictEqual(yield* source.last, "{}");
    }),
  );

  it.scoped("a value of the same size written in the same tick is not missed", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      for (let n = 0; n < 5; n++) {
        source.write("web", "1");
        yield* source.see("web");
        source.write("web", "2");
        yield* source.settle;
        assert.strictEqual(yield* source.last, '{"web":2}');
      }
    }),
  );

  it.scoped("what the watch did not see at all is found: writes in place, new files, removals", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      source.write("web", "1");
      source.write("db", "1");
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"db":1,"web":1}');
      yield* realTick;
      source.write("web", "2");
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"db":1,"web":2}');
      fs.unlinkSync(source.path("db"));
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":2}');
    }),
  );

  const faults: ReadonlyArray<readonly [what: string, reason: string, said: string, make: (path: string) => void]> = [
    ["is no JSON", "syntax", "not JSON at character 8", (path) => fs.writeFileSync(path, '{"a":1 ')],
    ["goes on after the value", "syntax", "not JSON at character 3", (path) => fs.writeFileSync(path, "1 2")],
    ["starts with a byte order mark", "syntax", "at character 1", (path) => fs.writeFileSync(path, "\ufeff1")],
    ["is too deep", "depth", "at character 65", (path) => fs.writeFileSync(path, "[".repeat(65) + "]".repeat(65))],
    ["is no UTF-8", "utf8", "not UTF-8", (path) => fs.writeFileSync(path, Buffer.from([34, 0xff, 34]))],
    [
      "is too large",
      "size",
      "larger than 1048576 bytes",
      (path) => fs.writeFileSync(path, `"${"x".repeat(maxFileSize)}"`),
    ],
    [
      "is larger than memory",
      "size",
      "larger than",
      (path) => (fs.writeFileSync(path, ""), fs.truncateSync(path, 2 ** 40)),
    ],
    ["is a FIFO", "kind", "neither a file", (path) => void execFileSync("mkfifo", [path])],
    ["cannot be read", "read", "ELOOP", (path) => fs.symlinkSync("web", path)],
  ];
  for (const [what, reason, said, make] of faults) {
    it.scoped(`a file that ${what} is reported once, counted as ${reason}, and keeps its last good value`, () =>
      Effect.gen(function* () {
        const source = yield* inHand("{}");
        source.write("web", "1");
        yield* source.settle;
        for (const round of [1, 2]) {
          fs.unlinkSync(source.path("web"));
          make(source.path("web"));
          yield* source.see("web");
          yield* source.settle;
          yield* source.see("web");
          yield* source.see(null);
          yield* source.settle;
          assert.strictEqual(source.count(reason), round);
          assert.strictEqual(source.logs.length, 2 * round - 1);
          const line = source.logs.at(-1)!;
          assert.isTrue(line.startsWith("WARN"));
          for (const part of [source.path("web"), "last good value stays", said]) assert.include(line, part);
          assert.strictEqual(yield* source.last, '{"web":1}');
          fs.unlinkSync(source.path("web"));
          source.write("web", "1");
          yield* source.settle;
          assert.match(source.logs.at(-1)!, /^INFO .* is good again$/);
        }
        assert.deepStrictEqual(yield* source.seen, ["{}", '{"web":1}']);
      }),
    );
  }

  it.scoped("another fault in the same file is reported too, but not each one of a file that never rests", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      for (let n = 1; n < 20; n++) {
        source.write("web", `${" ".repeat(n)}x`);
        yield* source.see("web");
        yield* TestClock.adjust("50 millis");
      }
      assert.strictEqual(source.count("syntax"), 1);
      yield* source.settle;
      assert.strictEqual(source.count("syntax"), 2);
      assert.include(source.logs.at(-1)!, "at character 20");
    }),
  );

  it.scoped("an invalid file is as good as none when there was nothing good before", () =>
    Effect.gen(function* () {
      const source = yield* inHand('{"web":0}', (directory) => {
        fs.mkdirSync(directory);
        fs.writeFileSync(join(directory, "web"), "{");
      });
      assert.deepStrictEqual(yield* source.seen, ['{"web":0}']);
      assert.strictEqual(source.count("syntax"), 1);
      assert.notInclude(source.logs[0], "last good");
    }),
  );

  it.scoped("sub-directories and dot files are skipped silently, other names with one warning each", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      for (const name of ["sub", "sub.d", ".tmp"]) fs.mkdirSync(source.path(name));
      for (const name of [".hidden", "a.json", "b~", "web"]) source.write(name, "1");
      fs.symlinkSync("sub", source.path("link"));
      for (let n = 0; n < 3; n++) yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":1}');
      assert.strictEqual(source.count("name"), 2);
      assert.strictEqual(source.logs.length, 2);
      for (const name of ["a.json", "b~"]) assert.isTrue(source.logs.some((line) => line.includes(source.path(name))));
    }),
  );

  it.scoped("very many other names are not all reported", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      for (let n = 0; n < 100; n++) source.write(`${n}.json`, "1");
      yield* source.settle;
      assert.strictEqual(source.logs.length, 32);
      assert.include(source.logs.at(-1)!, "no longer reported");
    }),
  );

  it.scoped("links to files are followed, as in a config map whose files all change by one link", () =>
    Effect.gen(function* () {
      const source = yield* inHand('{"web":0}');
      const { path } = source;
      const version = (name: string, files: Record<string, string>) => {
        fs.mkdirSync(path(name));
        for (const [file, text] of Object.entries(files)) fs.writeFileSync(join(path(name), file), text);
        fs.symlinkSync(name, path("..data_tmp"));
        fs.renameSync(path("..data_tmp"), path("..data"));
      };
      version("..v1", { web: "1", db: "1" });
      for (const name of ["web", "db"]) fs.symlinkSync(`..data/${name}`, path(name));
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"db":1,"web":1}');
      version("..v2", { web: "2" });
      fs.rmSync(path("..v1"), { recursive: true });
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":2}');
      fs.unlinkSync(path("db"));
      version("..v3", {});
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":0}');
      assert.deepStrictEqual(source.logs, []);
    }),
  );

  it.scoped("features come and go with the directory, which is waited for with one line", () =>
    Effect.gen(function* () {
      const source = yield* inHand('{"arg":1}', () => {});
      yield* source.settle;
      assert.deepStrictEqual(yield* source.seen, ['{"arg":1}']);
      assert.strictEqual(source.logs.length, 1);
      assert.match(source.logs[0]!, /^INFO .*features is not there/);
      for (const round of [1, 2]) {
        fs.mkdirSync(source.directory);
        source.write("web", "1");
        yield* source.settle;
        assert.strictEqual(yield* source.last, '{"arg":1,"web":1}');
        fs.rmSync(source.directory, { recursive: true });
        yield* source.settle;
        assert.strictEqual(yield* source.last, '{"arg":1}');
        assert.strictEqual(source.logs.length, 1 + 2 * round);
      }
    }),
  );

  it.scoped("a directory that cannot be listed is reported once, and what it said stays", () =>
    Effect.gen(function* () {
      const source = yield* inHand("{}");
      source.write("web", "1");
      yield* source.settle;
      fs.renameSync(source.directory, `${source.directory}.away`);
      fs.writeFileSync(source.directory, "");
      yield* source.see(null);
      yield* source.settle;
      yield* source.settle;
      assert.strictEqual(yield* source.last, '{"web":1}');
      assert.strictEqual(source.count("directory"), 1);
      assert.match(source.logs.at(-1)!, /^WARN .*features cannot be listed \(ENOTDIR\)/);
      fs.unlinkSync(source.directory);
      fs.mkdirSync(source.directory);
      yield* source.settle;
      assert.strictEqual(yield* source.last, "{}");
    }),
  );
});

describe("a feature directory, watched", () => {
  const live = (features = "{}", hints?: DirectoryHints.Options, names: ReadonlyArray<string> = []) =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "features");
      fs.mkdirSync(directory);
      for (const name of names) fs.writeFileSync(join(directory, name), "1");
      const metrics = yield* Layer.build(Metrics.layer);
      const { seen, until } = yield* observe.pipe(
        Effect.provide(FeatureSource.layer({ directory, features: setOf(features), hints })),
        Effect.provide(metrics),
        Effect.provide(silent),
      );
      const put = (name: string, text: string, at = directory) => {
        fs.writeFileSync(join(dirname(directory), "new"), text);
        fs.renameSync(join(dirname(directory), "new"), join(at, name));
      };
      const count = (reason: string) => Context.get(metrics, Metrics).value("feature_file_errors", reason);
      return { count, directory, put, seen, until };
    });

  it.scopedLive("a burst of thousands of renames is at most a snapshot each 5 ms, and the last one is exact", () =>
    Effect.gen(function* () {
      const source = yield* live('{"arg":1}');
      yield* source.until('{"arg":1}');
      const startMs = performance.now();
      const expected = new Map<FeatureName, Feature.FeatureValue>([["arg" as FeatureName, Feature.FeatureValue("1")]]);
      for (let n = 0; n < 2000; n++) {
        const name = `f${n % 700}` as FeatureName;
        source.put(name, String(n));
        expected.set(name, Feature.FeatureValue(String(n)));
        if (n % 20 === 0) yield* Effect.sleep(0);
      }
      yield* source.until(Feature.fromEntries(expected).text);
      // the first, and what is forgone after a quiet time
      const atFirst = 1 + 20 / 5;
      assert.isAtMost((yield* source.seen).length, atFirst + Math.ceil((performance.now() - startMs) / 5));
    }),
  );

  it.scopedLive(
    "a file that is replaced all the time is at most a snapshot each 5 ms too, however short a look is",
    () =>
      Effect.gen(function* () {
        const source = yield* live();
        yield* source.until("{}");
        const startMs = performance.now();
        for (let n = 0; n < 400; n++) {
          source.put("a", String(n));
          yield* Effect.sleep(1);
        }
        yield* source.until('{"a":399}');
        assert.isAtMost((yield* source.seen).length, 1 + 20 / 5 + Math.ceil((performance.now() - startMs) / 5));
      }),
  );

  it.scopedLive("one change is handed over in the turn of its event, and the stream does not repeat it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const fake: { event?: (name: string | null) => void } = {};
      const watch: DirectoryHints.Watch = (_, event) => {
        fake.event = event;
        return { close: () => {} };
      };
      yield* Effect.gen(function* () {
        const early: Array<string> = [];
        const source = yield* FeatureSource;
        yield* source.ahead(({ text }) => void early.push(text));
        const { seen, until } = yield* observe;
        yield* until("{}");
        yield* Effect.sleep("200 millis");
        const put = (name: string, text: string) => {
          fs.writeFileSync(join(directory, name), text);
          fake.event!(name);
        };
        put("web", "1");
        assert.deepStrictEqual(early, ['{"web":1}']);
        put("broken", "{");
        yield* Effect.sleep("200 millis");
        assert.deepStrictEqual(early, ['{"web":1}']);
        fs.unlinkSync(join(directory, "web"));
        fake.event!("web");
        assert.deepStrictEqual(early, ['{"web":1}', "{}"]);
        yield* Effect.sleep("200 millis");
        assert.deepStrictEqual(yield* seen, ["{}"]);
      }).pipe(
        Effect.provide(FeatureSource.layer({ directory, features: Feature.empty, hints: { watch } })),
        Effect.provide([Metrics.layer, silent]),
      );
    }),
  );

  it.scopedLive("of too many files, the first by name are taken, with one warning", () =>
    Effect.gen(function* () {
      const all = Array.from({ length: Feature.maxFeatures + 5 }, (_, n) => `f${String(n).padStart(5, "0")}`);
      const wanted = Feature.fromEntries(
        all.slice(0, Feature.maxFeatures).map((name) => [name as FeatureName, Feature.FeatureValue("1")]),
      ).text;
      const source = yield* live("{}", undefined, all.toReversed());
      yield* source.until(wanted);
      source.put("f99999", "1");
      source.put("f00000", "2");
      yield* source.until(wanted.replace('"f00000":1', '"f00000":2'));
      assert.strictEqual(source.count("too-many"), 1);
      for (const name of [...all.slice(-5), "f99999"]) fs.unlinkSync(join(source.directory, name));
      fs.unlinkSync(join(source.directory, "f00000"));
      source.put("z", "1");
      yield* source.until(wanted.replace('"f00000":1,', "").replace("}", ',"z":1}'));
      assert.strictEqual(source.count("too-many"), 1);
    }),
  );

  it.scopedLive("another directory renamed to its place counts at once, and is watched in its stead", () =>
    Effect.gen(function* () {
      const source = yield* live("{}", { sweepInterval: "1 hour" });
      source.put("old", "1");
      yield* source.until('{"old":1}');
      fs.mkdirSync(`${source.directory}.new`);
      source.put("new", "1", `${source.directory}.new`);
      fs.renameSync(source.directory, `${source.directory}.old`);
      fs.renameSync(`${source.directory}.new`, source.directory);
      yield* source.until('{"new":1}');
      source.put("newer", "1");
      yield* source.until('{"new":1,"newer":1}');
    }),
  );

  it.scopedLive("a sub-millisecond writer in place ends in its last value", () =>
    Effect.gen(function* () {
      const source = yield* live();
      for (let n = 10; n < 100; n++) {
        fs.writeFileSync(join(source.directory, "web"), String(n));
        if (n % 3 === 0) yield* Effect.sleep(0);
      }
      yield* source.until('{"web":99}');
    }),
  );

  it.scopedLive("no watch to be had, it is swept", () =>
    Effect.gen(function* () {
      const watch = () => {
        throw Object.assign(new Error("no space"), { code: "ENOSPC" });
      };
      const source = yield* live("{}", { watch, sweepInterval: "50 millis" });
      source.put("web", "1");
      yield* source.until('{"web":1}');
      source.put("web", "2");
      yield* source.until('{"web":2}');
      fs.rmSync(source.directory, { recursive: true });
      yield* source.until("{}");
    }),
  );
});

const names = ["a", "b", "c", "arg"] as const;

type Operation =
  | { readonly kind: "write" | "replace"; readonly name: string; readonly text: string }
  | { readonly kind: "remove" | "see"; readonly name: string }
  | { readonly kind: "removeDirectory" | "makeDirectory" | "replaceDirectory" | "settle" };

const operationOf = (settles: boolean): fc.Arbitrary<Operation> => {
  const name = fc.constantFrom(...names);
  const text = fc.constantFrom("1", "2", "3", "[1]", '{"a": null}', "", " \n", "{", "1 2", "\ufeff1");
  return fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom("write" as const, "replace" as const), name, text }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("remove" as const), name }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("see" as const), name }) },
    { weight: settles ? 2 : 0, arbitrary: fc.constant({ kind: "settle" as const }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constantFrom("removeDirectory" as const, "makeDirectory" as const, "replaceDirectory" as const),
      }),
    },
  );
};

/** What a reader of the rules expects, file by file: the texts that may be shown; undefined stands for none. */
class Model {
  readonly arguments_: Record<string, string> = { arg: "0" };
  readonly files = new Map<string, string>();
  /** What an invalid file may show: anything that was ever to be seen since all was settled. */
  readonly past = new Map<string, Set<string | undefined>>();

  valid(text: string): string | undefined {
    if (/^[ \n]*$/.test(text)) return undefined;
    const value = Feature.parseValue(text);
    return typeof value === "string" ? value : "invalid";
  }

  note(name: string): void {
    const text = this.files.get(name);
    const shown = text === undefined ? this.arguments_[name] : this.valid(text);
    const past = this.past.get(name) ?? new Set([this.arguments_[name]]);
    this.past.set(name, shown === "invalid" ? past : past.add(shown));
  }

  write(name: string, text: string): void {
    this.files.set(name, text);
    this.note(name);
  }

  remove(name: string): void {
    this.files.delete(name);
    this.note(name);
  }

  /** Whether this may be shown now. */
  allows(name: string, shown: string | undefined): boolean {
    const text = this.files.get(name);
    const wanted = text === undefined ? this.arguments_[name] : this.valid(text);
    return wanted === "invalid" ? this.past.get(name)!.has(shown) : shown === wanted;
  }

  /** This is what was shown at rest: the past before it counts no more. */
  rested(name: string, shown: string | undefined): void {
    this.past.set(name, new Set([shown]));
  }
}

/** Does the operation to a directory and to its model. */
const apply = (directory: string, model: Model, operation: Operation): void => {
  const there = fs.existsSync(directory);
  switch (operation.kind) {
    case "write":
    case "replace":
      if (!there) return;
      if (operation.kind === "write") {
        fs.writeFileSync(join(directory, operation.name), operation.text);
      } else {
        fs.writeFileSync(join(directory, ".new"), operation.text);
        fs.renameSync(join(directory, ".new"), join(directory, operation.name));
      }
      return model.write(operation.name, operation.text);
    case "remove":
      fs.rmSync(join(directory, operation.name), { force: true });
      return model.remove(operation.name);
    case "removeDirectory":
    case "replaceDirectory":
      fs.rmSync(directory, { recursive: true, force: true });
      for (const name of model.files.keys()) model.remove(name);
      if (operation.kind === "replaceDirectory") {
        fs.mkdirSync(`${directory}.new`);
        fs.writeFileSync(join(`${directory}.new`, "a"), "3");
        fs.renameSync(`${directory}.new`, directory);
        model.write("a", "3");
      }
      return;
    case "makeDirectory":
      fs.mkdirSync(directory, { recursive: true });
  }
};

const shownIn = (text: string, name: string) => setOf(text).entries.get(name as FeatureName);

describe("whatever is done to a feature directory", () => {
  it.live("its features are what the rules say whenever it rests, though the watch loses most events", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(fc.array(operationOf(true), { maxLength: 30 }), (operations) =>
          Effect.gen(function* () {
            const source = yield* inHand('{"arg":0}');
            const model = new Model();
            for (const operation of [...operations, { kind: "settle" } as const]) {
              if (operation.kind === "see") yield* source.see(operation.name);
              else if (operation.kind !== "settle") apply(source.directory, model, operation);
              else {
                yield* source.settle;
                const text = (yield* source.last)!;
                for (const name of names) {
                  assert.isTrue(model.allows(name, shownIn(text, name)), `${name} in ${text}`);
                  model.rested(name, shownIn(text, name));
                }
              }
            }
          }).pipe(Effect.scoped, Effect.provide(TestContext.TestContext), Effect.runPromise),
        ),
        { numRuns: 15 },
      ),
    ),
  );

  it.live("its features end as the rules say, with node's own watch and no rest between", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(fc.array(operationOf(false), { minLength: 10, maxLength: 60 }), (operations) =>
          Effect.gen(function* () {
            const directory = join(yield* temporaryDirectory, "features");
            const { untilRight } = yield* observe.pipe(
              Effect.provide(
                FeatureSource.layer({
                  directory,
                  features: setOf('{"arg":0}'),
                  hints: { sweepInterval: "100 millis" },
                }),
              ),
              Effect.provide([Metrics.layer, silent]),
            );
            const model = new Model();
            let n = 0;
            for (const operation of [{ kind: "makeDirectory" } as const, ...operations]) {
              apply(directory, model, operation);
              if (++n % 4 === 0) yield* Effect.sleep(0);
            }
            yield* untilRight("right set", (text) => names.every((name) => model.allows(name, shownIn(text, name))));
          }).pipe(Effect.scoped, Effect.runPromise),
        ),
        { numRuns: 15 },
      ),
    ),
  );
});
