/**
 * Hosts of a network of its own on this machine: namespaces behind a bridge that stands in a namespace too, so nothing
 * in it can reach, or be reached from, any other network. Needs root, iproute2 and nftables.
 */
import { type ChildProcess, type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const quiet = (file: string, args: ReadonlyArray<string>, input = ""): string =>
  execFileSync(file, args, { encoding: "utf8", input, stdio: ["pipe", "pipe", "pipe"] });

const has = (program: string): boolean => {
  try {
    quiet("sh", ["-c", `command -v ${program}`]);
    return true;
  } catch {
    return false;
  }
};

/** Installs a Debian package unless its program stands; whether it does now. */
export const install = (program: string, name: string): boolean => {
  if (has(program)) return true;
  if (process.getuid?.() !== 0 || !has("apt-get")) return false;
  const apt = ["-o", "DPkg::Lock::Timeout=300", "-qq", "install", "-y", "--no-install-recommends", name];
  for (const before of [[], ["update", "-qq"]]) {
    try {
      if (before.length > 0) quiet("apt-get", before);
      quiet("apt-get", apt);
      return has(program);
    } catch {
      // the list of packages may be old: once more with a new one
    }
  }
  return false;
};

const table = (rules: ReadonlyArray<string>): string => `
table ip nameq
delete table ip nameq
table ip nameq {
  chain input {
    type filter hook input priority 0
    ${rules.join("\n    ")}
  }
}
`;

/** A rule: all UDP from these hosts is lost. */
export const dropFrom = (addresses: ReadonlyArray<string>): string =>
  `ip protocol udp ip saddr { ${addresses.join(", ")} } counter drop`;

/** A rule: this share of all UDP is lost. */
export const dropPercent = (percent: number): string =>
  `ip protocol udp numgen random mod 100 < ${percent} counter drop`;

/** Why there can be no such network here; undefined when there can. */
export const obstacle = async (): Promise<string | undefined> => {
  if (process.platform !== "linux") return "network namespaces are Linux's";
  if (process.getuid?.() !== 0) return "only root may make network namespaces";
  if (!install("ip", "iproute2")) return "ip is missing: install iproute2";
  if (!install("nft", "nftables")) return "nft is missing: install nftables";
  const network = new Network(1);
  try {
    network.open();
    network.rules(1, [dropPercent(20)]);
    return undefined;
  } catch (cause) {
    const stderr = cause instanceof Error && "stderr" in cause ? String(cause.stderr) : String(cause);
    return `namespaces or nft rules are not permitted here: ${stderr.trim().split("\n")[0]}`;
  } finally {
    await network.close();
  }
};

let networks = 0;

/**
 * Waits until this process has closed its pipe, or is no more, whatever ended it; then ends what runs in the namespaces
 * and removes them. Not for a terminal's Ctrl-C to end.
 */
const keeper = `
  trap "" INT TERM HUP
  cat >/dev/null
  for namespace in "$@"; do
    ip netns pids "$namespace" 2>/dev/null | xargs -r kill -KILL
    ip netns del "$namespace" 2>/dev/null
  done
  rm -rf "$0"
`;

/** In the bridge's namespace: connections to the bridge go to a socket file, which namespaces do not hide. */
const gateway = `
  const net = require("node:net");
  const [port, host, file] = process.argv.slice(1);
  net.createServer((near) => {
    const far = net.connect(file);
    near.on("error", () => far.destroy()).on("close", () => far.destroy()).pipe(far);
    far.on("error", () => near.destroy()).on("close", () => near.destroy()).pipe(near);
  }).listen(Number(port), host, () => console.log("ready"));
`;

export class Network {
  /** Unique to this process and object: only what has this name is ever removed. */
  private readonly name = `nq${process.pid.toString(36)}x${networks++}`;
  private keeper: ChildProcess | undefined;
  private readonly children = new Set<ChildProcessWithoutNullStreams>();
  private readonly sockets = new Set<Socket>();
  private server: Server | undefined;
  /** Of the gateway's socket. */
  private directory = "";

  /** Hosts are numbered from 1. `afterwards` is a shell command that runs when all is removed, in any case. */
  constructor(
    readonly hosts: number,
    private readonly afterwards = "",
  ) {}

  address(host: number): string {
    return `10.99.${process.pid % 250}.${host}`;
  }

  private namespace(host: number): string {
    return `${this.name}h${host}`;
  }

  private add(namespace: string): void {
    quiet("ip", ["netns", "add", namespace]);
    quiet("ip", ["-n", namespace, "link", "set", "lo", "up"]);
  }

  open(): void {
    this.directory = mkdtempSync(join(tmpdir(), "nameq-gateway-"));
    const all = Array.from({ length: this.hosts + 1 }, (_, host) => this.namespace(host));
    this.keeper = spawn("sh", ["-c", keeper + this.afterwards, this.directory, ...all], {
      detached: true,
      stdio: ["pipe", "ignore", "inherit"],
    });
    const hub = this.namespace(0);
    this.add(hub);
    quiet("ip", ["-n", hub, "link", "add", "bridge", "type", "bridge"]);
    quiet("ip", ["-n", hub, "addr", "add", `${this.address(254)}/24`, "dev", "bridge"]);
    quiet("ip", ["-n", hub, "link", "set", "bridge", "up"]);
    for (let host = 1; host <= this.hosts; host++) {
      const own = this.namespace(host);
      this.add(own);
      quiet("ip", ["-n", hub, "link", "add", `h${host}`, "type", "veth", "peer", "name", "eth0", "netns", own]);
      quiet("ip", ["-n", hub, "link", "set", `h${host}`, "master", "bridge", "up"]);
      quiet("ip", ["-n", own, "addr", "add", `${this.address(host)}/24`, "dev", "eth0"]);
      quiet("ip", ["-n", own, "link", "set", "eth0", "up"]);
    }
  }

  /** What the host drops of what arrives, from now on: rules of nftables, all of them. */
  rules(host: number, rules: ReadonlyArray<string>): void {
    quiet("ip", ["netns", "exec", this.namespace(host), "nft", "-f", "-"], table(rules));
  }

  /** How many packets the host's present rules have dropped. */
  dropped(host: number): number {
    const listed = quiet("ip", ["netns", "exec", this.namespace(host), "nft", "list", "table", "ip", "nameq"]);
    return [...listed.matchAll(/counter packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  }

  /** Starts a process on a host; its pid is the program's own. */
  spawn(
    host: number,
    file: string,
    args: ReadonlyArray<string>,
    environment: Readonly<Record<string, string>>,
  ): ChildProcessWithoutNullStreams {
    const child = spawn("ip", ["netns", "exec", this.namespace(host), file, ...args], { env: environment });
    this.children.add(child);
    child.on("close", () => this.children.delete(child));
    return child;
  }

  /** Makes a TCP port of this machine's 127.0.0.1 the hosts' `10.99.x.254:port`. Gives that address. */
  async forward(port: number): Promise<string> {
    const file = join(this.directory, "socket");
    const server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.sockets.add(one);
        one
          .on("error", () => other.destroy())
          .on("close", () => {
            this.sockets.delete(one);
            other.destroy();
          });
        one.pipe(other);
      }
    });
    this.server = server;
    await new Promise<void>((resolve) => server.listen(file, resolve));
    const host = this.address(254);
    const child = this.spawn(0, process.execPath, ["-e", gateway, String(port), host, file], {
      PATH: process.env["PATH"] ?? "",
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout.once("data", () => resolve());
      child.stderr.once("data", (text: Buffer) => reject(new Error(String(text))));
    });
    return `${host}:${port}`;
  }

  /** Ends all processes that were started here, and removes the network. */
  async close(): Promise<void> {
    const { keeper: kept } = this;
    if (kept !== undefined) {
      const ended = new Promise((resolve) => kept.on("close", resolve));
      kept.stdin?.end();
      await ended;
    }
    while (this.children.size > 0) await sleep(5);
    for (const socket of this.sockets) socket.destroy();
    this.server?.close();
  }
}
