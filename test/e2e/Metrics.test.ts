/** What a node tells Prometheus, judged by Prometheus's own tool. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { ask, follow, until } from "../HttpFace.js";
import { ensureBuilt, outcome, start } from "../Program.js";

const base = mkdtempSync(join(tmpdir(), "nameq-metrics-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(base, { recursive: true, force: true }));

const port = String(20_000 + (process.pid % 20_000));

const node = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = start(["serve", "--dev", "--dev-dir", base, "--addr", address, "--port", port]);
      return { child, ended: outcome(child) };
    }),
    ({ child, ended }) => {
      child.kill("SIGTERM");
      return Effect.promise(() => ended);
    },
  );

describe("/metrics", () => {
  it.scopedLive("of two nodes that talk passes promtool's checks, and counts what they do", () =>
    Effect.gen(function* () {
      assert.include(execFileSync("promtool", ["--version"], { encoding: "utf8" }), "promtool");
      yield* node("127.0.0.2");
      const url = `http://127.0.0.2:${port}`;
      const mine = join(base, "127.0.0.2");
      yield* until("the first node", () => existsSync(join(mine, "state/.http")));
      yield* node("127.0.0.3");
      yield* until("the second node", () => existsSync(join(base, "127.0.0.3/state/.http")));
      writeFileSync(join(base, "127.0.0.3/features/db"), "1");
      writeFileSync(join(mine, "features/bad"), "{");
      const file = join(mine, "state/features/db/127.0.0.3");
      yield* until("the feature of the other", () => existsSync(file));
      const follower = yield* follow(url);
      yield* until("a snapshot", () => follower.events.length > 0);
      yield* ask(url, "/none");
      assert.strictEqual(readFileSync(file, "utf8"), "1\n");
      yield* Effect.sleep("500 millis");
      const { body, headers } = yield* ask(url, "/metrics");
      assert.strictEqual(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
      const { status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], { input: body, encoding: "utf8" });
      assert.deepStrictEqual({ status, stdout, stderr }, { status: 0, stdout: "", stderr: "" });
      const value = (series: string) =>
        Number(
          body
            .split("\n")
            .find((line) => line.startsWith(`${series} `))
            ?.slice(series.length + 1) ?? Number.NaN,
        );
      for (const series of [
        "nameq_datagrams_received_total",
        "nameq_datagrams_received_bytes_total",
        "nameq_datagrams_sent_total",
        "nameq_datagrams_sent_bytes_total",
        "nameq_announcements_sent_total",
        "nameq_announcements_accepted_total",
        'nameq_registry_requests_total{operation="put"}',
        'nameq_registry_request_seconds_count{operation="list",outcome="ok"}',
        "nameq_propagation_seconds_count",
        "nameq_tree_writes_total",
        "nameq_tree_write_seconds_count",
        'nameq_nodes{state="alive"}',
        "nameq_features",
        "nameq_changes_total",
        "nameq_http_event_clients",
        'nameq_http_requests_total{code="404"}',
        "nameq_event_loop_delay_seconds_count",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
      ]) {
        assert.isAbove(value(series), 0, series);
      }
      assert.match(body, /^nameq_feature_file_errors_total\{reason="[^"]+"\} 1$/m);
    }),
  );
});
