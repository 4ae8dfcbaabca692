import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { regionOf } from "../src/Cli/Dump.js";
import { FakeS3 } from "./FakeS3.js";
import { ensureBuilt, run } from "./Program.js";

const directory = mkdtempSync(join(tmpdir(), "nameq-dump-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(directory, { recursive: true }));

const bodies: Readonly<Record<string, string>> = {
  "10.0.0.1": '{\n\t"features": {\n\t\t"web": {\n\t\t\t"port": 80.0\n\t\t},\n\t\t"a": 12345678901234567890\n\t}\n}\n',
  "10.0.0.2": '{\n\t"features": {\n\t\t"db": true\n\t},\n\t"time_ns": 1700000000000000000\n}\n',
  "fd00::1": "{}\n",
};
const printed = (stdout: string) => ({ status: 0, signal: null, stdout, stderr: "" });

/** Runs `test` with a server that has the objects, and a way to dump it. */
const withS3 = (
  test: (
    s3: FakeS3,
    dump: (args: ReadonlyArray<string>, environment?: Readonly<Record<string, string>>) => ReturnType<typeof run>,
  ) => Promise<void>,
): Promise<void> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const s3 = yield* FakeS3.make;
        for (const [host, body] of Object.entries(bodies)) s3.put(`fleet/${host}`, body);
        const dump = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
          run(["dump", ...args], {
            environment: {
              AWS_ACCESS_KEY: s3.accessKeyId,
              AWS_SECRET_KEY: s3.secretAccessKey,
              NAMEQ_S3_ENDPOINT: s3.endpoint,
              ...environment,
            },
          });
        yield* Effect.promise(() => test(s3, dump));
      }),
    ),
  );

