import { afterEach, assert, beforeAll, describe, it } from "@effect/vitest";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tell } from "../src/Cli/Exec.js";
import type { Address } from "../src/Address.js";
import { type FeatureName, FeatureValue } from "../src/Feature.js";
import { Lines } from "./Lines.js";
import { ensureBuilt, outcome, run, start } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

beforeAll(ensureBuilt, 60_000);

const states: Array<StateDirectory> = [];
const children: Array<{ kill: (signal: NodeJS.Signals) => boolean }> = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const made of states.splice(0)) made.dispose();
});

const exec = (offers: Readonly<Record<string, string>>, options: ReadonlyArray<string>, script: string) => {
  const tree = new StateDirectory(offers);
  states.push(tree);
  const child = start(["exec", "-statedir", tree.path, ...options, "--", "sh", "-c", script]);
  children.push(child);
  return { tree, child, lines: new Lines(child.stdout), errors: new Lines(child.stderr), end: outcome(child) };
};

describe("what a run is told", () => {
  const name = "web" as FeatureName;
  const hosts = (count: number) =>
    new Map(
      Array.from({ length: count }, (_, i) => [
        `10.1.${i >> 8}.${i & 255}` as Address,
        { value: FeatureValue("1"), changedMs: 0 },
      ]),
    );

  it("is an object with each feature, also one that nobody has", () => {
    assert.deepStrictEqual(tell(new Map(), [name]), {
      input: '{"features":{"web":{}}}\n',
      environment: { NAMEQ_FEATURE: "web", NAMEQ_HOSTS: "" },
    });
  });

  it("has no list of hosts in the environment that no program could be given", () => {
    const { environment, input } = tell(new Map([[name, hosts(20_000)]]), [name]);
    assert.isUndefined(environment["NAMEQ_HOSTS"]);
    assert.lengthOf(Object.keys((JSON.parse(input) as { features: { web: object } }).features.web), 20_000);
    assert.isDefined(tell(new Map([[name, hosts(5_000)]]), [name]).environment["NAMEQ_HOSTS"]);
  });
});

