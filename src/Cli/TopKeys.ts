/** What the keys of `nameq top` do. Pure. */
import { type Choices, type Picture, sorts } from "./TopView.js";

/** A key as a terminal sends it: a name for what is no character. */
export type Key = string;

const names: Readonly<Record<string, Key>> = {
  "\u001b[A": "up",
  "\u001bOA": "up",
  "\u001b[B": "down",
  "\u001bOB": "down",
  "\u001b[5~": "page-up",
  "\u001b[6~": "page-down",
  "\u001b[H": "home",
  "\u001bOH": "home",
  "\u001b[1~": "home",
  "\u001b[F": "end",
  "\u001bOF": "end",
  "\u001b[4~": "end",
  "\u001b": "escape",
  "\r": "enter",
  "\n": "enter",
  "\u007f": "backspace",
  "\b": "backspace",
  "\u0003": "interrupt",
  "\u001a": "suspend",
  "\u0015": "clear",
};

/** A control sequence, a single shift, or any character. Source: ECMA-48, section 5.4. */
const escape = "\u001b";
const one = new RegExp(`${escape}\\[[0-9;?]*[ -/]*[@-~]|${escape}O[A-Z]|[^]`, "gu");

/** The keys in what the terminal sent. */
export const keysOf = (text: string): ReadonlyArray<Key> => (text.match(one) ?? []).map((key) => names[key] ?? key);

/** What a key asks for: other choices, or something of the program. */
export const press = (key: Key, choices: Choices, { maxScroll, page }: Picture): Choices | "quit" | "suspend" => {
  if (key === "interrupt") return "quit";
  if (key === "suspend") return "suspend";
  if (choices.typing) {
    const { filter } = choices;
    if (key === "enter") return { ...choices, typing: false };
    if (key === "escape") return { ...choices, typing: false, filter: "", scroll: 0 };
    if (key === "backspace") return { ...choices, filter: [...filter].slice(0, -1).join(""), scroll: 0 };
    if (key === "clear") return { ...choices, filter: "", scroll: 0 };
    // one visible character; names of other keys are longer
    return /^[^\p{C}\p{Z}]$|^ $/u.test(key) && filter.length < 64
      ? { ...choices, filter: filter + key, scroll: 0 }
      : choices;
  }
  const to = (scroll: number): Choices => ({ ...choices, scroll: Math.max(0, Math.min(maxScroll, scroll)) });
  const from = Math.min(choices.scroll, maxScroll);
  switch (key) {
    case "q":
      return "quit";
    case "s":
      return { ...choices, sort: sorts[(sorts.indexOf(choices.sort) + 1) % sorts.length]!, scroll: 0 };
    case "/":
    case "f":
      return { ...choices, typing: true, help: false };
    case "?":
    case "h":
      return { ...choices, help: !choices.help };
    case "escape":
      return choices.help ? { ...choices, help: false } : { ...choices, filter: "", scroll: 0 };
    case "up":
    case "k":
      return to(from - 1);
    case "down":
    case "j":
      return to(from + 1);
    case "page-up":
      return to(from - page);
    case "page-down":
    case " ":
      return to(from + page);
    case "home":
    case "g":
      return to(0);
    case "end":
    case "G":
      return to(maxScroll);
    default:
      return choices;
  }
};
