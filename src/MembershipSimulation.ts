/**
 * A fleet of nothing but rules: `Membership` machines on one event heap, with the network's fault model, a registry and
 * trees that are plain maps. No fibers, no codec, no files: for thousands of nodes and very many seeds. What it leaves
 * out is checked by playing the same schedules on whole nodes (`Cluster`).
 */
import type { Address } from "./Address.js";
import type { Tree } from "./Cluster.js";
import type { Deed } from "./FaultSchedule.js";
import { calmLink, forged, forger } from "./FaultSchedule.js";
import * as Feature from "./Feature.js";
import type { FeatureName, FeatureSet, FeatureValue, HostFeatures } from "./Feature.js";
import { Heap } from "./Heap.js";
import { type Action, type Event, type Instant, Membership } from "./Membership.js";
import { type Announcement, noRemarks } from "./Packet.js";
import { Prng } from "./Prng.js";
import type { RegistryContent } from "./RegistryObject.js";
import type { RegistryHarm, RegistryReason } from "./S3Registry.js";
import type { Settings } from "./Settings.js";
import { type Delivery, FaultModel } from "./SimulatedNetwork.js";
import {
  addressOf,
  type MakeWorld,
  type OnEvent,
  type OnShown,
  packetHarm,
  registryHarm,
  type World,
} from "./Simulation.js";
import { requestMs, type Violation } from "./Witness.js";

const startUnixMs = Date.UTC(2026, 0, 1);
const never = Number.POSITIVE_INFINITY;
const none: ReadonlyArray<never> = [];

/** How long it takes until a disk that works again has what it missed, ms. */
const diskRetryMs = 1_000;

/** What happens at one millisecond, in order. */
type Happening = () => void;

/** Whole milliseconds since the start; what is due at one of them happens in the order in which it was planned. */
class Agenda {
  nowMs = 0;
  private readonly times = new Heap<number>();
  private readonly due = new Map<number, Array<Happening>>();

  plan(atMs: number, happening: Happening): void {
    const at = Math.max(this.nowMs, Math.ceil(atMs));
    const others = this.due.get(at);
    if (others !== undefined) {
      others.push(happening);
      return;
    }
    this.due.set(at, [happening]);
    this.times.push(at, at);
  }

  advanceTo(atMs: number): void {
    for (let at = this.times.pop(atMs); at !== undefined; at = this.times.pop(atMs)) {
      this.nowMs = at;
      const happenings = this.due.get(at)!;
      // it grows while it is worked through
      for (let i = 0; i < happenings.length; i++) happenings[i]!();
      this.due.delete(at);
    }
    this.nowMs = atMs;
  }
}

interface StoredObject {
  readonly content: RegistryContent | undefined;
  readonly etag: string;
  readonly lastModifiedMs: number;
}

interface Way {
  delayMs: number;
  failure: RegistryReason | undefined;
}

/** The same rules as `MemoryRegistry`. */
class PureRegistry {
  readonly harm: RegistryHarm = { failed: 0, slow: 0, timedOut: 0, behind: 0, vanished: 0 };
  clockOffsetMs = 0;
  listLagMs = 0;
  readonly objects = new Map<string, StoredObject>();
  private readonly listed = new Map<string, StoredObject>();
  private readonly unlisted: Array<{
    readonly atMs: number;
    readonly name: string;
    readonly object: StoredObject | undefined;
  }> = [];
  private etags = 0;

  constructor(private readonly agenda: Agenda) {}

  get nowMs(): number {
    return startUnixMs + this.agenda.nowMs + this.clockOffsetMs;
  }

  /** `answer` gets a problem, or undefined. */
  request(
    way: Way,
    start: ((landsMs: number) => void) | undefined,
    answer: (problem: string | undefined) => void,
  ): void {
    const { delayMs, failure } = way;
    const { nowMs } = this.agenda;
    if (failure === undefined) start?.(nowMs + delayMs);
    const late = delayMs > requestMs;
    if (late) this.harm.timedOut++;
    else if (failure !== undefined) this.harm.failed++;
    else if (delayMs > 0) this.harm.slow++;
    this.agenda.plan(nowMs + Math.min(delayMs, requestMs), () => answer(late ? "Timeout" : failure));
  }

