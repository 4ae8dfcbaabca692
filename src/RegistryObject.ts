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
  const scanner = new Json.Scanner(body);
  let timeNs: bigint | undefined;
  let featuresAt = -1;
  let wellFormed = true;
  scanner.skipSpace();
  const ok = scanner.skipMembers(-1, (key, from, to) => {
    if (key === '"time_ns"') {
      if (/^\d{1,19}$/.test(body.slice(from, Math.min(to, from + 20)))) timeNs = BigInt(body.slice(from, to));
      else wellFormed = false;
    } else if (key === '"features"') {
      featuresAt = from;
      wellFormed &&= body.charCodeAt(from) === 123 || body.startsWith("null", from);
    }
  });
  scanner.skipSpace();
  if (!ok || !wellFormed || scanner.at !== body.length) return undefined;
  if (featuresAt < 0 || body.charCodeAt(featuresAt) !== 123) return { features: Feature.empty, timeNs, refused: [] };
  const parsed = Feature.scanSet(new Json.Scanner(body, featuresAt));
  if (parsed === "too-many" || Json.isFault(parsed)) return undefined;
  return { features: parsed.set, timeNs, refused: parsed.refused };
};
