/** What OpenTelemetry's environment variables say, and its JSON form of metrics and spans (OTLP 1). Pure. */
import * as Cause from "effect/Cause";
import * as Exit from "effect/Exit";
import type { Family, Labels, Sample } from "./Http/Prometheus.js";

export type Environment = Readonly<Record<string, string | undefined>>;

export type Signal = "traces" | "metrics";

/** Where one signal goes. */
export interface Target {
  readonly url: URL;
  /** May hold secrets. */
  readonly headers: Readonly<Record<string, string>>;
  readonly gzip: boolean;
  /** Of one request, ms. */
  readonly timeoutMs: number;
}

export interface OtlpConfig {
  readonly traces: Target | undefined;
  readonly metrics: Target | undefined;
  /** Between two exports of metrics, ms. */
  readonly metricsEveryMs: number;
  /** Between two exports of spans, ms. */
  readonly tracesEveryMs: number;
  /** Spans that wait at most, and that go out together. */
  readonly maxQueue: number;
  readonly maxBatch: number;
  readonly resource: Readonly<Record<string, string>>;
  /** What was not understood, and what to do. */
  readonly problems: ReadonlyArray<string>;
}

/** Whether there is anything to export to: else nothing of this need be loaded. */
export const isWanted = (environment: Environment): boolean =>
  environment["OTEL_SDK_DISABLED"]?.toLowerCase() !== "true" &&
  ["", "TRACES_", "METRICS_"].some((signal) => environment[`OTEL_EXPORTER_OTLP_${signal}ENDPOINT`]);

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text.trim());
  } catch {
    return text.trim();
  }
};

/** `key=value,key=value`, values escaped as in URLs. */
const pairs = (text = ""): Readonly<Record<string, string>> =>
  Object.fromEntries(
    text.split(",").flatMap((pair) => {
      const at = pair.indexOf("=");
      return at <= 0 ? [] : [[pair.slice(0, at).trim(), decoded(pair.slice(at + 1))]];
    }),
  );

/** What Node's HTTP client would throw at. */
const isHeader = ([name, value]: readonly [string, string]): boolean =>
  /^[\w!#$%&'*+.^`|~-]+$/.test(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(value);

/** Reads the variables; `own` is what the resource says unless they say otherwise. */
export const configOf = (environment: Environment, own: Readonly<Record<string, string>>): OtlpConfig => {
  const problems: Array<string> = [];
  const natural = (name: string, otherwise: number): number => {
    const text = environment[name];
    if (!text) return otherwise;
    if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
    problems.push(`${name}: "${text}" is no whole number above 0; taking ${otherwise}`);
    return otherwise;
  };
  const headers = (text: string | undefined): Target["headers"] =>
    Object.fromEntries(
      Object.entries(pairs(text)).filter((header) => {
        if (isHeader(header)) return true;
        problems.push(
          `OTEL_EXPORTER_OTLP_HEADERS: the name or value of "${header[0]}" has characters that a header cannot have, it is left out; write name=value,name=value`,
        );
        return false;
      }),
    );
  const target = (signal: Signal): Target | undefined => {
    const specific = (name: string) =>
      environment[`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_${name}`] || environment[`OTEL_EXPORTER_OTLP_${name}`];
    const exporter = environment[`OTEL_${signal.toUpperCase()}_EXPORTER`] || "otlp";
    const whole = environment[`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_ENDPOINT`];
    const base = environment["OTEL_EXPORTER_OTLP_ENDPOINT"];
    const text = whole || (base && `${base.replace(/\/$/, "")}/v1/${signal}`);
    if (!exporter.split(",").includes("otlp") || !text) return undefined;
    const protocol = specific("PROTOCOL") || "http/json";
    if (!/^http\/(?:json|protobuf)$/.test(protocol)) {
      problems.push(
        `OTEL_EXPORTER_OTLP_PROTOCOL: "${protocol}" is not spoken, ${signal} are not exported; set http/json and the collector's HTTP port, usually 4318`,
      );
      return undefined;
    }
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol)) {
      problems.push(
        `the OTLP endpoint for ${signal} is no URL, they are not exported; set OTEL_EXPORTER_OTLP_ENDPOINT to one such as http://127.0.0.1:4318`,
      );
      return undefined;
    }
    return {
      url,
      headers: headers(specific("HEADERS")),
      gzip: specific("COMPRESSION") === "gzip",
      timeoutMs: natural(
        environment[`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_TIMEOUT`]
          ? `OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_TIMEOUT`
          : "OTEL_EXPORTER_OTLP_TIMEOUT",
        10_000,
      ),
    };
  };
  const name = environment["OTEL_SERVICE_NAME"];
  return {
    traces: target("traces"),
    metrics: target("metrics"),
    metricsEveryMs: natural("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
    tracesEveryMs: natural("OTEL_BSP_SCHEDULE_DELAY", 5_000),
    maxQueue: natural("OTEL_BSP_MAX_QUEUE_SIZE", 2_048),
    maxBatch: natural("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
    resource: {
      ...own,
      ...pairs(environment["OTEL_RESOURCE_ATTRIBUTES"]),
      ...(name ? { "service.name": name } : {}),
    },
    // of both signals alike
    problems: [...new Set(problems)],
  };
};

// --- JSON -----------------------------------------------------------------------------------------------------------

/** A span that has ended. */
export interface EndedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string | undefined;
  readonly name: string;
  readonly kind: "internal" | "server" | "client" | "producer" | "consumer";
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: ReadonlyMap<string, unknown>;
  readonly exit: Exit.Exit<unknown, unknown>;
}

