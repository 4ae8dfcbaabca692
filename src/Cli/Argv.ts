/**
 * Brings a command line to the one spelling that the parser knows. Accepted are GNU style (`--s3-bucket B`,
 * `--s3-bucket=B`, options also after operands) and the existing program's (`-s3bucket B`, `-s3bucket=B`,
 * `--s3bucket=B`, `-debug=true`); environment variables stand in for options that are not given. Pure.
 */
import * as AutoCorrect from "@effect/cli/AutoCorrect";
import * as CliConfig from "@effect/cli/CliConfig";
import * as Either from "effect/Either";
import { type CommandSpec, type OptionSpec, optionsOf, variableOf } from "./Spec.js";
import { type UsageError, usageError } from "./UsageError.js";

/** Environment variables, as in `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

const isHelp = (arg: string): boolean => /^--?(?:h|help)$/.test(arg);
const isVersion = (arg: string): boolean => /^--?version$/.test(arg);

const suggestion = (given: string, names: ReadonlyArray<string>): string => {
  const near = names
    .map((name) => [AutoCorrect.levensteinDistance(given, name, CliConfig.defaultConfig), name] as const)
    .toSorted(([a], [b]) => a - b)[0];
  return near !== undefined && near[0] <= Math.ceil(given.length / 3) ? `; did you mean ${near[1]}?` : "";
};

const booleans: Readonly<Record<string, "true" | "false">> = {
  "1": "true",
  t: "true",
  true: "true",
  yes: "true",
  on: "true",
  "0": "false",
  f: "false",
  false: "false",
  no: "false",
  off: "false",
};

/** A value as the parser takes it, or what is wrong with it. */
const check = (option: OptionSpec, given: string, source: string): Either.Either<string, string> => {
  if (option.kind === "flag") {
    const bool = booleans[given.toLowerCase()];
    return bool === undefined ? Either.left(`${source}: "${given}" is neither true nor false`) : Either.right(bool);
  }
  return option.choices === undefined || given === "" || option.choices.includes(given)
    ? Either.right(given)
    : Either.left(`${source}: "${given}" is none of ${option.choices.join(", ")}`);
};

/** The options of one command by all their names: new and old names are one namespace, one or two dashes alike. */
const index = (options: ReadonlyArray<OptionSpec>): ReadonlyMap<string, OptionSpec> =>
  new Map(
    options.flatMap((option) => [
      [option.name, option] as const,
      ...(option.old === undefined ? [] : [[option.old, option] as const]),
    ]),
  );

const normaliseCommand = (
  command: CommandSpec,
  argv: ReadonlyArray<string>,
  environment: Environment,
): Either.Either<ReadonlyArray<string>, UsageError> => {
  const options = optionsOf(command);
  const byName = index(options);
  const given = new Map<OptionSpec, Array<string>>();
  const operands: Array<string> = [];

  for (let at = 0; at < argv.length; at++) {
    const arg = argv[at]!;
    if (arg === "--" || (command.stopsAtOperand && operands.length > 0)) {
      operands.push(...argv.slice(arg === "--" ? at + 1 : at));
      break;
    }
    if (isHelp(arg)) return Either.right([command.name, "--help"]);
    if (isVersion(arg)) return Either.right(["--version"]);
    // behind an operand one dash starts an operand, as in the existing program: `feature load -5`
    if (!arg.startsWith("-") || arg === "-" || (operands.length > 0 && !arg.startsWith("--"))) {
      operands.push(arg);
      continue;
    }
    const [, name = "", attached] = /^--?([^=]*)(?:=([^]*))?$/.exec(arg)!;
    const option = byName.get(name);
    if (option === undefined) {
      const names = options.map((each) => `--${each.name}`);
      return Either.left(usageError(`unknown option ${arg.split("=")[0]}${suggestion(`--${name}`, names)}`));
    }
    const next = attached ?? (option.kind === "flag" ? "true" : argv[++at]);
    if (next === undefined) return Either.left(usageError(`--${option.name} needs a value: ${option.placeholder}`));
    const checked = check(option, next, `--${option.name}`);
    if (Either.isLeft(checked)) return Either.left(usageError(checked.left));
    given.set(option, option.kind === "list" ? [...(given.get(option) ?? []), checked.right] : [checked.right]);
  }

  const groups = new Set([...given.keys()].map(({ group }) => group));
  for (const option of options) {
    if (given.has(option) || (option.group !== undefined && groups.has(option.group))) continue;
    const variable = [variableOf(option), ...(option.environment ?? [])].find((each) => environment[each]);
    if (variable === undefined) continue;
    const text = environment[variable]!;
    const values: Array<string> = [];
    for (const each of option.kind === "list" ? text.split(",") : [text]) {
      const checked = check(option, each.trim(), variable);
      if (Either.isLeft(checked)) return Either.left(usageError(checked.left));
      values.push(checked.right);
    }
    given.set(option, values);
  }

  const line = [...given].flatMap(([option, values]) =>
    // an empty value means none, and hides the environment's
    values
      .filter((each) => each !== "")
      .flatMap((each) => (option.kind === "flag" ? [`--${option.name}=${each}`] : [`--${option.name}`, each])),
  );
  return Either.right([command.name, ...line, "--", ...operands]);
};

/**
 * The canonical command line: `COMMAND --option value --flag=true ... -- operands`, or `[COMMAND] --help`, `--version`,
 * `--completions SHELL`. What stands behind `--` is never taken for an option.
 */
export const normalise = (
  commands: ReadonlyArray<CommandSpec>,
  argv: ReadonlyArray<string>,
  environment: Environment,
): Either.Either<ReadonlyArray<string>, UsageError> => {
  const [first, ...rest] = argv;
  const names = commands.map(({ name }) => name);
  if (first === undefined) return Either.left(usageError(`a command is needed: ${names.join(", ")}`));
  if (isHelp(first)) return Either.right(["--help"]);
  if (isVersion(first)) return Either.right(["--version"]);
  const completions = /^--completions(?:=(.*))?$/.exec(first);
  if (completions !== null) {
    const shell = completions[1] ?? rest[0] ?? "";
    return /^(?:sh|bash|zsh|fish)$/.test(shell)
      ? Either.right(["--completions", shell])
      : Either.left(usageError(`--completions: "${shell}" is none of bash, zsh, fish, sh`));
  }
  const command = commands.find(({ name }) => name === first);
  if (command === undefined) {
    const kind = first.startsWith("-") ? "option" : "command";
    return Either.left(
      usageError(`unknown ${kind} ${first}${suggestion(first, names) || `; the commands are ${names.join(", ")}`}`),
    );
  }
  return normaliseCommand(command, rest, environment);
};
