/** The HTTP face of a node: what it knows, for people, programs and monitoring. Read-only. */
import * as Cause from "effect/Cause";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Option from "effect/Option";
import type * as Scope from "effect/Scope";
import * as fs from "node:fs";
import * as http from "node:http";
import * as os from "node:os";
import * as path from "node:path";
import * as HttpApiBuilder from "@effect/platform/HttpApiBuilder";
import type * as HttpApp from "@effect/platform/HttpApp";
import * as HttpMiddleware from "@effect/platform/HttpMiddleware";
import * as HttpRouter from "@effect/platform/HttpRouter";
import * as HttpServer from "@effect/platform/HttpServer";
import type { RouteNotFound } from "@effect/platform/HttpServerError";
import * as HttpServerRequest from "@effect/platform/HttpServerRequest";
import * as HttpServerResponse from "@effect/platform/HttpServerResponse";
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer";
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest";
import type { Address } from "./Address.js";
import { isFeatureName } from "./Feature.js";
import * as Answers from "./Http/Answers.js";
import * as Api from "./Http/Api.js";
import { Events, maxClients } from "./Http/Events.js";
import * as Guard from "./Http/Guard.js";
import type { PageFile, PageFiles } from "./Http/PageFiles.js";
import { processFamilies } from "./Http/Process.js";
import * as Prometheus from "./Http/Prometheus.js";
import { type Listen, urlFile, urlOf } from "./Http/Url.js";
import { Metrics } from "./Metrics.js";
import type { NodeView } from "./NodeView.js";
import { version } from "./Version.js";

export interface HttpOptions {
  readonly listen: Listen;
  /** Its content, without white space at the ends, is the token that requests must bring. */
  readonly tokenFile?: string | undefined;
  /** The URL is left there, in `.http`, while the face is up. */
  readonly stateDir: string;
  /** Where features of this host are offered, for those who want to. */
  readonly featureDir?: string | undefined;
  readonly view: NodeView;
  readonly address: Address;
  /** UDP port. */
  readonly port: number;
  /** For reading, such as `s3://bucket/prefix/`. */
  readonly registry: string;
  /** Replaces some of the limits, in tests. */
  readonly limits?: Partial<typeof limits>;
  /** By path: what is answered beside the API. */
  readonly page?: PageFiles;
}

/** The face cannot be opened. Never holds the token. */
export class HttpError extends Data.TaggedError("HttpError")<{
  readonly reason: "Bind" | "Token" | "StateDir";
  /** What could not be opened: an address with its port, or a path. */
  readonly where: string;
  readonly cause: unknown;
}> {
  override get message(): string {
    const detail = this.cause instanceof Error ? this.cause.message : String(this.cause);
    if (this.reason === "Token") {
      return `the HTTP token in ${this.where} cannot be used (${detail}): put one line of at least ${minToken} printable characters there, such as head -c 32 /dev/urandom | base64 gives`;
    }
    if (this.reason === "StateDir")
      return `cannot write ${this.where} (${detail}): let this user write there, and see that its file system has room`;
    const code = this.cause instanceof Error && "code" in this.cause ? this.cause.code : undefined;
    switch (code) {
      case "EADDRINUSE":
        return `HTTP port ${this.where} is in use: choose another with --http ADDR:PORT, or leave HTTP out with --http off`;
      case "EADDRNOTAVAIL":
        return `${this.where} is no address of this host: choose one that is with --http ADDR:PORT`;
      case "EACCES":
      case "EPERM":
        return `no permission to open HTTP port ${this.where}: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another with --http ADDR:PORT`;
      default:
        return `cannot open HTTP port ${this.where} (${detail}): check --http`;
    }
  }
}

/** Shortest token, characters. */
const minToken = 16;

/** How often the token's file is looked at, and whether the URL still stands in the state directory. */
const lookEvery = "5 seconds";

/** Limits against clients that are slow, many or hostile. */
const limits = {
  maxHeaderSize: 16 * 1024,
  headersTimeout: 10_000,
  requestTimeout: 20_000,
  keepAliveTimeout: 30_000,
  // nothing read and nothing sent: of an answer that nobody reads; a stream of events has a comment in time
  idleTimeout: 60_000,
  // how often the two timeouts are looked at
  connectionsCheckingInterval: 1_000,
};
const maxConnections = maxClients + 256;

/** How long open answers have to end when the node stops, ms. */
const closeMs = 300;

