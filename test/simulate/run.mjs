/**
 * Plays many seeds on simulated fleets, on all cores, and prints what was done to them:
 *
 *     npm run simulate -- [--seeds 1000] [--hours 24] [--nodes 5] [--first-seed 1] [--processes CORES]
 *         [--tier rules|whole|both] [--only KIND,KIND] [--json]
 *
 * `rules` (the default) plays on the rules alone, `whole` on whole nodes, `both` on both, which must end in the same
 * trees. A broken promise ends it with status 1, after the seed and the shortest schedule found that breaks it too.
 */
import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { bundle } from "../bundle.mjs";
import { commandLine, misused } from "../commandLine.mjs";

const { values } = commandLine(import.meta.url, {
  options: {
    seeds: { type: "string", default: "1000" },
    hours: { type: "string", default: "24" },
    nodes: { type: "string", default: "5" },
    "first-seed": { type: "string", default: "1" },
    processes: { type: "string", default: String(availableParallelism()) },
    tier: { type: "string", default: "rules" },
    only: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const number = (name) => {
  const value = Number(values[name]);
  if (!(value > 0)) misused(`--${name} takes a number above 0`);
  return value;
};
const [seeds, hours, nodes, first, processes] = ["seeds", "hours", "nodes", "first-seed", "processes"].map(number);
const { tier } = values;
if (!["rules", "whole", "both"].includes(tier)) misused("--tier is rules, whole or both");
const only = values.only?.split(",");

const worker = await bundle("simulate/worker.ts");
const { kinds } = await import(worker);
const unknown = only?.find((kind) => !kinds.includes(kind));
if (unknown !== undefined) misused(`--only: no fault is called "${unknown}": there are ${kinds.join(", ")}`);
const total = { seeds: 0, runs: 0, simulatedMs: 0, faults: {}, harm: {}, largest: {} };
const broken = [];
const started = performance.now();

const add = (to, counts) => {
  for (const [name, count] of Object.entries(counts)) to[name] = (to[name] ?? 0) + count;
};
const take = (report) => {
  for (const name of ["seeds", "runs", "simulatedMs"]) total[name] += report[name];
  add(total.faults, report.faults);
  add(total.harm, report.harm);
  for (const [name, size] of Object.entries(report.largest)) {
    total.largest[name] = Math.max(total.largest[name] ?? 0, size);
  }
  if (report.broken !== undefined) broken.push(report.broken);
  if (process.stderr.isTTY) process.stderr.write(`\r${total.seeds} of ${seeds} seeds`);
};
const play = (share) =>
  new Promise((resolve, reject) => {
    const child = fork(worker);
    child.on("message", take);
    child.on("error", reject);
    child.on("exit", (status, signal) =>
      status === 0 ? resolve() : reject(new Error(`a process ended with ${status ?? signal}`)),
    );
    child.send({ tier, seeds: share, nodes, hours, only });
  });

const shares = Array.from({ length: processes }, (_, at) =>
  Array.from({ length: seeds }, (_, i) => first + i).filter((_, i) => i % processes === at),
);
await Promise.all(shares.filter((share) => share.length > 0).map(play));
const wallS = (performance.now() - started) / 1_000;
if (process.stderr.isTTY) process.stderr.write("\r");

const table = (title, counts) => {
  const rows = Object.entries(counts).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const width = Math.max(title.length, ...rows.map(([name]) => name.length));
  const lines = rows.map(([name, count]) => `  ${name.padEnd(width)} ${count.toLocaleString("en").padStart(15)}`);
  return `${title}\n${lines.join("\n")}\n`;
};
const result = {
  nodes,
  seeds: total.seeds,
  simulatedHours: Math.round(total.simulatedMs / 3_600_000),
  violations: broken.length,
  wallS: Math.round(wallS),
  processes,
};
console.log(table("faults injected", total.faults));
console.log(table("what they did", total.harm));
console.log(table("the most that any node kept", total.largest));
console.log(table({ rules: "rules alone", whole: "whole nodes", both: "rules alone and whole nodes" }[tier], result));
if (values.json) console.log(JSON.stringify({ tier, ...result, ...total }));
for (const each of broken) console.error(each);
process.exitCode = broken.length === 0 ? 0 : 1;
