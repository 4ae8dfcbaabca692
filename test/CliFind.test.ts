import { afterEach, assert, beforeAll, describe, it } from "@effect/vitest";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { ensureBuilt, outcome, program, run, start } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

beforeAll(ensureBuilt, 60_000);

const states: Array<StateDirectory> = [];
const state = (): StateDirectory => {
  const made = new StateDirectory();
  states.push(made);
  return made;
};
afterEach(() => {
  for (const made of states.splice(0)) made.dispose();
});

const find = (tree: StateDirectory, ...args: ReadonlyArray<string>) =>
  run(["find-features", "-statedir", tree.path, ...args]);
const printed = (stdout: string) => ({ status: 0, signal: null, stdout, stderr: "" });

describe("nameq find-features", () => {
  it("prints the hosts that have one of the features, once each, the newest change last", async () => {
    const tree = state();
    tree.set("db/10.0.0.3", "1", 1_000);
    tree.set("web/10.0.0.1", "1", 4_000);
    tree.set("web/10.0.0.2", '{"a": 1.0}', 3_000);
    tree.set("db/10.0.0.1", "1", 2_000);
    tree.set("other/10.0.0.9", "1", 9_000);
    assert.deepStrictEqual(await find(tree, "web", "db"), printed("10.0.0.3\n10.0.0.2\n10.0.0.1\n"));
    assert.deepStrictEqual(await find(tree, "-timeout", "0", "db"), printed("10.0.0.3\n10.0.0.1\n"));
    assert.deepStrictEqual(await find(tree, "-single", "web", "db"), printed("10.0.0.1\n"));
    assert.deepStrictEqual(await find(tree, "-single=false", "-timeout=1m30s", "web"), printed("10.0.0.2\n10.0.0.1\n"));
    assert.deepStrictEqual(
      await find(tree, "--json", "web"),
      printed('{"feature":"web","host":"10.0.0.2","value":{"a":1.0}}\n{"feature":"web","host":"10.0.0.1","value":1}\n'),
    );
    tree.set("odd/10.0.0.2", '"\u009b2J"', 1_000);
    assert.deepStrictEqual(
      await find(tree, "--json", "odd"),
      printed('{"feature":"odd","host":"10.0.0.2","value":"\\u009b2J"}\n'),
    );
    assert.deepStrictEqual(
      await find(tree, "--json", "--single", "web", "db"),
      printed('{"feature":"web","host":"10.0.0.1","value":1}\n'),
    );
  });

  it("prints nothing, with status 0, when there is none in time", async () => {
    const tree = state();
    tree.set("other/10.0.0.9", "1");
    for (const timeout of ["0", "0s", "1ms", "300ms"]) {
      assert.deepStrictEqual(await find(tree, "-timeout", timeout, "web"), printed(""));
    }
  });

  for (const timeout of [[], ["-timeout", "infinite"], ["-timeout", "-1s"], ["-timeout", "1h"]]) {
    it(`waits for the first host with ${timeout.join(" ") || "no time-out"}`, async () => {
      const tree = state();
      const child = start(["find-features", "-statedir", tree.path, ...timeout, "web"]);
      const result = outcome(child);
      await sleep(700);
      assert.isNull(child.exitCode);
      tree.set("other/10.0.0.9", "1");
      tree.set("web/10.0.0.1", "1");
      assert.deepStrictEqual(await result, printed("10.0.0.1\n"));
    });
  }

  it("waits for a tree that is not there, and says so", async () => {
    const { status, stderr, stdout } = await run([
      "find-features",
      "-statedir",
      "/nonexistent",
      "-timeout",
      "200ms",
      "a",
    ]);
    assert.deepStrictEqual({ status, stdout }, { status: 0, stdout: "" });
    assert.match(stderr, /^nameq find-features: \/nonexistent\/features is not there: start the daemon .*\n$/);
  });

  it.skipIf(spawnSync("strace", ["-V"]).error !== undefined)(
    "looks without watching when the timeout is 0: no inotify, no thread",
    () => {
      const tree = state();
      tree.set("web/10.0.0.1", "1");
      tree.set("unasked/10.0.0.1", "1");
      const { stderr } = spawnSync(
        "strace",
        [
          "-f",
          "-e",
          "trace=openat,inotify_init1",
          process.execPath,
          program,
          "find-features",
          "-timeout",
          "0",
          "-statedir",
          tree.path,
          "web",
        ],
        { encoding: "utf8", env: { PATH: process.env["PATH"] ?? "" } },
      );
      assert.include(stderr, "features/web/10.0.0.1");
      assert.notInclude(stderr, "features/unasked");
      assert.notInclude(stderr, "inotify_init1");
    },
  );

  it("says what is wrong with its command line, with status 2", async () => {
    for (const [args, says] of [
      [[], "NAME is needed"],
      [["a/b"], '"a/b" is no feature\'s name; use'],
      [["-timeout", "5", "a"], '"5" is no duration; give one such as 500ms'],
      [["-timeout"], "--timeout needs a value: DURATION"],
    ] as const) {
      const { status, stderr, stdout } = await run(["find-features", ...args]);
      assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" });
      assert.include(stderr, says);
    }
  });

  it("ends with status 130 when it is interrupted while it waits", async () => {
    const child = start(["find-features", "-statedir", "/nonexistent", "web"]);
    const result = outcome(child);
    // it warns of the tree when it has begun to wait
    await once(child.stderr, "data");
    child.kill("SIGINT");
    assert.include(await result, { status: 130, stdout: "" });
  });
});