/**
 * How long what takes work may be given again: so many ms, and so many times what it took. However often it is asked
 * for, it costs a tenth of the node's time at most; in a fleet of 10,000 one takes 200 ms.
 */
const reuseMs = 250;
const reuseFactor = 9;

/** How long peers are waited for, ms, and how long one exchange stands for further askers. */
const askWaitMs = 2_000;
const askEvery = "5 seconds";

const securityHeaders = {
  "cache-control": "no-store",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

const text = (body: string, status = 200, contentType = "text/plain; charset=utf-8") =>
  HttpServerResponse.text(body, { status, contentType, headers: securityHeaders });

const json = (body: string, status = 200) => text(body, status, "application/json");

const failure = ({ code, headers = {}, message, status }: Guard.Refusal) =>
  HttpServerResponse.setHeaders(json(Answers.error(code, message), status), headers);

const fileAnswer = (file: PageFile, headers: http.IncomingHttpHeaders) => {
  const common = { ...securityHeaders, etag: file.etag, "cache-control": file.cacheControl, vary: "accept-encoding" };
  if (headers["if-none-match"]?.includes(file.etag)) return HttpServerResponse.empty({ status: 304, headers: common });
  const zipped = /\bgzip\b/.test(String(headers["accept-encoding"] ?? ""));
  return HttpServerResponse.uint8Array(zipped ? file.gzip : file.body, {
    contentType: file.type,
    headers: zipped ? { ...common, "content-encoding": "gzip" } : common,
  });
};

const isLoopback = (host: string): boolean => host.startsWith("127.") || host === "::1";

const readToken = (file: string): Effect.Effect<string, HttpError> =>
  Effect.try({
    try: () => {
      const token = fs.readFileSync(file, "utf8").trim();
      if (!/^[\x21-\x7e]*$/.test(token))
        throw new Error("it holds white space or other characters than printable ASCII");
      if (token.length < minToken) throw new Error(`it has ${token.length} characters`);
      return token;
    },
    catch: (cause) => new HttpError({ reason: "Token", where: file, cause }),
  });

/** A server that listens. When the scope ends, open answers have a moment to end; then their connections are cut. */
const listening = (
  { host, port }: Listen,
  options: typeof limits,
): Effect.Effect<http.Server, HttpError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<http.Server, HttpError>((resume) => {
      const server = http.createServer(options);
      server.maxConnections = maxConnections;
      server.timeout = options.idleTimeout;
      server.on("error", (cause) => resume(new HttpError({ reason: "Bind", where: `${host}:${port}`, cause })));
      server.listen({ host, port, exclusive: true }, () => resume(Effect.succeed(server)));
    }),
    (server) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void));
        server.closeIdleConnections();
      }).pipe(Effect.timeoutOption(closeMs), Effect.zipRight(Effect.sync(() => server.closeAllConnections()))),
  );

/** Leaves the URL in the state directory while the scope is open; who removes it from outside gets it again. */
const leaveUrl = (stateDir: string, url: string): Effect.Effect<Effect.Effect<void, HttpError>, never, Scope.Scope> => {
  const file = path.join(stateDir, urlFile);
  const attempt = (work: () => void) =>
    Effect.try({ try: work, catch: (cause) => new HttpError({ reason: "StateDir", where: file, cause }) });
  const stands = (): boolean => fs.existsSync(file) && fs.readFileSync(file, "utf8") === `${url}\n`;
  const temporary = `${file}.new`;
  const leave = attempt(() => {
    if (!fs.existsSync(stateDir) || stands()) return;
    fs.writeFileSync(temporary, `${url}\n`, { mode: 0o644 });
    fs.renameSync(temporary, file);
  });
  const take = attempt(() => {
    for (const each of [temporary, file]) fs.rmSync(each, { force: true });
  });
  return Effect.as(
    Effect.addFinalizer(() => Effect.catchAll(take, (error) => Effect.logWarning(error.message))),
    leave,
  );
};

const bug = (cause: Cause.Cause<unknown>) =>
  Effect.as(
    Effect.logError("an HTTP request could not be answered: this is a bug, please report it", cause),
    failure({ status: 500, code: "bug", message: "this is a bug: the node's log has more" }),
  );

/** The last one for a while; `make` is synchronous. */
const reused = <A>(nowMs: () => number, make: () => A): Effect.Effect<A> => {
  let last: { readonly made: A; readonly atMs: number; readonly forMs: number } | undefined;
  return Effect.sync(() => {
    const startMs = nowMs();
    if (last === undefined || startMs - last.atMs >= last.forMs || startMs < last.atMs) {
      const made = make();
      const atMs = nowMs();
      last = { made, atMs, forMs: Math.max(reuseMs, reuseFactor * (atMs - startMs)) };
    }
    return last.made;
  });
};

