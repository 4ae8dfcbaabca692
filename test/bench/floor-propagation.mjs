// The least that any Node program can do for a change to travel: watch, read, send; receive, write, rename.
// Usage: node floor-propagation.mjs send FEATUREDIR ADDRESS PORT | receive TREEDIR ADDRESS PORT
import { createSocket } from "node:dgram";
import { readFileSync, renameSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";

const [role, directory, address, port] = process.argv.slice(2);
const socket = createSocket("udp4");
if (role === "send") {
  watch(directory, (_, name) => {
    if (name.startsWith(".")) return;
    try {
      socket.send(readFileSync(join(directory, name)), Number(port), address);
    } catch {
      // between two renames
    }
  });
  console.log("ready");
} else {
  socket.on("message", (bytes) => {
    writeFileSync(join(directory, ".tmp"), bytes);
    renameSync(join(directory, ".tmp"), join(directory, "file"));
  });
  socket.bind(Number(port), address, () => console.log("ready"));
}
