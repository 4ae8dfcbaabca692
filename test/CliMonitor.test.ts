import { afterEach, assert, beforeAll, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { escape } from "../src/Cli/Escape.js";
import { Lines } from "./Lines.js";
import { ensureBuilt, outcome, program, run, start } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

beforeAll(ensureBuilt, 60_000);

const states: Array<StateDirectory> = [];
const state = (offers: Readonly<Record<string, string>> = {}): StateDirectory => {
  const made = new StateDirectory(offers);
  states.push(made);
  return made;
};
const children: Array<{ kill: (signal: NodeJS.Signals) => boolean }> = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const made of states.splice(0)) made.dispose();
});

const monitor = (...args: ReadonlyArray<string>) => {
  const child = start(["monitor-features", ...args]);
  children.push(child);
  return { child, lines: new Lines(child.stdout), end: outcome(child) };
};

/** Runs a line of bash with the program as $NAMEQ. */
const bash = (line: string, environment: Readonly<Record<string, string>>) => {
  const { status, stderr, stdout } = spawnSync("bash", ["--norc", "-c", line], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] ?? "", NAMEQ: `${process.execPath} ${program}`, ...environment },
    encoding: "utf8",
    timeout: 20_000,
  });
  return { status, stderr, stdout };
};

describe("escape", () => {
  it("writes white space and what cannot be seen as escapes, above U+FFFF as surrogates", () => {
    assert.strictEqual(escape('{"a":"x y"}'), '{"a":"x\\u0020y"}');
    assert.strictEqual(escape('"\u00a0\u2003\u3000"'), '"\\u00a0\\u2003\\u3000"');
    assert.strictEqual(escape('"\u007f\u0085\u200b\ufeff\ue000"'), '"\\u007f\\u0085\\u200b\\ufeff\\ue000"');
    assert.strictEqual(escape('"\u{e0001}\u{10ffff}"'), '"\\udb40\\udc01\\udbff\\udfff"');
    assert.strictEqual(escape('"\ud800"'), '"\\ud800"');
    assert.strictEqual(escape('"é漢😀\u0301"'), '"é漢😀\u0301"');
  });

  it("never changes the meaning, and leaves no white space and no control character", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const escaped = escape(JSON.stringify(text));
        assert.strictEqual(JSON.parse(escaped), text);
        assert.notMatch(escaped, /[\s\p{C}\p{Z}]/u);
      }),
    );
  });
});

