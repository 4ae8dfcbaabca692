import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { createHmac, createSecretKey, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import * as Address from "../src/Address.js";
import * as Feature from "../src/Feature.js";
import { type Action, Membership } from "../src/Membership.js";
import * as Packet from "../src/Packet.js";
import { defaults } from "../src/Settings.js";
import { featureSet, timeNs } from "./fc.js";

interface Vector {
  readonly name: string;
  readonly secret_hex: string;
  readonly packet_hex: string;
  readonly json?: string;
  readonly json_hex?: string;
  readonly mode?: number;
}
interface Hostile extends Vector {
  readonly src_ip: string;
  readonly now_ns: string;
  readonly expect: string;
  readonly before_hex?: ReadonlyArray<string>;
}

const vectors = (file: string): ReadonlyArray<Hostile> =>
  JSON.parse(readFileSync(new URL(`fixtures/${file}.json`, import.meta.url), "utf8"));

const keyOf = (secret: string | Buffer, mode = 0): Packet.Key => ({
  mode,
  secret: createSecretKey(Buffer.from(secret)),
});
const keyringOf = (...keys: ReadonlyArray<Packet.Key>): Packet.Keyring => ({ sign: keys[0]!, accept: keys });
const keyring = keyringOf(keyOf("swordfish"));
const unknown = () => undefined;

/** What a JSON reader that knows nothing of ours sees. */
const plain = (set: Feature.FeatureSet) =>
  Object.fromEntries([...set.entries].map(([name, value]) => [name, value as string]));

const accepted = (decoded: Packet.Announcement | Packet.PacketFault): Packet.Announcement => {
  if (Packet.isPacketFault(decoded)) throw new Error(`dropped: ${decoded}`);
  return decoded;
};

const dictionary = Buffer.from('{"ip_addr":","time_ns":,"names":[","],"features":{":true,"}}}');

const signed = (json: string | Buffer): Buffer => {
  const body = Buffer.concat([Buffer.of(0), deflateRawSync(json, { dictionary })]);
  return Buffer.concat([body, createHmac("sha1", "swordfish").update(body).digest()]);
};

describe("packets of the existing program", () => {
  it.each(vectors("packets"))("$name decodes", (vector) => {
    const key = keyOf(Buffer.from(vector.secret_hex, "hex"), vector.mode ?? 0);
    const announcement = accepted(Packet.decode(keyringOf(key), Buffer.from(vector.packet_hex, "hex"), unknown));
    const json = vector.json ?? Buffer.from(vector.json_hex!, "hex").toString();
    const told = JSON.parse(json);
    assert.strictEqual(announcement.address, told.ip_addr);
    assert.include(json, `"time_ns":${announcement.timeNs}`);
    const features = Object.entries((told.features ?? {}) as Record<string, unknown>);
    const named = features.filter(([name]) => Feature.isFeatureName(name));
    assert.strictEqual(announcement.refused.length, features.length - named.length);
    assert.deepStrictEqual(
      [...announcement.features.entries.keys()],
      named.map(([name]) => name) as Array<Feature.FeatureName>,
    );
    for (const [name, value] of announcement.features.entries) {
      assert.deepStrictEqual(JSON.parse(value), told.features[name]);
      // the text itself, not only its meaning
      assert.include(json, `"${name}":${value}`);
    }
  });

  it("is what we encode, but for the compressed bytes", () => {
    for (const vector of vectors("packets")) {
      if (vector.json === undefined || ["odd-names-arg", "ipv6-zone-codec", "ipv4-mapped-codec"].includes(vector.name))
        continue;
      const key = keyOf(Buffer.from(vector.secret_hex, "hex"), vector.mode ?? 0);
      const announcement = accepted(Packet.decode(keyringOf(key), Buffer.from(vector.packet_hex, "hex"), unknown));
      const ours = {
        address: announcement.address as Address.Address,
        timeNs: announcement.timeNs,
        features: Feature.fromEntries(announcement.features.entries),
      };
      assert.strictEqual(Packet.announcementText(ours), vector.json, vector.name);
    }
  });
});

describe("Packet", () => {
  it("gives back what was encoded, for any features", () => {
    fc.assert(
      fc.property(featureSet, timeNs, (features, time) => {
        const bytes = Packet.encode(keyring.sign, { address: Address.parse("10.0.0.1")!, timeNs: time, features });
        const announcement = accepted(Packet.decode(keyring, bytes, unknown));
        assert.strictEqual(announcement.timeNs, time);
        assert.deepStrictEqual(plain(announcement.features), plain(features));
        assert.strictEqual(announcement.features.text, features.text);
        assert.deepStrictEqual(announcement.refused, []);
      }),
    );
  });

  it("is signed with HMAC-SHA1 and inflates to its text, whatever its size and its key's", () => {
    for (const keyBytes of [1, 20, 63, 64, 65, 200]) {
      const secret = Buffer.alloc(keyBytes, "key");
      const key = keyOf(secret, 3);
      for (const length of [0, 1, 100, 150, 151, 152, 160, 200, 1_000, 3_000, 9_000, 40_000]) {
        // what does not compress reaches beyond what is signed in one call
        const value = Feature.FeatureValue(JSON.stringify(randomBytes(length).toString("hex").slice(0, length)));
        const said = {
          address: Address.parse("10.0.0.1")!,
          timeNs: 1_795_340_768_365_147_230n,
          features: Feature.fromEntries([["a" as Feature.FeatureName, value]]),
        };
        const bytes = Packet.encode(key, said);
        const [packed, mac] = [bytes.subarray(0, -20), bytes.subarray(-20)];
        assert.deepStrictEqual(mac, createHmac("sha1", secret).update(packed).digest());
        const text = inflateRawSync(packed.subarray(1), { dictionary }).toString();
        assert.strictEqual(text, Packet.announcementText(said));
        assert.strictEqual(accepted(Packet.decode(keyringOf(key), bytes, unknown)).features.text, said.features.text);
      }
    }
  });

  it("gives the known set itself when the features are the known ones", () => {
    fc.assert(
      fc.property(featureSet, featureSet, timeNs, (known, told, time) => {
        const bytes = Packet.encode(keyring.sign, {
          address: Address.parse("10.0.0.1")!,
          timeNs: time,
          features: told,
        });
        const announcement = accepted(Packet.decode(keyring, bytes, () => known));
        assert.strictEqual(announcement.timeNs, time);
        assert.deepStrictEqual(plain(announcement.features), plain(told));
        if (known.text === told.text) assert.strictEqual(announcement.features, known);
      }),
    );
  });

  it("reads features the same whatever set is known", () => {
    const fewer = (set: Feature.FeatureSet, bits: number) =>
      Feature.fromEntries([...set.entries].filter((_, i) => ((bits >> (i % 31)) & 1) === 0));
    fc.assert(
      fc.property(featureSet, featureSet, fc.nat(), fc.nat(), (a, b, gone, added) => {
        const both = Feature.fromEntries([...a.entries, ...b.entries]);
        const features = fewer(both, gone);
        for (const known of [both, fewer(both, added), a, Feature.empty]) {
          const bytes = Packet.encode(keyring.sign, { address: "127.1.2.3" as Address.Address, timeNs: 5n, features });
          const set = accepted(Packet.decode(keyring, bytes, () => known)).features;
          assert.deepStrictEqual([...set.entries], [...features.entries]);
          assert.strictEqual(set.text, features.text);
        }
      }),
    );
    // what is expected is met in another order, twice, in another spelling, and as the head of another name
    const entries = ["a", "b", "c", "d"].map((name) => [name, "1"] as [Feature.FeatureName, Feature.FeatureValue]);
    const known = Feature.fromEntries(entries);
    const json =
      '{"ip_addr":"127.1.2.3","time_ns":5,"features":{"b":1,"a":2,"ab":3,"\\u0063":4,"d":5,"d":6,"e":"é€😀","f":7}}';
    const { features } = accepted(Packet.decode(keyring, signed(json), () => known));
    assert.deepStrictEqual(plain(features), { b: "1", a: "2", ab: "3", c: "4", d: "6", e: '"é€😀"', f: "7" });
  });

  it("inflates each datagram by itself, after whatever came before", () => {
    const read = (bytes: Buffer) => {
      const decoded = Packet.decode(keyring, bytes, unknown);
      return Packet.isPacketFault(decoded) ? decoded : decoded.features.text;
    };
    const says = (features: string) => signed(`{"ip_addr":"127.1.2.3","time_ns":5,"features":${features}}`);
    const sign = (body: Buffer) => {
      const whole = Buffer.concat([Buffer.of(0), body]);
      return Buffer.concat([whole, createHmac("sha1", "swordfish").update(whole).digest()]);
    };
    const small = '{"a":{"port":1},"b":{"port":1},"c":{"port":1}}';
    const large = `{"a":"${randomBytes(20_000).toString("hex")}"}`;
    const deflated = deflateRawSync(`{"ip_addr":"127.1.2.3","time_ns":5,"features":${small}}`, { dictionary });
    const cases: ReadonlyArray<readonly [Buffer, string]> = [
      [says(small), small],
      [says(large), large],
      [sign(deflated.subarray(0, -5)), "bad-deflate"],
      [sign(Buffer.alloc(50, 0xff)), "bad-deflate"],
      [sign(Buffer.concat([deflated, Buffer.from("junk")])), small],
      [signed(" ".repeat(Packet.maxInflatedBytes + 1)), "too-large"],
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...cases), { minLength: 1, maxLength: 12 }), (sequence) => {
        for (const [bytes, expected] of sequence) assert.strictEqual(read(bytes), expected);
      }),
    );
  });

  it("carries our remarks on the short way and on the general one, and none where there are none", () => {
    const features = Feature.fromEntries([["a" as Feature.FeatureName, Feature.FeatureValue("true")]]);
    const said = { address: Address.parse("10.0.0.1")!, timeNs: 1_795_340_768_365_147_230n };
    for (const set of [features, Feature.empty]) {
      for (const version of [undefined, "0.1.0", "12.34.56-rc.1+build_7"]) {
        for (const [ask, leaving] of [
          [false, false],
          [true, false],
          [false, true],
          [true, true],
        ] as const) {
          const remarks = { version, ask, leaving };
          const bytes = Packet.encode(keyring.sign, { ...said, features: set, remarks });
          for (const known of [unknown, () => set]) {
            const announcement = accepted(Packet.decode(keyring, bytes, known));
            assert.deepStrictEqual(announcement.remarks, remarks);
            assert.deepStrictEqual(plain(announcement.features), plain(set));
          }
        }
      }
    }
  });

  it("ignores remarks of other types and versions that could not be ours", () => {
    const known = Feature.fromEntries([["a" as Feature.FeatureName, Feature.FeatureValue("true")]]);
    for (const odd of [
      '"version":1',
      '"version":""',
      '"version":"<b>"',
      `"version":"${"9".repeat(33)}"`,
      `"version":"${"9".repeat(1_000)}"`,
      '"ask":1,"leaving":null',
      '"ask":false,"later":[{}]',
    ]) {
      const text = `{"ip_addr":"10.0.0.1","time_ns":1795340768365147230,"features":{"a":true},${odd}}\n`;
      for (const way of [unknown, () => known]) {
        const announcement = accepted(Packet.decode(keyring, signed(text), way));
        assert.deepStrictEqual(announcement.remarks, Packet.noRemarks, odd);
        assert.strictEqual(announcement.features.text, known.text);
      }
    }
  });

  it("does not take a text for known when junk follows it", () => {
    const known = Feature.fromEntries([["a" as Feature.FeatureName, Feature.FeatureValue("true")]]);
    const text = '{"ip_addr":"10.0.0.1","time_ns":1795340768365147230,"features":{"a":true}}\n';
    assert.strictEqual(accepted(Packet.decode(keyring, signed(text), () => known)).features, known);
    for (const bad of [text.replace("}}", "}x"), text.replace("}}", "},}"), text.replace("{", "[")]) {
      assert.strictEqual(
        Packet.decode(keyring, signed(bad), () => known),
        "bad-json",
        bad,
      );
    }
  });

  it("verifies with each key that is accepted under its id, and signs with one", () => {
    const old = keyOf("old secret", 0);
    const fresh = keyOf("fresh secret", 0);
    const other = keyOf("other secret", 7);
    const said = { address: Address.parse("10.0.0.1")!, timeNs: 1_795_340_768_365_147_230n, features: Feature.empty };
    const bytes = Packet.encode(old, said);
    accepted(Packet.decode(keyringOf(fresh, old), bytes, unknown));
    accepted(Packet.decode(keyringOf(fresh, other), Packet.encode(other, said), unknown));
    assert.strictEqual(Packet.decode(keyringOf(fresh, other), bytes, unknown), "bad-hmac");
    assert.strictEqual(Packet.decode(keyringOf(fresh), Packet.encode(other, said), unknown), "unknown-mode");
  });

  it("never throws and never accepts a changed packet", () => {
    const good = signed('{"ip_addr":"10.0.0.1","time_ns":1795340768365147230,"features":{"a":true}}\n');
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const bytes = Buffer.from(good);
        bytes[at]! ^= flip;
        assert.isTrue(Packet.isPacketFault(Packet.decode(keyring, bytes, unknown)));
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) =>
        Packet.isPacketFault(Packet.decode(keyring, Buffer.from(bytes), unknown)),
      ),
    );
  });

  it("never throws on signed nonsense", () => {
    const parts = fc.array(
      fc.oneof(
        fc.constantFrom(
          '{"ip_addr":"10.0.0.1"',
          ',"time_ns":',
          "1795340768365147230",
          ',"features":',
          "{",
          "}",
          '"a"',
          ":",
          ",",
          "null",
          "[",
          "]",
          "\n",
          "-",
          "1e5",
          '"time_ns"',
          "\\u0000",
        ),
        fc.string(),
      ),
    );
    fc.assert(
      fc.property(
        fc.oneof(
          parts.map((all) => Buffer.from(all.join(""))),
          fc.uint8Array().map((bytes) => Buffer.from(bytes)),
        ),
        (json) => {
          const decoded = Packet.decode(keyring, signed(json), unknown);
          if (!Packet.isPacketFault(decoded)) JSON.parse(json.toString());
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it("refuses more than 4,096 features", () => {
    const features = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, i]));
    const text = (count: number) =>
      `{"ip_addr":"10.0.0.1","time_ns":1795340768365147230,"features":${JSON.stringify(features(count))}}\n`;
    assert.strictEqual(accepted(Packet.decode(keyring, signed(text(4_096)), unknown)).features.entries.size, 4_096);
    assert.strictEqual(Packet.decode(keyring, signed(text(4_097)), unknown), "too-many-features");
  });
});

