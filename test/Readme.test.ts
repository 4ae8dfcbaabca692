/** Every command that the README shows is run here, as it stands there. */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
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
    const shell = `set -e\ntrap 'kill $(jobs -p)' EXIT\n${start}sleep 4\n${rest.join("")}sleep 1\nfind /tmp/tour/*/state/features -type f\necho -- commands\n${commands.join("")}`;
    const { stdout, status, stderr } = spawnSync("bash", ["-c", shell.replaceAll("/tmp/tour", join(base, "tour"))], {
      env: environment,
      encoding: "utf8",
      timeout: 25_000,
    });
    assert.strictEqual(status, 0, stderr);
    const [tour, printed] = stdout.split("-- commands\n");
    // the value as the third node shows it, and no file left after the removal
    assert.isTrue(tour!.endsWith('{\n\t"port": 5432\n}\n'), stdout);
    const web = '{"feature":"web","host":"127.0.0.1","value":{"port":8080}}\n';
    const nodes = "127.0.0.2\n127.0.0.3\n127.0.0.4\n";
    assert.strictEqual(printed, `127.0.0.1\n${web}127.0.0.1\n${web}${nodes}`, stderr);
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

  it("names only options that there are", () => {
    const help = ["serve", "feature", "list", "find-features", "monitor-features", "run", "exec", "dump", "status"]
      .map((command) => spawnSync(process.execPath, [Program.program, command, "--help"], { encoding: "utf8" }).stdout)
      .join("");
    for (const [option] of readme
      .replaceAll(/```(?:shell|python|c)\n[\s\S]*?```/g, "")
      .matchAll(/(?<=[\s`(])--[a-z][a-z0-9-]+/g)) {
      if (
        [
          "--help",
          "--completions",
          "--name",
          "--net",
          "--volume",
          "--rm",
          "--volumes-from",
          "--ignore-scripts",
          "--global",
          "--system",
          "--now",
        ].includes(option)
      )
        continue;
      assert.include(help, option);
    }
  });
});
