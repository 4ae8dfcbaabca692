/**
 * Log messages to a syslog server: RFC 5424 over UDP (RFC 5426) or TCP (octet counting of RFC 6587), or the local socket.
 *
 * The local socket commonly takes datagrams, which Node cannot send to a Unix socket: the system's `logger` program
 * stands between, one for the whole time.
 */
import { type ChildProcess, spawn } from "node:child_process";
import * as dgram from "node:dgram";
import * as dns from "node:dns";
import { statSync } from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as Clock from "effect/Clock";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import * as Random from "effect/Random";
import type * as Scope from "effect/Scope";

/** A server, or the local socket (found when no path is given). */
export type SyslogTarget =
  | { readonly _tag: "Udp" | "Tcp"; readonly host: string; readonly port: number }
  | { readonly _tag: "Local"; readonly path?: string };

/** RFC 5424: 2 critical, 3 error, 4 warning, 6 informational, 7 debug. */
export type Severity = 2 | 3 | 4 | 6 | 7;

/** One message. `text` has no control characters. */
export interface SyslogMessage {
  /** Unix ms. */
  readonly timeMs: number;
  readonly severity: Severity;
  readonly text: string;
}

/** The local syslog cannot be used. */
export class SyslogError extends Data.TaggedError("SyslogError")<{
  readonly reason: "NoSocket" | "NoLogger";
  /** The socket. */
  readonly path: string;
  readonly cause?: unknown;
}> {
  override get message(): string {
    const fix = "or log to a server with --syslog-net udp --syslog 127.0.0.1:514, or leave --syslog out";
    return this.reason === "NoSocket"
      ? `there is no syslog socket at ${this.path}: start the syslog daemon, ${fix}`
      : `syslog at ${this.path} is reached through the program "logger", which cannot be started: install it (bsdutils or util-linux), ${fix}`;
  }
}

/** Where systems have the local socket. */
const localPaths = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/** `daemon`, for system services. Source: RFC 5424, table 1. */
const facility = 3;

/** Longer texts are cut: every receiver takes 2,048 bytes, common ones 8,192. Characters. */
const maxText = 2_000;

/** The same in UTF-8, for the program `logger`: it would take what is beyond its own 1,024 for a message of its own, prefix and all. */
const maxTextBytes = 4 * maxText;

/** Messages kept while there is no connection, and bytes that may wait in one that is slow. More are dropped. */
const maxKept = 1_000;
const maxPendingBytes = 262_144;

/** First and longest wait before the next try to connect, how long one try may take, and the goodbye. Ms. */
const retryMs = [500, 30_000] as const;
const connectMs = 10_000;
const endMs = 1_000;

const priority = ({ severity }: SyslogMessage): number => facility * 8 + severity;

/** Printable ASCII without spaces, as the header's fields need it. */
const field = (text: string, length: number): string => text.replaceAll(/[^!-~]/g, "").slice(0, length) || "-";

/** The message as RFC 5424 has it. Pure. */
export const format = (message: SyslogMessage, hostname: string, pid: number): string =>
  `<${priority(message)}>1 ${new Date(message.timeMs).toISOString()} ${field(hostname, 255)} nameq ${pid} - - ${message.text.slice(0, maxText)}`;

/** How often the addresses of a server by UDP are looked up again, ms: nothing else tells that it has moved. */
const lookupMs = 300_000;

/** A connection that stands. */
interface Link {
  readonly write: (message: SyslogMessage) => void;
  /** Bytes that wait. */
  readonly pending: () => number;
  /** Fails when the connection ends by itself; succeeds when another one should take its place. */
  readonly over: Effect.Effect<void, unknown>;
  /** Sends what waits, and ends it. */
  readonly end: Effect.Effect<void>;
}

/** Waits until `emitter` is open; `close` gives up on it. */
const opened = (emitter: NodeJS.EventEmitter, event: string, close: () => void): Effect.Effect<void, unknown> =>
  Effect.async<void, unknown>((resume) => {
    emitter.once(event, () => resume(Effect.void));
    emitter.once("error", (cause) => resume(Effect.fail(cause)));
  }).pipe(Effect.onError(() => Effect.sync(close)));

