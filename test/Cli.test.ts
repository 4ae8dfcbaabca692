import { assert, describe, it } from "@effect/vitest";
import * as Either from "effect/Either";
import * as fc from "effect/FastCheck";
import * as Cli from "../src/Cli.js";
import { type Environment, normalise } from "../src/Cli/Argv.js";
import * as Help from "../src/Cli/Help.js";
import { type CommandSpec, flag, list, optionsOf, value } from "../src/Cli/Spec.js";

describe("normalise", () => {
  const probe: CommandSpec = {
    name: "probe",
    summary: "",
    operands: "NAME...",
    sections: [
      [
        "Options",
        {
          stateDir: value("state-dir", "DIR", "", { old: "statedir" }),
          timeout: value("timeout", "TIME", ""),
          mode: value("mode", "MODE", "", { choices: ["a", "b"] }),
          one: value("one", "X", "", { group: "either" }),
          two: value("two", "X", "", { group: "either", environment: ["OTHER_TWO"] }),
          many: list("many", "X", ""),
          local: flag("local", ""),
        },
      ],
    ],
    notes: [],
    examples: [],
    interruptedStatus: 0,
  };
  const runner: CommandSpec = { ...probe, name: "run", stopsAtOperand: true };
  const line = (argv: ReadonlyArray<string>, environment: Environment = {}) =>
    Either.match(normalise([probe, runner], argv, environment), {
      onLeft: (error) => error.message,
      onRight: (canonical) => canonical.join(" "),
    });

  const spellings: ReadonlyArray<readonly [given: string, canonical: string]> = [
    ["probe --state-dir D x", "probe --state-dir D -- x"],
    ["probe --state-dir=D x", "probe --state-dir D -- x"],
    ["probe -statedir D x", "probe --state-dir D -- x"],
    ["probe -statedir=D x", "probe --state-dir D -- x"],
    ["probe --statedir D x", "probe --state-dir D -- x"],
    ["probe -state-dir D x", "probe --state-dir D -- x"],
    ["probe x --state-dir D y", "probe --state-dir D -- x y"],
    ["probe -local x", "probe --local=true -- x"],
    ["probe -local=false x", "probe --local=false -- x"],
    ["probe -local=T true", "probe --local=true -- true"],
    ["probe --local false", "probe --local=true -- false"],
    ["probe -timeout=1m30s -timeout 0 x", "probe --timeout 0 -- x"],
    ["probe -timeout -5 x", "probe --timeout -5 -- x"],
    ["probe --many 1 --many=2 x", "probe --many 1 --many 2 -- x"],
    ["probe x -5", "probe -- x -5"],
    ["probe x -local", "probe -- x -local"],
    ["probe x -", "probe -- x -"],
    ["probe - x", "probe -- - x"],
    ["probe -- --local -h", "probe -- --local -h"],
    ["probe --state-dir= x", "probe -- x"],
    ["probe --mode b", "probe --mode b --"],
    ["probe x -h", "probe --help"],
    ["probe --nonsense=1 -h", "unknown option --nonsense"],
    ["probe -help", "probe --help"],
    ["probe --version", "--version"],
    ["probe --timeout -h", "probe --timeout -h --"],
    ["run --local ls --help --local", "run --local=true -- ls --help --local"],
    ["run --local -- ls", "run --local=true -- ls"],
    ["-h", "--help"],
    ["--help", "--help"],
    ["-version", "--version"],
    ["--completions=zsh", "--completions zsh"],
    ["--completions fish", "--completions fish"],
  ];
  for (const [given, canonical] of spellings) {
    it(`understands ${given}`, () => {
      assert.strictEqual(line(given.split(" ")), canonical);
    });
  }

  it("keeps values and operands to the last character", () => {
    const json = '{"a": "x = \n\t--local"}';
    assert.deepStrictEqual(
      normalise([probe], ["probe", `--timeout=${json}`, json], {}),
      Either.right(["probe", "--timeout", json, "--", json]),
    );
  });

  const refusals: ReadonlyArray<readonly [given: string, message: string]> = [
    ["probe --stat-dir D", "unknown option --stat-dir; did you mean --state-dir?"],
    ["probe --quite-another", "unknown option --quite-another"],
    ["probe x --loca=1", "unknown option --loca; did you mean --local?"],
    ["probe --timeout", "--timeout needs a value: TIME"],
    ["probe --local=perhaps", '--local: "perhaps" is neither true nor false'],
    ["probe --mode c", '--mode: "c" is none of a, b'],
    ["prob", "unknown command prob; did you mean probe?"],
    ["unheard-of", "unknown command unheard-of; the commands are probe, run"],
    ["--debug", "unknown option --debug; the commands are probe, run"],
    ["--completions csh", '--completions: "csh" is none of bash, zsh, fish, sh'],
    ["--completions", '--completions: "" is none of bash, zsh, fish, sh'],
  ];
  for (const [given, message] of refusals) {
    it(`refuses ${given}`, () => {
      assert.strictEqual(line(given.split(" ")), message);
    });
  }

  it("asks for a command when there is none", () => {
    assert.strictEqual(line([]), "a command is needed: probe, run");
  });

  it("takes from the environment what the command line does not give", () => {
    const environment = { NAMEQ_STATE_DIR: "E", NAMEQ_LOCAL: "yes", NAMEQ_MANY: "1, 2", NAMEQ_TIMEOUT: "" };
    assert.strictEqual(line(["probe", "x"], environment), "probe --state-dir E --many 1 --many 2 --local=true -- x");
    assert.strictEqual(
      line(["probe", "-local=false", "-statedir=D", "--many=3"], environment),
      "probe --local=false --state-dir D --many 3 --",
    );
    assert.strictEqual(line(["probe", "--state-dir=", "--local", "--many="], environment), "probe --local=true --");
  });

  it("names the variable whose value is wrong", () => {
    assert.strictEqual(line(["probe"], { NAMEQ_LOCAL: "x" }), 'NAMEQ_LOCAL: "x" is neither true nor false');
    assert.strictEqual(line(["probe"], { NAMEQ_MODE: "x" }), 'NAMEQ_MODE: "x" is none of a, b');
  });

  it("lets an option hide the variables of those that it replaces", () => {
    assert.strictEqual(line(["probe", "--one", "1"], { NAMEQ_TWO: "2" }), "probe --one 1 --");
    assert.strictEqual(line(["probe"], { NAMEQ_TWO: "2", OTHER_TWO: "3" }), "probe --two 2 --");
    assert.strictEqual(line(["probe"], { OTHER_TWO: "3" }), "probe --two 3 --");
  });

  it("understands its own canonical form, whatever the line was", () => {
    const word = fc.oneof(
      fc.constantFrom(
        "--state-dir",
        "-statedir",
        "--local",
        "-local=0",
        "--many",
        "--one=1",
        "--",
        "-",
        "-5",
        "x",
        "--x",
      ),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), (words) => {
        const once = normalise([probe], ["probe", ...words], { NAMEQ_TWO: "2" });
        if (Either.isRight(once)) assert.deepStrictEqual(normalise([probe], once.right, {}), once);
      }),
    );
  });
});

