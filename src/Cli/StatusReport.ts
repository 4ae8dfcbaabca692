/** What `nameq status` prints: by the node's HTTP face, or by what its state directory shows. */
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import { ownHost } from "../Address.js";
import * as Defaults from "../Defaults.js";
import type { Features, Problem } from "../FeatureTable.js";
import * as StateLock from "../StateLock.js";
import { escapeForPeople } from "./Escape.js";
import { ExitStatus } from "./ExitStatus.js";
import * as Face from "./Face.js";
import { print } from "./Output.js";
import type { StatusOptions } from "./Status.js";
import * as Tree from "./Tree.js";

/** It runs, and something is wrong with it. */
const degraded = 3;

/** More nodes than this are summed up, unless all are asked for. */
const fewNodes = 40;

/** A length of time in its largest whole unit, for people. */
export const duration = (ms: number): string => {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 120 * 60) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3_600 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
};

/** `1 node`, `2 nodes`. */
export const count = (n: number, one: string): string => `${n} ${one}${n === 1 ? "" : "s"}`;

/** Columns side by side, the last one as it is. */
export const columns = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = rows.reduce<ReadonlyArray<number>>(
    (most, row) => row.map((cell, at) => Math.max(cell.length, most[at] ?? 0)),
    [],
  );
  return rows.map((row) => row.map((cell, at) => (at < row.length - 1 ? cell.padEnd(widths[at]!) : cell)).join("  "));
};

const states = ["alive", "silent", "left", "forgotten"] as const;

/** How far a clock is off, for people. */
export const offset = (ms: number): string => {
  if (Math.abs(ms) < 1_000) return `${Math.round(ms)} ms`;
  return `${(ms / 1_000).toFixed(1)} s`;
};

const versionOf = (node: Face.Node): string =>
  node.version === null ? (node.legacy ? "existing program" : "-") : escapeForPeople(node.version);

/** What is wrong, one a line. */
const conditionLines = (conditions: ReadonlyArray<Face.Condition>, nowMs: number): ReadonlyArray<string> =>
  conditions.map(
    ({ message, severity, since }) =>
      `${severity}${since === null ? "" : ` for ${duration(nowMs - Date.parse(since))}`}: ${escapeForPeople(message)}`,
  );

/** The report of a face, for people. `ownMs`: this program's clock, for want of the node's. Pure. */
export const faceLines = (
  { at, conditions, nodes, self }: Face.Nodes,
  ownMs: number,
  all: boolean,
): ReadonlyArray<string> => {
  // the times in it are the node's, which may be another host's
  const saidMs = Date.parse(at ?? "");
  const nowMs = Number.isNaN(saidMs) ? ownMs : saidMs;
  const shown = all || nodes.length <= fewNodes ? nodes : nodes.filter(({ state }) => state !== "alive");
  const counts = states
    .map((state) => [state, nodes.filter((node) => node.state === state).length] as const)
    .filter(([state, n]) => n > 0 || state === "alive")
    .map(([state, n]) => `${n} ${state}`);
  const features = nodes.reduce((sum, node) => sum + node.features, self.features);
  const version = self.version === null ? "" : `, nameq ${escapeForPeople(self.version)}`;
  const clock = self.registryClockOffsetMs;
  return [
    `node ${escapeForPeople(self.address)} port ${self.port}: ${self.ready ? "ready" : "starting, the registry is not read into the tree yet"}${version}${self.startedAt === null ? "" : `, up for ${duration(nowMs - Date.parse(self.startedAt))}`}`,
    ...(self.registry === null
      ? []
      : [
          `registry ${escapeForPeople(self.registry)}${clock === null ? "" : `: this host's clock minus its is ${offset(clock)}`}`,
        ]),
    ...(self.stateDir === null ? [] : [`tree ${escapeForPeople(self.stateDir)}/features`]),
    `other nodes: ${counts.join(", ")}`,
    `features: ${self.features} of this host, ${features} in all`,
    ...(conditions.length === 0 ? ["nothing is wrong"] : ["", ...conditionLines(conditions, nowMs)]),
    ...(shown.length === 0 ? [] : ["", ...nodeTable(shown)]),
    ...(shown.length === nodes.length ? [] : [`and ${nodes.length - shown.length} more that are alive: --nodes`]),
  ];
};

const nodeTable = (nodes: ReadonlyArray<Face.Node>): ReadonlyArray<string> =>
  columns([
    ["NODE", "STATE", "HEARD", "BY", "CLOCK", "FEATURES", "VERSION"],
    ...nodes.map((node) => [
      escapeForPeople(node.address),
      node.state,
      `${duration(node.heardMs)} ago`,
      node.source,
      node.clockOffsetMs === null ? "-" : offset(node.clockOffsetMs),
      String(node.features),
      versionOf(node),
    ]),
  ]);

/** Who has the state directory. */
type Daemon = StateLock.Holder | "silent" | "none" | "unknown";

/** What a tree shows of one host. */
interface Host {
  readonly address: string;
  readonly features: number;
  readonly changedMs: number;
}

/** The hosts of a tree, this one first. */
const hostsOf = (features: Features): ReadonlyArray<Host> => {
  const hosts = new Map<string, { features: number; changedMs: number }>();
  for (const offers of features.values()) {
    for (const [address, { changedMs }] of offers) {
      const host = hosts.get(address) ?? { features: 0, changedMs: 0 };
      host.features++;
      host.changedMs = Math.max(host.changedMs, changedMs);
      hosts.set(address, host);
    }
  }
  return [...hosts]
    .map(([address, host]) => ({ address, ...host }))
    .toSorted(
      (a, b) => Number(b.address === ownHost) - Number(a.address === ownHost) || Tree.byAddress(a.address, b.address),
    );
};

