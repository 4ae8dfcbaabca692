// TypeScript of this package as plain JavaScript, for programs that run outside vitest.
import { build } from "esbuild";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** Where bundles stand: below the package, so that they find its dependencies. */
export const cache = join(here, "../node_modules/.cache/nameq");

/** Bundles the module `entry` (below `test`) into the file `name` of the cache; gives the file. */
export const bundle = async (entry, name, plugins = []) => {
  mkdirSync(cache, { recursive: true });
  const outfile = join(cache, name);
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
