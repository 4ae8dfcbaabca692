/**
 * A node's rules as a state machine: events in, what to do next out as data. It has no clock, no randomness of its own
 * and no I/O: the daemon runs it against sockets, files and S3, a simulation runs it against nothing at all.
 *
 * One owner calls `step`, with time that never runs backwards on the monotonic side. For each `Put`, `List`, `Get` and
 * `Delete` that comes out, exactly one answer event comes back in (`Delete` answers nothing).
 */
import * as Address from "./Address.js";
import type { FeatureSet, HostFeatures } from "./Feature.js";
import * as Feature from "./Feature.js";
import type { Announcement } from "./Packet.js";
import type { RegistryContent } from "./RegistryObject.js";
import type { Settings } from "./Settings.js";
import { type Slot, Timers } from "./Timers.js";

/** A moment on both clocks: wall time orders news between hosts, monotonic time measures silence on this one. */
export interface Instant {
  /** Ns since the Unix epoch. */
  readonly wallNs: bigint;
  /** Ms since any fixed moment. */
  readonly monoMs: number;
}

/** One object of a listing whose name may be a node. */
export interface Listed {
  readonly name: string;
  readonly etag: string;
  /** By the registry's own clock. */
  readonly ageMs: number;
}

export type Event =
  /** The first event: own features are known. */
  | { readonly _tag: "Started"; readonly features: FeatureSet }
  | { readonly _tag: "FeaturesChanged"; readonly features: FeatureSet }
  /** A verified and decoded datagram. */
  | { readonly _tag: "Received"; readonly source: string; readonly announcement: Announcement }
  | { readonly _tag: "PutDone"; readonly etag: string }
  | { readonly _tag: "PutFailed"; readonly problem: string }
  | { readonly _tag: "ListDone"; readonly objects: ReadonlyArray<Listed>; readonly registryMs: number }
  | { readonly _tag: "ListFailed"; readonly problem: string }
  /** `content` is undefined when the object is no node's. */
  | {
      readonly _tag: "GetDone";
      readonly address: Address.Address;
      readonly content: RegistryContent | undefined;
      readonly etag: string;
      readonly ageMs: number;
    }
  | { readonly _tag: "GetMissing"; readonly address: Address.Address }
  | { readonly _tag: "GetFailed"; readonly address: Address.Address; readonly problem: string }
  /** `deadlineMs` has come. */
  | { readonly _tag: "Woken" }
  /** Somebody wants to know who answers: all peers are asked. */
  | { readonly _tag: "Asked" }
  /** The node leaves for good: the last event. */
  | { readonly _tag: "Withdrawn" };

/** Why an announcement changed nothing. */
export type DropReason = "self" | "origin" | "address" | "old" | "future" | "stale" | "too-many-peers";

export type Action =
  /** Send our announcement, as it is now, to these (in this order). `ask`: they are to answer at once. */
  | {
      readonly _tag: "Announce";
      readonly to: ReadonlyArray<Address.Address>;
      readonly timeNs: bigint;
      readonly features: FeatureSet;
      readonly ask: boolean;
      readonly leaving: boolean;
    }
  | { readonly _tag: "Put"; readonly timeNs: bigint; readonly features: FeatureSet }
  | { readonly _tag: "List" }
  | { readonly _tag: "Get"; readonly address: Address.Address }
  | { readonly _tag: "Delete"; readonly address: Address.Address }
  /** What the tree shows for a host from now on, and what it showed `before`. `provisional`: see `StateTree`. */
  | {
      readonly _tag: "Show";
      readonly host: Address.Address;
      readonly features: HostFeatures;
      readonly before: HostFeatures;
      readonly provisional: boolean;
    }
  /** Membership is known: found files that nothing asked for may go. Once. */
  | { readonly _tag: "Settle" }
  | { readonly _tag: "Drop"; readonly reason: DropReason; readonly source: string }
  /** A peer expired. */
  | { readonly _tag: "Forgotten"; readonly peer: Peer }
  /** A condition began, changed (`problem`), or ended (`problem` undefined). Once per change. */
  | {
      readonly _tag: "Report";
      readonly condition: string;
      readonly severity: "error" | "warning" | "info";
      readonly message: string;
    };

/** What is known of another node. */
export interface Peer {
  readonly address: Address.Address;
  readonly features: FeatureSet;
  /** Owner's clock, ns: only newer news counts. */
  readonly timeNs: bigint;
  /** When the last news was accepted, monotonic ms. Registry news counts from the object's age. */
  readonly heardMs: number;
  /** When the last datagram was accepted, or when the peer was first learnt of. */
  readonly udpMs: number;
  /** Where the last news came from. */
  readonly from: "udp" | "registry";
  /** An object of the existing program: without `time_ns`. */
  readonly legacy: boolean;
  /** No datagram for `silentMs`: looked up in the registry. */
  readonly silent: boolean;
  /** It said goodbye with its last datagram. */
  readonly left: boolean;
  /** Its program's version as it says; undefined of the existing program, and until its first datagram. */
  readonly version: string | undefined;
  /** Our clock less its clock at its last datagram, ms (the way's time is in it); NaN until then. */
  readonly offsetMs: number;
}

