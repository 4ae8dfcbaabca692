/** The HTTP face over real sockets, of nodes of a simulated fleet. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Address } from "../src/Address.js";
import { Cluster } from "../src/Cluster.js";
import * as Http from "../src/Http.js";
import { Metrics } from "../src/Metrics.js";

const base = mkdtempSync(join(tmpdir(), "nameq-http-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));
let directories = 0;

/** A fleet of this test's own. */
const fleet = (options: Parameters<typeof Cluster.make>[0]) =>
  Effect.acquireRelease(
    Effect.sync(() => Cluster.make(options)),
    (cluster) => Effect.sync(() => cluster.close()),
  );

/** The face of a fleet's first node on a port that the system chooses. */
const face = (
  cluster: Cluster,
  options: Partial<Http.HttpOptions> = {},
): Effect.Effect<string, Http.HttpError, Scope.Scope> =>
  Effect.suspend(() => {
    const node = cluster.node(0);
    if (node.metrics === undefined) cluster.advance("1 millis");
    return Http.make({
      listen: { host: "127.0.0.1", port: 0 },
      stateDir: mkdtempSync(join(base, `state-${directories++}-`)),
      view: node.view,
      address: node.address as Address,
      port: 17106,
      registry: "s3://bucket/prefix/",
      ...options,
    }).pipe(Effect.provideService(Metrics, node.metrics!));
  });

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/** One request on a connection of its own; the path goes out as it is. */
const ask = (
  url: string,
  path: string,
  options: { readonly method?: string; readonly headers?: http.OutgoingHttpHeaders; readonly body?: string } = {},
): Effect.Effect<Answer> =>
  Effect.async((resume) => {
    const { hostname, port } = new URL(url);
    const { body, ...rest } = options;
    const request = http.request({ hostname, port, path, agent: false, ...rest }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, body: text })),
      );
    });
    request.on("error", (error) => resume(Effect.die(error)));
    request.end(body);
  });

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
        self: Record<string, unknown>;
        nodes: ReadonlyArray<Record<string, unknown>>;
        conditions: ReadonlyArray<Record<string, string>>;
      };
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
        body: "starting: registry not scanned yet\n",
      });
      cluster.advance("1 minute");
      assert.deepInclude(yield* ask(url, "/readyz"), { status: 200, body: "ready\n" });
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
});
