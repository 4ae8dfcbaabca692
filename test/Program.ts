/** The built program as a process. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The program's file. */
export const program = join(root, "dist", "nameq.cjs");

const newest = (path: string): number => {
  const stats = statSync(path);
  return stats.isDirectory() ? Math.max(...readdirSync(path).map((name) => newest(join(path, name)))) : stats.mtimeMs;
};

let built = false;

/** Builds the program unless it stands and is newer than its sources. */
export const ensureBuilt = (): void => {
  if (built) return;
  const stands = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (Math.max(...["src", "build.mjs", "package.json"].map((name) => newest(join(root, name)))) > stands) {
    const { status, stderr } = spawnSync(process.execPath, ["build.mjs"], { cwd: root, encoding: "utf8" });
    if (status !== 0) throw new Error(`the program cannot be built:\n${stderr}`);
  }
  built = true;
};

/** Only what a shell needs, so that the caller's settings do not leak into a test. */
const baseEnvironment = { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "/" };

/** Starts the program; its streams are pipes. */
export const start = (
  args: ReadonlyArray<string>,
  options: { readonly environment?: Readonly<Record<string, string>>; readonly cwd?: string } = {},
): ChildProcessWithoutNullStreams => {
  ensureBuilt();
  return spawn(process.execPath, [program, ...args], {
    env: { ...baseEnvironment, ...options.environment },
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
};

/** How a process ended, and what it wrote. */
export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Waits for the end of a process. */
export const outcome = (child: ChildProcessWithoutNullStreams): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const written = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (text: string) => {
        written[name] += text;
      });
    }
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, ...written }));
  });

/** Runs the program to its end with `stdin` as its standard input. */
export const run = (
  args: ReadonlyArray<string>,
  options: {
    readonly environment?: Readonly<Record<string, string>>;
    readonly cwd?: string;
    readonly stdin?: string | Buffer;
  } = {},
): Promise<Outcome> => {
  const child = start(args, options);
  // the program may end without reading
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  return outcome(child);
};
