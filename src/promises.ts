/** The library for programs without Effect: promises and async iteration. */
import * as Cause from "effect/Cause";
import type * as Chunk from "effect/Chunk";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as ManagedRuntime from "effect/ManagedRuntime";
import * as Option from "effect/Option";
import type * as Schema from "effect/Schema";
import * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import type { Address } from "./Address.js";
import type { Change, Offer } from "./FeatureTable.js";
import { NameqClient, type NameqClientOptions, type Snapshot, type TypedChange } from "./NameqClient.js";

/** A feature that is offered until it is closed. */
export interface Advertisement extends AsyncDisposable {
  readonly close: () => Promise<void>;
}

/** One feature whose values have a schema. */
export interface TypedNameqFeature<A> {
  readonly set: (value: A) => Promise<void>;
  readonly current: () => Promise<ReadonlyMap<Address, A>>;
  readonly changes: () => AsyncIterableIterator<TypedChange<A>>;
  readonly watch: () => AsyncIterableIterator<ReadonlyMap<Address, A>>;
}

/**
 * The promise-based face of `NameqClient`: the same operations and the same errors, as rejections. An iteration holds
 * its subscription from its first step until its loop is left, or `close`.
 */
export interface Nameq extends AsyncDisposable {
  /** Offers `name` from this host until it is removed, also after the program's end. */
  readonly set: (name: string, value: unknown) => Promise<void>;
  /** The same with the value's exact JSON text. */
  readonly setJson: (name: string, json: string) => Promise<void>;
  /** Offers `name` until the result, or this connection, is closed: use it with `await using`. */
  readonly advertise: (name: string, value: unknown) => Promise<Advertisement>;
  readonly remove: (name: string) => Promise<void>;
  /** First what is there, then `Booted`, then each change. */
  readonly changes: () => AsyncIterableIterator<Change>;
  readonly snapshot: () => Promise<Snapshot>;
  /** The hosts that offer the feature now, the newest first. */
  readonly hosts: (feature: string) => Promise<ReadonlyArray<Address>>;
  /** Waits until a host offers one of the features. Rejects with `FindTimeout`, and at once when the signal aborts. */
  readonly find: (
    names: ReadonlyArray<string>,
    options?: { readonly timeout?: Duration.DurationInput | undefined; readonly signal?: AbortSignal | undefined },
  ) => Promise<ReadonlyArray<Offer>>;
  /** All hosts that offer the feature: now, and again at each change. */
  readonly watch: (feature: string) => AsyncIterableIterator<ReadonlyMap<Address, Offer>>;
  readonly feature: <A, I>(name: string, schema: Schema.Schema<A, I>) => TypedNameqFeature<A>;
  /** Ends all iterations and removes what was advertised. Idempotent. */
  readonly close: () => Promise<void>;
}