  /** Gives the object's tag. */
  write(name: string, content: RegistryContent | undefined | "gone", atMs: number): string {
    const etag = String(++this.etags);
    const land = (): void => {
      const lastModifiedMs = startUnixMs + this.agenda.nowMs + this.clockOffsetMs;
      const object = content === "gone" ? undefined : { content, etag, lastModifiedMs };
      apply(this.objects, name, object);
      this.unlisted.push({ atMs: this.agenda.nowMs, name, object });
    };
    if (atMs <= this.agenda.nowMs) land();
    else if (atMs < never) this.agenda.plan(atMs, land);
    return etag;
  }

  list(): ReadonlyMap<string, StoredObject> {
    const untilMs = this.agenda.nowMs - this.listLagMs;
    const due = this.unlisted.findIndex(({ atMs }) => atMs > untilMs);
    for (const { name, object } of this.unlisted.splice(0, due === -1 ? this.unlisted.length : due)) {
      apply(this.listed, name, object);
    }
    if (this.unlisted.length > 0) this.harm.behind++;
    return this.listed;
  }

  get(name: string): StoredObject | undefined {
    const object = this.objects.get(name);
    if (object === undefined && this.listed.has(name)) this.harm.vanished++;
    return object;
  }
}

const apply = (objects: Map<string, StoredObject>, name: string, object: StoredObject | undefined): void => {
  if (object === undefined) objects.delete(name);
  else objects.set(name, object);
};

interface Host {
  wish: HostFeatures | undefined;
  firm: boolean;
}

/** What `StateTree` does, on maps. The files outlive it. */
class PureTree {
  private readonly hosts = new Map<Address, Host>();
  private readonly found = new Map<Address, Set<FeatureName>>();
  private settled = false;

  constructor(
    private readonly disk: PureDisk,
    private readonly onFile: (host: Address, feature: FeatureName, value: FeatureValue | undefined) => void,
  ) {
    for (const [host, files] of disk.files) {
      this.found.set(host, new Set(files.keys()));
      this.hosts.set(host, { wish: undefined, firm: false });
    }
  }

  update(address: Address, wish: HostFeatures, provisional: boolean): void {
    let host = this.hosts.get(address);
    if (host === undefined) {
      if (wish.size === 0) return;
      this.hosts.set(address, (host = { wish, firm: this.settled }));
    }
    host.wish = wish;
    host.firm ||= !provisional;
    this.write(address, host);
  }

  settle(): void {
    this.settled = true;
    for (const [address, host] of this.hosts) {
      if (host.firm) continue;
      host.firm = true;
      host.wish ??= new Map();
      this.write(address, host);
    }
  }

  writeAll(): void {
    for (const [address, host] of this.hosts) this.write(address, host);
  }

  withdraw(): void {
    for (const [address, host] of this.hosts) {
      host.wish = new Map();
      host.firm = true;
      this.write(address, host);
    }
  }

  private write(address: Address, { wish, firm }: Host): void {
    if (wish === undefined) return;
    if (this.disk.fault === "EACCES") {
      this.disk.refused.EACCES++;
      return;
    }
    const found = this.found.get(address);
    let files = this.disk.files.get(address);
    if (files === undefined) this.disk.files.set(address, (files = new Map()));
    for (const feature of files.keys()) {
      if (wish.has(feature) || (!firm && found?.has(feature) === true)) continue;
      files.delete(feature);
      found?.delete(feature);
      this.onFile(address, feature, undefined);
    }
    if (this.disk.fault !== undefined) {
      this.disk.refused.ENOSPC++;
      return;
    }
    for (const [feature, value] of wish) {
      if (!firm && found?.has(feature) === true) continue;
      found?.delete(feature);
      if (files.get(feature) === value) continue;
      files.set(feature, value);
      this.onFile(address, feature, value);
    }
  }
}

