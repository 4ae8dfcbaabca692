/** `nameq doctor`: what is wrong with a node, its host, its registry and its peers. The rest is loaded when it runs. */
import * as Command from "@effect/cli/Command";
import type { Options } from "@effect/cli/Options";
import * as Effect from "effect/Effect";
import type { Environment } from "./Argv.js";
import { faceOptions } from "./FaceOptions.js";
import * as Serve from "./Serve.js";
import { type CommandSpec, flag, list, type OptionSpec, type Parsed, parser } from "./Spec.js";

/** The options of `serve` that say what there is to look at. */
const sharedNode = ["addr", "port", "featureDir", "stateDir"] as const;
const sharedKeys = ["secretFile", "secretFd", "acceptSecretFile"] as const;
const sharedRegistry = [
  "s3Bucket",
  "s3Region",
  "s3Prefix",
  "s3Endpoint",
  "s3PathStyle",
  "s3CredFile",
  "s3CredFd",
  "registryDir",
] as const;
const sharedDev = ["dev", "devDir"] as const;
type Shared =
  | (typeof sharedNode)[number]
  | (typeof sharedKeys)[number]
  | (typeof sharedRegistry)[number]
  | (typeof sharedDev)[number];

const ofServe = Object.assign({}, ...Serve.spec.sections.map(([, options]) => options)) as Record<string, OptionSpec>;
const pick = (keys: ReadonlyArray<string>) => Object.fromEntries(keys.map((key) => [key, ofServe[key]!]));
const node = pick(sharedNode);
const keys = pick(sharedKeys);
const registry = pick(sharedRegistry);
const dev = pick(sharedDev);

const own = {
  peer: list("peer", "ADDRESS", "a node that must be reachable, beside those in the registry;\nmay be repeated"),
  exchange: flag(
    "exchange",
    "when no node runs here, ask the peers although the registry\nstill has features of this address: they are announced as they are there",
  ),
  json: flag("json", "print one JSON object a line"),
};
const { http, httpTokenFile } = faceOptions;
const face = { http, httpTokenFile };
const ownOptions = { ...own, ...face };

/** The options as parsed: those of `serve` by their names there. */
export type DoctorOptions = Pick<Serve.ServeOptions, Shared> & Parsed<typeof ownOptions>;

export const spec: CommandSpec = {
  name: "doctor",
  summary: "look for what is wrong with a node, and say what to do",
  operands: "",
  sections: [
    ["Options", own],
    ["Node", { ...node, ...face }],
    ["Keys", keys],
    ["Registry", registry],
    ["Development", dev],
  ],
  notes: [
    "Give it what nameq serve is given (the same options or the same environment). What it is not given, and the\nnode's HTTP face does not say, is not looked at, which it says.",
    'A line is: ok, warn, FAIL or skip; what was looked at; what was found; and after -> what to do. With --json it\nis {"check":NAME,"level":"ok"|"warn"|"fail"|"skip","message":TEXT,"fix":TEXT}.',
    "Peers: a node that runs with --http asks all its peers for an answer. When no node runs, the doctor takes its\nport for up to 2 seconds and asks the peers itself, by the goodbye that a node sends when it ends: it changes\nnothing, for it is only done when the registry has no features of this address, or with --exchange.",
    "Registry: a small object is put, read and deleted under PREFIX/nameq-doctor/, where no node looks.",
    "Exit status: 0 when nothing failed (warnings may be there); 1 when something did; 2 when the command line is\nwrong.",
  ],
  examples: [
    [
      "nameq doctor --secret-file /etc/nameq/secret --s3-region eu-west-1 --s3-bucket fleet --s3-prefix prod",
      "a node of a fleet",
    ],
    ["nameq doctor --http 10.0.0.7:17106", "another host's node, by what it knows"],
    ["nameq doctor --json | jq 'select(.level == \"fail\")'", "what failed, with jq"],
  ],
  interruptedStatus: 130,
};

export const command = (environment: Environment) =>
  Command.make(
    spec.name,
    {
      shared: parser({ ...node, ...keys, ...registry, ...dev }) as unknown as Options<Pick<Serve.ServeOptions, Shared>>,
      own: parser(ownOptions),
    },
    ({ own, shared }) =>
      Effect.flatMap(
        Effect.promise(() => import("./DoctorRun.js")),
        ({ run }) => run({ ...shared, ...own }, environment),
      ),
  ).pipe(Command.withDescription(spec.summary));
