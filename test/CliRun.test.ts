import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import * as http from "node:http";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isReady, parse } from "../src/Cli/Ready.js";
import { Lines } from "./Lines.js";
import { ensureBuilt, outcome, run, start } from "./Program.js";

const directory = mkdtempSync(join(tmpdir(), "nameq-run-"));
beforeAll(ensureBuilt, 60_000);
afterAll(() => rmSync(directory, { recursive: true }));

let serial = 0;
/** A feature directory of its own for a test. */
const fresh = (): string => join(directory, `features-${serial++}`);

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await sleep(20);
};

/** A program that prints "up", ignores or takes a signal as told, and goes on until then. */
const service = (onSignal = "") => ["sh", "-c", `${onSignal} echo up; while :; do sleep 0.05; done`];

/** Runs a service under a check, and gives it with what is to be seen. */
const supervised = (dir: string, ...options: ReadonlyArray<string>) => {
  const child = start([
    "run",
    "--feature-dir",
    dir,
    "--feature",
    "web=true",
    "--ready-interval",
    "50ms",
    ...options,
    "--",
    ...service(),
  ]);
  return { child, end: outcome(child), isShown: () => existsSync(join(dir, "web")) };
};

describe("what is ready", () => {
  it("is told by a shell command, a port or a URL", () => {
    assert.deepStrictEqual(parse("tcp:80"), { _tag: "Tcp", host: "localhost", port: 80 });
    assert.deepStrictEqual(parse("tcp:db.example.net:5432"), { _tag: "Tcp", host: "db.example.net", port: 5432 });
    assert.deepStrictEqual(parse("tcp:[::1]:80"), { _tag: "Tcp", host: "::1", port: 80 });
    assert.deepStrictEqual(parse("http://localhost/up"), { _tag: "Http", url: "http://localhost/up" });
    assert.deepStrictEqual(parse("http:https://localhost/up"), { _tag: "Http", url: "https://localhost/up" });
    assert.deepStrictEqual(parse("pg_isready -q"), { _tag: "Shell", command: "pg_isready -q" });
    for (const text of [
      "",
      " ",
      "tcp:",
      "tcp:0",
      "tcp:65536",
      "tcp:web",
      "http://",
      "http:x",
      "http://[::1",
      "http://u:100%@h/",
    ]) {
      assert.isUndefined(parse(text), text);
    }
  });

  it.effect("is not what cannot be asked", () =>
    Effect.gen(function* () {
      // longer than the kernel lets an argument be: the program is not even started
      const command = "x".repeat(200_000);
      assert.isFalse(yield* isReady({ _tag: "Shell", command }, {}));
    }),
  );
});

