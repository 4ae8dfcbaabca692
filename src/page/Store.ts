/**
 * What the page knows: the node's state as its events tell it. No DOM here.
 *
 * Everything is bounded: cells and nodes by the node's own state, the changes and the figures by the limits below.
 */
import { maxDepth, Scanner, unquote } from "../Json.js";
import type { ServerEvent } from "./Sse.js";
import { preview } from "./Text.js";

/** One host's value of one feature. */
export interface Cell {
  /** The exact text. */
  readonly json: string;
  /** One short line of it. */
  readonly preview: string;
  /** When it changed, by the page's clock in ms; 0: it was there when the page came. */
  readonly changedAt: number;
  /** Odd or even at each change, so that the mark of a change can be set anew. */
  readonly revision: number;
}

export type NodeState = "alive" | "silent" | "left" | "forgotten";

/** One node as `/v1/nodes` has it; times in ms since the epoch, of the node's clock. */
export interface Node {
  readonly address: string;
  readonly state: NodeState;
  readonly source: "udp" | "registry";
  readonly features: number;
  readonly version: string | undefined;
  readonly legacy: boolean;
  readonly heardAt: number;
  readonly clockOffsetMs: number | undefined;
}

/** The node that serves the page. */
export interface Self {
  readonly address: string;
  readonly port?: number;
  readonly version?: string;
  readonly startedAt?: string;
  readonly ready?: boolean;
  readonly registry?: string;
  readonly stateDir?: string;
  readonly featureDir?: string | null;
  readonly registryClockOffsetMs?: number | null;
}

/** What is wrong with the node now. */
export interface Condition {
  readonly name: string;
  readonly severity: "error" | "warning" | "info";
  readonly message: string;
  readonly since: string;
}

/** A line of the timeline. */
export interface Change {
  /** Its number, for ever its own. */
  readonly number: number;
  /** By the node's clock. */
  readonly at: number;
  readonly kind: "offered" | "changed" | "withdrawn" | "node";
  /** Empty for a change of a node. */
  readonly feature: string;
  /** Empty for a change of the page's connection. */
  readonly host: string;
  /** The new value's preview, or what happened to the node. */
  readonly text: string;
}

/** The node's figures of one second. */
export interface Figures {
  readonly at: number;
  readonly received: number;
  readonly sent: number;
  readonly dropped: number;
  readonly changes: number;
  readonly latencyMs: number | null;
}

/** Lines that the timeline keeps. */
export const maxChanges = 500;

/** Seconds that the small charts show. */
export const chartSeconds = 120;

/** The members of an object, each value as its exact text. */
const members = (json: string): ReadonlyArray<readonly [string, string]> => {
  const found: Array<readonly [string, string]> = [];
  const scanner = Scanner.of(json, maxDepth + 8);
  scanner.skipSpace();
  const whole = scanner.skipMembers(0, (keyAt, keyEnd) => {
    const from = scanner.at;
    if (!scanner.skipValue(1)) return false;
    found.push([unquote(scanner.slice(keyAt, keyEnd)), scanner.slice(from, scanner.at)]);
    return true;
  });
  if (!whole) throw new SyntaxError(`an event that is no JSON object, at ${scanner.fault().offset}`);
  return found;
};

const time = (iso: unknown): number | undefined => {
  const at = typeof iso === "string" ? Date.parse(iso) : Number.NaN;
  return Number.isNaN(at) ? undefined : at;
};

const readNode = (wire: Record<string, unknown>): Node => ({
  address: String(wire["address"]),
  state: wire["state"] as NodeState,
  source: wire["source"] as Node["source"],
  features: Number(wire["features"] ?? 0),
  version: typeof wire["version"] === "string" ? wire["version"] : undefined,
  legacy: wire["legacy"] === true,
  heardAt: time(wire["heardAt"]) ?? 0,
  clockOffsetMs: typeof wire["clockOffsetMs"] === "number" ? wire["clockOffsetMs"] : undefined,
});

/** What a node's new state means, for the timeline. */
const turns: Readonly<Record<NodeState, string>> = {
  alive: "is heard again",
  silent: "has fallen silent",
  left: "has left",
  forgotten: "is forgotten",
};