/** Opens the face, and tells its URL. It is closed with the scope; what fails in an answer fails that answer alone. */
export const make = (options: HttpOptions): Effect.Effect<string, HttpError, Metrics | Scope.Scope> =>
  Effect.gen(function* () {
    const { listen, view } = options;
    const metrics = yield* Metrics;
    const clock = yield* Effect.clock;
    const scope = yield* Effect.scope;
    const nowMs = () => clock.unsafeCurrentTimeMillis();
    const startedAtMs = nowMs();
    let token = options.tokenFile === undefined ? undefined : yield* readToken(options.tokenFile);

    const server = yield* listening(listen, { ...limits, ...options.limits });
    const bound = server.address();
    const url = urlOf({
      host: listen.host,
      port: typeof bound === "object" && bound !== null ? bound.port : listen.port,
    });
    const leaveItsUrl = yield* leaveUrl(options.stateDir, url);

    const self = (): Answers.Self => ({
      address: options.address,
      port: options.port,
      version,
      startedAtMs,
      ready: view.ready,
      features: view.own.entries.size,
      registry: options.registry,
      stateDir: options.stateDir,
      featureDir: options.featureDir,
      registryClockOffsetMs: view.registryOffsetMs,
    });
    const events = new Events(view, metrics, self, nowMs);
    const ofProcess = yield* processFamilies(startedAtMs);

    const features = reused(nowMs, () =>
      json(`{"self":"${options.address}","features":${Answers.features(view.features)}}`),
    );
    const byFeature = reused(nowMs, () => Answers.byFeature(view.features));
    const nodes = reused(nowMs, () =>
      json(
        `{"at":${view.isRunning ? Answers.time(view.unixMs()) : "null"},"self":${Answers.self(self())},"nodes":${Answers.nodes(view.nodes(), view.unixMs())},"conditions":${Answers.conditions(view.conditions())}}`,
      ),
    );
    const measured = reused(nowMs, () =>
      text(
        Prometheus.render([...Prometheus.familiesOf(metrics), ...Prometheus.viewFamilies(view), ...ofProcess()]),
        200,
        Prometheus.contentType,
      ),
    );
    const document = JSON.stringify(Api.document());

    const exchange = Effect.suspend(() => {
      if (!view.isRunning) {
        return Effect.succeed(
          failure({ status: 503, code: "starting", message: "the node has not started yet: try again" }),
        );
      }
      const askedAtMs = view.unixMs();
      return Effect.map(view.ask(askWaitMs), (answers) =>
        json(Answers.reachability(askedAtMs, view.unixMs() - askedAtMs, answers)),
      );
    }).pipe(
      // in a fiber of the face: that one asker goes must not end it for the others
      Effect.forkIn(scope),
      Effect.flatMap(Fiber.join),
    );
    const reachability = yield* Effect.cachedWithTTL(exchange, askEvery);

    const follow = Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest;
      const headers = { ...securityHeaders, "content-type": "text/event-stream", "x-accel-buffering": "no" };
      if (request.method === "HEAD") return HttpServerResponse.empty({ status: 200, headers });
      const waitMs = events.waitMs();
      if (waitMs > 0) yield* Effect.sleep(waitMs);
      if (events.full) {
        return failure({
          status: 503,
          code: "too-many-clients",
          message: `${maxClients} clients follow already: try again later`,
          headers: { "retry-after": "5" },
        });
      }
      const response = NodeHttpServerRequest.toServerResponse(request);
      const query = new URLSearchParams(request.url.split("?", 2)[1] ?? "").get("last-event-id");
      response.writeHead(200, headers);
      metrics.add("http_requests", "200");
      // until one side ends it; the fiber goes with the connection
      return yield* Effect.async<never>((resume) => {
        response.on("close", () => resume(Effect.interrupt));
        events.attach(response, request.headers["last-event-id"] ?? query ?? undefined);
      });
    });

    const v1 = HttpApiBuilder.group(Api.api, "v1", (handlers) =>
      handlers
        .handleRaw("features", () => features)
        .handleRaw("feature", ({ path: { name } }) =>
          Effect.map(byFeature, (hosts) =>
            isFeatureName(name)
              ? json(`{"self":"${options.address}","feature":"${name}","hosts":${hosts.get(name) ?? "{}"}}`)
              : failure({
                  status: 400,
                  code: "bad-name",
                  message: "a feature's name has 1 to 255 of the characters A-Z a-z 0-9 - _",
                }),
          ),
        )
        .handleRaw("nodes", () => nodes)
        .handleRaw("reachability", () => reachability)
        .handleRaw("events", () => follow),
    );
    const operations = HttpApiBuilder.group(Api.api, "operations", (handlers) =>
      handlers
        .handleRaw("healthz", () => Effect.succeed(text("ok\n")))
        .handleRaw("readyz", () =>
          Effect.sync(() =>
            view.ready ? text("ready\n") : text("starting: the registry is not read into the tree yet\n", 503),
          ),
        )
        .handleRaw("metrics", () => measured)
        .handleRaw("openapi", () => Effect.succeed(json(document))),
    );

    const routed = yield* HttpApiBuilder.httpApp.pipe(
      HttpRouter.withRouterConfig({
        ignoreTrailingSlash: false,
        ignoreDuplicateSlashes: false,
        caseSensitive: true,
        // longer names get their answer from the handler
        maxParamLength: limits.maxHeaderSize,
      }),
      Effect.provide(
        HttpApiBuilder.api(Api.api).pipe(
          Layer.provide([v1, operations]),
          Layer.provideMerge(HttpApiBuilder.Router.Live),
          Layer.provideMerge(HttpApiBuilder.Middleware.layer),
        ),
      ),
    );

    const platform = yield* Layer.build(HttpServer.layerContext);
    const page = options.page ?? new Map<string, PageFile>();
    const refuse = Guard.make({
      token: () => token,
      isOpen: (at) => Api.open.has(at) || page.has(at),
      hostNames:
        token === undefined && isLoopback(listen.host)
          ? new Set(["localhost", os.hostname().toLowerCase(), os.hostname().toLowerCase().split(".")[0]!])
          : undefined,
    });
    const app: HttpApp.Default<never, HttpRouter.HttpRouter.DefaultServices> = Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest;
      const { headers, method, url } = NodeHttpServerRequest.toIncomingMessage(request);
      const refusal = refuse({ method: method ?? "", url: url ?? "", headers });
      if (refusal !== undefined) {
        // what comes behind a request that is refused is not read
        return failure({ ...refusal, headers: { ...refusal.headers, connection: "close" } });
      }
      const file = page.get(Guard.pathOf(request.url));
      if (file !== undefined) return fileAnswer(file, headers);
      // its type leaves out what the router fails with
      return yield* routed as HttpApp.Default<RouteNotFound, HttpRouter.HttpRouter.DefaultServices>;
    }).pipe(
      Effect.catchTag("RouteNotFound", () =>
        Effect.succeed(
          failure({
            status: 404,
            code: "not-found",
            message: "there is nothing here: see /openapi.json for what there is",
          }),
        ),
      ),
      Effect.catchSomeCause((cause) =>
        // who asked has gone
        Cause.isInterrupted(cause) ? Option.none() : Option.some(bug(cause)),
      ),
      Effect.tap(({ status }) => Effect.sync(() => metrics.add("http_requests", String(status)))),
    );

    const handler = yield* NodeHttpServer.makeHandler(app).pipe(
      // here, not in `app`: for each request it would cost 40 µs
      Effect.provide(platform),
      Effect.locally(HttpMiddleware.currentTracerDisabledWhen, () => true),
    );
    server.on("request", handler);
    yield* Effect.forkScoped(events.serve);
    let failing = false;
    /** What fails is said once, and tried again: for want of a note nobody is without a node. */
    const look = Effect.gen(function* () {
      if (options.tokenFile !== undefined) {
        const read = yield* readToken(options.tokenFile);
        // whoever follows with the token of before must show that it has this one
        if (read !== token) events.end();
        token = read;
      }
      yield* leaveItsUrl;
      failing = false;
    }).pipe(
      Effect.catchAll((error) => {
        if (failing) return Effect.void;
        failing = true;
        return Effect.logWarning(error.message);
      }),
    );
    yield* look;
    yield* Effect.forkScoped(Effect.forever(Effect.delay(look, lookEvery)));
    yield* Effect.logInfo(`status page and API at ${url}`);
    if (!isLoopback(listen.host) && token === undefined) {
      yield* Effect.logWarning(
        `everybody who reaches ${url} reads what this fleet offers: set --http-token-file, or listen on 127.0.0.1 alone`,
      );
    }
    return url;
  });