describe("help", () => {
  for (const spec of Cli.specs) {
    const text = Help.ofCommand(spec);

    it(`of ${spec.name} tells of each option once, in 110 columns`, () => {
      const lines = text.split("\n");
      for (const { name, placeholder } of optionsOf(spec)) {
        const heads = lines.filter((line) => line.startsWith(`  --${name} `) || line === `  --${name}`);
        assert.lengthOf(heads, 1, name);
        if (placeholder !== undefined) assert.include(heads[0], placeholder);
      }
      assert.deepStrictEqual(
        lines.filter((line) => line.length > 110),
        [],
      );
    });

    it(`of ${spec.name} has examples that are accepted`, () => {
      assert.isNotEmpty(spec.examples);
      for (const [example] of spec.examples) {
        const [, ...argv] = example.replace(/ (?:<.*|\.\.\.)$/, "").split(" ");
        assert.isTrue(Either.isRight(normalise(Cli.specs, argv, {})), example);
      }
    });

    it(`of ${spec.name} stands in the program's`, () => {
      assert.include(Help.ofProgram("1.2.3", Cli.specs), `  ${spec.name} `);
    });

    it(`of ${spec.name} gives no option two meanings`, () => {
      const names = optionsOf(spec).flatMap(({ name, old }) => (old === undefined ? [name] : [name, old]));
      assert.strictEqual(new Set(names).size, names.length);
    });
  }
});
