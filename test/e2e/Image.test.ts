/** The container image: built by the README's command, and run by the existing program's documented ones. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { FakeS3 } from "../FakeS3.js";
import { Lines } from "../Lines.js";

const repository = fileURLToPath(new URL("../..", import.meta.url));
const readme = readFileSync(join(repository, "README.md"), "utf8");
const commands = (/<[!]-- run: docker -->\n```sh\n([\s\S]*?)```/.exec(readme)?.[1] ?? "").trim().split("\n");
const address = `127.46.${process.pid % 250}.3`;

/**
 * The images that the Dockerfile stands on, as near as this machine has them: a real Debian, and this machine's Node
 * and npm in it. $1: their directory, $2: the configuration of npm, if there is one.
 */
const bases = `
set -eu
cd "$1"
printf 'unqualified-search-registries = ["localhost"]\\nshort-name-mode = "disabled"\\n' > registries.conf
export CONTAINERS_REGISTRIES_CONF=$1/registries.conf BUILDAH_ISOLATION=chroot
b() { buildah --root "$PWD/images" --runroot "$PWD/run" --storage-driver overlay "$@"; }
mmdebstrap --quiet --aptopt='Acquire::Retries "3"' --variant=essential --include=apt --dpkgopt='path-exclude=/usr/share/locale/*' bookworm debian.tar
debian=$(b from --pull-never scratch)
b add -q "$debian" debian.tar /
b commit -q "$debian" localhost/debian:bookworm-slim
modules=$(npm root --global)
mkdir -p node/usr/local/lib/node_modules node/usr/local/bin node/usr/local/etc
cp -a "$modules/npm" node/usr/local/lib/node_modules/
cp "$(readlink -f "$(command -v node)")" node/usr/local/bin/
ln -s ../lib/node_modules/npm/bin/npm-cli.js node/usr/local/bin/npm
# who signs the registry's certificate, where that is another than everybody's
authority=$(npm config get cafile)
if [ -f "$authority" ]; then
  mkdir -p "node$(dirname "$authority")"
  cp -L "$authority" "node$authority"
  echo "cafile=$authority" > node/usr/local/etc/npmrc
fi
b add -q "$debian" node /
b commit -q "$debian" localhost/node:20-bookworm-slim
b rm "$debian"
`;

