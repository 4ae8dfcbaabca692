/** What programs outside vitest need of the simulation. */
export { Cluster } from "../../src/Cluster.js";
export * as FaultSchedule from "../../src/FaultSchedule.js";
export { membershipWorld, PureFleet } from "../../src/MembershipSimulation.js";
export { defaults } from "../../src/Settings.js";
export * as Simulation from "../../src/Simulation.js";
