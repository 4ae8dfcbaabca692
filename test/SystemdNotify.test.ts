import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Logger from "effect/Logger";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as SystemdNotify from "../src/SystemdNotify.js";

const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "nameq-notify-"))),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true })),
);

/** A `systemd-notify` that writes its arguments to a file, a message a line; `told` waits until some are there. */
const manager = Effect.map(directory, (bin) => {
  const log = path.join(bin, "log");
  fs.writeFileSync(log, "");
  fs.writeFileSync(
    path.join(bin, "systemd-notify"),
    `#!/bin/sh\n[ "$NOTIFY_SOCKET" = @there ] || exit 1\nprintf '[%s]' "$@" >> ${log}\necho >> ${log}\n`,
    { mode: 0o755 },
  );
  const messages = (): ReadonlyArray<string> => fs.readFileSync(log, "utf8").split("\n").slice(0, -1);
  return {
    environment: { NOTIFY_SOCKET: "@there", PATH: `${bin}:${process.env["PATH"]}` },
    messages,
    told: (until: (messages: ReadonlyArray<string>) => boolean) =>
      Effect.repeat(Effect.delay(Effect.sync(messages), 5), { until }),
  };
});

describe("SystemdNotify", () => {
  it.scopedLive("says that the node is ready, how it is, and at its end that it stops", () =>
    Effect.gen(function* () {
      const { environment, messages, told } = yield* manager;
      yield* Effect.gen(function* () {
        const notify = yield* SystemdNotify.make(environment);
        const ready = yield* Effect.makeLatch(false);
        let status = "looking for * the\tfleet";
        const running = yield* Effect.fork(notify.run({ whenReady: ready.await, status: () => status }));
        yield* told(({ length }) => length === 1);
        status = "3 nodes";
        yield* ready.open;
        yield* told(({ length }) => length === 2);
        yield* Fiber.interrupt(running);
      }).pipe(Effect.scoped);
      // the scope's end has waited for the last words
      assert.deepStrictEqual(messages(), [
        "[STATUS=looking for * the fleet]",
        "[READY=1][STATUS=3 nodes]",
        "[STOPPING=1][STATUS=leaving]",
      ]);
    }),
  );

  it.scopedLive("gives a sign of life again and again when the manager expects it of this process", () =>
    Effect.gen(function* () {
      const { environment, told } = yield* manager;
      const notify = yield* SystemdNotify.make({
        ...environment,
        WATCHDOG_USEC: "40000",
        WATCHDOG_PID: String(process.pid),
      });
      yield* Effect.fork(notify.run({ whenReady: Effect.never, status: () => "starting" }));
      const messages = yield* told(({ length }) => length > 3);
      assert.deepStrictEqual(messages.slice(0, 3), ["[WATCHDOG=1][STATUS=starting]", "[WATCHDOG=1]", "[WATCHDOG=1]"]);
    }),
  );

  it.scopedLive("gives none that is expected of another process", () =>
    Effect.gen(function* () {
      const { environment, told } = yield* manager;
      const notify = yield* SystemdNotify.make({ ...environment, WATCHDOG_USEC: "1000", WATCHDOG_PID: "1" });
      yield* Effect.fork(notify.run({ whenReady: Effect.sleep(100), status: () => "" }));
      assert.deepStrictEqual(yield* told(({ length }) => length > 0), ["[READY=1]"]);
    }),
  );

  it.scopedLive("says that the keys are read again, once the node is ready", () =>
    Effect.gen(function* () {
      const { environment, told } = yield* manager;
      const notify = yield* SystemdNotify.make(environment);
      const order: Array<string> = [];
      const reload = notify.reloading(Effect.sync(() => void order.push("reload")));
      yield* reload;
      yield* Effect.fork(notify.run({ whenReady: Effect.void, status: () => "" }));
      yield* told(({ length }) => length === 1);
      yield* reload;
      const messages = yield* told(({ length }) => length === 3);
      assert.deepStrictEqual(order, ["reload", "reload"]);
      assert.strictEqual(messages[0], "[READY=1]");
      assert.match(messages[1]!, /^\[RELOADING=1\]\[MONOTONIC_USEC=\d+\]$/);
      assert.strictEqual(messages[2], "[READY=1]");
    }),
  );

  it.scopedLive("goes on without a systemd-notify, and says once what is missing", () =>
    Effect.gen(function* () {
      const empty = yield* directory;
      const lines: Array<string> = [];
      const logger = Logger.make(({ message }) => lines.push(String(message)));
      yield* Effect.gen(function* () {
        const notify = yield* SystemdNotify.make({ NOTIFY_SOCKET: "/nowhere", PATH: empty, WATCHDOG_USEC: "10000" });
        const running = yield* Effect.fork(notify.run({ whenReady: Effect.void, status: () => "" }));
        yield* Effect.repeat(Effect.sleep(5), { until: () => lines.length > 0 });
        yield* Effect.sleep(100);
        yield* Fiber.interrupt(running);
      }).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger)));
      assert.lengthOf(lines, 1);
      assert.match(
        lines[0]!,
        /^the service manager is not told of this node: .*systemd-notify.*Install systemd-notify/,
      );
    }),
  );

  it.scopedLive("says the helper's first line, in however many parts that comes", () =>
    Effect.gen(function* () {
      const bin = yield* directory;
      const script = "#!/bin/sh\nprintf 'there is ' >&2; sleep 0.1; echo 'nobody' >&2; echo 'more' >&2\n";
      fs.writeFileSync(path.join(bin, "systemd-notify"), script, { mode: 0o755 });
      const lines: Array<string> = [];
      const logger = Logger.make(({ message }) => lines.push(String(message)));
      yield* Effect.gen(function* () {
        const notify = yield* SystemdNotify.make({
          NOTIFY_SOCKET: "@there",
          PATH: `${bin}:${process.env["PATH"]}`,
        });
        yield* Effect.fork(notify.run({ whenReady: Effect.void, status: () => "" }));
        yield* Effect.repeat(Effect.sleep(5), { until: () => lines.length > 0 });
      }).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger)));
      assert.include(lines[0], "of this node: there is nobody. Install");
    }),
  );

  it.scopedLive("goes on when the helper cannot be started", () =>
    Effect.gen(function* () {
      const lines: Array<string> = [];
      const logger = Logger.make(({ message }) => lines.push(String(message)));
      yield* Effect.gen(function* () {
        // no program can be given such a variable
        const notify = yield* SystemdNotify.make({ NOTIFY_SOCKET: "\0", WATCHDOG_USEC: "10000" });
        const running = yield* Effect.fork(notify.run({ whenReady: Effect.void, status: () => "" }));
        yield* Effect.repeat(Effect.sleep(5), { until: () => lines.length > 0 });
        assert.isTrue(Option.isNone(yield* Fiber.poll(running)));
        yield* Fiber.interrupt(running);
      }).pipe(Effect.scoped, Effect.provide(Logger.replace(Logger.defaultLogger, logger)));
      assert.match(lines.join(), /^the service manager is not told of this node: /);
    }),
  );

  it.scopedLive("starts nothing when there is no manager", () =>
    Effect.gen(function* () {
      const notify = yield* SystemdNotify.make({ PATH: "/nowhere", WATCHDOG_USEC: "1000" });
      let asked = false;
      const status = (): string => {
        asked = true;
        return "";
      };
      yield* Effect.timeoutOption(notify.run({ whenReady: Effect.void, status }), 50);
      assert.isFalse(asked);
    }),
  );
});
