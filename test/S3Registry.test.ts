import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { Worker } from "node:worker_threads";
import { assert, describe, it } from "@effect/vitest";
import * as Deferred from "effect/Deferred";
import * as Either from "effect/Either";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Option from "effect/Option";
import * as Redacted from "effect/Redacted";
import * as TestClock from "effect/TestClock";
import type { S3Options } from "../src/S3Client.js";
import { MemoryRegistry, type RegistryError, type RegistryReason, S3Registry } from "../src/S3Registry.js";
import { FakeS3, type Fault } from "./FakeS3.js";
import { assertNoSecret, bucketContract, failure, names, registryContract, using } from "./S3RegistryContract.js";

const optionsFor = (fake: FakeS3) =>
  ({
    region: fake.region,
    bucket: fake.bucket,
    endpoint: fake.endpoint,
    pathStyle: true,
    credentials: { accessKeyId: fake.accessKeyId, secretAccessKey: Redacted.make(fake.secretAccessKey) },
    // long enough for a busy machine, short enough for a test
    connectTimeout: "1 second",
    requestTimeout: "500 millis",
    callTimeout: "5 seconds",
  }) satisfies S3Options;

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "nameq-registry-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

bucketContract(
  "S3Registry.layer on a small server",
  Effect.map(FakeS3.make, (fake) => {
    fake.pageSize = 100;
    return { options: optionsFor(fake), plant: (key, body) => Effect.sync(() => void fake.put(key, body)) };
  }),
  "20 millis",
);

for (const local of [true, false]) {
  registryContract(
    `S3Registry.layerDirectory on a file system that ${local ? "cannot" : "may"} hang`,
    Effect.map(temporaryDirectory, (directory) => ({
      layer: S3Registry.layerDirectory({ directory: path.join(directory, "new", "registry"), local }),
      plant: (name, body) =>
        Effect.sync(() => {
          fs.mkdirSync(path.join(directory, "new", "registry"), { recursive: true });
          fs.writeFileSync(path.join(directory, "new", "registry", name), body);
        }),
    })),
    "20 millis",
  );
}

registryContract(
  "S3Registry.layerMemory",
  Effect.map(MemoryRegistry.make, (store) => ({
    layer: S3Registry.layerMemory(store, "a"),
    plant: (name, body) => Effect.sync(() => store.plant(name, body)),
  })),
  "20 millis",
);

/** A port of 127.0.0.1 where connections neither stand nor fail: its queue is full, and nobody takes from it. */
const blackHole = Effect.gen(function* () {
  const worker = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Worker(
          `const { parentPort } = require("node:worker_threads");
           const server = require("node:net").createServer();
           server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
             parentPort.postMessage(server.address().port);
             Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
           });`,
          { eval: true },
        ),
    ),
    (worker) => Effect.promise(() => worker.terminate()),
  );
  const port = yield* Effect.async<number>((resume) => void worker.once("message", (n) => resume(Effect.succeed(n))));
  for (let i = 0; i < 8; i++) {
    yield* Effect.acquireRelease(
      Effect.sync(() => net.connect(port, "127.0.0.1").on("error", () => {})),
      (socket) => Effect.sync(() => socket.destroy()),
    );
  }
  // those that fit stand by now; the others are in the way of whoever comes next
  yield* Effect.sleep("20 millis");
  return port;
});

