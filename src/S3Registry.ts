/** The registry: one small object per node, in an S3 bucket or in a directory. It is how nodes find each other. */
import { isUtf8 } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import type * as Clock from "effect/Clock";
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import * as Option from "effect/Option";
import { breathe } from "./DirectoryHints.js";
import { Metrics } from "./Metrics.js";
import * as S3Client from "./S3Client.js";

/** What went wrong; the message tells the user what to do. After a `get`, TooLarge and InvalidAnswer concern that one object. */
export type RegistryReason =
  | "Unreachable"
  | "Timeout"
  | "Denied"
  | "NoBucket"
  | "Region"
  | "Throttled"
  | "ClockSkew"
  | "TooLarge"
  | "InvalidAnswer"
  | "Storage"
  | "Other";

/** `open`: the registry could not even be set up, and no retry will help. */
export type RegistryOperation = "open" | "put" | "list" | "get" | "delete";

/** Largest object that is read, in bytes: several times the largest announcement. */
export const maxObjectBytes = 4 * 1024 * 1024;

const advice: Readonly<Record<RegistryReason, string>> = {
  Unreachable: "it is out of reach; check the endpoint, the network, DNS and TLS",
  Timeout: "no answer in time; check the endpoint and the network, a firewall may drop the packets",
  Denied:
    "access is denied; check the access key and its secret (or role), and that its policy allows s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there",
  NoBucket: "there is no such bucket; create it, or correct its name or the endpoint",
  Region: "the bucket is in another region; set the bucket's region",
  Throttled: "it asks for fewer requests; wait, and look for others that load it",
  ClockSkew: "this host's clock is too far from the registry's; set the clock (NTP)",
  TooLarge: `it has more than ${maxObjectBytes} bytes, so it is no node's; remove it, or use a prefix of your own`,
  InvalidAnswer:
    "the answer makes no sense; check that the endpoint is an S3 server, not a proxy or a login page, and that only nodes write there",
  Storage: "check that the directory is there, that this user may write to it, and that its disk has room",
  Other: "if it goes on, check the registry's settings and its server's log",
};

/** A registry operation failed. Never holds a secret. */
export class RegistryError extends Data.TaggedError("RegistryError")<{
  readonly reason: RegistryReason;
  readonly operation: RegistryOperation;
  /** `s3://bucket/prefix/name` or a path; the prefix or directory for a list. */
  readonly key: string;
  /** An error of the file system, or in words what the server said. */
  readonly cause?: unknown;
}> {
  override get message(): string {
    const { cause } = this;
    const detail = cause instanceof Error ? cause.message : typeof cause === "string" ? cause : "";
    const tooMuch = this.reason === "TooLarge" && this.operation === "put";
    const fix = tooMuch
      ? "our features make an object that peers do not read; advertise fewer or smaller ones"
      : advice[this.reason];
    return `cannot ${this.operation} ${this.key}: ${fix}${detail === "" ? "" : ` (${detail})`}`;
  }
}

/** One listed object. */
export interface RegistryEntry {
  /** Name below the prefix: an address, if it is one of ours. Not validated. */
  readonly name: string;
  /** Unix time by the registry's clock, ms. */
  readonly lastModifiedMs: number;
  /** Opaque; changes with the content. */
  readonly etag: string;
  /** Bytes. */
  readonly size: number;
}

/** A whole listing: never a partial one. */
export interface Listing {
  readonly entries: ReadonlyArray<RegistryEntry>;
  /** The registry's own clock when it answered (S3: the Date header, whole seconds), Unix ms: ages are measured against it. */
  readonly nowMs: number;
}

/** One object, read. */
export interface RegistryObject {
  readonly body: string;
  readonly lastModifiedMs: number;
  readonly etag: string;
  readonly nowMs: number;
}

/** A failure before it is known of what: see `RegistryError`. */
export interface Failure {
  readonly reason: RegistryReason;
  readonly cause?: unknown;
}

