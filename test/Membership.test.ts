import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import * as Address from "../src/Address.js";
import * as Feature from "../src/Feature.js";
import { type Action, type Event, type Instant, Membership } from "../src/Membership.js";
import * as Packet from "../src/Packet.js";
import * as RegistryObject from "../src/RegistryObject.js";
import { Prng } from "../src/Prng.js";
import { defaults } from "../src/Settings.js";
import { featureSet } from "./fc.js";

const address = (text: string): Address.Address => Address.parse(text)!;
const own = address("10.0.0.1");
const a = address("10.0.0.2");
const b = address("10.0.0.3");
const minute = 60_000;

const set = (features: Record<string, string>): Feature.FeatureSet =>
  Feature.fromEntries(
    Object.entries(features).map(([name, value]) => [name as Feature.FeatureName, Feature.FeatureValue(value)]),
  );

const startNs = 1_790_000_000_000_000_000n;

/** A node on a clock of its own making. */
class Bench {
  monoMs = 0;
  skewMs = 0;
  readonly membership: Membership;
  readonly all: Array<Action> = [];

  constructor(at = own, seed = 1, settings = defaults) {
    const prng = Prng.seeded(seed);
    this.membership = new Membership(at, settings, () => prng.float());
  }

  get wallNs(): bigint {
    return startNs + BigInt(Math.round((this.monoMs + this.skewMs) * 1e6));
  }

  now(): Instant {
    return { wallNs: this.wallNs, monoMs: this.monoMs };
  }

  step(event: Event): ReadonlyArray<Action> {
    const actions = this.membership.step(event, this.now());
    this.all.push(...actions);
    return actions;
  }

  start(features = Feature.empty): ReadonlyArray<Action> {
    return this.step({ _tag: "Started", features });
  }

  /** Answers the registry's questions at once, from `objects`, while time passes. */
  advance(
    ms: number,
    objects: () => ReadonlyArray<readonly [string, string, number]> = () => [],
  ): ReadonlyArray<Action> {
    const from = this.all.length;
    const end = this.monoMs + ms;
    for (;;) {
      while (this.answered < this.all.length) this.answer(this.all[this.answered++]!, objects());
      if (this.membership.deadlineMs > end) break;
      this.monoMs = Math.max(this.monoMs, this.membership.deadlineMs);
      this.step({ _tag: "Woken" });
    }
    this.monoMs = end;
    return this.all.slice(from);
  }

  private answered = 0;
  private answer(action: Action, objects: ReadonlyArray<readonly [string, string, number]>): void {
    if (action._tag === "Put") this.step({ _tag: "PutDone", etag: "own" });
    if (action._tag === "List") {
      this.step({
        _tag: "ListDone",
        registryMs: Number(this.wallNs / 1_000_000n),
        objects: [
          { name: this.membership.address, etag: "own", ageMs: 0 },
          ...objects.map(([name, body, ageMs]) => ({ name, etag: body, ageMs })),
        ],
      });
    }
    if (action._tag === "Get") {
      const object = objects.find(([name]) => name === action.address);
      this.step(
        object === undefined
          ? { _tag: "GetMissing", address: action.address }
          : {
              _tag: "GetDone",
              address: action.address,
              content: RegistryObject.decode(object[1]),
              etag: object[1],
              ageMs: object[2],
            },
      );
    }
  }

  /** A peer's question. */
  question(from: Address.Address): Packet.Announcement {
    return { ...this.say(from, Feature.empty), remarks: { ...Packet.noRemarks, ask: true } };
  }

  say(from: Address.Address, features: Feature.FeatureSet, ageMs = 0): Packet.Announcement {
    return {
      address: from,
      features,
      timeNs: this.wallNs - BigInt(Math.round(ageMs * 1e6)),
      refused: [],
      remarks: Packet.noRemarks,
    };
  }

  hear(announcement: Packet.Announcement, source: string = announcement.address): ReadonlyArray<Action> {
    return this.step({ _tag: "Received", source, announcement });
  }
}

const of = <T extends Action["_tag"]>(
  actions: ReadonlyArray<Action>,
  tag: T,
): ReadonlyArray<Extract<Action, { _tag: T }>> =>
  actions.filter((action): action is Extract<Action, { _tag: T }> => action._tag === tag);

