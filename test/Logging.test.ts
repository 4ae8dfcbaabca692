import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Logger from "effect/Logger";
import * as LogLevel from "effect/LogLevel";
import * as Redacted from "effect/Redacted";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import * as Logging from "../src/Logging.js";
import { outcome, start } from "./Program.js";

const timeMs = Date.UTC(2024, 1, 29, 1, 2, 3, 4);
const entry: Logging.LogEntry = {
  timeMs,
  level: LogLevel.Warning,
  message: 'a "b" c',
  annotations: [
    ["peer", "10.0.0.1"],
    ["why", "x = y"],
    ["level", "7"],
  ],
};

/** What an effect logs. */
const logged = (effect: Effect.Effect<unknown>): Effect.Effect<ReadonlyArray<Logging.LogEntry>> =>
  Effect.suspend(() => {
    const entries: Array<Logging.LogEntry> = [];
    return effect.pipe(
      Effect.provide(
        Logger.replace(
          Logger.defaultLogger,
          Logging.logger((each) => entries.push(each)),
        ),
      ),
      Effect.as(entries),
    );
  });

describe("formats", () => {
  it("has time, level, message and annotations on a terminal", () => {
    assert.strictEqual(Logging.formats.pretty(entry), '01:02:03.004 WARN  a "b" c peer=10.0.0.1 why="x = y" level=7');
    assert.include(Logging.formats.pretty(entry, true), "\x1b[33mWARN \x1b[0m");
  });

  it("has logfmt", () => {
    assert.strictEqual(
      Logging.formats.logfmt(entry),
      'time=2024-02-29T01:02:03.004Z level=warn msg="a \\"b\\" c" peer=10.0.0.1 why="x = y" level=7',
    );
  });

  it("has JSON, in which no annotation hides the level", () => {
    assert.deepStrictEqual(JSON.parse(Logging.formats.json(entry)), {
      time: "2024-02-29T01:02:03.004Z",
      level: "warn",
      msg: 'a "b" c',
      peer: "10.0.0.1",
      why: "x = y",
    });
  });
});

describe("logger", () => {
  it.effect("takes messages, annotations and the reasons of causes", () =>
    Effect.gen(function* () {
      const entries = yield* logged(
        Effect.logError("lost", 3, { a: 1 }, new Error("no route")).pipe(
          Effect.annotateLogs({ peer: "10.0.0.1", n: 2 }),
          Effect.zipRight(Effect.logInfo("fine")),
        ),
      );
      assert.deepStrictEqual(
        entries.map(({ level, message }) => [level._tag, message]),
        [
          ["Error", 'lost 3 {"a":1} no route'],
          ["Info", "fine"],
        ],
      );
      assert.sameDeepMembers(
        [...(entries[0]?.annotations ?? [])],
        [
          ["peer", "10.0.0.1"],
          ["n", "2"],
        ],
      );
    }),
  );

  it.effect("keeps what a stranger says on one line", () =>
    Effect.gen(function* () {
      const [first] = yield* logged(
        Effect.logInfo("x\nlevel=error\x1b[2J\u0085").pipe(Effect.annotateLogs("k", "a\r\nb")),
      );
      assert.strictEqual(first?.message, "x level=error\uFFFD[2J\uFFFD");
      assert.deepStrictEqual(first?.annotations, [["k", "a\uFFFD b"]]);
    }),
  );

  it.effect("shows no secret", () =>
    Effect.gen(function* () {
      const secret = Redacted.make("hunter2");
      const [first] = yield* logged(Effect.logInfo("key", secret, { secret }).pipe(Effect.annotateLogs({ secret })));
      assert.notInclude(JSON.stringify(first), "hunter2");
    }),
  );
});

describe("writer", () => {
  const lines = (count: number, write: (entry: Logging.LogEntry) => void): void => {
    for (let i = 0; i < count; i++) write({ ...entry, message: "m".repeat(100), annotations: [] });
  };

  it("drops what a reader who is stuck does not take, and counts it when there is room again", () => {
    const taken: Array<string> = [];
    let release = (): void => {};
    const stuck = new Writable({
      write: (chunk, _, done) => {
        taken.push(String(chunk));
        release = done;
      },
    });
    const write = Logging.writer(stuck, Logging.formats.logfmt);
    lines(10_000, write);
    assert.isBelow(stuck.writableLength, 100_000);
    const kept = Math.round(stuck.writableLength / String(taken[0]).length);
    for (let i = 0; i < kept; i++) release();
    return new Promise<void>((resolve) => {
      const drain = (): void => {
        if (stuck.writableLength > 0) {
          release();
          setImmediate(drain);
          return;
        }
        lines(1, write);
        release();
        setImmediate(() => {
          release();
          const [note] = taken.slice(-2);
          assert.match(String(note), /level=warn msg="\d+ log lines were lost/);
          assert.strictEqual(taken.length - 2 + Number(/\d+(?= log)/.exec(String(note))?.[0]), 10_000);
          resolve();
        });
      };
      drain();
    });
  });

  it("survives a stream that breaks, and one that is closed", async () => {
    const stream = new PassThrough();
    const write = Logging.writer(stream, Logging.formats.json);
    lines(1, write);
    stream.destroy(new Error("EPIPE"));
    lines(10, write);
    await new Promise((resolve) => stream.once("close", resolve));
    lines(10, write);
    assert.isTrue(stream.destroyed);
  });
});

describe("standard error of a node", () => {
  it("may be closed", async () => {
    const directory = mkdtempSync(join(tmpdir(), "nameq-log-"));
    const child = start(["serve", "--dev", "--dev-dir", directory, "--port", "17611"]);
    child.stderr.destroy();
    const end = outcome(child);
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.kill("SIGTERM");
    const { signal, status } = await end;
    rmSync(directory, { recursive: true });
    assert.deepStrictEqual({ signal, status }, { signal: null, status: 0 });
  });
});