/** A receiver as far as one packet is concerned: decode, then the rules. */
const receiver = (vector: Hostile) => {
  const now = { wallNs: BigInt(vector.now_ns), monoMs: 1_000 };
  const membership = new Membership(Address.parse("10.78.0.1")!, defaults, () => 0.5);
  membership.step({ _tag: "Started", features: Feature.empty }, now);
  const receive = (hex: string): Packet.PacketFault | ReadonlyArray<Action> => {
    const decoded = Packet.decode(keyring, Buffer.from(hex, "hex"), membership.knownFeatures);
    if (Packet.isPacketFault(decoded)) return decoded;
    return membership.step({ _tag: "Received", source: vector.src_ip, announcement: decoded }, now);
  };
  return { membership, receive, shown: () => membership.peers.get(vector.src_ip as Address.Address)?.features };
};

const dropped = (outcome: Packet.PacketFault | ReadonlyArray<Action>): boolean =>
  typeof outcome === "string" || outcome.some((action) => action._tag === "Drop");

describe("hostile packets", () => {
  it.each(vectors("hostile"))("$name: $expect", (vector) => {
    const { receive, shown } = receiver(vector);
    const before = (vector.before_hex ?? []).map(receive);
    const outcome = receive(vector.packet_hex);
    for (const value of shown()?.entries.values() ?? []) {
      assert.isBelow(Feature.fileText(value).length, 4 * value.length + 8_192);
      assert.isTrue(Buffer.from(value).toString() === value);
    }
    for (const name of shown()?.entries.keys() ?? []) assert.match(name, /^[A-Za-z0-9_-]+$/);
    switch (vector.expect) {
      case "accept": {
        assert.isFalse(
          dropped(outcome),
          JSON.stringify(outcome, (_, v) => (typeof v === "bigint" ? String(v) : v)),
        );
        const told = vector.json === undefined ? undefined : JSON.parse(vector.json).features;
        if (told !== undefined) assert.deepStrictEqual(Object.keys(plain(shown()!)), Object.keys(told ?? {}));
        break;
      }
      case "drop":
        assert.isTrue(dropped(outcome));
        assert.isUndefined(shown());
        break;
      case "drop-that-feature":
        assert.isFalse(dropped(outcome));
        assert.strictEqual(shown()?.entries.size, 0);
        break;
      case "last-is-dropped":
        assert.isFalse(dropped(before[0]!));
        assert.isTrue(dropped(outcome));
        break;
      case "first-is-dropped-rest-accepted":
        assert.isTrue(dropped(before[0]!));
        for (const each of before.slice(1)) assert.isFalse(dropped(each));
        assert.isFalse(dropped(outcome));
        break;
      case "drop-packet-or-feature":
        assert.isTrue(dropped(outcome) || shown()?.entries.size === 0);
        break;
      case "accept-or-drop":
        break;
      default:
        assert.fail(`unknown expectation ${vector.expect}`);
    }
  });
});
