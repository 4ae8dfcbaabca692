/**
 * Node addresses: an IPv4 or IPv6 address in its canonical text form, which is a node's identity, its S3 key and its
 * file name in the tree.
 */
import type * as Brand from "effect/Brand";
import * as ParseResult from "effect/ParseResult";
import * as Schema from "effect/Schema";
import { isIP, SocketAddress } from "node:net";

/** Canonical text of an IPv4 or IPv6 address (RFC 5952, lower case, no zone). */
export type Address = string & Brand.Brand<"nameq/Address">;

/** The host name under which every tree lists its own node's features, whatever the node's address. */
export const ownHost = "127.0.0.1" as Address;

/** The canonical form of `text`, or undefined when it is no address. A zone (`%eth0`) is no part of an identity. */
export const parse = (text: string): Address | undefined => {
  const family = isIP(text);
  if (family === 0 || text.includes("%")) return undefined;
  return (family === 4 ? text : new SocketAddress({ address: text, family: "ipv6" }).address) as Address;
};

/** Decodes any spelling of an address to its canonical text. */
export const Address = Schema.transformOrFail(Schema.String, Schema.String as unknown as Schema.Schema<Address>, {
  strict: true,
  decode: (text, _, ast) => {
    const address = parse(text);
    return address === undefined
      ? ParseResult.fail(
          new ParseResult.Type(ast, text, "expected an IPv4 or IPv6 address such as 10.0.0.1 or fd00::1"),
        )
      : ParseResult.succeed(address);
  },
  encode: ParseResult.succeed,
}).annotations({ identifier: "Address" });

/** 4 or 6. */
export const family = (address: Address): 4 | 6 => (address.includes(":") ? 6 : 4);

/** The first byte of an IPv4 address. */
const firstByte = (address: Address): number => Number(address.slice(0, address.indexOf(".")));

/** The first 16 bits of an IPv6 address. */
const firstGroup = (address: Address): number => Number.parseInt(address.slice(0, address.indexOf(":")) || "0", 16);

/** 0.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 (multicast, reserved, broadcast), ::, fe80::/10, ff00::/8. */
const isNever = (address: Address): boolean => {
  if (family(address) === 4) {
    const first = firstByte(address);
    return first === 0 || first >= 224 || address.startsWith("169.254.");
  }
  const first = firstGroup(address);
  return address === "::" || (first & 0xffc0) === 0xfe80 || first >= 0xff00;
};

/** True for 127.0.0.0/8 and ::1. */
export const isLoopback = (address: Address): boolean => address.startsWith("127.") || address === "::1";

/**
 * Whether `address` may be a node: unicast, not unspecified, link-local, multicast, broadcast or IPv4-mapped; and not
 * 127.0.0.1, which names own features in every tree. Loopback addresses are for nodes on loopback: see `mayBePeer`.
 */
export const mayBeNode = (address: Address): boolean =>
  address !== ownHost && !address.startsWith("::ffff:") && !isNever(address);

/** Whether a node at `own` may have a peer at `address`: loopback peers only when `own` is loopback too. */
export const mayBePeer = (address: Address, own: Address): boolean =>
  address !== own && mayBeNode(address) && (!isLoopback(address) || isLoopback(own));
