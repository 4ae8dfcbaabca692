/** A node's HTTP face without the node: as many hosts, changes and faults as a test of the page asks for. */
import * as Effect from "effect/Effect";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as PageFiles from "../../src/Http/PageFiles.js";

/** What browsers are told to refuse; the real face says the same. */
export const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export interface FakeNodeView {
  readonly address: string;
  readonly state: string;
  readonly source: string;
  readonly features: number;
  readonly version: string | null;
  readonly legacy: boolean;
  readonly heardAt: string;
  readonly heardMs: number;
  readonly udpMs: number | null;
  readonly announcedAt: string | null;
  readonly clockOffsetMs: number | null;
}

const maxKept = 1_024;

export class FakeNode {
  self: Record<string, unknown> = {
    address: "10.0.0.1",
    port: 17_106,
    version: "0.1.0",
    startedAt: "2026-01-02T03:04:05.000Z",
    ready: true,
    registry: "s3://fleet/prod",
    stateDir: "/run/nameq/state",
    featureDir: "/etc/nameq/features",
    registryClockOffsetMs: 12,
  };
  /** Exact JSON texts by feature, then by host. */
  readonly features = new Map<string, Map<string, string>>();
  readonly nodes = new Map<string, FakeNodeView>();
  conditions: ReadonlyArray<object> = [];
  token: string | undefined;
  /** Requests for events that came, with their Last-Event-ID. */
  readonly asked: Array<string | undefined> = [];
  private run = "a";
  private sequence = 0;
  private kept: Array<{ sequence: number; text: string }> = [];
  private readonly clients = new Set<http.ServerResponse>();
  private server: http.Server | undefined;
  private files: PageFiles.PageFiles = new Map();
  private readonly timers = new Set<ReturnType<typeof setInterval>>();

  constructor(
    readonly host: string,
    public port = 0,
  ) {}

  get url(): string {
    return `http://${this.host}:${this.port}/`;
  }

  async start(): Promise<this> {
    this.files = await Effect.runPromise(PageFiles.load());
    this.server = http.createServer((request, response) => this.answer(request, response));
    await new Promise<void>((resolve) => this.server?.listen(this.port, this.host, resolve));
    this.port = (this.server.address() as AddressInfo).port;
    return this;
  }

  /** Ends as a killed process does: all connections at once. */
  async stop(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    this.timers.clear();
    this.clients.clear();
    const { server } = this;
    await new Promise<void>((resolve) => {
      server?.close(() => resolve());
      server?.closeAllConnections();
    });
  }

  /** Starts again on the same port as another process. */
  async restart(): Promise<void> {
    this.run = `${this.run}a`;
    this.sequence = 0;
    this.kept = [];
    await this.start();
  }

  /** Breaks all connections; the process lives on. */
  drop(): void {
    for (const client of this.clients) client.destroy();
    this.clients.clear();
  }

