// The floors are loops that only open, write, close and rename the same files: in Node, and in C where there is a cc.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setImmediate as turn } from "node:timers/promises";
import { sleep } from "./harness.mjs";

export const title = "differences to files: many hosts change, and 50,000 files at the start of a node";

const names = ["db", "web", "cache", "queue", "mail"];
const address = (n) => `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`;
const value = (n) => `{"port":${1000 + n}}`;
const text = (n) => `{\n\t"port": ${1000 + n}\n}\n`;

const inC = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) { /* DIRECTORY HOSTS VALUE: prints ms */
  static const char *names[] = {"db", "web", "cache", "queue", "mail"};
  struct timespec a, b;
  char path[512], text[64];
  int hosts = atoi(argv[2]), length = snprintf(text, sizeof text, "{\\n\\t\\"port\\": %d\\n}\\n", 1000 + atoi(argv[3]));
  if (chdir(argv[1])) return 1;
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int n = 0; n < hosts; n++)
    for (int i = 0; i < 5; i++) {
      int fd = open(".tmp", O_WRONLY | O_CREAT | O_EXCL, 0444);
      if (fd < 0 || write(fd, text, length) != length || close(fd)) return 1;
      snprintf(path, sizeof path, "features/%s/10.%d.%d.%d", names[i], n >> 16, n >> 8 & 255, n & 255);
      if (rename(".tmp", path)) return 1;
    }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%f", (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
}`;

export const run = async (bench) => {
  const { Layer, ManagedRuntime, Metrics, StateTree } = await bench.use(`
    export * as Layer from "effect/Layer";
    export * as ManagedRuntime from "effect/ManagedRuntime";
    export { Metrics } from "./src/Metrics.js";
    export { StateTree } from "./src/StateTree.js";
  `);
  let trees = 0;
  /** A tree with its writer running. */
  const open = async () => {
    const directory = join(bench.directory, `t${trees++}`);
    const layer = Layer.provideMerge(StateTree.layer({ directory }), Metrics.layer);
    const runtime = ManagedRuntime.make(layer);
    const tree = await runtime.runPromise(StateTree);
    runtime.runFork(tree.run);
    const close = async () => {
      await runtime.dispose();
      rmSync(directory, { recursive: true });
    };
    return { tree, flush: () => runtime.runPromise(tree.flush), close };
  };
  const wishes = (n) => new Map(names.map((name) => [name, value(n)]));
  const frame = (name) => {
    const directory = join(bench.directory, name);
    for (const feature of names) mkdirSync(join(directory, "features", feature), { recursive: true });
    return directory;
  };

  const hosts = bench.short ? 100 : 1_000;
  const { tree, flush, close } = await open();
  const bare = frame("bare");
  const write = (directory, n, i, content) => {
    writeFileSync(`${directory}/.tmp`, content, { encoding: "utf8", flag: "wx", mode: 0o444 });
    renameSync(`${directory}/.tmp`, `${directory}/features/${names[i]}/${address(n)}`);
  };
  const timed = async (work) => {
    const start = performance.now();
    await work();
    return ((performance.now() - start) * 1e3) / (hosts * names.length);
  };
  const measures = {
    ours: (round) => {
      const wished = Array.from({ length: hosts }, () => wishes(round + 100));
      return timed(async () => {
        for (let n = 0; n < hosts; n++) tree.update(address(n), wished[n]);
        await flush();
      });
    },
    floor: (round) =>
      timed(async () => {
        for (let n = 0; n < hosts; n++) for (let i = 0; i < names.length; i++) write(bare, n, i, text(round + 100));
      }),
  };
  const program = join(bench.directory, "floor");
  writeFileSync(`${program}.c`, inC);
  if (spawnSync("cc", ["-O2", "-o", program, `${program}.c`]).status === 0) {
    const directory = frame("c");
    measures.c = async (round) => {
      const { status, stdout } = spawnSync(program, [directory, String(hosts), String(round + 100)], {
        encoding: "utf8",
      });
      if (status !== 0) throw new Error("the loop in C does not work");
      return (Number(stdout) * 1e3) / (hosts * names.length);
    };
  }
  const { ours, floor, c } = await bench.turns(measures, { count: 6, rounds: 4, warmUp: 2 });
  bench.row("a changed file", ours, { unit: "us", floor: c ?? floor, target: { ratio: 1.4 } });
  bench.row("floor: loop in Node", floor, { unit: "us" });
  if (c !== undefined) bench.row("floor: loop in C", c, { unit: "us" });

  let standing = wishes(1);
  for (let n = 0; n < hosts; n++) tree.update(address(n), standing);
  await flush();
  const { unchanged } = await bench.turns(
    {
      unchanged: () => {
        standing = new Map(standing);
        return timed(async () => {
          for (let n = 0; n < hosts; n++) tree.update(address(n), standing);
          await flush();
        });
      },
    },
    { count: 10, rounds: 2, warmUp: 2 },
  );
  bench.row("an unchanged file, all of a host's news", unchanged, { unit: "us", floor });
  await close();

  const many = bench.short ? 500 : 10_000;
  const bootTimes = [];
  const bootFloor = [];
  const delays = [];
  for (let round = 0; round < (bench.short ? 1 : 3); round++) {
    const boot = await open();
    const all = Array.from({ length: many }, (_, n) => [address(n), wishes(n)]);
    const histogram = monitorEventLoopDelay({ resolution: 1 });
    await sleep(50);
    histogram.enable();
    let start = performance.now();
    for (let n = 0; n < many; n++) {
      boot.tree.update(...all[n]);
      // news comes in the chunks of the socket or of the registry's scan
      if (n % 64 === 63) await turn();
    }
    await boot.flush();
    bootTimes.push(performance.now() - start);
    histogram.disable();
    // it measures from the resolution on
    delays.push(Math.max(0, histogram.percentile(99) / 1e6 - 1));
    await boot.close();

    const directory = frame(`boot${round}`);
    start = performance.now();
    for (let n = 0; n < many; n++) {
      for (let i = 0; i < names.length; i++) write(directory, n, i, text(n));
      if (n % 13 === 12) await turn();
    }
    bootFloor.push(performance.now() - start);
    rmSync(directory, { recursive: true });
  }
  const label = `${(many * names.length).toLocaleString("en")} files at the start`;
  bench.row(label, bootTimes, { floor: bootFloor });
  bench.row(`${label}: loop delay p99`, delays, { target: { median: 5 } });
  if (existsSync(bare)) rmSync(bare, { recursive: true });
};
