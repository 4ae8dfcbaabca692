/**
 * The state tree as programs read it: `STATEDIR/features/FEATURE/HOST`. A scan is the truth, and a watch only a hint
 * where to look: each look compares what is on disk with the table, so looks may come in any order and number.
 */
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { closeSync, constants, fstatSync, openSync, readSync, readdirSync, type Stats, statSync } from "node:fs";
import { basename, join } from "node:path";
import { type Address, parse as parseAddress } from "./Address.js";
import { breathe } from "./DirectoryHints.js";
import { type FeatureName, type FeatureValue, isFeatureName, parseBytes } from "./Feature.js";
import { FeatureTable, type Held, Problem, type ProblemReason, type Subscription, type Tree } from "./FeatureTable.js";
import { isFault } from "./Json.js";
import * as Watches from "./Watches.js";

/** Largest file that is read: the indented form of the largest value there can be. Source: PROTOCOL, section 1. */
const maxFileBytes = 4 * 1024 * 1024 + 4096;
/** File times advance by ticks of at most 10 ms: what was changed this recently may change without a trace. */
const settleMs = 50;
/** The same where times are whole seconds: such ticks take up to 2 seconds. */
const coarseSettleMs = 2_100;
/** Files looked at (reading one counts as three) before the event loop gets a turn: 1 to 2 ms. */
const sliceSize = 500;
const sweepMs = 1_000;
/** A long sweep is followed by a rest of this many times its length, so that it costs a fifth of a core; but not longer. */
const restFactor = 4;
const longestRestMs = 10_000;
/** How many of the watches that could not be had are tried again at a sweep. */
const retries = 16;

const statOptions = { throwIfNoEntry: false } as const;
// never waits for the other end of a foreign pipe
const openFlags = constants.O_RDONLY | constants.O_NONBLOCK;

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
const isGone = (cause: unknown): boolean => codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR";
const limits: Record<string, readonly [file: string, remedy: string]> = {
  ENOSPC: ["max_user_watches", "raise the sysctl fs.inotify.max_user_watches"],
  EMFILE: ["max_user_instances", "raise the sysctl fs.inotify.max_user_instances, or the limit of open files"],
};

/** Which content of a file was read. */
interface Stamp {
  readonly ino: number;
  readonly changedMs: number;
  /** -1: it may have changed since, all the same. */
  readonly size: number;
}
type HeldFile = Held & Stamp;

const isSame = (stamp: Stamp, stat: Stats): boolean =>
  stamp.size === stat.size && stamp.changedMs === stat.mtimeMs && stamp.ino === stat.ino;

/** A directory that is kept up to date. */
interface Place {
  readonly path: string;
  watchId: number;
  /** Which directory it was when it was last looked at; its watch is on that one. -1: none, or perhaps another by now. */
  ino: number;
  dev: number;
  /** The directory's time when it was last listed; NaN: it must be listed again. */
  listedMs: number;
  /** Entries that cannot be used, by name. */
  readonly bad: Map<string, Stamp | undefined>;
  dropped: boolean;
}

const newPlace = (path: string): Place => ({
  path,
  watchId: -1,
  ino: -1,
  dev: -1,
  listedMs: Number.NaN,
  bad: new Map(),
  dropped: false,
});

/** Brings a table in line with a tree. Its generators may be paused where they yield, and run interleaved. */
class Scanner {
  private readonly root: Place;
  private readonly places = new Map<FeatureName, Place>();
  /** What `features` holds, wanted or not. */
  private names = new Set<FeatureName>();
  private readonly watched = new Map<number, Place>();
  private readonly unwatched = new Set<Place>();
  private lastId = 0;
  private readonly hosts = new Map<string, Address | undefined>();
  private readonly buffer = Buffer.allocUnsafeSlow(16_384);
  private lastValue: FeatureValue | undefined;
  private spent = 0;

