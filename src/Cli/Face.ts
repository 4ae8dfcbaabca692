/** A node's HTTP face as the commands for operators use it: where it is, what it answers, and its events. */
import * as http from "node:http";
import * as https from "node:https";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as ParseResult from "effect/ParseResult";
import * as Redacted from "effect/Redacted";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as Defaults from "../Defaults.js";
import * as Json from "../Json.js";
import { escapeForPeople } from "./Escape.js";
import { type UsageError, usageError, withoutPassword } from "./UsageError.js";

/** Where a face is, and how it was found. */
export interface Face {
  /** Without a slash at the end. */
  readonly url: string;
  readonly token: Redacted.Redacted | undefined;
  /** `state`: from the node's own note, which it takes away when it ends. */
  readonly from: "option" | "state";
}

/** There is no face, or none that answers as one. Never holds the token. */
export class FaceError extends Data.TaggedError("FaceError")<{
  readonly reason: "None" | "Unreadable" | "Unreachable" | "Timeout" | "Token" | "Busy" | "Foreign";
  /** Where it was looked for. */
  readonly url: string;
  readonly detail?: string;
}> {
  override get message(): string {
    return `${this.problem}: ${this.advice}`;
  }

  /** What is wrong. */
  get problem(): string {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`;
    switch (this.reason) {
      case "None":
        return `no node of this host says where its HTTP face is (${this.url} is not there)`;
      case "Unreadable":
        return `${this.url}, where a node says where its HTTP face is, cannot be read${detail}`;
      case "Unreachable":
        return `${this.url} is out of reach${detail}`;
      case "Timeout":
        return `${this.url} does not answer${detail}`;
      case "Token":
        return `${this.url} wants another token${detail}`;
      case "Busy":
        return `${this.url} cannot answer now${detail}`;
      case "Foreign":
        return `${this.url} does not answer as a node${detail}`;
    }
  }

  /** What to do. */
  get advice(): string {
    return advice[this.reason];
  }
}

const advice: Readonly<Record<FaceError["reason"], string>> = {
  None: `start one with nameq serve --http ${Defaults.port}, or name it with --http`,
  Unreadable: "ask as the node's user or as root, or name the face with --http",
  Unreachable: "see whether the node runs, and with which --http",
  Timeout: "see whether its node is busy or stopped, and the network between",
  Token: "name the file that its node has with --http-token-file",
  Busy: "try again in a minute; then see its log",
  Foreign: "check --http; the node's version may be another one",
};

/** For the head of an answer; the longest that the face itself waits for others is 2 seconds. */
const headWithin = "5 seconds";

/** For a whole answer, all its bytes. */
const answerWithin = "30 seconds";

/** Silence of the events after which the connection is lost: the face says something every 15 seconds. */
const silentAfter = "40 seconds";

/** Longest answer or event, bytes: several times what the largest fleet makes. */
const maxBytes = 64 * 1024 * 1024;

const codeOf = (cause: unknown): string =>
  cause instanceof Error ? ("code" in cause ? String(cause.code) : cause.message) : String(cause);

/** An address that stands for all of a host's own is reached at this host's loopback. */
const reachable: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "[::]": "[::1]" };

/** The URL that `--http` means; undefined when it means none. Pure. */
export const parseWhere = (text: string): string | undefined => {
  const full = /^\d+$/.test(text) ? `http://127.0.0.1:${text}` : /^https?:\/\//i.test(text) ? text : `http://${text}`;
  if (!URL.canParse(full)) return undefined;
  const url = new URL(full);
  // a password in it would be shown in messages
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") return undefined;
  const port = url.port === "" ? "" : `:${url.port}`;
  return `${url.protocol}//${reachable[url.hostname] ?? url.hostname}${port}${url.pathname.replace(/\/+$/, "")}`;
};

export interface Where {
  readonly http: string | undefined;
  readonly httpTokenFile: string | undefined;
  readonly stateDir: string | undefined;
}

const readToken = (path: string): Effect.Effect<Redacted.Redacted, UsageError> =>
  Effect.suspend(() => {
    try {
      const token = readFileSync(path, "utf8").trim();
      return /^[!-~]+$/.test(token)
        ? Effect.succeed(Redacted.make(token))
        : Effect.fail(usageError(`--http-token-file: ${path} holds no token: one line of letters, digits and signs`));
    } catch (cause) {
      return Effect.fail(usageError(`--http-token-file: ${path} cannot be read (${codeOf(cause)}); check the path`));
    }
  });

/** Finds the face: as named, or by the note of the state directory's node. */
export const find = (where: Where): Effect.Effect<Face, FaceError | UsageError> =>
  Effect.gen(function* () {
    const token = where.httpTokenFile === undefined ? undefined : yield* readToken(where.httpTokenFile);
    // the variable NAMEQ_HTTP is the node's too, where "off" is a value, and port 0 one that the system chooses
    if (where.http !== undefined && where.http !== "off") {
      const url = parseWhere(where.http);
      if (url === undefined) {
        return yield* usageError(
          `--http: "${escapeForPeople(withoutPassword(where.http))}" is no place; give a port, ADDRESS:PORT or a URL such as http://127.0.0.1:${Defaults.port}`,
        );
      }
      // Node would take it for the protocol's own port, and somebody else may have that
      if (new URL(url).port !== "0") return { url, token, from: "option" };
    }
    const note = join(where.stateDir ?? Defaults.stateDir, ".http");
    const text = yield* Effect.try({
      try: () => readFileSync(note, "utf8"),
      catch: (cause) =>
        codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR"
          ? new FaceError({ reason: "None", url: note })
          : new FaceError({ reason: "Unreadable", url: note, detail: codeOf(cause) }),
    });
    const url = parseWhere(text.trim());
    return url === undefined
      ? yield* new FaceError({ reason: "Foreign", url: note, detail: "it holds no URL" })
      : { url, token, from: "state" };
  });

const Refusal = Schema.parseJson(Schema.Struct({ error: Schema.Struct({ message: Schema.String }) }));

/** What a refusal says, if it is a node's. */
const reasonOf = (response: http.IncomingMessage): Effect.Effect<string | undefined> =>
  Effect.tryPromise(async () => {
    let text = "";
    for await (const chunk of response as AsyncIterable<Buffer>) {
      text += chunk.toString();
      if (text.length > 4_096) break;
    }
    return text;
  }).pipe(
    Effect.flatMap(Schema.decodeUnknown(Refusal)),
    Effect.map(({ error }): string | undefined => escapeForPeople(error.message.slice(0, 300))),
    Effect.timeout(headWithin),
    Effect.orElseSucceed(() => undefined),
  );

/** The head of an answer with status 200; its body is dropped with the scope. */
const open = (
  face: Face,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Effect.Effect<http.IncomingMessage, FaceError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      (face.url.startsWith("https:") ? https : http).request(`${face.url}${path}`, {
        agent: false,
        headers: {
          ...headers,
          ...(face.token !== undefined && { authorization: `Bearer ${Redacted.value(face.token)}` }),
        },
      }),
    ),
    (request) => Effect.sync(() => request.destroy()),
  ).pipe(
    Effect.flatMap((request) =>
      Effect.async<http.IncomingMessage, FaceError>((resume) => {
        // stays: a connection that breaks later tells the reader of the body too
        request.on("error", (cause) =>
          resume(new FaceError({ reason: "Unreachable", url: face.url, detail: codeOf(cause) })),
        );
        request.on("response", (response) => resume(Effect.succeed(response)));
        request.end();
      }),
    ),
    Effect.timeoutFail({
      duration: headWithin,
      onTimeout: () => new FaceError({ reason: "Timeout", url: face.url, detail: `not within ${headWithin}` }),
    }),
    Effect.flatMap((response) => {
      const { statusCode = 0 } = response;
      if (statusCode === 200) return Effect.succeed(response);
      const reason = statusCode === 401 ? "Token" : statusCode === 503 ? "Busy" : "Foreign";
      return Effect.flatMap(reasonOf(response), (said) =>
        Effect.fail(
          new FaceError({
            reason,
            url: face.url,
            detail: `HTTP ${statusCode} for ${path}${said === undefined ? "" : `, ${said}`}`,
          }),
        ),
      );
    }),
  );

