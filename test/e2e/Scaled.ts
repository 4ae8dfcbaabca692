/**
 * The program as it is, only that what takes minutes takes a twentieth of them: for scenarios on real nodes that nobody
 * can wait for. The program itself has no such switch.
 */
import { readFileSync } from "node:fs";
import { bundle } from "../bundle.mjs";
import { defaults } from "../../src/Settings.js";

const scale = 20;

/** What concerns clocks, and what is short as it is. */
const kept: ReadonlySet<string> = new Set(["replayMs", "futureMs", "putSpacingMs", "settleMs", "shutdownMs"]);

const scaledValue = (name: string, value: unknown): unknown => {
  if (!name.endsWith("Ms") || kept.has(name)) return value;
  return Array.isArray(value) ? value.map((ms: number) => ms / scale) : Number(value) / scale;
};

/** The settings of such a node. */
export const settings = Object.fromEntries(
  Object.entries(defaults).map(([name, value]) => [name, scaledValue(name, value)]),
) as unknown as typeof defaults;

/** Builds it; gives its file, which is there until this process ends. */
export const build = (): Promise<string> =>
  bundle("../src/bin.ts", [
    {
      name: "scaled settings",
      setup: ({ onLoad }) =>
        onLoad({ filter: /\/src\/Settings\.ts$/ }, ({ path }) => ({
          contents: `${readFileSync(path, "utf8").replace("export const defaults", "const real")}
            void real;
            export const defaults = ${JSON.stringify(settings)};`,
          loader: "ts",
        })),
    },
  ]);
