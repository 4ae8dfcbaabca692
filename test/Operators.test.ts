/** `nameq status` and `nameq doctor` with real nodes. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Finding } from "../src/Cli/DoctorFinding.js";
import { ensureBuilt, outcome, run, start } from "./Program.js";

const base = mkdtempSync(join(tmpdir(), "nameq-operators-"));
const port = 20_000 + (process.pid % 20_000);
const nodes = new Map<string, ChildProcessWithoutNullStreams>();

const place = (address: string): ReadonlyArray<string> => [
  "--dev",
  `--dev-dir=${base}`,
  `--addr=${address}`,
  `--port=${port}`,
];

/** Waits until something is so. */
const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
  for (let tries = 0; !(await holds()); tries++) {
    assert.isBelow(tries, 100, `${what} does not come to be`);
    await sleep(100);
  }
};

const status = (address: string, ...more: ReadonlyArray<string>) =>
  run(["status", "--state-dir", join(base, address, "state"), ...more]);

const startNode = (address: string, ...more: ReadonlyArray<string>): void => {
  const child = start(["serve", ...place(address), "--features", '{"web":{"port":80.0}}', ...more]);
  child.stdout.resume();
  child.stderr.resume();
  nodes.set(address, child);
};

const stopNode = async (address: string, signal: NodeJS.Signals): Promise<void> => {
  const child = nodes.get(address)!;
  const end = outcome(child);
  child.kill(signal);
  await end;
};

const doctor = async (address: string, ...more: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = await run(["doctor", "--json", ...place(address), ...more]);
  assert.strictEqual(stderr, "");
  const findings = stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Finding);
  return { status, findings };
};

const failed = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> =>
  findings.filter(({ level }) => level === "fail").map(({ check, message }) => `${check}: ${message}`);

beforeAll(async () => {
  ensureBuilt();
  startNode("127.45.3.1");
  startNode("127.45.3.2");
  for (const address of nodes.keys()) {
    await until(`a ready node ${address}`, async () => {
      const { stdout } = await status(address);
      return stdout.includes(": ready") && stdout.includes("other nodes: 1 alive");
    });
  }
}, 60_000);
afterAll(() => {
  for (const child of nodes.values()) child.kill("SIGKILL");
  rmSync(base, { recursive: true, force: true });
});

describe("with real nodes", () => {
  it("status says how they are", async () => {
    const { status: code, stdout } = await status("127.45.3.1");
    assert.strictEqual(code, 0);
    assert.match(stdout, /^node 127\.45\.3\.1 port \d+: ready, nameq [\d.]+, up for \d+ s$/m);
    assert.include(stdout, "features: 1 of this host, 2 in all");
    assert.match(stdout, /^127\.45\.3\.2 {2}alive +\d+ s ago +udp /m);
    const json = JSON.parse((await status("127.45.3.1", "--json")).stdout) as Record<string, unknown>;
    assert.sameMembers(Object.keys(json), ["source", "url", "at", "self", "nodes", "conditions"]);
  });

  it("doctor finds nothing wrong, through the node and without one, and the trees stay as they are", async () => {
    const one = await doctor("127.45.3.1");
    assert.deepStrictEqual(failed(one.findings), []);
    assert.strictEqual(one.status, 0);
    assert.isTrue(one.findings.some(({ message }) => message.startsWith("1 of 1 peer answered")));

    const none = await doctor("127.45.3.9");
    assert.deepStrictEqual(failed(none.findings), []);
    assert.isTrue(none.findings.some(({ message }) => message.startsWith("2 of 2 peers answered")));
    // to the nodes it is one that has ended
    const { stdout } = await status("127.45.3.1");
    assert.match(stdout, /^127\.45\.3\.9 {2}left /m);
    const tree = await run(["list", "--names", "--state-dir", join(base, "127.45.3.1", "state")]);
    assert.strictEqual(tree.stdout, "web\n");
  });

  it("doctor finds one with another key, and one that was killed", async () => {
    const secret = join(base, "another");
    writeFileSync(secret, "another secret of its own", { mode: 0o600 });
    startNode("127.45.3.3", "--secret-file", secret);
    await until("a node with another key", async () => (await status("127.45.3.3")).stdout.includes(": ready"));
    await until("what is wrong", async () => (await status("127.45.3.1")).stdout.includes("bad-hmac"));
    const { findings, status: code } = await doctor("127.45.3.1");
    assert.strictEqual(code, 1);
    assert.match(failed(findings).join("\n"), /^keys: dropped \d+ datagrams? \(bad-hmac\) from 127\.45\.3\.3/m);
    // by whether the node has listed the registry since
    assert.match(
      failed(findings).join("\n"),
      /^peer: (?:127\.45\.3\.3 did not answer within .*never heard by UDP|the node does not know 127\.45\.3\.3)$/m,
    );

    await stopNode("127.45.3.2", "SIGKILL");
    // an exchange serves all who ask within five seconds
    await sleep(5_000);
    const after = failed((await doctor("127.45.3.1")).findings).join("\n");
    assert.match(after, /^peer: 127\.45\.3\.2 did not answer within .*last datagram \d+ s ago$/m);
  });

  it("status says that a node has ended, however it did", async () => {
    const note = join(base, "127.45.3.1", "state", ".http");
    assert.match(readFileSync(note, "utf8"), /^http:/);
    await stopNode("127.45.3.1", "SIGKILL");
    const killed = await status("127.45.3.1");
    assert.strictEqual(killed.status, 1);
    assert.include(killed.stderr, "is out of reach (ECONNREFUSED)");
    assert.include(killed.stdout, "no node runs with");
    const { findings } = await doctor("127.45.3.1");
    assert.match(
      findings.find(({ check }) => check === "http")?.message ?? "",
      /^nobody answers at http.*ended without a goodbye$/,
    );
    assert.notInclude(failed(findings).join("\n"), "http:");
    startNode("127.45.3.1");
    await until("the node again", async () => (await status("127.45.3.1")).stdout.includes(": ready"));
    await stopNode("127.45.3.1", "SIGTERM");
    const ended = await status("127.45.3.1");
    assert.strictEqual(ended.status, 1);
    assert.include(ended.stdout, "no node runs with");
    assert.strictEqual(ended.stderr, "");
  });
});
