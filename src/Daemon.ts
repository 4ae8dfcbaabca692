/**
 * A running node: the rules of `Membership` wired to the services. One owner of the state; every loop feeds it events
 * and what comes out is handed to bounded outboxes, so nothing that hangs holds up the datagrams.
 */
import type * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import * as Queue from "effect/Queue";
import * as Random from "effect/Random";
import * as Stream from "effect/Stream";
import type { Address } from "./Address.js";
import * as Alarm from "./Alarm.js";
import type { FeatureSet } from "./Feature.js";
import { FeatureSource } from "./FeatureSource.js";
import { type Action, type Event, type Instant, Membership } from "./Membership.js";
import { Metrics } from "./Metrics.js";
import type { NodeView } from "./NodeView.js";
import * as Packet from "./Packet.js";
import { Prng } from "./Prng.js";
import * as RegistryObject from "./RegistryObject.js";
import { maxObjectBytes, RegistryError, S3Registry } from "./S3Registry.js";
import { Secrets } from "./Secrets.js";
import { defaults, type Settings } from "./Settings.js";
import { StateTree, type StateTreeError } from "./StateTree.js";
import { type Datagram, maxDatagram, mostNow, type UdpError, UdpTransport } from "./UdpTransport.js";
import { version } from "./Version.js";

/** How a node runs. */
export interface DaemonOptions {
  /**
   * What its end means. `withdraw`: it leaves (goodbye to all, empty object, own files removed). `keep`: it is back
   * soon (an upgrade): nothing is said and the tree stays.
   */
  readonly onExit: "withdraw" | "keep";
  readonly settings?: Settings;
  /** Is told what happens. */
  readonly view?: NodeView;
}

/** DEFLATE makes at most 1,032 bytes of one: a datagram up to this size, bytes, is not too large inflated. */
const smallBytes = 1_000;

/** Registry reads under way at once. */
const readers = 16;

/** Drops of one reason are logged at most this often, ms, naming at most `maxSources` of their senders. */
const dropLogMs = 60_000;
const maxSources = 5;

/** Log lines that wait to be written; more are counted and dropped. */
const maxLogLines = 256;

/** Drops that a healthy network brings: late or doubled datagrams, and our own. */
const quietDrops: ReadonlySet<string> = new Set(["stale", "self"]);

interface LogLine {
  readonly severity: "error" | "warning" | "info" | "debug";
  readonly message: string;
}

const write = (line: LogLine): Effect.Effect<void> => {
  switch (line.severity) {
    case "error":
      return Effect.logError(line.message);
    case "warning":
      return Effect.logWarning(line.message);
    case "info":
      return Effect.logInfo(line.message);
    case "debug":
      return Effect.logDebug(line.message);
  }
};

/**
 * Reads both clocks. Wall time is the monotonic clock plus an offset, for its resolution, until the two have drifted
 * apart by more than the wall clock's own resolution: then the wall clock was set.
 */
const instantOf = (clock: Clock.Clock): (() => Instant) => {
  let offsetNs: bigint | undefined;
  return () => {
    const monoNs = clock.unsafeCurrentTimeNanos();
    const wallNs = BigInt(clock.unsafeCurrentTimeMillis()) * 1_000_000n;
    offsetNs ??= wallNs - monoNs;
    const driftNs = wallNs - (monoNs + offsetNs);
    if (driftNs > 1_000_000n || driftNs < -2_000_000n) offsetNs += driftNs;
    return { wallNs: monoNs + offsetNs, monoMs: Number(monoNs) / 1e6 };
  };
};

