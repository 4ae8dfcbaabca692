import { assert, describe, it } from "@effect/vitest";
import * as Chunk from "effect/Chunk";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import * as Scope from "effect/Scope";
import * as Stream from "effect/Stream";
import * as TestClock from "effect/TestClock";
import { Socket } from "node:dgram";
import { networkInterfaces } from "node:os";
import { afterEach, vi } from "vitest";
import { type Address } from "../src/Address.js";
import { Metrics } from "../src/Metrics.js";
import * as SimulatedNetwork from "../src/SimulatedNetwork.js";
import { maxDatagram, mostNow, type PendingLimits, UdpError, UdpTransport } from "../src/UdpTransport.js";

interface Node {
  readonly udp: UdpTransport.Service;
  readonly metrics: Metrics.Service;
}

/** Opens transports that can reach each other. */
type Open = (address: Address, limits?: PendingLimits) => Effect.Effect<Node, UdpError, Scope.Scope>;

const build = (layer: Layer.Layer<UdpTransport, UdpError, Metrics>): Effect.Effect<Node, UdpError, Scope.Scope> =>
  Effect.map(Layer.build(Layer.provideMerge(layer, Metrics.layer)), (context) => ({
    udp: Context.get(context, UdpTransport),
    metrics: Context.get(context, Metrics),
  }));

/** Every node needs the same port: the first one takes a free one, the others take the first one's. */
const sockets: Effect.Effect<Open> = Effect.sync(() => {
  let port = 0;
  return (address, limits) =>
    build(UdpTransport.layer({ address, port, ...limits })).pipe(Effect.tap(({ udp }) => void (port = udp.port)));
});

const memory: Effect.Effect<Open, never, Scope.Scope> = Effect.map(
  SimulatedNetwork.make({ seed: 1 }),
  (network) => (address, limits) => build(UdpTransport.layerMemory(network, address, limits)),
);

const a = "127.117.0.1" as Address;
const b = "127.117.0.2" as Address;
const c = "127.117.0.3" as Address;
const nobody = "127.117.0.99" as Address;
const v6 = "::1" as Address;
const hasV6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === v6));

const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => (condition() ? Effect.void : Effect.zipRight(Effect.sleep("1 millis"), until(condition))));

const received = ({ metrics }: Node, count: number) => until(() => metrics.value("datagrams_received") >= count);

const take = ({ udp }: Node, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(udp.receive, count)), Chunk.toArray);

const texts = (node: Node, count: number) =>
  Effect.map(take(node, count), (all) => all.map(({ bytes }) => bytes.toString()));

const message = (exit: Exit.Exit<unknown, UdpError>): string =>
  Exit.match(exit, {
    onSuccess: () => "opened",
    onFailure: (cause) => (cause._tag === "Fail" ? cause.error.message : cause._tag),
  });

afterEach(() => void vi.restoreAllMocks());

