/** What the commands that read the tree share. */
import * as Effect from "effect/Effect";
import { type FeatureName, isFeatureName } from "../Feature.js";
import type { Problem } from "../FeatureTable.js";
import type { TreeWatch } from "../TreeWatch.js";
import * as Defaults from "../Defaults.js";
import * as Log from "./Log.js";
import { flag, value } from "./Spec.js";
import { type UsageError, usageError } from "./UsageError.js";

export const stateDir = value("state-dir", "DIR", `the node's state directory\ndefault: ${Defaults.stateDir}`, {
  old: "statedir",
});
export const json = flag("json", "print one JSON object a line");

/** Gives `use` the tree of a state directory. Nothing else of the program is loaded. */
export const withTree = <A, E, R>(
  stateDir: string | undefined,
  use: (tree: TreeWatch.Service) => Effect.Effect<A, E, R>,
): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    Effect.promise(() => import("../TreeWatch.js")),
    ({ TreeWatch }) =>
      Effect.provide(
        Effect.flatMap(TreeWatch, (tree) => use(tree)),
        TreeWatch.layer(stateDir ?? Defaults.stateDir),
      ) as Effect.Effect<A, E, R>,
  );

/** Tells people on standard error. */
export const say = (command: string, messages: ReadonlyArray<string>): Effect.Effect<void> =>
  messages.length === 0
    ? Effect.void
    : Effect.forEach(messages, (message) => Effect.logWarning(message), { discard: true }).pipe(
        Effect.provide(Log.layer(command)),
      );

/** Warns of what had to be left out. */
export const warn = (command: string, problems: ReadonlyArray<Problem>): Effect.Effect<void> =>
  say(
    command,
    problems.map(({ message }) => message),
  );

/** Names from the command line; `what` is where they stand. */
export const parseNames = (
  what: string,
  names: ReadonlyArray<string>,
): Effect.Effect<ReadonlyArray<FeatureName>, UsageError> => {
  const valid = names.filter(isFeatureName);
  const bad = names.find((name) => !isFeatureName(name));
  if (bad !== undefined) {
    return Effect.fail(
      usageError(`${what}: ${JSON.stringify(bad)} is no feature's name; use 1 to 255 of A-Z a-z 0-9 - _`),
    );
  }
  return valid.length === 0
    ? Effect.fail(usageError(`${what} is needed: a feature's name, such as web`))
    : Effect.succeed([...new Set(valid)]);
};

/** Texts that sort as addresses should: `10.0.0.9` before `10.0.0.10`. (Without a collator, which a light command would have to load.) */
export const addressOrder = (address: string): string =>
  address.replaceAll(/\d+/g, (digits) => digits.padStart(4, "0"));

export const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export const byAddress = (a: string, b: string): number => byText(addressOrder(a), addressOrder(b));