interface PureDisk {
  readonly files: Map<Address, Map<FeatureName, FeatureValue>>;
  fault: "ENOSPC" | "EACCES" | undefined;
  /** Writes of a host's files that failed. */
  readonly refused: { ENOSPC: number; EACCES: number };
}

class PureNode {
  skewMs = 0;
  lines = 0;
  dropped = 0;
  /** Heartbeats that were timed, and the different times between them. */
  beats = 0;
  readonly rests = new Set<number>();
  private beatMs: number | undefined;
  /** Questions that were not answered although they had to be, and answers that came too soon after the last one. */
  unanswered = 0;
  chatty = 0;
  /** When each peer was last told something alone because of what came from it or is stored of it. */
  private answeredMs = new Map<string, number>();
  readonly way: Way = { delayMs: 0, failure: undefined };
  readonly disk: PureDisk = { files: new Map(), fault: undefined, refused: { ENOSPC: 0, EACCES: 0 } };
  private readonly texts = new Map<FeatureName, string>();
  private good = new Map<FeatureName, FeatureValue>();
  private process: { readonly membership: Membership; readonly tree: PureTree; wakeMs: number } | undefined;
  private starts = 0;

  constructor(
    private readonly fleet: PureFleet,
    readonly place: number,
    readonly address: Address,
  ) {}

  get running(): boolean {
    return this.process !== undefined;
  }

  edit(feature: string, text: string | undefined): void {
    const name = feature as FeatureName;
    if (text === undefined) this.texts.delete(name);
    else this.texts.set(name, text);
    if (this.process !== undefined) this.step({ _tag: "FeaturesChanged", features: this.snapshot() });
  }

  /** The rules of `FeatureSource`: the last good value stays while a file is no JSON. */
  private snapshot(): FeatureSet {
    const good = new Map<FeatureName, FeatureValue>();
    for (const [name, text] of this.texts) {
      const value = Feature.parseValue(text);
      const kept = typeof value === "string" ? value : this.good.get(name);
      if (kept !== undefined) good.set(name, kept);
    }
    this.good = good;
    return Feature.fromEntries(good);
  }

  start(): void {
    const { fleet } = this;
    const prng = Prng.seeded((fleet.seed * 65_537 + this.place * 257 + this.starts++) | 0);
    const tree = new PureTree(this.disk, (host, feature, value) =>
      fleet.onShown(this.place, host, feature, value, fleet.agenda.nowMs),
    );
    const membership = new Membership(this.address, fleet.settings, () => prng.float());
    this.process = { membership, tree, wakeMs: never };
    this.good = new Map();
    this.answeredMs = new Map();
    this.step({ _tag: "Started", features: this.snapshot() });
  }

  crash(): void {
    this.process = undefined;
  }

  ask(): void {
    this.step({ _tag: "Asked" });
  }

  withdraw(): void {
    const { process } = this;
    if (process === undefined) return;
    this.step({ _tag: "Withdrawn" });
    process.tree.withdraw();
    this.process = undefined;
  }

  wipe(): void {
    this.disk.files.clear();
    this.texts.clear();
  }

  /** Notes the time between two heartbeats with no change between them. */
  private beat(event: Event, announced: boolean): void {
    if (event._tag === "Started" || event._tag === "FeaturesChanged") this.beatMs = undefined;
    if (event._tag !== "Woken" || !announced) return;
    const { nowMs } = this.fleet.agenda;
    if (this.beatMs !== undefined) {
      this.beats++;
      if (this.rests.size < 100) this.rests.add(nowMs - this.beatMs);
    }
    this.beatMs = nowMs;
  }