const contract = (name: string, network: Effect.Effect<Open, never, Scope.Scope>) =>
  describe(name, () => {
    it.scopedLive("brings exact bytes to one address, and says who sent them", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => i & 255));
        assert.deepStrictEqual(yield* one.udp.send([b], bytes), { sent: 1, failed: 0 });
        assert.deepStrictEqual(yield* take(two, 1), [{ source: a, bytes }]);
        assert.strictEqual(one.metrics.value("datagrams_sent"), 1);
        assert.strictEqual(two.metrics.value("datagrams_received"), 1);
        assert.strictEqual(one.udp.port, two.udp.port);
      }),
    );

    it.scopedLive("sends to many, and answers reach the sender", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two, three] = [yield* open(a), yield* open(b), yield* open(c)];
        assert.deepStrictEqual(yield* one.udp.send([b, c, a], Buffer.from("x")), { sent: 3, failed: 0 });
        for (const each of [one, two, three]) assert.deepStrictEqual((yield* take(each, 1))[0]?.source, a);
        yield* two.udp.send([a], Buffer.from("answer"));
        assert.deepStrictEqual(yield* take(one, 1), [{ source: b, bytes: Buffer.from("answer") }]);
      }),
    );

    it.scopedLive("emits what is there as one chunk, in the order in which it came", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const sent = Array.from({ length: 300 }, (_, i) => String(i));
        yield* Effect.forEach(sent, (text) => one.udp.send([b], Buffer.from(text)));
        yield* received(two, 300);
        const chunk = yield* Effect.flatten(Stream.runHead(Stream.chunks(two.udp.receive)));
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(chunk).map(({ bytes }) => bytes.toString()),
          sent,
        );
      }),
    );

    it.scopedLive("gives what it receives to a consumer that waits", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const waiting = yield* Effect.fork(texts(two, 3));
        yield* Effect.sleep("5 millis");
        for (const text of ["1", "2", "3"]) yield* one.udp.send([b], Buffer.from(text));
        assert.deepStrictEqual(yield* Fiber.join(waiting), ["1", "2", "3"]);
      }),
    );

    it.scopedLive(
      "hands what comes to the one who is ahead while the consumer waits, and to the consumer after that",
      () =>
        Effect.gen(function* () {
          const open = yield* network;
          const [one, two] = [yield* open(a), yield* open(b)];
          const early: Array<string> = [];
          const scope = yield* Scope.make();
          yield* Scope.extend(
            two.udp.ahead(({ bytes, source }) => void early.push(`${bytes.toString()} of ${source}`)),
            scope,
          );
          yield* one.udp.send([b], Buffer.from("0"));
          yield* received(two, 1);
          assert.deepStrictEqual(early, []);
          const consumer = yield* Effect.fork(texts(two, 2));
          yield* Effect.sleep("5 millis");
          yield* one.udp.send([b], Buffer.from("1"));
          yield* until(() => early.length > 0);
          yield* Scope.close(scope, Exit.void);
          yield* one.udp.send([b], Buffer.from("2"));
          assert.deepStrictEqual(yield* Fiber.join(consumer), ["0", "2"]);
          assert.deepStrictEqual(early, [`1 of ${a}`]);
          assert.strictEqual(two.metrics.value("datagrams_received"), 3);
        }),
    );

    it.scopedLive("ends the stream as a defect when the one who is ahead throws", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        yield* two.udp.ahead(() => {
          throw new Error("thrown");
        });
        const consumer = yield* Effect.fork(Effect.exit(Stream.runDrain(two.udp.receive)));
        yield* Effect.sleep("5 millis");
        yield* one.udp.send([b], Buffer.from("1"));
        const exit = yield* Fiber.join(consumer);
        assert.isTrue(Exit.isFailure(exit) && exit.cause._tag === "Die");
      }),
    );

    it.scopedLive("sends to few at once, and counts what becomes of it", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two, three] = [yield* open(a), yield* open(b), yield* open(c)];
        assert.isTrue(one.udp.sendNow([b, v6, c], Buffer.from("x")));
        for (const each of [two, three]) assert.deepStrictEqual(yield* texts(each, 1), ["x"]);
        assert.strictEqual(one.metrics.value("datagrams_sent"), 2);
        assert.strictEqual(one.metrics.value("datagrams_send_failed"), 1);
        const many = Array.from({ length: mostNow + 1 }, () => b);
        assert.isFalse(one.udp.sendNow(many, Buffer.from("x")));
        assert.strictEqual(one.metrics.value("datagrams_sent"), 2);
      }),
    );

    it.scopedLive("drops and counts what does not fit while nobody consumes", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b, { maxPending: 4 })];
        for (let i = 0; i < 10; i++) yield* one.udp.send([b], Buffer.from(String(i)));
        yield* received(two, 10);
        assert.strictEqual(two.udp.dropped(), 6);
        assert.strictEqual(two.metrics.value("datagrams_dropped", "buffer-full"), 6);
        assert.deepStrictEqual(yield* texts(two, 4), ["0", "1", "2", "3"]);
        yield* one.udp.send([b], Buffer.from("again"));
        assert.deepStrictEqual(yield* texts(two, 1), ["again"]);
        assert.strictEqual(two.udp.dropped(), 6);
      }),
    );

    it.scopedLive("bounds what waits in bytes too", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b, { maxPendingBytes: 1000 })];
        for (const size of [600, 500, 400, 1]) yield* one.udp.send([b], Buffer.alloc(size));
        yield* received(two, 4);
        assert.strictEqual(two.udp.dropped(), 2);
        assert.deepStrictEqual(
          (yield* take(two, 2)).map(({ bytes }) => bytes.length),
          [600, 400],
        );
        yield* one.udp.send([b], Buffer.alloc(1000));
        assert.strictEqual((yield* take(two, 1))[0]?.bytes.length, 1000);
      }),
    );

    it.scopedLive("carries the largest datagram and an empty one, and reports one that is too large", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const largest = Buffer.alloc(maxDatagram, "nameq");
        yield* one.udp.send([b], largest);
        yield* one.udp.send([b], Buffer.alloc(0));
        assert.deepStrictEqual(
          (yield* take(two, 2)).map(({ bytes }) => bytes),
          [largest, Buffer.alloc(0)],
        );
        const report = yield* one.udp.send([b, c], Buffer.alloc(maxDatagram + 1));
        assert.strictEqual(report.sent, 0);
        assert.strictEqual(report.failed, 2);
        assert.strictEqual(report.firstFailure?.to, b);
        assert.propertyVal(report.firstFailure?.cause, "code", "EMSGSIZE");
        assert.strictEqual(one.metrics.value("datagrams_send_failed"), 2);
      }),
    );

    it.scopedLive("goes on past destinations that fail or do not answer, and names the first that failed", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const others = Array.from({ length: 500 }, (_, i) => `fd00::${i + 1}` as Address);
        const report = yield* one.udp.send([nobody, ...others, b], Buffer.from("x"));
        assert.strictEqual(report.sent, 2);
        assert.strictEqual(report.failed, 500);
        assert.strictEqual(report.firstFailure?.to, others[0]);
        assert.propertyVal(report.firstFailure?.cause, "code", "EAFNOSUPPORT");
        assert.deepStrictEqual(yield* texts(two, 1), ["x"]);
        assert.strictEqual(one.metrics.value("datagrams_send_failed"), 500);
        yield* one.udp.send([nobody, b], Buffer.from("y"));
        assert.deepStrictEqual(yield* texts(two, 1), ["y"]);
      }),
    );

    it.scopedLive("sends to nobody without complaint", () =>
      Effect.gen(function* () {
        const one = yield* (yield* network)(a);
        assert.deepStrictEqual(yield* one.udp.send([], Buffer.from("x")), { sent: 0, failed: 0 });
      }),
    );

    it.scopedLive("serves a later consumer when a waiting one was interrupted", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const [one, two] = [yield* open(a), yield* open(b)];
        const waiting = yield* Effect.fork(take(two, 1));
        yield* Effect.sleep("5 millis");
        yield* Fiber.interrupt(waiting);
        yield* one.udp.send([b], Buffer.from("1"));
        assert.deepStrictEqual(yield* texts(two, 1), ["1"]);
      }),
    );

    it.scopedLive("refuses a second consumer at the same time", () =>
      Effect.gen(function* () {
        const one = yield* (yield* network)(a);
        yield* Effect.fork(Stream.runDrain(one.udp.receive));
        yield* Effect.sleep("5 millis");
        const second = yield* Effect.exit(Stream.runDrain(one.udp.receive));
        assert.isTrue(Exit.isFailure(second) && second.cause._tag === "Die");
      }),
    );

    it.scopedLive("refuses an address that is taken, and says what to do", () =>
      Effect.gen(function* () {
        const open = yield* network;
        yield* open(a);
        const second = yield* Effect.exit(Effect.scoped(open(a)));
        assert.match(message(second), /another nameq runs on this address.*--addr.*--port/);
      }),
    );

    it.scopedLive("ends the stream and frees the address when its scope closes", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const scope = yield* Scope.make();
        const first = yield* Scope.extend(open(a), scope);
        const consumer = yield* Effect.fork(Stream.runCollect(first.udp.receive));
        yield* Effect.sleep("5 millis");
        yield* Scope.close(scope, Exit.void);
        assert.strictEqual(Chunk.size(yield* Fiber.join(consumer)), 0);
        const [second, two] = [yield* open(a), yield* open(b)];
        yield* two.udp.send([a], Buffer.from("for the second"));
        assert.deepStrictEqual(yield* texts(second, 1), ["for the second"]);
        assert.strictEqual(first.metrics.value("datagrams_received"), 0);
        const report = yield* first.udp.send([b, c], Buffer.from("too late"));
        assert.strictEqual(report.failed, 2);
        assert.strictEqual(report.firstFailure?.to, b);
      }),
    );

    it.scopedLive("frees the address when its owner is interrupted", () =>
      Effect.gen(function* () {
        const open = yield* network;
        const owner = yield* Effect.fork(
          Effect.scoped(Effect.flatMap(open(a), ({ udp }) => Stream.runDrain(udp.receive))),
        );
        yield* Effect.sleep("5 millis");
        yield* Fiber.interrupt(owner);
        yield* open(a);
      }),
    );

    it.scopedLive.skipIf(!hasV6)("works with IPv6, and refuses IPv4 destinations there", () =>
      Effect.gen(function* () {
        const one = yield* (yield* network)(v6);
        const report = yield* one.udp.send([a, v6], Buffer.from("six"));
        assert.strictEqual(report.sent, 1);
        assert.strictEqual(report.firstFailure?.to, a);
        assert.deepStrictEqual(yield* take(one, 1), [{ source: v6, bytes: Buffer.from("six") }]);
      }),
    );
  });