describe("nameq exec", () => {
  it("runs the program at the start and at each change, with the hosts in its environment and on its input", async () => {
    const { child, end, lines, tree } = exec(
      { "web/10.0.0.10": "1.0", "web/10.0.0.9": '"a b"', "db/10.0.0.9": "null", "other/10.0.0.1": "1" },
      ["--feature", "web", "--feature", "db", "--settle", "200ms"],
      'echo "$NAMEQ_FEATURE: $NAMEQ_HOSTS"; cat',
    );
    assert.deepStrictEqual(await lines.first(2), [
      "web db: 10.0.0.9 10.0.0.10",
      '{"features":{"web":{"10.0.0.9":"a b","10.0.0.10":1.0},"db":{"10.0.0.9":null}}}',
    ]);
    tree.set("other/10.0.0.2", "1");
    tree.set("web/127.0.0.1", "12345678901234567890");
    await lines.first(4);
    tree.remove("web/10.0.0.10");
    tree.remove("web/10.0.0.9");
    assert.deepStrictEqual((await lines.first(6)).slice(2), [
      "web db: 10.0.0.9 10.0.0.10 127.0.0.1",
      '{"features":{"web":{"10.0.0.9":"a b","10.0.0.10":1.0,"127.0.0.1":12345678901234567890},"db":{"10.0.0.9":null}}}',
      "web db: 10.0.0.9 127.0.0.1",
      '{"features":{"web":{"127.0.0.1":12345678901234567890},"db":{"10.0.0.9":null}}}',
    ]);
    child.kill("SIGTERM");
    assert.include(await end, { status: 0, stderr: "" });
    assert.lengthOf(lines.all, 6);
  });

  it("runs once more for all that changes during a run, never two at a time", async () => {
    const work = new StateDirectory();
    states.push(work);
    const go = join(work.path, "go");
    const { lines, tree } = exec(
      { "web/10.0.0.1": "1" },
      ["--feature", "web", "--settle", "200ms"],
      `mkdir ${work.path}/running || echo twice; echo begin; while ! test -e ${go}; do sleep 0.02; done; rmdir ${work.path}/running; echo "$NAMEQ_HOSTS"`,
    );
    await lines.first(1);
    for (let i = 2; i < 10; i++) tree.set(`web/10.0.0.${i}`, "1");
    tree.remove("web/10.0.0.1");
    writeFileSync(go, "");
    const all = [2, 3, 4, 5, 6, 7, 8, 9].map((i) => `10.0.0.${i}`).join(" ");
    assert.deepStrictEqual(await lines.first(4), ["begin", "10.0.0.1", "begin", all]);
    tree.set("web/10.0.0.9", "2");
    assert.deepStrictEqual((await lines.first(6)).slice(4), ["begin", all]);
    assert.isFalse(existsSync(join(work.path, "running")));
  });

  it("says that a run failed, and runs again at the next change", async () => {
    const { child, end, errors, lines, tree } = exec(
      { "web/10.0.0.1": "1" },
      ["--feature", "web", "--settle", "0"],
      'echo "$NAMEQ_HOSTS"; test "$NAMEQ_HOSTS" = 10.0.0.1 && exit 3; kill -KILL $$',
    );
    await errors.first(1);
    tree.set("web/10.0.0.2", "1");
    assert.deepStrictEqual(await errors.first(2), [
      "nameq exec: sh ended with status 3",
      "nameq exec: sh was ended by SIGKILL",
    ]);
    assert.deepStrictEqual(lines.all, ["10.0.0.1", "10.0.0.1 10.0.0.2"]);
    child.kill("SIGHUP");
    assert.include(await end, { status: 0 });
  });

  it("says that the program cannot be started, and goes on", async () => {
    const tree = new StateDirectory({ "web/10.0.0.1": "1" });
    states.push(tree);
    const child = start(["exec", "-statedir", tree.path, "--feature", "web", "--", "no-such-program"]);
    children.push(child);
    const errors = new Lines(child.stderr);
    assert.match((await errors.first(1))[0]!, /^nameq exec: cannot start no-such-program: there is no such program/);
    tree.remove("web/10.0.0.1");
    await errors.first(2);
    assert.isNull(child.exitCode);
  });

  it("takes a program that does not read its input", async () => {
    const { errors, lines, tree } = exec(
      { "web/10.0.0.1": `"${"x".repeat(500_000)}"` },
      ["--feature", "web", "--settle", "0"],
      "echo ran",
    );
    await lines.first(1);
    tree.set("web/10.0.0.1", "1");
    await lines.first(2);
    assert.deepStrictEqual(errors.all, []);
  });

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    it(`ends the run that is under way on ${signal}, waits for it, and ends with status 0`, async () => {
      const { child, end, lines } = exec(
        { "web/10.0.0.1": "1" },
        ["--feature", "web"],
        "trap 'sleep 0.2; echo done; exit 1' TERM; echo up; while :; do sleep 0.05; done",
      );
      await lines.first(1);
      child.kill(signal);
      assert.include(await end, { status: 0, stderr: "" });
      assert.deepStrictEqual(lines.all, ["up", "done"]);
    });
  }

  it("says what is wrong with its command line, with status 2", async () => {
    for (const [args, says] of [
      [["--", "true"], "--feature is needed"],
      [["--feature", "a b", "--", "true"], '"a b" is no feature\'s name'],
      [["--feature", "web"], "COMMAND is needed"],
      [["--feature", "web", "--settle", "1", "--", "true"], '--settle: "1" is no duration'],
    ] as const) {
      const { status, stderr, stdout } = await run(["exec", ...args]);
      assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" });
      assert.include(stderr, says);
    }
  });
});
