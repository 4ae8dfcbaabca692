import { assert, describe, it } from "@effect/vitest";
import * as Layer from "effect/Layer";
import * as Schema from "effect/Schema";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Address } from "../src/Address.js";
import type { FeatureName } from "../src/Feature.js";
import { connect, FindTimeout, InvalidFeatureName, MemoryFleet, NameqClient } from "../src/index.js";

const web = "web" as FeatureName;

/** Two hosts of one fleet; `subscribed` tells whether the first has a subscription. */
const fleetOfTwo = async () => {
  const fleet = new MemoryFleet();
  const a = await connect(NameqClient.layerMemory({ fleet, address: "10.0.0.1" }));
  const b = await connect(NameqClient.layerMemory({ fleet, address: "10.0.0.2" }));
  return { a, b, subscribed: () => fleet.tableAt("10.0.0.1" as Address).wants(web) };
};

describe("connect", () => {
  it("sets, finds, reads and removes through promises", async () => {
    const { a, b } = await fleetOfTwo();
    await a.set("web", { port: 80 });
    await a.setJson("exact", "0.10");
    const [offer] = await b.find(["web"], { timeout: "1 second" });
    assert.strictEqual(offer?.host, "10.0.0.1");
    assert.deepStrictEqual(offer?.value, { port: 80 });
    assert.deepStrictEqual((await b.hosts("exact")).map(String), ["10.0.0.1"]);
    const { features } = await b.snapshot();
    assert.strictEqual(features.get("exact" as FeatureName)?.get("10.0.0.1" as Address)?.json, "0.10");
    await a.remove("web");
    assert.deepStrictEqual(await b.hosts("web"), []);
    await Promise.all([a.close(), b.close()]);
  });

  it("iterates over changes, and releases the subscription when the loop is left", async () => {
    const { a, b, subscribed } = await fleetOfTwo();
    await b.set("web", 1);
    const tags: Array<string> = [];
    for await (const change of a.changes()) {
      tags.push(change._tag);
      assert.isTrue(subscribed());
      if (change._tag === "Booted") await b.set("web", 2);
      if (change._tag === "Updated") await b.remove("web");
      if (change._tag === "Removed") break;
    }
    assert.deepStrictEqual(tags, ["Added", "Booted", "Updated", "Removed"]);
    assert.isFalse(subscribed());
    await a.close();
    await b.close();
  });

  it("releases the subscription when the loop throws, and when an iterator that waits is returned", async () => {
    const { a, subscribed } = await fleetOfTwo();
    const thrown = await (async () => {
      for await (const _ of a.changes()) throw new Error("from the loop");
    })().catch((error: unknown) => String(error));
    assert.strictEqual(thrown, "Error: from the loop");
    assert.isFalse(subscribed());

    const iterator = a.changes();
    const steps = [iterator.next(), iterator.next(), iterator.next()];
    assert.strictEqual((await steps[0])?.value?._tag, "Booted");
    await iterator.return?.();
    assert.deepStrictEqual(
      (await Promise.all(steps.slice(1))).map(({ done }) => done),
      [true, true],
    );
    assert.isTrue((await iterator.next()).done);
    assert.isFalse(subscribed());
    await a.close();
  });

  it("watches one feature, and decodes a typed one", async () => {
    const { a, b } = await fleetOfTwo();
    const port = a.feature("web", Schema.NumberFromString);
    await b.set("web", "80");
    for await (const hosts of a.watch("web")) {
      assert.deepStrictEqual(
        Array.from(hosts.values(), ({ value }) => value),
        ["80"],
      );
      break;
    }
    for await (const hosts of port.watch()) {
      assert.deepStrictEqual([...hosts], [["10.0.0.2" as Address, 80]]);
      break;
    }
    await b.set("web", true);
    for await (const change of port.changes()) {
      assert.strictEqual(change._tag, "Undecodable");
      break;
    }
    await port.set(81);
    assert.strictEqual((await b.feature("web", Schema.NumberFromString).current()).get("10.0.0.1" as Address), 81);
    await a.close();
    await b.close();
  });

  it("advertises until the handle or the connection is closed", async () => {
    const { a, b } = await fleetOfTwo();
    const first = await a.advertise("web", 1);
    await a.advertise("db", 1);
    assert.deepStrictEqual([(await b.hosts("web")).length, (await b.hosts("db")).length], [1, 1]);
    await first[Symbol.asyncDispose]();
    await first.close();
    assert.deepStrictEqual([(await b.hosts("web")).length, (await b.hosts("db")).length], [0, 1]);
    await a[Symbol.asyncDispose]();
    assert.deepStrictEqual(await b.hosts("db"), []);
    await b.close();
  });

  const rejection = (promise: Promise<unknown>): Promise<unknown> =>
    promise.then(
      () => assert.fail("should have been rejected"),
      (error: unknown) => error,
    );

  it("rejects with the library's errors", async () => {
    const { a } = await fleetOfTwo();
    assert.instanceOf(await rejection(a.set("a/b", 1)), InvalidFeatureName);
    assert.instanceOf(await rejection(a.advertise("a/b", 1)), InvalidFeatureName);
    assert.instanceOf(await rejection(a.watch("a/b").next()), InvalidFeatureName);
    assert.instanceOf(await rejection(a.find(["web"], { timeout: 1 })), FindTimeout);
    const reason = new Error("no longer wanted");
    const abort = new AbortController();
    const waiting = rejection(a.find(["web"], { signal: abort.signal }));
    abort.abort(reason);
    assert.strictEqual(await waiting, reason);
    assert.strictEqual(await rejection(a.find(["web"], { signal: abort.signal })), reason);
    assert.strictEqual(await rejection(connect(Layer.fail(reason))), reason);
    await a.close();
  });

  it("ends what waits when it is closed, and says so to later calls", async () => {
    const { a, subscribed } = await fleetOfTwo();
    const loop = (async () => {
      const tags: Array<string> = [];
      for await (const { _tag } of a.changes()) tags.push(_tag);
      return tags;
    })();
    const found = rejection(a.find(["web"]));
    // the loop waits by the time that another round trip is done
    await a.snapshot();
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([a.close(), a.close()]);
    assert.deepStrictEqual(await loop, ["Booted"]);
    assert.include(String(await found), "closed");
    assert.isFalse(subscribed());
    assert.include(String(await rejection(a.set("web", 1))), "closed");
    assert.include(String(await rejection(a.advertise("web", 1))), "closed");
    assert.isTrue((await a.changes().next()).done);
  });

  it("works on the directories of a daemon", async () => {
    const path = fs.mkdtempSync(join(tmpdir(), "nameq-promises-"));
    fs.mkdirSync(join(path, "state", "features", "db"), { recursive: true });
    fs.writeFileSync(join(path, "state", "features", "db", "10.0.0.2"), "1\n");
    const nameq = await connect({ stateDir: join(path, "state"), featureDir: join(path, "features.d") });
    await nameq.set("web", true);
    assert.strictEqual(fs.readFileSync(join(path, "features.d", "web"), "utf8"), "true\n");
    for await (const change of nameq.changes()) {
      if (change._tag === "Booted") fs.rmSync(join(path, "state", "features", "db", "10.0.0.2"));
      if (change._tag === "Removed") break;
    }
    await nameq.close();
    fs.rmSync(path, { recursive: true });
  });
});
