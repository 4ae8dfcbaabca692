import { assert, describe, it } from "@effect/vitest";
import * as Address from "../src/Address.js";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Stream from "effect/Stream";
import { NameqClient } from "../src/NameqClient.js";
import { Cluster } from "../src/Cluster.js";
import * as Packet from "../src/Packet.js";
import { createSecretKey } from "node:crypto";

/** Runs a scenario on a fleet, which is closed after it. */
const fleet = (options: Parameters<typeof Cluster.make>[0], scenario: (cluster: Cluster) => void) => () => {
  const cluster = Cluster.make(options);
  try {
    scenario(cluster);
  } finally {
    cluster.close();
  }
};

const agreed = (cluster: Cluster): void => assert.deepStrictEqual(cluster.differences, []);

describe("a fleet", () => {
  it(
    "shows every node what every node offers, its own under 127.0.0.1",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.node(0).set("db", { port: 5432 });
      cluster.node(1).write("big", "12345678901234567890");
      cluster.advance("1 second");
      assert.deepStrictEqual(cluster.trees, {
        "10.0.0.1": { db: { "127.0.0.1": '{"port":5432}' }, big: { "10.0.0.2": "12345678901234567890" } },
        "10.0.0.2": { db: { "10.0.0.1": '{"port":5432}' }, big: { "127.0.0.1": "12345678901234567890" } },
        "10.0.0.3": { db: { "10.0.0.1": '{"port":5432}' }, big: { "10.0.0.2": "12345678901234567890" } },
      });
    }),
  );

  it(
    "tells a change, a removal and a return within the network's delay",
    fleet({ nodes: 4 }, (cluster) => {
      cluster.advance("1 minute");
      for (const step of [
        () => cluster.node(0).set("x", 1),
        () => cluster.node(0).set("x", 2),
        () => cluster.node(0).remove("x"),
        () => cluster.node(0).set("x", 3),
      ]) {
        step();
        cluster.advance("20 millis");
        agreed(cluster);
      }
    }),
  );

  it(
    "works over IPv6 alone",
    fleet({ nodes: ["fd77::1", "fd77::2"] }, (cluster) => {
      cluster.node(0).set("x", 1);
      cluster.advance("15 seconds");
      assert.deepStrictEqual(cluster.trees["fd77::2"], { x: { "fd77::1": "1" } });
    }),
  );

  it(
    "heals after a split, within a heartbeat when the registry is out of reach too",
    fleet({ nodes: 5, seed: 3 }, (cluster) => {
      cluster.advance("1 minute");
      for (const node of cluster.nodes) cluster.registry.link(node.address).failure = "Unreachable";
      cluster.partition([0, 1], [2, 3, 4]);
      cluster.node(0).set("left", 1);
      cluster.node(4).set("right", 2);
      cluster.advance("5 minutes");
      assert.strictEqual(cluster.node(1).tree["left"]?.["10.0.0.1"], "1");
      assert.isUndefined(cluster.node(2).tree["left"]);
      assert.isFalse(cluster.converged);
      cluster.heal();
      cluster.advance("41 seconds");
      agreed(cluster);
    }),
  );

  it(
    "carries news through the registry while the network is split",
    fleet({ nodes: 4 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.partition([0, 1], [2, 3]);
      cluster.advance("1 minute");
      cluster.node(0).set("x", 1);
      cluster.advance("6 minutes");
      agreed(cluster);
      // and nobody is forgotten
      cluster.advance("1 hour");
      agreed(cluster);
    }),
  );

  it(
    "keeps a peer that can be heard in one direction only",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.cutOneWay(0, [1, 2]);
      cluster.node(0).set("x", 1);
      cluster.advance("40 minutes");
      agreed(cluster);
    }),
  );

  it(
    "forgets a crashed node within 20 minutes and not before 14, and deletes its object",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.node(2).set("x", 1);
      cluster.advance("1 minute");
      cluster.crash(2);
      cluster.advance("10 minutes");
      assert.strictEqual(cluster.node(0).tree["x"]?.["10.0.0.3"], "1");
      cluster.advance("10 minutes");
      agreed(cluster);
      cluster.advance("30 minutes");
      assert.isFalse(cluster.registry.contents().has("10.0.0.3"));
    }),
  );

  it(
    "removes a node that leaves at once, everywhere and from its own host",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.node(2).set("x", 1);
      cluster.advance("1 minute");
      cluster.node(2).stop();
      cluster.advance("50 millis");
      agreed(cluster);
      assert.isFalse(cluster.node(2).running);
      assert.deepStrictEqual(cluster.node(2).tree, {});
      assert.notInclude(cluster.registry.contents().get("10.0.0.3")!, "features");
    }),
  );

  it(
    "leaves within five seconds although the registry hangs",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.node(1).set("x", 1);
      cluster.advance("1 minute");
      cluster.registry.link("10.0.0.2").delayMs = Number.POSITIVE_INFINITY;
      cluster.node(1).stop();
      cluster.advance("5 seconds");
      assert.isFalse(cluster.node(1).running);
      agreed(cluster);
    }),
  );

  it(
    "does not say that the registry knows when it could not be told",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.node(1).set("x", 1);
      cluster.advance("1 minute");
      cluster.registry.link("10.0.0.2").failure = "Denied";
      cluster.node(1).stop();
      cluster.advance("5 seconds");
      const said = cluster.node(1).log.join("\n");
      assert.include(said, "our object stays in the registry");
      assert.notInclude(said, "the registry know");
    }),
  );

  it(
    "tells of a lost goodbye through the registry",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.node(2).set("x", 1);
      cluster.advance("1 minute");
      cluster.cut(2, [0, 1]);
      cluster.node(2).stop();
      cluster.advance("6 minutes");
      agreed(cluster);
    }),
  );

  it(
    "restarts with --on-exit keep so that nobody sees it",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.node(0).set("x", 1);
      cluster.node(1).set("y", 2);
      cluster.advance("1 minute");
      const before = JSON.stringify(cluster.trees);
      cluster.crash(0);
      cluster.node(0).start({ onExit: "keep" });
      cluster.advance("1 minute");
      cluster.node(0).stop();
      cluster.advance("1 second");
      assert.isFalse(cluster.node(0).running);
      cluster.node(0).start();
      for (let i = 0; i < 400; i++) {
        cluster.advance("10 millis");
        assert.strictEqual(JSON.stringify(cluster.trees), before, `after ${i * 10} ms`);
      }
      // what went meanwhile goes when membership is known
      cluster.crash(0);
      cluster.node(1).remove("y");
      cluster.advance("1 second");
      cluster.node(0).start();
      cluster.advance("5 seconds");
      agreed(cluster);
    }),
  );

  it(
    "starts and goes on by UDP without a registry, and finds it when it is there",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.crash(0);
      for (const node of cluster.nodes) cluster.registry.link(node.address).failure = "Unreachable";
      cluster.node(0).set("x", 1);
      cluster.node(0).start();
      cluster.advance("41 seconds");
      agreed(cluster);
      const late = cluster.join("10.0.0.9");
      cluster.registry.link(late.address).failure = "Unreachable";
      cluster.advance("5 minutes");
      assert.lengthOf(
        late.log.filter((line) => line.includes("ERROR")),
        2,
        late.log.join("\n"),
      );
      for (const node of cluster.nodes) cluster.registry.link(node.address).failure = undefined;
      cluster.advance("2 minutes");
      agreed(cluster);
      assert.isTrue(late.log.some((line) => line.includes("again")));
    }),
  );

  it(
    "takes over an address that another node had",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.node(1).set("x", 1);
      cluster.advance("1 minute");
      cluster.crash(1);
      cluster.node(1).remove("x");
      cluster.node(1).set("y", 2);
      cluster.node(1).start();
      cluster.advance("1 second");
      agreed(cluster);
    }),
  );

  it(
    "carries a node by its object alone when its features are too large for a datagram, and says so",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.advance("1 minute");
      const random = Array.from({ length: 20_000 }, (_, i) => (i * 2_654_435_761) % 4_294_967_296);
      cluster.node(0).set("big", random);
      cluster.node(0).set("small", 1);
      cluster.advance("10 minutes");
      agreed(cluster);
      assert.isTrue(cluster.node(0).log.some((line) => line.includes("a datagram of")));
      cluster.node(0).remove("big");
      cluster.advance("1 second");
      agreed(cluster);
    }),
  );

  it(
    "is not silent when its features are small in a datagram but more than peers inflate",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.node(0).set("a", "x".repeat(700_000));
      cluster.node(0).set("b", "x".repeat(700_000));
      cluster.advance("10 minutes");
      agreed(cluster);
      assert.isTrue(cluster.node(0).log.some((line) => line.includes("inflated")));
      assert.strictEqual(cluster.node(1).metrics!.value("datagrams_dropped", "too-large"), 0);
    }),
  );

  it(
    "does not let a node with a wrong clock in by UDP, says so, and carries it through the registry",
    fleet({ nodes: 3 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.node(2).skewMs = 60_000;
      cluster.node(2).set("x", 1);
      cluster.advance("10 minutes");
      assert.strictEqual(cluster.node(0).tree["x"]?.["10.0.0.3"], "1");
      assert.isTrue(cluster.node(0).log.some((line) => line.includes("10.0.0.3 sends announcements 60.0 s ahead")));
      assert.isTrue(cluster.node(2).log.some((line) => line.includes("ahead of the registry")));
      cluster.node(2).skewMs = 0;
      cluster.node(2).set("x", 2);
      cluster.advance("1 minute");
      agreed(cluster);
    }),
  );

  it(
    "counts hostile datagrams by reason and logs one line a minute for each",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.node(0).set("x", 1);
      cluster.advance("1 minute");
      const wrong = { mode: 0, secret: createSecretKey(Buffer.from("another secret")) };
      const attacker = cluster.network.attach(Address.parse("10.0.0.66")!, { offer: () => true, end: () => {} })!;
      const bytes = Packet.encode(wrong, {
        address: Address.parse("10.0.0.66")!,
        timeNs: BigInt(cluster.time.unixMs) * 1_000_000n,
        features: { text: "{}", entries: new Map() },
      });
      for (let i = 0; i < 3_000; i++) {
        attacker.send([cluster.node(0).address], i % 2 === 0 ? bytes : Buffer.from("nonsense"));
        cluster.advance("100 millis");
      }
      agreed(cluster);
      assert.strictEqual(cluster.node(0).metrics!.value("datagrams_dropped", "bad-hmac"), 1_500);
      assert.strictEqual(cluster.node(0).metrics!.value("datagrams_dropped", "too-short"), 1_500);
      const lines = cluster.node(0).log.filter((line) => line.includes("10.0.0.66"));
      assert.lengthOf(lines, 10);
      assert.include(lines[0]!, "--secret-file");
    }),
  );

  it(
    "goes on while its disk is full, and writes what it missed",
    fleet({ nodes: 2 }, (cluster) => {
      cluster.advance("1 minute");
      cluster.node(1).files.fault = (operation) => (operation === "write" ? "ENOSPC" : undefined);
      cluster.node(0).set("x", 1);
      cluster.advance("1 minute");
      assert.isFalse(cluster.converged);
      cluster.node(1).files.fault = undefined;
      cluster.advance("40 seconds");
      agreed(cluster);
    }),
  );

  it.live("lets a program's NameqClient live through a split", () =>
    Effect.gen(function* () {
      const cluster = Cluster.make({ nodes: 4 });
      cluster.node(3).set("db", { port: 1 });
      cluster.advance("1 minute");
      yield* Effect.gen(function* () {
        const nameq = yield* NameqClient;
        const told: Array<string> = [];
        const follower = yield* nameq.changes.pipe(
          Stream.runForEach((change) =>
            Effect.sync(() => {
              told.push(
                change._tag === "Added" || change._tag === "Updated" ? `${change.host} ${change.json}` : change._tag,
              );
            }),
          ),
          Effect.fork,
        );
        const heard = (line: string) =>
          Effect.repeat(Effect.sleep("1 millis"), { until: () => told.includes(line) }).pipe(
            Effect.timeout("5 seconds"),
          );
        yield* heard("Booted");
        assert.deepStrictEqual(told, ['10.0.0.4 {"port":1}', "Booted"]);
        cluster.partition([0, 1], [2, 3]);
        cluster.node(3).set("db", { port: 2 });
        cluster.advance("10 seconds");
        assert.deepStrictEqual((yield* nameq.hosts("db")).length, 1);
        assert.notInclude(told, '10.0.0.4 {"port":2}');
        cluster.heal();
        cluster.advance("1 minute");
        yield* heard('10.0.0.4 {"port":2}');
        yield* nameq.set("web", true);
        cluster.advance("1 second");
        assert.strictEqual(cluster.node(3).tree["web"]?.["10.0.0.1"], "true");
        yield* heard("127.0.0.1 true");
        cluster.node(3).stop();
        cluster.advance("5 seconds");
        yield* heard("Removed");
        yield* Fiber.interrupt(follower);
      }).pipe(Effect.provide(cluster.node(0).client));
      cluster.close();
    }),
  );

  it("is the same run for the same seed, and another for another", () => {
    const run = (seed: number) => {
      const cluster = Cluster.make({ nodes: 4, seed, link: { loss: 0.3, delayMs: [1, 50], duplication: 0.1 } });
      cluster.node(0).set("x", 1);
      cluster.advance("5 minutes");
      const trace = JSON.stringify([
        cluster.network.statistics(),
        cluster.trees,
        cluster.nodes.map((node) => node.log),
      ]);
      cluster.close();
      return trace;
    };
    assert.strictEqual(run(7), run(7));
    assert.notStrictEqual(run(7), run(8));
  });
});
