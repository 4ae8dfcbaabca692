import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FeatureValue, type FeatureName } from "../src/Feature.js";
import * as FeatureFile from "../src/FeatureFile.js";

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "nameq-file-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true })),
);

const web = "web" as FeatureName;
const value = FeatureValue('{"port":12345678901234567890}');
const mode = (path: string) => (fs.statSync(path).mode & 0o7777).toString(8);

/** The process has one umask: it is put back in the same turn. */
const underUmask = <A, E>(mask: number, effect: Effect.Effect<A, E>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => process.umask(mask)),
    () => effect,
    (before) => Effect.sync(() => process.umask(before)),
  );

describe("a feature file", () => {
  it.scoped("is set with indented JSON and a newline, in a directory that is made with its parents", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "etc", "features");
      yield* FeatureFile.set(directory, web, value);
      assert.strictEqual(fs.readFileSync(join(directory, "web"), "utf8"), '{\n\t"port": 12345678901234567890\n}\n');
    }),
  );

  for (const mask of [0o000, 0o022, 0o077]) {
    it.scoped(`has mode 644 in a directory of mode 755 under the umask ${mask.toString(8)}`, () =>
      Effect.gen(function* () {
        const directory = join(yield* temporaryDirectory, "features");
        yield* underUmask(mask, FeatureFile.set(directory, web, value));
        assert.strictEqual(mode(join(directory, "web")), "644");
        assert.strictEqual(mode(directory), "755");
        assert.strictEqual(mode(join(directory, ".tmp")), "700");
      }),
    );
  }

  it.scoped("is replaced by another file, never written in place, and nothing is left beside it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      yield* FeatureFile.set(directory, web, FeatureValue("1"));
      const reader = fs.openSync(join(directory, "web"), "r");
      yield* FeatureFile.set(directory, web, FeatureValue("22"));
      assert.strictEqual(fs.readFileSync(reader, "utf8"), "1\n");
      fs.closeSync(reader);
      assert.strictEqual(fs.readFileSync(join(directory, "web"), "utf8"), "22\n");
      assert.deepStrictEqual(fs.readdirSync(join(directory, ".tmp")), []);
    }),
  );

  it.scoped("leaves alone what another writer has under way", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const temporaries = join(directory, ".tmp");
      fs.mkdirSync(temporaries);
      const others = Array.from({ length: 200 }, (_, n) => `${process.pid}-${n}`);
      for (const name of others) fs.writeFileSync(join(temporaries, name), "half");
      yield* FeatureFile.set(directory, web, FeatureValue("1"));
      assert.strictEqual(fs.readFileSync(join(directory, "web"), "utf8"), "1\n");
      assert.deepStrictEqual(fs.readdirSync(temporaries).toSorted(), others.toSorted());
      assert.isTrue(others.every((name) => fs.readFileSync(join(temporaries, name), "utf8") === "half"));
    }),
  );

  it.scoped("may have the longest name that there is", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      const name = "n".repeat(255) as FeatureName;
      yield* FeatureFile.set(directory, name, FeatureValue("1"));
      assert.isTrue(fs.existsSync(join(directory, name)));
    }),
  );

  it.scoped("is removed, and removing what is absent is fine", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      yield* FeatureFile.set(directory, web, value);
      yield* FeatureFile.remove(directory, web);
      assert.isFalse(fs.existsSync(join(directory, "web")));
      yield* FeatureFile.remove(directory, web);
      yield* FeatureFile.remove(join(directory, "no", "such"), web);
    }),
  );

  it.scoped("that cannot be set is an error with its path and what to do, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      fs.mkdirSync(join(directory, "web"));
      const error = yield* Effect.flip(FeatureFile.set(directory, web, value));
      assert.strictEqual(error._tag, "FeatureFileError");
      assert.strictEqual(error.operation, "set");
      assert.strictEqual(error.path, join(directory, "web"));
      assert.include(error.message, "a directory has the feature's name: move it away");
      assert.deepStrictEqual(fs.readdirSync(join(directory, ".tmp")), []);
    }),
  );

  it.scoped("that cannot be removed is an error too", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory;
      fs.mkdirSync(join(directory, "web"));
      const error = yield* Effect.flip(FeatureFile.remove(directory, web));
      assert.strictEqual(error.operation, "remove");
      assert.include(error.message, join(directory, "web"));
      assert.include(error.message, "move it away");
    }),
  );

  it.scoped("in a directory that is a file is an error that says so", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "file");
      fs.writeFileSync(file, "");
      for (const directory of [file, join(file, "below")]) {
        const error = yield* Effect.flip(FeatureFile.set(directory, web, value));
        assert.include(error.message, "a part of the path is a file");
      }
    }),
  );

  it("that may not be written says who may, or which option names another directory", () => {
    for (const code of ["EACCES", "EPERM", "EROFS"]) {
      const cause = Object.assign(new Error(`${code}: no`), { code });
      const error = new FeatureFile.FeatureFileError({ operation: "set", path: "/etc/nameq/features/web", cause });
      assert.match(error.message, /^cannot write the feature file \/etc\/nameq\/features\/web \(E/);
      assert.include(error.message, "--feature-dir");
    }
  });
});
