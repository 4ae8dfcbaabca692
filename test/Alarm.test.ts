import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Option from "effect/Option";
import * as TestClock from "effect/TestClock";
import * as Alarm from "../src/Alarm.js";

const isWaiting = (fiber: Fiber.RuntimeFiber<void>) => Effect.map(Fiber.poll(fiber), Option.isNone);

describe("an alarm", () => {
  it.scoped("ends a wait when it rings, and a ring before the wait counts until it is silenced", () =>
    Effect.gen(function* () {
      const alarm = yield* Alarm.make;
      alarm.ring();
      yield* alarm.wait(alarm.monotonicMs() + 1_000);
      alarm.silence();
      const waiting = yield* Effect.fork(alarm.wait(alarm.monotonicMs() + 1_000));
      yield* Effect.yieldNow();
      assert.isTrue(yield* isWaiting(waiting));
      alarm.ring();
      yield* Fiber.join(waiting);
    }),
  );

  it.scoped("ends a wait at its time, also when a later time was set before", () =>
    Effect.gen(function* () {
      const alarm = yield* Alarm.make;
      const start = alarm.monotonicMs();
      const later = yield* Effect.fork(alarm.wait(start + 1_000));
      yield* TestClock.adjust("1 millis");
      alarm.ring();
      yield* Fiber.join(later);
      alarm.silence();
      const waiting = yield* Effect.fork(alarm.wait(start + 10));
      yield* TestClock.adjust("8 millis");
      assert.isTrue(yield* isWaiting(waiting));
      yield* TestClock.adjust("1 millis");
      yield* Fiber.join(waiting);
      // and the later one of both too
      alarm.silence();
      const last = yield* Effect.fork(alarm.wait(start + 2_000));
      yield* TestClock.adjust("3 seconds");
      yield* Fiber.join(last);
    }),
  );
});
