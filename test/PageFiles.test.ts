import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { gunzipSync } from "node:zlib";
import * as PageFiles from "../src/Http/PageFiles.js";
import { ensureBuilt } from "./Program.js";

describe("PageFiles", () => {
  it.effect("has the built page under the paths that it asks for, typed, and compressed on top", () =>
    Effect.gen(function* () {
      ensureBuilt();
      const files = yield* PageFiles.load();
      const html = files.get("/")?.body.toString() ?? "";
      const named = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name]) => `/${name}`);
      assert.sameMembers([...files.keys()], ["/", ...named]);
      assert.deepStrictEqual([...files.values()].map(({ type }) => type).toSorted(), [
        "image/svg+xml",
        "text/css; charset=utf-8",
        "text/html; charset=utf-8",
        "text/javascript; charset=utf-8",
      ]);
      for (const [name, { body, cacheControl, etag, gzip }] of files) {
        assert.isTrue(gunzipSync(gzip).equals(body));
        assert.match(etag, /^W\/"[0-9a-f]{16}"$/);
        assert.strictEqual(cacheControl.includes("immutable"), name !== "/");
      }
    }),
  );

  it.effect("weighs less than 100 kB over the wire, and has nothing that the content policy would refuse", () =>
    Effect.gen(function* () {
      ensureBuilt();
      const files = [...(yield* PageFiles.load()).values()];
      const weight = files.reduce((sum, { gzip }) => sum + gzip.length, 0);
      assert.isBelow(weight, 100_000);
      const html = files.find(({ type }) => type.startsWith("text/html"))?.body.toString() ?? "";
      assert.notMatch(html, /<style|style=|<script(?![^>]* src=)|\bon\w+=|\{\{|undefined/);
      for (const { body, type } of files) {
        if (/javascript|css/.test(type))
          assert.notMatch(body.toString(), /\beval\(|new Function|https?:\/\/(?!www\.w3\.org)/);
      }
    }),
  );

  it.effect("says what to do where there is no page", () =>
    Effect.gen(function* () {
      const directory = fs.mkdtempSync(path.join(tmpdir(), "nameq-page-"));
      const error = yield* Effect.flip(PageFiles.load(directory));
      fs.rmSync(directory, { recursive: true });
      assert.include(error.message, directory);
      assert.match(error.message, /no index\.html.*npm run build/);
    }),
  );
});
