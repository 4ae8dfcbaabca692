/** The library: what this host offers, and what the fleet offers. */
import * as Chunk from "effect/Chunk";
import * as Config from "effect/Config";
import * as Defaults from "./Defaults.js";
import { EmbeddedNode, type EmbeddedNodeOptions, type NodeFailure } from "./EmbeddedNode.js";
import type { ConfigError } from "effect/ConfigError";
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Option from "effect/Option";
import type { ParseError } from "effect/ParseResult";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import { type Address, parse as parseAddress } from "./Address.js";
import { type FeatureName, type FeatureValue, isFeatureName, parseValue } from "./Feature.js";
import * as FeatureFile from "./FeatureFile.js";
import {
  type Added,
  type Booted,
  type Change,
  type Features,
  type Held,
  Offer,
  type Problem,
  type Removed,
  type Tree,
  type Updated,
} from "./FeatureTable.js";
import { isFault } from "./Json.js";
import { MemoryFleet, watchTable } from "./MemoryFleet.js";
import { TreeWatch } from "./TreeWatch.js";

/** Not a feature's name. */
export class InvalidFeatureName extends Data.TaggedError("InvalidFeatureName")<{ readonly name: string }> {
  override get message(): string {
    const shown = JSON.stringify(this.name.slice(0, 64));
    return `${shown} is not a feature's name: use 1 to 255 of the characters A-Z a-z 0-9 - _`;
  }
}

/** The value cannot be a feature's value. The feature is as it was. */
export class InvalidValue extends Data.TaggedError("InvalidValue")<{
  readonly name: string;
  /** What is wrong with it. */
  readonly reason: string;
  readonly cause?: unknown;
}> {
  override get message(): string {
    return `the value of feature ${this.name} ${this.reason}: give a value that JSON can carry, or its JSON text to setJson`;
  }
}

/** No host offered one of the features in time. */
export class FindTimeout extends Data.TaggedError("FindTimeout")<{
  readonly names: ReadonlyArray<string>;
  readonly timeout: Duration.Duration;
}> {
  override get message(): string {
    return `no host offers ${this.names.join(" or ")} (waited ${Duration.format(this.timeout)}): check that one sets it and that nameq serve runs here and there, or wait longer`;
  }
}

/** A host's value does not fit the schema; the host is as good as not offering the feature until it changes. */
export class Undecodable {
  readonly _tag = "Undecodable";
  constructor(
    readonly feature: FeatureName,
    readonly host: Address,
    readonly json: FeatureValue,
    readonly error: ParseError,
  ) {}
  get message(): string {
    return `feature ${this.feature} of host ${this.host} does not fit its schema: make the host offer what is expected here, or widen the schema\n${this.error.message}`;
  }
}

/** An offer whose value fits the schema. */
export interface TypedOffer<A> {
  readonly _tag: "Added" | "Updated";
  readonly feature: FeatureName;
  readonly host: Address;
  readonly json: FeatureValue;
  readonly value: A;
}

export type TypedChange<A> = TypedOffer<A> | Removed | Undecodable | Booted | Problem;

/** All that was known at a moment. */
export interface Snapshot {
  readonly features: ReadonlyMap<FeatureName, ReadonlyMap<Address, Offer>>;
  /** What had to be left out. */
  readonly problems: ReadonlyArray<Problem>;
}

/** What can go wrong when a feature is set. */
export type SetError = InvalidFeatureName | InvalidValue | FeatureFile.FeatureFileError;

/** One feature whose values have a schema. */
export interface TypedFeature<A> {
  /** As `NameqClient.changes`, of this feature, with decoded values. */
  readonly changes: Stream.Stream<TypedChange<A>, InvalidFeatureName>;
  /** As `NameqClient.watch`; hosts whose value does not fit are left out. */
  readonly watch: Stream.Stream<ReadonlyMap<Address, A>, InvalidFeatureName>;
  /** The hosts whose value fits, now. */
  readonly current: Effect.Effect<ReadonlyMap<Address, A>, InvalidFeatureName>;
  readonly set: (value: A) => Effect.Effect<void, SetError>;
  readonly setScoped: (value: A) => Effect.Effect<void, SetError, Scope.Scope>;
  readonly remove: Effect.Effect<void, InvalidFeatureName | FeatureFile.FeatureFileError>;
}

/** Where this host's own features are written. */
export interface LocalFeatures {
  readonly set: (name: FeatureName, value: FeatureValue) => Effect.Effect<void, FeatureFile.FeatureFileError>;
  readonly remove: (name: FeatureName) => Effect.Effect<void, FeatureFile.FeatureFileError>;
}

