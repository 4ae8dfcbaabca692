/**
 * The datagram: mode id, raw DEFLATE of JSON with a preset dictionary, HMAC-SHA1. Pure: bytes in, announcement or the
 * reason of the drop out. Layout: PROTOCOL, section 2.
 */
import * as crypto from "node:crypto";
import { createHash, createHmac, type KeyObject, timingSafeEqual } from "node:crypto";
import { constants, createInflateRaw, deflateRawSync, inflateRawSync } from "node:zlib";
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
  readonly remarks: Remarks;
}

/** What our announcements say beside the existing program's members; that ignores them. */
export interface Remarks {
  /** The program's version: at most 32 of `A-Z a-z 0-9 . + - _`. Undefined: none, or another program. */
  readonly version: string | undefined;
  /** Please announce yourself to me at once. */
  readonly ask: boolean;
  /** A goodbye: features are gone because the node is. */
  readonly leaving: boolean;
}

/** The existing program's. */
export const noRemarks: Remarks = { version: undefined, ask: false, leaving: false };

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

/**
 * Least output buffer of an inflation, bytes: from 2.5 to 3 times the input is usual. Node's own 16 KiB a datagram are
 * memory outside its heap, whose release costs 2 us.
 */
const leastChunkBytes = 1024;

/** Largest inflated packet, bytes. Source: PROTOCOL, section 1. */
export const maxInflatedBytes = 1024 * 1024;

/** SHA-1 in one call, where Node has it (20.12). */
const sha1 =
  crypto.hash === undefined ? undefined : (bytes: Uint8Array): string => crypto.hash("sha1", bytes, "binary");

/** Bytes of a SHA-1 block, and the most that are copied behind one to be signed in one call. */
const blockBytes = 64;
const mostCopied = 2048;

/** By key, room for both texts that HMAC (RFC 2104) hashes: each begins with the padded key. */
const rooms = new WeakMap<KeyObject, { readonly inner: Buffer; readonly outer: Buffer }>();

const roomOf = (secret: KeyObject): { readonly inner: Buffer; readonly outer: Buffer } => {
  let room = rooms.get(secret);
  if (room === undefined) {
    const bytes = secret.export();
    const short = bytes.length > blockBytes ? createHash("sha1").update(bytes).digest() : bytes;
    room = { inner: Buffer.alloc(blockBytes + mostCopied, 0x36), outer: Buffer.alloc(blockBytes + macBytes, 0x5c) };
    for (let i = 0; i < short.length; i++) {
      room.inner[i]! ^= short[i]!;
      room.outer[i]! ^= short[i]!;
    }
    rooms.set(secret, room);
  }
  return room;
};

const lastMac = Buffer.alloc(macBytes);

/**
 * HMAC-SHA1, valid until the next call. Two plain hashes take 1.1 us, and 34 us in a process that does it rarely;
 * an Hmac object 2.8 and 71 us.
 */
const mac = (secret: KeyObject, signed: Uint8Array): Buffer => {
  if (sha1 === undefined || signed.length > mostCopied) return createHmac("sha1", secret).update(signed).digest();
  const { inner, outer } = roomOf(secret);
  inner.set(signed, blockBytes);
  outer.write(sha1(inner.subarray(0, blockBytes + signed.length)), blockBytes, "latin1");
  lastMac.write(sha1(outer), "latin1");
  return lastMac;
};

const none: ReadonlyArray<string> = [];

/** What an announcement says: its features are canonical (see `Feature.fromEntries`). */
export interface Saying {
  readonly address: string;
  readonly timeNs: bigint;
  readonly features: Feature.FeatureSet;
  readonly remarks?: Remarks;
}

const tailOf = ({ version, ask, leaving }: Remarks): string =>
  `${version === undefined ? "" : `,"version":"${version}"`}${ask ? `,"ask":true` : ""}${leaving ? `,"leaving":true` : ""}}\n`;

/**
 * The JSON text of an announcement: members in the existing program's order, each left out when empty, then ours, and a
 * newline.
 */
export const announcementText = ({ address, timeNs, features, remarks = noRemarks }: Saying): string =>
  `{"ip_addr":"${address}","time_ns":${timeNs}${
    features.entries.size === 0 ? "" : `,"features":${features.text}`
  }${tailOf(remarks)}`;