/** What a kind of storage does; `serve` makes a registry of it. */
export interface Backend {
  readonly description: string;
  readonly put: (name: string, body: string) => Effect.Effect<string, Failure>;
  readonly list: Effect.Effect<Listing, Failure>;
  readonly get: (
    name: string,
  ) => Effect.Effect<Option.Option<Omit<RegistryObject, "body"> & { readonly bytes: Buffer }>, Failure>;
  readonly remove: (name: string) => Effect.Effect<void, Failure>;
}

export declare namespace S3Registry {
  interface Service {
    /** For messages: `s3://bucket/prefix/` or the directory with a slash. */
    readonly description: string;
    /** Writes the object NAME (`application/json`), and gives its etag as a later list shows it. */
    readonly put: (name: string, body: string) => Effect.Effect<string, RegistryError>;
    /** Lists everything below the prefix, page by page; not what has a further slash in its name. */
    readonly list: Effect.Effect<Listing, RegistryError>;
    /** Reads one object of at most 4 MiB of UTF-8; none when it is not there. */
    readonly get: (name: string) => Effect.Effect<Option.Option<RegistryObject>, RegistryError>;
    /** Removes one object; absent is fine. */
    readonly remove: (name: string) => Effect.Effect<void, RegistryError>;
  }
}

const maxNameBytes = 255;
const isObjectName = (name: string): boolean =>
  /^[^./\0][^/\0]*$/.test(name) && Buffer.byteLength(name) <= maxNameBytes;

/** Tells how long an effect took, unless it was interrupted. */
const timed =
  (tell: (outcome: "ok" | "error", seconds: number) => void) =>
  <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.clockWith((clock) => {
      const startNs = clock.unsafeCurrentTimeNanos();
      return Effect.onExit(effect, (exit) =>
        Effect.sync(() => {
          const outcome = Exit.isSuccess(exit) ? "ok" : "error";
          if (!Exit.isInterrupted(exit)) tell(outcome, Number(clock.unsafeCurrentTimeNanos() - startNs) / 1e9);
        }),
      );
    });

/** Checks names and texts, says in errors what failed, and counts. */
const serve = (
  backend: Backend,
  metrics: Metrics.Service,
  onCall: (operation: RegistryOperation) => void,
): S3Registry.Service => {
  const call =
    (operation: RegistryOperation, name: string) =>
    <A>(effect: Effect.Effect<A, Failure>): Effect.Effect<A, RegistryError> =>
      Effect.suspend(() => {
        if (operation !== "list" && !isObjectName(name)) {
          return Effect.fail<Failure>({ reason: "Other", cause: "not a name of an object" });
        }
        onCall(operation);
        return effect;
      }).pipe(
        timed((outcome, seconds) => metrics.histogram("registry_request", `${operation}:${outcome}`).observe(seconds)),
        Effect.mapError((failure) => new RegistryError({ ...failure, operation, key: backend.description + name })),
        Effect.tapError(({ reason }) => Effect.sync(() => metrics.add("registry_errors", `${operation}:${reason}`))),
        Effect.withSpan(`registry.${operation}`, {
          kind: "client",
          attributes: { "registry.key": backend.description + name },
          captureStackTrace: false,
        }),
      );
  return {
    description: backend.description,
    put: (name, body) => call("put", name)(backend.put(name, body)),
    list: call("list", "")(backend.list),
    get: (name) =>
      backend.get(name).pipe(
        Effect.flatMap(
          Option.match({
            onNone: () => Effect.succeedNone,
            onSome: ({ bytes, ...rest }) =>
              isUtf8(bytes)
                ? Effect.succeedSome({ body: bytes.toString(), ...rest })
                : Effect.fail<Failure>({ reason: "InvalidAnswer", cause: "the object is not UTF-8 text" }),
          }),
        ),
        call("get", name),
      ),
    remove: (name) => call("delete", name)(backend.remove(name)),
  };
};

const countIn =
  (metrics: Metrics.Service) =>
  (operation: RegistryOperation): void =>
    metrics.add("registry_requests", operation);

