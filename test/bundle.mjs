// TypeScript of this package as plain JavaScript, for programs that run outside vitest.
import { build } from "esbuild";
import { mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** Below the package, so that what is bundled finds its dependencies. */
const cache = join(here, "../node_modules/.cache/nameq");
const made = [];
process.on("exit", () => made.forEach((file) => rmSync(file, { force: true })));

/** Bundles the module `entry` (below `test`) into a file that is there until this process ends; gives the file. */
export const bundle = async (entry, plugins = []) => {
  mkdirSync(cache, { recursive: true });
  const outfile = join(cache, `${process.pid}-${made.length}.mjs`);
  made.push(outfile);
  await build({
    entryPoints: [join(here, entry)],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
    logLevel: "error",
    plugins,
  });
  return outfile;
};
