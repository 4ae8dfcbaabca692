import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { Lines } from "../Lines.js";
import * as TreeWriter from "./TreeWriter.js";

/** Debian's inotify-tools. */
const isThere = spawnSync("inotifywait", ["--help"]).error === undefined;

/** Everything but opens, reads and closes after reading. */
const kinds = ["create", "modify", "attrib", "close_write", "move", "move_self", "delete", "delete_self"];

/** A tree with its writer, under inotifywait. */
const watched: Effect.Effect<
  TreeWriter.TreeWriter & {
    /** `EVENT PLACE` of all that happened in `features` and below since the last call. */
    readonly events: Effect.Effect<ReadonlyArray<string>>;
  },
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const writer = yield* TreeWriter.make;
  yield* writer.update("10.9.9.9", { mark: "0" });
  const features = join(writer.stateDir, "features");
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("inotifywait", ["-m", "-r", "--format", "%e %w%f", ...kinds.flatMap((kind) => ["-e", kind]), features]),
    ),
    (process) => Effect.sync(() => process.kill()),
  );
  const said = new Lines(child.stderr);
  yield* Effect.promise(async () => {
    for (let n = 1; !said.all.includes("Watches established."); n++) await said.first(n);
  });
  const lines = new Lines(child.stdout);
  let taken = 0;
  let marks = 0;
  return {
    ...writer,
    events: Effect.gen(function* () {
      // comes after all that was before it
      yield* writer.update("10.9.9.9", { mark: String(++marks) });
      const mark = `MOVED_TO ${features}/mark/10.9.9.9`;
      yield* Effect.promise(async () => {
        for (let n = taken + 1; !lines.all.includes(mark, taken); n++) await lines.first(n);
      });
      const until = lines.all.indexOf(mark, taken);
      const fresh = lines.all.slice(taken, until);
      taken = until + 1;
      return fresh.map((line) => line.replace(`${features}/`, "").replace(/\/$/, ""));
    }),
  };
});

describe.skipIf(!isThere)("what inotify tells of the tree", () => {
  it.scopedLive("is one event a change: a directory made, a file moved in, a file deleted", () =>
    Effect.gen(function* () {
      const { events, update } = yield* watched;
      const steps: ReadonlyArray<
        readonly [host: string, features: Record<string, string>, told: ReadonlyArray<string>]
      > = [
        ["10.0.0.1", { web: "1" }, ["CREATE,ISDIR web", "MOVED_TO web/10.0.0.1"]],
        ["10.0.0.1", { web: '{"a":[1,2]}' }, ["MOVED_TO web/10.0.0.1"]],
        ["10.0.0.1", { web: '{"a":[1,2]}' }, []],
        ["fd00::1", { web: "1" }, ["MOVED_TO web/fd00::1"]],
        ["10.0.0.1", {}, ["DELETE web/10.0.0.1"]],
        // the directory stays
        ["fd00::1", {}, ["DELETE web/fd00::1"]],
        ["127.0.0.1", { web: "2" }, ["MOVED_TO web/127.0.0.1"]],
      ];
      for (const [host, features, told] of steps) {
        yield* update(host, features);
        assert.deepStrictEqual(yield* events, told);
      }
    }),
  );

  it.scopedLive("gives a new directory so long before its first file that a watch on it sees that file", () =>
    Effect.gen(function* () {
      const { events, update } = yield* watched;
      const names = Array.from({ length: 100 }, (_, i) => `feature-${i}`);
      for (const name of names) yield* update("10.0.0.1", { [name]: "1" });
      const told = new Set(yield* events);
      const seen = names.filter((name) => told.has(`CREATE,ISDIR ${name}`) && told.has(`MOVED_TO ${name}/10.0.0.1`));
      // all of them when the machine is not busy; of a file that is moved in at once, hardly any
      assert.isAtLeast(seen.length, 90);
    }),
  );
});
