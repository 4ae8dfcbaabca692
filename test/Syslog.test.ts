import { assert, describe, it } from "@effect/vitest";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Queue from "effect/Queue";
import * as Scope from "effect/Scope";
import * as TestClock from "effect/TestClock";
import * as TestServices from "effect/TestServices";
import { spawnSync } from "node:child_process";
import * as dgram from "node:dgram";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import * as net from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import * as Syslog from "../src/Syslog.js";

const timeMs = Date.UTC(2024, 1, 29, 1, 2, 3, 4);
const message = (text: string, severity: Syslog.Severity = 6): Syslog.SyslogMessage => ({ timeMs, severity, text });
const line = (text: string, severity = 6): string =>
  `<${24 + severity}>1 2024-02-29T01:02:03.004Z ${hostname()} nameq ${process.pid} - - ${text}`;
const quiet = (): void => {};

describe("format", () => {
  it("is RFC 5424's", () => {
    assert.strictEqual(
      Syslog.format(message("it is out of reach", 3), "host.example.net", 42),
      "<27>1 2024-02-29T01:02:03.004Z host.example.net nameq 42 - - it is out of reach",
    );
  });

  it("keeps the header whole whatever the host is called", () => {
    assert.match(Syslog.format(message("x"), "hé st\n", 42), /^<30>1 \S+ hst nameq 42 - - x$/);
    assert.match(Syslog.format(message("x"), "", 42), /^<30>1 \S+ - nameq 42 - - x$/);
  });

  it("cuts long texts", () => {
    assert.isBelow(Syslog.format(message("x".repeat(100_000)), "host", 42).length, 2_100);
  });
});

const closing = <A extends { close: (done: () => void) => unknown }>(open: Effect.Effect<A>) =>
  Effect.acquireRelease(open, (each) => Effect.async<void>((resume) => void each.close(() => resume(Effect.void))));

/** A TCP server that puts the messages of all connections, by octet count, into a queue. */
const tcpServer = (port: number, lines: Queue.Enqueue<string>) =>
  Effect.gen(function* () {
    const sockets = new Set<net.Socket>();
    const server = yield* closing(
      Effect.async<net.Server>((resume) => {
        const made = net.createServer((socket) => {
          sockets.add(socket);
          let rest = Buffer.alloc(0);
          socket.on("error", quiet).on("data", (chunk) => {
            rest = Buffer.concat([rest, chunk]);
            for (;;) {
              const match = /^(\d+) /.exec(rest.toString("latin1", 0, 10));
              if (match === null) return;
              const end = match[0].length + Number(match[1]);
              if (rest.length < end) return;
              lines.unsafeOffer(rest.toString("utf8", match[0].length, end));
              rest = rest.subarray(end);
            }
          });
        });
        made.listen(port, "127.0.0.1", () => resume(Effect.succeed(made)));
      }),
    );
    yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())));
    return (server.address() as net.AddressInfo).port;
  });

const test = (name: string, effect: Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(effect).pipe(Effect.timeout("20 seconds")));

describe("over UDP", () => {
  test(
    "sends one message a datagram",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<string>();
      const server = yield* closing(
        Effect.async<dgram.Socket>((resume) => {
          const socket = dgram.createSocket("udp4", (bytes) => void received.unsafeOffer(bytes.toString()));
          socket.bind(0, "127.0.0.1", () => resume(Effect.succeed(socket)));
        }),
      );
      const { port } = server.address();
      const send = yield* Syslog.make({ _tag: "Udp", host: "localhost", port }, quiet);
      send(message("one"));
      send(message("zwei ü", 3));
      assert.strictEqual(yield* Queue.take(received), line("one"));
      assert.strictEqual(yield* Queue.take(received), line("zwei ü", 3));
    }),
  );

  test(
    "does not mind that nobody is there",
    Effect.gen(function* () {
      const told: Array<string> = [];
      const send = yield* Syslog.make({ _tag: "Udp", host: "127.0.0.1", port: 9 }, (_, text) => told.push(text));
      for (let i = 0; i < 20; i++) {
        send(message("x"));
        yield* Effect.sleep("5 millis");
      }
      assert.deepStrictEqual(told, []);
    }),
  );
});