export declare namespace NameqClient {
  interface Service {
    /**
     * Offers `name` from this host, until it is removed: also after the program's end. The value is anything that
     * JSON can carry; with a schema, what the schema encodes it to.
     */
    readonly set: <A, I>(name: string, value: A, schema?: Schema.Schema<A, I>) => Effect.Effect<void, SetError>;
    /** The same with the value's exact JSON text, whose numbers may have any number of digits. */
    readonly setJson: (name: string, json: string) => Effect.Effect<void, SetError>;
    /** The same until the scope closes, however it closes. A removal that fails then is logged. */
    readonly setScoped: <A, I>(
      name: string,
      value: A,
      schema?: Schema.Schema<A, I>,
    ) => Effect.Effect<void, SetError, Scope.Scope>;
    /** No longer offers `name` from this host; fine when it did not. */
    readonly remove: (name: string) => Effect.Effect<void, InvalidFeatureName | FeatureFile.FeatureFileError>;
    /**
     * What the fleet offers: first what is there, then `Booted`, then each change. A slow consumer is brought to the
     * newest state of each feature and host, and misses only what was overtaken meanwhile; it slows nobody else.
     * `Problem`s tell what had to be left out.
     */
    readonly changes: Stream.Stream<Change>;
    /** What the fleet offers now. */
    readonly snapshot: Effect.Effect<Snapshot>;
    /** The hosts that offer the feature now, the newest first; `127.0.0.1` is this one. */
    readonly hosts: (feature: string) => Effect.Effect<ReadonlyArray<Address>, InvalidFeatureName>;
    /**
     * Waits until a host offers one of the features, and gives all such offers, the newest first. Without a timeout it
     * waits for ever; with a timeout of 0 it only looks.
     */
    readonly find: (
      names: ReadonlyArray<string>,
      options?: { readonly timeout?: Duration.DurationInput | undefined },
    ) => Effect.Effect<ReadonlyArray<Offer>, InvalidFeatureName | FindTimeout>;
    /** All hosts that offer the feature: now, and again at each change. A slow consumer gets the newest. */
    readonly watch: (feature: string) => Stream.Stream<ReadonlyMap<Address, Offer>, InvalidFeatureName>;
    /** A view of one feature whose values have a schema. */
    readonly feature: <A, I>(name: string, schema: Schema.Schema<A, I>) => TypedFeature<A>;
  }
}

const checkName = (name: string): Effect.Effect<FeatureName, InvalidFeatureName> =>
  isFeatureName(name) ? Effect.succeed(name) : new InvalidFeatureName({ name });

const parse = (name: string, json: string): Effect.Effect<FeatureValue, InvalidValue> => {
  const value = parseValue(json);
  if (!isFault(value)) return Effect.succeed(value);
  const reason = value.reason === "depth" ? "is nested too deep" : `is not JSON at character ${value.offset + 1}`;
  return new InvalidValue({ name, reason });
};

const finite = (_: string, value: unknown): unknown => {
  // JSON.stringify would write null
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`JSON has no ${value}`);
  return value;
};

const encode = <A, I>(
  name: string,
  value: A,
  schema: Schema.Schema<A, I> | undefined,
): Effect.Effect<FeatureValue, InvalidValue> =>
  Effect.gen(function* () {
    const plain: unknown =
      schema === undefined
        ? value
        : yield* Effect.mapError(
            Schema.encode(schema)(value),
            (cause) => new InvalidValue({ name, cause, reason: `does not fit its schema (${cause.message})` }),
          );
    const json = yield* Effect.try({
      try: (): string | undefined => JSON.stringify(plain, finite),
      catch: (cause) => new InvalidValue({ name, cause, reason: `cannot be written as JSON (${String(cause)})` }),
    });
    if (json === undefined) return yield* new InvalidValue({ name, reason: `is ${typeof plain}` });
    return yield* parse(name, json);
  });

const offersOf = (features: Features): ReadonlyArray<Offer> => {
  const offers: Array<readonly [Offer, Held]> = [];
  for (const [feature, hosts] of features) {
    for (const [host, held] of hosts) offers.push([new Offer(feature, host, held.value), held]);
  }
  return offers.toSorted(([, a], [, b]) => b.changedMs - a.changedMs).map(([offer]) => offer);
};

