/**
 * A network in one process that loses, delays, reorders, duplicates and corrupts datagrams, and splits, all from one
 * seed. `FaultModel` is the pure part: it says what becomes of a packet, and knows neither time nor bytes, so that
 * any simulator can use it. `make` puts it to work on Effect's Clock, for `UdpTransport.layerMemory`.
 */
import * as Effect from "effect/Effect";
import * as FiberSet from "effect/FiberSet";
import type * as Scope from "effect/Scope";
import type { Address } from "./Address.js";
import { Prng } from "./Prng.js";
import type { Datagram } from "./UdpTransport.js";

/** What the way from one node to another does to packets. Probabilities are 0 .. 1. */
export interface Link {
  /** Probability that a packet is lost. */
  readonly loss: number;
  /** Least and most delay, whole ms; uniform between them, so that packets overtake each other. */
  readonly delayMs: readonly [number, number];
  /** Probability that a packet comes twice, each copy with a delay of its own. */
  readonly duplication: number;
  /** Probability that one bit of a copy is flipped. */
  readonly corruption: number;
}

/** Loses nothing, takes no time. */
export const perfect: Link = { loss: 0, delayMs: [0, 0], duplication: 0, corruption: 0 };

/** One copy of a packet that will arrive. */
export interface Delivery {
  readonly delayMs: number;
  /** Where it was damaged on the way (0 <= x < 1 of its length, see `corrupt`); undefined when it is intact. */
  readonly corruptedAt: number | undefined;
}

/** Why the network did not carry a packet. */
export type LossReason = "cut" | "partition" | "loss";

/** One node or several. */
export type Nodes = Address | ReadonlyArray<Address>;

const list = (nodes: Nodes): ReadonlyArray<Address> => (typeof nodes === "string" ? [nodes] : nodes);

/** A value for some ordered pairs of nodes. */
class Pairs<A> {
  private readonly rows = new Map<Address, Map<Address, A>>();

  get(from: Address, to: Address): A | undefined {
    return this.rows.size === 0 ? undefined : this.rows.get(from)?.get(to);
  }

  set(from: Nodes, to: Nodes, value: A): void {
    for (const a of list(from)) {
      let row = this.rows.get(a);
      if (row === undefined) this.rows.set(a, (row = new Map()));
      for (const b of list(to)) row.set(b, value);
    }
  }

  delete(from: Nodes, to: Nodes): void {
    for (const a of list(from)) for (const b of list(to)) this.rows.get(a)?.delete(b);
  }

  clear(): void {
    this.rows.clear();
  }
}

/** Packets that take longer, ms, count as delayed. */
const lateMs = 100;

/**
 * The faults of a network. A change holds for packets that are sent from then on; those on their way still arrive.
 * Every decision draws the same number of random numbers, so that adding or removing one fault does not change the
 * fate of the packets that it does not touch.
 */
export class FaultModel {
  /** What became of all packets so far. */
  readonly fates = { lost: 0, cutOff: 0, doubled: 0, corrupted: 0, delayed: 0 };
  private readonly links = new Pairs<Link>();
  private readonly cuts = new Pairs<true>();
  private groups: ReadonlyMap<Address, number> | undefined;

  constructor(
    readonly prng: Prng,
    private link: Link = perfect,
  ) {}

  /** Changes the given settings of every link that has none of its own. */
  setDefault(link: Partial<Link>): void {
    this.link = { ...this.link, ...link };
  }

  /** Gives the way from each of `from` to each of `to` (not the way back) settings of its own. */
  setLink(from: Nodes, to: Nodes, link: Partial<Link>): void {
    this.links.set(from, to, { ...this.link, ...link });
  }

  /** Makes every link follow the default again. */
  resetLinks(): void {
    this.links.clear();
  }

  /** Nothing gets from `from` to `to`; the way back stays open. */
  cutOneWay(from: Nodes, to: Nodes): void {
    this.cuts.set(from, to, true);
  }

  /** Nothing gets from either to the other. */
  cut(a: Nodes, b: Nodes): void {
    this.cuts.set(a, b, true);
    this.cuts.set(b, a, true);
  }

