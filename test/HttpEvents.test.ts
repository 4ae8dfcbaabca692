/** The event stream over real sockets, of a simulated fleet; the face's own clock is the test's. */
import { mkdtempSync, rmSync } from "node:fs";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import type { Cluster } from "../src/Cluster.js";
import { maxClients, median } from "../src/Http/Events.js";
import { NodeView } from "../src/NodeView.js";
import { ask, face as faceOf, fleet, follow, type Follower, until } from "./HttpFace.js";

const base = mkdtempSync(join(tmpdir(), "nameq-events-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const face = (cluster: Cluster, options: Parameters<typeof faceOf>[2] = {}) => faceOf(cluster, base, options);

const ofName = (follower: Follower, name: string): ReadonlyArray<string> =>
  follower.events.filter((event) => event.name === name).map(({ data }) => data);

/** Waits for the first so many events of a name. */
const awaiting = (follower: Follower, name: string, count = 1) =>
  Effect.map(
    until(`${count} ${name} among ${JSON.stringify(follower.events)}`, () => ofName(follower, name).length >= count),
    () => ofName(follower, name),
  );

/** Lets the fleet's time pass, and then what the face gathers go out. */
const pass = (cluster: Cluster, time: Parameters<Cluster["advance"]>[0]) =>
  Effect.zipRight(
    Effect.sync(() => cluster.advance(time)),
    TestClock.adjust("60 millis"),
  );

/** `{"at":...` less its time, which must be one. */
const withoutTime = (change: string): string => {
  assert.match(change, /^\{"at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",/);
  return `{${change.slice(33)}`;
};

describe("the event stream", () => {
  it.scoped("begins with a snapshot, then tells each change with its exact value", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      cluster.node(0).write("db", '{"n":0.10}');
      yield* pass(cluster, "5 seconds");
      const url = yield* face(cluster);
      const follower = yield* follow(url);
      assert.strictEqual(follower.status, 200);
      assert.strictEqual(follower.headers["content-type"], "text/event-stream");
      const [snapshot] = yield* awaiting(follower, "snapshot");
      assert.include(snapshot, '"features":{"db":{"10.0.0.1":{"n":0.10}}}');
      const { conditions, nodes, self } = JSON.parse(snapshot!) as Record<string, unknown>;
      assert.deepInclude(self as object, { address: "10.0.0.1", ready: true });
      assert.lengthOf(nodes as Array<unknown>, 1);
      assert.deepStrictEqual(conditions, []);
      cluster.node(1).write("big", "12345678901234567890");
      yield* pass(cluster, "1 second");
      cluster.node(0).remove("db");
      yield* pass(cluster, "1 second");
      assert.deepStrictEqual((yield* awaiting(follower, "change", 2)).map(withoutTime), [
        '{"feature":"big","host":"10.0.0.2","value":12345678901234567890}',
        '{"feature":"db","host":"10.0.0.1"}',
      ]);
      const run = follower.events[0]!.id.replace(/-\d+$/, "");
      assert.deepStrictEqual(
        follower.events.map(({ id, name }) => `${name} ${id.slice(run.length)}`),
        ["snapshot -1", "change -2", "change -3", "self -3"],
      );
    }),
  );

  it.scoped("tells a node's time once it runs, and begins anew when all it has to know is known", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      const early = yield* follow(yield* face(cluster, { view: new NodeView() }));
      assert.deepInclude(JSON.parse((yield* awaiting(early, "snapshot"))[0]!), { at: null, nodes: [] });
      cluster.node(1).set("x", 1);
      const url = yield* face(cluster);
      const follower = yield* follow(url);
      assert.include((yield* awaiting(follower, "snapshot"))[0], '"ready":false');
      yield* pass(cluster, "5 seconds");
      const [, known] = yield* awaiting(follower, "snapshot", 2);
      assert.include(known, '"ready":true');
      assert.include(known, '"features":{"x":{"10.0.0.2":1}},"nodes":[{"address":"10.0.0.2"');
      yield* pass(cluster, "1 minute");
      assert.lengthOf(ofName(follower, "snapshot"), 2);
      const at = follower.events.findIndex(({ data }) => data === known);
      for (const [id, name] of [
        [follower.events[at - 1]!.id, "snapshot"],
        [follower.events[at]!.id, "self"],
      ] as const) {
        const again = yield* follow(url, { headers: { "last-event-id": id } });
        yield* awaiting(again, name);
        assert.strictEqual(again.events[0]!.name, name);
      }
    }),
  );

  it.scoped("goes on after the last event that a client saw, by header or query", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      yield* pass(cluster, "5 seconds");
      const url = yield* face(cluster);
      const first = yield* follow(url);
      cluster.node(0).set("a", 1);
      yield* pass(cluster, "1 second");
      yield* awaiting(first, "change");
      const { id } = first.events.at(-1)!;
      first.close();
      cluster.node(0).set("b", 2);
      cluster.node(1).set("c", 3);
      yield* pass(cluster, "1 second");
      const { view } = cluster.node(0);
      const { nodes } = view;
      let looked = 0;
      view.nodes = () => {
        looked++;
        return nodes.call(view);
      };
      const others = yield* follow(url);
      yield* awaiting(others, "snapshot");
      looked = 0;
      for (const options of [{ headers: { "last-event-id": id } }, { path: `/v1/events?last-event-id=${id}` }]) {
        const again = yield* follow(url, options);
        yield* awaiting(again, "conditions");
        assert.deepStrictEqual(
          again.events.map(({ name }) => name),
          ["change", "change", "self", "nodes", "conditions"],
        );
        assert.deepStrictEqual(ofName(again, "change").map(withoutTime), [
          '{"feature":"b","host":"10.0.0.1","value":2}',
          '{"feature":"c","host":"10.0.0.2","value":3}',
        ]);
        // whom it does not name has gone meanwhile
        const list = JSON.parse(ofName(again, "nodes")[0] ?? "{}") as { nodes: ReadonlyArray<unknown>; whole: boolean };
        assert.deepStrictEqual([list.nodes.length, list.whole], [1, true]);
      }
      assert.strictEqual(looked, 1, "once for all who come back at once");
    }),
  );

  it.scoped("begins anew for who saw another run, nonsense, the future, or too little", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      yield* pass(cluster, "5 seconds");
      const url = yield* face(cluster);
      const first = yield* follow(url);
      yield* awaiting(first, "snapshot");
      const [run] = first.events[0]!.id.split("-");
      for (let n = 0; n < 1_025; n++) {
        cluster.node(0).set("n", n);
        cluster.advance("10 millis");
      }
      for (const id of ["0123456789ab-1", "nonsense", "", `${run}-99999`, `${run}-0`, `${run}--1`, `${run}-1e3`]) {
        const again = yield* follow(url, { headers: { "last-event-id": id } });
        yield* awaiting(again, "snapshot");
        assert.lengthOf(again.events, 1, id);
      }
      const last = yield* follow(url, { headers: { "last-event-id": `${run}-1` } });
      assert.lengthOf(yield* awaiting(last, "change", 1_024), 1_024);
      assert.deepStrictEqual(ofName(last, "snapshot"), []);
      // more at once than are kept
      yield* TestClock.adjust("60 millis");
      assert.lengthOf(yield* awaiting(first, "snapshot", 2), 2);
    }),
  );

  it.scoped("tells of nodes that come, fall silent and are forgotten, and of what is wrong", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 3 });
      yield* pass(cluster, "1 minute");
      const url = yield* face(cluster);
      const follower = yield* follow(url);
      yield* awaiting(follower, "snapshot");
      const told = () =>
        ofName(follower, "nodes").flatMap((data) =>
          (JSON.parse(data) as { nodes: ReadonlyArray<{ address: string; state: string }> }).nodes.map(
            ({ address, state }) => `${address} ${state}`,
          ),
        );
      cluster.node(2).crash();
      cluster.advance("50 seconds");
      yield* TestClock.adjust("1 second");
      yield* until("silent", () => told().includes("10.0.0.3 silent"));
      cluster.registry.link("10.0.0.1").failure = "Denied";
      cluster.advance("16 minutes");
      yield* TestClock.adjust("1 second");
      yield* until("forgotten", () => told().includes("10.0.0.3 forgotten"));
      const conditions = yield* awaiting(follower, "conditions");
      assert.include(conditions.at(-1), "access is denied");
      cluster.registry.link("10.0.0.1").failure = undefined;
      cluster.advance("5 minutes");
      yield* TestClock.adjust("60 millis");
      yield* until("all is well", () => ofName(follower, "conditions").at(-1) === '{"conditions":[]}');
    }),
  );

  it.scoped("tells each second what was counted, and now and then who was heard", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      yield* pass(cluster, "1 minute");
      const url = yield* face(cluster);
      const follower = yield* follow(url);
      yield* awaiting(follower, "snapshot");
      for (let second = 0; second < 15; second++) {
        if (second === 0) cluster.node(1).set("x", 1);
        if (second === 1) cluster.advance("45 seconds");
        else if (second === 0) cluster.advance("1 second");
        yield* TestClock.adjust("1 second");
      }
      const [first] = yield* awaiting(follower, "stats");
      const { at, latencyMs, ...counts } = JSON.parse(first!) as Record<string, number>;
      assert.deepStrictEqual(counts, { received: 1, sent: 0, dropped: 0, changes: 1 });
      assert.isString(at);
      assert.isAbove(latencyMs!, 0);
      assert.isAtMost(latencyMs!, 5);
      const [heard] = yield* awaiting(follower, "heard");
      assert.match(heard!, /^\{"10\.0\.0\.2":"[^"]+Z"\}$/);
      yield* until("a comment", () => follower.text().includes("\n: alive\n\n"));
      assert.isBelow(ofName(follower, "stats").length, 5, "a quiet second has none");
    }),
  );

  it.scoped("has room for 256 clients", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      yield* pass(cluster, "5 seconds");
      const url = yield* face(cluster);
      const followers = yield* Effect.forEach(Array.from({ length: maxClients }), () => follow(url), {
        concurrency: 32,
      });
      yield* Effect.forEach(followers, (follower) => awaiting(follower, "snapshot"));
      const refused = yield* ask(url, "/v1/events");
      assert.strictEqual(refused.status, 503);
      assert.strictEqual(refused.headers["retry-after"], "5");
      assert.strictEqual((yield* ask(url, "/v1/features")).status, 200);
      assert.include((yield* ask(url, "/metrics")).body, `\nnameq_http_event_clients ${maxClients}\n`);
      followers[0]!.close();
      yield* until(
        "one has gone",
        () =>
          cluster
            .node(0)
            .metrics!.gauges()
            .find(([name]) => name === "http_event_clients")![1] < maxClients,
      );
      const late = yield* follow(url);
      yield* awaiting(late, "snapshot");
      cluster.node(0).set("x", 1);
      yield* pass(cluster, "1 second");
      for (const follower of [...followers.slice(1), late]) yield* awaiting(follower, "change");
    }),
  );

  it.scoped(
    "cuts off who does not read, and nobody else",
    () =>
      Effect.gen(function* () {
        const cluster = yield* fleet({ nodes: 1 });
        yield* pass(cluster, "5 seconds");
        const url = yield* face(cluster);
        const { hostname, port } = new URL(url);
        const slow = yield* Effect.acquireRelease(
          Effect.async<net.Socket>((resume) => {
            const socket = net.connect({ host: hostname, port: Number(port) }, () => {
              socket.write("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
              socket.once("data", () => {
                socket.pause();
                resume(Effect.succeed(socket));
              });
            });
            socket.on("error", () => {});
          }),
          (socket) => Effect.sync(() => socket.destroy()),
        );
        const good = yield* follow(url);
        const { metrics } = cluster.node(0);
        // what the kernel holds comes on top of the limit
        for (let n = 0; n < 60 && metrics!.value("http_events_cut") === 0; n++) {
          cluster.node(0).set("big", `${n}`.padEnd(512 * 1024));
          yield* pass(cluster, "2 seconds");
          yield* awaiting(good, "change", n + 1);
        }
        assert.strictEqual(metrics!.value("http_events_cut"), 1);
        assert.isFalse(good.ended());
        slow.resume();
        yield* until("its connection is closed", () => slow.destroyed);
      }),
    60_000,
  );

  it.scoped("cuts off nobody who reads, however much comes at once", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      yield* pass(cluster, "5 seconds");
      const follower = yield* follow(yield* face(cluster));
      yield* awaiting(follower, "snapshot");
      for (const name of ["a", "b", "c"]) cluster.node(0).set(name, "x".repeat(700_000));
      yield* pass(cluster, "2 seconds");
      yield* awaiting(follower, "change", 3);
      cluster.node(0).set("d", 1);
      yield* pass(cluster, "2 seconds");
      yield* awaiting(follower, "change", 4);
      assert.strictEqual(cluster.node(0).metrics!.value("http_events_cut"), 0);
    }),
  );

  it.scoped("goes on after a fault in one telling, and says so", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      yield* pass(cluster, "5 seconds");
      const log: Array<string> = [];
      const follower = yield* follow(yield* face(cluster, { log }));
      yield* awaiting(follower, "snapshot");
      const { view } = cluster.node(0);
      const { changesSince } = view;
      view.changesSince = () => {
        view.changesSince = changesSince;
        throw new Error("broken");
      };
      cluster.node(0).set("a", 1);
      yield* pass(cluster, "2 seconds");
      yield* until("it was said", () => /this is a bug.*broken/s.test(log.join()));
      cluster.node(0).set("b", 1);
      yield* pass(cluster, "2 seconds");
      yield* awaiting(follower, "change", 2);
    }),
  );

  it.scoped("tells in each snapshot what time it is, one second late at most", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      yield* pass(cluster, "5 seconds");
      const url = yield* face(cluster);
      const lateMs = Effect.fnUntraced(function* () {
        const [snapshot] = yield* awaiting(yield* follow(url), "snapshot");
        return cluster.time.unixMs - Date.parse((JSON.parse(snapshot!) as { at: string }).at);
      });
      assert.strictEqual(yield* lateMs(), 0);
      cluster.advance("10 seconds");
      assert.strictEqual(yield* lateMs(), 10_000);
      yield* TestClock.adjust("1 second");
      assert.strictEqual(yield* lateMs(), 0);
    }),
  );

  it.scopedLive("lets those who come while much changes share a snapshot that takes long", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      cluster.advance("5 seconds");
      const { view } = cluster.node(0);
      let made = 0;
      const url = yield* face(cluster);
      const first = yield* follow(url);
      yield* awaiting(first, "snapshot");
      Object.defineProperty(view, "features", {
        get: () => {
          made++;
          const until = performance.now() + 200;
          while (performance.now() < until);
          return new Map();
        },
      });
      const later = yield* Effect.forEach(
        [1, 2, 3, 4, 5],
        Effect.fnUntraced(function* (n) {
          cluster.node(0).set("n", n);
          cluster.advance("1 second");
          yield* awaiting(first, "change", n);
          return yield* Effect.fork(follow(url));
        }),
      );
      for (const fiber of later) yield* awaiting(yield* Fiber.join(fiber), "snapshot");
      // the first one's, and one for the others; a tick may come between them
      assert.isAtMost(made, 3);
    }),
  );

  it.scoped("says nothing of clients that leave", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      yield* pass(cluster, "5 seconds");
      const log: Array<string> = [];
      const url = yield* face(cluster, { log });
      const followers = [yield* follow(url), yield* follow(url)];
      for (const follower of followers) yield* awaiting(follower, "snapshot");
      const connected = () =>
        cluster
          .node(0)
          .metrics!.gauges()
          .find(([name]) => name === "http_event_clients")![1];
      followers[0]!.close();
      yield* until("one is left", () => connected() === 1);
      cluster.node(1).set("x", 1);
      yield* pass(cluster, "1 second");
      yield* awaiting(followers[1]!, "change");
      // what is logged of a request comes after its end
      yield* ask(url, "/healthz");
      assert.deepStrictEqual(
        log.filter((line) => !line.includes("page and API at")),
        [],
      );
    }),
  );

  it.effect("ends all streams when the node stops", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const cluster = yield* fleet({ nodes: 1 });
        yield* pass(cluster, "5 seconds");
        const scope = yield* Scope.make();
        const url = yield* face(cluster).pipe(Scope.extend(scope));
        const followers = [yield* follow(url), yield* follow(url)];
        for (const follower of followers) yield* awaiting(follower, "snapshot");
        yield* Scope.close(scope, Exit.void);
        for (const follower of followers) yield* until("ended", follower.ended);
        const { metrics } = cluster.node(0);
        assert.strictEqual(metrics!.value("http_requests", "200"), 2);
        assert.strictEqual(metrics!.value("http_requests", "204"), 0);
        assert.isTrue(followers[0]!.text().endsWith("\n\n"));
      }),
    ),
  );
});

describe("the median of what rose", () => {
  it("lies in the bucket that half falls into", () => {
    const bounds = [1, 2, 4];
    const none = [5, 5, 5, 5];
    assert.isUndefined(median(bounds, none, none));
    assert.strictEqual(median(bounds, none, [7, 5, 5, 5]), 0.5);
    assert.strictEqual(median(bounds, none, [5, 5, 9, 5]), 3);
    assert.strictEqual(median(bounds, none, [6, 6, 6, 5]), 1.5);
    assert.strictEqual(median(bounds, none, [5, 5, 5, 6]), 4);
  });
});
