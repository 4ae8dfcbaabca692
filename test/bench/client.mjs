// A program with NameqClient over the tree of a large fleet. The floors read, watch and rename as a bare program would.
import { mkdirSync, readdirSync, readFileSync, renameSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sleep, until } from "./harness.mjs";

export const title = "NameqClient over a tree of 1,000 features x 100 hosts";

const mebibytes = () => {
  global.gc();
  global.gc();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 1024 ** 2;
};

export const run = async (bench) => {
  const { connect } = await bench.use(`export { connect } from "./src/promises.js"`);
  const root = join(bench.directory, "features");
  const features = bench.short ? 50 : 1_000;
  const hosts = bench.short ? 10 : 100;
  for (let f = 0; f < features; f++) {
    const directory = join(root, `feature-${f}`);
    mkdirSync(directory, { recursive: true });
    for (let h = 0; h < hosts; h++) writeFileSync(join(directory, `10.0.0.${h}`), `{\n\t"port": ${h}\n}\n`);
  }
  const files = features * hosts;
  const options = { stateDir: bench.directory, featureDir: join(bench.directory, "own") };

  const { ours, floor } = await bench.turns(
    {
      ours: async () => {
        const client = await connect(options);
        const start = performance.now();
        const snapshot = await client.snapshot();
        const ms = performance.now() - start;
        if (snapshot.features.size !== features) throw new Error(`a snapshot of ${snapshot.features.size} features`);
        await client.close();
        return ms;
      },
      floor: async () => {
        const start = performance.now();
        const all = new Map();
        for (const feature of readdirSync(root)) {
          const values = new Map();
          for (const host of readdirSync(join(root, feature)))
            values.set(host, JSON.parse(readFileSync(join(root, feature, host), "utf8")));
          all.set(feature, values);
        }
        return performance.now() - start;
      },
    },
    { count: 2, rounds: 3, warmUp: 1 },
  );
  bench.row(`first snapshot of ${files.toLocaleString("en")} values`, ours, { floor });
  bench.row("floor: readdir, read and parse", floor);

  let client;
  let following;
  let seen = 0;
  let wanted = { json: "", resolve: () => {} };
  /** Subscribes, and waits until all that is there was told. */
  const subscribe = async () => {
    client = await connect(options);
    seen = 0;
    following = (async () => {
      for await (const { _tag, json } of client.changes()) {
        if (_tag === "Added") seen++;
        if (json === wanted.json) wanted.resolve(performance.now());
      }
    })();
    await until(() => seen >= files, "all there is, as events", 60_000);
  };
  const unsubscribe = async () => {
    await client.close();
    await following;
  };
  const before = mebibytes();
  const start = performance.now();
  await subscribe();
  bench.row("a subscription up to its last first event", performance.now() - start, { floor });
  bench.row("a subscription: memory a value", ((mebibytes() - before) * 1024) / files, { unit: "KiB" });
  await unsubscribe();

  let n = 0;
  const change = async (seenIt) => {
    await sleep(5 + Math.random() * 5);
    const json = `"change-${++n}"`;
    const directory = join(root, `feature-${n % features}`);
    writeFileSync(join(bench.directory, ".new"), `${json}\n`);
    const arrived = seenIt(json, directory);
    const from = performance.now();
    renameSync(join(bench.directory, ".new"), join(directory, "10.0.0.1"));
    return (await arrived) - from;
  };
  const atClient = (json) =>
    new Promise((resolve) => {
      wanted = { json, resolve };
    });
  const bare = (json, directory) =>
    new Promise((resolve) => {
      const watcher = watch(directory, (_, name) => {
        if (name.startsWith(".") || JSON.parse(readFileSync(join(directory, name), "utf8")) !== JSON.parse(json))
          return;
        watcher.close();
        resolve(performance.now());
      });
    });
  const events = await bench.turns(
    {
      ours: {
        before: async () => {
          await subscribe();
          await sleep(bench.short ? 300 : 2_000);
        },
        measure: () => change(atClient),
        // else the floor's events would wait for ours
        after: unsubscribe,
      },
      floor: () => change(bare),
    },
    { count: 100, rounds: 4, warmUp: 10 },
  );
  bench.row("an event after the rename", events.ours, { floor: events.floor, target: { median: 0.5, p99: 5 } });
  bench.row("floor: one watch, read and parse", events.floor);
};
