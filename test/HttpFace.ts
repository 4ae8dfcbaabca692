/** The HTTP face of a simulated fleet's first node, and clients for it: for the tests of the face. */
import { mkdtempSync } from "node:fs";
import * as http from "node:http";
import * as net from "node:net";
import { join } from "node:path";
import * as Effect from "effect/Effect";
import * as Logger from "effect/Logger";
import type * as Scope from "effect/Scope";
import { Cluster } from "../src/Cluster.js";
import * as Http from "../src/Http.js";
import { Metrics } from "../src/Metrics.js";

/** A fleet of a test's own. */
export const fleet = (options: Parameters<typeof Cluster.make>[0]): Effect.Effect<Cluster, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const cluster = Cluster.make(options);
      // so that its first node runs
      cluster.advance("1 millis");
      return cluster;
    }),
    (cluster) => Effect.sync(() => cluster.close()),
  );

/** The face of a fleet's first node on a port that the system chooses, with directories below `base`. Gives its URL. */
export const face = (
  cluster: Cluster,
  base: string,
  options: Partial<Http.HttpOptions> & { readonly log?: Array<string> } = {},
): Effect.Effect<string, Http.HttpError, Scope.Scope> =>
  Effect.suspend(() => {
    const node = cluster.node(0);
    const { log = [], ...rest } = options;
    const logger = Logger.make(({ cause, message }) => log.push(`${String(message)} ${String(cause)}`));
    return Http.make({
      listen: { host: "127.0.0.1", port: 0 },
      stateDir: mkdtempSync(join(base, "state-")),
      view: node.view,
      address: node.address,
      port: 17106,
      registry: "s3://bucket/prefix/",
      ...rest,
    }).pipe(
      Effect.provideService(Metrics, node.metrics!),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
    );
  });

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/** One request on a connection of its own. */
export const ask = (
  url: string,
  path: string,
  options: { readonly method?: string; readonly headers?: http.OutgoingHttpHeaders; readonly body?: string } = {},
): Effect.Effect<Answer> =>
  Effect.async((resume) => {
    const { hostname, port } = new URL(url);
    const { body, ...rest } = options;
    const request = http.request({ hostname, port, path, agent: false, ...rest }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, body: text })),
      );
    });
    request.on("error", (error) => resume(Effect.die(error)));
    request.end(body);
  });

/** Sends bytes as they are, and gives what comes back until the server closes. */
export const raw = (url: string, bytes: string | Buffer): Effect.Effect<string> =>
  Effect.async((resume) => {
    const { hostname, port } = new URL(url);
    let text = "";
    const socket = net.connect({ host: hostname, port: Number(port) }, () => socket.write(bytes));
    socket.setEncoding("latin1").on("data", (chunk: string) => (text += chunk));
    // a server that has said its word may not read the rest
    socket.on("error", () => resume(Effect.succeed(text)));
    socket.on("close", () => resume(Effect.succeed(text)));
    return Effect.sync(() => socket.destroy());
  });

export interface ServerEvent {
  readonly name: string;
  readonly id: string;
  /** As it came. */
  readonly data: string;
}

/** A client of the event stream that reads what comes. */
export interface Follower {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly events: ReadonlyArray<ServerEvent>;
  /** All of it, comments too. */
  readonly text: () => string;
  readonly ended: () => boolean;
  readonly close: () => void;
}

export const follow = (
  url: string,
  options: { readonly path?: string; readonly headers?: http.OutgoingHttpHeaders } = {},
): Effect.Effect<Follower, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<Follower>((resume) => {
      const { hostname, port } = new URL(url);
      const { headers = {}, path = "/v1/events" } = options;
      const request = http.request({ hostname, port, path, agent: false, headers }, (response) => {
        const events: Array<ServerEvent> = [];
        let text = "";
        let rest = "";
        let ended = false;
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
          const blocks = (rest + chunk).split("\n\n");
          rest = blocks.pop()!;
          for (const block of blocks) {
            const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2) as [string, string]));
            const data = fields.get("data");
            if (data !== undefined) events.push({ name: fields.get("event")!, id: fields.get("id")!, data });
          }
        });
        response.on("error", () => {});
        response.on("close", () => (ended = true));
        const close = () => request.destroy();
        const { headers, statusCode: status = 0 } = response;
        resume(Effect.succeed({ status, headers, events, text: () => text, ended: () => ended, close }));
      });
      request.on("error", () => {});
      request.end();
    }),
    (follower) => Effect.sync(() => follower.close()),
  );

/** Waits, in real time, until it is true. */
export const until = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    const end = Date.now() + 15_000;
    const look = (): void => {
      if (condition()) resume(Effect.void);
      else if (Date.now() > end) resume(Effect.dieMessage(`not within 15 s: ${what}`));
      else setTimeout(look, 2);
    };
    look();
  });
