/**
 * "Look again" hints for directories, one or a thousand. A watch may lose events (a blocked loop, a full queue, a
 * reached limit), so it only makes hints fast; the directory's own stat, swept about once a second, makes them sure.
 */
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { type BigIntStats, statSync, watch as fsWatch } from "node:fs";
import { basename } from "node:path";
import * as Alarm from "./Alarm.js";

/** Look at this directory. It may be gone, and nothing in it may have changed. */
export interface Hint {
  readonly directory: string;
  /** Where something may have changed, at most `maxNames` names; undefined: anywhere, so list it. */
  readonly names: ReadonlySet<string> | undefined;
}

/** The hints of one consumer, bounded by the number of its directories. */
export interface DirectoryHints {
  /** Watches `directory` (it need not be there), and asks for a first look at it. Again: asks for another look. */
  readonly watch: (directory: string) => Effect.Effect<void>;
  /** Forgets `directory`. */
  readonly unwatch: (directory: string) => Effect.Effect<void>;
  /**
   * Waits for hints, and gives at most `maxHints` of them; none when `atMost` passes first. What happens after it
   * returned gives another hint, so looking after it misses nothing. It also does the sweep: call it again and again,
   * from one fiber.
   */
  readonly take: (atMost?: Duration.DurationInput) => Effect.Effect<ReadonlyArray<Hint>>;
}

/** Opens a watch on one directory, or throws. Names are of entries, or null when unknown. */
export type Watch = (
  directory: string,
  onEvent: (name: string | null) => void,
  onError: (cause: unknown) => void,
) => { readonly close: () => void };

export interface Options {
  /** Defaults to 1 second. */
  readonly sweepInterval?: Duration.DurationInput | undefined;
  /** Defaults to node:fs `watch`. */
  readonly watch?: Watch | undefined;
  /** Is asked in the turn of each event that has a name whether a hint is needed. Defaults to true. */
  readonly onEvent?: ((name: string) => boolean) | undefined;
}

/** More names than this in one directory, and a hint says "list it". */
export const maxNames = 64;
/** Bounds how long one `take` blocks the event loop: a new watch costs 0.2 ms. */
export const maxHints = 16;
const sweepBatch = 512;

/**
 * File times advance by ticks of 1 to 10 ms, so for that long after a change a later one can leave the same stat. This
 * is a safe multiple, and also covers a writer between truncation and its first write.
 */
export const settleMs = 100;

/**
 * When (same clock as `now`, ms) something first seen with `stat` at `now` must be looked at once more whatever its
 * stat says then; Infinity when its last change is long enough ago. A file time in the future counts as recent.
 */
export const recheckAt = (stat: BigIntStats, now: number, unixMs: number): number =>
  unixMs - Number(stat.ctimeNs / 1_000_000n) >= settleMs ? Number.POSITIVE_INFINITY : now + settleMs;

/** Whether two stats are of the same unchanged inode. */
export const sameStat = (a: BigIntStats | undefined, b: BigIntStats | undefined): boolean =>
  a === b ||
  (a !== undefined &&
    b !== undefined &&
    a.mtimeNs === b.mtimeNs &&
    a.ctimeNs === b.ctimeNs &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.dev === b.dev &&
    a.birthtimeNs === b.birthtimeNs);

/** Lets the event loop turn once: for long synchronous scans, between batches. */
export const breathe: Effect.Effect<void> = Effect.async((resume) => {
  const handle = setImmediate(() => resume(Effect.void));
  return Effect.sync(() => clearImmediate(handle));
});

const nodeWatch: Watch = (directory, onEvent, onError) =>
  fsWatch(directory, (_, name) => onEvent(name)).on("error", onError);

