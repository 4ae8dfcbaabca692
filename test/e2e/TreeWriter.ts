/** The node's writer of the tree alone, in this process. */
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "../../src/Address.js";
import { type FeatureName, type FeatureValue, parseValue } from "../../src/Feature.js";
import { Metrics } from "../../src/Metrics.js";
import { StateTree } from "../../src/StateTree.js";

export interface TreeWriter {
  readonly stateDir: string;
  /** Shows what a host has, and waits until it stands. Values are JSON. */
  readonly update: (address: string, features: Readonly<Record<string, string>>) => Effect.Effect<void>;
}

/** A writer that runs until the scope ends, in a directory of its own. */
export const make: Effect.Effect<TreeWriter, never, Scope.Scope> = Effect.gen(function* () {
  const stateDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "nameq-writer-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true })),
  );
  const context = yield* Effect.orDie(
    Layer.build(Layer.provide(StateTree.layer({ directory: stateDir }), Metrics.layer)),
  );
  const tree = yield* Effect.provide(StateTree, context);
  tree.settle();
  yield* Effect.forkScoped(tree.run);
  return {
    stateDir,
    update: (address, features) => {
      const values = Object.entries(features).map(
        ([name, json]) => [name as FeatureName, parseValue(json) as FeatureValue] as const,
      );
      tree.update(parse(address)!, new Map(values));
      return tree.flush;
    },
  };
});
