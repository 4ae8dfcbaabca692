/**
 * Watches a simulated fleet and says when it broke a promise. It knows what was done to the fleet (`deed`) and sees
 * every change of every tree (`shown`); it knows nothing of how nodes work. Pure.
 *
 * The promises, between a reader and an owner:
 * - `never-set`: a tree shows only values that the owner set, in whole.
 * - `went-back`: once a tree showed a value (or the absence of one), it never again shows an older one.
 * - `disappeared`: while owner and reader are connected by datagrams both ways, or both by the registry, and for nearly
 *   15 minutes after, the owner's features stay in the reader's tree until the owner removes them.
 * - `late`: between nodes that are connected by both, a change is seen at once (after lost datagrams: some heartbeats).
 * - `stays`: what a node offered is gone at once after a goodbye that arrives, and always after `goneMs`.
 * - `destroyed`: what strangers put into the registry stays there.
 * - `unregistered`: the registry holds the object of every node that can reach it.
 * - `unanswered`, `chatty`: who asks is answered in the same turn, but not twice within a second.
 * - `unbounded`: nothing that a node keeps, queues or logs grows beyond what the fleet's size and the time explain.
 */
import * as Address from "./Address.js";
import type { Deed } from "./FaultSchedule.js";
import { calmLink } from "./FaultSchedule.js";
import * as Feature from "./Feature.js";
import type { RegistryReason } from "./S3Registry.js";
import type { Settings } from "./Settings.js";
import type { Link } from "./SimulatedNetwork.js";

export type Rule =
  | "never-set"
  | "went-back"
  | "disappeared"
  | "late"
  | "stays"
  | "unregistered"
  | "not-converged"
  | "failed"
  | "unbounded"
  | "unanswered"
  | "chatty"
  | "uncounted"
  | "replayed"
  | "in-step"
  | "destroyed";

export interface Violation {
  readonly atMs: number;
  readonly rule: Rule;
  readonly message: string;
}

/** A put or delete may land so long after it was sent: the slowest registry that is simulated, ms. */
export const slowestPutMs = 90_000;
/** How long a registry request may take before it is given up, ms. */
export const requestMs = 30_000;
/** Longest wait of the tree's writer before it tries again after an error, ms, with its jitter. */
const treeRetryMs = 37_500;
/** A moment for requests, timers and writers, ms. */
const momentMs = 2_000;

/**
 * After all faults ended, every tree shows every living node as it is within this, ms: 410 s by the defaults. The larger of
 *
 * - nodes that know each other: a heartbeat, and `futureMs` after a clock was set back (what was believed may be so far
 *   ahead);
 * - nodes that do not: a request that hangs is given up (`requestMs`), the put is tried again after the longest back-off,
 *   the other's next listing comes, itself behind a request that hangs, and a read that failed is tried once more
 *   (the fourth back-off, at most 8 s, and the way: 10 s);
 *
 * and then the tree's writer, which may be waiting after an error, and a moment. In fleets of more than `listFleet` nodes
 * listings are further apart in proportion, unless a tenth of the peers is silent.
 */
export const convergedMs = (settings: Settings): number =>
  Math.max(
    settings.announceMs[1] + settings.futureMs,
    2 * requestMs + settings.retryMs[1] + settings.listMs[1] + 10_000,
  ) +
  treeRetryMs +
  momentMs;

/**
 * A node that ended without a goodbye is gone from every tree within this, ms: it expires after its last datagram or
 * the moment its last put landed.
 */
export const goneMs = (settings: Settings): number => settings.expiryMs + slowestPutMs + treeRetryMs + momentMs;

/** Log lines of one node in an hour of steady faults, and at any time besides. */
const maxLinesAnHour = 240;

/**
 * What a node may keep, by `NodeView.sizes`, when there were so many addresses and feature names (strangers' included)
 * since the fleet began `hours` ago. A peer's timers: one that holds, and those it had when it was heard again after a
 * silence of 45 seconds, until they are due within 4.5 minutes.
 */
