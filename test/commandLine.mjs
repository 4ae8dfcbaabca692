/** The command lines of the programs for developers: `--help` prints the comment at a program's head. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

/** Ends the program because it was called wrongly. */
export const misused = (message) => {
  console.error(`${message}\n--help tells more`);
  process.exit(2);
};

/** `parseArgs` for the program whose `import.meta.url` is given. */
export const commandLine = (url, { options, ...more }) => {
  let parsed;
  try {
    parsed = parseArgs({ ...more, options: { ...options, help: { type: "boolean" } } });
  } catch (error) {
    // the rest is of Node's own `--`, which npm run takes away
    return misused(error.message.split(". ")[0]);
  }
  if (!parsed.values.help) return parsed;
  const [, comment] = /\/\*\*\n(.*?)\n \*\//s.exec(readFileSync(new URL(url), "utf8"));
  console.log(comment.replaceAll(/^ \* ?/gm, ""));
  return process.exit();
};