  constructor(
    stateDir: string,
    private readonly table: FeatureTable<HeldFile>,
    private readonly wants: (feature: FeatureName) => boolean,
    private readonly nowMs: () => number,
    private readonly watches?: Watches.Watches,
  ) {
    this.root = newPlace(join(stateDir, "features"));
  }

  /** Looks at everything that may have changed. */
  *sweep(): Generator<void> {
    for (const place of [...this.unwatched].slice(0, retries)) this.watch(place);
    yield* this.lookAtRoot();
    for (const feature of this.names) {
      yield* this.lookAtFeature(feature);
      if (this.isDue()) yield;
    }
  }

  /** Looks where a hint says. */
  *follow({ id, names, failure }: Watches.Hint): Generator<void> {
    const place = this.watched.get(id);
    if (place === undefined) return;
    if (names === undefined) this.noteWatch(place, failure);
    const own = basename(place.path);
    // an event of the directory itself carries its own name: it may have been moved or removed
    const itself = names === undefined || names.includes(own);
    if (names !== undefined && itself) place.ino = -1;
    if (place === this.root) {
      if (itself) yield* this.lookAtRoot();
      for (const name of names ?? []) if (isFeatureName(name)) yield* this.lookAtFeature(name);
      return;
    }
    const feature = own as FeatureName;
    if (itself) yield* this.lookAtFeature(feature);
    for (const name of names ?? []) {
      if (place.dropped) return;
      const host = this.hostOf(name);
      // of foreign names a sweep tells
      if (host !== undefined) this.read(place, feature, host);
      if (this.isDue()) yield;
    }
  }

  private *lookAtRoot(): Generator<void> {
    const { root, names: before } = this;
    const stat = this.stat(root);
    if (stat === "unreadable" || (stat !== undefined && stat.mtimeMs === root.listedMs)) return;
    const listed = stat === undefined ? [] : this.list(root, stat);
    if (listed === undefined) return;
    const shown = listed.filter((name) => !name.startsWith("."));
    this.names = new Set(shown.filter(isFeatureName));
    const foreign = new Set(shown.filter((name) => !isFeatureName(name)));
    for (const name of root.bad.keys()) if (!foreign.has(name)) this.forgive(root, name);
    for (const name of foreign) this.blame(root, name, undefined, "Foreign", "is not a feature's name");
    for (const name of before) if (!this.names.has(name)) yield* this.lookAtFeature(name);
    for (const name of this.names) if (!this.places.has(name)) yield* this.lookAtFeature(name);
  }

  private *lookAtFeature(feature: FeatureName): Generator<void> {
    const known = this.places.get(feature);
    const wanted = this.wants(feature);
    if (!wanted && known === undefined) return;
    const place = known ?? newPlace(`${this.root.path}/${feature}`);
    const stat = wanted ? this.stat(place) : undefined;
    if (stat === "unreadable") return;
    if (stat === undefined) {
      this.drop(feature, place);
      return;
    }
    this.names.add(feature);
    this.places.set(feature, place);
    const names = stat.mtimeMs === place.listedMs ? undefined : this.list(place, stat);
    if (names === undefined) return;
    let ours = 0;
    for (const name of names) {
      if (name.startsWith(".")) continue;
      ours++;
      this.lookAtFile(place, feature, name);
      if (this.isDue()) yield;
      if (place.dropped) return;
    }
    const hosts = this.table.features.get(feature);
    if (ours === place.bad.size + (hosts?.size ?? 0)) return;
    const present = new Set(names);
    for (const name of place.bad.keys()) if (!present.has(name)) this.forgive(place, name);
    for (const host of hosts?.keys() ?? []) if (!present.has(host)) this.read(place, feature, host);
  }

  private lookAtFile(place: Place, feature: FeatureName, name: string): void {
    this.spent++;
    const host = this.hostOf(name);
    if (host === undefined) {
      this.blame(place, name, undefined, "Foreign", "is not a host's address");
      return;
    }
    const known = this.table.features.get(feature)?.get(host) ?? place.bad.get(name);
    if (known !== undefined) {
      try {
        const stat = statSync(`${place.path}/${name}`, statOptions);
        if (stat !== undefined && isSame(known, stat)) return;
      } catch {
        // reading it tells why
      }
    }
    this.read(place, feature, host);
  }

