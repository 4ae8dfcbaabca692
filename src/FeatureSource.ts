/** The node's own features: command-line arguments and, over them, the files of a directory. */
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as SubscriptionRef from "effect/SubscriptionRef";
import { isUtf8 } from "node:buffer";
import { type BigIntStats, closeSync, constants, type Dir, opendirSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import * as DirectoryHints from "./DirectoryHints.js";
import * as Feature from "./Feature.js";
import type { FeatureName, FeatureSet, FeatureValue } from "./Feature.js";
import * as Json from "./Json.js";
import { Metrics } from "./Metrics.js";

/** Largest feature file that is taken, bytes: what a whole announcement may have. Source: PROTOCOL, section 1. */
export const maxFileSize = 1024 * 1024;

/** Why a file is not taken, and what to do about it. `reason` is a label of the counter `feature_file_errors`. */
export interface FileFault {
  readonly _tag: "FileFault";
  readonly reason: "syntax" | "depth" | "utf8" | "size" | "kind" | "read";
  readonly message: string;
}

const fault = (reason: FileFault["reason"], message: string): FileFault => ({ _tag: "FileFault", reason, message });
const tooLarge = fault("size", `it is larger than ${maxFileSize} bytes: make the value smaller`);
const notFile = fault("kind", "it is neither a file nor a directory: move it away");

/** What a file says: a value, or null when it is blank and so hides the argument of its name. */
export type FileContent = FeatureValue | null;

/** What the bytes of a feature file say. */
export const parseContent = (bytes: Uint8Array): FileContent | FileFault => {
  if (bytes.length > maxFileSize) return tooLarge;
  if (!isUtf8(bytes)) return fault("utf8", "it is not UTF-8: write it again in that encoding");
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
  if (/^[ \t\n\v\f\r]*$/.test(text)) return null;
  const value = Feature.parseValue(text);
  if (!Json.isFault(value)) return value;
  return value.reason === "depth"
    ? fault("depth", `it is nested deeper than ${Json.maxDepth} at character ${value.offset + 1}: make it flatter`)
    : fault("syntax", `it is not JSON at character ${value.offset + 1}: mend it, or set it with \`nameq feature\``);
};

export const isFileFault = (content: FileContent | FileFault): content is FileFault =>
  typeof content === "object" && content !== null;

/** The arguments with the files over them. Past `Feature.maxFeatures`, the last names in order are refused. */
export const overlay = (
  features: FeatureSet,
  files: Iterable<readonly [FeatureName, FileContent]>,
): { readonly set: FeatureSet; readonly refused: ReadonlyArray<FeatureName> } => {
  const merged = new Map(features.entries);
  for (const [name, content] of files) {
    if (content === null) merged.delete(name);
    else merged.set(name, content);
  }
  const refused = merged.size > Feature.maxFeatures ? [...merged.keys()].toSorted().slice(Feature.maxFeatures) : [];
  for (const name of refused) merged.delete(name);
  return { set: Feature.fromEntries(merged), refused };
};

const maxBadNames = 32;
const listBatch = 1024;
const readBatch = 64;
/** In-place writes leave the directory's stat alone: without a watch, only the files' own stats tell of them. */
const statAllEveryMs = 5000;
/**
 * A look of t ms that found news is followed by a rest of 4 t, at least 5 ms: a burst costs a fifth of a core, and is at
 * most 200 snapshots a second. After a quiet time 20 ms of rest are forgone: one look that was held up (garbage, a busy
 * machine) delays no change.
 */
const restFactor = 4;
const minRestMs = 5;
const maxRestMs = 50;
const forgoneMs = 20;
const never = Number.POSITIVE_INFINITY;

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);

const unreadable = (cause: unknown): FileFault =>
  fault("read", `it cannot be read (${codeOf(cause)}): let the user that nameq runs as read it`);

/** Undefined when there is no such file. A link to nothing is none: a config map's links are so while their files go. */
const statFile = (path: string): BigIntStats | FileFault | undefined => {
  try {
    const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
    return stat?.isDirectory() === true ? undefined : stat;
  } catch (cause) {
    return unreadable(cause);
  }
};

