/** nameq's library: what this host offers, and what the fleet offers. */
export { Address, isLoopback, ownHost } from "./Address.js";
export { EmbeddedNode, EmbeddedNodeError, type EmbeddedNodeOptions, type NodeFailure } from "./EmbeddedNode.js";
export { FeatureName, FeatureValue, isFeatureName, parseValue } from "./Feature.js";
export { FeatureFileError } from "./FeatureFile.js";
export { Added, Booted, type Change, Offer, Problem, type ProblemReason, Removed, Updated } from "./FeatureTable.js";
export { isFault, type JsonFault } from "./Json.js";
export { MemoryFleet } from "./MemoryFleet.js";
export {
  FindTimeout,
  InvalidFeatureName,
  InvalidValue,
  NameqClient,
  type NameqClientOptions,
  type SetError,
  type Snapshot,
  type TypedChange,
  type TypedFeature,
  type TypedOffer,
  Undecodable,
} from "./NameqClient.js";
export { type Advertisement, connect, type Nameq, type TypedNameqFeature } from "./promises.js";
