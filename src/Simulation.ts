/** Plays a fault schedule on a simulated fleet under the eyes of a `Witness`. */
import type * as Address from "./Address.js";
import { addressOf, Cluster, type ClusterNode, type Tree } from "./Cluster.js";
import * as FaultSchedule from "./FaultSchedule.js";
import type { RegistryHarm } from "./S3Registry.js";
import { defaults, type Settings } from "./Settings.js";
import type { FaultModel } from "./SimulatedNetwork.js";
import { convergedMs, goneMs, type Violation, Witness } from "./Witness.js";

/** A fleet that a schedule can be played on. Times are ms since its start. */
export interface World {
  /** Everything due until then happens. */
  readonly advanceTo: (atMs: number) => void;
  /** What the nodes do not live to see is no error: a node that is not there, a start of one that runs. */
  readonly perform: (deed: FaultSchedule.Deed) => void;
  /** A node of this address joined, or undefined. */
  readonly join: () => Address.Address;
  /** Names in the registry. */
  readonly objects: () => ReadonlySet<string>;
  /** By address of the nodes that run. */
  readonly trees: () => Readonly<Record<string, Tree>>;
  /** What each running node keeps and logged (`NodeView.sizes`, `logged`), by place. */
  readonly sizes: () => ReadonlyArray<Readonly<Record<string, number>> | undefined>;
  /** How often the network, the registry and the disks did harm, by its name. */
  readonly harm: () => Readonly<Record<string, number>>;
  /** What else went wrong. */
  readonly complaints: () => ReadonlyArray<Omit<Violation, "atMs">>;
  readonly close: () => void;
}

/** Told of each file of a tree that changed. */
export type OnShown = (node: number, host: string, feature: string, text: string | undefined, nowMs: number) => void;

/** Told of everything that happens between nodes, in words: two runs are the same when they tell the same. */
export type OnEvent = (event: string) => void;

export type MakeWorld = (
  schedule: FaultSchedule.FaultSchedule,
  settings: Settings,
  onShown: OnShown,
  onEvent?: OnEvent,
) => World;

export interface Outcome {
  readonly violations: ReadonlyArray<Violation>;
  /** At the end, by address. */
  readonly trees: Readonly<Record<string, Tree>>;
  /** Simulated. */
  readonly ms: number;
  /** See `World.harm`. */
  readonly harm: Readonly<Record<string, number>>;
  /** The most that any node kept of each thing. */
  readonly largest: Readonly<Record<string, number>>;
}

export interface PlayOptions {
  readonly settings?: Settings;
  /** How often promises that name a time are looked at, ms. Defaults to 10 seconds; each change of a tree is seen anyway. */
  readonly lookMs?: number;
  readonly onEvent?: OnEvent;
}

export { addressOf };

const ended = Symbol("ended");

/** Plays the schedule, ends every fault, and lets pass the time in which the protocol promises agreement. Stops at the first violation. */
export const play = (
  schedule: FaultSchedule.FaultSchedule,
  makeWorld: MakeWorld,
  options: PlayOptions = {},
): Outcome => {
  const { settings = defaults, lookMs = 10_000, onEvent } = options;
  const witness = new Witness(settings);
  let members = 0;
  const onShown: OnShown = (node, host, feature, text, nowMs) => {
    onEvent?.(`${nowMs} ${addressOf(node)} shows ${feature} of ${host} as ${text}`);
    witness.shown(node, host, feature, text, nowMs);
  };
  const world = makeWorld(schedule, settings, onShown, onEvent);
  let nowMs = 0;
  const outcome = (): Outcome => ({
    violations: witness.violations,
    trees: world.trees(),
    ms: nowMs,
    harm: world.harm(),
    largest: witness.largest,
  });
  const stopIfBroken = (): void => {
    if (witness.violations.length > 0) throw ended;
  };
  const advanceTo = (atMs: number): void => {
    for (let at = Math.floor(nowMs / lookMs + 1) * lookMs; at <= atMs; at += lookMs) {
      world.advanceTo(at);
      witness.look(at, world.objects());
      for (const [node, sizes] of world.sizes().entries()) if (sizes !== undefined) witness.measured(node, sizes, at);
      nowMs = at;
      stopIfBroken();
    }
    world.advanceTo(atMs);
    nowMs = atMs;
    stopIfBroken();
  };
  const join = (): void => {
    witness.joined(addressOf(members++), nowMs);
    world.join();
  };
  const perform = (deed: FaultSchedule.Deed): void => {
    if (deed.do === "join") return join();
    if ("node" in deed && deed.node >= members) return;
    witness.deed(deed, nowMs);
    world.perform(deed);
  };
  try {
    // the registry's clock was off before there were nodes
    for (const { atMs, deed } of schedule.steps) if (atMs === 0 && deed.do === "registry-clock") world.perform(deed);
    for (let node = 0; node < schedule.nodes; node++) join();
    for (const { atMs, deed } of schedule.steps) {
      advanceTo(atMs);
      perform(deed);
    }
    advanceTo(schedule.durationMs);
    for (const deed of calm(members)) perform(deed);
    witness.calmed(nowMs);
    advanceTo(nowMs + Math.max(convergedMs(settings), goneMs(settings)) + lookMs);
    const trees = world.trees();
    if (canonical(trees) !== canonical(witness.truth())) {
      witness.violate("not-converged", `${canonical(trees)} should be ${canonical(witness.truth())}`, nowMs);
    }
    for (const { rule, message } of world.complaints()) witness.violate(rule, message, nowMs);
    return outcome();
  } catch (error) {
    if (error !== ended) throw error;
    return outcome();
  } finally {
    world.close();
  }
};