  /** Ends cuts from `from` to `to`. */
  mendOneWay(from: Nodes, to: Nodes): void {
    this.cuts.delete(from, to);
  }

  /** Ends cuts both ways. */
  mend(a: Nodes, b: Nodes): void {
    this.cuts.delete(a, b);
    this.cuts.delete(b, a);
  }

  /** Splits the network, in place of any split before: nodes named in no group (also later ones) are one more group. */
  partition(...groups: ReadonlyArray<Nodes>): void {
    this.groups = new Map(groups.flatMap((group, at) => list(group).map((node) => [node, at])));
  }

  /** Ends the split and all cuts; the links' settings stay. */
  heal(): void {
    this.groups = undefined;
    this.cuts.clear();
  }

  /** What becomes of one packet: the copies that arrive (one or two), or why none does. */
  decide(from: Address, to: Address): ReadonlyArray<Delivery> | LossReason {
    const { prng } = this;
    const lost = prng.float();
    const duplicated = prng.float();
    const delay = prng.float();
    const damage = prng.float();
    const secondDelay = prng.float();
    const secondDamage = prng.float();
    const { fates } = this;
    if (this.cuts.get(from, to) === true) {
      fates.cutOff++;
      return "cut";
    }
    if (this.groups !== undefined && this.groups.get(from) !== this.groups.get(to)) {
      fates.cutOff++;
      return "partition";
    }
    const link = this.links.get(from, to) ?? this.link;
    if (lost < link.loss) {
      fates.lost++;
      return "loss";
    }
    const first = delivery(link, delay, damage);
    if (first.corruptedAt !== undefined) fates.corrupted++;
    if (first.delayMs > lateMs) fates.delayed++;
    if (duplicated < link.duplication) {
      fates.doubled++;
      return [first, delivery(link, secondDelay, secondDamage)];
    }
    return first.corruptedAt === undefined ? alone(first) : [first];
  }
}

const delivery = ({ delayMs, corruption }: Link, delay: number, damage: number): Delivery => {
  const [least, most] = delayMs;
  const afterMs = least + Math.floor(delay * (most - least + 1));
  return damage < corruption ? { delayMs: afterMs, corruptedAt: damage / corruption } : intact(afterMs);
};

/** The same few for most packets of a run. */
const intact = (delayMs: number): Delivery => (intacts[delayMs] ??= { delayMs, corruptedAt: undefined });
const intacts: Array<Delivery> = [];
const alone = (first: Delivery): ReadonlyArray<Delivery> => (alones[first.delayMs] ??= [first]);
const alones: Array<ReadonlyArray<Delivery>> = [];

/** A copy of `bytes` with the bit at `at` (0 <= at < 1 of the length) flipped. */
export const corrupt = (bytes: Buffer, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  const bit = Math.floor(at * copy.length * 8);
  if (copy.length > 0) copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
};

/** What became of all packets so far: `sent + duplicated = delivered + all of dropped + inFlight`. */
export interface NetworkStatistics {
  /** Packets that nodes gave to the network. */
  readonly sent: number;
  /** Second copies that the network made. */
  readonly duplicated: number;
  /** Copies that reached a node's inbox. */
  readonly delivered: number;
  /** Copies that were damaged, whatever became of them. */
  readonly corrupted: number;
  /** Copies that are on their way. */
  readonly inFlight: number;
  /** `no-node`: nobody was at the address when it arrived. `inbox-full`: the node did not keep up. */
  readonly dropped: Readonly<Record<LossReason | "no-node" | "inbox-full", number>>;
}

/** Where the network puts what arrives at a node. */
export interface NetworkInbox {
  /** False when it is full. */
  readonly offer: (datagram: Datagram) => boolean;
  /** The node is off the network: what was not read is lost. */
  readonly end: () => void;
}

/** A node's plug. */
export interface NetworkPlug {
  /** Sends a copy of `bytes` to each address; false when the plug has been pulled. */
  readonly send: (to: ReadonlyArray<Address>, bytes: Buffer) => boolean;
  /** Pulls the plug. Idempotent. */
  readonly detach: () => void;
}

