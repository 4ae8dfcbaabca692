/** The doctor's look at the peers: who answers, whose clock is off, who signs with another key, who is missing. */
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Stream from "effect/Stream";
import type * as Address from "../Address.js";
import * as Feature from "../Feature.js";
import { Metrics } from "../Metrics.js";
import * as Packet from "../Packet.js";
import { defaults } from "../Settings.js";
import { type UdpError, UdpTransport } from "../UdpTransport.js";
import { version } from "../Version.js";
import { fail, type Finding, ok, skip, some, warn } from "./DoctorFinding.js";
import type { ReadKey } from "./DoctorHost.js";
import type * as Face from "./Face.js";
import { count, duration, offset } from "./StatusReport.js";

/** Peers that are told of one a line; more are summed up. */
const maxLines = 20;

const limited = (
  findings: ReadonlyArray<Finding>,
  advice = "nameq status --nodes shows all nodes",
): ReadonlyArray<Finding> => {
  const rest = findings.length - maxLines;
  if (rest <= 0) return findings;
  const worst = findings.some(({ level }) => level === "fail") ? fail : warn;
  return [...findings.slice(0, maxLines), worst(findings[0]!.check, `and ${rest} more like these`, advice)];
};

const median = (all: ReadonlyArray<number>): number =>
  all.toSorted((a, b) => a - b)[Math.floor((all.length - 1) / 2)] ?? 0;

const answered = (times: ReadonlyArray<number>, asked: number): Finding =>
  times.length === 0
    ? fail(
        "peers",
        `none of ${count(asked, "peer")} answered`,
        "what is common to all of them is at this host: its firewall, key, clock or address",
      )
    : ok("peers", `${times.length} of ${count(asked, "peer")} answered, in ${median(times).toFixed(1)} ms (median)`);

const openPort = (port: number): string =>
  `let UDP port ${port} through both ways (firewall, security group) and see whether its node runs and has the same key`;

/** Peers of which a node that runs should know. Pure. */
export const judgeUnknown = (peers: ReadonlyArray<Address.Address>): ReadonlyArray<Finding> => {
  const advice = "see whether that node runs, with the same registry and key";
  return limited(
    peers.map((peer) => fail("peer", `the node does not know ${peer}`, advice)),
    "see whether these nodes run, with the same registry and key",
  );
};

// --- through a node that runs ---------------------------------------------------------------------------------------

/** Who answered the node, and what was last heard of those who did not. Pure. */
export const judgeAnswers = (
  { nodes: answers, waitedMs }: Face.Reachability,
  { nodes, self }: Face.Nodes,
): ReadonlyArray<Finding> => {
  const known = new Map(nodes.map((node) => [node.address, node]));
  const times: Array<number> = [];
  const findings: Array<Finding> = [];
  const mute: Array<string> = [];
  let asked = 0;
  for (const { address, answered, canAnswer, rttMs } of answers) {
    const node = known.get(address);
    if (node?.state === "left" || node?.state === "forgotten") continue;
    asked++;
    if (answered) times.push(rttMs ?? waitedMs);
    else if (!canAnswer && node?.udpMs != null) {
      // the existing program only speaks when it wants to
      if (node.udpMs <= defaults.silentMs) mute.push(address);
      else findings.push(fail("peer", `${address}: no datagram for ${duration(node.udpMs)}`, openPort(self.port)));
    } else {
      const last = node?.udpMs == null ? "never heard by UDP" : `last datagram ${duration(node.udpMs)} ago`;
      findings.push(fail("peer", `${address} did not answer within ${offset(waitedMs)}; ${last}`, openPort(self.port)));
    }
  }
  if (asked === 0)
    return [
      skip("peers", "the node knows no other node", "start a second one, or see whether both use the same registry"),
    ];
  return [
    ...(times.length > 0 || mute.length === 0 ? [answered(times, asked)] : []),
    ...(mute.length === 0
      ? []
      : [
          ok(
            "peers",
            `${count(mute.length, "node")} of the existing program cannot be asked, and ${mute.length === 1 ? "is" : "are"} heard: ${some(mute)}`,
          ),
        ]),
    ...limited(findings),
  ];
};

