/**
 * What happens to a fleet, as data: made from a seed, printed, replayed on any simulator, and shrunk to the shortest
 * that still fails. Pure.
 */
import type { Address } from "./Address.js";
import * as Feature from "./Feature.js";
import { Prng } from "./Prng.js";
import type { RegistryReason } from "./S3Registry.js";
import type { Link } from "./SimulatedNetwork.js";

/** One thing that happens. Nodes are named by their place: those there at the start, then those that joined. */
export type Deed =
  /** Writes a feature file. In generated schedules no value is written twice. */
  | { readonly do: "set"; readonly node: number; readonly feature: string; readonly value: string }
  /** The feature's file holds what its writer has got done so far: no JSON. */
  | { readonly do: "half-write"; readonly node: number; readonly feature: string }
  | { readonly do: "remove"; readonly node: number; readonly feature: string }
  /** Splits the network; nodes in no group are one more group. */
  | { readonly do: "partition"; readonly groups: ReadonlyArray<ReadonlyArray<number>> }
  | { readonly do: "cut"; readonly from: number; readonly to: number; readonly oneWay: boolean }
  /** Ends all splits and cuts. */
  | { readonly do: "heal" }
  /** What every way between two nodes does to packets from now on. */
  | { readonly do: "link"; readonly link: Link }
  /** kill -9: the files stay. */
  | { readonly do: "crash"; readonly node: number }
  /** SIGTERM; `keep` as in `--on-exit keep`. */
  | { readonly do: "stop"; readonly node: number; readonly keep: boolean }
  | { readonly do: "start"; readonly node: number }
  /** Another host, with an empty disk, has the node's address from now on, and starts. */
  | { readonly do: "replace"; readonly node: number }
  | { readonly do: "join" }
  /** How far the node's wall clock is off from now on. */
  | { readonly do: "clock"; readonly node: number; readonly skewMs: number }
  /** The node's way to the registry. */
  | {
      readonly do: "registry";
      readonly node: number;
      readonly delayMs: number;
      readonly failure: RegistryReason | undefined;
    }
  | { readonly do: "registry-clock"; readonly offsetMs: number }
  | { readonly do: "listing-lag"; readonly lagMs: number }
  /** The node's object is gone, and yet listed. */
  | { readonly do: "vanish"; readonly node: number }
  /** A stranger puts an object there. */
  | { readonly do: "plant"; readonly name: string; readonly body: string }
  /** Somebody who has the key sends `to` an announcement in the name of the node, from an address of its own. */
  | { readonly do: "forge"; readonly node: number; readonly to: number }
  /** Somebody on the node wants to know who answers: all its peers are asked. */
  | { readonly do: "ask"; readonly node: number }
  /** What writing into the node's tree fails with. */
  | { readonly do: "disk"; readonly node: number; readonly code: "ENOSPC" | "EACCES" | undefined };

export type Kind = Deed["do"];

export interface Step {
  readonly atMs: number;
  readonly deed: Deed;
}

export interface FaultSchedule {
  /** Of everything else that is random in a run. */
  readonly seed: number;
  /** Nodes at the start. */
  readonly nodes: number;
  /** When every fault ends. */
  readonly durationMs: number;
  /** Ordered by time. */
  readonly steps: ReadonlyArray<Step>;
}

export interface GenerateOptions {
  /** Defaults to 5. */
  readonly nodes?: number;
  /** Defaults to an hour. */
  readonly durationMs?: number;
  /** Mean time between the starts of two faults, ms. Defaults to 2 minutes. */
  readonly everyMs?: number;
  /** Only these kinds. Defaults to all. */
  readonly only?: ReadonlyArray<Kind>;
}

/** Where forged announcements come from, and what they say. */
export const forger = "10.66.0.1" as Address;
export const forged: Feature.FeatureSet = Feature.fromEntries([
  ["a" as Feature.FeatureName, Feature.FeatureValue("666666")],
]);

/** A network without faults. */
export const calmLink: Link = { loss: 0, delayMs: [1, 5], duplication: 0, corruption: 0 };

const features = ["a", "b", "c"];

