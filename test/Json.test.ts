import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import * as Json from "../src/Json.js";
import { jsonText } from "./fc.js";

const escaped = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;

describe("Json.compact", () => {
  it("accepts what JSON.parse accepts, and refuses the rest", () => {
    const broken = fc
      .tuple(jsonText, fc.nat(), fc.constantFrom("", '"', ",", "}", "]", "{", "0", ".", "e", "\\", "\u0001", "x"))
      .map(([text, at, insert]) => {
        const cut = at % (text.length + 1);
        return text.slice(0, cut) + insert + text.slice(cut + (at % 2));
      });
    fc.assert(
      fc.property(fc.oneof(jsonText, broken, fc.string()), (text) => {
        let valid = true;
        try {
          JSON.parse(text);
        } catch {
          valid = false;
        }
        assert.strictEqual(!Json.isFault(Json.compact(text)), valid, text);
      }),
      { numRuns: 2_000 },
    );
  });

  it("keeps the meaning and leaves no white space or HTML characters", () => {
    fc.assert(
      fc.property(jsonText, (text) => {
        const compact = Json.compact(text);
        assert.isString(compact);
        assert.deepStrictEqual(JSON.parse(compact as string), JSON.parse(text));
        assert.notMatch(compact as string, /[<>&\u2028\u2029\n\t]/);
        assert.strictEqual(Json.compact(compact as string), compact);
      }),
      { numRuns: 1_000 },
    );
  });

  it("never touches the spelling of numbers, escapes, key order or duplicate keys", () => {
    for (const text of [
      "12345678901234567890",
      "1e400",
      "0.10",
      "-0.0",
      '{"b":1,"a":2,"b":3}',
      '"\\ud800\\u0041\\/"',
    ]) {
      assert.strictEqual(Json.compact(` ${text}\n`), text);
    }
  });

  it("writes as escapes what is one line end to JSON and two to a script, and no character like it", () => {
    assert.strictEqual(Json.compact('"\u2028"'), '"\\u2028"');
    assert.strictEqual(Json.compact('"\u2029"'), '"\\u2029"');
    const alike = '"\u2027\u202a\u20a8\u2128"';
    assert.strictEqual(Json.compact(alike), alike);
  });

  it("tells where the fault is", () => {
    assert.deepStrictEqual(Json.compact('{"a":}'), { _tag: "JsonFault", offset: 5, reason: "syntax" });
    assert.deepStrictEqual(Json.compact("01"), { _tag: "JsonFault", offset: 1, reason: "syntax" });
    assert.deepStrictEqual(Json.compact(""), { _tag: "JsonFault", offset: 0, reason: "syntax" });
    // in characters, whatever they are in UTF-8
    assert.deepStrictEqual(Json.compact('{"ä€😀":}'), { _tag: "JsonFault", offset: 8, reason: "syntax" });
    assert.deepStrictEqual(Json.compact('"\\u12'), { _tag: "JsonFault", offset: 5, reason: "syntax" });
  });

  it("accepts 64 levels and no more", () => {
    assert.strictEqual(Json.compact("[".repeat(64) + "]".repeat(64)), "[".repeat(64) + "]".repeat(64));
    const deeper = Json.compact("[".repeat(65) + "]".repeat(65));
    assert.deepStrictEqual(deeper, { _tag: "JsonFault", offset: 64, reason: "depth" });
    assert.isTrue(Json.isFault(Json.compact(`${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`)));
  });
});

describe("Json.indent", () => {
  it("indents as the existing program does", () => {
    assert.strictEqual(
      Json.indent('{"a":[1,"\\u003c"],"b":{},"c":[]}'),
      '{\n\t"a": [\n\t\t1,\n\t\t"\\u003c"\n\t],\n\t"b": {},\n\t"c": []\n}',
    );
    assert.strictEqual(Json.indent('"a:b,{}"'), '"a:b,{}"');
    assert.strictEqual(Json.indent('{"a\\":,":"[\\\\"}'), '{\n\t"a\\":,": "[\\\\"\n}');
  });

  it("is JSON.stringify's indentation, and compacts back to the same text", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const compact = Json.compact(JSON.stringify(value)) as string;
        const indented = Json.indent(compact) as string;
        assert.strictEqual(
          indented,
          JSON.stringify(JSON.parse(compact), null, "\t").replaceAll(/[<>&\u2028\u2029]/g, escaped),
        );
        assert.strictEqual(Json.compact(indented), compact);
      }),
    );
  });

  it("gives up at the limit", () => {
    const deep = `${"[".repeat(60)}${"1,".repeat(1_000)}1${"]".repeat(60)}`;
    assert.isUndefined(Json.indent(deep, 10_000));
    assert.isString(Json.indent(deep));
  });
});
