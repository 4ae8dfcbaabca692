/** `nameq dump`: what is in the registry, without a node. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import type { Options } from "@effect/cli/Options";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import * as Random from "effect/Random";
import * as Address from "../Address.js";
import * as Feature from "../Feature.js";
import type { Environment } from "./Argv.js";
import { escapeForPeople } from "./Escape.js";
import * as Log from "./Log.js";
import { print } from "./Output.js";
import * as Serve from "./Serve.js";
import { type CommandSpec, flag, type OptionSpec, parser, value } from "./Spec.js";
import * as Tree from "./Tree.js";
import { usageError } from "./UsageError.js";

/** Of the options of `serve`: where the registry is. */
const shared = ["s3Region", "s3Endpoint", "s3PathStyle", "s3CredFile", "s3CredFd", "registryDir"] as const;
const ofServe = Object.assign({}, ...Serve.spec.sections.map(([, options]) => options)) as Record<string, OptionSpec>;
const registry = Object.fromEntries(shared.map((key) => [key, ofServe[key]!]));
const registryOptions = parser(registry) as unknown as Options<Pick<Serve.ServeOptions, (typeof shared)[number]>>;

const output = {
  single: flag("single", "print at most one address, at random"),
  json: Tree.json,
};
const old = { s3Host: value("s3host", "HOST", "an S3 server: --s3-endpoint https://HOST") };

export const spec: CommandSpec = {
  name: "dump",
  summary: "print what is in the registry; no node is needed",
  operands: "BUCKET/PREFIX [FEATURE...]",
  sections: [
    ["Options", output],
    ["Registry", { ...registry, ...old }],
  ],
  notes: [
    "Prints the addresses of the nodes that have at least one of the features, or of all nodes when none is\nnamed. With --registry-dir there is no BUCKET/PREFIX. What has not been renewed for 15 minutes is left out.",
    'With --json a line is {"host":ADDRESS,"features":{NAME:VALUE}}.',
  ],
  examples: [
    ["nameq dump --s3-region eu-west-1 fleet/prod", "all nodes"],
    ["nameq dump --s3-region eu-west-1 --single fleet/prod db", "some database"],
  ],
  interruptedStatus: 130,
};

/** Age at which an object is nobody's any more. Source: PROTOCOL, section 3. */
const expiryMs = 15 * 60_000;

interface Node {
  readonly host: string;
  readonly features: Feature.FeatureSet;
}

/** The region of an AWS server that has it in its name. Pure. */
export const regionOf = (host: string): string | undefined =>
  /^s3[.-](?:dualstack\.)?([a-z]+(?:-[a-z]+)+-\d+)\.amazonaws\.com/.exec(host)?.[1];

export const command = (environment: Environment) =>
  Command.make(
    spec.name,
    {
      registry: registryOptions,
      old: parser(old),
      output: parser(output),
      operands: Args.text({ name: "BUCKET/PREFIX" }).pipe(Args.repeated),
    },
    ({ old: { s3Host }, operands, output, registry }) =>
      Effect.gen(function* () {
        if (s3Host !== undefined && registry.s3Endpoint !== undefined) {
          return yield* usageError("--s3host and --s3-endpoint: only one of them is the server; leave the other out");
        }
        const place = registry.registryDir === undefined ? operands[0] : undefined;
        const rest = registry.registryDir === undefined ? operands.slice(1) : operands;
        if (place === undefined && registry.registryDir === undefined) {
          return yield* usageError("BUCKET/PREFIX is needed: where the nodes find each other (or --registry-dir DIR)");
        }
        const names = rest.length === 0 ? [] : yield* Tree.parseNames("FEATURE", rest);
        const [, bucket = "", prefix] = /^(?:s3:\/\/)?([^/]*)\/?(.*)$/s.exec(place ?? "")!;
        if (place !== undefined && !/^[A-Za-z0-9._-]+$/.test(bucket)) {
          return yield* usageError(`BUCKET/PREFIX: "${bucket}" is no bucket's name; give one such as fleet/prod`);
        }
        const s3Endpoint = s3Host === undefined ? registry.s3Endpoint : `https://${s3Host}`;
        const s3Region = registry.s3Region ?? (s3Host === undefined ? undefined : regionOf(s3Host));
        const { resolve } = yield* Effect.promise(() => import("./ServeFiles.js"));
        const config = yield* resolve(
          {
            ...({ acceptSecretFile: [], debug: false } as Partial<Serve.ServeOptions> as Serve.ServeOptions),
            ...registry,
            // asks for a registry and for nothing else of a node
            dev: true,
            s3Bucket: place === undefined ? undefined : bucket,
            s3Prefix: prefix,
            s3Endpoint,
            s3Region,
          },
          environment,
        );
        const found = config.registry;
        if (found === undefined) return yield* Effect.dieMessage("a registry was named");

        const [{ S3Registry }, { Metrics }, RegistryObject] = yield* Effect.promise(() =>
          Promise.all([import("../S3Registry.js"), import("../Metrics.js"), import("../RegistryObject.js")]),
        );
        const layer =
          found._tag === "Directory"
            ? S3Registry.layerDirectory({ directory: found.directory })
            : S3Registry.layer(found);
        const nodes = yield* Effect.gen(function* () {
          const service = yield* S3Registry;
          const { entries, nowMs } = yield* service.list;
          const fresh = entries.filter(({ lastModifiedMs }) => nowMs - lastModifiedMs <= expiryMs);
          const hosts = fresh.flatMap(({ name }) => {
            const host = Address.parse(name);
            return host === name && Address.mayBeNode(host) ? [host] : [];
          });
          const foreign = fresh.length - hosts.length;
          if (foreign > 0) {
            yield* Effect.logWarning(`${service.description} has ${foreign} objects that are no node's: left out`);
          }
          if (names.length === 0 && !output.json) return hosts.map((host): Node => ({ host, features: Feature.empty }));
          const read = (host: Address.Address) =>
            Effect.gen(function* () {
              const object = yield* service.get(host);
              // it went since
              if (Option.isNone(object)) return [];
              const content = RegistryObject.decode(object.value.body);
              if (content !== undefined) return [{ host, features: content.features }];
              yield* Effect.logWarning(`${service.description}${host} is no node's object: left out`);
              return [];
            }).pipe(
              Effect.catchIf(
                ({ reason }) => reason === "TooLarge" || reason === "InvalidAnswer",
                ({ message }) => Effect.as(Effect.logWarning(message), []),
              ),
            );
          return (yield* Effect.forEach(hosts, read, { concurrency: 16 })).flat();
        }).pipe(Effect.provide(layer), Effect.provide(Metrics.layer), Effect.provide(Log.layer(spec.name)));

        const having = nodes
          .filter(({ features }) => names.length === 0 || names.some((name) => features.entries.has(name)))
          .map(({ features, host }) =>
            output.json
              ? `{"host":"${host}","features":${escapeForPeople(Feature.fromEntries(features.entries).text)}}\n`
              : `${host}\n`,
          );
        const chosen = output.single && having.length > 0 ? yield* Random.choice(having) : having.join("");
        yield* print(chosen);
      }),
  ).pipe(Command.withDescription(spec.summary));
