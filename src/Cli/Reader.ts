/** Standard output of the commands that go on until nobody reads them. */
import * as Data from "effect/Data";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as FiberId from "effect/FiberId";
import { closeSync, constants, fstatSync, openSync, writeSync } from "node:fs";
import { StandardStreamError } from "./Output.js";

/** Nobody reads standard output any more. */
export class ReaderGone extends Data.TaggedError("ReaderGone") {}

const isGone = (cause: unknown): boolean =>
  cause instanceof Error && "code" in cause && (cause.code === "EPIPE" || cause.code === "ECONNRESET");

const ignore = (): void => {};

type Written = Effect.Effect<void, ReaderGone | StandardStreamError>;

/**
 * Writes `text`. Undefined when standard output has taken it, or else what waits for that: a slow reader slows the
 * writer, and costs no memory.
 */
export const offer = (text: string): Written | undefined => {
  const { stdout } = process;
  // the callback tells too
  if (!stdout.listeners("error").includes(ignore)) stdout.on("error", ignore);
  const written = Deferred.unsafeMake<void, ReaderGone | StandardStreamError>(FiberId.none);
  stdout.write(text, (cause) => {
    const failure = (): ReaderGone | StandardStreamError =>
      isGone(cause) ? new ReaderGone() : new StandardStreamError({ operation: "write", cause });
    Deferred.unsafeDone(written, cause == null ? Effect.void : Effect.fail(failure()));
  });
  return stdout.writableLength === 0 && stdout.errored === null ? undefined : Deferred.await(written);
};

/** Writes `text`, and waits until standard output has taken it. */
export const write = (text: string): Written => Effect.suspend(() => offer(text) ?? Effect.void);

/** Of Node's own handles: the one that takes any descriptor. */
interface RawHandle {
  open(fd: number): number;
  readStart(): number;
  close(): void;
  onread: () => void;
}
interface RawBinding {
  readonly TCP: new (type: number) => RawHandle;
  readonly constants: { readonly SOCKET: number };
}

/**
 * The kernel tells the writer of a pipe at once that its reader has gone, but only one who polls. Node polls only for
 * what is being written or read, so the pipe is opened once more and "read", which fails at that moment. Where that is
 * not to be had, the next write tells.
 */
const pipeReaderGone: Effect.Effect<void> = Effect.async((resume) => {
  let handle: RawHandle | undefined;
  let fd: number | undefined;
  try {
    fd = openSync("/proc/self/fd/1", constants.O_WRONLY | constants.O_NONBLOCK);
    const { TCP, constants: types } = (process as unknown as { binding(name: string): RawBinding }).binding("tcp_wrap");
    const opened = new TCP(types.SOCKET);
    if (opened.open(fd) === 0) {
      handle = opened;
      opened.onread = () => resume(Effect.void);
      opened.readStart();
    }
  } catch {
    // the next write tells
  }
  return Effect.sync(() => (handle === undefined ? fd !== undefined && closeSync(fd) : handle.close()));
});

const socketPollMs = 500;

/** On a socket that has been closed at the other end, a write of nothing fails. */
const socketReaderGone: Effect.Effect<void> = Effect.suspend(() => {
  try {
    writeSync(1, Buffer.alloc(0));
    return Effect.delay(socketReaderGone, socketPollMs);
  } catch (cause) {
    return isGone(cause) ? Effect.void : Effect.never;
  }
});

/** Waits until nobody reads standard output any more, if that can be told without writing. */
export const readerGone: Effect.Effect<void> = Effect.suspend(() => {
  const stats = fstatSync(1);
  if (stats.isFIFO()) return pipeReaderGone;
  return stats.isSocket() ? socketReaderGone : Effect.never;
});