  /** Who asks is answered at once, if it was not within the last second. */
  private judgeAnswer(event: Event, actions: ReadonlyArray<Action>): void {
    if (event._tag !== "Received" && event._tag !== "GetDone") return;
    // most datagrams: nothing is asked and nothing is said
    if (event._tag === "Received" && actions.length === 0 && !event.announcement.remarks.ask) return;
    const { nowMs } = this.fleet.agenda;
    const peer = event._tag === "Received" ? event.source : event.address;
    const told = actions.some((action) => action._tag === "Announce");
    const sinceMs = nowMs - (this.answeredMs.get(peer) ?? -never);
    if (told) this.answeredMs.set(peer, nowMs);
    if (event._tag === "GetDone" || !event.announcement.remarks.ask) return;
    if (actions.some((action) => action._tag === "Drop")) return;
    if (!told && sinceMs >= 1_000) this.unanswered++;
    if (told && sinceMs < 1_000) this.chatty++;
  }

  repairDisk(): void {
    const { process } = this;
    this.fleet.agenda.plan(this.fleet.agenda.nowMs + diskRetryMs, () => {
      if (this.process === process) process?.tree.writeAll();
    });
  }

  /** Whether it took it as news: with the process that did. */
  receive(source: string, announcement: Announcement): unknown {
    const { dropped, process } = this;
    if (process === undefined) return undefined;
    this.step({ _tag: "Received", source, announcement });
    return this.dropped === dropped ? process : undefined;
  }

  private step(event: Event): void {
    const { process } = this;
    if (process === undefined) return;
    const { agenda, onEvent } = this.fleet;
    if (onEvent !== undefined) {
      const words = JSON.stringify(event, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
      onEvent(`${agenda.nowMs} ${this.address} ${words}`);
    }
    let announced = false;
    const actions = process.membership.step(event, this.fleet.instant(this.skewMs));
    for (const action of actions) {
      this.perform(action);
      announced ||= action._tag === "Announce";
    }
    this.beat(event, announced);
    this.judgeAnswer(event, actions);
    const deadlineMs = Math.ceil(process.membership.deadlineMs);
    if (deadlineMs >= process.wakeMs || deadlineMs === never) return;
    process.wakeMs = deadlineMs;
    agenda.plan(deadlineMs, () => {
      if (this.process !== process || process.wakeMs !== deadlineMs) return;
      process.wakeMs = never;
      this.step({ _tag: "Woken" });
    });
  }

  /** Gives an answer to this process, if it still runs. */
  private readonly answer = (process: unknown, event: Event): void => {
    if (this.process === process) this.step(event);
  };

  private perform(action: Action): void {
    const { process, fleet, way } = this;
    const { registry } = fleet;
    switch (action._tag) {
      case "Show":
        process!.tree.update(action.host, action.features, action.provisional);
        break;
      case "Settle":
        process!.tree.settle();
        break;
      case "Announce":
        fleet.send(this.address, action.to, {
          address: this.address,
          timeNs: action.timeNs,
          features: action.features,
          refused: none,
          remarks: { version: "simulated", ask: action.ask, leaving: action.leaving },
        });
        break;
      case "Put": {
        const content = { features: action.features, timeNs: action.timeNs, refused: none };
        let etag = "";
        registry.request(
          way,
          (landsMs) => (etag = registry.write(this.address, content, landsMs)),
          (problem) =>
            this.answer(process, problem === undefined ? { _tag: "PutDone", etag } : { _tag: "PutFailed", problem }),
        );
        break;
      }
      case "List":
        registry.request(way, undefined, (problem) =>
          this.answer(
            process,
            problem === undefined
              ? {
                  _tag: "ListDone",
                  registryMs: registry.nowMs,
                  objects: [...registry.list()].map(([name, { etag, lastModifiedMs }]) => ({
                    name,
                    etag,
                    ageMs: registry.nowMs - lastModifiedMs,
                  })),
                }
              : { _tag: "ListFailed", problem },
          ),
        );
        break;
      case "Get": {
        const { address } = action;
        registry.request(way, undefined, (problem) => {
          const object = registry.get(address);
          if (problem !== undefined) this.answer(process, { _tag: "GetFailed", address, problem });
          else if (object === undefined) this.answer(process, { _tag: "GetMissing", address });
          else {
            const { content, etag, lastModifiedMs } = object;
            this.answer(process, { _tag: "GetDone", address, content, etag, ageMs: registry.nowMs - lastModifiedMs });
          }
        });
        break;
      }
      case "Delete":
        registry.request(
          way,
          (landsMs) => registry.write(action.address, "gone", landsMs),
          () => {},
        );
        break;
      case "Report":
        this.lines++;
        break;
      case "Drop":
        this.dropped++;
        break;
    }
  }

  get sizes(): Readonly<Record<string, number>> | undefined {
    return this.process && { ...this.process.membership.sizes, logged: this.lines };
  }

  get tree(): Tree {
    const tree: Record<string, Record<string, string>> = {};
    for (const [host, files] of this.disk.files) {
      for (const [feature, value] of files) (tree[feature] ??= {})[host] = value;
    }
    return tree;
  }
}

/** A class, because a literal is slow for good once whole nodes, whose moments have fractions, ran in the same process. */
class PureInstant implements Instant {
  readonly wallNs: bigint;
  constructor(
    readonly monoMs: number,
    skewMs: number,
  ) {
    this.wallNs = BigInt(startUnixMs + monoMs + skewMs) * 1_000_000n;
  }
}

/** A fleet; nodes are at `addressOf` their places. */
export class PureFleet {
  readonly agenda = new Agenda();
  readonly registry = new PureRegistry(this.agenda);
  readonly faults: FaultModel;
  readonly nodes: Array<PureNode> = [];
  /** Datagrams of which both copies counted as news. */
  takenTwice = 0;
  /** Datagrams that arrived. */
  delivered = 0;
  private readonly byAddress = new Map<Address, PureNode>();
  private now = new PureInstant(0, 0);

