/** The command line: one parser for all commands, and what is printed about them. */
import * as CliConfig from "@effect/cli/CliConfig";
import * as Command from "@effect/cli/Command";
import * as Descriptor from "@effect/cli/CommandDescriptor";
import type { HelpDoc } from "@effect/cli/HelpDoc";
import * as FileSystem from "@effect/platform/FileSystem";
import * as Path from "@effect/platform/Path";
import * as Terminal from "@effect/platform/Terminal";
import * as Cause from "effect/Cause";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import { type Environment, normalise } from "./Cli/Argv.js";
import { offerNames } from "./Cli/Completions.js";
import * as Doctor from "./Cli/Doctor.js";
import * as Dump from "./Cli/Dump.js";
import * as Exec from "./Cli/Exec.js";
import { ExitStatus } from "./Cli/ExitStatus.js";
import * as Feature from "./Cli/Feature.js";
import * as Find from "./Cli/Find.js";
import * as Help from "./Cli/Help.js";
import * as List from "./Cli/List.js";
import * as Monitor from "./Cli/Monitor.js";
import { print } from "./Cli/Output.js";
import * as Run from "./Cli/Run.js";
import * as Serve from "./Cli/Serve.js";
import type { CommandSpec } from "./Cli/Spec.js";
import * as Status from "./Cli/Status.js";
import * as Top from "./Cli/Top.js";
import { UsageError, usageError } from "./Cli/UsageError.js";

/** All commands, in the order of the help text. */
export const specs: ReadonlyArray<CommandSpec> = [
  Serve.spec,
  Feature.spec,
  Run.spec,
  List.spec,
  Find.spec,
  Monitor.spec,
  Exec.spec,
  Dump.spec,
  Status.spec,
  Top.spec,
  Doctor.spec,
];

/** What the commands need of the process. */
export interface Host {
  readonly environment: Environment;
  readonly version: string;
  /** Loads the node; only `serve` does. */
  readonly loadNode: () => Promise<Serve.ServeRunner>;
}

/** How a failed run ends. */
export interface Report {
  readonly status: number;
  /** For standard error. */
  readonly text: string;
}

/**
 * The parser's services do nothing: it asks nothing, and whether a path is there is for the command to find out, not for
 * the parser. The real ones take 5 ms to load.
 */
const unused = Effect.dieMessage("the command line asks no questions");
const parserServices = Context.empty().pipe(
  Context.add(FileSystem.FileSystem, FileSystem.makeNoop({ exists: () => Effect.succeed(false) })),
  Context.add(Path.Path, {} as Path.Path),
  Context.add(
    Terminal.Terminal,
    Terminal.Terminal.of({
      columns: unused,
      rows: unused,
      isTTY: unused,
      readInput: unused,
      readLine: unused,
      display: () => unused,
    }),
  ),
);

/** The parser's refusals are one paragraph of plain text. */
const textOf = (doc: HelpDoc): string =>
  doc._tag === "Paragraph" && doc.value._tag === "Text" ? doc.value.value : "the command line is not understood";

/**
 * The generated scripts with what is wrong in them put right: they offer two options of the parser's own that we do not
 * have, and in bash they miss commands with a hyphen and take the choices of an option for one word.
 */
export const repairCompletions = (lines: ReadonlyArray<string>): string =>
  `${lines
    .map((line) =>
      line
        .replaceAll(/ --(?:wizard|log-level)\b/g, "")
        .replace(/^(\s*)(nameq,\S+)\)$/, (_, space: string, names: string) => `${space}${names.replaceAll("__", "-")})`)
        .replace(/compgen -W "([\w,-]+)"/, (_, choices: string) => `compgen -W "${choices.replaceAll(",", " ")}"`),
    )
    .filter((line) => !/\b(?:wizard|log-level)\b/.test(line))
    .join("\n")}\n`;

const completions = {
  bash: Descriptor.getBashCompletions,
  fish: Descriptor.getFishCompletions,
  zsh: Descriptor.getZshCompletions,
};

