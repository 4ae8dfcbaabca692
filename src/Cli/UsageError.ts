import * as Data from "effect/Data";

/** The command line (or the environment in its place) is wrong: status 2. Never holds a secret. */
export class UsageError extends Data.TaggedError("UsageError")<{
  /** What is wrong and how to mend it, each a sentence that names the option. Not empty. */
  readonly problems: ReadonlyArray<string>;
}> {
  override get message(): string {
    return this.problems.join("\n");
  }
}

/** What was given where a URL or HOST:PORT belongs, fit to be shown: somebody may have put a password before its host. */
export const withoutPassword = (given: string): string => given.replace(/^(\w+:\/\/)?.*@/s, "$1***@");

/** A usage error with one problem. */
export const usageError = (problem: string): UsageError => new UsageError({ problems: [problem] });
