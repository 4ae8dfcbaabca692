/**
 * Runs the benchmarks. Usage, after `npm run bench --`:
 *
 *     [NAME...] [--short] [--json DIR]    these, or all; --short sees that each works, and takes seconds
 *     --compare OLD.json NEW.json         two runs side by side
 *
 * --json writes one file for the run, named by the commit. `recorded.json` beside this file is such a file of a quiet
 * machine; its ratios are printed beside the new ones. Times never make a run fail: a benchmark that does not work does.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { commandLine, misused } from "../commandLine.mjs";
import { measureFile } from "./harness.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const all = readdirSync(here)
  .flatMap((file) => (/^(?!run\.|harness\.|floor-)(.+)\.mjs$/.exec(file) ?? []).slice(1))
  .toSorted();

/** A benchmark that takes longer hangs. */
const limitMs = 240_000;

const number = (value) =>
  value === undefined
    ? ""
    : value === 0
      ? "0"
      : value >= 1_000
        ? Math.round(value).toLocaleString("en")
        : value.toPrecision(3);
const times = (value) => (value === undefined ? "" : `${value.toFixed(2)} x`);

/** Columns as wide as what is in them. */
const table = (head, lines) => {
  const cells = [head, ...lines];
  const widths = head.map((_, at) => Math.max(...cells.map((line) => line[at].length)));
  for (const line of cells) {
    console.log(
      `  ${line.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join("  ")}`.trimEnd(),
    );
  }
};

const labels = { median: "", p99: "p99 ", ratio: "", p99Ratio: "p99 " };
const wanted = ({ target: { atLeast, ...most } = {}, unit, ...line }) =>
  Object.entries(most)
    .map(([key, value]) => {
      const met = atLeast ? line[key] >= value : line[key] <= value;
      return `${labels[key]}${/atio/.test(key) ? `${value} x` : `${number(value)} ${unit}`}${met ? "" : " (!)"}`;
    })
    .join(", ");

const noiseText = ({ spinMs: [least, median, most], load }) =>
  `noise: fixed work took ${least.toFixed(1)} to ${most.toFixed(1)} ms (median ${median.toFixed(1)}), load ${load.toFixed(1)}`;

const compare = (oldFile, newFile) => {
  const [old, now] = [oldFile, newFile].map((file) => JSON.parse(readFileSync(file, "utf8")));
  for (const [name, { rows, noise }] of Object.entries(now.benches)) {
    const before = old.benches[name];
    if (before === undefined) continue;
    console.log(`\n${name}: ${old.commit} against ${now.commit}`);
    table(
      ["", "unit", "median", "", "change", "p99", "", "ratio", ""],
      rows.flatMap((line) => {
        const was = before.rows.find((other) => other.name === line.name);
        if (was === undefined) return [];
        const change = `${line.median >= was.median ? "+" : ""}${((line.median / was.median - 1) * 100).toFixed(0)} %`;
        return [
          [
            line.name,
            line.unit,
            number(was.median),
            number(line.median),
            change,
            number(was.p99),
            number(line.p99),
            times(was.ratio),
            times(line.ratio),
          ],
        ];
      }),
    );
    console.log(`  before: ${noiseText(before.noise)}\n  now:    ${noiseText(noise)}`);
  }
};

const measure = async (name, short) => {
  const env = { ...process.env };
  // both change what every Node process costs
  delete env.NODE_EXTRA_CA_CERTS;
  delete env.NODE_OPTIONS;
  const args = ["--expose-gc", fileURLToPath(import.meta.url), "--child", name, ...(short ? ["--short"] : [])];
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "inherit", "inherit", "ipc"] });
  let result;
  child.on("message", (message) => {
    result = message;
  });
  const limit = setTimeout(() => child.kill(), limitMs);
  const [status] = await once(child, "exit");
  clearTimeout(limit);
  if (status !== 0 || result === undefined)
    throw new Error(`${name} does not work (status ${status ?? `none: it was ended after ${limitMs / 1e3} s`})`);
  return result;
};

const { values, positionals } = commandLine(import.meta.url, {
  allowPositionals: true,
  options: {
    short: { type: "boolean" },
    json: { type: "string" },
    compare: { type: "boolean" },
    // one file, in this process, whose parent gets the result
    child: { type: "boolean" },
  },
});
if (values.child) {
  const result = await measureFile(join(here, `${positionals[0]}.mjs`), values.short);
  process.send(result, () => process.exit());
} else if (values.compare) {
  if (positionals.length !== 2) misused("--compare takes two files that --json wrote");
  compare(...positionals);
} else {
  const unknown = positionals.find((name) => !all.includes(name));
  if (unknown !== undefined) misused(`no benchmark is called ${unknown}: there are ${all.join(", ")}`);
  const recorded = existsSync(join(here, "recorded.json"))
    ? JSON.parse(readFileSync(join(here, "recorded.json"), "utf8")).benches
    : {};
  const commit =
    spawnSync("git", ["describe", "--always", "--dirty"], { cwd: here, encoding: "utf8" }).stdout.trim() || "unknown";
  const run = {
    commit,
    at: new Date().toISOString(),
    node: process.version,
    cpu: `${cpus().length} x ${cpus()[0].model}`,
    benches: {},
  };
  console.log(`${run.commit}, Node ${run.node}, ${run.cpu}`);
  const broken = [];
  for (const name of positionals.length > 0 ? positionals : all) {
    try {
      const result = await measure(name, values.short);
      run.benches[name] = result;
      console.log(`\n${name}: ${result.title} (${result.seconds.toFixed(0)} s)`);
      table(
        ["", "unit", "median", "p99", "of floor", "p99", "recorded", "", "at most"],
        result.rows.map((line) => {
          const known = recorded[name]?.rows.find((other) => other.name === line.name);
          return [
            line.name,
            line.unit,
            number(line.median),
            number(line.p99),
            times(line.ratio),
            times(line.p99Ratio),
            known?.ratio === undefined ? number(known?.median) : times(known.ratio),
            times(known?.p99Ratio),
            wanted(line),
          ];
        }),
      );
      console.log(`  ${noiseText(result.noise)}`);
    } catch (error) {
      broken.push(name);
      console.error(`bench: ${error.message}`);
    }
  }
  if (values.json !== undefined) {
    mkdirSync(values.json, { recursive: true });
    const file = join(values.json, `${run.commit}.json`);
    writeFileSync(file, `${JSON.stringify(run, null, 2)}\n`);
    console.log(`\nwritten to ${file}`);
  }
  if (broken.length > 0) process.exit(1);
}
