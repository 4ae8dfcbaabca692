// Loads a node's HTTP face: event streams that are read, and so many requests a second. Prints a line when all is under
// way; at SIGTERM prints what it got as JSON.
import http from "node:http";
import net from "node:net";
import { setPriority } from "node:os";

const [host, port, streams, rate] = process.argv.slice(2);
const paths = ["/v1/features", "/v1/nodes", "/v1/features/bench", "/metrics", "/healthz"];
/** Between two bundles of requests, ms. */
const everyMs = 10;

let bytes = 0;
let cut = 0;
const follow = () =>
  new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () =>
      socket.write(`GET /v1/events HTTP/1.1\r\nHost: ${host}\r\n\r\n`),
    );
    socket.once("data", resolve);
    socket.on("data", (chunk) => {
      bytes += chunk.length;
    });
    socket.on("close", () => cut++);
  });
for (let n = 0; n < Number(streams); n++) await follow();

const agent = new http.Agent({ keepAlive: true, maxSockets: 50 });
const tookMs = [];
let failed = 0;
const ask = (nth) => {
  const start = performance.now();
  const path = paths[nth % paths.length];
  const request = http.get({ host, port, path, agent }, (response) => {
    if (response.statusCode !== 200) failed++;
    response.resume().on("end", () => tookMs.push(performance.now() - start));
  });
  request.on("error", () => failed++);
};
// what is measured, and who sends, go first on this CPU
setPriority(19);
const begun = performance.now();
let sent = 0;
setInterval(() => {
  // what a busy machine let slip comes at once, up to a second of it
  const due = Math.min(Math.floor(((performance.now() - begun) / 1e3) * Number(rate)), sent + Number(rate));
  for (let nth = sent; nth < due; nth++) ask(nth);
  sent = due;
}, everyMs);

process.on("SIGTERM", () => {
  const seconds = (performance.now() - begun) / 1e3;
  process.stdout.write(`${JSON.stringify({ rate: tookMs.length / seconds, failed, cut, bytes, tookMs })}\n`, () =>
    process.exit(0),
  );
});
process.stdout.write("under way\n");
