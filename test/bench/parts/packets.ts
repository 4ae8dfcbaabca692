/** What the benchmarks of datagrams share, for `bundle` and `use`. */
import * as Feature from "../../../src/Feature.js";

export { createSecretKey } from "node:crypto";
export * as Feature from "../../../src/Feature.js";
export * as Packet from "../../../src/Packet.js";

/** Features that make a datagram of about `size` bytes: 5 at 200 B, 27 at 500 B, 100 at 4 KB. */
export const featuresOf = (size: number, seed: number): Feature.FeatureSet => {
  const [count, digits] = size < 300 ? [5, 22] : size < 1_000 ? [27, 16] : [100, 66];
  let state = seed;
  const hex = (): string => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state.toString(16).padStart(8, "0");
  };
  return Feature.fromEntries(
    Array.from({ length: count }, (_, i) => {
      const id = Array.from({ length: Math.ceil(digits / 8) }, hex)
        .join("")
        .slice(0, digits);
      return [`feature-${i}` as Feature.FeatureName, Feature.FeatureValue(`{"port":${5_000 + i},"id":"${id}"}`)];
    }),
  );
};
