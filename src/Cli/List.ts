/** `nameq list`: what is known now. */
import * as Args from "@effect/cli/Args";
import * as Command from "@effect/cli/Command";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import { isatty } from "node:tty";
import type { FeatureValue } from "../Feature.js";
import type { Features } from "../FeatureTable.js";
import { escape, escapeForPeople } from "./Escape.js";
import { print } from "./Output.js";
import { type CommandSpec, flag, parser } from "./Spec.js";
import * as Tree from "./Tree.js";
import { cut, width } from "./Width.js";

const options = {
  stateDir: Tree.stateDir,
  names: flag("names", "print only the features' names, one a line"),
  json: Tree.json,
};

export const spec: CommandSpec = {
  name: "list",
  summary: "print the features of all hosts as they are now",
  operands: "[FEATURE]",
  sections: [["Options", options]],
  notes: [
    "On a terminal it is a table; else a line is NAME<tab>HOST<tab>VALUE, as monitor-features prints it. This\nhost itself is 127.0.0.1.",
    'With --json a line is {"feature":NAME,"host":HOST,"value":VALUE}.',
  ],
  examples: [
    ["nameq list", "everything"],
    ["nameq list web | cut -f2", "the hosts that serve the web"],
  ],
  interruptedStatus: 130,
};

/** There is no tree. */
export class NoTree extends Data.TaggedError("NoTree")<{ readonly message: string }> {}

/** One line of the list. */
export type Row = readonly [feature: string, host: string, value: FeatureValue];

/** By feature, then by address. */
const rowsOf = (features: Features): ReadonlyArray<Row> =>
  [...features]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([feature, hosts]) =>
      [...hosts].toSorted(([a], [b]) => Tree.byAddress(a, b)).map(([host, { value }]): Row => [feature, host, value]),
    );

/** A table that is at most `columns` wide: values are cut. */
export const table = (rows: ReadonlyArray<Row>, columns: number): string => {
  const cells = [
    ["FEATURE", "HOST", "VALUE"] as const,
    ...rows.map(([f, h, v]) => [f, h, escapeForPeople(v)] as const),
  ];
  const widest = (column: 0 | 1): number => cells.reduce((most, row) => Math.max(most, row[column].length), 0);
  const [first, second] = [widest(0), widest(1)];
  return cells
    .map(([feature, host, text]) => {
      const line = `${feature.padEnd(first)}  ${host.padEnd(second)}  ${text}`;
      return `${width(line) <= columns ? line : `${cut(line, columns - 1)}\u2026`}\n`;
    })
    .join("");
};

export const command = () =>
  Command.make(
    spec.name,
    { options: parser(options), feature: Args.text({ name: "FEATURE" }).pipe(Args.optional) },
    ({ feature, options }) =>
      Effect.gen(function* () {
        const only = Option.isSome(feature) ? yield* Tree.parseNames("FEATURE", [feature.value]) : undefined;
        const { features, problems } = yield* Tree.withTree(options.stateDir, (tree) => tree.read(only));
        const missing = problems.find(({ reason }) => reason === "Missing");
        if (missing !== undefined) return yield* new NoTree({ message: missing.message });
        yield* Tree.warn(spec.name, problems);
        const rows = rowsOf(features);
        if (options.names) return yield* print([...new Set(rows.map(([name]) => `${name}\n`))].join(""));
        if (!options.json && isatty(1)) return yield* print(table(rows, process.stdout.columns || 80));
        const line = options.json
          ? ([name, host, json]: Row) => `{"feature":"${name}","host":"${host}","value":${escapeForPeople(json)}}\n`
          : ([name, host, json]: Row) => `${name}\t${host}\t${escape(json)}\n`;
        yield* print(rows.map(line).join(""));
      }),
  ).pipe(Command.withDescription(spec.summary));