describe("nameq dump", () => {
  it("prints the addresses of all nodes, or of those that have one of the features", () =>
    withS3(async (s3, dump) => {
      assert.deepStrictEqual(await dump([`${s3.bucket}/fleet`]), printed("10.0.0.1\n10.0.0.2\nfd00::1\n"));
      assert.isFalse(s3.requests.some(({ method, key }) => method !== "GET" || key !== ""));
      assert.deepStrictEqual(await dump([`s3://${s3.bucket}/fleet/`, "db", "none"]), printed("10.0.0.2\n"));
      assert.deepStrictEqual(await dump([`${s3.bucket}/fleet`, "none"]), printed(""));
      assert.deepStrictEqual(await dump([`${s3.bucket}/elsewhere`]), printed(""));
    }));

  it("prints the exact features with --json", () =>
    withS3(async (s3, dump) => {
      assert.deepStrictEqual(
        await dump(["--json", `${s3.bucket}/fleet`]),
        printed(
          '{"host":"10.0.0.1","features":{"a":12345678901234567890,"web":{"port":80.0}}}\n{"host":"10.0.0.2","features":{"db":true}}\n{"host":"fd00::1","features":{}}\n',
        ),
      );
    }));

  it("lets no feature reach the terminal as it is, and keeps what it means", () =>
    withS3(async (s3, dump) => {
      s3.put("odd/10.0.0.1", '{"features":{"a":"\u009b2J"}}');
      assert.deepStrictEqual(
        await dump(["--json", `${s3.bucket}/odd`]),
        printed('{"host":"10.0.0.1","features":{"a":"\\u009b2J"}}\n'),
      );
    }));

  it("prints one of them with --single", () =>
    withS3(async (s3, dump) => {
      const { status, stdout } = await dump(["--single", `${s3.bucket}/fleet`]);
      assert.strictEqual(status, 0);
      assert.match(stdout, /^(?:10\.0\.0\.1|10\.0\.0\.2|fd00::1)\n$/);
      assert.deepStrictEqual(await dump(["--single", `${s3.bucket}/fleet`, "none"]), printed(""));
    }));

  it("leaves out what is older than 15 minutes by the server's clock, and deletes nothing", () =>
    withS3(async (s3, dump) => {
      for (const [host, ageMs] of [
        ["10.0.0.1", 14 * 60_000],
        ["10.0.0.2", 16 * 60_000],
      ] as const) {
        const key = `fleet/${host}`;
        s3.objects.set(key, { ...s3.objects.get(key)!, lastModifiedMs: Date.now() - ageMs });
      }
      assert.deepStrictEqual(await dump([`${s3.bucket}/fleet`]), printed("10.0.0.1\nfd00::1\n"));
      assert.isTrue(s3.objects.has("fleet/10.0.0.2"));
    }));

  it("warns of objects that are no node's, and leaves them out", () =>
    withS3(async (s3, dump) => {
      s3.put("fleet/README", "hello");
      s3.put("fleet/127.0.0.1", "{}");
      s3.put("fleet/10.0.0.3", "not JSON");
      s3.put("fleet/10.0.0.4", Buffer.from([0xff]));
      const { status, stderr, stdout } = await dump(["--json", `${s3.bucket}/fleet`]);
      assert.strictEqual(status, 0);
      assert.lengthOf(stdout.trimEnd().split("\n"), 3);
      assert.match(stderr, /nameq dump: s3:\/\/fake-bucket\/fleet\/ has 2 objects that are no node's: left out\n/);
      assert.match(stderr, /nameq dump: s3:\/\/fake-bucket\/fleet\/10\.0\.0\.3 is no node's object: left out\n/);
      assert.match(stderr, /nameq dump: cannot get s3:\/\/fake-bucket\/fleet\/10\.0\.0\.4: .*UTF-8/);
    }));

  it("reads the credentials from a file", () =>
    withS3(async (s3, dump) => {
      const file = join(directory, "credentials");
      writeFileSync(file, `${s3.accessKeyId} ${s3.secretAccessKey}\n`);
      const environment = { AWS_ACCESS_KEY: "", AWS_SECRET_KEY: "" };
      assert.include(await dump(["-s3credfile", file, "-s3region", "us-east-1", `${s3.bucket}/fleet`], environment), {
        status: 0,
        stdout: "10.0.0.1\n10.0.0.2\nfd00::1\n",
      });
    }));

  it("fails when the registry cannot be read, and says what to do, but no secret", () =>
    withS3(async (s3, dump) => {
      for (const [args, environment, says] of [
        [["no-such-bucket/fleet"], {}, "there is no such bucket"],
        [[`${s3.bucket}/fleet`], { AWS_SECRET_KEY: "wrong-secret" }, "access is denied"],
      ] as const) {
        const { status, stderr, stdout } = await dump(args, environment);
        assert.deepStrictEqual({ status, stdout }, { status: 1, stdout: "" });
        assert.match(stderr, /^nameq dump: cannot list s3:\/\/[^\n]*\n$/);
        assert.include(stderr, says);
        assert.notMatch(stderr, /a-secret|wrong-secret/);
      }
    }));

  it("finds the region in the name of a server of AWS", () => {
    assert.strictEqual(regionOf("s3-eu-west-1.amazonaws.com"), "eu-west-1");
    assert.strictEqual(regionOf("s3.us-gov-west-1.amazonaws.com"), "us-gov-west-1");
    assert.strictEqual(regionOf("s3.dualstack.ap-southeast-2.amazonaws.com.cn"), "ap-southeast-2");
    assert.isUndefined(regionOf("s3.amazonaws.com"));
    assert.isUndefined(regionOf("s3.example.net"));
  });

  it("reads a directory in the bucket's place", async () => {
    const registry = join(directory, "registry");
    mkdirSync(registry);
    for (const [host, body] of Object.entries(bodies)) writeFileSync(join(registry, host), body);
    writeFileSync(join(registry, "10.0.0.9"), "{}\n");
    const old = Date.now() / 1000 - 16 * 60;
    utimesSync(join(registry, "10.0.0.9"), old, old);
    const { stdout } = await run(["dump", "--registry-dir", registry]);
    assert.sameMembers(stdout.trimEnd().split("\n"), Object.keys(bodies));
    assert.deepStrictEqual(await run(["dump", "--registry-dir", registry, "web"]), printed("10.0.0.1\n"));
  });

  it("says what is wrong with its command line, with status 2", async () => {
    for (const [args, says] of [
      [[], "BUCKET/PREFIX is needed"],
      [["/x"], '"" is no bucket\'s name'],
      [["bucket/x"], "--s3-region NAME is needed"],
      [["--s3host", "s3.example.net", "--s3-endpoint", "https://s3.example.net", "bucket/x"], "only one of them"],
      [["--s3-endpoint", "x", "bucket"], '--s3-endpoint: "x" is no URL'],
      [["--s3-region", "eu-west-1", "bucket/x", "a/b"], '"a/b" is no feature\'s name'],
      [["--registry-dir", directory, "bucket/x"], '"bucket/x" is no feature\'s name'],
    ] as const) {
      const { status, stderr, stdout } = await run(["dump", ...args]);
      assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" }, args.join(" "));
      assert.include(stderr, says);
    }
  });
});
