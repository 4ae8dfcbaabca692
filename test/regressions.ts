/** The shortest schedules that broke a promise once. */
import type * as FaultSchedule from "../src/FaultSchedule.js";

export const regressions: ReadonlyArray<readonly [string, FaultSchedule.FaultSchedule]> = [
  [
    "a new node whose disk is full at its start (seed 114): what it offers must be told, and written when there is room",
    {
      seed: 114,
      nodes: 2,
      durationMs: 2_143_092,
      steps: [
        { atMs: 856_072, deed: { do: "set", node: 1, feature: "b", value: "36" } },
        { atMs: 1_490_098, deed: { do: "disk", node: 1, code: "ENOSPC" } },
        { atMs: 1_543_092, deed: { do: "replace", node: 1 } },
        { atMs: 1_544_092, deed: { do: "set", node: 1, feature: "c", value: "37" } },
      ],
    },
  ],
  [
    "a start while the process before still says goodbye to a slow registry (seed 700353)",
    {
      seed: 700_353,
      nodes: 1,
      durationMs: 1_717_946,
      steps: [
        { atMs: 2_848, deed: { do: "set", node: 0, feature: "b", value: "10" } },
        { atMs: 1_524_095, deed: { do: "registry", node: 0, delayMs: 20_000, failure: undefined } },
        { atMs: 1_717_704, deed: { do: "stop", node: 0, keep: false } },
        { atMs: 1_717_946, deed: { do: "start", node: 0 } },
      ],
    },
  ],
  [
    "a crash before such a start (seed 910770): there is none",
    {
      seed: 910_770,
      nodes: 2,
      durationMs: 3_129_855,
      steps: [
        { atMs: 2_972_116, deed: { do: "registry", node: 1, delayMs: 10_000, failure: "Denied" } },
        { atMs: 3_027_705, deed: { do: "stop", node: 1, keep: false } },
        { atMs: 3_030_091, deed: { do: "start", node: 1 } },
        { atMs: 3_030_586, deed: { do: "crash", node: 1 } },
        { atMs: 3_129_855, deed: { do: "set", node: 1, feature: "a", value: "36" } },
      ],
    },
  ],
  [
    "a start after a goodbye, by a registry so slow that nobody learns of it until it has stopped (seed 1300782, shortened)",
    {
      seed: 3,
      nodes: 4,
      durationMs: 1_937_836,
      steps: [
        { atMs: 98_485, deed: { do: "set", node: 3, feature: "c", value: "845" } },
        { atMs: 831_108, deed: { do: "stop", node: 3, keep: false } },
        { atMs: 1_239_489, deed: { do: "registry", node: 3, delayMs: 40_000, failure: undefined } },
        { atMs: 1_733_801, deed: { do: "start", node: 3 } },
        { atMs: 1_810_880, deed: { do: "registry", node: 3, delayMs: 200, failure: "Throttled" } },
        { atMs: 1_937_836, deed: { do: "stop", node: 3, keep: true } },
      ],
    },
  ],
  [
    "two clocks ahead together and set right again (seed 94): the news from then must not lock out later news",
    {
      seed: 94,
      nodes: 2,
      durationMs: 1_831_223,
      steps: [
        { atMs: 1_315_496, deed: { do: "set", node: 0, feature: "a", value: "19" } },
        { atMs: 1_527_667, deed: { do: "clock", node: 0, skewMs: 7_200_000 } },
        { atMs: 1_771_223, deed: { do: "clock", node: 1, skewMs: 7_200_000 } },
      ],
    },
  ],
  [
    "a crash while an older put is on its way (seed 1): it must not come back when the node was forgotten",
    {
      seed: 1,
      nodes: 2,
      durationMs: 1_100_000,
      steps: [
        { atMs: 100_000, deed: { do: "registry", node: 1, delayMs: 90_000, failure: undefined } },
        { atMs: 101_000, deed: { do: "set", node: 1, feature: "c", value: "19" } },
        { atMs: 101_200, deed: { do: "set", node: 1, feature: "c", value: "20" } },
        { atMs: 102_000, deed: { do: "registry", node: 0, delayMs: 0, failure: "Unreachable" } },
        { atMs: 103_000, deed: { do: "crash", node: 1 } },
        { atMs: 1_004_000, deed: { do: "registry", node: 0, delayMs: 0, failure: undefined } },
      ],
    },
  ],
  [
    "an object put while its owner's clock was ahead (seed 12986): it must not beat later datagrams",
    {
      seed: 12_986,
      nodes: 2,
      durationMs: 593_575,
      steps: [
        { atMs: 3_305, deed: { do: "set", node: 1, feature: "c", value: "7" } },
        { atMs: 51_870, deed: { do: "clock", node: 1, skewMs: 600_000 } },
        { atMs: 379_520, deed: { do: "registry", node: 1, delayMs: 200, failure: "Throttled" } },
        { atMs: 437_906, deed: { do: "clock", node: 1, skewMs: 0 } },
        { atMs: 590_115, deed: { do: "set", node: 1, feature: "c", value: "22" } },
        { atMs: 593_575, deed: { do: "crash", node: 1 } },
      ],
    },
  ],
  [
    "a goodbye that an older put undoes (seed 1316)",
    {
      seed: 1_316,
      nodes: 3,
      durationMs: 1_486_425,
      steps: [
        { atMs: 773_963, deed: { do: "registry", node: 2, delayMs: 90_000, failure: undefined } },
        { atMs: 778_288, deed: { do: "set", node: 2, feature: "b", value: "11" } },
        { atMs: 909_648, deed: { do: "registry", node: 2, delayMs: 0, failure: undefined } },
        { atMs: 920_561, deed: { do: "stop", node: 2, keep: false } },
        { atMs: 1_278_825, deed: { do: "registry", node: 1, delayMs: 0, failure: "Unreachable" } },
        { atMs: 1_486_425, deed: { do: "registry", node: 1, delayMs: 0, failure: undefined } },
      ],
    },
  ],
  [
    "a reader whose clock is behind (seed 770): a peer that the registry shows alive is not forgotten",
    {
      seed: 770,
      nodes: 2,
      durationMs: 3_600_000,
      steps: [
        { atMs: 1_677, deed: { do: "set", node: 1, feature: "c", value: "9" } },
        { atMs: 2_470_808, deed: { do: "clock", node: 0, skewMs: -600_000 } },
        { atMs: 3_094_384, deed: { do: "registry", node: 1, delayMs: 0, failure: "Unreachable" } },
        { atMs: 3_145_713, deed: { do: "remove", node: 1, feature: "c" } },
      ],
    },
  ],
  [
    "an owner that a restarted reader learns of from an object about to expire (seed 750): it may go before it answers",
    {
      seed: 750,
      nodes: 2,
      durationMs: 1_200_000,
      steps: [
        { atMs: 1_000, deed: { do: "set", node: 0, feature: "a", value: "1" } },
        {
          atMs: 90_000,
          deed: { do: "link", link: { loss: 0, delayMs: [2_000, 5_000], duplication: 0, corruption: 0 } },
        },
        { atMs: 100_000, deed: { do: "stop", node: 1, keep: false } },
        { atMs: 250_000, deed: { do: "set", node: 0, feature: "a", value: "2" } },
        { atMs: 300_000, deed: { do: "registry", node: 0, delayMs: 0, failure: "Throttled" } },
        { atMs: 1_080_000, deed: { do: "registry", node: 1, delayMs: 20_000, failure: undefined } },
        { atMs: 1_088_000, deed: { do: "start", node: 1 } },
      ],
    },
  ],
];
