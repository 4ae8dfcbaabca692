/** The JSON that the HTTP face answers with. Values are put in as their exact text, never through JavaScript numbers. Pure. */
import type { Address } from "../Address.js";
import type { FeatureName, HostFeatures } from "../Feature.js";
import type { Answer, Change, ConditionReport, NodeReport } from "../NodeView.js";

/** What a node says of itself. */
export interface Self {
  readonly address: Address;
  readonly port: number;
  readonly version: string;
  readonly startedAtMs: number;
  readonly ready: boolean;
  /** How many it offers. */
  readonly features: number;
  readonly registry: string;
  readonly stateDir: string;
  /** Undefined: it has none, as a node inside a program. */
  readonly featureDir: string | undefined;
  readonly registryClockOffsetMs: number | undefined;
}

const maxDateMs = 8.64e15;

/** ISO 8601; what no Date can hold is null: some times are a stranger's. */
export const time = (ms: number): string => (Math.abs(ms) <= maxDateMs ? `"${new Date(ms).toISOString()}"` : "null");

/** Milliseconds to the third place. */
const ms = (value: number | undefined): string =>
  value === undefined ? "null" : String(Math.round(value * 1e3) / 1e3);

const age = (nowMs: number, atMs: number): string => String(Math.max(0, Math.round(nowMs - atMs)));

const string = (text: string | undefined): string => (text === undefined ? "null" : JSON.stringify(text));

const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** `{"HOST":VALUE}` of each feature; features and hosts are sorted. */
export const byFeature = (all: ReadonlyMap<Address, HostFeatures>): ReadonlyMap<FeatureName, string> => {
  const hosts = [...all].toSorted(([a], [b]) => byText(a, b));
  const byName = new Map<FeatureName, Array<string>>();
  for (const [host, values] of hosts) {
    for (const [name, value] of values) {
      const pair = `"${host}":${value}`;
      const found = byName.get(name);
      if (found === undefined) byName.set(name, [pair]);
      else found.push(pair);
    }
  }
  const names = [...byName.keys()].toSorted(byText);
  return new Map(names.map((name) => [name, `{${byName.get(name)!.join(",")}}`]));
};

/** `{"FEATURE":{"HOST":VALUE}}`, sorted. */
export const features = (all: ReadonlyMap<Address, HostFeatures>): string =>
  `{${Array.from(byFeature(all), ([name, hosts]) => `"${name}":${hosts}`).join(",")}}`;

export const self = (of: Self): string =>
  `{"address":"${of.address}","port":${of.port},"version":${string(of.version)},"startedAt":${time(of.startedAtMs)},"ready":${of.ready},"features":${of.features},"registry":${string(of.registry)},"stateDir":${string(of.stateDir)},"featureDir":${string(of.featureDir)},"registryClockOffsetMs":${ms(of.registryClockOffsetMs)}}`;

export const node = (of: NodeReport, nowMs: number): string =>
  `{"address":"${of.address}","state":"${of.state}","source":"${of.source}","features":${of.features},"version":${string(of.version)},"legacy":${of.legacy},"heardAt":${time(of.heardAtMs)},"heardMs":${age(nowMs, of.heardAtMs)},"udpMs":${of.datagramAtMs === undefined ? "null" : age(nowMs, of.datagramAtMs)},"announcedAt":${of.announcedAtNs === 0n ? "null" : time(Number(of.announcedAtNs / 1_000_000n))},"clockOffsetMs":${ms(of.clockOffsetMs)}}`;

/** Sorted by address. */
export const nodes = (all: ReadonlyArray<NodeReport>, nowMs: number): string =>
  `[${all
    .toSorted((a, b) => byText(a.address, b.address))
    .map((each) => node(each, nowMs))
    .join(",")}]`;

export const conditions = (all: ReadonlyArray<ConditionReport>): string =>
  `[${all
    .map(
      ({ message, name, severity, sinceMs }) =>
        `{"name":${string(name)},"severity":"${severity}","message":${string(message)},"since":${time(sinceMs)}}`,
    )
    .join(",")}]`;

/** Without `value` when the feature went. */
export const change = ({ atMs, feature, host, value }: Change): string =>
  `{"at":${time(atMs)},"feature":"${feature}","host":"${host}"${value === undefined ? "" : `,"value":${value}`}}`;

/** `{"ADDRESS":"heardAt"}`. */
export const heard = (all: ReadonlyArray<NodeReport>): string =>
  `{${all.map(({ address, heardAtMs }) => `"${address}":${time(heardAtMs)}`).join(",")}}`;

export const reachability = (askedAtMs: number, waitedMs: number, answers: ReadonlyArray<Answer>): string =>
  `{"askedAt":${time(askedAtMs)},"waitedMs":${ms(waitedMs)},"nodes":[${answers
    .toSorted((a, b) => byText(a.address, b.address))
    .map(
      ({ address, afterMs, canAnswer, heardMs }) =>
        `{"address":"${address}","answered":${afterMs !== undefined},"rttMs":${ms(afterMs)},"canAnswer":${canAnswer},"heardMs":${ms(heardMs)}}`,
    )
    .join(",")}]}`;

/** Counts of one second. */
export interface Stats {
  readonly atMs: number;
  readonly received: number;
  readonly sent: number;
  readonly dropped: number;
  readonly changes: number;
  readonly latencyMs: number | undefined;
}

export const stats = (of: Stats): string =>
  `{"at":${time(of.atMs)},"received":${of.received},"sent":${of.sent},"dropped":${of.dropped},"changes":${of.changes},"latencyMs":${ms(of.latencyMs)}}`;

export const error = (code: string, message: string): string =>
  `{"error":{"code":${string(code)},"message":${string(message)}}}`;