/** Counts drops, and words a line about a reason at most once a minute. */
const makeDropLog = (say: (line: LogLine) => void) => {
  const pending = new Map<string, { count: number; sources: Set<string>; loggedMs: number }>();
  return (reason: string, source: string, nowMs: number): void => {
    let entry = pending.get(reason);
    if (entry === undefined) {
      entry = { count: 0, sources: new Set(), loggedMs: Number.NEGATIVE_INFINITY };
      pending.set(reason, entry);
    }
    entry.count++;
    if (entry.sources.size < maxSources) entry.sources.add(source);
    if (nowMs - entry.loggedMs < dropLogMs) return;
    const advice = dropAdvice[reason];
    say({
      severity: quietDrops.has(reason) ? "debug" : "warning",
      message: `dropped ${entry.count} datagram${entry.count === 1 ? "" : "s"} (${reason}) from ${[...entry.sources].join(", ")}${advice === undefined ? "" : `: ${advice}`}`,
    });
    entry.count = 0;
    entry.sources.clear();
    entry.loggedMs = nowMs;
  };
};

const dropAdvice: Record<string, string> = {
  "bad-hmac": "its secret differs from ours, see --secret-file and --accept-secret-file",
  "unknown-mode": "it signs with a key id that we do not have, see --accept-secret-file",
  origin: "it announces another address than it sends from, see its --addr",
  address: "no peer of this node can have such an address",
  old: "its clock is behind ours, or the network is slow",
  future: "its clock is ahead of ours",
  "too-large": "it inflates beyond 1 MiB",
};

/**
 * Runs one node until it is interrupted or something that cannot be mended fails. Leaving (see `onExit`) is part of it
 * and ends within `settings.shutdownMs`, whatever hangs.
 */
export const run = (
  options: DaemonOptions,
): Effect.Effect<
  never,
  UdpError | StateTreeError,
  S3Registry | UdpTransport | FeatureSource | StateTree | Secrets | Metrics
