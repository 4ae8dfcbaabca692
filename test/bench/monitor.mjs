// A program that follows the tree. The floor is a bare Node program that watches one directory, reads and prints.
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "./harness.mjs";

export const title = "from the rename of a file in the tree to the line that `nameq monitor-features` prints";

const floorText = (directory) => `
const { watch, readFileSync } = require("node:fs"), { join } = require("node:path");
const directory = ${JSON.stringify(directory)};
watch(directory, (_, name) => {
  if (!name.startsWith(".")) try { process.stdout.write(readFileSync(join(directory, name))); } catch {}
});
process.stdout.write('"ready"\\n');`;

export const run = async (bench) => {
  const directory = join(bench.directory, "features/bench");
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "10.0.0.1"), '"ready"\n');

  /** A program that prints what it sees; `seen` waits for a text. */
  const follow = (...args) => {
    const child = bench.start(args, { cpu: 1 });
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
  const programs = {
    ours: follow(bench.program, "monitor-features", "--state-dir", bench.directory),
    floor: follow("-e", floorText(directory)),
  };
  for (const { seen } of Object.values(programs)) await seen('"ready"');
  await sleep(bench.short ? 300 : 1_500);

  let n = 0;
  const turn = ({ child, seen }) => ({
    // one reader at a time: the other sleeps
    before: async () => {
      for (const other of Object.values(programs)) other.child.kill(other.child === child ? "SIGCONT" : "SIGSTOP");
      await sleep(300);
    },
    measure: async () => {
      await sleep(5 + Math.random() * 5);
      const text = `"change-${++n}"`;
      writeFileSync(join(bench.directory, ".tmp"), `${text}\n`);
      const done = seen(text);
      const start = process.hrtime.bigint();
      renameSync(join(bench.directory, ".tmp"), join(directory, "10.0.0.1"));
      return Number((await done) - start) / 1e6;
    },
  });
  const { ours, floor } = await bench.turns(
    { ours: turn(programs.ours), floor: turn(programs.floor) },
    { count: 150, rounds: 4 },
  );
  bench.row("line of monitor-features", ours, { floor, target: { median: 0.5, p99: 5 } });
  bench.row("floor: bare Node program", floor);
};
