/** The writing side of a feature directory: what `nameq feature` and the client library do to it. */
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import {
  chmodSync,
  closeSync,
  fchmodSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type FeatureName, type FeatureValue, fileText } from "./Feature.js";

const codeOf = (cause: unknown): string => (cause instanceof Error && "code" in cause ? String(cause.code) : "");

const remedies: Record<string, string> = {
  EACCES: "run as the user who owns the directory, or name another one with --feature-dir",
  EPERM: "run as the user who owns the directory, or name another one with --feature-dir",
  EROFS: "the file system is read-only: name another directory with --feature-dir",
  ENOSPC: "the disk is full: free some space, and try again",
  EDQUOT: "the disk quota is used up: free some space, and try again",
  EEXIST: "a part of the path is a file: move it away, or name another directory with --feature-dir",
  ENOTDIR: "a part of the path is a file: move it away, or name another directory with --feature-dir",
  EISDIR: "a directory has the feature's name: move it away",
};

/** A feature file could not be written or removed. The feature is as it was. */
export class FeatureFileError extends Data.TaggedError("FeatureFileError")<{
  readonly operation: "set" | "remove";
  /** The feature's file. */
  readonly path: string;
  readonly cause: unknown;
}> {
  override get message(): string {
    const what = `cannot ${this.operation === "set" ? "write" : "remove"} the feature file ${this.path}`;
    const cause = this.cause instanceof Error ? this.cause.message : String(this.cause);
    return `${what} (${cause}): ${remedies[codeOf(this.cause)] ?? "check the path, or name another directory with --feature-dir"}`;
  }
}

let serial = 0;

/** Opens a file of our own in `.tmp`: no other writer has it, not even one of another process namespace. */
const openTemporary = (directory: string): readonly [path: string, fd: number] => {
  for (;;) {
    const path = join(directory, `${process.pid}-${serial++}`);
    try {
      return [path, openSync(path, "wx", 0o600)];
    } catch (cause) {
      if (codeOf(cause) !== "EEXIST") throw cause;
    }
  }
};

/**
 * Sets the feature `name` in `directory` (made when missing): readers see the old or the new file, never a part of it,
 * and of writers at the same moment the last one wins.
 */
export const set = (
  directory: string,
  name: FeatureName,
  value: FeatureValue,
): Effect.Effect<void, FeatureFileError> => {
  const path = join(directory, name);
  return Effect.try({
    try: () => {
      // mkdir's mode is cut by the umask; the directory's must not be
      if (mkdirSync(directory, { recursive: true }) !== undefined) chmodSync(directory, 0o755);
      const temporaries = join(directory, ".tmp");
      mkdirSync(temporaries, { recursive: true, mode: 0o700 });
      const [temporary, fd] = openTemporary(temporaries);
      try {
        try {
          writeFileSync(fd, fileText(value));
          fchmodSync(fd, 0o644);
        } finally {
          closeSync(fd);
        }
        renameSync(temporary, path);
      } catch (cause) {
        rmSync(temporary, { force: true });
        throw cause;
      }
    },
    catch: (cause) => new FeatureFileError({ operation: "set", path, cause }),
  });
};

/** Removes the feature `name` from `directory`; absent is fine. */
export const remove = (directory: string, name: FeatureName): Effect.Effect<void, FeatureFileError> => {
  const path = join(directory, name);
  return Effect.try({
    try: () => {
      try {
        unlinkSync(path);
      } catch (cause) {
        if (codeOf(cause) !== "ENOENT") throw cause;
      }
    },
    catch: (cause) => new FeatureFileError({ operation: "remove", path, cause }),
  });
};
