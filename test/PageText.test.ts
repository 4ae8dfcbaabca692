import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import * as Json from "../src/Json.js";
import * as Span from "../src/page/Span.js";
import { EventParser } from "../src/page/Sse.js";
import * as Text from "../src/page/Text.js";
import * as View from "../src/page/View.js";
import { jsonText } from "./fc.js";

const compact = jsonText.map((text) => Json.compact(text) as string);

describe("Page texts", () => {
  it("cuts JSON into tokens that together are the text", () => {
    fc.assert(
      fc.property(fc.oneof(jsonText, fc.string()), (text) => {
        assert.strictEqual(
          Text.tokens(text)
            .map((token) => token.text)
            .join(""),
          text,
        );
      }),
    );
  });

  it("shows values whole and exact: only the indentation is new", () => {
    fc.assert(
      fc.property(compact, (json) => {
        const shown = Text.pretty(json)
          .map(({ text }) => text)
          .join("");
        assert.strictEqual(Json.compact(shown), Text.visible(json));
      }),
    );
    for (const json of ["12345678901234567890", "0.10", "1e400", '"\\u003cb\\u003e"']) {
      assert.strictEqual(
        Text.pretty(json)
          .map(({ text }) => text)
          .join(""),
        json,
      );
    }
  });

  it("shows characters that hide or turn text round as escapes, and no others", () => {
    assert.strictEqual(Text.visible("a\u202eb\u200bc\u0007"), "a\\u202eb\\u200bc\\u0007");
    assert.strictEqual(Text.visible("\u{e0041}"), "\\udb40\\udc41");
    assert.strictEqual(Text.visible("שלום, 世界 – é 👋🏽"), "שלום, 世界 – é 👋🏽");
  });

  it("previews a value in a short line", () => {
    assert.strictEqual(
      Text.preview('{"port":5432,"a b":[1,{"c":2}],"on":true}'),
      'port: 5432, "a b": [1,{"c": 2}], on: true'.replace('"c"', "c"),
    );
    assert.strictEqual(Text.preview("true"), "true");
    assert.strictEqual(Text.preview("{}"), "{}");
    assert.strictEqual(Text.preview('"\\u003cimg src=x\\u003e \\\\u003c"'), '"<img src=x> \\\\u003c"');
    fc.assert(
      fc.property(
        fc.oneof(
          compact,
          fc.string({ maxLength: 1_000 }).map((text) => JSON.stringify(text)),
        ),
        (json) => {
          assert.isAtMost(Text.preview(json).length, Text.previewLength + 1);
        },
      ),
    );
  });

  it("finds values by what they are and by what is shown of them", () => {
    assert.isTrue(Text.matches('{"port":5432}', "5432"));
    assert.isTrue(Text.matches('"\\u003cB\\u003e"', "<b>"));
    assert.isTrue(Text.matches('"\\u003cB\\u003e"', "\\u003cb"));
    assert.isFalse(Text.matches('{"port":5432}', "5433"));
  });

  it("says times as people do", () => {
    assert.deepStrictEqual([0, 12_345, 300_000, 7_200_000, 260_000_000].map(Text.age), [
      "now",
      "12 s",
      "5 min",
      "2 h",
      "3 days",
    ]);
    assert.deepStrictEqual([1.84, 12.6, 999.7, -2_400, 86_400_000].map(Text.milliseconds), [
      "1.8 ms",
      "13 ms",
      "1.0 s",
      "-2.4 s",
      "86,400 s",
    ]);
    assert.deepStrictEqual([0.01, 3, -15.2].map(Text.offset), ["0.0 ms", "+3.0 ms", "−15 ms"]);
  });

  it("orders addresses by number", () => {
    const sorted = ["10.0.0.10", "fd00::1", "10.0.0.9", "9.0.0.1"].toSorted((a, b) =>
      Text.addressKey(a) < Text.addressKey(b) ? -1 : 1,
    );
    assert.deepStrictEqual(sorted, ["9.0.0.1", "10.0.0.9", "10.0.0.10", "fd00::1"]);
  });
});

describe("Page events", () => {
  it("reads the stream alike however it is cut", () => {
    const text = `: hello\n\nid: r-1\nevent: snapshot\ndata: {"a":\ndata: 1}\n\n: alive\n\nid: r-2\r\ndata:x\r\n\r\nevent: none\n\n`;
    const expected = [
      { id: "r-1", event: "snapshot", data: '{"a":\n1}' },
      { id: "r-2", event: "message", data: "x" },
    ];
    fc.assert(
      fc.property(fc.array(fc.nat(text.length)), (cuts) => {
        const parser = new EventParser();
        const bounds = [0, ...cuts.toSorted((a, b) => a - b), text.length];
        const events = bounds.flatMap((from, index) => parser.push(text.slice(from, bounds[index + 1] ?? from)));
        assert.deepStrictEqual(events, expected);
      }),
    );
  });
});

describe("Page view", () => {
  it("is in the URL whole, and comes back from it", () => {
    const name = fc.string({ maxLength: 20 });
    const host = fc.oneof(fc.ipV4(), fc.ipV6());
    const feature = fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/);
    fc.assert(
      fc.property(
        fc.record({
          tab: fc.constantFrom(...View.tabs),
          feature: name,
          host: name,
          value: name,
          sort: name,
          open: fc.oneof(
            fc.constant(undefined),
            fc.record({ feature }),
            fc.record({ host }),
            fc.record({ feature, host }),
          ),
        }),
        (view) => {
          assert.deepStrictEqual(View.parse(View.format(view)), view);
        },
      ),
    );
    assert.strictEqual(
      View.format({ ...View.start, open: { feature: "db", host: "fd00::1" } }),
      "#features?open=db@fd00::1",
    );
  });

  it("takes any other text for the start", () => {
    for (const text of ["", "#", "#nonsense", "#/?open=", "#features?feature"]) {
      assert.deepStrictEqual(View.parse(text), View.start);
    }
  });
});

describe("Page spans", () => {
  it("hold all that is in sight, and little more", () => {
    fc.assert(
      fc.property(fc.nat(40_000), fc.integer({ min: 1, max: 2_000 }), fc.nat(1_000), (scrolled, sight, total) => {
        const { end, start } = Span.rows(scrolled, sight, 30, total, 4);
        assert.isAtMost(end, total);
        assert.isAtMost(end - start, sight / 30 + 11);
        for (let row = 0; row < total; row++) {
          const seen = row * 30 < scrolled + sight && (row + 1) * 30 > scrolled;
          if (seen) assert.isTrue(row >= start && row < end);
        }
      }),
    );
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 40, max: 300 }), { maxLength: 300 }),
        fc.nat(10_000),
        (widths, scrolled) => {
          const at = Span.starts(widths);
          const { end, start } = Span.columns(scrolled, 800, at);
          widths.forEach((width, column) => {
            const from = at[column] ?? 0;
            if (from < scrolled + 800 && from + width > scrolled) assert.isTrue(column >= start && column < end);
          });
          assert.isAtMost(end - start, 24);
        },
      ),
    );
  });
});
