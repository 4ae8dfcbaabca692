// One node's rules (`Membership`) among N - 1 others that are heard and put their objects as nodes do, for hours of
// simulated time; and, on the same announcements, what the existing program asks of the registry. Nothing here is timed.
export const title =
  "requests to the registry and their bytes, a node and hour, in a fleet of N (of the existing program's)";

const minute = 60_000;
const startNs = 1_700_000_000_000_000_000n;
/** Peers' addresses, by number. */
const addressOf = (i) => `10.${(i >> 16) + 1}.${(i >> 8) & 255}.${i & 255}`;
const numberOf = (address) => {
  const [, high, middle, low] = address.split(".").map(Number);
  return ((high - 1) << 16) | (middle << 8) | low;
};
const etagOf = (i, putMs) => `"${i.toString(16)}-${putMs.toFixed(0)}"`;

/** S3's answer holds at most so many objects a request. */
const pageSize = 1_000;
/** Bytes of a listed object: what S3 writes of each. */
const listedBytes = (address) =>
  `<Contents><Key>fleet/${address}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>256</Size><StorageClass>STANDARD</StorageClass></Contents>`
    .length;

class Tally {
  requests = 0;
  bytes = 0;
  add(requests, bytes) {
    this.requests += requests;
    this.bytes += bytes;
  }
}

/** What a listing of `count` objects costs. */
const addList = (tally, count) => {
  const pages = Math.max(1, Math.ceil(count / pageSize));
  tally.add(pages, 300 * pages + count * listedBytes(addressOf(7)));
};

const simulate = ({ Membership, Settings, Feature, Packet, RegistryObject, Prng, Heap }, count, hours, loss) => {
  const { defaults } = Settings;
  const prng = Prng.seeded(count);
  const between = ([least, most]) => least + prng.float() * (most - least);
  const features = Feature.fromEntries(["cache", "db", "jobs", "mail", "web"].map((name) => [name, '{"port":5432}']));
  const body = RegistryObject.encode(features, startNs);
  const content = RegistryObject.decode(body);
  const objectBytes = Buffer.byteLength(body);
  const node = new Membership(addressOf(0), defaults, () => prng.float());
  const ours = new Tally();
  const existing = new Tally();
  /** Of each peer, ms: when it was last heard, by ours and by the existing program, and when it last put its object. */
  const heardMs = new Float64Array(count).fill(-1);
  const putMs = new Float64Array(count);
  const events = new Heap();
  // a fleet that has been up for long
  for (let i = 1; i < count; i++) {
    putMs[i] = -prng.float() * 3 * minute;
    events.push(prng.float() * defaults.announceMs[0], { kind: "announce", i });
    events.push(putMs[i] + between(defaults.refreshMs), { kind: "put", i });
  }
  events.push(prng.float() * minute, { kind: "existing" });
  const endMs = (hours + 1) * 60 * minute;
  // the first hour is the start
  const isCounted = (ms) => ms >= 60 * minute;
  const instant = (ms) => ({ wallNs: startNs + BigInt(Math.round(ms * 1e6)), monoMs: ms });
  const step = (event, ms) => {
    for (const action of node.step(event, instant(ms))) {
      const counted = isCounted(ms) ? ours : new Tally();
      switch (action._tag) {
        case "Put":
          counted.add(1, objectBytes);
          putMs[0] = ms;
          events.push(ms + 30, { kind: "answer", event: { _tag: "PutDone", etag: etagOf(0, ms) } });
          break;
        case "Announce":
          if (!action.ask) break;
          for (const address of action.to) {
            const arrives = prng.float() >= loss && prng.float() >= loss;
            if (arrives) events.push(ms + 1, { kind: "heard", i: numberOf(address) });
          }
          break;
        case "List": {
          addList(counted, count);
          const objects = Array.from(putMs, (at, i) => ({ name: addressOf(i), etag: etagOf(i, at), ageMs: ms - at }));
          const registryMs = Number(startNs / 1_000_000n) + ms;
          events.push(ms + 30, { kind: "answer", event: { _tag: "ListDone", objects, registryMs } });
          break;
        }
        case "Get": {
          counted.add(1, objectBytes);
          const i = numberOf(action.address);
          const event = { _tag: "GetDone", address: action.address, etag: etagOf(i, putMs[i]), ageMs: ms - putMs[i] };
          const timeNs = startNs + BigInt(Math.round(putMs[i] * 1e6));
          events.push(ms + 30, { kind: "answer", event: { ...event, content: { ...content, timeNs } } });
          break;
        }
      }
    }
  };
  step({ _tag: "Started", features }, 0);
  for (let ms = 0; ms < endMs;) {
    if (node.deadlineMs <= events.due) {
      ms = Math.max(ms, node.deadlineMs);
      step({ _tag: "Woken" }, ms);
      continue;
    }
    ms = Math.max(ms, events.due);
    const { kind, i, event } = events.pop();
    switch (kind) {
      case "announce":
        events.push(ms + between(defaults.announceMs), { kind, i });
        if (prng.float() < loss) break;
      // falls through
      case "heard": {
        if (kind === "announce") heardMs[i] = ms;
        const { wallNs: timeNs } = instant(ms);
        const announcement = {
          address: addressOf(i),
          timeNs,
          features,
          refused: [],
          remarks: { ...Packet.noRemarks, version: "0" },
        };
        step({ _tag: "Received", source: addressOf(i), announcement }, ms);
        break;
      }
      case "put":
        putMs[i] = ms;
        events.push(ms + between(defaults.refreshMs), { kind, i });
        break;
      case "answer":
        step(event, ms);
        break;
      case "existing": {
        // a put, a listing of all, and each object that is newer than the last datagram
        events.push(ms + between([2 * minute, 4 * minute]), { kind });
        if (!isCounted(ms)) break;
        existing.add(1, objectBytes);
        addList(existing, count);
        for (let peer = 1; peer < count; peer++) if (putMs[peer] > heardMs[peer]) existing.add(1, objectBytes);
        break;
      }
    }
  }
  return { ours, existing };
};

export const run = async (bench) => {
  const parts = await bench.use(
    `export { Membership } from "./src/Membership.js";
     export { Heap } from "./src/Heap.js";
     export { Prng } from "./src/Prng.js";
     export * as Settings from "./src/Settings.js";
     export * as Feature from "./src/Feature.js";
     export * as Packet from "./src/Packet.js";
     export * as RegistryObject from "./src/RegistryObject.js";`,
  );
  const hours = bench.short ? 1 : 4;
  for (const loss of [0, 0.01]) {
    for (const count of bench.short ? [10] : [10, 100, 1_000, 10_000]) {
      const { ours, existing } = simulate(parts, count, hours, loss);
      const label = `${count.toLocaleString("en")} nodes${loss > 0 ? `, ${loss * 100}% of the datagrams lost` : ""}`;
      const target = count === 1_000 && loss === 0 ? { ratio: 0.1 } : undefined;
      bench.row(`${label}: requests`, ours.requests / hours, { unit: "/h", floor: existing.requests / hours, target });
      bench.row(`${label}: KiB`, ours.bytes / hours / 1024, { unit: "/h", floor: existing.bytes / hours / 1024 });
    }
  }
};
