/**
 * Builds the program: `dist/nameq.cjs`, a loader, and what it loads, each named by the hash of its content:
 *
 * - `program-HASH.cjs`: everything but the AWS SDK. Only the front is evaluated at the start, `serve`'s modules when it runs.
 * - `program-HASH-NODE-ARCH.cache`: V8's code cache for it, taken after it has run, so that compiled functions are in it.
 *   It halves the start. Another version of Node goes without.
 * - `aws-HASH.cjs`: the AWS SDK, loaded when a node with a bucket starts.
 * - `page/`: what the HTTP face answers browsers with, `index.html` and what it loads; `src/Http/PageFiles.ts` reads it.
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
  const temporary = path.join(dist, path.dirname(name), `.${path.basename(name)}.${process.pid}`);
  fs.writeFileSync(temporary, content, { mode });
  fs.renameSync(temporary, path.join(dist, name));
};

const hash = (content) => createHash("sha256").update(content).digest("hex").slice(0, 16);

/** Writes a bundle, and gives its name. */
const emit = (name, { outputFiles }) => {
  const code = outputFiles[0].text;
  // the loader reads it as Latin-1, which is faster and makes a smaller string
  if (/[^\0-\x7f]/.test(code)) throw new Error(`${name} is not ASCII`);
  const hashed = `${name}-${hash(code)}`;
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

/** Builds the page: names that hold the hash of the content, so that browsers may keep them. */
const buildPage = async () => {
  fs.mkdirSync(path.join(dist, "page"), { recursive: true });
  const bundle = await build({
    absWorkingDir: root,
    entryPoints: ["src/page/Main.tsx", "src/page/style.css"],
    bundle: true,
    format: "esm",
    target: ["es2022", "chrome109", "firefox115", "safari16"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: true,
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
    write: false,
    outdir: "dist/page",
  });
  const names = new Map();
  const assets = bundle.outputFiles.map(({ contents, path: file }) => [path.basename(file), contents]);
  for (const [name, content] of [...assets, ["icon.svg", fs.readFileSync(path.join(root, "src/page/icon.svg"))]]) {
    const { ext, name: stem } = path.parse(name);
    names.set(name, `${stem.toLowerCase()}-${hash(content)}${ext}`);
    put(`page/${names.get(name)}`, content);
  }
  const html = fs.readFileSync(path.join(root, "src/page/index.html"), "utf8");
  put("page/index.html", html.replaceAll(/\{\{(.*?)\}\}/g, (_, name) => names.get(name)).replaceAll(/\n\s*/g, "\n"));
  const current = new Set(["index.html", ...names.values()]);
  for (const name of fs.readdirSync(path.join(dist, "page"))) {
    if (!name.startsWith(".") && !current.has(name)) fs.rmSync(path.join(dist, "page", name), { force: true });
  }
  return bundle;
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
const page = await buildPage();
const bundle = await build({
  ...common,
  entryPoints: { program: "src/bin.ts" },
  define: { NAMEQ_DIST: "__dirname" },
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
put("THIRD-PARTY.txt", licences([bundle, sdk, page]));
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