/**
 * Reads the file that `found` is the stat of. If it changes meanwhile, the next look sees another stat. Never waits: a
 * FIFO that takes its place just now is opened without a writer.
 */
export const readFile = (path: string, found: BigIntStats): FileContent | FileFault => {
  if (!found.isFile()) return notFile;
  if (found.size > maxFileSize) return tooLarge;
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    // some file systems give 0 as the size of a file that has some text
    const bytes = Buffer.allocUnsafe(Math.max(Number(found.size) + 1, 1024));
    let length = 0;
    for (let n = 1; n > 0 && length < bytes.length; length += n)
      n = readSync(fd, bytes, length, bytes.length - length, null);
    return parseContent(bytes.subarray(0, length));
  } catch (cause) {
    return unreadable(cause);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
};

/** What is known of one file. Times are monotonic ms. */
interface File {
  readonly name: FeatureName;
  /** As of the last reading; undefined when there is none to be had. */
  stat: BigIntStats | undefined;
  /** When that stat was first seen. */
  since: number;
  /** When to read it again even if the stat stays. */
  recheckAt: number;
  /** The last good content; undefined when there was none yet. */
  good: FileContent | undefined;
  /** Since when it has been blank or faulty: not believed at once, for its writer may be half-way through. */
  doubt: { readonly blank: boolean; readonly since: number } | undefined;
  /** The fault that was reported last. */
  reported: string | undefined;
}

