/** A real terminal with a shell in it: tmux. */
import { assert } from "@effect/vitest";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class Terminal {
  /** A directory of its own, the shell's home. */
  readonly directory = mkdtempSync(join(tmpdir(), "nameq-terminal-"));

  private run(args: ReadonlyArray<string>) {
    return spawnSync("tmux", ["-u", "-S", join(this.directory, "tmux"), "-f", "/dev/null", ...args], {
      encoding: "utf8",
      env: {
        PATH: process.env["PATH"],
        HOME: this.directory,
        // a shell writes its history when it ends: after the directory has gone, or while it goes
        HISTFILE: "",
        LC_ALL: "C.UTF-8",
        PS1: "$ ",
        TERM: "xterm",
      },
    });
  }

  /** Runs a command of tmux, and gives what it prints. */
  tmux(...args: ReadonlyArray<string>): string {
    const { status, stderr, stdout } = this.run(args);
    assert.strictEqual(status, 0, stderr);
    return stdout;
  }

  /** Opens it with a shell. */
  open(columns = 100, rows = 30): void {
    const size = ["-x", String(columns), "-y", String(rows)];
    this.tmux("new-session", "-d", "-s", "t", "-c", this.directory, ...size, "bash --norc");
  }

  keys(...all: ReadonlyArray<string>): void {
    this.tmux("send-keys", "-t", "t", ...all);
  }

  /** Its lines as they are seen. */
  screen(): ReadonlyArray<string> {
    return this.tmux("capture-pane", "-p", "-t", "t").split("\n");
  }

  /** The process that the shell has started. */
  child(): number {
    const shell = this.tmux("display", "-p", "-t", "t", "#{pane_pid}").trim();
    return Number(readFileSync(`/proc/${shell}/task/${shell}/children`, "utf8"));
  }

  /** Closes it as a user does: what runs in it is told by SIGHUP. */
  hangUp(): void {
    this.tmux("kill-session", "-t", "t");
  }

  /** Closes it if it is open, and removes the directory. */
  remove(): void {
    this.run(["kill-server"]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Whether a process runs; a zombie does not. */
export const runs = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};
