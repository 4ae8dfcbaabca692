import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import { spawnSync } from "node:child_process";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { table } from "../src/Cli/List.js";
import { FeatureValue } from "../src/Feature.js";
import { ensureBuilt, program, run } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

const tree = new StateDirectory({
  "web/10.0.0.10": '{\n\t"port": 80.0\n}',
  "web/10.0.0.9": "true",
  "web/127.0.0.1": '"a b\u001f"'.replace("\u001f", "\\u001f"),
  "db/fd00::1": '"\u200b😀"',
});
beforeAll(ensureBuilt, 60_000);
afterAll(() => tree.dispose());

const list = (...args: ReadonlyArray<string>) => run(["list", "--state-dir", tree.path, ...args]);
const printed = (stdout: string) => ({ status: 0, signal: null, stdout, stderr: "" });

/** Runs a line of sh on a terminal of `columns` columns, and gives what it shows. */
const onTerminal = (line: string, columns: number): string =>
  spawnSync("script", ["-qec", `stty cols ${columns}; ${line}`, "/dev/null"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  }).stdout.replaceAll("\r\n", "\n");

describe("nameq list", () => {
  it("prints lines of tab-separated fields, sorted", async () => {
    assert.deepStrictEqual(
      await list(),
      printed(
        'db\tfd00::1\t"\\u200b😀"\nweb\t10.0.0.9\ttrue\nweb\t10.0.0.10\t{"port":80.0}\nweb\t127.0.0.1\t"a\\u0020b\\u001f"\n',
      ),
    );
    assert.deepStrictEqual(await list("db"), printed('db\tfd00::1\t"\\u200b😀"\n'));
    assert.deepStrictEqual(await list("none"), printed(""));
  });

  it("prints objects with the exact values with --json", async () => {
    const { stdout } = await list("web", "--json");
    assert.strictEqual(
      stdout,
      '{"feature":"web","host":"10.0.0.9","value":true}\n{"feature":"web","host":"10.0.0.10","value":{"port":80.0}}\n{"feature":"web","host":"127.0.0.1","value":"a b\\u001f"}\n',
    );
  });

  it("lets no value reach the terminal as it is with --json, and keeps what it means", async () => {
    assert.deepStrictEqual(
      await list("db", "--json"),
      printed('{"feature":"db","host":"fd00::1","value":"\\u200b😀"}\n'),
    );
  });

  it("prints the features' names with --names", async () => {
    assert.deepStrictEqual(await list("--names"), printed("db\nweb\n"));
  });

  it("prints a table on a terminal, no wider than that", () => {
    const command = `${process.execPath} ${program} list --state-dir ${tree.path} web`;
    assert.strictEqual(
      onTerminal(command, 100),
      [
        "FEATURE  HOST       VALUE",
        "web      10.0.0.9   true",
        'web      10.0.0.10  {"port":80.0}',
        'web      127.0.0.1  "a b\\u001f"',
        "",
      ].join("\n"),
    );
    assert.include(onTerminal(command, 25), '\nweb      10.0.0.10  {"po…\n');
    assert.include(onTerminal(`${command} | cat`, 25), 'web\t10.0.0.10\t{"port":80.0}\n');
  });

  it("cuts values by the columns that they take", () => {
    const [, row = ""] = table([["a", "b", FeatureValue('"漢字😀漢字"')]], 22).split("\n");
    assert.strictEqual(row, 'a        b     "漢字…');
  });

  it("lets no value move the cursor", () => {
    assert.notMatch(table([["a", "b", FeatureValue('"\u009b2J\u202e"')]], 80), /[\u0080-\u009f\u202e]/);
  });

  it("warns of what it leaves out", async () => {
    const odd = new StateDirectory({ "web/10.0.0.1": "1", "web/10.0.0.2": "{", "web/README": "1" });
    symlinkSync("/nonexistent", join(odd.path, "features", "not.a.name"));
    const { status, stderr, stdout } = await run(["list", "-statedir", odd.path]);
    odd.dispose();
    assert.deepStrictEqual({ status, stdout }, { status: 0, stdout: "web\t10.0.0.1\t1\n" });
    for (const name of ["web/10.0.0.2 is not JSON", "web/README is not a host", "not.a.name is not a feature"]) {
      assert.include(stderr, name);
    }
  });

  it("fails when there is no tree, and says how to have one", async () => {
    const { status, stderr } = await run(["list", "-statedir", "/nonexistent"]);
    assert.strictEqual(status, 1);
    assert.match(stderr, /^nameq list: \/nonexistent\/features is not there: start the daemon/);
  });

  it("refuses what is no name", async () => {
    const { status, stderr } = await list("../x");
    assert.strictEqual(status, 2);
    assert.include(stderr, "no feature's name");
  });
});
