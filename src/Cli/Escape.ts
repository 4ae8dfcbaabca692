/** A line of output that holds any text and no surprises. Pure. */

/** Each UTF-16 unit as `\uXXXX`. */
export const escapeUnits = (text: string): string => {
  let out = "";
  for (let at = 0; at < text.length; at++) out += `\\u${text.charCodeAt(at).toString(16).padStart(4, "0")}`;
  return out;
};

/** White space, control characters, and what else has no shape of its own (unassigned, private, half of a pair). */
const shapeless = /[^\p{L}\p{M}\p{N}\p{P}\p{S}]/gu;

/**
 * Compact JSON text without white space and non-printable characters: each is written as `\uXXXX`, those above U+FFFF
 * as their two surrogates. It means the same, for such characters stand only inside strings.
 */
export const escape = (json: string): string =>
  /^[!-~]*$/.test(json) ? json : json.replaceAll(shapeless, escapeUnits);

/** The same with plain spaces left in, for people, and for JSON that may be looked at on a terminal. */
export const escapeForPeople = (json: string): string =>
  /^[ -~]*$/.test(json) ? json : json.replaceAll(shapeless, (c) => (c === " " ? c : escapeUnits(c)));
