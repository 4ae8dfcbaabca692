import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import { build } from "esbuild";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import * as StateLock from "../src/StateLock.js";

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-lock-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

const files = (directory: string): ReadonlyArray<string> => fs.readdirSync(join(directory, ".lock"));

const refusal = (directory: string) => Effect.flip(Effect.scoped(StateLock.take(directory)));

/** What each child runs: it waits for a line, takes the lock, says what came of it, and stays. */
const program = `
  import * as Effect from "effect/Effect";
  import * as StateLock from "./src/StateLock.ts";
  process.stdin.once("data", () => {
    Effect.runFork(Effect.scoped(
      Effect.flatMap(StateLock.take(process.argv[2]), () => {
        console.log("won");
        return Effect.never;
      }).pipe(Effect.catchAll((error) => Effect.sync(() => {
        console.log(error.reason + " " + error.holder?.pid);
        process.stdin.destroy();
      }))),
    ));
  });
  console.log("ready");
`;

const bundle = Effect.fnUntraced(function* (directory: string) {
  const outfile = join(directory, "starter.mjs");
  yield* Effect.promise(() =>
    build({
      stdin: { contents: program, resolveDir: resolve(import.meta.dirname, ".."), loader: "ts" },
      bundle: true,
      platform: "node",
      format: "esm",
      outfile,
    }),
  );
  return outfile;
});

interface Starter {
  readonly process: ChildProcess;
  readonly line: () => Promise<string>;
}

const start = (script: string, directory: string): Effect.Effect<Starter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [script, directory], { stdio: ["pipe", "pipe", "inherit"] });
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      return { process: child, line: async () => String((await lines.next()).value) };
    }),
    ({ process: child }) => Effect.promise(() => kill(child)),
  );

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
};

