/** Hostile input from a seed: JSON text and bytes that a careless reader would choke on. */
import { deflateRawSync, constants } from "node:zlib";
import { Prng } from "../../src/Prng.js";

export class Source {
  private readonly prng: Prng;

  constructor(readonly seed: number) {
    this.prng = Prng.seeded(seed);
  }

  /** 0 .. `below` - 1. */
  int(below: number): number {
    return Math.floor(this.prng.float() * below);
  }

  chance(probability: number): boolean {
    return this.prng.float() < probability;
  }

  pick<A>(all: ReadonlyArray<A>): A {
    return all[this.int(all.length)]!;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.int(256)));
  }

  /** The same bytes with a few of them changed, gone, doubled or moved. */
  mutate(bytes: Buffer): Buffer {
    let out = bytes;
    for (let times = 1 + this.int(4); times > 0; times--) {
      const at = this.int(out.length + 1);
      const length = this.int(Math.min(out.length - at, 16) + 1);
      const [before, part, after] = [out.subarray(0, at), out.subarray(at, at + length), out.subarray(at + length)];
      const middle = this.pick([
        () => [],
        () => [part, part],
        () => [after.subarray(0, 4), part],
        () => [this.bytes(1 + this.int(3)), part],
        () => [Buffer.from(this.pick(pieces)), part],
        () => [Buffer.from(part.map((byte) => byte ^ (1 << this.int(8))))],
      ])();
      out = Buffer.concat([before, ...middle, after]);
    }
    return out;
  }

  /** A few characters, most of them with a meaning somewhere. */
  word(): string {
    return Array.from({ length: this.int(6) }, () => this.pick(pieces)).join("");
  }

  /** JSON text, nearly: now and then something in it is none. */
  json(depth = 0): string {
    const kind = this.int(depth > 4 ? 3 : 6);
    if (this.chance(0.03)) return this.pick(faulty);
    if (kind === 0) return this.pick(numbers);
    if (kind === 1) return this.pick(strings);
    if (kind === 2) return this.pick(odd);
    const space = this.chance(0.2) ? this.pick([" ", "\n\t", "\r\n"]) : "";
    const parts = Array.from({ length: this.int(4) }, () => {
      const value = `${space}${this.json(depth + 1)}`;
      return kind === 3 ? value : `${this.name()}${space}:${value}`;
    });
    const inner = parts.join(`${space},`);
    return kind === 3 ? `[${inner}${space}]` : `{${space}${inner}}`;
  }

  /** An object's member name, with its quotes. */
  name(): string {
    return this.chance(0.6) ? `"f${this.int(5)}"` : this.pick(names);
  }

  /** A feature object's text. */
  features(): string {
    if (this.chance(0.004)) {
      const count = 4_094 + this.int(5);
      return `{${Array.from({ length: count }, (_, i) => `"n${i}":${i}`).join(",")}}`;
    }
    if (this.chance(0.05)) return this.json();
    return `{${Array.from({ length: this.int(5) }, () => `${this.name()}:${this.json()}`).join(",")}}`;
  }
}

const nested = (depth: number, [open, close]: readonly [string, string] = ["[", "]"], inner = ""): string =>
  open.repeat(depth) + inner + close.repeat(depth);

const pieces: ReadonlyArray<string> = [
  [...'{}[]:,"\\/0123456789.-+eEtfn \n\t<>&'],
  [
    "\\u",
    "\\ud800",
    "\u2028",
    "\u0000",
    "\ufeff",
    "\ud83d\ude00",
    "true",
    "null",
    "features",
    '"ip_addr"',
    "..",
    "\x7f",
  ],
].flat();

const numbers: ReadonlyArray<string> = [
  ["0", "-0", "0.10", "1e400", "-1E+400", "12345678901234567890", "9007199254740993", "1e-400", "1E5"],
  "9".repeat(5_000),
  `0.${"0".repeat(5_000)}1`,
  `1e${"9".repeat(400)}`,
].flat();

const strings: ReadonlyArray<string> = [
  ['""', '"a"', '"<&>\u2028\u2029"', '"\\u003c\\/\\b\\f"', '"\\ud800"', '"\\udc00\\ud800"', '"\u{1f600}"', '"\\\\\\""'],
  `"${"x".repeat(20_000)}"`,
  `"${"<".repeat(3_000)}"`,
  `"${"\\u0000".repeat(3_000)}"`,
].flat();

const names: ReadonlyArray<string> = [
  ['"../../x"', '"."', '".."', '""', '"a/b"', '"a\\u0000"', '"a\\n"', '"\\u0061"', '"\\u002e\\u002e"', '"A-Z_0"'],
  ['"__proto__"', '"constructor"', '"toString"', '"\u00e5"', '"a "', '"features"', '"time_ns"', '"\\""'],
  `"${"n".repeat(255)}"`,
  `"${"n".repeat(256)}"`,
  `"${"\\u006e".repeat(255)}"`,
  `"${"n".repeat(70_000)}"`,
].flat();

const odd: ReadonlyArray<string> = [
  ["true", "false", "null", "[]", "{}", '{"a":1,"a":2,"a":{"b":3}}', '{"__proto__":{"x":1}}'],
  [61, 62, 63].map((depth) => nested(depth)),
  [61, 62, 63].map((depth) => nested(depth, ['{"a":', "}"], "1")),
  nested(31, ['[1,{"a":', ',"b":[]}]'], "{}"),
].flat();

