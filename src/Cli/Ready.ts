/** Whether a program is ready to serve. */
import * as Effect from "effect/Effect";
import { spawn } from "node:child_process";
import * as http from "node:http";
import * as https from "node:https";
import { connect } from "node:net";
import { urlToHttpOptions } from "node:url";
import type { Environment } from "./Argv.js";

/** What to ask. */
export type Check =
  | { readonly _tag: "Shell"; readonly command: string }
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Http"; readonly url: string };

/** CMD, tcp:[HOST:]PORT or http(s)://...; undefined when it is none. Pure. */
export const parse = (text: string): Check | undefined => {
  if (text.startsWith("tcp:")) {
    const match = /^tcp:(?:\[?([^[\]]+)\]?:)?(\d{1,5})$/.exec(text);
    const port = Number(match?.[2]);
    return match !== null && port >= 1 && port <= 65_535
      ? { _tag: "Tcp", host: match[1] ?? "localhost", port }
      : undefined;
  }
  const url = /^(?:http:)?(https?:\/\/.+)$/.exec(text)?.[1];
  if (url !== undefined) {
    try {
      // also fails on a name or password whose % starts no escape, which Node cannot send
      urlToHttpOptions(new URL(url));
      return { _tag: "Http", url };
    } catch {
      return undefined;
    }
  }
  return /^https?:/.test(text) || text.trim() === "" ? undefined : { _tag: "Shell", command: text };
};

/** An answer later than this is none. */
const patienceMs = 5_000;

const ask = (check: Check, environment: Environment): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const answer = (ready: boolean): void => resume(Effect.succeed(ready));
    switch (check._tag) {
      case "Shell": {
        // of a group of its own, so that what it started ends with it
        const child = spawn("/bin/sh", ["-c", check.command], { env: environment, stdio: "ignore", detached: true });
        child.once("error", () => answer(false)).once("exit", (status) => answer(status === 0));
        return Effect.sync(() => {
          if (child.pid === undefined) return;
          try {
            process.kill(-child.pid, "SIGKILL");
          } catch {
            // it has just ended
          }
        });
      }
      case "Tcp": {
        const socket = connect(check.port, check.host);
        socket
          .on("connect", () => {
            socket.destroy();
            answer(true);
          })
          .on("error", () => answer(false));
        return Effect.sync(() => socket.destroy());
      }
      case "Http": {
        const request = (check.url.startsWith("https:") ? https : http).get(check.url, { agent: false }, (response) => {
          response.destroy();
          answer(response.statusCode !== undefined && response.statusCode >= 200 && response.statusCode < 400);
        });
        request.on("error", () => answer(false));
        return Effect.sync(() => request.destroy());
      }
    }
  });

/** Asks once: a status 0, a connection, or an HTTP status from 200 to 399 within 5 seconds. What cannot be asked is not ready. */
export const isReady = (check: Check, environment: Environment): Effect.Effect<boolean> =>
  Effect.timeoutTo(
    Effect.catchAllDefect(ask(check, environment), () => Effect.succeed(false)),
    {
      duration: patienceMs,
      onSuccess: (ready) => ready,
      onTimeout: () => false,
    },
  );
