/** What the HTTP face offers, described once: its router and its OpenAPI document are made of this. */
import * as HttpApi from "@effect/platform/HttpApi";
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint";
import * as HttpApiGroup from "@effect/platform/HttpApiGroup";
import * as HttpApiSchema from "@effect/platform/HttpApiSchema";
import * as OpenApi from "@effect/platform/OpenApi";
import * as Schema from "effect/Schema";
import { version } from "../Version.js";

const about = (description: string) => ({ description });

const Address = Schema.String.annotations({
  identifier: "Address",
  description: "A node's own IPv4 or IPv6 address, canonical.",
  jsonSchema: { type: "string", examples: ["10.0.0.1", "fd00::1"] },
});
const FeatureName = Schema.String.annotations({
  identifier: "FeatureName",
  jsonSchema: { type: "string", pattern: "^[A-Za-z0-9_-]{1,255}$" },
});
const Value = Schema.Unknown.annotations({
  identifier: "Value",
  description: "Any JSON, exactly as its owner wrote it: numbers may have more digits than a double holds.",
  jsonSchema: {},
});
const Time = Schema.String.annotations({
  identifier: "Time",
  description: "ISO 8601, UTC, milliseconds.",
  jsonSchema: { type: "string", format: "date-time" },
});
const Ms = Schema.Number.annotations({ identifier: "Milliseconds", jsonSchema: { type: "number" } });

const Hosts = Schema.Record({ key: Address, value: Value }).annotations({
  identifier: "Hosts",
  description: "Values by host; the answering node itself is there under its own address.",
  jsonSchema: { type: "object", additionalProperties: {} },
});

export const Features = Schema.Struct({
  self: Address,
  features: Schema.Record({ key: FeatureName, value: Hosts }).annotations({
    jsonSchema: { type: "object", additionalProperties: { type: "object", additionalProperties: {} } },
  }),
}).annotations({ identifier: "Features" });

export const Feature = Schema.Struct({ self: Address, feature: FeatureName, hosts: Hosts }).annotations({
  identifier: "Feature",
});

const Self = Schema.Struct({
  address: Address,
  port: Schema.Number,
  version: Schema.String,
  startedAt: Time,
  ready: Schema.Boolean.annotations(about("Membership is known and stands in the tree.")),
  features: Schema.Number,
  registry: Schema.String,
  stateDir: Schema.String,
  featureDir: Schema.NullOr(Schema.String),
  registryClockOffsetMs: Schema.NullOr(Ms).annotations(
    about("This host's clock less the registry's at the last listing."),
  ),
}).annotations({ identifier: "Self" });

const Node = Schema.Struct({
  address: Address,
  state: Schema.Literal("alive", "silent", "left", "forgotten").annotations(
    about(
      "alive: heard by UDP lately; silent: not, and looked up in the registry; left: it said goodbye; forgotten: expired.",
    ),
  ),
  source: Schema.Literal("udp", "registry").annotations(about("Where its last news came from.")),
  features: Schema.Number,
  version: Schema.NullOr(Schema.String),
  legacy: Schema.Boolean.annotations(about("Its object in the registry is one of the existing program.")),
  heardAt: Time,
  heardMs: Ms.annotations(about("Age of its last accepted news.")),
  udpMs: Schema.NullOr(Ms).annotations(about("Age of its last datagram.")),
  announcedAt: Schema.NullOr(Time).annotations(about("By its own clock.")),
  clockOffsetMs: Schema.NullOr(Ms).annotations(
    about("Our clock less its clock at its last datagram, the time on the way included."),
  ),
}).annotations({ identifier: "Node" });

const Condition = Schema.Struct({
  name: Schema.String,
  severity: Schema.Literal("error", "warning", "info"),
  message: Schema.String.annotations(about("What is wrong, and what to do.")),
  since: Time,
}).annotations({ identifier: "Condition" });

export const Nodes = Schema.Struct({
  at: Time.annotations(about("The node's clock when it answered.")),
  self: Self,
  nodes: Schema.Array(Node),
  conditions: Schema.Array(Condition),
}).annotations({ identifier: "Nodes" });

export const Reachability = Schema.Struct({
  askedAt: Time,
  waitedMs: Ms,
  nodes: Schema.Array(
    Schema.Struct({
      address: Address,
      answered: Schema.Boolean,
      rttMs: Schema.NullOr(Ms),
      canAnswer: Schema.Boolean.annotations(about("False for the existing program, which only sends heartbeats.")),
      heardMs: Schema.NullOr(Ms),
    }),
  ),
}).annotations({ identifier: "Reachability" });

const problem = (status: number, description: string) =>
  Schema.Struct({
    error: Schema.Struct({
      code: Schema.String,
      message: Schema.String.annotations(about("What is wrong, and what to do.")),
    }),
  }).annotations({ identifier: "Error", description, ...HttpApiSchema.annotations({ status }) });

const text = (contentType: string, status = 200) =>
  HttpApiSchema.Text({ contentType }).annotations(HttpApiSchema.annotations({ status }));

const lastEventId = <A, I>(schema: Schema.Schema<A, I>) => {
  const description = "The id of the last event seen: resumes without a snapshot where that is possible.";
  const annotated = schema.annotations({ description, jsonSchema: { type: "string", description } });
  return Schema.Struct({ "last-event-id": Schema.optional(annotated) });
};

