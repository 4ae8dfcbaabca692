/** Help texts, made of the commands' specs. Plain text: no colours, so that pipes, files and NO_COLOR need no care. Pure. */
import { type CommandSpec, type OptionSpec, optionsOf, variableOf } from "./Spec.js";

const indented = (text: string, by: number): string =>
  text
    .split("\n")
    .map((line) => " ".repeat(by) + line)
    .join("\n");

const column = 28;

const entry = (head: string, text: string): string => {
  const body = indented(text, column);
  return head.length + 2 < column ? `  ${head}${body.slice(head.length + 2)}` : `  ${head}\n${body}`;
};

const optionEntry = (option: OptionSpec): string =>
  entry(
    `--${option.name}${option.placeholder === undefined ? "" : ` ${option.placeholder}`}`,
    option.choices === undefined ? option.help : `${option.choices.join(" | ")}: ${option.help}`,
  );

const examples = (command: CommandSpec): string =>
  `Examples:\n${command.examples.map(([line, purpose]) => `  # ${purpose}\n${indented(line, 2)}`).join("\n")}`;

const paragraphs = (parts: ReadonlyArray<string>): string => `${parts.filter((part) => part !== "").join("\n\n")}\n`;

/** The usage line. */
export const usage = (command: CommandSpec): string =>
  `nameq ${command.name} [OPTIONS]${command.operands === "" ? "" : ` ${command.operands}`}`;

/** What `nameq COMMAND --help` prints. */
export const ofCommand = (command: CommandSpec): string => {
  const sample = optionsOf(command)[0];
  return paragraphs([
    `nameq ${command.name}: ${command.summary}`,
    `Usage: ${usage(command)}`,
    ...command.sections.map(
      ([heading, options]) => `${heading}:\n${Object.values(options).map(optionEntry).join("\n")}`,
    ),
    ...command.notes,
    sample === undefined
      ? ""
      : `Every option can come from the environment instead: --${sample.name} from ${variableOf(sample)}, and so on.`,
    command.examples.length === 0 ? "" : examples(command),
  ]);
};

/** What `nameq --help` prints. */
export const ofProgram = (version: string, commands: ReadonlyArray<CommandSpec>): string =>
  paragraphs([
    `nameq ${version}: every host advertises features, every host sees them as files`,
    "Usage: nameq COMMAND [OPTIONS] [OPERANDS]",
    `Commands:\n${commands.map(({ name, summary }) => entry(name, summary)).join("\n")}`,
    `Options:\n${[
      entry("--help", "this text; nameq COMMAND --help tells about a command"),
      entry("--version", "the version"),
      entry(
        "--completions SHELL",
        "bash | zsh | fish: completions for a shell, such as\nsource <(nameq --completions bash)",
      ),
    ].join("\n")}`,
    "Exit status: 0; 1 when something failed; 2 when the command line is wrong.",
  ]);
