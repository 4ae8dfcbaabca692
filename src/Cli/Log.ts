/** Log lines of the commands for people: on standard error, in the form of their errors, `nameq COMMAND: message`. */
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";

/** Replaces the default logger. Loads what it needs when it is built. */
export const layer = (command: string): Layer.Layer<never> =>
  Layer.unwrapEffect(
    Effect.map(
      Effect.promise(() => import("../Logging.js")),
      ({ logger, writer }) =>
        Logger.replace(
          Logger.defaultLogger,
          logger(writer(process.stderr, ({ message }) => `nameq ${command}: ${message}`)),
        ),
    ),
  );