  constructor(
    readonly seed: number,
    readonly settings: Settings,
    readonly onShown: OnShown = () => {},
    readonly onEvent?: OnEvent,
  ) {
    this.faults = new FaultModel(Prng.seeded(seed), calmLink);
  }

  join(): PureNode {
    const node = new PureNode(this, this.nodes.length, addressOf(this.nodes.length));
    this.nodes.push(node);
    this.byAddress.set(node.address, node);
    node.start();
    return node;
  }

  instant(skewMs: number): Instant {
    const monoMs = this.agenda.nowMs;
    if (skewMs !== 0) return new PureInstant(monoMs, skewMs);
    if (this.now.monoMs !== monoMs) this.now = new PureInstant(monoMs, 0);
    return this.now;
  }

  send(from: Address, to: ReadonlyArray<Address>, announcement: Announcement): void {
    /** Who gets it after how many ms: one happening for all of them. */
    const together = new Map<number, Array<Address>>();
    for (const each of to) {
      const decision = this.faults.decide(from, each);
      if (typeof decision === "string") continue;
      const [first, second] = decision;
      if (second !== undefined) this.sendDouble(from, each, announcement, decision);
      else if (first!.corruptedAt === undefined) {
        const others = together.get(first!.delayMs);
        if (others === undefined) together.set(first!.delayMs, [each]);
        else others.push(each);
      }
    }
    for (const [delayMs, readers] of together) {
      this.agenda.plan(this.agenda.nowMs + delayMs, () => {
        this.delivered += readers.length;
        for (const each of readers) this.byAddress.get(each)?.receive(from, announcement);
      });
    }
  }

