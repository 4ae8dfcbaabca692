import { assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as fc from "effect/FastCheck";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keysOf, press } from "../src/Cli/TopKeys.js";
import { memberText, Model } from "../src/Cli/TopModel.js";
import { difference, paint } from "../src/Cli/TopScreen.js";
import { type Choices, chosen, type Line, type Link, sparkline, type Terminal, view } from "../src/Cli/TopView.js";
import { clean, cut, width } from "../src/Cli/Width.js";
import { aNode, FakeFace } from "./FakeFace.js";
import { ensureBuilt, program, run } from "./Program.js";

beforeAll(ensureBuilt, 60_000);

const nowMs = Date.parse("2026-01-01T00:01:00.000Z");
const plain: Choices = { sort: "address", filter: "", typing: false, help: false, scroll: 0 };
const live: Link = { _tag: "Live" };
const terminal: Terminal = { columns: 80, rows: 24, ascii: false };

const self = {
  address: "10.0.0.1",
  port: 17106,
  version: "0.1.0",
  startedAt: "2026-01-01T00:00:00.000Z",
  ready: true,
  features: 1,
  registry: "s3://b/",
  stateDir: "/s",
  registryClockOffsetMs: null,
};

/** Nodes that were heard `heardMs` before `nowMs`. */
const heard = (address: string, heardMs: number, more: object = {}) =>
  aNode(address, { heardAt: new Date(nowMs - heardMs).toISOString(), heardMs, ...more });

const told = (...events: ReadonlyArray<readonly [event: string, data: unknown]>): Model => {
  const model = new Model();
  for (const [event, data] of events) {
    const text = typeof data === "string" ? data : JSON.stringify(data);
    assert.isUndefined(model.apply({ event, data: text, id: "" }, nowMs), event);
  }
  return model;
};

const snapshot = (nodes: ReadonlyArray<unknown>, more: object = {}) =>
  ["snapshot", { self, features: {}, nodes, conditions: [], ...more }] as const;

const three = snapshot(
  [
    heard("10.0.0.10", 2_000, { features: 7 }),
    heard("10.0.0.9", 30_000, { state: "silent", source: "registry", version: null }),
    heard("10.0.0.11", 1_000, { features: 2 }),
  ],
  { features: { web: { "10.0.0.10": 1, "10.0.0.1": 1 }, db: { "10.0.0.11": 2 } } },
);

const textOf = (line: Line): string => line.map(({ text }) => text).join("");
const shown = (model: Model, choices: Partial<Choices> = {}, size: Partial<Terminal> = {}, link: Link = live) =>
  view(model, { ...plain, ...choices }, link, { ...terminal, ...size }, nowMs).lines.map((line) =>
    textOf(line).trimEnd(),
  );

