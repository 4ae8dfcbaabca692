/** The program `nameq`: runs the command line, and is the only place that reports what failed. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import * as Exit from "effect/Exit";
import { closeSync, fstatSync, writeSync } from "node:fs";
import { isatty } from "node:tty";
import * as Cli from "./Cli.js";
import { version } from "./Version.js";

const argv = process.argv.slice(2);

const complain = (text: string): void => {
  try {
    writeSync(2, text);
  } catch {
    // standard error is closed or blocked: the status still tells
  }
};

// a mistake of ours outside every fiber: Node would print a whole minified line of the program
process.on("uncaughtException", (error) => {
  complain(`nameq: this is a bug, please report it: ${error.stack ?? String(error)}\n`);
  process.exit(1);
});

// Node gives terminals their modes back at its end, and aborts where one has gone: of that one it must not know
process.on("exit", () => {
  for (const fd of [0, 1, 2]) {
    try {
      if (!isatty(fd) && fstatSync(fd).isCharacterDevice()) closeSync(fd);
    } catch {
      // it is closed already
    }
  }
});

NodeRuntime.runMain(
  Cli.run(argv, {
    environment: process.env,
    version,
    loadNode: () => import("./Serve.js"),
  }),
  {
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, end) => {
      if (Exit.isSuccess(exit)) return end(0);
      const { status, text } = Cli.report(argv, exit.cause);
      complain(text);
      end(status);
    },
  },
);
