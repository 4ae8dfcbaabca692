/**
 * Exact JSON text: validate, compact and indent without ever turning a number into a JavaScript number.
 *
 * The canonical form is the one of the existing program: no insignificant white space, and `<`, `>`, `&`, U+2028 and
 * U+2029 inside strings written as `\u003c` and so on. Everything else (number spelling, key order, duplicate keys,
 * escapes) stays as it was written.
 */

/** Deepest nesting of arrays and objects that is accepted anywhere. Source: PROTOCOL, section 1. */
export const maxDepth = 64;

/** Where and why a text is not JSON. `offset` counts UTF-16 code units from the start of the text. */
export interface JsonFault {
  readonly _tag: "JsonFault";
  readonly offset: number;
  readonly reason: "syntax" | "depth";
}

const fault = (offset: number, reason: JsonFault["reason"]): JsonFault => ({ _tag: "JsonFault", offset, reason });

/** True for the fault that the functions of this module return in place of a result. */
export const isFault = (value: unknown): value is JsonFault =>
  typeof value === "object" && value !== null && "_tag" in value && value._tag === "JsonFault";

const isDigit = (code: number | undefined): boolean => code !== undefined && code >= 48 && code <= 57;
const isHex = (code: number | undefined): boolean =>
  code !== undefined && (isDigit(code) || (code >= 97 && code <= 102) || (code >= 65 && code <= 70));

/** What a byte means inside a string: most of a document is read by these. */
const plain = 0;
const quote = 1;
const backslash = 2;
/** Valid, and written as an escape in the canonical form. */
const loose = 3;
const control = 4;
/** Of U+2028 and U+2029, which are `loose`, and of others. */
const separatorHead = 5;
const kinds = new Uint8Array(256);
kinds.fill(control, 0, 32);
kinds[34] = quote;
kinds[92] = backslash;
kinds[0xe2] = separatorHead;
for (const code of [38, 60, 62]) kinds[code] = loose;

/** Node's own way takes a third of the time; a browser has the other. */
const encode = (text: string): Uint8Array =>
  typeof Buffer === "undefined" ? new TextEncoder().encode(text) : Buffer.from(text);
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * A strict scanner over one text (RFC 8259), read as UTF-8: a byte of an array takes half the time of a string's
 * character. Each `skip…` moves `at` (bytes) past what it names and answers false at the first fault, leaving `at`
 * there. `loose` becomes true when something between two calls was not in canonical form.
 */
export class Scanner {
  at = 0;
  loose = false;
  tooDeep = false;
  /** Whether a place in the bytes is the same place in the text. */
  private readonly aligned: boolean;

  /** `text` is what `bytes` say. They are not kept longer than the scanner. */
  constructor(
    readonly bytes: Uint8Array,
    readonly text: string,
    readonly depthLimit = maxDepth,
  ) {
    this.aligned = text.length === bytes.length;
  }

  static of(text: string, depthLimit?: number): Scanner {
    return new Scanner(encode(text), text, depthLimit);
  }

  fault(): JsonFault {
    return fault(this.slice(0, this.at).length, this.tooDeep ? "depth" : "syntax");
  }

  /** The text between two places. It may keep the whole text alive. */
  slice(from: number, to: number): string {
    return this.aligned ? this.text.slice(from, to) : decoder.decode(this.bytes.subarray(from, to));
  }

  /** A scanner of this part, with a text of its own. */
  copy(from: number, to: number): Scanner {
    const bytes = this.bytes.subarray(from, to);
    return new Scanner(bytes, decoder.decode(bytes), this.depthLimit);
  }

  get atEnd(): boolean {
    return this.at === this.bytes.length;
  }

  /** The byte at `at`; undefined at the end. */
  get next(): number | undefined {
    return this.bytes[this.at];
  }

