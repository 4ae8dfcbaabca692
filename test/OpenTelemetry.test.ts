import * as http from "node:http";
import { gunzipSync } from "node:zlib";
import { assert, describe, it } from "@effect/vitest";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Logger from "effect/Logger";
import * as Option from "effect/Option";
import * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import * as TestServices from "effect/TestServices";
import { Metrics } from "../src/Metrics.js";
import { NodeView } from "../src/NodeView.js";
import * as OpenTelemetry from "../src/OpenTelemetry.js";
import * as Otlp from "../src/Otlp.js";
import { until } from "./HttpFace.js";

interface Received {
  readonly path: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

/** A collector that keeps what it gets; `status` is what it answers with, undefined: nothing until `answer`. */
class Collector {
  readonly received: Array<Received> = [];
  status: number | undefined = 200;
  private readonly unanswered: Array<http.ServerResponse> = [];
  url = "";

  static readonly make = Effect.acquireRelease(
    Effect.async<readonly [Collector, http.Server]>((resume) => {
      const collector = new Collector();
      const server = http.createServer((request, response) => {
        const chunks: Array<Buffer> = [];
        request.on("data", (chunk: Buffer) => chunks.push(chunk));
        request.on("end", () => {
          const bytes = Buffer.concat(chunks);
          const { headers, url: path = "" } = request;
          const body = (headers["content-encoding"] === "gzip" ? gunzipSync(bytes) : bytes).toString();
          collector.received.push({ path, headers, body });
          if (collector.status === undefined) collector.unanswered.push(response);
          else response.writeHead(collector.status).end("{}");
        });
      });
      server.listen(0, "127.0.0.1", () => {
        const address = server.address();
        if (typeof address === "object" && address !== null) collector.url = `http://127.0.0.1:${address.port}`;
        resume(Effect.succeed([collector, server]));
      });
    }),
    ([, server]) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void));
        server.closeAllConnections();
      }),
  ).pipe(Effect.map(([collector]) => collector));

  /** Answers all that had none. */
  answer(status: number): void {
    this.status = status;
    for (const response of this.unanswered.splice(0)) response.writeHead(status).end("{}");
  }

  of(path: string): ReadonlyArray<Received> {
    return this.received.filter((each) => each.path === path);
  }
}

const telemetry = (environment: Otlp.Environment, log: Array<string> = []) =>
  OpenTelemetry.make({ environment, view: new NodeView(), address: "10.0.0.1", hostName: "a-host" }).pipe(
    Effect.provide(
      Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ message }) => log.push(String(message))),
      ),
    ),
  );

/**
 * Lets the test's time pass in steps of 100 ms until it is true. Not in one: the collector has a batch before the exporter
 * has the answer, and only then starts to wait again.
 */
const pass = (what: string, condition: () => boolean): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let step = 0; step < 1_000; step++) {
      if (condition()) return;
      yield* TestClock.adjust("100 millis");
      yield* TestServices.provideLive(Effect.sleep("5 millis"));
    }
    yield* Effect.dieMessage(`not within 1,000 steps: ${what}`);
  });

/** Longer than any test passes: not what is tested. */
const patient = { OTEL_EXPORTER_OTLP_TIMEOUT: "3600000" };

class Failed extends Data.TaggedError("Failed")<{ readonly message: string }> {}

const secret = "a-header-that-nobody-may-see";