const limits = (addresses: number, features: number, hours: number): Readonly<Record<string, number>> => ({
  peers: addresses,
  timers: 8 * addresses,
  conditions: 16 + 3 * addresses,
  suspects: addresses,
  reads: addresses,
  foreign: addresses,
  forgotten: addresses,
  hosts: addresses + 1,
  directories: features,
  unwritten: addresses + 1,
  failing: 8,
  // a process that is leaving reads no more
  datagrams: 100 * addresses,
  destinations: addresses,
  puts: 1,
  requests: addresses + 1,
  lines: 256,
  changes: 1_024,
  forgottenNodes: 256,
  drops: 32,
  noted: 9,
  logged: maxLinesAnHour * (hours + 1),
});

interface Member {
  readonly address: Address.Address;
  running: boolean;
  /** When it was started. */
  startedMs: number;
  /** When that start is done at the latest: a process before it may still be leaving. */
  upMs: number;
  /** When its last process that left had ended at the latest. */
  leftMs: number;
  endedMs: number;
  skewMs: number;
  /** When its clock was last so far off that its times cannot be believed. */
  oddMs: number;
  /** When what the last change of its clock did is over. */
  clockMs: number;
  registry: { delayMs: number; failure: RegistryReason | undefined };
  /** Since when it is up and reaches the registry; Infinity when it does not. */
  registeredMs: number;
  /** Since when its way to the registry is good, up or not. */
  reachableMs: number;
  disk: string | undefined;
  /** Since when its disk works. */
  diskMs: number;
  readonly files: Map<string, string>;
  readonly good: Map<string, string>;
  /** Everything that each feature was, oldest first; undefined: not offered. */
  readonly history: Map<string, Array<string | undefined>>;
  changedMs: number;
  /** Whether the registry holds its last state (when it is down). */
  published: boolean;
  /** What its tree shows: `owner's place/feature` -> value. */
  readonly tree: Map<string, string>;
  /** The oldest place in the history that may be shown, by `owner's place/feature`. */
  readonly low: Map<string, number>;
  /** The registry took its goodbye. */
  tookLeave: boolean;
  /** When each reader must show nothing of it any more, after a goodbye that arrives. */
  readonly goneBy: Map<number, number>;
}

/** From an owner to a reader. */
interface Pair {
  /** Since when datagrams get through both ways; Infinity when they do not. */
  goodMs: number;
  /** The reader has accepted news that is no older than this. */
  heardMs: number;
  /** Since when this run of the reader shows something of the owner; Infinity while it shows nothing. */
  knowsMs: number;
}

const never = Number.POSITIVE_INFINITY;
const absent: ReadonlyArray<string | undefined> = [undefined];

/** Longest time without a heartbeat that gets through; a billion to one. */
const silenceMs = (link: Link, settings: Settings): number => {
  const lost = 1 - (1 - link.loss) * (1 - link.corruption);
  const beats = lost === 0 ? 1 : Math.ceil(Math.log(1e-9) / Math.log(lost)) + 1;
  return beats * settings.announceMs[1] + link.delayMs[1] + momentMs;
};

export class Witness {
  readonly violations: Array<Violation> = [];
  /** The most that any node ever kept, by name. */
  readonly largest: Record<string, number> = {};
  private readonly names = new Set<string>();
  private readonly members: Array<Member> = [];
  private readonly places = new Map<string, number>();
  private readonly pairs = new Map<number, Pair>();
  private readonly cuts = new Set<string>();
  private groups: ReadonlyArray<ReadonlyArray<number>> | undefined;
  private link = calmLink;
  private readonly planted = new Set<string>();
  private lagging = false;
  private calmMs = never;

  constructor(
    private readonly settings: Settings,
    /** Told at once; a run may end there. */
    private readonly onViolation: (violation: Violation) => void = () => {},
  ) {}

