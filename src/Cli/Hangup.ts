import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/**
 * While the scope lasts, SIGHUP ends the program as SIGTERM does. A terminal that closes sends it twice, as the kernel's
 * and as the shell's: whoever heard the first SIGTERM listens no more, and the end that is under way goes on.
 */
export const endsProgram: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const onHangup = (): void => {
      process.emit("SIGTERM");
    };
    process.on("SIGHUP", onHangup);
    return onHangup;
  }),
  (onHangup) => Effect.sync(() => process.off("SIGHUP", onHangup)),
);