/**
 * Texts up to so many bytes are not compressed, which would save less than 130 bytes of a packet and take 0.1 ms in a
 * process that does it rarely: most of what a small change costs.
 */
const mostStored = 256;

/** Of a DEFLATE block that is stored: 1 (the last one, stored), its length and the complement of that. */
const storedHead = 5;

const compress = (text: string): Buffer => {
  const bytes = Buffer.byteLength(text);
  if (bytes <= mostStored) {
    const stored = Buffer.allocUnsafe(storedHead + bytes);
    stored[0] = 1;
    stored.writeUInt16LE(bytes, 1);
    stored.writeUInt16LE(bytes ^ 0xffff, 3);
    stored.write(text, storedHead);
    return stored;
  }
  // no more window than there is text: zlib's tables, 256 KiB at the most, are made anew for each packet
  const windowBits = Math.min(15, 32 - Math.clz32(bytes + dictionary.length));
  return deflateRawSync(text, { dictionary, windowBits, memLevel: windowBits - 7 });
};

/** What a DEFLATE stream of one stored block holds; undefined for any other stream. */
const storedIn = (deflated: Buffer): Buffer | undefined => {
  const bytes = deflated.length - storedHead;
  return bytes >= 0 &&
    deflated[0] === 1 &&
    deflated.readUInt16LE(1) === bytes &&
    deflated.readUInt16LE(3) === (bytes ^ 0xffff)
    ? deflated.subarray(storedHead)
    : undefined;
};

/** What is behind Node's `InflateRaw`, which has no public call that inflates at once and can be repeated. */
interface InflateInside {
  readonly destroyed: boolean;
  readonly _handle: {
    readonly reset: () => void;
    readonly writeSync: (
      flush: number,
      from: Buffer,
      at: number,
      size: number,
      to: Buffer,
      toAt: number,
      room: number,
    ) => void;
  };
  /** After a write: bytes of room that are left, bytes of input that are left. */
  readonly _writeState: Uint32Array;
}

/** The major version of Node whose inside was looked at: in any other, each inflation makes a stream of its own. */
const knownInside = process.versions.node.startsWith("20.");

/** What a datagram inflates to, until the next one is. A larger one goes the general way. */
const room = knownInside ? Buffer.allocUnsafeSlow(16 * 1024) : Buffer.alloc(0);

let inside: InflateInside | undefined;

/**
 * Inflates with one stream for all: to make one for each datagram, and memory for what comes out, is half of the cost
 * (7.4 us; so 4.0). Undefined: go the general way, for bad input too; a stream that met some is closed for good.
 */
const inflateAgain = (deflated: Buffer): Buffer | undefined => {
  if (!knownInside) return undefined;
  if (inside === undefined || inside.destroyed) {
    const stream = createInflateRaw({ dictionary, chunkSize: constants.Z_MIN_CHUNK });
    // told by `destroyed`
    stream.on("error", () => {});
    inside = stream as unknown as InflateInside;
  }
  const { _handle: handle, _writeState: left } = inside;
  handle.reset();
  handle.writeSync(constants.Z_FINISH, deflated, 0, deflated.length, room, 0, room.length);
  return inside.destroyed || left[0] === 0 ? undefined : room.subarray(0, room.length - left[0]!);
};

const inflate = (deflated: Buffer): Buffer | PacketFault => {
  const ready = storedIn(deflated) ?? inflateAgain(deflated);
  if (ready !== undefined) return ready;
  try {
    return inflateRawSync(deflated, {
      dictionary,
      maxOutputLength: maxInflatedBytes,
      chunkSize: Math.max(leastChunkBytes, 4 * deflated.length),
    });
  } catch (error) {
    return error instanceof RangeError ? "too-large" : "bad-deflate";
  }
};

/** Makes the datagram of an announcement. */
export const encode = (key: Key, announcement: Saying & { readonly address: Address }): Buffer => {
  const deflated = compress(announcementText(announcement));
  const signed = Buffer.allocUnsafe(1 + deflated.length + macBytes);
  signed[0] = key.mode;
  deflated.copy(signed, 1);
  const end = signed.length - macBytes;
  mac(key.secret, signed.subarray(0, end)).copy(signed, end);
  return signed;
};