describe("announcements", () => {
  it("answers a node heard for the first time, to it alone, and only once", () => {
    const bench = new Bench();
    bench.start(set({ web: "true" }));
    const first = of(bench.hear(bench.say(a, set({ db: "1" }))), "Announce");
    assert.deepStrictEqual(
      first.map(({ to }) => to),
      [[a]],
    );
    assert.strictEqual(first[0]!.features.text, '{"web":true}');
    bench.monoMs += 1_000;
    assert.deepStrictEqual(bench.hear(bench.say(a, set({ db: "1" }))), []);
  });

  it("shows news, and nothing when nothing changed", () => {
    const bench = new Bench();
    bench.start();
    assert.deepStrictEqual(
      of(bench.hear(bench.say(a, set({ db: "1" }))), "Show").map(({ host, features }) => [host, [...features]]),
      [[a, [["db", "1"]]]] as never,
    );
    bench.monoMs += 1;
    assert.deepStrictEqual(bench.hear(bench.say(a, set({ db: "1" }))), []);
    bench.monoMs += 1;
    assert.strictEqual(of(bench.hear(bench.say(a, set({}))), "Show")[0]!.features.size, 0);
  });

  it("drops what is equal, older, too old, from the future, of another origin, or our own", () => {
    const bench = new Bench();
    bench.start();
    bench.monoMs = minute;
    const news = bench.say(a, set({ x: "1" }));
    bench.hear(news);
    const reasons = (actions: ReadonlyArray<Action>) => of(actions, "Drop").map(({ reason }) => reason);
    assert.deepStrictEqual(reasons(bench.hear(news)), ["stale"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(a, set({ x: "2" }), 1))), ["stale"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(b, set({}), 15_001))), ["old"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(b, set({}), -15_001))), ["future"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(b, set({})), a)), ["origin"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(own, set({})))), ["self"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(address("224.0.0.1"), set({})))), ["address"]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(address("127.0.0.9"), set({})))), ["address"]);
    assert.deepStrictEqual([...bench.membership.peers.keys()], [a]);
    assert.deepStrictEqual(reasons(bench.hear(bench.say(b, set({}), 15_000))), []);
  });

  it("reports a wrong clock once, and once that it is right again", () => {
    const bench = new Bench();
    bench.start();
    const reports = () => of(bench.hear(bench.say(a, set({}), -60_000)), "Report");
    assert.deepStrictEqual(reports(), []);
    bench.monoMs += 9_999;
    assert.deepStrictEqual(reports(), [], "what was held up comes in a burst");
    bench.monoMs += 1;
    const [first] = reports();
    assert.include(first!.message, "10.0.0.2");
    assert.include(first!.message, "60.0 s ahead");
    assert.deepStrictEqual(reports(), []);
    assert.include(of(bench.hear(bench.say(a, set({}))), "Report")[0]!.message, "has its clock right");
  });

  it("goes to every peer at a change at once, else every 20 to 40 s, in an order that changes", () => {
    const bench = new Bench();
    bench.start();
    const peers = Array.from({ length: 20 }, (_, i) => address(`10.0.1.${i + 1}`));
    for (const peer of peers) bench.hear(bench.say(peer, set({})));
    const changed = of(bench.step({ _tag: "FeaturesChanged", features: set({ x: "1" }) }), "Announce");
    assert.deepStrictEqual(
      changed.map(({ to }) => [...to].toSorted()),
      [[...peers].toSorted()],
    );
    const orders = new Set<string>();
    let last = bench.monoMs;
    for (let i = 0; i < 20; i++) {
      for (const peer of peers) bench.hear(bench.say(peer, set({})));
      while (of(bench.step({ _tag: "Woken" }), "Announce").length === 0) bench.monoMs = bench.membership.deadlineMs;
      orders.add(of(bench.all, "Announce").at(-1)!.to.join());
      assert.isAtLeast(bench.monoMs - last, 20_000);
      assert.isAtMost(bench.monoMs - last, 40_000);
      last = bench.monoMs;
      bench.monoMs += 1;
    }
    assert.isAbove(orders.size, 15);
  });

  it("never carries the same time twice, also when the clock is set back", () => {
    const bench = new Bench();
    bench.start();
    bench.hear(bench.say(a, set({})));
    for (const skewMs of [0, 0, -5_000, 3_000]) {
      bench.skewMs = skewMs;
      bench.step({ _tag: "FeaturesChanged", features: set({ x: `${bench.all.length}` }) });
    }
    const times = of(bench.all, "Announce").map(({ timeNs }) => timeNs);
    for (const [i, time] of times.entries()) if (i > 0) assert.isTrue(time > times[i - 1]!);
    // an hour back: no peer believed the time before, and the hour must not be waited for
    bench.skewMs = -60 * minute;
    bench.step({ _tag: "FeaturesChanged", features: set({ y: "1" }) });
    assert.isTrue(of(bench.all, "Announce").at(-1)!.timeNs <= bench.wallNs);
  });

  it("merges to the same state whatever the order, the doubles and the losses before the last", () => {
    const news = fc.array(fc.tuple(fc.constantFrom(a, b), featureSet, fc.integer({ min: 0, max: 14_000 })), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(news, fc.integer(), (all, seed) => {
        const prng = Prng.seeded(seed);
        // one owner never says two things at one time
        const unique = [...new Map(all.map((each) => [`${each[0]}/${each[2]}`, each])).values()];
        const run = (order: typeof unique) => {
          const bench = new Bench();
          bench.start();
          bench.monoMs = minute;
          for (const [from, features, age] of order) bench.hear(bench.say(from, features, age));
          return [...bench.membership.peers.values()]
            .map((peer) => `${peer.address} ${peer.timeNs} ${peer.features.text}`)
            .toSorted();
        };
        const shuffled = [...unique, ...unique]
          .map((each) => [prng.float(), each] as const)
          .toSorted(([x], [y]) => x - y)
          .map(([, each]) => each);
        assert.deepStrictEqual(run(shuffled), run(unique));
        for (const line of run(unique)) {
          const [from, time] = line.split(" ");
          const newest = Math.min(...unique.filter(([each]) => each === from).map(([, , age]) => age));
          assert.strictEqual(BigInt(time!), startNs + BigInt(minute - newest) * 1_000_000n);
        }
      }),
    );
  });

  it("are ordered by the nanosecond, and a peer's time and its clock's offset are exact", () => {
    // more than three times 2^32 ns: their lower halves come in any order, with either sign
    const age = fc.integer({ min: -2_000_000_000, max: 14_000_000_000 });
    fc.assert(
      fc.property(age, fc.oneof(age, fc.constantFrom(0, 1, -1)), (first, second) => {
        const bench = new Bench();
        bench.start();
        const ages = Math.abs(second) < 2 ? [first, first + second] : [first, second];
        const news = ages.map((ageNs) => ({ ...bench.say(a, Feature.empty), timeNs: bench.wallNs - BigInt(ageNs) }));
        const dropped = news.map((each) => of(bench.hear(each), "Drop").map(({ reason }) => reason));
        const isNews = ages[1]! < ages[0]!;
        assert.deepStrictEqual(dropped, [[], isNews ? [] : ["stale"]]);
        const newest = isNews ? 1 : 0;
        const peer = bench.membership.peers.get(a)!;
        assert.strictEqual(peer.timeNs, news[newest]!.timeNs);
        assert.closeTo(peer.offsetMs, ages[newest]! / 1e6, 0.001);
      }),
    );
  });

  it("says nothing of the clock of a peer that was never heard", () => {
    const bench = new Bench();
    bench.start();
    bench.advance(minute, () => [[a, '{"features":{"x":2}}', 0]]);
    assert.isNaN(bench.membership.peers.get(a)!.offsetMs);
  });

  it("remembers at most so many peers", () => {
    const membership = new Membership(own, { ...defaults, maxPeers: 2 }, () => 0.5);
    membership.step({ _tag: "Started", features: Feature.empty }, { wallNs: startNs, monoMs: 0 });
    const outcomes = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map((source) =>
      membership.step(
        {
          _tag: "Received",
          source,
          announcement: {
            address: source,
            timeNs: startNs,
            features: Feature.empty,
            refused: [],
            remarks: Packet.noRemarks,
          },
        },
        { wallNs: startNs, monoMs: 0 },
      ),
    );
    assert.deepStrictEqual(
      of(outcomes.flat(), "Drop").map(({ reason }) => reason),
      ["too-many-peers"],
    );
  });

  it("says once which names of a peer it ignores", () => {
    const bench = new Bench();
    bench.start();
    const odd = { ...bench.say(a, set({ x: "1" })), refused: ["../x", "a b"] };
    assert.deepStrictEqual(
      of(bench.hear(odd), "Report").map(({ message }) => message.includes('"../x", "a b"')),
      [true],
    );
  });
});

