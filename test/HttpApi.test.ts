/** The OpenAPI document: valid by the specification's own rules, and true of what is answered. */
import { Validator } from "@seriousme/openapi-schema-validator";
import { assert, describe, it } from "@effect/vitest";
import * as Api from "../src/Http/Api.js";

interface Operation {
  readonly operationId: string;
  readonly security: ReadonlyArray<object>;
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, object>> }>>;
}

const document = Api.document() as {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
};

describe("the OpenAPI document", () => {
  it("is valid by OpenAPI's own schema, with references that lead somewhere", async () => {
    const result = await new Validator().validate(structuredClone(document));
    assert.deepStrictEqual(result.errors ?? [], []);
    assert.isTrue(result.valid);
    for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      assert.property(document.components.schemas, name!);
    }
  });

  it("names each path, that all are read-only, and which need no token", () => {
    assert.deepStrictEqual(
      Object.entries(document.paths).map(([path, operations]) => [
        path,
        Object.keys(operations).join(),
        operations["get"]!.security.length > 0,
      ]),
      [
        ["/v1/features", "get", true],
        ["/v1/features/{name}", "get", true],
        ["/v1/nodes", "get", true],
        ["/v1/reachability", "get", true],
        ["/v1/events", "get", true],
        ["/healthz", "get", false],
        ["/readyz", "get", false],
        ["/metrics", "get", true],
        ["/openapi.json", "get", true],
      ],
    );
  });

  it("promises no other refusals than there are", () => {
    const statuses = Object.fromEntries(
      Object.values(document.paths).map(({ get }) => [get!.operationId, Object.keys(get!.responses).join()]),
    );
    assert.deepStrictEqual(statuses, {
      features: "200,401",
      feature: "200,400,401",
      nodes: "200,401",
      reachability: "200,401,503",
      events: "200,401,503",
      healthz: "200",
      readyz: "200,503",
      metrics: "200,401",
      openapi: "200,401",
    });
    assert.notProperty(document.components.schemas, "HttpApiDecodeError");
  });
});
