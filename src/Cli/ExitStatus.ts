import * as Data from "effect/Data";

/** The program ends with the status of another one that it ran, or could not run. */
export class ExitStatus extends Data.TaggedError("ExitStatus")<{
  readonly status: number;
  /** For standard error; empty when there is nothing to say. */
  readonly message: string;
}> {}
