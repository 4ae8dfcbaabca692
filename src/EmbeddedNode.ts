/** A whole node inside a program, for those who want no daemon: the daemon's own loops over the same services. */
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import type * as Redacted from "effect/Redacted";
import type { DaemonOptions } from "./Daemon.js";
import type { NameqClient } from "./NameqClient.js";
import type { S3Options } from "./S3Client.js";
import type { RegistryError } from "./S3Registry.js";
import type { StateTreeError } from "./StateTree.js";
import type { UdpError } from "./UdpTransport.js";

/** What cannot be a node. */
export class EmbeddedNodeError extends Data.TaggedError("EmbeddedNodeError")<{ readonly message: string }> {}

/** Why an embedded node did not start, or ended. */
export type NodeFailure = EmbeddedNodeError | RegistryError | StateTreeError | UdpError;

export interface EmbeddedNodeOptions {
  /** The node's own address: an address of this host that peers can send to. */
  readonly address: string;
  /** UDP port, the same on all nodes. Defaults to 17106. */
  readonly port?: number | undefined;
  /** The key that all nodes share: its bytes, or text that is taken as UTF-8. At least 16 random bytes. */
  readonly secret: Redacted.Redacted<string | Uint8Array>;
  /** Where nodes find each other: a bucket, or a directory that they share. */
  readonly registry: S3Options | { readonly directory: string };
  /** Where the tree and the own features are. Defaults to a private temporary directory that goes with the node. */
  readonly directory?: string | undefined;
  /** See `DaemonOptions`. Defaults to `withdraw`. */
  readonly onExit?: DaemonOptions["onExit"] | undefined;
}

export declare namespace EmbeddedNode {
  interface Service {
    /** Never ends while the node runs; fails with what ended it. Race it against the program, or retry on it. */
    readonly failure: Effect.Effect<never, NodeFailure>;
  }
}

export class EmbeddedNode extends Context.Tag("nameq/EmbeddedNode")<EmbeddedNode, EmbeddedNode.Service>() {
  /**
   * Runs a node as long as the layer lives, with a `NameqClient` on it. When the scope closes the node leaves as
   * `onExit` says, within 5 seconds.
   */
  static readonly layer = (options: EmbeddedNodeOptions): Layer.Layer<EmbeddedNode | NameqClient, NodeFailure> =>
    // the parts are heavy, and most programs have a daemon
    Layer.unwrapEffect(
      Effect.map(
        Effect.promise(() => import("./EmbeddedNodeLayer.js")),
        ({ make }) => make(options),
      ),
    );
}
