/** The terminal of `nameq top`: taken for a while, drawn on, and given back as it was, however the program ends. */
import { writeSync } from "node:fs";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { StandardStreamError } from "./Output.js";
import * as Reader from "./Reader.js";
import type { Line, Style } from "./TopView.js";
import { width } from "./Width.js";

// the alternate screen, no cursor, no wrapping at the edge
const enter = "\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[2J";
const leave = "\u001b[0m\u001b[?7h\u001b[?25h\u001b[?1049l";

const plain: Readonly<Record<Style, string>> = { bold: "1", dim: "2", reverse: "7", red: "1", yellow: "1", green: "" };
const coloured: Readonly<Record<Style, string>> = { ...plain, red: "31", yellow: "33", green: "32" };

/** A line with the terminal's codes, which clears what stands behind it. */
export const paint = (line: Line, colours: boolean, columns: number): string => {
  let used = 0;
  let out = "";
  for (const { style, text } of line) {
    used += width(text);
    const code = style === undefined ? "" : (colours ? coloured : plain)[style];
    out += code === "" ? text : `\u001b[${code}m${text}\u001b[0m`;
  }
  // behind a full line the cursor is on its last character
  return used < columns ? `${out}\u001b[K` : out;
};

/** What brings a screen from some lines to others: only those that differ are written. Pure. */
export const difference = (before: ReadonlyArray<string>, after: ReadonlyArray<string>): string =>
  Array.from({ length: Math.max(before.length, after.length) }, (_, row) =>
    before[row] === after[row] ? "" : `\u001b[${row + 1};1H${after[row] ?? "\u001b[K"}`,
  ).join("");

export interface Screen {
  /** Shows these lines. Waits until the terminal has taken them. */
  readonly draw: (lines: ReadonlyArray<Line>) => Effect.Effect<void, Reader.ReaderGone | StandardStreamError>;
  /** Gives the terminal back, stops the program, and takes the terminal again when it goes on. */
  readonly suspend: Effect.Effect<void>;
  readonly size: () => { readonly columns: number; readonly rows: number };
}

/** Takes the terminal. `onKeys` is called with what is typed, `onSize` when its size or its picture is another. */
export const make = (options: {
  readonly colours: boolean;
  readonly onKeys: (text: string) => void;
  readonly onSize: () => void;
  readonly onEnd: () => void;
}): Effect.Effect<Screen, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { stdin, stdout } = process;
      let drawn: ReadonlyArray<string> = [];
      let taken = false;
      const size = () => ({ columns: stdout.columns || 80, rows: stdout.rows || 24 });
      const take = (): void => {
        taken = true;
        stdin.setRawMode(true);
        writeSync(1, enter);
        drawn = [];
      };
      const giveBack = (): void => {
        if (!taken) return;
        taken = false;
        try {
          writeSync(1, leave);
          stdin.setRawMode(false);
        } catch {
          // the terminal has gone
        }
      };
      const onResize = (): void => {
        if (!taken) return;
        writeSync(1, "\u001b[2J");
        drawn = [];
        options.onSize();
      };
      const onContinue = (): void => {
        // also after a stop that was not ours
        take();
        options.onSize();
      };
      const onKeys = (text: string): void => options.onKeys(text);
      stdin.setEncoding("utf8").on("data", onKeys).on("end", options.onEnd).on("error", options.onEnd);
      stdout.on("resize", onResize);
      process.on("SIGCONT", onContinue);
      // before it is told what failed
      process.prependListener("uncaughtException", giveBack);
      process.on("exit", giveBack);
      take();
      return {
        draw: (lines) =>
          Effect.suspend(() => {
            const next = lines.map((line) => paint(line, options.colours, size().columns));
            const text = difference(drawn, next);
            drawn = next;
            return text === "" || !taken ? Effect.void : Reader.write(text);
          }),
        suspend: Effect.sync(() => {
          giveBack();
          process.kill(process.pid, "SIGSTOP");
        }),
        size,
        close: () => {
          giveBack();
          stdin.off("data", onKeys).off("end", options.onEnd).off("error", options.onEnd).destroy();
          stdout.off("resize", onResize);
          process.off("SIGCONT", onContinue);
          process.off("uncaughtException", giveBack);
          process.off("exit", giveBack);
        },
      } satisfies Screen & { readonly close: () => void };
    }),
    ({ close }) => Effect.sync(close),
  );
