import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Logger from "effect/Logger";
import * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import * as DirectoryHints from "../src/DirectoryHints.js";

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-hints-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

/** Watches that a test opens, fires and breaks by hand. */
class FakeWatch {
  opened = 0;
  refusal: string | undefined;
  readonly open = new Map<string, { event: (name: string | null) => void; error: (cause: unknown) => void }>();
  readonly watch: DirectoryHints.Watch = (directory, event, error) => {
    if (this.refusal !== undefined) throw Object.assign(new Error("refused"), { code: this.refusal });
    const handle = { event, error };
    this.opened++;
    this.open.set(directory, handle);
    return {
      close: () => {
        if (this.open.get(directory) === handle) this.open.delete(directory);
      },
    };
  };
}

const captureLogs = (lines: Array<string>) =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ message }) => void lines.push(String(message))),
  );

const list = (directory: string) => [{ directory, names: undefined }];

/** A directory that is watched by hand, looked at once, and long unchanged. */
const watched = Effect.gen(function* () {
  const directory = yield* temporaryDirectory;
  const fake = new FakeWatch();
  const hints = yield* DirectoryHints.make({ watch: fake.watch });
  yield* hints.watch(directory);
  assert.deepStrictEqual(yield* hints.take(), list(directory));
  assert.deepStrictEqual(yield* pass(hints, "3 seconds"), list(directory));
  assert.deepStrictEqual(yield* pass(hints, "3 seconds"), []);
  return { directory, fake, hints };
});

/** What `take` gives in that time. */
const pass = (hints: DirectoryHints.DirectoryHints, time: "1 second" | "3 seconds" | "1 minute") =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(hints.take(time));
    yield* TestClock.adjust(time);
    return yield* Fiber.join(fiber);
  });

describe("hints of a watch in the test's hand", () => {
  it.scoped("come once at the start, once more when the directory had just changed, and then no more", () =>
    Effect.gen(function* () {
      const { hints } = yield* watched;
      assert.deepStrictEqual(yield* pass(hints, "1 minute"), []);
    }),
  );

  it.scoped("name what an event named, and each name once", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      for (const name of ["a", "b", "a"]) fake.open.get(directory)!.event(name);
      assert.deepStrictEqual(yield* hints.take(), [{ directory, names: new Set(["a", "b"]) }]);
      assert.deepStrictEqual(yield* pass(hints, "3 seconds"), []);
    }),
  );

  it.scoped("wake a consumer that waits", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      const fiber = yield* Effect.fork(hints.take());
      yield* Effect.yieldNow();
      fake.open.get(directory)!.event("a");
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ directory, names: new Set(["a"]) }]);
    }),
  );

  it.scoped("ask for a listing when an event has no name, or when there were too many names", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      fake.open.get(directory)!.event("a");
      fake.open.get(directory)!.event(null);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      for (let n = 0; n <= DirectoryHints.maxNames; n++) fake.open.get(directory)!.event(`name-${n}`);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
    }),
  );

  it.scoped("come by the sweep for a change that the watch did not see", () =>
    Effect.gen(function* () {
      const { directory, hints } = yield* watched;
      fs.writeFileSync(join(directory, "a"), "");
      assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
    }),
  );

  it.scoped("come a second time after a recent change, because a later one may have left the same stat", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      fs.writeFileSync(join(directory, "a"), "");
      fake.open.get(directory)!.event(null);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
      assert.deepStrictEqual(yield* pass(hints, "1 minute"), []);
    }),
  );

  it.scoped("go on through a directory that is not there, comes, goes and comes back", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "later");
      const fake = new FakeWatch();
      const hints = yield* DirectoryHints.make({ watch: fake.watch });
      yield* hints.watch(directory);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      assert.deepStrictEqual(yield* pass(hints, "1 minute"), []);
      assert.strictEqual(fake.open.size, 0);
      for (const _ of ["first", "second"]) {
        fs.mkdirSync(directory);
        assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
        assert.strictEqual(fake.open.size, 1);
        fs.rmdirSync(directory);
        assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
        assert.strictEqual(fake.open.size, 0);
      }
    }),
  );

  it.scoped("are of the new directory when another one takes its place", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      const before = fake.open.get(directory);
      fs.mkdirSync(`${directory}.new`);
      fs.renameSync(`${directory}.new`, directory);
      assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
      assert.notStrictEqual(fake.open.get(directory), before);
      assert.strictEqual(fake.open.size, 1);
    }),
  );

  it.scoped("make the watch anew when an event is of the directory itself", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      fake.open.get(directory)!.event(basename(directory));
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      assert.strictEqual(fake.opened, 2);
      assert.strictEqual(fake.open.size, 1);
    }),
  );

  for (const [code, sysctl] of [
    ["ENOSPC", "fs.inotify.max_user_watches"],
    ["EMFILE", "fs.inotify.max_user_instances"],
  ] as const) {
    it.scoped(`come by sweeping alone when a watch fails with ${code}, with one warning that names the sysctl`, () =>
      Effect.gen(function* () {
        const parent = yield* temporaryDirectory;
        const lines: Array<string> = [];
        const fake = new FakeWatch();
        fake.refusal = code;
        const directories = ["a", "b", "c"].map((name) => join(parent, name));
        for (const directory of directories) fs.mkdirSync(directory);
        yield* Effect.gen(function* () {
          const hints = yield* DirectoryHints.make({ watch: fake.watch });
          yield* Effect.forEach(directories, hints.watch);
          assert.strictEqual((yield* hints.take()).length, 3);
          assert.strictEqual((yield* pass(hints, "1 second")).length, 3);
          fs.writeFileSync(join(directories[1]!, "x"), "");
          assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directories[1]!));
          fake.refusal = undefined;
          assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directories[1]!));
          assert.strictEqual(fake.open.size, 1);
        }).pipe(Effect.provide(captureLogs(lines)));
        assert.strictEqual(lines.length, 1);
        assert.include(lines[0], sysctl);
      }),
    );
  }

  it.scoped("go on after an error of the watch, which is made anew at the next sweep", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      const { error } = fake.open.get(directory)!;
      error(Object.assign(new Error("broken"), { code: "EIO" }));
      assert.strictEqual(fake.open.size, 0);
      assert.deepStrictEqual(yield* pass(hints, "1 second"), list(directory));
      assert.strictEqual(fake.open.size, 1);
    }),
  );

  it.scoped("end for a directory that is no longer watched, and its watch is closed", () =>
    Effect.gen(function* () {
      const { directory, fake, hints } = yield* watched;
      fake.open.get(directory)!.event("a");
      yield* hints.unwatch(directory);
      fs.writeFileSync(join(directory, "a"), "");
      assert.strictEqual(fake.open.size, 0);
      assert.deepStrictEqual(yield* pass(hints, "3 seconds"), []);
    }),
  );

  it.scoped("of a thousand directories come for each, a few at a time, and their watches close with the scope", () =>
    Effect.gen(function* () {
      const parent = yield* temporaryDirectory;
      const directories = Array.from({ length: 1000 }, (_, n) => join(parent, String(n)));
      for (const directory of directories) fs.mkdirSync(directory);
      const fake = new FakeWatch();
      const scope = yield* Scope.make();
      const hints = yield* DirectoryHints.make({ watch: fake.watch }).pipe(Scope.extend(scope));
      yield* Effect.forEach(directories, hints.watch, { discard: true });
      const seen: Array<string> = [];
      while (seen.length < 1000) {
        const taken = yield* hints.take();
        assert.isAtMost(taken.length, DirectoryHints.maxHints);
        seen.push(...taken.map((hint) => hint.directory));
      }
      assert.deepStrictEqual(seen, directories);
      assert.strictEqual(fake.open.size, 1000);
      yield* Scope.close(scope, Exit.void);
      assert.strictEqual(fake.open.size, 0);
    }),
  );
});