describe("expiry", () => {
  it("forgets a peer after 15 minutes of silence, and shows nothing of it any more", () => {
    const bench = new Bench();
    bench.start();
    bench.hear(bench.say(a, set({ x: "1" })));
    bench.hear(bench.say(b, set({ x: "2" })));
    bench.advance(10 * minute);
    bench.hear(bench.say(b, set({ x: "2" })));
    bench.advance(5 * minute - 1);
    assert.deepStrictEqual([...bench.membership.peers.keys()].toSorted(), [a, b]);
    const gone = bench.advance(2);
    assert.deepStrictEqual([...bench.membership.peers.keys()], [b]);
    assert.deepStrictEqual(
      of(gone, "Show").map(({ host, features }) => [host, features.size]),
      [[a, 0]],
    );
    bench.advance(10 * minute);
    assert.strictEqual(bench.membership.peers.size, 0);
  });

  it("does not count the time that this process was stopped as a peer's silence", () => {
    const bench = new Bench();
    bench.start();
    bench.advance(minute);
    bench.hear(bench.say(a, set({ x: "1" })));
    bench.advance(10_000);
    bench.monoMs += 60 * minute;
    const woken = bench.step({ _tag: "Woken" });
    assert.isTrue(bench.membership.peers.has(a));
    assert.lengthOf(of(woken, "Announce"), 1);
    assert.lengthOf(of(woken, "Put"), 1);
    assert.lengthOf(of(woken, "List"), 1);
    bench.advance(16 * minute);
    assert.isFalse(bench.membership.peers.has(a));
  });

  it("wakes to look at a new peer, also when that is before its next heartbeat", () => {
    const bench = new Bench(own, 1, { ...defaults, silentMs: 5_000 });
    bench.start();
    bench.advance(10_500);
    bench.hear(bench.say(a, Feature.empty));
    assert.strictEqual(bench.membership.deadlineMs, 16_000);
  });
});

