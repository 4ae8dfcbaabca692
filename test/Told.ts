/** A subscriber's picture of the fleet, built from what it is told; a change that does not fit the picture fails the test. */
import { assert } from "@effect/vitest";
import * as Effect from "effect/Effect";
import type { Change, Problem, Subscription } from "../src/FeatureTable.js";

export class Told {
  /** `feature/host` -> JSON text. */
  readonly state = new Map<string, string>();
  readonly problems: Array<Problem> = [];
  boots = 0;
  changes = 0;

  hear(changes: Iterable<Change>): void {
    for (const change of changes) {
      if (change._tag === "Booted") this.boots++;
      else if (change._tag === "Problem") this.problems.push(change);
      else {
        this.changes++;
        const key = `${change.feature}/${change.host}`;
        const before = this.state.get(key);
        assert.strictEqual(before === undefined, change._tag === "Added", `${change._tag} of ${key}`);
        if (change._tag === "Removed") this.state.delete(key);
        else {
          assert.notStrictEqual(change.json, before, `${change._tag} of ${key}`);
          this.state.set(key, change.json);
        }
      }
    }
  }

  get(feature: string, host: string): string | undefined {
    return this.state.get(`${feature}/${host}`);
  }

  /** Listens until `enough` holds. */
  until({ pull }: Subscription, enough: (told: this) => boolean): Effect.Effect<void> {
    return Effect.gen(this, function* () {
      while (!enough(this)) this.hear(yield* pull);
    });
  }
}
