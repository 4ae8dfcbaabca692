/** `nameq feature`: sets or removes one of this host's own features. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import { isUtf8 } from "node:buffer";
import * as Feature from "../Feature.js";
import * as FeatureFile from "../FeatureFile.js";
import * as Json from "../Json.js";
import * as Defaults from "../Defaults.js";
import { readAll } from "./Output.js";
import { type CommandSpec, flag, parser, value } from "./Spec.js";
import { usageError } from "./UsageError.js";

/** Largest value, bytes: what a whole announcement may have. Source: PROTOCOL, section 1. */
const maxValueBytes = 1024 * 1024;

const options = {
  featureDir: value("feature-dir", "DIR", `where the node looks for features\ndefault: ${Defaults.featureDir}`, {
    old: "featuredir",
  }),
  rm: flag("rm", "remove the feature instead; removing one that is not there is fine"),
};

export const spec: CommandSpec = {
  name: "feature",
  summary: "set or remove a feature of this host",
  operands: "NAME [VALUE]",
  sections: [["Options", options]],
  notes: [
    "NAME has 1 to 255 of the characters A-Z a-z 0-9 - _. VALUE is JSON; without it, standard input is read.",
    "The node of this host need not be running: it takes the feature up when it is.",
  ],
  examples: [
    ["nameq feature web true", "this host serves the web"],
    [`nameq feature db '{"port":5432}'`, "any JSON is a value"],
    ["nameq feature load < load.json", "from a file"],
    ["nameq feature --rm web", "no more"],
  ],
  interruptedStatus: 130,
};

/** The name or the value cannot be a feature's. */
export class InvalidFeature extends Data.TaggedError("InvalidFeature")<{
  readonly reason: string;
}> {
  override get message(): string {
    return this.reason;
  }
}

const invalid = (reason: string): InvalidFeature => new InvalidFeature({ reason });

const parseValue = (text: string): Effect.Effect<Feature.FeatureValue, InvalidFeature> => {
  const parsed = Feature.parseValue(text);
  if (!Json.isFault(parsed)) return Effect.succeed(parsed);
  if (text.trim() === "") return Effect.fail(invalid("the value is empty: give JSON such as true, or use --rm"));
  return Effect.fail(
    invalid(
      parsed.reason === "depth"
        ? `the value is nested deeper than ${Json.maxDepth} at character ${parsed.offset + 1}: make it flatter`
        : `the value is not JSON at character ${parsed.offset + 1}: give true, 5, '"text"' or '{"port":80}'`,
    ),
  );
};

const readValue = Effect.gen(function* () {
  const bytes = yield* readAll(maxValueBytes);
  if (bytes === undefined) return yield* invalid(`the value is larger than ${maxValueBytes} bytes: make it smaller`);
  if (!isUtf8(bytes)) return yield* invalid("the value is not UTF-8: write it in that encoding");
  return bytes.toString();
});

export const command = () =>
  Command.make(
    spec.name,
    {
      options: parser(options),
      name: Args.text({ name: "NAME" }),
      value: Args.text({ name: "VALUE" }).pipe(Args.optional),
    },
    ({ name, options, value }) =>
      Effect.gen(function* () {
        const directory = options.featureDir ?? Defaults.featureDir;
        if (options.rm && Option.isSome(value)) return yield* usageError("--rm takes no VALUE: leave one of them out");
        if (!Feature.isFeatureName(name)) {
          return yield* invalid(`${JSON.stringify(name)} is no feature's name: use 1 to 255 of A-Z a-z 0-9 - _`);
        }
        if (options.rm) return yield* FeatureFile.remove(directory, name);
        const text = Option.isSome(value) ? value.value : yield* readValue;
        yield* FeatureFile.set(directory, name, yield* parseValue(text));
      }),
  ).pipe(Command.withDescription(spec.summary));