  skipSpace(): void {
    const { bytes } = this;
    const end = bytes.length;
    let at = this.at;
    while (at < end) {
      const code = bytes[at];
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) break;
      at++;
    }
    if (at !== this.at) {
      this.loose = true;
      this.at = at;
    }
  }

  /** Skips one ASCII character if it is the next one. */
  take(code: number): boolean {
    if (this.bytes[this.at] !== code) return false;
    this.at++;
    return true;
  }

  skipString(): boolean {
    const { bytes } = this;
    const end = bytes.length;
    let at = this.at;
    if (bytes[at] !== 34) return false;
    at++;
    while (at < end) {
      const kind = kinds[bytes[at]!];
      if (kind === plain) {
        at++;
      } else if (kind === quote) {
        this.at = at + 1;
        return true;
      } else if (kind === loose) {
        this.loose = true;
        at++;
      } else if (kind === separatorHead) {
        if (bytes[at + 1] === 0x80 && (bytes[at + 2] === 0xa8 || bytes[at + 2] === 0xa9)) this.loose = true;
        at++;
      } else if (kind === control) {
        break;
      } else {
        const escape = bytes[at + 1];
        if (escape === 117) {
          for (let i = 2; i < 6; i++) {
            if (!isHex(bytes[at + i])) {
              this.at = Math.min(at + i, end);
              return false;
            }
          }
          at += 6;
        } else if (
          escape === 34 ||
          escape === 92 ||
          escape === 47 ||
          escape === 98 ||
          escape === 102 ||
          escape === 110 ||
          escape === 114 ||
          escape === 116
        ) {
          at += 2;
        } else {
          this.at = at + 1;
          return false;
        }
      }
    }
    this.at = at;
    return false;
  }

  private skipDigits(): boolean {
    const { bytes } = this;
    const end = bytes.length;
    let at = this.at;
    while (at < end && isDigit(bytes[at])) at++;
    const some = at > this.at;
    this.at = at;
    return some;
  }

  private skipNumber(): boolean {
    this.take(45);
    if (!this.take(48) && !this.skipDigits()) return false;
    if (this.take(46) && !this.skipDigits()) return false;
    if (this.take(101) || this.take(69)) {
      if (!this.take(43)) this.take(45);
      return this.skipDigits();
    }
    return true;
  }

  private skipWord(word: string): boolean {
    if (!this.isWord(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  /** Whether `word`, of ASCII, stands at `from`. */
  isWord(word: string, from: number): boolean {
    for (let i = 0; i < word.length; i++) if (this.bytes[from + i] !== word.charCodeAt(i)) return false;
    return true;
  }

  /** Skips a value that starts right here (no leading white space). `depth` is how many containers are open. */
  skipValue(depth = 0): boolean {
    switch (this.bytes[this.at]) {
      case 34:
        return this.skipString();
      case 123:
        return this.skipMembers(depth);
      case 91:
        return this.skipArray(depth);
      case 116:
        return this.skipWord("true");
      case 102:
        return this.skipWord("false");
      case 110:
        return this.skipWord("null");
      default:
        return this.skipNumber();
    }
  }

  private skipArray(depth: number): boolean {
    if (depth >= this.depthLimit) {
      this.tooDeep = true;
      return false;
    }
    this.at++;
    this.skipSpace();
    if (this.take(93)) return true;
    for (;;) {
      if (!this.skipValue(depth + 1)) return false;
      this.skipSpace();
      if (this.take(93)) return true;
      if (!this.take(44)) return false;
      this.skipSpace();
    }
  }

  /**
   * Skips an object. At each value `onMember` is called with where its raw key (with its quotes) starts and ends: it
   * moves past the value, which `skipValue` does, and answers false at a fault.
   */
  skipMembers(depth: number, onMember?: (keyAt: number, keyEnd: number) => boolean): boolean {
    if (depth >= this.depthLimit) {
      this.tooDeep = true;
      return false;
    }
    if (!this.take(123)) return false;
    this.skipSpace();
    if (this.take(125)) return true;
    for (;;) {
      const keyAt = this.at;
      if (!this.skipString()) return false;
      const keyEnd = this.at;
      this.skipSpace();
      if (!this.take(58)) return false;
      this.skipSpace();
      if (!(onMember === undefined ? this.skipValue(depth + 1) : onMember(keyAt, keyEnd))) return false;
      this.skipSpace();
      if (this.take(125)) return true;
      if (!this.take(44)) return false;
      this.skipSpace();
    }
  }
}

/** The text of a raw key or string, quotes and escapes resolved. */
export const unquote = (raw: string): string => (raw.includes("\\") ? String(JSON.parse(raw)) : raw.slice(1, -1));

const escapes: Record<string, string> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/** Brings valid JSON to canonical form. These characters can stand only inside strings, so escaping needs no state. */
export const canonical = (valid: string): string => {
  let out = "";
  let from = 0;
  let inString = false;
  for (let at = 0; at < valid.length; at++) {
    const code = valid.charCodeAt(at);
    if (inString) {
      if (code === 92) at++;
      else if (code === 34) inString = false;
    } else if (code === 34) {
      inString = true;
    } else if (code === 32 || code === 10 || code === 13 || code === 9) {
      out += valid.slice(from, at);
      from = at + 1;
    }
  }
  return (out + valid.slice(from)).replaceAll(/[<>&\u2028\u2029]/g, (c) => escapes[c] ?? c);
};

/** Validates one JSON text (white space around it allowed; `bytes` if they are at hand) and gives its canonical form. */
export const compact = (text: string, depthLimit = maxDepth, bytes = encode(text)): string | JsonFault => {
  const scanner = new Scanner(bytes, text, depthLimit);
  scanner.skipSpace();
  if (!scanner.skipValue()) return scanner.fault();
  scanner.skipSpace();
  if (!scanner.atEnd) return scanner.fault();
  return scanner.loose ? canonical(text) : text;
};

/** A registry object wraps values two levels deeper. */
const tabs = Array.from({ length: maxDepth + 3 }, (_, depth) => `\n${"\t".repeat(depth)}`);

/**
 * The canonical text indented with tabs, as the existing program writes its files (no newline at the end).
 * `limit` (characters) bounds the result: undefined when it would be larger, because indentation can multiply the size
 * of deeply nested text.
 */
export const indent = (compactText: string, limit = Number.POSITIVE_INFINITY): string | undefined => {
  const first = compactText.charCodeAt(0);
  if (first !== 123 && first !== 91) return compactText;
  let out = "";
  let from = 0;
  let depth = 0;
  for (let at = 0; at < compactText.length; at++) {
    switch (compactText.charCodeAt(at)) {
      case 34:
        for (at++; compactText.charCodeAt(at) !== 34; at++) {
          if (compactText.charCodeAt(at) === 92) at++;
        }
        break;
      case 123:
      case 91: {
        const next = compactText.charCodeAt(at + 1);
        if (next === 125 || next === 93) {
          at++;
        } else {
          out += compactText.slice(from, at + 1) + tabs[++depth];
          from = at + 1;
        }
        break;
      }
      case 125:
      case 93:
        out += compactText.slice(from, at) + tabs[--depth];
        from = at;
        break;
      case 44:
        out += compactText.slice(from, at + 1) + tabs[depth];
        from = at + 1;
        break;
      case 58:
        out += `${compactText.slice(from, at + 1)} `;
        from = at + 1;
        break;
    }
    if (out.length > limit) return undefined;
  }
  out += compactText.slice(from);
  return out.length > limit ? undefined : out;
};
