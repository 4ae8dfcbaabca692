/**
 * A fleet in one process: whole nodes (the daemon's own loops, codec and rules) over memory instead of sockets, files
 * and S3, in virtual time. For tests of nameq, and for tests of programs that must live with a fleet that splits, loses
 * packets and heals. The same seed and the same calls give the same run.
 */
import * as Cause from "effect/Cause";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import type * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as Random from "effect/Random";
import * as Scope from "effect/Scope";
import { createSecretKey } from "node:crypto";
import * as Address from "./Address.js";
import * as Daemon from "./Daemon.js";
import * as Feature from "./Feature.js";
import { FeatureTable } from "./FeatureTable.js";
import { FeatureSource } from "./FeatureSource.js";
import { watchTable } from "./MemoryFleet.js";
import { Metrics } from "./Metrics.js";
import { make as makeClient, NameqClient } from "./NameqClient.js";
import { NodeView } from "./NodeView.js";
import * as Packet from "./Packet.js";
import { MemoryRegistry, S3Registry } from "./S3Registry.js";
import { Secrets } from "./Secrets.js";
import type { Settings } from "./Settings.js";
import * as SimulatedNetwork from "./SimulatedNetwork.js";
import { StateTree } from "./StateTree.js";
import { MemoryFiles } from "./TreeFiles.js";
import { UdpTransport } from "./UdpTransport.js";
import { VirtualTime } from "./VirtualTime.js";

export interface ClusterOptions {
  /** How many nodes start at once (10.0.0.1, 10.0.0.2, ...), or their addresses. */
  readonly nodes: number | ReadonlyArray<string>;
  /** A 32-bit integer. Defaults to 1. */
  readonly seed?: number;
  /** What the network does to packets. Defaults to a delay of 1 to 5 ms and no fault. */
  readonly link?: Partial<SimulatedNetwork.Link>;
  readonly settings?: Settings;
}

/** The address of the node at a place: 10.0.0.1 to 10.0.0.254, then 10.0.1.1. */
export const addressOf = (place: number): Address.Address =>
  `10.0.${Math.floor(place / 254)}.${(place % 254) + 1}` as Address.Address;

/** Feature -> host -> JSON text (compact). The node's own are under 127.0.0.1. */
export type Tree = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** A node by its place (0 is the first) or by itself. */
export type NodeRef = number | ClusterNode;

/** Log lines that are kept of each node. */
const maxLog = 1_000;

/** Any key: the simulated network is not listened to. */
const key: Packet.Key = { mode: 0, secret: createSecretKey(Buffer.from("simulated fleet's secret")) };

/** Files that tell of each change that a program in the tree would see. */
class ObservedFiles extends MemoryFiles {
  /** `text` is undefined when the file went. */
  onChange: ((path: string, text: string | undefined) => void) | undefined;

  private followed: FeatureTable | undefined;

  override rename(from: string, to: string): void {
    super.rename(from, to);
    this.tell(to, this.read(to));
  }

  override unlink(path: string): void {
    super.unlink(path);
    this.tell(path, undefined);
  }

  /** What programs know of the tree, from now on up to date. */
  get table(): FeatureTable {
    if (this.followed === undefined) {
      this.followed = new FeatureTable();
      for (const [feature, hosts] of this.features) {
        for (const [host, text] of hosts) this.follow(this.followed, feature, host, text);
      }
    }
    return this.followed;
  }

  private tell(path: string, text: string | undefined): void {
    this.onChange?.(path, text);
    const [top, feature, host] = path.split("/");
    if (this.followed !== undefined && top === "features" && feature !== undefined && host !== undefined) {
      this.follow(this.followed, feature, host, text);
    }
  }

  private follow(table: FeatureTable, feature: string, host: string, text: string | undefined): void {
    const value = text === undefined ? undefined : Feature.parseValue(text);
    const held = typeof value === "string" ? { value, changedMs: this.unixMs() } : undefined;
    table.set(feature as Feature.FeatureName, host as Address.Address, held);
  }

  constructor(private readonly unixMs: () => number) {
    super();
  }
}

