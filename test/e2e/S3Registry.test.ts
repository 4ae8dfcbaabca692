/** The contract of a bucket against a real S3 server, and what only a real server can do. */
import { execFile, execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  CreateBucketCommand,
  PutBucketLifecycleConfigurationCommand,
  PutBucketPolicyCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import * as Redacted from "effect/Redacted";
import { S3Registry } from "../../src/S3Registry.js";
import * as Program from "../Program.js";
import { assertNoSecret, bucketContract, failure, names, type Server, using } from "../S3RegistryContract.js";

const script = fileURLToPath(new URL("start-real-s3.sh", import.meta.url));
// 50 ports of its own, below those that the kernel gives out
const port = 20_000 + (process.pid % 240) * 50;
const bucket = "nameq-e2e";

let directory = "";
let env: Readonly<Record<string, string>> = {};
let client: S3Client;

beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "nameq-s3-"));
  // not in one go: it may have to install the server first
  const { stdout: printed } = await promisify(execFile)(script, ["start", directory, `${port}`]);
  env = Object.fromEntries(printed.split("\n").map((line) => [line.split("=", 1)[0]!, line.replace(/^[^=]*=/, "")]));
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true";
  client = new S3Client({
    region: env["S3_REGION"]!,
    endpoint: env["S3_ENDPOINT"]!,
    forcePathStyle: true,
    credentials: { accessKeyId: env["S3_ACCESS_KEY_ID"]!, secretAccessKey: env["S3_SECRET_ACCESS_KEY"]! },
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
});

afterAll(() => {
  client?.destroy();
  execFileSync(script, ["destroy", directory]);
});

const server: Effect.Effect<Server> = Effect.sync(() => ({
  options: {
    region: env["S3_REGION"]!,
    bucket,
    endpoint: env["S3_ENDPOINT"]!,
    pathStyle: true,
    credentials: {
      accessKeyId: env["S3_ACCESS_KEY_ID"]!,
      secretAccessKey: Redacted.make(env["S3_SECRET_ACCESS_KEY"]!),
    },
    requestTimeout: "5 seconds",
  },
  plant: (Key, body) =>
    Effect.promise(() => client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: Buffer.from(body) }))),
}));

bucketContract("S3Registry.layer on a real server", server, "1100 millis");

describe("the README's settings of a bucket", () => {
  const readme = fs.readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [policy, lifeCycle] = [...readme.matchAll(/```json\n([\s\S]*?)```/g)].map(([, text]) => JSON.parse(text!));
  const credentials = { accessKeyId: "NODE", secretAccessKey: Redacted.make("a-node-s-own-secret") };
  /** A registry of a user who may do only what the policy says. */
  const registry = <A, E>(prefix: string, use: (registry: S3Registry.Service) => Effect.Effect<A, E>) =>
    Effect.flatMap(server, ({ options }) =>
      using(S3Registry.layer({ ...options, bucket: "fleet", prefix, credentials, attempts: 1 }), use),
    );

  beforeAll(async () => {
    const { accessKeyId, secretAccessKey } = credentials;
    const keys = [`--access-key=${accessKeyId}`, `--secret=${Redacted.value(secretAccessKey)}`];
    const user = ["user", "create", "--uid=node", "--display-name=node", ...keys];
    execFileSync("radosgw-admin", ["-c", env["S3_CONF"]!, ...user], { stdio: ["ignore", "ignore", "pipe"] });
    await client.send(new CreateBucketCommand({ Bucket: "fleet" }));
    const Statement = policy.Statement.map((each: object) => ({
      ...each,
      Principal: { AWS: "arn:aws:iam:::user/node" },
    }));
    await client.send(
      new PutBucketPolicyCommand({ Bucket: "fleet", Policy: JSON.stringify({ ...policy, Statement }) }),
    );
  });

  it.scopedLive("let a node do its work below its prefix", () =>
    registry("prod", (prod) =>
      Effect.gen(function* () {
        yield* prod.put("10.0.0.1", "{}\n");
        assert.deepStrictEqual(yield* names(prod), ["10.0.0.1"]);
        assert.strictEqual(Option.getOrThrow(yield* prod.get("10.0.0.1")).body, "{}\n");
        yield* prod.remove("10.0.0.1");
        assert.deepStrictEqual(yield* names(prod), []);
        // as the README says: who may list a prefix alone is not told that an object is gone
        assert.strictEqual((yield* failure(prod.get("10.0.0.1"))).reason, "Denied");
      }),
    ),
  );

  it.scopedLive("let it do nothing elsewhere", () =>
    Effect.forEach(["other", "", "prod/deeper"], (prefix) =>
      registry(prefix, (elsewhere) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* failure(elsewhere.list)).reason, "Denied", prefix);
          // the policy is of a prefix, and so has all that begins with it
          if (prefix.startsWith("prod/")) return;
          for (const operation of [elsewhere.put("10.0.0.1", "{}\n"), elsewhere.get("10.0.0.1")]) {
            assert.strictEqual((yield* failure(operation)).reason, "Denied", prefix);
          }
        }),
      ),
    ),
  );

  it("are enough for nameq doctor", async () => {
    fs.writeFileSync(path.join(directory, "credentials"), `NODE ${Redacted.value(credentials.secretAccessKey)}`);
    const bucket = ["--s3-bucket", "fleet", "--s3-prefix", "prod", "--s3-region", env["S3_REGION"]!];
    const where = ["--s3-endpoint", env["S3_ENDPOINT"]!, "--s3-path-style"];
    const { stderr, stdout } = await Program.run([
      "doctor",
      "--json",
      ...bucket,
      ...where,
      "--s3-cred-file",
      path.join(directory, "credentials"),
    ]);
    const found = stdout.split("\n").filter((line) => /"check":"(?:s3|registry|bucket)/.test(line));
    assert.isAbove(found.length, 0, stdout + stderr);
    assert.deepStrictEqual(
      found.filter((line) => line.includes('"level":"fail"')),
      [],
    );
  });

  it("has a life-cycle rule that a server takes", async () => {
    await client.send(
      new PutBucketLifecycleConfigurationCommand({ Bucket: "fleet", LifecycleConfiguration: lifeCycle }),
    );
  });
});