/** The next snapshot of the directory over the arguments that differs from the one before: to be run again and again. */
const watchDirectory = Effect.fnUntraced(function* (
  directory: string,
  features: FeatureSet,
  metrics: Metrics.Service,
  options: DirectoryHints.Options | undefined,
  ahead: (features: FeatureSet) => boolean,
): Effect.fn.Return<Effect.Effect<FeatureSet>, never, Scope.Scope> {
  const clock = yield* Effect.clock;
  const now = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6;
  const hints = yield* DirectoryHints.make({
    ...options,
    onEvent: (name) => {
      // others, such as the temporary file of each change, are the sweep's matter
      if (!Feature.isFeatureName(name)) return false;
      lookAhead(name);
      return true;
    },
  });
  yield* hints.watch(directory);

  const files = new Map<FeatureName, File>();
  /** Those with a finite `recheckAt`. */
  const rechecks = new Set<File>();
  const badNames = new Set<string>();
  /** Log lines of the look that is going on. */
  const lines: Array<Effect.Effect<void>> = [];
  /** Whether the directory can be listed: "" when it can, else the error's code. */
  let condition: string | undefined;
  let first = true;
  let changed = true;
  /** Whether the look that is going on read any file that had changed. */
  let stirred = false;
  /** Files past the first `maxFeatures` names: not even read. */
  let unread = 0;
  let refusing = false;
  let statAllAt = never;
  let restUntil = 0;
  let lastText: string | undefined;

  const log = (line: Effect.Effect<void>, path: string) => lines.push(Effect.annotateLogs(line, { path }));
  const report = (path: string, reason: string, message: string) => {
    metrics.add("feature_file_errors", reason);
    log(Effect.logWarning(message), path);
  };

  const reportName = (name: string) => {
    if (name.startsWith(".") || badNames.has(name) || badNames.size >= maxBadNames) return;
    badNames.add(name);
    const path = join(directory, name);
    const last = badNames.size === maxBadNames ? " (files like it are no longer reported)" : "";
    report(path, "name", `${path} is skipped: rename it to 1 to 255 of A-Z a-z 0-9 - _, or move it away${last}`);
  };

  const forget = (name: FeatureName) => {
    const file = files.get(name);
    if (file === undefined) return;
    files.delete(name);
    rechecks.delete(file);
    changed ||= file.good !== undefined;
  };

  const accept = (file: File, content: FileContent) => {
    if (file.reported !== undefined) {
      const path = join(directory, file.name);
      log(Effect.logInfo(`the feature file ${path} is good again`), path);
    }
    file.reported = undefined;
    file.doubt = undefined;
    changed ||= file.good !== content;
    file.good = content;
  };

  /** Takes a content in, and tells whether that is final while the file stays as it is. */
  const judge = (file: File, content: FileContent | FileFault, time: number): boolean => {
    if (content !== null && !isFileFault(content)) {
      accept(file, content);
      return true;
    }
    const blank = content === null;
    if (file.doubt?.blank !== blank) file.doubt = { blank, since: time };
    // at the first look there is no older value to keep
    const lasting = first || time - file.doubt.since >= DirectoryHints.settleMs;
    if (content === null) {
      if (lasting) accept(file, null);
      return lasting;
    }
    if (file.reported === content.message) return true;
    // a file that never rests is reported once, not with each new offset
    const resting = first || time - file.since >= DirectoryHints.settleMs;
    if (!resting && (!lasting || file.reported !== undefined)) return false;
    file.reported = content.message;
    const path = join(directory, file.name);
    const kept = file.good === undefined ? "" : " and its last good value stays";
    report(path, content.reason, `the feature file ${path} is not taken${kept}: ${content.message}`);
    return true;
  };

  const inspect = (name: FeatureName) => {
    const time = now();
    const path = join(directory, name);
    const found = statFile(path);
    if (found === undefined) return forget(name);
    let file = files.get(name);
    const failed = "_tag" in found;
    const stat = failed ? undefined : found;
    if (file === undefined) {
      file = {
        name,
        stat: undefined,
        since: time,
        recheckAt: time,
        good: undefined,
        doubt: undefined,
        reported: undefined,
      };
      files.set(name, file);
    } else if (file.recheckAt > time && DirectoryHints.sameStat(file.stat, stat)) {
      return;
    }
    const content = failed ? found : readFile(path, found);
    if (!DirectoryHints.sameStat(file.stat, stat)) {
      stirred = true;
      file.stat = stat;
      file.since = time;
      file.recheckAt =
        stat === undefined ? never : DirectoryHints.recheckAt(stat, time, clock.unsafeCurrentTimeMillis());
    } else if (file.recheckAt <= time) {
      file.recheckAt = never;
    }
    if (!judge(file, content, time)) file.recheckAt = Math.min(file.recheckAt, time + DirectoryHints.settleMs);
    // whatever hinders reading may end without a trace in the stat
    if (isFileFault(content) && content.reason === "read")
      file.recheckAt = Math.min(file.recheckAt, time + statAllEveryMs);
    if (file.recheckAt === never) rechecks.delete(file);
    else rechecks.add(file);
  };

  /** The names that may be feature files, or the error's code. Past `maxFeatures`, the last ones in order are left out. */
  const list = Effect.acquireUseRelease(
    Effect.try({ try: () => opendirSync(directory, { bufferSize: 256 }), catch: codeOf }),
    Effect.fnUntraced(function* (dir: Dir) {
      const names: Array<FeatureName> = [];
      const readSome = () => {
        for (let n = 0; n < listBatch; n++) {
          const entry = dir.readSync();
          if (entry === null) return true;
          if (Feature.isFeatureName(entry.name)) {
            if (!entry.isDirectory()) names.push(entry.name);
          } else if (entry.isFile()) {
            reportName(entry.name);
          }
        }
        return false;
      };
      unread = 0;
      for (let ended = false; !ended;) {
        ended = yield* Effect.try({ try: readSome, catch: codeOf });
        if (names.length > Feature.maxFeatures) {
          unread += names.length - Feature.maxFeatures;
          names.sort();
          names.length = Feature.maxFeatures;
        }
        if (!ended) yield* DirectoryHints.breathe;
      }
      return names;
    }),
    (dir) => Effect.sync(() => dir.closeSync()),
  ).pipe(Effect.either);

  const inspectAll = Effect.fnUntraced(function* (names: Iterable<FeatureName>) {
    let n = 0;
    for (const name of names) {
      if (++n % readBatch === 0) yield* DirectoryHints.breathe;
      inspect(name);
    }
  });

  const noteCondition = (code: string) => {
    if (code === condition) return;
    if (code === "") {
      if (condition !== undefined) log(Effect.logInfo(`the feature directory ${directory} is there now`), directory);
    } else if (code === "ENOENT") {
      const message = `the feature directory ${directory} is not there: it is waited for, and \`nameq feature\` makes it`;
      log(Effect.logInfo(message), directory);
    } else {
      const message = `the feature directory ${directory} cannot be listed (${code}), so what it said stays: let the user that nameq runs as read it`;
      report(directory, "directory", message);
    }
    condition = code;
  };

  const lookAtAll = Effect.gen(function* () {
    const listing = yield* list;
    noteCondition(Either.isLeft(listing) ? listing.left : "");
    if (Either.isRight(listing)) {
      const listed = new Set(listing.right);
      yield* inspectAll(listed);
      // a listing may miss a file that is replaced meanwhile: only its own stat says that it is gone
      const missed = [...files.keys()].filter((name) => !listed.has(name));
      if (unread > 0) missed.forEach(forget);
      else yield* inspectAll(missed);
    } else if (condition === "ENOENT") {
      unread = 0;
      [...files.keys()].forEach(forget);
    }
    const idle = files.size === 0 && (condition === "" || condition === "ENOENT");
    statAllAt = idle ? never : now() + statAllEveryMs;
  });

  const nextDue = () => {
    let due = statAllAt;
    for (const file of rechecks) due = Math.min(due, file.recheckAt);
    return due;
  };

  let set = Feature.empty;
  let refused = 0;
  /** Whether the consumer has all that was seen, and the next hint is waited for. */
  let idle = false;

  /** Makes the set anew; whether it is another. */
  const renew = (): boolean => {
    if (changed) {
      changed = false;
      const good: Array<readonly [FeatureName, FileContent]> = [];
      for (const file of files.values()) if (file.good !== undefined) good.push([file.name, file.good]);
      const over = overlay(features, good);
      set = over.set;
      refused = over.refused.length;
    }
    if (unread + refused > 0 !== refusing) {
      refusing = !refusing;
      if (refusing)
        report(
          directory,
          "too-many",
          `${unread + refused} features are left out, the last by name, because a node may have at most ${Feature.maxFeatures}: remove some from ${directory} or the command line`,
        );
    }
    return set.text !== lastText;
  };

  const rest = (start: number) => {
    const time = now();
    const restMs = Math.min(maxRestMs, Math.max(minRestMs, restFactor * (time - start)));
    if (stirred) restUntil = Math.max(restUntil, time - forgoneMs) + restMs;
    stirred = false;
  };

  /** Looks in the turn of the event, which saves the fiber's wake-up. What is due and what must be logged is for the loop, which the same event wakes. */
  const lookAhead = (name: FeatureName) => {
    const start = now();
    if (!idle || start < restUntil) return;
    inspect(name);
    if (changed && renew() && ahead(set)) lastText = set.text;
    rest(start);
  };

  return Effect.gen(function* () {
    for (;;) {
      if (restUntil - now() >= 1) yield* Effect.sleep(restUntil - now());
      idle = !first;
      const taken = yield* hints.take(Math.max(0, nextDue() - now()));
      idle = false;
      const start = now();
      if (start >= statAllAt || taken.some(({ names }) => names === undefined)) {
        yield* lookAtAll;
      } else {
        for (const { names } of taken)
          if (names !== undefined) yield* inspectAll([...names].filter(Feature.isFeatureName));
      }
      const due = [...rechecks].filter((file) => file.recheckAt <= start).map((file) => file.name);
      yield* inspectAll(due);
      first = false;
      const news = renew();
      while (lines.length > 0) yield* lines.shift()!;
      rest(start);
      if (news) {
        lastText = set.text;
        return set;
      }
    }
  });
});

