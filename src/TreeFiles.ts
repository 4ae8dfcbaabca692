/** The few file operations that the state tree is made of: on disk, and in memory for simulations and tests. */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import * as fs from "node:fs";
import { dirname, resolve } from "node:path";
import { makeDirectories } from "./MakeDirectories.js";
import * as StateLock from "./StateLock.js";

/** What stands at a path: anything but a plain file or directory (a symbolic link too) is `other`, and never followed. */
export type EntryKind = "file" | "directory" | "other";

/**
 * Paths are relative to the state directory (`""` is itself). All operations are synchronous: four times as fast as the
 * others, and never half done when the writer is interrupted. They throw errors with a `code`, as node:fs does.
 */
export interface TreeFiles {
  /** The state directory, for messages. */
  readonly directory: string;
  /** Makes the state directory if it is missing, and keeps other daemons out of it while the scope is open. */
  readonly lock: Effect.Effect<StateLock.StateLock, StateLock.StateLockError, Scope.Scope>;
  /** Gives the rest of the program its turn. */
  readonly turn: Effect.Effect<void>;
  readonly list: (path: string) => ReadonlyArray<{ readonly name: string; readonly kind: EntryKind }>;
  /** Differs after a directory was replaced, or entries came or went; undefined when no directory stands there. */
  readonly stamp: (path: string) => string | undefined;
  /** Whether a plain file with exactly this text and the right mode stands there. */
  readonly holds: (path: string, text: string) => boolean;
  /** Makes a directory of exactly this mode; for the state directory itself, its parents too. */
  readonly makeDirectory: (path: string, mode: number) => void;
  /** Makes a file of mode 0444; fails when something stands there. */
  readonly write: (path: string, text: string) => void;
  readonly rename: (from: string, to: string) => void;
  readonly unlink: (path: string) => void;
  readonly removeDirectory: (path: string) => void;
}

/** An error as a file operation throws it. */
export const fileError = (code: string, operation: string, path: string): Error =>
  Object.assign(new Error(`${code}: ${operation} '${path}'`), { code });

/** The error code of a failed file operation; undefined for an error of another kind. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;

const fileMode = 0o444;

/** Where every file is made: the writer makes one at a time, so one name serves, and a crash leaves one at most. */
export const temporary = ".tmp/nameq";

/** With the encoding named, Node opens, writes and closes in one call of its own. */
const newFile = { encoding: "utf8", flag: "wx", mode: fileMode } as const;

const modeOf = (stats: fs.Stats): number => stats.mode & 0o777;

