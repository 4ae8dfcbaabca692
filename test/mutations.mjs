/**
 * Breaks the node's rules on purpose, one at a time, and shows that the simulation catches each:
 * `node test/mutations.mjs [words of a mutation's name]`. Ends with status 1 when one is not caught.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { bundle } from "./bundle.mjs";

/** Which tier sees it (`rules` alone or `whole` nodes), what is broken, in which file, what text becomes what. */
const mutations = [
  ["rules", "nothing is broken", "Membership.ts", "", ""],
  ["whole", "nothing is broken", "Membership.ts", "", ""],
  [
    "rules",
    "equal time_ns is news",
    "Membership.ts",
    "halves[low]! >>> 0 <= this.timeLow >>> 0",
    "halves[low]! >>> 0 < this.timeLow >>> 0",
  ],
  ["rules", "older time_ns is news", "Membership.ts", "peer.has(announcement.timeNs) &&", "false &&"],
  [
    "rules",
    "an expired peer's files stay",
    "Membership.ts",
    "this.show(peer.address, Feature.empty, peer.features, false);",
    "",
  ],
  [
    "rules",
    "no goodbye",
    "Membership.ts",
    "this.own = Feature.empty;\n    this.announceAll(now, { leaving: true });",
    "this.own = Feature.empty;",
  ],
  [
    "rules",
    "no announcement at a change",
    "Membership.ts",
    "this.announceAll(now);\n    this.putSoon(now);",
    "this.putSoon(now);",
  ],
  [
    "rules",
    "foreign objects are deleted",
    "Membership.ts",
    "if (this.foreign.size < maxConditions)",
    'this.out.push({ _tag: "Delete", address });\n      if (this.foreign.size < maxConditions)',
  ],
  [
    "rules",
    "objects of living nodes are deleted",
    "Membership.ts",
    "if (ageMs > this.settings.expiryMs) {\n      if (peer === undefined || peer.silent)",
    "if (ageMs > 60_000) {\n      if (true)",
  ],
  [
    "rules",
    "no jitter",
    "Membership.ts",
    "return least + this.random() * (most - least);",
    "return (least + most) / 2;",
  ],
  [
    "rules",
    "no origin check",
    "Membership.ts",
    "if (address === undefined || address !== source)",
    "if (address === undefined)",
  ],
  ["rules", "the future is believed", "Membership.ts", "return timeNs - now.wallNs > this.futureNs;", "return false;"],
  [
    "rules",
    "an unchanged object is not put again",
    "Membership.ts",
    "(doubtful ? slowPutMs : this.between(this.settings.refreshMs))",
    "never",
  ],
  [
    "rules",
    "a failed put is not tried again",
    "Membership.ts",
    "this.put.dueMs = now.monoMs + this.backoff(this.put.failures++);",
    "this.put.dueMs = never;",
  ],
  ["rules", "registry news beats newer datagrams", "Membership.ts", "if (peer.has(timeNs)) return;", ""],
  [
    "rules",
    "late puts bring forgotten nodes back",
    "Membership.ts",
    "if (last !== undefined && timeNs <= last.timeNs && now.monoMs < last.untilMs) return;",
    "void last;",
  ],
  [
    "rules",
    "a new peer is not answered",
    "Membership.ts",
    "if (this.reachable(address)) this.announceTo([address], now, { ask });",
    "",
  ],
  ["rules", "never answers who asks", "Membership.ts", "if (remarks.ask) this.answer(peer, now);", ""],
  [
    "rules",
    "answers as often as it is asked",
    "Membership.ts",
    "now.monoMs - peer.answeredMs < answerSpacingMs",
    "false",
  ],
  [
    "rules",
    "timers of peers pile up",
    "Membership.ts",
    "peer.heardMs = peer.udpMs = now.monoMs;",
    "peer.heardMs = peer.udpMs = now.monoMs;\n    this.timers.push(now.monoMs + 600_000, { peer, timer: 0 });",
  ],
  [
    "whole",
    "renamed before the write ends",
    "StateTree.ts",
    "files.write(temporary, text);",
    'files.write(temporary, "");\n      files.rename(temporary, path);\n      files.unlink(path);\n      files.write(temporary, text);',
  ],
  ["whole", "found files go at once at a restart", "StateTree.ts", "firm = settled,", "firm = true,"],
  [
    "whole",
    "a failed write is not tried again",
    "StateTree.ts",
    "if (codes.size > 0) againAtMs =",
    "if (codes.size > 1e9) againAtMs =",
  ],
  [
    "whole",
    "a failed put is not told",
    "Daemon.ts",
    'onFailure: (error) => step({ _tag: "PutFailed", problem: error.message }),',
    "onFailure: () => {},",
  ],
  [
    "rules",
    "an object from ahead is believed",
    "Membership.ts",
    "owner !== undefined && owner - putNs <= this.futureNs",
    "owner !== undefined && !this.isAhead(owner, now)",
  ],
  [
    "rules",
    "no goodbye in the registry",
    "Membership.ts",
    "if (this.put.startedMs > -never) {",
    "if (this.put.startedMs > never) {",
  ],
  [
    "whole",
    "the HMAC is not checked",
    "Packet.ts",
    "if (timingSafeEqual(mac(key.secret, bytes.subarray(0, end)), bytes.subarray(end))) return undefined;",
    "if (end > 0 && timingSafeEqual !== undefined) return undefined;",
  ],
];

const wanted = process.argv.slice(2).join(" ");
let missed = 0;
console.log("tier  | broken                                | caught by");
for (const [tier, name, file, from, to] of mutations) {
  if (!name.includes(wanted)) continue;
  let applied = from === "";
  const outfile = await bundle("mutationDriver.ts", [
    {
      name: "mutate",
      setup: ({ onLoad }) =>
        onLoad({ filter: /\/src\/[A-Za-z]+\.ts$/ }, ({ path }) => {
          if (basename(path) !== file || from === "") return undefined;
          const text = readFileSync(path, "utf8");
          applied = text.includes(from);
          return { contents: text.replace(from, () => to), loader: "ts" };
        }),
    },
  ]);
  const sound = from === "";
  if (!applied) {
    missed++;
    console.log(`${tier.padEnd(5)} | ${name.padEnd(37)} | THE RULE'S TEXT IS NOT THERE ANY MORE: mend this table`);
    continue;
  }
  const seeds = tier === "whole" ? (sound ? 4 : 40) : sound ? 200 : 3_000;
  const { stdout, stderr } = spawnSync(process.execPath, [outfile, tier, String(seeds)], {
    encoding: "utf8",
    timeout: 300_000,
  });
  const answer = stdout === "" ? undefined : JSON.parse(stdout);
  const verdict =
    answer === undefined
      ? `NO ANSWER ${stderr.slice(0, 200)}`
      : answer.found === ""
        ? `${sound ? "nothing" : "NOTHING"}, in ${answer.seed} seeds`
        : `${answer.known ? "regression" : "seed"} ${answer.seed}: ${answer.found.slice(0, 120)}`;
  if (answer === undefined || (answer.found === "") !== sound) missed++;
  console.log(`${tier.padEnd(5)} | ${name.padEnd(37)} | ${verdict}`);
}
process.exitCode = missed === 0 ? 0 : 1;
