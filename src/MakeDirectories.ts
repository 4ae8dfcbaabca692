/** `mkdir -p`. Node's own `recursive` never returns where a parent stands in which nothing can be made, such as /proc. */
import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/** What mkdir failed with; undefined when the directory stands, made by us (`made`) or by others. */
const make = (directory: string, mode: number): { readonly made: boolean; readonly cause?: unknown } => {
  try {
    mkdirSync(directory, mode);
    return { made: true };
  } catch (cause) {
    const stands = codeOf(cause) === "EEXIST" && statSync(directory).isDirectory();
    return stands ? { made: false } : { made: false, cause };
  }
};

const codeOf = (cause: unknown): unknown => (cause instanceof Error && "code" in cause ? cause.code : undefined);

/** Makes what is missing of `directory`, and gives the topmost directory that it made. Throws what mkdir throws. */
export const makeDirectories = (directory: string, mode = 0o755): string | undefined => {
  let first: string | undefined;
  let outcome = make(directory, mode);
  if (codeOf(outcome.cause) === "ENOENT" && dirname(directory) !== directory) {
    first = makeDirectories(dirname(directory), mode);
    outcome = make(directory, mode);
  }
  if (outcome.cause !== undefined) throw outcome.cause;
  return first ?? (outcome.made ? directory : undefined);
};
