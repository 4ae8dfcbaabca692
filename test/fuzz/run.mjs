/**
 * Runs the fuzz test for a long time, from a seed of its own that is told:
 *
 *     npm run fuzz -- [--minutes 10] [--seed NUMBER]
 *
 * A failure names the seed of its case; with that seed it is the first case of its target.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { commandLine, misused } from "../commandLine.mjs";

const { values } = commandLine(import.meta.url, {
  options: { minutes: { type: "string", default: "10" }, seed: { type: "string" } },
});
const seconds = Number(values.minutes) * 60;
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
if (!(seconds > 0) || !Number.isInteger(seed)) misused("--minutes and --seed take numbers");
console.log(`seed ${seed}, ${seconds} s`);
const vitest = fileURLToPath(new URL("../../node_modules/vitest/vitest.mjs", import.meta.url));
const { status } = spawnSync(process.execPath, [vitest, "run", "test/Fuzz.test.ts", "--disable-console-intercept"], {
  cwd: fileURLToPath(new URL("../..", import.meta.url)),
  env: { ...process.env, NAMEQ_FUZZ_SECONDS: String(seconds), NAMEQ_FUZZ_SEED: String(seed) },
  stdio: "inherit",
});
process.exit(status ?? 1);
