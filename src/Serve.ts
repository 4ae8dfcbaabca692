/** `nameq serve`: one node of real parts, as its configuration says. */
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { isatty } from "node:tty";
import type * as Address from "./Address.js";
import * as Hangup from "./Cli/Hangup.js";
import { print, type StandardStreamError } from "./Cli/Output.js";
import type { DevConfig, HttpConfig, NodeConfig, RegistryConfig, ServeConfig } from "./Cli/ServeConfig.js";
import * as Daemon from "./Daemon.js";
import { FeatureSource } from "./FeatureSource.js";
import type { HttpError } from "./Http.js";
import { urlOf } from "./Http/Url.js";
import { makeDirectories } from "./MakeDirectories.js";
import { Metrics } from "./Metrics.js";
import { type NodeState, NodeView } from "./NodeView.js";
import { isWanted } from "./Otlp.js";
import * as OwnAddress from "./OwnAddress.js";
import { type RegistryError, S3Registry } from "./S3Registry.js";
import { type SecretError, Secrets } from "./Secrets.js";
import { StateTree, type StateTreeError } from "./StateTree.js";
import * as SystemdNotify from "./SystemdNotify.js";
import { type UdpError, UdpTransport } from "./UdpTransport.js";

/** The node cannot be set up on this host. */
export class ServeError extends Data.TaggedError("ServeError")<{
  readonly message: string;
  readonly cause?: unknown;
}> {}

type NodeError = HttpError | ServeError | StandardStreamError | RegistryError | SecretError | StateTreeError | UdpError;

const registryLayer = (config: RegistryConfig) =>
  config._tag === "Directory" ? S3Registry.layerDirectory({ directory: config.directory }) : S3Registry.layer(config);

/** What the end of the node means: what is configured, but SIGUSR2 ends it as `keep` has it. */
const ending = (configured: Daemon.DaemonOptions["onExit"]) => {
  let onExit = configured;
  return Effect.acquireRelease(
    Effect.sync(() => {
      const onSignal = (): void => {
        onExit = "keep";
        // heard by nobody once the node is ending: another signal to the process would cut that short
        process.emit("SIGTERM");
      };
      process.on("SIGUSR2", onSignal);
      return onSignal;
    }),
    (onSignal) => Effect.sync(() => process.off("SIGUSR2", onSignal)),
  ).pipe(Effect.as(() => onExit));
};

/** One line of what it knows, for `systemctl status`. */
const statusOf = (view: NodeView): string => {
  const of = (state: NodeState): number => view.nodes().filter((node) => node.state === state).length;
  const known = `${of("alive")} other nodes alive, ${of("silent")} silent`;
  return [view.ready ? known : "looking for the fleet", ...view.conditions().map(({ message }) => message)].join("; ");
};

/** Opens the HTTP face, whose modules are loaded here and by nobody else. */
const face = (config: Pick<NodeConfig, "stateDir" | "featureDir">, http: HttpConfig, view: NodeView) =>
  Effect.gen(function* () {
    const Http = yield* Effect.promise(() => import("./Http.js"));
    const PageFiles = yield* Effect.promise(() => import("./Http/PageFiles.js"));
    const page = yield* PageFiles.load().pipe(
      Effect.catchAll((error) => Effect.as(Effect.logWarning(error.message), undefined)),
    );
    const { address, port } = yield* UdpTransport;
    const { description } = yield* S3Registry;
    const { featureDir, stateDir } = config;
    return yield* Http.make({
      ...http,
      stateDir,
      featureDir,
      view,
      address,
      port,
      registry: description,
      ...(page !== undefined && { page }),
    });
  });

/** Exports to an OpenTelemetry collector if the environment names one; nothing of it is loaded otherwise. */
const telemetry = (view: NodeView) =>
  Effect.gen(function* () {
    if (!isWanted(process.env)) return undefined;
    const OpenTelemetry = yield* Effect.promise(() => import("./OpenTelemetry.js"));
    const { address } = yield* UdpTransport;
    return yield* OpenTelemetry.make({ environment: process.env, view, address, hostName: os.hostname() });
  });

/** The node on a socket that is there already. */
const node = (config: Omit<NodeConfig, "dev" | "log">): Effect.Effect<never, NodeError, UdpTransport | Metrics> =>
  Effect.gen(function* () {
    // ends last: it tells of all before it
    const notify = yield* SystemdNotify.make(process.env);
    const onExit = yield* ending(config.onExit);
    const view = new NodeView();
    const options = {
      get onExit() {
        return onExit();
      },
      view,
    };
    const services = Layer.mergeAll(
      registryLayer(config.registry),
      FeatureSource.layer({ directory: config.featureDir, features: config.features }),
      StateTree.layer({ directory: config.stateDir }),
      Secrets.layer({ sign: config.secret, accept: config.acceptSecrets, reloading: notify.reloading }),
    );
    const run = Effect.gen(function* () {
      const tracer = yield* telemetry(view);
      if (config.http !== undefined) yield* face(config, config.http, view);
      const daemon = Daemon.run(options);
      return yield* tracer === undefined ? daemon : Effect.withTracer(daemon, tracer);
    }).pipe(Effect.scoped);
    return yield* Effect.all(
      [
        // the state directory is ours alone before the face leaves its URL there
        Effect.provide(run, services),
        notify.run({ whenReady: view.whenReady, status: () => statusOf(view) }),
      ],
      { concurrency: "unbounded", discard: true },
    ).pipe(Effect.zipRight(Effect.never));
  }).pipe(Effect.scoped);