export declare namespace FeatureSource {
  interface Service {
    /**
     * Complete sets: the first one soon (also when the directory is not there yet), then one whenever the set is another.
     * Nothing is looked at before it is asked for, so a slow consumer gets fewer sets, never older ones. For one consumer.
     */
    readonly snapshots: Stream.Stream<FeatureSet>;
    /**
     * Has a set that one event brings handed to `take` in the turn of that event, while the consumer of `snapshots` has
     * taken all there was; the stream does not repeat it. Until the scope closes.
     */
    readonly ahead: (take: (features: FeatureSet) => void) => Effect.Effect<void, never, Scope.Scope>;
  }

  interface Options {
    /** Where feature files are; it need not be there. Without it, the arguments alone. */
    readonly directory?: string | undefined;
    /** The features of the command line. */
    readonly features: FeatureSet;
    /** How the directory is watched: for tests. */
    readonly hints?: DirectoryHints.Options | undefined;
  }

  /** Feature files in memory, over the arguments `features`; they outlive the source, as a disk outlives a daemon. */
  interface Memory {
    readonly features: FeatureSet;
    readonly files: SubscriptionRef.SubscriptionRef<ReadonlyMap<FeatureName, string>>;
    /** Writes any text to the file: half a JSON text, or a blank one. */
    readonly write: (name: FeatureName, text: string) => Effect.Effect<void>;
    readonly set: (name: FeatureName, value: FeatureValue) => Effect.Effect<void>;
    readonly remove: (name: FeatureName) => Effect.Effect<void>;
    /** Makes these all the files there are. */
    readonly replace: (features: FeatureSet) => Effect.Effect<void>;
  }
}

