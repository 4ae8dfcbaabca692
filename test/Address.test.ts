import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { BlockList } from "node:net";
import * as Address from "../src/Address.js";

const own = Address.parse("10.0.0.1")!;
const onLoopback = Address.parse("127.0.0.2")!;

describe("Address", () => {
  it("has one text for each address", () => {
    assert.strictEqual(Address.parse("FD77:0:0:0:0:0:0:1"), "fd77::1");
    assert.strictEqual(Address.parse("2001:DB8::0:1"), "2001:db8::1");
    assert.strictEqual(Address.parse("10.0.0.1"), "10.0.0.1");
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        const address = Address.parse(text)!;
        assert.strictEqual(Address.parse(address), address);
      }),
    );
  });

  it("refuses what is no address", () => {
    for (const text of [
      "",
      "host.example",
      "10.0.0",
      "10.0.0.1/8",
      "010.0.0.1",
      "fe80::1%eth0",
      "../10.0.0.1",
      "10.0.0.1 ",
    ]) {
      assert.isUndefined(Address.parse(text), text);
    }
  });

  it("lets only unicast addresses be peers", () => {
    for (const text of [
      "0.0.0.0",
      "224.0.0.1",
      "239.1.2.3",
      "255.255.255.255",
      "169.254.1.1",
      "::",
      "ff02::1",
      "fe80::1",
      "::ffff:10.0.0.2",
    ]) {
      assert.isFalse(Address.mayBePeer(Address.parse(text)!, own), text);
    }
    for (const text of ["10.0.0.2", "192.168.1.1", "8.8.8.8", "fd77::1", "2001:db8::1"]) {
      assert.isTrue(Address.mayBePeer(Address.parse(text)!, own), text);
    }
  });

  it("agrees with Node's own block lists about every kind of address", () => {
    const never = new BlockList();
    never.addSubnet("0.0.0.0", 8);
    never.addSubnet("169.254.0.0", 16);
    never.addSubnet("224.0.0.0", 3);
    never.addAddress("::", "ipv6");
    never.addSubnet("fe80::", 10, "ipv6");
    never.addSubnet("ff00::", 8, "ipv6");
    const loopback = new BlockList();
    loopback.addSubnet("127.0.0.0", 8);
    loopback.addAddress("::1", "ipv6");
    const byte = fc.integer({ min: 0, max: 255 });
    const v4 = fc.tuple(fc.oneof(byte, fc.constantFrom(0, 127, 169, 223, 224, 255)), fc.oneof(byte, fc.constant(254)));
    const group = fc.constantFrom("0", "1", "7f", "fe7f", "fe80", "febf", "fec0", "fdff", "feff", "ff00", "ffff", "ff");
    fc.assert(
      fc.property(
        fc.oneof(
          v4.map(([a, b]) => `${a}.${b}.3.4`),
          fc.tuple(group, group).map(([a, b]) => `${a}::${b}`),
          group.map((a) => `${a}:1:2:3:4:5:6:7`),
          fc.ipV6(),
          fc.constantFrom("::", "::1", "::2", "1::"),
        ),
        (text) => {
          const address = Address.parse(text)!;
          if (address.startsWith("::ffff:")) return;
          const family = address.includes(":") ? "ipv6" : "ipv4";
          assert.strictEqual(Address.family(address), family === "ipv6" ? 6 : 4);
          assert.strictEqual(Address.isLoopback(address), loopback.check(address, family), address);
          assert.strictEqual(
            Address.mayBeNode(address),
            address !== "127.0.0.1" && !never.check(address, family),
            address,
          );
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it("lets loopback addresses be peers only of a node on loopback, and never 127.0.0.1", () => {
    const other = Address.parse("127.0.0.3")!;
    assert.isFalse(Address.mayBePeer(other, own));
    assert.isTrue(Address.mayBePeer(other, onLoopback));
    assert.isFalse(Address.mayBePeer(Address.ownHost, onLoopback));
    assert.isFalse(Address.mayBePeer(onLoopback, onLoopback));
  });
});
