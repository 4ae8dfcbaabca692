import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { repairCompletions, specs } from "../src/Cli.js";
import { ensureBuilt, outcome, program, run, start } from "./Program.js";

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const directory = mkdtempSync(join(tmpdir(), "nameq-program-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(directory, { recursive: true }));

let serial = 0;
/** A feature directory of its own for a test; made by the program. */
const features = (): string => join(directory, `features-${serial++}`);

const read = (dir: string, name: string): string => readFileSync(join(dir, name), "utf8");

describe("the program", () => {
  it("prints its version", async () => {
    assert.deepStrictEqual(await run(["--version"]), { status: 0, signal: null, stdout: `${version}\n`, stderr: "" });
  });

  it("prints help on standard output, without escape codes", async () => {
    for (const args of [["--help"], ["-h"], ["feature", "-h"], ["serve", "--help"], ["serve", "-help"]]) {
      const { status, stderr, stdout } = await run(args);
      assert.deepStrictEqual({ status, stderr }, { status: 0, stderr: "" });
      assert.include(stdout, "Usage: nameq");
      assert.notInclude(stdout, "\x1b");
    }
  });

  it("asks for a command with status 2", async () => {
    const { status, stderr, stdout } = await run([]);
    assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" });
    assert.include(stderr, "Usage: nameq COMMAND");
    for (const { name } of specs) assert.include(stderr, name);
  });

  it("says what is wrong with a command line once, with status 2 and no stack", async () => {
    const { status, stderr, stdout } = await run(["serve", "--port", "x", "--registry-dir", directory]);
    assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" });
    assert.deepStrictEqual(stderr.split("\n"), [
      'nameq serve: --port: "x" is no port; give a number from 1 to 65535',
      "nameq serve: --secret-file PATH is needed: the key that all nodes share",
      "Usage: nameq serve [OPTIONS]",
      "Try: nameq serve --help",
      "",
    ]);
  });

  it("ends quietly when nobody reads what it prints", async () => {
    const child = start(["serve", "--help"]);
    child.stdout.destroy();
    assert.deepStrictEqual(await outcome(child), { status: 0, signal: null, stdout: "", stderr: "" });
  });

  it("keeps its status when nobody reads what it complains of", async () => {
    const child = start(["serve", "--nonsense"]);
    child.stderr.destroy();
    assert.strictEqual((await outcome(child)).status, 2);
  });

  it("fails when what it prints cannot be written", () => {
    const { status, stderr } = spawnSync(
      "sh",
      ["-c", `exec "${process.execPath}" "${program}" --version > /dev/full`],
      {
        encoding: "utf8",
      },
    );
    assert.strictEqual(status, 1);
    assert.match(stderr, /^nameq: cannot write to standard output \(ENOSPC.*\n$/);
  });

  it("runs with another Node's code cache, a broken one and none", async () => {
    const copy = join(directory, "copy");
    spawnSync("cp", ["-r", dirname(program), copy]);
    const cache = readdirSync(copy).find((name) => name.endsWith(".cache"))!;
    const runCopy = () => spawnSync(process.execPath, [join(copy, "nameq.cjs"), "--version"], { encoding: "utf8" });
    const expected = { status: 0, stdout: `${version}\n`, stderr: "" };
    for (const spoil of [
      () => writeFileSync(join(copy, cache), readFileSync(join(copy, cache)).fill(0, 0, 64)),
      () => writeFileSync(join(copy, cache), ""),
      () => rmSync(join(copy, cache)),
    ]) {
      spoil();
      const { status, stderr, stdout } = runCopy();
      assert.deepStrictEqual({ status, stdout, stderr }, expected);
    }
  });

  it("has a code cache that this Node accepts", () => {
    const dist = dirname(program);
    const cache = readdirSync(dist).find((name) => name.endsWith(`-${process.version}-${process.arch}.cache`))!;
    const file = join(dist, cache.replace(`-${process.version}-${process.arch}.cache`, ".cjs"));
    const check = `
      const { readFileSync } = require("node:fs");
      const [file, cache] = process.argv.slice(1);
      const code = "(function (exports, require, module, __filename, __dirname) { " + readFileSync(file, "latin1") + "\\n})";
      process.exit(new (require("node:vm").Script)(code, { cachedData: readFileSync(cache) }).cachedDataRejected ? 1 : 0);`;
    assert.strictEqual(spawnSync(process.execPath, ["-e", check, file, join(dist, cache)]).status, 0);
  });

  const trace = `
    const { Script } = require("node:vm");
    const loaded = [];
    const Module = require("node:module");
    const load = Module._load;
    Module._load = (name, ...rest) => (loaded.push(name), load(name, ...rest));
    process.on("exit", () => require("node:fs").writeSync(2, loaded.join("\\n")));
    process.argv.splice(1, 0, process.execPath);
    process.argv.splice(0, 1);
    require(process.argv[1]);`;

  it("loads neither the AWS SDK nor the daemon for light commands", () => {
    for (const args of [["--version"], ["serve", "--help"], ["feature", "--feature-dir", features(), "a", "1"]]) {
      const { status, stderr } = spawnSync(process.execPath, ["-e", trace, program, ...args], { encoding: "utf8" });
      assert.strictEqual(status, 0);
      const loaded = stderr.split("\n");
      assert.includeMembers(loaded, ["node:fs"]);
      assert.deepStrictEqual(
        loaded.filter((name) => /aws|dgram|child_process|zlib|worker|https?$/.test(name)),
        [],
      );
    }
  });

  it("loads what answers HTTP only for a node that does", async () => {
    const secret = join(directory, "http-secret");
    writeFileSync(secret, "0123456789abcdef");
    for (const http of [[], ["--http", "127.0.0.1:0"]]) {
      const port = String(20_000 + (process.pid % 20_000));
      const directories = ["--registry-dir", join(directory, "registry"), "--state-dir", join(directory, "http-state")];
      const args = ["serve", "--addr", "127.0.0.2", "--port", port, "--secret-file", secret, ...directories];
      const options = [...args, "--feature-dir", features(), ...http];
      const child = spawn(process.execPath, ["-e", trace, program, ...options]);
      const ended = outcome(child);
      child.stderr.on("data", (text: string) => {
        if (text.includes("membership is known")) child.kill("SIGTERM");
      });
      const { status, stderr } = await ended;
      assert.strictEqual(status, 0);
      const loaded = stderr.split("\n");
      assert.include(loaded, "node:dgram");
      assert.strictEqual(loaded.includes("node:http"), http.length > 0);
    }
  });
});

describe("completions", () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    it(`for ${shell} know commands and options, and only ours`, async () => {
      const { status, stdout } = await run(["--completions", shell]);
      assert.strictEqual(status, 0);
      for (const word of ["serve", "feature", "s3-bucket", "withdraw"]) assert.include(stdout, word);
      assert.notMatch(stdout, /wizard|log-level/);
    });
  }

  it("for bash know commands with a hyphen, and each choice", () => {
    assert.deepStrictEqual(
      repairCompletions([
        "  nameq,monitor__features)",
        '  $(compgen -W "a-b,c" -- "${cur}")',
        '  opts="-h --wizard --help"',
      ]),
      '  nameq,monitor-features)\n  $(compgen -W "a-b c" -- "${cur}")\n  opts="-h --help"\n',
    );
  });

  it("complete in bash", async () => {
    const { stdout } = await run(["--completions", "bash"]);
    const complete = (...words: ReadonlyArray<string>): ReadonlyArray<string> =>
      spawnSync(
        "bash",
        [
          "-c",
          `${stdout}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nameq_bash_completions nameq; printf '%s\\n' "\${COMPREPLY[@]}"`,
          "bash",
          ...words,
        ],
        { encoding: "utf8" },
      )
        .stdout.trim()
        .split("\n");
    assert.includeMembers([...complete("nameq", "")], ["serve", "feature"]);
    assert.deepStrictEqual(complete("nameq", "serve", "--s3-b"), ["--s3-bucket"]);
    assert.deepStrictEqual(complete("nameq", "serve", "--on-exit", "w"), ["withdraw"]);
    assert.deepStrictEqual(complete("nameq", "serve", "--state-dir", `${directory.slice(0, -2)}`), [directory]);
  });
});

describe("nameq feature", () => {
  const done = { status: 0, signal: null, stdout: "", stderr: "" };

  it("sets a feature, stored indented, and removes it", async () => {
    const dir = features();
    assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, "db", '{"port": 5432, "ro":[]}']), done);
    assert.strictEqual(read(dir, "db"), '{\n\t"port": 5432,\n\t"ro": []\n}\n');
    assert.strictEqual(statSync(join(dir, "db")).mode & 0o777, 0o644);
    assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, "--rm", "db"]), done);
    assert.isFalse(readdirSync(dir).includes("db"));
    assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, "--rm", "db"]), done);
  });

  it("understands the existing program's spelling and the environment", async () => {
    const dir = features();
    assert.deepStrictEqual(await run(["feature", `-featuredir=${dir}`, "a", "true"]), done);
    assert.deepStrictEqual(await run(["feature", "b", "true"], { environment: { NAMEQ_FEATURE_DIR: dir } }), done);
    assert.includeMembers(readdirSync(dir), ["a", "b"]);
    assert.deepStrictEqual(await run(["feature", "-featuredir", dir, "-rm", "a"]), done);
    assert.notInclude(readdirSync(dir), "a");
  });

  it("takes any JSON for a value, to the last digit", async () => {
    const dir = features();
    const values = ["-5", "12345678901234567890", "1e400", "0.10", "null", '"true"', "true", "false", '"--rm"', "[]"];
    for (const [i, value] of values.entries()) {
      assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, `f${i}`, value]), done);
      assert.strictEqual(read(dir, `f${i}`), `${value}\n`);
    }
  });

  it("takes names that look like commands, options' values or numbers", async () => {
    const dir = features();
    for (const name of ["serve", "feature", "true", "0", "-"]) {
      assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, name, "1"]), done);
      assert.include(readdirSync(dir), name);
    }
    assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, "--", "--help", "1"]), done);
    assert.include(readdirSync(dir), "--help");
  });

  it("reads the value from standard input", async () => {
    const dir = features();
    const text = `[${Array.from({ length: 100_000 }, (_, i) => i).join()}]\n`;
    assert.deepStrictEqual(await run(["feature", "--feature-dir", dir, "big"], { stdin: text }), done);
    assert.strictEqual(read(dir, "big").replaceAll(/\s/g, ""), text.trim());
  });

  const refused: ReadonlyArray<
    readonly [what: string, args: ReadonlyArray<string>, status: number, says: string, stdin?: string | Buffer]
  > = [
    ["a value that is not JSON", ["a", "{"], 1, "not JSON at character 2"],
    ["a value that is not quite JSON", ["a", "01"], 1, "not JSON at character 2"],
    ["too deep a value", ["a", "[".repeat(65) + "]".repeat(65)], 1, "deeper than 64"],
    ["standard input that is not JSON", ["a"], 1, "not JSON at character 1", "yes"],
    ["empty standard input", ["a"], 1, "empty"],
    ["standard input that is no text", ["a"], 1, "not UTF-8", Buffer.from([34, 255, 34])],
    ["too much on standard input", ["a"], 1, "larger than 1048576 bytes", "1".repeat(1_100_000)],
    ["a bad name", ["../a", "1"], 1, "no feature's name"],
    ["an empty name", ["", "1"], 1, "no feature's name"],
    ["no name", [], 2, "NAME"],
    ["a third operand", ["a", "1", "2"], 2, "too many operands: 2"],
    ["--rm with a value", ["--rm", "a", "1"], 2, "--rm takes no VALUE"],
    ["an unknown option", ["a", "--remove"], 2, "unknown option --remove"],
  ];
  for (const [what, args, status, says, stdin] of refused) {
    it(`refuses ${what}`, async () => {
      const dir = features();
      const result = await run(["feature", "--feature-dir", dir, ...args], stdin === undefined ? {} : { stdin });
      assert.deepStrictEqual({ status: result.status, stdout: result.stdout }, { status, stdout: "" });
      assert.match(result.stderr, /^nameq feature: /);
      assert.include(result.stderr, says);
      assert.lengthOf(result.stderr.trimEnd().split("\n"), status === 2 ? 3 : 1);
      assert.isUndefined(statSync(dir, { throwIfNoEntry: false }));
    });
  }

  it("reports a directory that cannot be written to", async () => {
    const file = join(directory, "a-file");
    writeFileSync(file, "");
    const { status, stderr } = await run(["feature", "--feature-dir", join(file, "x"), "a", "1"]);
    assert.strictEqual(status, 1);
    assert.match(stderr, /^nameq feature: cannot write .*a-file.*\n$/);
  });

  it("ends with status 130 when it is interrupted while it reads", async () => {
    const child = start(["feature", "--feature-dir", features(), "a"]);
    const result = outcome(child);
    // it reads: what does not fit into the pipe is taken
    await new Promise<void>((resolve) => child.stdin.write(" ".repeat(900_000), () => resolve()));
    child.kill("SIGINT");
    const { status, stderr } = await result;
    assert.deepStrictEqual({ status, stderr }, { status: 130, stderr: "" });
  });
});