  // --- what is done to the fleet ------------------------------------------------------------------------------------

  /** A node with an empty disk is there, and starts. */
  joined(address: Address.Address, nowMs: number): void {
    this.places.set(address, this.members.length);
    this.members.push({
      address,
      running: false,
      startedMs: nowMs,
      upMs: nowMs,
      leftMs: nowMs,
      endedMs: nowMs,
      skewMs: 0,
      oddMs: -never,
      clockMs: 0,
      registry: { delayMs: 0, failure: undefined },
      registeredMs: never,
      reachableMs: nowMs,
      disk: undefined,
      diskMs: nowMs,
      files: new Map(),
      good: new Map(),
      history: new Map(),
      changedMs: nowMs,
      published: true,
      tree: new Map(),
      low: new Map(),
      tookLeave: false,
      goneBy: new Map(),
    });
    this.start(this.members.length - 1, nowMs);
    this.reconsider(nowMs);
  }

  /** Said before it happens. */
  deed(deed: Deed, nowMs: number): void {
    switch (deed.do) {
      case "partition":
        this.groups = deed.groups;
        break;
      case "cut":
        this.cuts.add(`${deed.from}/${deed.to}`);
        if (!deed.oneWay) this.cuts.add(`${deed.to}/${deed.from}`);
        break;
      case "heal":
        this.groups = undefined;
        this.cuts.clear();
        break;
      case "link":
        this.link = deed.link;
        // counted from here: the silence that is allowed is another one
        for (const pair of this.pairs.values()) if (pair.goodMs < nowMs) pair.goodMs = nowMs;
        break;
      case "listing-lag":
        this.lagging = deed.lagMs > 0;
        for (const member of this.members) this.registryChanged(member, nowMs);
        break;
      case "plant": {
        const planted = this.members[this.places.get(deed.name) ?? -1];
        if (planted !== undefined) this.registryChanged(planted, nowMs);
        else this.planted.add(deed.name);
        break;
      }
      case "join":
      case "registry-clock":
        break;
      default: {
        const member = this.members[deed.node];
        if (member !== undefined) this.toMember(member, deed.node, deed, nowMs);
      }
    }
    this.reconsider(nowMs);
  }

  private toMember(member: Member, node: number, deed: Extract<Deed, { readonly node: number }>, nowMs: number): void {
    switch (deed.do) {
      case "set":
        member.files.set(deed.feature, deed.value);
        this.edited(member, nowMs);
        break;
      case "half-write":
        member.files.set(deed.feature, "{");
        this.edited(member, nowMs);
        break;
      case "remove":
        member.files.delete(deed.feature);
        this.edited(member, nowMs);
        break;
      case "crash":
        this.end(member, nowMs);
        break;
      case "stop":
        if (deed.keep || !member.running) this.end(member, nowMs);
        else this.withdraw(member, node, nowMs);
        break;
      case "start":
        if (!member.running) this.start(node, nowMs);
        break;
      case "replace":
        this.end(member, nowMs);
        member.files.clear();
        member.tree.clear();
        member.low.clear();
        this.start(node, nowMs);
        break;
      case "clock": {
        const back = member.skewMs - deed.skewMs;
        if (this.isOdd(member)) member.oddMs = nowMs;
        member.skewMs = deed.skewMs;
        // what it announced is ahead for so long; further ahead it is not believed any more
        member.clockMs = Math.max(member.clockMs, nowMs + (back > 0 ? Math.min(back, this.settings.futureMs) : 0));
        break;
      }
      case "registry":
        member.registry = { delayMs: deed.delayMs, failure: deed.failure };
        this.registryChanged(member, nowMs);
        break;
      case "forge":
      case "ask":
        break;
      case "vanish":
        member.published = member.tookLeave = false;
        if (member.registeredMs < never) member.registeredMs = nowMs + this.settings.refreshMs[1];
        break;
      case "disk":
        if (member.disk !== undefined && deed.code === undefined) member.diskMs = nowMs;
        member.disk = deed.code;
        break;
    }
  }

