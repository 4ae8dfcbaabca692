/** Each fault that the doctor knows is made here, and the doctor must find it. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { spawnSync } from "node:child_process";
import { createSecretKey } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Address } from "../src/Address.js";
import { specs } from "../src/Cli.js";
import { normalise } from "../src/Cli/Argv.js";
import { type DoctorOptions, spec } from "../src/Cli/Doctor.js";
import { examine } from "../src/Cli/DoctorRun.js";
import type { Finding } from "../src/Cli/DoctorFinding.js";
import { line, some } from "../src/Cli/DoctorFinding.js";
import * as Host from "../src/Cli/DoctorHost.js";
import * as Peers from "../src/Cli/DoctorPeers.js";
import * as Registry from "../src/Cli/DoctorRegistry.js";
import * as Feature from "../src/Feature.js";
import * as Packet from "../src/Packet.js";
import * as RegistryObject from "../src/RegistryObject.js";
import * as StateLock from "../src/StateLock.js";
import { aNode, FakeFace } from "./FakeFace.js";
import { FakeS3, type FakeRequest } from "./FakeS3.js";
import { ensureBuilt, type Outcome, program, run } from "./Program.js";

const base = mkdtempSync(join(tmpdir(), "nameq-doctor-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** UDP, free of other suites on this machine. */
const port = 20_000 + (process.pid % 20_000);
const secret = "not-to-be-seen-0123456789abcdef";
const own = "127.45.1.1";

/** A host's places of its own for one test. */
let serial = 0;
const place = () => {
  const home = join(base, String(serial++));
  mkdirSync(join(home, "state"), { recursive: true });
  mkdirSync(join(home, "features"));
  writeFileSync(join(home, "secret"), secret, { mode: 0o600 });
  return { home, state: join(home, "state"), features: join(home, "features"), secret: join(home, "secret") };
};
type Place = ReturnType<typeof place>;

/** The doctor's options for a place, with no registry. */
const at = (here: Place): ReadonlyArray<string> => [
  `--addr=${own}`,
  `--port=${port}`,
  `--secret-file=${here.secret}`,
  `--state-dir=${here.state}`,
  `--feature-dir=${here.features}`,
];

const withS3 = (here: Place, fake: FakeS3): ReadonlyArray<string> => {
  const credentials = join(here.home, "credentials");
  if (!existsSync(credentials)) {
    writeFileSync(credentials, `${fake.accessKeyId} ${fake.secretAccessKey}\n`, { mode: 0o600 });
  }
  return [
    `--s3-bucket=${fake.bucket}`,
    "--s3-prefix=prod",
    `--s3-endpoint=${fake.endpoint}`,
    "--s3-region=us-east-1",
    `--s3-cred-file=${credentials}`,
  ];
};

/** What the doctor finds, as a process, and how that ends. */
const nameqDoctor = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {},
): Effect.Effect<Outcome & { readonly findings: ReadonlyArray<Finding> }> =>
  Effect.promise(async () => {
    const outcome = await run(["doctor", "--json", ...args], { environment });
    const findings = outcome.stdout
      .split("\n")
      .filter((text) => text !== "")
      .map((text) => JSON.parse(text) as Finding);
    return { ...outcome, findings };
  });

/** What the doctor finds, in this process, which is ten times as fast. */
const doctor = (args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const line = yield* normalise(specs, ["doctor", ...args], {});
    const options: Record<string, unknown> = {};
    for (const [key, { kind, name }] of spec.sections.flatMap(([, section]) => Object.entries(section))) {
      const values = line.flatMap((word, at) => (word === `--${name}` ? [line[at + 1]!] : []));
      if (kind === "flag") options[key] = line.includes(`--${name}=true`);
      else options[key] = kind === "list" ? values : values.at(-1);
    }
    const findings: Array<Finding> = [];
    yield* examine(options as DoctorOptions, {}, (some) => Effect.sync(() => findings.push(...some)));
    return { findings };
  });

/** Asserts that among the findings is one like this, with something to do when it is bad. */
const assertFound = (
  findings: ReadonlyArray<Finding>,
  level: Finding["level"],
  check: string,
  text: string | RegExp,
) => {
  const matching = findings.find(
    (each) =>
      each.level === level &&
      each.check === check &&
      (typeof text === "string" ? each.message.includes(text) : text.test(each.message)),
  );
  assert.isDefined(matching, `${level} ${check}: ${text} in\n${findings.map(line).join("\n")}`);
  if (level === "fail") assert.isNotEmpty(matching!.fix, line(matching!));
};

const bad = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> =>
  findings.filter(({ level }) => level === "fail" || level === "warn").map(line);

/** A peer that a test plays: it notes what it is told, and says what `answer` gives. */
const fakePeer = (address: string, answer: (heard: Packet.Announcement) => Buffer | undefined) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const heard: Array<Packet.Announcement> = [];
      const socket: Socket = createSocket("udp4");
      const key = { mode: 0, secret: createSecretKey(Buffer.from(secret)) };
      socket.on("message", (bytes, from) => {
        const decoded = Packet.decode({ sign: key, accept: [key] }, bytes, () => undefined);
        if (Packet.isPacketFault(decoded)) return;
        heard.push(decoded);
        const said = answer(decoded);
        if (said !== undefined) socket.send(said, from.port, from.address);
      });
      await once(socket.bind({ address, port }), "listening");
      return { heard, socket };
    }),
    ({ socket }) => Effect.promise(() => new Promise<void>((resolve) => socket.close(() => resolve()))),
  );