describe("S3Registry.layer, when the server fails", () => {
  const withFake = <A, E>(
    use: (fake: FakeS3, registry: S3Registry.Service, count: (operation: string) => number) => Effect.Effect<A, E>,
    options: Partial<S3Options> = {},
  ) =>
    Effect.flatMap(FakeS3.make, (fake) =>
      using(S3Registry.layer({ ...optionsFor(fake), ...options }), (registry, metrics) =>
        use(fake, registry, (operation) => metrics.value("registry_requests", operation)),
      ),
    );

  const page = (inner: string) => `<?xml version="1.0"?><ListBucketResult>${inner}</ListBucketResult>`;
  const answer = (status: number, rest: Omit<Extract<Fault, { kind: "answer" }>, "kind" | "status"> = {}): Fault => ({
    kind: "answer",
    status,
    ...rest,
  });
  const html = "<html><head><title>Log in</title></head><body><p>hello</body></html>";

  type Operation = "put" | "list" | "get" | "delete";
  const run = (registry: S3Registry.Service, operation: Operation): Effect.Effect<unknown, RegistryError> =>
    ({
      put: registry.put("10.0.0.1", "{}\n"),
      list: registry.list,
      get: registry.get("10.0.0.1"),
      delete: registry.remove("10.0.0.1"),
    })[operation];
  const every: ReadonlyArray<Operation> = ["put", "list", "get", "delete"];

  const failures: ReadonlyArray<
    readonly [what: string, fault: Fault, reason: RegistryReason, tells: string, operations?: ReadonlyArray<Operation>]
  > = [
    ["access is denied", answer(403, { code: "AccessDenied" }), "Denied", "s3:ListBucket"],
    ["the session has expired", answer(400, { code: "ExpiredToken" }), "Denied", "access key"],
    ["a proxy denies", answer(403, { body: html }), "Denied", "HTTP 403"],
    [
      "the server redirects",
      answer(301, { code: "PermanentRedirect", headers: { "x-amz-bucket-region": "eu-north-1" } }),
      "Region",
      "region eu-north-1",
    ],
    ["the clock is off", answer(403, { code: "RequestTimeTooSkewed" }), "ClockSkew", "NTP"],
    ["it is asked too often", answer(503, { code: "SlowDown" }), "Throttled", "fewer requests"],
    ["a proxy is overloaded", answer(503, { body: html }), "Throttled", "HTTP 503"],
    ["it has an internal error", answer(500, { code: "InternalError" }), "Other", "request fake-request"],
    ["it cannot do that", answer(501, { code: "NotImplemented" }), "Other", "NotImplemented: as told, HTTP 501"],
    ["another server says 404", answer(404, { body: html }), "InvalidAnswer", "S3 server"],
    ["a login page says 200", answer(200, { body: html }), "InvalidAnswer", "login page", ["put", "list", "get"]],
    ["an empty answer says 200", answer(200), "InvalidAnswer", "S3 server", ["put", "list", "get"]],
    ["it closes the connection", { kind: "close" }, "Unreachable", "check the endpoint"],
    ["it never answers", { kind: "silent" }, "Timeout", "firewall"],
    [
      "a body stops half-way",
      { kind: "part", sent: "<?xml", length: 100, close: false },
      "Timeout",
      "inactivity",
      ["list", "get"],
    ],
    [
      "a connection ends half-way",
      { kind: "part", sent: "<?xml", length: 100, close: true },
      "Unreachable",
      "aborted",
      ["list", "get"],
    ],
  ];
  for (const [what, fault, reason, tells, operations = every] of failures) {
    for (const operation of operations) {
      it.scopedLive(`when ${what}, ${operation} says ${reason}`, () =>
        withFake(
          (fake, registry) =>
            Effect.gen(function* () {
              fake.fault = () => fault;
              const error = yield* failure(run(registry, operation));
              assert.deepInclude({ ...error }, { reason, operation });
              assert.include(error.message, tells);
              assertNoSecret(error, fake.secretAccessKey);
            }),
          // where something must come first, no shorter time than usual: a busy machine needs it
          { attempts: 1, ...(fault.kind === "silent" && { requestTimeout: "150 millis" }) },
        ),
      );
    }
  }

  const lists: ReadonlyArray<readonly [what: string, body: string]> = [
    ["has no KeyCount", page("<IsTruncated>false</IsTruncated>")],
    ["has no IsTruncated", page("<KeyCount>0</KeyCount>")],
    ["is cut short", page("<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>").slice(0, -10)],
    ["goes on, but does not say where", page("<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated>")],
    [
      "goes on for ever with the same page",
      page("<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
    ],
    [
      "has an object without a time",
      page("<KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>a</Key><ETag>e</ETag></Contents>"),
    ],
  ];
  for (const [what, body] of lists) {
    it.scopedLive(`a list answer that ${what} is an error, not a listing`, () =>
      withFake((fake, registry) =>
        Effect.gen(function* () {
          fake.fault = () => answer(200, { body });
          assert.strictEqual((yield* failure(registry.list)).reason, "InvalidAnswer");
          assert.isAtMost(fake.requests.length, 2);
        }),
      ),
    );
  }

  it.scopedLive("a listing whose pages never end is an error after 1,000 of them", () =>
    withFake(
      (fake, registry, count) =>
        Effect.gen(function* () {
          let pages = 0;
          fake.fault = () =>
            answer(200, {
              body: page(
                `<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>t${pages++}</NextContinuationToken>`,
              ),
            });
          assert.strictEqual((yield* failure(registry.list)).reason, "InvalidAnswer");
          assert.strictEqual(count("list"), 1000);
        }),
      { attempts: 1 },
    ),
  );

  it.scopedLive("a listing that fails at its second page is an error, not the first page", () =>
    withFake((fake, registry) =>
      Effect.gen(function* () {
        fake.pageSize = 2;
        for (const name of ["10.0.0.1", "10.0.0.2", "10.0.0.3"]) fake.put(name, "{}\n");
        fake.fault = ({ query }) =>
          query.has("continuation-token") ? answer(403, { code: "AccessDenied" }) : undefined;
        assert.strictEqual((yield* failure(registry.list)).reason, "Denied");
        fake.fault = () => undefined;
        assert.deepStrictEqual(yield* names(registry), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
      }),
    ),
  );

  it.scopedLive("what lies further below the prefix costs no pages", () =>
    withFake((fake, registry, count) =>
      Effect.gen(function* () {
        fake.pageSize = 10;
        for (let i = 0; i < 100; i++) fake.put(`logs/${i}`, "");
        fake.put("10.0.0.1", "{}\n");
        assert.deepStrictEqual(yield* names(registry), ["10.0.0.1"]);
        assert.strictEqual(count("list"), 1);
      }),
    ),
  );

  it.scopedLive("a wrong region is named together with the right one", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          const error = yield* failure(registry.list);
          assert.strictEqual(error.reason, "Region");
          assert.include(error.message, `the bucket is in region ${fake.region}`);
        }),
      { region: "eu-west-1" },
    ),
  );

  it.scopedLive("a passing failure is tried again, and each try is counted", () =>
    withFake((fake, registry, count) =>
      Effect.gen(function* () {
        let left = 2;
        fake.fault = () => (left-- > 0 ? answer(500, { code: "InternalError" }) : undefined);
        yield* registry.put("10.0.0.1", "{}\n");
        assert.strictEqual(count("put"), 3);
        assert.strictEqual(fake.requests.length, 3);
      }),
    ),
  );

  it.scopedLive("a failure that stays is an error after three tries", () =>
    withFake((fake, registry, count) =>
      Effect.gen(function* () {
        fake.fault = () => ({ kind: "close" });
        assert.strictEqual((yield* failure(registry.list)).reason, "Unreachable");
        assert.strictEqual(count("list"), 3);
      }),
    ),
  );

  it.scopedLive("what is refused for good is not tried again", () =>
    withFake((fake, registry, count) =>
      Effect.gen(function* () {
        fake.fault = () => answer(403, { code: "AccessDenied" });
        yield* failure(registry.list);
        assert.strictEqual(count("list"), 1);
      }),
    ),
  );

  it.scopedLive("the whole call ends in time although each of its tries might wait longer", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          fake.fault = () => ({ kind: "silent" });
          const error = yield* failure(registry.get("10.0.0.1"));
          assert.strictEqual(error.reason, "Timeout");
          assert.include(error.message, "not done within 200ms");
        }),
      { requestTimeout: "1 hour", callTimeout: "200 millis" },
    ),
  );

  it.scopedLive("a whole listing ends in time although each of its pages is quick", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          let pages = 0;
          fake.fault = () =>
            pages++ < 3
              ? answer(200, {
                  body: page(
                    `<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>t${pages}</NextContinuationToken>`,
                  ),
                })
              : { kind: "silent" };
          const error = yield* failure(registry.list);
          assert.strictEqual(error.reason, "Timeout");
          assert.include(error.message, "not listed within");
        }),
      { requestTimeout: "1 hour", callTimeout: "1 hour", listTimeout: "400 millis" },
    ),
  );

  it.scopedLive("a connection that never stands ends in time", () =>
    Effect.gen(function* () {
      const port = yield* blackHole;
      const fake = yield* FakeS3.make;
      const options = { ...optionsFor(fake), endpoint: `http://127.0.0.1:${port}`, attempts: 1 };
      yield* using(
        S3Registry.layer({ ...options, connectTimeout: "100 millis", requestTimeout: "1 hour" }),
        (registry) =>
          Effect.gen(function* () {
            const error = yield* failure(registry.list);
            assert.strictEqual(error.reason, "Timeout");
            assert.include(error.message, "did not establish a connection");
          }),
      );
    }),
  );

  it.scopedLive("a port where nobody listens, or a name that nobody knows, is out of reach", () =>
    Effect.gen(function* () {
      const fake = yield* FakeS3.make;
      const options = optionsFor(fake);
      fake.stop();
      for (const [endpoint, tells] of [
        [options.endpoint, "ECONNREFUSED"],
        ["http://no-such-host.invalid", "no-such-host.invalid"],
      ] as const) {
        yield* using(S3Registry.layer({ ...options, endpoint }), (registry) =>
          Effect.gen(function* () {
            const error = yield* failure(registry.list);
            assert.strictEqual(error.reason, "Unreachable");
            assert.include(error.message, tells);
          }),
        );
      }
    }),
  );

  it.scopedLive("an endpoint that is no address of a web server fails the layer", () =>
    Effect.gen(function* () {
      const fake = yield* FakeS3.make;
      for (const endpoint of ["nowhere", "host:9000", "http://", "ftp://host"]) {
        const error = yield* Effect.flip(using(S3Registry.layer({ ...optionsFor(fake), endpoint }), () => Effect.void));
        assert.strictEqual(error.operation, "open");
        assert.include(error.message, "URL");
      }
    }),
  );

  it.scopedLive("interruption ends the request at once, in the head and in the body", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          const faults: ReadonlyArray<Fault> = [
            { kind: "silent" },
            { kind: "part", sent: "x", length: 100, close: false },
          ];
          for (const [i, fault] of faults.entries()) {
            const arrived = yield* Deferred.make<void>();
            fake.fault = () => {
              Deferred.unsafeDone(arrived, Effect.void);
              return fault;
            };
            const fiber = yield* Effect.fork(registry.get("10.0.0.1"));
            yield* Deferred.await(arrived);
            yield* Fiber.interrupt(fiber);
            yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => fake.aborted === i + 1 });
          }
          fake.fault = () => undefined;
          yield* registry.put("10.0.0.1", "{}\n");
          assert.deepStrictEqual(yield* names(registry), ["10.0.0.1"]);
        }),
      { requestTimeout: "1 hour", callTimeout: "1 hour" },
    ),
  );

  it.scopedLive("operations beyond its concurrency wait, and that wait is not part of their time", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          const many = Array.from({ length: 9 }, (_, i) => `10.0.0.${i}`);
          let silent = 3;
          fake.fault = () => (silent-- > 0 ? { kind: "silent" } : undefined);
          const done = yield* Effect.forEach(many, (name) => Effect.either(registry.put(name, name)), {
            concurrency: "unbounded",
          });
          assert.deepStrictEqual(
            done.map((result) => (Either.isLeft(result) ? result.left.reason : "put")),
            ["Timeout", "Timeout", "Timeout", "put", "put", "put", "put", "put", "put"],
          );
        }),
      { concurrency: 3, attempts: 1 },
    ),
  );

  it.scopedLive("the registry's clock is the server's", () =>
    withFake((fake, registry) =>
      Effect.gen(function* () {
        fake.clockOffsetMs = 10 * 60_000;
        yield* registry.put("10.0.0.1", "{}\n");
        const { entries, nowMs } = yield* registry.list;
        const got = Option.getOrThrow(yield* registry.get("10.0.0.1"));
        for (const now of [nowMs, got.nowMs]) {
          assert.isBelow(Math.abs(now - entries[0]!.lastModifiedMs), 60_000);
          assert.isAbove(now - Date.now(), 8 * 60_000);
        }
      }),
    ),
  );

  it.scopedLive("a server whose clock is an hour off is worked with by its own clock", () =>
    withFake((fake, registry) =>
      Effect.gen(function* () {
        fake.clockOffsetMs = -3_600_000;
        yield* registry.put("10.0.0.1", "{}\n");
        const { nowMs } = yield* registry.list;
        assert.isBelow(nowMs - Date.now(), -3_500_000);
      }),
    ),
  );

  it.scopedLive("an object larger than it says is refused before it is read whole", () =>
    withFake(
      (fake, registry) =>
        Effect.gen(function* () {
          fake.fault = () => ({ kind: "part", sent: "x", length: 1e12, close: false });
          assert.strictEqual((yield* failure(registry.get("10.0.0.1"))).reason, "TooLarge");
          yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => fake.aborted === 1 });
          fake.fault = () =>
            answer(200, { body: Buffer.alloc(20_000_000), headers: { "transfer-encoding": "chunked" } });
          assert.strictEqual((yield* failure(registry.get("10.0.0.1"))).reason, "TooLarge");
        }),
      // so that no time-out drops the connection instead
      { requestTimeout: "1 hour" },
    ),
  );
});

