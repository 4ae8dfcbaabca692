import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { Histogram, Metrics } from "../src/Metrics.js";
import * as Prometheus from "../src/Http/Prometheus.js";

describe("the text for Prometheus", () => {
  it("escapes what labels and help texts hold, and knows numbers that JSON does not", () => {
    assert.strictEqual(
      Prometheus.render([
        {
          name: "a",
          type: "gauge",
          help: 'a "quote", a \\ and\nanother line',
          samples: [
            { labels: { x: 'a "quote", a \\ and\nanother line', y: "" }, value: Number.POSITIVE_INFINITY },
            { value: Number.NEGATIVE_INFINITY },
            { value: Number.NaN },
            { value: 1e21 },
          ],
        },
        { name: "b", type: "counter", help: "", samples: [] },
      ]),
      [
        '# HELP a a "quote", a \\\\ and\\nanother line',
        "# TYPE a gauge",
        'a{x="a \\"quote\\", a \\\\ and\\nanother line",y=""} +Inf',
        "a -Inf",
        "a NaN",
        "a 1e+21",
        "",
      ].join("\n"),
    );
  });

  it("has each bucket with what is below it", () => {
    const histogram = new Histogram("tree_write", "");
    for (const seconds of [0.00005, 0.000051, 0.3, 2, -1]) histogram.observe(seconds);
    const samples = Prometheus.histogramSamples({}, histogram);
    const buckets = samples.filter(({ suffix }) => suffix === "_bucket");
    assert.deepStrictEqual(
      buckets.map(({ labels, value }) => `${labels!["le"]} ${value}`),
      [
        "0.00005 2",
        "0.0001 3",
        "0.00025 3",
        "0.0005 3",
        "0.001 3",
        "0.0025 3",
        "0.005 3",
        "0.01 3",
        "0.05 3",
        "0.25 3",
        "1 4",
        "+Inf 5",
      ],
    );
    assert.deepStrictEqual(samples.slice(-2), [
      { suffix: "_sum", labels: {}, value: 0.00005 + 0.000051 + 0.3 + 2 },
      { suffix: "_count", labels: {}, value: 5 },
    ]);
  });

  it.effect("has every counter from the start, and labels in parts", () =>
    Effect.gen(function* () {
      const metrics = yield* Metrics;
      metrics.add("registry_errors", "get:Timeout", 2);
      metrics.add("datagrams_dropped", "stale");
      metrics.gauge("datagrams_pending", () => 7);
      metrics.histogram("registry_request", "put:ok").observe(0.02);
      const text = Prometheus.render(Prometheus.familiesOf(metrics));
      for (const line of [
        "nameq_datagrams_received_total 0",
        'nameq_registry_errors_total{operation="get",reason="Timeout"} 2',
        'nameq_datagrams_dropped_total{reason="stale"} 1',
        "nameq_datagrams_pending 7",
        'nameq_registry_request_seconds_bucket{operation="put",outcome="ok",le="0.025"} 1',
        'nameq_registry_request_seconds_count{operation="put",outcome="ok"} 1',
      ]) {
        assert.include(text.split("\n"), line);
      }
      // one type for each name, before its samples
      const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
      assert.lengthOf(new Set(names), names.length);
      assert.match(text, /^(?:# HELP \S+ .+\n# TYPE \S+ (?:counter|gauge|histogram)\n(?:[^#\n].*\n)+)+$/);
    }).pipe(Effect.provide(Metrics.layer)),
  );
});
