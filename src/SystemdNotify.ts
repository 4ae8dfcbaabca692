/**
 * Tells a service manager how the node is, as sd_notify(3) has it: ready, alive, reloading, stopping, and a line of status.
 *
 * The manager's socket takes datagrams, which Node cannot send to a Unix socket: systemd's own program `systemd-notify`
 * stands between. A shell that is started once runs it, because starting a program from here blocks the node, the longer
 * the more memory it has: 2 ms at 50 MB, 10 ms at 200 MB, 55 ms at 1 GB, against 0.06 ms for a line to the shell.
 */
import { type ChildProcess, spawn } from "node:child_process";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/** The node, as far as it is told of. */
export interface Told {
  /** Waits until the node is what its users expect of it. */
  readonly whenReady: Effect.Effect<void>;
  /** One line for people. */
  readonly status: () => string;
}

export interface SystemdNotify {
  /** Says when the node is ready, that its event loop runs, and that it stops when this is interrupted. */
  readonly run: (node: Told) => Effect.Effect<never>;
  /** Says that the configuration is read again while `reload` runs. */
  readonly reloading: (reload: Effect.Effect<void>) => Effect.Effect<void>;
}

/** How often the status is looked at, and the longest time between two signs of life, ms. */
const statusMs = 30_000;

/** Bytes that may wait for the helper. More is dropped: a helper that hangs is the manager's to find out. */
const maxPendingBytes = 4_096;

/** How long the helper may take for the last words, ms. */
const endMs = 1_000;

/**
 * One message a line, its assignments apart by tabs. It ends with its input, not by the signals that a manager or a
 * terminal sends to all processes of the service: the last words are still to be passed on then.
 */
const helper = String.raw`trap '' HUP INT QUIT TERM USR1 USR2
set -f
IFS=$(printf '\t')
while read -r message; do systemd-notify $message; done`;

const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, " ");

/** Sends messages through one helper, which is started again when it has ended. `onTrouble` hears what went wrong. */
const makeSender = (
  socket: string,
  path: string,
  onTrouble: (text: string) => void,
): Effect.Effect<(assignments: ReadonlyArray<string>) => void, never, Scope.Scope> => {
  let child: ChildProcess | undefined;
  const start = (): ChildProcess => {
    const started = spawn("/bin/sh", ["-c", helper], {
      env: { NOTIFY_SOCKET: socket, PATH: path },
      stdio: ["pipe", "ignore", "pipe"],
    });
    const ended = (): void => {
      if (child === started) child = undefined;
    };
    started.on("exit", ended);
    started.on("error", (cause) => {
      ended();
      onTrouble(cause.message);
    });
    started.stdin?.on("error", ended);
    // a shell says a line in parts
    let said = "";
    started.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(0, maxPendingBytes);
      if (said.includes("\n")) onTrouble(said.trim().split("\n", 1).join(""));
    });
    return started;
  };
  const end = Effect.async<void>((resume) => {
    if (child === undefined) return resume(Effect.void);
    child.once("close", () => resume(Effect.void));
    child.stdin?.end();
  }).pipe(Effect.timeoutOption(endMs), Effect.ensuring(Effect.sync(() => child?.kill("SIGKILL"))));
  return Effect.acquireRelease(
    Effect.succeed((assignments: ReadonlyArray<string>) => {
      try {
        child ??= start();
      } catch (cause) {
        // for want of memory: the next sign of life tries again
        return onTrouble(String(cause));
      }
      if ((child.stdin?.writableLength ?? 0) > maxPendingBytes) return;
      child.stdin?.write(`${assignments.map(printable).join("\t")}\n`);
    }),
    () => Effect.interruptible(end),
  );
};

/** Microseconds of CLOCK_MONOTONIC, by which systemd tells the end of this reload from that of an earlier one. */
const monotonicUsec = (): bigint => process.hrtime.bigint() / 1_000n;

/** Half of what the manager allows between two signs of life, ms; undefined when it expects none of this process. */
const watchdogMs = (environment: NodeJS.ProcessEnv): number | undefined => {
  const { WATCHDOG_PID: pid, WATCHDOG_USEC: usec } = environment;
  if (usec === undefined || !/^[1-9]\d*$/.test(usec)) return undefined;
  return pid === undefined || pid === String(process.pid) ? Number(usec) / 2_000 : undefined;
};

const off: SystemdNotify = { run: () => Effect.never, reloading: (reload) => reload };

/** By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; without the first it does nothing. */
export const make = (environment: NodeJS.ProcessEnv): Effect.Effect<SystemdNotify, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = environment["NOTIFY_SOCKET"];
    if (socket === undefined || socket === "") return off;
    const trouble = yield* Deferred.make<string>();
    const send = yield* makeSender(socket, environment["PATH"] ?? "/usr/bin:/bin", (text) => {
      Deferred.unsafeDone(trouble, Effect.succeed(text));
    });
    const expectedMs = watchdogMs(environment);
    let isReady = false;

    const run = ({ status, whenReady }: Told): Effect.Effect<never> => {
      let toldStatus = "";
      const news = (): ReadonlyArray<string> => {
        const now = status();
        if (now === toldStatus) return [];
        toldStatus = now;
        return [`STATUS=${now}`];
      };
      const becoming = whenReady.pipe(
        Effect.zipRight(
          Effect.sync(() => {
            isReady = true;
            send(["READY=1", ...news()]);
          }),
        ),
      );
      const beat = Effect.sync(() => {
        const assignments = [...(expectedMs === undefined ? [] : ["WATCHDOG=1"]), ...news()];
        if (assignments.length > 0) send(assignments);
      });
      const beating = Effect.forever(Effect.zipRight(beat, Effect.sleep(Math.min(statusMs, expectedMs ?? statusMs))));
      const complaining = Effect.flatMap(Deferred.await(trouble), (text) =>
        Effect.logWarning(
          `the service manager is not told of this node: ${text}. Install systemd-notify (package systemd), or set Type=exec and no WatchdogSec= in the unit`,
        ),
      );
      return Effect.all([becoming, beating, complaining], { concurrency: "unbounded", discard: true }).pipe(
        Effect.zipRight(Effect.never),
        Effect.onExit(() => Effect.sync(() => send(["STOPPING=1", "STATUS=leaving"]))),
      );
    };

    return {
      run,
      reloading: (reload) =>
        Effect.suspend(() => {
          // until it is ready, `READY=1` would say what is not so
          if (!isReady) return reload;
          send(["RELOADING=1", `MONOTONIC_USEC=${monotonicUsec()}`]);
          return Effect.ensuring(
            reload,
            Effect.sync(() => send(["READY=1"])),
          );
        }),
    };
  });
