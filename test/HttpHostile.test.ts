/** What strangers send to the HTTP face, byte for byte: the right refusal, nothing told, nothing broken. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import * as net from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import { ask, face, fleet, follow, raw, until } from "./HttpFace.js";

const base = mkdtempSync(join(tmpdir(), "nameq-hostile-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const token = "a-token-of-this-test's-own";
const tokenFile = join(base, "token");
writeFileSync(tokenFile, `${token}\n`);

const statuses = (text: string): ReadonlyArray<number> =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));

const get = (path: string, ...headers: ReadonlyArray<string>): string =>
  [`GET ${path} HTTP/1.1`, "Host: localhost", ...headers, "Connection: close", "", ""].join("\r\n");

/** What is sent, and the statuses of all that comes back. */
const cases: ReadonlyArray<readonly [what: string, bytes: string, ...expected: ReadonlyArray<number>]> = [
  ["an unknown path", get("/v2"), 404],
  ["a known path with more behind it", get("/v1/features/db/x"), 404],
  ["a path with a slash too many", get("/v1/features/"), 400],
  ["a path with two slashes", get("//v1/features"), 404],
  ["a path in capitals", get("/V1/features"), 404],
  ["a way up", get("/v1/features/../../etc/passwd"), 404],
  ["a way up that is escaped", get("/v1/features/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), 400],
  ["a way up at the top", get("/../../../etc/passwd"), 404],
  ["two dots for a name", get("/v1/features/%2e%2e"), 400],
  ["an escaped NUL", get("/v1/features/a%00b"), 400],
  ["a plain NUL", get("/v1/features/a\0b"), 400],
  ["an escape that is none", get("/v1/features/%zz"), 404],
  ["an escape that is no UTF-8", get("/v1/features/%ff%fe"), 404],
  ["a name of 255 characters", get(`/v1/features/${"a".repeat(255)}`), 200],
  ["a name of 256 characters", get(`/v1/features/${"a".repeat(256)}`), 400],
  ["a path of 12,000 characters", get(`/${"a".repeat(12_000)}`), 404],
  ["a path of 12,000 slashes", get("/".repeat(12_000)), 404],
  ["a name of 12,000 escapes", get(`/v1/features/${"%41".repeat(4_000)}`), 400],
  ["a header of 20,000 bytes", get("/healthz", `X: ${"a".repeat(20_000)}`), 431],
  [
    "headers of 20,000 bytes in all",
    get("/healthz", ...Array.from({ length: 1_500 }, (_, i) => `X${i}: ${i}abcdefghi`)),
    431,
  ],
  [
    "two ids of a last event",
    "HEAD /v1/events?last-event-id=a&last-event-id=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    200,
  ],
  ["a whole URL", get("http://localhost/v1/features"), 400],
  ["another host's URL", get("http://example.net/v1/features"), 400],
  ["no path", get("v1/features"), 400],
  ["a star", get("*"), 400],
  ["no host", "GET /healthz HTTP/1.1\r\n\r\n", 400],
  ["HTTP/1.0 without a host", "GET /healthz HTTP/1.0\r\n\r\n", 200],
  ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
  ["no HTTP", "\x16\x03\x01\x02\x00\x01\x00", 400],
  ["a line feed for an end", "GET /healthz HTTP/1.1\nHost: localhost\n\n", 400],
  ["a space before a header's colon", get("/healthz", "X : 1"), 400],
  ["POST", "POST /v1/features HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405],
  ["PUT to what is not there", "PUT /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405],
  ["OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405],
  ["DELETE without a body", "DELETE /v1/features HTTP/1.1\r\nHost: localhost\r\n\r\n", 405],
  ["an unknown method", "BREW /v1/features HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
  ["CONNECT", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ["a body", "GET /v1/features HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 400],
  ["an empty body", get("/healthz", "Content-Length: 0"), 200],
  [
    "a body in chunks",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    400,
  ],
  ["two lengths", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400],
  [
    "a length and chunks",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    400,
  ],
  [
    "a request hidden in a body",
    "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 43\r\n\r\nGET /v1/features HTTP/1.1\r\nHost: localhost\r\n",
    405,
  ],
  [
    "three requests at once",
    `${"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2)}${get("/none")}`,
    200,
    200,
    404,
  ],
];

describe("the HTTP face", () => {
  const log: Array<string> = [];
  const scope = Effect.runSync(Scope.make());
  let url = "";
  beforeAll(async () => {
    const opened = Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      cluster.advance("5 seconds");
      return yield* face(cluster, base, { log });
    });
    url = await Effect.runPromise(Scope.extend(opened, scope));
    log.length = 0;
  });
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)));

  for (const [what, bytes, ...expected] of cases) {
    it.live(`answers ${what} with ${expected.join(", ") || "nothing"}`, () =>
      Effect.gen(function* () {
        const text = yield* raw(url, bytes);
        assert.deepStrictEqual(statuses(text), expected, text.slice(0, 2_000));
        assert.notInclude(text, "root:");
        assert.notMatch(text, /node_modules|\n\s+at /);
        assert.deepStrictEqual(log, []);
        assert.strictEqual((yield* ask(url, "/healthz")).status, 200);
      }),
    );
  }

  it.scopedLive("says what is wrong in JSON, with headers that let nobody else have it", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      cluster.advance("5 seconds");
      const url = yield* face(cluster, base);
      for (const [path, method] of [
        ["/none", "GET"],
        ["/v1/features/a.b", "GET"],
        ["/v1/features", "POST"],
      ] as const) {
        const { body, headers } = yield* ask(url, path, { method });
        assert.strictEqual(headers["content-type"], "application/json");
        const { error } = JSON.parse(body) as { error: Record<string, string> };
        assert.match(error["code"]!, /^[a-z-]+$/);
        assert.isAbove(error["message"]!.length, 20);
      }
      for (const path of ["/none", "/v1/features", "/v1/nodes", "/metrics", "/healthz", "/openapi.json"]) {
        const { headers } = yield* ask(url, path, { headers: { origin: "http://evil.example" } });
        assert.strictEqual(headers["x-content-type-options"], "nosniff");
        assert.strictEqual(headers["cache-control"], "no-store");
        assert.strictEqual(headers["cross-origin-resource-policy"], "same-origin");
        assert.match(String(headers["content-security-policy"]), /^default-src 'none'; .*frame-ancestors 'none'$/);
        assert.notProperty(headers, "access-control-allow-origin");
        assert.notProperty(headers, "x-powered-by");
      }
      assert.strictEqual((yield* ask(url, "/v1/features", { method: "POST" })).headers.allow, "GET, HEAD");
    }),
  );

  it.scopedLive("answers HEAD as GET, without a body", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      cluster.advance("5 seconds");
      const url = yield* face(cluster, base);
      for (const path of [
        "/v1/features",
        "/v1/nodes",
        "/metrics",
        "/healthz",
        "/openapi.json",
        "/none",
        "/v1/events",
      ]) {
        const head = yield* ask(url, path, { method: "HEAD" });
        assert.strictEqual(head.body, "");
        if (path === "/v1/events") {
          assert.strictEqual(head.headers["content-type"], "text/event-stream");
          continue;
        }
        const got = yield* ask(url, path);
        assert.strictEqual(head.status, got.status);
        assert.strictEqual(head.headers["content-type"], got.headers["content-type"]);
      }
    }),
  );

  it.scopedLive("ends requests whose headers do not come", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const url = yield* face(cluster, base, {
        limits: { headersTimeout: 100, requestTimeout: 200, connectionsCheckingInterval: 20 },
      });
      assert.deepStrictEqual(statuses(yield* raw(url, "GET /healthz HTTP/1.1\r\nHost: loc")), [408]);
      assert.deepStrictEqual(statuses(yield* raw(url, "")), [408]);
    }),
  );

  it.scopedLive("ends answers that nobody reads", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      for (let n = 0; n < 20; n++) cluster.node(0).set(`f${n}`, "x".repeat(1_000_000));
      cluster.advance("5 seconds");
      const { hostname, port } = new URL(yield* face(cluster, base, { limits: { idleTimeout: 100 } }));
      const socket = net.connect({ host: hostname, port: Number(port) }, () => socket.write(get("/v1/features")));
      let received = 0;
      yield* Effect.async<void>((resume) => {
        socket.once("data", (chunk) => {
          received = chunk.length;
          socket.pause();
          resume(Effect.void);
        });
      });
      yield* Effect.sleep("1 second");
      yield* Effect.async<void>((resume) => {
        socket.on("data", (chunk) => (received += chunk.length));
        socket.on("error", () => {});
        socket.on("close", () => resume(Effect.void));
        socket.resume();
      });
      assert.isBelow(received, 20_000_000);
    }),
  );

  it.scopedLive("does not go by names that a page of the Web could have, unless it has a token", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      cluster.advance("5 seconds");
      const url = yield* face(cluster, base);
      const status = (host: string, more: Record<string, string> = {}, at = url) =>
        Effect.map(ask(at, "/v1/features", { headers: { host, ...more } }), (answer) => answer.status);
      for (const host of [
        "127.0.0.1",
        "127.0.0.1:80",
        "localhost:17106",
        "LOCALHOST",
        "[::1]:1",
        "10.0.0.1",
        hostname(),
      ]) {
        assert.strictEqual(yield* status(host), 200, host);
      }
      for (const host of [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1].x",
        "x",
        "1",
        "a@127.0.0.1",
      ]) {
        assert.strictEqual(`${host} ${yield* status(host)}`, `${host} 421`);
      }
      const guarded = yield* face(cluster, base, { tokenFile });
      assert.strictEqual(yield* status("nameq.example", { authorization: `Bearer ${token}` }, guarded), 200);
      assert.strictEqual(yield* status("nameq.example", {}, guarded), 401);
    }),
  );

  it.scopedLive("never tells its token", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 2 });
      cluster.advance("5 seconds");
      const log: Array<string> = [];
      const url = yield* face(cluster, base, { tokenFile, log });
      const headers = { authorization: `Bearer ${token}` };
      const paths = ["/v1/features", "/v1/nodes", "/metrics", "/healthz", "/readyz", "/openapi.json", "/none", "/"];
      for (const path of paths) {
        for (const given of [{}, headers, { authorization: `Bearer ${token}x` }]) {
          const answer = yield* ask(url, path, { headers: given });
          assert.notInclude(JSON.stringify(answer), token);
        }
      }
      assert.notInclude(log.join(), token);
    }),
  );

  it.scoped("takes another token when its file changes, and keeps the one it has when that cannot be used", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const file = join(base, "changing");
      writeFileSync(file, token);
      const log: Array<string> = [];
      const url = yield* face(cluster, base, { tokenFile: file, log });
      const status = (given: string) =>
        Effect.map(
          ask(url, "/v1/features", { headers: { authorization: `Bearer ${given}` } }),
          (answer) => answer.status,
        );
      assert.strictEqual(yield* status(token), 200);
      const follower = yield* follow(url, { headers: { authorization: `Bearer ${token}` } });
      writeFileSync(file, "another-token-of-this-test");
      yield* TestClock.adjust("5 seconds");
      yield* until("the stream of who has the old one alone ends", follower.ended);
      assert.strictEqual(yield* status(token), 401);
      assert.strictEqual(yield* status("another-token-of-this-test"), 200);
      writeFileSync(file, "");
      yield* TestClock.adjust("20 seconds");
      assert.strictEqual(yield* status("another-token-of-this-test"), 200);
      assert.lengthOf(
        log.filter((line) => line.includes(file)),
        1,
      );
    }),
  );

  it.scopedLive("refuses to start with a token that is none", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const file = join(base, "bad");
      const problem = Effect.flip(face(cluster, base, { tokenFile: file }));
      assert.match((yield* problem).message, /ENOENT.*\/dev\/urandom/s);
      for (const bad of ["", "short", "with a space in it and long", "ünicode-token-that-is-long"]) {
        writeFileSync(file, bad);
        const { message } = yield* problem;
        assert.include(message, "/dev/urandom");
        if (bad !== "") assert.notInclude(message, bad);
      }
    }),
  );

  it.scopedLive("says what to do when it cannot listen", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const { port } = new URL(yield* face(cluster, base));
      const message = (host: string, at: number) =>
        Effect.map(Effect.flip(face(cluster, base, { listen: { host, port: at } })), (error) => error.message);
      assert.match(yield* message("127.0.0.1", Number(port)), /in use.*--http ADDR:PORT.*--http off/);
      assert.match(yield* message("192.0.2.1", 0), /no address of this host.*--http/);
    }),
  );

  it.scopedLive("warns where everybody can read", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const warned = Effect.fnUntraced(function* (listen: { host: string; port: number }, guarded: boolean) {
        const log: Array<string> = [];
        yield* face(cluster, base, { listen, log, ...(guarded && { tokenFile }) });
        return log.some((line) => line.includes("--http-token-file"));
      });
      assert.isTrue(yield* warned({ host: "0.0.0.0", port: 0 }, false));
      assert.isFalse(yield* warned({ host: "0.0.0.0", port: 0 }, true));
      assert.isFalse(yield* warned({ host: "127.0.0.1", port: 0 }, false));
    }),
  );

  it.scopedLive("closes what it has no room for, and then has room again", () =>
    Effect.gen(function* () {
      const cluster = yield* fleet({ nodes: 1 });
      const url = yield* face(cluster, base);
      const { port } = new URL(url);
      const sockets: Array<net.Socket> = [];
      let closed = 0;
      yield* Effect.async<void>((resume) => {
        for (let n = 0; n < 600; n++) {
          const socket = net.connect({ host: "127.0.0.1", port: Number(port) });
          socket.on("error", () => {});
          socket.on("close", () => {
            closed++;
            if (closed === 600 - 512) resume(Effect.void);
          });
          sockets.push(socket);
        }
      });
      for (const socket of sockets) socket.destroy();
      yield* Effect.sleep("50 millis");
      assert.strictEqual((yield* ask(url, "/healthz")).status, 200);
    }),
  );
});
