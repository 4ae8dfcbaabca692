/** The node's own features: command-line arguments and the files of a directory. */
import * as Context from "effect/Context";
import type * as Stream from "effect/Stream";
import type { FeatureSet } from "./Feature.js";

export declare namespace FeatureSource {
  interface Service {
    /** Complete sets: the first one soon (also when the directory is not there yet), then one at each change. */
    readonly snapshots: Stream.Stream<FeatureSet>;
  }
}

export class FeatureSource extends Context.Tag("nameq/FeatureSource")<FeatureSource, FeatureSource.Service>() {}