/** One node of a cluster: its disk outlives its process. */
export class ClusterNode {
  /** How far its wall clock is off, ms. */
  skewMs = 0;
  /** The files of its state directory: can be read, and made to fail (`fault`). */
  readonly files = new ObservedFiles(() => this.cluster.time.unixMs);
  /** What it logged, oldest first, at most the last 1,000 lines. */
  readonly log: Array<string> = [];
  /** Lines it ever logged. */
  lines = 0;
  /** Counters of the present or last process. */
  metrics: Metrics.Service | undefined;
  /** What its present or last process knows. */
  view = new NodeView();
  /** Why its last process ended by itself, if it did. */
  failure: string | undefined;
  private process:
    | {
        readonly fiber: Fiber.RuntimeFiber<unknown, unknown>;
        readonly options: { onExit: "withdraw" | "keep" };
        leaving: boolean;
        readonly next: Array<() => void>;
      }
    | undefined;
  private starts = 0;

  constructor(
    private readonly cluster: Cluster,
    readonly address: Address.Address,
    private readonly source: FeatureSource.Memory,
  ) {}

  /**
   * The library of the programs on this host: it follows the node's tree as simulated time passes, so that a program can
   * be tested against a fleet that splits and heals.
   */
  get client(): Layer.Layer<NameqClient> {
    return Layer.sync(NameqClient, () =>
      makeClient(watchTable(this.files.table), {
        set: (name, value) => Effect.sync(() => this.write(name, value)),
        remove: (name) => Effect.sync(() => this.remove(name)),
      }),
    );
  }

  get running(): boolean {
    return this.process !== undefined;
  }

  /** It was told to stop, and its process has not ended yet. */
  get leaving(): boolean {
    return this.process?.leaving === true;
  }

  /** Advertises a feature, as a file in its feature directory: any JSON value, or `undefined` for none. */
  set(name: string, value: unknown): void {
    this.write(name, JSON.stringify(value));
  }

  /** Writes any text to a feature file, valid or not. */
  write(name: string, text: string): void {
    if (!Feature.isFeatureName(name)) throw new Error(`not a feature name: ${JSON.stringify(name)}`);
    this.cluster.runSync(this.source.write(name, text));
  }

  remove(name: string): void {
    this.cluster.runSync(this.source.remove(name as Feature.FeatureName));
  }

  /** What it advertises, by its files. */
  get features(): Readonly<Record<string, string>> {
    const all: Record<string, string> = {};
    for (const [name, text] of this.cluster.runSync(this.source.files.get)) {
      const value = Feature.parseValue(text);
      if (typeof value === "string") all[name] = value;
    }
    return all;
  }

  /** What its programs see. */
  get tree(): Tree {
    const tree: Record<string, Record<string, string>> = {};
    for (const [name, hosts] of this.files.features) {
      for (const [host, text] of hosts) {
        const value = Feature.parseValue(text);
        (tree[name] ??= {})[host] = typeof value === "string" ? value : `not JSON: ${text}`;
      }
    }
    return tree;
  }