const v1 = HttpApiGroup.make("v1", { topLevel: true })
  .add(
    HttpApiEndpoint.get("features", "/v1/features")
      .addSuccess(Features)
      .annotate(OpenApi.Summary, "All features of all hosts"),
  )
  .add(
    HttpApiEndpoint.get("feature", "/v1/features/:name")
      .setPath(Schema.Struct({ name: FeatureName }))
      .addSuccess(Feature)
      .addError(problem(400, "No feature can have this name."))
      .annotate(OpenApi.Summary, "One feature's hosts and their values; none: no hosts"),
  )
  .add(
    HttpApiEndpoint.get("nodes", "/v1/nodes")
      .addSuccess(Nodes)
      .annotate(OpenApi.Summary, "This node, the others, and what is wrong now"),
  )
  .add(
    HttpApiEndpoint.get("reachability", "/v1/reachability")
      .addSuccess(Reachability)
      .addError(problem(503, "The node has not started yet."))
      .annotate(OpenApi.Summary, "Asks all peers for an answer")
      .annotate(
        OpenApi.Description,
        "At most one exchange in 5 seconds: later callers share the last one. Waits at most 2 seconds.",
      ),
  )
  .add(
    HttpApiEndpoint.get("events", "/v1/events")
      // of several the first counts
      .setUrlParams(lastEventId(Schema.Union(Schema.String, Schema.Array(Schema.String))))
      .setHeaders(lastEventId(Schema.String))
      .addSuccess(text("text/event-stream"))
      .addError(problem(503, "Too many clients."))
      .annotate(OpenApi.Summary, "A snapshot, then what changes, as server-sent events")
      .annotate(
        OpenApi.Description,
        [
          "Events: `snapshot` {at, self, features, nodes, conditions}, first, when a node that was starting is ready, and after too many changes at once; `change` {at, feature, host, value}, without value when it went;",
          "`nodes` {nodes, gone} (with `whole`: all there are); `heard` {ADDRESS: time}; `conditions` {conditions}; `self`, that object;",
          "`stats` {at, received, sent, dropped, changes, latencyMs}, of one second.",
          "At most 256 clients at once; one that reads too slowly is cut off.",
        ].join("\n"),
      ),
  );

const operations = HttpApiGroup.make("operations", { topLevel: true })
  .add(
    HttpApiEndpoint.get("healthz", "/healthz")
      .addSuccess(text("text/plain"))
      .annotate(OpenApi.Summary, "Whether the program runs"),
  )
  .add(
    HttpApiEndpoint.get("readyz", "/readyz")
      .addSuccess(text("text/plain"))
      .addError(text("text/plain", 503))
      .annotate(OpenApi.Summary, "Whether membership is known and stands in the tree"),
  )
  .add(
    HttpApiEndpoint.get("metrics", "/metrics")
      .addSuccess(text("text/plain"))
      .annotate(OpenApi.Summary, "Metrics in Prometheus's text format"),
  )
  .add(
    HttpApiEndpoint.get("openapi", "/openapi.json")
      .addSuccess(Schema.Object.annotations({ jsonSchema: { type: "object" } }))
      .annotate(OpenApi.Summary, "This document"),
  );

/** Paths that need no token: load balancers and supervisors ask there. */
export const open: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

interface Operation {
  security: ReadonlyArray<object>;
  responses: Record<string, { description: string; content: Record<string, { schema: unknown }> }>;
}

interface Document {
  readonly paths: Readonly<Record<string, { readonly get: Operation }>>;
  readonly components: { readonly schemas: Record<string, unknown>; securitySchemes: unknown };
  security: ReadonlyArray<object>;
}

/** Refusals of the library's own, which cannot happen here, and the schemas that they alone use. */
const unused = ["HttpApiDecodeError", "Issue", "PropertyKey"];

/** The document says where a token may be needed, and not what the library adds for requests that need decoding. */
const corrected = (spec: Record<string, unknown>): Record<string, unknown> => {
  const { components, paths, ...rest } = spec as unknown as Document;
  const security = [{}, { bearer: [] }];
  for (const [path, { get }] of Object.entries(paths)) {
    get.security = open.has(path) ? [] : security;
    const ours = /"#\/components\/schemas\/Error"/.test(JSON.stringify(get.responses["400"]));
    const schema = { $ref: "#/components/schemas/Error" };
    const problem = (description: string) => ({ description, content: { "application/json": { schema } } });
    if (ours) get.responses["400"] = problem("No feature can have this name.");
    else delete get.responses["400"];
    if (!open.has(path)) get.responses["401"] = problem("The token is missing or wrong.");
  }
  for (const name of unused) delete components.schemas[name];
  const bearer = { type: "http", scheme: "bearer", description: "Needed when the node runs with --http-token-file." };
  return { ...rest, paths, security, components: { ...components, securitySchemes: { bearer } } };
};

export const api = HttpApi.make("nameq")
  .add(v1)
  .add(operations)
  .annotate(OpenApi.Title, "nameq")
  .annotate(OpenApi.Version, version)
  .annotate(OpenApi.Description, "What one node of a nameq fleet knows. Read-only.")
  .annotate(OpenApi.License, { name: "MIT" })
  .annotate(OpenApi.Transform, corrected);

/** The OpenAPI 3.1 document. */
export const document = (): object => OpenApi.fromApi(api);