describe("StateLock", () => {
  it.scopedLive("refuses a second taker, naming the holder, until the first gives it back", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* StateLock.take(directory);
          const error = yield* refusal(directory);
          assert.strictEqual(error.reason, "Held");
          assert.strictEqual(error.holder?.pid, process.pid);
          assert.match(error.message, new RegExp(`${directory}.*pid ${process.pid}.*stop it`));
          assert.strictEqual(files(directory).length, 1);
        }),
      );
      assert.deepStrictEqual(files(directory), []);
      yield* StateLock.take(directory);
    }),
  );

  it.scopedLive("works below paths that are too long for a socket address", () =>
    Effect.gen(function* () {
      const directory = join(
        yield* temporaryDirectory,
        ..."x"
          .repeat(8)
          .split("")
          .map((x) => x.repeat(100)),
      );
      fs.mkdirSync(directory, { recursive: true });
      yield* StateLock.take(directory);
      const error = yield* refusal(directory);
      assert.strictEqual(error.holder?.pid, process.pid);
      assert.strictEqual(files(directory).length, 1);
    }),
  );

  it.scopedLive("names its holder to who only looks, and changes nothing by that", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "x".repeat(120));
      fs.mkdirSync(directory);
      assert.isUndefined(yield* StateLock.holder(directory));
      assert.deepStrictEqual(fs.readdirSync(directory), []);
      assert.isUndefined(yield* StateLock.holder(join(directory, "absent")));
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* StateLock.take(directory);
          assert.include(yield* StateLock.holder(directory), { pid: process.pid });
          assert.strictEqual(files(directory).length, 1);
        }),
      );
      assert.isUndefined(yield* StateLock.holder(directory));

      const silent = createServer();
      const link = join(yield* temporaryDirectory, "short");
      fs.symlinkSync(join(directory, ".lock"), link);
      yield* Effect.acquireRelease(
        Effect.promise(() => once(silent.listen(join(link, "f".repeat(16))), "listening")),
        () => Effect.sync(() => silent.close()),
      );
      assert.strictEqual(yield* StateLock.holder(directory), "silent");
    }),
  );

  it.scopedLive("gives back its descriptors", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "x".repeat(120));
      fs.mkdirSync(directory, { recursive: true });
      yield* Effect.scoped(StateLock.take(directory));
      const before = fs.readdirSync("/proc/self/fd").length;
      for (let i = 0; i < 20; i++) {
        yield* Effect.scoped(StateLock.take(directory).pipe(Effect.zipRight(refusal(directory))));
      }
      yield* Effect.sleep("20 millis");
      assert.isAtMost(fs.readdirSync("/proc/self/fd").length, before + 2);
    }),
  );

  it.scopedLive("lets exactly one of many takers in one process win", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () => Effect.either(StateLock.take(directory)),
        { concurrency: "unbounded" },
      );
      assert.strictEqual(outcomes.filter(({ _tag }) => _tag === "Right").length, 1);
    }),
  );

  it.scopedLive("takes the lock again when its file was removed, and fails when another has it by then", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const lock = yield* StateLock.take(directory);
      const before = files(directory);
      yield* lock.check;
      assert.deepStrictEqual(files(directory), before);
      fs.rmSync(join(directory, ".lock"), { recursive: true });
      yield* lock.check;
      assert.strictEqual(files(directory).length, 1);
      assert.strictEqual((yield* refusal(directory)).reason, "Held");
      fs.rmSync(join(directory, ".lock"), { recursive: true });
      yield* StateLock.take(directory);
      assert.strictEqual((yield* Effect.flip(lock.check)).reason, "Held");
    }),
  );

  it.scopedLive("says so when no socket can be made there", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      fs.writeFileSync(join(directory, ".lock"), "");
      const error = yield* refusal(directory);
      assert.strictEqual(error.reason, "Unusable");
      assert.match(error.message, /EEXIST|ENOTDIR/);
    }),
  );

  it.scopedLive("leaves alone what is no socket of its kind", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      fs.mkdirSync(join(directory, ".lock"));
      fs.writeFileSync(join(directory, ".lock", "0".repeat(16)), "");
      fs.writeFileSync(join(directory, ".lock", "notes"), "");
      yield* StateLock.take(directory);
      assert.strictEqual(files(directory).length, 3);
    }),
  );

  it.scoped("does not take the directory from a holder that does not answer", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      fs.mkdirSync(join(directory, ".lock"));
      const silent = createServer();
      yield* Effect.acquireRelease(
        Effect.promise(() => once(silent.listen(join(directory, ".lock", "f".repeat(16))), "listening")),
        () => Effect.sync(() => silent.close()),
      );
      const refused = yield* Effect.fork(refusal(directory));
      while (Option.isNone(yield* Fiber.poll(refused))) yield* TestClock.adjust("1 seconds");
      const error = yield* Fiber.join(refused);
      assert.strictEqual(error.reason, "Held");
      assert.isUndefined(error.holder);
      assert.match(error.message, /does not answer/);
      assert.deepStrictEqual(files(directory), ["f".repeat(16)]);
    }),
  );

  it.scopedLive("lets exactly one of 20 processes that start at once win, also after the winner was killed", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const script = yield* bundle(directory);
      const starters = yield* Effect.forEach(Array.from({ length: 20 }), () => start(script, directory));
      for (const starter of starters) assert.strictEqual(yield* Effect.promise(starter.line), "ready");
      for (const starter of starters) starter.process.stdin?.write("go\n");
      const outcomes = yield* Effect.forEach(starters, (starter) => Effect.promise(starter.line));
      const winner = starters[outcomes.indexOf("won")]!.process;
      assert.deepStrictEqual(
        outcomes.filter((outcome) => outcome !== "won"),
        Array.from({ length: 19 }, () => `Held ${winner.pid}`),
      );
      yield* Effect.promise(() => kill(winner));
      // its file is still there, and in nobody's way
      assert.strictEqual(files(directory).length, 1);
      const next = yield* Effect.forEach(Array.from({ length: 5 }), () => start(script, directory));
      for (const starter of next) assert.strictEqual(yield* Effect.promise(starter.line), "ready");
      for (const starter of next) starter.process.stdin?.write("go\n");
      const again = yield* Effect.forEach(next, (starter) => Effect.promise(starter.line));
      assert.strictEqual(again.filter((outcome) => outcome === "won").length, 1);
      assert.strictEqual(files(directory).length, 1);
    }),
  );
});
