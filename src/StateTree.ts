/**
 * The tree of files that programs read: `STATEDIR/features/FEATURE/HOST`.
 *
 * What each host should show is compared with what is known to stand on disk, in memory, and only differences become
 * file operations: 4 system calls for a changed value, none for an unchanged one. All of them are synchronous (four
 * times as fast as the others, and never half done when the writer is interrupted), in batches that are short enough for
 * the rest of the program.
 */
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Random from "effect/Random";
import type * as Scope from "effect/Scope";
import * as Address from "./Address.js";
import * as Alarm from "./Alarm.js";
import * as Feature from "./Feature.js";
import type { FeatureName, FeatureValue, HostFeatures } from "./Feature.js";
import { Metrics } from "./Metrics.js";
import type { Holder, StateLockError } from "./StateLock.js";
import { codeOf, fileError, MemoryFiles, onDisk, temporary, type TreeFiles } from "./TreeFiles.js";

/** The tree cannot be used at all (another daemon has it, or the directory cannot be made). */
export class StateTreeError extends Data.TaggedError("StateTreeError")<{
  readonly reason: "Locked" | "Unusable";
  readonly path: string;
  /** Who has it, when that is known. */
  readonly holder?: Holder | undefined;
  readonly cause?: unknown;
}> {
  override get message(): string {
    if (this.reason === "Locked") {
      const who = this.holder === undefined ? "which does not answer" : `pid ${this.holder.pid} on ${this.holder.host}`;
      return `the state directory ${this.path} belongs to another nameq serve (${who}): stop that one, or give this one a directory of its own with --state-dir`;
    }
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause);
    return `cannot use the state directory ${this.path} (${why}): make it a directory on a local file system that this user may write to, or choose another with --state-dir`;
  }
}

export declare namespace StateTree {
  interface Service {
    /**
     * Sets what the tree must show for `host` (an empty map: nothing). Synchronous: while the writer has nothing to do, a
     * small change is written at once; else it only notes the wish, and many wishes for one host are one write. A provisional wish adds files that are missing, but neither
     * changes nor removes one that was found at start (its news may be older than the file); `settle` or a firm wish ends that.
     */
    readonly update: (
      host: Address.Address,
      features: HostFeatures,
      options?: { readonly provisional?: boolean },
    ) => void;
    /** Membership is known: from now on every wish is firm, and found files that nobody wished for are removed. Idempotent. */
    readonly settle: () => void;
    /**
     * The writer: writes differences until it is interrupted. File errors are retried with back-off (100 ms to 30 s) and
     * reported once; a tree that was removed from outside is made again within 5 seconds. Fails only when the directory
     * was removed and another daemon has taken it since.
     */
    readonly run: Effect.Effect<never, StateTreeError>;
    /** How much is kept of hosts and feature directories, how many hosts wait for the writer, and error codes that hold. */
    readonly sizes: () => {
      readonly hosts: number;
      readonly directories: number;
      readonly unwritten: number;
      readonly failing: number;
    };
    /**
     * Hears when an error code begins to keep files from being written, with what to do (at once, of those that do), and
     * when it no longer does (undefined). For one listener.
     */
    readonly onFailing: (hear: (code: string, problem: string | undefined) => void) => void;
    /** Waits until all that was wished so far stands in the tree. */
    readonly flush: Effect.Effect<void>;
    /**
     * Removes every file that this tree shows (not foreign ones, and no directory), at termination: later wishes are not
     * heard. The writer must have ended. What cannot be removed is reported and stays.
     */
    readonly withdraw: Effect.Effect<void>;
  }
}

/** File operations between two turns for the rest of the program: about 1.5 ms. Source: MEASURED, "Files". */
const batch = 64;
/** File operations that `update` does itself. */
const batchAhead = 16;
/** Comparisons that count as one file operation. */
const comparisons = 64;
/** A new feature directory stands so long before its first file, ms. Source: PROTOCOL, section 4. */
const directoryLeadMs = 5;
/** A feature directory that was empty so long goes, ms. */
const emptyForMs = 10 * 60_000;
/** How often the writer looks whether the tree was removed from outside, ms: five system calls. */
const lookEveryMs = 5000;
const firstRetryMs = 100;
const lastRetryMs = 30_000;

