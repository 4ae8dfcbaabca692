import { Console, Effect, Schema, Stream } from "effect";
import { NameqClient } from "nameq";

const Worker = Schema.Struct({ port: Schema.Number });

/** Offers itself as a worker while it runs, and always knows the others. */
export const program = Effect.gen(function* () {
  const nameq = yield* NameqClient;
  const workers = nameq.feature("worker", Worker);
  yield* workers.setScoped({ port: 7000 });
  yield* Stream.runForEach(workers.watch, (peers) =>
    Console.log(`workers: ${[...peers].map(([host, { port }]) => `${host}:${port}`).join(" ")}`),
  );
}).pipe(Effect.scoped);

// in the program's main file: NodeRuntime.runMain(program.pipe(Effect.provide(NameqClient.layerConfig)))