describe("nameq run", () => {
  it("advertises while the program runs, and ends with its status", async () => {
    const dir = fresh();
    const script = `while ! test -e ${dir}/web || ! test -e ${dir}/db; do sleep 0.02; done; cat ${dir}/web ${dir}/db; cat; exit 7`;
    const result = await run(
      ["run", "--feature-dir", dir, "--feature", 'web={"port":80.0}', "--feature", "db=null", "--", "sh", "-c", script],
      { stdin: "input\n" },
    );
    assert.deepStrictEqual(result, {
      status: 7,
      signal: null,
      stdout: '{\n\t"port": 80.0\n}\nnull\ninput\n',
      stderr: "",
    });
    assert.isFalse(existsSync(join(dir, "web")) || existsSync(join(dir, "db")));
  });

  it("ends with 0, 128 + N, 127 or 126 as a shell does, and leaves no feature", async () => {
    const dir = fresh();
    const script = join(directory, "no-script");
    writeFileSync(script, "");
    chmodSync(script, 0o644);
    for (const [command, status, says] of [
      [["true"], 0, ""],
      [["sh", "-c", "kill -KILL $$"], 137, ""],
      [["sh", "-c", "kill -TERM $$"], 143, ""],
      [
        ["no-such-program"],
        127,
        "nameq run: cannot start no-such-program: there is no such program: check its name and PATH\n",
      ],
      [[script], 126, `nameq run: cannot start ${script}: this user may not execute it: set its mode (chmod +x)\n`],
    ] as const) {
      const result = await run(["run", "--feature-dir", dir, "--feature", "web=1", "--", ...command]);
      assert.deepStrictEqual(result, { status, signal: null, stdout: "", stderr: says });
      assert.isFalse(existsSync(join(dir, "web")));
    }
  });

  it("passes the program's own options on, with and without --", async () => {
    for (const dashes of [[], ["--"]]) {
      const result = await run([
        "run",
        "--feature-dir",
        fresh(),
        "--feature",
        "a=1",
        ...dashes,
        "echo",
        "-n",
        "--feature",
        "x",
      ]);
      assert.deepStrictEqual(result, { status: 0, signal: null, stdout: "--feature x", stderr: "" });
    }
  });

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const) {
    it(`passes ${signal} on, waits for the program, and removes the feature`, async () => {
      const dir = fresh();
      const trap = `trap 'echo ${signal} $(ls ${dir}); exit 5' ${signal.slice(3)};`;
      const child = start(["run", "--feature-dir", dir, "--feature", "web=1", "--", ...service(trap)]);
      const lines = new Lines(child.stdout);
      const end = outcome(child);
      await lines.first(1);
      await until(() => existsSync(join(dir, "web")));
      child.kill(signal);
      assert.include(await end, { status: 5, stderr: "" });
      // told to end, it stops advertising before the program hears of it
      assert.deepStrictEqual(lines.all, ["up", signal === "SIGTERM" ? "SIGTERM" : `${signal} web`]);
      assert.isFalse(existsSync(join(dir, "web")));
    });
  }

  it("passes every further SIGTERM on to a program that does not end at the first", async () => {
    const dir = fresh();
    const trap = "n=0; trap 'n=$((n+1)); echo $n; test $n = 3 && exit 9' TERM;";
    const child = start(["run", "--feature-dir", dir, "--feature", "web=1", "--", ...service(trap)]);
    const lines = new Lines(child.stdout);
    const end = outcome(child);
    for (let n = 1; n <= 3; n++) {
      await lines.first(n);
      child.kill("SIGTERM");
    }
    assert.include(await end, { status: 9, stderr: "" });
    assert.deepStrictEqual(lines.all, ["up", "1", "2", "3"]);
  });

  it("advertises only while a shell command succeeds", async () => {
    const dir = fresh();
    const mark = join(directory, "ready");
    const { child, end, isShown } = supervised(dir, "--ready", `test -e ${mark}`);
    for (let round = 0; round < 2; round++) {
      await sleep(200);
      assert.isFalse(isShown());
      writeFileSync(mark, "");
      await until(isShown);
      rmSync(mark);
      await until(() => !isShown());
    }
    child.kill("SIGTERM");
    const { status, stderr } = await end;
    assert.strictEqual(status, 143);
    assert.deepStrictEqual(stderr, "nameq run: ready: offers web\nnameq run: no longer offers web\n".repeat(2));
  });

  it("advertises only while a port is open", async () => {
    const server = net.createServer((socket) => socket.destroy());
    const listen = (port: number) => new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    await listen(0);
    const { port } = server.address() as net.AddressInfo;
    const { child, end, isShown } = supervised(fresh(), "--ready", `tcp:127.0.0.1:${port}`);
    await until(isShown);
    server.close();
    await until(() => !isShown());
    child.kill("SIGTERM");
    assert.include(await end, { status: 143 });
  });

  it("advertises only while a URL answers well", async () => {
    let status = 503;
    const server = http.createServer((_, response) => response.writeHead(status).end("x".repeat(100)));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const { child, end, isShown } = supervised(fresh(), "--ready", `http://127.0.0.1:${port}/health`);
    await sleep(300);
    assert.isFalse(isShown());
    status = 204;
    await until(isShown);
    status = 500;
    await until(() => !isShown());
    child.kill("SIGTERM");
    assert.include(await end, { status: 143 });
    server.close();
  });

  it("ends although a check hangs, and ends what the check started", async () => {
    const mark = join(directory, `hanging-${process.pid}`);
    const { child, end } = supervised(fresh(), "--ready", `echo $$ > ${mark}; sleep 1000`);
    await until(() => existsSync(mark) && readFileSync(mark, "utf8") !== "");
    child.kill("SIGTERM");
    assert.include(await end, { status: 143 });
    const pid = Number(readFileSync(mark, "utf8"));
    await until(() => !existsSync(`/proc/${pid}`) || readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z "));
  });

  it("removes what an earlier run left that was killed, until it is ready itself", async () => {
    const dir = fresh();
    mkdirSync(dir);
    writeFileSync(join(dir, "web"), "1\n");
    const { child, end, isShown } = supervised(dir, "--ready", "false");
    await until(() => !isShown());
    child.kill("SIGTERM");
    assert.include(await end, { status: 143, stderr: "" });
  });

  it("says once that it cannot advertise, keeps the program running, and advertises when it can", async () => {
    const dir = fresh();
    writeFileSync(dir, "");
    const { child, end, isShown } = supervised(dir);
    const lines = new Lines(child.stderr);
    assert.match(
      (await lines.first(1))[0]!,
      /^nameq run: cannot write the feature file .*: a part of the path is a file/,
    );
    await sleep(200);
    rmSync(dir);
    await until(isShown);
    child.kill("SIGTERM");
    assert.include(await end, { status: 143 });
    assert.lengthOf(lines.all, 1);
  });

  it("says what is wrong with its command line, with status 2", async () => {
    for (const [args, says] of [
      [["--", "true"], "--feature NAME=JSON is needed"],
      [["--feature", "web", "--", "true"], "web has no value; give one such as web=true"],
      [["--feature", "web={", "--", "true"], "the value of web is not JSON at character 2"],
      [["--feature", "a/b=1", "--", "true"], '"a/b" is no feature\'s name'],
      [["--feature", "web=1"], "COMMAND is needed"],
      [["--feature", "web=1", "--ready", "tcp:x", "--", "true"], '"tcp:x" is no check'],
      [["--feature", "web=1", "--ready-interval", "0", "--", "true"], '--ready-interval: "0"'],
    ] as const) {
      const { status, stderr, stdout } = await run(["run", "--feature-dir", fresh(), ...args]);
      assert.deepStrictEqual({ status, stdout }, { status: 2, stdout: "" });
      assert.include(stderr, says);
    }
  });
});