  private answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const path = request.url?.split("?")[0] ?? "/";
    const file = this.files.get(path);
    response.setHeader("content-security-policy", policy);
    response.setHeader("x-content-type-options", "nosniff");
    if (file !== undefined) {
      const { cacheControl, etag, gzip, type } = file;
      response.writeHead(200, {
        "content-type": type,
        "content-encoding": "gzip",
        "cache-control": cacheControl,
        etag,
      });
      response.end(gzip);
    } else if (path !== "/v1/events") {
      response.writeHead(404).end();
    } else if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) {
      response.writeHead(401, { "content-type": "application/json" });
      response.end('{"error":{"code":"unauthorized","message":"send the token"}}');
    } else {
      const last = request.headers["last-event-id"] as string | undefined;
      this.asked.push(last);
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
      const [run, sequence] = last?.split("-") ?? [];
      if (run === this.run) {
        for (const event of this.kept) if (event.sequence > Number(sequence)) response.write(event.text);
        response.write(": resumed\n\n");
      } else response.write(this.event("snapshot", this.snapshot()));
      this.clients.add(response);
      response.on("close", () => this.clients.delete(response));
    }
  }

  private event(name: string, data: string): string {
    return `id: ${this.run}-${this.sequence}\nevent: ${name}\ndata: ${data}\n\n`;
  }

  private send(name: string, data: string): void {
    this.sequence++;
    const text = this.event(name, data);
    this.kept.push({ sequence: this.sequence, text });
    if (this.kept.length > maxKept) this.kept.shift();
    for (const client of this.clients) client.write(text);
  }

  private snapshot(): string {
    const features = [...this.features].map(
      ([feature, hosts]) =>
        `${JSON.stringify(feature)}:{${[...hosts].map(([host, json]) => `${JSON.stringify(host)}:${json}`).join(",")}}`,
    );
    return `{"at":"${new Date().toISOString()}","self":${JSON.stringify(this.self)},"features":{${features.join(",")}},"nodes":${JSON.stringify([...this.nodes.values()])},"conditions":${JSON.stringify(this.conditions)}}`;
  }

  set(feature: string, host: string, json: string): void {
    const hosts = this.features.get(feature) ?? new Map<string, string>();
    this.features.set(feature, hosts.set(host, json));
    this.send("change", `{"at":"${new Date().toISOString()}","feature":"${feature}","host":"${host}","value":${json}}`);
  }

  remove(feature: string, host: string): void {
    const hosts = this.features.get(feature);
    hosts?.delete(host);
    if (hosts?.size === 0) this.features.delete(feature);
    this.send("change", `{"at":"${new Date().toISOString()}","feature":"${feature}","host":"${host}"}`);
  }

  /** Adds a node or changes it. */
  node(address: string, change: Partial<FakeNodeView> = {}): void {
    const now = new Date().toISOString();
    const node = {
      address,
      state: "alive",
      source: "udp",
      features: 0,
      version: "0.1.0",
      legacy: false,
      heardAt: now,
      heardMs: 0,
      udpMs: 0,
      announcedAt: now,
      clockOffsetMs: 1.2,
      ...this.nodes.get(address),
      ...change,
    };
    this.nodes.set(address, node);
    this.send("nodes", JSON.stringify({ nodes: [node], gone: [] }));
  }

  forget(address: string): void {
    this.nodes.delete(address);
    this.send("nodes", JSON.stringify({ nodes: [], gone: [address] }));
  }

  condition(...conditions: ReadonlyArray<object>): void {
    this.conditions = conditions;
    this.send("conditions", JSON.stringify({ conditions }));
  }

  stats(at: number, received: number, changes: number, latencyMs: number | null): void {
    const second = new Date(at).toISOString();
    this.send("stats", JSON.stringify({ at: second, received, sent: received >> 1, dropped: 0, changes, latencyMs }));
  }

  /** A fleet of 10.a.b.c with features as real ones have them. */
  fleet(hosts: number, features: ReadonlyArray<string> = roles): void {
    const random = generator(7);
    for (let i = 0; i < hosts; i++) {
      const address = addressOf(i);
      const ago = Math.floor(random() * 40_000);
      const silent = hosts > 20 && i % 211 === 17;
      if (i > 0) {
        this.nodes.set(address, {
          address,
          state: silent ? "silent" : "alive",
          source: i % 67 === 5 ? "registry" : "udp",
          features: features.length,
          version: i % 31 === 3 ? null : "0.1.0",
          legacy: i % 31 === 3,
          heardAt: new Date(Date.now() - ago - (silent ? 400_000 : 0)).toISOString(),
          heardMs: ago + (silent ? 400_000 : 0),
          udpMs: ago,
          announcedAt: new Date(Date.now() - 3_600_000 * random() * 90).toISOString(),
          clockOffsetMs: Math.round((random() - 0.4) * 90) / 10,
        });
      }
      for (const [index, feature] of features.entries()) {
        if (features === roles && random() > density[index % density.length]!) continue;
        const at = this.features.get(feature) ?? new Map<string, string>();
        this.features.set(feature, at.set(address, sample(feature, random)));
      }
    }
  }

  /** Changes so many values a second, one by one, and tells figures each second. */
  churn(perSecond: number): void {
    const random = generator(11);
    const names = [...this.features.keys()];
    let owed = 0;
    let last = Date.now();
    let changed = 0;
    const change = setInterval(() => {
      const now = Date.now();
      owed += ((now - last) * perSecond) / 1_000;
      last = now;
      for (; owed >= 1; owed--) {
        const feature = names[Math.floor(random() * names.length)] ?? "db";
        const hosts = [...(this.features.get(feature)?.keys() ?? [])];
        // half of them where they are seen
        const index = Math.floor(random() * (random() < 0.5 ? Math.min(40, hosts.length) : hosts.length));
        const host = hosts[index];
        if (host !== undefined) this.set(feature, host, `{"port":${Math.floor(random() * 60_000)},"at":${now}}`);
        changed++;
      }
    }, 10);
    const tell = setInterval(() => {
      this.stats(Date.now(), changed + 30, changed, 2 + random());
      changed = 0;
    }, 1_000);
    this.timers.add(change).add(tell);
  }
}

/** What hosts of a real fleet offer. */
export const roles = ["api", "cache", "db", "edge", "mail", "metrics", "queue", "search", "web", "worker"];
const density = [0.5, 0.35, 0.25, 0.3, 0.15, 0.9, 0.4, 0.2, 0.6, 0.7];

export const addressOf = (index: number): string => `10.${index >> 16}.${(index >> 8) & 255}.${(index & 255) + 1}`;

/** The same numbers each time. */
const generator = (seed: number) => (): number => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return seed / 2 ** 32;
};

const sample = (feature: string, random: () => number): string => {
  const pick = (...options: ReadonlyArray<string>): string => options[Math.floor(random() * options.length)] ?? "";
  switch (feature) {
    case "db":
      return random() < 0.25
        ? '{"port":5432}'
        : `{"port":5432,"replica":true,"lag":0.${Math.floor(random() * 90) + 10}}`;
    case "cache":
      return `{"port":6379,"mb":${pick("512", "2048", "8192")}}`;
    case "api":
      return `{"port":8080,"rev":"${Math.floor(random() * 0xfffff).toString(16)}"}`;
    case "edge":
      return pick('"eu-west-1a"', '"eu-west-1b"', '"eu-west-1c"');
    case "queue":
      return `{"shard":${Math.floor(random() * 64)}}`;
    case "search":
      return `["primary",${Math.floor(random() * 12)}]`;
    case "web":
      return pick("80", "8080", "443");
    case "mail":
      return pick("true", "true", "false");
    default:
      return "true";
  }
};
