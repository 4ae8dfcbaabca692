import { assert, describe, it } from "@effect/vitest";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Logger from "effect/Logger";
import type * as Scope from "effect/Scope";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { breathe } from "../src/DirectoryHints.js";
import * as Watches from "../src/Watches.js";

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-watches-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true })),
);

const write = (...path: ReadonlyArray<string>) => fs.writeFileSync(join(...path), "");

/** Waits for hints, and gives them. */
const take = ({ hints }: Watches.Watches) => {
  let all: ReadonlyArray<Watches.Hint> = [];
  const look = function* (given: ReadonlyArray<Watches.Hint>): Generator<void> {
    all = given;
    if (given.length > 0) yield;
  };
  return Effect.map(hints(look), () => all);
};

/** A look that is done in one step. */
const at = (see: (hint: Watches.Hint) => void): Watches.Look =>
  function* (hints) {
    hints.forEach(see);
    yield* [];
  };

/** Waits for a hint at this watch. */
const next = (watches: Watches.Watches, id: number) =>
  Effect.gen(function* () {
    for (;;) {
      const hint = (yield* take(watches)).find((hint) => hint.id === id);
      if (hint !== undefined) return hint;
    }
  });

/** Lets the loop turn until `enough` holds. */
const until = (enough: () => boolean) => Effect.repeat(breathe, { until: enough });

/** What is logged. */
const logged = () => {
  const lines: Array<string> = [];
  const logger = Logger.make(({ message }) => lines.push(String(message)));
  return { lines, layer: Logger.replace(Logger.defaultLogger, logger) };
};

/** How many watches this process has. */
const standing = () =>
  fs.readdirSync("/proc/self/fdinfo").flatMap((fd) => {
    try {
      return fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8").match(/^inotify /gm) ?? [];
    } catch {
      return [];
    }
  }).length;

const files = { "of a small tree, in this thread": 0, "of a large tree, in a thread of their own": 1_000_000 };

describe.each(Object.entries(files))("Watches %s", (_, size) => {
  it.scopedLive("say when one stands, when it cannot be had, what changed, and nothing of one that is ended", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      watches.watch(1, path, size);
      assert.deepStrictEqual(yield* next(watches, 1), { id: 1, names: undefined, failure: undefined });
      write(path, "a");
      assert.deepStrictEqual((yield* next(watches, 1)).names, ["a"]);
      watches.watch(2, join(path, "none"), size);
      assert.strictEqual((yield* next(watches, 2)).failure, "ENOENT");
      watches.unwatch(1);
      watches.watch(3, path, size);
      yield* next(watches, 3);
      write(path, "b");
      assert.deepStrictEqual(
        (yield* take(watches)).map(({ id, names }) => [id, names]),
        [[3, ["b"]]],
      );
    }),
  );

  it.scopedLive("lose nothing while the loop is blocked, and gather what is not asked for as sets", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      watches.watch(1, path, size);
      yield* next(watches, 1);
      const seen = new Set<string>();
      for (let i = 0; i < 100; i++) write(path, String(i % 50));
      while (seen.size < 50)
        for (const { names } of yield* take(watches)) for (const name of names ?? []) seen.add(name);
      // so many in one directory that listing it is cheaper
      for (let i = 0; i < 500; i++) write(path, String(i));
      while ((yield* next(watches, 1)).names !== undefined);
    }),
  );

  it.scopedLive("have one event after another looked at without waking the consumer", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      const seen: Array<string> = [];
      const waiting = yield* Effect.fork(watches.hints(at(({ names }) => seen.push(...(names ?? ["stands"])))));
      watches.watch(1, path, size);
      for (const name of ["stands", "a", "b", "c"]) {
        if (name !== "stands") write(path, name);
        yield* until(() => seen.includes(name));
      }
      assert.deepStrictEqual(seen, ["stands", "a", "b", "c"]);
      assert.isNull(waiting.unsafePoll());
    }),
  );

  it.scopedLive("fail the consumer with what its look throws", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      watches.watch(1, path, size);
      const exit = yield* Effect.exit(
        watches.hints(
          at(() => {
            throw new Error("broken");
          }),
        ),
      );
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause));
    }),
  );

  it.scopedLive("end with the scope, without a word", () => {
    const { layer, lines } = logged();
    return Effect.gen(function* () {
      const path = yield* temporary;
      const before = standing();
      yield* Effect.scoped(
        Effect.gen(function* () {
          const watches = yield* Watches.start;
          for (const id of [1, 2, 3]) {
            const directory = join(path, String(id));
            fs.mkdirSync(directory);
            watches.watch(id, directory, size);
          }
          for (const id of [1, 2, 3]) write(path, String(id), "a");
          const seen = new Set<number>();
          while (seen.size < 3) for (const { id } of yield* take(watches)) seen.add(id);
          assert.strictEqual(standing(), before + 3);
          yield* Effect.forkDaemon(take(watches));
        }),
      );
      assert.strictEqual(standing(), before);
      yield* breathe;
      assert.deepStrictEqual(lines, []);
    }).pipe(Effect.provide(layer));
  });
});

