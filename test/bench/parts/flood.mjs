/**
 * Sends datagrams at a steady rate, as a process of its own. Argument: the bundle of the codec. An IPC message
 * `{ rate, seconds, kind, size, to, port, secret (hex), peers }` makes it sign what it will send (kind: `same` features each
 * time, `changed` ones, or `bad`: a wrong HMAC), the next one makes it send; each is answered.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { pathToFileURL } from "node:url";

const { Packet, createSecretKey, featuresOf } = await import(pathToFileURL(process.argv[2]).href);
/** Each peer's features change between so many sets. */
const variants = 7;

const addressOf = (i) => `127.42.1.${1 + i}`;
const sockets = [];
const open = async (count, to, port) => {
  while (sockets.length < count) {
    const socket = createSocket("udp4");
    socket.on("error", () => {}); // the receiver of an earlier flood is gone
    socket.bind(0, addressOf(sockets.length));
    await once(socket, "listening");
    // connected: the kernel need not look up the way each time
    socket.connect(port, to);
    await once(socket, "connect");
    sockets.push(socket);
  }
};

const sign = ({ rate, seconds, kind, size, secret, peers }) => {
  const count = Math.round(rate * seconds);
  const key = { mode: 0, secret: createSecretKey(Buffer.from(secret, "hex")) };
  const sets = Array.from({ length: peers * variants }, (_, i) => featuresOf(size, i));
  const encode = (i, timeNs) => {
    const peer = i % peers;
    const features = sets[(kind === "changed" ? Math.floor(i / peers) % variants : 0) * peers + peer];
    const bytes = Packet.encode(key, { address: addressOf(peer), timeNs, features });
    if (kind === "bad") bytes[bytes.length - 1] ^= 1;
    return bytes;
  };
  // receivers take what is up to 15 s off: times are those of the sending, when all are signed
  const samples = Math.min(count, 2_000);
  const begun = performance.now();
  for (let i = 0; i < samples; i++) encode(i, 1_700_000_000_000_000_000n);
  const signingMs = ((performance.now() - begun) / samples) * count;
  const startNs = BigInt(Math.round(Date.now() + signingMs)) * 1_000_000n;
  const stepNs = BigInt(Math.round(1e9 / rate));
  return Array.from({ length: count }, (_, i) => encode(i, startNs + BigInt(i) * stepNs));
};

const send = async (packets, rate) => {
  const start = performance.now();
  let failed = 0;
  const answer = (error) => {
    if (error) failed++;
  };
  for (let at = 0; at < packets.length;) {
    const due = Math.min(packets.length, Math.ceil(((performance.now() - start) * rate) / 1e3), at + 64);
    for (; at < due; at++) sockets[at % sockets.length].send(packets[at], answer);
    await new Promise(setImmediate);
  }
  return { sent: packets.length - failed, seconds: (performance.now() - start) / 1e3 };
};

process.send({});
for (;;) {
  const [flood] = await once(process, "message");
  await open(flood.peers, flood.to, flood.port);
  const packets = sign(flood);
  process.send({ bytes: packets[0].length });
  await once(process, "message");
  process.send(await send(packets, flood.rate));
}