  /** Reads a file, whatever was known of it. */
  private read(place: Place, feature: FeatureName, host: Address): void {
    this.spent += 3;
    let fd: number | undefined;
    try {
      fd = openSync(`${place.path}/${host}`, openFlags);
      const stat = fstatSync(fd);
      const stamp: Stamp = {
        ino: stat.ino,
        changedMs: stat.mtimeMs,
        size: this.isUnsettled(stat.mtimeMs) ? -1 : stat.size,
      };
      const value = this.valueOf(fd, stat);
      if (typeof value !== "string") {
        this.table.set(feature, host, undefined);
        this.blame(place, host, stamp, ...value);
      } else {
        this.table.set(feature, host, { value, ino: stamp.ino, changedMs: stamp.changedMs, size: stamp.size });
        this.forgive(place, host);
      }
    } catch (cause) {
      if (isGone(cause)) {
        this.table.set(feature, host, undefined);
        this.forgive(place, host);
      } else {
        this.blame(place, host, undefined, "Unreadable", `cannot be read (${codeOf(cause)})`);
        place.listedMs = Number.NaN;
      }
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  private valueOf(fd: number, stat: Stats): FeatureValue | readonly [ProblemReason, string] {
    if (!stat.isFile()) return ["Foreign", "is not a file"];
    if (stat.size > maxFileBytes) return ["TooLarge", `has ${stat.size} bytes, more than ${maxFileBytes}`];
    const buffer = stat.size > this.buffer.length ? Buffer.allocUnsafe(stat.size) : this.buffer;
    const value = parseBytes(buffer.subarray(0, readSync(fd, buffer, 0, stat.size, 0)));
    if (isFault(value)) {
      return [
        "NotJson",
        value.reason === "depth" ? "is nested too deep" : `is not JSON at character ${value.offset + 1}`,
      ];
    }
    // hosts tend to have equal values: one copy is kept
    if (value !== this.lastValue) this.lastValue = value;
    return this.lastValue;
  }

  /** The directory's stat, and a watch on it when it is not the one that was there before; undefined when it is not there. */
  private stat(place: Place): Stats | "unreadable" | undefined {
    let stat: Stats | undefined;
    try {
      stat = statSync(place.path, statOptions);
    } catch (cause) {
      place.listedMs = Number.NaN;
      this.report(place.path, "Unreadable", `cannot be read (${codeOf(cause)})`);
      return "unreadable";
    }
    if (stat === undefined) {
      const missing = place === this.root ? new Problem("Missing", place.path, "is not there") : undefined;
      this.table.report(place.path, missing);
    } else if (!stat.isDirectory()) {
      this.report(place.path, "Foreign", "is not a directory");
      stat = undefined;
    }
    if (stat === undefined) {
      place.ino = -1;
      this.unwatch(place);
    } else if (place.ino !== stat.ino || place.dev !== stat.dev) {
      place.ino = stat.ino;
      place.dev = stat.dev;
      place.listedMs = Number.NaN;
      this.watch(place);
    }
    return stat;
  }

  /** The directory's names; undefined when they cannot be had: what is known of it stays then. */
  private list(place: Place, stat: Stats): ReadonlyArray<string> | undefined {
    // before reading: what is changed meanwhile gives another time, and so another listing
    place.listedMs = this.isUnsettled(stat.mtimeMs) ? Number.NaN : stat.mtimeMs;
    try {
      const names = readdirSync(place.path);
      this.table.report(place.path, undefined);
      return names;
    } catch (cause) {
      place.listedMs = Number.NaN;
      if (!isGone(cause)) this.report(place.path, "Unreadable", `cannot be listed (${codeOf(cause)})`);
      return undefined;
    }
  }

  private drop(feature: FeatureName, place: Place): void {
    place.dropped = true;
    this.places.delete(feature);
    this.unwatch(place);
    for (const host of this.table.features.get(feature)?.keys() ?? []) this.table.set(feature, host, undefined);
    for (const name of place.bad.keys()) this.forgive(place, name);
  }

  private watch(place: Place): void {
    if (this.watches === undefined) return;
    if (this.watched.delete(place.watchId)) this.watches.unwatch(place.watchId);
    place.watchId = ++this.lastId;
    this.watched.set(place.watchId, place);
    this.watches.watch(place.watchId, place.path, this.table.size);
  }

  private unwatch(place: Place): void {
    this.unwatched.delete(place);
    if (this.watched.delete(place.watchId)) this.watches?.unwatch(place.watchId);
  }

  /** Notes whether a place's watch stands. Sweeps try again the watches that do not. */
  private noteWatch(place: Place, failure: string | undefined): void {
    this.unwatched.delete(place);
    if (failure !== undefined) this.unwatched.add(place);
    for (const [code, [file, remedy]] of Object.entries(limits)) {
      const path = `/proc/sys/fs/inotify/${file}`;
      if (failure === code) this.report(path, "Unwatched", `is reached: ${remedy}`);
      else if (this.unwatched.size === 0) this.table.report(path, undefined);
    }
  }

  private hostOf(name: string): Address | undefined {
    let host = this.hosts.get(name);
    if (host === undefined && !this.hosts.has(name)) {
      host = parseAddress(name);
      // another spelling would make two files of one host
      if (host !== name) host = undefined;
      if (this.hosts.size >= 100_000) this.hosts.clear();
      this.hosts.set(host ?? name, host);
    }
    return host;
  }

  private report(path: string, reason: ProblemReason, detail: string): void {
    this.table.report(path, new Problem(reason, path, detail));
  }

  private blame(place: Place, name: string, stamp: Stamp | undefined, reason: ProblemReason, detail: string): void {
    place.bad.set(name, stamp);
    this.report(`${place.path}/${name}`, reason, detail);
  }

  private forgive(place: Place, name: string): void {
    if (place.bad.delete(name)) this.table.report(`${place.path}/${name}`, undefined);
  }

  private isUnsettled(timeMs: number): boolean {
    return Math.abs(this.nowMs() - timeMs) < (timeMs % 1_000 === 0 ? coarseSettleMs : settleMs);
  }

  /** Whether the event loop should get a turn. */
  private isDue(): boolean {
    if (++this.spent < sliceSize) return false;
    this.spent = 0;
    return true;
  }
}

/** Runs all steps; between them the event loop turns, and `before` is waited for. */
const drive = (steps: Generator<void>, before: Effect.Effect<void> = Effect.void): Effect.Effect<void> =>
  Effect.gen(function* () {
    while (steps.next().done !== true) {
      yield* breathe;
      yield* before;
    }
  });

/** A watch that runs as long as it has subscribers. */
interface Running {
  readonly table: FeatureTable<HeldFile>;
  /** Opened to have a sweep at once. */
  readonly nudge: Effect.Latch;
  fiber: Fiber.Fiber<never> | undefined;
}

const keepUpToDate = (
  stateDir: string,
  { table, nudge }: Running,
  start: Effect.Effect<Watches.Watches, never, Scope.Scope>,
): Effect.Effect<never> =>
  Effect.gen(function* () {
    const clock = yield* Effect.clock;
    const nowMs = () => clock.unsafeCurrentTimeMillis();
    const watches = yield* start;
    const scanner = new Scanner(stateDir, table, (feature) => table.wants(feature), nowMs, watches);
    // hints go first: a sweep takes a step only between batches of them
    const noHints = yield* Effect.makeLatch(true);
    const sweep = Effect.gen(function* () {
      const started = nowMs();
      nudge.unsafeClose();
      const version = table.version;
      yield* drive(scanner.sweep(), noHints.await);
      table.cover(version);
      yield* table.logProblems;
      const rest = Math.min(Math.max(sweepMs, restFactor * (nowMs() - started)), longestRestMs);
      yield* Effect.timeoutOption(nudge.await, rest);
    });
    function* look(hints: ReadonlyArray<Watches.Hint>): Generator<void> {
      for (const hint of hints) {
        if (hint.id === Watches.everywhere) nudge.unsafeOpen();
        else yield* scanner.follow(hint);
      }
      // to log is the fiber's
      if (table.hasUnlogged) yield;
    }
    const follow = Effect.gen(function* () {
      const steps = yield* watches.hints(look);
      noHints.unsafeClose();
      yield* drive(steps);
      noHints.unsafeOpen();
      yield* table.logProblems;
    });
    return yield* Effect.raceFirst(Effect.forever(sweep), Effect.forever(follow));
  }).pipe(Effect.scoped);

const make = Effect.fnUntraced(function* (stateDir: string, start = Watches.start) {
  const scope = yield* Effect.scope;
  const mutex = yield* Effect.makeSemaphore(1);
  let running: Running | undefined;

  const acquire = (only: Iterable<FeatureName> | undefined) =>
    Effect.gen(function* () {
      running ??= { table: new FeatureTable(), nudge: Effect.unsafeMakeLatch(), fiber: undefined };
      const { table } = running;
      const subscription = table.subscribe(only);
      running.fiber ??= yield* Effect.interruptible(keepUpToDate(stateDir, running, start)).pipe(
        // outside, so that it is run even if the fiber is interrupted before it begins
        Effect.onError((cause) => Effect.sync(() => table.fail(cause))),
        Effect.forkIn(scope),
      );
      running.nudge.unsafeOpen();
      return subscription;
    });

  const release = (subscription: Subscription) =>
    Effect.suspend(() => {
      if (running === undefined || running.table.unsubscribe(subscription) > 0) return Effect.void;
      const { fiber } = running;
      running = undefined;
      return fiber === undefined ? Effect.void : Fiber.interrupt(fiber);
    });

  return TreeWatch.of({
    read: (only) =>
      Effect.gen(function* () {
        const wanted = only === undefined ? undefined : new Set(only);
        if (running?.table.covers(wanted) === true) return running.table.tree(wanted);
        const clock = yield* Effect.clock;
        const table = new FeatureTable<HeldFile>();
        const wants = (feature: FeatureName) => wanted === undefined || wanted.has(feature);
        yield* drive(new Scanner(stateDir, table, wants, () => clock.unsafeCurrentTimeMillis()).sweep());
        return table.tree(wanted);
      }),
    subscribe: (only) =>
      Effect.acquireRelease(mutex.withPermits(1)(acquire(only)), (subscription) =>
        mutex.withPermits(1)(release(subscription)),
      ),
  });
});

export declare namespace TreeWatch {
  interface Service {
    /** What is there now, of these features or of all: from the watch if one runs, else read from disk once. */
    readonly read: (only?: Iterable<FeatureName>) => Effect.Effect<Tree>;
    /**
     * Subscribes to these features or to all, for the length of the scope. All subscribers share one watch, which
     * stands as long as there is one. First comes what is there, then `Booted`, then the changes.
     */
    readonly subscribe: (only?: Iterable<FeatureName>) => Effect.Effect<Subscription, never, Scope.Scope>;
  }
}

/** The tree below a state directory. Nothing is written, and nothing is done until something is asked for. */
export class TreeWatch extends Context.Tag("nameq/TreeWatch")<TreeWatch, TreeWatch.Service>() {
  /** Watches `stateDir`, which may not be there yet, may go, and may come back. */
  static readonly layer = (stateDir: string): Layer.Layer<TreeWatch> => Layer.scoped(TreeWatch, make(stateDir));

  /** The same, with another source of hints: `start` is run when the first subscriber comes. */
  static readonly layerWithHints = (
    stateDir: string,
    start: Effect.Effect<Watches.Watches, never, Scope.Scope>,
  ): Layer.Layer<TreeWatch> => Layer.scoped(TreeWatch, make(stateDir, start));
}