/** Errors with which a node starts all the same: the writer tries again, and meanwhile its peers hear of it. */
const passing: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM"]);

/** Stands for the content of a file that was found and not read yet. */
const found = Symbol("found");

/** A host that the writer may have something to do for. */
interface Host {
  wish: HostFeatures;
  /** Whether found files may be changed and removed. */
  firm: boolean;
  /** Changes with every wish. */
  revision: number;
  /** What stands on disk. */
  shown: ReadonlyMap<FeatureName, FeatureValue | typeof found>;
  /** Whether `shown` is this host's alone: else it is a wish's map, which saves 300 bytes a host, and is copied for a change. */
  ownsShown: boolean;
  /** Passes in a row that failed. */
  failures: number;
  notBeforeMs: number;
}

interface Directory {
  /** Files of ours in it. */
  files: number;
  /** When it may get its first file. */
  readonly readyAtMs: number;
}

const nothing: HostFeatures = new Map();

const advice = (code: string): string => {
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return "free space or inodes on its file system";
    case "EACCES":
    case "EPERM":
      return "let this user write there";
    case "EROFS":
      return "mount its file system writable";
    case "ENOENT":
      return "something removes the tree from outside";
    case "ENOTDIR":
    case "EISDIR":
    case "EEXIST":
    case "ENOTEMPTY":
      return "something else stands in the way: remove or rename it";
    case "EMFILE":
    case "ENFILE":
      return "raise the limit of open files";
    default:
      return "see to its file system";
  }
};