/**
 * Plays a schedule, and throws when a promise was broken: the error tells which, and gives the shortest schedule found
 * that still breaks the same one.
 */
export const check = (
  schedule: FaultSchedule.FaultSchedule,
  makeWorld: MakeWorld,
  options: PlayOptions & { /** Plays to spend on shrinking. Defaults to 300. */ readonly tries?: number } = {},
): Outcome => {
  const outcome = play(schedule, makeWorld, options);
  const [first] = outcome.violations;
  if (first === undefined) return outcome;
  const broken = (candidate: FaultSchedule.FaultSchedule) =>
    play(candidate, makeWorld, options).violations.find(({ rule }) => rule === first.rule);
  const shortest = FaultSchedule.shrink(schedule, (each) => broken(each) !== undefined, options.tries ?? 300);
  const { atMs, rule, message } = broken(shortest) ?? first;
  throw new Error(
    `seed ${schedule.seed} broke the promise "${rule}" after ${(atMs / 1_000).toFixed(1)} s: ${message}\n${FaultSchedule.show(shortest)}`,
  );
};

const calm = (members: number): ReadonlyArray<FaultSchedule.Deed> => [
  { do: "heal" },
  { do: "link", link: FaultSchedule.calmLink },
  { do: "listing-lag", lagMs: 0 },
  ...Array.from({ length: members }, (_, node): ReadonlyArray<FaultSchedule.Deed> => [
    { do: "clock", node, skewMs: 0 },
    { do: "registry", node, delayMs: 0, failure: undefined },
    { do: "disk", node, code: undefined },
  ]).flat(),
];

/** Trees as text that is equal when they are; features that nobody offers do not count. */
export const canonical = (trees: Readonly<Record<string, Tree>>): string =>
  Object.entries(trees)
    .flatMap(([node, tree]) =>
      Object.entries(tree).flatMap(([feature, hosts]) =>
        Object.entries(hosts).map(([host, value]) => `${node}:${feature}/${host}=${value}`),
      ),
    )
    .toSorted()
    .join(" ");

export const packetHarm = ({ fates }: FaultModel): Readonly<Record<string, number>> => ({
  "packets lost": fates.lost,
  "packets cut off": fates.cutOff,
  "packets delayed": fates.delayed,
  "packets doubled": fates.doubled,
  "packets corrupted": fates.corrupted,
});

export const registryHarm = (harm: RegistryHarm): Readonly<Record<string, number>> => ({
  "requests failed": harm.failed,
  "requests slow": harm.slow,
  "requests timed out": harm.timedOut,
  "listings behind": harm.behind,
  "reads of vanished objects": harm.vanished,
});

