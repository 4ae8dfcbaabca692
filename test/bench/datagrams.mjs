// A flood of signed datagrams from a process of its own, and the stages of what becomes of each.
import { createHmac, createSecretKey, randomBytes } from "node:crypto";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { inflateRawSync } from "node:zlib";
import { freePort, sleep } from "./harness.mjs";

export const title = "datagrams, from the socket into membership: CPU time of each, and how many are lost";

const here = dirname(fileURLToPath(import.meta.url));
const own = "127.42.0.1";
const dictionary = Buffer.from('{"ip_addr":","time_ns":,"names":[","],"features":{":true,"}}}');

/** CPU time (user and system, all threads) of `work`, us each of `count`. */
const cpuUs = (count, work) => {
  const before = process.cpuUsage();
  for (let i = 0; i < count; i++) work(i);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
};

const stages = async (bench) => {
  const { Packet, Feature, Membership, Settings, Json, featuresOf } = await bench.use(
    `export * from "./test/bench/parts/packets.js";
     export * as Membership from "./src/Membership.js";
     export * as Settings from "./src/Settings.js";
     export * as Json from "./src/Json.js";`,
  );
  const key = { mode: 0, secret: createSecretKey(randomBytes(32)) };
  const keyring = { sign: key, accept: [key] };
  const source = "127.42.1.1";
  for (const size of [200, 500, 4_000]) {
    const sets = [featuresOf(size, 1), featuresOf(size, 2)];
    const timeNs = 1_700_000_000_000_000_000n;
    const packets = sets.map((features) => Packet.encode(key, { address: source, timeNs, features }));
    const [packet] = packets;
    const signed = packet.subarray(0, -20);
    const deflated = packet.subarray(1, -20);
    const text = Buffer.from(Packet.announcementText({ address: source, timeNs, features: sets[0] }));
    const bad = Buffer.from(packet);
    bad[bad.length - 1] ^= 1;
    const membership = new Membership.Membership(own, Settings.defaults, () => 0.5);
    let wallNs = timeNs;
    const merge = (features) => {
      const announcement = { address: source, timeNs: ++wallNs, features, refused: [], remarks: Packet.noRemarks };
      membership.step({ _tag: "Received", source, announcement }, { wallNs, monoMs: 0 });
    };
    membership.step({ _tag: "Started", features: Feature.empty }, { wallNs, monoMs: 0 });
    const count = 400;
    const each = (work) => () => cpuUs(count, work);
    const us = await bench.turns(
      {
        hmac: each(() => createHmac("sha1", key.secret).update(signed).digest()),
        inflate: each(() => inflateRawSync(deflated, { dictionary })),
        parse: each(() => JSON.parse(text.toString())),
        scan: each(() => {
          const scanner = new Json.Scanner(text, text.toString());
          scanner.skipMembers(-1, (from, to) =>
            to - from === 10 ? typeof Feature.scanSet(scanner) === "object" : scanner.skipValue(),
          );
        }),
        bad: each(() => Packet.decode(keyring, bad, () => undefined)),
        same: each(() => merge(Packet.decode(keyring, packet, () => sets[0]).features)),
        changed: each((i) => merge(Packet.decode(keyring, packets[i % 2], () => sets[(i + 1) % 2]).features)),
        merge: each((i) => merge(sets[i % 2])),
      },
      { count: 20, rounds: 4, warmUp: 8 },
    );
    const label = `${packet.length} B, ${sets[0].entries.size} features`;
    const row = (name, numbers, options) => bench.row(`${label}: ${name}`, numbers, { unit: "us", ...options });
    row("HMAC", us.hmac);
    row("inflate (zlib)", us.inflate);
    row("parse and validate, exact (of JSON.parse)", us.scan, { floor: us.parse });
    row("merge what changed", us.merge);
    row("whole, a wrong HMAC (of the HMAC)", us.bad, { floor: us.hmac, target: { ratio: 1.3 } });
    row("whole, unchanged", us.same);
    row("whole, changed", us.changed);
  }
};

const told = async (child, message) => {
  const answer = once(child, "message");
  child.send(message);
  return (await answer)[0];
};

const floods = async (bench) => {
  const receiver = await bench.bundle(`import "./test/bench/parts/receiver.js"`);
  const packets = await bench.bundle(`export * from "./test/bench/parts/packets.js"`);
  const secret = randomBytes(32).toString("hex");
  const ipc = { stdio: ["ignore", "inherit", "inherit", "ipc"] };
  const port = await freePort();
  const sender = bench.start([join(here, "parts/flood.mjs"), packets], { cpu: 1, ...ipc });
  await once(sender, "message");
  /** How `kind` at `rate` goes to a fresh receiver. */
  const flood = async (how, kind, rate, seconds) => {
    const child = bench.start([receiver, how, own, String(port), secret], { cpu: 0, ...ipc });
    await once(child, "message");
    const to = { kind, size: 500, to: own, port, secret, peers: 100 };
    // so that what is measured is compiled
    await told(sender, { ...to, rate: 5_000, seconds: bench.short ? 0.1 : 1.5 });
    await told(sender, {});
    await told(sender, { ...to, rate, seconds });
    const before = await told(child, {});
    const { sent, seconds: took } = await told(sender, {});
    await sleep(300);
    const after = await told(child, {});
    child.kill("SIGKILL");
    await once(child, "exit");
    const received = after.received - before.received;
    const what = how === "node" && kind !== "bad" ? after.accepted - before.accepted : received;
    return { us: (after.cpuUs - before.cpuUs) / received, lost: sent - what, rate: sent / took };
  };
  const at = 20_000;
  const s = bench.short ? 0.2 : 1;
  const bare = await flood("bare", "same", at, 3 * s);
  const rows = [
    ["bare socket", bare],
    ["receive stream alone", await flood("transport", "same", at, 3 * s)],
    ["node, a wrong HMAC", await flood("node", "bad", at, 3 * s)],
    ["node, unchanged features", await flood("node", "same", at, 10 * s), { median: 40 }],
    ["node, changed features", await flood("node", "changed", at, 10 * s), { median: 40 }],
  ];
  for (const [name, { us, lost }, target] of rows) {
    const label = `500 B at ${at.toLocaleString("en")}/s: ${name}`;
    bench.row(`${label}, CPU`, us, { unit: "us", floor: bare.us, target });
    bench.row(`${label}, lost`, lost, { unit: "", target: target && { median: 0 } });
  }
  for (const [how, rates] of Object.entries({ bare: [40, 60, 80, 100], node: [20, 25, 30, 35, 40, 50, 60] })) {
    let best = 0;
    for (const thousands of rates) {
      const { lost, rate } = await flood(how, "changed", thousands * 1e3, s);
      if (lost > 0) break;
      best = rate;
    }
    bench.row(`highest rate of those tried for 1 s without a loss: ${how}`, best, { unit: "/s" });
  }
};

export const run = async (bench) => {
  await stages(bench);
  await floods(bench);
};
