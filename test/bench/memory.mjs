// What a node keeps of its peers, without its sockets and its process: all that grows with their number.
import { createSecretKey, randomBytes } from "node:crypto";
import { join } from "node:path";

export const title = "heap that a node needs for each remote node of 5 small features";

const names = ["cache", "db", "jobs", "mail", "web"];

export const run = async (bench) => {
  const { Feature, Layer, ManagedRuntime, Membership, Metrics, NodeView, Packet, Settings, StateTree } =
    await bench.use(`
      export * as Layer from "effect/Layer";
      export * as ManagedRuntime from "effect/ManagedRuntime";
      export * as Feature from "./src/Feature.js";
      export { Membership } from "./src/Membership.js";
      export { Metrics } from "./src/Metrics.js";
      export { NodeView } from "./src/NodeView.js";
      export * as Packet from "./src/Packet.js";
      export * as Settings from "./src/Settings.js";
      export { StateTree } from "./src/StateTree.js";
    `);
  const key = { mode: 0, secret: createSecretKey(randomBytes(32)) };
  const keyring = { sign: key, accept: [key] };
  const wallNs = 1_700_000_000_000_000_000n;
  const heapBytes = () => {
    for (let i = 0; i < 4; i++) global.gc();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  for (const count of bench.short ? [1_000] : [10_000]) {
    const layer = StateTree.layer({ directory: join(bench.directory, String(count)) });
    const runtime = ManagedRuntime.make(Layer.provideMerge(layer, Metrics.layer));
    const tree = await runtime.runPromise(StateTree);
    runtime.runFork(tree.run);
    const membership = new Membership("127.42.0.1", Settings.defaults, Math.random);
    const view = new NodeView();
    let monoMs = 1_000.5;
    const instant = () => ({ wallNs, monoMs });
    view.attach({ membership, instant, ask: () => {}, sizes: () => ({}) });
    const step = (event) => {
      for (const action of membership.step(event, instant())) {
        if (action._tag !== "Show") continue;
        tree.update(action.host, action.features, { provisional: action.provisional });
        view.show(action);
      }
    };
    const hear = (i) => {
      const address = `127.${42 + (i >> 15)}.${1 + ((i >> 8) & 127)}.${i & 255}`;
      const features = Feature.fromEntries(names.map((name, n) => [name, `{"port":${10_000 + i + n}}`]));
      const timeNs = wallNs + BigInt(Math.round(monoMs * 1e3));
      const remarks = { version: "0.1.0", ask: false, leaving: false };
      const bytes = Packet.encode(key, { address, timeNs, features, remarks });
      monoMs += 0.37;
      step({
        _tag: "Received",
        source: address,
        announcement: Packet.decode(keyring, bytes, membership.knownFeatures),
      });
    };
    step({ _tag: "Started", features: Feature.empty });
    tree.settle();
    // so that what is kept once for all is not counted
    for (let i = 0; i < 300; i++) hear(i);
    await runtime.runPromise(tree.flush);
    const before = heapBytes();
    for (let i = 300; i < 300 + count; i++) hear(i);
    // each is heard again, as all are after half a minute
    for (let i = 300; i < 300 + count; i++) hear(i);
    await runtime.runPromise(tree.flush);
    bench.row(`${count.toLocaleString("en")} peers: a peer`, (heapBytes() - before) / count, {
      unit: "B",
      // of few peers it is the rest of the program that counts
      target: bench.short ? undefined : { median: 1_024 },
    });
    if (membership.peers.size !== count + 300) throw new Error("not all peers are known");
    await runtime.dispose();
  }
};
