/** `nameq run`: a program's features are advertised while it runs and is ready. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import { isatty } from "node:tty";
import { type FeatureName, type FeatureValue, isFeatureName, parseValue } from "../Feature.js";
import * as FeatureFile from "../FeatureFile.js";
import { isFault } from "../Json.js";
import type { Environment } from "./Argv.js";
import type { Child } from "./Child.js";
import * as Defaults from "../Defaults.js";
import { ExitStatus } from "./ExitStatus.js";
import * as GoDuration from "./GoDuration.js";
import * as Log from "./Log.js";
import { type CommandSpec, list, parser, value } from "./Spec.js";
import { UsageError, usageError, withoutPassword } from "./UsageError.js";

const options = {
  feature: list("feature", "NAME=JSON", "what to advertise; may be repeated"),
  ready: value(
    "ready",
    "CHECK",
    "advertise only while this holds: a shell command ends with\nstatus 0, tcp:[HOST:]PORT can be connected to, or\nhttp://... answers with a status from 200 to 399",
  ),
  readyInterval: value("ready-interval", "DURATION", "time between two checks; default: 1s"),
  featureDir: value("feature-dir", "DIR", `where the node looks for features\ndefault: ${Defaults.featureDir}`, {
    old: "featuredir",
  }),
};

export const spec: CommandSpec = {
  name: "run",
  summary: "run a program, and advertise features while it runs and is ready",
  operands: "-- COMMAND...",
  sections: [["Options", options]],
  notes: [
    "The features are removed when the program ends, when it is no longer ready, and at once when SIGTERM comes,\nbefore it is passed on. Signals are passed on (except SIGINT and SIGQUIT of a terminal, which sends them to\nthe program itself), and the exit status is the program's: 128+N when signal N ended it, 126 or 127 when it\ncannot be started.",
    "No answer to a check within 5 seconds means not ready. kill -9 of nameq itself leaves the program running\nand the features advertised: run it under a supervisor that starts it again, or remove them with nameq\nfeature --rm.",
  ],
  examples: [
    ["nameq run --feature web='{\"port\":8080}' -- node server.js", "advertise a server while it runs"],
    ["nameq run --feature db=true --ready tcp:5432 -- postgres -D /data", "once its port is open"],
    [
      "nameq run --feature web=true --ready http://localhost:8080/health -- ./server",
      "while it says that it is healthy",
    ],
  ],
  stopsAtOperand: true,
  interruptedStatus: 130,
};

type Features = ReadonlyMap<FeatureName, FeatureValue>;

const parseFeatures = (texts: ReadonlyArray<string>): Effect.Effect<Features, UsageError> => {
  const features = new Map<FeatureName, FeatureValue>();
  const problems: Array<string> = [];
  for (const text of texts) {
    const at = text.indexOf("=");
    const name = at < 0 ? text : text.slice(0, at);
    const parsed = parseValue(at < 0 ? "true" : text.slice(at + 1));
    if (!isFeatureName(name)) {
      problems.push(`--feature: ${JSON.stringify(name)} is no feature's name; use 1 to 255 of A-Z a-z 0-9 - _`);
    } else if (at < 0) {
      problems.push(`--feature: ${name} has no value; give one such as ${name}=true`);
    } else if (isFault(parsed)) {
      problems.push(
        `--feature: the value of ${name} is not JSON at character ${parsed.offset + 1}; give ${name}=true or ${name}='"text"'`,
      );
    } else {
      features.set(name, parsed);
    }
  }
  if (texts.length === 0) problems.push("--feature NAME=JSON is needed: what to advertise, such as web=true");
  return problems.length > 0 ? new UsageError({ problems }) : Effect.succeed(features);
};

/**
 * Keeps the feature files as `isReady` says (undefined: it always is) until it is interrupted, when they go. What fails
 * is said once, and tried again.
 */
