import { assert, describe, it } from "@effect/vitest";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as fc from "effect/FastCheck";
import * as Fiber from "effect/Fiber";
import * as Option from "effect/Option";
import type { Address } from "../src/Address.js";
import { breathe } from "../src/DirectoryHints.js";
import { type FeatureName, FeatureValue } from "../src/Feature.js";
import { FeatureTable, Problem, type Subscription } from "../src/FeatureTable.js";
import { Told } from "./Told.js";

const name = (text: string) => text as FeatureName;
const host = (text: string) => text as Address;
const held = (json: string) => ({ value: FeatureValue(json), changedMs: 0 });

/** What a pull gives now; nothing when it would wait. */
const pullNow = ({ pull }: Subscription) => {
  const fiber = Effect.runFork(pull);
  const exit = fiber.unsafePoll();
  Effect.runFork(Fiber.interrupt(fiber));
  return exit !== null && Exit.isSuccess(exit) ? exit.value : [];
};

const pullAll = (subscription: Subscription, told: Told) => {
  for (;;) {
    const changes = pullNow(subscription);
    if (changes.length === 0) return;
    told.hear(changes);
  }
};

const entries = (table: FeatureTable) =>
  [...table.features].flatMap(([feature, hosts]) =>
    Array.from(hosts, ([at, { value }]) => [`${feature}/${at}`, String(value)] as [string, string]),
  );

