/** Where log lines go and what they look like. */
import type { Writable } from "node:stream";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as HashMap from "effect/HashMap";
import * as Inspectable from "effect/Inspectable";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as LogLevel from "effect/LogLevel";
import * as Syslog from "./Syslog.js";

/** `auto` is `pretty` on a terminal and `logfmt` elsewhere. */
export type LogFormat = "auto" | "pretty" | "logfmt" | "json";

export interface LogSettings {
  /** Of the lines on standard error; syslog has its own. */
  readonly format: LogFormat;
  /** Whether debug messages are logged. */
  readonly debug: boolean;
  /** Log there instead of on standard error. */
  readonly syslog?: Syslog.SyslogTarget;
}

/** One thing that was logged. */
export interface LogEntry {
  /** Unix ms. */
  readonly timeMs: number;
  readonly level: LogLevel.LogLevel;
  /** Without control characters: some of it may be a stranger's text. */
  readonly message: string;
  readonly annotations: ReadonlyArray<readonly [key: string, value: string]>;
}

const printable = (text: string): string =>
  text.replaceAll(/\p{Cc}/gu, (c) => (c === "\n" || c === "\t" ? " " : "\uFFFD"));

const textOf = (value: unknown): string =>
  printable(value instanceof Error ? value.message : Inspectable.toStringUnknown(value, 0));

const entryOf = ({ annotations, cause, date, logLevel, message }: Logger.Logger.Options<unknown>): LogEntry => ({
  timeMs: date.getTime(),
  level: logLevel,
  message: [
    ...(Array.isArray(message) ? message : [message]).map(textOf),
    ...Cause.prettyErrors(cause).map((error) => printable(error.message)),
  ].join(" "),
  annotations: [...HashMap.entries(annotations)].map(([key, value]) => [key, textOf(value)]),
});

const pair = ([key, value]: readonly [string, string]): string =>
  `${key}=${/^[^\s"=\\]+$/.test(value) ? value : JSON.stringify(value)}`;

/** The message and its annotations. */
const sentence = ({ annotations, message }: LogEntry): string => [message, ...annotations.map(pair)].join(" ");

const name = ({ level }: LogEntry): string => level.label.toLowerCase();

const colourOf = (level: LogLevel.LogLevel): string =>
  level.ordinal >= LogLevel.Error.ordinal ? "31" : level.ordinal >= LogLevel.Warning.ordinal ? "33" : "2";

const time = ({ timeMs }: LogEntry): string => new Date(timeMs).toISOString();

/** The formats, each one line without its end. */
export const formats = {
  pretty: (entry: LogEntry, colours = false): string => {
    const label = entry.level.label.padEnd(5);
    return `${time(entry).slice(11, 23)} ${colours ? `\x1b[${colourOf(entry.level)}m${label}\x1b[0m` : label} ${sentence(entry)}`;
  },
  logfmt: (entry: LogEntry): string =>
    [`time=${time(entry)}`, `level=${name(entry)}`, pair(["msg", entry.message]), ...entry.annotations.map(pair)].join(
      " ",
    ),
  json: (entry: LogEntry): string => {
    const fields = { time: time(entry), level: name(entry), msg: entry.message };
    return JSON.stringify({ ...fields, ...Object.fromEntries(entry.annotations), ...fields });
  },
};

/** Severities of RFC 5424. */
const severityOf = (level: LogLevel.LogLevel): Syslog.Severity =>
  level.ordinal >= LogLevel.Fatal.ordinal
    ? 2
    : level.ordinal >= LogLevel.Error.ordinal
      ? 3
      : level.ordinal >= LogLevel.Warning.ordinal
        ? 4
        : level.ordinal >= LogLevel.Info.ordinal
          ? 6
          : 7;

/** What may wait for a reader who is slow, characters. More is dropped. */
const pendingLimit = 65_536;

/** A late error of a closed stream must not end the program: who reads no log needs none. */
const ignore = (): void => {};

/**
 * Lines to a stream that may be closed or blocked: what does not fit is dropped, and counted in a line when there is room
 * again. Never waits, never throws.
 */
export const writer = (stream: Writable, format: (entry: LogEntry) => string): ((entry: LogEntry) => void) => {
  let lost = 0;
  if (!stream.listeners("error").includes(ignore)) stream.on("error", ignore);
  return (entry) => {
    if (stream.destroyed) return;
    if (stream.writableLength > pendingLimit) {
      lost++;
      return;
    }
    if (lost > 0) {
      const message = `${lost} log lines were lost: nobody read them in time`;
      stream.write(`${format({ timeMs: entry.timeMs, level: LogLevel.Warning, message, annotations: [] })}\n`);
      lost = 0;
    }
    stream.write(`${format(entry)}\n`);
  };
};

/** A logger over a writer. */
export const logger = (write: (entry: LogEntry) => void): Logger.Logger<unknown, void> =>
  Logger.make((options) => write(entryOf(options)));

const stderrWriter = (format: LogFormat): ((entry: LogEntry) => void) => {
  const { isTTY } = process.stderr;
  const chosen = format === "auto" ? (isTTY ? "pretty" : "logfmt") : format;
  const colours = isTTY && !process.env["NO_COLOR"];
  return writer(process.stderr, chosen === "pretty" ? (entry) => formats.pretty(entry, colours) : formats[chosen]);
};

/** Replaces the default logger. Fails when the local syslog cannot be used. */
export const layer = (settings: LogSettings): Layer.Layer<never, Syslog.SyslogError> =>
  Layer.unwrapScoped(
    Effect.gen(function* () {
      const local = stderrWriter(settings.format);
      let write = local;
      if (settings.syslog !== undefined) {
        const send = yield* Syslog.make(settings.syslog, (timeMs, message) =>
          local({ timeMs, level: LogLevel.Warning, message, annotations: [] }),
        );
        write = (entry) => send({ timeMs: entry.timeMs, severity: severityOf(entry.level), text: sentence(entry) });
      }
      return Layer.merge(
        Logger.replace(Logger.defaultLogger, logger(write)),
        Logger.minimumLogLevel(settings.debug ? LogLevel.Debug : LogLevel.Info),
      );
    }),
  );