/** Something that is wrong now. */
export interface Condition {
  readonly name: string;
  readonly severity: "error" | "warning";
  /** What is wrong and what to do. */
  readonly message: string;
  /** Since when, monotonic ms. */
  readonly sinceMs: number;
}

/** A 64-bit integer and its halves: times are kept and compared as such, so that no BigInt outlives its datagram. */
const halves = new Int32Array(2);
const int64 = new BigInt64Array(halves.buffer);
/** The byte order of the machine decides which half is which. */
const high = new Uint8Array(Uint16Array.of(1).buffer)[0]!;
const low = 1 - high;

/** No offset is so low. */
const unheard = -(2 ** 31);

/**
 * A peer as it is kept. A datagram changes small integers and doubles in place: each new object that an old one points
 * to costs the garbage collector a visit. So every number starts as one, and what is busy is together.
 */
class KnownPeer implements Peer {
  features = Feature.empty;
  private timeHigh = 0;
  private timeLow = 0;
  heardMs = 0;
  udpMs = 0;
  from: Peer["from"] = "udp";
  version: string | undefined = undefined;
  left = false;
  silent = false;
  /** What was shown so far may be older than what the tree held at start. */
  provisional = false;
  /** `offsetMs` in whole microseconds. */
  private offsetUs = unheard;
  /** When it was last answered because it asked, monotonic ms. */
  answeredMs = 0;
  legacy = false;
  /** Of the object that was read last. */
  etag: string | undefined = undefined;
  /** Where its timer is: in older slots it no longer counts. */
  timer: Slot<KnownPeer> | undefined = undefined;

  constructor(readonly address: Address.Address) {}

  get timeNs(): bigint {
    halves[high] = this.timeHigh;
    halves[low] = this.timeLow;
    return int64[0]!;
  }

  set timeNs(timeNs: bigint) {
    int64[0] = timeNs;
    this.timeHigh = halves[high]!;
    this.timeLow = halves[low]!;
  }

  /** Whether what is known is as new as news of this time (an int64), or newer. */
  has(timeNs: bigint): boolean {
    int64[0] = timeNs;
    const above = halves[high]! - this.timeHigh;
    return above < 0 || (above === 0 && halves[low]! >>> 0 <= this.timeLow >>> 0);
  }

  get offsetMs(): number {
    return this.offsetUs === unheard ? Number.NaN : this.offsetUs / 1_000;
  }

  set offsetMs(ms: number) {
    // -0 is no small integer
    this.offsetUs = Math.round(ms * 1_000) + 0;
  }
}

const nothing: ReadonlyArray<Action> = [];
const msToNs = (ms: number): bigint => BigInt(Math.round(ms * 1_000)) * 1_000n;
const seconds = (ns: bigint): string => `${(Number(ns / 1_000_000n) / 1_000).toFixed(1)} s`;
const never = Number.POSITIVE_INFINITY;

/** A deadline that is met this late, ms, was slept through. */
const asleepMs = 10_000;

/** A put that takes so long, ms, was tried more than once; it is put again after the same time. */
const slowPutMs = 5_000;

/** Peers are looked at together, every so many ms, so that many of them make few wake-ups. */
const lookGridMs = 1_000;

/** A clock that seems off for so long, ms, is off. Shorter than the shortest heartbeat. */
const offForMs = 10_000;

/** A peer that asks is answered at most this often, ms: a doubled or forged question costs no more. */
const answerSpacingMs = 1_000;

/** Most conditions of one kind that are remembered: past it, further sources are not told apart. */
const maxConditions = 1_024;

export class Membership {
  private own: FeatureSet = Feature.empty;
  private readonly known = new Map<Address.Address, KnownPeer>();
  private readonly timers = new Timers<KnownPeer>();
  private readonly conditions = new Map<string, Condition>();
  /** When a peer's clock first seemed off: datagrams that were held up (a stopped process, a slow network) come at once. */
  private readonly suspects = new Map<string, number>();
  /** Reads under way, each with the etag that a listing showed, if one did. */
  private readonly getting = new Map<Address.Address, string>();
  private readonly foreign = new Map<string, string>();
  /** The newest news of peers that were forgotten lately, the oldest first. */
  private readonly forgotten = new Map<Address.Address, { readonly timeNs: bigint; readonly untilMs: number }>();
  private silentPeers = 0;
  private registryOffset: number | undefined;
  private lastTimeNs = 0n;
  private sleptMs = 0;
  private nowMs = 0;
  /** As of the last step. */
  private dueMs = never;
  private listedOnce = false;
  private isSettled = false;
  private announceMs = never;
  private settleMs = never;
  private put = {
    dueMs: never,
    running: false,
    dirty: false,
    startedMs: -never,
    doneMs: -never,
    failures: 0,
    etag: "",
    doubtful: false,
  };
  private list = { dueMs: never, running: false, startedMs: -never, failures: 0 };
  private readonly out: Array<Action> = [];
  private readonly futureNs: bigint;

