/**
 * Real nodes agree with the simulation: the built program as processes in network namespaces, UDP over a bridge, and a
 * real S3 server, with loss and cuts by nftables. One fleet lives through all scenarios. In each of them a reader looks
 * at every file of every tree again and again, and every event on the directories of `stable`, the feature that each
 * node has from its start to its end, is noted: a flap is one event too many.
 */
import { type ChildProcessWithoutNullStreams, execFile, execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  CreateBucketCommand,
  GetObjectCommand,
  HeadObjectCommand,
  NotFound,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Feature from "../../src/Feature.js";
import { defaults } from "../../src/Settings.js";
import * as Program from "../Program.js";
import { dropFrom, dropPercent, install, Network, obstacle } from "./Namespaces.js";
import * as Scaled from "./Scaled.js";

/** `NAMEQ_FLEET_SCALED=1`: for all nodes, not for some, minutes are 3 seconds. The suite is done in half the time then. */
const isScaled = process.env["NAMEQ_FLEET_SCALED"] === "1";
const settings = isScaled ? Scaled.settings : defaults;

/** What is told by UDP stands everywhere within this, ms: well below a heartbeat, well above a busy machine's pauses. */
const promptMs = 15_000;
/** A datagram that was lost is made up for within this, ms: silence, the look into the registry, and a busy machine. */
const silenceMs = settings.silentMs + 20_000;
/** The call's own limit of 30 s, and a busy machine. */
const registryMs = 50_000;

const script = fileURLToPath(new URL("start-real-s3.sh", import.meta.url));
const port = 32_000 + (process.pid % 10) * 50;
const bucket = "nameq-fleet";
const prefix = "e2e";
/** Of the nodes for which minutes pass twenty times as fast. */
const scaledPrefix = "scaled";
const base = fs.mkdtempSync(join(tmpdir(), "nameq-fleet-"));

let s3: Readonly<Record<string, string>> = {};
let endpoint = "";
let client: S3Client;
/** Five nodes are the fleet, the sixth host is for guests; the other five are for the scaled fleet and its guests. */
const network = new Network(11, `"${script}" destroy "${base}/s3"; rm -rf "${base}"`);

/** What nodes run, if nothing else is said. */
let program = Program.program;

/** What was seen and may not be, since the scenario began. */
let violations: Array<string> = [];
/** Nodes that came or went on purpose in this scenario: events about them, and in their trees, are right. */
const moving = new Set<Host>();

class Host {
  readonly address: string;
  readonly directory: string;
  readonly featureDir: string;
  readonly tree: string;
  stderr = "";
  child: ChildProcessWithoutNullStreams | undefined;
  ended: Promise<number | null> = Promise.resolve(null);
  /** Feature -> file texts it ever had, the oldest first. Each differs. */
  readonly history = new Map<string, Array<string>>();
  readonly features = new Map<string, string>();
  /** FEATURE/OWNER -> place in the owner's history of what this tree showed last. */
  private readonly seen = new Map<string, number>();
  private watcher: fs.FSWatcher | undefined;

  constructor(readonly number: number) {
    this.address = network.address(number);
    this.directory = join(base, String(number));
    this.featureDir = join(this.directory, "features");
    this.tree = join(this.directory, "state/features");
    fs.mkdirSync(this.featureDir, { recursive: true });
  }

  get running(): boolean {
    return this.child !== undefined;
  }

  start(
    options: ReadonlyArray<string> = [],
    environment: Readonly<Record<string, string>> = {},
    started = program,
  ): this {
    const args = ["serve", "--addr", this.address, "--secret-file", join(base, "secret")];
    args.push("--feature-dir", this.featureDir, "--state-dir", join(this.directory, "state"));
    args.push("--s3-bucket", bucket, "--s3-prefix", prefix, "--s3-endpoint", `http://${endpoint}`);
    args.push("--s3-region", s3["S3_REGION"]!, "--s3-cred-file", join(base, "credentials"), ...options);
    const child = network.spawn(this.number, process.execPath, [started, ...args], {
      PATH: process.env["PATH"] ?? "",
      ...environment,
    });
    this.child = child;
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    this.ended = new Promise((resolve) => {
      child.on("close", (status) => {
        if (this.child === child) this.child = undefined;
        resolve(status);
      });
    });
    return this;
  }

  /** Sends a signal; after one that ends it, waits for the end. */
  async kill(signal: NodeJS.Signals): Promise<number | null> {
    this.child?.kill(signal);
    return signal === "SIGTERM" || signal === "SIGKILL" ? this.ended : null;
  }

  set(name: string, value: unknown): void {
    const text = JSON.stringify(value);
    const file = Feature.fileText(Feature.parseValue(text) as Feature.FeatureValue);
    const history = this.history.get(name) ?? [];
    assert.notInclude(history, file, "the scenario sets a value twice");
    this.history.set(name, [...history, file]);
    this.features.set(name, file);
    fs.writeFileSync(join(this.featureDir, `.${name}`), text);
    fs.renameSync(join(this.featureDir, `.${name}`), join(this.featureDir, name));
  }

  remove(name: string): void {
    this.features.delete(name);
    fs.rmSync(join(this.featureDir, name));
  }

  /** Runs a script on this host to its end; gives what it printed. */
  script(text: string, ...args: ReadonlyArray<string>): Promise<string> {
    const child = network.spawn(this.number, process.execPath, ["-e", text, ...args], {
      PATH: process.env["PATH"] ?? "",
    });
    return Program.outcome(child).then(({ status, stderr, stdout }) => {
      if (status !== 0) throw new Error(`a script on ${this.address} ended with ${status}: ${stderr}`);
      return stdout;
    });
  }

  /** What its HTTP face answers. */
  face(path: string): Promise<string> {
    return this.script(
      `fetch("http://127.0.0.1:17106" + process.argv[1]).then((answer) => answer.text()).then((text) => process.stdout.write(text))`,
      path,
    );
  }

  /** How many datagrams it dropped for a reason. */
  async drops(reason: string): Promise<number> {
    const metrics = await this.face("/metrics");
    return Number(
      new RegExp(`^nameq_datagrams_dropped_total\\{reason="${reason}"\\} (\\d+)$`, "m").exec(metrics)?.[1] ?? 0,
    );
  }

  /** Lines that it logged since it had logged `from` characters. */
  lines(pattern: RegExp, from = 0): ReadonlyArray<string> {
    return this.stderr
      .slice(from)
      .split("\n")
      .filter((line) => pattern.test(line));
  }

  /** What programs see now, FEATURE/HOST -> text. Notes what no reader may see. */
  look(): Record<string, string> {
    const shown: Record<string, string> = {};
    for (const feature of listing(this.tree)) {
      for (const host of listing(join(this.tree, feature))) {
        const text = content(join(this.tree, feature, host));
        if (text === undefined) continue;
        shown[`${feature}/${host}`] = text;
        const owner = hosts.find(({ address }) => address === (host === "127.0.0.1" ? this.address : host));
        const place = owner?.history.get(feature)?.indexOf(text) ?? -1;
        const before = this.seen.get(`${feature}/${host}`) ?? 0;
        this.seen.set(`${feature}/${host}`, place);
        if (place < 0) {
          violations.push(`${this.address} shows a text that ${feature}/${host} never had: ${text.slice(0, 100)}`);
        } else if (place < before) {
          violations.push(`${this.address} shows an older ${feature}/${host} than before: ${text.slice(0, 100)}`);
        }
      }
    }
    return shown;
  }

  watchStable(): void {
    this.watcher ??= fs.watch(join(this.tree, "stable"), (event, name) => {
      const owner = name === "127.0.0.1" ? this : hosts.find(({ address }) => address === name);
      if (moving.has(this) || (owner !== undefined && moving.has(owner))) return;
      violations.push(`flap: ${event} of stable/${name} in the tree of ${this.address}`);
    });
  }

  unwatch(): void {
    this.watcher?.close();
    this.watcher = undefined;
  }
}

const listing = (directory: string): ReadonlyArray<string> => {
  try {
    return fs.readdirSync(directory);
  } catch {
    return [];
  }
};
const content = (file: string): string | undefined => {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
};

let hosts: ReadonlyArray<Host> = [];
let fleet: ReadonlyArray<Host> = [];
/** The host with this number. */
const host = (number: number): Host => hosts[number - 1]!;

/** What differs between the trees of `readers` and what these `owners` offer; undefined when nothing does. */
const difference = (readers = fleet, owners = fleet): string | undefined => {
  for (const reader of readers.filter(({ running }) => running)) {
    const truth: Record<string, string> = {};
    const addresses = new Set(owners.map(({ address }) => address));
    for (const owner of owners.filter(({ running }) => running)) {
      for (const [name, text] of owner.features) {
        truth[`${name}/${owner === reader ? "127.0.0.1" : owner.address}`] = text;
      }
    }
    const shown = reader.look();
    for (const key of new Set([...Object.keys(truth), ...Object.keys(shown)])) {
      const owner = key.slice(key.indexOf("/") + 1);
      if (owners !== fleet && !addresses.has(owner === "127.0.0.1" ? reader.address : owner)) continue;
      if (truth[key] !== shown[key]) {
        return `${reader.address} shows ${key} as ${shown[key]?.slice(0, 80)}, and it is ${truth[key]?.slice(0, 80)}`;
      }
    }
  }
  return undefined;
};

/** Waits until `problem` finds none. All trees are read between two looks. */
const until = async (withinMs: number, problem: () => string | undefined): Promise<number> => {
  const from = performance.now();
  for (;;) {
    for (const each of fleet) each.look();
    const found = problem();
    const tookMs = performance.now() - from;
    if (found === undefined) return tookMs;
    if (tookMs > withinMs) {
      const log = hosts.map(({ address, stderr }) => `${address}:\n${stderr.slice(-1_500)}`).join("\n");
      throw new Error(`not within ${withinMs} ms: ${found}\n${log}`);
    }
    await sleep(20);
  }
};
const converged = (withinMs: number, readers = fleet, owners = fleet): Promise<number> =>
  until(withinMs, () => difference(readers, owners));
const says = (who: Host, pattern: RegExp, from: number, withinMs: number): Promise<number> =>
  until(withinMs, () => (who.lines(pattern, from).length > 0 ? undefined : `${who.address} says ${pattern}`));

/** At most one of putting and one of listing. */
const errorsSaidOnce = (who: Host, from: number): ReadonlyArray<string> => {
  const errors = who.lines(/level=error/, from);
  const operations = errors.map((line) => /cannot (put|list)/.exec(line)?.[1] ?? line);
  assert.isNotEmpty(operations);
  assert.strictEqual(new Set(operations).size, operations.length, errors.join("\n"));
  assert.isAtMost(operations.length, 2, errors.join("\n"));
  return errors;
};

const rgw = (signal: "SIGSTOP" | "SIGCONT"): void => void process.kill(Number(s3["S3_PID_RGW"]), signal);
const user = (verb: "suspend" | "enable"): string =>
  execFileSync("radosgw-admin", ["-c", s3["S3_CONF"]!, "user", verb, "--uid=test"], { encoding: "utf8" });
const object = async (who: Host): Promise<string> => {
  const got = await client.send(new GetObjectCommand({ Bucket: bucket, Key: `${prefix}/${who.address}` }));
  return await got.Body!.transformToString();
};

const holds = async (who: Host, part: string): Promise<void> => {
  const end = performance.now() + promptMs;
  while (!(await object(who)).includes(part)) {
    if (performance.now() > end) throw new Error(`the object of ${who.address} does not hold ${part}`);
    await sleep(100);
  }
};

const faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const faketimes = [faketime, faketime.replace("x86_64", "aarch64")];
let preload: string | undefined;
/** The environment of a process whose wall clock is off. */
const clock = (offset: string): Readonly<Record<string, string>> => ({
  LD_PRELOAD: preload ?? "",
  FAKETIME: offset,
  FAKETIME_DONT_FAKE_MONOTONIC: "1",
  DONT_FAKE_MONOTONIC: "1",
});

/** A running number, so that no value comes twice. */
let numbers = 0;
const next = (): number => ++numbers;

const why = await obstacle();
if (why === undefined) {
  preload = install("faketime", "faketime") ? faketimes.find((each) => fs.existsSync(each)) : undefined;
  if (preload === undefined) console.warn("\nno test of wrong clocks: faketime is missing\n");
} else {
  fs.rmSync(base, { recursive: true });
  console.warn(`\nthe e2e scenarios of a fleet are skipped: ${why}\n`);
  it(`a real fleet is skipped because ${why}`, (context) => context.skip(why));
}

// --- the scaled fleet -------------------------------------------------------------------------------------------------

/** Three nodes, a guest and a host without a node, on which minutes are 3 seconds. Their stories go on beside the scenarios. */
const stories = new Map<string, Promise<void>>();
const tell = (name: string, story: Promise<void>): void => {
  stories.set(name, story);
  // its test tells
  story.catch(() => {});
};
/** Of a scaled node, ms: the longest time until it lists, reads and tries again, and a busy machine. */
const scaledRegistryMs = Scaled.settings.listMs[1] + Scaled.settings.silentGetMs[1] + 15_000;
const { expiryMs } = Scaled.settings;

const scaledStart = (program: string, each: Host, environment?: Readonly<Record<string, string>>): Host =>
  each.start(["--s3-prefix", scaledPrefix, "--http", "17106"], environment, program);

/** Whether its object is in the registry. */
const isRegistered = (who: Host): Promise<boolean> =>
  client.send(new HeadObjectCommand({ Bucket: bucket, Key: `${scaledPrefix}/${who.address}` })).then(
    () => true,
    (error: unknown) => {
      if (error instanceof NotFound) return false;
      throw error;
    },
  );

const expiry = async (readers: ReadonlyArray<Host>, gone: Host): Promise<void> => {
  await gone.kill("SIGKILL");
  const killed = performance.now();
  const shows = (reader: Host) => reader.look()[`stable/${gone.address}`] !== undefined;
  while (performance.now() - killed < expiryMs - 10_000) {
    for (const reader of readers) assert.isTrue(shows(reader), `${reader.address} forgot it too soon`);
    await sleep(200);
  }
  await until(30_000, () => readers.find(shows)?.address);
  for (const reader of readers)
    await says(reader, new RegExp(`${gone.address} was not heard of .* forgotten`), 0, 1_000);
  const end = performance.now() + scaledRegistryMs;
  while (await isRegistered(gone)) {
    assert.isBelow(performance.now(), end, "its object stays in the registry");
    await sleep(200);
  }
};

const wrongClock = async (readers: ReadonlyArray<Host>, guest: Host): Promise<void> => {
  const shown = () =>
    readers.find((reader) => {
      const tree = reader.look();
      return [...guest.features].some(([name, text]) => tree[`${name}/${guest.address}`] !== text);
    })?.address;
  await until(scaledRegistryMs, shown);
  guest.set("clock", next());
  await until(scaledRegistryMs, shown);
  for (const reader of readers) {
    const { nodes } = JSON.parse(await reader.face("/v1/nodes"));
    const { source, udpMs } = nodes.find(({ address }: { readonly address: string }) => address === guest.address);
    assert.deepStrictEqual({ source, udpMs }, { source: "registry", udpMs: null });
    assert.isAbove(await reader.drops("future"), 0);
  }
};

const replay = async (from: Host, to: Host, recorder: Host): Promise<void> => {
  // an object makes it a node: the others send it their announcements
  await client.send(
    new PutObjectCommand({ Bucket: bucket, Key: `${scaledPrefix}/${recorder.address}`, Body: '{"features":{}}\n' }),
  );
  const recorded = await recorder.script(
    `const socket = require("node:dgram").createSocket("udp4");
     socket.on("message", (bytes, { address }) => {
       if (address !== process.argv[2]) return;
       process.stdout.write(bytes.toString("hex"), () => process.exit());
     }).bind(17106, process.argv[1]);`,
    recorder.address,
    from.address,
  );
  from.set("replay", next());
  await until(promptMs, () => difference([to], [from, to]));
  await sleep(Scaled.settings.replayMs + 1_000);
  const before = await to.drops("old");
  await from.script(
    `const socket = require("node:dgram").createSocket("udp4");
     socket.send(Buffer.from(process.argv[1], "hex"), 17106, process.argv[2], () => socket.close());`,
    recorded,
    to.address,
  );
  const end = performance.now() + promptMs;
  while ((await to.drops("old")) === before) {
    assert.isBelow(performance.now(), end, "it is not counted");
    await sleep(200);
  }
  assert.strictEqual(await to.drops("old"), before + 1);
  assert.isUndefined(difference([to], [from, to]));
};

describe.runIf(why === undefined)("a real fleet", { timeout: 180_000 }, () => {
  beforeAll(async () => {
    Program.ensureBuilt();
    const faster = await Scaled.build();
    if (isScaled) program = faster;
    // first, for whatever is started after it ends with it
    network.open();
    // not in one go: it may have to install the server first
    const { stdout } = await promisify(execFile)(script, ["start", join(base, "s3"), `${port}`]);
    s3 = Object.fromEntries(stdout.split("\n").map((line) => [line.split("=", 1)[0]!, line.replace(/^[^=]*=/, "")]));
    fs.writeFileSync(join(base, "secret"), "the secret of a real fleet");
    fs.writeFileSync(join(base, "credentials"), `${s3["S3_ACCESS_KEY_ID"]} ${s3["S3_SECRET_ACCESS_KEY"]}\n`);
    process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true";
    client = new S3Client({
      region: s3["S3_REGION"]!,
      endpoint: s3["S3_ENDPOINT"]!,
      forcePathStyle: true,
      credentials: { accessKeyId: s3["S3_ACCESS_KEY_ID"]!, secretAccessKey: s3["S3_SECRET_ACCESS_KEY"]! },
    });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    endpoint = await network.forward(port);
    hosts = Array.from({ length: network.hosts }, (_, index) => new Host(index + 1));
    fleet = hosts.slice(0, 5);
    for (const each of hosts) each.set("stable", { number: each.number });
    for (const each of fleet) each.start();
    await converged(60_000);
    for (const each of fleet) each.watchStable();
    for (const each of fleet) await says(each, /membership is known/, 0, 60_000);
    const [one, two, three, guest, recorder] = hosts.slice(6) as [Host, Host, Host, Host, Host];
    const scaled = [one, two, three];
    for (const each of scaled) scaledStart(faster, each);
    await converged(60_000, scaled, scaled);
    if (preload !== undefined) scaledStart(faster, guest, clock("+60s"));
    tell("expiry", expiry([one, two], three));
    tell("clock", preload === undefined ? Promise.resolve() : wrongClock([one, two], guest));
    tell("replay", replay(one, two, recorder));
    violations = [];
  });

  /** Whatever the scenario left behind is mended, so that the next one stands for itself. */
  afterEach(async () => {
    const found = violations;
    for (const each of fleet) {
      network.rules(each.number, []);
      if (!each.running) each.start();
      await each.kill("SIGCONT");
    }
    try {
      await converged(silenceMs);
      // what the watchers have to tell of this scenario is not the next one's
      await sleep(500);
    } finally {
      violations = [];
      moving.clear();
    }
    assert.deepStrictEqual(found, []);
  });

  afterAll(async () => {
    for (const each of hosts) each.unwatch();
    client?.destroy();
    await network.close();
    assert.isFalse(fs.existsSync(base));
  });

  it("tells changes and removals to all, and no reader ever sees a part of a file", async () => {
    for (let round = 0; round < 20; round++) {
      host(1).set("large", `${next()} ${"x".repeat(200_000)}`);
      host(2).set("small", next());
      for (let looks = 0; looks < 10; looks++) for (const each of fleet) each.look();
      await sleep(20);
    }
    await converged(promptMs);
    host(1).remove("large");
    host(2).remove("small");
    host(3).set("exact", { big: next(), text: "<&>\u2028", list: [[], {}, null] });
    await converged(promptMs);
  });

  it("has a node back after kill -9 without a flap, with what changed meanwhile", async () => {
    const from = host(2).stderr.length;
    await host(2).kill("SIGKILL");
    host(1).set("news", next());
    host(2).set("news", next());
    const others = fleet.filter((each) => each !== host(2));
    await converged(promptMs, others, others);
    host(2).start();
    await says(host(2), /membership is known/, from, 75_000);
    await converged(promptMs);
    assert.deepStrictEqual(listing(join(host(2).directory, "state/.tmp")), []);
  });

  it("loses a node that says goodbye, at once and everywhere, and welcomes it back", async () => {
    moving.add(host(4));
    assert.strictEqual(await host(4).kill("SIGTERM"), 0);
    await converged(promptMs);
    assert.deepStrictEqual(host(4).look(), {});
    assert.notInclude(await object(host(4)), "features");
    host(4).start();
    await converged(promptMs);
  });

  it("keeps a node that stands still for 20 seconds, and that node keeps all others and catches up", async () => {
    await host(3).kill("SIGSTOP");
    host(1).set("news", next());
    const others = fleet.filter((each) => each !== host(3));
    await converged(promptMs, others, others);
    await sleep(20_000);
    await host(3).kill("SIGCONT");
    host(3).set("news", next());
    await converged(promptMs, fleet, [host(3)]);
    // what arrived while it stood still is too old to be believed: the next heartbeat tells
    await converged(silenceMs);
  });

  it("forgets a node that was killed when it expires, not before, and removes its object (minutes are 3 seconds)", () =>
    stories.get("expiry"));

  it.runIf(preload !== undefined)("learns of a node with a wrong clock from the registry alone", () =>
    stories.get("clock"),
  );

  it("refuses a recorded datagram that comes again later, and counts it", async () => {
    await stories.get("replay");
    for (const each of hosts.slice(6)) await each.kill("SIGKILL");
  });

  it("goes on by UDP while the S3 server stands still, says so once, and mends its object", async () => {
    const from = host(5).stderr.length;
    rgw("SIGSTOP");
    try {
      host(5).set("news", next());
      await converged(promptMs);
      await says(host(5), /level=error/, from, registryMs);
      const value = next();
      host(5).set("news", value);
      await converged(promptMs);
      await sleep(3_000);
      for (const line of errorsSaidOnce(host(5), from)) assert.match(line, /check|see/);
      rgw("SIGCONT");
      await says(host(5), /accepts our object again/, from, registryMs);
      // the put that stood still carried what was then; the newest follows
      await holds(host(5), `"news": ${value}`);
    } finally {
      rgw("SIGCONT");
    }
  });

  it("goes on by UDP while its credentials are revoked, says so once, and recovers", async () => {
    const from = host(1).stderr.length;
    user("suspend");
    try {
      const value = next();
      host(1).set("news", value);
      await converged(promptMs);
      await says(host(1), /level=error/, from, registryMs);
      await sleep(6_000);
      for (const line of errorsSaidOnce(host(1), from)) {
        assert.match(line, /credentials|access|permi|denied|allow/i);
      }
      user("enable");
      await says(host(1), /accepts our object again/, from, registryMs);
      await holds(host(1), `"news": ${value}`);
    } finally {
      user("enable");
    }
  });

  it("starts without its bucket, says so once, and recovers when the bucket is made", async () => {
    const guest = host(6);
    const from = guest.stderr.length;
    guest.start(["--s3-bucket", "nameq-later"]);
    try {
      await until(promptMs, () => (guest.look()["stable/127.0.0.1"] === undefined ? "it shows its own" : undefined));
      await says(guest, /level=error/, from, registryMs);
      await sleep(6_000);
      for (const line of errorsSaidOnce(guest, from)) assert.match(line, /nameq-later.*bucket|bucket.*nameq-later/);
      await client.send(new CreateBucketCommand({ Bucket: "nameq-later" }));
      await says(guest, /accepts our object again/, from, registryMs);
      await client.send(new HeadObjectCommand({ Bucket: "nameq-later", Key: `${prefix}/${guest.address}` }));
    } finally {
      assert.strictEqual(await guest.kill("SIGTERM"), 0);
    }
  });

  it("converges with a fifth of all packets lost", async () => {
    for (const each of fleet) network.rules(each.number, [dropPercent(20)]);
    for (let round = 0; round < 5; round++) {
      for (const each of fleet) each.set("lossy", next());
      await sleep(200);
    }
    await converged(silenceMs);
    assert.isAbove(
      fleet.reduce((sum, { number }) => sum + network.dropped(number), 0),
      0,
    );
  });

  it("is kept together by the registry while it is split in two, and by UDP after that", async () => {
    const [left, right] = [fleet.slice(0, 2), fleet.slice(2)];
    for (const [side, other] of [
      [left, right],
      [right, left],
    ] as const) {
      for (const each of side) network.rules(each.number, [dropFrom(other.map(({ address }) => address))]);
    }
    host(1).set("split", next());
    host(3).set("split", next());
    await converged(promptMs, left, left);
    await converged(promptMs, right, right);
    await converged(silenceMs);
    for (const each of fleet) assert.isAbove(network.dropped(each.number), 0);
    for (const each of fleet) network.rules(each.number, []);
    host(1).set("split", next());
    host(3).remove("split");
    await converged(promptMs);
  });

  it("hears by the registry whom it cannot hear, where packets go one way only", async () => {
    network.rules(2, [dropFrom([host(1).address])]);
    host(1).set("oneway", next());
    host(2).set("oneway", next());
    await converged(promptMs, fleet.slice(2));
    await converged(promptMs, [host(1)]);
    await converged(silenceMs);
    assert.isAbove(network.dropped(2), 0);
  });

  describe("with clocks that differ", () => {
    it.runIf(preload !== undefined)("takes no notice of one that is 8 seconds off", async () => {
      for (const offset of ["-8s", "+8s"]) {
        await host(5).kill("SIGKILL");
        const from = host(5).stderr.length;
        host(5).start([], clock(offset));
        await says(host(5), /membership is known/, from, 75_000);
        host(5).set("clock", next());
        host(4).set("clock", next());
        await converged(promptMs);
        assert.deepStrictEqual(host(5).lines(/level=(?:warn|error)/, from), []);
      }
      // what it announces now is old to the others until its clock has come where it was, and yet it is no flap
      await host(5).kill("SIGKILL");
      host(5).start();
    });

    it.runIf(preload !== undefined)(
      "names one that is a minute off, once, and that one learns of all others from the registry",
      async () => {
        const guest = host(6);
        moving.add(guest);
        const from = guest.stderr.length;
        const before = fleet.map(({ stderr }) => stderr.length);
        guest.start([], clock("+60s"));
        try {
          for (const [index, each] of fleet.entries()) {
            await says(each, new RegExp(`${guest.address} sends announcements .* ahead`), before[index]!, promptMs * 6);
          }
          await says(guest, /clock is about (?:59|60|61) s ahead/, from, promptMs);
          // the registry tells it of all the others
          await until(promptMs, () => difference([guest], [...fleet, guest]));
          guest.set("clock", next());
          await until(promptMs, () => difference([guest], [...fleet, guest]));
          for (const [index, each] of fleet.entries()) {
            assert.lengthOf(each.lines(new RegExp(`${guest.address} sends`), before[index]), 1);
          }
        } finally {
          assert.strictEqual(await guest.kill("SIGTERM"), 0);
        }
      },
    );
  });

  it("has processes that stay small", () => {
    for (const each of fleet) {
      const status = fs.readFileSync(`/proc/${each.child!.pid}/status`, "utf8");
      assert.isBelow(Number(/VmRSS:\s*(\d+)/.exec(status)![1]), 200_000);
      assert.isBelow(each.stderr.split("\n").length, 200);
      assert.notMatch(each.stderr, /this is a bug|level=fatal/);
    }
  });
});