describe("S3Registry.layer, when the real server fails", () => {
  const withRegistry = <A, E>(prefix: string, use: (registry: S3Registry.Service) => Effect.Effect<A, E>) =>
    Effect.flatMap(server, ({ options }) =>
      using(S3Registry.layer({ ...options, prefix, requestTimeout: "1 second", attempts: 1 }), use),
    );
  const signal = (name: "SIGSTOP" | "SIGCONT") => Effect.sync(() => process.kill(Number(env["S3_PID_RGW"]), name));
  const user = (verb: "suspend" | "enable") =>
    Effect.sync(() => execFileSync("radosgw-admin", ["-c", env["S3_CONF"]!, "user", verb, "--uid=test"]));

  it.scopedLive("times out while the server stands still, and works when it goes on", () =>
    withRegistry("stopped", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "before");
        yield* Effect.acquireUseRelease(
          signal("SIGSTOP"),
          () =>
            Effect.gen(function* () {
              const operations = [registry.list, registry.get("10.0.0.1"), registry.remove("10.0.0.2")];
              for (const operation of operations) assert.strictEqual((yield* failure(operation)).reason, "Timeout");
            }),
          () => signal("SIGCONT"),
        );
        yield* registry.put("10.0.0.3", "after");
        assert.deepStrictEqual(yield* names(registry), ["10.0.0.1", "10.0.0.3"]);
        assert.strictEqual(Option.getOrThrow(yield* registry.get("10.0.0.1")).body, "before");
      }),
    ),
  );

  it.scopedLive("is denied while the credentials are revoked", () =>
    withRegistry("revoked", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "{}\n");
        yield* Effect.acquireUseRelease(
          user("suspend"),
          () =>
            Effect.gen(function* () {
              const error = yield* failure(registry.list);
              assert.strictEqual(error.reason, "Denied");
              assertNoSecret(error, env["S3_SECRET_ACCESS_KEY"]!);
            }),
          () => user("enable"),
        );
        assert.deepStrictEqual(yield* names(registry), ["10.0.0.1"]);
      }),
    ),
  );

  it.scopedLive("is out of reach when the server has ended", () =>
    withRegistry("ended", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "{}\n");
        execFileSync(script, ["stop", directory]);
        assert.strictEqual((yield* failure(registry.list)).reason, "Unreachable");
        assert.strictEqual((yield* failure(registry.put("10.0.0.1", "{}\n"))).reason, "Unreachable");
      }),
    ),
  );
});