contract("UdpTransport.layer", sockets);
contract("UdpTransport.layerMemory", memory);

/** Opens a real transport, and gives its socket too. */
const openSocket = (address: Address) =>
  Effect.gen(function* () {
    const bind = vi.spyOn(Socket.prototype, "bind");
    const node = yield* (yield* sockets)(address);
    return { ...node, socket: bind.mock.contexts[0] as Socket };
  });

describe("a real socket", () => {
  it.scopedLive("cannot be opened on an address of another host", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit((yield* sockets)("203.0.113.1" as Address));
      assert.match(message(exit), /203\.0\.113\.1 is not an address of this host.*--addr/);
    }),
  );

  it.scopedLive("cannot be opened on a port that does not exist", () =>
    Effect.gen(function* () {
      for (const port of [-1, 70_000, 1.5]) {
        const exit = yield* Effect.exit(build(UdpTransport.layer({ address: a, port })));
        assert.match(message(exit), /from 0 to 65535\): check --addr and --port/);
      }
    }),
  );

  it("says what to do about every way in which it cannot be opened", () => {
    const text = (code: string, address = "10.0.0.1") =>
      new UdpError({ reason: "Bind", address, port: 80, cause: Object.assign(new Error(`bind ${code}`), { code }) })
        .message;
    assert.match(text("EACCES"), /CAP_NET_BIND_SERVICE; choose another with --port/);
    assert.match(text("EAFNOSUPPORT", "fd00::1"), /no IPv6.*--addr/);
    assert.match(text("EWHATEVER"), /UDP port 80 of 10\.0\.0\.1 \(bind EWHATEVER\): check --addr and --port/);
  });

  it.scopedLive("is bound to its own address only", () =>
    Effect.gen(function* () {
      const { socket, udp } = yield* openSocket(a);
      assert.strictEqual(socket.address().address, a);
      assert.strictEqual(socket.address().port, udp.port);
    }),
  );

  it.scopedLive("survives a passing error, counts it, and fails when it breaks", () =>
    Effect.gen(function* () {
      const one = yield* openSocket(a);
      one.socket.emit("error", Object.assign(new Error("recvmsg ECONNREFUSED"), { code: "ECONNREFUSED" }));
      one.socket.emit("error", Object.assign(new Error("recvmsg ECONNREFUSED"), { code: "ECONNREFUSED" }));
      assert.strictEqual(one.metrics.value("datagrams_dropped", "socket-error"), 2);
      yield* one.udp.send([a], Buffer.from("alive"));
      assert.deepStrictEqual(yield* texts(one, 1), ["alive"]);
      yield* one.udp.send([a], Buffer.from("last"));
      yield* received(one, 2);
      one.socket.emit("error", Object.assign(new Error("recvmsg EBADF"), { code: "EBADF" }));
      assert.deepStrictEqual(yield* texts(one, 1), ["last"]);
      const exit = yield* Effect.exit(Stream.runDrain(one.udp.receive));
      assert.match(message(exit), /broke \(recvmsg EBADF\): restart nameq/);
    }),
  );

  it.scopedLive("opens also when the kernel refuses a larger buffer", () =>
    Effect.gen(function* () {
      vi.spyOn(Socket.prototype, "setRecvBufferSize").mockImplementation(() => {
        throw new Error("no");
      });
      const one = yield* (yield* sockets)(a);
      yield* one.udp.send([a], Buffer.from("x"));
      assert.deepStrictEqual(yield* texts(one, 1), ["x"]);
    }),
  );

  it.scopedLive("counts a destination that makes the socket throw, and goes on", () =>
    Effect.gen(function* () {
      const one = yield* (yield* sockets)(a);
      vi.spyOn(Socket.prototype, "send").mockImplementationOnce(() => {
        throw new Error("thrown");
      });
      const report = yield* one.udp.send([b, a], Buffer.from("x"));
      assert.strictEqual(report.sent, 1);
      assert.deepStrictEqual(report.firstFailure, { to: b, cause: new Error("thrown") });
      assert.deepStrictEqual(yield* texts(one, 1), ["x"]);
    }),
  );

  it.scopedLive("gives the event loop a turn between batches of many destinations", () =>
    Effect.gen(function* () {
      const one = yield* openSocket(a);
      let turns = 0;
      const count = (): void => {
        turns++;
        immediate = setImmediate(count);
      };
      let immediate = setImmediate(count);
      const waiting = new Set<number>();
      let most = 0;
      const real = one.socket.send.bind(one.socket) as (...args: ReadonlyArray<unknown>) => void;
      let nth = 0;
      vi.spyOn(one.socket, "send").mockImplementation((...args: ReadonlyArray<unknown>) => {
        const id = nth++;
        waiting.add(id);
        most = Math.max(most, waiting.size);
        const answer = args.at(-1) as (error: Error | null) => void;
        real(...args.slice(0, -1), (error: Error | null) => {
          waiting.delete(id);
          answer(error);
        });
      });
      const to = Array.from({ length: 10_000 }, (_, i) => `127.118.${i >> 8}.${i & 255 || 1}` as Address);
      const report = yield* one.udp.send(to, Buffer.from("x"));
      clearImmediate(immediate);
      assert.deepStrictEqual(report, { sent: 10_000, failed: 0 });
      assert.isAtLeast(turns, 70);
      assert.isAtMost(most, 128);
    }),
  );

  it.scoped("gives up when the kernel takes nothing, and counts a late answer once", () =>
    Effect.gen(function* () {
      const one = yield* (yield* sockets)(a);
      const answers: Array<(error: Error | null) => void> = [];
      vi.spyOn(Socket.prototype, "send").mockImplementation((...args: ReadonlyArray<unknown>) => {
        answers.push(args.at(-1) as (error: Error | null) => void);
        if (answers.length === 1) answers[0]!(null);
      });
      const sending = yield* Effect.fork(
        one.udp.send(
          Array.from({ length: 300 }, () => b),
          Buffer.from("x"),
        ),
      );
      while (sending.unsafePoll() === null) yield* TestClock.adjust("1 second");
      const report = yield* Fiber.join(sending);
      assert.strictEqual(report.sent, 1);
      assert.strictEqual(report.failed, 299);
      assert.propertyVal(report.firstFailure?.cause, "code", "ETIMEDOUT");
      assert.strictEqual(answers.length, 128);
      for (const answer of answers) answer(null);
      assert.strictEqual(one.metrics.value("datagrams_sent"), 1);
      assert.strictEqual(one.metrics.value("datagrams_send_failed"), 299);
    }),
  );

  it.scoped("sends nothing at once while the kernel still holds what was sent before", () =>
    Effect.gen(function* () {
      const one = yield* (yield* sockets)(a);
      const answers: Array<(error: Error | null) => void> = [];
      vi.spyOn(Socket.prototype, "send").mockImplementation((...args: ReadonlyArray<unknown>) => {
        answers.push(args.at(-1) as (error: Error | null) => void);
      });
      assert.isTrue(one.udp.sendNow([b], Buffer.from("x")));
      assert.isFalse(one.udp.sendNow([b], Buffer.from("y")));
      assert.strictEqual(answers.length, 1);
      answers[0]!(null);
      assert.isTrue(one.udp.sendNow([b], Buffer.from("y")));
    }),
  );

  it.scopedLive.skipIf(!hasV6)("gives a source address without its zone", () =>
    Effect.gen(function* () {
      const one = yield* openSocket(v6);
      one.socket.emit("message", Buffer.from("x"), { address: "fe80::1%eth0", family: "IPv6", port: 1, size: 1 });
      assert.strictEqual((yield* take(one, 1))[0]?.source, "fe80::1");
    }),
  );
});
