/** Plays the seeds of one process for `run.mjs`, and tells it what came of them. */
import * as FaultSchedule from "../../src/FaultSchedule.js";
import { membershipWorld } from "../../src/MembershipSimulation.js";
import { canonical, check, clusterWorld, type Outcome } from "../../src/Simulation.js";

export interface Job {
  readonly tier: "rules" | "whole" | "both";
  readonly seeds: ReadonlyArray<number>;
  readonly nodes: number;
  readonly hours: number;
  readonly only?: ReadonlyArray<FaultSchedule.Kind>;
}

export interface Report {
  readonly seeds: number;
  readonly runs: number;
  readonly simulatedMs: number;
  readonly faults: Record<string, number>;
  readonly harm: Record<string, number>;
  readonly largest: Record<string, number>;
  /** What broke first. */
  readonly broken?: string;
}

export const kinds = FaultSchedule.kinds;

/** From a fault every half minute to one every eight. */
const rates = [30_000, 120_000, 480_000];
/** How often the parent is told, ms. */
const tellMs = 1_000;

const fresh = (): { -readonly [K in keyof Report]: Report[K] } => ({
  seeds: 0,
  runs: 0,
  simulatedMs: 0,
  faults: {},
  harm: {},
  largest: {},
});

process.once("message", (job: Job) => {
  let report = fresh();
  const tell = (): void => {
    process.send!(report);
    report = fresh();
  };
  const add = (to: Record<string, number>, counts: Iterable<readonly [string, number]>): void => {
    for (const [name, count] of counts) to[name] = (to[name] ?? 0) + count;
  };
  const note = ({ ms, harm, largest }: Outcome): void => {
    report.runs++;
    report.simulatedMs += ms;
    add(report.harm, Object.entries(harm));
    for (const [name, size] of Object.entries(largest)) {
      report.largest[name] = Math.max(report.largest[name] ?? 0, size);
    }
  };
  let toldMs = performance.now();
  for (const seed of job.seeds) {
    const schedule = FaultSchedule.generate(seed, {
      nodes: job.nodes,
      durationMs: job.hours * 3_600_000,
      everyMs: rates[seed % 3]!,
      ...(job.only !== undefined && { only: job.only }),
    });
    try {
      const rules = job.tier === "whole" ? undefined : check(schedule, membershipWorld);
      const whole = job.tier === "rules" ? undefined : check(schedule, clusterWorld);
      for (const outcome of [rules, whole]) if (outcome !== undefined) note(outcome);
      if (rules !== undefined && whole !== undefined && canonical(rules.trees) !== canonical(whole.trees)) {
        throw new Error(
          `seed ${seed} ends in different trees\nrules: ${canonical(rules.trees)}\nwhole: ${canonical(whole.trees)}`,
        );
      }
    } catch (error) {
      report.broken = error instanceof Error ? error.message : String(error);
      break;
    }
    report.seeds++;
    add(report.faults, FaultSchedule.faults(schedule));
    if (performance.now() - toldMs < tellMs) continue;
    toldMs = performance.now();
    tell();
  }
  process.send!(report, () => process.exit(0));
});
