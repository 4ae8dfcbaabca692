/** `nameq serve --dev` on a real terminal. */
import { afterEach, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ensureBuilt, program } from "../Program.js";
import { runs, Terminal } from "./Terminal.js";

beforeAll(ensureBuilt, 60_000);

const address = "127.45.7.1";
const port = 20_000 + (process.pid % 20_000);
let terminal: Terminal;
let note: string;
/** The node: it must not stay when a test fails. */
let pid = 0;

beforeEach(() => {
  terminal = new Terminal();
  note = join(terminal.directory, "fleet", address, "state", ".http");
});
afterEach(() => {
  if (pid > 0 && runs(pid)) process.kill(pid, "SIGKILL");
  pid = 0;
  terminal.remove();
});

const until = async (what: string, holds: () => boolean): Promise<void> => {
  for (let tries = 0; tries < 400; tries++) {
    if (holds()) return;
    await sleep(50);
  }
  assert.fail(`${what} does not come to be`);
};

/** Starts a node from the shell. */
const start = async (before: string, after: string): Promise<void> => {
  terminal.open();
  terminal.keys(
    `${before} ${process.execPath} ${program} serve --dev --dev-dir fleet --addr ${address} --port ${port} ${after}`,
    "Enter",
  );
  await until("its note", () => existsSync(note));
  pid = terminal.child();
  assert.isTrue(runs(pid));
};

describe("nameq serve --dev on a terminal", () => {
  for (const [how, after] of [
    ["in the foreground", ""],
    ["in the background", "&"],
  ] as const) {
    it(`${how} ends with its terminal, in order`, async () => {
      await start("", after);
      terminal.hangUp();
      await until("the end of the node", () => !runs(pid));
      assert.isFalse(existsSync(note));
    });
  }

  it("ends in order however often it is told", async () => {
    await start("", "");
    for (let told = 0; told < 400 && runs(pid); told++) {
      process.kill(pid, "SIGHUP");
      await sleep(1);
    }
    await until("the end of the node", () => !runs(pid));
    assert.isFalse(existsSync(note));
    assert.include(terminal.screen().join("\n"), "left: peers and the registry know");
  });

  it("goes on under nohup", async () => {
    await start("nohup", "&");
    terminal.hangUp();
    await sleep(2_000);
    assert.isTrue(runs(pid));
    process.kill(pid, "SIGTERM");
    await until("the end of the node", () => !runs(pid));
    assert.isFalse(existsSync(note));
  });
});
