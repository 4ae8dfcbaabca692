/**
 * Watches of many directories. The kernel's queue of events is short (16,384) and what does not fit is lost without a
 * word, so where it matters they live in a thread of their own, whose loop is never blocked as this program's may be.
 * Events are only hints all the same: a reached limit, or a thread that cannot be had, makes news later, never wrong.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { type FSWatcher, watch as fsWatch } from "node:fs";
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

/**
 * Of fewer files, this thread watches: all can be looked at in half a second (3.3 µs each), should it lose events. The
 * other thread costs 10 MiB, 30 ms at its start and 0.1 ms an event.
 */
const nearFiles = 100_000;

/** Looks where all these hints say. */
export type Look = (hints: ReadonlyArray<Hint>) => Generator<void>;

export interface Watches {
  /** Watches the directory `path` of a tree of so many `files`, under an id never used before. */
  readonly watch: (id: number, path: string, files: number) => void;
  readonly unwatch: (id: number) => void;
  /**
   * Waits for hints, and has `look` take its first step in the turn of their event: a fiber's wake-up costs more. Gives a
   * look that takes another step; until this is run again, hints gather as sets. For one consumer.
   */
  readonly hints: (look: Look) => Effect.Effect<Generator<void>>;
}

/** Has `tell` called with all hints there are, once after each `ask`: in the turn of the event if it is the first of its turn. */
interface Gatherer {
  readonly open: (id: number, path: string) => void;
  /** False if it is not open. */
  readonly close: (id: number) => boolean;
  readonly ask: () => void;
  readonly end: () => void;
}

/** The other thread runs it from its text: it must not name anything outside itself. */
const gather = (watch: typeof fsWatch, all: number, tell: (hints: ReadonlyArray<Hint>) => void): Gatherer => {
  // the first bounds what gathers for one directory; so many events in one turn may mean that some were lost
  const [maxNames, burst] = [256, 4096];
  const watchers = new Map<number, FSWatcher>();
  const pending = new Map<number, { names: Set<string> | undefined; failure: string | undefined }>();
  let asked = false;
  let turn: NodeJS.Immediate | undefined;
  let events = 0;

  const give = () => {
    if (!asked || pending.size === 0) return;
    asked = false;
    const hints = Array.from(pending, ([id, { failure, names }]) => ({ id, names: names && [...names], failure }));
    pending.clear();
    tell(hints);
  };
  /** At the end of this turn. */
  const giveSoon = () => {
    turn ??= setImmediate(() => {
      turn = undefined;
      events = 0;
      give();
    });
  };
  const note = (id: number, name?: string | null, failure?: string) => {
    let hint = pending.get(id);
    if (hint === undefined) pending.set(id, (hint = { names: new Set(), failure }));
    if (name === undefined || name === null) hint.names = undefined;
    else if (hint.names !== undefined && hint.names.add(name).size > maxNames) hint.names = undefined;
    hint.failure = failure ?? hint.failure;
  };
  const close = (id: number): boolean => {
    watchers.get(id)?.close();
    return watchers.delete(id);
  };
  const fail = (id: number, cause: unknown) => {
    close(id);
    note(id, undefined, String((cause as NodeJS.ErrnoException).code ?? cause));
    giveSoon();
  };
  return {
    open: (id, path) => {
      try {
        const watcher = watch(path, { persistent: false }, (_, name) => {
          const first = turn === undefined;
          giveSoon();
          if (++events === burst) note(all);
          note(id, name);
          if (first) give();
        });
        watcher.on("error", (cause) => fail(id, cause));
        watchers.set(id, watcher);
        note(id);
        giveSoon();
      } catch (cause) {
        fail(id, cause);
      }
    },
    close,
    ask: () => {
      asked = true;
      if (pending.size > 0) giveSoon();
    },
    end: () => {
      clearImmediate(turn);
      watchers.forEach((watcher) => watcher.close());
    },
  };
};

const program = `
const { parentPort } = require("node:worker_threads");
const { ask, close, open } = (${gather})(require("node:fs").watch, ${everywhere}, (hints) => parentPort.postMessage(hints));
parentPort.on("message", ({ id, path }) => {
  if (path !== undefined) open(id, path);
  else if (id !== undefined) close(id);
  else ask();
});
ask();
`;

// a program's own preloads and options are not for this thread
const newThread = (): Worker => new Worker(program, { eval: true, execArgv: [], env: {} });

const make = Effect.fnUntraced(function* (createThread: () => Worker): Effect.fn.Return<Watches, never, Scope.Scope> {
  /** What came while nobody waited: at most one batch of each thread. */
  let held: ReadonlyArray<Hint> = [];
  let warning: string | undefined;
  /** There while the consumer waits. */
  let wake: (() => void) | undefined;

  const tell = (hints: ReadonlyArray<Hint>) => {
    held = [...held, ...hints];
    wake?.();
  };
  const here = gather(fsWatch, everywhere, tell);

  let thread: Worker | undefined;
  let isAsked = true;
  let isLost = false;
  const send = (message: { readonly id?: number; readonly path?: string }) => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window
    thread?.postMessage(message);
  };
  const lose = (cause: unknown) => {
    if (isLost) return;
    isLost = true;
    warning = `the thread that watches a large tree is not there (${String(cause)}): some changes are seen about a second late`;
    wake?.();
  };
  const startThread = () => {
    try {
      thread = createThread();
      thread.unref();
      thread.on("message", (hints: ReadonlyArray<Hint>) => {
        isAsked = false;
        tell(hints);
      });
      thread.on("error", lose);
      thread.on("exit", (code) => lose(new Error(`it ended with status ${code}`)));
    } catch (cause) {
      lose(cause);
    }
  };
  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      isLost = true;
      here.end();
      await thread?.terminate();
    }),
  );

  const ask = () => {
    here.ask();
    if (isAsked) return;
    isAsked = true;
    // in the next turn: the rest of this one belongs to those who wait for the news
    setImmediate(() => send({}));
  };

  return {
    watch: (id, path, files) => {
      const near = files < nearFiles;
      if (!near && thread === undefined && !isLost) startThread();
      if (near || isLost) here.open(id, path);
      else send({ id, path });
    },
    unwatch: (id) => {
      if (!here.close(id)) send({ id });
    },
    hints: (look) =>
      Effect.async<Generator<void>>((resume) => {
        const next = (): void => {
          wake = undefined;
          try {
            const steps = look(held);
            held = [];
            if (steps.next().done !== true) return resume(Effect.succeed(steps));
          } catch (defect) {
            return resume(Effect.die(defect));
          }
          if (warning !== undefined) {
            resume(Effect.as(Effect.logWarning(warning), look(held)));
            warning = undefined;
            return;
          }
          wake = next;
          ask();
        };
        next();
        return Effect.sync(() => {
          wake = undefined;
        });
      }),
  };
});

/** Watches until the scope closes. They do not keep the process alive. */
export const start: Effect.Effect<Watches, never, Scope.Scope> = make(newThread);

/** The same, with another thread than ours, for tests. */
export const startWithThread = make;
