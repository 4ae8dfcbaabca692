/** Plays seeds until a promise breaks, and prints what and where: see `mutations.mjs`. */
import * as FaultSchedule from "../src/FaultSchedule.js";
import { membershipWorld } from "../src/MembershipSimulation.js";
import { clusterWorld, play } from "../src/Simulation.js";
import { regressions } from "./regressions.js";

const [tier, seeds] = [process.argv[2], Number(process.argv[3])];
const makeWorld = tier === "whole" ? clusterWorld : membershipWorld;
const durationMs = tier === "whole" ? 1_800_000 : 3_600_000;
let found = "";
let seed = 0;
while (found === "" && seed < seeds) {
  const known = regressions[seed++];
  const schedule = known?.[1] ?? FaultSchedule.generate(seed, { durationMs, everyMs: [30_000, 120_000][seed % 2]! });
  try {
    const [first] = play(schedule, makeWorld).violations;
    if (first !== undefined) found = `${first.rule}: ${first.message}`;
  } catch (error) {
    found = `threw: ${String(error)}`;
  }
}
process.stdout.write(JSON.stringify({ found, seed, known: seed <= regressions.length }), () => process.exit(0));
