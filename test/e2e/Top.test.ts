/** `nameq top` on a real terminal. */
import { afterEach, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { aNode, FakeFace } from "../FakeFace.js";
import { ensureBuilt, program } from "../Program.js";
import { runs, Terminal } from "./Terminal.js";

beforeAll(ensureBuilt, 60_000);

let terminal: Terminal;
beforeEach(() => {
  terminal = new Terminal();
});
afterEach(() => terminal.remove());

/** Waits until the screen is as it should be. */
const until = async (what: string, holds: (text: string, lines: ReadonlyArray<string>) => boolean): Promise<string> => {
  for (let tries = 0; tries < 200; tries++) {
    const lines = terminal.screen();
    const text = lines.join("\n");
    if (holds(text, lines)) return text;
    await sleep(50);
  }
  return assert.fail(`${what} does not come to be:\n${terminal.screen().join("\n")}`);
};

const isLive = (text: string): boolean => / live$/m.test(text) && text.includes("q quit");

/** A shell in a terminal in which top follows a face. */
const follow = (face: FakeFace, variables = ""): Promise<string> => {
  terminal.open();
  terminal.keys(`${variables} ${process.execPath} ${program} top --http ${face.url}; echo status $?`, "Enter");
  return until("the picture", isLive);
};

/** Waits for the end, and asserts that the terminal is as it was. */
const ended = async (status: number): Promise<void> => {
  const text = await until("the shell", (text) => text.includes(`status ${status}`));
  assert.notInclude(text, "q quit");
  terminal.keys("stty -a | grep -oE -- '-?(icanon|echo) '; echo settings", "Enter");
  const settings = await until("the settings", (_, lines) => lines.some((line) => line === "settings"));
  assert.match(settings, /^icanon *$/m);
  assert.match(settings, /^echo *$/m);
  assert.strictEqual(
    terminal.tmux("display", "-p", "-t", "t", "#{cursor_flag} #{alternate_on} #{wrap_flag}").trim(),
    "1 0 1",
  );
};

const withFace = (use: (face: FakeFace) => Promise<void>) =>
  Effect.gen(function* () {
    const face = yield* FakeFace.make;
    face.nodes = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map((address) => aNode(address));
    yield* Effect.promise(() => use(face));
  });

describe("nameq top on a terminal", () => {
  it.scopedLive("draws, follows changes, filters, helps, and quits", () =>
    withFace(async (face) => {
      await follow(face);
      face.tell(
        "change",
        '{"at":"2026-01-01T00:00:00.000Z","feature":"db","host":"10.0.0.3","value":{"n":1.50,"t":"\\u001b[2J漢"}}',
      );
      await until("the change", (text) => text.includes('db  10.0.0.3  {"n":1.50,"t":"\\u001b[2J漢"}'));
      face.tell("nodes", { nodes: [aNode("10.0.0.9", { state: "silent" })], gone: ["10.0.0.4"] });
      await until("the nodes", (text) => /10\.0\.0\.9 +silent/.test(text) && !text.includes("10.0.0.4"));
      face.tell("stats", { at: new Date().toISOString(), received: 5, sent: 5, dropped: 0, changes: 0, latencyMs: 1 });
      await until("the packets", (text) => text.includes("0.5/s in"));
      terminal.keys("/", "0.9");
      await until("the filter", (text) => text.includes("/0.9") && !text.includes("10.0.0.2"));
      terminal.keys("Escape");
      await until("all nodes", (text) => text.includes("10.0.0.2"));
      terminal.keys("?");
      await until("the help", (text) => text.includes("PageUp, PageDown"));
      terminal.keys("?", "s");
      await until("the order", (text) => text.includes("HEARD▾"));
      terminal.keys("q");
      await ended(0);
    }).pipe(Effect.scoped),
  );

  it.scopedLive("fits itself to the terminal as that changes", () =>
    withFace(async (face) => {
      await follow(face);
      for (const [columns, rows] of [
        [46, 10],
        [20, 4],
        [120, 40],
      ] as const) {
        terminal.tmux("resize-window", "-t", "t", "-x", String(columns), "-y", String(rows));
        await until(
          `the picture of ${columns} by ${rows}`,
          // the terminal itself moves what stood there until the new picture comes
          (_, lines) =>
            lines[0]?.startsWith("node 10.0.0.1") === true && lines[rows - 1]?.startsWith("q quit") === true,
        );
        const lines = terminal.screen();
        if (columns < 40) assert.isTrue(lines[0]!.endsWith("…"), lines[0]);
      }
      terminal.keys("q");
      await ended(0);
    }).pipe(Effect.scoped),
  );

  it.scopedLive("comes back to a node that was away", () =>
    withFace(async (face) => {
      await follow(face);
      const { port } = face;
      face.stop();
      await until("the loss", (text) => text.includes("lost for"));
      assert.include(terminal.screen().join("\n"), "10.0.0.3");
      face.nodes = [aNode("10.0.0.77")];
      await face.start(port);
      await until("the node again", (text) => isLive(text) && text.includes("10.0.0.77") && !text.includes("10.0.0.3"));
      // it said what it saw last
      assert.match(String(face.requests.at(-1)?.headers["last-event-id"]), /^run-\d+$/);
      terminal.keys("C-c");
      await ended(0);
    }).pipe(Effect.scoped),
  );

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    it.scopedLive(`gives the terminal back on ${signal}`, () =>
      withFace(async (face) => {
        await follow(face);
        process.kill(terminal.child(), signal);
        await ended(0);
      }).pipe(Effect.scoped),
    );
  }

  it.scopedLive("gives the terminal back when the program crashes, and then says so", () =>
    withFace(async (face) => {
      const crash = join(terminal.directory, "crash.cjs");
      writeFileSync(crash, 'process.on("SIGUSR2", () => setImmediate(() => { throw new Error("on purpose"); }));');
      await follow(face, `NODE_OPTIONS=--require=${crash}`);
      process.kill(terminal.child(), "SIGUSR2");
      await until("the message", (text) => text.includes("this is a bug") && text.includes("on purpose"));
      await ended(1);
    }).pipe(Effect.scoped),
  );

  it.scopedLive("can be stopped and continued", () =>
    withFace(async (face) => {
      await follow(face);
      terminal.keys("C-z");
      await until("the shell", (text) => text.includes("Stopped") && !text.includes("q quit"));
      terminal.keys("fg", "Enter");
      await until("the picture", (text) => text.includes("q quit"));
      face.tell("nodes", { nodes: [aNode("10.0.0.9")], gone: [] });
      await until("what is new", (text) => text.includes("10.0.0.9"));
      terminal.keys("q");
      await until("the shell", (text) => !text.includes("q quit"));
    }).pipe(Effect.scoped),
  );

  it.scopedLive("ends when its terminal goes", () =>
    withFace(async (face) => {
      await follow(face);
      const pid = terminal.child();
      terminal.hangUp();
      for (let tries = 0; runs(pid) || face.listeners.size > 0; tries++) {
        assert.isBelow(tries, 100, "it goes on without a terminal");
        await sleep(50);
      }
    }).pipe(Effect.scoped),
  );

  it.scopedLive("draws no colours with NO_COLOR", () =>
    withFace(async (face) => {
      const escape = "\u001b";
      const colours = (): boolean =>
        /\[3[1-7]m/.test(terminal.tmux("capture-pane", "-e", "-p", "-t", "t").replaceAll(escape, ""));
      await follow(face);
      assert.isTrue(colours());
      terminal.keys("q");
      await ended(0);
      terminal.keys(`NO_COLOR=1 ${process.execPath} ${program} top --http ${face.url}`, "Enter");
      await until("the picture", (text) => text.includes("q quit"));
      assert.isFalse(colours());
    }).pipe(Effect.scoped),
  );

  it.scopedLive("says what is wrong with a face before it takes the screen", () =>
    withFace(async (face) => {
      face.token = "a token";
      terminal.open(160);
      terminal.keys(`${process.execPath} ${program} top --http ${face.url}; echo status $?`, "Enter");
      const text = await until("the message", (text) => text.includes("status 1"));
      assert.include(text, "wants another token");
    }).pipe(Effect.scoped),
  );

  it.scopedLive("draws at most ten pictures a second, and of them only what differs", () =>
    withFace(async (face) => {
      const log = join(terminal.directory, "written");
      await follow(face);
      terminal.tmux("pipe-pane", "-t", "t", `cat > ${log}`);
      await sleep(200);
      const storm = 2_000;
      for (let i = 0; i < storm; i++) {
        face.tell("change", { at: "2026-01-01T00:00:00.000Z", feature: "f", host: "10.0.0.3", value: i });
        if (i % 20 === 0) await sleep(10);
      }
      await until("the last change", (text) => text.includes(`10.0.0.3  ${storm - 1}`));
      const written = readFileSync(log, "utf8");
      // a picture of these changes begins each line of the list once
      const pictures = written.split("10.0.0.3  ").length / 6;
      assert.isBelow(pictures, storm / 4);
      // the title stood all the time
      assert.notInclude(written, "port 17106");
    }).pipe(Effect.scoped),
  );
});