describe("what top knows", () => {
  it("follows the node's events", () => {
    const model = told(
      three,
      ["nodes", { nodes: [heard("10.0.0.9", 0), heard("10.0.0.12", 5)], gone: ["10.0.0.11"] }],
      ["heard", { "10.0.0.10": new Date(nowMs).toISOString(), "10.9.9.9": new Date(nowMs).toISOString() }],
      [
        "change",
        '{"at":"2026-01-01T00:00:59.000Z","feature":"db","host":"10.0.0.9","value":{"n":12345678901234567890}}',
      ],
      ["change", { at: "2026-01-01T00:00:59.500Z", feature: "db", host: "10.0.0.11" }],
      ["self", { ...self, ready: false }],
      ["conditions", { conditions: [{ name: "x", severity: "error", message: "m", since: null }] }],
      ["a later version's", "?"],
    );
    assert.deepStrictEqual([...model.nodes.keys()], ["10.0.0.10", "10.0.0.9", "10.0.0.12"]);
    assert.strictEqual(model.nodes.get("10.0.0.9")?.node.state, "alive");
    assert.strictEqual(model.nodes.get("10.0.0.10")?.heardAtMs, nowMs);
    assert.deepStrictEqual(
      model.changes.map(({ host, value }) => [host, value]),
      [
        ["10.0.0.11", undefined],
        ["10.0.0.9", '{"n":12345678901234567890}'],
      ],
    );
    assert.deepStrictEqual([...model.offers.get("db")!], ["10.0.0.9"]);
    assert.isFalse(model.self?.ready);
    assert.lengthOf(model.conditions, 1);
    // a node that was restarted tells all anew
    model.apply({ event: "snapshot", data: JSON.stringify(snapshot([heard("10.0.0.2", 0)])[1]), id: "" }, nowMs);
    assert.deepStrictEqual([...model.nodes.keys()], ["10.0.0.2"]);
    assert.strictEqual(model.offers.size, 0);
  });

  it("measures ages by the node's clock, whatever this host's is", () => {
    const model = new Model();
    const data = JSON.stringify(three[1]);
    model.apply({ event: "snapshot", data, id: "" }, nowMs + 3_600_000);
    const { lines } = view(model, plain, live, terminal, nowMs + 3_600_000 + 5_000);
    assert.match(lines.map(textOf).join("\n"), /10\.0\.0\.10 +alive +7 s ago/);
  });

  it("refuses what is no node's, and knows what it knew", () => {
    const model = told(three);
    for (const [event, data] of [
      ["snapshot", "{}"],
      ["nodes", "["],
      ["change", '{"at":5}'],
      ["stats", "null"],
    ] as const) {
      assert.match(model.apply({ event, data, id: "" }, nowMs) ?? "", new RegExp(`an event "${event}" that is not`));
    }
    assert.strictEqual(model.nodes.size, 3);
  });

  it("counts a feature that has the name of a prototype", () => {
    const features = '{"__proto__":{"10.0.0.10":1,"10.0.0.11":1},"web":{"10.0.0.10":1}}';
    const model = told([
      "snapshot",
      JSON.stringify(three[1]).replace(/"features":{"web.*?}}/, `"features":${features}`),
    ]);
    assert.deepStrictEqual(
      Array.from(model.offers, ([name, hosts]) => [name, hosts.size]),
      [
        ["__proto__", 2],
        ["web", 1],
      ],
    );
  });

  it("takes no more nodes or features than a fleet can have", () => {
    const model = told(three);
    const nodes = JSON.stringify({ nodes: Array.from({ length: 1_001 }, () => heard("ADDRESS", 1)), gone: [] });
    const faults: Array<string | undefined> = [];
    for (let i = 0; i < 100; i++) {
      let n = 0;
      const data = nodes.replaceAll("ADDRESS", () => `${i}-${n++}`);
      faults.push(model.apply({ event: "nodes", data, id: "" }, nowMs));
    }
    assert.strictEqual(
      faults.findIndex((fault) => fault !== undefined),
      99,
    );
    assert.match(faults[99]!, /more nodes or features/);

    const hosts = JSON.stringify(Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [i, 0])));
    const offers = Array.from({ length: 20 }, (_, i) => `"f${i}":${hosts}`);
    const data = JSON.stringify(three[1]).replace(/"features":{"web.*?}}/, `"features":{${offers.join()}}`);
    assert.isUndefined(model.apply({ event: "snapshot", data, id: "" }, nowMs));
    const change = '{"at":null,"feature":"f0","host":"more","value":1}';
    assert.match(model.apply({ event: "change", data: change, id: "" }, nowMs) ?? "", /more nodes or features/);
  });

  it("keeps a bounded number of changes and seconds", () => {
    const model = told(three);
    for (let i = 0; i < 2_000; i++) {
      model.apply({ event: "change", data: '{"at":null,"feature":"a","host":"b","value":1}', id: "" }, nowMs);
      model.apply(
        { event: "stats", data: '{"at":null,"received":1,"sent":1,"dropped":0,"changes":0,"latencyMs":null}', id: "" },
        nowMs,
      );
    }
    assert.isAtMost(model.changes.length, 500);
    assert.isAtMost(model.seconds.length, 600);
  });

  it("takes a member's exact text", () => {
    assert.strictEqual(memberText(' {"a":{"value":1}, "value" : 1.0e400 ,"b":2}', "value"), "1.0e400");
    assert.isUndefined(memberText('{"a":1}', "value"));
    const long = `"${"é".repeat(1_000_000)}"`;
    const beginning = memberText(`{"value":${long}}`, "value")!;
    assert.isBelow(beginning.length, 10_000);
    assert.isTrue(long.startsWith(beginning.slice(0, -1)));
  });
});

describe("what top shows", () => {
  it("has a summary, nodes, changes and the keys", () => {
    const model = told(
      three,
      ["change", { at: "2026-01-01T00:00:59.000Z", feature: "db", host: "10.0.0.11", value: { port: 1 } }],
      ["change", { at: "2026-01-01T00:00:59.000Z", feature: "web", host: "10.0.0.10" }],
      [
        "stats",
        { at: new Date(nowMs - 1_500).toISOString(), received: 20, sent: 10, dropped: 2, changes: 2, latencyMs: 1.25 },
      ],
    );
    const lines = shown(model);
    assert.strictEqual(lines[0], "node 10.0.0.1 port 17106  ready  0.1.0  live");
    assert.strictEqual(lines[1], "nodes 2 alive, 1 silent   2 features, 2 offers");
    assert.strictEqual(lines[2], "packets 2.0/s in, 1.0/s out, 2 dropped   news takes 1.3 ms");
    assert.match(lines[3]!, /^ +█ {2}packets, at most 30\/s$/);
    assert.deepStrictEqual(lines.slice(4, 9), [
      "NODE▾      STATE   HEARD     BY        CLOCK  FEATURES  VERSION",
      "10.0.0.9   silent  30 s ago  registry  2 ms   1         -",
      "10.0.0.10  alive   2 s ago   udp       2 ms   7         0.1.0",
      "10.0.0.11  alive   1 s ago   udp       2 ms   2         0.1.0",
      "",
    ]);
    const at = lines.indexOf("CHANGES");
    assert.match(lines[at + 1]!, /^\d\d:\d\d:59 {2}web {2}10\.0\.0\.10 {2}gone$/);
    assert.match(lines[at + 2]!, /^\d\d:\d\d:59 {2}db {2}10\.0\.0\.11 {2}\{"port":1\}$/);
    assert.strictEqual(lines.at(-1), "q quit  s sort (address)  / filter  ? help");
  });

  it("shows what is wrong, and how much more", () => {
    const condition = (severity: string, message: string) => ({
      name: message,
      severity,
      message,
      since: "2026-01-01T00:00:00.000Z",
    });
    const model = told(snapshot([], { conditions: [condition("error", "one"), condition("warning", "two")] }));
    assert.deepStrictEqual(shown(model).slice(2, 4), ["error for 60 s: one", "warning for 60 s: two"]);
    const all = ["a", "b", "c", "d"].map((each) => condition("warning", each));
    const many = told(snapshot([], { conditions: all }));
    assert.deepStrictEqual(shown(many).slice(2, 5), [
      "warning for 60 s: a",
      "warning for 60 s: b",
      "and 2 more: nameq status",
    ]);
  });

  it("says that the node is lost, and keeps what it knew", () => {
    const lines = shown(told(three), {}, {}, { _tag: "Lost", message: "it is away", sinceMs: nowMs - 5_000 });
    assert.strictEqual(lines[0], "node 10.0.0.1 port 17106  ready  0.1.0  lost for 5 s, trying again: it is away");
    assert.include(lines.join("\n"), "10.0.0.11");
  });

  it("sorts and filters nodes", () => {
    const model = told(three);
    const order = (choices: Partial<Choices>) =>
      chosen(model, { ...plain, ...choices }).map(({ node }) => node.address);
    assert.deepStrictEqual(order({}), ["10.0.0.9", "10.0.0.10", "10.0.0.11"]);
    assert.deepStrictEqual(order({ sort: "heard" }), ["10.0.0.9", "10.0.0.10", "10.0.0.11"]);
    assert.deepStrictEqual(order({ sort: "features" }), ["10.0.0.10", "10.0.0.11", "10.0.0.9"]);
    assert.deepStrictEqual(order({ sort: "state" }), ["10.0.0.9", "10.0.0.10", "10.0.0.11"]);
    assert.deepStrictEqual(order({ filter: "SILENT" }), ["10.0.0.9"]);
    assert.deepStrictEqual(order({ filter: "0.0.1" }), ["10.0.0.10", "10.0.0.11"]);
    // by a feature that it has
    assert.deepStrictEqual(order({ filter: "db" }), ["10.0.0.11"]);
  });

  it("scrolls no further than to the last node", () => {
    const model = told(snapshot(Array.from({ length: 100 }, (_, i) => heard(`10.0.0.${i}`, 0))));
    const { lines, maxScroll, page } = view(model, { ...plain, scroll: 1_000 }, live, terminal, nowMs);
    assert.strictEqual(maxScroll, 100 - page);
    assert.isTrue(lines.some((line) => textOf(line).startsWith("10.0.0.99 ")));
  });

  it("draws a line for what happened in each second", () => {
    const second = (ageMs: number, received: number) => ({
      atMs: nowMs - ageMs,
      received,
      sent: 0,
      dropped: 0,
      changes: 0,
      latencyMs: null,
    });
    const seconds = [second(99_000, 900), second(4_500, 1), second(2_500, 50), second(500, 100)];
    assert.deepStrictEqual(sparkline(seconds, nowMs, 6, false), { text: " ▁ ▄ █", most: 100 });
    assert.deepStrictEqual(sparkline(seconds, nowMs, 6, true), { text: " . - #", most: 100 });
    assert.deepStrictEqual(sparkline(seconds, nowMs, -3, true), { text: "", most: 0 });
  });

  it("fills a terminal of any size exactly, whatever strangers say", () => {
    const hostile = fc.oneof(
      fc.string({ unit: "binary", maxLength: 60 }),
      fc.constantFrom("\u001b[2J\u0007", "漢字😀👨‍👩‍👧🇩🇪e\u0301\u0301", "\u202eabc\u2066", "שלום مرحبا", "x".repeat(500)),
    );
    const size = fc.record({
      columns: fc.integer({ min: 1, max: 200 }),
      rows: fc.integer({ min: 1, max: 60 }),
      ascii: fc.boolean(),
    });
    const choices = fc.record({
      sort: fc.constant("heard" as const),
      filter: fc.constantFrom("", "x"),
      typing: fc.boolean(),
      help: fc.boolean(),
      scroll: fc.nat(50),
    });
    fc.assert(
      fc.property(fc.array(hostile, { minLength: 1, maxLength: 30 }), size, choices, (texts, terminal, choices) => {
        const model = told(
          snapshot(
            texts.map((text) => heard(text, 1_000, { version: text })),
            {
              self: { ...self, version: texts[0] },
              conditions: texts.map((message) => ({ name: "n", severity: "error", message, since: null })),
            },
          ),
          ...texts.map((text) => ["change", { at: null, feature: text, host: text, value: text }] as const),
        );
        const link: Link = { _tag: "Lost", message: texts[0]!, sinceMs: 0 };
        const { lines } = view(model, choices, link, terminal, nowMs);
        assert.strictEqual(lines.length, terminal.rows);
        for (const line of lines) {
          const text = textOf(line);
          assert.isAtMost(width(text), terminal.columns);
          assert.notMatch(text, terminal.ascii ? /[^ -~]/ : /[\p{C}\p{M}\u0590-\u08ff]/u);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("columns", () => {
  it("are counted as terminals count them", () => {
    assert.deepStrictEqual(["abc", "é", "漢字", "😀", "Ｗ", "→"].map(width), [3, 1, 4, 2, 2, 1]);
    assert.strictEqual(cut("a漢字b", 4), "a漢");
    assert.strictEqual(cut("a漢字b", 5), "a漢字");
  });

  it("are taken by nothing that joins, moves or turns", () => {
    assert.strictEqual(clean("a\u0301\u200d\u202e\u001b\u05d0"), "a\\u0301\\u200d\\u202e\\u001b\\u05d0");
    assert.strictEqual(clean("🇩🏽"), "\\ud83c\\udde9\\ud83c\\udffd");
    assert.strictEqual(clean("é😀", true), "\\u00e9\\ud83d\\ude00");
  });
});

describe("keys", () => {
  const picture = { lines: [], maxScroll: 10, page: 4 };
  const after = (text: string, from: Partial<Choices> = {}) => {
    let choices: Choices = { ...plain, ...from };
    for (const key of keysOf(text)) {
      const next = press(key, choices, picture);
      if (typeof next === "string") return next;
      choices = next;
    }
    return choices;
  };

  it("quit, stop, sort, scroll and help", () => {
    for (const key of ["q", "\u0003"]) assert.strictEqual(after(key), "quit");
    assert.strictEqual(after("\u001a"), "suspend");
    assert.include(after("s"), { sort: "heard" });
    assert.include(after("ssss"), { sort: "address" });
    assert.include(after("\u001b[B\u001b[Bj\u001b[A"), { scroll: 2 });
    assert.include(after("\u001b[6~\u001b[6~\u001b[6~"), { scroll: 10 });
    assert.include(after("G\u001b[5~"), { scroll: 6 });
    assert.include(after("\u001b[F\u001b[H"), { scroll: 0 });
    assert.include(after("?"), { help: true });
    assert.include(after("?\u001b"), { help: false });
    assert.deepStrictEqual(after("x\u001b[Z\u001b[1;5C\t"), plain);
  });

  it("type a filter, of which keys of the program are part", () => {
    assert.include(after("/qs?"), { typing: true, filter: "qs?" });
    assert.include(after("/ab\u007f\rs"), { typing: false, filter: "a", sort: "heard" });
    assert.include(after("/ab\u001b"), { typing: false, filter: "" });
    assert.include(after("/a\u001b[A\u0007b"), { filter: "ab" });
    assert.include(after(`/${"x".repeat(500)}`), { filter: "x".repeat(64) });
    assert.include(after("\u001b", { filter: "x" }), { filter: "" });
    assert.strictEqual(after("/a\u0003"), "quit");
  });
});

describe("drawing", () => {
  /** A terminal that understands what `difference` and `paint` say. */
  const applied = (screen: ReadonlyArray<string>, codes: string): ReadonlyArray<string> => {
    const rows = [...screen];
    for (const [, row, text = "", clear] of codes.replaceAll("\u001b", "^").matchAll(/\^\[(\d+);1H([^^]*)(\^\[K)?/g)) {
      const at = Number(row) - 1;
      rows[at] = clear === undefined ? text + (rows[at] ?? "").slice(text.length) : text;
    }
    return rows;
  };

  it("brings the screen to the new picture, and writes only lines that differ", () => {
    const line = fc.stringMatching(/^[ab]{0,4}$/);
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), fc.array(line, { maxLength: 6 }), (before, after) => {
        const painted = (lines: ReadonlyArray<string>) => lines.map((text) => paint([{ text }], false, 4));
        const codes = difference(painted(before), painted(after));
        const rows = applied(before, codes);
        assert.deepStrictEqual(rows.slice(0, after.length), after);
        assert.isTrue(rows.slice(after.length).every((text) => text === ""));
      }),
    );
    assert.strictEqual(difference(["a", "b"], ["a", "b"]), "");
    assert.strictEqual(difference(["a", "b"], ["a", "c"]), "\u001b[2;1Hc");
  });

  it("uses colours only where they are wanted", () => {
    const line: Line = [{ text: "a", style: "red" }, { text: "b", style: "green" }, { text: "c" }];
    assert.strictEqual(paint(line, true, 9), "\u001b[31ma\u001b[0m\u001b[32mb\u001b[0mc\u001b[K");
    assert.strictEqual(paint(line, false, 9), "\u001b[1ma\u001b[0mbc\u001b[K");
  });
});

describe("nameq top", () => {
  it.scopedLive("ends with status 0 when its terminal goes", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      const directory = mkdtempSync(join(tmpdir(), "nameq-top-"));
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })));
      const told = join(directory, "told");
      // the shell, too, outlives its terminal
      const line = `trap : HUP; ${process.execPath} ${program} top --http ${face.url}; echo $? > ${told}.new; mv ${told}.new ${told}`;
      const terminal = spawn("script", ["-qec", line, "/dev/null"], { stdio: ["pipe", "ignore", "inherit"] });
      yield* Effect.repeat(Effect.sleep(20), { until: () => face.listeners.size > 0 });
      terminal.kill("SIGKILL");
      yield* Effect.repeat(Effect.sleep(20), { until: () => existsSync(told) });
      assert.strictEqual(readFileSync(told, "utf8"), "0\n");
    }),
  );

  it("says what to use where there is no terminal", async () => {
    const { status, stderr, stdout } = await run(["top"]);
    assert.deepStrictEqual(
      { status, stderr, stdout },
      {
        status: 1,
        stdout: "",
        stderr:
          "nameq top: standard output is no terminal: nameq status prints the same once, and nameq monitor-features what changes\n",
      },
    );
  });
});
