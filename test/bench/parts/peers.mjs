/**
 * Synthetic peers, as a process of their own: each has an address of its own in 127.42.0.0/15 and five small features,
 * and sends a signed announcement to one node every 30 s. Arguments: the bundle of the codec, a JSON object
 * `{ count, to, port, secret (hex), tree }`. IPC messages: `{ churn: CHANGES A SECOND }` from now on, and `{ report: true }`,
 * which is answered with what was sent since the last report and the lags (ms) of changes from the datagram to the file.
 */
import { createSocket } from "node:dgram";
import { mkdirSync, watch } from "node:fs";
import { pathToFileURL } from "node:url";

const { Packet, Feature, createSecretKey } = await import(pathToFileURL(process.argv[2]).href);
const { count, to, port, secret, tree } = JSON.parse(process.argv[3]);
const heartbeatMs = 30_000;
const names = ["cache", "db", "jobs", "mail", "web"];
const key = { mode: 0, secret: createSecretKey(Buffer.from(secret, "hex")) };

const peers = Array.from({ length: count }, (_, i) => ({
  address: `127.${42 + (i >> 15)}.${1 + ((i >> 8) & 127)}.${i & 255}`,
  values: names.map((_, n) => `{"port":${10_000 + i + n}}`),
}));
let sent = 0;
let failed = 0;

/** A socket for each datagram: thousands of them at once would be more than a process may have. */
const announce = ({ address, values }) =>
  new Promise((done) => {
    const features = Feature.fromEntries(names.map((name, n) => [name, values[n]]));
    const timeNs = BigInt(Date.now()) * 1_000_000n + (process.hrtime.bigint() % 1_000_000n);
    const bytes = Packet.encode(key, { address, timeNs, features });
    const socket = createSocket("udp4");
    socket.on("error", () => {});
    socket.bind(0, address, () => {
      socket.send(bytes, port, to, (error) => {
        if (error) failed++;
        else sent++;
        socket.close(done);
      });
    });
  });

/** Changes that are not in a file yet: when they were sent, by file. */
const waiting = new Map();
const lags = [];
for (const name of names) {
  mkdirSync(`${tree}/${name}`, { recursive: true });
  watch(`${tree}/${name}`, (_, host) => {
    const file = `${name}/${host}`;
    const at = waiting.get(file);
    if (at === undefined) return;
    lags.push(performance.now() - at);
    waiting.delete(file);
  });
}

let churn = 0;
const run = async () => {
  // all at once at first, as fast as one after the other goes
  for (const peer of peers) await announce(peer);
  process.send({ known: true });
  let next = 0;
  let changes = 0;
  let changed = 0;
  let serial = 0;
  const start = performance.now();
  let churnStart = start;
  process.on("message", (message) => {
    if (message.churn !== undefined) {
      churn = message.churn;
      churnStart = performance.now();
      changes = 0;
    }
  });
  for (;;) {
    const now = performance.now();
    if (next < ((now - start) * count) / heartbeatMs) {
      await announce(peers[next++ % count]);
    } else if (changes < ((now - churnStart) * churn) / 1e3) {
      changes++;
      const peer = peers[(changed += 7_919) % count];
      const feature = serial++ % names.length;
      peer.values[feature] = `{"port":${10_000 + serial}}`;
      waiting.set(`${names[feature]}/${peer.address}`, performance.now());
      await announce(peer);
    } else {
      await new Promise((done) => setTimeout(done, 1));
    }
  }
};
process.on("message", ({ report }) => {
  if (report) process.send({ sent, failed, lags: lags.splice(0), late: waiting.size });
});
await run();
