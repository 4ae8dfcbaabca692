/** The node's UDP socket. */
import * as Cause from "effect/Cause";
import * as Chunk from "effect/Chunk";
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as FiberSet from "effect/FiberSet";
import * as Layer from "effect/Layer";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import { createSocket } from "node:dgram";
import { type Address, family } from "./Address.js";
import * as Defaults from "./Defaults.js";
import { type Cell, Metrics } from "./Metrics.js";
import type { SimulatedNetwork } from "./SimulatedNetwork.js";

/** The socket could not be opened (`Bind`), or broke while it was in use (`Socket`). */
export class UdpError extends Data.TaggedError("UdpError")<{
  readonly reason: "Bind" | "Socket";
  readonly address: string;
  readonly port: number;
  readonly cause: unknown;
}> {
  override get message(): string {
    const where = `UDP port ${this.port} of ${this.address}`;
    if (this.reason === "Socket") {
      return `the socket on ${where} broke (${describe(this.cause)}): restart nameq, and look at the kernel's log if it happens again`;
    }
    switch (codeOf(this.cause)) {
      case "EADDRINUSE":
        return `${where} is in use: another nameq runs on this address. Stop that one, choose another address with --addr, or (the same one on every host) another port with --port`;
      case "EADDRNOTAVAIL":
        return `${this.address} is not an address of this host: choose one that is with --addr`;
      case "EACCES":
      case "EPERM":
        return `no permission to open ${where}: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another with --port (the same one on every host)`;
      case "EAFNOSUPPORT":
        return `this host has no IPv${this.address.includes(":") ? 6 : 4}: choose an address of the other family with --addr`;
      default:
        return `cannot open ${where} (${describe(this.cause)}): check --addr and --port`;
    }
  }
}

const codeOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause ? String(cause.code) : undefined;

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

const failure = (code: string, message: string): Error => Object.assign(new Error(message), { code });

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

/** Limits of what waits for the consumer of `receive`; what does not fit is dropped. */
export interface PendingLimits {
  /** Datagrams. Defaults to 4,096: 0.2 s at 20,000 a second. */
  readonly maxPending?: number | undefined;
  /** Bytes of all of them. Defaults to 8 MiB. */
  readonly maxPendingBytes?: number | undefined;
}

export interface UdpOptions extends PendingLimits {
  /** The node's own address: the only one that is bound, and so the source of all that is sent. */
  readonly address: Address;
  /** Port to bind and to send to. 0 lets the system choose one. Defaults to 17106. */
  readonly port?: number | undefined;
  /** Receive buffer asked of the kernel, bytes; it may give less (`net.core.rmem_max`). Defaults to 4 MiB. */
  readonly receiveBuffer?: number | undefined;
}

export declare namespace UdpTransport {
  interface Service {
    readonly address: Address;
    readonly port: number;
    /**
     * Everything received, in chunks of what was there. One consumer. Its buffer is bounded: what does not fit is
     * dropped and counted. Fails when the socket breaks; ends when the transport is closed.
     */
    readonly receive: Stream.Stream<Datagram, UdpError>;
    /**
     * Has a datagram that comes while the consumer of `receive` waits handed to `take` in the socket's own turn, past the
     * stream: a fiber's wake-up costs more than the datagram. What `take` throws ends the stream as a defect. Until the
     * scope closes.
     */
    readonly ahead: (take: (datagram: Datagram) => void) => Effect.Effect<void, never, Scope.Scope>;
    /** Datagrams dropped so far because the buffer was full. */
    readonly dropped: () => number;
    /** Datagrams that were received and not yet taken. */
    readonly waiting: () => number;
    /**
     * Sends `bytes` to each address, in this order, on our port. A failure to one destination is counted and does not
     * stop the others. When the kernel takes nothing for 5 s, all that is left has failed. `bytes` must not change meanwhile.
     */
    readonly send: (to: ReadonlyArray<Address>, bytes: Buffer) => Effect.Effect<SendReport>;
    /**
     * The same at once, for at most `mostNow` destinations while no outcome of an earlier call is open; outcomes are only
     * counted. False: nothing was done.
     */
    readonly sendNow: (to: ReadonlyArray<Address>, bytes: Buffer) => boolean;
  }
}

