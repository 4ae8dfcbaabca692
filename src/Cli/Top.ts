/** `nameq top`: a live view of a node on a terminal. The rest is loaded when it runs. */
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import type { Environment } from "./Argv.js";
import { faceOptions } from "./FaceOptions.js";
import { type CommandSpec, type Parsed, parser } from "./Spec.js";

/** The options as parsed. */
export type TopOptions = Parsed<typeof faceOptions>;

export const spec: CommandSpec = {
  name: "top",
  summary: "follow a node on the terminal: nodes, changes, what is wrong",
  operands: "",
  sections: [["Options", faceOptions]],
  notes: [
    "It follows the events of the node's HTTP face (nameq serve --http), and comes back to it when the node was\nrestarted. Nodes are as nameq status shows them; changes are the newest first.",
    "Keys: q quits, s sorts the nodes by another column, / filters nodes and changes by a text, the arrows, PageUp\nand PageDown scroll, ? shows all keys. Colours are left out when NO_COLOR is set.",
    "It ends with status 0 on q, SIGHUP, SIGINT and SIGTERM, and leaves the terminal as it was.",
  ],
  examples: [
    ["nameq top", "this host's node"],
    ["nameq top --http 10.0.0.7:17106", "another host's"],
  ],
  interruptedStatus: 0,
};

export const command = (environment: Environment) =>
  Command.make(spec.name, { options: parser(faceOptions) }, ({ options }) =>
    Effect.flatMap(
      Effect.promise(() => import("./TopRun.js")),
      ({ run }) => run(options, environment),
    ),
  ).pipe(Command.withDescription(spec.summary));
