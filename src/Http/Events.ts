/**
 * The event stream: each event is made once and handed to all clients. Nothing here waits for a client: one that leaves
 * too much unread is cut off.
 */
import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Address } from "../Address.js";
import type { Metrics } from "../Metrics.js";
import type { NodeReport, NodeView } from "../NodeView.js";
import * as Answers from "./Answers.js";

/** Most clients at once. */
export const maxClients = 256;

/** What may lie unsent for one client, bytes; the largest piece since it last had all comes on top. */
const maxUnsent = 1024 * 1024;

/** Changes that come within so long, ms, are sent together. */
const gatherMs = 10;
/** Least time from one such sending to the gathering of the next, ms: many changes must not cost all clients a write each. */
const restMs = 40;

/** How often there is a look at what nobody tells of, ms: nodes, counts. */
const tickMs = 1_000;
/** Nodes that are looked at in one tick; of larger fleets all are looked at less often. About 2 ms of work. */
const nodesATick = 1_000;
/** Ticks between two `heard`. */
const heardTicks = 10;
/** Ticks between two comments, which keep proxies from ending a quiet stream. */
const aliveTicks = 15;

/** Clock offsets that differ by less, ms, are the same: the network's jitter is in them. */
const sameOffsetMs = 50;

/** A snapshot of t ms is followed by so many times t without another: they cost a tenth of the node's time at most. */
const restFactor = 9;
const maxWaitMs = 5_000;

/** When a client that was cut off should come again, ms. */
const retryMs = 2_000;

interface Client {
  readonly response: ServerResponse;
  /** May lie unsent, bytes. */
  allowed: number;
}

/**
 * Half of what the counts in buckets rose by was below this, in the bounds' unit; evenly spread within a bucket.
 * Undefined when they did not rise.
 */
export const median = (
  bounds: ReadonlyArray<number>,
  before: ArrayLike<number>,
  after: ArrayLike<number>,
): number | undefined => {
  let total = 0;
  for (let i = 0; i < after.length; i++) total += after[i]! - before[i]!;
  if (total <= 0) return undefined;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    const inside = after[i]! - before[i]!;
    if (below + inside >= total / 2) {
      const from = i === 0 ? 0 : bounds[i - 1]!;
      return from + ((bounds[i]! - from) * (total / 2 - below)) / inside;
    }
    below += inside;
  }
  return bounds.at(-1);
};

/** Whether two reports of a node are the same, but for when it was heard. */
const same = (a: NodeReport, b: NodeReport): boolean =>
  a.state === b.state &&
  a.source === b.source &&
  a.version === b.version &&
  a.features === b.features &&
  a.legacy === b.legacy &&
  (a.clockOffsetMs === undefined) === (b.clockOffsetMs === undefined) &&
  Math.abs((a.clockOffsetMs ?? 0) - (b.clockOffsetMs ?? 0)) < sameOffsetMs;

/** What fails in one telling is a fault of that one. */
const turn = (tell: () => void): Effect.Effect<void> =>
  Effect.catchAllDefect(Effect.sync(tell), (defect) =>
    Effect.logError("an event could not be told: this is a bug, please report it", defect),
  );

export class Events {
  private readonly clients = new Map<ServerResponse, Client>();
  private readonly news = Effect.unsafeMakeLatch(false);
  /** Tells the runs of a node apart in the events' ids. */
  private readonly run = randomBytes(6).toString("hex");
  /** What the clients know. */
  private sequence = 0;
  private nodes = new Map<Address, NodeReport>();
  private heard = new Map<Address, number>();
  private conditionsKey = "";
  private selfText = "";
  private wasReady = false;
  private counts = { received: 0, sent: 0, dropped: 0, changes: 0 };
  private latencies: Float64Array;
  /** The snapshot that those who come before the next event get. */
  private snapshot: Buffer | undefined;
  /** And what those get who come back, behind what they missed. */
  private latest: string | undefined;
  private restUntilMs = 0;
  private ticks = 0;
  private readonly propagation;

  /** `self`: what the node says of itself now. */
  constructor(
    private readonly view: NodeView,
    private readonly metrics: Metrics.Service,
    private readonly self: () => Answers.Self,
    private readonly nowMs: () => number,
  ) {
    this.propagation = metrics.histogram("propagation");
    this.latencies = this.propagation.counts.slice();
    metrics.gauge("http_event_clients", () => this.clients.size);
  }

  get full(): boolean {
    return this.clients.size >= maxClients;
  }

  /** How long who comes now is to wait, ms: who comes meanwhile shares the next snapshot. */
  waitMs(): number {
    this.flush();
    const restMs = this.restUntilMs - this.nowMs();
    // a clock that was set back makes nobody wait for longer
    return this.snapshot === undefined && restMs > 0 ? Math.min(restMs, maxWaitMs) : 0;
  }