export class UdpTransport extends Context.Tag("nameq/UdpTransport")<UdpTransport, UdpTransport.Service>() {
  /** A real socket, closed with the scope: the port is free again when that is done. */
  static readonly layer = (options: UdpOptions): Layer.Layer<UdpTransport, UdpError, Metrics> =>
    Layer.scoped(UdpTransport, make(options));

  /** A node of a simulated network. Fails like a socket when the address is taken. */
  static readonly layerMemory = (
    network: SimulatedNetwork,
    address: Address,
    options: PendingLimits = {},
  ): Layer.Layer<UdpTransport, UdpError, Metrics> => Layer.scoped(UdpTransport, makeMemory(network, address, options));
}

/** Destinations that are handed to the socket before the event loop gets a turn: about 1 ms of work. */
export const mostNow = 128;

/** Errors that say that the descriptor itself is of no use. All others (ICMP answers, no memory) pass. */
const fatal: ReadonlySet<string | undefined> = new Set(["EBADF", "ENOTSOCK", "EINVAL", "EFAULT"]);

/** One turn of the event loop: callbacks of sockets that are ready run before it ends. It takes no time, so it is no Clock's matter. */
const turn = Effect.async<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void));
  return Effect.sync(() => clearImmediate(immediate));
});

const make = Effect.fnUntraced(function* (options: UdpOptions) {
  const { address } = options;
  const v6 = family(address) === 6;
  const metrics = yield* Metrics;
  const log = yield* FiberSet.makeRuntime();
  // woken once a turn of the event loop: one wake-up serves all datagrams of that turn
  const inbox = new Inbox(metrics, options, setImmediate);

  const socket = yield* Effect.acquireRelease(
    Effect.sync(() =>
      createSocket({
        type: v6 ? "udp6" : "udp4",
        ipv6Only: v6,
        reuseAddr: false,
        // addresses need no resolving, and a name must never reach the DNS
        lookup: (host, _, callback) => callback(null, host, v6 ? 6 : 4),
      }),
    ),
    (open) =>
      Effect.async<void>((resume) => {
        inbox.end();
        open.removeAllListeners("message");
        open.close(() => resume(Effect.void));
      }),
  );
  socket.on("message", (bytes, { address: source }) => {
    const zone = v6 ? source.indexOf("%") : -1;
    // no copy: Node gives each datagram memory of its own size
    inbox.offer({ source: zone < 0 ? source : source.slice(0, zone), bytes });
  });

  yield* Effect.async<void, UdpError>((resume) => {
    const port = options.port ?? Defaults.port;
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      // Node would bind the port modulo 65,536
      const cause = failure("ERANGE", "a port is a whole number from 0 to 65535");
      return resume(Effect.fail(new UdpError({ reason: "Bind", address, port, cause })));
    }
    let bound = false;
    let lastCode: string | undefined;
    socket.on("error", (cause) => {
      const code = codeOf(cause);
      if (!bound) {
        resume(Effect.fail(new UdpError({ reason: "Bind", address, port, cause })));
      } else if (fatal.has(code)) {
        inbox.end(new UdpError({ reason: "Socket", address, port, cause }));
      } else {
        metrics.add("datagrams_dropped", "socket-error");
        if (code === lastCode) return;
        lastCode = code;
        log(
          Effect.logWarning("UDP socket reported an error; still receiving").pipe(
            Effect.annotateLogs({ error: describe(cause) }),
          ),
        );
      }
    });
    // exclusive: the workers of a node:cluster program must not share one node's socket
    socket.bind({ address, port, exclusive: true }, () => {
      bound = true;
      resume(Effect.void);
    });
  });
  const { port } = socket.address();

  yield* Effect.try(() => socket.setRecvBufferSize(options.receiveBuffer ?? 4 * 1024 * 1024)).pipe(
    Effect.catchAll(({ cause }) =>
      Effect.logDebug("The kernel gave no larger receive buffer").pipe(Effect.annotateLogs({ error: describe(cause) })),
    ),
  );

  const sendOne = (to: Address, bytes: Buffer, answer: (cause: unknown) => void): void => {
    const refusal = otherFamily(address, to);
    if (refusal !== undefined) return answer(refusal);
    try {
      socket.send(bytes, port, to, answer);
    } catch (cause) {
      answer(cause);
    }
  };

  const send = Effect.fnUntraced(function* (to: ReadonlyArray<Address>, bytes: Buffer) {
    const tally = new Tally(to, bytes.length, metrics);
    let at = 0;
    let stuck = false;
    while (at < to.length && !stuck) {
      for (const end = Math.min(at + mostNow, to.length); at < end; at++) {
        sendOne(to[at]!, bytes, tally.expect(at));
      }
      yield* turn;
      stuck = tally.open.size > 0 && !(yield* tally.answered);
    }
    if (stuck) {
      while (at < to.length) tally.expect(at++);
      const cause = failure("ETIMEDOUT", "the kernel took no more datagrams for 5 s");
      for (const each of tally.open) tally.answer(each, cause);
    }
    return tally.report();
  });

  let last: Tally | undefined;
  const sendNow = (to: ReadonlyArray<Address>, bytes: Buffer): boolean => {
    if (to.length > mostNow || (last !== undefined && last.open.size > 0)) return false;
    last = new Tally(to, bytes.length, metrics);
    for (let at = 0; at < to.length; at++) sendOne(to[at]!, bytes, last.expect(at));
    return true;
  };

  return UdpTransport.of({
    address,
    port,
    receive: inbox.stream,
    ahead: inbox.ahead,
    dropped: () => inbox.dropped,
    waiting: () => inbox.waiting,
    send,
    sendNow,
  });
});