const daemonLine = (daemon: Daemon, stateDir: string): string => {
  switch (daemon) {
    case "none":
      return `no node runs with ${stateDir}: start one (nameq serve), or name another directory with --state-dir`;
    case "silent":
      return `a node has ${stateDir} and does not answer: it is stopped or very busy`;
    case "unknown":
      return `whether a node runs with ${stateDir} cannot be seen by this user: ask as the node's user or as root`;
    default:
      return `a node runs with ${stateDir}: pid ${daemon.pid} on ${escapeForPeople(daemon.host)}`;
  }
};

/** The report of a state directory, for people. Pure. */
export const treeLines = (
  tree: { readonly daemon: Daemon; readonly stateDir: string; readonly hosts: ReadonlyArray<Host> | undefined },
  names: number,
  nowMs: number,
  all: boolean,
): ReadonlyArray<string> => {
  const head = daemonLine(tree.daemon, tree.stateDir);
  const more = "for nodes, their age and what is wrong, give the node an HTTP face: nameq serve --http";
  if (tree.hosts === undefined) return [head, "there is no tree"];
  const others = tree.hosts.filter(({ address }) => address !== ownHost);
  const total = tree.hosts.reduce((sum, { features }) => sum + features, 0);
  const newest = Math.max(...tree.hosts.map(({ changedMs }) => changedMs));
  const shown = all || others.length <= fewNodes ? tree.hosts : [];
  return [
    head,
    `the tree shows ${count(others.length, "other host")} and ${count(names, "feature")} (${count(total, "file")})${total === 0 ? "" : `, last changed ${duration(nowMs - newest)} ago`}`,
    ...(shown.length === 0
      ? []
      : [
          "",
          ...columns([
            ["HOST", "FEATURES", "CHANGED"],
            ...shown.map(({ address, changedMs, features }) => [
              address === ownHost ? `${address} (this host)` : address,
              String(features),
              `${duration(nowMs - changedMs)} ago`,
            ]),
          ]),
        ]),
    ...(shown.length === tree.hosts.length ? [] : [`${count(others.length, "host")}: --nodes prints them`]),
    ...(tree.daemon === "none" ? [] : ["", more]),
  ];
};

const lines = (all: ReadonlyArray<string>): string => all.map((line) => `${line}\n`).join("");

const byFace = (face: Face.Face, options: StatusOptions) =>
  Effect.gen(function* () {
    const text = yield* Face.get(face, "/v1/nodes");
    const known = yield* Face.decode(face, Face.Nodes, text);
    if (options.json) {
      yield* print(`{"source":"http","url":${JSON.stringify(face.url)},${escapeForPeople(text.slice(1))}\n`);
    } else {
      yield* print(lines(faceLines(known, yield* Clock.currentTimeMillis, options.nodes)));
    }
    if (!known.self.ready || known.conditions.some(({ severity }) => severity === "error")) {
      return yield* new ExitStatus({ status: degraded, message: "" });
    }
  });

const byTree = (options: StatusOptions) =>
  Effect.gen(function* () {
    const stateDir = options.stateDir ?? Defaults.stateDir;
    const daemon = yield* StateLock.holder(stateDir).pipe(
      Effect.map((found): Daemon => found ?? "none"),
      Effect.catchAll(() => Effect.succeed<Daemon>("unknown")),
    );
    const { features, problems } = yield* Tree.withTree(stateDir, (tree) => tree.read());
    const isMissing = ({ reason }: Problem): boolean => reason === "Missing";
    yield* Tree.warn(
      "status",
      problems.filter((problem) => !isMissing(problem)),
    );
    const hosts = problems.some(isMissing) ? undefined : hostsOf(features);
    if (options.json) {
      const listed = (hosts ?? []).map(({ changedMs, ...host }) => ({
        ...host,
        changedAt: new Date(changedMs).toISOString(),
      }));
      const holder = typeof daemon === "string" ? { state: daemon } : { state: "running", ...daemon };
      yield* print(`${JSON.stringify({ source: "tree", stateDir, daemon: holder, hosts: listed })}\n`);
    } else {
      const nowMs = yield* Clock.currentTimeMillis;
      yield* print(lines(treeLines({ daemon, stateDir, hosts }, features.size, nowMs, options.nodes)));
    }
    if (daemon === "none" || daemon === "unknown") return yield* new ExitStatus({ status: 1, message: "" });
    if (daemon === "silent") return yield* new ExitStatus({ status: degraded, message: "" });
  });

/** Runs the command. */
export const report = (options: StatusOptions): Effect.Effect<void, Error> =>
  Face.find(options).pipe(
    Effect.flatMap((face) =>
      byFace(face, options).pipe(
        // a note that outlived its node
        Effect.catchIf(
          (error) => face.from === "state" && error instanceof Face.FaceError && error.reason === "Unreachable",
          (error) =>
            Effect.zipRight(Tree.say("status", [`${error.message}. This is what its tree shows`]), byTree(options)),
        ),
      ),
    ),
    Effect.catchIf(
      (error) => error instanceof Face.FaceError && error.reason === "None",
      () => byTree(options),
    ),
  );
