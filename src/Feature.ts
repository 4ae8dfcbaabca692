/** Features: a name, a value that is exact JSON text, and the set of them that a node advertises. */
import * as Brand from "effect/Brand";
import * as Schema from "effect/Schema";
import * as Json from "./Json.js";

const namePattern = /^[A-Za-z0-9_-]{1,255}$/;

/** One or more of `A-Z a-z 0-9 - _`, at most 255 characters (a file name's limit). */
export const FeatureName = Schema.String.pipe(
  Schema.pattern(namePattern, { message: () => "a feature name has 1 to 255 of the characters A-Z a-z 0-9 - _" }),
  Schema.brand("nameq/FeatureName"),
).annotations({ identifier: "FeatureName" });
export type FeatureName = typeof FeatureName.Type;

/** 1 for the characters that `namePattern` allows. A table, because every name of every datagram is looked at. */
const nameCharacters = new Uint8Array(128);
for (const character of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
  nameCharacters[character.charCodeAt(0)] = 1;
}

/** Whether `name` may be a feature's name, and so a directory's name in the tree. */
export const isFeatureName = (name: string): name is FeatureName => {
  if (name.length === 0 || name.length > 255) return false;
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code >= 128 || nameCharacters[code] === 0) return false;
  }
  return true;
};

/** A feature's value: canonical JSON text (see `Json`), never a JavaScript number. */
export type FeatureValue = string & Brand.Brand<"nameq/FeatureValue">;
export const FeatureValue = Brand.nominal<FeatureValue>();

/** The canonical value that a JSON text means, or where it is no JSON. */
export const parseValue = (text: string): FeatureValue | Json.JsonFault => {
  const value = Json.compact(text);
  return Json.isFault(value) ? value : FeatureValue(value);
};

/** The same of what a file holds. */
export const parseBytes = (bytes: Buffer): FeatureValue | Json.JsonFault => {
  const value = Json.compact(bytes.toString(), Json.maxDepth, bytes);
  return Json.isFault(value) ? value : FeatureValue(value);
};

const fileBase = 4096;
const fileFactor = 4;

/**
 * What a tree file or feature file holds: the value indented with tabs, and a newline. Deep nesting would multiply the
 * size, so a text that grows past 4 KiB + 4 times its compact size stays compact.
 */
export const fileText = (value: FeatureValue): string =>
  `${Json.indent(value, fileBase + fileFactor * value.length) ?? value}\n`;

/** Most features that one node may advertise. Source: PROTOCOL, section 1. */
export const maxFeatures = 4096;

/** What one node advertises. Immutable; `text` is compared before anything is parsed. */
export interface FeatureSet {
  /** JSON text of the object, as it was received or canonical with sorted names: equal texts mean equal sets. */
  readonly text: string;
  readonly entries: ReadonlyMap<FeatureName, FeatureValue>;
}

/** No features. */
export const empty: FeatureSet = { text: "{}", entries: new Map() };

/** The set with these entries; its text is canonical (names sorted, values compact). */
export const fromEntries = (entries: Iterable<readonly [FeatureName, FeatureValue]>): FeatureSet => {
  const sorted = new Map([...entries].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  if (sorted.size === 0) return empty;
  const text = `{${[...sorted].map(([name, value]) => `"${name}":${value}`).join(",")}}`;
  return { text, entries: sorted };
};

/** A parsed set, and the names in it that were refused (at most 8 of them, each cut at 64 characters). */
export interface ParsedSet {
  readonly set: FeatureSet;
  readonly refused: ReadonlyArray<string>;
}

/** Names that were read lately: a fleet has few, and all its sets share them. */
const names = new Map<string, FeatureName>();
const maxNames = 4_096;

const shared = (name: FeatureName): FeatureName => {
  const known = names.get(name);
  if (known !== undefined) return known;
  if (names.size >= maxNames) names.clear();
  // a slice would keep all that it was cut from
  const own = Buffer.from(name).toString() as FeatureName;
  names.set(own, own);
  return own;
};

/** Of the set that is being read: where each value starts and ends, and whether it is not canonical. */
const bounds = new Int32Array(3 * (maxFeatures + 2));

/** Expects the names of a set that is known, in its order: most sets differ little from the one before. */
class Expected {
  private readonly names: IterableIterator<FeatureName>;
  private next: FeatureName | undefined;

  constructor(private readonly known: FeatureSet) {
    this.names = known.entries.keys();
    this.next = this.names.next().value;
  }

  /** The expected name, if it is what stands at `from`, and ends there with a quote. */
  take(scanner: Json.Scanner, from: number, to: number): FeatureName | undefined {
    const { next } = this;
    if (next === undefined || next.length !== to - from || !scanner.isWord(next, from)) return undefined;
    this.next = this.names.next().value;
    return next;
  }

  /** Another name stood there: what comes may be what follows it in the known set. */
  missed(name: FeatureName): void {
    if (!this.known.entries.has(name)) return;
    while (this.next !== undefined && this.next !== name) this.next = this.names.next().value;
    this.next = this.names.next().value;
  }
}

/**
 * Reads the JSON object at `scanner.at` as a feature set, and moves past it. A member with a bad name is refused alone;
 * a fault refuses the whole. Values are slices of one copy of the object's text, so the document is not kept alive.
 * `known`: a set that it may resemble, which makes it faster.
 */
export const scanSet = (scanner: Json.Scanner, known = empty): ParsedSet | Json.JsonFault | "too-many" => {
  const start = scanner.at;
  const expected = new Expected(known);
  const found: Array<FeatureName> = [];
  const refused: Array<string> = [];
  let members = 0;
  const looseBefore = scanner.loose;
  const ok = scanner.skipMembers(-1, (keyAt, keyEnd) => {
    members++;
    const from = scanner.at;
    scanner.loose = false;
    if (!scanner.skipValue()) return false;
    let name = expected.take(scanner, keyAt + 1, keyEnd - 1);
    if (name === undefined) {
      const read = Json.unquote(scanner.slice(keyAt, keyEnd));
      if (!isFeatureName(read)) {
        if (refused.length < 8) refused.push(read.slice(0, 64));
        return true;
      }
      name = shared(read);
      expected.missed(name);
    }
    if (found.length <= maxFeatures) {
      const at = 3 * found.push(name);
      bounds[at] = from;
      bounds[at + 1] = scanner.at;
      bounds[at + 2] = scanner.loose ? 1 : 0;
    }
    return true;
  });
  scanner.loose = looseBefore;
  if (!ok) return scanner.fault();
  if (found.length > maxFeatures) return "too-many";
  if (members === 0) return { set: empty, refused };
  const own = scanner.copy(start, scanner.at);
  const entries = new Map<FeatureName, FeatureValue>();
  let at = 3;
  for (const name of found) {
    const raw = own.slice(bounds[at]! - start, bounds[at + 1]! - start);
    entries.set(name, FeatureValue(bounds[at + 2] === 1 ? Json.canonical(raw) : raw));
    at += 3;
  }
  return { set: { text: own.text, entries }, refused };
};

/** Reads a JSON object text (`-features`, an S3 object's `features`). */
export const parseSet = (text: string): ParsedSet | Json.JsonFault | "too-many" => {
  const scanner = Json.Scanner.of(text);
  scanner.skipSpace();
  const parsed = scanSet(scanner);
  if (parsed === "too-many" || Json.isFault(parsed)) return parsed;
  scanner.skipSpace();
  return scanner.atEnd ? parsed : scanner.fault();
};

/** What one host offers, by name. */
export type HostFeatures = ReadonlyMap<FeatureName, FeatureValue>;
