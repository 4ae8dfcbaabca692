/** Text that takes a known number of columns of a terminal, and does nothing else there. Pure. */
import { escapeUnits } from "./Escape.js";

/** What has no shape, joins its neighbour, or turns the direction of writing. */
const unsafe =
  /[^\p{L}\p{N}\p{P}\p{S} ]|[\u0590-\u08ff\u1160-\u11ff\ud7b0-\ud7ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]|\p{Emoji_Modifier}|\p{Regional_Indicator}/gu;

/** Two columns wide. Source: Unicode, EastAsianWidth.txt (W and F) by blocks, and emoji-data.txt. */
const wide =
  /[\p{Emoji_Presentation}\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18fff}\u{1b000}-\u{1b2ff}\u{1f200}-\u{1f2ff}\u{20000}-\u{3fffd}]/u;

const plain = /^[ -~]*$/;

/** A stranger's text without surprises; `ascii`: for terminals that show nothing else. */
export const clean = (text: string, ascii = false): string => {
  if (plain.test(text)) return text;
  return ascii ? text.replaceAll(/[^ -~]/gu, escapeUnits) : text.replaceAll(unsafe, escapeUnits);
};

/** Columns of clean text. */
export const width = (text: string): number => {
  if (plain.test(text)) return text.length;
  let columns = 0;
  for (const character of text) columns += wide.test(character) ? 2 : 1;
  return columns;
};

/** The first `columns` of clean text. */
export const cut = (text: string, columns: number): string => {
  if (columns <= 0) return "";
  if (plain.test(text)) return text.slice(0, columns);
  let used = 0;
  let out = "";
  for (const character of text) {
    used += wide.test(character) ? 2 : 1;
    if (used > columns) break;
    out += character;
  }
  return out;
};