/** A command whose handler is given what its own parser made, and nothing else. */
type AnyCommand = Command.Command<string, never, Error, unknown>;
const any = <N extends string, E extends Error, A>(make: () => Command.Command<N, never, E, A>): (() => AnyCommand) =>
  make as unknown as () => AnyCommand;

/** Each command for the parser. Making all of them takes longer than much of what a light command does. */
const parsers = (host: Host): Readonly<Record<string, () => AnyCommand>> => ({
  [Serve.spec.name]: any(() => Serve.command(host.environment, host.loadNode)),
  [Feature.spec.name]: any(Feature.command),
  [Run.spec.name]: any(() => Run.command(host.environment)),
  [List.spec.name]: any(List.command),
  [Find.spec.name]: any(Find.command),
  [Monitor.spec.name]: any(Monitor.command),
  [Exec.spec.name]: any(() => Exec.command(host.environment)),
  [Dump.spec.name]: any(() => Dump.command(host.environment)),
  [Status.spec.name]: any(Status.command),
  [Top.spec.name]: any(() => Top.command(host.environment)),
  [Doctor.spec.name]: any(() => Doctor.command(host.environment)),
});

/**
 * Runs one command line (without the program's own name). Fails with a usage error, or with what failed in the command,
 * whose message is for the user.
 */
export const run = (argv: ReadonlyArray<string>, host: Host): Effect.Effect<void, Error> =>
  Effect.gen(function* () {
    const line = yield* normalise(specs, argv, host.environment);
    const [name = "", second] = line;
    if (name === "--version") return yield* print(`${host.version}\n`);
    if (name === "--help") return yield* print(Help.ofProgram(host.version, specs));
    const spec = specs.find((each) => each.name === name);
    // canonical: elsewhere it is a value, or behind --
    if (spec !== undefined && second === "--help") return yield* print(Help.ofCommand(spec));

    const all = parsers(host);
    const [first, ...rest] = spec === undefined ? Object.values(all) : [all[name]!];
    const root = Command.make("nameq").pipe(Command.withSubcommands([first!(), ...rest.map((make) => make())]));
    const directive = yield* Descriptor.parse(root.descriptor, ["nameq", ...line], {
      ...CliConfig.defaultConfig,
      isCaseSensitive: true,
    }).pipe(
      Effect.provide(parserServices),
      Effect.mapError((refusal) => usageError(textOf(refusal.error))),
    );
    if (directive._tag === "UserDefined") {
      const [extra] = directive.leftover;
      if (extra !== undefined) return yield* usageError(`too many operands: ${extra}`);
      return yield* root.handler(directive.value);
    }
    if (directive.option._tag === "ShowCompletions") {
      const lines = yield* completions[directive.option.shellType](root.descriptor, "nameq");
      return yield* print(repairCompletions(offerNames(lines)));
    }
    return yield* Effect.dieMessage("the command line asks for what is answered already");
  });

/** What is said on standard error about a failure, and the exit status. */
export const report = (argv: ReadonlyArray<string>, cause: Cause.Cause<unknown>): Report => {
  const spec = specs.find(({ name }) => name === argv[0]);
  const program = spec === undefined ? "nameq" : `nameq ${spec.name}`;
  if (Cause.isInterruptedOnly(cause)) return { status: spec?.interruptedStatus ?? 130, text: "" };
  const error = Cause.squash(cause);
  if (error instanceof UsageError) {
    const problems = error.problems.map((problem) => `${program}: ${problem}\n`).join("");
    const usage = spec === undefined ? "nameq COMMAND [OPTIONS]" : Help.usage(spec);
    return { status: 2, text: `${problems}Usage: ${usage}\nTry: ${program} --help\n` };
  }
  if (error instanceof ExitStatus) {
    return { status: error.status, text: error.message === "" ? "" : `${program}: ${error.message}\n` };
  }
  return { status: 1, text: `${program}: ${error instanceof Error ? error.message : String(error)}\n` };
};