  /** Every fault has ended. */
  calmed(nowMs: number): void {
    this.calmMs = nowMs;
  }

  private end(member: Member, nowMs: number): void {
    if (!member.running) return;
    member.published = this.isPublished(member, nowMs);
    member.running = false;
    member.endedMs = nowMs;
    this.registryChanged(member, nowMs);
  }

  private withdraw(member: Member, node: number, nowMs: number): void {
    for (const reader of this.members.keys()) {
      if (reader === node || !this.prompt(node, reader, nowMs) || this.link.loss + this.link.corruption > 0) continue;
      member.goneBy.set(reader, nowMs + this.link.delayMs[1] + momentMs);
    }
    const steady = nowMs > member.clockMs && nowMs - member.oddMs > this.settings.expiryMs && !this.isOdd(member);
    member.tookLeave = steady && this.isPublished(member, nowMs);
    this.end(member, nowMs);
    member.leftMs = nowMs + this.settings.shutdownMs;
    member.low.clear();
    for (const feature of member.history.keys()) this.note(member, feature, undefined);
    member.good.clear();
  }

  private start(node: number, nowMs: number): void {
    const member = this.members[node]!;
    member.running = true;
    member.startedMs = nowMs;
    member.upMs = Math.max(nowMs, member.leftMs);
    member.tookLeave = false;
    member.goneBy.clear();
    member.good.clear();
    for (const [reader, other] of this.members.entries()) {
      const pair = this.pair(node, reader);
      if (pair !== undefined) pair.knowsMs = never;
      if (reader === node || this.isPublished(other, nowMs)) continue;
      // what it learns first may be older than what it knew: only the registry can tell
      for (const feature of other.history.keys()) member.low.delete(`${reader}/${feature}`);
    }
    for (const feature of new Set([...member.history.keys(), ...member.files.keys()])) {
      const value = valueOf(member.files.get(feature));
      if (value !== undefined) member.good.set(feature, value);
      this.note(member, feature, value);
    }
    member.changedMs = member.upMs;
    this.registryChanged(member, nowMs);
  }

  private edited(member: Member, nowMs: number): void {
    if (!member.running) return;
    let changed = false;
    for (const feature of new Set([...member.good.keys(), ...member.files.keys()])) {
      const text = member.files.get(feature);
      const value = text === undefined ? undefined : (valueOf(text) ?? member.good.get(feature));
      if (member.good.get(feature) === value) continue;
      if (value === undefined) member.good.delete(feature);
      else member.good.set(feature, value);
      this.note(member, feature, value);
      changed = true;
    }
    if (changed) member.changedMs = Math.max(nowMs, member.upMs);
  }

  private note(member: Member, feature: string, value: string | undefined): void {
    this.names.add(feature);
    let history = member.history.get(feature);
    if (history === undefined) member.history.set(feature, (history = [...absent]));
    if (history.at(-1) !== value) history.push(value);
  }

  private registryChanged(member: Member, nowMs: number): void {
    const reachable = member.registry.failure === undefined && member.registry.delayMs <= 5_000 && !this.lagging;
    member.reachableMs = reachable ? nowMs : never;
    member.registeredMs = reachable && member.running ? Math.max(nowMs, member.upMs) : never;
  }

  /** The registry holds what it offers: also an older put that landed late has been put right. */
  private isPublished(member: Member, nowMs: number): boolean {
    if (!member.running) return member.published;
    const goodMs = slowestPutMs + this.settings.listMs[1] + this.settings.retryMs[1] + requestMs;
    return nowMs - member.registeredMs > goodMs && nowMs - member.changedMs > 15_000;
  }

  private isOdd({ skewMs }: Member): boolean {
    return Math.abs(skewMs) > this.settings.futureMs - momentMs;
  }

