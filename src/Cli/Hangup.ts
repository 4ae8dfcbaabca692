import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/** While the scope lasts, SIGHUP ends the program as SIGTERM does. */
export const endsProgram: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const onHangup = (): void => {
      process.kill(process.pid, "SIGTERM");
    };
    process.on("SIGHUP", onHangup);
    return onHangup;
  }),
  (onHangup) => Effect.sync(() => process.off("SIGHUP", onHangup)),
);