describe("Watches", () => {
  it.scopedLive("say that some may be lost when very many events come at once", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      watches.watch(1, path, 0);
      yield* next(watches, 1);
      const names = ["a", "b"].map((name) => join(path, name));
      fs.writeFileSync(names[0]!, "");
      for (let burst = 0; burst < 2; burst++) {
        // two events each
        for (let i = 0; i < 3_000; i++) fs.renameSync(names[i % 2]!, names[(i + 1) % 2]!);
        yield* next(watches, Watches.everywhere);
      }
    }),
  );

  it.scopedLive("look once in a turn of the loop, however many events it brings", () =>
    Effect.gen(function* () {
      const path = yield* temporary;
      const watches = yield* Watches.start;
      watches.watch(1, path, 0);
      yield* next(watches, 1);
      const looks: Array<ReadonlyArray<string>> = [];
      yield* Effect.fork(watches.hints(at(({ names }) => looks.push(names ?? []))));
      yield* breathe;
      for (let i = 0; i < 100; i++) write(path, String(i));
      yield* until(() => looks.flat().length === 100);
      assert.deepStrictEqual(
        looks.map(({ length }) => length),
        [1, 99],
      );
    }),
  );

  it.scopedLive("keep what both threads tell while the consumer is busy or was interrupted", () =>
    Effect.gen(function* () {
      const paths = [yield* temporary, yield* temporary];
      const watches = yield* Watches.start;
      for (const [id, path] of paths.entries()) {
        watches.watch(id, path, id * 1_000_000);
        yield* next(watches, id);
      }
      // asks both, and goes away
      const waiting = yield* Effect.fork(take(watches));
      yield* Effect.sleep("10 millis");
      yield* Fiber.interrupt(waiting);
      const seen = new Set<string>();
      for (let i = 0; i < 200; i++) {
        for (const path of paths) write(path, String(i));
        // longer at first than the other thread needs
        yield* Effect.sleep(i === 0 ? "50 millis" : 0);
        for (const { id, names } of yield* take(watches)) for (const name of names ?? []) seen.add(`${id}/${name}`);
      }
      while (seen.size < 400)
        for (const { id, names } of yield* take(watches)) for (const name of names ?? []) seen.add(`${id}/${name}`);
    }),
  );

  for (const [how, create] of Object.entries({
    "cannot be started": () => {
      throw new Error("no threads here");
    },
    breaks: () => new Worker('throw new Error("no threads here")', { eval: true, execArgv: [] }),
    ends: () => new Worker("", { eval: true, execArgv: [] }),
  })) {
    it.scopedLive(`warn once, and go on in this thread, when the other ${how}`, () => {
      const { layer, lines } = logged();
      let isOver = how === "cannot be started";
      return Effect.gen(function* () {
        const path = yield* temporary;
        const watches = yield* Watches.startWithThread(() =>
          create().once("exit", () => {
            isOver = true;
          }),
        );
        watches.watch(1, path, 1_000_000);
        while (lines.length === 0) yield* take(watches);
        yield* until(() => isOver);
        watches.watch(2, path, 1_000_000);
        yield* next(watches, 2);
        write(path, "a");
        assert.deepStrictEqual((yield* next(watches, 2)).names, ["a"]);
        assert.strictEqual(lines.length, 1);
        assert.include(lines[0], how === "ends" ? "it ended with status 0" : "no threads here");
      }).pipe(Effect.provide(layer));
    });
  }
});
