/** What every registry does, and what every one on a bucket does, whatever the server. */
import { inspect } from "node:util";
import { assert, describe, it } from "@effect/vitest";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import * as Layer from "effect/Layer";
import * as Option from "effect/Option";
import * as Redacted from "effect/Redacted";
import type * as Scope from "effect/Scope";
import { Metrics } from "../src/Metrics.js";
import type { S3Options } from "../src/S3Client.js";
import { maxObjectBytes, type RegistryError, S3Registry } from "../src/S3Registry.js";

type RegistryLayer = Layer.Layer<S3Registry, RegistryError, Metrics>;

/** A fresh, empty registry. */
export interface Subject {
  readonly layer: RegistryLayer;
  /** Puts an object past the registry, as a stranger would. */
  readonly plant: (name: string, body: string | Buffer) => Effect.Effect<void>;
}

/** Runs `use` with a registry (and metrics) of `layer`. */
export const using = <A, E>(
  layer: RegistryLayer,
  use: (registry: S3Registry.Service, metrics: Metrics.Service) => Effect.Effect<A, E, Scope.Scope>,
): Effect.Effect<A, E | RegistryError, Scope.Scope> =>
  Effect.gen(function* () {
    return yield* use(yield* S3Registry, yield* Metrics);
  }).pipe(Effect.provide(Layer.provideMerge(layer, Metrics.layer)));

/** The names that `registry` lists, sorted. */
export const names = (registry: S3Registry.Service) =>
  Effect.map(registry.list, ({ entries }) => entries.map(({ name }) => name).toSorted());

/** The error that `operation` must end with. */
export const failure = (operation: Effect.Effect<unknown, RegistryError>): Effect.Effect<RegistryError> =>
  Effect.flatMap(Effect.either(operation), (result) =>
    Either.isLeft(result)
      ? Effect.succeed(result.left)
      : Effect.dieMessage(`succeeded: ${JSON.stringify(result.right)}`),
  );

const body = Effect.map(Option.map(({ body }: { readonly body: string }) => body));