const broken =
  (face: Face) =>
  (cause: unknown): FaceError =>
    cause instanceof FaceError ? cause : new FaceError({ reason: "Unreachable", url: face.url, detail: codeOf(cause) });

const tooLong = (face: Face): FaceError =>
  new FaceError({ reason: "Foreign", url: face.url, detail: `more than ${maxBytes} bytes` });

/** An answer as exact JSON on one line. */
export const get = (face: Face, path: string): Effect.Effect<string, FaceError> =>
  Effect.gen(function* () {
    const response = yield* open(face, path);
    const text = yield* Effect.tryPromise({
      try: async () => {
        const chunks: Array<Buffer> = [];
        let size = 0;
        for await (const chunk of response as AsyncIterable<Buffer>) {
          size += chunk.length;
          if (size > maxBytes) throw tooLong(face);
          chunks.push(chunk);
        }
        return Buffer.concat(chunks, size).toString();
      },
      catch: broken(face),
    });
    // what is nested deeply would overflow the stack of what reads it
    const exact = Json.compact(text);
    return Json.isFault(exact)
      ? yield* new FaceError({ reason: "Foreign", url: face.url, detail: `no JSON at character ${exact.offset + 1}` })
      : exact;
  }).pipe(
    Effect.scoped,
    Effect.timeoutFail({
      duration: answerWithin,
      onTimeout: () => new FaceError({ reason: "Timeout", url: face.url, detail: `not within ${answerWithin}` }),
    }),
  );

