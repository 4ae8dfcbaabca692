/**
 * What a program knows of the fleet: feature -> host -> value, and subscriptions that are told how it changes.
 *
 * A subscription holds no queue. It notes which pairs changed since it last took, with the value it was told of each,
 * and compares that with the present when it takes: however slow it is, it costs at most one note a pair, and the
 * last thing it is told of a pair is the pair's state.
 */
import type * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import type { Address } from "./Address.js";
import { breathe } from "./DirectoryHints.js";
import type { FeatureName, FeatureValue } from "./Feature.js";

/** A feature at a host. */
class Advertised {
  #parsed: { readonly value: unknown } | undefined;
  constructor(
    readonly feature: FeatureName,
    /** `127.0.0.1` for this host itself. */
    readonly host: Address,
    /** The exact value: canonical JSON text, whose numbers have all their digits. */
    readonly json: FeatureValue,
  ) {}
  /** The value as JavaScript sees it (numbers beyond a double lose digits), parsed when first asked for. */
  get value(): unknown {
    return (this.#parsed ??= { value: JSON.parse(this.json) }).value;
  }
}

/** A host offers a feature. */
export class Offer extends Advertised {
  readonly _tag = "Offer";
}

/** A host offers a feature that it did not offer before. */
export class Added extends Advertised {
  readonly _tag = "Added";
}

/** A host offers a feature with another value than before. */
export class Updated extends Advertised {
  readonly _tag = "Updated";
}

/** A host no longer offers a feature. */
export class Removed {
  readonly _tag = "Removed";
  constructor(
    readonly feature: FeatureName,
    readonly host: Address,
  ) {}
}

/** All that was there at first has been told; what follows is live. */
export class Booted {
  readonly _tag = "Booted";
}

/** Why something in the tree is left out. */
export type ProblemReason =
  /** The tree is not there (yet, or any more). */
  | "Missing"
  /** The name or the kind of file is not one that nameq writes. */
  | "Foreign"
  /** The content is no JSON, or nested too deep. */
  | "NotJson"
  /** The file is larger than any that nameq writes. */
  | "TooLarge"
  /** It cannot be read; what was known of it before stays, and reading is tried again. */
  | "Unreadable"
  /** The watch cannot be had: changes are still seen, but about a second late. */
  | "Unwatched";

const remedies: Record<ProblemReason, string> = {
  Missing: "start the daemon (nameq serve), or name its state directory (NAMEQ_STATE_DIR)",
  Foreign: "nameq did not write it: move it out of the state directory",
  NotJson: "nameq did not write it: remove it, the daemon restores its own files when it restarts",
  TooLarge: "nameq did not write it: remove it, the daemon restores its own files when it restarts",
  Unreadable: "let this user read it",
  Unwatched: "changes are seen about a second late until then",
};

/** Something in the tree that had to be left out; everything else goes on. Told once, when it appears. */
export class Problem {
  readonly _tag = "Problem";
  constructor(
    readonly reason: ProblemReason,
    readonly path: string,
    /** What was found, to be read after the path. */
    readonly detail: string,
  ) {}
  get message(): string {
    return `${this.path} ${this.detail}: ${remedies[this.reason]}`;
  }
}

/** What a subscriber is told. */
export type Change = Added | Updated | Removed | Booted | Problem;

/** What the table holds of a feature at a host. */
export interface Held {
  readonly value: FeatureValue;
  /** When it was last changed, Unix ms. */
  readonly changedMs: number;
}

/** A live view: it changes as the table does. */
export type Features<H extends Held = Held> = ReadonlyMap<FeatureName, ReadonlyMap<Address, H>>;

/** What was known at a moment. */
export interface Tree {
  readonly features: Features;
  /** What had to be left out. */
  readonly problems: ReadonlyArray<Problem>;
}

/** One subscriber's position. */
export interface Subscription {
  /** Waits until there is something to tell, and gives some of it (never nothing). For one consumer. */
  readonly pull: Effect.Effect<ReadonlyArray<Change>>;
  /**
   * Instead of `pull`: has `take` called with what there is to tell, as it comes. While that is waited for it is called
   * in the turn of the event, which saves a fiber's wake-up. What `take` gives is waited for before it is called again.
   */
  readonly forEach: <E>(
    take: (changes: ReadonlyArray<Change>) => Effect.Effect<void, E> | undefined,
  ) => Effect.Effect<never, E>;
  /** What is known now; of the features that are subscribed to, all, once `Booted` was told. */
  readonly features: Features;
}

const boot = Symbol("boot");
/** A pull ends with the feature that brings it to this many changes, so that most are told fresh. */
const pullSize = 256;

class Reader implements Subscription {
  /** Per feature the values last told of the hosts that changed since; "all": nothing of it was told yet. In order of change. */
  private readonly pending = new Map<FeatureName | typeof boot, Map<Address, FeatureValue | undefined> | "all">();
  private readonly problems: Set<Problem>;
  /** Of the consumer that waits. */
  private onNews: (() => void) | undefined;
  failure: Cause.Cause<never> | undefined;
  covered = false;