describe("over UDP, to a server by name", () => {
  /** A server at an address; its port may be given. */
  const server = (address: string, port = 0) =>
    Effect.gen(function* () {
      const received: Array<string> = [];
      const socket = yield* closing(
        Effect.async<dgram.Socket>((resume) => {
          const socket = dgram.createSocket("udp4", (bytes) => void received.push(bytes.toString()));
          socket.bind(port, address, () => resume(Effect.succeed(socket)));
        }),
      );
      return { received, port: socket.address().port };
    });

  it.scoped("follows it to another address, and stays while its name cannot be looked up", () =>
    Effect.gen(function* () {
      const one = yield* server("127.0.0.1");
      const other = yield* server("127.0.0.2", one.port);
      let found: ReadonlyArray<string> = ["127.0.0.1"];
      const lookup: Syslog.Lookup = () =>
        Effect.suspend(() =>
          found.length === 0
            ? Effect.fail("ENOTFOUND")
            : Effect.succeed(found.map((address) => ({ address, family: 4 }))),
        );
      const told: Array<string> = [];
      const send = yield* Syslog.make(
        { _tag: "Udp", host: "logs.example.net", port: one.port },
        (_, text) => told.push(text),
        lookup,
      );
      let sent = 0;
      /** Says something now and then until a server has heard it. */
      const heard = (received: Array<string>) =>
        Effect.gen(function* () {
          received.length = 0;
          for (let step = 0; received.length === 0 && step < 1_000; step++) {
            send(message(`m${sent++}`));
            yield* TestClock.adjust("500 millis");
            yield* TestServices.provideLive(Effect.sleep("5 millis"));
          }
          assert.isNotEmpty(received);
        });
      yield* heard(one.received);
      for (const same of [["127.0.0.3", "127.0.0.1"], []]) {
        found = same;
        yield* TestClock.adjust("5 minutes");
        yield* heard(one.received);
      }
      found = ["127.0.0.2"];
      one.received.length = 0;
      yield* TestClock.adjust("5 minutes");
      yield* heard(other.received);
      assert.isEmpty(one.received);
      assert.deepStrictEqual(told, []);
    }),
  );
});

describe("over TCP", () => {
  test(
    "frames messages by their length in bytes",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<string>();
      const port = yield* tcpServer(0, received);
      const send = yield* Syslog.make({ _tag: "Tcp", host: "127.0.0.1", port }, quiet);
      send(message("größer\u20ac"));
      send(message("two"));
      assert.strictEqual(yield* Queue.take(received), line("größer\u20ac"));
      assert.strictEqual(yield* Queue.take(received), line("two"));
    }),
  );

  test(
    "sends what waits before it ends",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<string>();
      const port = yield* tcpServer(0, received);
      yield* Effect.scoped(
        Effect.gen(function* () {
          const send = yield* Syslog.make({ _tag: "Tcp", host: "127.0.0.1", port }, quiet);
          send(message("first"));
          yield* Queue.take(received);
          for (let i = 0; i < 100; i++) send(message(`m${i}`));
        }),
      );
      const rest = yield* Queue.takeBetween(received, 100, 100);
      assert.strictEqual([...rest].at(-1), line("m99"));
    }),
  );

  test(
    "keeps messages while the server is away, tells so once, and counts what is too much",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<string>();
      // a port on which nobody listens any more
      const port = yield* Effect.scoped(tcpServer(0, received));
      const told = yield* Queue.unbounded<string>();
      const send = yield* Syslog.make({ _tag: "Tcp", host: "127.0.0.1", port }, (_, text) => told.unsafeOffer(text));
      assert.match(
        yield* Queue.take(told),
        new RegExp(`^syslog at 127.0.0.1:${port} is out of reach \\(.*ECONNREFUSED`),
      );
      for (let i = 0; i < 1_500; i++) send(message(`m${i}`));
      yield* tcpServer(port, received);
      // nothing is told between: several tries have failed by now or not
      assert.strictEqual(yield* Queue.take(told), `syslog at 127.0.0.1:${port} is back`);
      assert.match(yield* Queue.take(received), /^<28>1 .* 500 log messages were lost/);
      const kept = yield* Queue.takeBetween(received, 1_000, 1_000);
      assert.strictEqual([...kept][0], line("m0"));
      assert.strictEqual([...kept].at(-1), line("m999"));
    }),
  );

  test(
    "connects again when the server closes the connection",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<string>();
      const told = yield* Queue.unbounded<string>();
      const first = yield* Scope.make();
      const port = yield* Scope.extend(tcpServer(0, received), first);
      const target = { _tag: "Tcp", host: "127.0.0.1", port } as const;
      const send = yield* Syslog.make(target, (_, text) => told.unsafeOffer(text));
      send(message("one"));
      assert.strictEqual(yield* Queue.take(received), line("one"));
      yield* Scope.close(first, Exit.void);
      assert.include(yield* Queue.take(told), "out of reach");
      send(message("two"));
      yield* tcpServer(port, received);
      assert.include(yield* Queue.take(told), "is back");
      assert.strictEqual(yield* Queue.take(received), line("two"));
    }),
  );

  test(
    "drops what a server does not read, so that memory stays flat",
    Effect.gen(function* () {
      const connected = yield* Deferred.make<net.Socket>();
      const server = yield* closing(
        Effect.async<net.Server>((resume) => {
          const made = net.createServer((socket) => Deferred.unsafeDone(connected, Effect.succeed(socket.pause())));
          made.listen(0, "127.0.0.1", () => resume(Effect.succeed(made)));
        }),
      );
      const { port } = server.address() as net.AddressInfo;
      const send = yield* Syslog.make({ _tag: "Tcp", host: "127.0.0.1", port }, quiet);
      const socket = yield* Deferred.await(connected);
      yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()));
      yield* Effect.sleep("10 millis");
      const text = "x".repeat(2_000);
      for (let round = 0; round < 20; round++) {
        for (let i = 0; i < 1_000; i++) send(message(text));
        yield* Effect.sleep("1 millis");
      }
      // 40 MB were offered; what the kernel holds is read, and the rest is counted as lost
      const seen = yield* Effect.async<string>((resume) => {
        let all = "";
        socket.on("data", (chunk) => {
          all = (all + chunk.toString()).slice(-1_000_000);
          const match = /(\d+) log messages were lost/.exec(all);
          if (match !== null) resume(Effect.succeed(match[1]!));
          else send(message("again"));
        });
        socket.resume();
      });
      assert.isAbove(Number(seen), 5_000);
    }),
  );
});