const attribute = ([key, value]: readonly [string, unknown]) => ({
  key,
  value:
    typeof value === "boolean"
      ? { boolValue: value }
      : typeof value === "number"
        ? Number.isSafeInteger(value)
          ? { intValue: String(value) }
          : { doubleValue: value }
        : { stringValue: String(value) },
});

const attributes = (all: Iterable<readonly [string, unknown]>) => [...all].map(attribute);

const scope = { name: "nameq" };

const kinds = { internal: 1, server: 2, client: 3, producer: 4, consumer: 5 };

/** Interrupted is not failed. */
const statusOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)
    ? { code: 1 }
    : { code: 2, message: Cause.prettyErrors(exit.cause)[0]?.message ?? "failed" };

export const spansText = (resource: OtlpConfig["resource"], spans: ReadonlyArray<EndedSpan>): string =>
  JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: attributes(Object.entries(resource)) },
        scopeSpans: [
          {
            scope,
            spans: spans.map((span) => ({
              traceId: span.traceId,
              spanId: span.spanId,
              ...(span.parentId !== undefined && { parentSpanId: span.parentId }),
              name: span.name,
              kind: kinds[span.kind],
              startTimeUnixNano: String(span.startNs),
              endTimeUnixNano: String(span.endNs),
              attributes: attributes(span.attributes),
              status: statusOf(span.exit),
            })),
          },
        ],
      },
    ],
  });

/** Those of the series, not those of a part of it. */
const seriesLabels = (labels: Labels = {}): Labels =>
  Object.fromEntries(Object.entries(labels).filter(([name]) => name !== "le" && name !== "quantile"));

/** Samples of a histogram or summary by their labels, those of one series together. */
const series = (samples: ReadonlyArray<Sample>): ReadonlyArray<readonly [Labels, ReadonlyArray<Sample>]> => {
  const all = new Map<string, [Labels, Array<Sample>]>();
  for (const sample of samples) {
    const labels = seriesLabels(sample.labels);
    const key = JSON.stringify(labels);
    const found = all.get(key);
    if (found === undefined) all.set(key, [labels, [sample]]);
    else found[1].push(sample);
  }
  return [...all.values()];
};

const valueOf = (samples: ReadonlyArray<Sample>, suffix: string): number =>
  samples.find((sample) => sample.suffix === suffix)?.value ?? 0;

/** Since the start of the node. */
const cumulative = 2;

const dataOf = ({ samples, type }: Family, startTimeUnixNano: string, timeUnixNano: string) => {
  const point = (labels: Labels = {}) => ({
    attributes: attributes(Object.entries(labels)),
    startTimeUnixNano,
    timeUnixNano,
  });
  const numbers = samples.map(({ labels, value }) => ({ ...point(labels), asDouble: value }));
  switch (type) {
    case "gauge":
      return { gauge: { dataPoints: numbers } };
    case "counter":
      return { sum: { dataPoints: numbers, aggregationTemporality: cumulative, isMonotonic: true } };
    case "histogram":
      return {
        histogram: {
          aggregationTemporality: cumulative,
          dataPoints: series(samples).map(([labels, all]) => {
            const buckets = all.filter(({ suffix }) => suffix === "_bucket");
            return {
              ...point(labels),
              count: String(valueOf(all, "_count")),
              sum: valueOf(all, "_sum"),
              bucketCounts: buckets.map(({ value }, at) => String(value - (buckets[at - 1]?.value ?? 0))),
              explicitBounds: buckets.slice(0, -1).map((bucket) => Number(bucket.labels!["le"])),
            };
          }),
        },
      };
    case "summary":
      return {
        summary: {
          dataPoints: series(samples).map(([labels, all]) => ({
            ...point(labels),
            count: String(valueOf(all, "_count")),
            sum: valueOf(all, "_sum"),
            quantileValues: all
              .filter(({ suffix }) => suffix === undefined)
              .map((sample) => ({ quantile: Number(sample.labels!["quantile"]), value: sample.value })),
          })),
        },
      };
  }
};

/** Names lose `_total`, which Prometheus's side of a collector adds. */
export const metricsText = (
  resource: OtlpConfig["resource"],
  families: ReadonlyArray<Family>,
  startNs: bigint,
  nowNs: bigint,
): string =>
  JSON.stringify({
    resourceMetrics: [
      {
        resource: { attributes: attributes(Object.entries(resource)) },
        scopeMetrics: [
          {
            scope,
            metrics: families
              .filter(({ samples }) => samples.length > 0)
              .map((family) => ({
                name: family.name.replace(/_total$/, ""),
                description: family.help,
                ...(/_(seconds|bytes)(?:_total)?$/.test(family.name) && {
                  unit: family.name.includes("_seconds") ? "s" : "By",
                }),
                ...dataOf(family, String(startNs), String(nowNs)),
              })),
          },
        ],
      },
    ],
  });
