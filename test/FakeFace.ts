/** A node's HTTP face with no node behind it: it says what the test's fields say. */
import { once } from "node:events";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

type Json = Readonly<Record<string, unknown>>;

export const aNode = (address: string, more: Json = {}): Json => ({
  address,
  state: "alive",
  source: "udp",
  features: 1,
  version: "0.1.0",
  legacy: false,
  heardAt: "2026-01-01T00:00:00.000Z",
  heardMs: 1_000,
  udpMs: 1_000,
  announcedAt: "2026-01-01T00:00:00.000Z",
  clockOffsetMs: 2,
  ...more,
});

export class FakeFace {
  self: Json = {
    address: "10.0.0.1",
    port: 17106,
    version: "0.1.0",
    startedAt: new Date(Date.now() - 3_600_000).toISOString(),
    ready: true,
    features: 3,
    registry: "s3://fleet/prod/",
    stateDir: "/run/nameq/state",
    registryClockOffsetMs: 40,
  };
  /** Its clock, where it says so. */
  at: string | undefined;
  nodes: ReadonlyArray<Json> = [];
  conditions: ReadonlyArray<Json> = [];
  reachability: ReadonlyArray<Json> = [];
  metrics = "";
  token: string | undefined;
  /** What a path answers in place of the usual. */
  readonly answers = new Map<string, readonly [status: number, body: string]>();
  /** The heads of the requests. */
  readonly requests: Array<http.IncomingMessage> = [];
  /** Where the events go. */
  readonly listeners = new Set<http.ServerResponse>();
  /** What a new listener is told. */
  greeting = (): string =>
    this.event("snapshot", { self: this.self, features: {}, nodes: this.nodes, conditions: this.conditions });
  private serial = 0;

  private readonly server = http.createServer((request, response) => {
    this.requests.push(request);
    const path = request.url ?? "";
    const answer = this.answers.get(path);
    if (answer?.[0] === 0) return;
    if (answer !== undefined) return void response.writeHead(answer[0]).end(answer[1]);
    if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) {
      return void response.writeHead(401).end('{"error":{"code":"token","message":"no"}}');
    }
    switch (path) {
      case "/v1/nodes":
        return void response.end(
          JSON.stringify(
            { at: this.at, self: this.self, nodes: this.nodes, conditions: this.conditions },
            undefined,
            1,
          ),
        );
      case "/v1/reachability":
        return void response.end(
          JSON.stringify({ askedAt: "2026-01-01T00:00:00.000Z", waitedMs: 20, nodes: this.reachability }),
        );
      case "/metrics":
        return void response.end(this.metrics);
      case "/v1/events":
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write(this.greeting());
        this.listeners.add(response);
        response.on("close", () => this.listeners.delete(response));
        return;
      default:
        return void response.writeHead(404).end();
    }
  });

  /** A face on a free port of 127.0.0.1, ended with the scope. */
  static readonly make: Effect.Effect<FakeFace, never, Scope.Scope> = Effect.acquireRelease(
    Effect.promise(async () => {
      const fake = new FakeFace();
      await fake.start();
      return fake;
    }),
    (fake) => Effect.sync(() => fake.stop()),
  );

  /** Listens; also again after `stop`. */
  async start(port = 0): Promise<void> {
    await once(this.server.listen(port, "127.0.0.1"), "listening");
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** An event as it goes over the wire. */
  event(name: string, data: unknown): string {
    return `id: run-${++this.serial}\nevent: ${name}\ndata: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
  }

  /** Tells all listeners. */
  tell(name: string, data: unknown): void {
    const text = this.event(name, data);
    for (const listener of this.listeners) listener.write(text);
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}
