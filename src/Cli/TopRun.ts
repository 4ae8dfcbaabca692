/** `nameq top`: the node's events in, keys in, pictures out. */
import * as Clock from "effect/Clock";
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import * as Stream from "effect/Stream";
import { isatty } from "node:tty";
import type { Environment } from "./Argv.js";
import * as Face from "./Face.js";
import * as Hangup from "./Hangup.js";
import type { TopOptions } from "./Top.js";
import { keysOf, press } from "./TopKeys.js";
import { Model } from "./TopModel.js";
import * as Screen from "./TopScreen.js";
import { type Choices, type Link, type Picture, view } from "./TopView.js";

/** There is nowhere to draw. */
export class NoTerminal extends Data.TaggedError("NoTerminal")<{ readonly which: string }> {
  override get message(): string {
    return `standard ${this.which} is no terminal: nameq status prints the same once, and nameq monitor-features what changes`;
  }
}

/** Least time between two pictures, and how often ages are drawn anew, ms. */
const frameMs = 100;
const tickMs = 1_000;

/** Waits before the node is tried again, ms. */
const retryMs = [500, 5_000] as const;

/** Whether the environment's terminal shows more than ASCII. */
const isUtf8 = (environment: Environment): boolean =>
  /utf-?8/i.test(environment["LC_ALL"] || environment["LC_CTYPE"] || environment["LANG"] || "");

/** Runs the command. */
export const run = (options: TopOptions, environment: Environment): Effect.Effect<void, Error> =>
  Effect.gen(function* () {
    if (!isatty(1)) return yield* new NoTerminal({ which: "output" });
    if (!isatty(0)) return yield* new NoTerminal({ which: "input" });
    const first = yield* Face.find(options);
    // what is wrong with it is said before the screen is taken
    yield* Face.nodes(first);

    yield* Hangup.endsProgram;
    const clock = yield* Effect.clock;
    const nowMs = (): number => clock.unsafeCurrentTimeMillis();
    const stale = yield* Effect.makeLatch(true);
    const over = yield* Effect.makeLatch(false);
    const stopping = yield* Effect.makeLatch(false);
    const model = new Model();
    let choices: Choices = { sort: "address", filter: "", typing: false, help: false, scroll: 0 };
    let link: Link = { _tag: "Opening" };
    let picture: Picture = { lines: [], maxScroll: 0, page: 1 };

    const screen = yield* Screen.make({
      colours: !environment["NO_COLOR"],
      onKeys: (text) => {
        for (const key of keysOf(text)) {
          const next = press(key, choices, picture);
          if (next === "quit") over.unsafeOpen();
          else if (next === "suspend") stopping.unsafeOpen();
          else choices = next;
        }
        stale.unsafeOpen();
      },
      onSize: () => stale.unsafeOpen(),
      onEnd: () => over.unsafeOpen(),
    });

    const follow = Effect.gen(function* () {
      let lastId = "";
      let waitMs: number = retryMs[0];
      for (;;) {
        const face = yield* Effect.orElseSucceed(Face.find(options), () => first);
        const error = yield* Face.events(face, lastId).pipe(
          Stream.runForEach((events) =>
            Effect.suspend(() => {
              for (const event of events) {
                const fault = model.apply(event, nowMs());
                if (fault !== undefined) {
                  return new Face.FaceError({ reason: "Foreign", url: face.url, detail: fault });
                }
                lastId = event.id;
                link = { _tag: "Live" };
                waitMs = retryMs[0];
              }
              stale.unsafeOpen();
              return Effect.void;
            }),
          ),
          Effect.zipRight(Effect.dieMessage("events end by an error")),
          Effect.flip,
        );
        if (error.reason === "Foreign") lastId = "";
        link = { _tag: "Lost", message: error.problem, sinceMs: link._tag === "Lost" ? link.sinceMs : nowMs() };
        stale.unsafeOpen();
        yield* Effect.sleep(waitMs);
        waitMs = Math.min(retryMs[1], waitMs * 2);
      }
    });

    const ticking = Effect.forever(Effect.zipRight(Effect.sleep(tickMs), stale.open));

    const drawing = Effect.gen(function* () {
      for (;;) {
        yield* stale.await;
        yield* stale.close;
        const size = screen.size();
        picture = view(model, choices, link, { ...size, ascii: !isUtf8(environment) }, yield* Clock.currentTimeMillis);
        yield* screen.draw(picture.lines);
        yield* Effect.sleep(frameMs);
      }
    });

    const suspending = Effect.forever(
      stopping.await.pipe(Effect.zipRight(stopping.close), Effect.zipRight(screen.suspend)),
    );

    yield* Effect.raceFirst(
      over.await,
      Effect.all([follow, ticking, drawing, suspending], { concurrency: "unbounded", discard: true }),
    ).pipe(Effect.catchTag("ReaderGone", () => Effect.void));
  }).pipe(Effect.scoped);
