/** Standard input and output of the commands that end by themselves. */
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import { writeSync } from "node:fs";

/** Standard input or output failed. */
export class StandardStreamError extends Data.TaggedError("StandardStreamError")<{
  readonly operation: "read" | "write";
  readonly cause: unknown;
}> {
  override get message(): string {
    const cause = this.cause instanceof Error ? this.cause.message : String(this.cause);
    return this.operation === "read"
      ? `cannot read standard input (${cause}): give the value as an argument instead`
      : `cannot write to standard output (${cause}): send it to where there is room`;
  }
}

const codeOf = (cause: unknown): unknown => (cause instanceof Error && "code" in cause ? cause.code : undefined);

/** Through the stream, which waits where a descriptor would block. Making the stream costs 2 ms: only when needed. */
const printSlowly = (rest: Buffer): Effect.Effect<void, unknown> =>
  Effect.async((resume) => {
    const done = (error?: Error | null): void => resume(error ? Effect.fail(error) : Effect.void);
    process.stdout.once("error", done);
    process.stdout.write(rest, done);
  });

/** Writes all of `text` to standard output. A reader that has gone is no failure: nobody is left to be told. */
export const print = (text: string): Effect.Effect<void, StandardStreamError> =>
  Effect.suspend(() => {
    let rest = Buffer.from(text);
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(1, rest));
      return Effect.void;
    } catch (cause) {
      return codeOf(cause) === "EAGAIN" ? printSlowly(rest) : Effect.fail(cause);
    }
  }).pipe(
    Effect.catchIf(
      (cause) => codeOf(cause) === "EPIPE",
      () => Effect.void,
    ),
    Effect.mapError((cause) => new StandardStreamError({ operation: "write", cause })),
  );

/** All of standard input, or undefined when it is more than `limit` bytes. */
export const readAll = (limit: number): Effect.Effect<Buffer | undefined, StandardStreamError> =>
  Effect.async((resume, signal) => {
    const input = process.stdin;
    const chunks: Array<Buffer> = [];
    let size = 0;
    const end = (result: Effect.Effect<Buffer | undefined, StandardStreamError>): void => {
      input.destroy();
      resume(result);
    };
    input.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > limit) end(Effect.succeed(undefined));
      else chunks.push(chunk);
    });
    input.on("end", () => end(Effect.succeed(Buffer.concat(chunks))));
    input.on("error", (cause) => end(Effect.fail(new StandardStreamError({ operation: "read", cause }))));
    signal.addEventListener("abort", () => input.destroy());
  });
