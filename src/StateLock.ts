/**
 * One daemon a state directory. The lock is a listening Unix socket: the kernel closes it when its process dies,
 * however it dies, so nothing stale is ever in the way; and it is found through the directory, so it also holds between
 * network and process namespaces (containers that share a volume), as long as they run on one kernel.
 *
 * Every starter publishes a socket of its own under `DIRECTORY/.lock/`, then asks all others that it finds there. Of two
 * starters the one that published later always sees the other, so never do both win; the one with the lower name waits,
 * the other withdraws and tries again. A name is random, and published by rename once its socket listens: so a socket
 * that refuses a connection is dead for ever, and anyone may remove it without a race.
 */
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as ExecutionStrategy from "effect/ExecutionStrategy";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { connect, createServer } from "node:net";
import { hostname } from "node:os";

/** The process that has the lock, as it names itself (in its own process namespace). */
export interface Holder {
  readonly pid: number;
  readonly host: string;
}

/** The lock was not taken: somebody holds it, or no socket can be made there. */
export class StateLockError extends Data.TaggedError("StateLockError")<{
  readonly reason: "Held" | "Unusable";
  readonly directory: string;
  /** Unknown when the holder does not answer (stopped, or busy). */
  readonly holder?: Holder | undefined;
  readonly cause?: unknown;
}> {
  override get message(): string {
    if (this.reason === "Unusable") {
      return `cannot lock ${this.directory} (${String(this.cause)}): use a directory of this user on a local file system`;
    }
    const who = this.holder === undefined ? "it does not answer" : `pid ${this.holder.pid} on ${this.holder.host}`;
    return `another nameq serve has ${this.directory} (${who}): stop it first, or use another directory`;
  }
}

/** A taken lock. */
export interface StateLock {
  /** Takes the lock again if its file was removed from outside; fails when another process has it meanwhile. */
  readonly check: Effect.Effect<void, StateLockError>;
}

/** What became of a question: `silent` is alive but gave no whole answer in time. */
type Answer =
  | "dead"
  | "silent"
  | { readonly owner: boolean; readonly holder: Holder }
  | { readonly failed: NodeJS.ErrnoException };

const answerWithin = "1 second";
const giveUpAfter = "10 seconds";
const askAgainAfter = "20 millis";
/** A socket address has 108 bytes with the closing zero. Node cuts a longer path without a word. */
const maxSocketPath = 107;
const socketName = /^(?:new-)?[0-9a-f]{16}$/;

/** Asks the process behind a socket who it is. */
const ask = (path: string): Effect.Effect<Answer> =>
  Effect.async<Answer>((resume) => {
    const socket = connect({ path });
    let text = "";
    socket.setEncoding("utf8");
    socket.on("data", (part: string) => {
      text += part;
      if (text.length > 1024) socket.destroy();
    });
    socket.on("error", (failed: NodeJS.ErrnoException) => {
      const { code } = failed;
      if (code === "ECONNREFUSED" || code === "ENOENT") resume(Effect.succeed("dead"));
      // its queue is full, or it ended while we asked: the next question tells
      else if (code === "EAGAIN" || code === "ECONNRESET" || code === "EPIPE") resume(Effect.succeed("silent"));
      else resume(Effect.succeed({ failed }));
    });
    socket.on("close", () => {
      const [, role, pid, host = ""] = /^(owner|candidate) (\d+) (.*)\n$/.exec(text) ?? [];
      resume(
        Effect.succeed(role === undefined ? "silent" : { owner: role === "owner", holder: { pid: Number(pid), host } }),
      );
    });
    return Effect.sync(() => socket.destroy());
  }).pipe(Effect.timeoutTo({ duration: answerWithin, onSuccess: (answer) => answer, onTimeout: () => "silent" }));

interface Candidate {
  readonly name: string;
  /** A path to the lock's directory that is short enough for socket addresses. */
  readonly reach: string;
  owner: boolean;
}

/**
 * A path to the lock's directory on which a socket's name still fits into a socket address.
 */
const shortPath = (lockDirectory: string, name: string): Effect.Effect<string, Error, Scope.Scope> => {
  if (Buffer.byteLength(`${lockDirectory}/new-${name}`) <= maxSocketPath) return Effect.succeed(lockDirectory);
  return Effect.acquireRelease(
    Effect.try(() => fs.openSync(lockDirectory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)),
    (open) => Effect.sync(() => fs.closeSync(open)),
  ).pipe(Effect.map((descriptor) => `/proc/self/fd/${descriptor}`));
};

/** A socket of our own that listens, and is published; its scope takes it back. */
const publish = Effect.fnUntraced(function* (lockDirectory: string) {
  // not from the Random service: a test's seed must not give two processes one name
  const name = randomBytes(8).toString("hex");
  yield* Effect.try(() => fs.mkdirSync(lockDirectory, { recursive: true, mode: 0o700 }));
  const reach = yield* shortPath(lockDirectory, name);
  const candidate: Candidate = { name, reach, owner: false };
  const server = createServer((socket) => {
    // whoever asked and went away needs no answer
    socket.on("error", () => socket.destroy());
    socket.unref();
    socket.end(`${candidate.owner ? "owner" : "candidate"} ${process.pid} ${hostname()}\n`);
  });
  yield* Effect.acquireRelease(
    Effect.async<void, Error>((resume) => {
      // stays: a later failure to accept (no descriptors) makes us silent to the asker, and we are still alive
      server.on("error", (error) => resume(Effect.fail(error)));
      server.listen({ path: `${reach}/new-${name}` }, () => resume(Effect.void));
    }),
    () => Effect.sync(() => server.close()),
  );
  server.unref();
  yield* Effect.acquireRelease(
    Effect.try(() => fs.renameSync(`${lockDirectory}/new-${name}`, `${lockDirectory}/${name}`)),
    // what cannot be removed is dead in a moment, and the next starter removes it
    () => Effect.ignore(Effect.try(() => fs.rmSync(`${lockDirectory}/${name}`, { force: true }))),
  );
  return candidate;
});

