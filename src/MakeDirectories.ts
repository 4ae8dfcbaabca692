/** `mkdir -p`. Node's own `recursive` never returns where a parent stands in which nothing can be made, such as /proc. */
import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/** Makes what is missing of `directory`, and gives the topmost directory that it made. Throws what mkdir throws. */
export const makeDirectories = (directory: string, mode = 0o755): string | undefined => {
  try {
    mkdirSync(directory, mode);
    return directory;
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "EEXIST" && statSync(directory).isDirectory()) return undefined;
    const parent = dirname(directory);
    if (code !== "ENOENT" || parent === directory) throw cause;
    const first = makeDirectories(parent, mode);
    mkdirSync(directory, mode);
    return first ?? directory;
  }
};