describe("the image", () => {
  let scope: Scope.CloseableScope;
  let fake: FakeS3;
  const root = mkdtempSync(join(tmpdir(), "nameq-image-"));
  const running = new Set<ChildProcessWithoutNullStreams>();

  /** Runs a shell command that may say `docker`. */
  const shell = (command: string): ChildProcessWithoutNullStreams => {
    const child = spawn("sh", ["-c", command.replace(/^docker/, "exec docker")], {
      cwd: repository,
      env: {
        PATH: `${root}/bin:${process.env["PATH"]}`,
        DOCKER_ROOT: root,
        DOCKER_ENV: [`ADDR=${address}`, `S3_ENDPOINT=${fake.endpoint}`, "S3_PATH_STYLE=true"]
          .map((line) => `NAMEQ_${line}\n`)
          .join(""),
      },
    });
    running.add(child);
    child.once("close", () => running.delete(child));
    return child;
  };
  const ended = async (command: string): Promise<{ status: number | null; text: string }> => {
    const child = shell(command);
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (more) => (text += more));
    return new Promise((resolve) => child.once("close", (status) => resolve({ status, text })));
  };
  const until = async (what: string, condition: () => boolean | Promise<boolean>): Promise<void> => {
    for (const end = Date.now() + 20_000; !(await condition()); await sleep(20)) {
      if (Date.now() > end) throw new Error(`not within 20 s: ${what}\n${log.all.join("\n")}`);
    }
  };
  const [build = "", serve = "", ...others] = commands;
  const filled = (command: string): string =>
    command
      .replace("SECRETFILE", join(root, "secret"))
      .replace("S3CREDFILE", join(root, "s3creds"))
      .replace("REGION", fake.region)
      .replace("BUCKET", fake.bucket);
  let node: ChildProcessWithoutNullStreams;
  let log: Lines;
  const object = (): string => fake.objects.get(address)?.body.toString() ?? "";

  beforeAll(async () => {
    scope = await Effect.runPromise(Scope.make());
    fake = await Effect.runPromise(Scope.extend(FakeS3.make, scope));
    mkdirSync(join(root, "bin"));
    writeFileSync(
      join(root, "bin/docker"),
      `#!/bin/sh\nexec ${process.execPath} ${fileURLToPath(new URL("docker.mjs", import.meta.url))} "$@"\n`,
      { mode: 0o755 },
    );
    // root's alone, as secrets are
    writeFileSync(join(root, "secret"), "a secret of at least sixteen bytes", { mode: 0o600 });
    writeFileSync(join(root, "s3creds"), `${fake.accessKeyId} ${fake.secretAccessKey}\n`, { mode: 0o600 });
    const based = spawn("sh", ["-c", bases, "sh", root], { stdio: ["ignore", "ignore", "inherit"] });
    assert.strictEqual(await new Promise((resolve) => based.once("close", resolve)), 0);
    const { status, text } = await ended(build);
    assert.strictEqual(status, 0, text);
  }, 600_000);
  afterAll(async () => {
    for (const child of running) child.kill("SIGTERM");
    for (let i = 0; i < 100 && running.size > 0; i++) await sleep(50);
    for (const child of running) child.kill("SIGKILL");
    await Effect.runPromise(Scope.close(scope, Exit.void));
    rmSync(root, { recursive: true, force: true });
  });

  it("runs a node by the existing image's command, with a secret that only root can read", async () => {
    node = shell(filled(serve));
    log = new Lines(node.stderr);
    await until("it is registered", () => object() !== "");
    await until("it is ready", () => log.all.some((line) => line.includes("membership is known")));
  });

  it("offers a feature and shows it by the existing image's commands", async () => {
    const [feature = "", monitor = ""] = others;
    assert.deepStrictEqual(await ended(feature), { status: 0, text: "" });
    await until("the registry has it", () => object().includes('"FEATURE": true'));
    const watching = shell(monitor);
    const [line] = await new Lines(watching.stdout).first(1);
    assert.strictEqual(line, "FEATURE\t127.0.0.1\ttrue");
    watching.kill("SIGTERM");
  });

  it("is healthy while the node answers, even when the bucket is out of reach, and not when it hangs", async () => {
    assert.strictEqual((await ended("docker health nameq")).status, 0);
    fake.fault = () => ({ kind: "close" });
    const [feature = ""] = others;
    await ended(feature.replace("true", "false"));
    await until("it says so", () => log.all.some((line) => line.includes("level=error")));
    assert.strictEqual((await ended("docker health nameq")).status, 0);
    fake.fault = () => undefined;
    const { pid } = JSON.parse(readFileSync(join(root, "containers/nameq"), "utf8")) as { pid: number };
    const childOf = (parent: number | string): string =>
      readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim();
    const inside = Number(childOf(childOf(pid)));
    process.kill(inside, "SIGSTOP");
    try {
      assert.notStrictEqual((await ended("docker health nameq")).status, 0);
    } finally {
      process.kill(inside, "SIGCONT");
    }
  });

  it("leaves at SIGTERM", async () => {
    const status = new Promise((resolve) => node.once("close", resolve));
    node.kill("SIGTERM");
    assert.strictEqual(await status, 0);
    assert.notInclude(object(), "features");
  });

  it("runs as a user who is not root, too", async () => {
    const ofNode = serve.replace("--name=nameq", "--name=other --user=nameq:nameq");
    for (const file of ["secret", "s3creds"]) chmodSync(join(root, file), 0o644);
    node = shell(filled(ofNode));
    log = new Lines(node.stderr);
    await until("it is ready", () => log.all.some((line) => line.includes("membership is known")));
    assert.strictEqual((await ended("docker health other")).status, 0);
    const status = new Promise((resolve) => node.once("close", resolve));
    node.kill("SIGTERM");
    assert.strictEqual(await status, 0);
  });

  it("takes in the orphans of programs that it runs", async () => {
    const orphan = "(sleep 0.1 &); sleep 0.5; cat /proc/[0-9]*/stat";
    const { status, text } = await ended(`docker run --rm nameq run --feature x=true -- sh -c '${orphan}'`);
    assert.strictEqual(status, 0, text);
    assert.include(text, " (tini) ");
    assert.notInclude(text, " Z ");
  });
});
