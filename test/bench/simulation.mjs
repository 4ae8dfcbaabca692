// Speed of both tiers of the simulation, in CPU-seconds of one process (user and system, so that other load on the
// machine counts little). Usage: node test/bench/simulation.mjs [words of a line's name]
import { cpus } from "node:os";
import { bundle } from "../bundle.mjs";

const { Cluster, defaults, FaultSchedule, membershipWorld, PureFleet, Simulation } = await import(
  await bundle("simulate/all.ts")
);

const hour = 3_600_000;

/** Every node hears every other one until each has heard `messages` of them. */
const rules = (nodes, messages) => {
  const fleet = new PureFleet(1, defaults);
  for (let i = 0; i < nodes; i++) fleet.join();
  // they meet over the registry
  fleet.agenda.advanceTo(10_000);
  const before = fleet.delivered;
  return () => {
    while (fleet.delivered - before < nodes * messages) fleet.agenda.advanceTo(fleet.agenda.nowMs + 1_000);
    return { messages: fleet.delivered - before };
  };
};

const whole = (nodes, messages) => {
  const cluster = Cluster.make({ nodes });
  cluster.node(0).set("db", { port: 5432 });
  cluster.advance("10 seconds");
  const delivered = () => cluster.network.statistics().delivered;
  const before = delivered();
  return () => {
    while (delivered() - before < nodes * messages) cluster.advance("1 second");
    const all = { messages: delivered() - before };
    if (!cluster.converged) throw new Error(cluster.differences.join("\n"));
    cluster.close();
    return all;
  };
};

const seeds = (makeWorld, count, hours, first) => () => () => {
  for (let seed = first; seed < first + count; seed++) {
    Simulation.check(
      FaultSchedule.generate(seed, { durationMs: hours * hour, everyMs: [30_000, 120_000, 480_000][seed % 3] }),
      makeWorld,
    );
  }
  return { seeds: count };
};

/** What is run, and the CPU-seconds that it may take. */
const lines = [
  ["rules alone: 1,000 nodes x 1,000 messages", 3, () => rules(1_000, 1_000)],
  ["whole nodes: 100 nodes x 1,000 messages", 10, () => whole(100, 1_000)],
  ["rules alone: 30 of 1,000 seeds x 5 nodes x 24 h", 18, seeds(membershipWorld, 12, 24, 1)],
  ["whole nodes: 9 seeds x 5 nodes x 1 h", undefined, seeds(Simulation.clusterWorld, 9, 1, 1)],
];

const wanted = process.argv.slice(2).join(" ");
const results = [];
console.log("what                                            | CPU s | wall s | target CPU s");
for (const [name, target, prepare] of lines) {
  if (!name.includes(wanted)) continue;
  const run = prepare();
  const [cpu, wall] = [process.cpuUsage(), performance.now()];
  const counts = run();
  const { user, system } = process.cpuUsage(cpu);
  const result = {
    name,
    cpuS: Number(((user + system) / 1e6).toFixed(2)),
    wallS: Number(((performance.now() - wall) / 1e3).toFixed(2)),
    targetS: target,
    ...counts,
  };
  results.push(result);
  console.log(
    `${name.padEnd(47)} | ${result.cpuS.toFixed(2).padStart(5)} | ${result.wallS.toFixed(2).padStart(6)} | ${target ?? ""}`,
  );
}
console.log(JSON.stringify({ node: process.version, cpu: cpus()[0]?.model, results }));