/** How often each kind is drawn. Kinds that only end others (`heal`, `start`) come with those. */
const weights: ReadonlyArray<readonly [Kind, number]> = [
  ["set", 10],
  ["half-write", 2],
  ["remove", 3],
  ["partition", 4],
  ["cut", 4],
  ["link", 4],
  ["crash", 4],
  ["stop", 3],
  ["replace", 1],
  ["join", 1],
  ["clock", 3],
  ["registry", 5],
  ["registry-clock", 1],
  ["listing-lag", 1],
  ["vanish", 1],
  ["plant", 1],
  ["disk", 3],
  ["forge", 1],
  ["ask", 1],
];

/** What `only` may name. */
export const kinds: ReadonlyArray<Kind> = weights.map(([kind]) => kind);

/** Most nodes that join one run. */
const mostJoins = 3;

/** A schedule with faults of every kind, alone and mixed. The same seed and options give the same. */
export const generate = (seed: number, options: GenerateOptions = {}): FaultSchedule => {
  const { nodes = 5, durationMs = 3_600_000, everyMs = 120_000, only } = options;
  const prng = Prng.seeded(seed);
  const int = (least: number, most: number): number => least + Math.floor(prng.float() * (most - least + 1));
  const one = <A>(...all: ReadonlyArray<A>): A => all[int(0, all.length - 1)]!;
  const chance = (probability: number): boolean => prng.float() < probability;
  const usable = weights.filter(([kind]) => only === undefined || only.includes(kind));
  const [first] = usable;
  const total = usable.reduce((sum, [, weight]) => sum + weight, 0);
  const steps: Array<Step> = [];
  const add = (atMs: number, deed: Deed): void => {
    if (atMs < durationMs) steps.push({ atMs, deed });
  };
  let values = 0;
  let members = nodes;
  const set = (atMs: number, node: number, feature = one(...features)): void =>
    add(atMs, { do: "set", node, feature, value: String(++values) });

  for (let node = 0; node < nodes; node++)
    for (const feature of features) if (chance(0.7)) set(int(0, 5_000), node, feature);
  const endMs = first === undefined ? 0 : durationMs;
  for (let atMs = int(1_000, everyMs); atMs < endMs; atMs += Math.ceil(-Math.log(1 - prng.float()) * everyMs)) {
    let draw = prng.float() * total;
    const kind = (usable.find(([, weight]) => (draw -= weight) < 0) ?? first!)[0];
    const node = int(0, members - 1);
    // some faults are short, some outlive the time after which a node is forgotten
    const untilMs = atMs + (chance(0.2) ? int(0, 30 * 60_000) : chance(0.3) ? int(0, 5_000) : int(0, 8 * 60_000));
    switch (kind) {
      case "set":
        // a third of the changes come in bursts
        for (let n = chance(0.3) ? int(2, 8) : 1, at = atMs; n > 0; n--, at += int(1, 900)) set(at, node);
        break;
      case "half-write": {
        const feature = one(...features);
        add(atMs, { do: "half-write", node, feature });
        if (chance(0.8)) set(atMs + int(1, 3_000), node, feature);
        break;
      }
      case "remove":
        add(atMs, { do: "remove", node, feature: one(...features) });
        break;
      case "partition": {
        const sides = int(2, 3);
        const groups: Array<Array<number>> = Array.from({ length: sides }, () => []);
        for (let member = 0; member < members; member++) groups[int(0, sides - 1)]!.push(member);
        add(atMs, { do: "partition", groups });
        add(untilMs, { do: "heal" });
        break;
      }
      case "cut":
        for (let n = int(1, 3); n > 0; n--) {
          const to = int(0, members - 1);
          if (to !== node) add(atMs, { do: "cut", from: node, to, oneWay: chance(0.5) });
        }
        add(untilMs, { do: "heal" });
        break;
      case "link":
        add(atMs, {
          do: "link",
          link: {
            loss: chance(0.6) ? one(0.02, 0.2, 0.5, 0.9) : 0,
            delayMs: chance(0.6) ? one([1, 500], [0, 3_000], [2_000, 5_000], [10_000, 20_000]) : calmLink.delayMs,
            duplication: chance(0.4) ? one(0.1, 1) : 0,
            corruption: chance(0.3) ? one(0.05, 0.4) : 0,
          },
        });
        add(untilMs, { do: "link", link: calmLink });
        break;
      case "crash":
        add(atMs, { do: "crash", node });
        if (chance(0.3)) set(atMs + int(0, Math.max(0, untilMs - atMs)), node);
        if (chance(0.85)) add(untilMs, { do: "start", node });
        break;
      case "stop":
        add(atMs, { do: "stop", node, keep: chance(0.4) });
        if (chance(0.85)) add(untilMs, { do: "start", node });
        break;
      case "replace":
        add(atMs, { do: "crash", node });
        add(untilMs, { do: "replace", node });
        set(untilMs + int(0, 2_000), node);
        break;
      case "join":
        if (members >= nodes + mostJoins) break;
        add(atMs, { do: "join" });
        set(atMs + int(0, 2_000), members++);
        break;
      case "clock": {
        const ms = one(500, 6_000, 14_000, 40_000, 600_000, 7_200_000);
        add(atMs, { do: "clock", node, skewMs: chance(0.5) ? ms : -ms });
        add(untilMs, { do: "clock", node, skewMs: 0 });
        break;
      }
      case "registry": {
        const failure = one<RegistryReason | undefined>(undefined, "Unreachable", "Throttled", "Denied");
        const delayMs = failure === undefined ? one(500, 4_500, 20_000, 40_000, 90_000) : one(0, 200, 10_000);
        const all = chance(0.4);
        for (let member = all ? 0 : node; member <= (all ? members - 1 : node); member++) {
          add(atMs, { do: "registry", node: member, delayMs, failure });
          add(untilMs, { do: "registry", node: member, delayMs: 0, failure: undefined });
        }
        break;
      }
      case "registry-clock":
        // off from the start: a registry's clock that jumps by minutes would age every object
        steps.unshift({ atMs: 0, deed: { do: "registry-clock", offsetMs: int(-36_000_000, 36_000_000) } });
        break;
      case "listing-lag":
        add(atMs, { do: "listing-lag", lagMs: int(1_000, 60_000) });
        add(untilMs, { do: "listing-lag", lagMs: 0 });
        break;
      case "vanish":
        add(atMs, { do: "vanish", node });
        break;
      case "plant":
        add(atMs, {
          do: "plant",
          name: one("notes.txt", "10.77.0.1", "::ffff:10.0.0.1", "224.0.0.1", "010.0.0.1"),
          body: one("", "<html>", "[]"),
        });
        break;
      case "disk":
        add(atMs, { do: "disk", node, code: one("ENOSPC", "EACCES") });
        add(untilMs, { do: "disk", node, code: undefined });
        break;
      case "forge":
        add(atMs, { do: "forge", node, to: int(0, members - 1) });
        break;
      case "ask":
        for (let n = int(1, 3), at = atMs; n > 0; n--, at += int(1, 1_500)) add(at, { do: "ask", node });
        break;
      case "heal":
      case "start":
        break;
    }
  }
  return { seed, nodes, durationMs, steps: ordered(steps) };
};

