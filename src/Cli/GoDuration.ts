/** Durations as the existing program's options spell them: `1m30s`, `1.5h`, `500ms`, `-1s`, `0`. Pure. */

const unitNs: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  "\u00b5s": 1_000n,
  "\u03bcs": 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};

const part = String.raw`(\d*)(?:\.(\d*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)`;
const whole = new RegExp(`^[-+]?(?:${part})+$`);
const parts = new RegExp(part, "g");

/** Go holds a duration in 64 bits: 292 years. */
const maxNs = 2n ** 63n - 1n;

/** The duration in milliseconds (with a fraction), or undefined when it is none. */
export const parse = (text: string): number | undefined => {
  if (/^[-+]?0$/.test(text)) return 0;
  if (!whole.test(text)) return undefined;
  let ns = 0n;
  for (const [, integer = "", fraction = "", unit = ""] of text.matchAll(parts)) {
    if (integer === "" && fraction === "") return undefined;
    const size = unitNs[unit]!;
    ns += BigInt(integer) * size + (BigInt(fraction) * size) / 10n ** BigInt(fraction.length);
    if (ns > maxNs) return undefined;
  }
  return ((text.startsWith("-") ? -1 : 1) * Number(ns)) / 1e6;
};
