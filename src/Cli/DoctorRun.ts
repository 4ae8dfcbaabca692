/** `nameq doctor`: looks at everything in turn, and prints what it finds as it finds it. */
import * as path from "node:path";
import * as fs from "node:fs";
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import * as Address from "../Address.js";
import * as Defaults from "../Defaults.js";
import * as Feature from "../Feature.js";
import * as OwnAddress from "../OwnAddress.js";
import * as StateLock from "../StateLock.js";
import type { Environment } from "./Argv.js";
import type { DoctorOptions } from "./Doctor.js";
import { fail, type Finding, jsonLine, line, ok, skip, warn } from "./DoctorFinding.js";
import * as Host from "./DoctorHost.js";
import * as Peers from "./DoctorPeers.js";
import * as Registry from "./DoctorRegistry.js";
import { ExitStatus } from "./ExitStatus.js";
import * as Face from "./Face.js";
import { print } from "./Output.js";
import { credentialSource, type ServeConfig, validate } from "./ServeConfig.js";
import type { ServeOptions } from "./Serve.js";
import { count } from "./StatusReport.js";
import { type UsageError, usageError } from "./UsageError.js";

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);

/** What the options mean. A secret and a registry may be missing, as with `serve --dev`. */
const configOf = (
  options: DoctorOptions,
  environment: Environment,
): Effect.Effect<
  { readonly config: ServeConfig; readonly findings: ReadonlyArray<Finding>; readonly blind: boolean },
  UsageError
> =>
  Effect.gen(function* () {
    const complete: ServeOptions = {
      ...({ features: undefined, onExit: undefined, debug: false } as Partial<ServeOptions> as ServeOptions),
      ...options,
      dev: true,
      devDir: undefined,
      // where the node's is, not where to listen
      http: undefined,
      httpTokenFile: undefined,
    };
    if (options.devDir !== undefined && !options.dev) {
      return yield* usageError("--dev-dir: only with --dev; add that or leave this out");
    }
    const source = credentialSource(complete);
    let credentials: string | undefined;
    const findings: Array<Finding> = [];
    if (source !== undefined) {
      const name = typeof source === "number" ? `file descriptor ${source}` : source;
      try {
        credentials = fs.readFileSync(source, "utf8");
        if (typeof source === "string" && (fs.statSync(source).mode & 0o007) !== 0) {
          findings.push(warn("credentials", `every user of this host may use ${source}`, `chmod o= ${source}`));
        }
      } catch (cause) {
        findings.push(
          fail(
            "credentials",
            `${name} cannot be read (${codeOf(cause)})`,
            "check the path, and that the node's user may read it",
          ),
        );
      }
    }
    const blind = source !== undefined && credentials === undefined;
    const config = yield* validate(complete, environment, credentials).pipe(
      Either.match({ onLeft: Effect.fail, onRight: Effect.succeed }),
    );
    return { config, findings, blind };
  });

/** Where a node under `--dev` has everything. */
const devPlaces = (options: DoctorOptions, address: Address.Address) => {
  const base = path.resolve(options.devDir ?? OwnAddress.devDirectory());
  return {
    featureDir: path.join(base, address, "features"),
    stateDir: path.join(base, address, "state"),
    secret: path.join(base, "secret"),
    registry: path.join(base, "registry"),
  };
};

const firstDev = "127.0.0.2" as Address.Address;

/** Whether a node has the state directory. */
const askLock = (
  stateDir: string,
): Effect.Effect<{ readonly running: boolean | undefined; readonly finding: Finding }> =>
  StateLock.holder(stateDir).pipe(
    Effect.map((holder) => {
      if (holder === undefined) return { running: false, finding: skip("node", `no node runs with ${stateDir}`) };
      return holder === "silent"
        ? {
            running: true,
            finding: fail(
              "node",
              `the node that has ${stateDir} does not answer`,
              "it is stopped or very busy: see its process (fuser), and restart it",
            ),
          }
        : { running: true, finding: ok("node", `a node runs with ${stateDir} (pid ${holder.pid} on ${holder.host})`) };
    }),
    Effect.catchAll((error) =>
      Effect.succeed({
        running: undefined,
        finding: warn(
          "node",
          `whether a node runs with ${stateDir} cannot be seen (${codeOf(error.cause)})`,
          "run the doctor as the node's user or as root",
        ),
      }),
    ),
  );

/** The node's HTTP face, and what it says. */
const askFace = (
  options: DoctorOptions,
  stateDir: string,
): Effect.Effect<
  {
    readonly face: Face.Face | undefined;
    readonly nodes: Face.Nodes | undefined;
    readonly findings: ReadonlyArray<Finding>;
  },
  UsageError
