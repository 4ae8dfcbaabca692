/**
 * The state machine against the plainest model of what it knows: a table that is searched anew for each question. The
 * model says which peers there are, what they offer, when they go, and why a datagram is dropped.
 */
import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import * as Address from "../src/Address.js";
import * as Feature from "../src/Feature.js";
import { type Action, type Event, Membership } from "../src/Membership.js";
import * as Packet from "../src/Packet.js";
import { Prng } from "../src/Prng.js";
import { defaults } from "../src/Settings.js";

const own = "10.0.0.1" as Address.Address;
const others = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map((text) => Address.parse(text)!);
const startMs = 1_790_000_000_000;
const minute = 60_000;

const offering = (value: number): Feature.FeatureSet =>
  value === 0
    ? Feature.empty
    : Feature.fromEntries([["x" as Feature.FeatureName, Feature.FeatureValue(String(value))]]);

/** What somebody said: a datagram, or an object that was read. */
interface News {
  readonly from: Address.Address;
  readonly timeMs: number;
  readonly value: number;
  readonly atMs: number;
  /** When its owner was alive for certain. */
  readonly aliveMs: number;
}

/** All that was accepted, in the order in which it came. */
class Model {
  nowMs = 0;
  readonly accepted: Array<News> = [];

  /** What is known of a peer: its newest news, and when it was last alive. */
  peer(from: Address.Address): { readonly newest: News; readonly aliveMs: number } | undefined {
    let newest: News | undefined;
    let aliveMs = Number.NEGATIVE_INFINITY;
    for (const news of this.accepted) {
      if (news.from !== from) continue;
      // it was forgotten in between
      if (news.atMs >= aliveMs + defaults.expiryMs) newest = undefined;
      if (newest === undefined) aliveMs = news.aliveMs;
      newest = newest === undefined || news.timeMs > newest.timeMs ? news : newest;
      aliveMs = Math.max(aliveMs, news.aliveMs);
    }
    return newest === undefined || this.nowMs >= aliveMs + defaults.expiryMs ? undefined : { newest, aliveMs };
  }

  /** Why a datagram is dropped, if it is. */
  hears(from: Address.Address, ageMs: number): string | undefined {
    if (ageMs > defaults.replayMs) return "old";
    if (-ageMs > defaults.futureMs) return "future";
    const known = this.peer(from);
    return known !== undefined && this.nowMs - ageMs <= known.newest.timeMs ? "stale" : undefined;
  }
}

interface Real {
  readonly membership: Membership;
  /** What the tree was told. */
  readonly shown: Map<Address.Address, string>;
  waiting: Array<Action>;
}

const step = (model: Model, real: Real, event: Event): ReadonlyArray<Action> => {
  const instant = { wallNs: BigInt(startMs + model.nowMs) * 1_000_000n, monoMs: model.nowMs };
  const actions = real.membership.step(event, instant);
  for (const action of actions) {
    if (action._tag === "Show") real.shown.set(action.host, JSON.stringify([...action.features]));
    if (action._tag === "Get") real.waiting.push(action);
    // an own registry that works and is empty
    if (action._tag === "Put") step(model, real, { _tag: "PutDone", etag: "own" });
    if (action._tag === "List") {
      const objects = [{ name: own, etag: "own", ageMs: 0 }];
      step(model, real, { _tag: "ListDone", objects, registryMs: startMs + model.nowMs });
    }
  }
  return actions;
};

const compare = (model: Model, real: Real): void => {
  for (const each of others) {
    const expected = model.peer(each);
    const known = real.membership.peers.get(each);
    assert.strictEqual(known?.features.text, expected && offering(expected.newest.value).text, `${each} offers`);
    assert.strictEqual(
      known && Number(known.timeNs / 1_000_000n) - startMs,
      expected?.newest.timeMs,
      `${each} said so at`,
    );
    assert.strictEqual(
      real.shown.get(each) ?? "[]",
      JSON.stringify([...offering(expected?.newest.value ?? 0).entries]),
      `the tree shows of ${each}`,
    );
  }
};

type Command = fc.Command<Model, Real>;

const command = (name: string, run: (model: Model, real: Real) => void): Command => ({
  check: () => true,
  run: (model, real) => {
    run(model, real);
    compare(model, real);
  },
  toString: () => name,
});

const who = fc.constantFrom(...others);
const value = fc.integer({ min: 0, max: 5 });