const make = (files: TreeFiles): Effect.Effect<StateTree.Service, StateTreeError, Metrics | Scope.Scope> =>
  Effect.gen(function* () {
    const metrics = yield* Metrics;
    const nudge = yield* Alarm.make;
    // monotonic: a clock that is set must not end a directory's ten minutes
    const now = nudge.monotonicMs;

    /** A host whose wish stands on disk, and nothing else of it, is that wish alone: 100 bytes less for each. */
    const hosts = new Map<Address.Address, Host | HostFeatures>();
    const directories = new Map<FeatureName, Directory>();
    /** Since when a directory has none of our files: the oldest first. */
    const empty = new Map<FeatureName, number>();
    /** Hosts whose wish may not stand yet, by the number of the first such wish: the oldest first. */
    const dirty = new Map<Address.Address, number>();
    metrics.gauge("tree_hosts_pending", () => dirty.size);
    const writes = metrics.cell("tree_writes");
    const writeTime = metrics.histogram("tree_write");
    const waiting = new Set<{ readonly for: number; readonly resume: () => void }>();
    /** What fails now, by error code. */
    const failing = new Map<string, Set<string>>();
    let lines: Array<Effect.Effect<void>> = [];
    let hear: (code: string, problem: string | undefined) => void = () => {};
    const problemOf = (code: string): string =>
      `files in ${files.directory} cannot be written (${code}): ${advice(code)}`;
    let lastWish = 0;
    let settled = false;
    let withdrawn = false;
    let lookNow = false;
    /** Whether there is something to write into, as far as is known: else all would fail with what is not the reason. */
    let stands = false;
    /** Whether the writer waits for something to do. */
    let idle = false;
    /** Until when `update` leaves writing to the writer: as long as it took the last time, so that a burst is written in batches. */
    let restUntilMs = 0;
    /** Whether the temporary file may stand there. */
    let leftover = true;
    /** File operations since the last pause. */
    let spent = 0;
    /** When the last file was written, and what `spent` is as long as nothing came after it: the clock takes 0.1 to 0.2 us. */
    let writtenMs = 0;
    let writtenAt = -1;
    /** The stamp of `features` when all in it was known. */
    let lookedAt: string | undefined;

    const mark = (address: Address.Address, host: Host): void => {
      host.revision++;
      host.notBeforeMs = 0;
      if (!dirty.has(address)) dirty.set(address, ++lastWish);
    };
    const touch = (address: Address.Address, host: Host): void => {
      mark(address, host);
      nudge.ring();
    };

    const newHost = (address: Address.Address, firm = settled, standing = nothing): Host => {
      const host: Host = {
        wish: standing,
        firm,
        revision: 0,
        shown: standing,
        ownsShown: false,
        failures: 0,
        notBeforeMs: 0,
      };
      hosts.set(address, host);
      return host;
    };

    const hostOf = (address: Address.Address): Host | undefined => {
      const host = hosts.get(address);
      return host === undefined || "wish" in host ? host : newHost(address, true, host);
    };

    const shownOf = (host: Host): Map<FeatureName, FeatureValue | typeof found> => {
      if (host.ownsShown) return host.shown as Map<FeatureName, FeatureValue | typeof found>;
      const own = new Map(host.shown);
      host.shown = own;
      host.ownsShown = true;
      return own;
    };

    /** The last value's text: hosts that change together often change to the same. */
    let lastValue: FeatureValue | undefined;
    let lastText = "";
    const textOf = (value: FeatureValue): string => {
      if (value !== lastValue) {
        lastText = Feature.fileText(value);
        lastValue = value;
      }
      return lastText;
    };

    const fail = (who: string, doing: string, path: string, error: unknown): string => {
      const code = codeOf(error);
      if (code === undefined) throw error;
      metrics.add("tree_errors", code);
      const others = failing.get(code);
      if (others !== undefined) {
        others.add(who);
      } else {
        failing.set(code, new Set([who]));
        hear(code, problemOf(code));
        lines.push(
          Effect.logError(`cannot ${doing} ${files.directory}/${path} (${code}), will try again: ${advice(code)}`).pipe(
            Effect.annotateLogs({ path: `${files.directory}/${path}`, code }),
          ),
        );
      }
      return code;
    };

    /** `who` fails with these codes and no other. */
    const conclude = (who: string, codes: ReadonlySet<string>): void => {
      for (const [code, all] of failing) {
        if (codes.has(code) || !all.delete(who) || all.size > 0) continue;
        failing.delete(code);
        hear(code, undefined);
        lines.push(
          Effect.logInfo(`files in ${files.directory} can be written again`).pipe(Effect.annotateLogs({ code })),
        );
      }
    };
    const succeeded: ReadonlySet<string> = new Set();

    const makeSure = (path: string, mode: number): void => {
      if (files.stamp(path) !== undefined) return;
      try {
        files.makeDirectory(path, mode);
      } catch (error) {
        throw codeOf(error) === "EEXIST" ? fileError("ENOTDIR", "mkdir", `${files.directory}/${path}`) : error;
      }
    };
    const makeFrame = (): void => {
      makeSure("", 0o755);
      makeSure("features", 0o755);
      makeSure(".tmp", 0o700);
    };

    /** Takes a directory that stands there, and the files in it that can be ours, as found. */
    const adopt = (name: FeatureName): Directory => {
      const directory: Directory = { files: 0, readyAtMs: now() + directoryLeadMs };
      for (const entry of files.list(`features/${name}`)) {
        const address = entry.kind === "file" ? Address.parse(entry.name) : undefined;
        if (address === undefined || address !== entry.name) continue;
        const host = hostOf(address) ?? newHost(address);
        shownOf(host).set(name, found);
        directory.files++;
        if (host.firm) touch(address, host);
      }
      directories.set(name, directory);
      if (directory.files === 0) empty.set(name, now());
      return directory;
    };

    const directoryOf = (name: FeatureName): Directory => {
      const known = directories.get(name);
      if (known !== undefined) return known;
      const path = `features/${name}`;
      try {
        files.makeDirectory(path, 0o755);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
        if (files.stamp(path) === undefined) throw fileError("ENOTDIR", "mkdir", `${files.directory}/${path}`);
        return adopt(name);
      }
      const directory: Directory = { files: 0, readyAtMs: now() + directoryLeadMs };
      directories.set(name, directory);
      empty.set(name, now());
      return directory;
    };

    const removeTemporary = (): void => {
      try {
        files.unlink(temporary);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
      }
      leftover = false;
    };

    const write = (path: string, text: string): void => {
      const startMs = spent === writtenAt ? writtenMs : now();
      if (leftover) removeTemporary();
      leftover = true;
      try {
        files.write(temporary, text);
        files.rename(temporary, path);
        leftover = false;
      } finally {
        if (leftover) removeTemporary();
      }
      writes.value++;
      writtenMs = now();
      writtenAt = spent + 1;
      writeTime.observe((writtenMs - startMs) / 1000);
    };

    const remove = (path: string): void => {
      try {
        files.unlink(path);
        metrics.add("tree_removals");
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
        lookNow = true;
      }
    };

    /** Brings the files of one host to its wish. Yields when there should be a pause. */
    function* reconcile(address: Address.Address, host: Host, retryAtMs: (failures: number) => number) {
      const { revision, wish, firm } = host;
      let codes = succeeded;
      let againAtMs = Number.POSITIVE_INFINITY;
      spent += (host.shown.size + wish.size) / comparisons;
      if (spent >= batch) yield;
      if (host.revision !== revision) return;
      // removals first: they make room
      for (const [name, value] of host.shown) {
        if (wish.has(name) || (!firm && value === found)) continue;
        const path = `features/${name}/${address}`;
        try {
          remove(path);
          shownOf(host).delete(name);
          const directory = directories.get(name);
          if (directory !== undefined && --directory.files === 0) empty.set(name, now());
        } catch (error) {
          codes = new Set([...codes, fail(address, "remove", path, error)]);
        }
        if (++spent >= batch) yield;
        if (host.revision !== revision) return;
      }
      for (const [name, value] of wish) {
        const current = host.shown.get(name);
        if (current === value || (!firm && current === found)) continue;
        const path = `features/${name}/${address}`;
        try {
          const directory = directoryOf(name);
          if (current === undefined && directory.readyAtMs > now()) {
            againAtMs = Math.min(againAtMs, directory.readyAtMs);
          } else {
            const text = textOf(value);
            if (current !== found || !files.holds(path, text)) write(path, text);
            if (current === undefined && directory.files++ === 0) empty.delete(name);
            shownOf(host).set(name, value);
          }
        } catch (error) {
          const code = fail(address, "write", path, error);
          codes = new Set([...codes, code]);
          lookNow ||= code === "ENOENT";
        }
        if (++spent >= batch) yield;
        if (host.revision !== revision) return;
      }
      conclude(address, codes);
      host.failures = codes.size === 0 ? 0 : host.failures + 1;
      if (codes.size > 0) againAtMs = Math.min(againAtMs, retryAtMs(host.failures));
      host.notBeforeMs = againAtMs;
      if (againAtMs < Number.POSITIVE_INFINITY) return;
      dirty.delete(address);
      if (wish.size === 0 && host.shown.size === 0) {
        hosts.delete(address);
      } else if (firm) {
        hosts.set(address, wish);
      }
    }

    /** Does the writer's work for one host in the caller's turn, which saves a fiber's wake-up; whatever is left is the writer's. */
    const writeAhead = (address: Address.Address, host: Host): void => {
      if (idle && stands && dirty.size === 1) {
        const startMs = now();
        if (startMs >= restUntilMs) {
          spent = batch - batchAhead;
          reconcile(address, host, () => startMs + firstRetryMs).next();
          const endMs = now();
          restUntilMs = endMs + (endMs - startMs);
        }
      }
      if (dirty.size > 0 || lookNow || lines.length > 0) nudge.ring();
    };

    /** All hosts that are due. `jitter` is one for the pass, so that what failed together is tried together. */
    function* pass(jitter: number) {
      const startMs = now();
      const retryAtMs = (failures: number): number =>
        startMs + Math.min(lastRetryMs, firstRetryMs * 2 ** (failures - 1)) * jitter;
      const last = lastWish;
      for (const [address, wish] of dirty) {
        if (wish > last) return;
        const host = hostOf(address);
        if (host === undefined || host.notBeforeMs > startMs) continue;
        yield* reconcile(address, host, retryAtMs);
        if (lookNow) return;
      }
    }

    /** Sees what stands: at start, and when directories came or went from outside. */
    function* look() {
      lookNow = false;
      const who = "the tree";
      const codes = new Set<string>();
      stands = false;
      try {
        makeFrame();
        stands = true;
        const stamp = files.stamp("features");
        if (stamp !== lookedAt) {
          const standing = files
            .list("features")
            .flatMap(({ name, kind }) => (kind === "directory" && Feature.isFeatureName(name) ? [name] : []));
          forgetAllBut(new Set(standing));
          for (const name of standing) {
            if (directories.has(name)) continue;
            try {
              adopt(name);
            } catch (error) {
              codes.add(fail(who, "read", `features/${name}`, error));
            }
            if (++spent >= batch) yield;
          }
          lookedAt = codes.size === 0 ? stamp : undefined;
        }
      } catch (error) {
        codes.add(fail(who, "make", "features", error));
      }
      conclude(who, codes);
    }

    const forgetAllBut = (standing: ReadonlySet<FeatureName>): void => {
      const gone = [...directories.keys()].filter((name) => !standing.has(name));
      if (gone.length === 0) return;
      for (const name of gone) {
        directories.delete(name);
        empty.delete(name);
      }
      for (const [address, known] of hosts) {
        for (const name of "wish" in known ? known.shown.keys() : known.keys()) {
          if (directories.has(name)) continue;
          const host = hostOf(address)!;
          shownOf(host).delete(name);
          touch(address, host);
        }
      }
      lines.push(
        Effect.logWarning(
          `${gone.length} directories were removed from ${files.directory}/features from outside: writing them again`,
        ).pipe(Effect.annotateLogs({ path: `${files.directory}/features` })),
      );
    };

    /** Removes directories that were empty for long enough. */
    function* expire() {
      const who = "empty directories";
      const codes = new Set<string>();
      for (const [name, sinceMs] of empty) {
        if (sinceMs + emptyForMs > now()) break;
        const path = `features/${name}`;
        empty.delete(name);
        try {
          files.removeDirectory(path);
          directories.delete(name);
        } catch (error) {
          // with files of somebody else in it, it stays
          const code = codeOf(error) === "ENOTEMPTY" ? undefined : fail(who, "remove", path, error);
          if (code !== undefined) codes.add(code);
          if (code === "ENOENT") directories.delete(name);
          else empty.set(name, now());
        }
        if (++spent >= batch) yield;
      }
      conclude(who, codes);
    }

    const report = (): Effect.Effect<void> | undefined => {
      const oldest = dirty.values().next().value ?? Number.POSITIVE_INFINITY;
      for (const one of waiting) if (one.for < oldest) one.resume();
      if (lines.length === 0) return undefined;
      const all = lines;
      lines = [];
      return Effect.all(all, { discard: true });
    };

    /** Takes the steps, with pauses: an interruption falls into one of them. */
    const drive = Effect.fnUntraced(function* (steps: Generator<void>) {
      for (const _ of steps) {
        spent = 0;
        const news = report();
        if (news !== undefined) yield* news;
        yield* files.turn;
      }
      const news = report();
      if (news !== undefined) yield* news;
    });

    const refused = (error: StateLockError): StateTreeError =>
      new StateTreeError({
        reason: error.reason === "Held" ? "Locked" : "Unusable",
        path: files.directory,
        holder: error.holder,
        cause: error.cause,
      });

    const lock = yield* Effect.mapError(files.lock, refused);
    yield* Effect.try({
      try: () => {
        makeFrame();
        removeTemporary();
      },
      catch: (cause) => new StateTreeError({ reason: "Unusable", path: files.directory, cause }),
    }).pipe(
      Effect.catchIf(
        ({ cause }) => passing.has(codeOf(cause) ?? ""),
        () => Effect.void,
      ),
    );
    yield* drive(look());

    const checkLock = lock.check.pipe(
      Effect.matchEffect({
        onSuccess: () => Effect.sync(() => conclude("the lock", succeeded)),
        onFailure: (error) =>
          error.reason === "Held"
            ? Effect.fail(refused(error))
            : Effect.sync(() => void fail("the lock", "make", ".lock", error.cause)),
      }),
    );

    const run = Effect.gen(function* () {
      let lookAtMs = now() + lookEveryMs;
      for (;;) {
        idle = false;
        nudge.silence();
        if (lookNow || lookAtMs <= now()) {
          yield* checkLock;
          yield* drive(look());
          lookAtMs = now() + lookEveryMs;
        }
        let dueMs = lookAtMs;
        if (stands) {
          yield* drive(pass(yield* Random.nextRange(0.75, 1.25)));
          yield* drive(expire());
          if (lookNow) continue;
          for (const sinceMs of empty.values()) {
            dueMs = Math.min(dueMs, sinceMs + emptyForMs);
            break;
          }
          for (const address of dirty.keys()) dueMs = Math.min(dueMs, hostOf(address)?.notBeforeMs ?? 0);
        }
        if (dueMs <= now()) continue;
        idle = true;
        yield* nudge.wait(dueMs);
      }
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          idle = false;
        }),
      ),
    );

    return {
      update: (address, features, options) => {
        if (withdrawn) return;
        const known = hosts.get(address);
        if (known === features) return;
        const host = hostOf(address) ?? (features.size === 0 ? undefined : newHost(address));
        if (host === undefined) return;
        const firm = host.firm || options?.provisional !== true;
        if (host.wish === features && host.firm === firm) return;
        host.wish = features;
        host.firm = firm;
        mark(address, host);
        writeAhead(address, host);
      },
      settle: () => {
        if (settled) return;
        settled = true;
        for (const [address, host] of hosts) {
          if (!("wish" in host) || host.firm) continue;
          host.firm = true;
          touch(address, host);
        }
      },
      run,
      onFailing: (listener) => {
        hear = listener;
        for (const code of failing.keys()) hear(code, problemOf(code));
      },
      flush: Effect.async<void>((resume) => {
        const oldest = dirty.values().next().value;
        if (oldest === undefined) return resume(Effect.void);
        const one = {
          for: lastWish,
          resume: () => {
            waiting.delete(one);
            resume(Effect.void);
          },
        };
        waiting.add(one);
        return Effect.sync(() => waiting.delete(one));
      }),
      sizes: () => ({
        hosts: hosts.size,
        directories: directories.size,
        unwritten: dirty.size,
        failing: failing.size,
      }),
      withdraw: Effect.suspend(() => {
        withdrawn = true;
        for (const address of hosts.keys()) {
          const host = hostOf(address)!;
          host.wish = nothing;
          host.firm = true;
          touch(address, host);
        }
        const steps = function* () {
          for (const address of hosts.keys()) yield* reconcile(address, hostOf(address)!, () => now() + lastRetryMs);
        };
        return drive(steps());
      }),
    };
  });

export class StateTree extends Context.Tag("nameq/StateTree")<StateTree, StateTree.Service>() {
  /** The tree in `directory`, which is made if it is missing. Two services, in whatever processes, cannot have one directory. */
  static readonly layer = (options: { readonly directory: string }): Layer.Layer<StateTree, StateTreeError, Metrics> =>
    Layer.scoped(StateTree, make(onDisk(options.directory)));

  /** The same on files in memory, which the caller may keep, read and make fail. */
  static readonly layerMemory = (files = new MemoryFiles()): Layer.Layer<StateTree, StateTreeError, Metrics> =>
    Layer.scoped(StateTree, make(files));
}