describe("on the local socket", () => {
  const temporary = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "nameq-syslog-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true })),
  );
  /** A syslog daemon on a Unix socket. */
  const daemon = (path: string, received: Queue.Enqueue<string>) =>
    closing(
      Effect.async<net.Server>((resume) => {
        const made = net.createServer((socket) => {
          socket.on("error", quiet).on("data", (chunk) => void received.unsafeOffer(chunk.toString()));
          socket.on("end", () => socket.end());
        });
        made.listen(path, () => resume(Effect.succeed(made)));
      }),
    );
  const hasLogger = spawnSync("logger", ["--version"]).status === 0;

  it.live("speaks through the system's logger, with severities", (context) =>
    Effect.gen(function* () {
      if (!hasLogger) return context.skip("there is no program logger (bsdutils, util-linux) here");
      const path = join(yield* temporary, "log");
      const received = yield* Queue.unbounded<string>();
      yield* daemon(path, received);
      yield* Effect.scoped(
        Effect.gen(function* () {
          const send = yield* Syslog.make({ _tag: "Local", path }, quiet);
          send(message("all is well"));
          // what a stranger says, at a place where the program would begin a message of its own
          send(message(`${"x".repeat(1_024)}<8>forged`, 4));
          send(message("the disk is full", 3));
        }),
      );
      let all = "";
      while (!all.includes("full")) all += yield* Queue.take(received);
      assert.match(all, /<30>.*nameq\[\d+\]: all is well/);
      assert.match(all, /<28>.*nameq\[\d+\]: x{1024}<8>forged/);
      assert.match(all, /<27>.*nameq\[\d+\]: the disk is full/);
    }).pipe(Effect.scoped, Effect.timeout("20 seconds")),
  );

  test(
    "fails at the start when there is no socket, and says what to do",
    Effect.gen(function* () {
      const path = join(yield* temporary, "log");
      const error = yield* Effect.flip(Syslog.make({ _tag: "Local", path }, quiet));
      assert.strictEqual(error.reason, "NoSocket");
      assert.include(error.message, path);
      assert.include(error.message, "--syslog-net udp");
      writeFileSync(path, "");
      assert.strictEqual((yield* Effect.flip(Syslog.make({ _tag: "Local", path }, quiet))).reason, "NoSocket");
    }),
  );

  test(
    "fails at the start when there is no logger, and says what to do",
    Effect.gen(function* () {
      const path = join(yield* temporary, "log");
      yield* daemon(path, yield* Queue.unbounded<string>());
      const before = process.env["PATH"];
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env["PATH"] = "/nowhere";
        }),
        () =>
          Effect.sync(() => {
            process.env["PATH"] = before;
          }),
      );
      const error = yield* Effect.flip(Syslog.make({ _tag: "Local", path }, quiet));
      assert.strictEqual(error.reason, "NoLogger");
      assert.include(error.message, "bsdutils");
    }),
  );
});
