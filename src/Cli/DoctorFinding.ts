/** What the doctor found. Pure. */
import { escapeForPeople } from "./Escape.js";

/** `skip`: not looked at, for want of something. */
export type Level = "ok" | "warn" | "fail" | "skip";

/** One thing that was looked at. */
export interface Finding {
  /** A short name for scripts, which stays. */
  readonly check: string;
  readonly level: Level;
  readonly message: string;
  /** What to do. */
  readonly fix?: string;
}

const found =
  (level: Level) =>
  (check: string, message: string, fix?: string): Finding => ({
    check,
    level,
    message,
    ...(fix !== undefined && { fix }),
  });

export const ok = found("ok");
export const warn = found("warn");
export const fail = found("fail");
export const skip = found("skip");

const words: Readonly<Record<Level, string>> = { ok: "ok  ", warn: "warn", fail: "FAIL", skip: "skip" };

/** A line for people. Texts may come from strangers. */
export const line = ({ check, fix, level, message }: Finding): string =>
  escapeForPeople(`${words[level]} ${check}: ${message}${fix === undefined ? "" : ` -> ${fix}`}`);

/** The same for programs. */
export const jsonLine = (finding: Finding): string => escapeForPeople(JSON.stringify(finding));

/** The first few of many, in words. */
export const some = (all: ReadonlyArray<string>, most = 5): string =>
  all.length <= most ? all.join(", ") : `${all.slice(0, most).join(", ")} and ${all.length - most} more`;