/** The complete map after each chunk of changes that changed it, from `Booted` on. */
const mapsOf = <C extends TypedChange<unknown> | Change, V, E>(
  changes: Stream.Stream<C, E>,
  valueOf: (offer: Extract<C, { readonly _tag: "Added" | "Updated" }>) => V,
): Stream.Stream<ReadonlyMap<Address, V>, E> =>
  Stream.suspend(() => {
    const map = new Map<Address, V>();
    let booted = false;
    return Stream.filterMap(Stream.chunks(changes), (chunk) => {
      let news = false;
      for (const change of chunk) {
        if (change._tag === "Problem") continue;
        news = true;
        if (change._tag === "Booted") booted = true;
        else if (change._tag === "Removed" || change._tag === "Undecodable") map.delete(change.host);
        else map.set(change.host, valueOf(change as Extract<C, { readonly _tag: "Added" | "Updated" }>));
      }
      return booted && news ? Option.some(new Map(map)) : Option.none();
    });
  });

/** A client over any view of a fleet and any place for this host's own features. */
export const make = (tree: TreeWatch.Service, local: LocalFeatures): NameqClient.Service => {
  let logged: string | undefined;
  /** Reads, and logs a problem that hides something: once, until it is another one. */
  const read = (only?: Iterable<FeatureName>): Effect.Effect<Tree> =>
    Effect.tap(tree.read(only), ({ problems }) => {
      const message = problems[0]?.message;
      if (message === logged) return Effect.void;
      logged = message;
      return message === undefined ? Effect.void : Effect.logWarning(message);
    });

  const changesOf = (only?: Iterable<FeatureName>): Stream.Stream<Change> =>
    Stream.unwrapScoped(
      Effect.map(tree.subscribe(only), ({ pull }) =>
        Stream.repeatEffectChunk(Effect.map(pull, (changes) => Chunk.unsafeFromArray(changes))),
      ),
    );

  const setJson: NameqClient.Service["setJson"] = (name, json) =>
    Effect.flatMap(checkName(name), (valid) => Effect.flatMap(parse(valid, json), (value) => local.set(valid, value)));

  const set: NameqClient.Service["set"] = (name, value, schema) =>
    Effect.flatMap(checkName(name), (valid) =>
      Effect.flatMap(encode(valid, value, schema), (encoded) => local.set(valid, encoded)),
    );

  const remove: NameqClient.Service["remove"] = (name) => Effect.flatMap(checkName(name), local.remove);

  const setScoped: NameqClient.Service["setScoped"] = (name, value, schema) =>
    Effect.acquireRelease(set(name, value, schema), () =>
      Effect.catchAll(remove(name), (error) => Effect.logError(error.message)),
    );

  const find: NameqClient.Service["find"] = (names, options) =>
    Effect.gen(function* () {
      // no names at all would wait for nothing
      const only = yield* Effect.forEach(names.length === 0 ? [""] : names, checkName);
      const now = offersOf((yield* read(only)).features);
      if (now.length > 0) return now;
      const wait = Effect.gen(function* () {
        const { pull, features } = yield* tree.subscribe(only);
        const wanted = new Set(only);
        for (let booted = false; ;) {
          const changes = yield* pull;
          booted ||= changes.some(({ _tag }) => _tag === "Booted");
          const offers = booted ? offersOf(new Map([...features].filter(([name]) => wanted.has(name)))) : [];
          if (offers.length > 0) return offers;
        }
      }).pipe(Effect.scoped);
      if (options?.timeout === undefined) return yield* wait;
      const timeout = Duration.decode(options.timeout);
      const onTimeout = () => new FindTimeout({ names, timeout });
      return yield* Duration.isZero(timeout) ? onTimeout() : Effect.timeoutFail(wait, { duration: timeout, onTimeout });
    });

  const feature = <A, I>(name: string, schema: Schema.Schema<A, I>): TypedFeature<A> => {
    const decode = Schema.decodeUnknown(schema);
    const typed = (change: Change): Effect.Effect<TypedChange<A>> => {
      if (change._tag !== "Added" && change._tag !== "Updated") return Effect.succeed(change);
      const { _tag, feature, host, json } = change;
      return Effect.match(decode(change.value), {
        onSuccess: (value) => ({ _tag, feature, host, json, value }),
        onFailure: (error) => new Undecodable(feature, host, json, error),
      });
    };
    const changes = Stream.unwrap(
      Effect.map(checkName(name), (valid) =>
        Stream.mapChunksEffect(changesOf([valid]), (chunk) =>
          Effect.forEach(chunk, typed).pipe(Effect.map(Chunk.unsafeFromArray)),
        ),
      ),
    );
    return {
      changes,
      watch: mapsOf(changes, ({ value }) => value as A),
      current: Effect.gen(function* () {
        const valid = yield* checkName(name);
        const { features } = yield* read([valid]);
        const fitting = new Map<Address, A>();
        for (const offer of offersOf(features)) {
          const value = yield* Effect.option(decode(offer.value));
          if (Option.isSome(value)) fitting.set(offer.host, value.value);
        }
        return fitting;
      }),
      set: (value) => set(name, value, schema),
      setScoped: (value) => setScoped(name, value, schema),
      remove: remove(name),
    };
  };

  return {
    set,
    setJson,
    setScoped,
    remove,
    changes: changesOf(),
    snapshot: Effect.map(tree.read(), ({ features, problems }) => {
      const offers = new Map<FeatureName, Map<Address, Offer>>();
      for (const [feature, hosts] of features) {
        const shown = new Map<Address, Offer>();
        for (const [host, held] of hosts) shown.set(host, new Offer(feature, host, held.value));
        offers.set(feature, shown);
      }
      return { features: offers, problems };
    }),
    hosts: (name) =>
      Effect.gen(function* () {
        const valid = yield* checkName(name);
        return offersOf((yield* read([valid])).features).map(({ host }) => host);
      }),
    find,
    watch: (name) =>
      Stream.unwrap(
        Effect.map(checkName(name), (valid) =>
          mapsOf(changesOf([valid]), (offer: Added | Updated) => new Offer(offer.feature, offer.host, offer.json)),
        ),
      ),
    feature,
  };
};

