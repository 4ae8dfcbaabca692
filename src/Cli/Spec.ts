/**
 * What the commands and their options are, as data: the parser's options, the normaliser's tables and the help texts
 * are all made of it.
 */
import * as Options from "@effect/cli/Options";
import * as Option from "effect/Option";

/** One option of a command. */
export interface OptionSpec {
  /** `value`: the last one counts; `list`: each one counts; `flag`: true or false. */
  readonly kind: "value" | "list" | "flag";
  /** Long name without dashes. */
  readonly name: string;
  /** The existing program's name for it, if it has one. */
  readonly old?: string;
  /** What stands for the value in the help text. Flags have none. */
  readonly placeholder?: string;
  /** The only values that are accepted. */
  readonly choices?: ReadonlyArray<string>;
  /** Environment variables that are asked after the option's own one (see `variableOf`), in this order. */
  readonly environment?: ReadonlyArray<string>;
  /** Options of one group replace each other: one on the command line hides the whole group's environment variables. */
  readonly group?: string;
  /** One line or several for the help text: meaning, unit, default. */
  readonly help: string;
}

/** One command. */
export interface CommandSpec {
  readonly name: string;
  /** One line: what it does. */
  readonly summary: string;
  /** Its operands in the usage line, such as `NAME [VALUE]`. */
  readonly operands: string;
  /** Headings and the options below them, in the help text's order. */
  readonly sections: ReadonlyArray<readonly [heading: string, options: Readonly<Record<string, OptionSpec>>]>;
  /** Paragraphs below the options. */
  readonly notes: ReadonlyArray<string>;
  /** Command lines, each with what it does. */
  readonly examples: ReadonlyArray<readonly [command: string, purpose: string]>;
  /** Whether all that follows the first operand is operands (for commands that run another program). */
  readonly stopsAtOperand?: boolean;
  /** Exit status when SIGINT or SIGTERM ends it: 0 where that is the normal end. */
  readonly interruptedStatus: number;
}

type Details = Omit<OptionSpec, "kind" | "name" | "placeholder" | "help">;

/** An option with a value; absent when it is not given or empty. */
export const value = (name: string, placeholder: string, help: string, details: Details = {}) => ({
  kind: "value" as const,
  name,
  placeholder,
  help,
  ...details,
});

/** An option that may be repeated. Its environment variable separates values by commas. */
export const list = (name: string, placeholder: string, help: string, details: Details = {}) => ({
  kind: "list" as const,
  name,
  placeholder,
  help,
  ...details,
});

/** A switch: `--name`, `--name=true` or `--name=false`. */
export const flag = (name: string, help: string, details: Details = {}) => ({
  kind: "flag" as const,
  name,
  help,
  ...details,
});

/** The option's environment variable: `s3-bucket` is NAMEQ_S3_BUCKET. */
export const variableOf = (option: OptionSpec): string => `NAMEQ_${option.name.toUpperCase().replaceAll("-", "_")}`;

/** All options of a command. */
export const optionsOf = (command: CommandSpec): ReadonlyArray<OptionSpec> =>
  command.sections.flatMap(([, options]) => Object.values(options));

/** What parsing a table of options gives. */
export type Parsed<T extends Readonly<Record<string, OptionSpec>>> = {
  readonly [K in keyof T]: T[K]["kind"] extends "flag"
    ? boolean
    : T[K]["kind"] extends "list"
      ? ReadonlyArray<string>
      : string | undefined;
};

/** By its placeholder, so that shells complete paths. */
const valueOption = ({ choices, name, placeholder = "" }: OptionSpec): Options.Options<string> => {
  if (choices !== undefined) return Options.choice(name, choices);
  if (placeholder === "DIR") return Options.directory(name);
  return placeholder.endsWith("PATH") ? Options.file(name) : Options.text(name);
};

const toOption = (spec: OptionSpec): Options.Options<unknown> => {
  const described = <A>(option: Options.Options<A>): Options.Options<A> =>
    Options.withDescription(option, spec.help.split("\n", 1)[0] ?? "");
  if (spec.kind === "flag") return described(Options.boolean(spec.name));
  const one = described(valueOption(spec)).pipe(Options.withPseudoName(spec.placeholder ?? "VALUE"));
  return spec.kind === "list" ? Options.repeated(one) : Options.map(Options.optional(one), Option.getOrUndefined);
};

/** The parser's options for a table. */
export const parser = <T extends Readonly<Record<string, OptionSpec>>>(specs: T): Options.Options<Parsed<T>> =>
  Options.all(Object.fromEntries(Object.entries(specs).map(([key, spec]) => [key, toOption(spec)]))) as Options.Options<
    Parsed<T>
  >;