const advertise = (
  directory: string,
  features: Features,
  isReady: Effect.Effect<boolean> | undefined,
  intervalMs: number,
): Effect.Effect<never> =>
  Effect.suspend(() => {
    const names = [...features.keys()].join(", ");
    let shown: boolean | undefined;
    let failed = "";
    const show = (wanted: boolean): Effect.Effect<void> =>
      Effect.forEach(
        features,
        ([name, json]) => (wanted ? FeatureFile.set(directory, name, json) : FeatureFile.remove(directory, name)),
        { discard: true },
      ).pipe(
        Effect.matchEffect({
          onSuccess: () => {
            const isNews = isReady !== undefined && wanted !== (shown ?? false);
            shown = wanted;
            failed = "";
            return isNews
              ? Effect.logInfo(wanted ? `ready: offers ${names}` : `no longer offers ${names}`)
              : Effect.void;
          },
          onFailure: ({ message }) => {
            if (message === failed) return Effect.void;
            failed = message;
            return Effect.logError(message);
          },
        }),
      );
    return Effect.gen(function* () {
      const wanted = isReady === undefined || (yield* isReady);
      if (wanted !== shown) yield* Effect.uninterruptible(show(wanted));
      yield* Effect.sleep(intervalMs);
    }).pipe(Effect.forever, Effect.ensuring(show(false)));
  });

const passedOn = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

/** Passes signals on to the program while the scope lasts; but the first SIGTERM opens `over` instead. */
const passOn = (child: Child, over: Effect.Latch): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      let isTold = false;
      const onSignal = (signal: NodeJS.Signals): void => {
        if (signal === "SIGTERM" && !isTold) {
          isTold = true;
          over.unsafeOpen();
        } else if ((signal !== "SIGINT" && signal !== "SIGQUIT") || !isatty(0)) {
          child.kill(signal);
        }
      };
      for (const signal of passedOn) process.on(signal, onSignal);
      return onSignal;
    }),
    (onSignal) =>
      Effect.sync(() => {
        for (const signal of passedOn) process.off(signal, onSignal);
      }),
  );

/**
 * Never interrupted: the program is told to end, and its end is the end. Its fibers are daemons, for an interrupt would
 * reach children at once.
 */
const supervise = (child: Child, offer: Effect.Effect<never>): Effect.Effect<never, ExitStatus> =>
  Effect.gen(function* () {
    const over = yield* Effect.makeLatch(false);
    yield* passOn(child, over);
    yield* Effect.forkDaemon(Effect.zipRight(child.ended, over.open));
    const offering = yield* Effect.forkDaemon(Effect.interruptible(offer));
    yield* over.await;
    yield* Fiber.interrupt(offering);
    child.kill("SIGTERM");
    const { status } = yield* child.ended;
    return yield* new ExitStatus({ status, message: "" });
  }).pipe(Effect.scoped, Effect.uninterruptible);

export const command = (environment: Environment) =>
  Command.make(
    spec.name,
    { options: parser(options), command: Args.text({ name: "COMMAND" }).pipe(Args.repeated) },
    ({ command: [program, ...args], options }) =>
      Effect.gen(function* () {
        const features = yield* parseFeatures(options.feature);
        const intervalMs = GoDuration.parse(options.readyInterval ?? "1s");
        if (intervalMs === undefined || intervalMs < 10) {
          return yield* usageError(
            `--ready-interval: "${options.readyInterval}" is no duration of at least 10ms; give one such as 1s or 500ms`,
          );
        }
        if (program === undefined) return yield* usageError("COMMAND is needed: the program to run, behind --");
        const [Child, Ready] = yield* Effect.promise(() => Promise.all([import("./Child.js"), import("./Ready.js")]));
        const check = options.ready === undefined ? undefined : Ready.parse(options.ready);
        if (options.ready !== undefined && check === undefined) {
          return yield* usageError(
            `--ready: "${withoutPassword(options.ready)}" is no check; give tcp:8080, http://localhost:8080/health or a shell command`,
          );
        }
        const isReady = check && Ready.isReady(check, environment);
        yield* Effect.flatMap(Child.start([program, ...args], { environment }), (child) =>
          supervise(child, advertise(options.featureDir ?? Defaults.featureDir, features, isReady, intervalMs)),
        ).pipe(Effect.uninterruptible, Effect.provide(Log.layer(spec.name)));
      }),
  ).pipe(Command.withDescription(spec.summary));
