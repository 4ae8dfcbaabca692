/** Speed of both tiers of the simulation, in CPU-seconds, so that other load on the machine counts little. */
export const title = "simulated fleets: a message between rules alone and between whole nodes, a seed of faults";

const hourMs = 3_600_000;

export const run = async (bench) => {
  const { Cluster, defaults, FaultSchedule, membershipWorld, PureFleet, Simulation } = await bench.use(`
    export { Cluster } from "./src/Cluster.js";
    export * as FaultSchedule from "./src/FaultSchedule.js";
    export { membershipWorld, PureFleet } from "./src/MembershipSimulation.js";
    export { defaults } from "./src/Settings.js";
    export * as Simulation from "./src/Simulation.js";
  `);
  const rounds = bench.short ? 1 : 3;
  const messages = bench.short ? 100 : 1_000;
  const cpuS = (work) => {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1e6;
  };

  const rules = [];
  const nodes = bench.short ? 100 : 1_000;
  for (let round = 0; round < rounds; round++) {
    const fleet = new PureFleet(round, defaults);
    for (let i = 0; i < nodes; i++) fleet.join();
    // they meet over the registry
    fleet.agenda.advanceTo(10_000);
    global.gc();
    const until = fleet.delivered + nodes * messages;
    rules.push(
      cpuS(() => {
        while (fleet.delivered < until) fleet.agenda.advanceTo(fleet.agenda.nowMs + 1_000);
      }),
    );
  }
  bench.row(`rules alone: ${nodes} nodes x ${messages} messages`, rules, { unit: "s", target: { median: 3 } });

  const whole = [];
  const wholeNodes = bench.short ? 20 : 100;
  for (let round = 0; round < rounds; round++) {
    const cluster = Cluster.make({ nodes: wholeNodes, seed: round });
    cluster.node(0).set("db", { port: 5432 });
    cluster.advance("10 seconds");
    const delivered = () => cluster.network.statistics().delivered;
    const until = delivered() + wholeNodes * messages;
    whole.push(
      cpuS(() => {
        while (delivered() < until) cluster.advance("1 second");
      }),
    );
    if (!cluster.converged) throw new Error(cluster.differences.join("\n"));
    cluster.close();
  }
  bench.row(`whole nodes: ${wholeNodes} nodes x ${messages} messages`, whole, { unit: "s", target: { median: 10 } });

  const seeds = (makeWorld, count, hours) => {
    // what ran before is not theirs to sweep
    global.gc();
    return Array.from({ length: count }, (_, seed) =>
      cpuS(() => {
        const everyMs = [30_000, 120_000, 480_000][seed % 3];
        Simulation.check(FaultSchedule.generate(seed, { durationMs: hours * hourMs, everyMs }), makeWorld);
      }),
    );
  };
  const mean = (numbers) => numbers.reduce((sum, n) => sum + n, 0) / numbers.length;
  const hours = bench.short ? 1 : 24;
  // 1,000 of them in 5 minutes on 2 cores
  bench.row(
    `rules alone: a seed, 5 nodes x ${hours} h, mean`,
    mean(seeds(membershipWorld, bench.short ? 3 : 30, hours)),
    { unit: "s", target: { median: 0.6 } },
  );
  bench.row("whole nodes: a seed, 5 nodes x 1 h, mean", mean(seeds(Simulation.clusterWorld, bench.short ? 1 : 9, 1)), {
    unit: "s",
  });
};