describe("S3Registry.layerDirectory, as a directory", () => {
  const withDirectory = <A, E>(
    use: (registry: S3Registry.Service, directory: string) => Effect.Effect<A, E>,
    local = true,
  ) =>
    Effect.flatMap(temporaryDirectory, (directory) =>
      using(S3Registry.layerDirectory({ directory, local }), (registry) => use(registry, directory)),
    );

  it.scopedLive("makes files that everyone may read, under directories that only their owner may change", () =>
    Effect.gen(function* () {
      const directory = path.join(yield* temporaryDirectory, "a", "b");
      yield* using(S3Registry.layerDirectory({ directory }), (registry) => registry.put("10.0.0.1", "{}\n"));
      const mode = (name: string) => (fs.statSync(path.join(directory, name)).mode & 0o7777).toString(8);
      assert.deepStrictEqual([mode("."), mode(".tmp"), mode("10.0.0.1")], ["755", "755", "644"]);
    }),
  );

  it.scopedLive("lets those who may write to the directory write to its temporary one", () =>
    withDirectory((registry, directory) =>
      Effect.gen(function* () {
        fs.chmodSync(directory, 0o777);
        yield* registry.put("10.0.0.1", "{}\n");
        assert.strictEqual(fs.statSync(path.join(directory, ".tmp")).mode & 0o777, 0o777);
      }),
    ),
  );

  it.scopedLive("leaves nothing in the temporary directory, and removes what others left there long ago", () =>
    withDirectory((registry, directory) =>
      Effect.gen(function* () {
        const temporary = path.join(directory, ".tmp");
        fs.mkdirSync(temporary);
        for (const name of ["10.0.0.1.old", "10.0.0.2.new"]) fs.writeFileSync(path.join(temporary, name), "");
        fs.utimesSync(path.join(temporary, "10.0.0.1.old"), 1e9, 1e9);
        fs.mkdirSync(path.join(directory, "10.0.0.3"));
        yield* registry.put("10.0.0.1", "{}\n");
        yield* registry.list;
        assert.strictEqual((yield* failure(registry.put("10.0.0.3", "{}\n"))).reason, "Storage");
        assert.deepStrictEqual(fs.readdirSync(temporary), ["10.0.0.2.new"]);
      }),
    ),
  );

  it.scopedLive.each([true, false])("has no part in hidden files, directories, links and pipes (local: %s)", (local) =>
    withDirectory(
      (registry, directory) =>
        Effect.gen(function* () {
          const at = (name: string) => path.join(directory, name);
          fs.writeFileSync(at(".hidden"), "");
          fs.mkdirSync(at("directory"));
          fs.writeFileSync(at("file"), "secret");
          fs.symlinkSync(at("file"), at("link"));
          execFileSync("mkfifo", [at("pipe")]);
          const socket = net.createServer();
          yield* Effect.acquireUseRelease(
            Effect.async<void>((resume) => void socket.listen(at("socket"), () => resume(Effect.void))),
            () =>
              Effect.gen(function* () {
                assert.deepStrictEqual(yield* names(registry), ["file"]);
                for (const name of ["directory", "link", "pipe", "socket"]) {
                  assert.isTrue(Option.isNone(yield* registry.get(name)), name);
                }
              }),
            () => Effect.async<void>((resume) => void socket.close(() => resume(Effect.void))),
          );
        }),
      local,
    ),
  );

  it.scopedLive("times out while the file system hangs, and works when it goes on", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      yield* using(S3Registry.layerDirectory({ directory, timeout: "50 millis", local: false }), (registry) =>
        Effect.gen(function* () {
          // opening a pipe waits for its other end: more of these than there are threads for file system calls
          const pipe = path.join(directory, ".pipe");
          execFileSync("mkfifo", [pipe]);
          yield* Effect.acquireUseRelease(
            Effect.sync(() => Array.from({ length: 64 }, () => fs.promises.open(pipe, "r"))),
            () =>
              Effect.gen(function* () {
                assert.strictEqual((yield* failure(registry.list)).reason, "Timeout");
                assert.strictEqual((yield* failure(registry.get("10.0.0.1"))).reason, "Timeout");
              }),
            (opening) =>
              Effect.promise(async () => {
                const otherEnd = fs.openSync(pipe, fs.constants.O_RDWR);
                for (const handle of await Promise.all(opening)) await handle.close();
                fs.closeSync(otherEnd);
              }),
          );
        }),
      );
      yield* using(S3Registry.layerDirectory({ directory }), (registry) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* names(registry), []);
        }),
      );
    }),
  );

  it.scopedLive("says that the directory is gone, and does not make it again", () =>
    withDirectory((registry, directory) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "{}\n");
        fs.rmSync(directory, { recursive: true });
        const put = yield* failure(registry.put("10.0.0.1", "{}\n"));
        const list = yield* failure(registry.list);
        assert.deepStrictEqual([put.reason, list.reason], ["Storage", "Storage"]);
        assert.include(list.message, `cannot list ${directory}/: check that the directory is there`);
        assert.isFalse(fs.existsSync(directory));
      }),
    ),
  );

  it.scopedLive("works once a directory that could not be made can be", () =>
    Effect.gen(function* () {
      const parent = yield* temporaryDirectory;
      const blocked = path.join(parent, "blocked");
      fs.writeFileSync(blocked, "");
      yield* using(S3Registry.layerDirectory({ directory: path.join(blocked, "registry") }), (registry) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* failure(registry.put("10.0.0.1", "{}\n"))).reason, "Storage");
          fs.rmSync(blocked);
          yield* registry.put("10.0.0.1", "{}\n");
          assert.deepStrictEqual(yield* names(registry), ["10.0.0.1"]);
        }),
      );
    }),
  );

  it.scopedLive("lists wholly while files come and go", () =>
    withDirectory((registry, directory) =>
      Effect.gen(function* () {
        for (let i = 0; i < 300; i++) fs.writeFileSync(path.join(directory, `stays-${i}`), "");
        let writes = 0;
        const churn = yield* Effect.fork(
          Effect.forever(
            Effect.suspend(() => {
              const name = `comes-${writes++ % 50}`;
              return Effect.zipRight(registry.put(name, "{}\n"), registry.remove(name));
            }),
          ),
        );
        for (let i = 0; i < 20; i++) {
          const listed = yield* names(registry);
          assert.strictEqual(listed.filter((name) => name.startsWith("stays-")).length, 300);
        }
        yield* Fiber.interrupt(churn);
        // comes after what it was doing
        yield* registry.remove("comes-0");
      }),
    ),
  );

  it.scopedLive("an interrupted put leaves the old or the new content, and no temporary file", () =>
    withDirectory((registry, directory) =>
      Effect.gen(function* () {
        const contents = ["a", "b"].map((letter) => letter.repeat(100_000));
        yield* registry.put("10.0.0.1", contents[0]!);
        for (let i = 0; i < 50; i++) {
          const fiber = yield* Effect.fork(registry.put("10.0.0.1", contents[i % 2]!));
          for (let turns = 0; turns < i % 10; turns++) yield* Effect.yieldNow();
          yield* Fiber.interrupt(fiber);
          assert.include(contents, Option.getOrThrow(yield* registry.get("10.0.0.1")).body);
        }
        // a put that nobody waits for any more still runs to its end, before what comes later
        yield* registry.remove("another");
        assert.deepStrictEqual(fs.readdirSync(path.join(directory, ".tmp")), []);
      }),
    ),
  );

  it.scopedLive(
    "a put that nobody waits for any more does not land after a later one, nor the first after the second",
    () =>
      Effect.gen(function* () {
        for (let i = 0; i < 20; i++) {
          yield* withDirectory((registry) =>
            Effect.gen(function* () {
              for (let time = 0; time < 2; time++) {
                const fiber = yield* Effect.fork(registry.put("10.0.0.1", "a".repeat(1_000_000)));
                for (let turn = 0; turn <= i % 10; turn++) yield* Effect.yieldNow();
                yield* Fiber.interrupt(fiber);
                yield* registry.put("10.0.0.1", "{}");
                yield* Effect.sleep(5);
                assert.strictEqual(Option.getOrThrow(yield* registry.get("10.0.0.1")).body.length, 2);
              }
            }),
          ).pipe(Effect.scoped);
        }
      }),
  );

  it.scoped("measures ages by the file system's clock, not by the host's", () =>
    Effect.gen(function* () {
      // under the TestClock the host believes that it is 1970
      const directory = yield* temporaryDirectory;
      yield* using(S3Registry.layerDirectory({ directory }), (registry) =>
        Effect.gen(function* () {
          yield* registry.put("10.0.0.1", "{}\n");
          const { entries, nowMs } = yield* registry.list;
          const got = Option.getOrThrow(yield* registry.get("10.0.0.1"));
          for (const now of [nowMs, got.nowMs]) assert.isBelow(Math.abs(now - entries[0]!.lastModifiedMs), 60_000);
        }),
      );
    }),
  );
});

