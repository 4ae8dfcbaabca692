// From the rename of a file in the tree to the line that `nameq monitor-features` prints, against the floor of a bare
// Node program that watches one directory, reads and prints; in turns. Usage: node test/bench/monitor.mjs [CHANGES] [ROUNDS]
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const [perRound = 200, rounds = 4] = process.argv.slice(2).map(Number);
const program = join(dirname(fileURLToPath(import.meta.url)), "../../dist/nameq.cjs");
const env = { ...process.env };
delete env.NODE_EXTRA_CA_CERTS;
const base = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "nameq-bench-"));
const directory = join(base, "features/bench");
mkdirSync(directory, { recursive: true });
writeFileSync(join(base, "features/bench/10.0.0.1"), '"ready"\n');

const floor = `const { watch, readFileSync } = require("node:fs"); const { join } = require("node:path");
watch(${JSON.stringify(directory)}, (_, name) => {
  if (!name.startsWith(".")) try { process.stdout.write(readFileSync(join(${JSON.stringify(directory)}, name))); } catch {}
});
process.stdout.write('"ready"\\n');`;

/** A program that prints what it sees; `seen` waits for a text. */
const start = (...args) => {
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  let wanted;
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => {
    text = (text + chunk).slice(-4_096);
    if (wanted !== undefined && text.includes(wanted.text)) wanted.resolve(process.hrtime.bigint());
  });
  const seen = (what) =>
    new Promise((resolve) => {
      wanted = { text: what, resolve };
      if (text.includes(what)) resolve(process.hrtime.bigint());
    });
  return { child, seen };
};

const quantile = (values, q) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
const programs = [
  { name: "monitor-features", times: [], ...start(program, "monitor-features", "--state-dir", base) },
  { name: "floor", times: [], ...start("-e", floor) },
];
try {
  for (const { seen } of programs) await seen('"ready"');
  await sleep(1_500);
  for (let round = 0; round < rounds; round++) {
    for (const { child, seen, times } of programs) {
      // the other one sleeps, so that one reader is measured at a time
      for (const other of programs) other.child.kill(other.child === child ? "SIGCONT" : "SIGSTOP");
      await sleep(300);
      for (let i = -10; i < perRound; i++) {
        const text = `"${round}/${i}/${child.pid}"`;
        writeFileSync(join(base, ".tmp"), `${text}\n`);
        const done = seen(text);
        const at = process.hrtime.bigint();
        renameSync(join(base, ".tmp"), join(directory, "10.0.0.1"));
        const ms = Number((await done) - at) / 1e6;
        if (i >= 0) times.push(ms);
        await sleep(5 + Math.random() * 5);
      }
    }
  }
  const rows = programs.map(({ name, times }) => ({
    name,
    median: quantile(times, 0.5),
    p99: quantile(times, 0.99),
  }));
  console.table(rows);
  console.log(JSON.stringify({ changes: perRound * rounds, rows, ratio: rows[0].median / rows[1].median }));
} finally {
  for (const { child } of programs) {
    child.kill("SIGCONT");
    child.kill();
  }
  await sleep(200);
  rmSync(base, { recursive: true, force: true });
}
