/** What people read: values, ages, offsets. Pure. */
import { indent } from "../Json.js";

/** Bidirectional controls, invisible characters and line separators: they could make a value look like another. */
const deceptive = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;

/** Text that shows every character: those that are invisible or turn the text round stand as JSON escapes. */
export const visible = (text: string): string =>
  text.replaceAll(deceptive, (found) =>
    found
      .split("")
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join(""),
  );

/** A part of a JSON text. `text` is exact. */
export interface Token {
  readonly kind: "key" | "string" | "number" | "word" | "mark" | "space";
  readonly text: string;
}

const token = /("(?:[^"\\]|\\.)*"?)(\s*:)?|(-?\d[^\s,\]}]*)|([a-z]+)|(\s+)|([^])/g;

/** Cuts JSON text into tokens, whose texts together are the text. */
export const tokens = (json: string): Array<Token> => {
  const found: Array<Token> = [];
  for (const [, quoted, colon, number, word, space, mark] of json.matchAll(token)) {
    if (quoted !== undefined) {
      found.push({ kind: colon === undefined ? "string" : "key", text: quoted });
      if (colon !== undefined) found.push({ kind: "mark", text: colon });
    } else if (number !== undefined) found.push({ kind: "number", text: number });
    else if (word !== undefined) found.push({ kind: "word", text: word });
    else if (space !== undefined) found.push({ kind: "space", text: space });
    else found.push({ kind: "mark", text: mark ?? "" });
  }
  return found;
};

/** The characters that canonical JSON escapes for HTML's sake, which this page does not need. */
const unescapeHtml = (json: string): string =>
  json.includes("\\u00")
    ? json.replaceAll(/(\\\\)|\\u00(3c|3e|26)/g, (all, pair: string | undefined, code: string) =>
        pair === undefined ? String.fromCharCode(Number.parseInt(code, 16)) : all,
      )
    : json;

/** Longest preview, in characters. */
export const previewLength = 120;

/** One short line for a value: an object without its braces and its keys' quotes, everything else as it stands. */
export const preview = (json: string): string => {
  const head = unescapeHtml(json.slice(0, previewLength * 2));
  const whole = json.length <= previewLength * 2;
  let text = "";
  if (json.startsWith("{") && json.length > 2) {
    const parts = tokens(whole ? head.slice(1, -1) : head.slice(1));
    let depth = 0;
    for (const { kind, text: part } of parts) {
      if (kind === "key") text += /^"[\w.-]+"$/.test(part) ? part.slice(1, -1) : part;
      else if (kind === "mark") {
        if (part === "{" || part === "[") depth++;
        if (part === "}" || part === "]") depth--;
        text += part === "," || part === ":" ? `${part}${depth === 0 || part === ":" ? " " : ""}` : part;
      } else text += part;
      if (text.length > previewLength) break;
    }
  } else text = head;
  text = visible(text);
  return text.length > previewLength || !whole ? `${text.slice(0, previewLength)}…` : text;
};

/** Longest text that is indented and coloured; a longer one is shown as it stands, so that the page stays quick. */
const proseLimit = 20_000;

/** The whole value for reading: indented by two spaces, token by token, every number and escape as it stands. */
export const pretty = (json: string): ReadonlyArray<Token> => {
  const whole = json.length <= proseLimit ? indent(json, proseLimit * 4) : undefined;
  if (whole === undefined) return [{ kind: "space", text: visible(json) }];
  return tokens(whole.replaceAll("\t", "  ")).map(({ kind, text }) => ({ kind, text: visible(text) }));
};

/** Whether a value's text has `wanted` (in lower case) in it, as it stands or as it is shown. */
export const matches = (json: string, wanted: string): boolean => {
  const text = json.toLowerCase();
  return text.includes(wanted) || (text.includes("\\u00") && unescapeHtml(text).includes(wanted));
};

/** How long something takes or is ago: "now", "12 s", "5 min", "3 h", "2 days". */
export const age = (ms: number): string => {
  if (ms < 1_000) return "now";
  if (ms < 60_000) return `${Math.floor(ms / 1_000)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} days`;
};

/** "ago" where that is English. */
export const ago = (ms: number): string => (ms < 1_000 ? "now" : `${age(ms)} ago`);

/** A duration of a fraction of a second or more: "1.8 ms", "340 ms", "2.4 s". */
export const milliseconds = (ms: number): string => {
  const size = Math.abs(ms);
  if (size >= 9_999.5) return `${Math.round(ms / 1_000).toLocaleString("en-GB")} s`;
  if (size >= 999.5) return `${(ms / 1_000).toFixed(1)} s`;
  return size >= 9.95 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
};

/** A signed one, with a true minus. */
export const offset = (ms: number): string => {
  const text = milliseconds(Math.abs(ms));
  return /^0(?:\.0)? /.test(text) ? text : `${ms < 0 ? "−" : "+"}${text}`;
};

/** Thousands apart by a thin space. */
export const count = (n: number): string => String(n).replaceAll(/\B(?=(?:\d{3})+$)/g, "\u2009");

/** "1 host", "2 hosts". */
export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;

/** Time of day with seconds, of the browser's zone. */
export const clock = (at: number): string => new Date(at).toLocaleTimeString("en-GB");

/** Orders addresses by number: IPv4 first, then IPv6 as text. */
export const addressKey = (address: string): string =>
  address.includes(":") ? `~${address}` : address.replaceAll(/\d+/g, (digits) => digits.padStart(3, "0"));