/** An announcement of a peer. */
const announcement = (address: string, { clockMs = 0, key = secret }: { clockMs?: number; key?: string } = {}) =>
  Packet.encode(
    { mode: 0, secret: createSecretKey(Buffer.from(key)) },
    {
      address: address as Address,
      timeNs: BigInt(Date.now() + clockMs) * 1_000_000n,
      features: Feature.empty,
      remarks: { version: "0.1.0", ask: false, leaving: false },
    },
  );

const object = (features: string): string => {
  const parsed = Feature.parseSet(features);
  assert(typeof parsed === "object" && "set" in parsed);
  return RegistryObject.encode(parsed.set, BigInt(Date.now()) * 1_000_000n);
};

describe("nameq doctor", () => {
  it.scopedLive("finds nothing wrong where nothing is, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const here = place();
      const fake = yield* FakeS3.make;
      fake.put("prod/127.45.1.2", object('{"web":true}'));
      const peer = yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
      writeFileSync(join(here.features, "web"), "true");
      const { findings, status, stderr } = yield* nameqDoctor([...at(here), ...withS3(here, fake)]);
      assert.deepStrictEqual(
        bad(findings).filter((text) => !text.includes("127.45.1.1 is a loopback address")),
        [],
      );
      assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" });
      for (const check of [
        "address",
        "port",
        "secret",
        "features",
        "state-dir",
        "inotify",
        "s3-list",
        "s3-put",
        "s3-get",
        "s3-delete",
        "clock",
        "cost",
        "peers",
        "keys",
        "peer-clock",
      ]) {
        assert.isTrue(
          findings.some((each) => each.check === check && each.level !== "skip"),
          check,
        );
      }
      // to a peer it is a node that has ended
      assert.deepStrictEqual(
        peer.heard.map(({ features, remarks }) => [features.entries.size, remarks.leaving, remarks.ask]),
        [[0, true, true]],
      );
      assert.deepStrictEqual([...fake.objects.keys()], ["prod/127.45.1.2"]);
      const probes = fake.requests.filter(({ key, method }) => method !== "GET" || key.includes("doctor"));
      assert.isNotEmpty(probes);
      // where no node looks: listings stop at a slash
      for (const { key } of probes) assert.match(key, /^prod\/nameq-doctor\/127\.45\.1\.1-[0-9a-f]{12}$/);
    }),
  );

  it("prints a line for people, with what to do behind an arrow, and a sum", async () => {
    const here = place();
    writeFileSync(here.secret, "");
    const { status, stderr, stdout } = await run(["doctor", ...at(here)]);
    assert.deepStrictEqual({ status, stderr }, { status: 1, stderr: "" });
    assert.include(
      stdout,
      `FAIL secret: ${here.secret} is empty: every host could forge announcements -> put at least 16 random bytes there`,
    );
    assert.match(stdout, /^ok {3}port: UDP port \d+ of 127\.45\.1\.1 is free: no node has it$/m);
    assert.match(stdout, /\n\d+ looks: \d+ ok, \d+ warnings?, 1 failed, \d+ skipped\n$/);
  });

  it.scopedLive("shows no secret, whatever goes wrong", () =>
    Effect.gen(function* () {
      const here = place();
      const fake = yield* FakeS3.make;
      const face = yield* FakeFace.make;
      face.token = "token-not-to-be-seen";
      writeFileSync(join(here.home, "token"), face.token);
      const options = [...at(here), ...withS3(here, fake)];
      const refused = { kind: "answer", status: 403, code: "SignatureDoesNotMatch" } as const;
      const byFace = ["--http", face.url];
      for (const [fault, more] of [
        [undefined, ["--json", ...byFace, "--http-token-file", join(here.home, "token")]],
        [undefined, byFace],
        [refused, ["--exchange"]],
        [refused, ["--json", ...byFace]],
      ] as const) {
        fake.fault = () => fault;
        const { stderr, stdout } = yield* Effect.promise(() => run(["doctor", ...options, ...more]));
        assert.isNotEmpty(stdout);
        for (const hidden of [secret, fake.secretAccessKey, face.token]) assert.notInclude(stdout + stderr, hidden);
      }
    }),
  );

  it("refuses options that serve refuses", async () => {
    for (const [args, text] of [
      [["--addr", "169.254.1.1"], "can be no host's own address"],
      [["--addr", "127.0.0.1"], "is the name of own features"],
      [["--port", "x"], "is no port"],
      [["--peer", "nobody"], "can be no node's address"],
      [["--s3-bucket", "b"], "--s3-region NAME is needed"],
    ] as const) {
      const { status, stderr } = await run(["doctor", ...args]);
      assert.strictEqual(status, 2, text);
      assert.include(stderr, text);
    }
  });

  describe("at the host", () => {
    it.scopedLive("finds an address that is not this host's", () =>
      Effect.gen(function* () {
        const { findings, status } = yield* nameqDoctor([...at(place()), "--addr", "203.0.113.9"]);
        assert.strictEqual(status, 1);
        assertFound(findings, "fail", "address", "203.0.113.9 is not an address of this host");
      }),
    );

    it.scopedLive("finds an address that other hosts cannot reach", () =>
      Effect.gen(function* () {
        const { findings } = yield* doctor([...at(place()), "--peer", "192.0.2.7"]);
        assertFound(findings, "warn", "address", "loopback");
        assertFound(findings, "fail", "route", `${own} can have no peer at 192.0.2.7`);
      }),
    );

    it("finds a route that does not leave from the address", () => {
      const [mine, peer] = ["10.0.0.1", "10.9.0.1"] as unknown as [Address, Address];
      assertFound([Host.judgeSource(mine, peer, "10.9.0.5")], "warn", "route", "from 10.9.0.5, not from 10.0.0.1");
      assertFound([Host.judgeSource(mine, peer, "ENETUNREACH")], "fail", "route", "no way to 10.9.0.1");
      assertFound([Host.judgeSource(mine, peer, mine)], "ok", "route", "leave from");
    });

    it.live("learns from the kernel which address it would take", () =>
      Effect.map(Host.sourceFor("127.45.1.9" as Address), (source) => assert.match(source, /^127\./)),
    );

    it.live("learns from the kernel that there is no way", () =>
      // the kernel does not send to all hosts unless it is asked to
      Effect.map(Host.sourceFor("255.255.255.255" as Address), (source) =>
        assert.match(source, /^E(?:ACCES|NETUNREACH)$/),
      ),
    );

    it.scopedLive("finds another program on the port", () =>
      Effect.gen(function* () {
        yield* fakePeer(own, () => undefined);
        const { findings } = yield* doctor(at(place()));
        assertFound(findings, "fail", "port", `in use by a program that is not this node`);
      }),
    );

    it.scopedLive("finds that a node runs with another port", () =>
      Effect.gen(function* () {
        const here = place();
        yield* StateLock.take(here.state);
        const { findings } = yield* doctor(at(here));
        assertFound(findings, "ok", "node", `pid ${process.pid}`);
        assertFound(findings, "fail", "port", "a node runs, but");
        yield* fakePeer(own, () => undefined);
        assertFound((yield* doctor(at(here))).findings, "ok", "port", "the node has UDP port");
      }),
    );

    it("takes no node that it may not see for another program", () => {
      assertFound([Host.judgePort(own as Address, 80, "EADDRINUSE", undefined)], "skip", "port", "as it seems");
    });

    it("finds a port that needs rights", () => {
      assertFound([Host.judgePort(own as Address, 80, "EACCES", false)], "fail", "port", "no permission");
    });

    it.scopedLive("finds keys that are missing, empty, short, open to all, or end with a newline", () =>
      Effect.gen(function* () {
        const here = place();
        const found = (bytes: string, mode: number) => {
          writeFileSync(here.secret, bytes);
          chmodSync(here.secret, mode);
          return Effect.map(doctor(at(here)), ({ findings }) => findings);
        };
        assertFound(yield* found("", 0o600), "fail", "secret", "is empty");
        assertFound(yield* found("short", 0o600), "warn", "secret", "has only 5 bytes");
        assertFound(yield* found(`${secret}\n`, 0o600), "warn", "secret", "ends with a newline");
        assertFound(yield* found(secret, 0o644), "warn", "secret", "every user of this host may use");
        const absent = [...at(here), "--accept-secret-file", `1:${here.home}/absent`];
        assertFound((yield* doctor(absent)).findings, "fail", "secret", "absent cannot be read (ENOENT)");
        const { findings } = yield* doctor(["--state-dir", here.state, "--addr", own]);
        assertFound(findings, "skip", "secret", "no key was named");
      }),
    );

    it("finds directories that cannot be used, or that too many may use", () => {
      const here = place();
      const denied = () => "EACCES";
      writeFileSync(join(here.home, "file"), "");
      assertFound(Host.directory("state-dir", join(here.home, "file")), "fail", "state-dir", "is no directory");
      assertFound(Host.directory("state-dir", join(here.home, "file/below")), "fail", "state-dir", "ENOTDIR");
      assertFound(Host.directory("state-dir", join(here.home, "new/one")), "ok", "state-dir", "is not there yet");
      assertFound(
        Host.directory("state-dir", join(here.home, "new/one"), denied),
        "fail",
        "state-dir",
        "this user cannot make it",
      );
      assertFound(Host.directory("state-dir", here.state, denied), "fail", "state-dir", "may not write to");
      assertFound(Host.directory("feature-dir", here.features, denied), "fail", "feature-dir", "may not read");
      chmodSync(here.features, 0o777);
      assertFound(Host.directory("feature-dir", here.features), "warn", "feature-dir", "every user may write");
      chmodSync(here.state, 0o700);
      assertFound(Host.directory("state-dir", here.state), "warn", "state-dir", "programs of other users cannot read");
      chmodSync(here.state, 0o755);
      assert.deepStrictEqual(bad(Host.directory("state-dir", here.state)), []);
    });

    it("finds file systems without room, and those of other hosts", () => {
      const room = { type: 0x01021994, bsize: 4096, bavail: 100_000, files: 1_000_000, ffree: 500_000 };
      const judge = (change: Partial<Host.Room>) => Host.judgeRoom("state-dir", "/s", { ...room, ...change });
      assert.deepStrictEqual(judge({}), []);
      assert.deepStrictEqual(judge({ files: 0, ffree: 0 }), []);
      assertFound(judge({ bavail: 10 }), "fail", "state-dir", "is full");
      assertFound(judge({ bavail: 1_000 }), "warn", "state-dir", "has only 3.9 MiB left");
      assertFound(judge({ ffree: 0 }), "fail", "state-dir", "can hold no more files");
      assertFound(judge({ ffree: 7 }), "warn", "state-dir", "only 7 more files");
      assertFound(judge({ type: 0x6969 }), "warn", "state-dir", "is on NFS");
      // as statfs gives it where it is a signed number
      assertFound(judge({ type: 0xff534d42 | 0 }), "warn", "state-dir", "is on CIFS");
    });

    it.scopedLive("finds features that are not offered", () =>
      Effect.gen(function* () {
        const here = place();
        writeFileSync(join(here.features, "db"), '{"port":');
        writeFileSync(join(here.features, "no.name"), "1");
        writeFileSync(join(here.features, "bytes"), Buffer.from([34, 0xff, 34]));
        spawnSync("mkfifo", [join(here.features, "pipe")]);
        writeFileSync(join(here.features, "empty"), "\n");
        writeFileSync(join(here.features, "large"), `"${"x".repeat(1024 * 1024)}"`);
        const { findings } = yield* doctor(at(here));
        assertFound(findings, "fail", "features", "db is not offered: it is not JSON at character 9");
        assertFound(findings, "fail", "features", "large is not offered: it is larger");
        assertFound(findings, "fail", "features", "bytes is not offered: it is not UTF-8");
        assertFound(findings, "fail", "features", "pipe is not offered: it is neither a file nor a directory");
        assertFound(findings, "warn", "features", "no.name is no feature");
        assert.notInclude(findings.map(({ message }) => message).join(), "empty is");
      }),
    );

    it("finds that there are more features than a node offers", () => {
      const here = place();
      for (let i = 0; i <= Feature.maxFeatures; i++) writeFileSync(join(here.features, `f${i}`), "1");
      assertFound(Host.features(here.features), "fail", "features", `a node offers at most ${Feature.maxFeatures}`);
    });

    it("finds that the kernel's limits for watches are reached", () => {
      const roomy = { maxWatches: 10_000, maxInstances: 128, watches: 10, instances: 3 };
      assertFound(Host.judgeWatching(roomy, 100), "ok", "inotify", "a reader takes 100");
      assertFound(Host.judgeWatching({ ...roomy, watches: 9_950 }, 100), "warn", "inotify", "9950 of 10000 are taken");
      assertFound(Host.judgeWatching({ ...roomy, maxWatches: 64 }, 100), "fail", "inotify", "takes 100 watches");
      assertFound(Host.judgeWatching({ ...roomy, instances: 120 }, 100), "warn", "inotify", "120 of the 128 instances");
      assertFound(Host.judgeWatching({ ...roomy, instances: 128 }, 100), "fail", "inotify", "all 128 instances");
    });
  });

  describe("in S3", () => {
    /** What the doctor finds with a server that goes wrong. */
    const found = (
      wrong: (fake: FakeS3, here: Place) => void,
      more: (fake: FakeS3) => ReadonlyArray<string> = () => [],
    ) =>
      Effect.gen(function* () {
        const here = place();
        const fake = yield* FakeS3.make;
        const options = [...at(here), ...withS3(here, fake)];
        wrong(fake, here);
        return { ...(yield* doctor([...options, ...more(fake)])), fake };
      });
    const refuse =
      (match: (request: FakeRequest) => boolean, code = "AccessDenied", status = 403) =>
      (fake: FakeS3) => {
        fake.fault = (request) => (match(request) ? { kind: "answer", status, code } : undefined);
      };

    it.scopedLive("finds that there are no credentials", () =>
      Effect.gen(function* () {
        const here = place();
        const fake = yield* FakeS3.make;
        const s3 = withS3(here, fake).slice(0, -1);
        const nowhere = { HOME: here.home, AWS_EC2_METADATA_DISABLED: "true" };
        const { findings, status } = yield* nameqDoctor([...at(here), ...s3], nowhere);
        assert.strictEqual(status, 1);
        assertFound(findings, "fail", "credentials", "no S3 credentials were found");
        const gone = yield* doctor([...at(here), ...s3, "--s3-cred-file", join(here.home, "gone")]);
        assertFound(gone.findings, "fail", "credentials", "gone cannot be read (ENOENT)");
      }),
    );

    it.scopedLive("finds that credentials are wrong, or open to all", () =>
      Effect.gen(function* () {
        const wrong = yield* found((fake, here) =>
          writeFileSync(join(here.home, "credentials"), `${fake.accessKeyId} another`),
        );
        assertFound(wrong.findings, "fail", "credentials", "SignatureDoesNotMatch");
        const open = yield* found((_, here) => chmodSync(join(here.home, "credentials"), 0o644));
        assertFound(open.findings, "warn", "credentials", "every user of this host may use");
      }),
    );

    it.scopedLive("finds that there is no such bucket", () =>
      Effect.gen(function* () {
        const { findings } = yield* found(
          () => {},
          () => ["--s3-bucket", "another"],
        );
        assertFound(findings, "fail", "bucket", "there is no bucket another");
      }),
    );

    it.scopedLive("finds that the bucket is in another region, and names it", () =>
      Effect.gen(function* () {
        const { findings } = yield* found((fake) => {
          fake.region = "eu-west-1";
        });
        assertFound(findings, "fail", "region", "is not in us-east-1");
        assert.strictEqual(findings.find(({ check }) => check === "region")?.fix, "--s3-region eu-west-1");
      }),
    );

    it.scopedLive("finds which of the four rights is missing", () =>
      Effect.gen(function* () {
        const list = yield* found(refuse(({ key, method }) => method === "GET" && key === ""));
        assertFound(list.findings, "fail", "s3-list", "may not list");
        assertFound(list.findings, "ok", "s3-put", "was put");
        const put = yield* found(refuse(({ method }) => method === "PUT"));
        assertFound(put.findings, "fail", "s3-put", "may not put");
        assertFound(put.findings, "skip", "s3-get", "nothing was put");
        const get = yield* found(refuse(({ key, method }) => method === "GET" && key !== ""));
        assertFound(get.findings, "fail", "s3-get", "may not get");
        assertFound(get.findings, "ok", "s3-delete", "deleted");
        const remove = yield* found(refuse(({ method }) => method === "DELETE"));
        assertFound(remove.findings, "fail", "s3-delete", /may not delete .*nameq-doctor\/.* stays/);
        assert.include(
          remove.findings.find(({ check }) => check === "s3-delete")?.fix,
          "s3:DeleteObject on arn:aws:s3:::fake-bucket/prod/*",
        );
      }),
    );

    it.scopedLive("finds that the server is out of reach, or no S3 server", () =>
      Effect.gen(function* () {
        const gone = yield* found((fake) => fake.stop());
        assertFound(gone.findings, "fail", "registry", "is out of reach");
        const login = yield* found((fake) => {
          fake.fault = () => ({ kind: "answer", status: 200, body: "<html>Please log in</html>" });
        });
        assertFound(login.findings, "fail", "registry", "does not answer as an S3 server");
        const busy = yield* found(refuse(() => true, "SlowDown", 503));
        assertFound(busy.findings, "fail", "registry", "asks for fewer requests");
      }),
    );

    it.scopedLive("finds that this host's clock is off, by a little, by much and by very much", () =>
      Effect.gen(function* () {
        for (const [offsetMs, level, text] of [
          [-10_000, "warn", "ahead of S3's"],
          [60_000, "fail", "behind S3's"],
          [3_600_000, "fail", "behind S3's"],
        ] as const) {
          const { findings } = yield* found((fake) => {
            fake.clockOffsetMs = offsetMs;
          });
          assertFound(findings, level, "clock", text);
          // all else is looked at all the same
          assertFound(findings, "ok", "s3-delete", "deleted");
        }
      }),
    );

    it("finds a clock with which S3 does not talk", () => {
      const config = { _tag: "S3", region: "r", bucket: "b", prefix: "p", pathStyle: false } as const;
      const failure = { reason: "ClockSkew", cause: "RequestTimeTooSkewed" } as const;
      assertFound([Registry.judgeFailure("list", config, failure)], "fail", "clock", "too far from S3's");
    });

    it.scopedLive("finds an own object that is missing or late while the node runs", () =>
      Effect.gen(function* () {
        const here = place();
        yield* StateLock.take(here.state);
        const fake = yield* FakeS3.make;
        const look = Effect.map(doctor([...at(here), ...withS3(here, fake)]), ({ findings }) => findings);
        assertFound(yield* look, "fail", "own-object", `has no object ${own}`);
        const put = fake.put(`prod/${own}`, object("{}"));
        assertFound(yield* look, "ok", "own-object", `the object ${own}`);
        fake.objects.set(`prod/${own}`, { ...put, lastModifiedMs: Date.now() - 10 * 60_000 });
        assertFound(yield* look, "fail", "own-object", "was not renewed for 10 min");
      }),
    );

    it.scopedLive("leaves nothing behind when it is not waited for", () =>
      Effect.gen(function* () {
        const fake = yield* FakeS3.make;
        fake.fault = ({ key, method }) =>
          method === "GET" && key.includes("nameq-doctor/") ? { kind: "silent" } : undefined;
        const running = yield* Effect.fork(doctor([...at(place()), ...withS3(place(), fake)]));
        yield* Effect.repeat(Effect.sleep(10), {
          until: () => fake.requests.some(({ key, method }) => method === "GET" && key.includes("nameq-doctor/")),
        });
        assert.lengthOf([...fake.objects], 1);
        yield* Fiber.interrupt(running);
        assert.lengthOf([...fake.objects], 0);
      }),
    );

    it.scopedLive("tells of objects that are late, expired or no node's", () =>
      Effect.gen(function* () {
        const { findings } = yield* found((fake) => {
          fake.put("prod/readme", "?");
          for (const [name, minutes] of [
            ["10.0.0.1", 1],
            ["10.0.0.2", 9],
            ["10.0.0.3", 20],
          ] as const) {
            const put = fake.put(`prod/${name}`, object("{}"));
            fake.objects.set(`prod/${name}`, { ...put, lastModifiedMs: Date.now() - minutes * 60_000 });
          }
        });
        assertFound(findings, "ok", "members", "the registry has 2 other nodes and 1 that ended long ago");
        assertFound(findings, "warn", "members", '1 object is no node\'s: "readme"');
        assertFound(findings, "warn", "members", "not renewed in time: 10.0.0.2 (9 min)");
      }),
    );

    it("estimates what the requests cost", () => {
      const few = Registry.cost(10);
      assert.deepStrictEqual([Math.round(few.puts), Math.round(few.lists)], [15, 20]);
      // 10 nodes x 730 h x 35 requests x 0.005 USD / 1,000
      assert.closeTo(few.usd, 1.28, 0.01);
      // ten times the fleet lists a tenth as often each, and costs no more for it
      assert.closeTo(Registry.cost(600).lists * 600, Registry.cost(60).lists * 60, 1);
      assert.isAbove(Registry.cost(100_000).lists, Registry.cost(10_000).lists);
    });
  });

  describe("in a directory that all nodes share", () => {
    it.scopedLive("finds one that is not there, or that cannot be written to", () =>
      Effect.gen(function* () {
        const here = place();
        const absent = yield* doctor([...at(here), "--registry-dir", join(here.home, "absent")]);
        assertFound(absent.findings, "fail", "registry", "it is not there");
        assert.isFalse(existsSync(join(here.home, "absent")));
        writeFileSync(join(here.home, "file"), "");
        const file = yield* doctor([...at(here), "--registry-dir", join(here.home, "file")]);
        assertFound(file.findings, "fail", "registry", "cannot be used");
      }),
    );

    it("leaves nothing in one that is full", () => {
      const here = place();
      const registry = join(here.home, "registry");
      mkdirSync(registry);
      const command = [process.execPath, program, "doctor", ...at(here), "--registry-dir", registry];
      // files may be made, and have no bytes
      const { stdout } = spawnSync("sh", ["-c", `ulimit -f 0; ${command.join(" ")}`], { encoding: "utf8" });
      assert.match(stdout, /^FAIL registry: .* cannot be used \(EFBIG/m);
      // the registry itself keeps a directory there
      assert.deepStrictEqual(readdirSync(registry), [".tmp"]);
    });

    it.scopedLive("writes there what no node looks at, and takes it away", () =>
      Effect.gen(function* () {
        const here = place();
        const registry = join(here.home, "registry");
        mkdirSync(registry);
        const { findings } = yield* doctor([...at(here), "--registry-dir", registry]);
        assertFound(findings, "ok", "registry", "can be put, read and deleted");
        assertFound(findings, "skip", "peers", "no peer is known");
      }),
    );
  });

  describe("without a node, among the peers", () => {
    const withPeers = (here: Place, ...peers: ReadonlyArray<string>): ReadonlyArray<string> => {
      const registry = join(here.home, "registry");
      mkdirSync(registry, { recursive: true });
      for (const peer of peers) writeFileSync(join(registry, peer), object("{}"));
      return [...at(here), "--registry-dir", registry];
    };

    it.scopedLive("finds who does not answer, who has another key, and whose clock is off", () =>
      Effect.gen(function* () {
        yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
        yield* fakePeer("127.45.1.3", () => announcement("127.45.1.3", { key: "another key" }));
        yield* fakePeer("127.45.1.4", () => announcement("127.45.1.4", { clockMs: 60_000 }));
        const options = withPeers(place(), "127.45.1.2", "127.45.1.3", "127.45.1.4");
        const { findings, status } = yield* nameqDoctor([...options, "--peer", "127.45.1.5"]);
        assert.strictEqual(status, 1);
        assertFound(findings, "ok", "peers", "2 of 4 peers answered");
        assertFound(findings, "fail", "keys", "127.45.1.3 signs with another key (bad-hmac)");
        assertFound(findings, "fail", "peer", "127.45.1.5 did not answer within 2.0 s");
        assertFound(findings, "fail", "peer-clock", /^127\.45\.1\.4: its clock is (60\.0|59\.9) s ahead of/);
      }),
    );

    it.scopedLive("finds that nobody answers", () =>
      Effect.gen(function* () {
        const { findings } = yield* doctor(withPeers(place(), "127.45.1.2"));
        assertFound(findings, "fail", "peers", "none of 1 peer answered");
        assertFound(findings, "skip", "keys", "nobody answered");
      }),
    );

    it.scopedLive("asks again when a datagram was lost", () =>
      Effect.gen(function* () {
        let lost = 1;
        yield* fakePeer("127.45.1.2", () => (lost-- > 0 ? undefined : announcement("127.45.1.2")));
        const { findings } = yield* doctor(withPeers(place(), "127.45.1.2"));
        assertFound(findings, "ok", "peers", "1 of 1 peer answered");
      }),
    );

    it.scopedLive(
      "says nothing for an address that still has features, unless it is told to, and then just these",
      () =>
        Effect.gen(function* () {
          const here = place();
          const peer = yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
          const options = withPeers(here, "127.45.1.2");
          writeFileSync(join(here.home, "registry", own), object('{"db":{"port":5432}}'));
          const quiet = yield* doctor(options);
          assertFound(quiet.findings, "skip", "peers", `the registry still has 1 feature of ${own}`);
          assert.deepStrictEqual(peer.heard, []);
          const { findings } = yield* doctor([...options, "--exchange"]);
          assertFound(findings, "ok", "peers", "1 of 1 peer answered");
          assert.deepStrictEqual(
            peer.heard.map(({ features, remarks }) => [features.text, remarks.leaving]),
            [['{"db":{"port":5432}}', false]],
          );
          // nobody's any more after 15 minutes
          utimesSync(join(here.home, "registry", own), 1, 1);
          assertFound((yield* doctor(options)).findings, "ok", "peers", "1 of 1 peer answered");
          assert.isTrue(peer.heard.at(-1)?.remarks.leaving);
        }),
    );

    it.scopedLive("says nothing when it cannot read whether the address still has features", () =>
      Effect.gen(function* () {
        const here = place();
        const peer = yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
        const options = withPeers(here, "127.45.1.2");
        writeFileSync(join(here.home, "registry", own), "{");
        assertFound((yield* doctor(options)).findings, "skip", "peers", "it is not known whether");

        const fake = yield* FakeS3.make;
        for (const address of [own, "127.45.1.2"]) fake.put(`prod/${address}`, object('{"web":true}'));
        fake.fault = ({ key, method }) =>
          method === "GET" && key.endsWith(own) ? { kind: "answer", status: 403, code: "AccessDenied" } : undefined;
        const { findings } = yield* doctor([...at(here), ...withS3(here, fake)]);
        assertFound(findings, "ok", "s3-list", "can be listed");
        assertFound(findings, "skip", "peers", "it is not known whether");
        assert.deepStrictEqual(peer.heard, []);
      }),
    );

    it.scopedLive("signs with no key that is only accepted", () =>
      Effect.gen(function* () {
        const here = place();
        const peer = yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
        const options = withPeers(here, "127.45.1.2").filter((option) => !option.startsWith("--secret-file"));
        const { findings } = yield* doctor([...options, `--accept-secret-file=${here.secret}`]);
        assertFound(findings, "skip", "peers", "they were not asked: for that a key");
        assert.deepStrictEqual(peer.heard, []);
      }),
    );

    it.scopedLive("says nothing when the registry cannot be asked, unless it is told to", () =>
      Effect.gen(function* () {
        const peer = yield* fakePeer("127.45.1.2", () => announcement("127.45.1.2"));
        const options = [...at(place()), "--peer", "127.45.1.2"];
        assertFound((yield* doctor(options)).findings, "skip", "peers", "without the registry");
        assert.deepStrictEqual(peer.heard, []);
        assertFound((yield* doctor([...options, "--exchange"])).findings, "ok", "peers", "1 of 1 peer answered");
      }),
    );
  });

  describe("through a node's HTTP face", () => {
    const found = (prepare: (face: FakeFace) => void) =>
      Effect.gen(function* () {
        const here = place();
        yield* StateLock.take(here.state);
        yield* fakePeer(own, () => undefined);
        const face = yield* FakeFace.make;
        face.self = { ...face.self, address: own, port };
        prepare(face);
        writeFileSync(join(here.state, ".http"), `${face.url}\n`);
        return yield* nameqDoctor(at(here));
      });
    const answer = (address: string, more: object = {}) => ({
      address,
      answered: true,
      rttMs: 2,
      canAnswer: true,
      heardMs: 5,
      ...more,
    });

    it.scopedLive("finds nothing wrong where nothing is", () =>
      Effect.gen(function* () {
        const { findings, status } = yield* found((face) => {
          face.nodes = [aNode("127.45.1.2"), aNode("127.45.1.3", { version: null, legacy: true })];
          face.reachability = [
            answer("127.45.1.2"),
            answer("127.45.1.3", { answered: false, rttMs: null, canAnswer: false }),
          ];
        });
        assert.strictEqual(status, 0);
        assert.lengthOf(bad(findings), 1); // the loopback address
        assertFound(findings, "ok", "peers", "1 of 2 peers answered, in 2.0 ms");
        assertFound(
          findings,
          "ok",
          "peers",
          "1 node of the existing program cannot be asked, and is heard: 127.45.1.3",
        );
        assertFound(findings, "ok", "keys", "no datagram");
        assertFound(findings, "ok", "peer-clock", "differ by 2 ms");
        assertFound(findings, "ok", "clock", "0.0 s ahead");
      }),
    );

    it.scopedLive("finds peers that do not answer, with when they were last heard", () =>
      Effect.gen(function* () {
        const mute = { answered: false, rttMs: null };
        const { findings } = yield* found((face) => {
          face.nodes = [
            aNode("127.45.1.2"),
            aNode("127.45.1.3", { udpMs: null, version: null, source: "registry" }),
            aNode("127.45.1.4", { udpMs: 300_000, version: null, legacy: true }),
            aNode("127.45.1.5", { state: "left" }),
          ];
          face.reachability = face.nodes.map(({ address, version }) =>
            answer(String(address), { ...mute, canAnswer: version !== null }),
          );
        });
        assertFound(findings, "fail", "peers", "none of 3 peers answered");
        assertFound(findings, "fail", "peer", "127.45.1.2 did not answer within 20 ms; last datagram 1 s ago");
        assertFound(findings, "fail", "peer", "127.45.1.3 did not answer within 20 ms; never heard by UDP");
        assertFound(findings, "fail", "peer", "127.45.1.4: no datagram for 5 min");
        assert.notInclude(JSON.stringify(findings.filter(({ check }) => check === "peer")), "127.45.1.5");
      }),
    );

    it.scopedLive("tells the last word of each node that is missing", () =>
      Effect.gen(function* () {
        const { findings } = yield* found((face) => {
          face.nodes = [
            aNode("127.45.1.2", { state: "silent", source: "registry", heardMs: 100_000, udpMs: 900_000 }),
            aNode("127.45.1.3", { state: "forgotten", heardMs: 960_000, udpMs: 960_000 }),
            aNode("127.45.1.4", { state: "left", heardMs: 240_000 }),
          ];
        });
        assertFound(
          findings,
          "warn",
          "missing",
          "127.45.1.2 is silent: last news 100 s ago by the registry, last datagram 15 min ago",
        );
        assertFound(
          findings,
          "warn",
          "missing",
          "127.45.1.3 is forgotten: last news 16 min ago by datagram, version 0.1.0, and no goodbye",
        );
        assertFound(findings, "ok", "missing", "127.45.1.4 said goodbye 4 min ago");
      }),
    );

    it.scopedLive("finds clocks that are off, foreign keys and what else the node reports", () =>
      Effect.gen(function* () {
        const since = new Date().toISOString();
        const { findings } = yield* found((face) => {
          face.self = { ...face.self, ready: false, registryClockOffsetMs: -20_000 };
          face.nodes = [aNode("127.45.1.2", { clockOffsetMs: 8_000 }), aNode("127.45.1.3", { clockOffsetMs: -16_000 })];
          face.conditions = [
            {
              name: "dropped/bad-hmac",
              severity: "warning",
              message: "dropped 5 datagrams (bad-hmac) from 127.45.1.9",
              since,
            },
            { name: "registry-put", severity: "error", message: "cannot put: do something", since },
            { name: "odd-keys", severity: "warning", message: "odd", since },
          ];
        });
        assertFound(findings, "fail", "keys", "from 127.45.1.9");
        assertFound(findings, "warn", "condition", "odd");
        assert.isTrue(
          findings.some(
            ({ check, level, message }) => check === "condition" && level === "fail" && message.includes("cannot put"),
          ),
        );
        assertFound(findings, "warn", "peer-clock", "127.45.1.2: its clock is 8.0 s behind");
        assertFound(findings, "fail", "peer-clock", "127.45.1.3: its clock is 16.0 s ahead of");
        assertFound(findings, "fail", "clock", "20.0 s behind the registry's");
        assertFound(findings, "warn", "http", "is not ready");
      }),
    );

    it.scopedLive("finds a peer that the node does not know", () =>
      Effect.gen(function* () {
        const here = place();
        yield* StateLock.take(here.state);
        const face = yield* FakeFace.make;
        const { findings } = yield* doctor([...at(here), "--http", face.url, "--peer", "127.45.1.7"]);
        assertFound(findings, "fail", "peer", "the node does not know 127.45.1.7");
      }),
    );

    it("sums up many that the node does not know", () => {
      const findings = Peers.judgeUnknown(Array.from({ length: 25 }, (_, i) => `10.0.0.${i + 1}` as Address));
      assert.lengthOf(findings, 21);
      assertFound(findings, "fail", "peer", "and 5 more like these");
      assert.deepStrictEqual(Peers.judgeUnknown([]), []);
    });

    it.scopedLive("finds a face that was named and is not there", () =>
      Effect.gen(function* () {
        const { findings, status } = yield* nameqDoctor([...at(place()), "--http", "127.0.0.1:1"]);
        assert.strictEqual(status, 1);
        assertFound(findings, "fail", "http", "is out of reach");
      }),
    );

    it.scopedLive("takes a URL and a name for it, as status does", () =>
      Effect.gen(function* () {
        for (const where of ["https://127.0.0.1:1/behind/a/proxy", "localhost.:1"]) {
          assertFound((yield* doctor([...at(place()), "--http", where])).findings, "fail", "http", "is out of reach");
        }
      }),
    );

    it.scopedLive("looks at another host's node without taking this host for it", () =>
      Effect.gen(function* () {
        const face = yield* FakeFace.make;
        face.self = { ...face.self, stateDir: "/nonexistent/state" };
        face.nodes = [aNode("10.0.0.2")];
        face.reachability = [answer("10.0.0.2")];
        const { findings, status } = yield* nameqDoctor(["--http", face.url]);
        assert.strictEqual(status, 0);
        assertFound(findings, "skip", "host", "10.0.0.1 is another host's");
        assertFound(findings, "ok", "peers", "1 of 1 peer answered");
        assert.isFalse(findings.some(({ check }) => check === "port" || check === "address" || check === "state-dir"));
      }),
    );
  });
});

describe("a finding", () => {
  it("is one line without surprises", () => {
    assert.strictEqual(
      line({ check: "peer", level: "warn", message: "a\n\u001b[2Jb", fix: "c" }),
      "warn peer: a\\u000a\\u001b[2Jb -> c",
    );
    assert.strictEqual(some(["a", "b", "c"], 2), "a, b and 1 more");
  });

  it("of many peers is summed up", () => {
    const peers = Array.from({ length: 50 }, (_, i) => `10.0.1.${i}` as Address);
    const findings = Peers.judgeExchange(peers, port, new Map());
    assert.isBelow(findings.length, 25);
    assertFound(findings, "fail", "peer", "and 30 more like these");
    const offsets = Array.from({ length: 300_000 }, () => ["10.0.0.1", 1] as const);
    assertFound(Peers.judgePeerClocks(offsets), "ok", "peer-clock", "300000 peers");
  });
});