/** The files of a directory on disk. */
export const onDisk = (stateDirectory: string): TreeFiles => {
  const directory = resolve(stateDirectory);
  const temporaryPath = `${directory}/${temporary}`;
  const at = (path: string): string =>
    path === temporary ? temporaryPath : path === "" ? directory : `${directory}/${path}`;

  const setMode = (path: string, mode: number): void => {
    if (modeOf(fs.lstatSync(path)) !== mode) fs.chmodSync(path, mode);
  };
  const makeDirectory = (path: string, mode: number): void => {
    if (path !== "") {
      fs.mkdirSync(at(path), mode);
      setMode(at(path), mode);
      return;
    }
    const first = makeDirectories(directory, mode);
    if (first === undefined) return;
    for (let made = directory; made.length >= first.length; made = dirname(made)) setMode(made, mode);
  };
  /** Whether the umask takes bits from the mode of new files; asked of the first one. */
  let masked: boolean | undefined;

  return {
    directory,
    lock: Effect.try({
      try: () => makeDirectory("", 0o755),
      catch: (cause) => new StateLock.StateLockError({ reason: "Unusable", directory, cause }),
    }).pipe(Effect.zipRight(StateLock.take(directory))),
    turn: Effect.async<void>((resume) => {
      // Effect.yieldNow would not let sockets and timers in
      const immediate = setImmediate(() => resume(Effect.void));
      return Effect.sync(() => clearImmediate(immediate));
    }),
    list: (path) =>
      fs.readdirSync(at(path), { withFileTypes: true }).map((entry) => ({
        name: entry.name,
        kind: entry.isFile() ? "file" : entry.isDirectory() ? "directory" : "other",
      })),
    stamp: (path) => {
      const stats = fs.lstatSync(at(path), { bigint: true, throwIfNoEntry: false });
      // link count and size too, where they tell: two changes may fall into one tick of the file system's clock
      return stats?.isDirectory() === true
        ? `${stats.dev}:${stats.ino}:${stats.mtimeNs}:${stats.nlink}:${stats.size}`
        : undefined;
    },
    holds: (path, text) => {
      let open: number;
      try {
        open = fs.openSync(at(path), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
      } catch {
        return false; // what cannot be opened is written anew, and that failure is reported
      }
      try {
        const stats = fs.fstatSync(open);
        if (!stats.isFile() || modeOf(stats) !== fileMode || stats.size !== Buffer.byteLength(text)) return false;
        return fs.readFileSync(open, "utf8") === text;
      } finally {
        fs.closeSync(open);
      }
    },
    makeDirectory,
    write: (path, text) => {
      fs.writeFileSync(at(path), text, newFile);
      masked ??= modeOf(fs.lstatSync(at(path))) !== fileMode;
      if (masked) fs.chmodSync(at(path), fileMode);
    },
    rename: (from, to) => fs.renameSync(at(from), at(to)),
    unlink: (path) => fs.unlinkSync(at(path)),
    removeDirectory: (path) => fs.rmdirSync(at(path)),
  };
};

/** The operations that can be made to fail. */
export type FileOperation = "list" | "holds" | "makeDirectory" | "write" | "rename" | "unlink" | "removeDirectory";

interface MemoryDirectory {
  readonly kind: "directory";
  readonly id: number;
  readonly entries: Map<string, MemoryNode>;
  changes: number;
}
type MemoryNode =
  | MemoryDirectory
  | { readonly kind: "file"; readonly id: number; readonly text: string }
  | { readonly kind: "other"; readonly id: number };

/** The files of a tree in memory. They outlive the service that writes them, as files outlive a process. */
export class MemoryFiles implements TreeFiles {
  readonly directory = "memory";
  readonly turn = Effect.yieldNow();
  /** Asked before each operation: the code with which it fails, if it shall. What this throws itself is a defect. */
  fault: ((operation: FileOperation, path: string) => string | undefined) | undefined;
  private root: MemoryDirectory | undefined;
  private locked = false;
  private lastId = 0;

  readonly lock: TreeFiles["lock"] = Effect.acquireRelease(
    Effect.suspend(() => {
      if (this.locked) return new StateLock.StateLockError({ reason: "Held", directory: this.directory });
      this.locked = true;
      return Effect.succeed({ check: Effect.void });
    }),
    () =>
      Effect.sync(() => {
        this.locked = false;
      }),
  );

  /** What programs see: feature -> host -> text. */
  get features(): ReadonlyMap<string, ReadonlyMap<string, string>> {
    const features = new Map<string, ReadonlyMap<string, string>>();
    const node = this.node("features");
    for (const [name, feature] of node?.kind === "directory" ? node.entries : []) {
      if (feature.kind !== "directory") continue;
      const texts = new Map<string, string>();
      for (const [host, file] of feature.entries) if (file.kind === "file") texts.set(host, file.text);
      features.set(name, texts);
    }
    return features;
  }

  /** The text of a file; undefined when none is there. */
  read(path: string): string | undefined {
    const node = this.node(path);
    return node?.kind === "file" ? node.text : undefined;
  }

  /** Differs for every file and directory that was ever made. */
  identity(path: string): number | undefined {
    return this.node(path)?.id;
  }

  /** Puts something there from outside, with the directories above it. */
  place(path: string, kind: EntryKind, text = ""): void {
    let directory = (this.root ??= this.newDirectory());
    const names = path.split("/");
    const last = names.pop() ?? "";
    for (const name of names) {
      const node = directory.entries.get(name) ?? this.newDirectory();
      if (node.kind !== "directory") throw fileError("ENOTDIR", "place", path);
      this.set(directory, name, node);
      directory = node;
    }
    const made: MemoryNode = kind === "directory" ? this.newDirectory() : { kind, id: ++this.lastId, text };
    this.set(directory, last, made);
  }

  /** Removes what is there from outside, with all below it (`""`: the state directory). */
  erase(path: string): void {
    if (path === "") this.root = undefined;
    else this.set(this.parent("erase", path), nameOf(path), undefined);
  }

  list(path: string): ReadonlyArray<{ readonly name: string; readonly kind: EntryKind }> {
    this.check("list", path);
    return [...this.directoryAt("list", path).entries].map(([name, { kind }]) => ({ name, kind }));
  }

  stamp(path: string): string | undefined {
    const node = this.node(path);
    return node?.kind === "directory" ? `${node.id}:${node.changes}` : undefined;
  }

  holds(path: string, text: string): boolean {
    this.check("holds", path);
    return this.read(path) === text;
  }

  makeDirectory(path: string): void {
    this.check("makeDirectory", path);
    if (path === "") {
      this.root ??= this.newDirectory();
      return;
    }
    const parent = this.parent("makeDirectory", path);
    if (parent.entries.has(nameOf(path))) throw fileError("EEXIST", "makeDirectory", path);
    this.set(parent, nameOf(path), this.newDirectory());
  }

  write(path: string, text: string): void {
    this.check("write", path);
    const parent = this.parent("write", path);
    if (parent.entries.has(nameOf(path))) throw fileError("EEXIST", "write", path);
    this.set(parent, nameOf(path), { kind: "file", id: ++this.lastId, text });
  }

  rename(from: string, to: string): void {
    this.check("rename", to);
    const source = this.parent("rename", from);
    const target = this.parent("rename", to);
    const node = source.entries.get(nameOf(from));
    if (node === undefined) throw fileError("ENOENT", "rename", from);
    if (target.entries.get(nameOf(to))?.kind === "directory") throw fileError("EISDIR", "rename", to);
    this.set(source, nameOf(from), undefined);
    this.set(target, nameOf(to), node);
  }

  unlink(path: string): void {
    this.check("unlink", path);
    const parent = this.parent("unlink", path);
    const node = parent.entries.get(nameOf(path));
    if (node === undefined) throw fileError("ENOENT", "unlink", path);
    if (node.kind === "directory") throw fileError("EISDIR", "unlink", path);
    this.set(parent, nameOf(path), undefined);
  }

  removeDirectory(path: string): void {
    this.check("removeDirectory", path);
    if (this.directoryAt("removeDirectory", path).entries.size > 0) {
      throw fileError("ENOTEMPTY", "removeDirectory", path);
    }
    this.erase(path);
  }

  private check(operation: FileOperation, path: string): void {
    const code = this.fault?.(operation, path);
    if (code !== undefined) throw fileError(code, operation, path);
  }

  private newDirectory(): MemoryDirectory {
    return { kind: "directory", id: ++this.lastId, entries: new Map(), changes: 0 };
  }

  private set(directory: MemoryDirectory, name: string, node: MemoryNode | undefined): void {
    directory.changes++;
    if (node === undefined) directory.entries.delete(name);
    else directory.entries.set(name, node);
  }

  private node(path: string): MemoryNode | undefined {
    let node: MemoryNode | undefined = this.root;
    for (const name of path === "" ? [] : path.split("/")) {
      node = node?.kind === "directory" ? node.entries.get(name) : undefined;
    }
    return node;
  }

  private directoryAt(operation: string, path: string): MemoryDirectory {
    const node = this.node(path);
    if (node === undefined) throw fileError("ENOENT", operation, path);
    if (node.kind !== "directory") throw fileError("ENOTDIR", operation, path);
    return node;
  }

  private parent(operation: string, path: string): MemoryDirectory {
    return this.directoryAt(operation, path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");
  }
}

const nameOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
