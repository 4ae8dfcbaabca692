/** Generators for property tests. */
import * as fc from "effect/FastCheck";
import * as Feature from "../src/Feature.js";

const space = fc.stringOf(fc.constantFrom(" ", "\t", "\n", "\r"), { maxLength: 2 });

const number = fc.oneof(
  fc.constantFrom("12345678901234567890", "1e400", "0.10", "-0", "-0.0", "1E+2", "9007199254740993", "0"),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => JSON.stringify(n)),
);

const text = fc.oneof(
  fc.fullUnicodeString().map((s) => JSON.stringify(s)),
  fc.constantFrom('"\\ud800"', '"<b>&amp;\\/\u2028\u2029"', '"\\u003c"', '""', '"\\\\\\""'),
);

/** JSON text of any kind, with white space between its parts. */
export const jsonText: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: "small" },
    fc.constantFrom("true", "false", "null"),
    number,
    text,
    fc.array(fc.tuple(space, tie("value"), space), { maxLength: 4 }).map((items) => {
      return `[${items.map((item) => item.join("")).join(",") || " "}]`;
    }),
    fc.array(fc.tuple(space, text, space, space, tie("value"), space), { maxLength: 4 }).map((members) => {
      return `{${members.map(([a, key, b, c, value, d]) => `${a}${key}${b}:${c}${value}${d}`).join(",")}}`;
    }),
  ),
})).value;

export const featureName: fc.Arbitrary<Feature.FeatureName> = fc
  .stringMatching(/^[A-Za-z0-9_-]{1,12}$/)
  .map((name) => name as Feature.FeatureName);

export const featureValue: fc.Arbitrary<Feature.FeatureValue> = jsonText.map((json) => {
  const value = Feature.parseValue(json);
  if (typeof value !== "string") throw new Error(`the generator made no JSON: ${json}`);
  return value;
});

export const featureSet: fc.Arbitrary<Feature.FeatureSet> = fc
  .array(fc.tuple(featureName, featureValue), { maxLength: 6 })
  .map(Feature.fromEntries);

/** Around 2026, ns. */
export const timeNs: fc.Arbitrary<bigint> = fc.bigInt(1_700_000_000_000_000_000n, 1_900_000_000_000_000_000n);