const makeMemory = Effect.fnUntraced(function* (network: SimulatedNetwork, address: Address, limits: PendingLimits) {
  const metrics = yield* Metrics;
  // the network hands over all that is due before any consumer runs
  const inbox = new Inbox(metrics, limits, (wake) => wake());
  const plug = yield* Effect.acquireRelease(
    Effect.suspend(() => {
      const attached = network.attach(address, inbox);
      if (attached !== undefined) return Effect.succeed(attached);
      const cause = failure("EADDRINUSE", "address in use");
      return Effect.fail(new UdpError({ reason: "Bind", address, port: Defaults.port, cause }));
    }),
    (attached) =>
      Effect.sync(() => {
        attached.detach();
        inbox.end();
      }),
  );

  const sendAll = (to: ReadonlyArray<Address>, bytes: Buffer): SendReport => {
    const tally = new Tally(to, bytes.length, metrics);
    const tooLong = bytes.length > maxDatagram ? failure("EMSGSIZE", "message too long") : undefined;
    const refusals = to.map((each) => otherFamily(address, each) ?? tooLong);
    const up = plug.send(
      to.filter((_, at) => refusals[at] === undefined),
      bytes,
    );
    const down = up ? undefined : failure("ENETDOWN", "this node is off the network");
    for (let at = 0; at < to.length; at++) tally.expect(at)(refusals[at] ?? down);
    return tally.report();
  };

  return UdpTransport.of({
    address,
    port: Defaults.port,
    receive: inbox.stream,
    ahead: inbox.ahead,
    dropped: () => inbox.dropped,
    waiting: () => inbox.waiting,
    send: (to, bytes) => Effect.sync(() => sendAll(to, bytes)),
    sendNow: (to, bytes) => {
      if (to.length > mostNow) return false;
      sendAll(to, bytes);
      return true;
    },
  });
});

const otherFamily = (own: Address, to: Address): Error | undefined =>
  family(own) === family(to)
    ? undefined
    : failure("EAFNOSUPPORT", `an IPv${family(own)} node cannot send to an IPv${family(to)} address`);

/** What was received and not yet taken. */
class Inbox {
  dropped = 0;
  private pending: Array<Datagram> = [];
  private bytes = 0;
  private ended: Cause.Cause<Option.Option<UdpError>> | undefined;
  private taker: ((datagram: Datagram) => void) | undefined;
  private waiter: (() => void) | undefined;
  private waking = false;
  private readonly maxPending: number;
  private readonly maxPendingBytes: number;

  private readonly received: Cell;
  private readonly receivedBytes: Cell;
  private readonly full: Cell;

  /** `soon` calls its argument when a waiting consumer should run. */
  constructor(
    metrics: Metrics.Service,
    limits: PendingLimits,
    private readonly soon: (wake: () => void) => void,
  ) {
    this.received = metrics.cell("datagrams_received");
    this.receivedBytes = metrics.cell("datagrams_received_bytes");
    this.full = metrics.cell("datagrams_dropped", "buffer-full");
    this.maxPending = limits.maxPending ?? 4096;
    this.maxPendingBytes = limits.maxPendingBytes ?? 8 * 1024 * 1024;
    metrics.gauge("datagrams_pending", () => this.pending.length);
  }