const body = (features: Feature.FeatureSet, timeNs: bigint): string => RegistryObject.encode(features, timeNs);
const legacyBody = '{\n\t"features": {\n\t\t"old": true\n\t}\n}\n';

describe("registry", () => {
  it("puts first, then lists, then reads what is new, and announces itself to whom it finds", () => {
    const bench = new Bench();
    assert.deepStrictEqual(of(bench.start(), "Put").length, 1);
    assert.lengthOf(of(bench.all, "List"), 0);
    const found = bench.advance(100, () => [[a, body(set({ x: "1" }), startNs - 1n), 1_000]]);
    assert.lengthOf(of(found, "List"), 1);
    assert.deepStrictEqual(
      of(found, "Get").map((get) => get.address),
      [a],
    );
    assert.deepStrictEqual(
      of(found, "Announce").map(({ to }) => to),
      [[a]],
    );
    assert.deepStrictEqual(
      of(found, "Show").map(({ host, provisional }) => [host, provisional]),
      [[a, true]],
    );
  });

  it("settles two seconds after the first scan, or after a minute without one", () => {
    const bench = new Bench();
    bench.start();
    assert.lengthOf(of(bench.advance(1_900), "Settle"), 0);
    assert.lengthOf(of(bench.advance(200), "Settle"), 1);
    assert.lengthOf(of(bench.advance(60 * minute), "Settle"), 0);

    const alone = new Bench();
    alone.start();
    alone.step({ _tag: "PutFailed", problem: "out of reach" });
    alone.step({ _tag: "ListFailed", problem: "out of reach" });
    for (; alone.monoMs < 59_000; alone.monoMs += 500) {
      for (const action of alone.step({ _tag: "Woken" })) {
        if (action._tag === "Put") alone.step({ _tag: "PutFailed", problem: "out of reach" });
        if (action._tag === "List") alone.step({ _tag: "ListFailed", problem: "out of reach" });
      }
    }
    assert.lengthOf(of(alone.all, "Settle"), 0);
    alone.monoMs = 60_001;
    alone.step({ _tag: "Woken" });
    assert.lengthOf(of(alone.all, "Settle"), 1);
    assert.lengthOf(of(alone.all, "Report"), 2);
    // retried with back-off: a second at first, a minute at last
    assert.isBelow(of(alone.all, "List").length, 12);
    assert.isAbove(of(alone.all, "List").length, 4);
  });

  it("turns a burst of changes into two puts", () => {
    const bench = new Bench();
    bench.start();
    bench.step({ _tag: "PutDone", etag: "own" });
    bench.step({
      _tag: "ListDone",
      objects: [{ name: own, etag: "own", ageMs: 0 }],
      registryMs: Number(bench.wallNs / 1_000_000n),
    });
    bench.advance(minute);
    const before = of(bench.all, "Put").length;
    for (let i = 0; i < 100; i++) {
      bench.step({ _tag: "FeaturesChanged", features: set({ x: `${i}` }) });
      bench.advance(5);
    }
    bench.advance(5_000);
    assert.strictEqual(of(bench.all, "Put").length - before, 2);
    assert.strictEqual(of(bench.all, "Put").at(-1)!.features.text, '{"x":99}');
  });

  it("orders news of both ways by the owner's clock", () => {
    const bench = new Bench();
    bench.start();
    bench.hear(bench.say(a, set({ x: "2" })));
    const older = body(set({ x: "1" }), bench.wallNs - 1n);
    bench.step({ _tag: "GetDone", address: a, content: RegistryObject.decode(older), etag: "1", ageMs: 0 });
    assert.strictEqual(bench.membership.peers.get(a)!.features.text, '{"x":2}');
    const newer = body(set({ x: "3" }), bench.wallNs + 1n);
    bench.step({ _tag: "GetDone", address: a, content: RegistryObject.decode(newer), etag: "2", ageMs: 0 });
    assert.strictEqual(bench.membership.peers.get(a)!.features.entries.get("x" as Feature.FeatureName), "3");
  });

  it("does not believe an owner's time in the far future", () => {
    const bench = new Bench();
    bench.start();
    const mad = body(set({ x: "1" }), bench.wallNs + 3_600_000_000_000n);
    bench.step({ _tag: "GetDone", address: a, content: RegistryObject.decode(mad), etag: "1", ageMs: 1_000 });
    bench.monoMs += 1;
    bench.hear(bench.say(a, set({ x: "2" })));
    assert.strictEqual(bench.membership.peers.get(a)!.features.text, '{"x":2}');
  });

  it("takes the existing program's objects by their age, and a listing alone reads nothing of peers that are heard", () => {
    const bench = new Bench();
    bench.start();
    bench.advance(10_000, () => [[a, legacyBody, 5_000]]);
    assert.strictEqual(bench.membership.peers.get(a)!.features.entries.get("old" as Feature.FeatureName), "true");
    assert.isTrue(bench.membership.peers.get(a)!.legacy);
    const gets = of(bench.all, "Get").length;
    for (let i = 0; i < 30; i++) {
      bench.hear(bench.say(a, set({ old: "true" })));
      bench.advance(30_000, () => [[a, legacyBody, (i * 30_000) % 180_000]]);
    }
    assert.isAbove(of(bench.all, "List").length, 3);
    assert.strictEqual(of(bench.all, "Get").length, gets);
  });

  it("looks a silent peer up, three times before it is forgotten", () => {
    const bench = new Bench();
    bench.start();
    bench.hear(bench.say(a, set({ x: "1" })));
    bench.advance(15 * minute + 1);
    assert.isAtLeast(of(bench.all, "Get").length, 3);
    assert.isFalse(bench.membership.peers.has(a));
    const kept = new Bench();
    kept.start();
    kept.hear(kept.say(a, set({ x: "1" })));
    kept.advance(60 * minute, () => [[a, body(set({ x: "1" }), kept.wallNs - 60_000_000_000n), 60_000]]);
    assert.isTrue(kept.membership.peers.has(a));
    assert.deepStrictEqual(
      of(kept.all, "Show").filter(({ host, features }) => host === a && features.size === 0),
      [],
    );
  });

  it("asks a silent peer that can answer before it looks it up: mostly one datagram was lost", () => {
    const bench = new Bench();
    bench.start();
    const say = () => ({ ...bench.say(a, set({ x: "1" })), remarks: { ...Packet.noRemarks, version: "0.1.0" } });
    const questions = () => of(bench.all, "Announce").filter(({ ask }) => ask);
    bench.hear(say());
    const before = of(bench.all, "Get").length;
    bench.advance(45_000);
    assert.deepStrictEqual(
      questions().map(({ to }) => to),
      [[a]],
    );
    bench.hear(say());
    bench.advance(44_000);
    assert.lengthOf(of(bench.all, "Get"), before);
    // no answer this time
    bench.advance(1_000);
    assert.lengthOf(questions(), 2);
    bench.advance(3_000);
    assert.lengthOf(of(bench.all, "Get"), before + 1);
    bench.advance(10 * minute);
    assert.lengthOf(questions(), 2);
    assert.isAtLeast(of(bench.all, "Get").length, before + 3);
    // a goodbye is no silence that an answer could end
    bench.hear({ ...say(), features: Feature.empty, remarks: { version: "0.1.0", ask: false, leaving: true } });
    bench.advance(50_000);
    assert.lengthOf(questions(), 2);
  });

  it("lists once more when it has settled: peers that knew it do not answer", () => {
    const bench = new Bench();
    bench.start();
    bench.advance(1_900);
    assert.lengthOf(of(bench.all, "List"), 1);
    bench.advance(200);
    assert.lengthOf(of(bench.all, "List"), 2);
  });

  it("looks a peer up 45 s after its last word, also when it was silent before", () => {
    const bench = new Bench();
    bench.start();
    bench.hear(bench.say(a, set({ x: "1" })));
    bench.advance(50_000);
    bench.hear(bench.say(a, set({ x: "1" })));
    const before = of(bench.all, "Get").length;
    bench.advance(44_999);
    assert.lengthOf(of(bench.all, "Get"), before);
    bench.advance(2);
    assert.lengthOf(of(bench.all, "Get"), before + 1);
  });

  it("puts once more after a put that took long or failed before: a late try may undo it", () => {
    const bench = new Bench();
    bench.start();
    bench.monoMs += 6_000;
    bench.step({ _tag: "PutDone", etag: "own" });
    const puts = () => of(bench.all, "Put").length;
    const before = puts();
    bench.monoMs += 5_001;
    bench.step({ _tag: "Woken" });
    assert.strictEqual(puts(), before + 1);
    bench.monoMs += 6_000;
    bench.step({ _tag: "PutDone", etag: "own" });
    bench.monoMs += 9_000;
    bench.step({ _tag: "Woken" });
    assert.strictEqual(puts(), before + 1, "a slow registry is not burdened with more");
  });

  it("forgets a node known by an old object alone when that has expired, not a heartbeat later", () => {
    const bench = new Bench();
    bench.start();
    const content = RegistryObject.decode(body(set({ x: "1" }), startNs - 890_000_000_000n));
    bench.step({ _tag: "GetDone", address: a, content, etag: "1", ageMs: 890_000 });
    bench.advance(9_999);
    assert.isTrue(bench.membership.peers.has(a));
    bench.advance(1);
    assert.isFalse(bench.membership.peers.has(a));
  });

  it("deletes an expired node's object after reading it, and nothing else", () => {
    const bench = new Bench();
    bench.start();
    const expired = 15 * minute + 1;
    bench.advance(1_000, () => [
      [a, body(set({ x: "1" }), startNs), expired],
      [b, "<html>", expired],
      ["10.0.0.4", legacyBody, 15 * minute - 5_000],
      ["notes.txt", "x", expired],
      ["010.0.0.5", "{}", expired],
      ["224.0.0.1", "{}", expired],
    ]);
    assert.deepStrictEqual(
      of(bench.all, "Delete").map((action) => action.address),
      [a],
    );
    const reports = of(bench.all, "Report")
      .map(({ condition }) => condition)
      .toSorted();
    assert.deepStrictEqual(reports, ["foreign/10.0.0.3", "odd-keys"]);
    // said once, and a foreign object is not read again until it changes
    bench.advance(60 * minute, () => [
      [b, "<html>", expired],
      ["notes.txt", "x", expired],
    ]);
    assert.deepStrictEqual(of(bench.all, "Get").filter((get) => get.address === b).length, 1);
    assert.lengthOf(
      of(bench.all, "Report").filter(({ condition }) => condition === "odd-keys"),
      1,
    );
  });

  it("never deletes the object of a peer that it hears", () => {
    const bench = new Bench();
    bench.start();
    for (let i = 0; i < 40; i++) {
      bench.hear(bench.say(a, set({ x: "1" })));
      bench.advance(30_000, () => [[a, body(set({ x: "1" }), startNs), 16 * minute + i * 30_000]]);
    }
    assert.deepStrictEqual(of(bench.all, "Delete"), []);
  });

  it("puts its own object again when it is missing or another's", () => {
    for (const etag of ["another", undefined]) {
      const bench = new Bench();
      bench.start();
      bench.step({ _tag: "PutDone", etag: "own" });
      bench.step({
        _tag: "ListDone",
        objects: [{ name: own, etag: "own", ageMs: 0 }],
        registryMs: Number(bench.wallNs / 1_000_000n),
      });
      while (!of(bench.step({ _tag: "Woken" }), "List").length) bench.monoMs = bench.membership.deadlineMs;
      const puts = of(bench.all, "Put").length;
      bench.step({
        _tag: "ListDone",
        objects: etag === undefined ? [] : [{ name: own, etag, ageMs: 0 }],
        registryMs: Number(bench.wallNs / 1_000_000n),
      });
      assert.strictEqual(of(bench.all, "Put").length - puts, 1, `${etag}`);
    }
  });

  it("lists rarely in a large fleet, and as often as a small one when many are silent", () => {
    const listings = (nodes: number, heard: boolean): number => {
      const bench = new Bench();
      bench.start();
      const peers = Array.from({ length: nodes }, (_, i) => address(`10.1.${i >> 8}.${i & 255}`));
      for (const peer of peers) bench.hear(bench.say(peer, set({})));
      for (let i = 0; i < 120; i++) {
        if (heard) for (const peer of peers) bench.hear(bench.say(peer, set({})));
        const text = body(set({}), bench.wallNs);
        const objects = heard ? [] : peers.map((peer) => [peer, text, 0] as const);
        bench.advance(30_000, () => objects);
      }
      return of(bench.all, "List").length;
    };
    assert.isAtLeast(listings(10, true), 15);
    assert.isAtMost(listings(600, true), 5);
    assert.isAtLeast(listings(600, false), 12);
  });

  it("wakes up no more than once a second, however many peers it watches", () => {
    const bench = new Bench();
    bench.start();
    let woken = 0;
    for (let i = 0; i < 120_000; i += 50) {
      // 600 peers, each heard every 30 seconds
      bench.hear(bench.say(address(`10.1.${(i / 50) % 3}.${((i / 150) % 200) | 0}`), set({})));
      const before = bench.membership.deadlineMs;
      bench.advance(50);
      if (before <= bench.monoMs) woken++;
    }
    assert.isAbove(bench.membership.peers.size, 500);
    assert.isBelow(woken, 130);
  });

  it("keeps peers that it hears when a listing shows none of them, and says so", () => {
    const bench = new Bench();
    bench.start();
    for (let i = 0; i < 10; i++) bench.hear(bench.say(address(`10.0.1.${i + 1}`), set({ x: "1" })));
    bench.advance(1_000);
    assert.strictEqual(bench.membership.peers.size, 10);
    assert.include(
      of(bench.all, "Report").map(({ condition }) => condition),
      "registry-gone",
    );
  });

  it("says when this host's clock is off", () => {
    const bench = new Bench();
    bench.start();
    bench.step({ _tag: "PutDone", etag: "own" });
    bench.step({ _tag: "ListDone", objects: [], registryMs: Number(bench.wallNs / 1_000_000n) + 120_000 });
    assert.include(of(bench.all, "Report").find(({ condition }) => condition === "clock")!.message, "120 s behind");
  });

  it("does not put an IPv6 object beside those of existing nodes", () => {
    const six = address("fd77::1");
    const bench = new Bench(six);
    bench.start();
    bench.advance(10 * minute, () => [[a, legacyBody, 1_000]]);
    assert.deepStrictEqual(of(bench.all, "Put"), []);
    assert.include(of(bench.all, "Report").find(({ condition }) => condition === "ipv6")!.message, "--addr");
    assert.deepStrictEqual(of(bench.all, "Announce"), []);
    const free = new Bench(six);
    free.start();
    assert.lengthOf(of(free.all, "Put"), 0);
    free.advance(1_000, () => [["fd77::2", body(set({ x: "1" }), startNs), 1_000]]);
    assert.lengthOf(of(free.all, "Put"), 1);
  });
});

