import { assert, describe, it } from "@effect/vitest";
import * as Chunk from "effect/Chunk";
import * as Clock from "effect/Clock";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as fc from "effect/FastCheck";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as TestClock from "effect/TestClock";
import type { Address } from "../src/Address.js";
import { Metrics } from "../src/Metrics.js";
import { Prng } from "../src/Prng.js";
import * as SimulatedNetwork from "../src/SimulatedNetwork.js";
import { type Datagram, type PendingLimits, UdpTransport } from "../src/UdpTransport.js";

const a = "10.0.0.1" as Address;
const b = "10.0.0.2" as Address;
const c = "10.0.0.3" as Address;
const d = "10.0.0.4" as Address;
const all = [a, b, c, d];

describe("Prng", () => {
  const numbers = (prng: Prng): ReadonlyArray<number> => Array.from({ length: 20 }, () => prng.float());

  it("gives the same numbers for the same seed, and others for another", () => {
    assert.deepStrictEqual(numbers(Prng.seeded(7)), numbers(Prng.seeded(7)));
    assert.notDeepEqual(numbers(Prng.seeded(7)), numbers(Prng.seeded(8)));
  });

  it("goes on from its state", () => {
    const prng = Prng.seeded(7);
    numbers(prng);
    const state = prng.state();
    assert.deepStrictEqual(numbers(Prng.from(state)), numbers(prng));
  });

  it("fills 0 to 1 evenly from the first number on", () => {
    const tenths = Array.from({ length: 10 }, () => 0);
    for (let seed = 0; seed < 10_000; seed++) tenths[Math.floor(Prng.seeded(seed).float() * 10)]!++;
    const prng = Prng.seeded(1);
    for (let i = 0; i < 90_000; i++) tenths[Math.floor(prng.float() * 10)]!++;
    for (const count of tenths) assert.closeTo(count, 10_000, 400);
  });
});

