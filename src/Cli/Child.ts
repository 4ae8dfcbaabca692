/** Programs that commands run. */
import * as Effect from "effect/Effect";
import { spawn } from "node:child_process";
import { constants } from "node:os";
import type { Environment } from "./Argv.js";
import { ExitStatus } from "./ExitStatus.js";

/** How a program ended. */
export interface Ended {
  /** 128 + the signal's number when a signal ended it, as shells have it. */
  readonly status: number;
  /** To be read after the program's name. */
  readonly how: string;
}

/** A program that was started. */
export interface Child {
  /** Passes a signal on; nothing when it has ended. */
  readonly kill: (signal: NodeJS.Signals) => void;
  /** Waits for its end. */
  readonly ended: Effect.Effect<Ended>;
}

export interface StartOptions {
  readonly environment: Environment;
  /** Its standard input; undefined: ours. */
  readonly input?: string;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such program: check its name and PATH",
  EACCES: "this user may not execute it: set its mode (chmod +x)",
  E2BIG: "its arguments and environment are too large: make them smaller",
};

/** Starts a program with our standard output and error. Fails with a shell's status: 127, or 126 when it is there. */
export const start = (
  command: readonly [program: string, ...args: ReadonlyArray<string>],
  { environment, input }: StartOptions,
): Effect.Effect<Child, ExitStatus> =>
  Effect.async((resume) => {
    const [program, ...args] = command;
    const cannot = (cause: NodeJS.ErrnoException): Effect.Effect<never, ExitStatus> =>
      new ExitStatus({
        status: cause.code === "ENOENT" ? 127 : 126,
        message: `cannot start ${program}: ${reasons[cause.code ?? ""] ?? cause.message}`,
      });
    try {
      const child = spawn(program, args, {
        env: environment,
        stdio: [input === undefined ? "inherit" : "pipe", "inherit", "inherit"],
      });
      const ended = new Promise<Ended>((done) => {
        child.once("exit", (status, signal) =>
          done(
            signal === null
              ? { status: status ?? 0, how: `ended with status ${status}` }
              : { status: 128 + constants.signals[signal], how: `was ended by ${signal}` },
          ),
        );
      });
      // after the start: a signal that could not be passed on, because the program has just ended
      child.on("error", (cause) => resume(cannot(cause)));
      // it need not read all of it, or any
      child.stdin?.on("error", () => {});
      child.stdin?.end(input);
      if (child.pid !== undefined) {
        resume(
          Effect.succeed({
            kill: (signal) => {
              child.kill(signal);
            },
            ended: Effect.promise(() => ended),
          }),
        );
      }
    } catch (cause) {
      resume(cause instanceof Error ? cannot(cause) : Effect.die(cause));
    }
  });