  /** `random` gives numbers in [0, 1); seeded in tests and simulation. */
  constructor(
    readonly address: Address.Address,
    private readonly settings: Settings,
    private readonly random: () => number,
  ) {
    this.futureNs = msToNs(settings.futureMs);
  }

  get peers(): ReadonlyMap<Address.Address, Peer> {
    return this.known;
  }

  get features(): FeatureSet {
    return this.own;
  }

  /** Our clock less the registry's at the last listing, ms (S3 tells whole seconds); undefined before. */
  get registryOffsetMs(): number | undefined {
    return this.registryOffset;
  }

  /** Whether the registry was scanned (or given up on) and the first answers were waited for. */
  get settled(): boolean {
    return this.isSettled;
  }

  /** How long ago a moment in `Peer` or `Condition` is, ms, at this monotonic moment. */
  ageMs(thenMs: number, monoMs: number): number {
    return monoMs - this.sleptMs - thenMs;
  }

  /** What is wrong now. */
  get problems(): Iterable<Condition> {
    return this.conditions.values();
  }

  /** How much of everything is kept. None of it may grow without bound: simulations hold it against what it may be. */
  get sizes() {
    return {
      peers: this.known.size,
      timers: this.timers.size,
      conditions: this.conditions.size,
      suspects: this.suspects.size,
      reads: this.getting.size,
      foreign: this.foreign.size,
      forgotten: this.forgotten.size,
    };
  }

  /** When `Woken` is due, monotonic ms. */
  get deadlineMs(): number {
    return this.sleptMs + this.dueMs;
  }

  /** `deadlineMs` on the clock that does not count sleep. */
  private nextDueMs(): number {
    let dueMs = this.announceMs;
    if (this.settleMs < dueMs) dueMs = this.settleMs;
    if (!this.put.running && this.put.dueMs < dueMs) dueMs = this.put.dueMs;
    if (!this.list.running && this.list.dueMs < dueMs) dueMs = this.list.dueMs;
    return Math.min(dueMs, this.timers.due);
  }

  /** The features last accepted from an address: see `Packet.KnownFeatures`. */
  readonly knownFeatures = (address: string): FeatureSet | undefined =>
    this.known.get(address as Address.Address)?.features;

  /** Takes one event; what comes out is to be done in order. */
  step(event: Event, instant: Instant): ReadonlyArray<Action> {
    const now = this.awake(instant);
    this.nowMs = now.monoMs;
    switch (event._tag) {
      case "Received":
        this.received(event.source, event.announcement, now);
        break;
      case "Started":
        this.started(event.features, now);
        break;
      case "FeaturesChanged":
        this.featuresChanged(event.features, now);
        break;
      case "PutDone":
        this.putDone(event.etag, now);
        break;
      case "PutFailed":
        this.putFailed(event.problem, now);
        break;
      case "ListDone":
        this.listDone(event.objects, event.registryMs, now);
        break;
      case "ListFailed":
        this.listFailed(event.problem, now);
        break;
      case "GetDone":
        this.getDone(event.address, event.content, event.etag, event.ageMs, now);
        break;
      case "GetMissing":
        this.getEnded(event.address, now);
        break;
      case "GetFailed":
        this.condition("registry-get", "warning", event.problem);
        this.list.dueMs = Math.min(this.list.dueMs, now.monoMs + this.backoff(3));
        this.getEnded(event.address, now);
        break;
      case "Woken":
        this.woken(now);
        break;
      case "Asked":
        this.announceAll(now, { ask: true });
        break;
      case "Withdrawn":
        this.withdrawn(now);
        break;
    }
    // a datagram moves no deadline, except in `schedule`; nor does waking up late: what was due is due now
    if (event._tag !== "Received") this.dueMs = this.nextDueMs();
    // an array that waits for the next event would be old, and keep what it gave away until the heap is swept
    return this.out.length === 0 ? nothing : this.out.splice(0);
  }

  /**
   * The monotonic clock less the time that this process did not run (SIGSTOP, a frozen machine): peers could not be
   * heard then, so it is no silence of theirs. Whoever slept past a deadline speaks up and looks around first.
   */
  private awake(instant: Instant): Instant {
    const { wallNs, monoMs } = instant;
    const lateMs = monoMs - this.deadlineMs;
    if (lateMs > asleepMs) {
      this.sleptMs += lateMs;
      const dueMs = monoMs - this.sleptMs;
      this.announceMs = dueMs;
      if (this.put.dueMs !== never) this.put.dueMs = dueMs;
      if (this.list.dueMs !== never) this.list.dueMs = dueMs;
    }
    return this.sleptMs === 0 ? instant : { wallNs, monoMs: monoMs - this.sleptMs };
  }