const lastWord = (node: Face.Node): string =>
  `last news ${duration(node.heardMs)} ago by ${node.source === "udp" ? "datagram" : "the registry"}${node.udpMs === null ? ", no datagram ever" : node.source === "udp" ? "" : `, last datagram ${duration(node.udpMs)} ago`}${node.version === null ? "" : `, version ${node.version}`}`;

/** The last word of each node that is missing. Pure. */
export const judgeMissing = ({ nodes }: Face.Nodes): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = [];
  for (const node of nodes) {
    if (node.state === "left") {
      findings.push(ok("missing", `${node.address} said goodbye ${duration(node.heardMs)} ago`));
    } else if (node.state === "forgotten") {
      findings.push(
        warn(
          "missing",
          `${node.address} is forgotten: ${lastWord(node)}, and no goodbye`,
          "see whether that host is up and its node runs",
        ),
      );
    } else if (node.state === "silent") {
      findings.push(
        warn(
          "missing",
          `${node.address} is silent: ${lastWord(node)}`,
          node.source === "registry" && node.heardMs < defaults.refreshMs[1]
            ? "its node runs, for it renews its object: the network between loses its datagrams, or its key is another"
            : "see whether that host is up and its node runs",
        ),
      );
    }
  }
  const missing = findings.filter(({ level }) => level !== "ok");
  const left = findings.filter(({ level }) => level === "ok");
  return [...limited(missing), ...left.slice(0, maxLines)];
};

/** Peers' clocks, from what the node measured. Pure. */
export const judgePeerClocks = (
  offsets: ReadonlyArray<readonly [address: string, ms: number]>,
): ReadonlyArray<Finding> => {
  if (offsets.length === 0) return [];
  const findings = offsets
    .filter(([, ms]) => Math.abs(ms) > 5_000)
    .map(([address, ms]) => {
      const off = `${address}: its clock is ${offset(Math.abs(ms))} ${ms > 0 ? "behind" : "ahead of"} this host's`;
      const fix =
        "set its clock or this one (timedatectl, chronyc makestep); the one that also differs from S3's is wrong";
      return Math.abs(ms) > defaults.replayMs ? fail("peer-clock", off, fix) : warn("peer-clock", off, fix);
    });
  // of a fleet too large for the arguments of a call
  const most = offsets.reduce((most, [, ms]) => Math.max(most, Math.abs(ms)), 0);
  return findings.length > 0
    ? limited(findings)
    : [ok("peer-clock", `${count(offsets.length, "peer")}: their clocks differ by ${offset(most)} at most`)];
};

/** What the node itself says is wrong. Pure. */
export const judgeConditions = ({ conditions }: Face.Nodes): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = [];
  for (const { message, name, severity } of conditions) {
    if (severity === "info") continue;
    const keys = name === "dropped/bad-hmac" || name === "dropped/unknown-mode";
    const check = keys ? "keys" : "condition";
    if (keys) findings.push(fail(check, message, "give all nodes the same --secret-file (compare them: sha256sum)"));
    else findings.push((severity === "error" ? fail : warn)(check, message));
  }
  if (!findings.some(({ check }) => check === "keys")) {
    findings.unshift(ok("keys", "the node has dropped no datagram for its key in the last two minutes"));
  }
  return findings;
};

// --- without one ----------------------------------------------------------------------------------------------------

/** How long answers are waited for, and how often those who owe one are asked, ms. */
const waitMs = 2_000;
const askAgainMs = 600;

/** What a peer answered. */
interface Answer {
  readonly afterMs: number;
  /** Why it is no answer of ours, or its clock. */
  readonly fault: Packet.PacketFault | undefined;
  readonly offsetMs: number;
}

