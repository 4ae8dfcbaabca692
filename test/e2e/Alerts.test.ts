/** The README's alert rules, read by Prometheus' own tool. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it } from "@effect/vitest";
import { install } from "./Namespaces.js";

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const rules = /```yaml\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
const directory = mkdtempSync(join(tmpdir(), "nameq-alerts-"));
afterAll(() => rmSync(directory, { recursive: true }));

const promtool = (...args: ReadonlyArray<string>) => spawnSync("promtool", args, { cwd: directory, encoding: "utf8" });

/** Of one host, a sample a minute: five healthy ones, then ten of this. */
const series = (metric: string, healthy: number, ill: number): string =>
  `      - series: '${metric}'\n        values: '${healthy}x5 ${ill}x10'\n`;

describe.skipIf(!install("promtool", "prometheus"))("the README's alert rules", () => {
  it("are ones that Prometheus takes", () => {
    writeFileSync(join(directory, "rules.yml"), rules);
    const { status, stderr, stdout } = promtool("check", "rules", "rules.yml");
    assert.strictEqual(status, 0, stderr);
    assert.match(stdout, /SUCCESS: 7 rules found/);
  });

  it("fire when a third of the nodes falls silent, and not before", () => {
    const of = (state: string): string => `nameq_nodes{instance="a",job="nameq",state="${state}"}`;
    writeFileSync(
      join(directory, "test.yml"),
      `rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
${series(of("alive"), 9, 6)}${series(of("silent"), 0, 3)}    alert_rule_test:
      - eval_time: 5m
        alertname: NameqPeersSilent
      - eval_time: 15m
        alertname: NameqPeersSilent
        exp_alerts:
          - exp_labels: { instance: a }
            exp_annotations:
              summary: "a hears less than nine of ten nodes by UDP: a split, or a firewall"
`,
    );
    const { status, stderr, stdout } = promtool("test", "rules", "test.yml");
    assert.strictEqual(status, 0, stdout + stderr);
  });
});