describe("S3Registry.layerMemory, as a test's registry", () => {
  const withNodes = <A, E>(
    use: (store: MemoryRegistry, a: S3Registry.Service, b: S3Registry.Service) => Effect.Effect<A, E>,
  ) =>
    Effect.flatMap(MemoryRegistry.make, (store) =>
      using(S3Registry.layerMemory(store, "a"), (a) =>
        using(S3Registry.layerMemory(store, "b"), (b) => use(store, a, b)),
      ),
    );

  it.scoped("is shared: what one node puts, another lists and gets", () =>
    withNodes((_, a, b) =>
      Effect.gen(function* () {
        yield* a.put("10.0.0.1", "{}\n");
        assert.deepStrictEqual(yield* names(b), ["10.0.0.1"]);
        assert.strictEqual(Option.getOrThrow(yield* b.get("10.0.0.1")).body, "{}\n");
      }),
    ),
  );

  it.scoped("fails one node as told, without effect, while the others go on", () =>
    withNodes((store, a, b) =>
      Effect.gen(function* () {
        for (const reason of ["Unreachable", "Throttled"] as const) {
          store.link("a").failure = reason;
          assert.strictEqual((yield* failure(a.put("10.0.0.1", "1"))).reason, reason);
          assert.strictEqual((yield* failure(a.list)).reason, reason);
          yield* b.put("10.0.0.2", "2");
          assert.deepStrictEqual(yield* names(b), ["10.0.0.2"]);
        }
        store.link("a").failure = undefined;
        assert.deepStrictEqual(yield* names(a), ["10.0.0.2"]);
      }),
    ),
  );

  it.scoped("takes a slow node's time from the Clock", () =>
    withNodes((store, a, b) =>
      Effect.gen(function* () {
        store.link("a").delayMs = 5000;
        const fiber = yield* Effect.fork(a.put("10.0.0.1", "1"));
        yield* TestClock.adjust("4999 millis");
        assert.deepStrictEqual(yield* names(b), []);
        yield* TestClock.adjust("1 millis");
        yield* Fiber.join(fiber);
        assert.deepStrictEqual((yield* b.list).entries[0]?.lastModifiedMs, 5000);
      }),
    ),
  );

  it.scoped("lets a put that timed out land later, over a newer one", () =>
    withNodes((store, a, b) =>
      Effect.gen(function* () {
        store.link("a").delayMs = 40_000;
        const fiber = yield* Effect.fork(failure(a.put("10.0.0.1", "old")));
        yield* TestClock.adjust("30 seconds");
        assert.strictEqual((yield* Fiber.join(fiber)).reason, "Timeout");
        yield* b.put("10.0.0.1", "new");
        assert.strictEqual(store.contents().get("10.0.0.1"), "new");
        yield* TestClock.adjust("10 seconds");
        assert.strictEqual(store.contents().get("10.0.0.1"), "old");
      }),
    ),
  );

  it.scoped("lands in their order what was put at the same time", () =>
    withNodes((store, a) =>
      Effect.gen(function* () {
        store.link("a").delayMs = 1000;
        for (const body of ["1", "2", "3"]) yield* Effect.fork(a.put("10.0.0.1", body));
        yield* TestClock.adjust("1 second");
        assert.strictEqual(store.contents().get("10.0.0.1"), "3");
      }),
    ),
  );

  it.scoped("never lands what was sent into a black hole", () =>
    withNodes((store, a) =>
      Effect.gen(function* () {
        store.link("a").delayMs = Number.POSITIVE_INFINITY;
        const fiber = yield* Effect.fork(failure(a.put("10.0.0.1", "1")));
        yield* TestClock.adjust("30 seconds");
        assert.strictEqual((yield* Fiber.join(fiber)).reason, "Timeout");
        yield* TestClock.adjust("1 day");
        assert.strictEqual(store.contents().size, 0);
      }),
    ),
  );

  it.scoped("lists late what was put and removed, and gets it at once", () =>
    withNodes((store, a, b) =>
      Effect.gen(function* () {
        store.listLagMs = 1000;
        yield* a.put("10.0.0.1", "1");
        assert.deepStrictEqual(yield* names(b), []);
        assert.isTrue(Option.isSome(yield* b.get("10.0.0.1")));
        yield* TestClock.adjust("1 second");
        assert.deepStrictEqual(yield* names(b), ["10.0.0.1"]);
        yield* a.remove("10.0.0.1");
        assert.deepStrictEqual(yield* names(b), ["10.0.0.1"]);
        assert.isTrue(Option.isNone(yield* b.get("10.0.0.1")));
        store.listLagMs = 0;
        assert.deepStrictEqual(yield* names(b), []);
      }),
    ),
  );

  it.scoped("lists an object that vanished, until it is put again", () =>
    withNodes((store, a, b) =>
      Effect.gen(function* () {
        yield* a.put("10.0.0.1", "1");
        store.vanish("10.0.0.1");
        assert.deepStrictEqual(yield* names(b), ["10.0.0.1"]);
        assert.isTrue(Option.isNone(yield* b.get("10.0.0.1")));
        yield* a.put("10.0.0.1", "2");
        assert.isTrue(Option.isSome(yield* b.get("10.0.0.1")));
      }),
    ),
  );

  it.scoped("has a clock of its own", () =>
    withNodes((store, a) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_000_000);
        store.clockOffsetMs = -500_000;
        yield* a.put("10.0.0.1", "1");
        const { entries, nowMs } = yield* a.list;
        assert.deepStrictEqual([entries[0]?.lastModifiedMs, nowMs], [500_000, 500_000]);
      }),
    ),
  );
});
