/** The package as its users get it: packed, installed where nothing of this repository is, run, imported, and type-checked. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";

const repository = fileURLToPath(new URL("../..", import.meta.url));
const base = mkdtempSync(join(tmpdir(), "nameq-package-"));
const address = `127.46.${process.pid % 250}.4`;
const settings = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
};

const run = async (file: string, args: ReadonlyArray<string>, cwd = base): Promise<string> =>
  (await promisify(execFile)(file, args, { cwd, encoding: "utf8" })).stdout;

describe("the package", () => {
  const installed = join(base, "global/lib/node_modules/nameq");
  const running: Array<ChildProcess> = [];
  let archive: string;
  let files: ReadonlyArray<string>;

  beforeAll(async () => {
    await run("npm", ["pack", "--pack-destination", base], repository);
    archive = join(
      base,
      readdirSync(base).find((name) => name.endsWith(".tgz"))!,
    );
    files = (await run("tar", ["--list", "--file", archive])).trim().split("\n");
    await run("npm", ["install", "--global", "--prefix", join(base, "global"), archive]);
  });
  afterAll(() => {
    for (const child of running) child.kill("SIGKILL");
    rmSync(base, { recursive: true, force: true });
  });

  it("holds the program, the library, the page and the unit, and nothing else", () => {
    const rest = files.filter((file) => !/^package\/dist\/(?:lib|page)\//.test(file)).map((file) => file.slice(8));
    const names = rest.map((file) => file.replace(/-[0-9a-f]{16}(-v[\d.]+-\w+)?\./, "-HASH."));
    assert.deepStrictEqual(names.toSorted(), [
      "LICENSE",
      "README.md",
      "dist/THIRD-PARTY.txt",
      "dist/aws-HASH.cjs",
      "dist/nameq.cjs",
      "dist/nameq.service",
      "dist/program-HASH.cache",
      "dist/program-HASH.cjs",
      "package.json",
    ]);
    for (const file of ["lib/index.js", "lib/index.d.ts", "lib/testing.js", "lib/testing.d.ts", "page/index.html"]) {
      assert.include(files, `package/dist/${file}`);
    }
  });

  it("depends on what its library imports, and on no more", () => {
    const library = join(installed, "dist/lib");
    const imported = readdirSync(library)
      .filter((name) => name.endsWith(".js"))
      .map((name) => readFileSync(join(library, name), "utf8"))
      .flatMap((text) => [...text.matchAll(/^(?:import|export) .*?from "([^".][^"]*)";$|import\("([^".][^"]*)"\)/gm)])
      .map(([, fixed, dynamic]) => /^(?:@[^/]+\/)?[^/]+/.exec(fixed ?? dynamic ?? "")![0])
      .filter((name) => !name.startsWith("node:") && !builtinModules.includes(name) && name !== "nameq");
    const declared = [...Object.keys(settings.dependencies), ...Object.keys(settings.peerDependencies)];
    assert.deepStrictEqual([...new Set(imported)].toSorted(), declared.toSorted());
  });

  it("gives a program that runs and shows its page", async () => {
    const nameq = join(base, "global/bin/nameq");
    assert.match(await run(nameq, ["--version"]), /^\d+\.\d+\.\d+/);
    const port = 26_000 + (process.pid % 400);
    const args = ["serve", "--dev", "--dev-dir", join(base, "dev"), "--addr", address, "--port", String(port)];
    const child = spawn(nameq, [...args, "--http", `${address}:${port}`], { stdio: "ignore" });
    running.push(child);
    const ask = () => fetch(`http://${address}:${port}/`).catch(() => undefined);
    let page = await ask();
    for (const end = Date.now() + 20_000; page === undefined && Date.now() < end; page = await ask()) await sleep(50);
    assert.strictEqual(page?.status, 200);
    assert.include(await page?.text(), "<!doctype html>");
    child.kill("SIGTERM");
    assert.strictEqual(await new Promise((resolve) => child.once("close", resolve)), 0);
  });

  it("gives a library whose examples compile and run in a fresh project", async () => {
    const project = join(base, "project");
    mkdirSync(project);
    const { "@types/node": types, typescript } = settings.devDependencies;
    writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", private: true }));
    await run("npm", ["install", archive, `@types/node@${types}`, `typescript@${typescript}`], project);
    const examples = fileURLToPath(new URL("../examples", import.meta.url));
    for (const name of readdirSync(examples).filter((each) => each.endsWith(".ts"))) {
      copyFileSync(join(examples, name), join(project, name));
    }
    const options = { module: "NodeNext", target: "ES2022", lib: ["ES2023"], types: ["node"], strict: true };
    writeFileSync(
      join(project, "tsconfig.json"),
      JSON.stringify({ compilerOptions: { ...options, exactOptionalPropertyTypes: true, outDir: "built" } }),
    );
    await run("npx", ["tsc"], project);
    assert.match(await run(process.execPath, ["built/split.js"], project), /^true /);
  });
});
