import { assert, describe, it } from "@effect/vitest";
import * as fc from "effect/FastCheck";
import { Timers } from "../src/Timers.js";

describe("Timers", () => {
  it("give what is due, the first moment first, in the order it came, each once", () => {
    const command = fc.oneof(fc.record({ push: fc.integer({ min: 0, max: 5 }) }), fc.constant({ push: undefined }));
    fc.assert(
      fc.property(fc.array(command), (commands) => {
        const timers = new Timers<number>();
        let model: Array<readonly [due: number, value: number]> = [];
        let nowMs = 0;
        for (const [value, { push }] of commands.entries()) {
          if (push !== undefined) {
            // also at a moment that was taken already
            assert.strictEqual(timers.push(nowMs + push, value).due, nowMs + push);
            model.push([nowMs + push, value]);
          } else {
            nowMs++;
            for (let slot = timers.pop(nowMs); slot !== undefined; slot = timers.pop(nowMs)) {
              const due = Math.min(...model.map(([at]) => at));
              assert.deepStrictEqual(
                [slot.due, ...slot.values],
                [due, ...model.filter(([at]) => at === due).map(([, each]) => each)],
              );
              model = model.filter(([at]) => at !== due);
            }
          }
          assert.strictEqual(timers.size, model.length);
          assert.strictEqual(timers.due, Math.min(...model.map(([at]) => at)));
        }
      }),
    );
  });
});
