/** Nodes inside programs, and the examples that the README shows, on real sockets and files. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it, vi } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Redacted from "effect/Redacted";
import * as Stream from "effect/Stream";
import { EmbeddedNode, type EmbeddedNodeOptions } from "../src/EmbeddedNode.js";
import { NameqClient } from "../src/NameqClient.js";
import { program } from "./examples/worker-effect.js";
import { main } from "./examples/worker-promises.js";

const base = mkdtempSync(join(tmpdir(), "nameq-embedded-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const options = (address: string, more: Partial<EmbeddedNodeOptions> = {}): EmbeddedNodeOptions => ({
  address,
  port: 20_000 + (process.pid % 20_000),
  secret: Redacted.make("a secret for these tests"),
  registry: { directory: join(base, "registry") },
  ...more,
});

/** Waits for the state of a feature, as its JSON texts by host. */
const shows = (nameq: NameqClient.Service, feature: string, wanted: Record<string, string>) =>
  nameq.watch(feature).pipe(
    Stream.filter((hosts) => {
      const told = Object.fromEntries([...hosts].map(([host, { json }]) => [host, json as string]));
      return (
        JSON.stringify(told, Object.keys(told).toSorted()) === JSON.stringify(wanted, Object.keys(wanted).toSorted())
      );
    }),
    Stream.runHead,
    Effect.timeout("10 seconds"),
  );

describe("NameqClient.layerEmbedded", () => {
  it.live("makes programs see each other without a daemon, and lets them leave", () =>
    Effect.gen(function* () {
      const nameq = yield* NameqClient;
      yield* nameq.set("stays", 1);
      yield* Effect.gen(function* () {
        const other = yield* NameqClient;
        yield* other.setJson("big", "12345678901234567890");
        yield* shows(nameq, "big", { "127.0.0.32": "12345678901234567890" });
        yield* shows(other, "stays", { "127.0.0.31": "1" });
      }).pipe(Effect.provide(NameqClient.layerEmbedded(options("127.0.0.32"))));
      yield* shows(nameq, "big", {});
    }).pipe(Effect.provide(NameqClient.layerEmbedded(options("127.0.0.31")))),
  );

  it.live("refuses what cannot be a node, and says what to give", () =>
    Effect.gen(function* () {
      const failure = (bad: EmbeddedNodeOptions) =>
        Effect.flip(Effect.provide(Effect.void, NameqClient.layerEmbedded(bad)));
      assert.match((yield* failure(options("127.0.0.1"))).message, /127\.0\.0\.2/);
      assert.match((yield* failure(options("127.0.0.33", { secret: Redacted.make("") }))).message, /16 random bytes/);
      assert.match((yield* failure(options("192.0.2.7"))).message, /192\.0\.2\.7/);
    }),
  );

  it.live("keeps its failure open while the node runs, and refuses a directory that another node has", () =>
    Effect.gen(function* () {
      const directory = join(base, "taken");
      const node = yield* EmbeddedNode;
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.timeout(node.failure, "50 millis"))));
      const second = yield* Effect.flip(
        Effect.provide(Effect.void, NameqClient.layerEmbedded(options("127.0.0.35", { directory }))),
      );
      assert.match(second.message, /another nameq/);
    }).pipe(Effect.provide(NameqClient.layerEmbedded(options("127.0.0.34", { directory: join(base, "taken") })))),
  );
});

describe("the README's examples", () => {
  const directory = join(base, "examples");

  it.live("show a worker that finds its peers, with Effect and with promises", () =>
    Effect.gen(function* () {
      const nameq = yield* NameqClient;
      // the program with Effect runs on this node's directories
      const worker = yield* Effect.fork(
        Effect.provide(
          program,
          NameqClient.layer({ stateDir: join(directory, "state"), featureDir: join(directory, "features") }),
        ),
      );
      yield* shows(nameq, "worker", { "127.0.0.1": '{"port":7000}' });
      const peer = yield* Effect.fork(
        Effect.gen(function* () {
          const other = yield* NameqClient;
          for (const port of [1, 2, 3]) {
            yield* other.set("worker", { port });
            yield* Effect.sleep("300 millis");
          }
          yield* Effect.never;
        }).pipe(Effect.provide(NameqClient.layerEmbedded(options("127.0.0.37")))),
      );
      yield* shows(nameq, "worker", { "127.0.0.1": '{"port":7000}', "127.0.0.37": '{"port":3}' });
      yield* Fiber.interrupt(worker);
      yield* shows(nameq, "worker", { "127.0.0.37": '{"port":3}' });
      const lines: Array<string> = [];
      process.env["NAMEQ_STATE_DIR"] = join(directory, "state");
      process.env["NAMEQ_FEATURE_DIR"] = join(directory, "features");
      const ended = yield* Effect.fork(Effect.promise(() => main((line) => lines.push(line))));
      yield* shows(nameq, "worker", { "127.0.0.1": '{"port":7000}', "127.0.0.37": '{"port":3}' });
      yield* Fiber.interrupt(peer);
      // it ends after three tellings, and its own value may have been in the first one already
      yield* nameq.set("worker", { port: 7001 });
      yield* Fiber.join(ended).pipe(Effect.timeout("10 seconds"));
      assert.include(lines.join("\n"), '127.0.0.37 {"port":3}');
      yield* nameq.remove("worker");
      yield* shows(nameq, "worker", {});
    }).pipe(Effect.provide(NameqClient.layerEmbedded(options("127.0.0.36", { directory })))),
  );

  it("show a fleet that splits and heals", async () => {
    const said = vi.spyOn(console, "log").mockImplementation(() => {});
    await import("./examples/split.js");
    const [converged, trees] = said.mock.calls[0]!;
    said.mockRestore();
    assert.isTrue(converged);
    assert.strictEqual(trees["10.0.0.5"].db["10.0.0.1"], '{"port":5432}');
  });

  it("are what the README shows", () => {
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
    for (const name of ["worker-effect.ts", "worker-promises.ts", "split.ts"]) {
      assert.include(readme, readFileSync(new URL(`examples/${name}`, import.meta.url), "utf8").trim(), name);
    }
  });
});