/** The sockets that are published, but for one's own. */
const published = (lockDirectory: string, own?: string): ReadonlyArray<string> =>
  fs
    .readdirSync(lockDirectory, { withFileTypes: true })
    .filter((entry) => entry.isSocket() && socketName.test(entry.name) && entry.name !== own)
    .map((entry) => entry.name);

/** One try: the path of the lock's file, or undefined when it is worth trying again. */
const attempt = Effect.fnUntraced(function* (directory: string) {
  const lockDirectory = `${directory}/.lock`;
  const failed = (cause: unknown) => new StateLockError({ reason: "Unusable", directory, cause });
  const me = yield* publish(lockDirectory).pipe(
    Effect.catchAll((error) => {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      // removed under us: the whole directory, or our name by one who asked before it listened
      return "code" in cause && cause.code === "ENOENT" ? Effect.succeed(undefined) : Effect.fail(failed(cause));
    }),
  );
  if (me === undefined) return undefined;
  let others = yield* Effect.try({
    try: () => published(lockDirectory, me.name),
    catch: failed,
  });
  for (;;) {
    const answers = yield* Effect.forEach(others, (name) => ask(`${me.reach}/${name}`), { concurrency: "unbounded" });
    const waitFor: Array<string> = [];
    for (const [i, name] of others.entries()) {
      const answer = answers[i] ?? "dead";
      if (answer === "dead") {
        yield* Effect.try({ try: () => fs.rmSync(`${lockDirectory}/${name}`, { force: true }), catch: failed });
      } else if (name.startsWith("new-")) {
        // it will see us, once it is published
      } else if (answer === "silent") {
        waitFor.push(name);
      } else if ("failed" in answer) {
        return yield* failed(answer.failed);
      } else if (answer.owner) {
        return yield* new StateLockError({ reason: "Held", directory, holder: answer.holder });
      } else if (name < me.name) {
        return undefined;
      } else {
        waitFor.push(name);
      }
    }
    if (waitFor.length === 0) break;
    others = waitFor;
    yield* Effect.sleep(askAgainAfter);
  }
  me.owner = true;
  return `${lockDirectory}/${me.name}`;
});

/**
 * Takes the lock of `directory` (which must exist) for the life of the scope. Fails at once when another process has it,
 * and after 10 seconds when one is there that does not answer.
 */
export const take = (directory: string): Effect.Effect<StateLock, StateLockError, Scope.Scope> =>
  Effect.gen(function* () {
    const outer = yield* Effect.scope;
    const win = Effect.gen(function* () {
      for (;;) {
        const scope = yield* Scope.fork(outer, ExecutionStrategy.sequential);
        const path = yield* attempt(directory).pipe(
          Scope.extend(scope),
          Effect.onExit((exit) =>
            Exit.isSuccess(exit) && exit.value !== undefined ? Effect.void : Scope.close(scope, exit),
          ),
        );
        if (path !== undefined) return { path, scope };
        yield* Effect.sleep(askAgainAfter);
      }
    }).pipe(
      Effect.timeoutFail({
        duration: giveUpAfter,
        onTimeout: () => new StateLockError({ reason: "Held", directory }),
      }),
    );
    let held = yield* win;
    return {
      check: Effect.suspend(() =>
        fs.existsSync(held.path)
          ? Effect.void
          : Scope.close(held.scope, Exit.void).pipe(
              Effect.zipRight(win),
              Effect.map((again) => {
                held = again;
              }),
            ),
      ),
    };
  });

/**
 * Who has the lock of `directory`, without taking it: nobody, somebody who does not answer, or a holder. Fails when this
 * user may not look.
 */
export const holder = (directory: string): Effect.Effect<Holder | "silent" | undefined, StateLockError> =>
  Effect.gen(function* () {
    const lockDirectory = `${directory}/.lock`;
    const failed = (cause: unknown) => new StateLockError({ reason: "Unusable", directory, cause });
    const names = yield* Effect.try({ try: () => published(lockDirectory), catch: failed });
    if (names.length === 0) return undefined;
    const reach = yield* Effect.mapError(shortPath(lockDirectory, names[0]!), failed);
    const answers = yield* Effect.forEach(names, (name) => ask(`${reach}/${name}`), { concurrency: "unbounded" });
    let silent = false;
    for (const answer of answers) {
      if (typeof answer === "string") silent ||= answer === "silent";
      else if ("failed" in answer) return yield* failed(answer.failed);
      else if (answer.owner) return answer.holder;
    }
    return silent ? "silent" : undefined;
  }).pipe(
    Effect.scoped,
    Effect.catchIf(
      ({ cause }) => cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ENOTDIR"),
      () => Effect.succeed(undefined),
    ),
  );
