import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { parse } from "../src/Cli/GoDuration.js";

describe("Go durations", () => {
  const good: ReadonlyArray<readonly [text: string, ms: number]> = [
    ["0", 0],
    ["+0", 0],
    ["-0", 0],
    ["0s", 0],
    ["500ms", 500],
    ["1m30s", 90_000],
    ["1.5h", 5_400_000],
    [".5s", 500],
    ["5.s", 5_000],
    ["-1s", -1_000],
    ["+1s", 1_000],
    ["250us", 0.25],
    ["250\u00b5s", 0.25],
    ["250\u03bcs", 0.25],
    ["1ns", 1e-6],
    ["1h1m1s1ms1us", 3_661_001.001],
    ["30s1m", 90_000],
    ["2562047h47m16.854775807s", 9_223_372_036_854.775],
  ];
  for (const [text, ms] of good) it(`takes ${text}`, () => assert.strictEqual(parse(text), ms));

  const bad = [
    "",
    "1",
    "1.5",
    "s",
    ".s",
    "-",
    "+",
    "1x",
    "1d",
    "1S",
    " 1s",
    "1s ",
    "1 s",
    "1s-1s",
    "--1s",
    "1.2.3s",
    "1e3s",
    "infinite",
    "2562048h",
    "1,5s",
  ];
  for (const text of bad) it(`refuses "${text}"`, () => assert.isUndefined(parse(text)));

  it("adds its parts up", () => {
    const part = fc.integer({ min: 0, max: 1_000 });
    fc.assert(
      fc.property(part, part, part, part, (h, m, s, ms) => {
        assert.strictEqual(parse(`${h}h${m}m${s}s${ms}ms`), ((h * 60 + m) * 60 + s) * 1_000 + ms);
        assert.strictEqual(parse(`${s}.${String(ms).padStart(4, "0")}s`), s * 1_000 + ms / 10);
      }),
    );
  });
});