export interface SimulatedNetwork {
  /** Told of every packet and what becomes of it. */
  onPacket: ((from: Address, to: Address, bytes: Buffer, fate: ReturnType<FaultModel["decide"]>) => void) | undefined;
  /** Change these at any time. */
  readonly faults: FaultModel;
  /** Puts a node at an address; undefined when another one is there. A later node gets what was on its way to an earlier one. */
  readonly attach: (address: Address, inbox: NetworkInbox) => NetworkPlug | undefined;
  /** Pulls the plug of the node at `address` at once, as a crash does: it sends and receives nothing more, and what it had not read is lost. */
  readonly crash: (address: Address) => void;
  readonly statistics: () => NetworkStatistics;
}

/**
 * A network on the Clock of the fiber that makes it. Packets that are due in the same millisecond share one fiber, in
 * the order in which they were sent; packets still on their way when the scope closes are lost.
 */
export const make: (options: {
  /** A 32-bit integer: the same seed and the same calls give the same run. */
  readonly seed: number;
  /** Settings of every link. Defaults to `perfect`. */
  readonly link?: Partial<Link> | undefined;
}) => Effect.Effect<SimulatedNetwork, never, Scope.Scope> = Effect.fnUntraced(function* (options) {
  const clock = yield* Effect.clock;
  const run = yield* FiberSet.makeRuntime();
  const faults = new FaultModel(Prng.seeded(options.seed), { ...perfect, ...options.link });
  const nodes = new Map<Address, NetworkInbox>();
  const due = new Map<number, Array<() => void>>();
  const statistics = {
    sent: 0,
    duplicated: 0,
    delivered: 0,
    corrupted: 0,
    inFlight: 0,
    dropped: { cut: 0, partition: 0, loss: 0, "no-node": 0, "inbox-full": 0 },
  };

  const at = (time: number, arrive: () => void): void => {
    const others = due.get(time);
    if (others !== undefined) {
      others.push(arrive);
      return;
    }
    const arrivals = [arrive];
    due.set(time, arrivals);
    const wait = time - clock.unsafeCurrentTimeMillis();
    run(
      Effect.map(wait > 0 ? Effect.sleep(wait) : Effect.yieldNow(), () => {
        due.delete(time);
        for (const each of arrivals) each();
      }),
    );
  };

  const deliver = (from: Address, to: Address, bytes: Buffer): void => {
    statistics.inFlight--;
    const inbox = nodes.get(to);
    if (inbox === undefined) statistics.dropped["no-node"]++;
    else if (inbox.offer({ source: from, bytes })) statistics.delivered++;
    else statistics.dropped["inbox-full"]++;
  };

  const send = (from: Address, to: Address, bytes: Buffer): void => {
    statistics.sent++;
    const decision = faults.decide(from, to);
    network.onPacket?.(from, to, bytes, decision);
    if (typeof decision === "string") {
      statistics.dropped[decision]++;
      return;
    }
    statistics.duplicated += decision.length - 1;
    for (const { corruptedAt, delayMs } of decision) {
      statistics.inFlight++;
      if (corruptedAt !== undefined) statistics.corrupted++;
      at(clock.unsafeCurrentTimeMillis() + delayMs, () =>
        deliver(from, to, corruptedAt === undefined ? Buffer.from(bytes) : corrupt(bytes, corruptedAt)),
      );
    }
  };

  const network: SimulatedNetwork = {
    onPacket: undefined,
    faults,
    attach: (address, inbox) => {
      if (nodes.has(address)) return undefined;
      nodes.set(address, inbox);
      const attached = (): boolean => nodes.get(address) === inbox;
      return {
        send: (to, bytes) => {
          if (!attached()) return false;
          const copy = Buffer.from(bytes);
          for (const each of to) send(address, each, copy);
          return true;
        },
        detach: () => {
          if (attached()) nodes.delete(address);
        },
      };
    },
    crash: (address) => {
      const inbox = nodes.get(address);
      nodes.delete(address);
      inbox?.end();
    },
    statistics: () => ({ ...statistics, dropped: { ...statistics.dropped } }),
  };
  return network;
});