const addresses = (count: number): ReadonlyArray<string> =>
  Array.from({ length: count }, (_, i) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`);

const oddNames = [
  "fd00::1",
  "a b+c",
  "100%41",
  "<&>\"'",
  "größe",
  "日本",
  "😀",
  "tab\tand\nline",
  "ctrl\u0001",
  "~*!()",
];

/** `tick` is how long to wait until LastModified moves on. */
export const registryContract = (
  title: string,
  subject: Effect.Effect<Subject, never, Scope.Scope>,
  tick: Duration.DurationInput,
): void => {
  describe(title, () => {
    const test = (
      sentence: string,
      use: (
        registry: S3Registry.Service,
        plant: Subject["plant"],
        metrics: Metrics.Service,
      ) => Effect.Effect<void, RegistryError, Scope.Scope>,
    ) =>
      it.scopedLive(sentence, () =>
        Effect.flatMap(subject, ({ layer, plant }) =>
          using(layer, (registry, metrics) => use(registry, plant, metrics)),
        ),
      );

    test("has nothing at first, and takes the removal of nothing", (registry) =>
      Effect.gen(function* () {
        assert.deepStrictEqual((yield* registry.list).entries, []);
        assert.isTrue(Option.isNone(yield* registry.get("10.0.0.1")));
        yield* registry.remove("10.0.0.1");
      }));

    test("gives back what was put, and shows it in the list with the same etag, time and size", (registry) =>
      Effect.gen(function* () {
        const text = '{\n\t"features": {\n\t\t"größe": 1e400\n\t}\n}\n';
        const etag = yield* registry.put("10.0.0.1", text);
        const { entries, nowMs } = yield* registry.list;
        const got = Option.getOrThrow(yield* registry.get("10.0.0.1"));
        assert.strictEqual(entries.length, 1);
        const [entry] = entries;
        assert.deepInclude(entry, { name: "10.0.0.1", etag, size: Buffer.byteLength(text) });
        assert.deepInclude(got, { body: text, etag });
        // one of the two may be in whole seconds
        assert.isBelow(Math.abs(got.lastModifiedMs - entry!.lastModifiedMs), 1001);
        for (const now of [nowMs, got.nowMs]) {
          assert.isAtLeast(now - entry!.lastModifiedMs, -1000, "the registry's clock is the one of LastModified");
          assert.isBelow(now - entry!.lastModifiedMs, 60_000);
        }
      }));

    test("shows another etag and a later time after another content was put", (registry) =>
      Effect.gen(function* () {
        const first = yield* registry.put("10.0.0.1", "{}\n");
        const before = (yield* registry.list).entries[0];
        yield* Effect.sleep(tick);
        const second = yield* registry.put("10.0.0.1", "[]\n");
        const { entries } = yield* registry.list;
        assert.notStrictEqual(second, first);
        assert.deepStrictEqual(
          entries.map(({ name, etag }) => [name, etag]),
          [["10.0.0.1", second]],
        );
        assert.isAbove(entries[0]!.lastModifiedMs, before!.lastModifiedMs);
        assert.deepStrictEqual(yield* body(registry.get("10.0.0.1")), Option.some("[]\n"));
      }));

    test("takes and gives an empty object", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "");
        assert.strictEqual((yield* registry.list).entries[0]?.size, 0);
        assert.deepStrictEqual(yield* body(registry.get("10.0.0.1")), Option.some(""));
      }));

    test("removes one object and leaves the others", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("10.0.0.1", "1");
        yield* registry.put("10.0.0.2", "2");
        yield* registry.remove("10.0.0.1");
        assert.deepStrictEqual(yield* names(registry), ["10.0.0.2"]);
        assert.isTrue(Option.isNone(yield* registry.get("10.0.0.1")));
      }));

    test("lists 2,500 objects wholly", (registry, plant) =>
      Effect.gen(function* () {
        const all = addresses(2500);
        yield* Effect.forEach(all, (name) => plant(name, "{}\n"), { concurrency: 16, discard: true });
        assert.deepStrictEqual(yield* names(registry), [...all].toSorted());
      }));

    test("puts, lists, gets and removes odd names as they are", (registry) =>
      Effect.gen(function* () {
        for (const name of oddNames) yield* registry.put(name, name);
        assert.deepStrictEqual(yield* names(registry), oddNames.toSorted());
        for (const name of oddNames) {
          assert.deepStrictEqual(yield* body(registry.get(name)), Option.some(name));
          yield* registry.remove(name);
        }
        assert.deepStrictEqual(yield* names(registry), []);
      }));

    test("refuses a name that is a path or hidden, for every operation", (registry) =>
      Effect.gen(function* () {
        yield* registry.put("a", "1");
        for (const name of ["", ".", "..", ".tmp", "../a", "a/b", "/a", "a\0", "x".repeat(256)]) {
          const operations = [registry.put(name, "2"), registry.get(name), registry.remove(name)];
          for (const operation of operations) assert.strictEqual((yield* failure(operation)).reason, "Other", name);
        }
        assert.deepStrictEqual(yield* names(registry), ["a"]);
      }));

    test("reads an object of the largest size, and refuses a larger one by name", (registry, plant) =>
      Effect.gen(function* () {
        yield* plant("10.0.0.1", "x".repeat(maxObjectBytes));
        yield* plant("10.0.0.2", "x".repeat(maxObjectBytes + 1));
        assert.strictEqual(Option.getOrThrow(yield* registry.get("10.0.0.1")).body.length, maxObjectBytes);
        const error = yield* failure(registry.get("10.0.0.2"));
        assert.deepInclude({ ...error }, { reason: "TooLarge", operation: "get" });
        assert.include(error.message, `${registry.description}10.0.0.2`);
        assert.strictEqual((yield* registry.list).entries.length, 2);
      }));

    test("refuses an object that is not UTF-8", (registry, plant) =>
      Effect.gen(function* () {
        yield* plant("10.0.0.1", Buffer.from([0x7b, 0xff, 0x7d]));
        assert.strictEqual((yield* failure(registry.get("10.0.0.1"))).reason, "InvalidAnswer");
      }));

    test("keeps one whole content when many are put at once", (registry) =>
      Effect.gen(function* () {
        const contents = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(5000));
        const etags = yield* Effect.forEach(contents, (text) => registry.put("10.0.0.1", text), {
          concurrency: "unbounded",
        });
        const { entries } = yield* registry.list;
        const at = contents.indexOf(Option.getOrThrow(yield* registry.get("10.0.0.1")).body);
        assert.isAtLeast(at, 0);
        assert.deepStrictEqual(
          entries.map(({ etag }) => etag),
          [etags[at]],
        );
      }));

    test("counts requests by operation, and errors by operation and reason", (registry, plant, metrics) =>
      Effect.gen(function* () {
        yield* plant("10.0.0.2", "x".repeat(maxObjectBytes + 1));
        yield* registry.put("10.0.0.1", "");
        yield* registry.list;
        yield* registry.list;
        yield* failure(registry.get("10.0.0.2"));
        yield* registry.remove("10.0.0.1");
        const counted = metrics.read().map(({ counter, label, value }) => `${counter} ${label} ${value}`);
        assert.sameMembers(counted, [
          "registry_requests put 1",
          "registry_requests list 2",
          "registry_requests get 1",
          "registry_requests delete 1",
          "registry_errors get:TooLarge 1",
        ]);
      }));
  });
};

/** A server with a bucket. */
export interface Server {
  readonly options: S3Options & Required<Pick<S3Options, "credentials">>;
  /** Puts an object past the registry, by its whole key. */
  readonly plant: (key: string, body: string | Buffer) => Effect.Effect<void>;
}

/** What holds for any S3 server, ours and real ones. `fresh` names a prefix that has no objects. */
export const bucketContract = (
  title: string,
  server: Effect.Effect<Server, never, Scope.Scope>,
  tick: Duration.DurationInput,
): void => {
  let made = 0;
  const fresh = () => `fresh-${process.pid}-${made++}`;

  registryContract(
    title,
    Effect.map(server, ({ options, plant }) => {
      const prefix = fresh();
      return {
        layer: S3Registry.layer({ ...options, prefix }),
        plant: (name, body) => plant(`${prefix}/${name}`, body),
      };
    }),
    tick,
  );

  describe(`${title}, as a bucket`, () => {
    it.scopedLive(
      "takes a prefix with and without a slash for the same, and sees nothing beside or further below it",
      () =>
        Effect.gen(function* () {
          const { options, plant } = yield* server;
          const prefix = fresh();
          for (const key of [`${prefix}x`, `${prefix}x/10.0.0.9`, `${prefix}/`, `${prefix}/logs/10.0.0.8`]) {
            yield* plant(key, "foreign");
          }
          yield* plant(`${prefix}/10.0.0.1`, "ours");
          for (const prefixOption of [prefix, `${prefix}/`]) {
            yield* using(S3Registry.layer({ ...options, prefix: prefixOption }), (registry) =>
              Effect.gen(function* () {
                assert.strictEqual(registry.description, `s3://${options.bucket}/${prefix}/`);
                assert.deepStrictEqual(yield* names(registry), ["10.0.0.1"]);
                assert.deepStrictEqual(yield* body(registry.get("10.0.0.1")), Option.some("ours"));
              }),
            );
          }
        }),
    );

    it.scopedLive("without a prefix has its objects at the top of the bucket", () =>
      Effect.gen(function* () {
        const { options, plant } = yield* server;
        const name = fresh();
        yield* plant(`${name}/10.0.0.1`, "foreign");
        yield* using(S3Registry.layer({ ...options, prefix: "" }), (registry) =>
          Effect.gen(function* () {
            assert.strictEqual(registry.description, `s3://${options.bucket}/`);
            yield* registry.put(name, "{}\n");
            assert.include(yield* names(registry), name);
            assert.deepStrictEqual(yield* body(registry.get(name)), Option.some("{}\n"));
            yield* registry.remove(name);
          }),
        );
      }),
    );

    const refused = (tells: string, change: (options: Server["options"]) => S3Options) =>
      Effect.gen(function* () {
        const { options } = yield* server;
        const changed = change(options);
        return yield* using(S3Registry.layer({ ...changed, prefix: fresh() }), (registry) =>
          Effect.gen(function* () {
            const operations = {
              put: registry.put("10.0.0.1", "{}\n"),
              list: registry.list,
              get: registry.get("10.0.0.1"),
              delete: registry.remove("10.0.0.1"),
            };
            const reasons: Record<string, string> = {};
            for (const [operation, effect] of Object.entries(operations)) {
              const error = yield* failure(effect);
              assertNoSecret(error, Redacted.value(options.credentials.secretAccessKey));
              assertNoSecret(error, Redacted.value(changed.credentials!.secretAccessKey));
              assert.include(error.message, tells);
              assert.include(error.message, `cannot ${operation} s3://${changed.bucket}/`);
              reasons[operation] = error.reason;
            }
            return reasons;
          }),
        );
      });

    it.scopedLive("with a wrong secret is denied, and does not tell the secret", () =>
      Effect.gen(function* () {
        const reasons = yield* refused("SignatureDoesNotMatch", (options) => ({
          ...options,
          credentials: { ...options.credentials, secretAccessKey: Redacted.make("wrong-secret-value") },
        }));
        assert.deepStrictEqual(reasons, { put: "Denied", list: "Denied", get: "Denied", delete: "Denied" });
      }),
    );

    it.scopedLive("with an unknown access key is denied", () =>
      Effect.gen(function* () {
        const reasons = yield* refused("InvalidAccessKeyId", (options) => ({
          ...options,
          credentials: { ...options.credentials, accessKeyId: "AKUNKNOWN" },
        }));
        assert.deepStrictEqual(reasons, { put: "Denied", list: "Denied", get: "Denied", delete: "Denied" });
      }),
    );

    it.scopedLive("says that the bucket is missing, which is not the same as an empty one", () =>
      Effect.gen(function* () {
        const reasons = yield* refused("NoSuchBucket", (options) => ({ ...options, bucket: "no-such-bucket" }));
        assert.deepStrictEqual(reasons, { put: "NoBucket", list: "NoBucket", get: "NoBucket", delete: "NoBucket" });
      }),
    );
  });
};

/** Nothing that a log line or a crash report could print of `error` holds `secret`. */
export const assertNoSecret = (error: RegistryError, secret: string): void => {
  const printed = [
    error.message,
    String(error),
    error.stack,
    JSON.stringify(error),
    inspect(error, { depth: 20, showHidden: true }),
  ];
  for (const text of printed) assert.notInclude(text ?? "", secret);
};
