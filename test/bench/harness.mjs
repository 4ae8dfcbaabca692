/**
 * What every benchmark is made with. A benchmark is a file NAME.mjs of this directory with
 *
 *     export const title = "what is measured, from where to where";
 *     export const run = async (bench) => { ... };
 *
 * It runs in a process of its own (`npm run bench -- NAME`), with `global.gc`, and has of `bench`:
 *
 * - `short`: only see that it works (CI): measure as little as shows that.
 * - `directory`: an empty directory, on tmpfs where there is one; removed at the end.
 * - `program`: the path of the built program.
 * - `start(args, { cpu, env, stdio })`: a Node process, pinned to one CPU (a number; it wraps around) where `taskset`
 *   is there. stdout is a pipe unless `stdio` says otherwise. Ended with the benchmark, if it has not by then.
 * - `use(source)`: bundles a module in the project's root with esbuild and imports it, such as
 *   `export * as Packet from "./src/Packet.js"`; one `use` for all that must share modules.
 * - `bundle(source)`: the same, but gives the file, for a process of its own (`parts/` has such).
 * - `turns(measures, { count, rounds, warmUp })`: measures in turns, A B A B, so that all see the same noise. `measures` has
 *   an async function under each name, which measures once and gives a number (or an object `{ before, measure, after }`;
 *   `before` and `after` run around each turn). Gives the numbers under the same names; those of the first `warmUp` calls
 *   of each turn are left out. `short` divides `count` and `rounds`.
 * - `row(name, numbers, { unit, floor, target })`: a line of the table. `numbers`: one, or many with median and p99.
 *   `floor`: the numbers of the floor in the same run, for the ratio. `target`: the most that each may be, of
 *   `{ median, p99, ratio, p99Ratio }` (`{ atLeast: true }` with it: the least). Unit: defaults to ms.
 *
 * `freePort`, `rssMiB`, `cpuSeconds`, `sleep`, `until` and `quantile` are exported for all.
 */
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

export { sleep };
const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");

export const quantile = (numbers, q) => {
  const sorted = Float64Array.from(numbers).toSorted();
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
};

/** Waits until `condition` holds; after `limitMs` it throws, with `what`. */
export const until = async (condition, what, limitMs = 30_000) => {
  for (const end = performance.now() + limitMs; !condition();) {
    if (performance.now() > end) throw new Error(`${what}: not within ${limitMs} ms`);
    await sleep(1);
  }
};

/** A UDP port that nothing on this machine uses now. */
export const freePort = () =>
  new Promise((done) => {
    const socket = createSocket("udp4");
    socket.bind(0, () => {
      const { port } = socket.address();
      socket.close(() => done(port));
    });
  });

/** Resident memory of a process, MiB. */
export const rssMiB = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

const ticks = Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout) || 100;
/** CPU seconds (user and system) that a process has used. */
export const cpuSeconds = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticks;
};

/** Ms that a fixed piece of work takes: what the machine gives now. */
const spin = () => {
  const start = performance.now();
  let x = 1;
  for (let i = 0; i < 3_000_000; i++) x = (Math.imul(x, 1_664_525) + 1_013_904_223) | 0;
  return performance.now() - start + (x === 0.5 ? 1 : 0);
};

const canPin = spawnSync("taskset", ["--version"]).status === 0;

const makeBench = (short) => {
  const directory = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "nameq-bench-"));
  const children = [];
  const rows = [];
  const spins = [];
  const calibrate = () => spins.push(spin());
  spin();
  spin();
  calibrate();

  const start = (args, { cpu, env = {}, stdio = ["ignore", "pipe", "inherit"] } = {}) => {
    const pinned = cpu === undefined || !canPin ? [] : ["taskset", "-c", String(cpu % cpus().length)];
    const [command, ...rest] = [...pinned, process.execPath, ...args];
    const child = spawn(command, rest, { env: { ...process.env, ...env }, stdio });
    children.push(child);
    return child;
  };

  let bundles = 0;
  const bundle = async (source) => {
    const { build } = await import("esbuild");
    const outfile = join(directory, `bundle-${bundles++}.mjs`);
    await build({
      stdin: { contents: source, resolveDir: root, loader: "ts" },
      bundle: true,
      platform: "node",
      target: "node20",
      format: "esm",
      outfile,
      define: { NAMEQ_VERSION: '"0.0.0"' },
      external: ["@aws-sdk/*"],
      banner: {
        js: `import { createRequire } from "node:module"; const require = createRequire(${JSON.stringify(`${root}/`)});`,
      },
      logLevel: "error",
    });
    return outfile;
  };
  const use = async (source) => import(pathToFileURL(await bundle(source)).href);

  const turns = async (measures, { count = 100, rounds = 4, warmUp = 10 } = {}) => {
    if (short) {
      count = Math.max(1, Math.floor(count / 10));
      rounds = 1;
      warmUp = Math.min(warmUp, 2);
    }
    const numbers = Object.fromEntries(Object.keys(measures).map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const [name, given] of Object.entries(measures)) {
        const { before, measure, after } = typeof given === "function" ? { measure: given } : given;
        calibrate();
        await before?.();
        for (let i = -warmUp; i < count; i++) {
          const number = await measure(i + round * (count + warmUp));
          if (i >= 0) numbers[name].push(number);
        }
        await after?.();
      }
    }
    return numbers;
  };

  const row = (name, given, { unit = "ms", floor, target } = {}) => {
    const numbers = typeof given === "number" ? [given] : given;
    const base = typeof floor === "number" ? [floor] : floor;
    const line = { name, unit, count: numbers.length, median: quantile(numbers, 0.5) };
    if (numbers.length > 1) line.p99 = quantile(numbers, 0.99);
    if (base !== undefined) {
      line.ratio = line.median / quantile(base, 0.5);
      if (numbers.length > 1 && base.length > 1) line.p99Ratio = line.p99 / quantile(base, 0.99);
    }
    if (target !== undefined) line.target = target;
    rows.push(line);
    return line;
  };

  // whatever ends this process ends those it started
  for (const signal of ["SIGINT", "SIGTERM", "disconnect"]) process.once(signal, () => process.exit(1));
  process.once("exit", () => {
    for (const child of children) child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  });

  const end = async () => {
    calibrate();
    for (const child of children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((done) => child.once("exit", done));
      child.kill("SIGCONT");
      child.kill();
      await Promise.race([gone, sleep(6_000, undefined, { ref: false })]);
    }
  };

  return {
    bench: { short, directory, program: join(root, "dist/nameq.cjs"), start, bundle, use, turns, row },
    end,
    result: () => ({
      rows,
      noise: { spinMs: [Math.min(...spins), quantile(spins, 0.5), Math.max(...spins)], load: loadavg()[0] },
    }),
  };
};

/** Measures one file. */
export const measureFile = async (file, short) => {
  const { title, run } = await import(pathToFileURL(file).href);
  const { bench, end, result } = makeBench(short);
  try {
    const begun = performance.now();
    await run(bench);
    return { title, seconds: (performance.now() - begun) / 1e3, ...result() };
  } finally {
    await end();
  }
};
