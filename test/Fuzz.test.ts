/**
 * Hostile input of every kind: nothing throws, nothing against the rules is believed, and memory stays flat. A few
 * thousand cases from a fixed seed; `node test/fuzz/run.mjs` runs it for long.
 */
import { assert, describe, it } from "@effect/vitest";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import { createHmac, createSecretKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { inflateRawSync } from "node:zlib";
import * as Address from "../src/Address.js";
import * as Cli from "../src/Cli.js";
import * as Argv from "../src/Cli/Argv.js";
import * as GoDuration from "../src/Cli/GoDuration.js";
import type { ServeOptions } from "../src/Cli/Serve.js";
import { validate } from "../src/Cli/ServeConfig.js";
import { UsageError } from "../src/Cli/UsageError.js";
import * as Feature from "../src/Feature.js";
import { maxFileSize, overlay, parseContent } from "../src/FeatureSource.js";
import { type Action, Membership } from "../src/Membership.js";
import { Metrics } from "../src/Metrics.js";
import * as Packet from "../src/Packet.js";
import { Prng } from "../src/Prng.js";
import * as RegistryObject from "../src/RegistryObject.js";
import { defaults } from "../src/Settings.js";
import { StateTree } from "../src/StateTree.js";
import { MemoryFiles } from "../src/TreeFiles.js";
import * as Hostile from "./fuzz/Hostile.js";

const seconds = Number(process.env["NAMEQ_FUZZ_SECONDS"] ?? 0);
const firstSeed = Number(process.env["NAMEQ_FUZZ_SEED"] ?? 1);
const targets = 5;

/** Bytes in use when all garbage is gone. */
const inUse = (): number => {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

/**
 * Runs `one` with a source per case: `cases` of them, or for the target's share of `NAMEQ_FUZZ_SECONDS`. `between` runs
 * after each 250 cases.
 */
const fuzz = async (
  name: string,
  cases: number,
  one: (source: Hostile.Source) => unknown,
  between: () => unknown = () => {},
): Promise<void> => {
  const end = performance.now() + (seconds * 1_000) / targets;
  let slowest = { ms: 0, seed: firstSeed };
  let used = 0;
  let count = 0;
  while (seconds > 0 ? performance.now() < end : count < cases) {
    const seed = (firstSeed + count) | 0;
    const from = performance.now();
    try {
      await one(new Hostile.Source(seed));
    } catch (cause) {
      throw new Error(`${name}: the case of seed ${seed} (NAMEQ_FUZZ_SEED=${seed} makes it the first)`, { cause });
    }
    const ms = performance.now() - from;
    if (ms > slowest.ms) slowest = { ms, seed };
    if (++count % 250 === 0) await between();
    // what is freed by the event loop, and what reports to it
    if (count % 50 === 0) await setImmediate();
    // what is kept for good, such as compiled code, is there by then
    if (count === Math.ceil(cases / 2)) used = inUse();
  }
  await between();
  if (used > 0) assert.isBelow(inUse() - used, 32e6, `${name}: memory grows, bytes in ${count} cases`);
  if (seconds > 0) {
    console.log(`${name}: ${count} cases, slowest ${slowest.ms.toFixed(1)} ms (seed ${slowest.seed})`);
  }
};

const timeout = 60_000 + seconds * 1_000;

const own = "10.0.0.1" as Address.Address;
const key: Packet.Key = { mode: 0, secret: createSecretKey(Buffer.from("swordfish")) };
const keyring: Packet.Keyring = { sign: key, accept: [key] };
const sign = (body: Buffer, mode = 0): Buffer => {
  const signed = Buffer.concat([Buffer.of(mode), body]);
  return Buffer.concat([signed, createHmac("sha1", "swordfish").update(signed).digest()]);
};

interface Vector {
  readonly secret_hex: string;
  readonly packet_hex: string;
}
/** Recorded packets of the existing program, with its secret and with ours. */
const recorded = ["packets", "hostile"]
  .flatMap(
    (file) => JSON.parse(readFileSync(new URL(`fixtures/${file}.json`, import.meta.url), "utf8")) as Array<Vector>,
  )
  .map(({ packet_hex }) => Buffer.from(packet_hex, "hex"));

/** Own members only: `toString` is a feature's name too. */
const member = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;

const same = (a: unknown, b: unknown, what: string): void => {
  // chai takes long over what is equal
  if (!isDeepStrictEqual(a, b)) assert.deepStrictEqual(a, b, what);
};

const depthOf = (value: string): number => {
  let depth = 0;
  let deepest = 0;
  for (const [token] of value.matchAll(/"(?:[^"\\]|\\.)*"|[[{}\]]/g)) {
    if (token === "[" || token === "{") deepest = Math.max(deepest, ++depth);
    else if (token.length === 1) depth--;
  }
  return deepest;
};

/** A value that was believed is JSON, canonical, flat enough, and its file no larger than it may be. */
const checkValue = (value: Feature.FeatureValue): void => {
  JSON.parse(value);
  assert.isTrue(Feature.parseValue(value) === value, "it is not canonical");
  assert.isAtMost(depthOf(value), 64);
  const file = Feature.fileText(value);
  assert.isTrue(file.endsWith("\n"));
  assert.isAtMost(file.length, 4_097 + 4 * value.length);
  assert.isTrue(Feature.parseValue(file) === value, "its file says something else");
};

/** What was believed of a document is what a plain JSON reader sees in it, less the names that are not allowed. */
const checkFeatures = (entries: Feature.HostFeatures, document: unknown): void => {
  const told = member(document, "features") ?? {};
  const names = Object.keys(told).filter((name) => /^[A-Za-z0-9_-]{1,255}$/.test(name));
  assert.sameMembers([...entries.keys()] as Array<string>, names);
  assert.isAtMost(entries.size, Feature.maxFeatures);
  for (const [name, value] of entries) {
    checkValue(value);
    same(JSON.parse(value), member(told, name), name);
  }
};

const checkActions = (actions: ReadonlyArray<Action>): void => {
  for (const action of actions) {
    switch (action._tag) {
      case "Show":
        if (action.host !== Address.ownHost) assert.isTrue(Address.mayBePeer(action.host, own), action.host);
        assert.strictEqual(Address.parse(action.host), action.host);
        for (const name of action.features.keys()) assert.match(name, /^[A-Za-z0-9_-]{1,255}$/);
        break;
      case "Announce":
        for (const to of action.to) assert.isTrue(Address.mayBePeer(to, own) && Address.family(to) === 4, to);
        break;
      case "Get":
      case "Delete":
        assert.isTrue(Address.mayBePeer(action.address, own), action.address);
        break;
      case "Report":
        assert.isBelow(action.message.length, 2_000);
        break;
    }
  }
};

/** What was believed of a document's members of ours: exactly what is of the right kind. Escapes are none of ours. */
const checkRemarks = ({ version, ask, leaving }: Packet.Remarks, document: unknown, text: string): void => {
  const told = member(document, "version");
  const right = typeof told === "string" && /^[\w.+-]{1,32}$/.test(told) ? told : undefined;
  if (version !== right) assert.isTrue(version === undefined && !text.includes(`"version":"${right}"`), version);
  assert.strictEqual(ask, member(document, "ask") === true);
  assert.strictEqual(leaving, member(document, "leaving") === true);
};

/** A node's rules with few peers allowed, and its clock. */
const makeNode = (seed: number) => {
  const random = Prng.seeded(seed);
  const membership = new Membership(own, { ...defaults, maxPeers: 8 }, () => random.float());
  const node = {
    membership,
    monoMs: 0,
    step: (event: Parameters<Membership["step"]>[0]): ReadonlyArray<Action> => {
      node.monoMs += 7;
      const actions = membership.step(event, node.instant());
      checkActions(actions);
      assert.isAtMost(membership.peers.size, 8);
      return actions;
    },
    instant: () => ({ wallNs: 1_795_000_000_000_000_000n + BigInt(node.monoMs) * 1_000_000n, monoMs: node.monoMs }),
  };
  node.step({ _tag: "Started", features: Feature.empty });
  return node;
};

describe("hostile input", () => {
  it.scopedLive(
    "in datagrams is dropped or is what it says, down to the tree",
    () =>
      Effect.gen(function* () {
        const files = new MemoryFiles();
        const context = yield* Layer.build(Layer.provide(StateTree.layerMemory(files), Metrics.layer));
        const tree = yield* Effect.provide(StateTree, context);
        yield* Effect.forkScoped(tree.run);
        const runtime = yield* Effect.runtime();
        let node = makeNode(1);
        const shown = new Set<string>();
        let believed = 0;

        const datagram = (source: Hostile.Source, ip: string): Buffer => {
          const kind = source.int(20);
          if (kind === 0) return source.bytes(source.int(200));
          if (kind === 1) return source.mutate(source.pick(recorded));
          if (kind === 2) {
            const packet = source.pick(recorded);
            return sign(source.mutate(packet.subarray(1, Math.max(packet.length - 20, 1))));
          }
          const text = Hostile.announcement(source, ip, node.instant().wallNs);
          const signed = sign(Hostile.deflated(source, text), source.chance(0.02) ? source.int(256) : 0);
          return source.chance(0.05) ? source.mutate(signed) : signed;
        };

        const one = (source: Hostile.Source): void => {
          const ip = Hostile.address(source);
          const sender = source.chance(0.9) ? (Address.parse(ip) ?? ip) : Hostile.address(source);
          const bytes = datagram(source, ip);
          const decoded = Packet.decode(keyring, bytes, node.membership.knownFeatures);
          if (Packet.isPacketFault(decoded)) return;
          believed++;
          const body = bytes.subarray(1, bytes.length - 20);
          assert.isTrue(
            bytes.subarray(-20).equals(createHmac("sha1", "swordfish").update(bytes.subarray(0, -20)).digest()),
          );
          const text = inflateRawSync(body, {
            dictionary: Hostile.dictionary,
            maxOutputLength: 1024 * 1024,
          }).toString();
          const document: unknown = JSON.parse(text);
          assert.strictEqual(member(document, "ip_addr"), decoded.address);
          checkFeatures(decoded.features.entries, document);
          checkRemarks(decoded.remarks, document, text);
          // what a node says of names goes into a log line
          assert.isAtMost(decoded.refused.join("").length, 8 * 64);
          const actions = node.step({ _tag: "Received", source: sender, announcement: decoded });
          // a question brings one answer, to the one who asks
          const answers = actions.filter(({ _tag }) => _tag === "Announce");
          assert.isAtMost(answers.length, 1);
          for (const answer of answers)
            if (answer._tag === "Announce") assert.deepStrictEqual([...answer.to], [sender]);
          for (const action of actions) {
            if (action._tag !== "Show") continue;
            assert.strictEqual(action.host, sender);
            assert.strictEqual(Address.parse(decoded.address), sender);
            const peer = node.membership.peers.get(action.host)!;
            const aheadNs = peer.timeNs - node.instant().wallNs;
            assert.isTrue(aheadNs <= 15_000_000_000n && aheadNs >= -15_000_000_000n);
            shown.add(action.host);
            tree.update(action.host, action.features);
          }
        };
        const between = async (): Promise<void> => {
          tree.settle();
          await Effect.runPromise(Effect.provide(tree.flush, runtime));
          for (const [name, hosts] of files.features) {
            assert.match(name, /^[A-Za-z0-9_-]{1,255}$/);
            for (const [host, text] of hosts) {
              const value = node.membership.peers
                .get(host as Address.Address)
                ?.features.entries.get(name as Feature.FeatureName);
              assert.strictEqual(text, Feature.fileText(value!));
            }
          }
          // another node, so that its 8 peers are not always the same
          for (const host of shown) tree.update(host as Address.Address, new Map());
          shown.clear();
          node = makeNode(believed);
        };
        yield* Effect.promise(() => fuzz("datagrams", 1_500, one, between));
        if (seconds === 0) assert.isAbove(believed, 400);
      }),
    timeout,
  );

  it(
    "in the registry is refused or is what it says",
    () => {
      let node = makeNode(1);
      let believed = 0;
      const one = (source: Hostile.Source): void => {
        const text =
          source.int(10) === 0
            ? Buffer.from(source.json())
            : Buffer.from(
                `{"features":${source.features()}${source.pick(["", `,"time_ns":${source.pick(["1795000000000000000", "-1", "1e3", '"1"', "9".repeat(30), "0"])}`, `,${source.name()}:${source.json()}`])}}\n`,
              );
        const body = (source.chance(0.4) ? source.mutate(text) : text).toString();
        const content = RegistryObject.decode(body);
        if (content !== undefined) {
          believed++;
          checkFeatures(content.features.entries, JSON.parse(body));
          const again = RegistryObject.decode(RegistryObject.encode(Feature.fromEntries(content.features.entries), 5n));
          same(again?.features.entries, content.features.entries, "an object made of it");
        }
        const ageMs = source.pick([0, -500, 1_000, 899_000, 901_000, -1e9, 1e12]);
        const name = source.chance(0.5) ? Hostile.address(source) : source.word();
        const etag = String(source.int(3));
        const actions = node.step({
          _tag: "ListDone",
          objects: [{ name, etag, ageMs }],
          registryMs: Number(node.instant().wallNs / 1_000_000n) + source.pick([0, 0, 1e9]),
        });
        for (const action of actions) {
          if (action._tag !== "Get") continue;
          assert.strictEqual(action.address, name);
          const answers = node.step({ _tag: "GetDone", address: action.address, content, etag, ageMs });
          if (content === undefined) assert.isFalse(answers.some(({ _tag }) => _tag === "Show" || _tag === "Delete"));
        }
      };
      return fuzz("registry objects", 1_000, one, () => {
        node = makeNode(believed);
      }).then(() => seconds > 0 || assert.isAbove(believed, 200));
    },
    timeout,
  );

  it(
    "in feature files is reported, or advertised such that peers read the same",
    () => {
      let taken = 0;
      const one = (source: Hostile.Source): void => {
        const text = source.chance(0.1) ? source.bytes(source.int(50)) : Buffer.from(source.json());
        const bytes = source.chance(0.3) ? source.mutate(text) : text;
        const content = parseContent(bytes);
        if (content === null) return assert.match(bytes.toString(), /^\s*$/);
        if (typeof content === "object") return assert.isNotEmpty(content.message);
        taken++;
        checkValue(content);
        same(JSON.parse(content), JSON.parse(bytes.toString()), "the value");
        assert.isAtMost(bytes.length, maxFileSize);
        const { set } = overlay(Feature.empty, [["f" as Feature.FeatureName, content]]);
        const read = Packet.decode(
          keyring,
          Packet.encode(key, { address: own, timeNs: 1n, features: set }),
          () => undefined,
        );
        if (Packet.isPacketFault(read)) throw new Error(`peers drop it: ${read}`);
        same(read.features.entries, set.entries, "a datagram of it");
        const found = RegistryObject.decode(RegistryObject.encode(set, 1n));
        same(found?.features.entries, set.entries, "an object of it");
      };
      return fuzz("feature files", 1_000, one).then(() => seconds > 0 || assert.isAbove(taken, 300));
    },
    timeout,
  );

  it("nested 64 deep in a feature makes a registry object that peers can read", () => {
    const value = Feature.FeatureValue(`${"[".repeat(64)}1${"]".repeat(64)}`);
    const set = Feature.fromEntries([["f" as Feature.FeatureName, value]]);
    same(RegistryObject.decode(RegistryObject.encode(set, 1n))?.features.entries, set.entries, "an object of it");
  });

  const word = (source: Hostile.Source): string => {
    const options = Cli.specs.flatMap(({ sections }) => sections.flatMap(([, all]) => Object.values(all)));
    const option = source.pick(options);
    const name = source.chance(0.5) ? option.name : (option.old ?? option.name);
    const value = (): string =>
      source.pick([
        () => source.word(),
        () => source.json().slice(0, 3_000),
        () => Hostile.address(source),
        () =>
          source.pick([
            ...(option.choices ?? []),
            "true",
            "0",
            "17106",
            "128:x",
            "http://",
            "http://[::1]:9",
            "-1",
            "1m30s",
          ]),
      ])();
    return source.pick([
      () => `--${name}`,
      () => `-${name}=${value()}`,
      () => `--${name}=${value()}`,
      value,
      () => source.pick(["--", "-", "---", "--=", "-=x", "web", "--no-dev", "--debug", "--dev"]),
    ])();
  };
  const usage = (error: unknown): void => {
    assert.instanceOf(error, UsageError);
    assert.isNotEmpty((error as UsageError).problems);
  };

  it(
    "in a command line is a usage error",
    () => {
      let understood = 0;
      const loadNode = () => Promise.resolve({ serve: () => Effect.sync(() => understood++) });
      const one = async (source: Hostile.Source): Promise<void> => {
        const command = source.chance(0.95) ? source.pick(Cli.specs).name : word(source);
        const words = Array.from({ length: source.int(8) }, () => word(source));
        const needed = ["serve", "--secret-file=package.json", "--registry-dir=r"];
        const argv = source.chance(0.2) ? [...needed, ...words.slice(0, 2)] : [command, ...words];
        const environment = source.chance(0.3) ? { NAMEQ_PORT: source.word(), NAMEQ_DEV: source.word() } : {};
        const line = Argv.normalise(Cli.specs, argv, environment);
        if (Either.isLeft(line)) return usage(line.left);
        assert.deepStrictEqual(Either.getOrThrow(Argv.normalise(Cli.specs, line.right, {})), line.right);
        // nothing may be sent to a syslog server
        if (line.right[0] !== "serve" || line.right[1] === "--help" || line.right.includes("--syslog")) return;
        const exit = await Effect.runPromiseExit(Cli.run(argv, { environment, version: "0.0.0", loadNode }));
        if (Exit.isFailure(exit)) usage(Cause.squash(exit.cause));
      };
      return fuzz("command lines", 500, one).then(() => seconds > 0 || assert.isAbove(understood, 10));
    },
    timeout,
  );

  it(
    "in the options of serve, in credentials and in durations is a problem that is told",
    () => {
      const optional = [
        "addr",
        "port",
        "features",
        "secretFile",
        "secretFd",
        "s3Bucket",
        "s3Region",
        "s3Prefix",
        "s3Endpoint",
      ];
      const rest = ["s3CredFile", "s3CredFd", "registryDir", "syslog", "syslogNet", "devDir", "onExit", "logFormat"];
      const one = (source: Hostile.Source): void => {
        const given = Object.fromEntries(
          [...optional, ...rest].flatMap((name) => (source.chance(0.4) ? [[name, word(source)]] : [])),
        );
        const options = {
          ...given,
          acceptSecretFile: [word(source)],
          dev: source.chance(0.3),
          debug: false,
          s3PathStyle: false,
        };
        const credentials = source.chance(0.5) ? undefined : source.json();
        const checked = validate(options as unknown as ServeOptions, {}, credentials);
        if (Either.isLeft(checked)) usage(checked.left);
        else {
          if (checked.right.address !== undefined) assert.isTrue(Address.mayBeNode(checked.right.address));
          assert.isTrue(Number.isInteger(checked.right.port) && checked.right.port > 0 && checked.right.port < 65_536);
          for (const [name, value] of checked.right.features.entries) {
            assert.match(name, /^[A-Za-z0-9_-]{1,255}$/);
            checkValue(value);
          }
        }
        const ms = GoDuration.parse(
          Array.from({ length: source.int(5) }, () =>
            source.pick(["1", "9".repeat(300), ".", "5", "h", "ms", "ns", "-", "+", "µs", "0", " "]),
          ).join(""),
        );
        assert.isTrue(ms === undefined || Number.isFinite(ms));
      };
      return fuzz("options", 1_000, one);
    },
    timeout,
  );
});
