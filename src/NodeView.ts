/**
 * What a running node knows, for those who look in: the HTTP face, readiness, tests. The daemon tells it what happens;
 * everything that can be read when it is asked for is read then, so that a view costs a node almost nothing.
 */
import * as Effect from "effect/Effect";
import type { Address } from "./Address.js";
import { ownHost } from "./Address.js";
import type { FeatureName, FeatureSet, FeatureValue, HostFeatures } from "./Feature.js";
import * as Feature from "./Feature.js";
import type { Action, Instant, Membership, Peer } from "./Membership.js";

/** A feature of a host came, changed or went. */
export interface Change {
  /** 1, 2, 3 and so on in the life of the node. */
  readonly sequence: number;
  /** Unix ms. */
  readonly atMs: number;
  readonly feature: FeatureName;
  /** The node's own features are under its own address. */
  readonly host: Address;
  /** Exact JSON text; undefined when it went. */
  readonly value: FeatureValue | undefined;
}

/**
 * `alive`: heard by UDP within 45 s. `silent`: not, and looked up in the registry. `left`: it said goodbye and is
 * remembered until it expires. `forgotten`: it expired.
 */
export type NodeState = "alive" | "silent" | "left" | "forgotten";

/** Another node. */
export interface NodeReport {
  readonly address: Address;
  readonly state: NodeState;
  /** Where the last news came from. */
  readonly source: "udp" | "registry";
  readonly features: number;
  /** What it says of itself; undefined of the existing program. */
  readonly version: string | undefined;
  /** Its object in the registry is one of the existing program. */
  readonly legacy: boolean;
  /** When its last news was accepted (registry news: as old as its object was), Unix ms. */
  readonly heardAtMs: number;
  /** When its last datagram was accepted, Unix ms; undefined when there was none. */
  readonly datagramAtMs: number | undefined;
  /** The time in its last news, its own clock, Unix ns. */
  readonly announcedAtNs: bigint;
  /** Our clock less its clock at its last datagram, ms, the time on the way included. */
  readonly clockOffsetMs: number | undefined;
}

/** Something that is wrong now, and what to do. */
export interface ConditionReport {
  readonly name: string;
  readonly severity: "error" | "warning";
  readonly message: string;
  /** Unix ms. */
  readonly sinceMs: number;
}

/** Who answered when all were asked. */
export interface Answer {
  readonly address: Address;
  /** Ms from the question to the answer; undefined: none came. */
  readonly afterMs: number | undefined;
  /** False for the existing program, which does not understand the question. */
  readonly canAnswer: boolean;
  /** How long ago its last datagram was accepted, ms; undefined: never. */
  readonly heardMs: number | undefined;
}

/** What a view needs of the daemon. */
export interface Viewed {
  readonly membership: Membership;
  readonly instant: () => Instant;
  /** Asks all peers to announce themselves at once. */
  readonly ask: () => void;
  /** How much waits in the daemon's queues, and how much its parts keep. */
  readonly sizes: () => Readonly<Record<string, number>>;
}

/** Changes that are kept for those who come back, and forgotten nodes. */
const maxChanges = 1_024;
const maxForgotten = 256;

/** Characters that the values of those changes may have together. */
const maxChangesLength = 4 * 1024 * 1024;

/** Drops of one reason are a condition for so long after the last of them, ms: three heartbeats. */
const dropConditionMs = 120_000;

/** Senders that such a condition names. */
const maxSources = 5;

/** Datagrams that were dropped for one reason. Times are monotonic ms. */
interface Drops {
  readonly sinceMs: number;
  lastMs: number;
  count: number;
  readonly sources: Set<string>;
  readonly advice: string | undefined;
}

/** How often it is looked whether answers came, ms. */
const lookForAnswersMs = 20;

export class NodeView {
  /** Told, in the daemon's own turn, that there is something new. They must be quick. */
  readonly listeners = new Set<() => void>();
  private viewed: Viewed | undefined;
  private readonly ring: Array<Change> = [];
  private ringLength = 0;
  private readonly forgottenNodes = new Map<Address, NodeReport>();
  private readonly drops = new Map<string, Drops>();
  private readonly noted = new Map<string, ConditionReport>();
  private readonly readiness = Effect.unsafeMakeLatch(false);
  private isReady = false;
  private last = 0;

  // --- the daemon's side --------------------------------------------------------------------------------------------

  /** The node runs from now on. */
  attach(viewed: Viewed): void {
    this.viewed = viewed;
  }