  constructor(
    readonly features: Features,
    problems: Iterable<Problem>,
    readonly only: ReadonlySet<FeatureName> | undefined,
    readonly since: number,
  ) {
    this.problems = new Set(problems);
    for (const feature of features.keys()) if (this.wants(feature)) this.pending.set(feature, "all");
  }

  wants(feature: FeatureName): boolean {
    return this.only === undefined || this.only.has(feature);
  }

  note(feature: FeatureName, host: Address, before: FeatureValue | undefined, after: FeatureValue | undefined): void {
    if (!this.wants(feature)) return;
    const told = this.pending.get(feature);
    if (told === undefined) this.pending.set(feature, new Map([[host, before]]));
    else if (told === "all") return;
    else if (!told.has(host)) told.set(host, before);
    else if (told.get(host) === after && told.delete(host) && told.size === 0) this.pending.delete(feature);
    this.wake();
  }

  report(problem: Problem): void {
    this.problems.add(problem);
    this.wake();
  }

  resolve(problem: Problem): void {
    this.problems.delete(problem);
  }

  cover(): void {
    this.covered = true;
    this.pending.set(boot, "all");
    this.wake();
  }

  fail(cause: Cause.Cause<never>): void {
    this.failure = cause;
    this.wake();
  }

  private take(): Array<Change> {
    const changes: Array<Change> = [...this.problems];
    this.problems.clear();
    for (const [feature, told] of this.pending) {
      if (changes.length >= pullSize) break;
      this.pending.delete(feature);
      if (feature === boot) {
        changes.push(new Booted());
        continue;
      }
      const hosts = this.features.get(feature);
      if (told === "all") {
        for (const [host, held] of hosts ?? []) changes.push(new Added(feature, host, held.value));
        continue;
      }
      for (const [host, before] of told) {
        const now = hosts?.get(host)?.value;
        if (now === undefined) changes.push(new Removed(feature, host));
        else if (before === undefined) changes.push(new Added(feature, host, now));
        else changes.push(new Updated(feature, host, now));
      }
    }
    return changes;
  }

  private wake(): void {
    const { onNews } = this;
    this.onNews = undefined;
    onNews?.();
  }

  private readonly forget = Effect.sync(() => {
    this.onNews = undefined;
  });

  readonly pull: Effect.Effect<ReadonlyArray<Change>> = Effect.suspend(() => {
    const changes = this.take();
    if (changes.length > 0) return Effect.succeed(changes);
    if (this.failure !== undefined) return Effect.failCause(this.failure);
    return Effect.async((resume) => {
      this.onNews = () => resume(this.pull);
      return this.forget;
    });
  });

  readonly forEach = <E>(
    take: (changes: ReadonlyArray<Change>) => Effect.Effect<void, E> | undefined,
  ): Effect.Effect<never, E> => {
    const step = Effect.async<void, E>((resume) => {
      let isOver = false;
      const give = (): void => {
        if (isOver) return;
        try {
          const changes = this.take();
          const rest = changes.length > 0 ? take(changes) : undefined;
          if (rest !== undefined) return resume(rest);
        } catch (defect) {
          return resume(Effect.die(defect));
        }
        if (this.pending.size > 0) return resume(breathe);
        if (this.failure !== undefined) return resume(Effect.failCause(this.failure));
        // what the rest of this step of the table's owner changes goes with it
        this.onNews = () => queueMicrotask(give);
      };
      give();
      return Effect.sync(() => {
        isOver = true;
        this.onNews = undefined;
      });
    });
    return Effect.forever(step);
  };
}

/** The table. Its owner sets what it finds; everything here is synchronous. */
export class FeatureTable<H extends Held = Held> {
  private readonly hostsOf = new Map<FeatureName, Map<Address, H>>();
  private readonly reported = new Map<string, Problem>();
  private readonly readers = new Set<Reader>();
  private failure: Cause.Cause<never> | undefined;
  private unlogged = 0;
  private subscribed = 0;
  private held = 0;

