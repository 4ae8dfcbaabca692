/** `nameq status`: how this host's node is. The rest is loaded when it runs. */
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import { faceOptions } from "./FaceOptions.js";
import { type CommandSpec, flag, type Parsed, parser } from "./Spec.js";

const output = {
  nodes: flag("nodes", "print all nodes, however many they are"),
  json: flag("json", "print one JSON object"),
};
const options = { ...output, ...faceOptions };

/** The options as parsed. */
export type StatusOptions = Parsed<typeof options>;

export const spec: CommandSpec = {
  name: "status",
  summary: "print how this host's node is, and which nodes it sees",
  operands: "",
  sections: [
    ["Options", output],
    ["Node", faceOptions],
  ],
  notes: [
    "It asks the node's HTTP face (nameq serve --http). Without one it says what the state directory shows: whether\na node runs there, the hosts and their features, and when these last changed.",
    "A node is alive, silent (no datagram for 45 seconds; the registry is asked for it), left (it said goodbye) or\nforgotten (no news for 15 minutes). Of more than 40 nodes only those that are not alive are printed.",
    'With --json it is what GET /v1/nodes answers, with "source":"http" before it; or {"source":"tree",...}.',
    "Exit status: 0 when a node runs, ready and without errors; 3 when it runs but is not ready yet, or has an\nerror; 1 when none runs, or that cannot be told; 2 when the command line is wrong. Without the HTTP face a\nnode that runs is 0, and one that does not answer 3.",
  ],
  examples: [
    ["nameq status", "this host's node"],
    ["nameq status --http 10.0.0.7:17106 --nodes", "another host's node, with all that it sees"],
    ["nameq status --json | jq '.nodes[] | select(.state != \"alive\")'", "the nodes that are missing, with jq"],
  ],
  interruptedStatus: 130,
};

export const command = () =>
  Command.make(spec.name, { options: parser(options) }, ({ options }) =>
    Effect.flatMap(
      Effect.promise(() => import("./StatusReport.js")),
      ({ report }) => report(options),
    ),
  ).pipe(Command.withDescription(spec.summary));