/** By time; what is due at once, in the order it was said. */
const ordered = (steps: ReadonlyArray<Step>): ReadonlyArray<Step> => steps.toSorted((a, b) => a.atMs - b.atMs);

const clock = (ms: number): string =>
  `${Math.floor(ms / 3_600_000)}:${String(Math.floor(ms / 60_000) % 60).padStart(2, "0")}:${((ms / 1_000) % 60).toFixed(3).padStart(6, "0")}`;

const words = ({ do: kind, ...rest }: Deed): string =>
  [kind, ...Object.entries(rest).map(([name, value]) => `${name}=${JSON.stringify(value) ?? "none"}`)].join(" ");

/** For people: a line a step. */
export const show = (schedule: FaultSchedule): string =>
  [
    `seed ${schedule.seed}, ${schedule.nodes} nodes, ${clock(schedule.durationMs)}:`,
    ...schedule.steps.map(({ atMs, deed }) => `  ${clock(atMs)} ${words(deed)}`),
    `  ${clock(schedule.durationMs)} every fault ends`,
  ].join("\n");

/** How many of each kind there are. */
export const count = (schedule: FaultSchedule): ReadonlyMap<Kind, number> => {
  const counts = new Map<Kind, number>();
  for (const { deed } of schedule.steps) counts.set(deed.do, (counts.get(deed.do) ?? 0) + 1);
  return counts;
};