/** Undefined when it cannot be had, whatever the cause: the consumer's own look tells why. */
const statOf = (directory: string): BigIntStats | undefined => {
  try {
    return statSync(directory, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
};

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);

const remedies: Record<string, string> = {
  ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
  EMFILE: "raise the sysctl fs.inotify.max_user_instances (or the limit of open files)",
};

interface Watched {
  readonly directory: string;
  readonly base: string;
  /** As of the last hint that said "list it". */
  seen: BigIntStats | undefined;
  recheckAt: number;
  /** What to hint at; undefined: nothing. */
  pending: Set<string> | "all" | undefined;
  watcher: ReturnType<Watch> | undefined;
  /** The watch may be on an inode that is no longer the directory's. */
  stale: boolean;
}

/** Hints until the scope closes. A limit or an error of the watch never ends them: the sweep goes on alone. */
export const make = Effect.fnUntraced(function* (
  options: Options = {},
): Effect.fn.Return<DirectoryHints, never, Scope.Scope> {
  const open = options.watch ?? nodeWatch;
  const interval = Duration.toMillis(options.sweepInterval ?? "1 second");
  const onEvent = options.onEvent ?? (() => true);
  const clock = yield* Effect.clock;
  const alarm = yield* Alarm.make;
  const now = alarm.monotonicMs;
  const all = new Map<string, Watched>();
  const dirty = new Set<Watched>();
  const warned = new Set<string>();
  const warnings: Array<string> = [];
  let sweepAt = now() + interval;

  const hint = (target: Watched, name: string | undefined) => {
    if (name === undefined || target.pending === "all") target.pending = "all";
    else if (target.pending === undefined) target.pending = new Set([name]);
    else if (target.pending.add(name).size > maxNames) target.pending = "all";
    dirty.add(target);
    alarm.ring();
  };

  const close = (target: Watched) => {
    target.watcher?.close();
    target.watcher = undefined;
    target.stale = false;
  };

  const warn = (directory: string, cause: unknown) => {
    const code = codeOf(cause);
    if (code === "ENOENT" || warned.has(code)) return;
    warned.add(code);
    warnings.push(
      `cannot watch ${directory} (${code}), so it is looked at every ${interval} ms instead: ${remedies[code] ?? "check its permissions"} for faster news`,
    );
  };

  const openWatch = (target: Watched) => {
    try {
      target.watcher = open(
        target.directory,
        (name) => {
          // an event of the directory itself carries its own name: it was removed, moved or unmounted
          if (name === target.base) target.stale = true;
          if (name === null || target.stale) hint(target, undefined);
          else if (onEvent(name)) hint(target, name);
        },
        (cause) => {
          warn(target.directory, cause);
          close(target);
          // the next sweep sees a difference, and the watch is tried again then: never in a tight loop
          target.seen = undefined;
        },
      );
    } catch (cause) {
      warn(target.directory, cause);
    }
  };

  /** The stat is taken before the watch is made and before the consumer looks: what comes later differs from it. */
  const refresh = (target: Watched) => {
    const stat = statOf(target.directory);
    const { seen } = target;
    if (sameStat(seen, stat)) {
      if (target.recheckAt <= now()) target.recheckAt = Number.POSITIVE_INFINITY;
    } else {
      target.seen = stat;
      target.recheckAt =
        stat === undefined ? Number.POSITIVE_INFINITY : recheckAt(stat, now(), clock.unsafeCurrentTimeMillis());
    }
    const sameInode = stat?.ino === seen?.ino && stat?.dev === seen?.dev && stat?.birthtimeNs === seen?.birthtimeNs;
    if (stat === undefined || !sameInode || target.stale) close(target);
    if (stat !== undefined && target.watcher === undefined) openWatch(target);
  };

  const sweep = Effect.gen(function* () {
    let n = 0;
    for (const target of all.values()) {
      if (++n % sweepBatch === 0) yield* breathe;
      if (target.recheckAt <= now() || !sameStat(target.seen, statOf(target.directory))) hint(target, undefined);
    }
    sweepAt = now() + interval;
  });

  const drain = (): ReadonlyArray<Hint> => {
    const hints: Array<Hint> = [];
    for (const target of dirty) {
      if (hints.length === maxHints) break;
      dirty.delete(target);
      const { directory, pending } = target;
      target.pending = undefined;
      if (pending === "all") refresh(target);
      hints.push({ directory, names: pending === "all" ? undefined : pending });
    }
    alarm.silence();
    return hints;
  };

  yield* Effect.addFinalizer(() => Effect.sync(() => all.forEach(close)));

  return {
    watch: (directory) =>
      Effect.sync(() => {
        let target = all.get(directory);
        if (target === undefined) {
          target = {
            directory,
            base: basename(directory),
            seen: undefined,
            recheckAt: Number.POSITIVE_INFINITY,
            pending: undefined,
            watcher: undefined,
            stale: false,
          };
          all.set(directory, target);
        }
        hint(target, undefined);
      }),
    unwatch: (directory) =>
      Effect.sync(() => {
        const target = all.get(directory);
        if (target === undefined) return;
        all.delete(directory);
        dirty.delete(target);
        close(target);
      }),
    take: Effect.fnUntraced(function* (atMost?: Duration.DurationInput) {
      const until = atMost === undefined ? Number.POSITIVE_INFINITY : now() + Duration.toMillis(atMost);
      for (;;) {
        const wakeAt = Math.min(until, sweepAt);
        if (dirty.size === 0 && wakeAt > now()) yield* alarm.wait(wakeAt);
        if (now() >= sweepAt) yield* sweep;
        const hints = drain();
        while (warnings.length > 0) yield* Effect.logWarning(warnings.shift());
        if (hints.length > 0 || now() >= until) return hints;
      }
    }),
  };
});