> =>
  Effect.gen(function* () {
    const face = yield* Face.find({ http: options.http, httpTokenFile: options.httpTokenFile, stateDir });
    const said = yield* Effect.either(Face.nodes(face));
    if (Either.isLeft(said)) {
      const ended =
        face.from === "state" && said.left.reason === "Unreachable" && (yield* askLock(stateDir)).running === false;
      if (!ended) return yield* said.left;
      const left = skip("http", `nobody answers at ${face.url}: the node that did ended without a goodbye`);
      return { face: undefined, nodes: undefined, findings: [left] };
    }
    const nodes = said.right;
    const { self } = nodes;
    const about = `node ${self.address} answers at ${face.url}`;
    return {
      face,
      nodes,
      findings: [
        self.ready
          ? ok("http", `${about}, and is ready`)
          : warn(
              "http",
              `${about}, but is not ready: the registry is not read into the tree yet`,
              "wait a minute; then see its conditions here",
            ),
      ],
    };
  }).pipe(
    Effect.catchTag("FaceError", (error) =>
      Effect.succeed({
        face: undefined,
        nodes: undefined,
        findings: [
          error.reason === "None"
            ? skip(
                "http",
                "no node of this host has an HTTP face",
                `nameq serve --http ${Defaults.port}, for more to be seen here`,
              )
            : fail("http", error.problem, error.advice),
        ],
      }),
    ),
  );

/** Whether a URL leads to this host by loopback. */
const isHere = (url: string): boolean => {
  const { hostname } = new URL(url);
  const address = Address.parse(hostname.replace(/^\[(.*)\]$/, "$1"));
  return hostname === "localhost" || (address !== undefined && Address.isLoopback(address));
};