/** Where the files of a directory registry are. */
export interface DirectoryOptions {
  /**
   * Made when it is not there, with mode 0755. Nodes of several users share it when all of them may write to it (mode
   * 0777 or a group, no sticky bit).
   */
  readonly directory: string;
  /** For one operation, so that a mount whose server is gone holds nobody up. Defaults to 30 seconds. */
  readonly timeout?: Duration.DurationInput;
  /** Whether no lost server can make its file system hang. Defaults to what the file system's type tells. */
  readonly local?: boolean;
}

/** Age at which another writer's temporary file is a crashed one's. Writing one takes milliseconds. */
const staleMs = 15 * 60 * 1000;

/** Files looked at in one go; then the event loop has its turn. */
const statBatch = 64;

/** Calls of the file system that may hang before further ones are refused. */
const maxHanging = 64;

/**
 * A call of node:fs. With callbacks, for `fs.promises` take three times as long; not synchronous, for those stop the
 * whole node when a mount hangs.
 */
const file = <A>(run: (done: (error: NodeJS.ErrnoException | null, result?: A) => void) => void): Promise<A> =>
  new Promise((resolve, reject) => run((error, result) => (error ? reject(error) : resolve(result as A))));

/** For a rejected call: none when it failed with one of `codes`. */
const unless =
  (...codes: ReadonlyArray<string>) =>
  (error: NodeJS.ErrnoException): undefined => {
    if (error.code === undefined || !codes.includes(error.code)) throw error;
  };

const lstat = (path: string) => file<fs.BigIntStats>((done) => fs.lstat(path, { bigint: true }, done));
const unlink = (path: string) => file<void>((done) => fs.unlink(path, done));
const readdir = (path: string) => file<Array<string>>((done) => fs.readdir(path, done));

/** A link may lead anywhere, and opening a pipe may wait for ever. */
const openFlags = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

const readBytes = async (fd: number, size: number): Promise<Buffer> => {
  const bytes = Buffer.allocUnsafe(size);
  let length = 0;
  while (length < size) {
    const from = length;
    const read = await file<number>((done) => fs.read(fd, bytes, from, size - from, from, done));
    if (read === 0) break;
    length += read;
  }
  return bytes.subarray(0, length);
};

/**
 * File systems of this machine's own disks and memory, which no lost server can hold up: objects in them are read
 * without a thread's help, ten times as fast. Source: Linux, include/uapi/linux/magic.h (ext, XFS, Btrfs, F2FS, tmpfs).
 */
const localTypes: ReadonlySet<number> = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x01021994]);

/** Such reads in a row; then the event loop has its turn. */
const readBatch = 16;

/** Content alone would need a read of each file at each list; a file that replaces another has its own inode number. */
const etagOf = ({ ino, size, mtimeNs }: fs.BigIntStats): string => `${ino}-${size}-${mtimeNs}`;

