/** `nameq exec`: a program is run whenever the hosts of a feature have changed. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import type { FeatureName } from "../Feature.js";
import type { Features, Subscription } from "../FeatureTable.js";
import type { Environment } from "./Argv.js";
import * as GoDuration from "./GoDuration.js";
import * as Hangup from "./Hangup.js";
import * as Log from "./Log.js";
import { type CommandSpec, list, parser, value } from "./Spec.js";
import * as Tree from "./Tree.js";
import { usageError } from "./UsageError.js";

const options = {
  feature: list("feature", "NAME", "whose hosts to follow; may be repeated"),
  settle: value(
    "settle",
    "DURATION",
    "run when there was no further change for so long, but after\nten times that in any case; default: 250ms",
  ),
  stateDir: Tree.stateDir,
};

export const spec: CommandSpec = {
  name: "exec",
  summary: "run a program at each change of a feature's hosts",
  operands: "-- COMMAND...",
  sections: [["Options", options]],
  notes: [
    'The program runs once at the start, and after each change, one run at a time. It gets NAMEQ_FEATURE (the\nnames), NAMEQ_HOSTS (the addresses, sorted, separated by spaces; this host is 127.0.0.1) and on standard\ninput the JSON object {"features":{NAME:{HOST:VALUE}}}. NAMEQ_HOSTS is not set when it would be longer than\n128 KiB.',
    "When the program fails, that is said on standard error, and the next change runs it again. SIGHUP, SIGINT\nand SIGTERM end a run that is under way (by SIGTERM), and then nameq, with status 0.",
  ],
  examples: [
    ["nameq exec --feature web -- sh -c 'echo $NAMEQ_HOSTS'", "see how it works"],
    [
      "nameq exec --feature web -- sh -c './make-upstreams > /etc/nginx/upstreams.conf && nginx -s reload'",
      "a load balancer's configuration",
    ],
  ],
  stopsAtOperand: true,
  interruptedStatus: 0,
};

/** Longest variable that a program can be given, bytes. Source: Linux, MAX_ARG_STRLEN. */
const maxVariable = 128 * 1024 - 64;

/** What a run is told. */
interface Told {
  readonly input: string;
  readonly environment: Environment;
}

/** Pure. */
export const tell = (features: Features, names: ReadonlyArray<FeatureName>): Told => {
  const all = new Set<string>();
  const members = names.map((name) => {
    const hosts = [...(features.get(name) ?? [])].toSorted(([a], [b]) => Tree.byAddress(a, b));
    for (const [host] of hosts) all.add(host);
    return `"${name}":{${hosts.map(([host, { value }]) => `"${host}":${value}`).join()}}`;
  });
  const hosts = [...all].toSorted(Tree.byAddress).join(" ");
  return {
    input: `{"features":{${members.join()}}}\n`,
    environment: { NAMEQ_FEATURE: names.join(" "), NAMEQ_HOSTS: hosts.length > maxVariable ? undefined : hosts },
  };
};

/** Waits until there was no change for `ms`, ten times that at most. */
const settle = (pull: Subscription["pull"], ms: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const until = (yield* Clock.currentTimeMillis) + 10 * ms;
    while (Option.isSome(yield* Effect.timeoutOption(pull, ms)) && (yield* Clock.currentTimeMillis) < until);
  });

export const command = (environment: Environment) =>
  Command.make(
    spec.name,
    { options: parser(options), command: Args.text({ name: "COMMAND" }).pipe(Args.repeated) },
    ({ command: [program, ...args], options }) =>
      Effect.gen(function* () {
        const names = yield* Tree.parseNames("--feature", options.feature);
        const settleMs = GoDuration.parse(options.settle ?? "250ms");
        if (settleMs === undefined || settleMs < 0) {
          return yield* usageError(`--settle: "${options.settle}" is no duration; give one such as 250ms, 2s or 0`);
        }
        if (program === undefined) return yield* usageError("COMMAND is needed: the program to run, behind --");
        const Child = yield* Effect.promise(() => import("./Child.js"));

        const run = (told: Told) =>
          Effect.uninterruptibleMask((restore) =>
            Effect.gen(function* () {
              const child = yield* Child.start([program, ...args], {
                input: told.input,
                environment: { ...environment, ...told.environment },
              });
              const end = Effect.zipRight(
                Effect.sync(() => child.kill("SIGTERM")),
                child.ended,
              );
              const { how, status } = yield* restore(child.ended).pipe(Effect.onInterrupt(() => end));
              if (status !== 0) yield* Effect.logError(`${program} ${how}`);
            }).pipe(Effect.catchTag("ExitStatus", ({ message }) => Effect.logError(message))),
          );

        yield* Tree.withTree(options.stateDir, (tree) =>
          Effect.gen(function* () {
            yield* Hangup.endsProgram;
            const { features, pull } = yield* tree.subscribe(names);
            while (!(yield* pull).some(({ _tag }) => _tag === "Booted"));
            let last: string | undefined;
            for (;;) {
              const told = tell(features, names);
              if (told.input !== last) yield* run(told);
              last = told.input;
              yield* pull;
              yield* settle(pull, settleMs);
            }
          }).pipe(Effect.scoped, Effect.provide(Log.layer(spec.name))),
        );
      }),
  ).pipe(Command.withDescription(spec.summary));
