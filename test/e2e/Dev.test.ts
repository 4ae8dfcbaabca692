/** `nameq serve --dev` on a real terminal: tmux. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ensureBuilt, program } from "../Program.js";

beforeAll(ensureBuilt, 60_000);

const base = mkdtempSync(join(tmpdir(), "nameq-dev-"));
const tmux = (...args: ReadonlyArray<string>): string => {
  const { status, stderr, stdout } = spawnSync("tmux", ["-u", "-S", join(base, "tmux"), "-f", "/dev/null", ...args], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: base, LC_ALL: "C.UTF-8", PS1: "$ ", TERM: "xterm" },
  });
  assert.strictEqual(status, 0, stderr);
  return stdout;
};

/** Processes started here, by pid: none may stay when a test fails. */
const started: Array<number> = [];
const runs = (pid: number): boolean => existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(read(`/proc/${pid}/status`));
const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
};
afterAll(() => {
  for (const pid of started.filter(runs)) process.kill(pid, "SIGKILL");
  spawnSync("tmux", ["-S", join(base, "tmux"), "kill-server"]);
  rmSync(base, { recursive: true, force: true });
});

const until = async (what: string, holds: () => boolean): Promise<void> => {
  for (let tries = 0; tries < 400; tries++) {
    if (holds()) return;
    await sleep(50);
  }
  assert.fail(`${what} does not come to be`);
};

const address = "127.45.7.1";
const note = join(base, "fleet", address, "state", ".http");
const port = String(20_000 + (process.pid % 20_000));

/** Starts a node from a shell in a terminal, and gives its pid. */
const start = async (before: string, after: string): Promise<number> => {
  const command = `${process.execPath} ${program} serve --dev --dev-dir ${join(base, "fleet")} --addr ${address} --port ${port}`;
  tmux("new-session", "-d", "-s", "t", "-c", base, "-x", "150", "-y", "30", "bash --norc");
  tmux("send-keys", "-t", "t", `${before} ${command} ${after}`, "Enter");
  await until("its note", () => existsSync(note));
  const shell = tmux("display", "-p", "-t", "t", "#{pane_pid}").trim();
  const pid = Number(readFileSync(`/proc/${shell}/task/${shell}/children`, "utf8").trim());
  started.push(pid);
  return pid;
};

describe("nameq serve --dev on a terminal", () => {
  for (const [how, after] of [
    ["in the foreground", ""],
    ["in the background", "&"],
  ] as const) {
    it(`${how} ends with its terminal, in order`, async () => {
      const pid = await start("", after);
      tmux("kill-session", "-t", "t");
      await until("the end of the node", () => !runs(pid));
      assert.isFalse(existsSync(note));
    });
  }

  it("goes on under nohup", async () => {
    const pid = await start("nohup", "&");
    tmux("kill-session", "-t", "t");
    await sleep(2_000);
    assert.isTrue(runs(pid));
    process.kill(pid, "SIGTERM");
    await until("the end of the node", () => !runs(pid));
  });
});
