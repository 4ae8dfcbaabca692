/** `nameq/testing`: a fleet in one process and in virtual time, with every fault there is. */
export { Cluster, type ClusterNode, type ClusterOptions, type NodeRef, type Tree } from "./Cluster.js";
export type { FaultModel, Link, NetworkStatistics, SimulatedNetwork } from "./SimulatedNetwork.js";
export type { MemoryLink, MemoryRegistry } from "./S3Registry.js";
export { VirtualTime } from "./VirtualTime.js";
