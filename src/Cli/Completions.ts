/** The names of features in the completions for bash and fish. Pure. */

/** What prints them, whenever they are asked for. */
const source = "nameq list --names 2>/dev/null";

/** Commands whose operands are names of features. */
const commands = new Set(["feature", "find-features", "list"]);

/** The generated script with the features' names among the words that these commands take. */
export const offerNames = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.map((line, at) => {
    const bash = /^\s*nameq__(\S+)\)$/.exec(lines[at - 1] ?? "")?.[1]?.replaceAll("__", "-");
    if (bash !== undefined && commands.has(bash)) return line.replace(/^(\s*opts=".*)"$/, `$1 $(${source})"`);
    const fish = /^complete -c nameq -n "__fish_seen_subcommand_from (\S+)" -r -f$/.exec(line)?.[1];
    return fish !== undefined && commands.has(fish) ? `${line} -a "(${source})"` : line;
  });