/** Connects to the daemon of this host through its directories, or, for tests, to another layer of `NameqClient`. */
export const connect = async <E = never>(
  target: NameqClientOptions | Layer.Layer<NameqClient, E> = {},
): Promise<Nameq> => {
  const runtime = ManagedRuntime.make(
    Layer.isLayer(target) ? (target as Layer.Layer<NameqClient, E>) : NameqClient.layer(target as NameqClientOptions),
  );
  const running = new Set<Fiber.RuntimeFiber<unknown, unknown>>();
  /** What else ends with the connection. */
  const open = new Set<() => Promise<void>>();
  let closed: Promise<void> | undefined;

  const checkOpen = () => {
    if (closed !== undefined) throw new Error("this connection to nameq is closed: connect again");
  };

  const exitOf = <A, E2>(
    effect: Effect.Effect<A, E2, NameqClient>,
    signal?: AbortSignal,
  ): Promise<Exit.Exit<A, E | E2>> =>
    new Promise((resolve) => {
      const fiber = runtime.runFork(effect);
      const interrupt = () => fiber.unsafeInterruptAsFork(fiber.id());
      running.add(fiber);
      signal?.addEventListener("abort", interrupt, { once: true });
      if (signal?.aborted === true) interrupt();
      fiber.addObserver((exit) => {
        running.delete(fiber);
        signal?.removeEventListener("abort", interrupt);
        resolve(exit);
      });
    });

  const run = async <A, E2>(effect: Effect.Effect<A, E2, NameqClient>, signal?: AbortSignal): Promise<A> => {
    checkOpen();
    const exit = await exitOf(effect, signal);
    if (Exit.isSuccess(exit)) return exit.value;
    if (!Cause.isInterruptedOnly(exit.cause)) throw Cause.squash(exit.cause);
    signal?.throwIfAborted();
    checkOpen();
    throw new Error("interrupted");
  };

  /** Gives a scope, and what closes it once. */
  const openScope = (): readonly [scope: Scope.Scope, close: () => Promise<void>] => {
    checkOpen();
    const scope = runtime.runSync(Scope.make());
    let closing: Promise<void> | undefined;
    const close = () => {
      open.delete(close);
      return (closing ??= runtime.runPromise(Scope.close(scope, Exit.void)));
    };
    open.add(close);
    return [scope, close];
  };

  const iterate = <A, E2>(stream: Stream.Stream<A, E2>): AsyncIterableIterator<A> => {
    const done: IteratorResult<A> = { done: true, value: undefined };
    const stop = new AbortController();
    let pull: Effect.Effect<Chunk.Chunk<A> | undefined, E2> | undefined;
    let release: (() => Promise<void>) | undefined;
    let chunk: Iterator<A> | undefined;
    let turn: Promise<unknown> = Promise.resolve();

    const isOver = () => stop.signal.aborted || closed !== undefined;
    const end = async () => {
      stop.abort();
      await release?.();
    };
    const begin = () => {
      const [scope, close] = openScope();
      release = close;
      return Effect.map(Scope.extend(Stream.toPull(stream), scope), (next) =>
        Effect.catchAll(next, (error) => (Option.isNone(error) ? Effect.succeed(undefined) : Effect.fail(error.value))),
      );
    };
    const step = async (): Promise<IteratorResult<A>> => {
      while (!isOver()) {
        const next = chunk?.next();
        if (next?.done === false) return next;
        try {
          pull ??= await run(begin(), stop.signal);
          chunk = (await run(pull, stop.signal))?.[Symbol.iterator]();
          if (chunk === undefined) await end();
        } catch (error) {
          // the end of a wait that `return` or `close` ended
          if (isOver()) break;
          await end();
          throw error;
        }
      }
      return done;
    };
    const iterator: AsyncIterableIterator<A> = {
      // one step at a time, also when several are asked for at once
      next: () => {
        const result = turn.then(step);
        turn = result.catch(() => undefined);
        return result;
      },
      return: async () => {
        await end();
        return done;
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  };

  const nameq = await run(NameqClient);
  const close = (): Promise<void> =>
    (closed ??= (async () => {
      await runtime.runPromise(Fiber.interruptAll([...running]));
      await Promise.all(Array.from(open, (end) => end()));
      await runtime.dispose();
    })());

  return {
    set: (name, value) => run(nameq.set(name, value)),
    setJson: (name, json) => run(nameq.setJson(name, json)),
    advertise: async (name, value) => {
      const [scope, end] = openScope();
      try {
        await run(Scope.extend(nameq.setScoped(name, value), scope));
      } catch (error) {
        await end();
        throw error;
      }
      return { close: end, [Symbol.asyncDispose]: end };
    },
    remove: (name) => run(nameq.remove(name)),
    changes: () => iterate(nameq.changes),
    snapshot: () => run(nameq.snapshot),
    hosts: (feature) => run(nameq.hosts(feature)),
    find: (names, { timeout, signal } = {}) => run(nameq.find(names, { timeout }), signal),
    watch: (feature) => iterate(nameq.watch(feature)),
    feature: (name, schema) => {
      const typed = nameq.feature(name, schema);
      return {
        set: (value) => run(typed.set(value)),
        current: () => run(typed.current),
        changes: () => iterate(typed.changes),
        watch: () => iterate(typed.watch),
      };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
};