/** See `OwnAddress`. */
const guessAddress: Effect.Effect<Address.Address, ServeError> = Effect.suspend(() => {
  const usable = OwnAddress.guess();
  return usable === undefined
    ? new ServeError({
        message:
          "this host has no address that a node could have: name one with --addr, or try nameq on this machine alone with --dev",
      })
    : Effect.succeed(usable);
});

const serveNode = (config: NodeConfig): Effect.Effect<never, NodeError> =>
  Effect.gen(function* () {
    const address = config.address ?? (yield* guessAddress);
    return yield* Effect.logInfo(
      `node ${address} port ${config.port}: tree in ${path.join(config.stateDir, "features")}, own features from ${config.featureDir}`,
    ).pipe(
      Effect.zipRight(node(config)),
      Effect.provide(Layer.provideMerge(UdpTransport.layer({ address, port: config.port }), Metrics.layer)),
    );
  });

// --- --dev ----------------------------------------------------------------------------------------------------------

const attempt = <A>(what: string, make: () => A): Effect.Effect<A, ServeError> =>
  Effect.try({
    try: make,
    catch: (cause) =>
      new ServeError({
        message: `${what} (${cause instanceof Error ? cause.message : String(cause)}): name another directory with --dev-dir`,
        cause,
      }),
  });

/** Where `--dev` keeps everything: a directory that no other user can have prepared. */
const devDirectory = (named: string | undefined): Effect.Effect<string, ServeError> => {
  const { uid } = os.userInfo();
  const directory = named ?? OwnAddress.devDirectory();
  return attempt(`the development directory ${directory} cannot be used`, () => {
    makeDirectories(directory, 0o700);
    const stat = fs.lstatSync(directory);
    if (named === undefined && (!stat.isDirectory() || stat.uid !== uid)) throw new Error("it belongs to another user");
    return path.resolve(directory);
  });
};

/** The secret that the development nodes of a directory share: the first of them makes it. */
const devSecret = (directory: string): Effect.Effect<string, ServeError> => {
  const file = path.join(directory, "secret");
  return attempt(`the development secret ${file} cannot be made`, () => {
    if (fs.existsSync(file)) return file;
    // linked into place whole, so that of several first nodes one wins and none reads half a secret
    const own = `${file}.${process.pid}`;
    fs.writeFileSync(own, randomBytes(32), { mode: 0o600 });
    try {
      fs.linkSync(own, file);
    } catch (cause) {
      if (!fs.existsSync(file)) throw cause;
    } finally {
      fs.unlinkSync(own);
    }
    return file;
  });
};

const isTaken = (error: UdpError): boolean =>
  error.reason === "Bind" && error.cause instanceof Error && "code" in error.cause && error.cause.code === "EADDRINUSE";

/** A socket at the first free 127.0.0.x from 127.0.0.2 on. */
const freeLoopback = (port: number, last = 2): Layer.Layer<UdpTransport, UdpError, Metrics> =>
  UdpTransport.layer({ address: `127.0.0.${last}` as Address.Address, port }).pipe(
    Layer.catchAll((error) => (isTaken(error) && last < 254 ? freeLoopback(port, last + 1) : Layer.fail(error))),
  );

/** A command line that starts this program again. */
const program = (): string => {
  const script = process.argv[1] ?? "nameq";
  return path.basename(script) === "nameq" ? "nameq" : `node ${path.relative("", script) || script}`;
};

const quoted = (text: string): string => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

const serveDev = (config: DevConfig): Effect.Effect<never, NodeError> =>
  Effect.gen(function* () {
    // it would go on, unseen, when its terminal closes; under nohup it has none to read
    if (isatty(0)) yield* Hangup.endsProgram;
    const directory = yield* devDirectory(config.dev.directory);
    const secret = config.secret ?? { mode: 0, from: { _tag: "File", path: yield* devSecret(directory) } as const };
    const socket =
      config.address === undefined
        ? freeLoopback(config.port)
        : UdpTransport.layer({ address: config.address, port: config.port });
    return yield* Effect.gen(function* () {
      const { address, port } = yield* UdpTransport;
      const http = config.http === "off" ? undefined : { listen: { host: address, port }, ...config.http };
      const featureDir = config.featureDir ?? path.join(directory, address, "features");
      const stateDir = config.stateDir ?? path.join(directory, address, "state");
      const tree = path.join(stateDir, "features");
      // so that the first feature need not make it
      yield* attempt(`the feature directory ${featureDir} cannot be made`, () => makeDirectories(featureDir));
      yield* print(
        `
  nameq development node ${address}

  its tree       ${tree}${http === undefined || http.listen.port === 0 ? "" : `\n  its page       ${urlOf(http.listen)}`}
  offer          ${program()} feature --feature-dir ${quoted(featureDir)} hello '"world"'
  see            grep -r . ${quoted(tree)}
  a second node  run this command again in another terminal
  end            Ctrl-C

`,
      );
      const { http: _, ...rest } = config;
      return yield* node({
        ...rest,
        ...(http !== undefined && { http }),
        featureDir,
        stateDir,
        secret,
        registry: config.registry ?? { _tag: "Directory", directory: path.join(directory, "registry") },
      });
    }).pipe(Effect.provide(Layer.provideMerge(socket, Metrics.layer)));
  }).pipe(Effect.scoped);

/** Runs a node until it is interrupted or cannot go on. */
export const serve = (config: ServeConfig): Effect.Effect<never, NodeError> =>
  config.dev === undefined ? serveNode(config) : serveDev(config);