/** Its end, watched from the start so that it is not missed. */
const endOf = (emitter: NodeJS.EventEmitter, event: string): Effect.Effect<void> => {
  const end = new Promise<void>((resolve) => emitter.once(event, () => resolve()));
  return Effect.promise(() => end);
};

const failLater = (cause: () => unknown) => (end: Effect.Effect<void>) =>
  Effect.zipRight(
    end,
    Effect.suspend(() => Effect.fail(cause())),
  );

/** Ends in an orderly way if that takes no more than its time, else at once. */
const ending = (orderly: () => void, end: Effect.Effect<void>, kill: () => void): Effect.Effect<void> =>
  Effect.sync(orderly).pipe(
    Effect.zipRight(end),
    Effect.timeoutOption(endMs),
    Effect.ensuring(Effect.sync(kill)),
    Effect.asVoid,
  );

const openTcp = (host: string, port: number, hostname: string): Effect.Effect<Link, unknown> =>
  Effect.gen(function* () {
    const socket = net.connect({ host, port, keepAlive: true });
    const end = endOf(socket, "close");
    let cause: unknown = "the server closed the connection";
    socket.on("error", (error) => {
      cause = error;
    });
    socket.resume();
    yield* opened(socket, "connect", () => socket.destroy());
    return {
      write: (message) => {
        const text = format(message, hostname, process.pid);
        socket.write(`${Buffer.byteLength(text)} ${text}`);
      },
      pending: () => socket.writableLength,
      over: failLater(() => cause)(end),
      end: ending(
        () => socket.end(),
        end,
        () => socket.destroy(),
      ),
    };
  });

/** Gives at least one address of a host. */
export type Lookup = (host: string) => Effect.Effect<ReadonlyArray<dns.LookupAddress>, unknown>;

const systemLookup: Lookup = (host) =>
  Effect.async((resume) =>
    dns.lookup(host, { all: true }, (error, found) => resume(error ? Effect.fail(error) : Effect.succeed(found))),
  );

/** Succeeds when a host no longer has an address. While its name cannot be looked up, nothing is known. */
const moved = (host: string, from: string, lookup: Lookup): Effect.Effect<void> =>
  Effect.sleep(lookupMs).pipe(
    Effect.zipRight(Effect.option(lookup(host))),
    Effect.repeat({
      until: (found) => Option.isSome(found) && found.value.every(({ address }) => address !== from),
    }),
    Effect.asVoid,
  );

/** Nobody answers to datagrams, so a server that is not there only costs them. */
const openUdp = (host: string, port: number, hostname: string, lookup: Lookup): Effect.Effect<Link, unknown> =>
  Effect.gen(function* () {
    const [{ address, family } = { address: host, family: 4 }] = yield* lookup(host);
    const socket = dgram.createSocket(family === 6 ? "udp6" : "udp4");
    const end = endOf(socket, "close");
    socket.connect(port, address);
    yield* opened(socket, "connect", () => socket.close());
    // a refused datagram is told with the next one, which is sent all the same
    socket.on("error", () => {});
    return {
      write: (message) => socket.send(format(message, hostname, process.pid), () => {}),
      pending: () => socket.getSendQueueSize(),
      over: Effect.raceFirst(failLater(() => "the socket was closed")(end), moved(host, address, lookup)),
      end: ending(
        () => socket.close(),
        end,
        () => {},
      ),
    };
  });

const isSocket = (path: string): boolean => {
  try {
    return statSync(path).isSocket();
  } catch {
    return false;
  }
};

const openLocal = (path: string): Effect.Effect<Link, unknown> =>
  Effect.gen(function* () {
    let child: ChildProcess;
    try {
      child = spawn(
        "logger",
        ["--socket", path, "--prio-prefix", "--size", `${maxTextBytes}`, "--tag", "nameq", `--id=${process.pid}`],
        { stdio: ["pipe", "ignore", "pipe"], detached: true },
      );
    } catch (cause) {
      // for want of memory
      return yield* Effect.fail(cause);
    }
    const end = endOf(child, "exit");
    let cause: unknown = 'the program "logger" ended';
    // a line may come in parts
    let said = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-200);
      cause = `logger: ${said.trim().split("\n").at(-1)}`;
    });
    child.stdin?.on("error", () => {});
    yield* opened(child, "spawn", () => child.kill());
    return {
      write: (message) => child.stdin?.write(`<${priority(message)}>${message.text.slice(0, maxText)}\n`),
      pending: () => child.stdin?.writableLength ?? 0,
      over: failLater(() => cause)(end),
      end: ending(
        () => child.stdin?.end(),
        end,
        () => child.kill(),
      ),
    };
  });

