// Two nodes on this machine. The floor is what a bare Node program does at the least (floor-propagation.mjs).
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, renameSync, watch, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, rssMiB, sleep, until } from "./harness.mjs";

export const title =
  "from the rename of a file in A's feature directory to the file in B's tree, and to a program at B";

const floorProgram = join(dirname(fileURLToPath(import.meta.url)), "floor-propagation.mjs");
const limitMs = 10_000;

/** Replaces the file `name` of `directory`, and waits until `seen` tells that its text has arrived. Gives ms. */
export const change = async (directory, name, text, seen) => {
  await sleep(5 + Math.random() * 5);
  writeFileSync(join(directory, ".tmp"), text);
  const arrived = seen(text);
  const start = process.hrtime.bigint();
  renameSync(join(directory, ".tmp"), join(directory, name));
  return Number((await arrived) - start) / 1e6;
};

/** Waits for a text in `file`, as a watcher of its directory sees it. */
export const inFile = (file) => (text) =>
  new Promise((resolve, reject) => {
    const watcher = watch(dirname(file), () => {
      let content;
      try {
        content = readFileSync(file, "latin1");
      } catch {
        return; // between two renames
      }
      if (content.trim() === text) settle(resolve, process.hrtime.bigint());
    });
    const limit = setTimeout(() => settle(reject, new Error(`${text} did not reach ${file}`)), limitMs);
    const settle = (how, result) => {
      watcher.close();
      clearTimeout(limit);
      how(result);
    };
  });

export const run = async (bench) => {
  const { connect } = await bench.use(`export { connect } from "./src/promises.js"`);
  const [a, b, c] = ["127.41.0.2", "127.41.0.3", "127.41.0.4"];
  const port = String(await freePort());
  const own = (address) => join(bench.directory, address, "features");
  const tree = (address) => join(bench.directory, address, "state/features");
  const serve = (address, cpu) => {
    mkdirSync(own(address), { recursive: true });
    const args = [bench.program, "serve", "--dev", "--dev-dir", bench.directory, "--port", port, "--addr", address];
    return bench.start(args, { cpu, stdio: "ignore" });
  };

  mkdirSync(own(b), { recursive: true });
  writeFileSync(join(own(b), "cold"), "true");
  const cold = performance.now();
  const nodeB = serve(b, 1);
  await until(() => existsSync(join(tree(b), "cold/127.0.0.1")), "the first file of a node");
  bench.row("cold start to the first file", performance.now() - cold);
  const nodeA = serve(a, 0);
  writeFileSync(join(own(a), "bench"), "0");
  const file = join(tree(b), "bench", a);
  await until(() => existsSync(file), "the first file of the other node");

  const floorFrom = join(bench.directory, "floor-features");
  const floorTo = join(bench.directory, "floor-tree");
  mkdirSync(floorFrom);
  mkdirSync(floorTo);
  for (const [role, directory, cpu] of [
    ["receive", floorTo, 1],
    ["send", floorFrom, 0],
  ]) {
    await once(bench.start([floorProgram, role, directory, c, port], { cpu }).stdout, "data");
  }
  await sleep(bench.short ? 500 : 3_000);

  let client;
  let wanted = { text: "", resolve: () => {} };
  const atClient = (text) =>
    new Promise((resolve) => {
      wanted = { text, resolve };
    });
  const subscribe = async () => {
    client = await connect({ stateDir: join(bench.directory, b, "state"), featureDir: own(b) });
    void (async () => {
      for await (const { json } of client.changes()) if (json === wanted.text) wanted.resolve(process.hrtime.bigint());
    })();
    await sleep(300);
  };

  let n = 0;
  const measured = (directory, name, seen) => () => change(directory, name, String(++n), seen);
  const { ours, event, floor } = await bench.turns(
    {
      ours: measured(own(a), "bench", inFile(file)),
      floor: measured(floorFrom, "bench", inFile(join(floorTo, "file"))),
      event: { before: subscribe, measure: measured(own(a), "bench", atClient), after: () => client.close() },
    },
    { count: 100, rounds: 6 },
  );
  bench.row("file in B's tree", ours, { floor, target: { ratio: 2, p99Ratio: 4 } });
  bench.row("event at a NameqClient of B", event, { floor });
  bench.row("floor: bare Node program", floor);
  bench.row("memory of A", rssMiB(nodeA.pid), { unit: "MiB" });
  bench.row("memory of B", rssMiB(nodeB.pid), { unit: "MiB" });
};