/** No JSON, or deeper than it may be. */
const faulty: ReadonlyArray<string> = [
  ["01", "-", "1.", ".5", "+1", "1e", "1e+", "0x10", "NaN", "Infinity", "1_000", "-01", "1.e1", "tru", "nulll", ""],
  ['"\\x"', '"\\u12"', '"\\u12g4"', '"\n"', '"\t"', '"\\"', '"\u0000"', "'a'", '"', '"\\', '"\\u', '"a""b"', "/**/1"],
  ["[,]", "[1,]", "{,}", '{"a"}', '{"a":}', "[1 2]", "{a:1}", "{1:1}", '{"a":1,}', "\ufeff1", "\v1", "\u00a01"],
  [64, 65, 66, 1_000, 100_000].map((depth) => nested(depth)),
  [64, 65, 50_000].map((depth) => nested(depth, ['{"":', "}"], "0")),
  "[".repeat(200_000),
].flat();

const addresses: ReadonlyArray<string> = [
  ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "192.0.2.255", "fd00::1", "FD00:0::1", "::1"],
  ["010.0.0.2", "10.0.0.2 ", "10.0.0.256", "10.0.2", "0x0a000002", "167772162", "::ffff:10.0.0.2", "::10.0.0.2"],
  ["fe80::1", "fe80::1%eth0", "fd00::1%1", "0.0.0.0", "127.0.0.1", "127.0.0.2", "255.255.255.255", "224.0.0.1", "::"],
  ["ff02::1", "169.254.1.1", "0.1.2.3", "240.0.0.1", "", "localhost", "../../x", "10.0.0.2/24", "[fd00::1]"],
  "1".repeat(10_000),
].flat();

/** An address, or what looks like one. */
export const address = (source: Source): string =>
  source.chance(0.5) ? `10.0.${source.int(2)}.${source.int(256)}` : source.pick(addresses);

/** Values of our own members, right and wrong. */
const remarks: ReadonlyArray<string> = [
  ["true", "true", "false", "null", "1", '"true"', "truex", "[true]", '"0.1.0"', '"1.0.0-rc.1+b_2"', '""', '"\\u0031"'],
  [`"${"9".repeat(32)}"`, `"${"9".repeat(33)}"`, `"${"9".repeat(100_000)}"`, '"1\n2"', '"\u00e5"', '"a b"', '"../.."'],
].flat();

/** The text of an announcement by `ip` at about `nowNs`, more or less. */
export const announcement = (source: Source, ip: string, nowNs: bigint): Buffer => {
  const offMs = source.pick([0, 0, 0, 0, -14_999, -15_001, 14_999, 15_001, 1, -1, 1e6, -1e6]);
  const times = [
    "-1",
    "0",
    "1e18",
    "1.5",
    "null",
    '"1"',
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
  ];
  const time = source.chance(0.85) ? String(nowNs + BigInt(offMs * 1e6)) : source.pick([...times, "9".repeat(100_000)]);
  const quoted = source.chance(0.95) ? `"${ip}"` : source.pick(["null", "1", "[]", `"\\u0031${ip.slice(1)}"`, '"']);
  const members = [`"ip_addr":${quoted}`, `"time_ns":${time}`];
  if (source.chance(0.85)) members.push(`"features":${source.features()}`);
  for (const name of ["version", "ask", "leaving"]) {
    if (source.chance(0.3)) members.push(`"${name}":${source.chance(0.8) ? source.pick(remarks) : source.json()}`);
  }
  if (source.chance(0.1)) members.push(`"names":${source.json()}`, `${source.name()}:${source.json()}`);
  if (source.chance(0.1)) members.push(source.pick(members));
  if (source.chance(0.1)) members.reverse();
  if (source.chance(0.02)) members.shift();
  const text = Buffer.from(
    `{${members.join(",")}}${source.chance(0.9) ? "\n" : source.pick(["", " \n\n", "x", "{}"])}`,
  );
  return source.chance(0.3) ? source.mutate(text) : text;
};

/** The preset dictionary of the protocol. */
export const dictionary = Buffer.from('{"ip_addr":","time_ns":,"names":[","],"features":{":true,"}}}');

const bombs = [
  Buffer.from(`{"ip_addr":"10.0.0.2","time_ns":1795000000000000000${" ".repeat(40_000_000)}`),
  Buffer.alloc(1024 * 1024 + 1, "["),
  Buffer.alloc(1024 * 1024, '{"":'),
].map((bomb) => deflateRawSync(bomb, { dictionary }));

/** Deflated in some way; some of them are none. */
export const deflated = (source: Source, text: Buffer): Buffer => {
  switch (source.int(20)) {
    case 0:
      return source.chance(0.1) ? source.pick(bombs) : text;
    case 1:
      return deflateRawSync(text);
    case 2:
      return deflateRawSync(text, { dictionary, finishFlush: constants.Z_SYNC_FLUSH });
    case 3:
      return Buffer.concat([deflateRawSync(text, { dictionary }), source.bytes(source.int(5))]);
    case 4:
      return source.mutate(deflateRawSync(text, { dictionary }));
    default:
      return deflateRawSync(text, { dictionary, level: source.int(10) });
  }
};