describe("FaultModel", () => {
  const model = (link: Partial<SimulatedNetwork.Link> = {}, seed = 1) =>
    new SimulatedNetwork.FaultModel(Prng.seeded(seed), { ...SimulatedNetwork.perfect, ...link });

  const decide = (faults: SimulatedNetwork.FaultModel, count: number) =>
    Array.from({ length: count }, () => faults.decide(a, b));

  /** Which ordered pairs of a, b, c and d are open, as text: "ab ba …". */
  const open = (faults: SimulatedNetwork.FaultModel): string =>
    all
      .flatMap((from) => all.filter((to) => to !== from).map((to) => [from, to] as const))
      .filter(([from, to]) => typeof faults.decide(from, to) !== "string")
      .map((pair) => pair.map((node) => "abcd"[all.indexOf(node)]).join(""))
      .join(" ");
  const everything = "ab ac ad ba bc bd ca cb cd da db dc";

  it("delivers everything once, intact and at once unless told otherwise", () => {
    for (const decision of decide(model(), 3))
      assert.deepStrictEqual(decision, [{ delayMs: 0, corruptedAt: undefined }]);
  });

  it("loses, duplicates and corrupts as often as it is told", () => {
    const share = (decisions: ReturnType<typeof decide>, test: (decision: (typeof decisions)[number]) => boolean) =>
      decisions.filter(test).length / decisions.length;
    assert.closeTo(
      share(decide(model({ loss: 0.2 }), 20_000), (x) => x === "loss"),
      0.2,
      0.01,
    );
    assert.closeTo(
      share(decide(model({ duplication: 0.3 }), 20_000), (x) => x.length === 2),
      0.3,
      0.01,
    );
    const damaged = decide(model({ corruption: 0.1 }), 20_000).flatMap((x) => (typeof x === "string" ? [] : x));
    const places = damaged.flatMap(({ corruptedAt }) => (corruptedAt === undefined ? [] : [corruptedAt]));
    assert.closeTo(places.length / damaged.length, 0.1, 0.01);
    assert.closeTo(places.filter((at) => at < 0.5).length / places.length, 0.5, 0.05);
    assert.isTrue(places.every((at) => at >= 0 && at < 1));
    assert.isTrue(decide(model({ loss: 1 }), 100).every((x) => x === "loss"));
  });

  it("delays each copy by whole milliseconds of the range, both ends included", () => {
    const copies = decide(model({ delayMs: [3, 6], duplication: 1 }), 1000).flatMap((x) =>
      typeof x === "string" ? [] : [x],
    );
    assert.deepStrictEqual(new Set(copies.flat().map(({ delayMs }) => delayMs)), new Set([3, 4, 5, 6]));
    assert.isTrue(copies.some(([first, second]) => first?.delayMs !== second?.delayMs));
  });

  it("repeats itself for the same seed only", () => {
    const link = { loss: 0.2, duplication: 0.2, corruption: 0.2, delayMs: [0, 50] } as const;
    assert.deepStrictEqual(decide(model(link), 100), decide(model(link), 100));
    assert.notDeepEqual(decide(model(link), 100), decide(model(link, 2), 100));
  });

  it("does not change the fate of other packets when one fault is added", () => {
    const [without, withCut] = [model({ loss: 0.5, delayMs: [0, 50] }), model({ loss: 0.5, delayMs: [0, 50] })];
    withCut.cut(a, c);
    for (let i = 0; i < 200; i++) {
      without.decide(a, c);
      withCut.decide(a, c);
      assert.deepStrictEqual(withCut.decide(a, b), without.decide(a, b));
    }
  });

  it("splits into groups, with those named in none as one more, and heals", () => {
    const faults = model();
    faults.partition([a, b], c);
    assert.strictEqual(open(faults), "ab ba");
    assert.strictEqual(faults.decide(a, c), "partition");
    faults.partition(a);
    assert.strictEqual(open(faults), "bc bd cb cd db dc");
    faults.heal();
    assert.strictEqual(open(faults), everything);
  });

  it("cuts one way and both ways, between nodes and sets, and mends", () => {
    const faults = model();
    faults.cutOneWay(a, [b, c]);
    assert.strictEqual(faults.decide(a, b), "cut");
    assert.strictEqual(open(faults), "ad ba bc bd ca cb cd da db dc");
    faults.cut(d, [b, c]);
    assert.strictEqual(open(faults), "ad ba bc ca cb da");
    faults.mendOneWay(a, b);
    faults.mend([b, c], d);
    assert.strictEqual(open(faults), "ab ad ba bc bd ca cb cd da db dc");
    faults.heal();
    assert.strictEqual(open(faults), everything);
  });

  it("gives single links settings of their own, and keeps them when healed", () => {
    const faults = model({ delayMs: [5, 5] });
    faults.setLink(a, [b, c], { loss: 1 });
    faults.setDefault({ duplication: 1 });
    faults.heal();
    assert.strictEqual(faults.decide(a, b), "loss");
    const copy = { delayMs: 5, corruptedAt: undefined };
    assert.deepStrictEqual(faults.decide(b, a), [copy, copy]);
    faults.resetLinks();
    assert.strictEqual(faults.decide(a, b).length, 2);
  });

  it("flips exactly one bit, and not in the original", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (array, at) => {
          const bytes = Buffer.from(array);
          const damaged = SimulatedNetwork.corrupt(bytes, at);
          assert.deepStrictEqual(bytes, Buffer.from(array));
          const flipped = damaged.map((byte, i) => byte ^ array[i]!).filter((x) => x !== 0);
          assert.strictEqual(flipped.length, 1);
          assert.strictEqual(Math.log2(flipped[0]!) % 1, 0);
        },
      ),
    );
    assert.strictEqual(SimulatedNetwork.corrupt(Buffer.alloc(0), 0.5).length, 0);
  });
});

interface Arrival {
  readonly at: number;
  readonly to: Address;
  readonly source: string;
  readonly text: string;
}

interface Bench {
  readonly network: SimulatedNetwork.SimulatedNetwork;
  /** Everything that any node consumed, in order. */
  readonly arrivals: Array<Arrival>;
  /** Opens a node that consumes all it receives, until its scope closes. */
  readonly node: (address: Address, limits?: PendingLimits) => Effect.Effect<UdpTransport.Service, never, Scope.Scope>;
}

const open = (network: SimulatedNetwork.SimulatedNetwork, address: Address, limits?: PendingLimits) =>
  UdpTransport.layerMemory(network, address, limits).pipe(
    Layer.provide(Metrics.layer),
    Layer.build,
    Effect.map(Context.get(UdpTransport)),
    Effect.orDie,
  );

const bench = (link: Partial<SimulatedNetwork.Link> = {}, seed = 1): Effect.Effect<Bench, never, Scope.Scope> =>
  Effect.map(SimulatedNetwork.make({ seed, link }), (network) => {
    const arrivals: Array<Arrival> = [];
    const note = (to: Address) => (datagrams: Chunk.Chunk<Datagram>) =>
      Effect.map(Clock.currentTimeMillis, (at) => {
        for (const { bytes, source } of datagrams) arrivals.push({ at, to, source, text: bytes.toString() });
      });
    return {
      network,
      arrivals,
      node: (address, limits) =>
        open(network, address, limits).pipe(
          Effect.tap((udp) => Effect.forkScoped(Effect.orDie(Stream.runForEachChunk(udp.receive, note(address))))),
        ),
    };
  });