  get features(): Features<H> {
    return this.hostsOf;
  }

  /** How many values there are. */
  get size(): number {
    return this.held;
  }

  get problems(): ReadonlyMap<string, Problem> {
    return this.reported;
  }

  /** Whether a subscriber wants to know of `feature`. */
  wants(feature: FeatureName): boolean {
    for (const reader of this.readers) if (reader.wants(feature)) return true;
    return false;
  }

  /** Sets what `host` offers as `feature`; undefined: nothing. */
  set(feature: FeatureName, host: Address, held: H | undefined): void {
    let hosts = this.hostsOf.get(feature);
    const before = hosts?.get(host)?.value;
    if (held === undefined) {
      if (hosts?.delete(host) === true && hosts.size === 0) this.hostsOf.delete(feature);
    } else {
      if (hosts === undefined) this.hostsOf.set(feature, (hosts = new Map()));
      hosts.set(host, held);
    }
    const after = held?.value;
    if (before === undefined && after !== undefined) this.held++;
    else if (before !== undefined && after === undefined) this.held--;
    if (before !== after) for (const reader of this.readers) reader.note(feature, host, before, after);
  }

  /** Notes what is wrong with `path`; undefined: nothing any more. The same again is no news. */
  report(path: string, problem: Problem | undefined): void {
    const before = this.reported.get(path);
    if (before === problem || (before?.reason === problem?.reason && before?.detail === problem?.detail)) return;
    if (before !== undefined) {
      this.reported.delete(path);
      for (const reader of this.readers) reader.resolve(before);
    }
    if (problem !== undefined) {
      this.reported.set(path, problem);
      this.unlogged++;
      for (const reader of this.readers) reader.report(problem);
    }
  }

  get hasUnlogged(): boolean {
    return this.unlogged > 0;
  }

  /** Logs, in one line, the problems that appeared since the last call. */
  readonly logProblems: Effect.Effect<void> = Effect.suspend(() => {
    const fresh = this.unlogged;
    this.unlogged = 0;
    const last = fresh === 0 ? undefined : [...this.reported.values()].at(-1);
    return last === undefined
      ? Effect.void
      : Effect.logWarning(fresh === 1 ? last.message : `${last.message} (and ${fresh - 1} more problems)`);
  });

  /** Adds a subscriber to `only` these features (all, if undefined): it is told what is there, then, once covered, `Booted`. */
  subscribe(only: Iterable<FeatureName> | undefined): Subscription {
    const set = only === undefined ? undefined : new Set(only);
    const reader = new Reader(this.hostsOf, this.reported.values(), set, ++this.subscribed);
    this.readers.add(reader);
    if (this.failure !== undefined) reader.fail(this.failure);
    return reader;
  }

  /** Removes a subscriber, and gives how many are left. */
  unsubscribe(subscription: Subscription): number {
    this.readers.delete(subscription as Reader);
    return this.readers.size;
  }

  /** A mark for `cover`: of the subscribers so far. */
  get version(): number {
    return this.subscribed;
  }

  /** The table now shows all that the subscribers up to `version` asked for. */
  cover(version: number): void {
    for (const reader of this.readers) if (!reader.covered && reader.since <= version) reader.cover();
  }

  /** Whether the table shows these features (all, if undefined) as they are. */
  covers(only: ReadonlySet<FeatureName> | undefined): boolean {
    for (const reader of this.readers) {
      if (!reader.covered) continue;
      if (reader.only === undefined || (only !== undefined && [...only].every((name) => reader.wants(name))))
        return true;
    }
    return false;
  }

  /** A copy of these features (all, if undefined). */
  tree(only: ReadonlySet<FeatureName> | undefined): Tree {
    const features = new Map<FeatureName, ReadonlyMap<Address, H>>();
    for (const [feature, hosts] of this.hostsOf) {
      if (only === undefined || only.has(feature)) features.set(feature, new Map(hosts));
    }
    return { features, problems: [...this.reported.values()] };
  }

  /** The table will not change again because its owner died. */
  fail(cause: Cause.Cause<never>): void {
    this.failure = cause;
    for (const reader of this.readers) reader.fail(cause);
  }
}
