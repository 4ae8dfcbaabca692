/**
 * `nameq/testing`: a fleet in one process and in virtual time, with every fault there is. Needs no network, no disk and
 * no waiting; the same seed gives the same run.
 *
 * @example
 * import { Cluster } from "nameq/testing";
 *
 * const cluster = Cluster.make({ nodes: 4, seed: 7 });
 * cluster.node(0).set("db", { port: 5432 });
 * cluster.advance("1 second");
 * cluster.partition([0, 1], [2, 3]);
 * cluster.crash(1);
 * cluster.advance("10 minutes");
 * cluster.heal();
 * cluster.advance("20 minutes");
 * assert.isTrue(cluster.converged, cluster.differences.join("\n"));
 * cluster.close();
 *
 * @example
 * // faults of every kind from one seed; throws with the shortest schedule that breaks a promise
 * import { FaultSchedule, Simulation } from "nameq/testing";
 *
 * for (let seed = 1; seed <= 20; seed++) {
 *   Simulation.check(FaultSchedule.generate(seed, { nodes: 3, durationMs: 600_000 }), Simulation.clusterWorld);
 * }
 */
export { Cluster, type ClusterNode, type ClusterOptions, type NodeRef, type Tree } from "./Cluster.js";
/** Faults as data: generate, print, count, shrink. */
export * as FaultSchedule from "./FaultSchedule.js";
/** Plays schedules on fleets, and checks the promises: `play`, `check`, `clusterWorld`. */
export * as Simulation from "./Simulation.js";
/** The same on rules alone, for thousands of nodes and very many seeds. */
export { membershipWorld } from "./MembershipSimulation.js";
/** What is promised, and within which times. */
export { convergedMs, goneMs, type Rule, type Violation } from "./Witness.js";
export type { FaultModel, Link, NetworkStatistics, SimulatedNetwork } from "./SimulatedNetwork.js";
export type { MemoryLink, MemoryRegistry } from "./S3Registry.js";
export { VirtualTime } from "./VirtualTime.js";