  /** Starts a process on this node's address and files. */
  start(options: Partial<Daemon.DaemonOptions> = {}): void {
    if (this.process !== undefined) throw new Error(`${this.address} runs already`);
    const { cluster } = this;
    this.failure = undefined;
    const said = Logger.make(({ logLevel, message }) => {
      this.lines++;
      if (this.log.length === maxLog) this.log.shift();
      const text = Array.isArray(message) ? message.join(" ") : String(message);
      this.log.push(`${new Date(cluster.time.unixMs).toISOString()} ${logLevel.label} ${text}`);
    });
    const services = Layer.mergeAll(
      S3Registry.layerMemory(cluster.registry, this.address),
      UdpTransport.layerMemory(cluster.network, this.address),
      FeatureSource.layerMemory(this.source),
      StateTree.layerMemory(this.files),
      Secrets.layerMemory({ sign: key, accept: [key] }),
    ).pipe(Layer.provideMerge(Metrics.layer));
    this.view = new NodeView();
    const daemon = {
      onExit: "withdraw" as "withdraw" | "keep",
      view: this.view,
      ...cluster.daemonOptions,
      ...options,
    };
    const program = Effect.tap(Metrics, (metrics) =>
      Effect.sync(() => {
        this.metrics = metrics;
      }),
    ).pipe(
      Effect.zipRight(Daemon.run(daemon)),
      Effect.provide(services),
      Effect.provide(Logger.replace(Logger.defaultLogger, said)),
      Effect.withClock(cluster.time.clock(() => this.skewMs)),
      Effect.withRandom(Random.make(`${cluster.seed}/${this.address}/${this.starts++}`)),
    );
    const fiber = Effect.runFork(program, { scheduler: cluster.time.scheduler });
    const process = { fiber, options: daemon, leaving: false, next: new Array<() => void>() };
    this.process = process;
    fiber.addObserver((exit) => {
      if (this.process?.fiber !== fiber) return;
      this.process = undefined;
      if (Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)) this.failure = Cause.pretty(exit.cause);
      for (const next of process.next) next();
    });
  }

  /** SIGTERM: it leaves as `onExit` says (now, or else at its start), while time goes on. */
  stop(onExit?: "withdraw" | "keep"): void {
    const process = this.process;
    if (process === undefined) return;
    process.options.onExit = onExit ?? process.options.onExit;
    process.leaving = true;
    process.fiber.unsafeInterruptAsFork(process.fiber.id());
  }

  /** Asks all its peers to answer; `view` tells who did. */
  ask(): void {
    if (this.process?.leaving === false) this.view.askAll();
  }

  /** Does this when its process has ended: at once when there is none. */
  afterEnd(next: () => void): void {
    if (this.process === undefined) next();
    else this.process.next.push(next);
  }

  /** Empties its disk (its state directory stays, empty): it is another host from now on. Not while it runs. */
  wipe(): void {
    if (this.process !== undefined) throw new Error(`${this.address} still runs`);
    for (const name of ["features", ".tmp"]) if (this.files.stamp(name) !== undefined) this.files.erase(name);
    this.cluster.runSync(this.source.replace(Feature.empty));
  }

  /** kill -9: no goodbye, its files stay as they are. */
  crash(): void {
    const process = this.process;
    if (process === undefined) return;
    process.options.onExit = "keep";
    this.cluster.network.crash(this.address);
    process.fiber.unsafeInterruptAsFork(process.fiber.id());
    this.cluster.advance(0);
  }
}

/** A fleet. Everything is synchronous: faults hold from the next packet on, time passes in `advance` alone. */
export class Cluster {
  readonly time = new VirtualTime();
  readonly seed: number;
  /** The bucket: conditions per node (`link(address)`), its clock, listings that lag. */
  readonly registry: MemoryRegistry;
  /** The network: faults of every kind per link, statistics. */
  readonly network: SimulatedNetwork.SimulatedNetwork;
  readonly daemonOptions: { readonly settings?: Settings };
  private readonly members: Array<ClusterNode> = [];
  private readonly scope: Scope.CloseableScope;

  private constructor(options: ClusterOptions) {
    this.seed = options.seed ?? 1;
    this.daemonOptions = options.settings === undefined ? {} : { settings: options.settings };
    this.scope = this.runSync(Scope.make());
    this.registry = this.runSync(MemoryRegistry.make);
    this.network = this.runSync(
      Scope.extend(SimulatedNetwork.make({ seed: this.seed, link: { delayMs: [1, 5], ...options.link } }), this.scope),
    );
  }

  /** Makes a fleet and starts its nodes. */
  static make(options: ClusterOptions): Cluster {
    const cluster = new Cluster(options);
    const { nodes } = options;
    const addresses = typeof nodes === "number" ? Array.from({ length: nodes }, (_, place) => addressOf(place)) : nodes;
    for (const address of addresses) cluster.join(address);
    return cluster;
  }

  get nodes(): ReadonlyArray<ClusterNode> {
    return this.members;
  }

  node(node: NodeRef): ClusterNode {
    const found = typeof node === "number" ? this.members[node] : node;
    if (found === undefined) throw new Error(`the cluster has no node ${String(node)}: it has ${this.members.length}`);
    return found;
  }

  /** A new host with a new node, which starts at once. */
  join(address: string): ClusterNode {
    const canonical = Address.parse(address);
    if (canonical === undefined) throw new Error(`not an address: ${address}`);
    if (this.members.some((member) => member.address === canonical)) throw new Error(`${canonical} is a node already`);
    const member = new ClusterNode(this, canonical, this.runSync(FeatureSource.makeMemory()));
    this.members.push(member);
    member.start();
    return member;
  }