export class Store {
  self: Self | undefined;
  /** By feature, then by host. */
  readonly cells = new Map<string, Map<string, Cell>>();
  readonly nodes = new Map<string, Node>();
  conditions: ReadonlyArray<Condition> = [];
  /** The newest first. */
  changes: ReadonlyArray<Change> = [];
  figures: ReadonlyArray<Figures> = [];
  /** When the page first knew anything, by the node's clock. */
  since = 0;

  /** These count up when what they name has changed; whoever shows it compares them. */
  readonly versions = { shape: 0, cells: 0, nodes: 0, changes: 0, figures: 0, conditions: 0 };
  private readonly hostVersions = new Map<string, number>();
  /** How many features each host has here. */
  private readonly offers = new Map<string, number>();
  /** Whether a node that knows all it has to know has told it. */
  private whole = false;
  private numbered = 0;
  /** The browser's clock less the node's, as far as known; a delay only makes it look larger. */
  private skew = Number.POSITIVE_INFINITY;

  constructor(private readonly clock: () => number = Date.now) {}

  /** The time by the node's clock, so that ages are right in a browser whose clock is not. */
  now(): number {
    return this.clock() - (Number.isFinite(this.skew) ? this.skew : 0);
  }

  hostVersion(host: string): number {
    return this.hostVersions.get(host) ?? 0;
  }

  /** How many features a host has. */
  offersOf(host: string): number {
    return this.offers.get(host) ?? 0;
  }

  /** Features of all hosts together. */
  get total(): number {
    let total = 0;
    for (const hosts of this.cells.values()) total += hosts.size;
    return total;
  }

  /** Takes one event; an unknown one is left alone. Throws at one that cannot be read. */
  apply({ data, event }: ServerEvent): void {
    switch (event) {
      case "snapshot":
        return this.snapshot(data);
      case "change":
        return this.change(data);
      case "self": {
        this.self = JSON.parse(data) as Self;
        this.versions.shape++;
        return;
      }
      case "nodes": {
        const { gone, nodes, whole } = JSON.parse(data) as {
          gone?: Array<string>;
          nodes?: Array<Record<string, unknown>>;
          whole?: boolean;
        };
        if (whole === true) this.keepNodes(nodes ?? []);
        for (const node of nodes ?? []) this.putNode(readNode(node), true);
        for (const address of gone ?? []) this.dropNode(address);
        return;
      }
      case "heard": {
        for (const [address, heardAt] of Object.entries(JSON.parse(data) as Record<string, string>)) {
          const node = this.nodes.get(address);
          if (node !== undefined) this.nodes.set(address, { ...node, heardAt: time(heardAt) ?? node.heardAt });
        }
        this.versions.nodes++;
        return;
      }
      case "conditions": {
        this.conditions = (JSON.parse(data) as { conditions: ReadonlyArray<Condition> }).conditions;
        this.versions.conditions++;
        return;
      }
      case "stats": {
        const { at, ...figures } = JSON.parse(data) as Omit<Figures, "at"> & { at: string };
        const second = time(at);
        if (second === undefined) return;
        this.seen(second);
        const oldest = second - chartSeconds * 1_000;
        this.figures = [...this.figures.filter((each) => each.at > oldest), { ...figures, at: second }].slice(
          -2 * chartSeconds,
        );
        this.versions.figures++;
      }
    }
  }

  private seen(at: number): void {
    this.skew = Math.min(this.skew, this.clock() - at);
  }

  private snapshot(data: string): void {
    const fields = new Map(members(data));
    const self = JSON.parse(fields.get("self") ?? '""') as Self | string;
    this.self = typeof self === "string" ? { address: self } : self;
    this.conditions = JSON.parse(fields.get("conditions") ?? "[]") as ReadonlyArray<Condition>;
    const nodes = JSON.parse(fields.get("nodes") ?? "[]") as Array<Record<string, unknown>>;
    this.skew = Number.POSITIVE_INFINITY;
    const at = time(JSON.parse(fields.get("at") ?? "null"));
    if (at !== undefined) this.seen(at);
    for (const name of ["shape", "nodes", "conditions"] as const) this.versions[name]++;
    const again = this.whole;
    this.whole ||= this.self.ready !== false;
    // started anew, it does not know yet what is still there: it tells the whole again when it does
    if (again && this.self.ready === false) return;
    let differences = 0;
    const old = new Map([...this.cells].map(([feature, hosts]) => [feature, new Set(hosts.keys())]));
    for (const [feature, hosts] of members(fields.get("features") ?? "{}")) {
      for (const [host, json] of members(hosts)) {
        if (this.put(feature, host, json, again) !== undefined) differences++;
        old.get(feature)?.delete(host);
      }
    }
    for (const [feature, hosts] of old) {
      for (const host of hosts) if (this.remove(feature, host)) differences++;
    }
    this.keepNodes(nodes);
    for (const node of nodes) this.putNode(readNode(node), again);
    if (again) {
      const what = differences === 0 ? "nothing had changed" : `${differences} values had changed`;
      this.note(this.now(), "node", "", "", `connected again: ${what}`);
    } else this.since ||= this.now();
  }

