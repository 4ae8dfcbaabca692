/** The tree of files that programs read: `STATEDIR/features/FEATURE/HOST`. */
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import type * as Effect from "effect/Effect";
import type { Address } from "./Address.js";
import type { FeatureName, FeatureValue } from "./Feature.js";

/** The tree cannot be used at all (another daemon has it, or the directory cannot be made). */
export class StateTreeError extends Data.TaggedError("StateTreeError")<{
  readonly reason: "Locked" | "Unusable";
  readonly path: string;
  readonly cause?: unknown;
}> {}

/** What one host offers. Never changed after it was handed over. */
export type HostFeatures = ReadonlyMap<FeatureName, FeatureValue>;

export declare namespace StateTree {
  interface Service {
    /**
     * Sets what the tree must show for `host` (an empty map: nothing). Synchronous: it only notes the wish; many wishes
     * for one host before it is written are one write. A provisional wish adds files that are missing, but neither
     * changes nor removes one that was found at start (its news may be older than the file); `settle` or a later firm wish ends that.
     */
    readonly update: (host: Address, features: HostFeatures, options?: { readonly provisional?: boolean }) => void;
    /** Membership is known: from now on every wish is firm, and found files that nobody wished for are removed. Idempotent. */
    readonly settle: () => void;
    /** The writer: writes differences until it is interrupted. Recoverable file errors are retried with back-off and reported once. */
    readonly run: Effect.Effect<never, StateTreeError>;
    /** Waits until all that was wished so far stands in the tree. */
    readonly flush: Effect.Effect<void>;
    /** Removes every file that this tree shows (not foreign ones), at termination. The writer must have ended. */
    readonly withdraw: Effect.Effect<void>;
  }
}

export class StateTree extends Context.Tag("nameq/StateTree")<StateTree, StateTree.Service>() {}
