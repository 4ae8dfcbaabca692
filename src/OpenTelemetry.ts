/**
 * Spans and metrics for an OpenTelemetry collector, over HTTP as JSON. Loaded only when the standard environment
 * variables name one. What waits for it is bounded, and a collector that is away costs one log line.
 */
import { randomBytes } from "node:crypto";
import * as http from "node:http";
import * as https from "node:https";
import { gzipSync } from "node:zlib";
import * as Data from "effect/Data";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import type * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as Tracer from "effect/Tracer";
import { processFamilies } from "./Http/Process.js";
import * as Prometheus from "./Http/Prometheus.js";
import { Metrics } from "./Metrics.js";
import type { NodeView } from "./NodeView.js";
import * as Otlp from "./Otlp.js";
import { version } from "./Version.js";

/** The collector did not take what it was sent. Never holds a header. */
class CollectorError extends Data.TaggedError("CollectorError")<{
  readonly detail: string;
  /** It will not take it later either. */
  readonly final?: boolean;
}> {}

export interface TelemetryOptions {
  readonly environment: Otlp.Environment;
  readonly view: NodeView;
  /** Own address: tells the nodes of a fleet apart. */
  readonly address: string;
  readonly hostName: string;
}

/** How long the last spans and metrics may take at the end, ms. */
const flushMs = 1_000;

/** What may be sent again. Source: OTLP 1, "Retryable Response Codes". */
const passing: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** Longest answer that is read, bytes: it says nothing that we need. */
const maxAnswer = 65_536;

const post = (target: Otlp.Target, text: string): Effect.Effect<void, CollectorError> =>
  Effect.async<void, CollectorError>((resume) => {
    const body = target.gzip ? gzipSync(text) : Buffer.from(text);
    const fail = (detail: string, final = false): void => resume(new CollectorError({ detail, final }));
    const request = (target.url.protocol === "https:" ? https : http).request(
      target.url,
      {
        method: "POST",
        headers: {
          ...target.headers,
          "content-type": "application/json",
          "content-length": body.length,
          "user-agent": `nameq/${version}`,
          ...(target.gzip && { "content-encoding": "gzip" }),
        },
      },
      (response) => {
        const { statusCode = 0 } = response;
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswer) response.destroy();
        });
        response.on("error", () => {});
        response.on("close", () =>
          statusCode >= 200 && statusCode < 300
            ? resume(Effect.void)
            : fail(`it answers with status ${statusCode}`, !passing.has(statusCode)),
        );
      },
    );
    request.on("error", (error) => fail(error.message));
    request.end(body);
    return Effect.sync(() => request.destroy());
  }).pipe(
    Effect.timeoutFail({
      duration: target.timeoutMs,
      onTimeout: () => new CollectorError({ detail: `no answer within ${target.timeoutMs} ms` }),
    }),
  );

/** A span that tells when it ends. */
class Span implements Tracer.Span {
  readonly _tag = "Span";
  readonly traceId: string;
  readonly spanId = randomBytes(8).toString("hex");
  readonly sampled = true;
  readonly attributes = new Map<string, unknown>();
  readonly links: Array<Tracer.SpanLink>;
  status: Tracer.SpanStatus;

  constructor(
    readonly name: string,
    readonly parent: Option.Option<Tracer.AnySpan>,
    readonly context: Tracer.Span["context"],
    links: ReadonlyArray<Tracer.SpanLink>,
    private readonly startNs: bigint,
    readonly kind: Tracer.SpanKind,
    private readonly onEnd: (span: Otlp.EndedSpan) => void,
  ) {
    this.traceId = Option.isSome(parent) ? parent.value.traceId : randomBytes(16).toString("hex");
    this.links = [...links];
    this.status = { _tag: "Started", startTime: startNs };
  }

  end(endNs: bigint, exit: Exit.Exit<unknown, unknown>): void {
    this.status = { _tag: "Ended", startTime: this.startNs, endTime: endNs, exit };
    const { attributes, kind, name, spanId, startNs, traceId } = this;
    const parentId = Option.getOrUndefined(Option.map(this.parent, (parent) => parent.spanId));
    this.onEnd({ traceId, spanId, parentId, name, kind, startNs, endNs, attributes, exit });
  }