  /**
   * The clock of one of them is (or was, when the owner put what the registry holds) so far off that only the registry's
   * clock orders the owner's news, and its puts may have landed in another order than they were sent. What was put last by
   * such a clock lands after `slowestPutMs`; the reader's next listing follows, behind a request that hangs, and the read.
   */
  private disordered(owner: Member, reader: Member, nowMs: number): boolean {
    const untilReadMs = slowestPutMs + this.settings.listMs[1] + 2 * requestMs;
    const odd = (member: Member) => this.isOdd(member) || nowMs - member.oddMs < untilReadMs;
    return (odd(owner) || odd(reader)) && !this.isPublished(owner, nowMs);
  }

  // --- who is connected ---------------------------------------------------------------------------------------------

  private pair(reader: number, owner: number): Pair | undefined {
    return this.pairs.get(reader * 1_024 + owner);
  }

  private reconsider(nowMs: number): void {
    for (const reader of this.members.keys()) {
      for (const owner of this.members.keys()) {
        if (reader === owner) continue;
        let pair = this.pair(reader, owner);
        if (pair === undefined) {
          pair = { goodMs: never, heardMs: -never, knowsMs: never };
          this.pairs.set(reader * 1_024 + owner, pair);
        }
        this.settleHeard(pair, reader, owner, nowMs);
        const good = this.connected(owner, reader) && this.connected(reader, owner);
        const [a, b] = [this.members[reader]!, this.members[owner]!];
        const clockMs = Math.max(a.clockMs, b.clockMs);
        if (!good) pair.goodMs = never;
        else if (pair.goodMs === never) pair.goodMs = Math.max(nowMs, clockMs, a.upMs, b.upMs);
        else if (clockMs > nowMs) pair.goodMs = Math.max(pair.goodMs, clockMs);
      }
    }
  }

  /** Notes how far the reader must have heard the owner by now. */
  private settleHeard(pair: Pair, reader: number, owner: number, nowMs: number): void {
    const byUdp = silenceMs(this.link, this.settings);
    // learnt from the registry, the owner may not know the reader before it is told
    if (nowMs - Math.max(pair.goodMs, pair.knowsMs) >= byUdp) pair.heardMs = Math.max(pair.heardMs, nowMs - byUdp);
    const byRegistry = this.settings.refreshMs[1] + this.settings.silentGetMs[1] + this.settings.retryMs[1];
    const a = this.members[reader]!;
    const b = this.members[owner]!;
    const sinceMs = Math.max(a.registeredMs, b.registeredMs);
    if (
      nowMs - sinceMs >= byRegistry + slowestPutMs + requestMs &&
      Math.abs(a.skewMs) <= 5_000 &&
      Math.abs(b.skewMs) <= 5_000
    ) {
      pair.heardMs = Math.max(pair.heardMs, nowMs - byRegistry);
    }
  }

  private connected(from: number, to: number): boolean {
    const a = this.members[from]!;
    const b = this.members[to]!;
    if (!a.running || !b.running || this.cuts.has(`${from}/${to}`)) return false;
    const { groups } = this;
    if (groups !== undefined) {
      const side = (node: number) => groups.findIndex((group) => group.includes(node));
      if (side(from) !== side(to)) return false;
    }
    const [, mostMs] = this.link.delayMs;
    const aheadMs = a.skewMs - b.skewMs;
    if (aheadMs > this.settings.futureMs - momentMs) return false;
    if (mostMs - aheadMs > this.settings.replayMs - momentMs) return false;
    return silenceMs(this.link, this.settings) < this.settings.expiryMs / 2;
  }

  /** Connected by everything for so long that a change is seen at once. */
  private prompt(owner: number, reader: number, nowMs: number): boolean {
    const a = this.members[owner]!;
    const b = this.members[reader]!;
    const pair = this.pair(reader, owner);
    const sinceMs = Math.max(pair?.goodMs ?? never, a.registeredMs, b.registeredMs, b.diskMs);
    return b.disk === undefined && nowMs - sinceMs > convergedMs(this.settings) + slowestPutMs;
  }

