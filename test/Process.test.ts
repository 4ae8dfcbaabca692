/** The built program as users run it: real processes, sockets on 127.0.0.x, real files. */
import { afterAll, afterEach, assert, describe, it } from "@effect/vitest";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { createSocket } from "node:dgram";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as Program from "./Program.js";

const base = mkdtempSync(join(tmpdir(), "nameq-process-"));
/** A port of this run's own, so that suites side by side do not meet. */
const port = String(20_000 + (process.pid % 20_000));
const running = new Set<ChildProcessWithoutNullStreams>();
let fleets = 0;

afterEach(async () => {
  for (const child of running) child.kill("SIGKILL");
  while (running.size > 0) await sleep(5);
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** Waits until it is true; what it last saw is in the error. */
const until = async (what: string, condition: () => boolean, limitMs = 15_000): Promise<void> => {
  const end = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await sleep(5);
  }
};

class Node {
  readonly tree: string;
  readonly featureDir: string;
  stderr = "";
  stdout = "";
  child: ChildProcessWithoutNullStreams | undefined;
  ended: Promise<number | null> = Promise.resolve(null);

  constructor(
    readonly fleet: string,
    readonly address: string,
    readonly options: ReadonlyArray<string> = [],
  ) {
    this.tree = join(fleet, address, "state/features");
    this.featureDir = join(fleet, address, "features");
    mkdirSync(this.featureDir, { recursive: true });
  }

  start(...more: ReadonlyArray<string>): this {
    const args = ["serve", "--dev", "--dev-dir", this.fleet, "--addr", this.address, "--port", port];
    const child = Program.start([...args, ...this.options, ...more]);
    this.child = child;
    running.add(child);
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    child.stdout.setEncoding("utf8").on("data", (text: string) => (this.stdout += text));
    this.ended = new Promise((resolve) => {
      child.on("close", (status) => {
        running.delete(child);
        resolve(status);
      });
    });
    return this;
  }

  async settled(): Promise<this> {
    await until("membership is known", () => this.stderr.includes("membership is known"));
    return this;
  }

  /** As any program would: written beside, renamed into place. */
  set(name: string, json: string): void {
    writeFileSync(join(this.featureDir, `.${name}`), json);
    renameSync(join(this.featureDir, `.${name}`), join(this.featureDir, name));
  }

  remove(name: string): void {
    rmSync(join(this.featureDir, name));
  }

  /** What programs read: FEATURE/HOST and content. */
  shown(): Record<string, string> {
    const shown: Record<string, string> = {};
    for (const feature of existsSync(this.tree) ? readdirSync(this.tree) : []) {
      for (const host of readdirSync(join(this.tree, feature))) {
        shown[`${feature}/${host}`] = readFileSync(join(this.tree, feature, host), "utf8");
      }
    }
    return shown;
  }

  shows(file: string, text: string | undefined): Promise<void> {
    return until(`${this.address} shows ${file} as ${text}`, () => this.shown()[file] === text);
  }
}

/** Bytes that wait in the kernel for the node at this IPv4 address. */
const unread = (address: string): number => {
  const host = Buffer.from(address.split(".").toReversed().map(Number)).toString("hex").toUpperCase();
  const place = `${host}:${Number(port).toString(16).toUpperCase().padStart(4, "0")}`;
  const [, queue = ""] =
    new RegExp(` ${place} \\S+ \\S+ \\S+:(\\S+) `).exec(readFileSync("/proc/net/udp", "utf8")) ?? [];
  return Number.parseInt(queue, 16);
};

const fleet = (): string => join(base, `fleet-${fleets++}`);

describe("nameq serve", () => {
  it("tells a change, another and its removal to the other node, in the documented form", async () => {
    const directory = fleet();
    const [a, b] = [new Node(directory, "127.0.0.2").start(), new Node(directory, "127.0.0.3").start()];
    a.set("db", '{"port": 5432, "big": 12345678901234567890, "n": 0.10}');
    await b.shows("db/127.0.0.2", '{\n\t"port": 5432,\n\t"big": 12345678901234567890,\n\t"n": 0.10\n}\n');
    await a.shows("db/127.0.0.1", '{\n\t"port": 5432,\n\t"big": 12345678901234567890,\n\t"n": 0.10\n}\n');
    a.set("db", "1e400");
    await b.shows("db/127.0.0.2", "1e400\n");
    b.set("db", "null");
    await a.shows("db/127.0.0.3", "null\n");
    a.remove("db");
    await b.shows("db/127.0.0.2", undefined);
    assert.deepStrictEqual(b.shown(), { "db/127.0.0.1": "null\n" });
  });

  it("finds free addresses of its own, one after the other", async () => {
    const directory = fleet();
    const args = ["serve", "--dev", "--dev-dir", directory, "--port", port];
    const children = [Program.start(args), Program.start(args)];
    for (const child of children) {
      running.add(child);
      child.on("close", () => running.delete(child));
    }
    await until(
      "two nodes have files",
      () => existsSync(join(directory, "127.0.0.2/state")) && existsSync(join(directory, "127.0.0.3/state")),
    );
    const told = await Program.run([
      "feature",
      "--feature-dir",
      join(directory, "127.0.0.2/features"),
      "hello",
      '"world"',
    ]);
    assert.strictEqual(told.status, 0);
    const file = join(directory, "127.0.0.3/state/features/hello/127.0.0.2");
    await until("the other shows it", () => existsSync(file));
    assert.strictEqual(readFileSync(file, "utf8"), '"world"\n');
  });

  it("leaves at SIGTERM: status 0, goodbye to the others, its files gone", async () => {
    const directory = fleet();
    const [a, b] = [new Node(directory, "127.0.0.2").start(), new Node(directory, "127.0.0.3").start()];
    a.set("x", "1");
    b.set("y", "2");
    await b.shows("x/127.0.0.2", "1\n");
    await a.shows("y/127.0.0.3", "2\n");
    a.child!.kill("SIGTERM");
    assert.strictEqual(await a.ended, 0);
    await b.shows("x/127.0.0.2", undefined);
    assert.deepStrictEqual(a.shown(), {});
    assert.notInclude(readFileSync(join(directory, "registry/127.0.0.2"), "utf8"), "features");
  });

  it("is back after kill -9 without a flap, and without anything to clean up", async () => {
    const directory = fleet();
    const [a, b] = [new Node(directory, "127.0.0.2").start(), new Node(directory, "127.0.0.3").start()];
    a.set("x", "1");
    b.set("y", "2");
    await b.shows("x/127.0.0.2", "1\n");
    await a.shows("y/127.0.0.3", "2\n");
    await a.settled();
    a.child!.kill("SIGKILL");
    await a.ended;
    const before = [a.shown(), b.shown()];
    a.stderr = "";
    a.start();
    let looked = 0;
    while (!a.stderr.includes("membership is known")) {
      assert.deepStrictEqual([a.shown(), b.shown()], before);
      looked++;
      await sleep(2);
    }
    assert.isAbove(looked, 50);
    assert.deepStrictEqual([a.shown(), b.shown()], before);
    assert.deepStrictEqual(readdirSync(join(directory, "127.0.0.2/state/.tmp")), []);
  });

  it.each([
    { way: "SIGTERM with --on-exit keep", options: ["--on-exit", "keep"], signal: "SIGTERM" },
    { way: "SIGUSR2", options: [], signal: "SIGUSR2" },
  ] as const)("keeps tree and peers for a restart, by $way", async ({ options, signal }) => {
    const directory = fleet();
    const [a, b] = [new Node(directory, "127.0.0.2").start(...options), new Node(directory, "127.0.0.3").start()];
    a.set("x", "1");
    b.set("y", "2");
    await b.shows("x/127.0.0.2", "1\n");
    await a.shows("y/127.0.0.3", "2\n");
    a.child!.kill(signal);
    assert.strictEqual(await a.ended, 0);
    await sleep(200);
    assert.deepStrictEqual(a.shown(), { "x/127.0.0.1": "1\n", "y/127.0.0.3": "2\n" });
    assert.deepStrictEqual(b.shown(), { "x/127.0.0.2": "1\n", "y/127.0.0.1": "2\n" });
    assert.include(readFileSync(join(directory, "registry/127.0.0.2"), "utf8"), "features");
  });

  it("refuses a second instance on its address, and on its state directory", async () => {
    const directory = fleet();
    const a = await new Node(directory, "127.0.0.2").start().settled();
    const same = new Node(directory, "127.0.0.2").start();
    assert.strictEqual(await same.ended, 1);
    assert.match(same.stderr, /nameq serve: .*127\.0\.0\.2.*--addr/s);
    const other = new Node(directory, "127.0.0.4").start("--state-dir", join(directory, "127.0.0.2/state"));
    assert.strictEqual(await other.ended, 1);
    assert.match(other.stderr, /nameq serve: .*another nameq serve.*--state-dir/s);
    assert.isTrue(running.has(a.child!));
  });

  it("shuts its ears to another secret and says which option helps", async () => {
    const directory = fleet();
    const secret = join(base, "other-secret");
    writeFileSync(secret, "a secret of somebody else");
    const a = await new Node(directory, "127.0.0.2").start().settled();
    const b = new Node(directory, "127.0.0.3").start("--secret-file", secret);
    b.set("x", "1");
    await until("it is reported", () => a.stderr.includes("bad-hmac"));
    assert.match(a.stderr, /127\.0\.0\.3.*--accept-secret-file/);
    assert.notInclude(a.stderr + b.stderr, "somebody else");
  });

  it("changes the fleet's key without a gap", async () => {
    const directory = fleet();
    const fresh = join(base, "fresh-secret");
    const next = join(base, "next-secret");
    writeFileSync(fresh, "the old key of this fleet");
    writeFileSync(next, "the new key of this fleet");
    const [a, b] = ["127.0.0.2", "127.0.0.3"].map((address) =>
      new Node(directory, address).start("--secret-file", fresh, "--accept-secret-file", next),
    ) as [Node, Node];
    a.set("x", "1");
    await b.shows("x/127.0.0.2", "1\n");
    writeFileSync(join(base, "swap"), "the new key of this fleet");
    renameSync(join(base, "swap"), fresh);
    a.child!.kill("SIGHUP");
    await until("a has the new key", () => a.stderr.includes("secret files changed"));
    a.set("x", "2");
    await b.shows("x/127.0.0.2", "2\n");
    assert.notInclude(b.stderr, "bad-hmac");
  });

  it("survives a flood of nonsense and goes on at once", async () => {
    const directory = fleet();
    const [a, b] = [await new Node(directory, "127.0.0.2").start().settled(), new Node(directory, "127.0.0.3").start()];
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind(0, "127.0.0.5", resolve));
    const junk = Buffer.alloc(500, 7);
    for (let i = 0; i < 20_000; i++) {
      socket.send(junk, Number(port), "127.0.0.2");
      if (i % 200 === 0) await sleep(1);
    }
    socket.close();
    // what comes while the kernel's queue is full is lost, whoever sends it
    await until("the flood has been read", () => unread("127.0.0.2") === 0);
    b.set("x", "1");
    await a.shows("x/127.0.0.3", "1\n");
    assert.isAtMost(a.stderr.split("\n").filter((line) => line.includes("unknown-mode")).length, 2);
  });

  it("waits for a feature directory that is not there, and for one that goes", async () => {
    const directory = fleet();
    const a = new Node(directory, "127.0.0.2");
    a.start("--features", '{"fixed":true}');
    await a.shows("fixed/127.0.0.1", "true\n");
    rmSync(a.featureDir, { recursive: true });
    mkdirSync(a.featureDir);
    a.set("x", "1");
    a.set("fixed", "false");
    await a.shows("x/127.0.0.1", "1\n");
    await a.shows("fixed/127.0.0.1", "false\n");
    rmSync(a.featureDir, { recursive: true });
    await a.shows("x/127.0.0.1", undefined);
    await a.shows("fixed/127.0.0.1", "true\n");
  });

  it("ends with status 1 and one clear line when its port cannot be had", async () => {
    const outcome = await Program.run(["serve", "--dev", "--dev-dir", fleet(), "--addr", "192.0.2.1", "--port", port]);
    assert.strictEqual(outcome.status, 1);
    assert.match(outcome.stderr, /^nameq serve: .*192\.0\.2\.1.*--addr.*\n$/);
  });

  it("starts with the registry out of reach, says so once, and finds it when it comes", async () => {
    const directory = fleet();
    mkdirSync(directory, { recursive: true });
    // a file where the directory should be
    writeFileSync(join(directory, "registry"), "");
    const a = new Node(directory, "127.0.0.2").start();
    a.set("x", "1");
    await a.shows("x/127.0.0.1", "1\n");
    await until("it says so", () => /level=error/.test(a.stderr));
    await sleep(3_000);
    assert.isAtMost(a.stderr.split("\n").filter((line) => /level=error/.test(line)).length, 2);
    rmSync(join(directory, "registry"));
    await until("it is there", () => existsSync(join(directory, "registry/127.0.0.2")));
  });
});