  attribute(key: string, value: unknown): void {
    this.attributes.set(key, value);
  }

  event(): void {
    // nothing of ours has any
  }

  addLinks(links: ReadonlyArray<Tracer.SpanLink>): void {
    this.links.push(...links);
  }
}

/** Logs the first failure in a row, and that it is over. */
const reporting = (signal: Otlp.Signal, target: Otlp.Target) => {
  let failing = false;
  return (effect: Effect.Effect<void, CollectorError>): Effect.Effect<"taken" | "refused" | "later"> =>
    Effect.matchEffect(effect, {
      onFailure: ({ detail, final }) => {
        const first = !failing;
        failing = true;
        return Effect.as(
          first
            ? Effect.logWarning(
                `the OpenTelemetry collector at ${target.url.origin} does not take ${signal} (${detail}): check OTEL_EXPORTER_OTLP_ENDPOINT`,
              )
            : Effect.void,
          final === true ? "refused" : "later",
        );
      },
      onSuccess: () => {
        const was = failing;
        failing = false;
        return Effect.as(
          was ? Effect.logInfo(`the OpenTelemetry collector takes ${signal} again`) : Effect.void,
          "taken",
        );
      },
    });
};

/** Exports while the scope is open. Gives the tracer whose spans go out, if spans are wanted. */
export const make = (
  options: TelemetryOptions,
): Effect.Effect<Tracer.Tracer | undefined, never, Metrics | Scope.Scope> =>
  Effect.gen(function* () {
    const metrics = yield* Metrics;
    const clock = yield* Effect.clock;
    const nowNs = () => BigInt(clock.unsafeCurrentTimeMillis()) * 1_000_000n;
    const startNs = nowNs();
    const config = Otlp.configOf(options.environment, {
      "service.name": "nameq",
      "service.version": version,
      "service.instance.id": options.address,
      "host.name": options.hostName,
    });
    for (const problem of config.problems) yield* Effect.logWarning(problem);

    /** Now and then, and once more at the end, after what is on its way then. */
    const exporting = (everyMs: number, send: Effect.Effect<void>) =>
      Effect.gen(function* () {
        const ending = yield* Deferred.make<void>();
        const fiber = yield* Deferred.await(ending).pipe(
          Effect.timeoutOption(everyMs),
          Effect.tap(() => send),
          Effect.repeat({ until: Option.isSome }),
          Effect.forkScoped,
        );
        yield* Effect.addFinalizer(() =>
          Deferred.succeed(ending, undefined).pipe(
            Effect.zipRight(Fiber.await(fiber)),
            Effect.interruptible,
            Effect.timeoutOption(flushMs),
          ),
        );
      });

    if (config.metrics !== undefined) {
      const target = config.metrics;
      const report = reporting("metrics", target);
      const ofProcess = yield* processFamilies(Number(startNs / 1_000_000n));
      const send = Effect.suspend(() => {
        const families = [...Prometheus.familiesOf(metrics), ...Prometheus.viewFamilies(options.view), ...ofProcess()];
        return report(post(target, Otlp.metricsText(config.resource, families, startNs, nowNs())));
      });
      yield* exporting(config.metricsEveryMs, Effect.asVoid(send));
    }

    if (config.traces === undefined) return undefined;
    const target = config.traces;
    const report = reporting("traces", target);
    let waiting: Array<Otlp.EndedSpan> = [];
    const keep = (span: Otlp.EndedSpan): void => {
      if (waiting.length < config.maxQueue) waiting.push(span);
      else metrics.add("spans_dropped");
    };
    const send: Effect.Effect<void> = Effect.suspend(() => {
      if (waiting.length === 0) return Effect.void;
      const batch = waiting.slice(0, config.maxBatch);
      return report(post(target, Otlp.spansText(config.resource, batch))).pipe(
        Effect.flatMap((outcome) => {
          if (outcome === "later") return Effect.void;
          if (outcome === "refused") metrics.add("spans_dropped", "", batch.length);
          waiting = waiting.slice(batch.length);
          return send;
        }),
      );
    });
    yield* exporting(config.tracesEveryMs, send);
    return Tracer.make({
      span: (name, parent, context, links, startTime, kind) =>
        new Span(name, parent, context, links, startTime, kind, keep),
      context: (execution) => execution(),
    });
  });