const makeDirectory = (options: DirectoryOptions): Effect.Effect<Backend> =>
  Effect.gen(function* () {
    const directory = path.resolve(options.directory);
    const temporary = path.join(directory, ".tmp");
    const timeout = Duration.decode(options.timeout ?? "30 seconds");
    const permits = yield* Effect.makeSemaphore(16);
    const clock = yield* Effect.clock;

    // made once only: a directory that goes later may be a lost mount, which must not pass for an empty registry
    let made = false;
    /** Whether it is on one of `localTypes`. */
    let local = false;
    let readsInRow = 0;
    let swept = false;
    let running = 0;
    /** The file system's clock minus ours: on a shared mount it is another host's. */
    let offsetMs = 0;
    const now = () => clock.unsafeCurrentTimeMillis() + offsetMs;

    /** `mkdir -p`, for the reason given in MakeDirectories, and without blocking on a mount that hangs. */
    const makeAll = async (wanted: string): Promise<void> => {
      const make = () =>
        file<void>((done) => fs.mkdir(wanted, 0o755, done)).then(
          () => undefined,
          (error: NodeJS.ErrnoException) => error,
        );
      let error = await make();
      if (error?.code === "ENOENT" && path.dirname(wanted) !== wanted) {
        await makeAll(path.dirname(wanted));
        error = await make();
      }
      if (error === undefined) return;
      if (error.code !== "EEXIST" || !(await file<fs.Stats>((done) => fs.stat(wanted, done))).isDirectory())
        throw error;
    };

    const makeOnce = async () => {
      if (made) return;
      await makeAll(directory);
      const { type } = await file<fs.StatsFs>((done) => fs.statfs(directory, done));
      local = options.local ?? localTypes.has(type >>> 0);
      made = true;
    };

    /** Who may write to the directory may write to `.tmp` too. */
    const makeTemporary = async () => {
      await file((done) => fs.mkdir(temporary, 0o755, done));
      const { mode } = await file<fs.Stats>((done) => fs.stat(directory, done));
      await file((done) => fs.chmod(temporary, mode & 0o3777, done));
    };

    const sweepOnce = async () => {
      if (swept) return;
      swept = true;
      for (const name of await readdir(temporary)) {
        const found = path.join(temporary, name);
        const stats = await lstat(found).catch(unless("ENOENT"));
        if (stats !== undefined && Number(stats.mtimeMs) < now() - staleMs) {
          // another user's is that user's to remove
          await unlink(found).catch(unless("ENOENT", "EACCES", "EPERM"));
        }
      }
    };

    /** Writes a new file in `.tmp`, lets it be used, and removes it if that failed. */
    const writeTemporary = async <A>(
      name: string,
      body: string,
      use: (temp: string, stats: fs.BigIntStats) => Promise<A>,
    ): Promise<A> => {
      await makeTemporary().catch(unless("EEXIST"));
      const temp = path.join(temporary, `${name.slice(0, 64)}.${randomUUID()}`);
      try {
        await file((done) => fs.writeFile(temp, body, { flag: "wx", mode: 0o644 }, done));
        const stats = await lstat(temp);
        offsetMs = Number(stats.mtimeMs) - clock.unsafeCurrentTimeMillis();
        await sweepOnce();
        return await use(temp, stats);
      } catch (error) {
        await unlink(temp).catch(() => {});
        throw error;
      }
    };

    /**
     * An operation runs to its end even when nobody waits for it any more: what hangs in the kernel cannot be ended, and
     * a put stays whole.
     */
    const run = <A>(operation: () => Promise<A>): Effect.Effect<A, Failure> =>
      Effect.suspend(() => {
        if (running >= maxHanging) {
          return Effect.fail<Failure>({ reason: "Timeout", cause: "earlier operations have not come back" });
        }
        return Effect.tryPromise({
          try: () => {
            running++;
            return operation().finally(() => running--);
          },
          catch: (cause): Failure => ({ reason: "Storage", cause }),
        });
      }).pipe(
        Effect.timeoutFail({
          duration: timeout,
          onTimeout: (): Failure => ({ reason: "Timeout", cause: `not done within ${Duration.format(timeout)}` }),
        }),
        permits.withPermits(1),
      );

    let written: Promise<unknown> = Promise.resolve();
    /** After all writes before, those too that nobody waits for any more: a goodbye must not be overtaken. */
    const inOrder = <A>(write: () => Promise<A>): Effect.Effect<A, Failure> =>
      run(() => {
        const done = written.then(makeOnce).then(write);
        written = done.catch(() => {});
        return done;
      });

    const list = async (): Promise<Listing> => {
      const names = (await readdir(directory)).filter(isObjectName);
      const entries: Array<RegistryEntry> = [];
      for (let from = 0; from < names.length; from += statBatch) {
        const batch = names.slice(from, from + statBatch);
        const found = await Promise.all(batch.map((name) => lstat(path.join(directory, name)).catch(unless("ENOENT"))));
        for (const [i, stats] of found.entries()) {
          if (stats?.isFile() !== true) continue;
          entries.push({
            name: batch[i]!,
            lastModifiedMs: Number(stats.mtimeMs),
            etag: etagOf(stats),
            size: Number(stats.size),
          });
        }
      }
      const nowMs = await writeTemporary("clock", "", async (temp, stats) => {
        await unlink(temp);
        return Number(stats.mtimeMs);
      }).catch(
        // who may only read has no better clock than this one
        now,
      );
      return { entries, nowMs };
    };

    const objectOf = (bytes: Buffer, stats: fs.BigIntStats) =>
      Option.some({ bytes, lastModifiedMs: Number(stats.mtimeMs), etag: etagOf(stats), nowMs: now() });

    const get = async (name: string) => {
      const fd = await file<number>((done) => fs.open(path.join(directory, name), openFlags, done)).catch(
        unless("ENOENT", "ELOOP", "ENXIO"),
      );
      if (fd === undefined) return Option.none();
      try {
        const stats = await file<fs.BigIntStats>((done) => fs.fstat(fd, { bigint: true }, done));
        if (!stats.isFile()) return Option.none();
        if (stats.size > maxObjectBytes) return "TooLarge";
        return objectOf(await readBytes(fd, Number(stats.size)), stats);
      } finally {
        await file((done) => fs.close(fd, done));
      }
    };

    /** `get` in one go. */
    const getNow = (name: string) => {
      let fd: number | undefined;
      try {
        fd = fs.openSync(path.join(directory, name), openFlags);
        const stats = fs.fstatSync(fd, { bigint: true });
        if (!stats.isFile()) return Option.none();
        if (stats.size > maxObjectBytes) return "TooLarge";
        const bytes = Buffer.allocUnsafe(Number(stats.size));
        return objectOf(bytes.subarray(0, fs.readSync(fd, bytes, 0, bytes.length, 0)), stats);
      } catch (error) {
        unless("ENOENT", "ELOOP", "ENXIO")(error as NodeJS.ErrnoException);
        return Option.none();
      } finally {
        if (fd !== undefined) fs.closeSync(fd);
      }
    };
    const getLocal = (name: string) =>
      Effect.try({ try: () => getNow(name), catch: (cause): Failure => ({ reason: "Storage", cause }) }).pipe(
        Effect.zipLeft(Effect.suspend(() => (++readsInRow % readBatch === 0 ? breathe : Effect.void))),
      );

    return {
      description: `${directory}/`,
      put: (name, body) =>
        inOrder(() =>
          writeTemporary(name, body, async (temp, stats) => {
            await file((done) => fs.rename(temp, path.join(directory, name), done));
            return etagOf(stats);
          }),
        ),
      list: run(() => makeOnce().then(list)),
      get: (name) =>
        Effect.flatMap(
          Effect.suspend(() => (local ? getLocal(name) : run(() => makeOnce().then(() => get(name))))),
          (found) => (found === "TooLarge" ? Effect.fail<Failure>({ reason: found }) : Effect.succeed(found)),
        ),
      remove: (name) => inOrder(() => unlink(path.join(directory, name)).catch(unless("ENOENT"))),
    };
  });