export interface Exchange {
  readonly own: Address.Address;
  readonly port: number;
  readonly keys: readonly [ReadKey, ...ReadonlyArray<ReadKey>];
  readonly peers: ReadonlyArray<Address.Address>;
  /** What the registry says of this address; undefined: nothing that lives, so that we say what an ended node says. */
  readonly features: Feature.FeatureSet | undefined;
}

/** Takes the node's port for a moment, and asks the peers. */
export const exchange = ({
  features,
  keys,
  own,
  peers,
  port,
}: Exchange): Effect.Effect<ReadonlyMap<string, Answer>, UdpError> =>
  Effect.gen(function* () {
    const transport = yield* UdpTransport;
    const keyring = { sign: keys[0], accept: keys };
    const answers = new Map<string, Answer>();
    const owing = new Set<string>(peers);
    const done = yield* Effect.makeLatch(false);
    const startMs = yield* Clock.currentTimeMillis;
    const receive = Stream.runForEach(transport.receive, ({ bytes, source }) =>
      Effect.map(Clock.currentTimeMillis, (nowMs) => {
        if (!owing.has(source)) return;
        const decoded = Packet.decode(keyring, bytes, () => undefined);
        const faulty = Packet.isPacketFault(decoded);
        if (!faulty && decoded.address !== source) return;
        answers.set(source, {
          afterMs: nowMs - startMs,
          fault: faulty ? decoded : undefined,
          offsetMs: faulty ? 0 : nowMs - Number(decoded.timeNs / 1_000_000n),
        });
        // a stranger's packet with its address is no answer yet
        if (!faulty) owing.delete(source);
        if (owing.size === 0) done.unsafeOpen();
      }),
    );
    const ask = Effect.gen(function* () {
      const bytes = Packet.encode(keyring.sign, {
        address: own,
        timeNs: BigInt(yield* Clock.currentTimeMillis) * 1_000_000n,
        features: features ?? Feature.empty,
        remarks: { version, ask: true, leaving: features === undefined },
      });
      yield* transport.send(
        peers.filter((peer) => owing.has(peer)),
        bytes,
      );
    });
    yield* Effect.raceFirst(
      Effect.raceFirst(receive, done.await),
      Effect.forever(Effect.zipRight(ask, Effect.sleep(askAgainMs))),
    ).pipe(Effect.timeoutOption(waitMs));
    return answers;
  }).pipe(Effect.provide(UdpTransport.layer({ address: own, port })), Effect.provide(Metrics.layer));

/** Who answered the doctor itself. Pure. */
export const judgeExchange = (
  peers: ReadonlyArray<Address.Address>,
  port: number,
  answers: ReadonlyMap<string, Answer>,
): ReadonlyArray<Finding> => {
  const times: Array<number> = [];
  const offsets: Array<readonly [string, number]> = [];
  const wrong: Array<Finding> = [];
  const findings: Array<Finding> = [];
  for (const peer of peers) {
    const answer = answers.get(peer);
    if (answer === undefined) {
      findings.push(fail("peer", `${peer} did not answer within ${offset(waitMs)}`, openPort(port)));
    } else if (answer.fault !== undefined) {
      wrong.push(
        fail(
          "keys",
          `${peer} signs with another key (${answer.fault})`,
          "give all nodes the same --secret-file (compare them: sha256sum)",
        ),
      );
    } else {
      times.push(answer.afterMs);
      offsets.push([peer, answer.offsetMs]);
    }
  }
  return [
    answered(times, peers.length),
    ...limited(findings),
    ...(wrong.length > 0
      ? limited(wrong)
      : times.length > 0
        ? [ok("keys", "those who answered have the same key")]
        : [skip("keys", "nobody answered, so keys cannot be compared", "compare the files: sha256sum")]),
    ...judgePeerClocks(offsets),
  ];
};