/** Whole nodes: see `Cluster`. */
export const clusterWorld: MakeWorld = (schedule, settings, onShown, onEvent) => {
  const cluster = Cluster.make({ nodes: 0, seed: schedule.seed, settings });
  const startMs = cluster.time.unixMs;
  const { network, registry } = cluster;
  const { faults } = network;
  if (onEvent !== undefined) {
    const at = () => cluster.time.unixMs - startMs;
    network.onPacket = (from, to, bytes, fate) =>
      onEvent(`${at()} ${from} to ${to}: ${bytes.toString("base64")} ${JSON.stringify(fate)}`);
    registry.onRequest = (node, operation, name) => onEvent(`${at()} ${node}: ${operation} ${name}`);
  }
  const diskFailures = { ENOSPC: 0, EACCES: 0 };
  const node = (place: number) => cluster.node(place);
  /** What starts when a process that is leaving, which takes its time, has ended; a further crash or stop prevents it. */
  const awaited = new Map<number, (member: ClusterNode) => void>();
  const afterEnd = (place: number, next: (member: ClusterNode) => void): void => {
    const member = node(place);
    if (!member.leaving) member.crash();
    awaited.set(place, next);
    member.afterEnd(() => {
      awaited.get(place)?.(member);
      awaited.delete(place);
    });
  };
  const perform = (deed: FaultSchedule.Deed): void => {
    switch (deed.do) {
      case "set":
        return node(deed.node).write(deed.feature, deed.value);
      case "half-write":
        return node(deed.node).write(deed.feature, "{");
      case "remove":
        return node(deed.node).remove(deed.feature);
      case "partition":
        return cluster.partition(...deed.groups.map((group) => group.filter((place) => place < cluster.nodes.length)));
      case "cut":
        if (Math.max(deed.from, deed.to) >= cluster.nodes.length) return;
        return deed.oneWay ? cluster.cutOneWay(deed.from, deed.to) : cluster.cut(deed.from, deed.to);
      case "heal":
        return cluster.heal();
      case "link":
        return faults.setDefault(deed.link);
      case "crash":
        awaited.delete(deed.node);
        return node(deed.node).leaving ? undefined : node(deed.node).crash();
      case "stop":
        awaited.delete(deed.node);
        return node(deed.node).leaving ? undefined : node(deed.node).stop(deed.keep ? "keep" : "withdraw");
      case "start":
        if (awaited.has(deed.node) || (node(deed.node).running && !node(deed.node).leaving)) return;
        return afterEnd(deed.node, (member) => member.start());
      case "replace":
        return afterEnd(deed.node, (member) => {
          member.wipe();
          member.start();
        });
      case "clock":
        node(deed.node).skewMs = deed.skewMs;
        return;
      case "registry":
        Object.assign(registry.link(addressOf(deed.node)), { delayMs: deed.delayMs, failure: deed.failure });
        return;
      case "registry-clock":
        registry.clockOffsetMs = deed.offsetMs;
        return;
      case "listing-lag":
        registry.listLagMs = deed.lagMs;
        return;
      case "vanish":
        return registry.vanish(addressOf(deed.node));
      case "plant":
        return registry.plant(deed.name, deed.body);
      case "forge":
        return deed.to < cluster.nodes.length
          ? cluster.forge(FaultSchedule.forger, deed.to, {
              address: addressOf(deed.node),
              timeNs: BigInt(cluster.time.unixMs) * 1_000_000n,
              features: FaultSchedule.forged,
            })
          : undefined;
      case "disk":
        node(deed.node).files.fault =
          deed.code === undefined
            ? undefined
            : (operation, path) => {
                const fails =
                  deed.code === "ENOSPC"
                    ? operation === "write" || operation === "makeDirectory"
                    : path.startsWith("features/") && operation !== "list" && operation !== "holds";
                if (!fails || deed.code === undefined) return undefined;
                diskFailures[deed.code]++;
                return deed.code;
              };
        return;
      case "ask":
        return node(deed.node).ask();
      case "join":
        return;
    }
  };
  const complaints: World["complaints"] = () => {
    const all: Array<Omit<Violation, "atMs">> = [];
    for (const { address, failure } of cluster.nodes) {
      if (failure !== undefined) all.push({ rule: "failed", message: `${address} ended: ${failure}` });
    }
    const sent = network.statistics();
    const ended = sent.delivered + Object.values(sent.dropped).reduce((sum, n) => sum + n, 0) + sent.inFlight;
    if (sent.sent + sent.duplicated !== ended) all.push({ rule: "uncounted", message: JSON.stringify(sent) });
    return all;
  };
  return {
    advanceTo: (atMs) => cluster.time.advance(startMs + atMs - cluster.time.unixMs),
    perform,
    join: () => {
      const place = cluster.nodes.length;
      const joined = cluster.join(addressOf(place));
      joined.files.onChange = (path, text) => {
        const [root, feature, host] = path.split("/");
        if (root === "features" && feature !== undefined && host !== undefined) {
          onShown(place, host, feature, text, cluster.time.unixMs - startMs);
        }
      };
      return joined.address;
    },
    objects: () => new Set(registry.contents().keys()),
    trees: () => cluster.trees,
    sizes: () =>
      cluster.nodes.map(({ view, lines, running }) => (running ? { ...view.sizes(), logged: lines } : undefined)),
    harm: () => {
      const refused = Object.fromEntries(
        Object.entries(diskFailures).map(([code, n]) => [`file operations ${code}`, n]),
      );
      return { ...packetHarm(faults), ...registryHarm(registry.harm), ...refused };
    },
    complaints,
    close: () => cluster.close(),
  };
};