/** One node's way to a memory registry. A test may change it at any time; it counts from the next operation on. */
export interface MemoryLink {
  /**
   * How long each operation takes, in ms. Past the store's `timeoutMs` it fails with Timeout, but what was put still
   * lands; never, when it is Infinity.
   */
  delayMs: number;
  /** What each operation fails with, before it has any effect: `Unreachable`, `Throttled`, `Denied`, … */
  failure: RegistryReason | undefined;
}

/** How often requests met with a fault of the store. */
export interface RegistryHarm {
  failed: number;
  /** Took time, and came to an end. */
  slow: number;
  timedOut: number;
  /** Listings that lacked what had been put or removed by then. */
  behind: number;
  /** Gets of an object that is listed and gone. */
  vanished: number;
}

interface MemoryObject extends RegistryEntry {
  readonly body: Buffer;
}

interface MemoryWrite {
  readonly atMs: number;
  readonly name: string;
  readonly object: MemoryObject | undefined;
}

/**
 * A store that the nodes of a test share; its conditions are plain fields that the test changes while nodes run. Time is
 * that of the Clock it was made under, so nodes with clocks of their own see one registry's time. No timers: what is due
 * happens at the next look.
 */
export class MemoryRegistry {
  /** The registry's clock minus the Clock's, in ms: shows in `lastModifiedMs` and `nowMs`. */
  clockOffsetMs = 0;
  /** How long a list does not show what was put or removed; a get sees it at once. */
  listLagMs = 0;
  /** How long a node waits for an operation. */
  timeoutMs = 30_000;
  /** Told of every request when it leaves. */
  onRequest: ((node: string, operation: string, name: string) => void) | undefined;
  readonly harm: RegistryHarm = { failed: 0, slow: 0, timedOut: 0, behind: 0, vanished: 0 };

