import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as fc from "effect/FastCheck";
import * as Stream from "effect/Stream";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as Face from "../src/Cli/Face.js";
import { duration } from "../src/Cli/StatusReport.js";
import * as StateLock from "../src/StateLock.js";
import { aNode, FakeFace } from "./FakeFace.js";
import { ensureBuilt, type Outcome, run } from "./Program.js";
import { StateDirectory } from "./StateDirectory.js";

const tree = new StateDirectory({
  "web/127.0.0.1": "1",
  "web/10.0.0.10": "1",
  "db/10.0.0.10": "1",
  "web/10.0.0.9": "1",
});
beforeAll(ensureBuilt, 60_000);
afterAll(() => tree.dispose());

const status = (...args: ReadonlyArray<string>): Effect.Effect<Outcome> =>
  Effect.promise(() => run(["status", "--state-dir", tree.path, ...args]));

describe("nameq status", () => {
  it.scoped("prints the node, what is wrong and the other nodes", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      face.nodes = [
        aNode("10.0.0.2", { features: 4 }),
        aNode("10.0.0.3", { state: "silent", source: "registry", heardMs: 200_000, version: null, legacy: true }),
        aNode("10.0.0.4", { state: "left", features: 0, clockOffsetMs: -1_500, version: "9\u009b2J" }),
      ];
      face.conditions = [
        {
          name: "clock",
          severity: "warning",
          message: "this clock is off. Set it\u001b[2J",
          since: new Date(Date.now() - 600_000).toISOString(),
        },
      ];
      const { status: code, stderr, stdout } = yield* status("--http", face.url);
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" });
      assert.deepStrictEqual(stdout.split("\n"), [
        "node 10.0.0.1 port 17106: ready, nameq 0.1.0, up for 60 min",
        "registry s3://fleet/prod/: this host's clock minus its is 40 ms",
        "tree /run/nameq/state/features",
        "other nodes: 1 alive, 1 silent, 1 left",
        "features: 3 of this host, 8 in all",
        "",
        "warning for 10 min: this clock is off. Set it\\u001b[2J",
        "",
        "NODE      STATE   HEARD      BY        CLOCK   FEATURES  VERSION",
        "10.0.0.2  alive   1 s ago    udp       2 ms    4         0.1.0",
        "10.0.0.3  silent  3 min ago  registry  2 ms    1         existing program",
        "10.0.0.4  left    1 s ago    udp       -1.5 s  0         9\\u009b2J",
        "",
      ]);
    }),
  );

  it.scoped("tells how long ago it was by the node's clock", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      face.at = new Date(Date.now() + 7_200_000).toISOString();
      face.conditions = [
        { name: "x", severity: "warning", message: "m", since: new Date(Date.now() + 6_600_000).toISOString() },
      ];
      const { stdout } = yield* status("--http", face.url);
      assert.include(stdout, "up for 3 h\n");
      assert.include(stdout, "\nwarning for 10 min: m\n");
    }),
  );

  it.scoped("sums up a large fleet, and prints it all with --nodes", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      face.nodes = Array.from({ length: 50 }, (_, i) => aNode(`10.0.1.${i}`, i === 7 ? { state: "silent" } : {}));
      const few = yield* status("--http", face.url);
      assert.include(few.stdout, "other nodes: 49 alive, 1 silent\n");
      assert.include(few.stdout, "\n10.0.1.7 ");
      assert.notInclude(few.stdout, "\n10.0.1.8 ");
      assert.include(few.stdout, "\nand 49 more that are alive: --nodes\n");
      assert.include((yield* status("--http", face.url, "--nodes")).stdout, "\n10.0.1.8 ");
    }),
  );

  it.scoped("ends with status 3 while the node is not ready or has an error", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      const error = { name: "x", severity: "error", message: "m", since: new Date().toISOString() };
      face.conditions = [error];
      assert.include(yield* status("--http", face.url), { status: 3, stderr: "" });
      assert.strictEqual((yield* status("--http", face.url, "--json")).status, 3);
      face.conditions = [];
      assert.strictEqual((yield* status("--http", face.url)).status, 0);
      face.self = { ...face.self, ready: false };
      const { status: code, stdout } = yield* status("--http", face.url);
      assert.strictEqual(code, 3);
      assert.include(stdout, "starting, the registry is not read into the tree yet");
    }),
  );

  it.scoped("prints with --json what the face says, exactly and on one line", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      const body = `{"self":${JSON.stringify(face.self)},\n"nodes":[],"conditions":[],"later":12345678901234567890.10}`;
      face.answers.set("/v1/nodes", [200, body]);
      assert.strictEqual(
        (yield* status("--json", "--http", face.url)).stdout,
        `{"source":"http","url":"${face.url}",${body.slice(1).replaceAll("\n", "")}\n`,
      );
    }),
  );

  it.scoped("passes nothing on to a terminal that a stranger's face says", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      const hostile = "a\u001b[2J\u009b31m\u202e";
      face.self = { ...face.self, address: hostile, version: hostile, registry: hostile, stateDir: hostile };
      face.nodes = [aNode(hostile, { version: hostile })];
      face.conditions = [{ name: hostile, severity: "warning", message: hostile, since: null }];
      for (const args of [[], ["--json"]]) {
        const { stdout } = yield* status("--http", face.url, ...args);
        assert.notMatch(stdout.replaceAll("\n", ""), /[\p{C}]/u);
        if (args.length > 0) assert.deepInclude(JSON.parse(stdout), { self: face.self, nodes: face.nodes });
      }
    }),
  );

  it.scoped("finds the face by the note in the state directory, and sends the token", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      face.token = "letmein-4711";
      const note = join(tree.path, ".http");
      const tokenFile = join(tree.path, ".token");
      yield* Effect.addFinalizer(() => Effect.sync(() => writeFileSync(note, "")));
      writeFileSync(note, `${face.url}\n`);
      writeFileSync(tokenFile, `${face.token}\n`);
      const { stderr, status: code } = yield* status();
      assert.strictEqual(code, 1);
      assert.match(stderr, /^nameq status: http:\S+ wants another token \(HTTP 401 .*--http-token-file\n$/);
      const known = yield* status("--http-token-file", tokenFile);
      assert.include(known, { status: 0, stderr: "" });
      assert.notInclude(known.stdout, face.token);
      face.stop();
      // the note outlived its node
      const after = yield* status("--http-token-file", tokenFile);
      assert.match(after.stderr, /^nameq status: http:\S+ is out of reach \(ECONNREFUSED\).*its tree shows\n$/);
      assert.include(after.stdout, `no node runs with ${tree.path}`);
      assert.strictEqual(after.status, 1);
    }),
  );

  it.scoped("says what the tree shows when there is no face", () =>
    Effect.gen(function* () {
      const alone = new StateDirectory({ "web/127.0.0.1": "1", "web/10.0.0.10": "1", "db/10.0.0.10": "1" });
      yield* Effect.addFinalizer(() => Effect.sync(() => alone.dispose()));
      const ask = (...args: ReadonlyArray<string>) =>
        Effect.promise(() => run(["status", "--state-dir", alone.path, ...args]));
      const none = yield* ask();
      assert.include(none, { status: 1, stderr: "" });
      assert.include(none.stdout, `no node runs with ${alone.path}: start one`);

      yield* StateLock.take(alone.path);
      const held = yield* ask();
      assert.include(held, { status: 0, stderr: "" });
      assert.match(
        held.stdout,
        new RegExp(
          `^a node runs with ${alone.path}: pid ${process.pid} on .*
the tree shows 1 other host and 2 features \\(3 files\\), last changed \\d+ s ago

HOST                   FEATURES  CHANGED
127.0.0.1 \\(this host\\)  1         \\d+ s ago
10.0.0.10              2         \\d+ s ago

for nodes, .*nameq serve --http
$`,
        ),
      );
      const json = JSON.parse((yield* ask("--json")).stdout) as { hosts: ReadonlyArray<unknown>; daemon: unknown };
      assert.lengthOf(json.hosts, 2);
      assert.include(json.daemon, { state: "running", pid: process.pid });
    }),
  );

  it("says that it may not see where the face is", async () => {
    const odd = new StateDirectory();
    mkdirSync(join(odd.path, ".http"));
    const { status, stderr } = await run(["status", "--state-dir", odd.path]);
    odd.dispose();
    assert.strictEqual(status, 1);
    assert.match(stderr, /where a node says where its HTTP face is, cannot be read \(EISDIR\): ask as the node's user/);
  });

  it("says of a directory without a tree that there is none", async () => {
    const { status, stdout } = await run(["status", "--state-dir", "/nonexistent"]);
    assert.strictEqual(status, 1);
    assert.include(stdout, "no node runs with /nonexistent");
    assert.include(stdout, "there is no tree");
  });

  it.scoped("refuses a face that is none, and says why", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      for (const [body, detail] of [
        ["<html>", "JSON"],
        ['{"self":5}', "self"],
        ['{"self":{},"nodes":[],"conditions":[]}', "self.address"],
        [`{"self":${"[".repeat(200_000)}${"]".repeat(200_000)}}`, "no JSON at character 72"],
      ] as const) {
        face.answers.set("/v1/nodes", [200, body]);
        const { stderr, status: code } = yield* status("--http", face.url);
        assert.strictEqual(code, 1);
        assert.match(stderr, /^nameq status: http:\S+ does not answer as a node \(.*\): check --http.*\n$/);
        assert.include(stderr, detail);
      }
      face.answers.set("/v1/nodes", [404, ""]);
      assert.include((yield* status("--http", face.url)).stderr, "(HTTP 404 for /v1/nodes)");
      face.answers.set("/v1/nodes", [503, '{"error":{"code":"starting","message":"not yet"}}']);
      assert.include(
        (yield* status("--http", face.url)).stderr,
        "cannot answer now (HTTP 503 for /v1/nodes, not yet): try again",
      );
      for (const bad of ["http://user:pass@h", "http://user:a/pass@h", "u:p@pass@h", "http://[", "a b"]) {
        const { stderr, status: code } = yield* status("--http", bad);
        assert.strictEqual(code, 2);
        assert.include(stderr, "is no place");
        assert.notInclude(stderr, "pass");
      }
    }),
  );
});

