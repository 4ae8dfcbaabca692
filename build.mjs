/**
 * Builds the program: `dist/nameq.cjs`, a loader, and what it loads, each named by the hash of its content:
 *
 * - `program-HASH.cjs`: everything but the AWS SDK. Only the front is evaluated at the start, `serve`'s modules when it runs.
 * - `program-HASH-NODE-ARCH.cache`: V8's code cache for it, taken after it has run, so that compiled functions are in it.
 *   It halves the start. Another version of Node goes without.
 * - `aws-HASH.cjs`: the AWS SDK, loaded when a node with a bucket starts.
 *
 * `THIRD-PARTY.txt` has the licences of what is bundled, `nameq.service` is the unit for systemd.
 *
 * Safe to run twice at once: files are renamed into place, the loader last.
 */
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(root, "dist");

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node20",
  format: "cjs",
  minify: true,
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
  write: false,
  outdir: "dist",
  // a script from the code cache has no way to import; and a bundled module needs none
  supported: { "dynamic-import": false },
};

const put = (name, content, mode = 0o644) => {
  const temporary = path.join(dist, `.${name}.${process.pid}`);
  fs.writeFileSync(temporary, content, { mode });
  fs.renameSync(temporary, path.join(dist, name));
};

/** Writes a bundle, and gives its name. */
const emit = (name, { outputFiles }) => {
  const code = outputFiles[0].text;
  // the loader reads it as Latin-1, which is faster and makes a smaller string
  if (/[^\0-\x7f]/.test(code)) throw new Error(`${name} is not ASCII`);
  const hashed = `${name}-${createHash("sha256").update(code).digest("hex").slice(0, 16)}`;
  put(`${hashed}.cjs`, code);
  return hashed;
};

/** The licences of all packages in the bundles, each text once. */
const licences = (bundles) => {
  const directories = new Set(
    bundles.flatMap(({ metafile }) =>
      Object.values(metafile.outputs).flatMap(({ inputs }) =>
        Object.entries(inputs).flatMap(([input, { bytesInOutput }]) =>
          bytesInOutput > 0 ? (/^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input) ?? []) : [],
        ),
      ),
    ),
  );
  const packages = new Map();
  for (const directory of directories) {
    const { license, name } = JSON.parse(fs.readFileSync(path.join(root, directory, "package.json"), "utf8"));
    const file = fs.readdirSync(path.join(root, directory)).find((each) => /^licen[cs]e/i.test(each));
    const text = file === undefined ? `Licence: ${license}` : fs.readFileSync(path.join(root, directory, file), "utf8");
    packages.set(text, [...(packages.get(text) ?? []), name].toSorted());
  }
  return [...packages]
    .map(([text, names]) => `${[...new Set(names)].join(", ")}\n\n${text.trim()}\n`)
    .join(`\n${"-".repeat(80)}\n\n`);
};

/** How a module is called, as Node's own loader does it. */
const wrapper = ["(function (exports, require, module, __filename, __dirname) { ", "\n})"];

/** Runs the light commands in one process and then takes the cache. */
const train = `
  const [file, cache, directory] = process.argv.splice(1);
  const { Script } = require("node:vm");
  const fs = require("node:fs");
  const [before, after] = ${JSON.stringify(wrapper)};
  const script = new Script(before + fs.readFileSync(file, "latin1") + after, { filename: file });
  const features = ["--feature-dir", directory + "/own"];
  fs.mkdirSync(directory + "/state/features/web", { recursive: true });
  fs.writeFileSync(directory + "/state/features/web/127.0.0.1", '{"port":80}');
  const tree = ["--state-dir", directory + "/state"];
  const lines = [
    ["feature", ...features, "web", '{"port":80}'],
    ["feature", ...features, "--rm", "web"],
    ["find-features", ...tree, "--timeout", "0", "web"],
    ["list", ...tree],
    ["--version"],
    ["serve", "--help"],
  ];
  process.on("beforeExit", () => {
    const line = lines.shift();
    if (line === undefined) return fs.writeFileSync(cache, script.createCachedData());
    process.argv = [process.execPath, file, ...line];
    script.runInThisContext()({}, require, module, file, __dirname);
    setImmediate(() => {}); // so that there is another beforeExit
  });
`;

const loader = (program, cache) => `#!/usr/bin/env node
"use strict";
const { readFileSync } = require("node:fs");
const file = __dirname + "/${program}.cjs";
let cachedData;
try {
  cachedData = readFileSync(__dirname + "/${cache("process.version", "process.arch")});
} catch {}
if (cachedData === undefined) {
  // another Node than the one of the build: later ones have a cache of their own
  require("node:module").enableCompileCache?.();
  require(file);
} else {
  const { Script } = require("node:vm");
  const code = ${JSON.stringify(wrapper[0])} + readFileSync(file, "latin1") + ${JSON.stringify(wrapper[1])};
  new Script(code, { filename: file, cachedData }).runInThisContext()(exports, require, module, file, __dirname);
}
`;

fs.mkdirSync(dist, { recursive: true });
const sdk = await build({
  ...common,
  stdin: { contents: `export * from "@aws-sdk/client-s3"`, resolveDir: root },
  mainFields: ["module", "main"],
  conditions: ["module"],
});
const aws = emit("aws", sdk);
const bundle = await build({
  ...common,
  entryPoints: { program: "src/bin.ts" },
  plugins: [
    {
      name: "aws",
      setup: ({ onResolve }) => {
        onResolve({ filter: /^@aws-sdk\/client-s3$/ }, () => ({ path: `./${aws}.cjs`, external: true }));
      },
    },
  ],
});
const stray = Object.keys(bundle.metafile.inputs).find((input) => /node_modules\/@(?:aws-sdk|smithy)\//.test(input));
if (stray !== undefined) throw new Error(`${stray} is in the program's own file; load it with the SDK`);
const program = emit("program", bundle);
put("THIRD-PARTY.txt", licences([bundle, sdk]));
put("nameq.service", fs.readFileSync(path.join(root, "src/systemd/nameq.service")));

const work = fs.mkdtempSync(path.join(tmpdir(), "nameq-build-"));
const cacheFile = `${program}-${process.version}-${process.arch}.cache`;
try {
  const taken = path.join(work, "cache");
  const file = path.join(dist, `${program}.cjs`);
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(?:NAMEQ|NODE)_/.test(name)),
  );
  const { status, stderr } = spawnSync(process.execPath, ["-e", train, file, taken, work], {
    env: environment,
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
  });
  if (status !== 0 || stderr !== "") throw new Error(`the program does not run:\n${stderr}`);
  put(cacheFile, fs.readFileSync(taken));
} finally {
  fs.rmSync(work, { recursive: true });
}
put(
  "nameq.cjs",
  loader(program, (nodeVersion, arch) => `${program}-" + ${nodeVersion} + "-" + ${arch} + ".cache"`),
  0o755,
);

const current = new Set([`${aws}.cjs`, `${program}.cjs`, cacheFile]);
for (const name of fs.readdirSync(dist)) {
  if (/^(?:aws|program)-.*\.(?:cjs|cache)$/.test(name) && !current.has(name)) {
    fs.rmSync(path.join(dist, name), { force: true });
  }
}
