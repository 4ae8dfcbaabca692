/** The messages as a manager's socket gets them: systemd's own systemd-notify, and a receiver of datagrams in Python. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as SystemdNotify from "../../src/SystemdNotify.js";
import { Lines } from "../Lines.js";

const has = (program: string): boolean => spawnSync(program, ["--version"]).error === undefined;

/** Prints each message, its assignments apart by spaces; barriers, whose descriptor it closes, are left out. */
const receiver = `
import os, socket, sys
path = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind("\\0" + path[1:] if path[0] == "@" else path)
print("bound", flush=True)
while True:
    message, descriptors, _, _ = socket.recv_fds(manager, 4096, 4)
    for descriptor in descriptors: os.close(descriptor)
    if not message.startswith(b"BARRIER"): print(message.decode().replace("\\n", " "), flush=True)
`;

describe.skipIf(!has("systemd-notify") || !has("python3"))("what a manager is told", () => {
  const directory = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "nameq-manager-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true })),
  );
  for (const kind of ["a path", "an abstract socket"]) {
    it.scopedLive(`comes to ${kind}`, () =>
      Effect.gen(function* () {
        const socket = kind === "a path" ? join(yield* directory, "socket") : `@nameq-test-${process.pid}`;
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => spawn("python3", ["-c", receiver, socket], { stdio: ["ignore", "pipe", "inherit"] })),
          (process) => Effect.sync(() => process.kill()),
        );
        const lines = new Lines(child.stdout);
        yield* Effect.promise(() => lines.first(1));
        yield* Effect.gen(function* () {
          const environment = {
            ...process.env,
            NOTIFY_SOCKET: socket,
            WATCHDOG_USEC: "200000",
            WATCHDOG_PID: undefined,
          };
          const notify = yield* SystemdNotify.make(environment);
          const node = { whenReady: Effect.sleep(50), status: () => "3 other nodes alive, 0 silent" };
          const running = yield* Effect.fork(notify.run(node));
          yield* Effect.promise(() => lines.first(5));
          yield* notify.reloading(Effect.void);
          yield* Fiber.interrupt(running);
        }).pipe(Effect.scoped);
        const all = yield* Effect.promise(() => lines.first(7));
        const told = all.slice(1).filter((line) => line !== "WATCHDOG=1");
        assert.isAbove(all.length - 1, told.length);
        assert.match(told[2]!, /^RELOADING=1 MONOTONIC_USEC=\d+$/);
        assert.deepStrictEqual(told.toSpliced(2, 1), [
          "WATCHDOG=1 STATUS=3 other nodes alive, 0 silent",
          "READY=1",
          "READY=1",
          "STOPPING=1 STATUS=leaving",
        ]);
      }),
    );
  }
});