describe("FeatureTable", () => {
  it("tells every subscriber, however slow, a history that ends in the present", () => {
    const op = fc.oneof(
      { weight: 5, arbitrary: fc.tuple(fc.nat(3), fc.nat(3), fc.option(fc.nat(2), { nil: undefined })) },
      { weight: 2, arbitrary: fc.constantFrom("pull a", "pull b", "subscribe", "cover") },
    );
    fc.assert(
      fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
        const table = new FeatureTable();
        const readers = [{ subscription: table.subscribe(undefined), told: new Told() }];
        for (const step of ops) {
          if (step === "subscribe") readers.push({ subscription: table.subscribe(undefined), told: new Told() });
          else if (step === "cover") table.cover(table.version);
          else if (typeof step === "string") {
            const reader = step === "pull a" ? readers[0] : readers.at(-1);
            if (reader !== undefined) reader.told.hear(pullNow(reader.subscription));
          } else {
            const [feature, at, value] = step;
            table.set(name(`f${feature}`), host(`10.0.0.${at}`), value === undefined ? undefined : held(String(value)));
          }
        }
        table.cover(table.version);
        for (const { subscription, told } of readers) {
          pullAll(subscription, told);
          assert.deepStrictEqual([...told.state].toSorted(), entries(table).toSorted());
          assert.strictEqual(told.boots, 1);
        }
      }),
    );
  });

  it("tells a slow subscriber only the newest state of a pair, and nothing when it is what it was", () => {
    const table = new FeatureTable();
    table.set(name("db"), host("10.0.0.1"), held("1"));
    const slow = table.subscribe(undefined);
    table.cover(table.version);
    const told = new Told();
    pullAll(slow, told);
    for (let i = 0; i < 1_000; i++) {
      table.set(name("db"), host("10.0.0.1"), held(String(i)));
      table.set(name("web"), host("10.0.0.2"), held(String(i)));
      table.set(name("gone"), host("10.0.0.3"), held(String(i)));
      table.set(name("gone"), host("10.0.0.3"), undefined);
    }
    table.set(name("db"), host("10.0.0.1"), held("1"));
    const changes = pullNow(slow);
    assert.deepStrictEqual(
      changes.map((change) => [change._tag, "json" in change ? change.json : undefined]),
      [["Added", "999"]],
    );
  });

  it("tells a value that was removed and set again as updated", () => {
    const table = new FeatureTable();
    table.set(name("db"), host("10.0.0.1"), held("1"));
    const subscription = table.subscribe(undefined);
    pullNow(subscription);
    table.set(name("db"), host("10.0.0.1"), undefined);
    table.set(name("db"), host("10.0.0.1"), held("2"));
    assert.deepStrictEqual(
      pullNow(subscription).map(({ _tag }) => _tag),
      ["Updated"],
    );
  });

  it("tells Booted after all that was there, also when changes never pause", () => {
    const table = new FeatureTable();
    for (let i = 0; i < 2_000; i++) table.set(name(`f${i}`), host("10.0.0.1"), held("1"));
    const subscription = table.subscribe(undefined);
    table.cover(table.version);
    const told = new Told();
    let pulls = 0;
    for (; told.boots === 0 && pulls < 50; pulls++) {
      for (let i = 0; i < 1_000; i++) table.set(name(`new${pulls}-${i}`), host("10.0.0.1"), held("1"));
      told.hear(pullNow(subscription));
    }
    assert.strictEqual(told.boots, 1);
    for (let i = 0; i < 2_000; i++) assert.strictEqual(told.state.get(`f${i}/10.0.0.1`), "1");
  });

  it("tells a problem once, and not at all when it is over before it is told", () => {
    const table = new FeatureTable();
    const subscription = table.subscribe(undefined);
    const problem = () => new Problem("NotJson", "/a", "is not JSON");
    table.report("/a", problem());
    table.report("/a", problem());
    table.report("/b", new Problem("Foreign", "/b", "is foreign"));
    table.report("/b", undefined);
    assert.deepStrictEqual(pullNow(subscription), [problem()]);
    table.report("/a", problem());
    assert.deepStrictEqual(pullNow(subscription), []);
    assert.deepStrictEqual(pullNow(table.subscribe(undefined)), [problem()]);
  });

  it("wakes a waiting subscriber, and only to changes of what it subscribed to", async () => {
    const table = new FeatureTable();
    const subscription = table.subscribe([name("db")]);
    const next = Effect.runPromise(subscription.pull);
    table.set(name("web"), host("10.0.0.1"), held("1"));
    table.set(name("db"), host("10.0.0.1"), held("2"));
    assert.deepStrictEqual(
      (await next).map((change) => ("feature" in change ? String(change.feature) : "")),
      ["db"],
    );
  });

  it("counts its values", () => {
    const table = new FeatureTable();
    for (let i = 0; i < 3; i++) table.set(name("db"), host(`10.0.0.${i}`), held("1"));
    table.set(name("db"), host("10.0.0.1"), held("2"));
    table.set(name("db"), host("10.0.0.2"), undefined);
    table.set(name("web"), host("10.0.0.2"), undefined);
    assert.strictEqual(table.size, 2);
  });

  it.effect("hands over what one step changes in that step's turn, and while it is not taken gathers", () =>
    Effect.gen(function* () {
      const table = new FeatureTable();
      table.set(name("db"), host("10.0.0.1"), held("0"));
      const told: Array<ReadonlyArray<string>> = [];
      const latch = yield* Effect.makeLatch(false);
      const taking = yield* Effect.fork(
        table.subscribe(undefined).forEach((changes) => {
          told.push(changes.map((change) => ("json" in change ? `${change._tag} ${change.json}` : change._tag)));
          return told.length === 3 ? latch.await : undefined;
        }),
      );
      yield* Effect.yieldNow();
      const set = (json: string) => table.set(name("db"), host("10.0.0.1"), held(json));
      set("1");
      table.cover(table.version);
      assert.strictEqual(told.length, 1);
      yield* Effect.promise(() => Promise.resolve());
      set("2");
      yield* breathe;
      for (const json of ["3", "4"]) {
        set(json);
        yield* breathe;
      }
      assert.deepStrictEqual(told, [["Added 0"], ["Updated 1", "Booted"], ["Updated 2"]]);
      yield* latch.open;
      yield* breathe;
      assert.deepStrictEqual(told.slice(3), [["Updated 4"]]);
      // interrupted in the turn of a change
      taking.unsafeInterruptAsFork(taking.id());
      set("5");
      yield* Fiber.await(taking);
      set("6");
      yield* breathe;
      assert.strictEqual(told.length, 4);
    }),
  );

  it.effect("lets the loop turn while there is much to hand over", () =>
    Effect.gen(function* () {
      const table = new FeatureTable();
      for (let i = 0; i < 2_000; i++) table.set(name(`f${i}`), host("10.0.0.1"), held("1"));
      let told = 0;
      yield* Effect.fork(
        table.subscribe(undefined).forEach((changes) => {
          told += changes.length;
          return undefined;
        }),
      );
      yield* breathe;
      assert.isBelow(told, 2_000);
      yield* Effect.repeat(breathe, { until: () => told === 2_000 });
    }),
  );

  it.effect("ends what hands over with what its taker throws, what taking fails with, or its owner's death", () =>
    Effect.gen(function* () {
      const end = (take: () => Effect.Effect<void, string> | undefined) => {
        const table = new FeatureTable();
        const taking = Effect.runFork(table.subscribe(undefined).forEach(take));
        table.set(name("db"), host("10.0.0.1"), held("1"));
        table.fail(Cause.die("owner died"));
        return Fiber.await(taking);
      };
      const thrown = yield* end(() => {
        throw new Error("thrown");
      });
      assert.isTrue(Exit.isFailure(thrown) && Cause.isDie(thrown.cause));
      assert.deepStrictEqual(yield* end(() => Effect.fail("failed")), Exit.fail("failed"));
      assert.deepStrictEqual(yield* end(() => undefined), Exit.die("owner died"));
    }),
  );

  it("fails subscribers when its owner dies, also those who come later", async () => {
    const table = new FeatureTable();
    const waiting = Effect.runPromiseExit(table.subscribe(undefined).pull);
    table.fail(Cause.die("owner died"));
    for (const exit of [await waiting, await Effect.runPromiseExit(table.subscribe(undefined).pull)]) {
      assert.deepStrictEqual(exit.pipe(Exit.causeOption, Option.flatMap(Cause.dieOption)), Option.some("owner died"));
    }
  });

  it("parses a value when it is asked for, and once", () => {
    const table = new FeatureTable();
    table.set(name("db"), host("10.0.0.1"), held('{"port":12345678901234567890}'));
    const [change] = pullNow(table.subscribe(undefined));
    assert.strictEqual(change?._tag, "Added");
    if (change?._tag !== "Added") return;
    assert.strictEqual(change.json, '{"port":12345678901234567890}');
    assert.deepStrictEqual(change.value, { port: 12345678901234567000 });
    assert.strictEqual(change.value, change.value);
  });
});
