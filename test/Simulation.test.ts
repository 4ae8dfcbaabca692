import { createHash } from "node:crypto";
import { assert, describe, it } from "@effect/vitest";
import * as Address from "../src/Address.js";
import * as FaultSchedule from "../src/FaultSchedule.js";
import { regressions } from "./regressions.js";
import { membershipWorld, PureFleet } from "../src/MembershipSimulation.js";
import { defaults } from "../src/Settings.js";
import { addressOf, check, clusterWorld, type MakeWorld, play } from "../src/Simulation.js";

const minute = 60_000;

const kinds: ReadonlyArray<FaultSchedule.Kind> = [
  "half-write",
  "remove",
  "partition",
  "cut",
  "link",
  "crash",
  "stop",
  "replace",
  "join",
  "clock",
  "registry",
  "registry-clock",
  "listing-lag",
  "vanish",
  "plant",
  "disk",
  "forge",
  "ask",
];

describe("a fault schedule", () => {
  it("is the same for the same seed, and has every kind", () => {
    assert.deepStrictEqual(FaultSchedule.generate(5), FaultSchedule.generate(5));
    assert.notDeepEqual(FaultSchedule.generate(5), FaultSchedule.generate(6));
    const seen = new Set<FaultSchedule.Kind>();
    for (let seed = 1; seed <= 20; seed++)
      for (const kind of FaultSchedule.count(FaultSchedule.generate(seed)).keys()) seen.add(kind);
    assert.deepStrictEqual([...seen].toSorted(), [...kinds, "set", "heal", "start"].toSorted());
  });

  it("is ordered by time, and ends within its time", () => {
    const { durationMs, steps } = FaultSchedule.generate(9, { everyMs: 10_000 });
    for (const [i, { atMs }] of steps.entries()) assert.isTrue(atMs >= (steps[i - 1]?.atMs ?? 0) && atMs < durationMs);
  });

  it("has no faults when none is asked for", () => {
    for (const only of [[], ["heal"]] as const) {
      assert.deepStrictEqual([...FaultSchedule.count(FaultSchedule.generate(1, { only })).keys()], ["set"]);
    }
  });

  it("prints a line a step", () => {
    const schedule: FaultSchedule.FaultSchedule = {
      seed: 3,
      nodes: 2,
      durationMs: 61 * minute,
      steps: [
        { atMs: 1_500, deed: { do: "set", node: 0, feature: "a", value: "1" } },
        { atMs: 60 * minute, deed: { do: "partition", groups: [[0], [1]] } },
      ],
    };
    assert.strictEqual(
      FaultSchedule.show(schedule),
      'seed 3, 2 nodes, 1:01:00.000:\n  0:00:01.500 set node=0 feature="a" value="1"\n  1:00:00.000 partition groups=[[0],[1]]\n  1:01:00.000 every fault ends',
    );
  });

  it("shrinks to the steps and nodes that matter", () => {
    const matters = ({ steps }: FaultSchedule.FaultSchedule) =>
      steps.some(({ deed }) => deed.do === "partition") && steps.some(({ deed }) => deed.do === "crash");
    const schedule = Array.from({ length: 20 }, (_, seed) => FaultSchedule.generate(seed)).find(matters)!;
    const shortest = FaultSchedule.shrink(schedule, matters);
    assert.deepStrictEqual(shortest.steps.map(({ deed }) => deed.do).toSorted(), ["crash", "partition"]);
    assert.strictEqual(shortest.nodes, 1);
    assert.isBelow(shortest.durationMs, schedule.durationMs);
  });
});

describe("a simulation", () => {
  /** How many events there were, and a hash of all of them. */
  const log = (makeWorld: MakeWorld, seed: number): readonly [number, string] => {
    const hash = createHash("sha256");
    let events = 0;
    play(FaultSchedule.generate(seed, { durationMs: 5 * minute, everyMs: 10_000 }), makeWorld, {
      onEvent: (event) => {
        hash.update(`${event}\n`);
        events++;
      },
    });
    return [events, hash.digest("hex")];
  };

  for (const [name, makeWorld] of [
    ["whole nodes", clusterWorld],
    ["rules alone", membershipWorld],
  ] as const) {
    it(`of ${name} is the same run for the same seed, event by event`, () => {
      const [events, hash] = log(makeWorld, 4);
      assert.isAbove(events, 500);
      assert.deepStrictEqual(log(makeWorld, 4), [events, hash]);
      assert.notStrictEqual(log(makeWorld, 5)[1], hash);
    });
  }

  it("tells the seed, the promise and the shortest schedule when one is broken", () => {
    // a world whose trees lose what they should show
    const forgetful: MakeWorld = (schedule, settings, onShown) =>
      membershipWorld(schedule, settings, (node, host, feature, text, nowMs) => {
        if (feature !== "b") onShown(node, host, feature, text, nowMs);
      });
    try {
      check(FaultSchedule.generate(2, { durationMs: 10 * minute }), forgetful);
    } catch (error) {
      const { message } = error as Error;
      assert.match(message, /^seed 2 broke the promise "late" after [\d.]+ s: 10\.0\.0\.\d shows b of/);
      assert.match(
        message,
        /\nseed 2, 1 nodes, 0:00:[\d.]+:\n.* set node=0 feature="b" value="\d+"\n.*every fault ends$/,
      );
      return;
    }
    assert.fail("nothing was thrown");
  });

  for (const kind of kinds) {
    it(`bears ${kind} alone`, () => {
      for (let seed = 1; seed <= 12; seed++) {
        check(FaultSchedule.generate(seed, { only: ["set", kind], everyMs: 60_000 }), membershipWorld);
      }
    });
  }

  it("gives each of 1,000 nodes an address of its own", () => {
    const addresses = Array.from({ length: 1_000 }, (_, place) => addressOf(place));
    assert.deepStrictEqual(addresses.map(Address.parse), addresses);
    assert.strictEqual(new Set(addresses).size, 1_000);
  });

  const nodes = Number(process.env["NAMEQ_FLEET"] ?? 150);
  it(`carries every heartbeat between ${nodes} nodes (NAMEQ_FLEET=1000: a million datagrams)`, () => {
    const fleet = new PureFleet(1, defaults);
    for (let i = 0; i < nodes; i++) fleet.join();
    // they meet over the registry
    fleet.agenda.advanceTo(10_000);
    const before = fleet.delivered;
    const startedMs = performance.now();
    fleet.agenda.advanceTo(50_000);
    const messages = fleet.delivered - before;
    assert.isAtLeast(messages, nodes * (nodes - 1));
    if (nodes >= 1_000) console.log(`${messages} datagrams in ${(performance.now() - startedMs).toFixed(0)} ms`);
  }, 300_000);
});

/** Each found a bug of the rules once. */
describe("a schedule that broke a promise once", () => {
  for (const [name, schedule] of regressions) {
    it(name, () => {
      check(schedule, membershipWorld);
      check(schedule, clusterWorld);
    });
  }
});