  /** Lets time pass: everything due in it happens. */
  advance(duration: Duration.DurationInput): void {
    this.time.advance(Duration.toMillis(duration));
  }

  /** Splits the network into groups; nodes in none of them are one more group. */
  partition(...groups: ReadonlyArray<ReadonlyArray<NodeRef>>): void {
    this.network.faults.partition(...groups.map((group) => this.addresses(group)));
  }

  /** Nothing gets from one to the other, in both directions. */
  cut(a: NodeRef | ReadonlyArray<NodeRef>, b: NodeRef | ReadonlyArray<NodeRef>): void {
    this.network.faults.cut(this.addresses(a), this.addresses(b));
  }

  /** Nothing gets from `from` to `to`; the way back stays open. */
  cutOneWay(from: NodeRef | ReadonlyArray<NodeRef>, to: NodeRef | ReadonlyArray<NodeRef>): void {
    this.network.faults.cutOneWay(this.addresses(from), this.addresses(to));
  }

  /** Ends all splits and cuts. */
  heal(): void {
    this.network.faults.heal();
  }

  /** Sends a node an announcement that a node of ours never made, signed with the fleet's key, from any address. */
  forge(from: string, to: NodeRef, announcement: Parameters<typeof Packet.encode>[1]): void {
    const source = Address.parse(from);
    const plug = source && this.network.attach(source, { offer: () => true, end: () => {} });
    if (plug === undefined) throw new Error(`${from} is no free address`);
    plug.send([this.node(to).address], Packet.encode(key, announcement));
    plug.detach();
  }

  crash(node: NodeRef): void {
    this.node(node).crash();
  }

  /** What every running node's programs see, by address. */
  get trees(): Readonly<Record<string, Tree>> {
    return Object.fromEntries(this.running.map((node) => [node.address, node.tree]));
  }

  /** Whether every running node shows exactly what all running nodes advertise. */
  get converged(): boolean {
    return this.differences.length === 0;
  }

  /** What keeps the fleet from having converged, in words; empty when it has. At most 100. */
  get differences(): ReadonlyArray<string> {
    const differences: Array<string> = [];
    for (const node of this.running) {
      const shown = flat(node.tree);
      const truth = new Map<string, string>();
      for (const other of this.running) {
        const host = other === node ? Address.ownHost : other.address;
        for (const [name, value] of Object.entries(other.features)) truth.set(`${name}/${host}`, value);
      }
      for (const [file, value] of truth) {
        if (shown.get(file) !== value)
          differences.push(`${node.address} shows ${file} as ${shown.get(file)}, not ${value}`);
      }
      for (const [file, value] of shown) {
        if (!truth.has(file)) differences.push(`${node.address} still shows ${file} as ${value}`);
      }
    }
    return differences.slice(0, 100);
  }

  /** Ends every node at once and frees what the fleet holds. */
  close(): void {
    for (const node of this.members) node.crash();
    Effect.runFork(Scope.close(this.scope, Exit.void), { scheduler: this.time.scheduler });
    this.advance(0);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Runs what needs no time in this world. */
  runSync<A, E>(effect: Effect.Effect<A, E>): A {
    const fiber = Effect.runFork(Effect.withClock(effect, this.time.clock()), { scheduler: this.time.scheduler });
    this.time.scheduler.run();
    const exit = fiber.unsafePoll();
    if (exit === null) throw new Error("a simulated call did not end at once");
    return Exit.getOrElse(exit, (cause) => {
      throw Cause.squash(cause);
    });
  }

  private get running(): ReadonlyArray<ClusterNode> {
    return this.members.filter((member) => member.running);
  }

  private addresses(nodes: NodeRef | ReadonlyArray<NodeRef>): ReadonlyArray<Address.Address> {
    return (Array.isArray(nodes) ? nodes : [nodes]).map((node) => this.node(node).address);
  }
}

const flat = (tree: Tree): ReadonlyMap<string, string> =>
  new Map(
    Object.entries(tree).flatMap(([name, hosts]) =>
      Object.entries(hosts).map(([host, value]) => [`${name}/${host}`, value] as const),
    ),
  );