  // --- what is seen -------------------------------------------------------------------------------------------------

  /** A file of a tree has changed: `text` is what it holds, undefined when it is gone. */
  shown(reader: number, host: string, feature: string, text: string | undefined, nowMs: number): void {
    const member = this.members[reader]!;
    const owner = host === Address.ownHost ? reader : this.places.get(host);
    const path = `${member.address} shows ${feature} of ${host}`;
    if (owner === undefined) return this.violate("never-set", `${path}, which is no node`, nowMs);
    const key = `${owner}/${feature}`;
    const value = valueOf(text);
    if (text !== undefined && value === undefined) this.violate("never-set", `${path} in part: ${text}`, nowMs);
    if (value === undefined) member.tree.delete(key);
    else member.tree.set(key, value);
    if (!member.running) return;
    const { history: histories } = this.members[owner]!;
    const history = histories.get(feature) ?? absent;
    const low = member.low.get(key) ?? 0;
    const pair = this.pair(reader, owner);
    if (value === undefined) {
      const mayDisappear = this.mayDisappear(reader, owner, nowMs);
      // as after a goodbye: an owner that starts again and learns of nobody is not heard by this reader
      if (pair !== undefined && ![...histories.keys()].some((each) => member.tree.has(`${owner}/${each}`)))
        pair.knowsMs = never;
      if (mayDisappear || this.disordered(this.members[owner]!, member, nowMs)) return;
      const at = history.indexOf(undefined, low);
      if (at >= 0) member.low.set(key, at);
      else this.violate("disappeared", `${path} no more, although it is ${history.at(-1)}`, nowMs);
      return;
    }
    if (pair !== undefined) pair.knowsMs = Math.min(pair.knowsMs, nowMs);
    const at = history.indexOf(value, low);
    if (at >= 0) member.low.set(key, at);
    else if (reader !== owner && this.disordered(this.members[owner]!, member, nowMs)) {
      member.low.set(key, Math.max(0, history.indexOf(value)));
    } else if (history.includes(value)) this.violate("went-back", `${path} as ${value}, after ${history[low]}`, nowMs);
    else this.violate("never-set", `${path} as ${value}, which it never was`, nowMs);
  }

  private mayDisappear(reader: number, owner: number, nowMs: number): boolean {
    if (reader === owner) return false;
    const member = this.members[reader]!;
    const other = this.members[owner]!;
    if (member.disk !== undefined || nowMs - member.diskMs < treeRetryMs) return true;
    const pair = this.pair(reader, owner)!;
    this.settleHeard(pair, reader, owner, nowMs);
    // after a start, a reader knows only what it can learn again
    const learnt =
      pair.heardMs > member.upMs ||
      (member.reachableMs <= member.startedMs &&
        this.isPublished(other, nowMs) &&
        other.registeredMs < member.startedMs);
    return !learnt || nowMs - pair.heardMs >= this.settings.expiryMs - momentMs;
  }

  /** Looks at what must be so by now. `objects`: the names in the registry. */
  look(nowMs: number, objects: ReadonlySet<string>): void {
    for (const name of this.planted) {
      if (!objects.has(name)) this.violate("destroyed", `the registry lost ${name}, which is no node's`, nowMs);
    }
    for (const [owner, member] of this.members.entries()) {
      const registeredForMs = nowMs - member.registeredMs;
      if (registeredForMs > slowestPutMs + this.settings.refreshMs[1] + requestMs && !objects.has(member.address)) {
        this.violate("unregistered", `the registry has no object of ${member.address}`, nowMs);
      }
      for (const [reader, other] of this.members.entries()) if (other.running) this.lookAt(owner, reader, nowMs);
    }
  }

