/**
 * The receiving side of the datagram benchmarks, a process of its own. Arguments: HOW ADDRESS PORT SECRET (hex). HOW:
 *
 * - `bare`: Node's socket and a counter: the floor.
 * - `transport`: the transport's receive stream and a counter.
 * - `node`: a whole node, without a registry that others could be in, and whose tree is written nowhere.
 *
 * Each IPC message is answered with what was counted since the start.
 */
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as LogLevel from "effect/LogLevel";
import * as Stream from "effect/Stream";
import { createSecretKey } from "node:crypto";
import { createSocket } from "node:dgram";
import type { Address } from "../../../src/Address.js";
import * as Daemon from "../../../src/Daemon.js";
import * as Feature from "../../../src/Feature.js";
import { FeatureSource } from "../../../src/FeatureSource.js";
import { Metrics } from "../../../src/Metrics.js";
import { MemoryRegistry, S3Registry } from "../../../src/S3Registry.js";
import { Secrets } from "../../../src/Secrets.js";
import { StateTree } from "../../../src/StateTree.js";
import { UdpTransport } from "../../../src/UdpTransport.js";

const [how, address = "", port = "", secret = ""] = process.argv.slice(2);

/** Answers each request with how many were received and accepted, and the CPU time of this process. */
const answer = (received: () => number, accepted: () => number): void => {
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ received: received(), accepted: accepted(), cpuUs: user + system });
  });
  process.send?.({});
};

const transport = UdpTransport.layer({ address: address as Address, port: Number(port) });

const program = Effect.gen(function* () {
  const metrics = yield* Metrics;
  const received = metrics.cell("datagrams_received");
  const accepted = metrics.cell("announcements_accepted");
  answer(
    () => received.value,
    () => accepted.value,
  );
  if (how === "transport") {
    const { receive } = yield* UdpTransport;
    return yield* Stream.runDrain(receive);
  }
  const registry = yield* MemoryRegistry.make;
  const key = { mode: 0, secret: createSecretKey(Buffer.from(secret, "hex")) };
  return yield* Effect.provide(
    Daemon.run({ onExit: "keep" }),
    Layer.mergeAll(
      S3Registry.layerMemory(registry, address),
      Layer.succeed(
        FeatureSource,
        FeatureSource.of({
          snapshots: Stream.concat(Stream.succeed(Feature.empty), Stream.never),
          ahead: () => Effect.void,
        }),
      ),
      Layer.succeed(
        StateTree,
        StateTree.of({
          update: () => {},
          settle: () => {},
          onFailing: () => {},
          run: Effect.never,
          sizes: () => ({ hosts: 0, directories: 0, unwritten: 0, failing: 0 }),
          flush: Effect.void,
          withdraw: Effect.void,
        }),
      ),
      Secrets.layerMemory({ sign: key, accept: [key] }),
    ),
  );
});

if (how === "bare") {
  let received = 0;
  const socket = createSocket("udp4");
  socket.on("message", () => received++);
  socket.bind({ address, port: Number(port) }, () => {
    socket.setRecvBufferSize(4 * 1024 * 1024);
    answer(
      () => received,
      () => received,
    );
  });
} else {
  Effect.runFork(
    program.pipe(
      Effect.provide(Layer.provideMerge(transport, Metrics.layer)),
      Logger.withMinimumLogLevel(LogLevel.Error),
    ),
  );
}