  // --- own features -------------------------------------------------------------------------------------------------

  private started(features: FeatureSet, now: Instant): void {
    this.show(Address.ownHost, features, this.own, false);
    this.own = features;
    this.announceMs = now.monoMs + this.between(this.settings.announceMs);
    this.settleMs = now.monoMs + this.settings.settleAnywayMs;
    if (Address.family(this.address) === 6) {
      this.list.dueMs = now.monoMs;
    } else {
      this.put.dueMs = now.monoMs;
    }
    this.startRegistry(now);
  }

  private featuresChanged(features: FeatureSet, now: Instant): void {
    if (features.text === this.own.text) return;
    this.show(Address.ownHost, features, this.own, false);
    this.own = features;
    this.announceAll(now);
    this.putSoon(now);
    this.startRegistry(now);
  }

  private withdrawn(now: Instant): void {
    this.own = Feature.empty;
    this.announceAll(now, { leaving: true });
    if (this.put.startedMs > -never) {
      this.out.push({ _tag: "Put", timeNs: this.nextTimeNs(now), features: this.own });
    }
    this.announceMs = this.settleMs = this.put.dueMs = this.list.dueMs = never;
  }

  /**
   * Our own announcements' time: never the same twice. A clock that was set back is followed at once when it was so far
   * ahead that no peer can have believed it, and counted on from otherwise.
   */
  private nextTimeNs(now: Instant): bigint {
    const last = this.lastTimeNs;
    const follow = now.wallNs > last || last - now.wallNs > this.futureNs;
    this.lastTimeNs = follow ? now.wallNs : last + 1n;
    return this.lastTimeNs;
  }

  // --- announcements ------------------------------------------------------------------------------------------------

  private announceAll(now: Instant, remarks: { readonly ask?: boolean; readonly leaving?: boolean } = {}): void {
    this.announceMs = now.monoMs + this.between(this.settings.announceMs);
    const to: Array<Address.Address> = [];
    for (const address of this.known.keys()) if (this.reachable(address)) to.push(address);
    for (let i = to.length - 1; i > 0; i--) {
      const j = Math.floor(this.random() * (i + 1));
      const a = to[i]!;
      to[i] = to[j]!;
      to[j] = a;
    }
    if (to.length > 0) this.announceTo(to, now, remarks);
  }

  private announceTo(
    to: ReadonlyArray<Address.Address>,
    now: Instant,
    { ask = false, leaving = false }: { readonly ask?: boolean; readonly leaving?: boolean } = {},
  ): void {
    this.out.push({ _tag: "Announce", to, timeNs: this.nextTimeNs(now), features: this.own, ask, leaving });
  }

  /** A socket of one family cannot send to the other; such peers meet through the registry alone. */
  private reachable(address: Address.Address): boolean {
    return Address.family(address) === Address.family(this.address);
  }

  private received(source: string, announcement: Announcement, now: Instant): void {
    const address = announcement.address === source ? source : Address.parse(announcement.address);
    if (address === undefined || address !== source) return this.drop("origin", source);
    let peer = this.known.get(address as Address.Address);
    if (peer === undefined) {
      const own = Address.parse(address);
      if (own === this.address) return this.drop("self", source);
      if (own === undefined || !Address.mayBePeer(own, this.address)) return this.drop("address", source);
    }
    const ageNs = now.wallNs - announcement.timeNs;
    // as a number it is exact for a hundred days, and needs no new BigInt to be compared
    const ageMs = Number(ageNs) / 1e6;
    const tooOld = ageMs > this.settings.replayMs;
    if (tooOld || ageMs < -this.settings.futureMs) {
      // an old one from a peer whose newer news is known is a straggler, not a wrong clock
      if ((peer === undefined || announcement.timeNs > peer.timeNs) && this.isOffAgain(source, now)) {
        this.condition(
          `clock/${source}`,
          "warning",
          `${source} sends announcements ${seconds(tooOld ? ageNs : -ageNs)} ${tooOld ? "old" : "ahead"}: they are dropped. Set its clock or ours (NTP)`,
        );
      }
      return this.drop(tooOld ? "old" : "future", source);
    }
    if (peer === undefined) {
      if (this.known.size >= this.settings.maxPeers) return this.drop("too-many-peers", source);
      peer = this.meet(address as Address.Address, now, false);
    } else if (peer.has(announcement.timeNs) && !this.isAhead(peer.timeNs, now)) {
      return this.drop("stale", source);
    }
    // who was reported is a suspect
    if (this.suspects.size > 0 && this.suspects.delete(source)) {
      this.condition(`clock/${source}`, "info", undefined, `${source} has its clock right`);
    }
    const { remarks } = announcement;
    peer.timeNs = announcement.timeNs;
    peer.heardMs = peer.udpMs = now.monoMs;
    peer.from = "udp";
    peer.version = remarks.version;
    peer.left = remarks.leaving;
    peer.offsetMs = ageMs;
    // its timer is set for the next look into the registry, minutes away
    if (peer.silent) this.schedule(peer, now.monoMs + this.settings.silentMs);
    this.setSilent(peer, false);
    this.learn(peer, announcement.features, announcement.refused, true);
    if (remarks.ask) this.answer(peer, now);
  }

