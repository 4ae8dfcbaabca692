// From the rename of a file in A's feature directory to the file in B's tree, two nodes on this machine, against the
// floor of a bare Node program; in turns, so that both see the same noise. Also: cold start to the first file, and RSS.
// Usage: node test/bench/propagation.mjs [CHANGES A ROUND, default 100] [ROUNDS, default 4]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const program = join(here, "../../dist/nameq.cjs");
const [perRound = 100, rounds = 4] = process.argv.slice(2).map(Number);
const env = { ...process.env };
delete env.NODE_EXTRA_CA_CERTS;
const base = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "nameq-bench-"));
const children = [];
const start = (...args) => {
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "ignore"] });
  children.push(child);
  return child;
};
const quantile = (values, q) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
const rss = (child) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))[1]) / 1024;

/** Ms from a rename in `from` to the same content in `file`, as a watcher of its directory sees it. */
const change = (from, file, text) =>
  new Promise((resolve, reject) => {
    const started = () => process.hrtime.bigint();
    let at;
    const look = () => {
      let content;
      try {
        content = readFileSync(file, "utf8");
      } catch {
        return;
      }
      if (at === undefined || content.replaceAll(/\s/g, "") !== text) return;
      watcher.close();
      clearTimeout(limit);
      resolve(Number(process.hrtime.bigint() - at) / 1e6);
    };
    const watcher = watch(dirname(file), look);
    const limit = setTimeout(() => {
      watcher.close();
      reject(new Error(`${text} did not reach ${file} in 10 s`));
    }, 10_000);
    writeFileSync(join(from, ".tmp"), text);
    at = started();
    renameSync(join(from, ".tmp"), join(from, "bench"));
  });

const until = async (condition) => {
  while (!condition()) await sleep(1);
};

try {
  // ours: two nodes
  const a = "127.0.0.2";
  const b = "127.0.0.3";
  const features = join(base, a, "features");
  mkdirSync(features, { recursive: true });
  const options = ["serve", "--dev", "--dev-dir", base, "--port", "27106"];
  const nodeB = start(program, ...options, "--addr", b);
  const ownB = join(base, b, "state/features/cold/127.0.0.1");
  mkdirSync(join(base, b, "features"), { recursive: true });
  writeFileSync(join(base, b, "features/cold"), "true");
  const cold = performance.now();
  await until(() => existsSync(ownB));
  const coldMs = performance.now() - cold;
  const nodeA = start(program, ...options, "--addr", a);
  writeFileSync(join(features, "bench"), '{"n":0}');
  const target = join(base, b, "state/features/bench", a);
  await until(() => existsSync(target));
  // the floor
  const floorFrom = join(base, "floor-features");
  const floorTo = join(base, "floor-tree");
  mkdirSync(floorFrom);
  mkdirSync(floorTo);
  const floor = join(here, "floor-propagation.mjs");
  for (const [role, directory] of [
    ["receive", floorTo],
    ["send", floorFrom],
  ]) {
    await once(start(floor, role, directory, "127.0.0.4", "27107").stdout, "data");
  }
  await sleep(3_000);

  const ours = [];
  const bare = [];
  for (let round = 0; round < rounds; round++) {
    for (const [from, file, times] of [
      [features, target, ours],
      [floorFrom, join(floorTo, "file"), bare],
    ]) {
      for (let i = -10; i < perRound; i++) {
        const ms = await change(from, file, `{"round":${round},"n":${i}}`);
        if (i >= 0) times.push(ms);
        await sleep(5 + Math.random() * 5);
      }
    }
  }
  const row = (name, times) => ({
    name,
    median: quantile(times, 0.5),
    p90: quantile(times, 0.9),
    p99: quantile(times, 0.99),
  });
  const rows = [row("nameq", ours), row("floor", bare)];
  console.table(
    rows.map(({ name, ...ms }) => ({
      name,
      ...Object.fromEntries(Object.entries(ms).map(([k, v]) => [k, `${v.toFixed(2)} ms`])),
    })),
  );
  const result = {
    changes: ours.length,
    nameq: rows[0],
    floor: rows[1],
    ratio: { median: rows[0].median / rows[1].median, p99: rows[0].p99 / rows[1].p99 },
    coldStartToFileMs: coldMs,
    rssMiB: { a: rss(nodeA), b: rss(nodeB) },
  };
  console.log(JSON.stringify(result));
} finally {
  for (const child of children) child.kill();
  await sleep(500);
  rmSync(base, { recursive: true, force: true });
}