const adds = ({ delivered, dropped, duplicated, inFlight, sent }: SimulatedNetwork.NetworkStatistics): void =>
  assert.strictEqual(sent + duplicated, delivered + inFlight + Object.values(dropped).reduce((x, y) => x + y, 0));

const say = (text: string): Buffer => Buffer.from(text);

describe("SimulatedNetwork", () => {
  it.scoped("delivers after the link's delay, not before", () =>
    Effect.gen(function* () {
      const { arrivals, network, node } = yield* bench({ delayMs: [20, 20] });
      const one = yield* node(a);
      yield* node(b);
      yield* one.send([b], say("x"));
      yield* TestClock.adjust("19 millis");
      assert.deepStrictEqual(arrivals, []);
      assert.strictEqual(network.statistics().inFlight, 1);
      yield* TestClock.adjust("1 millis");
      assert.deepStrictEqual(arrivals, [{ at: 20, to: b, source: a, text: "x" }]);
      assert.strictEqual(network.statistics().inFlight, 0);
    }),
  );

  it.scoped("delivers without delay when time stands still", () =>
    Effect.gen(function* () {
      const { network, node } = yield* bench();
      const one = yield* node(a);
      const two = yield* open(network, b);
      const waiting = yield* Effect.fork(Stream.runCollect(Stream.take(two.receive, 2)));
      yield* one.send([b], say("1"));
      yield* one.send([b], say("2"));
      assert.strictEqual(Chunk.size(yield* Fiber.join(waiting)), 2);
    }),
  );

  it.scoped("brings all that is due at one time to a waiting consumer as one chunk", () =>
    Effect.gen(function* () {
      const network = yield* SimulatedNetwork.make({ seed: 1, link: { delayMs: [5, 5] } });
      const one = yield* open(network, a);
      const two = yield* open(network, b);
      const chunk = yield* Effect.fork(Stream.runHead(Stream.chunks(two.receive)));
      for (const text of ["1", "2", "3"]) yield* one.send([b], say(text));
      yield* TestClock.adjust("5 millis");
      const datagrams = yield* Effect.flatten(Fiber.join(chunk));
      assert.deepStrictEqual(
        [...datagrams].map(({ bytes }) => bytes.toString()),
        ["1", "2", "3"],
      );
    }),
  );

  it.scoped("lets packets overtake each other, and duplicates them", () =>
    Effect.gen(function* () {
      const { arrivals, network, node } = yield* bench({ delayMs: [0, 100], duplication: 1 });
      const one = yield* node(a);
      yield* node(b);
      for (let i = 0; i < 20; i++) yield* one.send([b], say(String(i)));
      yield* TestClock.adjust("100 millis");
      const texts = arrivals.map(({ text }) => Number(text));
      assert.strictEqual(texts.length, 40);
      assert.notDeepEqual(
        texts,
        texts.toSorted((x, y) => x - y),
      );
      assert.deepStrictEqual(
        arrivals.map(({ at }) => at),
        arrivals.map(({ at }) => at).toSorted((x, y) => x - y),
      );
      assert.strictEqual(network.statistics().duplicated, 20);
    }),
  );

  it.scoped("damages the receiver's copy only", () =>
    Effect.gen(function* () {
      const { arrivals, network, node } = yield* bench({ corruption: 1 });
      const one = yield* node(a);
      yield* node(b);
      const bytes = Buffer.alloc(100, "x");
      yield* one.send([b], bytes);
      yield* TestClock.adjust(1);
      assert.strictEqual(arrivals.length, 1);
      assert.notStrictEqual(arrivals[0]?.text, bytes.toString());
      assert.deepStrictEqual(bytes, Buffer.alloc(100, "x"));
      assert.strictEqual(network.statistics().corrupted, 1);
    }),
  );

  it.scoped("gives each receiver bytes of its own, as they were when they were sent", () =>
    Effect.gen(function* () {
      const network = yield* SimulatedNetwork.make({ seed: 1, link: { delayMs: [5, 5] } });
      const one = yield* open(network, a);
      const [two, three] = [yield* open(network, b), yield* open(network, c)];
      const bytes = say("before");
      yield* one.send([b, c], bytes);
      bytes.fill(0);
      yield* TestClock.adjust(5);
      const first = yield* Effect.flatten(Stream.runHead(two.receive));
      first.bytes.fill(0);
      const second = yield* Effect.flatten(Stream.runHead(three.receive));
      assert.strictEqual(second.bytes.toString(), "before");
    }),
  );

  it.scoped("lets through what is inside a group, and all again when healed", () =>
    Effect.gen(function* () {
      const { arrivals, network, node } = yield* bench();
      const nodes = yield* Effect.forEach(all, (address) => node(address));
      const everyoneSpeaks = Effect.gen(function* () {
        arrivals.length = 0;
        for (const udp of nodes)
          yield* udp.send(
            all.filter((to) => to !== udp.address),
            say("x"),
          );
        yield* TestClock.adjust(1);
        return arrivals.map(({ source, to }) => `${source}>${to}`).toSorted();
      });
      network.faults.partition([a, b], [c, d]);
      assert.deepStrictEqual(yield* everyoneSpeaks, [`${a}>${b}`, `${b}>${a}`, `${c}>${d}`, `${d}>${c}`]);
      assert.strictEqual(network.statistics().dropped.partition, 8);
      network.faults.heal();
      assert.strictEqual((yield* everyoneSpeaks).length, 12);
      network.faults.cutOneWay(a, all);
      assert.isFalse((yield* everyoneSpeaks).some((pair) => pair.startsWith(a)));
      assert.strictEqual(network.statistics().dropped.cut, 3);
      adds(network.statistics());
    }),
  );

  it.scoped(
    "loses with a crash what was not read and what arrives meanwhile, and serves a new node at the address",
    () =>
      Effect.gen(function* () {
        const { arrivals, network, node } = yield* bench({ delayMs: [10, 10] });
        const one = yield* node(a);
        const old = yield* open(network, b);
        yield* one.send([b], say("in the inbox"));
        yield* TestClock.adjust(10);
        yield* one.send([b], say("on its way"));
        network.crash(b);
        assert.strictEqual(Chunk.size(yield* Stream.runCollect(old.receive)), 0);
        yield* TestClock.adjust(10);
        assert.strictEqual(network.statistics().dropped["no-node"], 1);
        yield* node(b);
        yield* one.send([b], say("for the new one"));
        const report = yield* old.send([a], say("from the dead"));
        assert.strictEqual(report.failed, 1);
        assert.propertyVal(report.firstFailure?.cause, "code", "ENETDOWN");
        yield* TestClock.adjust(10);
        assert.deepStrictEqual(
          arrivals.map(({ text }) => text),
          ["for the new one"],
        );
        adds(network.statistics());
      }),
  );

  it.scoped("keeps a new node at an address when the crashed one's scope closes late", () =>
    Effect.gen(function* () {
      const { arrivals, network, node } = yield* bench();
      const scope = yield* Scope.make();
      yield* Scope.extend(open(network, b), scope);
      network.crash(b);
      yield* node(b);
      yield* Scope.close(scope, Exit.void);
      yield* (yield* node(a)).send([b], say("x"));
      yield* TestClock.adjust(1);
      assert.strictEqual(arrivals.length, 1);
    }),
  );

  it.scoped("counts what a full inbox refuses", () =>
    Effect.gen(function* () {
      const network = yield* SimulatedNetwork.make({ seed: 1 });
      const one = yield* open(network, a);
      const two = yield* open(network, b, { maxPending: 3 });
      for (let i = 0; i < 5; i++) yield* one.send([b], say("x"));
      yield* TestClock.adjust(1);
      assert.strictEqual(two.dropped(), 2);
      assert.strictEqual(network.statistics().dropped["inbox-full"], 2);
      assert.strictEqual(network.statistics().delivered, 3);
      adds(network.statistics());
    }),
  );

  /** A run of mixed faults among four nodes; also checks the sums at each step. */
  const run = (seed: number) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { arrivals, network, node } = yield* bench(
          { loss: 0.2, delayMs: [0, 6], duplication: 0.2, corruption: 0.1 },
          seed,
        );
        const nodes = yield* Effect.forEach(all, (address) => node(address, { maxPending: 2 }));
        for (let step = 0; step < 30; step++) {
          if (step === 10) network.faults.partition([a], [b, c]);
          if (step === 15) network.faults.cut(b, c);
          if (step === 20) network.faults.heal();
          if (step === 25) network.crash(d);
          for (const udp of nodes) yield* udp.send(all, say(`${udp.address} ${step}`));
          yield* TestClock.adjust("3 millis");
          adds(network.statistics());
        }
        yield* TestClock.adjust("6 millis");
        const statistics = network.statistics();
        adds(statistics);
        assert.strictEqual(statistics.inFlight, 0);
        return { arrivals: arrivals.map(({ at, ...rest }) => ({ ...rest, at: at - arrivals[0]!.at })), statistics };
      }),
    );

  it.effect("runs the same way from the same seed, and another way from another", () =>
    Effect.gen(function* () {
      const first = yield* run(42);
      assert.deepStrictEqual(yield* run(42), first);
      assert.notDeepEqual((yield* run(43)).arrivals, first.arrivals);
      for (const [reason, count] of Object.entries(first.statistics.dropped)) {
        if (reason !== "inbox-full") assert.isAbove(count, 0, reason);
      }
    }),
  );
});
