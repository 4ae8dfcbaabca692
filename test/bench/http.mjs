// A node whose HTTP face is loaded. The load runs on the other CPU, beside the node that sends.
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cpuSeconds, freePort, rssMiB, sleep, until } from "./harness.mjs";
import { change, inFile } from "./propagation.mjs";

export const title = "a change's way to the tree of a node that 200 event streams and 1,000 requests a second load";

const load = join(dirname(fileURLToPath(import.meta.url)), "parts/http-load.mjs");
const streams = 200;
const requestsPerSecond = 1_000;

export const run = async (bench) => {
  const [a, b] = ["127.43.0.2", "127.43.0.3"];
  const port = String(await freePort());
  const own = (address) => join(bench.directory, address, "features");
  const tree = (address) => join(bench.directory, address, "state/features");
  const serve = (address, cpu, ...more) => {
    mkdirSync(own(address), { recursive: true });
    const args = [bench.program, "serve", "--dev", "--dev-dir", bench.directory, "--port", port, "--addr", address];
    return bench.start([...args, ...more], { cpu, stdio: "ignore" });
  };
  const nodeB = serve(b, 1);
  serve(a, 0, "--http", "off");
  // a fleet's worth of features, so that there is something to answer with
  for (let n = 0; n < 100; n++) writeFileSync(join(own(a), `feature-${n}`), JSON.stringify({ port: n, zone: "a" }));
  writeFileSync(join(own(a), "bench"), "0");
  const file = join(tree(b), "bench", a);
  await until(() => existsSync(file) && existsSync(join(bench.directory, b, "state/.http")), "two nodes that talk");
  await sleep(bench.short ? 500 : 3_000);
  const { hostname } = new URL(readFileSync(join(bench.directory, b, "state/.http"), "utf8"));

  let n = 0;
  const measured = () => change(own(a), "bench", String(++n), inFile(file));
  const loads = [];
  const cpu = [];
  let generator;
  let before;
  const { loaded, quiet } = await bench.turns(
    {
      quiet: measured,
      loaded: {
        before: async () => {
          generator = bench.start([load, hostname, port, String(streams), String(requestsPerSecond)], { cpu: 0 });
          await once(generator.stdout, "data");
          await sleep(300);
          before = [cpuSeconds(nodeB.pid), performance.now()];
        },
        measure: measured,
        after: async () => {
          cpu.push(((cpuSeconds(nodeB.pid) - before[0]) / (performance.now() - before[1])) * 1e5);
          let text = "";
          generator.stdout.on("data", (chunk) => (text += chunk));
          generator.kill("SIGTERM");
          await once(generator.stdout, "close");
          const got = JSON.parse(text);
          if (got.failed > 0 || got.cut > 0) throw new Error(`${got.failed} requests failed, ${got.cut} streams ended`);
          loads.push(got);
        },
      },
    },
    { count: 100, rounds: 4 },
  );
  bench.row("file in its tree, quiet", quiet);
  bench.row("file in its tree, loaded", loaded, { floor: quiet, target: { ratio: 2 } });
  bench.row(
    "requests answered",
    loads.map(({ rate }) => rate),
    { unit: "1/s" },
  );
  bench.row(
    "an answer",
    loads.flatMap(({ tookMs }) => tookMs),
  );
  bench.row("CPU of the loaded node", cpu, { unit: "%" });
  bench.row("memory of the loaded node", rssMiB(nodeB.pid), { unit: "MiB" });
};
