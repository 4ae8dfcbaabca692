/** `nameq find-features`: the hosts that have a feature, as soon as there are any. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import type { FeatureName } from "../Feature.js";
import type { Features } from "../FeatureTable.js";
import type { TreeWatch } from "../TreeWatch.js";
import { escapeForPeople } from "./Escape.js";
import * as GoDuration from "./GoDuration.js";
import * as Log from "./Log.js";
import { print } from "./Output.js";
import { type CommandSpec, flag, parser, value } from "./Spec.js";
import * as Tree from "./Tree.js";
import { type UsageError, usageError } from "./UsageError.js";

const options = {
  stateDir: Tree.stateDir,
  timeout: value(
    "timeout",
    "DURATION",
    "how long to wait for a first host, such as 500ms or 1m30s\n0 only looks; default: infinite",
  ),
  single: flag("single", "print at most one host: the one with the newest change"),
  json: Tree.json,
};

export const spec: CommandSpec = {
  name: "find-features",
  summary: "print the hosts that have a feature, waiting for the first",
  operands: "NAME...",
  sections: [["Options", options]],
  notes: [
    "Prints the hosts that have at least one of the features, one a line, the newest change last. If there are\nnone, it waits until there are. When the time is over it prints nothing, and the exit status is 0 all the\nsame.",
    'With --json a line is {"feature":NAME,"host":HOST,"value":VALUE}.',
  ],
  examples: [
    ["nameq find-features db", "wait for a database"],
    ["nameq find-features -timeout 5s -single db db-replica", "any one of two kinds, within five seconds"],
    ["nameq find-features -timeout 0 web", "who serves the web now"],
  ],
  interruptedStatus: 130,
};

interface Found {
  readonly host: string;
  readonly changedMs: number;
  readonly json: string;
}

/** The offers of these features, the newest last. */
const found = (features: Features, names: ReadonlyArray<FeatureName>): ReadonlyArray<Found> =>
  names
    .flatMap((name) =>
      [...(features.get(name) ?? [])].map(([host, { changedMs, value }]) => ({
        host,
        changedMs,
        json: `{"feature":"${name}","host":"${host}","value":${escapeForPeople(value)}}`,
      })),
    )
    .toSorted((a, b) => a.changedMs - b.changedMs);

const timeoutMs = (text: string | undefined): Effect.Effect<number, UsageError> => {
  if (text === undefined || text === "infinite") return Effect.succeed(Number.POSITIVE_INFINITY);
  const ms = GoDuration.parse(text);
  if (ms === undefined) {
    return Effect.fail(usageError(`--timeout: "${text}" is no duration; give one such as 500ms, 1m30s, 0 or infinite`));
  }
  // as the existing program has it
  return Effect.succeed(ms < 0 ? Number.POSITIVE_INFINITY : ms);
};

const wait = (tree: TreeWatch.Service, names: ReadonlyArray<FeatureName>): Effect.Effect<ReadonlyArray<Found>> =>
  Effect.gen(function* () {
    const { features, pull } = yield* tree.subscribe(names);
    for (let booted = false; ;) {
      const changes = yield* pull;
      booted ||= changes.some(({ _tag }) => _tag === "Booted");
      const offers = booted ? found(features, names) : [];
      if (offers.length > 0) return offers;
    }
  }).pipe(Effect.scoped, Effect.provide(Log.layer(spec.name)));

export const command = () =>
  Command.make(
    spec.name,
    { options: parser(options), names: Args.text({ name: "NAME" }).pipe(Args.repeated) },
    ({ names, options }) =>
      Effect.gen(function* () {
        const wanted = yield* Tree.parseNames("NAME", names);
        const limitMs = yield* timeoutMs(options.timeout);
        const offers = yield* Tree.withTree(options.stateDir, (tree) =>
          Effect.gen(function* () {
            const { features, problems } = yield* tree.read(wanted);
            const now = found(features, wanted);
            if (now.length === 0 && limitMs > 0) {
              const waiting = wait(tree, wanted);
              if (limitMs === Number.POSITIVE_INFINITY) return yield* waiting;
              return Option.getOrElse(yield* Effect.timeoutOption(waiting, limitMs), () => []);
            }
            yield* Tree.warn(spec.name, problems);
            return now;
          }),
        );
        // a host stands where its newest change does
        const hosts = new Set(offers.toReversed().map(({ host }) => host));
        const lines = options.json ? offers.map(({ json }) => json) : [...hosts].toReversed();
        yield* print((options.single ? lines.slice(-1) : lines).map((each) => `${each}\n`).join(""));
      }),
  ).pipe(Command.withDescription(spec.summary));
