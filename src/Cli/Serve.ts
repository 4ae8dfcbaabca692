/** `nameq serve`: its options. The rest is loaded when it runs. */
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import type { Environment } from "./Argv.js";
import * as Defaults from "../Defaults.js";
import type { ServeConfig } from "./ServeConfig.js";
import { type CommandSpec, flag, list, type Parsed, parser, value } from "./Spec.js";

const node = {
  addr: value(
    "addr",
    "ADDRESS",
    "this node's own IPv4 or IPv6 address, to which peers send\ndefault: the first unicast, non-loopback address of the interfaces",
  ),
  port: value("port", "PORT", `UDP port, the same on all nodes; default: ${Defaults.port}`),
  features: value("features", "JSON", "features of this host, an object; files in --feature-dir override them"),
  featureDir: value(
    "feature-dir",
    "DIR",
    `a file here is a feature: its name and its JSON value\ndefault: ${Defaults.featureDir}`,
    {
      old: "featuredir",
    },
  ),
  stateDir: value(
    "state-dir",
    "DIR",
    `the tree DIR/features/FEATURE/HOST is kept here\ndefault: ${Defaults.stateDir}`,
    {
      old: "statedir",
    },
  ),
  onExit: value(
    "on-exit",
    "WHAT",
    "at the end say goodbye and clear the tree, or leave both\nfor a restart; default: withdraw",
    {
      choices: ["withdraw", "keep"],
    },
  ),
};

const keys = {
  secretFile: value(
    "secret-file",
    "[ID:]PATH",
    "the key that signs; its bytes, all of them, are the key\nID 0 to 127 names it in packets; default: 0",
    {
      old: "secretfile",
      group: "secret",
    },
  ),
  secretFd: value("secret-fd", "[ID:]FD", "the same from an open file descriptor", {
    old: "secretfd",
    group: "secret",
  }),
  acceptSecretFile: list("accept-secret-file", "[ID:]PATH", "a further key that is accepted; may be repeated"),
};

const registry = {
  s3Bucket: value("s3-bucket", "NAME", "bucket in which nodes find each other", { old: "s3bucket", group: "registry" }),
  s3Region: value("s3-region", "NAME", "the bucket's region, such as eu-west-1", {
    old: "s3region",
    environment: ["AWS_REGION", "AWS_DEFAULT_REGION"],
  }),
  s3Prefix: value("s3-prefix", "PREFIX", "objects are PREFIX/ADDRESS; default: none", { old: "s3prefix" }),
  s3Endpoint: value("s3-endpoint", "URL", "an S3 server other than AWS"),
  s3PathStyle: flag("s3-path-style", "put the bucket into the path, not into the host name"),
  s3CredFile: value(
    "s3-cred-file",
    "PATH",
    "access key id and secret key, separated by white space\ndefault: AWS_ACCESS_KEY and AWS_SECRET_KEY, then what the AWS SDK finds",
    { old: "s3credfile", group: "credentials" },
  ),
  s3CredFd: value("s3-cred-fd", "FD", "the same from an open file descriptor", {
    old: "s3credfd",
    group: "credentials",
  }),
  registryDir: value("registry-dir", "DIR", "a directory that all nodes share, instead of S3", { group: "registry" }),
};

const http = {
  http: value(
    "http",
    "[ADDR:]PORT",
    "answer HTTP there: a status page, /v1/features, /metrics, /readyz and more\nADDR defaults to 127.0.0.1; off: no HTTP\ndefault: off (with --dev: this node's address and port)",
  ),
  httpTokenFile: value(
    "http-token-file",
    "PATH",
    "its content must come with each request, as Authorization: Bearer TOKEN\n(not for /healthz and /readyz); read again when it changes",
  ),
};

const log = {
  debug: flag("debug", "log more"),
  logFormat: value("log-format", "FORMAT", "of lines on standard error\nauto: pretty on a terminal, else logfmt", {
    choices: ["auto", "pretty", "logfmt", "json"],
  }),
  syslog: value(
    "syslog",
    "ADDRESS",
    "log there instead of standard error: HOST:PORT with --syslog-net,\nelse the local socket (its path, or any word for /dev/log)",
  ),
  syslogNet: value("syslog-net", "NETWORK", "how HOST:PORT is reached", { old: "syslognet", choices: ["tcp", "udp"] }),
};

const dev = {
  dev: flag("dev", "a node on loopback that needs no other option: start several,\nthey see each other"),
  devDir: value("dev-dir", "DIR", "their directory; default: one for this user below the temporary directory"),
};

const options = { ...node, ...keys, ...registry, ...http, ...log, ...dev };

/** The options as parsed, not yet validated. */
export type ServeOptions = Parsed<typeof options>;

export const spec: CommandSpec = {
  name: "serve",
  summary: "run this host's node until SIGTERM or SIGINT",
  operands: "",
  sections: [
    ["Node", node],
    ["Keys", keys],
    ["Registry", registry],
    ["HTTP", http],
    ["Log", log],
    ["Development", dev],
  ],
  notes: [
    "Secret files are read again when they change and at SIGHUP. SIGTERM and SIGINT end the node as --on-exit says,\nSIGUSR2 as --on-exit keep: for a restart that nobody sees. With --dev it ends with its terminal too.",
    "Under systemd it says when it is ready, alive, reloading and stopping (Type=notify, NotifyAccess=all).",
    "With OTEL_EXPORTER_OTLP_ENDPOINT in the environment, metrics and spans go to that OpenTelemetry collector,\nover HTTP as JSON; the other standard variables that start with OTEL_ count too.",
  ],
  examples: [
    ["nameq serve --dev", "try it here, in two terminals"],
    [
      "nameq serve --secret-file /etc/nameq/secret --s3-region eu-west-1 --s3-bucket fleet --s3-prefix prod",
      "a node of a fleet",
    ],
    [
      "nameq serve --secret-file 1:/etc/nameq/new --accept-secret-file 0:/etc/nameq/old ...",
      "while the fleet changes its key",
    ],
  ],
  interruptedStatus: 0,
};

/** Runs a node until it is interrupted. Its errors tell the user what to do. */
export interface ServeRunner {
  readonly serve: (config: ServeConfig) => Effect.Effect<void, Error>;
}

/** The command. `load` gives the node; it and all that only `serve` needs is loaded here, not at the program's start. */
export const command = (environment: Environment, load: () => Promise<ServeRunner>) =>
  Command.make("serve", { options: parser(options) }, ({ options }) =>
    Effect.gen(function* () {
      const { resolve } = yield* Effect.promise(() => import("./ServeFiles.js"));
      const config = yield* resolve(options, environment);
      const [Logging, runner] = yield* Effect.promise(() => Promise.all([import("../Logging.js"), load()]));
      yield* runner.serve(config).pipe(
        // the one who reports it speaks to standard error, where nobody looks then
        Effect.tapError(({ message }) => (config.log.syslog === undefined ? Effect.void : Effect.logFatal(message))),
        Effect.provide(Logging.layer(config.log)),
      );
    }),
  ).pipe(Command.withDescription(spec.summary));