describe("nameq monitor-features", () => {
  it("prints what is there, then changes, with exact values, and nothing for a removed one", async () => {
    const tree = state({ "web/10.0.0.1": '{\n\t"port": 1.50,\n\t"a b": [12345678901234567890, 1e400]\n}' });
    const { child, end, lines } = monitor("-statedir", tree.path);
    assert.deepStrictEqual(await lines.first(1), [
      'web\t10.0.0.1\t{"port":1.50,"a\\u0020b":[12345678901234567890,1e400]}',
    ]);
    tree.set("db/fd00::1", "null");
    await lines.first(2);
    tree.set("web/10.0.0.1", '"\u{1f600}\u{e0001}"');
    await lines.first(3);
    tree.remove("web/10.0.0.1");
    assert.deepStrictEqual((await lines.first(4)).slice(1), [
      "db\tfd00::1\tnull",
      'web\t10.0.0.1\t"\u{1f600}\\udb40\\udc01"',
      "web\t10.0.0.1\t",
    ]);
    child.kill("SIGTERM");
    assert.include(await end, { status: 0, stderr: "" });
  });

  it("prints only this host's own features with -local", async () => {
    const tree = state({ "web/10.0.0.1": "1", "web/127.0.0.1": "2" });
    const { lines } = monitor("-local", "-statedir", tree.path);
    assert.deepStrictEqual(await lines.first(1), ["web\t127.0.0.1\t2"]);
    tree.remove("web/10.0.0.1");
    tree.set("zeta/127.0.0.1", "3");
    assert.deepStrictEqual((await lines.first(2)).slice(1), ["zeta\t127.0.0.1\t3"]);
  });

  it("prints objects with --json, and a mark behind what was there", async () => {
    const tree = state({ "web/10.0.0.1": '"a b\u009b"' });
    const { lines } = monitor("--json", "--state-dir", tree.path);
    await lines.first(2);
    tree.remove("web/10.0.0.1");
    assert.deepStrictEqual(await lines.first(3), [
      '{"feature":"web","host":"10.0.0.1","value":"a b\\u009b"}',
      '{"booted":true}',
      '{"feature":"web","host":"10.0.0.1","removed":true}',
    ]);
  });

  for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"] as const) {
    it(`ends with status 0 on ${signal}`, async () => {
      const { child, end, lines } = monitor("--json", "--state-dir", state().path);
      await lines.first(1);
      child.kill(signal);
      assert.include(await end, { status: 0, signal: null, stderr: "" });
    });
  }

  it("ends with status 0 when the reader of its pipe has gone, though nothing changes", () => {
    const tree = state({ "web/10.0.0.1": "1" });
    assert.deepStrictEqual(bash("set -o pipefail; $NAMEQ monitor-features | head -1", { NAMEQ_STATE_DIR: tree.path }), {
      status: 0,
      stderr: "",
      stdout: "web\t10.0.0.1\t1\n",
    });
    // before anything was printed
    assert.include(bash("set -o pipefail; $NAMEQ monitor-features | true", { NAMEQ_STATE_DIR: state().path }), {
      status: 0,
      stderr: "",
    });
  });

  it("ends with status 0 when the other end of its socket has gone, though nothing changes", async () => {
    const { child, end, lines } = monitor("--state-dir", state({ "web/10.0.0.1": "1" }).path);
    await lines.first(1);
    child.stdout.destroy();
    assert.include(await end, { status: 0, stderr: "" });
  });

  it("goes on while its standard output is a file, and ends with status 1 when that takes no more", () => {
    const tree = state({ "web/10.0.0.1": "1" });
    const { status, stderr } = bash("$NAMEQ monitor-features >/dev/full", { NAMEQ_STATE_DIR: tree.path });
    assert.strictEqual(status, 1);
    assert.match(stderr, /^nameq monitor-features: cannot write to standard output \(ENOSPC/);
  });

  it("ends with status 1 when its standard output takes no more at a change", async () => {
    const tree = state();
    const full = openSync("/dev/full", "w");
    const child = spawn(process.execPath, [program, "monitor-features", "--state-dir", tree.path], {
      stdio: ["ignore", full, "ignore"],
    });
    closeSync(full);
    children.push(child);
    const ended = once(child, "exit");
    let n = 0;
    while (child.exitCode === null) {
      tree.set("web/10.0.0.1", String(n++));
      await sleep(20);
    }
    assert.deepStrictEqual(await ended, [1, null]);
    assert.isAbove(n, 1);
  });

  it("brings a slow reader to the newest state in little memory, and hears signals meanwhile", async () => {
    const tree = state();
    const value = `"${"x".repeat(100_000)}`;
    for (let i = 0; i < 20; i++) tree.set(`web/10.0.0.${i}`, `${value}0"`);
    const child = spawn(process.execPath, [program, "monitor-features", "--state-dir", tree.path], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    const resident = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))![1]);
    // nobody reads: what the pipe does not hold waits
    await once(child.stdout, "readable");
    await sleep(300);
    const before = resident();
    for (let round = 1; round <= 50; round++) {
      for (let i = 0; i < 20; i++) tree.set(`web/10.0.0.${i}`, `${value}${round}"`);
      await sleep(10);
    }
    await sleep(500);
    // 100 MB have passed
    assert.isBelow(resident() - before, 60_000);
    const lines = new Lines(child.stdout);
    const last = (): number =>
      new Set(lines.all.filter((line) => line.endsWith('x50"')).map((line) => line.slice(0, 14))).size;
    for (let n = 1; last() < 20; n++) await lines.first(n);
    assert.isBelow(lines.all.length, 200);
    // and again with a full pipe
    child.stdout.pause();
    for (let i = 0; i < 20; i++) tree.set(`web/10.0.0.${i}`, `${value}51"`);
    await sleep(500);
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    child.kill("SIGHUP");
    assert.strictEqual(await ended, 0);
  });

  it("warns of a tree that is not there, and prints it when it comes", async () => {
    const tree = state();
    const { child, end, lines } = monitor("--state-dir", `${tree.path}/later`);
    const warnings = new Lines(child.stderr);
    assert.match(
      (await warnings.first(1))[0]!,
      /^nameq monitor-features: .*later\/features is not there: start the daemon/,
    );
    const later = new StateDirectory({ "web/10.0.0.1": "1" });
    spawnSync("mv", [later.path, `${tree.path}/later`]);
    assert.deepStrictEqual(await lines.first(1), ["web\t10.0.0.1\t1"]);
    child.kill("SIGINT");
    assert.include(await end, { status: 0 });
  });

  it("refuses operands", async () => {
    const { status, stderr } = await run(["monitor-features", "web"]);
    assert.strictEqual(status, 2);
    assert.include(stderr, "too many operands: web");
  });
});