  private change(data: string): void {
    const fields = new Map(members(data));
    const text = (name: string): string => String(JSON.parse(fields.get(name) ?? '""'));
    const at = time(text("at")) ?? this.now();
    this.seen(at);
    const feature = text("feature");
    const host = text("host");
    const json = fields.get("value");
    if (json === undefined) {
      if (this.remove(feature, host)) this.note(at, "withdrawn", feature, host, "");
    } else {
      const kind = this.put(feature, host, json, true);
      if (kind !== undefined) this.note(at, kind, feature, host, this.cells.get(feature)?.get(host)?.preview ?? "");
    }
  }

  private touch(host: string, change: -1 | 0 | 1): void {
    this.versions.cells++;
    const offers = this.offersOf(host) + change;
    if (offers === 0) this.offers.delete(host);
    else this.offers.set(host, offers);
    // a host comes into sight with its first feature and may go with its last
    if ((offers === 1 && change === 1) || offers === 0) this.versions.shape++;
    this.hostVersions.set(host, this.hostVersion(host) + 1);
  }

  private put(feature: string, host: string, json: string, marked: boolean): "offered" | "changed" | undefined {
    let hosts = this.cells.get(feature);
    if (hosts === undefined) {
      hosts = new Map();
      this.cells.set(feature, hosts);
      this.versions.shape++;
    }
    const old = hosts.get(host);
    if (old?.json === json) return undefined;
    const changedAt = marked ? this.clock() : 0;
    hosts.set(host, { json, preview: preview(json), changedAt, revision: (old?.revision ?? 0) + 1 });
    this.touch(host, old === undefined ? 1 : 0);
    return old === undefined ? "offered" : "changed";
  }

  private remove(feature: string, host: string): boolean {
    const hosts = this.cells.get(feature);
    if (hosts === undefined || !hosts.delete(host)) return false;
    if (hosts.size === 0) {
      this.cells.delete(feature);
      this.versions.shape++;
    }
    this.touch(host, -1);
    return true;
  }

  private putNode(node: Node, told: boolean): void {
    const old = this.nodes.get(node.address);
    this.nodes.set(node.address, node);
    this.versions.nodes++;
    if (old?.state === node.state && old.source === node.source) return;
    this.hostVersions.set(node.address, this.hostVersion(node.address) + 1);
    if (old?.state === node.state) return;
    this.versions.shape++;
    if (told) this.note(this.now(), "node", "", node.address, old === undefined ? "has appeared" : turns[node.state]);
  }

  /** Drops all others. */
  private keepNodes(nodes: ReadonlyArray<Record<string, unknown>>): void {
    const listed = new Set(nodes.map((node) => String(node["address"])));
    for (const address of this.nodes.keys()) if (!listed.has(address)) this.dropNode(address);
  }

  private dropNode(address: string): void {
    const old = this.nodes.get(address);
    if (old === undefined) return;
    this.nodes.delete(address);
    // its number goes too, unless it has cells: nothing of a node that has gone stays
    if (this.offersOf(address) === 0) this.hostVersions.delete(address);
    this.versions.nodes++;
    this.versions.shape++;
    if (old.state !== "forgotten") this.note(this.now(), "node", "", address, turns.forgotten);
  }

  private note(at: number, kind: Change["kind"], feature: string, host: string, text: string): void {
    const kept = this.changes.length < maxChanges ? this.changes : this.changes.slice(0, maxChanges - 1);
    this.changes = [{ number: ++this.numbered, at, kind, feature, host, text }, ...kept];
    this.versions.changes++;
  }
}
