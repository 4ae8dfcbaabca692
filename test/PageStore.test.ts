import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { Store, maxChanges } from "../src/page/Store.js";
import { jsonText } from "./fc.js";
import * as Json from "../src/Json.js";

const at = "2026-01-02T03:04:05.000Z";
const node = (address: string, state = "alive", more: object = {}) => ({
  address,
  state,
  source: "udp",
  features: 1,
  version: "0.1.0",
  legacy: false,
  heardAt: at,
  heardMs: 2_000,
  udpMs: 2_000,
  announcedAt: at,
  clockOffsetMs: 1.5,
  ...more,
});

const event = (name: string, data: unknown) => ({
  id: "1-1",
  event: name,
  data: typeof data === "string" ? data : JSON.stringify(data),
});

const snapshot = (features: string, nodes: ReadonlyArray<object> = [node("10.0.0.1")]) =>
  event(
    "snapshot",
    `{"at":"2026-01-02T03:04:07.000Z","self":{"address":"10.0.0.1"},"features":${features},"nodes":${JSON.stringify(nodes)},"conditions":[]}`,
  );

const texts = (store: Store) =>
  store.changes.map(({ feature, host, kind, text }) => `${kind} ${feature} ${host} ${text}`);

describe("Page store", () => {
  it("keeps every value's exact text, in snapshots and in changes", () => {
    fc.assert(
      fc.property(
        fc.array(
          jsonText.map((text) => Json.compact(text) as string),
          { minLength: 2 },
        ),
        (values) => {
          const store = new Store();
          const hosts = values.map((json, index) => `"10.0.0.${index}":${json}`);
          store.apply(snapshot(`{"db":{${hosts.join(",")}}}`));
          values.forEach((json, index) =>
            assert.strictEqual(store.cells.get("db")?.get(`10.0.0.${index}`)?.json, json),
          );
          for (const json of values) {
            store.apply(event("change", `{"at":"${at}","feature":"web","host":"10.0.0.9","value":${json}}`));
            assert.strictEqual(store.cells.get("web")?.get("10.0.0.9")?.json, json);
          }
        },
      ),
    );
  });

  it("tells a new value, a changed one and one that has gone apart, the newest first", () => {
    const store = new Store();
    store.apply(snapshot('{"db":{"10.0.0.1":{"port":1}}}'));
    const change = (value: string) =>
      store.apply(event("change", `{"at":"${at}","feature":"db","host":"10.0.0.2"${value}}`));
    change(',"value":0.10');
    change(',"value":0.10');
    change(',"value":{"port":12345678901234567890}');
    change("");
    change("");
    assert.deepStrictEqual(texts(store), [
      "withdrawn db 10.0.0.2 ",
      "changed db 10.0.0.2 port: 12345678901234567890",
      "offered db 10.0.0.2 0.10",
    ]);
    assert.strictEqual(store.offersOf("10.0.0.2"), 0);
    assert.strictEqual(store.total, 1);
  });

  it("takes a second snapshot as the truth, marks what differs, and says how much", () => {
    const store = new Store(() => Date.parse(at));
    store.apply(
      snapshot('{"db":{"10.0.0.1":1,"10.0.0.2":2},"web":{"10.0.0.2":true}}', [node("10.0.0.1"), node("10.0.0.2")]),
    );
    store.apply(snapshot('{"db":{"10.0.0.1":1,"10.0.0.3":3}}', [node("10.0.0.1"), node("10.0.0.3")]));
    assert.deepStrictEqual([...store.cells.keys()], ["db"]);
    assert.deepStrictEqual([...(store.cells.get("db")?.keys() ?? [])], ["10.0.0.1", "10.0.0.3"]);
    assert.strictEqual(store.cells.get("db")?.get("10.0.0.1")?.changedAt, 0);
    assert.strictEqual(store.cells.get("db")?.get("10.0.0.3")?.changedAt, Date.parse(at));
    assert.deepStrictEqual([...store.nodes.keys()], ["10.0.0.1", "10.0.0.3"]);
    assert.deepStrictEqual(texts(store), [
      "node   connected again: 3 values had changed",
      "node  10.0.0.3 has appeared",
      "node  10.0.0.2 is forgotten",
    ]);
  });

  it("keeps what it knew while a node that was started anew does not know all yet", () => {
    const store = new Store();
    const of = (ready: boolean, features: string, ...nodes: ReadonlyArray<object>) => ({
      ...snapshot(features, nodes),
      data: snapshot(features, nodes).data.replace('"address"', `"ready":${ready},"address"`),
    });
    store.apply(of(false, "{}"));
    store.apply(of(true, '{"db":{"10.0.0.2":1,"10.0.0.3":1}}', node("10.0.0.2"), node("10.0.0.3")));
    store.apply(of(false, "{}"));
    store.apply(event("change", `{"at":"${at}","feature":"db","host":"10.0.0.2","value":1}`));
    store.apply(event("nodes", { nodes: [node("10.0.0.2")], gone: [] }));
    assert.strictEqual(store.self?.ready, false);
    assert.strictEqual(store.total, 2);
    assert.strictEqual(store.nodes.size, 2);
    assert.deepStrictEqual(texts(store), []);
    store.apply(of(true, '{"db":{"10.0.0.2":1}}', node("10.0.0.2")));
    assert.deepStrictEqual(texts(store), [
      "node   connected again: 1 values had changed",
      "node  10.0.0.3 is forgotten",
    ]);
  });

  it("tells what becomes of nodes, once", () => {
    const store = new Store();
    store.apply(snapshot("{}"));
    const nodes = (...changed: ReadonlyArray<object>) => store.apply(event("nodes", { nodes: changed, gone: [] }));
    nodes(node("10.0.0.2"));
    nodes(node("10.0.0.2", "alive", { clockOffsetMs: 3 }));
    nodes(node("10.0.0.2", "silent"));
    nodes(node("10.0.0.2"));
    nodes(node("10.0.0.2", "left"));
    store.apply(event("nodes", { nodes: [], gone: ["10.0.0.2", "10.0.0.3"] }));
    assert.deepStrictEqual(texts(store).toReversed(), [
      "node  10.0.0.2 has appeared",
      "node  10.0.0.2 has fallen silent",
      "node  10.0.0.2 is heard again",
      "node  10.0.0.2 has left",
      "node  10.0.0.2 is forgotten",
    ]);
  });

  it("drops nodes that a whole list does not name, as after a connection that broke", () => {
    const store = new Store();
    store.apply(snapshot("{}", [node("10.0.0.1"), node("10.0.0.2")]));
    store.apply(event("nodes", { nodes: [node("10.0.0.1")], gone: [], whole: true }));
    assert.deepStrictEqual([...store.nodes.keys()], ["10.0.0.1"]);
  });

  it("reckons ages on the node's clock, whatever the browser's says", () => {
    const browser = { now: Date.parse(at) + 7_200_000 };
    const store = new Store(() => browser.now);
    store.apply(snapshot("{}"));
    assert.strictEqual(store.now() - (store.nodes.get("10.0.0.1")?.heardAt ?? 0), 2_000);
    browser.now += 5_000;
    assert.strictEqual(store.now() - (store.nodes.get("10.0.0.1")?.heardAt ?? 0), 7_000);
    store.apply(event("heard", { "10.0.0.1": "2026-01-02T03:04:11.000Z", "10.0.0.7": at }));
    assert.strictEqual(store.now() - (store.nodes.get("10.0.0.1")?.heardAt ?? 0), 1_000);
    assert.isUndefined(store.nodes.get("10.0.0.7"));
  });

  it("keeps no more than its limits, however much arrives", () => {
    const store = new Store();
    store.apply(snapshot("{}"));
    for (let i = 0; i < 3 * maxChanges; i++) {
      store.apply(event("change", { at, feature: "n", host: "10.0.0.1", value: i }));
      store.apply(
        event("stats", {
          at: new Date(Date.parse(at) + i * 1_000),
          received: 1,
          sent: 1,
          dropped: 0,
          changes: 1,
          latencyMs: 1,
        }),
      );
      store.apply(event("nodes", { nodes: [node(`10.1.${i >> 8}.${i & 255}`)], gone: [] }));
      store.apply(event("nodes", { nodes: [], gone: [`10.1.${i >> 8}.${i & 255}`] }));
    }
    assert.strictEqual(store.changes.length, maxChanges);
    assert.isAtMost(store.figures.length, 120);
    assert.strictEqual(store.nodes.size, 1);
    assert.strictEqual(new Set(store.changes.map(({ number }) => number)).size, maxChanges);
  });

  it("passes over events that it does not know, and throws at one that it cannot read", () => {
    const store = new Store();
    store.apply(event("weather", "sunny"));
    assert.throws(() => store.apply(event("change", '{"at":"x","feature":')), /no JSON object/);
  });
});
