import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import { spawnSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ensureBuilt, program } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

const tree = new StateDirectory({ "web/10.0.0.1": "1", "web-admin/10.0.0.1": "1", "db/10.0.0.2": "1" });
beforeAll(ensureBuilt, 60_000);
afterAll(() => tree.dispose());

/** What bash offers for the last of these words. */
const complete = (...words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const nameq = join(tree.path, "nameq");
  writeFileSync(nameq, `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`);
  chmodSync(nameq, 0o755);
  const list = words.map((word) => `'${word}'`).join(" ");
  const script = `source <(nameq --completions bash); COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}
    f=$(complete -p nameq | grep -o -- '-F [^ ]*'); "\${f#-F }" nameq "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stderr, stdout } = spawnSync("bash", ["--norc", "-c", script], {
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    env: { PATH: `${tree.path}:${process.env["PATH"]}`, NAMEQ_STATE_DIR: tree.path },
  });
  assert.strictEqual(stderr, "");
  return stdout.split("\n").filter((line) => line !== "");
};

describe("completions for bash", () => {
  it("offer the names of the features that there are", () => {
    assert.deepStrictEqual(complete("nameq", "list", "w"), ["web", "web-admin"]);
    assert.deepStrictEqual(complete("nameq", "find-features", "db", "web-"), ["web-admin"]);
    assert.includeMembers([...complete("nameq", "feature", "")], ["db", "web", "--rm"]);
  });

  it("offer no names to commands that take none", () => {
    assert.deepStrictEqual(complete("nameq", "monitor-features", "w"), []);
    assert.deepStrictEqual(complete("nameq", "mon"), ["monitor-features"]);
  });
});