/** Bytes of the JSON text that `encode` deflates: receivers refuse more than `maxInflatedBytes`. */
export const inflatedBytes = (announcement: Saying): number => Buffer.byteLength(announcementText(announcement));

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
  let end = at;
  if (features.entries.size > 0) {
    const from = at + featuresHead.length;
    end = from + features.text.length;
    if (!text.startsWith(featuresHead, at) || text.slice(from, end) !== features.text) return undefined;
  }
  const remarks = remarksOf(text.slice(end));
  return remarks && { address, timeNs: BigInt(text.slice(timeAt, at)), features, refused: none, remarks };
};

/** The ends that announcements had lately, so that each is read once: a fleet has few. */
const tails = new Map<string, Remarks>([["}\n", noRemarks]]);
const maxTails = 256;
/** Longer than any end of ours. */
const maxTail = 96;
/** A slice would keep the whole datagram's text. */
const copy = (text: string | undefined): string | undefined => text && Buffer.from(text).toString();

/** Reads the end of an announcement in our layout; undefined: take the general path. */
const remarksOf = (tail: string): Remarks | undefined => {
  if (tail.length > maxTail) return undefined;
  const known = tails.get(tail);
  if (known !== undefined) return known;
  const match = /^(?:,"version":"([\w.+-]{1,32})")?(,"ask":true)?(,"leaving":true)?\}\n$/.exec(tail);
  if (match === null) return undefined;
  const remarks = { version: copy(match[1]), ask: match[2] !== undefined, leaving: match[3] !== undefined };
  if (tails.size >= maxTails) tails.clear();
  tails.set(tailOf(remarks), remarks);
  return remarks;
};

const parseAnnouncement = (bytes: Buffer, text: string, known: KnownFeatures): Announcement | PacketFault => {
  const scanner = new Json.Scanner(bytes, text);
  let address = "";
  let timeNs = 0n;
  let parsed: Feature.ParsedSet = { set: Feature.empty, refused: none };
  let tooMany = false;
  let version: string | undefined;
  let ask = false;
  let leaving = false;
  /** A member that we know, of another type than it has. */
  let mistyped = false;
  scanner.skipSpace();
  const ok = scanner.skipMembers(-1, (keyAt, keyEnd) => {
    const key = scanner.slice(keyAt, keyEnd);
    const from = scanner.at;
    const isObject = scanner.next === 123;
    const isString = scanner.next === 34;
    if (key === '"features"' && isObject) {
      const set = Feature.scanSet(scanner, known(address));
      if (set === "too-many") tooMany = true;
      if (set === "too-many" || Json.isFault(set)) return false;
      parsed = set;
      return true;
    }
    if (!scanner.skipValue()) return false;
    switch (key) {
      case '"ip_addr"':
        if (isString) address = Json.unquote(scanner.slice(from, scanner.at));
        else mistyped = true;
        break;
      case '"time_ns"': {
        // an int64: at most 19 digits; the exact range does not matter, the replay window is far narrower
        const number = scanner.slice(from, scanner.at);
        if (/^-?\d{1,19}$/.test(number)) timeNs = BigInt(number);
        else mistyped = true;
        break;
      }
      case '"features"':
        if (scanner.isWord("null", from)) parsed = { set: Feature.empty, refused: none };
        else mistyped = true;
        break;
      // ours: what we do not understand of them is ignored, as other programs do
      case '"version"':
        version = copy(/^"([\w.+-]{1,32})"$/.exec(scanner.slice(from, Math.min(scanner.at, from + maxTail)))?.[1]);
        break;
      case '"ask"':
        ask = scanner.isWord("true", from);
        break;
      case '"leaving"':
        leaving = scanner.isWord("true", from);
        break;
    }
    return true;
  });
  if (tooMany) return "too-many-features";
  if (!ok) return scanner.tooDeep ? "too-deep" : "bad-json";
  scanner.skipSpace();
  if (!scanner.atEnd || mistyped || address === "") return "bad-json";
  const remarks = version === undefined && !ask && !leaving ? noRemarks : { version, ask, leaving };
  return { address, timeNs, features: parsed.set, refused: parsed.refused, remarks };
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
  const inflated = inflate(bytes.subarray(1, bytes.length - macBytes));
  if (typeof inflated === "string") return inflated;
  const text = inflated.toString();
  return scanUnchanged(text, known) ?? parseAnnouncement(inflated, text, known);
};
