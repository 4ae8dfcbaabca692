/**
 * The datagram: mode id, raw DEFLATE of JSON with a preset dictionary, HMAC-SHA1. Pure: bytes in, announcement or the
 * reason of the drop out. Layout: PROTOCOL, section 2.
 */
import { createHmac, type KeyObject, timingSafeEqual } from "node:crypto";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import type { Address } from "./Address.js";
import * as Feature from "./Feature.js";
import * as Json from "./Json.js";

/** One secret and the mode id that names it on the wire (0..127; from 128 up ids are kept for formats of ours). */
export interface Key {
  readonly mode: number;
  readonly secret: KeyObject;
}

/** The key that signs, and all that verify (the signing one among them). */
export interface Keyring {
  readonly sign: Key;
  readonly accept: ReadonlyArray<Key>;
}

/** What a node says about itself. */
export interface Announcement {
  /** As written in the packet; canonical when one of ours. */
  readonly address: string;
  /** The owner's clock, ns since the Unix epoch. Newest wins. */
  readonly timeNs: bigint;
  readonly features: Feature.FeatureSet;
  /** Names that were dropped from `features` because they may not be feature names. */
  readonly refused: ReadonlyArray<string>;
}

/** Why a datagram was dropped before its content could matter. */
export type PacketFault =
  | "too-short"
  | "unknown-mode"
  | "bad-hmac"
  | "bad-deflate"
  | "too-large"
  | "bad-json"
  | "too-deep"
  | "too-many-features";

/** The preset dictionary of the existing program. Source: PROTOCOL, section 2. */
const dictionary = Buffer.from('{"ip_addr":","time_ns":,"names":[","],"features":{":true,"}}}', "ascii");

const macBytes = 20;

/** Mode, one byte, HMAC. */
const leastBytes = 1 + 1 + macBytes;

/** Largest inflated packet, bytes. Source: PROTOCOL, section 1. */
export const maxInflatedBytes = 1024 * 1024;

const mac = (secret: KeyObject, signed: Uint8Array): Buffer => createHmac("sha1", secret).update(signed).digest();

const none: ReadonlyArray<string> = [];

/** The JSON text of an announcement: members in the existing program's order, each left out when empty, and a newline. */
export const announcementText = (announcement: Omit<Announcement, "refused">): string =>
  `{"ip_addr":"${announcement.address}","time_ns":${announcement.timeNs}${
    announcement.features.entries.size === 0 ? "" : `,"features":${announcement.features.text}`
  }}\n`;

/** Makes the datagram of an announcement whose features are canonical (see `Feature.fromEntries`). */
export const encode = (
  key: Key,
  announcement: { readonly address: Address; readonly timeNs: bigint; readonly features: Feature.FeatureSet },
): Buffer => {
  const deflated = deflateRawSync(announcementText(announcement), { dictionary });
  const signed = Buffer.allocUnsafe(1 + deflated.length + macBytes);
  signed[0] = key.mode;
  deflated.copy(signed, 1);
  const end = signed.length - macBytes;
  mac(key.secret, signed.subarray(0, end)).copy(signed, end);
  return signed;
};

/** Bytes of the JSON text that `encode` deflates: receivers refuse more than `maxInflatedBytes`. */
export const inflatedBytes = (announcement: Omit<Announcement, "refused">): number =>
  Buffer.byteLength(announcementText(announcement));

/** The features text that was last accepted from an address, so that the same text is not parsed again. */
export type KnownFeatures = (address: string) => Feature.FeatureSet | undefined;

const head = '{"ip_addr":"';
const timeHead = '","time_ns":';
const featuresHead = ',"features":';

/**
 * The common case, an announcement in the existing program's layout whose features are, to the letter, those already
 * known (and so validated) from its address. Undefined: take the general path.
 */
