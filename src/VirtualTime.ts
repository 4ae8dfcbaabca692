/**
 * Time that passes only when it is told to, for whole fleets in one process: a clock whose sleepers wait on a heap, and
 * a scheduler that runs every fiber until nothing is left to do before time moves on. Between two wake-ups everything
 * is synchronous, so a run is fast (no timers, no event loop) and the same every time.
 */
import * as Clock from "effect/Clock";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as RuntimeFiber from "effect/Fiber";
import * as Scheduler from "effect/Scheduler";
import { Heap } from "./Heap.js";

/** Tasks in one instant after which a run is given up: some fiber spins without ever sleeping. */
const maxTasksAnInstant = 10_000_000;

/** Runs fibers in the order in which they became ready. */
class QuiescentScheduler implements Scheduler.Scheduler {
  private tasks: Array<Scheduler.Task> = [];

  shouldYield(fiber: RuntimeFiber.RuntimeFiber<unknown, unknown>): number | false {
    return Scheduler.defaultShouldYield(fiber);
  }

  scheduleTask(task: Scheduler.Task): void {
    this.tasks.push(task);
  }

  /** Runs until no fiber is ready. */
  run(): void {
    let ran = 0;
    while (this.tasks.length > 0) {
      const tasks = this.tasks;
      this.tasks = [];
      for (const task of tasks) task();
      ran += tasks.length;
      if (ran > maxTasksAnInstant) throw new Error("a simulated fiber runs for ever without sleeping");
    }
  }
}

/** One run's time. */
export class VirtualTime {
  private readonly sleepers = new Heap<{ readonly wake: () => void; cancelled: boolean }>();
  readonly scheduler = new QuiescentScheduler();
  private nowMs: number;

  /** `startMs`: Unix ms at the start. */
  constructor(readonly startMs = Date.UTC(2026, 0, 1)) {
    this.nowMs = startMs;
  }

  /** Unix ms of the simulated world. */
  get unixMs(): number {
    return this.nowMs;
  }

  /**
   * A clock of this world. `skewMs` (may change during the run) is how far its wall time is off; its monotonic time and
   * its sleeps are never off.
   */
  clock(skewMs: () => number = () => 0): Clock.Clock {
    const millis = () => Math.floor(this.nowMs + skewMs());
    const nanos = () => BigInt(Math.round((this.nowMs - this.startMs) * 1e6));
    return {
      [Clock.ClockTypeId]: Clock.ClockTypeId,
      unsafeCurrentTimeMillis: millis,
      unsafeCurrentTimeNanos: nanos,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanos: Effect.sync(nanos),
      sleep: (duration) =>
        Effect.async<void>((resume) => {
          const sleeper = { wake: () => resume(Effect.void), cancelled: false };
          this.sleepers.push(this.nowMs + Duration.toMillis(duration), sleeper);
          return Effect.sync(() => {
            sleeper.cancelled = true;
          });
        }),
    };
  }

  /** Runs everything that is due until `ms` from now, waking sleepers in order; then it is that time. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      this.scheduler.run();
      if (this.sleepers.due > endMs) break;
      this.nowMs = Math.max(this.nowMs, this.sleepers.due);
      const sleeper = this.sleepers.pop()!;
      if (!sleeper.cancelled) sleeper.wake();
    }
    this.nowMs = endMs;
  }
}
