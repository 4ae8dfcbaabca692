/**
 * The body of a node's object in the registry: `{"features":{...}}` indented with tabs, as the existing program writes
 * it, and our own `time_ns` member, which it ignores. Pure. Format: PROTOCOL, section 3.
 */
import * as Feature from "./Feature.js";
import * as Json from "./Json.js";

/** What an object says. */
export interface RegistryContent {
  readonly features: Feature.FeatureSet;
  /** The owner's clock; undefined in the existing program's objects, where LastModified counts. */
  readonly timeNs: bigint | undefined;
  readonly refused: ReadonlyArray<string>;
}

/** The body of an object. */
export const encode = (features: Feature.FeatureSet, timeNs: bigint): string => {
  const members = features.entries.size === 0 ? "" : `"features":${features.text},`;
  const text = `{${members}"time_ns":${timeNs}}`;
  return `${Json.indent(text, 4096 + 4 * text.length) ?? text}\n`;
};

/** Reads a body; undefined when it is no node's object. Unknown members are ignored. */
export const decode = (body: string): RegistryContent | undefined => {
  const scanner = Json.Scanner.of(body);
  let timeNs: bigint | undefined;
  let parsed: Feature.ParsedSet = { set: Feature.empty, refused: [] };
  scanner.skipSpace();
  const ok = scanner.skipMembers(-1, (keyAt, keyEnd) => {
    const key = scanner.slice(keyAt, keyEnd);
    const from = scanner.at;
    if (key === '"features"' && scanner.next === 123) {
      const set = Feature.scanSet(scanner);
      if (set === "too-many" || Json.isFault(set)) return false;
      parsed = set;
      return true;
    }
    if (!scanner.skipValue()) return false;
    if (key === '"features"') {
      parsed = { set: Feature.empty, refused: [] };
      return scanner.isWord("null", from);
    }
    if (key === '"time_ns"') {
      const number = scanner.slice(from, scanner.at);
      if (!/^\d{1,19}$/.test(number)) return false;
      timeNs = BigInt(number);
    }
    return true;
  });
  scanner.skipSpace();
  if (!ok || !scanner.atEnd) return undefined;
  return { features: parsed.set, timeNs, refused: parsed.refused };
};