/**
 * A sender that never waits and never throws: messages are kept while there is no connection and dropped when too many
 * wait; how many were lost is logged when there is room again. `tell` hears when the server goes out of reach and when it is back.
 */
export const make = (
  target: SyslogTarget,
  tell: (timeMs: number, text: string) => void,
  lookup = systemLookup,
): Effect.Effect<(message: SyslogMessage) => void, SyslogError, Scope.Scope> =>
  Effect.gen(function* () {
    const hostname = os.hostname();
    const path = target._tag === "Local" ? (target.path ?? localPaths.find(isSocket) ?? localPaths[0]!) : "";
    if (target._tag === "Local" && !isSocket(path)) return yield* new SyslogError({ reason: "NoSocket", path });
    const name = target._tag === "Local" ? path : `${target.host}:${target.port}`;
    const open =
      target._tag === "Local"
        ? openLocal(path)
        : target._tag === "Tcp"
          ? openTcp(target.host, target.port, hostname)
          : openUdp(target.host, target.port, hostname, lookup);

    const kept: Array<SyslogMessage> = [];
    const connected = yield* Effect.makeLatch(false);
    let link: Link | undefined;
    let lost = 0;
    let down = false;
    let wait: number = retryMs[0];

    const send = (message: SyslogMessage): void => {
      if (link === undefined) {
        if (kept.length < maxKept) kept.push(message);
        else lost++;
      } else if (link.pending() > maxPendingBytes) {
        lost++;
      } else {
        if (lost > 0) {
          const text = `${lost} log messages were lost: the syslog server was out of reach or slow`;
          link.write({ timeMs: message.timeMs, severity: 4, text });
          lost = 0;
        }
        link.write(message);
      }
    };

    const session = Effect.gen(function* () {
      const opening = Effect.timeoutFail(open, { duration: connectMs, onTimeout: () => "no answer" });
      const opened = yield* Effect.uninterruptibleMask((restore) =>
        Effect.tap(restore(opening), ({ end }) => Effect.addFinalizer(() => end)),
      );
      const sinceMs = yield* Clock.currentTimeMillis;
      if (down) tell(sinceMs, `syslog at ${name} is back`);
      down = false;
      link = opened;
      for (const message of kept.splice(0)) send(message);
      yield* connected.open;
      yield* opened.over.pipe(
        Effect.ensuring(
          Effect.map(Effect.zipRight(connected.close, Clock.currentTimeMillis), (now) => {
            link = undefined;
            // a server that takes connections only to drop them is waited for as one that is away
            if (now - sinceMs > retryMs[1]) wait = retryMs[0];
          }),
        ),
      );
    }).pipe(
      Effect.scoped,
      Effect.catchAll((cause) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          const reason = cause instanceof Error ? cause.message : String(cause);
          if (!down)
            tell(now, `syslog at ${name} is out of reach (${reason}): trying again, some messages may be lost`);
          down = true;
        }),
      ),
    );

    const pause = Effect.gen(function* () {
      yield* Effect.sleep(wait * (yield* Random.nextRange(0.5, 1)));
      wait = Math.min(wait * 2, retryMs[1]);
    });

    if (target._tag === "Local") {
      // fail at the start, not later, when there is no such program
      yield* open.pipe(
        Effect.flatMap(({ end }) => end),
        Effect.mapError((cause) => new SyslogError({ reason: "NoLogger", path, cause })),
      );
    }
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(session, pause)));
    // the last words of a program that ends at once
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => (kept.length === 0 ? Effect.void : Effect.timeoutOption(connected.await, endMs))),
    );
    return send;
  });