  /** A peer that is new to us has its answer already: see `meet`. */
  private answer(peer: KnownPeer, now: Instant): void {
    if (now.monoMs - peer.answeredMs < answerSpacingMs || !this.reachable(peer.address)) return;
    peer.answeredMs = now.monoMs;
    this.announceTo([peer.address], now);
  }

  /** Asks a peer for its announcement, if it is one that answers. */
  private ask({ address, left, version }: Peer, now: Instant): boolean {
    if (version === undefined || left || !this.reachable(address)) return false;
    this.announceTo([address], now, { ask: true });
    return true;
  }

  /** Whether a source's announcements were off before, and still are. */
  private isOffAgain(source: string, now: Instant): boolean {
    const sinceMs = this.suspects.get(source);
    if (sinceMs === undefined && this.suspects.size < maxConditions) this.suspects.set(source, now.monoMs);
    return sinceMs !== undefined && now.monoMs - sinceMs >= offForMs;
  }

  /** No clock can have said so: its owner's and ours were ahead, and were set right since. It must not lock out the news. */
  private isAhead(timeNs: bigint, now: Instant): boolean {
    return timeNs - now.wallNs > this.futureNs;
  }

  /** A new peer gets our announcement, and its timer. One that we have not heard is asked for its own: it may know us already. */
  private meet(address: Address.Address, now: Instant, ask: boolean, heardMs = now.monoMs): KnownPeer {
    const peer = new KnownPeer(address);
    peer.heardMs = heardMs;
    peer.udpMs = peer.answeredMs = now.monoMs;
    this.known.set(address, peer);
    this.schedule(peer, now.monoMs + this.settings.silentMs);
    if (this.reachable(address)) this.announceTo([address], now, { ask });
    return peer;
  }

  private learn(peer: KnownPeer, features: FeatureSet, refused: ReadonlyArray<string>, firm: boolean): void {
    const same = peer.features === features || peer.features.text === features.text;
    if (same && !(firm && peer.provisional)) return;
    const before = peer.features;
    peer.features = features;
    peer.provisional = !firm;
    this.condition(
      `names/${peer.address}`,
      "warning",
      refused.length === 0
        ? undefined
        : `${peer.address} offers features with names that are not allowed, they are ignored: ${refused.map((name) => JSON.stringify(name)).join(", ")}. Use A-Z a-z 0-9 - _`,
      `${peer.address} has its feature names right`,
    );
    this.show(peer.address, features, before, !firm);
  }

  private setSilent(peer: KnownPeer, silent: boolean): void {
    if (peer.silent === silent) return;
    peer.silent = silent;
    this.silentPeers += silent ? 1 : -1;
  }

  // --- time ---------------------------------------------------------------------------------------------------------

  private woken(now: Instant): void {
    for (let slot = this.timers.pop(now.monoMs); slot !== undefined; slot = this.timers.pop(now.monoMs)) {
      for (const peer of slot.values) if (peer.timer === slot) this.look(peer, now);
    }
    if (this.announceMs <= now.monoMs) this.announceAll(now);
    if (this.settleMs <= now.monoMs && this.getting.size === 0) this.settle(now);
    else if (this.settleMs <= now.monoMs) this.settleMs = now.monoMs + this.settings.settleMs;
    this.startRegistry(now);
  }

  /** Looks at a peer soon after `lookMs`, and at the moment when it expires. */
  private schedule(peer: KnownPeer, lookMs: number): void {
    const togetherMs = Math.ceil(lookMs / lookGridMs) * lookGridMs;
    const dueMs = Math.min(togetherMs, peer.heardMs + this.settings.expiryMs);
    peer.timer = this.timers.push(dueMs, peer);
    if (dueMs < this.dueMs) this.dueMs = dueMs;
  }