describe("hints of node's own watch, the sweep as good as switched off", () => {
  const live = Effect.gen(function* () {
    const directory = join(yield* temporaryDirectory, "features");
    fs.mkdirSync(directory);
    const hints = yield* DirectoryHints.make({ sweepInterval: "1 hour" });
    yield* hints.watch(directory);
    yield* hints.take();
    return { directory, hints };
  });

  /** Takes until something is to be looked at that `name` is part of. */
  const hintAt = (hints: DirectoryHints.DirectoryHints, name: string) =>
    Effect.gen(function* () {
      for (;;) {
        const taken = yield* hints.take();
        if (taken.some(({ names }) => names === undefined || names.has(name))) return;
      }
    }).pipe(Effect.timeout("20 seconds"));

  it.scopedLive("come for a file that is made, written, replaced and removed", () =>
    Effect.gen(function* () {
      const { directory, hints } = yield* live;
      const file = join(directory, "web");
      fs.writeFileSync(file, "1");
      yield* hintAt(hints, "web");
      fs.appendFileSync(file, "2");
      yield* hintAt(hints, "web");
      fs.writeFileSync(`${directory}.tmp`, "3");
      fs.renameSync(`${directory}.tmp`, file);
      yield* hintAt(hints, "web");
      fs.unlinkSync(file);
      yield* hintAt(hints, "web");
    }),
  );

  it.scopedLive("come from a directory that took the place of the watched one", () =>
    Effect.gen(function* () {
      const { directory, hints } = yield* live;
      fs.renameSync(directory, `${directory}.old`);
      fs.mkdirSync(directory);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      fs.writeFileSync(join(directory, "web"), "1");
      yield* hintAt(hints, "web");
    }),
  );

  it.scopedLive("come from a directory made again at once, though it may have the same inode number", () =>
    Effect.gen(function* () {
      const { directory, hints } = yield* live;
      fs.rmdirSync(directory);
      fs.mkdirSync(directory);
      assert.deepStrictEqual(yield* hints.take(), list(directory));
      fs.writeFileSync(join(directory, "web"), "1");
      yield* hintAt(hints, "web");
    }),
  );
});