/** Looks at everything, and hands on what it finds in turn. */
export const examine = <E, R>(
  options: DoctorOptions,
  environment: Environment,
  tell: (findings: ReadonlyArray<Finding>) => Effect.Effect<void, E, R>,
): Effect.Effect<void, E | UsageError, R> =>
  Effect.gen(function* () {
    const peersGiven: Array<Address.Address> = [];
    for (const text of options.peer) {
      const peer = Address.parse(text);
      if (peer === undefined || !Address.mayBeNode(peer)) {
        return yield* usageError(`--peer: "${text}" can be no node's address; give one such as 10.0.0.1`);
      }
      peersGiven.push(peer);
    }
    const { blind, config, findings } = yield* configOf(options, environment);
    const dev = options.dev ? devPlaces(options, config.address ?? firstDev) : undefined;
    const named = config.stateDir ?? dev?.stateDir;
    const featureDir = config.featureDir ?? dev?.featureDir ?? Defaults.featureDir;
    yield* tell(findings);

    // the node
    const { face, findings: ofFace, nodes } = yield* askFace(options, named ?? Defaults.stateDir);
    const itsOwn = face !== undefined && isHere(face.url) ? (nodes?.self.stateDir ?? undefined) : undefined;
    const stateDir = named ?? itsOwn ?? Defaults.stateDir;
    const { running: locked, finding } = yield* askLock(stateDir);
    // the face of another host's node says nothing about this host
    const elsewhere =
      nodes !== undefined && face?.from === "option" && locked === false && config.address === undefined;
    yield* tell([...(elsewhere ? [] : [finding]), ...ofFace]);
    const running = locked === true || (nodes !== undefined && !elsewhere);

    // this host
    const said = nodes === undefined ? undefined : Address.parse(nodes.self.address);
    const own = config.address ?? said ?? (options.dev ? firstDev : OwnAddress.guess());
    const port = options.port === undefined && nodes !== undefined ? nodes.self.port : config.port;
    let free = false;
    if (elsewhere) {
      yield* tell([
        skip(
          "host",
          `${nodes.self.address} is another host's, or its state directory is not ${stateDir}`,
          "run the doctor there, with the node's options, to look at that host",
        ),
      ]);
    } else if (own === undefined) {
      yield* tell([fail("address", "this host has no address that a node could have", "name one with --addr")]);
    } else {
      const ofAddress = yield* Host.address(own, options.dev);
      const fault = ofAddress.level === "fail" ? undefined : yield* Host.bindFault(own, port);
      free = ofAddress.level !== "fail" && fault === undefined && !running;
      yield* tell([
        ofAddress,
        ...(ofAddress.level === "fail" ? [] : [Host.judgePort(own, port, fault, running || locked)]),
      ]);
    }
    const signing = config.secret ?? (dev && { mode: 0, from: { _tag: "File", path: dev.secret } as const });
    const sources = [...(signing === undefined ? [] : [signing]), ...config.acceptSecrets];
    const keys = sources.map(Host.key);
    yield* tell(
      sources.length === 0
        ? [skip("secret", "no key was named", "give the node's --secret-file")]
        : keys.flatMap(([, found]) => found),
    );
    if (!elsewhere) {
      yield* tell(Host.directory("feature-dir", featureDir));
      yield* tell(Host.features(featureDir));
      yield* tell(Host.directory("state-dir", stateDir));
      yield* tell(Host.inotify(stateDir));
    }

    // the registry
    const registry =
      config.registry ?? (dev === undefined ? undefined : ({ _tag: "Directory", directory: dev.registry } as const));
    let registered: Registry.Registered | undefined;
    if (registry === undefined) {
      yield* tell([
        skip(
          "registry",
          "no registry was named",
          "give the node's --s3-bucket, --s3-region and --s3-prefix (or --registry-dir)",
        ),
      ]);
    } else if (!blind) {
      registered = yield* registry._tag === "S3"
        ? Registry.bucket(registry, own, running)
        : Registry.sharedDirectory(registry.directory, own, running);
      yield* tell(registered.findings);
    }
    const clock = nodes?.self.registryClockOffsetMs;
    if (registered?.listed !== true && clock != null) yield* tell([Registry.judgeClock(clock, "the registry's")]);

    // the peers
    const peers = [...new Set([...peersGiven, ...(registered?.peers.map(({ address }) => address) ?? [])])];
    const seen = peers.length > 0 ? peers : (nodes?.nodes.flatMap(({ address }) => Address.parse(address) ?? []) ?? []);
    const first = own && seen.find((peer) => Address.family(peer) === Address.family(own) && peer !== own);
    if (own !== undefined && first !== undefined && !elsewhere) {
      yield* tell([Host.judgeSource(own, first, yield* Host.sourceFor(first))]);
    }
    if (face !== undefined && nodes !== undefined) {
      const answers = yield* Effect.either(Face.reachability(face));
      yield* tell(
        Either.isLeft(answers)
          ? [fail("peers", answers.left.problem, answers.left.advice)]
          : Peers.judgeAnswers(answers.right, nodes),
      );
      const known = new Set(nodes.nodes.map(({ address }) => address));
      yield* tell(Peers.judgeUnknown(peers.filter((peer) => !known.has(peer) && peer !== own)));
      yield* tell(Peers.judgeConditions(nodes));
      yield* tell(
        Peers.judgePeerClocks(
          nodes.nodes.flatMap(({ address, clockOffsetMs, state }) =>
            clockOffsetMs === null || state === "left" || state === "forgotten"
              ? []
              : [[address, clockOffsetMs] as const],
          ),
        ),
      );
      yield* tell(Peers.judgeMissing(nodes));
    } else if (running) {
      yield* tell([
        skip(
          "peers",
          "a node runs without an HTTP face: its peers cannot be asked through it",
          `nameq serve --http ${Defaults.port}`,
        ),
      ]);
    } else {
      const [key, ...more] = keys.map(([read]) => read);
      const able =
        own === undefined
          ? []
          : peers.filter((peer) => Address.mayBePeer(peer, own) && Address.family(peer) === Address.family(own));
      const object = registered?.own;
      const lives = typeof object === "object" ? object.features : Feature.empty;
      // a further key that is accepted is none to sign with
      if (own === undefined || !free || key === undefined || signing === undefined) {
        yield* tell([
          skip(
            "peers",
            "they were not asked: for that a key, the address and its free port are needed",
            "first mend what failed or is missing",
          ),
        ]);
      } else if (able.length === 0) {
        yield* tell([skip("peers", "no peer is known", "name some with --peer, or the registry")]);
      } else if ((registered?.listed !== true || object === "unreadable") && !options.exchange) {
        yield* tell([
          skip(
            "peers",
            "they were not asked: without the registry's word it is not known whether this address still has features",
            "add --exchange, which says goodbye for it",
          ),
        ]);
      } else if (lives.entries.size > 0 && !options.exchange) {
        yield* tell([
          skip(
            "peers",
            `they were not asked: the registry still has ${count(lives.entries.size, "feature")} of ${own}, whose node ended without a goodbye or runs elsewhere`,
            "add --exchange to announce these as they are, and ask",
          ),
        ]);
      } else {
        // as canonical text: the registry's is indented
        const features = lives.entries.size > 0 ? Feature.fromEntries(lives.entries) : undefined;
        const answers = yield* Effect.either(
          Peers.exchange({ own, port, keys: [key, ...more.flatMap((each) => each ?? [])], peers: able, features }),
        );
        yield* tell(
          Either.isLeft(answers)
            ? [fail("peers", answers.left.message, "run the doctor again; if it goes on, see the kernel's log")]
            : Peers.judgeExchange(able, port, answers.right),
        );
      }
    }
  });

/** Runs the command. */
export const run = (options: DoctorOptions, environment: Environment): Effect.Effect<void, Error> =>
  Effect.gen(function* () {
    const all: Array<Finding> = [];
    const format = options.json ? jsonLine : line;
    yield* examine(options, environment, (findings) => {
      all.push(...findings);
      return print(findings.map((each) => `${format(each)}\n`).join(""));
    });
    const of = (level: Finding["level"]): number => all.filter((each) => each.level === level).length;
    const failed = of("fail");
    if (!options.json) {
      yield* print(
        `${count(all.length, "look")}: ${of("ok")} ok, ${count(of("warn"), "warning")}, ${failed} failed, ${of("skip")} skipped\n`,
      );
    }
    if (failed > 0) return yield* new ExitStatus({ status: 1, message: "" });
  });