  /** A peer's timer: one place in the slots each, however often it is heard. */
  private look(peer: KnownPeer, now: Instant): void {
    const expiresMs = peer.heardMs + this.settings.expiryMs;
    if (expiresMs <= now.monoMs) {
      this.setSilent(peer, false);
      this.known.delete(peer.address);
      this.remember(peer, now);
      this.suspects.delete(peer.address);
      for (const kind of ["clock", "names"]) this.conditions.delete(`${kind}/${peer.address}`);
      this.show(peer.address, Feature.empty, peer.features, false);
      this.out.push({ _tag: "Forgotten", peer });
      this.out.push({
        _tag: "Report",
        condition: `expired/${peer.address}`,
        severity: "info",
        message: `${peer.address} was not heard of for ${Math.round(this.settings.expiryMs / 60_000)} minutes: forgotten`,
      });
      return;
    }
    const silentMs = peer.udpMs + this.settings.silentMs;
    let next = silentMs;
    if (silentMs <= now.monoMs) {
      const isNew = !peer.silent;
      this.setSilent(peer, true);
      if (this.manySilent() && this.list.dueMs > now.monoMs + this.settings.listMs[1]) {
        this.list.dueMs = now.monoMs + this.between(this.settings.listMs);
      }
      // a datagram was lost, mostly: its answer saves the registry a request
      if (isNew && this.ask(peer, now)) {
        next = now.monoMs + this.settings.settleMs;
      } else {
        this.get(peer.address);
        next = now.monoMs + this.between(this.settings.silentGetMs);
      }
    }
    this.schedule(peer, next);
  }

  /**
   * An object that a late put left behind may be younger than `expiryMs` and older than what we knew of its owner: it
   * must not come back.
   */
  private remember({ address, timeNs }: Peer, now: Instant): void {
    for (const [oldest, { untilMs }] of this.forgotten) {
      if (untilMs > now.monoMs && this.forgotten.size < this.settings.maxPeers) break;
      this.forgotten.delete(oldest);
    }
    this.forgotten.delete(address);
    if (timeNs <= now.wallNs) this.forgotten.set(address, { timeNs, untilMs: now.monoMs + this.settings.expiryMs });
  }

  private settle(now: Instant): void {
    this.settleMs = never;
    if (this.isSettled) return;
    this.isSettled = true;
    // peers that knew us before did not answer: what they put while we were away may have landed since the first scan
    if (this.listedOnce) this.list.dueMs = Math.min(this.list.dueMs, now.monoMs);
    this.out.push({ _tag: "Settle" });
  }

  // --- registry -----------------------------------------------------------------------------------------------------

  private startRegistry(now: Instant): void {
    if (!this.put.running && this.put.dueMs <= now.monoMs) this.startPut(now);
    if (!this.list.running && this.list.dueMs <= now.monoMs) {
      this.list.running = true;
      this.list.startedMs = now.monoMs;
      this.out.push({ _tag: "List" });
    }
  }

  private startPut(now: Instant): void {
    if (Address.family(this.address) === 6 && !this.mayPutBesideOthers()) {
      this.put.dueMs = never;
      return;
    }
    this.put.running = true;
    this.put.dirty = false;
    this.put.startedMs = now.monoMs;
    this.out.push({ _tag: "Put", timeNs: this.nextTimeNs(now), features: this.own });
  }

  /** An IPv6 key crashes existing nodes (PROTOCOL, section 3): our object does not go beside theirs. */
  private mayPutBesideOthers(): boolean {
    if (!this.listedOnce || this.getting.size > 0) return false;
    const legacy = [...this.known.values()].filter((peer) => peer.legacy).map((peer) => peer.address);
    this.condition(
      "ipv6",
      "error",
      legacy.length === 0
        ? undefined
        : `not registered: nodes of the existing program crash on an IPv6 address in the registry (${legacy.slice(0, 5).join(", ")}). Replace them first, or give this node an IPv4 address (--addr)`,
      "no nodes of the existing program are left: registering",
    );
    return legacy.length === 0;
  }

  private putSoon(now: Instant): void {
    this.put.dirty = true;
    if (!this.put.running) {
      this.put.dueMs = Math.min(this.put.dueMs, Math.max(now.monoMs, this.put.startedMs + this.settings.putSpacingMs));
    }
  }

  private putDone(etag: string, now: Instant): void {
    this.put.running = false;
    // a try that timed out may still land, over this one
    const doubtful = !this.put.doubtful && (this.put.failures > 0 || now.monoMs - this.put.startedMs > slowPutMs);
    this.put.doubtful = doubtful;
    this.put.failures = 0;
    this.put.etag = etag;
    this.put.doneMs = now.monoMs;
    this.put.dueMs = this.put.dirty
      ? Math.max(now.monoMs, this.put.startedMs + this.settings.putSpacingMs)
      : now.monoMs + (doubtful ? slowPutMs : this.between(this.settings.refreshMs));
    this.condition("registry-put", "info", undefined, "the registry accepts our object again");
    this.afterPut(now);
  }