describe("leaving", () => {
  it("announces no features to all and puts an object without any", () => {
    const bench = new Bench();
    bench.start(set({ x: "1" }));
    bench.hear(bench.say(a, set({})));
    const last = bench.step({ _tag: "Withdrawn" });
    assert.deepStrictEqual(
      of(last, "Announce").map(({ to, features }) => [to, features.text]),
      [[[a], "{}"]],
    );
    assert.deepStrictEqual(
      of(last, "Put").map(({ features }) => features.text),
      ["{}"],
    );
    assert.isTrue(of(last, "Put")[0]!.timeNs > of(last, "Announce")[0]!.timeNs);
  });
});

describe("RegistryObject", () => {
  it("writes what the existing program writes, and our time", () => {
    assert.strictEqual(
      RegistryObject.encode(set({ alpha: "true" }), 17n),
      '{\n\t"features": {\n\t\t"alpha": true\n\t},\n\t"time_ns": 17\n}\n',
    );
    assert.strictEqual(RegistryObject.encode(Feature.empty, 17n), '{\n\t"time_ns": 17\n}\n');
  });

  it("reads its own and the existing program's objects, and nothing else", () => {
    fc.assert(
      fc.property(featureSet, fc.bigInt(0n, 9_223_372_036_854_775_807n), (features, timeNs) => {
        const content = RegistryObject.decode(RegistryObject.encode(features, timeNs))!;
        assert.strictEqual(content.timeNs, timeNs);
        assert.deepStrictEqual([...content.features.entries], [...features.entries]);
      }),
    );
    assert.strictEqual(RegistryObject.decode(legacyBody)!.timeNs, undefined);
    assert.strictEqual(RegistryObject.decode("{}\n")!.features.entries.size, 0);
    for (const foreign of [
      "",
      "<html>",
      "[]",
      "{",
      '{"features":[]}',
      '{"features":{"a":}}',
      '{"time_ns":"1"}',
      "{}x",
    ]) {
      assert.isUndefined(RegistryObject.decode(foreign), foreign);
    }
  });
});