/** Where a node of this host reads and writes. */
export interface NameqClientOptions {
  /** The daemon's state directory, only ever read. Defaults to `/run/nameq/state`. */
  readonly stateDir?: string | undefined;
  /** The daemon's feature directory, where features are set. Defaults to `/etc/nameq/features`. */
  readonly featureDir?: string | undefined;
}

export class NameqClient extends Context.Tag("nameq/NameqClient")<NameqClient, NameqClient.Service>() {
  /** A client of the daemon of this host, through its directories. It may be started later, and restarted. */
  static readonly layer = ({
    stateDir = Defaults.stateDir,
    featureDir = Defaults.featureDir,
  }: NameqClientOptions = {}): Layer.Layer<NameqClient> =>
    Layer.effect(
      NameqClient,
      Effect.map(TreeWatch, (tree) =>
        make(tree, {
          set: (name, value) => FeatureFile.set(featureDir, name, value),
          remove: (name) => FeatureFile.remove(featureDir, name),
        }),
      ),
    ).pipe(Layer.provide(TreeWatch.layer(stateDir)));

  /** The same with the directories of the environment: NAMEQ_STATE_DIR and NAMEQ_FEATURE_DIR. */
  static readonly layerConfig: Layer.Layer<NameqClient, ConfigError> = Layer.unwrapEffect(
    Effect.map(
      Config.all({
        stateDir: Config.withDefault(Config.nonEmptyString("NAMEQ_STATE_DIR"), Defaults.stateDir),
        featureDir: Config.withDefault(Config.nonEmptyString("NAMEQ_FEATURE_DIR"), Defaults.featureDir),
      }),
      (options) => NameqClient.layer(options),
    ),
  );

  /**
   * A client with a whole node of its own, inside this program: no daemon is needed. `EmbeddedNode.failure` tells when
   * the node ended by itself.
   */
  static readonly layerEmbedded = (
    options: EmbeddedNodeOptions,
  ): Layer.Layer<EmbeddedNode | NameqClient, NodeFailure> => EmbeddedNode.layer(options);

  /**
   * For the tests of programs: a client at host `address` (defaults to 10.0.0.1) of a fleet in memory. Clients that
   * share a `fleet` see each other; without one, the client is alone.
   */
  static readonly layerMemory = ({
    fleet = new MemoryFleet(),
    address = "10.0.0.1",
  }: {
    readonly fleet?: MemoryFleet | undefined;
    readonly address?: string | undefined;
  } = {}): Layer.Layer<NameqClient> =>
    Layer.sync(NameqClient, () => {
      const host = parseAddress(address);
      if (host === undefined) throw new TypeError(`${address} is not an IPv4 or IPv6 address such as 10.0.0.1`);
      return make(watchTable(fleet.tableAt(host)), {
        set: (name, value) => fleet.set(host, name, value),
        remove: (name) => fleet.set(host, name, undefined),
      });
    });
}
