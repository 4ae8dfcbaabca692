// The program starts into a directory registry with the objects of many nodes that nobody hears. The floor reads and
// writes the same files, one after the other.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cpuSeconds, freePort, rssMiB, until } from "./harness.mjs";

export const title = "a start into a registry of N nodes of 5 features: from nothing to the whole tree";

const names = ["cache", "db", "jobs", "mail", "web"];
const own = "127.42.0.1";
const addressOf = (i) => `127.42.${1 + (i >> 8)}.${i & 255}`;

const floor = (registry, features) => {
  rmSync(features, { recursive: true, force: true });
  for (const name of names) mkdirSync(join(features, name), { recursive: true });
  const temporary = join(features, ".tmp");
  for (const object of readdirSync(registry)) {
    const { features: values } = JSON.parse(readFileSync(join(registry, object), "utf8"));
    for (const name of names) {
      writeFileSync(temporary, `${JSON.stringify(values[name], null, "\t")}\n`);
      renameSync(temporary, join(features, name, object));
    }
  }
};

export const run = async (bench) => {
  for (const count of bench.short ? [100] : [1_000, 10_000]) {
    const directory = join(bench.directory, String(count));
    const registry = join(directory, "registry");
    mkdirSync(registry, { recursive: true });
    mkdirSync(join(directory, "own"));
    writeFileSync(join(directory, "secret"), "0123456789abcdef0123456789abcdef");
    for (let i = 0; i < count; i++) {
      const values = names.map((name, n) => `\t\t"${name}": {\n\t\t\t"port": ${10_000 + i + n}\n\t\t}`);
      writeFileSync(
        join(registry, addressOf(i)),
        `{\n\t"features": {\n${values.join(",\n")}\n\t},\n\t"time_ns": ${Date.now()}000000\n}\n`,
      );
    }
    const port = String(await freePort());
    const features = join(directory, "state/features");
    let life = 0;
    const cpu = [];
    const memory = [];
    const boot = async () => {
      rmSync(join(directory, "state"), { recursive: true, force: true });
      const start = performance.now();
      const node = bench.start(
        [bench.program, "serve", "--addr", own, "--port", port, "--secret-file", join(directory, "secret")].concat(
          [
            "--registry-dir",
            registry,
            "--feature-dir",
            join(directory, "own"),
            "--state-dir",
            join(directory, "state"),
          ],
          ["--on-exit", "keep"],
        ),
        { cpu: 0, stdio: "ignore" },
      );
      const isWhole = (name) => existsSync(join(features, name)) && readdirSync(join(features, name)).length >= count;
      for (const name of names) await until(() => isWhole(name), `the tree of start ${life}`, 60_000);
      const ms = performance.now() - start;
      cpu.push(cpuSeconds(node.pid) * 1e3);
      memory.push(rssMiB(node.pid));
      life++;
      node.kill();
      await new Promise((done) => node.once("exit", done));
      // what it put there is not of the fleet
      for (const name of [own, ".tmp"]) rmSync(join(registry, name), { recursive: true });
      return ms;
    };
    const ms = await bench.turns(
      {
        floor: () => {
          const start = performance.now();
          floor(registry, join(directory, "floor"));
          return performance.now() - start;
        },
        boot,
      },
      { count: 1, rounds: count > 1_000 ? 3 : 5, warmUp: 0 },
    );
    const label = `${count.toLocaleString("en")} nodes`;
    bench.row(`${label}: from the start of the process`, ms.boot, {
      floor: ms.floor,
      target: count === 10_000 ? { ratio: 3 } : undefined,
    });
    bench.row(`${label}: CPU`, cpu, { floor: ms.floor });
    bench.row(`${label}: RSS then`, memory, { unit: "MiB" });
  }
};