  /** Sends what there is and what comes until the client goes. `lastEventId` is the last event that it saw before. */
  attach(response: ServerResponse, lastEventId: string | undefined): void {
    if (this.clients.size === 0) this.begin();
    else this.flush();
    const client: Client = { response, allowed: maxUnsent };
    this.clients.set(response, client);
    response.on("close", () => this.clients.delete(response));
    response.on("drain", () => {
      client.allowed = maxUnsent;
    });
    this.hand(client, this.missedSince(lastEventId) ?? (this.snapshot ??= this.makeSnapshot()));
  }

  /** Ends all streams: who may come again does. */
  end(): void {
    for (const response of this.clients.keys()) response.end();
    this.clients.clear();
  }

  /** Tells the clients what happens, until the scope ends; then their streams end. */
  readonly serve: Effect.Effect<never, never, Scope.Scope> = Effect.suspend(() => {
    const { listeners } = this.view;
    const listen = () => this.news.unsafeOpen();
    const open = Effect.acquireRelease(
      Effect.sync(() => listeners.add(listen)),
      () =>
        Effect.sync(() => {
          listeners.delete(listen);
          this.end();
        }),
    );
    const telling = this.news.await.pipe(
      Effect.zipRight(Effect.sleep(gatherMs)),
      Effect.zipRight(this.news.close),
      Effect.zipRight(turn(() => this.flush())),
      Effect.zipRight(Effect.sleep(restMs)),
      Effect.forever,
    );
    const ticking = Effect.sleep(tickMs).pipe(Effect.zipRight(turn(() => this.tick())), Effect.forever);
    return Effect.zipRight(
      open,
      Effect.zipRight(Effect.all([telling, ticking], { concurrency: "unbounded" }), Effect.never),
    );
  });

  // --- what is sent -------------------------------------------------------------------------------------------------

  private event(name: string, data: string, sequence = this.sequence): string {
    // who saw no more than a start begins anew: what was not known yet was no news
    return `event: ${name}\nid: ${this.wasReady ? this.run : "starting"}-${sequence}\ndata: ${data}\n\n`;
  }

  /** From now on somebody listens. */
  private begin(): void {
    this.forget();
    this.sequence = this.view.sequence;
    const nodes = this.view.nodes();
    this.nodes = new Map(nodes.map((node) => [node.address, node]));
    this.heard = new Map(nodes.map((node) => [node.address, node.heardAtMs]));
    this.conditionsKey = this.keyOfConditions();
    this.selfText = Answers.self(this.self());
    this.wasReady = this.view.ready;
    this.countsSince();
  }

  private makeSnapshot(): Buffer {
    const { view } = this;
    const startMs = this.nowMs();
    const data = `{"at":${view.isRunning ? Answers.time(view.unixMs()) : "null"},"self":${Answers.self(this.self())},"features":${Answers.features(view.features)},"nodes":${Answers.nodes(view.nodes(), view.unixMs())},"conditions":${Answers.conditions(view.conditions())}}`;
    const snapshot = Buffer.from(`retry: ${retryMs}\n${this.event("snapshot", data)}`);
    const endMs = this.nowMs();
    this.restUntilMs = endMs + restFactor * (endMs - startMs);
    return snapshot;
  }

  /** What a client missed that comes back; undefined when it must begin anew. */
  private missedSince(lastEventId: string | undefined): Buffer | undefined {
    const [, run, sequence] = /^([0-9a-f]+)-(\d{1,15})$/.exec(lastEventId ?? "") ?? [];
    if (run !== this.run) return undefined;
    const { view } = this;
    const changes = view.changesSince(Number(sequence));
    if (changes === undefined) return undefined;
    this.latest ??= [
      this.event("self", Answers.self(this.self())),
      this.event("nodes", `{"nodes":${Answers.nodes(view.nodes(), view.unixMs())},"gone":[],"whole":true}`),
      this.event("conditions", `{"conditions":${Answers.conditions(view.conditions())}}`),
    ].join("");
    const missed = changes.map((each) => this.event("change", Answers.change(each), each.sequence));
    return Buffer.from(`retry: ${retryMs}\n${missed.join("")}${this.latest}`);
  }

  private forget(): void {
    this.snapshot = undefined;
    this.latest = undefined;
  }

  private send(text: string): void {
    if (text === "") return;
    this.forget();
    const bytes = Buffer.from(text);
    for (const client of this.clients.values()) this.hand(client, bytes);
  }