export class FeatureSource extends Context.Tag("nameq/FeatureSource")<FeatureSource, FeatureSource.Service>() {
  /** Arguments and a real directory. A file that cannot be taken is reported once, and its last good value stays. */
  static readonly layer = (options: FeatureSource.Options): Layer.Layer<FeatureSource, never, Metrics> =>
    Layer.effect(
      FeatureSource,
      Effect.map(Metrics, (metrics) => {
        let take: ((set: FeatureSet) => void) | undefined;
        const ahead = (set: FeatureSet): boolean => {
          take?.(set);
          return take !== undefined;
        };
        return {
          snapshots:
            options.directory === undefined
              ? Stream.concat(Stream.make(overlay(options.features, []).set), Stream.never)
              : Stream.unwrapScoped(
                  Effect.map(
                    watchDirectory(options.directory, options.features, metrics, options.hints, ahead),
                    Stream.repeatEffect,
                  ),
                ),
          ahead: (taker) =>
            Effect.acquireRelease(
              Effect.sync(() => {
                take = taker;
              }),
              () =>
                Effect.sync(() => {
                  take = undefined;
                }),
            ),
        };
      }),
    );

  /** Feature files in memory for `layerMemory`. */
  static readonly makeMemory = Effect.fnUntraced(function* (
    features: FeatureSet = Feature.empty,
  ): Effect.fn.Return<FeatureSource.Memory> {
    const files = yield* SubscriptionRef.make<ReadonlyMap<FeatureName, string>>(new Map());
    const write = (name: FeatureName, text: string) =>
      SubscriptionRef.update(files, (now) => new Map(now).set(name, text));
    return {
      features,
      files,
      write,
      set: (name, value) => write(name, Feature.fileText(value)),
      remove: (name) => SubscriptionRef.update(files, (now) => new Map([...now].filter(([other]) => other !== name))),
      replace: ({ entries }) =>
        SubscriptionRef.set(files, new Map([...entries].map(([name, value]) => [name, Feature.fileText(value)]))),
    };
  });

  /** The same rules over files in memory, without delays, logs and counts. */
  static readonly layerMemory = ({ features, files }: FeatureSource.Memory): Layer.Layer<FeatureSource> =>
    Layer.sync(FeatureSource, () => ({
      ahead: () => Effect.void,
      snapshots: files.changes.pipe(
        Stream.mapAccum(new Map<FeatureName, FileContent>(), (before, texts) => {
          const good = new Map<FeatureName, FileContent>();
          for (const [name, text] of texts) {
            const content = parseContent(Buffer.from(text));
            const kept = isFileFault(content) ? before.get(name) : content;
            if (kept !== undefined) good.set(name, kept);
          }
          return [good, overlay(features, good).set] as const;
        }),
        Stream.changesWith((a, b) => a.text === b.text),
      ),
    }));
}
