/** Some seeds on both tiers; two test files share them, so that two cores do. A long run: `npm run simulate`. */
import { setImmediate } from "node:timers/promises";
import { assert, describe, it } from "@effect/vitest";
import * as FaultSchedule from "../src/FaultSchedule.js";
import { membershipWorld } from "../src/MembershipSimulation.js";
import { canonical, check, clusterWorld } from "../src/Simulation.js";

const setting = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);

const first = setting("NAMEQ_FIRST_SEED", 1);
const hours = setting("NAMEQ_HOURS", 1);
const ruleSeeds = setting("NAMEQ_SEEDS", 400);
const clusterSeeds = setting("NAMEQ_CLUSTER_SEEDS", 50);

const hour = 3_600_000;

/** From a fault every half minute to one every eight; on whole nodes, which take longer, from one a minute. */
const everyMs = (seed: number, leastMs: number): number => [leastMs, 120_000, 480_000][seed % 3]!;
const timeout = 3_600_000;

/** `parity`: which half of the seeds. */
export const simulate = (parity: 0 | 1): void => {
  const ofThisHalf = (count: number): ReadonlyArray<number> =>
    Array.from({ length: count }, (_, i) => first + i).filter((seed) => seed % 2 === parity);

  describe(`a fleet of five with faults of every kind (${parity === 0 ? "even" : "odd"} seeds)`, () => {
    it(
      `keeps its promises in ${ruleSeeds} runs of ${hours} h of rules alone`,
      async () => {
        for (const seed of ofThisHalf(ruleSeeds)) {
          // the test runner wants to hear of its worker
          await setImmediate();
          const schedule = FaultSchedule.generate(seed, { durationMs: hours * hour, everyMs: everyMs(seed, 30_000) });
          check(schedule, membershipWorld);
        }
      },
      timeout,
    );

    it(
      `keeps its promises in ${clusterSeeds} runs of 1 h of whole nodes, and ends as the rules alone do`,
      async () => {
        for (const seed of ofThisHalf(clusterSeeds)) {
          await setImmediate();
          const schedule = FaultSchedule.generate(seed, { everyMs: everyMs(seed, 60_000) });
          const whole = check(schedule, clusterWorld);
          assert.strictEqual(canonical(whole.trees), canonical(check(schedule, membershipWorld).trees), `seed ${seed}`);
        }
      },
      timeout,
    );
  });
};