  private putFailed(problem: string, now: Instant): void {
    this.put.running = false;
    this.put.dueMs = now.monoMs + this.backoff(this.put.failures++);
    this.condition("registry-put", "error", problem);
    this.afterPut(now);
  }

  /** The first listing follows the first put, so that of two nodes starting together one sees the other. */
  private afterPut(now: Instant): void {
    if (this.list.dueMs === never && !this.list.running) this.list.dueMs = now.monoMs;
    this.startRegistry(now);
  }

  private listFailed(problem: string, now: Instant): void {
    this.list.running = false;
    this.list.dueMs = now.monoMs + this.backoff(this.list.failures++);
    this.condition("registry-list", "error", problem);
    this.startRegistry(now);
  }

  private listDone(objects: ReadonlyArray<Listed>, registryMs: number, now: Instant): void {
    this.list.running = false;
    this.list.failures = 0;
    this.condition("registry-list", "info", undefined, "the registry can be listed again");
    this.condition("registry-get", "info", undefined, "objects can be read again");
    this.checkClock(registryMs, now);
    const odd: Array<string> = [];
    const seen = new Set<Address.Address>();
    for (const object of objects) {
      const address = Address.parse(object.name);
      if (address === undefined || address !== object.name || !this.mayBeListed(address)) {
        odd.push(object.name);
        continue;
      }
      seen.add(address);
      if (address === this.address) {
        if (object.etag !== this.put.etag) this.repair(now);
      } else if (this.worthReading(address, object, now)) {
        this.get(address, object.etag);
      }
    }
    for (const name of this.foreign.keys()) if (!seen.has(name as Address.Address)) this.noLongerForeign(name);
    if (!seen.has(this.address)) this.repair(now);
    this.reportOdd(odd);
    this.reportGone(seen, now);
    this.list.dueMs = now.monoMs + this.listIntervalMs();
    if (!this.listedOnce) {
      this.listedOnce = true;
      if (!this.isSettled) this.settleMs = now.monoMs + this.settings.settleMs;
    }
    if (Address.family(this.address) === 6) this.putSoonAfterListing(now);
    this.startRegistry(now);
  }

  private putSoonAfterListing(now: Instant): void {
    if (this.put.dueMs === never && !this.put.running && this.getting.size === 0) this.putSoon(now);
  }

  private mayBeListed(address: Address.Address): boolean {
    return address === this.address || Address.mayBePeer(address, this.address);
  }

  private worthReading(address: Address.Address, object: Listed, now: Instant): boolean {
    if (this.foreign.get(address) === object.etag) return false;
    const peer = this.known.get(address);
    if (peer === undefined) return true;
    // while its datagrams arrive the registry has nothing newer
    if (now.monoMs - peer.udpMs < this.settings.silentMs && peer.from === "udp") return false;
    return peer.etag !== object.etag || object.ageMs > this.settings.expiryMs;
  }

  /** Our own object is missing or not what we put last (a late put, another's delete): put it again. */
  private repair(now: Instant): void {
    if (this.put.running || this.put.doneMs >= this.list.startedMs || this.put.dueMs === never) return;
    this.putSoon(now);
  }

  private get(address: Address.Address, etag = ""): void {
    if (this.getting.has(address) || this.getting.size >= this.settings.maxPeers) return;
    this.getting.set(address, etag);
    this.out.push({ _tag: "Get", address });
  }

  private getEnded(address: Address.Address, now: Instant): void {
    this.getting.delete(address);
    if (this.getting.size > 0) return;
    if (!this.isSettled && this.listedOnce) this.settleMs = now.monoMs + this.settings.settleMs;
    if (Address.family(this.address) === 6 && this.listedOnce) {
      this.putSoonAfterListing(now);
      this.startRegistry(now);
    }
  }

  private getDone(
    address: Address.Address,
    content: RegistryContent | undefined,
    etag: string,
    ageMs: number,
    now: Instant,
  ): void {
    if (content === undefined) {
      if (this.foreign.size < maxConditions) this.foreign.set(address, etag || (this.getting.get(address) ?? ""));
      this.condition(
        `foreign/${address}`,
        "warning",
        `the registry's object ${address} is no node's: it is ignored. Remove it, or give nameq a prefix of its own`,
      );
    } else {
      this.noLongerForeign(address);
      this.fetched(address, content, etag, ageMs, now);
    }
    this.getEnded(address, now);
  }

  private noLongerForeign(name: string): void {
    if (this.foreign.delete(name)) this.conditions.delete(`foreign/${name}`);
  }