  /** `host` offers these from now on, and offered those before. */
  show({ host, features, before }: Action & { readonly _tag: "Show" }): void {
    const address = host === ownHost ? this.attached.membership.address : host;
    const atMs = this.unixMs();
    for (const feature of before.keys()) if (!features.has(feature)) this.note(atMs, feature, address, undefined);
    for (const [feature, value] of features) {
      if (before.get(feature) !== value) this.note(atMs, feature, address, value);
    }
    this.tell();
  }

  private note(atMs: number, feature: FeatureName, host: Address, value: FeatureValue | undefined): void {
    // as a slice, which it mostly is, it would keep all that its host announced with it
    const own = value === undefined ? undefined : (` ${value}`.slice(1) as FeatureValue);
    this.ring.push({ sequence: ++this.last, atMs, feature, host, value: own });
    this.ringLength += own?.length ?? 0;
    while (this.ring.length > maxChanges || this.ringLength > maxChangesLength) {
      this.ringLength -= this.ring.shift()?.value?.length ?? 0;
    }
  }

  /** A peer expired. */
  forget(peer: Peer): void {
    this.forgottenNodes.delete(peer.address);
    const [oldest] = this.forgottenNodes.keys();
    if (oldest !== undefined && this.forgottenNodes.size >= maxForgotten) this.forgottenNodes.delete(oldest);
    this.forgottenNodes.set(peer.address, this.reportOf(peer, "forgotten"));
    this.tell();
  }

  /** A datagram was dropped at this monotonic moment, for a reason that a healthy network does not bring. */
  dropped(reason: string, source: string, advice: string | undefined, nowMs: number): void {
    let drops = this.drops.get(reason);
    if (drops === undefined || nowMs - drops.lastMs >= dropConditionMs) {
      drops = { sinceMs: nowMs, lastMs: nowMs, count: 0, sources: new Set(), advice };
      this.drops.set(reason, drops);
      this.tell();
    }
    drops.lastMs = nowMs;
    drops.count++;
    if (drops.sources.size < maxSources) drops.sources.add(source);
  }

  /** A condition that is not of the rules begins, or ends (`problem` undefined). */
  condition(name: string, problem: Pick<ConditionReport, "severity" | "message"> | undefined): void {
    if (problem === undefined) this.noted.delete(name);
    else this.noted.set(name, { name, ...problem, sinceMs: this.noted.get(name)?.sinceMs ?? this.unixMs() });
    this.tell();
  }

  /** Membership is known and stands in the tree. */
  readonly becomeReady: Effect.Effect<void> = Effect.suspend(() => {
    this.isReady = true;
    this.tell();
    return this.readiness.open;
  });

  /** Something that is read when it is asked for has changed. */
  tell(): void {
    for (const listener of this.listeners) listener();
  }

  // --- the viewer's side --------------------------------------------------------------------------------------------

  /** Whether membership is known (the registry scanned, or given up on) and stands in the tree. */
  get ready(): boolean {
    return this.isReady;
  }

  /** Whether the daemon runs: before, nobody can be asked. */
  get isRunning(): boolean {
    return this.viewed !== undefined;
  }

  /** Waits until it is. */
  readonly whenReady: Effect.Effect<void> = this.readiness.await;

  /** What every host offers, the node itself under its own address. Hosts without features are not in it. */
  get features(): ReadonlyMap<Address, HostFeatures> {
    const features = new Map<Address, HostFeatures>();
    if (this.viewed === undefined) return features;
    const { membership } = this.viewed;
    if (membership.features.entries.size > 0) features.set(membership.address, membership.features.entries);
    for (const { address, features: set } of membership.peers.values()) {
      if (set.entries.size > 0) features.set(address, set.entries);
    }
    return features;
  }

  /** The node's own features. */
  get own(): FeatureSet {
    return this.viewed?.membership.features ?? Feature.empty;
  }

  /** Our clock less the registry's at the last listing, ms; undefined before. */
  get registryOffsetMs(): number | undefined {
    return this.viewed?.membership.registryOffsetMs;
  }

  /** The sequence number of the last change; 0 before the first. */
  get sequence(): number {
    return this.last;
  }

  /** The changes after this one, the oldest first; undefined when some of them are no longer known. */
  changesSince(sequence: number): ReadonlyArray<Change> | undefined {
    if (sequence > this.last || sequence < this.last - this.ring.length) return undefined;
    return this.ring.slice(this.ring.length - (this.last - sequence));
  }

