/** The node's UDP socket. */
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import type * as Effect from "effect/Effect";
import type * as Stream from "effect/Stream";
import type { Address } from "./Address.js";

/** The socket could not be opened, or broke. */
export class UdpError extends Data.TaggedError("UdpError")<{
  readonly reason: "Bind" | "Socket";
  readonly address: string;
  readonly port: number;
  readonly cause: unknown;
}> {}

/** One received datagram. `bytes` belongs to the receiver. */
export interface Datagram {
  /** The sender's address as the socket gives it: canonical text, no zone. */
  readonly source: string;
  readonly bytes: Buffer;
}

/** How many of a `send` went out, and the first failure (by destination) if any did not. */
export interface SendReport {
  readonly sent: number;
  readonly failed: number;
  readonly firstFailure?: { readonly to: Address; readonly cause: unknown };
}

/** Largest datagram that UDP over IPv4 carries: 65,535 - 20 (IP) - 8 (UDP) bytes. Source: PROTOCOL, section 2. */
export const maxDatagram = 65_507;

export declare namespace UdpTransport {
  interface Service {
    readonly address: Address;
    readonly port: number;
    /** Everything received, in chunks of what was there. One consumer. Its buffer is bounded: what does not fit is dropped and counted. */
    readonly receive: Stream.Stream<Datagram, UdpError>;
    /** Datagrams dropped so far because the buffer was full. */
    readonly dropped: () => number;
    /** Sends `bytes` to each address, in this order, on our port. A failure to one destination is counted and does not stop the others. */
    readonly send: (to: ReadonlyArray<Address>, bytes: Buffer) => Effect.Effect<SendReport>;
  }
}

export class UdpTransport extends Context.Tag("nameq/UdpTransport")<UdpTransport, UdpTransport.Service>() {}