  private readonly links = new Map<string, MemoryLink>();
  private readonly objects = new Map<string, MemoryObject>();
  private readonly listed = new Map<string, MemoryObject>();
  private readonly landing: Array<MemoryWrite> = [];
  private readonly unlisted: Array<MemoryWrite> = [];

  private constructor(private readonly clock: Clock.Clock) {}

  static readonly make: Effect.Effect<MemoryRegistry> = Effect.map(Effect.clock, (clock) => new MemoryRegistry(clock));

  /** The way of the node called `node`: at first immediate and without failure. */
  link(node: string): MemoryLink {
    let link = this.links.get(node);
    if (link === undefined) this.links.set(node, (link = { delayMs: 0, failure: undefined }));
    return link;
  }

  /** The bodies by name, as gets see them now. */
  contents(): ReadonlyMap<string, string> {
    this.settle();
    return new Map([...this.objects].map(([name, { body }]) => [name, body.toString()]));
  }

  /** Puts (or with `undefined` removes) an object past all links, as a stranger would. */
  plant(name: string, body: string | Buffer | undefined): void {
    this.write(name, body, this.clock.unsafeCurrentTimeMillis());
    this.settle();
  }

  /** The object is gone for gets, and yet listed until it is put or removed again. */
  vanish(name: string): void {
    this.settle();
    this.objects.delete(name);
  }

  /** One node's view. */
  backend(node: string): Backend {
    const link = this.link(node);
    /** `start` runs when the request leaves, `answer` when it came back. */
    const operation = <A>(
      kind: string,
      name: string,
      start: (landsAtMs: number) => void,
      answer: () => Effect.Effect<A, Failure>,
    ): Effect.Effect<A, Failure> =>
      Effect.suspend(() => {
        const { delayMs, failure } = link;
        const { harm } = this;
        this.onRequest?.(node, kind, name);
        if (failure === undefined) start(this.clock.unsafeCurrentTimeMillis() + delayMs);
        const late = delayMs > this.timeoutMs;
        const wait = Math.min(delayMs, this.timeoutMs);
        if (late) harm.timedOut++;
        else if (failure !== undefined) harm.failed++;
        else if (wait > 0) harm.slow++;
        return Effect.zipRight(
          wait > 0 ? Effect.sleep(wait) : Effect.void,
          Effect.suspend(() => {
            if (failure !== undefined && !late) return Effect.fail({ reason: failure });
            if (late) return Effect.fail<Failure>({ reason: "Timeout", cause: `not done within ${this.timeoutMs} ms` });
            this.settle();
            return answer();
          }),
        );
      });
    const nowMs = () => this.clock.unsafeCurrentTimeMillis() + this.clockOffsetMs;
    const nothing = () => {};
    return {
      description: `memory:${node}/`,
      put: (name, body) =>
        operation(
          "put",
          name,
          (at) => this.write(name, body, at),
          () => Effect.succeed(contentTag(Buffer.from(body))),
        ),
      list: operation("list", "", nothing, () =>
        Effect.sync(() => {
          if (this.unlisted.length > 0) this.harm.behind++;
          return { entries: [...this.listed.values()], nowMs: nowMs() };
        }),
      ),
      get: (name) =>
        operation("get", name, nothing, () => {
          const object = this.objects.get(name);
          if (object === undefined) {
            if (this.listed.has(name)) this.harm.vanished++;
            return Effect.succeedNone;
          }
          if (object.size > maxObjectBytes) return Effect.fail<Failure>({ reason: "TooLarge" });
          const { body: bytes, lastModifiedMs, etag } = object;
          return Effect.succeedSome({ bytes, lastModifiedMs, etag, nowMs: nowMs() });
        }),
      remove: (name) =>
        operation(
          "remove",
          name,
          (at) => this.write(name, undefined, at),
          () => Effect.void,
        ),
    };
  }

