/** What the process itself uses, under the names that Prometheus's own clients have. */
import * as fs from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { version } from "../Version.js";
import type { Family } from "./Prometheus.js";

/** How often the event loop's delay is sampled, ms. */
const resolution = 20;

const openFiles = (): number => {
  try {
    return fs.readdirSync("/proc/self/fd").length;
  } catch {
    // no such file system here: the metric is left out
    return Number.NaN;
  }
};

const maxFiles = (): number => {
  try {
    return Number(/^Max open files +(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "utf8"))?.[1] ?? Number.NaN);
  } catch {
    return Number.NaN;
  }
};

/** Watches the event loop while the scope is open. `startedAtMs`: Unix ms. */
export const processFamilies = (startedAtMs: number): Effect.Effect<() => ReadonlyArray<Family>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const delay = monitorEventLoopDelay({ resolution });
      delay.enable();
      return delay;
    }),
    (delay) => Effect.sync(() => delay.disable()),
  ).pipe(
    Effect.map((delay) => () => {
      const { heapUsed, rss } = process.memoryUsage();
      const { system, user } = process.cpuUsage();
      const one = (name: string, type: Family["type"], help: string, value: number): Family => ({
        name,
        type,
        help,
        samples: Number.isNaN(value) ? [] : [{ value }],
      });
      /** The histogram has how far apart samples were: what is above the resolution is the delay. */
      const seconds = (ns: number): number => Math.max(0, ns / 1e9 - resolution / 1e3);
      return [
        {
          name: "nameq_event_loop_delay_seconds",
          type: "summary",
          help: "How late the event loop was, sampled every 20 ms since the start.",
          samples:
            delay.count === 0
              ? []
              : [
                  ...[0.5, 0.9, 0.99, 1].map((quantile) => ({
                    labels: { quantile: String(quantile) },
                    value: seconds(delay.percentile(quantile * 100)),
                  })),
                  { suffix: "_sum", value: seconds(delay.mean) * delay.count },
                  { suffix: "_count", value: delay.count },
                ],
        },
        {
          name: "nameq_build_info",
          type: "gauge",
          help: "The versions of nameq and Node.",
          samples: [{ labels: { version, node: process.version }, value: 1 }],
        },
        one(
          "process_cpu_seconds_total",
          "counter",
          "CPU time used, of user and system, in seconds.",
          (system + user) / 1e6,
        ),
        one("process_start_time_seconds", "gauge", "Start of the node, Unix time in seconds.", startedAtMs / 1e3),
        one("process_resident_memory_bytes", "gauge", "Resident memory in bytes.", rss),
        one("nodejs_heap_size_used_bytes", "gauge", "JavaScript heap in use, in bytes.", heapUsed),
        one("process_open_fds", "gauge", "Open file descriptors.", openFiles()),
        one("process_max_fds", "gauge", "Most file descriptors that may be open.", maxFiles()),
      ];
    }),
  );
