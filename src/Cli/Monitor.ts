/** `nameq monitor-features`: what the fleet offers, and how that changes, line by line. */
import * as Command from "@effect/cli/Command";
import * as Effect from "effect/Effect";
import { ownHost } from "../Address.js";
import type { Change } from "../FeatureTable.js";
import { escape, escapeForPeople } from "./Escape.js";
import * as Hangup from "./Hangup.js";
import * as Log from "./Log.js";
import * as Reader from "./Reader.js";
import { type CommandSpec, flag, parser } from "./Spec.js";
import * as Tree from "./Tree.js";

const options = {
  stateDir: Tree.stateDir,
  local: flag("local", `only this host's own features (host ${ownHost})`),
  json: Tree.json,
};

export const spec: CommandSpec = {
  name: "monitor-features",
  summary: "print the features of all hosts, then every change",
  operands: "",
  sections: [["Options", options]],
  notes: [
    "A line is NAME<tab>HOST<tab>VALUE. VALUE is compact JSON whose white space and non-printable characters are\nwritten as \\uXXXX; it is empty when the host no longer has the feature. This host itself is 127.0.0.1.",
    'With --json a line is {"feature":NAME,"host":HOST,"value":VALUE}, or with "removed":true in place of the\nvalue; {"booted":true} follows what was there at the start.',
    "It goes on until SIGHUP, SIGINT or SIGTERM, or until nobody reads its output. A slow reader misses\nintermediate values, never the last one.",
  ],
  examples: [
    ["nameq monitor-features", "watch the whole fleet"],
    [
      "nameq monitor-features | while IFS=$'\\t' read -r name host value; do ...; done",
      "do something at each change, in bash",
    ],
    ["nameq monitor-features --json | jq -c 'select(.feature==\"db\")'", "one feature, with jq"],
  ],
  interruptedStatus: 0,
};

/** A line for a change; nothing for one that is not printed. */
export const line = (change: Change): string => {
  switch (change._tag) {
    case "Added":
    case "Updated":
      return `${change.feature}\t${change.host}\t${escape(change.json)}\n`;
    case "Removed":
      return `${change.feature}\t${change.host}\t\n`;
    default:
      return "";
  }
};

/** The same as a JSON object with the exact value. */
export const jsonLine = (change: Change): string => {
  switch (change._tag) {
    case "Added":
    case "Updated":
      return `{"feature":"${change.feature}","host":"${change.host}","value":${escapeForPeople(change.json)}}\n`;
    case "Removed":
      return `{"feature":"${change.feature}","host":"${change.host}","removed":true}\n`;
    case "Booted":
      return '{"booted":true}\n';
    default:
      return "";
  }
};

export const command = () =>
  Command.make(spec.name, { options: parser(options) }, ({ options }) =>
    Tree.withTree(options.stateDir, (tree) =>
      Effect.gen(function* () {
        yield* Hangup.endsProgram;
        const { forEach } = yield* tree.subscribe();
        const format = options.json ? jsonLine : line;
        const shown = (change: Change): boolean => !options.local || !("host" in change) || change.host === ownHost;
        const print = forEach((changes) => {
          const text = changes.filter(shown).map(format).join("");
          return text === "" ? undefined : Reader.offer(text);
        });
        yield* Effect.raceFirst(print, Reader.readerGone);
      }).pipe(
        Effect.catchTag("ReaderGone", () => Effect.void),
        Effect.scoped,
        Effect.provide(Log.layer(spec.name)),
      ),
    ),
  ).pipe(Command.withDescription(spec.summary));
