/** What `nameq top` knows of a node, as its events told. Only `apply` changes it, and it does nothing else. */
import * as Either from "effect/Either";
import * as Schema from "effect/Schema";
import * as Json from "../Json.js";
import { type Condition, type FaceEvent, Node, Self } from "./Face.js";
import * as Face from "./Face.js";
import { addressOrder } from "./Tree.js";

/** One change of a feature. */
export interface Change {
  readonly atMs: number;
  readonly feature: string;
  readonly host: string;
  /** The beginning of the exact JSON text; undefined when it went. */
  readonly value: string | undefined;
}

/** What happened in one second. */
export interface Second {
  readonly atMs: number;
  readonly received: number;
  readonly sent: number;
  readonly dropped: number;
  readonly changes: number;
  readonly latencyMs: number | null;
}

/** A node, and when it was last heard by the clock of the node that tells. */
export interface Known {
  readonly node: Node;
  readonly heardAtMs: number;
  /** Of its address: too dear to be made anew at each comparison of each picture. */
  readonly order: string;
}

/** More changes, seconds and bytes of a value than any terminal shows. */
const maxChanges = 500;
const maxSeconds = 600;
const maxValue = 4_096;

/** More than any fleet has: whoever tells of more is no node. */
const maxNodes = 100_000;
const maxOffers = 2_000_000;

type ByFeature = Readonly<Record<string, object>>;
const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;
/** As it was parsed: a record that is built anew loses a feature named `__proto__`. */
const Features = Schema.declare((value): value is ByFeature => isObject(value) && Object.values(value).every(isObject));
const Snapshot = Schema.Struct({
  self: Self,
  features: Features,
  nodes: Schema.Array(Node),
  conditions: Schema.Array(Face.Condition),
});
const Nodes = Schema.Struct({ nodes: Schema.Array(Node), gone: Schema.Array(Schema.String) });
const Heard = Schema.Record({ key: Schema.String, value: Schema.NullOr(Schema.String) });
const Conditions = Schema.Struct({ conditions: Schema.Array(Face.Condition) });
const ChangeEvent = Schema.Struct({
  at: Schema.NullOr(Schema.String),
  feature: Schema.String,
  host: Schema.String,
  value: Schema.optional(Schema.Unknown),
});
const Stats = Schema.Struct({
  at: Schema.NullOr(Schema.String),
  received: Schema.Number,
  sent: Schema.Number,
  dropped: Schema.Number,
  changes: Schema.Number,
  latencyMs: Schema.NullOr(Schema.Number),
});

/** The exact text of a member of an object, or its beginning: a copy, which does not keep the object. */
export const memberText = (text: string, name: string): string | undefined => {
  const scanner = Json.Scanner.of(text);
  let found: string | undefined;
  scanner.skipSpace();
  scanner.skipMembers(-1, (keyAt, keyEnd) => {
    const from = scanner.at;
    if (!scanner.skipValue()) return false;
    if (scanner.slice(keyAt, keyEnd) === `"${name}"`)
      found = scanner.copy(from, Math.min(scanner.at, from + maxValue)).text;
    return true;
  });
  return found;
};

export class Model {
  self: Self | undefined;
  readonly nodes = new Map<string, Known>();
  conditions: ReadonlyArray<Condition> = [];
  /** Which hosts have a feature. */
  readonly offers = new Map<string, Set<string>>();
  private offered = 0;
  /** The newest first. */
  readonly changes: Array<Change> = [];
  /** The oldest first; seconds in which nothing happened are not there. */
  readonly seconds: Array<Second> = [];
  /** The node's clock minus this program's, ms. */
  offsetMs = 0;

  /** Takes an event that came at `nowMs`. Answers what is wrong with it, if it is not a node's. */
  apply({ data, event }: FaceEvent, nowMs: number): string | undefined {
    switch (event) {
      case "snapshot":
        return this.with(event, Snapshot, data, ({ conditions, features, nodes, self }) => {
          this.self = self;
          this.conditions = conditions;
          this.nodes.clear();
          this.offers.clear();
          this.offered = 0;
          this.know(nodes, nowMs);
          for (const [feature, hosts] of Object.entries(features)) {
            const names = new Set(Object.keys(hosts));
            this.offers.set(feature, names);
            this.offered += names.size;
          }
        });
      case "self":
        return this.with(event, Self, data, (self) => {
          this.self = self;
        });
      case "nodes":
        return this.with(event, Nodes, data, ({ gone, nodes }) => {
          this.know(nodes, nowMs);
          for (const address of gone) this.nodes.delete(address);
        });
      case "heard":
        return this.with(event, Heard, data, (heard) => {
          for (const [address, at] of Object.entries(heard)) {
            const known = this.nodes.get(address);
            if (known !== undefined && at !== null) this.nodes.set(address, { ...known, heardAtMs: Date.parse(at) });
          }
        });
      case "conditions":
        return this.with(event, Conditions, data, ({ conditions }) => {
          this.conditions = conditions;
        });
      case "change":
        return this.with(event, ChangeEvent, data, ({ at, feature, host }) => {
          const value = memberText(data, "value");
          this.changes.unshift({ atMs: Date.parse(at ?? ""), feature, host, value });
          if (this.changes.length > maxChanges) this.changes.pop();
          this.offer(feature, host, value !== undefined);
        });
      case "stats":
        return this.with(event, Stats, data, ({ at, ...counts }) => {
          this.seconds.push({ atMs: Date.parse(at ?? ""), ...counts });
          if (this.seconds.length > maxSeconds) this.seconds.shift();
        });
      default:
        // a later version's
        return undefined;
    }
  }

  private with<A, I>(event: string, schema: Schema.Schema<A, I>, data: string, use: (value: A) => void) {
    return Either.match(Schema.decodeUnknownEither(Schema.parseJson(schema))(data), {
      onLeft: () => `an event "${event}" that is not a node's`,
      onRight: (value) => {
        use(value);
        return this.nodes.size > maxNodes || this.offered > maxOffers
          ? "more nodes or features than any fleet has"
          : undefined;
      },
    });
  }

  private know(nodes: ReadonlyArray<Node>, nowMs: number): void {
    for (const node of nodes) {
      const heardAtMs = node.heardAt === null ? Number.NaN : Date.parse(node.heardAt);
      // it was so long ago when the node said so, which was now
      if (!Number.isNaN(heardAtMs)) this.offsetMs = heardAtMs + node.heardMs - nowMs;
      this.nodes.set(node.address, { node, heardAtMs, order: addressOrder(node.address) });
    }
  }

  private offer(feature: string, host: string, has: boolean): void {
    const hosts = this.offers.get(feature) ?? new Set();
    const before = hosts.size;
    if (has) this.offers.set(feature, hosts.add(host));
    else if (hosts.delete(host) && hosts.size === 0) this.offers.delete(feature);
    this.offered += hosts.size - before;
  }
}