// --- what it says ---------------------------------------------------------------------------------------------------

const orNull = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optionalWith(Schema.NullOr(schema), { default: () => null });

/** A node as another one sees it. */
export const Node = Schema.Struct({
  address: Schema.String,
  state: Schema.Literal("alive", "silent", "left", "forgotten"),
  source: Schema.Literal("udp", "registry"),
  features: Schema.Number,
  version: orNull(Schema.String),
  legacy: Schema.Boolean,
  heardAt: orNull(Schema.String),
  heardMs: Schema.Number,
  udpMs: orNull(Schema.Number),
  clockOffsetMs: orNull(Schema.Number),
});
export type Node = typeof Node.Type;

/** Something that is wrong now. */
export const Condition = Schema.Struct({
  name: Schema.String,
  severity: Schema.Literal("error", "warning", "info"),
  message: Schema.String,
  since: orNull(Schema.String),
});
export type Condition = typeof Condition.Type;

/** The node that answers. */
export const Self = Schema.Struct({
  address: Schema.String,
  port: Schema.Number,
  version: orNull(Schema.String),
  startedAt: orNull(Schema.String),
  ready: Schema.Boolean,
  features: Schema.Number,
  registry: orNull(Schema.String),
  stateDir: orNull(Schema.String),
  registryClockOffsetMs: orNull(Schema.Number),
});
export type Self = typeof Self.Type;

/** `GET /v1/nodes`. */
export const Nodes = Schema.Struct({
  /** The clock of the node; null: it starts, or is of a version that does not say. */
  at: orNull(Schema.String),
  self: Self,
  nodes: Schema.Array(Node),
  conditions: Schema.Array(Condition),
});
export type Nodes = typeof Nodes.Type;

/** `GET /v1/reachability`. */
export const Reachability = Schema.Struct({
  waitedMs: Schema.Number,
  nodes: Schema.Array(
    Schema.Struct({
      address: Schema.String,
      answered: Schema.Boolean,
      rttMs: orNull(Schema.Number),
      canAnswer: Schema.Boolean,
    }),
  ),
});
export type Reachability = typeof Reachability.Type;

/** Reads what the face said, by its schema. */
export const decode = <A, I>(face: Face, schema: Schema.Schema<A, I>, text: string): Effect.Effect<A, FaceError> =>
  Schema.decodeUnknown(Schema.parseJson(schema))(text).pipe(
    Effect.mapError((error) => {
      const [first] = ParseResult.ArrayFormatter.formatErrorSync(error);
      const detail = first === undefined ? "" : `${first.path.join(".")} ${first.message}`.trim();
      return new FaceError({
        reason: "Foreign",
        url: face.url,
        detail: escapeForPeople(detail.split("\n", 1)[0]!.slice(0, 200)),
      });
    }),
  );

