/**
 * Waits for a ring or for a time, whichever comes first. A race of the two would do the same, but ending one costs 0.1
 * ms in a program that is mostly idle; this costs a fiber only when a time is earlier than all that are set.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/** For one waiting fiber. */
export interface Alarm {
  /** Ends the wait, or the next one if nobody waits. */
  readonly ring: () => void;
  /** Forgets the rings so far: what comes after is heard. */
  readonly silence: () => void;
  /** Waits for a ring, at most until `timeMs` (of `monotonicMs`). May end early without reason: look, and wait again. */
  readonly wait: (timeMs: number) => Effect.Effect<void>;
  readonly monotonicMs: () => number;
}

/** An alarm whose times end with the scope. */
export const make: Effect.Effect<Alarm, never, Scope.Scope> = Effect.gen(function* () {
  const scope = yield* Effect.scope;
  const clock = yield* Effect.clock;
  const latch = yield* Effect.makeLatch(false);
  const monotonicMs = () => Number(clock.unsafeCurrentTimeNanos()) / 1e6;
  /** The earliest time that is set; later ones may be set too, and ring for nothing. */
  let setMs = Number.POSITIVE_INFINITY;
  return {
    ring: () => latch.unsafeOpen(),
    silence: () => latch.unsafeClose(),
    wait: (timeMs) =>
      Effect.suspend(() => {
        if (setMs <= timeMs) return latch.await;
        setMs = timeMs;
        const ring = Effect.sync(() => {
          if (setMs === timeMs) setMs = Number.POSITIVE_INFINITY;
          latch.unsafeOpen();
        });
        const waitMs = Math.max(0, Math.ceil(timeMs - monotonicMs()));
        return Effect.zipRight(Effect.forkIn(Effect.delay(ring, waitMs), scope), latch.await);
      }),
    monotonicMs,
  };
});