  /** Looks at what a node keeps: see `limits`. */
  measured(node: number, sizes: Readonly<Record<string, number>>, nowMs: number): void {
    // the forger is one more
    const most = limits(this.members.length + this.planted.size + 1, this.names.size, nowMs / 3_600_000);
    for (const [name, size] of Object.entries(sizes)) {
      if (size > (this.largest[name] ?? -1)) this.largest[name] = size;
      if (size <= (most[name] ?? -1)) continue;
      const message = `${this.members[node]!.address} keeps ${size} ${name}, more than ${most[name]}`;
      this.violate("unbounded", message, nowMs);
    }
  }

  private lookAt(owner: number, reader: number, nowMs: number): void {
    const a = this.members[owner]!;
    const b = this.members[reader]!;
    if (b.disk !== undefined || nowMs - b.diskMs < treeRetryMs + momentMs) return;
    if (!a.running) {
      const untilMs = Math.max(a.endedMs, b.upMs - this.settings.expiryMs) + goneMs(this.settings);
      // a goodbye that got lost is read in the registry: one read may fail
      const steady = b.registeredMs < a.endedMs && Math.max(b.clockMs, b.oddMs) < a.endedMs && !this.isOdd(b);
      const readMs =
        a.tookLeave && steady
          ? a.endedMs + this.settings.silentMs + 2 * this.settings.silentGetMs[1] + requestMs + momentMs
          : never;
      if (nowMs > Math.min(untilMs, readMs, a.goneBy.get(reader) ?? never)) {
        for (const feature of a.history.keys()) {
          const value = b.tree.get(`${owner}/${feature}`);
          if (value !== undefined)
            this.violate("stays", `${b.address} still shows ${feature} of ${a.address} as ${value}`, nowMs);
        }
      }
      return;
    }
    if (owner === reader) {
      if (nowMs - a.changedMs > momentMs) this.compare("late", owner, reader, nowMs);
      return;
    }
    if (nowMs - this.calmMs > convergedMs(this.settings)) return this.compare("not-converged", owner, reader, nowMs);
    if (!this.prompt(owner, reader, nowMs)) return;
    const lossless = this.link.loss + this.link.corruption === 0;
    const withinMs = lossless ? this.link.delayMs[1] + momentMs : silenceMs(this.link, this.settings);
    if (nowMs - a.changedMs > withinMs) this.compare("late", owner, reader, nowMs);
  }

  private compare(rule: Rule, owner: number, reader: number, nowMs: number): void {
    const a = this.members[owner]!;
    const b = this.members[reader]!;
    for (const feature of a.history.keys()) {
      const value = a.good.get(feature);
      const seen = b.tree.get(`${owner}/${feature}`);
      if (seen !== value)
        this.violate(rule, `${b.address} shows ${feature} of ${a.address} as ${seen}, and it is ${value}`, nowMs);
    }
  }

  /** For what others find. */
  violate(rule: Rule, message: string, atMs: number): void {
    if (this.violations.length >= 20) return;
    const violation = { atMs, rule, message };
    this.violations.push(violation);
    this.onViolation(violation);
  }

  /** Feature -> host -> value: what each running node's tree must be when all is calm. */
  truth(): Record<string, Record<string, Record<string, string>>> {
    const trees: Record<string, Record<string, Record<string, string>>> = {};
    for (const [reader, { address, running }] of this.members.entries()) {
      if (!running) continue;
      const tree: Record<string, Record<string, string>> = (trees[address] = {});
      for (const [owner, member] of this.members.entries()) {
        const host = owner === reader ? Address.ownHost : member.address;
        for (const [feature, value] of member.running ? member.good : []) (tree[feature] ??= {})[host] = value;
      }
    }
    return trees;
  }
}

const valueOf = (text: string | undefined): string | undefined => {
  if (text === undefined) return undefined;
  const value = Feature.parseValue(text);
  return typeof value === "string" ? value : undefined;
};