  private write(name: string, content: string | Buffer | undefined, atMs: number): void {
    if (atMs === Number.POSITIVE_INFINITY) return;
    const body = content === undefined ? undefined : Buffer.from(content);
    const object = body && {
      name,
      body,
      lastModifiedMs: atMs + this.clockOffsetMs,
      etag: contentTag(body),
      size: body.length,
    };
    const after = this.landing.findIndex((write) => write.atMs > atMs);
    this.landing.splice(after === -1 ? this.landing.length : after, 0, { atMs, name, object });
  }

  /** Makes happen what is due by now, in the order of its time. */
  private settle(): void {
    const now = this.clock.unsafeCurrentTimeMillis();
    take(this.landing, now, (write) => {
      apply(this.objects, write);
      this.unlisted.push(write);
    });
    take(this.unlisted, now - this.listLagMs, (write) => apply(this.listed, write));
  }
}

const contentTag = (body: Buffer): string => createHash("sha256").update(body).digest("hex").slice(0, 32);

const apply = (objects: Map<string, MemoryObject>, { name, object }: MemoryWrite): void => {
  if (object === undefined) objects.delete(name);
  else objects.set(name, object);
};

/** Takes from the front of `writes` those until `untilMs`. */
const take = (writes: Array<MemoryWrite>, untilMs: number, use: (write: MemoryWrite) => void): void => {
  const due = writes.findIndex(({ atMs }) => atMs > untilMs);
  writes.splice(0, due === -1 ? writes.length : due).forEach(use);
};

export class S3Registry extends Context.Tag("nameq/S3Registry")<S3Registry, S3Registry.Service>() {
  /**
   * A bucket. The AWS SDK is loaded when the layer is built, and only then. Fails (`open`) on options that the SDK
   * refuses; a bucket that is out of reach fails the operations, not the layer.
   */
  static readonly layer = (options: S3Client.S3Options): Layer.Layer<S3Registry, RegistryError, Metrics> =>
    Layer.scoped(
      S3Registry,
      Effect.gen(function* () {
        const metrics = yield* Metrics;
        const count = countIn(metrics);
        const backend = yield* S3Client.make(options, maxObjectBytes, count).pipe(
          Effect.mapError(
            (failure) => new RegistryError({ ...failure, operation: "open", key: `s3://${options.bucket}` }),
          ),
        );
        // each try over the network was counted there
        return serve(backend, metrics, () => {});
      }),
    );

  /**
   * A directory: an object is a file, its modification time is LastModified. For one machine, or for several that mount
   * the same directory (ages are measured by the file system's clock).
   */
  static readonly layerDirectory = (options: DirectoryOptions): Layer.Layer<S3Registry, never, Metrics> =>
    Layer.effect(
      S3Registry,
      Effect.zipWith(makeDirectory(options), Metrics, (backend, metrics) => serve(backend, metrics, countIn(metrics))),
    );

  /** What the node called `node` sees of a store that several nodes share. For tests and simulations. */
  static readonly layerMemory = (store: MemoryRegistry, node: string): Layer.Layer<S3Registry, never, Metrics> =>
    Layer.effect(
      S3Registry,
      Effect.map(Metrics, (metrics) => serve(store.backend(node), metrics, countIn(metrics))),
    );
}