  private fetched(address: Address.Address, content: RegistryContent, etag: string, ageMs: number, now: Instant): void {
    let peer = this.known.get(address);
    if (ageMs > this.settings.expiryMs) {
      if (peer === undefined || peer.silent) this.out.push({ _tag: "Delete", address });
      return;
    }
    // the registry's clock may be a little ahead of itself
    const putMs = now.monoMs - Math.max(ageMs, 0);
    const putNs = now.wallNs - msToNs(now.monoMs - putMs);
    // the owner's time, unless its clock was ahead when it put this: that would lock out all its later news
    const owner = content.timeNs;
    const believed = owner !== undefined && owner - putNs <= this.futureNs;
    const timeNs = believed ? owner : putNs;
    if (peer === undefined) {
      const last = this.forgotten.get(address);
      if (last !== undefined && timeNs <= last.timeNs && now.monoMs < last.untilMs) return;
      if (this.known.size >= this.settings.maxPeers) return this.drop("too-many-peers", address);
      peer = this.meet(address, now, true, putMs);
    }
    // another object is a sign of life, whatever its owner's clock and ours say
    if (peer.etag !== etag) peer.heardMs = Math.max(peer.heardMs, putMs);
    peer.etag = etag;
    if (peer.has(timeNs)) return;
    peer.timeNs = timeNs;
    peer.from = "registry";
    peer.legacy = owner === undefined;
    this.learn(peer, content.features, content.refused, this.isSettled);
  }

  /**
   * The fleet's listings a minute stay bounded whatever its size, except while many peers are silent: then the network
   * may be split, and the registry is what holds the fleet together.
   */
  private listIntervalMs(): number {
    const base = this.between(this.settings.listMs);
    if (this.manySilent()) return base;
    const [least, most] = this.settings.listMs;
    const growth = Math.min(
      (this.known.size + 1) / this.settings.listFleet,
      this.settings.listLongestMs / ((least + most) / 2),
    );
    return base * Math.max(1, growth);
  }

  private manySilent(): boolean {
    return this.silentPeers * 10 > this.known.size;
  }

  // --- reports ------------------------------------------------------------------------------------------------------

  private checkClock(registryMs: number, now: Instant): void {
    const offMs = Number(now.wallNs / 1_000_000n) - registryMs;
    this.registryOffset = offMs;
    this.condition(
      "clock",
      "warning",
      Math.abs(offMs) <= this.settings.futureMs
        ? undefined
        : `this host's clock is about ${Math.round(Math.abs(offMs) / 1_000)} s ${offMs > 0 ? "ahead of" : "behind"} the registry's: peers may drop our announcements. Set the clock (NTP)`,
      "this host's clock agrees with the registry's",
    );
  }

  private reportOdd(names: ReadonlyArray<string>): void {
    const shown = names.slice(0, 5).map((name) => JSON.stringify(name.slice(0, 64)));
    this.condition(
      "odd-keys",
      "warning",
      names.length === 0
        ? undefined
        : `the registry holds ${names.length} object${names.length === 1 ? " that is" : "s that are"} no node's, left alone: ${shown.join(", ")}${names.length > 5 ? " and more" : ""}`,
      "the registry holds only nodes",
    );
  }

  private reportGone(seen: ReadonlySet<Address.Address>, now: Instant): void {
    let heard = 0;
    let gone = 0;
    for (const peer of this.known.values()) {
      if (peer.from !== "udp" || now.monoMs - peer.udpMs >= this.settings.silentMs) continue;
      heard++;
      if (!seen.has(peer.address)) gone++;
    }
    this.condition(
      "registry-gone",
      "warning",
      gone < 3 || gone * 2 <= heard
        ? undefined
        : "most of the peers that we hear have no object in the registry: they are kept. See whether all use the same bucket and prefix",
      "the registry knows the peers that we hear",
    );
  }

  private condition(
    name: string,
    severity: "error" | "warning" | "info",
    problem: string | undefined,
    over?: string,
  ): void {
    const known = this.conditions.get(name);
    if (problem === undefined || severity === "info") {
      if (known === undefined) return;
      this.conditions.delete(name);
      this.out.push({ _tag: "Report", condition: name, severity: "info", message: over ?? name });
      return;
    }
    if (known !== undefined || this.conditions.size >= maxConditions) return;
    this.conditions.set(name, { name, severity, message: problem, sinceMs: this.nowMs });
    this.out.push({ _tag: "Report", condition: name, severity, message: problem });
  }

  private drop(reason: DropReason, source: string): void {
    this.out.push({ _tag: "Drop", reason, source });
  }

  private show(host: Address.Address, features: FeatureSet, before: FeatureSet, provisional: boolean): void {
    this.out.push({ _tag: "Show", host, features: features.entries, before: before.entries, provisional });
  }

  // --- randomness ---------------------------------------------------------------------------------------------------

  private between([least, most]: readonly [number, number]): number {
    return least + this.random() * (most - least);
  }

  private backoff(failures: number): number {
    const [first, longest] = this.settings.retryMs;
    return Math.min(longest, first * 2 ** Math.min(failures, 16)) * (0.5 + this.random() / 2);
  }
}