  /** Every other node that is known, and those forgotten lately, in no order. */
  nodes(): ReadonlyArray<NodeReport> {
    const peers = this.viewed?.membership.peers ?? new Map<Address, Peer>();
    const nodes: Array<NodeReport> = [];
    for (const peer of peers.values()) {
      nodes.push(this.reportOf(peer, peer.left ? "left" : peer.silent ? "silent" : "alive"));
    }
    for (const [address, node] of this.forgottenNodes) if (!peers.has(address)) nodes.push(node);
    return nodes;
  }

  private reportOf(peer: Peer, state: NodeState): NodeReport {
    const { membership, instant } = this.attached;
    const { monoMs, wallNs } = instant();
    const unixMs = Number(wallNs / 1_000n) / 1_000;
    const heard = !Number.isNaN(peer.offsetMs);
    return {
      address: peer.address,
      state,
      source: peer.from,
      features: peer.features.entries.size,
      version: peer.version,
      legacy: peer.legacy,
      heardAtMs: unixMs - membership.ageMs(peer.heardMs, monoMs),
      datagramAtMs: heard ? unixMs - membership.ageMs(peer.udpMs, monoMs) : undefined,
      announcedAtNs: peer.timeNs,
      clockOffsetMs: heard ? peer.offsetMs : undefined,
    };
  }

  /** What is wrong now, errors first. */
  conditions(): ReadonlyArray<ConditionReport> {
    if (this.viewed === undefined) return [];
    const { membership, instant } = this.viewed;
    const { monoMs } = instant();
    const nowMs = this.unixMs();
    const conditions: Array<ConditionReport> = [...this.noted.values()];
    for (const { sinceMs, ...condition } of membership.problems) {
      conditions.push({ ...condition, sinceMs: nowMs - membership.ageMs(sinceMs, monoMs) });
    }
    for (const [reason, { sinceMs, lastMs, count, sources, advice }] of this.drops) {
      if (monoMs - lastMs >= dropConditionMs) continue;
      const message = `dropped ${count} datagram${count === 1 ? "" : "s"} (${reason}) from ${[...sources].join(", ")}${advice === undefined ? "" : `: ${advice}`}`;
      conditions.push({ name: `dropped/${reason}`, severity: "warning", message, sinceMs: nowMs - (monoMs - sinceMs) });
    }
    return conditions.toSorted(
      (a, b) => Number(b.severity === "error") - Number(a.severity === "error") || a.sinceMs - b.sinceMs,
    );
  }

  /** How much the node keeps and how much waits, by name: everything that could grow. Empty before it runs. */
  sizes(): Readonly<Record<string, number>> {
    return {
      ...this.viewed?.membership.sizes,
      ...this.viewed?.sizes(),
      changes: this.ring.length,
      forgottenNodes: this.forgottenNodes.size,
      drops: this.drops.size,
      noted: this.noted.size,
    };
  }

  /** Asks all peers to answer, if the node runs. */
  askAll(): void {
    this.viewed?.ask();
  }

  /** Asks all peers to answer, and waits at most so long, ms, until all that can have. */
  readonly ask = (waitMs: number): Effect.Effect<ReadonlyArray<Answer>> =>
    Effect.suspend(() => {
      const { membership, instant, ask } = this.attached;
      const askedMs = instant().monoMs;
      ask();
      const answers = (): ReadonlyArray<Answer> => {
        const { monoMs } = instant();
        return Array.from(membership.peers.values(), (peer) => {
          const heardMs = membership.ageMs(peer.udpMs, monoMs);
          const afterMs = monoMs - askedMs - heardMs;
          const heard = !Number.isNaN(peer.offsetMs);
          return {
            address: peer.address,
            afterMs: heard && afterMs >= 0 ? afterMs : undefined,
            canAnswer: peer.version !== undefined,
            heardMs: heard ? heardMs : undefined,
          };
        });
      };
      return Effect.sleep(lookForAnswersMs).pipe(
        Effect.map(answers),
        Effect.repeat({
          until: (all) =>
            instant().monoMs - askedMs >= waitMs ||
            all.every(({ afterMs, canAnswer }) => afterMs !== undefined || !canAnswer),
        }),
      );
    });

  private get attached(): Viewed {
    if (this.viewed === undefined) throw new Error("a view is of a running node: see Daemon.run");
    return this.viewed;
  }

  /** Unix ms by the node's clock; 0 before it runs. */
  unixMs(): number {
    return this.viewed === undefined ? 0 : Number(this.viewed.instant().wallNs / 1_000_000n);
  }
}
