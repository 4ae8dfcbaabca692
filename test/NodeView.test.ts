import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { createSecretKey } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Address } from "../src/Address.js";
import { Cluster } from "../src/Cluster.js";
import * as Feature from "../src/Feature.js";
import type { Answer, Change, NodeView } from "../src/NodeView.js";
import * as Packet from "../src/Packet.js";
import { version } from "../src/Version.js";

/** Runs a scenario on a fleet, which is closed after it. */
const fleet = (options: Parameters<typeof Cluster.make>[0], scenario: (cluster: Cluster) => void) => () => {
  const cluster = Cluster.make(options);
  try {
    scenario(cluster);
  } finally {
    cluster.close();
  }
};

const node = (view: NodeView, address: string) => view.nodes().find((each) => each.address === address);

const told = (changes: ReadonlyArray<Change> | undefined) =>
  changes?.map(({ feature, host, value }) => `${feature} ${host} ${value}`);

/** Asks in simulated time. */
const ask = (cluster: Cluster, view: NodeView, waitMs: number): ReadonlyArray<Answer> => {
  let answers: ReadonlyArray<Answer> | undefined;
  Effect.runFork(
    Effect.withClock(
      Effect.map(view.ask(waitMs), (all) => {
        answers = all;
      }),
      cluster.time.clock(),
    ),
    { scheduler: cluster.time.scheduler },
  );
  cluster.advance(waitMs + 100);
  assert.isDefined(answers);
  return answers!;
};