  private hand(client: Client, bytes: Buffer): void {
    const { response } = client;
    client.allowed = Math.max(client.allowed, maxUnsent + bytes.length);
    if (response.writableLength + bytes.length <= client.allowed) {
      response.write(bytes);
    } else {
      this.metrics.add("http_events_cut");
      this.clients.delete(response);
      response.destroy();
    }
  }

  /** What the daemon told of. */
  private flush(): void {
    if (this.clients.size === 0) return;
    this.send(this.changes() + this.conditions() + this.changedSelf());
  }

  private tick(): void {
    // its time would be too old, and its size a burden
    this.forget();
    if (this.clients.size === 0) return;
    this.ticks++;
    const isDue = this.ticks % Math.ceil((this.nodes.size + 1) / nodesATick) === 0;
    const isHeardDue = this.ticks % heardTicks === 0;
    const nodes = isDue || isHeardDue ? this.view.nodes() : [];
    this.send(
      [
        this.changes(),
        isDue ? this.changedNodes(nodes) : "",
        isHeardDue ? this.heardSince(nodes) : "",
        this.conditions(),
        this.changedSelf(),
        this.stats(),
        this.ticks % aliveTicks === 0 ? ": alive\n\n" : "",
      ].join(""),
    );
  }

  private changes(): string {
    const { view } = this;
    if (view.sequence === this.sequence) return "";
    const changes = view.changesSince(this.sequence);
    this.sequence = view.sequence;
    // more at once than are kept
    if (changes === undefined) return this.makeSnapshot().toString();
    return changes.map((each) => this.event("change", Answers.change(each), each.sequence)).join("");
  }

  private changedNodes(nodes: ReadonlyArray<NodeReport>): string {
    const before = this.nodes;
    this.nodes = new Map(
      nodes.map((node) => {
        const known = before.get(node.address);
        // the one that was told of stays what is compared with, so that small steps add up
        return [node.address, known !== undefined && same(known, node) ? known : node];
      }),
    );
    const changed = nodes.filter((node) => this.nodes.get(node.address) === node);
    const gone = [...before.keys()].filter((address) => !this.nodes.has(address));
    if (changed.length === 0 && gone.length === 0) return "";
    for (const { address, heardAtMs } of changed) this.heard.set(address, heardAtMs);
    for (const address of gone) this.heard.delete(address);
    return this.event(
      "nodes",
      `{"nodes":${Answers.nodes(changed, this.view.unixMs())},"gone":${JSON.stringify(gone)}}`,
    );
  }

  private heardSince(nodes: ReadonlyArray<NodeReport>): string {
    // a clock that is read twice is not the same to the last digit
    const newer = nodes.filter(({ address, heardAtMs }) => heardAtMs > (this.heard.get(address) ?? 0) + 1);
    for (const { address, heardAtMs } of newer) this.heard.set(address, heardAtMs);
    return newer.length === 0 ? "" : this.event("heard", Answers.heard(newer));
  }

  private keyOfConditions(): string {
    return this.view
      .conditions()
      .map(({ message, name, severity }) => `${name}\n${severity}\n${message}`)
      .join("\n");
  }

  private conditions(): string {
    const key = this.keyOfConditions();
    if (key === this.conditionsKey) return "";
    this.conditionsKey = key;
    return this.event("conditions", `{"conditions":${Answers.conditions(this.view.conditions())}}`);
  }

  private changedSelf(): string {
    const text = Answers.self(this.self());
    if (text === this.selfText) return "";
    this.selfText = text;
    const becameReady = this.view.ready && !this.wasReady;
    this.wasReady = this.view.ready;
    // who came before must not take what was not known yet for gone
    return becameReady ? this.makeSnapshot().toString() : this.event("self", text);
  }

  private stats(): string {
    const { latencyMs, ...counts } = this.countsSince();
    if (counts.received + counts.sent + counts.dropped + counts.changes === 0) return "";
    return this.event("stats", Answers.stats({ atMs: this.view.unixMs(), ...counts, latencyMs }));
  }

  /** What was counted since the last call. */
  private countsSince() {
    const { metrics, view } = this;
    const before = this.counts;
    let dropped = 0;
    for (const { counter, value } of metrics.read()) if (counter === "datagrams_dropped") dropped += value;
    const now = {
      received: metrics.value("datagrams_received"),
      sent: metrics.value("datagrams_sent"),
      dropped,
      changes: view.sequence,
    };
    this.counts = now;
    const latency = median(this.propagation.bounds, this.latencies, this.propagation.counts);
    this.latencies = this.propagation.counts.slice();
    return {
      received: now.received - before.received,
      sent: now.sent - before.sent,
      dropped: now.dropped - before.dropped,
      changes: now.changes - before.changes,
      latencyMs: latency === undefined ? undefined : latency * 1e3,
    };
  }
}
