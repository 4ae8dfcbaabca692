// One node among synthetic peers, which announce themselves every 30 s from addresses of their own.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cpuSeconds, freePort, rssMiB, sleep, until } from "./harness.mjs";

export const title = "a node among N peers of 5 features: nothing changing, then 1% of the peers changing one a second";

const peersProgram = join(dirname(fileURLToPath(import.meta.url)), "parts/peers.mjs");
const own = "127.42.0.1";

/** Datagrams that the kernel threw away because the buffer of the node's socket was full. */
const kernelDrops = (port) => {
  const address = own
    .split(".")
    .toReversed()
    .map((part) => Number(part).toString(16).padStart(2, "0"))
    .join("");
  const place = `${address}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
  const line = readFileSync("/proc/net/udp", "utf8")
    .split("\n")
    .find((each) => each.includes(`: ${place} `));
  return Number(line.trim().split(/\s+/).at(-1));
};

const told = async (child, message) => {
  const answer = once(child, "message");
  child.send(message);
  return (await answer)[0];
};

const among = async (bench, codec, count) => {
  const directory = join(bench.directory, String(count));
  const tree = join(directory, "state/features");
  mkdirSync(join(directory, "own"), { recursive: true });
  const secret = randomBytes(32);
  writeFileSync(join(directory, "secret"), secret);
  const port = await freePort();
  const node = bench.start(
    [bench.program, "serve", "--addr", own, "--port", String(port), "--secret-file", join(directory, "secret")].concat(
      ["--registry-dir", join(directory, "registry"), "--feature-dir", join(directory, "own")],
      ["--state-dir", join(directory, "state")],
    ),
    { cpu: 0, stdio: "ignore" },
  );
  await until(() => existsSync(tree), "the node's tree");
  const idleMiB = rssMiB(node.pid);
  const peers = bench.start(
    [peersProgram, codec, JSON.stringify({ count, to: own, port, secret: secret.toString("hex"), tree })],
    { cpu: 1, stdio: ["ignore", "inherit", "inherit", "ipc"] },
  );
  await once(peers, "message");
  await until(() => readdirSync(join(tree, "web")).length >= count, "the files of all peers", 60_000);
  // the registry's first look for silent peers, the first heartbeat
  await sleep(bench.short ? 500 : 3_000);
  const measure = async (seconds) => {
    await told(peers, { report: true });
    const drops = kernelDrops(port);
    const cpu = cpuSeconds(node.pid);
    const start = performance.now();
    await sleep(seconds * 1e3);
    const took = (performance.now() - start) / 1e3;
    const share = (100 * (cpuSeconds(node.pid) - cpu)) / took;
    peers.send({ churn: 0 });
    await sleep(500);
    const { lags, late } = await told(peers, { report: true });
    return { share, lags, late, drops: kernelDrops(port) - drops };
  };
  // with a heartbeat of the node itself to every peer, on average
  const still = await measure(bench.short ? 1 : 32);
  const stillMiB = rssMiB(node.pid);
  peers.send({ churn: count / 100 });
  const churn = await measure(bench.short ? 1 : 15);
  const label = `${count.toLocaleString("en")} peers`;
  bench.row(`${label}: of a core`, still.share, {
    unit: "%",
    target: { median: { 100: 2, 1_000: 2, 10_000: 20 }[count] },
  });
  bench.row(`${label}: of a core, 1% changing a second`, churn.share, { unit: "%" });
  bench.row(`${label}: datagram to file while 1% change a second`, churn.lags, {
    target: count === 1_000 ? { median: 3 } : undefined,
  });
  bench.row(
    `${label}: changes without a file, datagrams that the kernel dropped`,
    churn.late + churn.drops + still.drops,
    { unit: "" },
  );
  bench.row(`${label}: RSS`, stillMiB, { unit: "MiB", floor: idleMiB });
  node.kill("SIGKILL");
  peers.kill("SIGKILL");
  await sleep(500);
};

export const run = async (bench) => {
  const codec = await bench.bundle(`export * from "./test/bench/parts/packets.js"`);
  for (const count of bench.short ? [100] : [100, 1_000, 10_000]) await among(bench, codec, count);
};