describe("NodeView", () => {
  it(
    "is ready when membership is known and stands in the tree, not before",
    fleet({ nodes: 2 }, (cluster) => {
      const { view, files } = cluster.node(0);
      cluster.node(1).set("x", 1);
      cluster.advance("1 second");
      assert.isFalse(view.ready);
      files.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
      cluster.node(0).set("y", 1);
      cluster.advance("10 seconds");
      assert.isFalse(view.ready);
      const [condition] = view.conditions();
      assert.deepInclude(condition, { name: "tree/ENOSPC", severity: "error" });
      assert.match(condition!.message, /^files in memory cannot be written \(ENOSPC\): free space/);
      assert.isAtLeast(condition!.sinceMs, cluster.time.unixMs - 10_000);
      files.fault = () => undefined;
      cluster.advance("1 minute");
      assert.isTrue(view.ready);
      assert.deepStrictEqual(view.conditions(), []);
    }),
  );

  it(
    "shows what every host offers, its own under its address, and numbers the changes",
    fleet({ nodes: 2 }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.advance("5 seconds");
      assert.deepStrictEqual([...view.features.keys()], []);
      const from = view.sequence;
      cluster.node(0).write("big", "12345678901234567890");
      cluster.node(1).set("db", { port: 1 });
      cluster.advance("1 second");
      cluster.node(1).set("db", { port: 2 });
      cluster.advance("1 second");
      cluster.node(1).remove("db");
      cluster.advance("1 second");
      assert.deepStrictEqual(told(view.changesSince(from))?.toSorted(), [
        "big 10.0.0.1 12345678901234567890",
        "db 10.0.0.2 undefined",
        'db 10.0.0.2 {"port":1}',
        'db 10.0.0.2 {"port":2}',
      ]);
      assert.deepStrictEqual(told(view.changesSince(view.sequence - 1)), ["db 10.0.0.2 undefined"]);
      assert.deepStrictEqual(view.changesSince(view.sequence), []);
      assert.isUndefined(view.changesSince(view.sequence + 1));
      assert.deepStrictEqual([...view.features.keys()], ["10.0.0.1" as Address]);
      assert.strictEqual(view.own.text, '{"big":12345678901234567890}');
    }),
  );

  it(
    "keeps the last 1,024 changes, and says when more were missed",
    fleet({ nodes: 1 }, (cluster) => {
      const { view } = cluster.node(0);
      for (let i = 0; i < 1_100; i++) cluster.node(0).set("n", i);
      const { sequence } = view;
      assert.isAtLeast(sequence, 1_100);
      assert.isUndefined(view.changesSince(sequence - 1_025));
      assert.lengthOf(view.changesSince(sequence - 1_024)!, 1_024);
    }),
  );

  it(
    "keeps fewer changes where they are large",
    fleet({ nodes: 1 }, (cluster) => {
      const { view } = cluster.node(0);
      for (let i = 0; i < 20; i++) cluster.node(0).set("n", String(i).padEnd(900_000));
      const { sequence } = view;
      assert.lengthOf(view.changesSince(sequence - 4)!, 4);
      assert.isUndefined(view.changesSince(sequence - 5));
      for (let i = 0; i < 1_024; i++) cluster.node(0).set("n", i);
      assert.lengthOf(view.changesSince(view.sequence - 1_024)!, 1_024);
    }),
  );

  it(
    "tells of each node its state, version and clock, from alive to forgotten",
    fleet({ nodes: 3 }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.node(1).skewMs = 4_000;
      cluster.node(1).set("x", 1);
      cluster.advance("1 minute");
      const alive = node(view, "10.0.0.2")!;
      assert.deepInclude(alive, { state: "alive", source: "udp", features: 1, version, legacy: false });
      assert.approximately(alive.clockOffsetMs!, -4_000, 20);
      assert.isAtLeast(alive.heardAtMs, cluster.time.unixMs - 41_000);
      assert.strictEqual(alive.datagramAtMs, alive.heardAtMs);
      cluster.crash(1);
      cluster.advance("2 minutes");
      assert.strictEqual(node(view, "10.0.0.2")?.state, "silent");
      cluster.advance("20 minutes");
      assert.deepInclude(node(view, "10.0.0.2"), { state: "forgotten", features: 1, version });
      cluster.node(2).stop();
      cluster.advance("1 second");
      assert.strictEqual(node(view, "10.0.0.3")?.state, "left");
      cluster.node(1).start();
      cluster.node(2).start();
      cluster.advance("10 seconds");
      assert.deepStrictEqual(
        view.nodes().map(({ state }) => state),
        ["alive", "alive"],
      );
    }),
  );

  it(
    "shows what is wrong while it is, with what to do",
    fleet({ nodes: 2 }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.advance("1 minute");
      assert.deepStrictEqual(view.conditions(), []);
      cluster.registry.link(cluster.node(0).address).failure = "Unreachable";
      cluster.node(0).set("x", 1);
      cluster.advance("1 minute");
      const [condition] = view.conditions();
      assert.deepInclude(condition, { name: "registry-put", severity: "error" });
      assert.isBelow(condition!.sinceMs, cluster.time.unixMs - 50_000);
      cluster.registry.link(cluster.node(0).address).failure = undefined;
      cluster.advance("2 minutes");
      assert.deepStrictEqual(view.conditions(), []);
    }),
  );

  it(
    "shows packets of a wrong key from the first one on, until two minutes after the last",
    fleet({ nodes: 1 }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.advance("1 minute");
      const plug = cluster.network.attach("10.9.9.9" as Address, { offer: () => true, end: () => {} })!;
      const key = { mode: 0, secret: createSecretKey(Buffer.from("another")) };
      const send = () =>
        plug.send(
          [cluster.node(0).address],
          Packet.encode(key, { address: "10.9.9.9" as Address, timeNs: 1n, features: Feature.empty }),
        );
      for (let i = 0; i < 3; i++) {
        send();
        cluster.advance("50 seconds");
      }
      const [condition] = view.conditions();
      assert.strictEqual(condition?.name, "dropped/bad-hmac");
      assert.match(condition!.message, /^dropped 3 datagrams \(bad-hmac\) from 10\.9\.9\.9: .*--secret-file/);
      cluster.advance("2 minutes");
      assert.deepStrictEqual(view.conditions(), []);
    }),
  );

  it(
    "asks all nodes to answer at once, and tells who did and how fast",
    fleet({ nodes: 3, link: { delayMs: [50, 50] } }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.advance("1 minute");
      cluster.cut(0, 2);
      const answers = ask(cluster, view, 2_000);
      const [answered, silent] = ["10.0.0.2", "10.0.0.3"].map((at) => answers.find(({ address }) => address === at)!);
      assert.strictEqual(answered?.afterMs, 100);
      assert.isUndefined(silent?.afterMs);
      assert.isTrue(silent?.canAnswer);
      assert.isAtLeast(silent!.heardMs!, 2_000);
    }),
  );

  it(
    "does not wait for nodes of the existing program, which only heartbeat",
    fleet({ nodes: 1 }, (cluster) => {
      const { view } = cluster.node(0);
      cluster.advance("1 minute");
      const timeNs = BigInt(cluster.time.unixMs) * 1_000_000n;
      cluster.forge("10.0.0.9", 0, { address: "10.0.0.9" as Address, timeNs, features: Feature.empty });
      cluster.advance("2 seconds");
      const [answer] = ask(cluster, view, 2_000);
      assert.deepInclude(answer, { address: "10.0.0.9" as Address, afterMs: undefined, canAnswer: false });
    }),
  );
});

describe("a node that restarts", () => {
  it(
    "knows the newest of its peers at once, because it asks those that know it",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.crash(0);
      // the registry does not get this one
      cluster.registry.link(cluster.node(1).address).failure = "Unreachable";
      cluster.node(1).set("x", "new");
      cluster.advance("1 second");
      cluster.node(0).start();
      cluster.advance("1 second");
      assert.strictEqual(cluster.node(0).tree["x"]?.["10.0.0.2"], '"new"');
    }),
  );
});

describe("the version", () => {
  it("is the package's", () => {
    const { version: packaged } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
    assert.strictEqual(version, packaged);
  });
});