> =>
  Effect.gen(function* () {
    const registry = yield* S3Registry;
    const transport = yield* UdpTransport;
    const source = yield* FeatureSource;
    const tree = yield* StateTree;
    const secrets = yield* Secrets;
    const metrics = yield* Metrics;
    const settings = options.settings ?? defaults;
    const instant = instantOf(yield* Effect.clock);
    const random = Prng.seeded(yield* Random.nextIntBetween(0, 2 ** 31));
    const membership = new Membership(transport.address, settings, () => random.float());

    const log = yield* Queue.dropping<LogLine>(maxLogLines);
    const puts = yield* Queue.dropping<Extract<Action, { _tag: "Put" }>>(1);
    // bounded by the rules: one list, and a get per address
    const reads = yield* Queue.unbounded<Extract<Action, { _tag: "List" | "Get" | "Delete" }>>();
    const outgoing = {
      latch: yield* Effect.makeLatch(false),
      to: new Set<Address>(),
      /** Those of them that are to answer. */
      asked: new Set<Address>(),
      timeNs: 0n,
      features: membership.features,
      leaving: false,
    };
    const { view } = options;
    const settled = yield* Effect.makeLatch(false);
    // fewer than none: those who wait for one
    const waiting = (queue: Pick<Queue.Queue<unknown>, "unsafeSize">): number =>
      Math.max(
        0,
        Option.getOrElse(queue.unsafeSize(), () => 0),
      );
    metrics.gauge("registry_reads_pending", () => waiting(reads));
    metrics.gauge("log_lines_pending", () => waiting(log));
    const started = yield* Effect.makeLatch(false);
    const alarm = yield* Alarm.make;
    /** What `waking` waits for. */
    let dueMs = Number.POSITIVE_INFINITY;

    const say = (line: LogLine): void => {
      if (!log.unsafeOffer(line)) metrics.add("log_lines_suppressed");
    };
    const logDrop = makeDropLog(say);
    const drop = (reason: string, from: string, nowMs: number): void => {
      metrics.add("datagrams_dropped", reason);
      logDrop(reason, from, nowMs);
      if (!quietDrops.has(reason)) view?.dropped(reason, from, dropAdvice[reason], nowMs);
    };

    const perform = (action: Action, now: Instant): void => {
      switch (action._tag) {
        case "Show":
          tree.update(action.host, action.features, action);
          view?.show(action);
          break;
        case "Settle":
          tree.settle();
          settled.unsafeOpen();
          say({
            severity: "info",
            message: `membership is known: ${membership.peers.size} ${membership.peers.size === 1 ? "peer" : "peers"}`,
          });
          break;
        case "Announce":
          // what still waits goes out with the newest state
          for (const address of action.to) outgoing.to.add(address);
          if (action.ask) for (const address of action.to) outgoing.asked.add(address);
          outgoing.timeNs = action.timeNs;
          outgoing.features = action.features;
          outgoing.leaving = action.leaving;
          break;
        case "Put":
          puts.unsafeOffer(action);
          break;
        case "List":
        case "Get":
        case "Delete":
          reads.unsafeOffer(action);
          break;
        case "Drop":
          drop(action.reason, action.source, now.monoMs);
          break;
        case "Report":
          say(action);
          view?.tell();
          break;
        case "Forgotten":
          view?.forget(action.peer);
          break;
      }
    };

    const step = (event: Event, now: Instant = instant()): ReadonlyArray<Action> => {
      const actions = membership.step(event, now);
      // peers first: our own tree takes as long as the whole way to them
      for (const action of actions) if (action._tag === "Announce") perform(action, now);
      // a change goes out at once; answers to many new peers share a packet
      if (outgoing.to.size > 0 && !(event._tag === "FeaturesChanged" && announceNow())) outgoing.latch.unsafeOpen();
      for (const action of actions) if (action._tag !== "Announce") perform(action, now);
      if (membership.deadlineMs < dueMs) alarm.ring();
      return actions;
    };

    const accepted = metrics.cell("announcements_accepted");
    const propagation = metrics.histogram("propagation");
    const receiveOne = (datagram: Datagram, now: Instant): void => {
      const decoded = Packet.decode(secrets.keyring(), datagram.bytes, membership.knownFeatures);
      if (Packet.isPacketFault(decoded)) return drop(decoded, datagram.source, now.monoMs);
      const actions = step({ _tag: "Received", source: datagram.source, announcement: decoded }, now);
      if (actions.some(({ _tag }) => _tag === "Drop")) return;
      accepted.value++;
      propagation.observe(Number(now.wallNs - decoded.timeNs) / 1e9);
    };

    const receiving = started.await.pipe(
      Effect.zipRight(transport.ahead((datagram) => receiveOne(datagram, instant()))),
      Effect.zipRight(
        Stream.runForEachChunk(transport.receive, (chunk) =>
          Effect.sync(() => {
            const now = instant();
            for (const datagram of chunk) receiveOne(datagram, now);
          }),
        ),
      ),
      Effect.zipRight(Effect.never),
      Effect.scoped,
    );

    const sizes = () => {
      const { hosts, directories, unwritten, failing } = tree.sizes();
      return {
        hosts,
        directories,
        unwritten,
        failing,
        datagrams: transport.waiting(),
        destinations: outgoing.to.size,
        puts: waiting(puts),
        requests: waiting(reads),
        lines: waiting(log),
      };
    };
    view?.attach({ membership, instant, ask: () => step({ _tag: "Asked" }), sizes });
    tree.onFailing((code, message) =>
      view?.condition(`tree/${code}`, message === undefined ? undefined : { severity: "error", message }),
    );

    let begun = false;
    const offer = (features: FeatureSet): void => {
      step({ _tag: begun ? "FeaturesChanged" : "Started", features });
      begun = true;
      started.unsafeOpen();
    };
    const sourcing = source
      .ahead(offer)
      .pipe(
        Effect.zipRight(Stream.runForEach(source.snapshots, (features) => Effect.sync(() => offer(features)))),
        Effect.zipRight(Effect.never),
        Effect.scoped,
      );

    const waking = started.await.pipe(
      Effect.zipRight(
        Effect.forever(
          Effect.suspend(() => {
            alarm.silence();
            dueMs = membership.deadlineMs;
            if (dueMs <= alarm.monotonicMs()) return Effect.sync(() => step({ _tag: "Woken" }));
            return alarm.wait(dueMs);
          }),
        ),
      ),
    );

    const announced = metrics.cell("announcements_sent");
    let oversized = false;
    /** What is to be sent now: packets and their destinations. */
    const takeOutgoing = (): ReadonlyArray<{ readonly to: ReadonlyArray<Address>; readonly bytes: Buffer }> => {
      const { asked, features, timeNs, leaving } = outgoing;
      const questioned = [...asked];
      const told = [...outgoing.to].filter((address) => !asked.has(address));
      outgoing.to.clear();
      asked.clear();
      const announcement = { address: transport.address, timeNs, features, remarks: { version, ask: false, leaving } };
      const key = secrets.keyring().sign;
      const bytes = Packet.encode(key, announcement);
      // a small one fits: its text need not be made again to be measured
      const inflated = bytes.length < smallBytes ? 0 : Packet.inflatedBytes(announcement);
      if ((bytes.length > maxDatagram || inflated > Packet.maxInflatedBytes) !== oversized) {
        oversized = !oversized;
        say(
          oversized
            ? {
                severity: "error",
                message: `our features make a datagram of ${bytes.length} bytes (${inflated} inflated), more than the ${maxDatagram} (${Packet.maxInflatedBytes}) that peers accept: they learn them from the registry alone, minutes late. Advertise fewer or smaller features`,
              }
            : { severity: "info", message: "our features fit into a datagram again" },
        );
        view?.condition(
          "oversized",
          oversized
            ? {
                severity: "error",
                message:
                  "our features do not fit into a datagram: peers learn them from the registry alone, minutes late. Advertise fewer or smaller features",
              }
            : undefined,
        );
      }
      if (oversized) return [];
      const packets = told.length === 0 ? [] : [{ to: told, bytes }];
      if (questioned.length === 0) return packets;
      const question = Packet.encode(key, { ...announcement, remarks: { version, ask: true, leaving } });
      return [{ to: questioned, bytes: question }, ...packets];
    };
    /** Whether `announce` is under way: what it has not sent yet must not overtake newer news. */
    let sending = false;
    const announce = Effect.suspend(() => {
      outgoing.latch.unsafeClose();
      sending = true;
      return Effect.forEach(
        takeOutgoing(),
        ({ to, bytes }) => {
          announced.value++;
          return Effect.withSpan(transport.send(to, bytes), "announce", {
            kind: "producer",
            attributes: { "announce.peers": to.length, "announce.bytes": bytes.length },
            captureStackTrace: false,
          });
        },
        { discard: true },
      );
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          sending = false;
        }),
      ),
    );
    /** The same in the caller's turn, for few peers; false: nothing was sent. */
    const announceNow = (): boolean => {
      if (sending || outgoing.asked.size > 0 || outgoing.to.size > mostNow) return false;
      for (const { to, bytes } of takeOutgoing()) {
        if (!transport.sendNow(to, bytes)) {
          for (const address of to) outgoing.to.add(address);
          return false;
        }
        announced.value++;
      }
      return true;
    };
    const announcing = Effect.forever(Effect.zipRight(outgoing.latch.await, announce));

    const putObject = (action: { readonly features: FeatureSet; readonly timeNs: bigint }) =>
      Effect.suspend(() => {
        const body = RegistryObject.encode(action.features, action.timeNs);
        return Buffer.byteLength(body) <= maxObjectBytes
          ? registry.put(transport.address, body)
          : new RegistryError({ reason: "TooLarge", operation: "put", key: transport.address });
      });

    const putting = Effect.forever(
      Effect.flatMap(puts.take, (action) =>
        Effect.match(putObject(action), {
          onFailure: (error) => step({ _tag: "PutFailed", problem: error.message }),
          onSuccess: (etag) => step({ _tag: "PutDone", etag }),
        }),
      ),
    );

    const list = Effect.match(registry.list, {
      onFailure: (error) => step({ _tag: "ListFailed", problem: error.message }),
      onSuccess: ({ entries, nowMs }) =>
        step({
          _tag: "ListDone",
          objects: entries.map(({ name, etag, lastModifiedMs }) => ({ name, etag, ageMs: nowMs - lastModifiedMs })),
          registryMs: nowMs,
        }),
    });

    const get = (address: Address) =>
      Effect.match(registry.get(address), {
        onFailure: (error) =>
          // no node's object, and trying again will not make it one
          error.reason === "TooLarge" || error.reason === "InvalidAnswer"
            ? step({ _tag: "GetDone", address, content: undefined, etag: "", ageMs: 0 })
            : step({ _tag: "GetFailed", address, problem: error.message }),
        onSuccess: Option.match({
          onNone: () => step({ _tag: "GetMissing", address }),
          onSome: ({ body, etag, lastModifiedMs, nowMs }) =>
            step({
              _tag: "GetDone",
              address,
              content: RegistryObject.decode(body),
              etag,
              ageMs: nowMs - lastModifiedMs,
            }),
        }),
      });

    const read = (action: Extract<Action, { _tag: "List" | "Get" | "Delete" }>): Effect.Effect<void> => {
      switch (action._tag) {
        case "List":
          return list;
        case "Get":
          return get(action.address);
        case "Delete":
          return Effect.catchAll(registry.remove(action.address), (error) => Effect.logWarning(error.message));
      }
    };
    const reading = Effect.all(Effect.replicate(Effect.forever(Effect.flatMap(reads.take, read)), readers), {
      concurrency: "unbounded",
      discard: true,
    });

    const readying =
      view === undefined
        ? Effect.void
        : settled.await.pipe(Effect.zipRight(tree.flush), Effect.zipRight(view.becomeReady));

    const logging = Effect.forever(Effect.flatMap(log.take, write));

    const loops: Effect.Effect<never, UdpError | StateTreeError> = Effect.all(
      [receiving, sourcing, waking, announcing, putting, reading, tree.run, secrets.watch, logging, readying],
      { concurrency: "unbounded", discard: true },
    ).pipe(Effect.zipRight(Effect.never));

    /** Each part on its own, so that one that hangs takes nothing from the others; true when it was done. */
    const withdraw = Effect.suspend(() => {
      const parts: Array<Effect.Effect<boolean>> = [Effect.as(tree.withdraw, true)];
      if (begun) {
        for (const action of membership.step({ _tag: "Withdrawn" }, instant())) {
          if (action._tag === "Put") {
            parts.push(
              Effect.matchEffect(putObject(action), {
                onFailure: (error) =>
                  Effect.as(
                    Effect.logError(`our object stays in the registry until it expires: ${error.message}`),
                    false,
                  ),
                onSuccess: () => Effect.succeed(true),
              }),
            );
          } else {
            perform(action, instant());
          }
        }
        parts.push(Effect.as(announce, true));
      }
      return Effect.forEach(
        parts,
        (part) => Effect.timeoutOption(Effect.interruptible(Effect.disconnect(part)), settings.shutdownMs * 0.8),
        { concurrency: "unbounded" },
      );
    }).pipe(
      Effect.flatMap((ended) =>
        ended.every(Option.getOrElse(() => false))
          ? Effect.logInfo("left: peers and the registry know")
          : Effect.logWarning(
              "left, but not everything could be told or cleared: peers that heard nothing forget this node after 15 minutes",
            ),
      ),
    );

    return yield* Effect.onExit(loops, () => (options.onExit === "keep" ? Effect.void : withdraw));
  }).pipe(Effect.scoped);
