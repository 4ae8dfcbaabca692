/** The keys that sign and verify datagrams, read from files, and read again when they change. */
import * as Clock from "effect/Clock";
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import { identity } from "effect/Function";
import * as Layer from "effect/Layer";
import { createSecretKey } from "node:crypto";
import * as fs from "node:fs";
import type { Key, Keyring } from "./Packet.js";

/** A secret could not be read or may not be used. Never holds the secret. */
export class SecretError extends Data.TaggedError("SecretError")<{
  readonly reason: "Unreadable" | "Empty";
  readonly source: string;
  readonly cause?: unknown;
}> {
  override get message(): string {
    if (this.reason === "Empty") {
      return `the secret in ${this.source} is empty: every host could forge announcements. Put at least 16 random bytes there`;
    }
    const detail = this.cause instanceof Error ? this.cause.message : String(this.cause);
    return `the secret in ${this.source} cannot be read (${detail}). Check the path and that this user may read it`;
  }
}

/** Where a secret is. Its bytes, all of them, are the key: a newline at the end counts. */
export interface SecretSource {
  /** Mode id on the wire, 0..127. */
  readonly mode: number;
  readonly from:
    | { readonly _tag: "File"; readonly path: string }
    | { readonly _tag: "Descriptor"; readonly fd: number };
}

/** Shorter secrets work, as they do in the existing program, but are warned about. Bytes. */
const recommendedBytes = 16;

/** How often the files are looked at, ms. */
const lookMs = 5_000;

const named = (source: SecretSource): string =>
  source.from._tag === "File" ? source.from.path : `file descriptor ${source.from.fd}`;

const read = (source: SecretSource): Effect.Effect<Key, SecretError> =>
  Effect.gen(function* () {
    const bytes = yield* Effect.try({
      try: () => fs.readFileSync(source.from._tag === "File" ? source.from.path : source.from.fd),
      catch: (cause) => new SecretError({ reason: "Unreadable", source: named(source), cause }),
    });
    if (bytes.length === 0) return yield* new SecretError({ reason: "Empty", source: named(source) });
    if (bytes.length < recommendedBytes) {
      yield* Effect.logWarning(
        `the secret in ${named(source)} has only ${bytes.length} bytes: use at least ${recommendedBytes} random ones (head -c 32 /dev/urandom)`,
      );
    }
    return { mode: source.mode, secret: createSecretKey(bytes) };
  });

/** What tells that a file's content may be another: it is replaced or rewritten. */
const version = (source: SecretSource): string => {
  if (source.from._tag !== "File") return "";
  const stat = fs.statSync(source.from.path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "absent" : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
};

export declare namespace Secrets {
  interface Service {
    /** The keys in force. */
    readonly keyring: () => Keyring;
    /** Reads changed files again, at SIGHUP and every few seconds; what cannot be read leaves the keys in force. */
    readonly watch: Effect.Effect<never>;
  }
}

export class Secrets extends Context.Tag("nameq/Secrets")<Secrets, Secrets.Service>() {
  /** Keys from files and descriptors; descriptors are read once. `reloading` is put around what SIGHUP asks for. */
  static readonly layer = (options: {
    readonly sign: SecretSource;
    readonly accept: ReadonlyArray<SecretSource>;
    readonly reloading?: (reload: Effect.Effect<void>) => Effect.Effect<void>;
  }): Layer.Layer<Secrets, SecretError> =>
    Layer.scoped(Secrets, make(options.sign, options.accept, options.reloading ?? identity));

  /** Fixed keys. */
  static readonly layerMemory = (keyring: Keyring): Layer.Layer<Secrets> =>
    Layer.succeed(Secrets, { keyring: () => keyring, watch: Effect.never });
}

const make = Effect.fnUntraced(function* (
  sign: SecretSource,
  accept: ReadonlyArray<SecretSource>,
  reloading: (reload: Effect.Effect<void>) => Effect.Effect<void>,
) {
  const sources = [sign, ...accept];
  let versions = sources.map(version);
  let keys = yield* Effect.forEach(sources, read);
  let failing = false;

  const reload = Effect.gen(function* () {
    const seen = sources.map(version);
    if (seen.every((each, i) => each === versions[i])) return;
    const fresh = yield* Effect.forEach(sources, (source, i) =>
      source.from._tag === "File" ? read(source) : Effect.succeed(keys[i]!),
    );
    keys = fresh;
    versions = seen;
    failing = false;
    yield* Effect.logInfo("secret files changed: the new keys are in force");
  }).pipe(
    Effect.catchAll((error) => {
      if (failing) return Effect.void;
      failing = true;
      return Effect.logError(`${error.message}. The keys read before stay in force`);
    }),
  );

  // listening all the time: an unheard SIGHUP would end the process
  const hangup = yield* Effect.makeLatch(false);
  const onSignal = () => hangup.unsafeOpen();
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("SIGHUP", onSignal)),
    () => Effect.sync(() => process.removeListener("SIGHUP", onSignal)),
  );

  return {
    keyring: (): Keyring => ({ sign: keys[0]!, accept: keys }),
    watch: Effect.raceFirst(Effect.as(Clock.sleep(lookMs), reload), Effect.as(hangup.await, reloading(reload))).pipe(
      Effect.tap(() => hangup.close),
      Effect.flatten,
      Effect.forever,
    ),
  };
});
