/** Every command that the README shows is run here, as it stands there. */
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { FakeS3 } from "./FakeS3.js";
import * as Program from "./Program.js";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const base = mkdtempSync(join(tmpdir(), "nameq-readme-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** The shell blocks, by the word in the comment above each. */
const blocks = [...readme.matchAll(/(?:<!-- run: (\w+) -->\n)?```sh\n([\s\S]*?)```/g)].map(([, kind, text]) => ({
  kind,
  text: text!,
}));
const linesOf = (kind: string): ReadonlyArray<string> =>
  blocks.filter((block) => block.kind === kind).flatMap(({ text }) => text.split("\n").filter((line) => line !== ""));

const environment = {
  PATH: `${base}/bin:${process.env["PATH"]}`,
  HOME: base,
  NAMEQ_PORT: String(20_000 + (process.pid % 20_000)),
};

beforeAll(() => {
  Program.ensureBuilt();
  mkdirSync(join(base, "bin"));
  symlinkSync(Program.program, join(base, "bin/nameq"));
  // curl is not on every machine
  writeFileSync(
    join(base, "bin/curl"),
    `#!${process.execPath}\nfetch(process.argv.at(-1)).then((r) => r.text()).then((text) => process.stdout.write(text));\n`,
    { mode: 0o755 },
  );
});

describe("the README", () => {
  it("says of each shell block how it is run", () => {
    assert.deepStrictEqual(
      blocks.filter(({ kind }) => kind === undefined).map(({ text }) => text),
      [],
    );
  });

  it("shows a tour of three nodes that works", () => {
    const script = blocks.filter(({ kind }) => kind === "tour").map(({ text }) => text);
    const [start, ...rest] = script;
    const commands = blocks.filter(({ kind }) => kind === "commands").map(({ text }) => text);
    // the first node's page has its own address and this run's port
    const http = linesOf("http").map((line) => line.replace("127.0.0.1:17106", "127.0.0.2:$NAMEQ_PORT"));
    const shell = [
      "set -e\ntrap 'kill $(jobs -p)' EXIT",
      `${start}sleep 4`,
      `${rest.join("")}sleep 1\nfind /tmp/tour/*/state/features -type f`,
      `echo -- commands\n${commands.join("").replace("nameq feature --rm web", `${http.join("; echo\n")}\n$&`)}`,
    ].join("\n");
    const { stdout, status, stderr } = spawnSync("bash", ["-c", shell.replaceAll("/tmp/tour", join(base, "tour"))], {
      env: environment,
      encoding: "utf8",
      timeout: 25_000,
    });
    assert.strictEqual(status, 0, stderr);
    const [tour, printed] = stdout.split("-- commands\n");
    // the value as the third node shows it, its status, and no file left after the removal
    assert.match(tour!, /^\{\n\t"port": 5432\n\}\nnode 127\.0\.0\.4 port \d+: ready.*\n[\s\S]*other nodes: 2 alive\n/m);
    assert.notInclude(tour!.slice(tour!.indexOf("other nodes:")), "/features/");
    const web = '{"feature":"web","host":"127.0.0.1","value":{"port":8080}}\n';
    const nodes = "127.0.0.2\n127.0.0.3\n127.0.0.4\n";
    const face = `{"self":"127.0.0.2","feature":"web","hosts":{"127.0.0.2":{"port":8080}}}\nready\n`;
    assert.strictEqual(printed, `127.0.0.1\n${web}127.0.0.1\n${web}${nodes}${face}`, stderr);
    for (const address of ["127.0.0.2", "127.0.0.3", "127.0.0.4"]) {
      assert.include(stdout, `nameq development node ${address}`);
    }
  });

  it.effect("shows fleet commands that join a fleet", () =>
    Effect.gen(function* () {
      const fake = yield* FakeS3.make;
      mkdirSync(join(base, "etc"));
      writeFileSync(join(base, "etc/secret"), "a secret of at least sixteen bytes");
      writeFileSync(join(base, "etc/s3creds"), `${fake.accessKeyId} ${fake.secretAccessKey}\n`);
      const commands = [
        ...linesOf("fleet"),
        // what the container is given
        ...linesOf("docker")
          .filter((line) => line.includes(" nameq serve "))
          .map((line) => line.slice(line.indexOf(" nameq serve ") + 1)),
      ];
      assert.isAtLeast(commands.length, 3);
      for (const [i, command] of commands.entries()) {
        const real = command
          .replaceAll("/etc/nameq/", `${base}/etc/`)
          .replaceAll(/(s3-?bucket)[ =]\w+/g, `$1=${fake.bucket}`)
          .replaceAll(/(s3-?region)[ =][\w-]+/g, "$1=us-east-1");
        const outcome = yield* Effect.promise(
          () =>
            new Promise<{ status: number | null; log: string }>((resolve) => {
              const child = spawn("bash", ["-c", `exec ${real}`], {
                env: {
                  ...environment,
                  NAMEQ_ADDR: `127.0.0.${10 + i}`,
                  NAMEQ_S3_ENDPOINT: fake.endpoint,
                  NAMEQ_S3_PATH_STYLE: "true",
                  NAMEQ_FEATURE_DIR: join(base, `features-${i}`),
                  NAMEQ_STATE_DIR: join(base, `state-${i}`),
                  AWS_ACCESS_KEY: real.includes("cred") ? "" : fake.accessKeyId,
                  AWS_SECRET_KEY: real.includes("cred") ? "" : fake.secretAccessKey,
                },
              });
              let log = "";
              child.stderr.setEncoding("utf8").on("data", (text: string) => {
                const known = log.includes("membership is known");
                log += text;
                // once: a second signal does not wait for the goodbye
                if (!known && log.includes("membership is known")) child.kill("SIGTERM");
              });
              child.on("close", (status) => resolve({ status, log }));
            }),
        );
        assert.strictEqual(outcome.status, 0, `${real}\n${outcome.log}`);
        assert.notInclude(outcome.log, "level=error", real);
      }
      assert.isAtLeast(fake.objects.size, commands.length);
    }).pipe(Effect.scoped),
  );

  it("shows the examples for other languages as they are tested", () => {
    for (const name of ["follow.sh", "follow.py", "follow.c"]) {
      assert.include(readme, readFileSync(new URL(`examples/${name}`, import.meta.url), "utf8").trimEnd(), name);
    }
  });

  it("shows a picture that there is", () => {
    for (const [, file] of readme.matchAll(/!\[.*?\]\((.*?)\)/g)) {
      assert.isTrue(existsSync(new URL(`../${file}`, import.meta.url)), file);
    }
  });

  it("names the metrics that there are", () => {
    const sources = new URL("../src/Http/", import.meta.url);
    const named = readdirSync(sources)
      .map((name) => readFileSync(new URL(name, sources), "utf8"))
      .flatMap((text) => [...text.matchAll(/"(nameq_[a-z_]+)"/g)].map(([, metric]) => metric!));
    const shown = new Set([...readme.matchAll(/\bnameq_[a-z_]+/g)].map(([metric]) => metric));
    assert.deepStrictEqual([...shown].toSorted(), [...new Set(named)].toSorted());
  });

  it("links to headings that there are", () => {
    const headings = [...readme.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!.toLowerCase().replaceAll(" ", "-"),
    );
    for (const [, target] of readme.matchAll(/\]\(#(.*?)\)/g)) assert.include(headings, target);
  });

  it("names every command, and only options that there are", () => {
    const run = (...args: ReadonlyArray<string>) =>
      spawnSync(process.execPath, [Program.program, ...args], { encoding: "utf8" }).stdout;
    const commands = [...run("--help").matchAll(/^ {2}([a-z][a-z-]*) {2,}/gm)].map(([, command]) => command!);
    assert.isAtLeast(commands.length, 9);
    const help = commands.map((command) => run(command, "--help")).join("");
    for (const command of commands) assert.include(readme, `| \`nameq ${command}`);
    // of other programs, beside those in the blocks that are theirs
    const others = new Set([
      "--help",
      "--completions",
      "--user",
      "--name",
      "--net",
      "--volume",
      "--rm",
      "--signal",
      "--compare",
      "--volumes-from",
    ]);
    const text = readme
      .replaceAll(/```(?:shell|python|c)\n[\s\S]*?```/g, "")
      .replaceAll(/<!-- run: (?:docker|unit|http|key|doctor) -->\n```sh\n[\s\S]*?```/g, "");
    for (const [option] of text.matchAll(/(?<=[\s`(])--[a-z][a-z0-9-]+/g)) {
      if (!others.has(option)) assert.include(help, option);
    }
  });
});
