/** The node that `EmbeddedNode.layer` runs: in a file of its own, so that it is loaded only by who asks for it. */
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Redacted from "effect/Redacted";
import { createSecretKey } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as Address from "./Address.js";
import * as Daemon from "./Daemon.js";
import { EmbeddedNode, EmbeddedNodeError, type EmbeddedNodeOptions, type NodeFailure } from "./EmbeddedNode.js";
import * as Feature from "./Feature.js";
import { FeatureSource } from "./FeatureSource.js";
import { Metrics } from "./Metrics.js";
import { NameqClient } from "./NameqClient.js";
import { S3Registry } from "./S3Registry.js";
import { Secrets } from "./Secrets.js";
import { StateTree } from "./StateTree.js";
import { UdpTransport } from "./UdpTransport.js";

/** The parts of `EmbeddedNode.layer`. */
export const make = (options: EmbeddedNodeOptions): Layer.Layer<EmbeddedNode | NameqClient, NodeFailure> =>
  Layer.unwrapScoped(
    Effect.gen(function* () {
      const address = Address.parse(options.address);
      if (address === undefined || !Address.mayBeNode(address)) {
        return yield* new EmbeddedNodeError({
          message: `${options.address} can be no node's address: give a unicast address of this host, such as 10.0.0.1 (127.0.0.2 and up on one machine)`,
        });
      }
      const secret = Redacted.value(options.secret);
      if (secret.length === 0) {
        return yield* new EmbeddedNodeError({ message: "the secret is empty: give at least 16 random bytes" });
      }
      const key = { mode: 0, secret: createSecretKey(typeof secret === "string" ? Buffer.from(secret) : secret) };
      const directory = options.directory ?? (yield* temporary);
      const stateDir = path.join(directory, "state");
      const featureDir = path.join(directory, "features");
      const services = Layer.mergeAll(
        "directory" in options.registry
          ? S3Registry.layerDirectory(options.registry)
          : S3Registry.layer(options.registry),
        UdpTransport.layer({ address, port: options.port }),
        FeatureSource.layer({ directory: featureDir, features: Feature.empty }),
        StateTree.layer({ directory: stateDir }),
        Secrets.layerMemory({ sign: key, accept: [key] }),
      ).pipe(Layer.provideMerge(Metrics.layer));
      return Layer.merge(
        Layer.scoped(EmbeddedNode, node(options.onExit ?? "withdraw")).pipe(Layer.provide(services)),
        NameqClient.layer({ stateDir, featureDir }),
      );
    }),
  );

/** The node's fiber belongs to the layer; its failure is kept for whoever asks, and logged for those who do not. */
const node = Effect.fnUntraced(function* (onExit: Daemon.DaemonOptions["onExit"]) {
  const failure = yield* Deferred.make<never, NodeFailure>();
  yield* Daemon.run({ onExit }).pipe(
    Effect.tapErrorCause((cause) => Effect.logError("the embedded node ended", cause)),
    Effect.onError((cause) => Deferred.failCause(failure, cause)),
    Effect.forkScoped,
  );
  return { failure: Deferred.await(failure) };
});

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "nameq-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);