  /** Only one of two copies may count as news to one process. */
  private sendDouble(from: Address, to: Address, announcement: Announcement, copies: ReadonlyArray<Delivery>): void {
    // the process that took the first copy
    let taken: unknown;
    for (const { corruptedAt, delayMs } of copies) {
      if (corruptedAt !== undefined) continue;
      this.agenda.plan(this.agenda.nowMs + delayMs, () => {
        this.delivered++;
        const by = this.byAddress.get(to)?.receive(from, announcement);
        if (by !== undefined && by === taken) this.takenTwice++;
        taken ??= by;
      });
    }
  }
}

/** Rules alone: see `Simulation.play`. */
export const membershipWorld: MakeWorld = (schedule, settings, onShown, onEvent): World => {
  const fleet = new PureFleet(schedule.seed, settings, onShown, onEvent);
  const { agenda, faults, nodes, registry } = fleet;
  const perform = (deed: Deed): void => {
    switch (deed.do) {
      case "set":
        return nodes[deed.node]!.edit(deed.feature, deed.value);
      case "half-write":
        return nodes[deed.node]!.edit(deed.feature, "{");
      case "remove":
        return nodes[deed.node]!.edit(deed.feature, undefined);
      case "partition":
        return faults.partition(...deed.groups.map((group) => group.map(addressOf)));
      case "cut":
        return deed.oneWay
          ? faults.cutOneWay(addressOf(deed.from), addressOf(deed.to))
          : faults.cut(addressOf(deed.from), addressOf(deed.to));
      case "heal":
        return faults.heal();
      case "link":
        return faults.setDefault(deed.link);
      case "crash":
        return nodes[deed.node]!.crash();
      case "stop":
        return deed.keep ? nodes[deed.node]!.crash() : nodes[deed.node]!.withdraw();
      case "start":
        if (!nodes[deed.node]!.running) nodes[deed.node]!.start();
        return;
      case "replace": {
        const node = nodes[deed.node]!;
        node.crash();
        node.wipe();
        return node.start();
      }
      case "clock":
        nodes[deed.node]!.skewMs = deed.skewMs;
        return;
      case "registry":
        Object.assign(nodes[deed.node]!.way, { delayMs: deed.delayMs, failure: deed.failure });
        return;
      case "registry-clock":
        registry.clockOffsetMs = deed.offsetMs;
        return;
      case "listing-lag":
        registry.listLagMs = deed.lagMs;
        return;
      case "vanish":
        registry.objects.delete(addressOf(deed.node));
        return;
      case "plant":
        registry.write(deed.name, undefined, agenda.nowMs);
        return;
      case "forge":
        return fleet.send(forger, [addressOf(deed.to)], {
          address: addressOf(deed.node),
          timeNs: fleet.instant(0).wallNs,
          features: forged,
          refused: none,
          remarks: noRemarks,
        });
      case "ask":
        return nodes[deed.node]!.ask();
      case "disk":
        nodes[deed.node]!.disk.fault = deed.code;
        if (deed.code === undefined) nodes[deed.node]!.repairDisk();
        return;
      case "join":
        return;
    }
  };
  return {
    advanceTo: (atMs) => agenda.advanceTo(atMs),
    perform,
    join: () => fleet.join().address,
    objects: () => new Set(registry.objects.keys()),
    trees: () => Object.fromEntries(nodes.flatMap((node) => (node.running ? [[node.address, node.tree]] : []))),
    sizes: () => nodes.map(({ sizes }) => sizes),
    harm: () => ({
      ...packetHarm(faults),
      ...registryHarm(registry.harm),
      "file operations ENOSPC": nodes.reduce((sum, { disk }) => sum + disk.refused.ENOSPC, 0),
      "file operations EACCES": nodes.reduce((sum, { disk }) => sum + disk.refused.EACCES, 0),
    }),
    complaints: () => {
      const all: Array<Omit<Violation, "atMs">> = [];
      if (fleet.takenTwice > 0) all.push({ rule: "replayed", message: `${fleet.takenTwice} doubles counted as news` });
      for (const { address, beats, chatty, rests, unanswered } of nodes) {
        if (unanswered > 0) all.push({ rule: "unanswered", message: `${address} left ${unanswered} questions open` });
        if (chatty > 0) all.push({ rule: "chatty", message: `${address} answered ${chatty} times within a second` });
        if (beats > 50 && rests.size < 25) {
          all.push({
            rule: "in-step",
            message: `${address} has only ${rests.size} different times between ${beats} heartbeats`,
          });
        }
      }
      return all;
    },
    close: () => {},
  };
};