const hear = fc
  .tuple(who, fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: -20_000, max: 20_000 })), value)
  .map(([from, ageMs, offered]) =>
    command(`hear ${from} ${ageMs} ms old: ${offered}`, (model, real) => {
      const expected = model.hears(from, ageMs);
      const timeMs = model.nowMs - ageMs;
      const timeNs = BigInt(startMs + timeMs) * 1_000_000n;
      const before = model.peer(from);
      const actions = step(model, real, {
        _tag: "Received",
        source: from,
        announcement: { address: from, timeNs, features: offering(offered), refused: [], remarks: Packet.noRemarks },
      });
      const reasons = actions.flatMap((action) => (action._tag === "Drop" ? [action.reason as string] : []));
      assert.deepStrictEqual(reasons, expected === undefined ? [] : [expected]);
      const answers = actions.flatMap((action) => (action._tag === "Announce" ? [action.to] : []));
      assert.deepStrictEqual(answers, before === undefined && expected === undefined ? [[from]] : []);
      if (expected === undefined) {
        model.accepted.push({ from, timeMs, value: offered, atMs: model.nowMs, aliveMs: model.nowMs });
      }
    }),
  );

/** Answers a question that is open: with nothing, a failure, or an object that was put some time ago. */
const answer = fc
  .tuple(fc.constantFrom("missing", "failed", "object", "object"), fc.integer({ min: 0, max: 16 * minute }), value)
  .map(([kind, ageMs, offered]) =>
    command(`read: ${kind}, ${ageMs} ms old: ${offered}`, (model, real) => {
      const question = real.waiting.shift();
      if (question?._tag !== "Get") return;
      const { address } = question;
      if (kind === "missing") step(model, real, { _tag: "GetMissing", address });
      else if (kind === "failed") step(model, real, { _tag: "GetFailed", address, problem: "no" });
      else {
        const timeMs = model.nowMs - ageMs;
        const content = {
          features: offering(offered),
          timeNs: BigInt(startMs + timeMs) * 1_000_000n,
          refused: [],
          remarks: Packet.noRemarks,
        };
        const known = model.peer(address);
        const last = model.accepted.findLast(({ from }) => from === address);
        const actions = step(model, real, { _tag: "GetDone", address, content, etag: `${timeMs}/${offered}`, ageMs });
        const deleted = actions.some((action) => action._tag === "Delete");
        if (ageMs > defaults.expiryMs) return assert.isTrue(deleted || known !== undefined, "an expired object goes");
        assert.isFalse(deleted);
        // what was known of it before it was forgotten is not undone
        if (known === undefined && last !== undefined && timeMs <= newestEver(model, address)) return;
        model.accepted.push({ from: address, timeMs, value: offered, atMs: model.nowMs, aliveMs: timeMs });
      }
    }),
  );

const newestEver = (model: Model, address: Address.Address): number =>
  Math.max(...model.accepted.filter(({ from }) => from === address).map(({ timeMs }) => timeMs));

const pass = fc.oneof(fc.integer({ min: 1, max: 2_000 }), fc.integer({ min: 1_000, max: 20 * minute })).map((ms) =>
  command(`${ms} ms pass`, (model, real) => {
    const endMs = model.nowMs + ms;
    while (real.membership.deadlineMs <= endMs) {
      model.nowMs = Math.max(model.nowMs, Math.ceil(real.membership.deadlineMs));
      step(model, real, { _tag: "Woken" });
    }
    model.nowMs = endMs;
  }),
);

const change = value.map((offered) =>
  command(`offer ${offered}`, (model, real) => {
    const known = others.filter((each) => model.peer(each) !== undefined);
    const before = real.membership.features.text;
    const actions = step(model, real, { _tag: "FeaturesChanged", features: offering(offered) });
    const told = actions.flatMap((action) => (action._tag === "Announce" ? [...action.to] : []));
    assert.deepStrictEqual(told.toSorted(), before === offering(offered).text ? [] : known);
    assert.strictEqual(real.shown.get(Address.ownHost), JSON.stringify([...offering(offered).entries]));
  }),
);

describe("Membership and the naive model", () => {
  it("agree after any sequence of news, reads, changes and time", () => {
    fc.assert(
      fc.property(
        fc.commands([hear, hear, hear, answer, pass, pass, change], { maxCommands: 60, size: "max" }),
        fc.integer(),
        (commands, seed) => {
          const prng = Prng.seeded(seed);
          const setup = () => {
            const model = new Model();
            const real: Real = {
              membership: new Membership(own, defaults, () => prng.float()),
              shown: new Map(),
              waiting: [],
            };
            step(model, real, { _tag: "Started", features: Feature.empty });
            return { model, real };
          };
          fc.modelRun(setup, commands);
        },
      ),
      {
        numRuns: Number(process.env["NAMEQ_MODEL_RUNS"] ?? 300),
        // the same runs every time; other ones with another seed
        seed: Number(process.env["NAMEQ_MODEL_SEED"] ?? 1),
      },
    );
  });
});