describe("OpenTelemetry", () => {
  it.scoped("exports metrics of all kinds, each time it is due", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const metrics = yield* Metrics;
      metrics.add("registry_errors", "get:Timeout", 3);
      metrics.gauge("datagrams_pending", () => 7);
      for (const seconds of [0.0001, 0.02, 100]) metrics.histogram("propagation").observe(seconds);
      yield* telemetry({
        OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/base/`,
        OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer%20${secret}, x=1`,
        OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=prod,service.instance.id=mine",
        OTEL_METRIC_EXPORT_INTERVAL: "1000",
        ...patient,
      });
      yield* TestClock.adjust("999 millis");
      assert.lengthOf(collector.received, 0);
      yield* TestClock.adjust("1 millis");
      yield* until("the first export", () => collector.received.length === 1);
      const [{ body, headers, path }] = collector.received as [Received];
      assert.strictEqual(path, "/base/v1/metrics");
      assert.strictEqual(headers["content-type"], "application/json");
      assert.strictEqual(headers.authorization, `Bearer ${secret}`);
      const [{ resource, scopeMetrics }] = (
        JSON.parse(body) as {
          resourceMetrics: [
            { resource: { attributes: Array<object> }; scopeMetrics: [{ metrics: Array<Record<string, unknown>> }] },
          ];
        }
      ).resourceMetrics;
      assert.includeDeepMembers(resource.attributes, [
        { key: "service.name", value: { stringValue: "nameq" } },
        { key: "service.instance.id", value: { stringValue: "mine" } },
        { key: "deployment.environment.name", value: { stringValue: "prod" } },
        { key: "host.name", value: { stringValue: "a-host" } },
      ]);
      const of = (name: string) => scopeMetrics[0].metrics.find((metric) => metric["name"] === name);
      const point = { attributes: [], startTimeUnixNano: "0", timeUnixNano: "1000000000" };
      assert.deepStrictEqual(of("nameq_registry_errors")!["sum"], {
        dataPoints: [
          {
            ...point,
            attributes: [
              { key: "operation", value: { stringValue: "get" } },
              { key: "reason", value: { stringValue: "Timeout" } },
            ],
            asDouble: 3,
          },
        ],
        aggregationTemporality: 2,
        isMonotonic: true,
      });
      assert.deepStrictEqual(of("nameq_datagrams_pending")!["gauge"], { dataPoints: [{ ...point, asDouble: 7 }] });
      const propagation = of("nameq_propagation_seconds")!;
      assert.strictEqual(propagation["unit"], "s");
      const { dataPoints } = propagation["histogram"] as { dataPoints: [Record<string, unknown>] };
      assert.deepInclude(dataPoints[0], { count: "3", sum: 100.0201 });
      assert.deepInclude(dataPoints[0], {
        explicitBounds: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15],
        bucketCounts: ["1", "0", "0", "0", "0", "1", "0", "0", "0", "0", "0", "0", "0", "0", "1"],
      });
      yield* pass("the second export", () => collector.received.length === 2);
    }).pipe(Effect.provide(Metrics.layer)),
  );

  it.scoped("exports spans, those that wait at the end too", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const scope = yield* Scope.make();
      const tracer = yield* Scope.extend(
        telemetry({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/here` }),
        scope,
      );
      const work = Effect.fail(new Failed({ message: "no such bucket" })).pipe(
        Effect.withSpan("inner", { kind: "client", attributes: { bytes: 5, exact: false, key: "k" } }),
        Effect.ignore,
        Effect.withSpan("outer"),
        Effect.withTracer(tracer!),
      );
      yield* work;
      yield* TestClock.adjust("5 seconds");
      yield* until("an export", () => collector.received.length === 1);
      const spans = (at: number) =>
        (
          JSON.parse(collector.of("/here")[at]!.body) as {
            resourceSpans: [{ scopeSpans: [{ spans: Array<Record<string, unknown>> }] }];
          }
        ).resourceSpans[0].scopeSpans[0].spans;
      const [inner, outer] = spans(0);
      assert.match(String(inner!["traceId"]), /^[0-9a-f]{32}$/);
      assert.match(String(inner!["spanId"]), /^[0-9a-f]{16}$/);
      assert.strictEqual(inner!["traceId"], outer!["traceId"]);
      assert.strictEqual(inner!["parentSpanId"], outer!["spanId"]);
      assert.deepInclude(inner, { name: "inner", kind: 3, status: { code: 2, message: "no such bucket" } });
      assert.deepInclude(outer, { name: "outer", kind: 1, status: { code: 1 } });
      assert.notProperty(outer, "parentSpanId");
      assert.includeDeepMembers(inner!["attributes"] as Array<object>, [
        { key: "bytes", value: { intValue: "5" } },
        { key: "exact", value: { boolValue: false } },
        { key: "key", value: { stringValue: "k" } },
      ]);
      yield* work;
      yield* Scope.close(scope, Exit.void);
      assert.lengthOf(spans(1), 2);
    }).pipe(Effect.provide(Metrics.layer)),
  );

  it.scoped("ends after what is on its way, and sends no span twice", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const scope = yield* Scope.make();
      const tracer = yield* Scope.extend(
        telemetry({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: collector.url, ...patient }),
        scope,
      );
      const span = (name: string) => Effect.void.pipe(Effect.withSpan(name), Effect.withTracer(tracer!));
      collector.status = undefined;
      yield* span("first");
      yield* TestClock.adjust("5 seconds");
      yield* until("it is on its way", () => collector.received.length === 1);
      yield* span("second");
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void));
      yield* Effect.yieldNow();
      collector.answer(200);
      yield* Fiber.join(closing);
      assert.deepStrictEqual(
        collector.received.map(({ body }) => body.match(/"name":"(first|second)"/g)),
        [['"name":"first"'], ['"name":"second"']],
      );
    }).pipe(Effect.provide(Metrics.layer)),
  );

  it.scoped("keeps spans while the collector is away, up to a limit, and says so once", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const metrics = yield* Metrics;
      const log: Array<string> = [];
      const tracer = yield* telemetry(
        {
          OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
          OTEL_EXPORTER_OTLP_HEADERS: `authorization=${secret}`,
          OTEL_METRICS_EXPORTER: "none",
          OTEL_BSP_SCHEDULE_DELAY: "100",
          OTEL_BSP_MAX_QUEUE_SIZE: "10",
          OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "4",
          ...patient,
        },
        log,
      );
      collector.status = 503;
      for (let n = 0; n < 12; n++) yield* Effect.void.pipe(Effect.withSpan(`s${n}`), Effect.withTracer(tracer!));
      assert.strictEqual(metrics.value("spans_dropped"), 2);
      yield* pass("refused three times", () => collector.received.length === 3);
      collector.status = 200;
      yield* until("it was said", () => log.length === 1);
      yield* pass("all exported", () => collector.received.length === 6);
      const names = collector.received
        .slice(-3)
        .flatMap(({ body }) => [...body.matchAll(/"name":"(s\d+)"/g)].map(([, name]) => name));
      assert.deepStrictEqual(
        names,
        Array.from({ length: 10 }, (_, n) => `s${n}`),
      );
      yield* until("it is over", () => log.length === 2);
      assert.match(log[0]!, /does not take traces \(it answers with status 503\): check OTEL_EXPORTER_OTLP_ENDPOINT/);
      assert.match(log[1]!, /takes traces again/);
      assert.notInclude(log.join(), secret);
    }).pipe(Effect.provide(Metrics.layer)),
  );

  it.scoped("gives up spans that the collector refuses for good, and counts them", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const metrics = yield* Metrics;
      const log: Array<string> = [];
      const tracer = yield* telemetry(
        {
          OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: collector.url,
          OTEL_BSP_SCHEDULE_DELAY: "100",
          OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "4",
          ...patient,
        },
        log,
      );
      collector.status = 400;
      for (let n = 0; n < 4; n++) yield* Effect.void.pipe(Effect.withSpan(`s${n}`), Effect.withTracer(tracer!));
      yield* TestClock.adjust("100 millis");
      yield* until("it was said", () => log.length === 1);
      assert.strictEqual(metrics.value("spans_dropped"), 4);
      collector.status = 200;
      yield* Effect.void.pipe(Effect.withSpan("next"), Effect.withTracer(tracer!));
      yield* pass("the next went out", () => collector.received.length === 2);
      assert.deepStrictEqual(
        [...collector.received[1]!.body.matchAll(/"name":"(s\d|next)"/g)].map(([, name]) => name),
        ["next"],
      );
    }).pipe(Effect.provide(Metrics.layer)),
  );

  it.scoped("does not wait for a collector that says nothing, and a second for it at the end", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make;
      const scope = yield* Scope.make();
      const log: Array<string> = [];
      yield* Scope.extend(
        telemetry(
          {
            OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
            OTEL_METRIC_EXPORT_INTERVAL: "1000",
            OTEL_EXPORTER_OTLP_TIMEOUT: "2000",
          },
          log,
        ),
        scope,
      );
      collector.status = undefined;
      yield* TestClock.adjust("1 second");
      yield* until("it was sent", () => collector.received.length === 1);
      yield* TestClock.adjust("2 seconds");
      assert.match(log.join(), /does not take metrics \(no answer within 2000 ms\)/);
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void));
      yield* until("the last was sent", () => collector.received.length === 2);
      yield* TestClock.adjust("999 millis");
      assert.isTrue(Option.isNone(yield* Fiber.poll(closing)));
      yield* TestClock.adjust("1 millis");
      yield* Fiber.join(closing);
    }).pipe(Effect.provide(Metrics.layer)),
  );
});

describe("OpenTelemetry's variables", () => {
  it("are looked at only when they name a collector", () => {
    assert.isFalse(Otlp.isWanted({}));
    assert.isFalse(Otlp.isWanted({ OTEL_SERVICE_NAME: "x", OTEL_EXPORTER_OTLP_ENDPOINT: "" }));
    assert.isFalse(Otlp.isWanted({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c", OTEL_SDK_DISABLED: "TRUE" }));
    for (const name of ["ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT"]) {
      assert.isTrue(Otlp.isWanted({ [`OTEL_EXPORTER_OTLP_${name}`]: "http://c" }));
    }
  });

  it("of one signal go before those of all", () => {
    const config = Otlp.configOf(
      {
        OTEL_EXPORTER_OTLP_ENDPOINT: "https://c.example:4318",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://m.example/x",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS: "a=b%2Cc,bad,=none",
        OTEL_EXPORTER_OTLP_HEADERS: "z=1",
        OTEL_EXPORTER_OTLP_TIMEOUT: "7",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "8",
        OTEL_SERVICE_NAME: "named",
      },
      { "service.name": "own" },
    );
    assert.deepStrictEqual(config.problems, []);
    assert.strictEqual(config.resource["service.name"], "named");
    const { metrics, traces } = config;
    assert.deepInclude(metrics, { headers: { a: "b,c" }, timeoutMs: 7, gzip: false });
    assert.deepInclude(traces, { headers: { z: "1" }, timeoutMs: 8 });
    assert.strictEqual(metrics?.url.href, "http://m.example/x");
    assert.strictEqual(traces?.url.href, "https://c.example:4318/v1/traces");
  });

  it("that name a header that none can be cost that header, and do not show its value", () => {
    const { metrics, problems } = Otlp.configOf(
      {
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: "http://c",
        OTEL_EXPORTER_OTLP_HEADERS: `api key=${secret},x=${secret}%0A,y=%E2%82%AC,good=1`,
      },
      {},
    );
    assert.deepStrictEqual(metrics?.headers, { good: "1" });
    assert.lengthOf(problems, 3);
    assert.match(problems[0]!, /OTEL_EXPORTER_OTLP_HEADERS.*api key/);
    assert.notInclude(problems.join(), secret);
  });

  it("that make no sense cost what they are for, with advice", () => {
    const bad = Otlp.configOf(
      {
        OTEL_EXPORTER_OTLP_ENDPOINT: "localhost:4318",
        OTEL_METRIC_EXPORT_INTERVAL: "1s",
        OTEL_BSP_MAX_QUEUE_SIZE: "-1",
      },
      {},
    );
    assert.isUndefined(bad.traces);
    assert.isUndefined(bad.metrics);
    assert.strictEqual(bad.metricsEveryMs, 60_000);
    assert.lengthOf(bad.problems, 4);
    assert.include(bad.problems.join(), "http://127.0.0.1:4318");
    const grpc = Otlp.configOf(
      { OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4317", OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "grpc" },
      {},
    );
    assert.isUndefined(grpc.traces);
    assert.isDefined(grpc.metrics);
    assert.include(grpc.problems.join(), "4318");
  });
});
