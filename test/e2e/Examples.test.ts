import { afterAll, assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Lines } from "../Lines.js";
import * as TreeWriter from "./TreeWriter.js";

const directory = mkdtempSync(join(tmpdir(), "nameq-examples-"));
afterAll(() => rmSync(directory, { recursive: true }));

const file = (name: string): string => fileURLToPath(new URL(`../examples/${name}`, import.meta.url));
const has = (program: string): boolean => spawnSync(program, ["--version"]).error === undefined;

/** How an example is started; builds it when it must be built. */
const examples: ReadonlyArray<readonly [name: string, isThere: boolean, command: () => ReadonlyArray<string>]> = [
  ["follow.sh", has("inotifywait"), () => ["sh", file("follow.sh")]],
  ["follow.py", has("python3"), () => ["python3", file("follow.py")]],
  [
    "follow.c",
    has("cc"),
    () => {
      const program = join(directory, "follow");
      const { stderr } = spawnSync("cc", ["-Wall", "-Wextra", "-o", program, file("follow.c")], { encoding: "utf8" });
      assert.strictEqual(stderr, "");
      return [program];
    },
  ],
];

for (const [name, isThere, command] of examples) {
  describe.skipIf(!isThere)(`the example ${name}`, () => {
    it.scopedLive("shows what is there, and the last state of every host through all changes", () =>
      Effect.gen(function* () {
        const { stateDir, update } = yield* TreeWriter.make;
        yield* update("10.0.0.1", { web: '{"port": [80, "a b"]}', db: "true" });
        const [program = "", ...args] = command();
        const child = yield* Effect.acquireRelease(
          // a group of its own: a shell's children end with it
          Effect.sync(() =>
            spawn(program, [...args, stateDir], { detached: true, stdio: ["ignore", "pipe", "inherit"] }),
          ),
          ({ pid }) => Effect.sync(() => pid !== undefined && process.kill(-pid)),
        );
        const lines = new Lines(child.stdout);
        const last = (feature: string, host: string): string | undefined =>
          lines.all.findLast((line) => line.startsWith(`${feature}\t${host}\t`))?.split("\t")[2];
        const until = (feature: string, host: string, value: string) =>
          Effect.promise(async () => {
            for (let n = lines.all.length + 1; last(feature, host)?.replaceAll(" ", "") !== value; n++)
              await lines.first(n);
          });
        yield* until("web", "10.0.0.1", '{"port":[80,"ab"]}');
        yield* until("db", "10.0.0.1", "true");
        yield* update("10.0.0.1", { web: "2" });
        yield* until("web", "10.0.0.1", "2");
        yield* until("db", "10.0.0.1", "");
        yield* update("fd00::1", Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`new-${i}`, String(i)])));
        yield* update("127.0.0.1", { end: "1" });
        yield* until("end", "127.0.0.1", "1");
        for (let i = 0; i < 50; i++) yield* until(`new-${i}`, "fd00::1", String(i));
        yield* update("fd00::1", { end: "2" });
        for (let i = 0; i < 50; i++) yield* until(`new-${i}`, "fd00::1", "");
        yield* until("end", "fd00::1", "2");
      }),
    );
  });
}