/** `GET /v1/nodes`. */
export const nodes = (face: Face): Effect.Effect<Nodes, FaceError> =>
  Effect.flatMap(get(face, "/v1/nodes"), (text) => decode(face, Nodes, text));

/** `GET /v1/reachability`: asks all peers, and takes up to 2 seconds. */
export const reachability = (face: Face): Effect.Effect<Reachability, FaceError> =>
  Effect.flatMap(get(face, "/v1/reachability"), (text) => decode(face, Reachability, text));

// --- events ---------------------------------------------------------------------------------------------------------

/** One server-sent event. */
export interface FaceEvent {
  readonly event: string;
  readonly data: string;
  /** Of the newest event that had one: from where to go on. */
  readonly id: string;
}

/** Splits a stream of server-sent events (WHATWG HTML, section 9.2; lines end with LF or CRLF) as its parts come. */
export class EventParser {
  /** A line that is not yet whole. */
  private rest: Array<string> = [];
  private event = "";
  private data: Array<string> = [];
  /** Characters of what waits for its end. */
  private size = 0;
  private id = "";
  private readonly decoder = new TextDecoder();

  /** The events that are complete with this part; undefined when one gets longer than any node's. */
  push(part: Uint8Array): ReadonlyArray<FaceEvent> | undefined {
    const [first = "", ...more] = this.decoder.decode(part, { stream: true }).split("\n");
    this.rest.push(first);
    this.size += first.length;
    const events: Array<FaceEvent> = [];
    for (const next of more) {
      const event = this.line(this.rest.join("").replace(/\r$/, ""));
      if (event !== undefined) events.push(event);
      this.rest = [next];
      this.size += next.length;
    }
    return this.size > maxBytes ? undefined : events;
  }

  private line(line: string): FaceEvent | undefined {
    if (line !== "") {
      const [, field, text = ""] = /^([^:]*)(?::[ ]?(.*))?$/s.exec(line)!;
      if (field === "event") this.event = text;
      // it goes back in a header, where other characters may not stand
      else if (field === "id" && /^[ -~]*$/.test(text)) this.id = text;
      else if (field === "data") this.data.push(text);
      return undefined;
    }
    const { data, event, id } = this;
    this.event = "";
    this.data = [];
    this.size = 0;
    return data.length === 0 ? undefined : { event: event || "message", data: data.join("\n"), id };
  }
}

/** What has come of a body since the last look, once there is something. Unlike an iterator's, the wait can be given up. */
const part = (face: Face, response: http.IncomingMessage): Effect.Effect<Buffer, FaceError> =>
  Effect.async((resume) => {
    const stop = (): void => {
      response.off("readable", look).off("error", lost).off("close", closed);
    };
    const look = (): void => {
      const bytes = response.read() as Buffer | null;
      if (bytes === null) return;
      stop();
      resume(Effect.succeed(bytes));
    };
    const lost = (cause: unknown): void => {
      stop();
      resume(Effect.fail(broken(face)(cause)));
    };
    const closed = (): void => lost(new Error("it closed the connection"));
    response.on("readable", look).on("error", lost).on("close", closed);
    if (response.closed) closed();
    else look();
    return Effect.sync(stop);
  });

/** The events of one connection, in the parts in which they came. It fails when the connection is lost, and never ends. */
export const events = (face: Face, lastId = ""): Stream.Stream<ReadonlyArray<FaceEvent>, FaceError> =>
  Stream.unwrapScoped(
    Effect.map(
      open(face, "/v1/events", {
        accept: "text/event-stream",
        ...(lastId !== "" && { "last-event-id": lastId }),
      }),
      (response) => {
        const parser = new EventParser();
        // someone hears of an error also between two parts
        response.on("error", () => {});
        return Stream.repeatEffect(
          part(face, response).pipe(
            Effect.timeoutFail({
              duration: silentAfter,
              onTimeout: () => new FaceError({ reason: "Timeout", url: face.url, detail: `silent for ${silentAfter}` }),
            }),
            Effect.flatMap((bytes) => {
              const events = parser.push(bytes);
              return events === undefined ? Effect.fail(tooLong(face)) : Effect.succeed(events);
            }),
          ),
        );
      },
    ),
  );