describe("questions and goodbyes", () => {
  const announcements = (actions: ReadonlyArray<Action>) => actions.filter((action) => action._tag === "Announce");

  it("are answered at once, to the peer alone, and not again within a second", () => {
    const bench = new Bench();
    bench.start(set({ x: "1" }));
    bench.advance(1_000);
    bench.hear(bench.say(a, Feature.empty));
    bench.hear(bench.say(b, Feature.empty));
    bench.advance(1_000);
    const [answer, ...more] = announcements(bench.hear(bench.question(a)));
    assert.isEmpty(more);
    assert.deepInclude(answer, { to: [a], ask: false, leaving: false });
    bench.advance(500);
    assert.isEmpty(announcements(bench.hear(bench.question(a))));
    assert.lengthOf(announcements(bench.hear(bench.question(b))), 1);
    bench.advance(600);
    assert.lengthOf(announcements(bench.hear(bench.question(a))), 1);
  });

  it("of a peer that is new to us are answered once, not twice", () => {
    const bench = new Bench();
    bench.start();
    bench.advance(1_000);
    assert.lengthOf(announcements(bench.hear(bench.question(a))), 1);
  });

  it("are put to a peer that the registry shows, and to none that spoke first", () => {
    const bench = new Bench();
    bench.start();
    const body = RegistryObject.encode(set({ x: "1" }), startNs - 1n);
    const asked = announcements(bench.advance(1_000, () => [[a, body, 10_000]]));
    assert.deepStrictEqual(
      asked.map(({ to, ask }) => [to, ask]),
      [[[a], true]],
    );
    assert.deepInclude(announcements(bench.hear(bench.say(b, Feature.empty)))[0], { to: [b], ask: false });
  });

  it("are put to all when somebody wants to know, which counts as a heartbeat", () => {
    const bench = new Bench();
    bench.start();
    for (const peer of [a, b]) bench.hear(bench.say(peer, Feature.empty));
    bench.advance(15_000);
    const [question] = announcements(bench.step({ _tag: "Asked" }));
    assert.isTrue(question?.ask);
    assert.sameMembers([...(question?.to ?? [])], [a, b]);
    assert.isEmpty(announcements(bench.advance(19_000)));
  });

  it("say in the last announcement alone that the node leaves; its peers remember that it did until it is back", () => {
    const bench = new Bench();
    bench.start(set({ x: "1" }));
    bench.hear(bench.say(a, set({ y: "1" })));
    bench.hear({ ...bench.say(a, Feature.empty, -1), remarks: { ...Packet.noRemarks, leaving: true } });
    assert.isTrue(bench.membership.peers.get(a)?.left);
    bench.advance(1_000);
    bench.hear(bench.say(a, Feature.empty));
    assert.isFalse(bench.membership.peers.get(a)?.left);
    assert.isTrue(announcements(bench.all).every(({ leaving }) => !leaving));
    assert.deepInclude(announcements(bench.step({ _tag: "Withdrawn" }))[0], { leaving: true, features: Feature.empty });
  });
});