  get waiting(): number {
    return this.pending.length;
  }

  /** False when it did not fit. */
  offer(datagram: Datagram): boolean {
    this.received.value++;
    this.receivedBytes.value += datagram.bytes.length;
    if (this.taker !== undefined && this.waiter !== undefined && !this.waking && this.ended === undefined) {
      try {
        this.taker(datagram);
      } catch (defect) {
        this.stop(Cause.die(defect));
      }
      return true;
    }
    if (this.pending.length >= this.maxPending || this.bytes + datagram.bytes.length > this.maxPendingBytes) {
      this.dropped++;
      this.full.value++;
      return false;
    }
    this.pending.push(datagram);
    this.bytes += datagram.bytes.length;
    this.wake();
    return true;
  }

  /** Ends the stream: at once and empty, or with an error after what is there. */
  end(error?: UdpError): void {
    if (error === undefined) this.pending = [];
    this.stop(Cause.fail(Option.fromNullable(error)));
  }

  /** See `UdpTransport.ahead`. Nothing is pending while the consumer waits and is not being woken. */
  readonly ahead = (take: (datagram: Datagram) => void): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        this.taker = take;
      }),
      () =>
        Effect.sync(() => {
          this.taker = undefined;
        }),
    );

  private stop(cause: Cause.Cause<Option.Option<UdpError>>): void {
    this.ended ??= cause;
    this.wake();
  }

  private wake(): void {
    if (this.waiter === undefined || this.waking) return;
    this.waking = true;
    this.soon(() => {
      this.waking = false;
      this.waiter?.();
    });
  }

  private readonly wait = Effect.async<void>((resume) => {
    if (this.waiter !== undefined) {
      resume(Effect.dieMessage("UdpTransport.receive has one consumer at a time"));
      return undefined;
    }
    this.waiter = () => {
      this.waiter = undefined;
      resume(Effect.void);
    };
    return Effect.sync(() => {
      this.waiter = undefined;
    });
  });

  private readonly drain = Effect.suspend(() => {
    const taken = this.pending;
    if (taken.length === 0 && this.ended !== undefined) return Effect.failCause(this.ended);
    this.pending = [];
    this.bytes = 0;
    return Effect.succeed(Chunk.unsafeFromArray(taken));
  });

  readonly stream = Stream.repeatEffectChunkOption(
    Effect.suspend(() =>
      this.pending.length > 0 || this.ended !== undefined ? this.drain : Effect.zipRight(this.wait, this.drain),
    ),
  );
}

/** The outcomes of one `send`. An outcome counts once, whatever comes later. */
class Tally {
  /** Destinations (places in `to`) whose outcome is not known yet. */
  readonly open = new Set<number>();
  private sent = 0;
  private first = Number.POSITIVE_INFINITY;
  private cause: unknown;
  private allKnown: () => void = () => {};

  private readonly sentCell: Cell;
  private readonly sentBytes: Cell;

  constructor(
    private readonly to: ReadonlyArray<Address>,
    private readonly size: number,
    private readonly metrics: Metrics.Service,
  ) {
    this.sentCell = metrics.cell("datagrams_sent");
    this.sentBytes = metrics.cell("datagrams_sent_bytes");
  }

  expect(at: number): (cause: unknown) => void {
    this.open.add(at);
    return (cause) => this.answer(at, cause);
  }

  answer(at: number, cause: unknown): void {
    if (!this.open.delete(at)) return;
    if (cause === null || cause === undefined) {
      this.sent++;
      this.sentCell.value++;
      this.sentBytes.value += this.size;
    } else {
      this.metrics.add("datagrams_send_failed");
      if (at < this.first) {
        this.first = at;
        this.cause = cause;
      }
    }
    if (this.open.size === 0) this.allKnown();
  }

  /** Waits until every outcome is known: false after 5 s. */
  readonly answered: Effect.Effect<boolean> = Effect.async<void>((resume) => {
    if (this.open.size === 0) resume(Effect.void);
    else this.allKnown = () => resume(Effect.void);
  }).pipe(Effect.timeoutTo({ duration: "5 seconds", onSuccess: () => true, onTimeout: () => false }));

  report(): SendReport {
    const counts = { sent: this.sent, failed: this.to.length - this.sent };
    const to = this.to[this.first];
    return to === undefined ? counts : { ...counts, firstFailure: { to, cause: this.cause } };
  }
}
