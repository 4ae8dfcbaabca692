/** The HTTP face of the built program: a whole node, its secrets, its end. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { FakeS3 } from "./FakeS3.js";
import { ask, follow, until } from "./HttpFace.js";
import { ensureBuilt, outcome, start } from "./Program.js";

const base = mkdtempSync(join(tmpdir(), "nameq-http-process-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(base, { recursive: true, force: true }));

const port = String(20_000 + (process.pid % 20_000));
const secret = "the-secret-of-this-fleet";
const token = "a-token-of-this-test's-own";
const file = (name: string, content: string): string => {
  writeFileSync(join(base, name), content);
  return join(base, name);
};

/** A node, ended with the scope; what it prints is in `text`. */
const running = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = start(["serve", "--port", port, ...args], { environment });
      const ended = outcome(child);
      const node = { child, ended, text: "", end: () => (child.kill("SIGTERM"), Effect.promise(() => ended)) };
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (text: string) => (node.text += text));
      return node;
    }),
    ({ child, ended }) => {
      child.kill("SIGKILL");
      return Effect.promise(() => ended);
    },
  );

const urlIn = (stateDir: string) =>
  Effect.map(
    until("the node tells its URL", () => existsSync(join(stateDir, ".http"))),
    () => readFileSync(join(stateDir, ".http"), "utf8").trim(),
  );

describe("a node's HTTP face", () => {
  it.scopedLive("shows the page and everything else under --dev, until --http off", () =>
    Effect.gen(function* () {
      const dev = ["--dev", "--dev-dir", join(base, "dev"), "--addr", "127.0.0.2"];
      const node = yield* running(dev);
      const stateDir = join(base, "dev/127.0.0.2/state");
      const url = yield* urlIn(stateDir);
      assert.strictEqual(url, `http://127.0.0.2:${port}`);
      yield* until("the banner", () => node.text.includes(url));
      const page = yield* ask(url, "/");
      assert.strictEqual(page.headers["content-type"], "text/html; charset=utf-8");
      for (const [, path] of page.body.matchAll(/(?:src|href)="(\/?[^"#:]+)"/g)) {
        assert.strictEqual((yield* ask(url, `/${path!.replace(/^\//, "")}`)).status, 200, path);
      }
      const follower = yield* follow(url);
      yield* until("a snapshot", () => follower.events.length > 0);
      assert.strictEqual((yield* node.end()).status, 0);
      yield* until("the stream has ended", follower.ended);
      assert.isFalse(existsSync(join(stateDir, ".http")));
      const quiet = yield* running([...dev, "--http", "off"]);
      yield* until("membership", () => quiet.text.includes("membership is known"));
      assert.isFalse(existsSync(join(stateDir, ".http")));
      assert.notInclude(quiet.text, "http://");
    }),
  );

  it.scopedLive("tells no secret, whatever goes wrong", () =>
    Effect.gen(function* () {
      const s3 = yield* FakeS3.make;
      const stateDir = join(base, "state");
      const place = ["--addr", "127.0.0.2", "--state-dir", stateDir, "--feature-dir", join(base, "features")];
      const credentials = file("credentials", `${s3.accessKeyId} ${s3.secretAccessKey}`);
      const server = ["--s3-bucket", s3.bucket, "--s3-endpoint", s3.endpoint];
      const registry = [...server, "--s3-cred-file", credentials];
      const face = ["--http", "127.0.0.2:0", "--http-token-file", file("token", token)];
      const node = yield* running(
        [...place, ...registry, "--debug", "--secret-file", file("secret", secret), ...face],
        { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.2:9", OTEL_EXPORTER_OTLP_HEADERS: `authorization=${token}` },
      );
      const url = yield* urlIn(stateDir);
      const headers = { authorization: `Bearer ${token}` };
      yield* until("membership", () => node.text.includes("membership is known"));
      s3.fault = () => ({ kind: "answer", status: 403, code: "AccessDenied" });
      mkdirSync(join(base, "features"), { recursive: true });
      writeFileSync(join(base, "features/x"), "1");
      const all: Array<string> = [];
      const look = Effect.gen(function* () {
        for (const path of [
          "/v1/features",
          "/v1/nodes",
          "/v1/reachability",
          "/metrics",
          "/openapi.json",
          "/",
          "/none",
        ]) {
          for (const given of [{}, headers]) all.push(JSON.stringify(yield* ask(url, path, { headers: given })));
        }
        return all.some((text) => text.includes("access is denied"));
      });
      const end = Date.now() + 15_000;
      while (!(yield* look) && Date.now() < end) yield* Effect.sleep("100 millis");
      const follower = yield* follow(url, { headers });
      yield* until("a snapshot", () => follower.events.length > 0);
      yield* node.end();
      const text = [...all, follower.text(), node.text].join("\n");
      assert.include(text, "access is denied");
      assert.include(text, "s3://");
      for (const hidden of [secret, token, s3.secretAccessKey, s3.accessKeyId]) assert.notInclude(text, hidden);
    }),
  );

  it.scopedLive("exports what it does to an OpenTelemetry collector", () =>
    Effect.gen(function* () {
      const received: Array<string> = [];
      const collector = yield* Effect.acquireRelease(
        Effect.async<http.Server>((resume) => {
          const server = http.createServer((request, response) => {
            request.setEncoding("utf8").on("data", (text: string) => received.push(`${request.url} ${text}`));
            request.on("end", () => response.end("{}"));
          });
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)));
        }),
        (server) => Effect.sync(() => (server.close(), server.closeAllConnections())),
      );
      const { port: at } = collector.address() as { port: number };
      const node = yield* running(["--dev", "--dev-dir", join(base, "otel"), "--addr", "127.0.0.2", "--http=off"], {
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${at}`,
        OTEL_SERVICE_NAME: "this-test",
      });
      yield* until("membership", () => node.text.includes("membership is known"));
      assert.strictEqual((yield* node.end()).status, 0);
      const text = received.join("\n");
      for (const part of ["/v1/traces", '"registry.put"', '"registry.list"', "/v1/metrics", '"nameq_tree_writes"']) {
        assert.include(text, part);
      }
      assert.include(text, '{"key":"service.name","value":{"stringValue":"this-test"}}');
    }),
  );

  it.scopedLive("says what to do when its port is taken", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.async<http.Server>((resume) => {
          const taken = http.createServer();
          taken.listen(0, "127.0.0.2", () => resume(Effect.succeed(taken)));
        }),
        (taken) => Effect.sync(() => taken.close()),
      );
      const { port: at } = server.address() as { port: number };
      const args = ["--dev", "--dev-dir", join(base, "taken"), "--addr", "127.0.0.2", "--http", `127.0.0.2:${at}`];
      const node = yield* running(args);
      const { status, stderr } = yield* Effect.promise(() => node.ended);
      assert.strictEqual(status, 1);
      assert.match(stderr, /^nameq serve: HTTP port 127\.0\.0\.2:\d+ is in use: .*--http off$/m);
    }),
  );
});
