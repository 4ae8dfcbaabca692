/**
 * Watches of many directories, in a thread of their own. The kernel's queue of events is short (16,384) and what does
 * not fit is lost without a word; this thread's loop is never blocked, so a program that blocks its own loses nothing.
 * Events are only hints all the same: a reached limit, or a thread that cannot be had, makes news later, never wrong.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { Worker } from "node:worker_threads";

/** Look again. */
export interface Hint {
  /** The watch's id; `everywhere`: events may have been lost. */
  readonly id: number;
  /** Entries of the directory; undefined: look at the directory itself (also once when its watch stands). */
  readonly names: ReadonlyArray<string> | undefined;
  /** The watch could not be had, or broke: the system's error code. */
  readonly failure: string | undefined;
}

export const everywhere = -1;

export interface WatchThread {
  /** Watches the directory `path`, under an id never used before. */
  readonly watch: (id: number, path: string) => void;
  readonly unwatch: (id: number) => void;
  /** Waits for hints, and gives all there are. For one consumer; until it asks again, hints gather as sets. */
  readonly hints: Effect.Effect<ReadonlyArray<Hint>>;
}

// CommonJS text, so that it needs no file beside a bundle. `maxNames` bounds what gathers for one directory,
// `burst` is how many events in one turn (a quarter of the kernel's queue) may mean that some were lost.
const program = `
const { parentPort } = require("node:worker_threads");
const { watch } = require("node:fs");
const maxNames = 256, burst = 4096;
const watchers = new Map(), pending = new Map();
let asked = false, turn = 0;
const give = () => {
  if (!asked || pending.size === 0) return;
  asked = false;
  parentPort.postMessage(Array.from(pending, ([id, { names, failure }]) => ({ id, names: names && [...names], failure })));
  pending.clear();
};
const note = (id, name, failure) => {
  let hint = pending.get(id);
  if (hint === undefined) pending.set(id, (hint = { names: new Set(), failure }));
  if (name === undefined || name === null) hint.names = undefined;
  else if (hint.names && hint.names.add(name).size > maxNames) hint.names = undefined;
  hint.failure = failure ?? hint.failure;
};
const onEvent = (id, name) => {
  if (turn++ === 0) setImmediate(() => { turn = 0; });
  if (turn === burst) note(${everywhere});
  note(id, name);
  give();
};
const close = (id) => {
  const watcher = watchers.get(id);
  watchers.delete(id);
  watcher?.close();
};
const open = (id, path) => {
  try {
    const watcher = watch(path, (_, name) => onEvent(id, name));
    watchers.set(id, watcher);
    watcher.on("error", (error) => { close(id); note(id, undefined, error.code ?? error.message); give(); });
    note(id);
  } catch (error) {
    note(id, undefined, error.code ?? error.message);
  }
  give();
};
parentPort.on("message", ({ id, path }) => {
  if (path !== undefined) return open(id, path);
  if (id !== undefined) return close(id);
  asked = true;
  give();
});
`;

/** Starts the thread; it ends with the scope. Does not keep the process alive. */
export const start: Effect.Effect<WatchThread, never, Scope.Scope> = Effect.gen(function* () {
  const latch = yield* Effect.makeLatch(false);
  let hints: ReadonlyArray<Hint> = [];
  let failure: unknown;
  const fail = (cause: unknown) => {
    failure ??= cause;
    latch.unsafeOpen();
  };
  const worker = yield* Effect.acquireRelease(
    Effect.sync(() => {
      try {
        // a program's own preloads and options are not for this thread
        const thread = new Worker(program, { eval: true, execArgv: [], env: {} });
        thread.unref();
        thread.on("message", (batch: ReadonlyArray<Hint>) => {
          hints = batch;
          latch.unsafeOpen();
        });
        thread.on("error", fail);
        thread.on("exit", (code) => fail(new Error(`it ended with status ${code}`)));
        return thread;
      } catch (cause) {
        fail(cause);
        return undefined;
      }
    }),
    (thread) => Effect.promise(async () => thread?.terminate()),
  );
  const send = (message: { readonly id?: number; readonly path?: string }) => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window
    worker?.postMessage(message);
  };
  return {
    watch: (id, path) => send({ id, path }),
    unwatch: (id) => send({ id }),
    hints: Effect.gen(function* () {
      send({});
      yield* latch.await;
      if (failure !== undefined) {
        yield* Effect.logWarning(
          `the thread that watches directories is not there (${String(failure)}): changes are seen about a second late`,
        );
        return yield* Effect.never;
      }
      const batch = hints;
      latch.unsafeClose();
      return batch;
    }),
  };
});