const scanUnchanged = (text: string, known: KnownFeatures): Announcement | undefined => {
  if (!text.startsWith(head)) return undefined;
  const addressEnd = text.indexOf('"', head.length);
  if (addressEnd < 0 || !text.startsWith(timeHead, addressEnd)) return undefined;
  const timeAt = addressEnd + timeHead.length;
  let at = timeAt;
  for (let code = text.charCodeAt(at); code >= 48 && code <= 57; code = text.charCodeAt(at)) at++;
  if (at - timeAt !== 19 || text.charCodeAt(timeAt) === 48) return undefined;
  const address = text.slice(head.length, addressEnd);
  const features = known(address);
  if (features === undefined) return undefined;
  if (features.entries.size === 0) {
    if (text.length !== at + 2) return undefined;
  } else {
    const from = at + featuresHead.length;
    if (text.length !== from + features.text.length + 2) return undefined;
    if (!text.startsWith(featuresHead, at) || !text.startsWith(features.text, from)) return undefined;
  }
  if (!text.endsWith("}\n")) return undefined;
  return { address, timeNs: BigInt(text.slice(timeAt, at)), features, refused: none };
};

const parseAnnouncement = (text: string): Announcement | PacketFault => {
  const scanner = new Json.Scanner(text);
  let address = "";
  let timeNs = 0n;
  let parsed: Feature.ParsedSet = { set: Feature.empty, refused: none };
  let tooMany = false;
  /** A member that we know, of another type than it has. */
  let mistyped = false;
  scanner.skipSpace();
  const ok = scanner.skipMembers(-1, (key) => {
    const from = scanner.at;
    if (key === '"features"' && text.charCodeAt(from) === 123) {
      const set = Feature.scanSet(scanner);
      if (set === "too-many") tooMany = true;
      if (set === "too-many" || Json.isFault(set)) return false;
      parsed = set;
      return true;
    }
    if (!scanner.skipValue()) return false;
    switch (key) {
      case '"ip_addr"':
        if (text.charCodeAt(from) === 34) address = Json.unquote(text.slice(from, scanner.at));
        else mistyped = true;
        break;
      case '"time_ns"': {
        // an int64: at most 19 digits; the exact range does not matter, the replay window is far narrower
        const number = text.slice(from, scanner.at);
        if (/^-?\d{1,19}$/.test(number)) timeNs = BigInt(number);
        else mistyped = true;
        break;
      }
      case '"features"':
        if (text.startsWith("null", from)) parsed = { set: Feature.empty, refused: none };
        else mistyped = true;
        break;
    }
    return true;
  });
  if (tooMany) return "too-many-features";
  if (!ok) return scanner.tooDeep ? "too-deep" : "bad-json";
  scanner.skipSpace();
  if (scanner.at !== text.length || mistyped || address === "") return "bad-json";
  return { address, timeNs, features: parsed.set, refused: parsed.refused };
};

const verified = (keyring: Keyring, bytes: Buffer): PacketFault | undefined => {
  const mode = bytes[0];
  const end = bytes.length - macBytes;
  let known = false;
  for (const key of keyring.accept) {
    if (key.mode !== mode) continue;
    known = true;
    if (timingSafeEqual(mac(key.secret, bytes.subarray(0, end)), bytes.subarray(end))) return undefined;
  }
  return known ? "bad-hmac" : "unknown-mode";
};

/** True for what `decode` answers in place of an announcement. */
export const isPacketFault = (decoded: Announcement | PacketFault): decoded is PacketFault =>
  typeof decoded === "string";

/**
 * Verifies, inflates (never past `maxInflatedBytes`) and reads a datagram. Whether its sender may say this, and
 * whether it is news, is for `Membership` to judge.
 */
export const decode = (keyring: Keyring, bytes: Buffer, known: KnownFeatures): Announcement | PacketFault => {
  if (bytes.length < leastBytes) return "too-short";
  const refused = verified(keyring, bytes);
  if (refused !== undefined) return refused;
  let text: string;
  try {
    text = inflateRawSync(bytes.subarray(1, bytes.length - macBytes), {
      dictionary,
      maxOutputLength: maxInflatedBytes,
    }).toString();
  } catch (error) {
    return error instanceof RangeError ? "too-large" : "bad-deflate";
  }
  return scanUnchanged(text, known) ?? parseAnnouncement(text);
};