/** What a deed does, in the words of a table; nothing when it only ends others. */
const faultsOf = (deed: Deed): ReadonlyArray<string> => {
  switch (deed.do) {
    case "set":
      return ["feature set"];
    case "half-write":
      return ["feature half-written"];
    case "remove":
      return ["feature removed"];
    case "partition":
      return ["split"];
    case "cut":
      return [deed.oneWay ? "cut one way" : "cut both ways"];
    case "link": {
      const { corruption, delayMs, duplication, loss } = deed.link;
      return [
        loss > 0 ? ["packet loss"] : [],
        delayMs[1] > calmLink.delayMs[1] ? ["packet delay and reordering"] : [],
        duplication > 0 ? ["packet duplication"] : [],
        corruption > 0 ? ["packet corruption"] : [],
      ].flat();
    }
    case "crash":
      return ["crash"];
    case "stop":
      return [deed.keep ? "stop to come back" : "termination"];
    case "start":
      return ["restart"];
    case "replace":
      return ["address reused by a new host"];
    case "join":
      return ["new node"];
    case "clock":
      return deed.skewMs === 0 ? [] : [deed.skewMs > 0 ? "clock jumps ahead" : "clock jumps back"];
    case "registry":
      if (deed.failure !== undefined) return [`registry ${deed.failure}`];
      return deed.delayMs === 0 ? [] : [deed.delayMs > 30_000 ? "registry hangs" : "registry slow"];
    case "registry-clock":
      return ["registry's clock off"];
    case "listing-lag":
      return deed.lagMs === 0 ? [] : ["listing lags"];
    case "vanish":
      return ["object vanishes"];
    case "plant":
      return ["foreign object"];
    case "forge":
      return ["forged announcement"];
    case "disk":
      return deed.code === undefined ? [] : [deed.code === "ENOSPC" ? "disk full" : "disk denied"];
    case "ask":
      return ["question to all"];
    case "heal":
      return [];
  }
};

/** How many faults of each kind there are. */
export const faults = (schedule: FaultSchedule): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>();
  for (const { deed } of schedule.steps)
    for (const kind of faultsOf(deed)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
};

/** The schedule without what concerns one node; the places of those after it move up. */
const without = (schedule: FaultSchedule, gone: number): FaultSchedule => {
  const place = (node: number): number => (node > gone ? node - 1 : node);
  const steps = schedule.steps.flatMap(({ atMs, deed }): ReadonlyArray<Step> => {
    if (deed.do === "forge") {
      if (deed.node === gone || deed.to === gone) return [];
      return [{ atMs, deed: { ...deed, node: place(deed.node), to: place(deed.to) } }];
    }
    if ("node" in deed) return deed.node === gone ? [] : [{ atMs, deed: { ...deed, node: place(deed.node) } }];
    if (deed.do === "cut") {
      if (deed.from === gone || deed.to === gone) return [];
      return [{ atMs, deed: { ...deed, from: place(deed.from), to: place(deed.to) } }];
    }
    if (deed.do !== "partition") return [{ atMs, deed }];
    const groups = deed.groups.map((group) => group.filter((node) => node !== gone).map(place));
    return [{ atMs, deed: { ...deed, groups } }];
  });
  return { ...schedule, nodes: schedule.nodes - 1, steps };
};

/**
 * The shortest schedule found that still fails: steps go in ever smaller runs (delta debugging), then nodes, then time
 * at the end. `fails` is called at most `tries` times (500 by default).
 */
export const shrink = (
  schedule: FaultSchedule,
  fails: (schedule: FaultSchedule) => boolean,
  tries = 500,
): FaultSchedule => {
  let best = schedule;
  let left = tries;
  const attempt = (candidate: FaultSchedule): boolean => {
    if (left-- <= 0 || !fails(candidate)) return false;
    best = candidate;
    return true;
  };
  for (let before = Number.POSITIVE_INFINITY; best.steps.length + best.nodes < before;) {
    before = best.steps.length + best.nodes;
    for (let run = best.steps.length; run >= 1; run = Math.floor(run / 2)) {
      for (let at = best.steps.length - run; at > -run; at -= run) {
        attempt({ ...best, steps: best.steps.toSpliced(Math.max(0, at), run + Math.min(0, at)) });
      }
    }
    for (let node = best.nodes - 1; node >= 0 && best.nodes > 1; node--) attempt(without(best, node));
  }
  const lastMs = best.steps.at(-1)?.atMs ?? 0;
  for (const afterMs of [0, 60_000, 600_000]) {
    if (lastMs + afterMs < best.durationMs && attempt({ ...best, durationMs: lastMs + afterMs })) break;
  }
  return best;
};