describe("a face", () => {
  it("is named by a port, an address or a URL", () => {
    for (const [text, url] of [
      ["17106", "http://127.0.0.1:17106"],
      ["0.0.0.0:17106", "http://127.0.0.1:17106"],
      ["[::]:17106", "http://[::1]:17106"],
      ["10.0.0.1:80", "http://10.0.0.1"],
      ["[fd00::1]:17106", "http://[fd00::1]:17106"],
      ["https://ops.example.net/nameq/", "https://ops.example.net/nameq"],
    ] as const) {
      assert.strictEqual(Face.parseWhere(text), url);
    }
  });

  it.effect("is not looked for at port 0, which the system chose for the node", () =>
    Effect.gen(function* () {
      const state = new StateDirectory();
      writeFileSync(join(state.path, ".http"), "http://127.0.0.1:4711\n");
      for (const http of ["0", "127.0.0.1:0", "http://[::]:0/"]) {
        const face = yield* Face.find({ http, httpTokenFile: undefined, stateDir: state.path });
        assert.include(face, { url: "http://127.0.0.1:4711", from: "state" });
      }
      state.dispose();
    }),
  );

  it.scopedLive("is given up on when it does not answer", () =>
    Effect.gen(function* () {
      const face = yield* FakeFace.make;
      face.answers.set("/v1/nodes", [0, ""]);
      const error = yield* Effect.flip(Face.nodes({ url: face.url, token: undefined, from: "option" }));
      assert.strictEqual(error.reason, "Timeout");
    }),
  );

  it("has its events split rightly, however they come in parts", () => {
    const text =
      ': hello\nid: r-1\r\nevent: change\ndata: {"value":"é😀"}\n\ndata:a\ndata:  b\n\nevent: nothing\n\nretry: 5\ndata\n\n';
    const bytes = Buffer.from(text);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length)), (cuts) => {
        const parser = new Face.EventParser();
        const places = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
        const events = places.slice(1).flatMap((to, i) => parser.push(bytes.subarray(places[i], to)) ?? []);
        assert.deepStrictEqual(events, [
          { event: "change", data: '{"value":"é😀"}', id: "r-1" },
          { event: "message", data: "a\n b", id: "r-1" },
          { event: "message", data: "", id: "r-1" },
        ]);
      }),
    );
  });

  it("has no id that cannot be sent back in a header", () => {
    const ids = new Face.EventParser()
      .push(Buffer.from("id: run-1\ndata: a\n\nid: \u2713\ndata: b\n\nid: \u0001\ndata: c\n\nid: run-2\ndata: d\n\n"))
      ?.map(({ data, id }) => `${data} ${id}`);
    assert.deepStrictEqual(ids, ["a run-1", "b run-1", "c run-1", "d run-2"]);
  });

  it.scoped("gives its events, and fails when the connection is lost", () =>
    Effect.gen(function* () {
      const fake = yield* FakeFace.make;
      const seen: Array<string> = [];
      const error = yield* Face.events({ url: fake.url, token: undefined, from: "option" }, "run-7").pipe(
        Stream.runForEach((events) =>
          Effect.sync(() => {
            seen.push(...events.map(({ event, id }) => `${event} ${id}`));
            if (seen.length === 1) fake.tell("stats", {});
            else fake.stop();
          }),
        ),
        Effect.flip,
      );
      assert.deepStrictEqual(seen, ["snapshot run-1", "stats run-2"]);
      assert.strictEqual(error.reason, "Unreachable");
      assert.strictEqual(fake.requests[0]?.headers["last-event-id"], "run-7");
    }),
  );
});

describe("a length of time", () => {
  it("is shown in its largest unit that is not rounded much", () => {
    assert.deepStrictEqual([-5, 0, 1_499, 119_400, 120_000, 7_199_000, 7_200_000, 172_800_000].map(duration), [
      "0 s",
      "0 s",
      "1 s",
      "119 s",
      "2 min",
      "120 min",
      "2 h",
      "2 d",
    ]);
  });
});
