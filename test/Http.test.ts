/** The HTTP face over real sockets, of nodes of a simulated fleet. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import * as TestClock from "effect/TestClock";
import type { Cluster } from "../src/Cluster.js";
import * as Api from "../src/Http/Api.js";
import { NodeView } from "../src/NodeView.js";
import { type Answer, ask, face as faceOf, fleet } from "./HttpFace.js";

const base = mkdtempSync(join(tmpdir(), "nameq-http-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const face = (cluster: Cluster, options: Parameters<typeof faceOf>[2] = {}) => faceOf(cluster, base, options);

const json = (answer: Answer): unknown => {
  assert.strictEqual(answer.headers["content-type"], "application/json");
  return JSON.parse(answer.body);
};

describe("the HTTP face", () => {
  it.scopedLive("tells all features as their exact text, the node's own under its own address", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 3 });
      cluster.node(0).write("db", '{"port": 5432, "big": 12345678901234567890, "n": 0.10}');
      cluster.node(2).write("db", "1e400");
      cluster.node(1).write("web", '"\\u003c/script>"');
      cluster.advance("5 seconds");
      const url = yield* face(cluster);
      const { body, headers, status } = yield* ask(url, "/v1/features");
      assert.strictEqual(status, 200);
      assert.strictEqual(headers["content-type"], "application/json");
      assert.strictEqual(
        body,
        '{"self":"10.0.0.1","features":{"db":{"10.0.0.1":{"port":5432,"big":12345678901234567890,"n":0.10},"10.0.0.3":1e400},"web":{"10.0.0.2":"\\u003c/script\\u003e"}}}',
      );
      assert.strictEqual(
        (yield* ask(url, "/v1/features/db")).body,
        '{"self":"10.0.0.1","feature":"db","hosts":{"10.0.0.1":{"port":5432,"big":12345678901234567890,"n":0.10},"10.0.0.3":1e400}}',
      );
      assert.deepStrictEqual(json(yield* ask(url, "/v1/features/none")), {
        self: "10.0.0.1",
        feature: "none",
        hosts: {},
      });
    }),
  );

  it.scopedLive("makes an answer that took long the less often, and one for the hosts of all features", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      let looked = 0;
      const view = Object.defineProperty(new NodeView(), "features", {
        get: () => {
          looked++;
          const until = performance.now() + 200;
          while (performance.now() < until);
          return new Map([["10.0.0.2", new Map([["db", "1"]])]]);
        },
      });
      const url = yield* face(cluster, { view });
      const ofDb = '{"self":"10.0.0.1","feature":"db","hosts":{"10.0.0.2":1}}';
      assert.strictEqual((yield* ask(url, "/v1/features/db")).body, ofDb);
      yield* Effect.sleep("300 millis");
      assert.strictEqual(
        (yield* ask(url, "/v1/features/web")).body,
        ofDb.replace("db", "web").replace(/\{"10.*/, "{}}"),
      );
      assert.strictEqual(looked, 1);
      assert.include((yield* ask(url, "/v1/features")).body, '"features":{"db":{"10.0.0.2":1}}');
      assert.strictEqual(looked, 2);
    }),
  );

  it.scopedLive("tells the nodes, and what is wrong", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 3 });
      cluster.node(1).set("x", 1);
      cluster.advance("1 minute");
      cluster.registry.link("10.0.0.1").failure = "Denied";
      cluster.node(2).stop();
      cluster.advance("5 minutes");
      const url = yield* face(cluster);
      const answer = json(yield* ask(url, "/v1/nodes")) as {
        at: string;
        self: Record<string, unknown>;
        nodes: ReadonlyArray<Record<string, unknown>>;
        conditions: ReadonlyArray<Record<string, string>>;
      };
      assert.strictEqual(answer.at, new Date(cluster.time.unixMs).toISOString());
      assert.deepInclude(answer.self, { address: "10.0.0.1", port: 17106, ready: true, features: 0 });
      assert.deepInclude(answer.self, { registry: "s3://bucket/prefix/" });
      assert.deepStrictEqual(
        answer.nodes.map(({ address, features, source, state }) => ({ address, features, source, state })),
        [
          { address: "10.0.0.2", features: 1, source: "udp", state: "alive" },
          { address: "10.0.0.3", features: 0, source: "udp", state: "left" },
        ],
      );
      assert.isBelow(answer.nodes[0]!["heardMs"] as number, 41_000);
      assert.match(String(answer.nodes[0]!["heardAt"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      const [condition] = answer.conditions;
      assert.strictEqual(condition?.["severity"], "error");
      assert.include(condition?.["message"], "access is denied");
    }),
  );

  it.scopedLive("is alive at once and ready when membership is known", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      const url = yield* face(cluster);
      assert.deepInclude(yield* ask(url, "/healthz"), { status: 200, body: "ok\n" });
      assert.deepInclude(yield* ask(url, "/readyz"), {
        status: 503,
        body: "starting: the registry is not read into the tree yet\n",
      });
      cluster.advance("1 minute");
      assert.deepInclude(yield* ask(url, "/readyz"), { status: 200, body: "ready\n" });
    }),
  );

  it.scopedLive("says of nothing that waits that it is fewer than none", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      cluster.advance("1 minute");
      const { body } = yield* ask(yield* face(cluster), "/metrics");
      const waiting = [...body.matchAll(/^(nameq_\w+_pending) (.*)$/gm)].map(([, name, value]) => `${name} ${value}`);
      assert.deepStrictEqual(waiting, [
        "nameq_datagrams_pending 0",
        "nameq_registry_reads_pending 0",
        "nameq_log_lines_pending 0",
        "nameq_tree_hosts_pending 0",
      ]);
    }),
  );

  it.scoped("is up although its URL cannot be left in the state directory, says so once, and leaves it later", () =>
    Effect.gen(function* () {
      const stateDir = mkdtempSync(join(base, "url-"));
      const note = join(stateDir, ".http");
      // as after kill -9
      writeFileSync(note, "http://127.0.0.1:1\n");
      mkdirSync(`${note}.new`);
      const log: Array<string> = [];
      const cluster = yield* fleet({ nodes: 1 });
      const url = yield* face(cluster, { stateDir, log });
      assert.strictEqual((yield* ask(url, "/healthz")).status, 200);
      yield* TestClock.adjust("20 seconds");
      const said = log.filter((line) => line.includes(note));
      assert.lengthOf(said, 1);
      assert.match(said[0]!, /cannot write .*EISDIR.*: let this user write there/);
      rmdirSync(`${note}.new`);
      yield* TestClock.adjust("5 seconds");
      assert.strictEqual(readFileSync(note, "utf8"), `${url}\n`);
    }),
  );

  it.live("leaves its URL in the state directory while it is up", () =>
    Effect.gen(function* () {
      const stateDir = mkdtempSync(join(base, "url-"));
      yield* Effect.scoped(
        Effect.gen(function* () {
          const cluster = yield* fleet({ nodes: 1 });
          const url = yield* face(cluster, { stateDir });
          assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);
          assert.strictEqual(readFileSync(join(stateDir, ".http"), "utf8"), `${url}\n`);
        }),
      );
      assert.isFalse(existsSync(join(stateDir, ".http")));
    }),
  );

  it.scopedLive("asks for the token where it has one, but for health", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const tokenFile = join(base, "token");
      writeFileSync(tokenFile, "0123456789abcdef\n");
      const url = yield* face(cluster, { tokenFile });
      const status = (path: string, authorization?: string) =>
        Effect.map(
          ask(url, path, authorization === undefined ? {} : { headers: { authorization } }),
          (answer) => answer.status,
        );
      for (const path of ["/healthz", "/readyz"]) assert.notStrictEqual(yield* status(path), 401);
      for (const path of [
        "/v1/features",
        "/v1/events",
        "/metrics",
        "/openapi.json",
        "/none",
        "/healthz/",
        "//healthz",
      ]) {
        assert.strictEqual(yield* status(path), 401, path);
        assert.strictEqual(yield* status(path, "Bearer 0123456789abcdeg"), 401, path);
      }
      assert.strictEqual(yield* status("/v1/features", "Basic 0123456789abcdef"), 401);
      assert.strictEqual(yield* status("/v1/features", "Bearer"), 401);
      assert.strictEqual(yield* status("/v1/features", "bearer 0123456789abcdef"), 200);
    }),
  );

  it.scopedLive("answers as its document says", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 3 });
      cluster.node(0).set("a", [1, { b: null }]);
      cluster.advance("1 minute");
      cluster.registry.link("10.0.0.1").failure = "Unreachable";
      cluster.node(2).crash();
      cluster.advance("20 minutes");
      const url = yield* face(cluster);
      const documented = { "/v1/features": Api.Features, "/v1/features/a": Api.Feature, "/v1/nodes": Api.Nodes };
      for (const [path, schema] of Object.entries(documented)) {
        const decode = Schema.decodeUnknown(schema as Schema.Schema<unknown>, { onExcessProperty: "error" });
        const answer = json(yield* ask(url, path));
        assert.deepStrictEqual(yield* decode(answer), answer);
      }
      const { body } = yield* ask(url, "/v1/nodes");
      assert.include(body, '"state":"forgotten"');
      assert.include(body, '"severity":"error"');
      const document = json(yield* ask(url, "/openapi.json"));
      assert.deepStrictEqual(document, JSON.parse(JSON.stringify(Api.document())));
    }),
  );

  it.scopedLive("asks peers at most once for all who want to know who can be reached", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 3 });
      cluster.advance("1 minute");
      const { metrics } = cluster.node(0);
      const sent = metrics!.value("datagrams_sent");
      const url = yield* face(cluster);
      // the question goes out and is answered in the fleet's time
      const passing = Effect.forever(
        Effect.zipRight(
          Effect.sync(() => cluster.advance("10 millis")),
          Effect.sleep("5 millis"),
        ),
      );
      const answers = yield* Effect.race(
        Effect.all([ask(url, "/v1/reachability"), ask(url, "/v1/reachability")], { concurrency: "unbounded" }),
        passing,
      );
      const again = yield* ask(url, "/v1/reachability");
      assert.strictEqual(metrics!.value("datagrams_sent"), sent + 2);
      for (const answer of [...answers, again]) {
        assert.strictEqual(answer.body, again.body);
        const decode = Schema.decodeUnknown(Api.Reachability, { onExcessProperty: "error" });
        const { nodes } = yield* decode(json(answer));
        assert.deepStrictEqual(
          nodes.map(({ address, answered, canAnswer }) => `${address} ${answered} ${canAnswer}`),
          ["10.0.0.2 true true", "10.0.0.3 true true"],
        );
      }
    }),
  );

  it.scopedLive("says that the node has not started only when it has not", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const view = new NodeView();
      const starting = yield* ask(yield* face(cluster, { view }), "/v1/reachability");
      assert.strictEqual(starting.status, 503);
      assert.include(starting.body, "has not started yet");
      const log: Array<string> = [];
      const broken = Object.assign(cluster.node(0).view, { ask: () => Effect.die(new Error("broken")) });
      const answer = yield* ask(yield* face(cluster, { view: broken, log }), "/v1/reachability");
      assert.strictEqual(answer.status, 500);
      assert.include(log.join(), "this is a bug");
    }),
  );

  it.scopedLive("serves the page's files to everybody, compressed for who wants that", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const tokenFile = join(base, "page-token");
      writeFileSync(tokenFile, "0123456789abcdef");
      const file = {
        type: "text/html; charset=utf-8",
        body: Buffer.from("<p>plain"),
        gzip: Buffer.from("zipped"),
        etag: 'W/"1"',
        cacheControl: "no-cache",
      };
      const url = yield* face(cluster, { tokenFile, page: new Map([["/", file]]) });
      const plain = yield* ask(url, "/?a=b");
      assert.deepInclude(plain, { status: 200, body: "<p>plain" });
      assert.strictEqual(plain.headers["content-type"], "text/html; charset=utf-8");
      assert.strictEqual(plain.headers["cache-control"], "no-cache");
      assert.match(String(plain.headers["content-security-policy"]), /script-src 'self'/);
      const zipped = yield* ask(url, "/", { headers: { "accept-encoding": "br, gzip" } });
      assert.deepInclude(zipped, { status: 200, body: "zipped" });
      assert.strictEqual(zipped.headers["content-encoding"], "gzip");
      assert.strictEqual(zipped.headers["vary"], "accept-encoding");
      const known = yield* ask(url, "/", { headers: { "if-none-match": 'W/"1"' } });
      assert.deepInclude(known, { status: 304, body: "" });
      for (const path of ["/index.html", "/../", "/%2e%2e/"]) assert.strictEqual((yield* ask(url, path)).status, 401);
    }),
  );
});
