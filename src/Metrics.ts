/**
 * What one node counts and measures, in one place: cheap enough for the datagram path, readable by tests and by the
 * operator's views. Labels come from the program, never from the network, so their number is bounded.
 */
import * as Context from "effect/Context";
import * as Layer from "effect/Layer";

/** What is counted; the label (if any) is named in brackets. */
export type Counter =
  | "datagrams_received"
  | "datagrams_received_bytes"
  | "datagrams_dropped" // [reason]
  | "datagrams_sent"
  | "datagrams_sent_bytes"
  | "datagrams_send_failed"
  | "announcements_sent"
  | "announcements_accepted"
  | "registry_requests" // [operation]
  | "registry_errors" // [operation:reason]
  | "tree_writes"
  | "tree_removals"
  | "tree_errors" // [code]
  | "feature_file_errors" // [reason]
  | "log_lines_suppressed"
  | "http_requests" // [status]
  | "http_events_cut"
  | "spans_dropped";

/** What has a value now. */
export type Gauge =
  | "datagrams_pending"
  | "registry_reads_pending"
  | "log_lines_pending"
  | "tree_hosts_pending"
  | "http_event_clients";

/** What takes time, in seconds; the label (if any) is named in brackets. */
export type Timing = "propagation" | "registry_request" /* [operation:outcome] */ | "tree_write";

/** Upper bounds of the buckets, seconds: around what MEASURED has for each, up to what the rules wait for. */
const bounds: Readonly<Record<Timing, ReadonlyArray<number>>> = {
  propagation: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15],
  registry_request: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120],
  tree_write: [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1],
};

export interface Count {
  readonly counter: Counter;
  readonly label: string;
  readonly value: number;
}

/** The place of one count, for code that counts at every datagram: it raises `value` itself. */
export interface Cell {
  readonly counter: Counter;
  readonly label: string;
  value: number;
}

/** How long something took, each time: counts by bucket, and the sum. */
export class Histogram {
  readonly bounds: ReadonlyArray<number>;
  /** By bucket, each without those below it; the last is what is above all bounds. */
  readonly counts: Float64Array;
  /** Seconds. */
  sum = 0;

  constructor(
    readonly timing: Timing,
    readonly label: string,
  ) {
    this.bounds = bounds[timing];
    this.counts = new Float64Array(this.bounds.length + 1);
  }

  /** Less than nothing (clocks that differ) counts as nothing. */
  observe(seconds: number): void {
    const { bounds, counts } = this;
    let at = 0;
    while (at < bounds.length && seconds > bounds[at]!) at++;
    counts[at]!++;
    if (seconds > 0) this.sum += seconds;
  }
}

export declare namespace Metrics {
  interface Service {
    readonly add: (counter: Counter, label?: string, n?: number) => void;
    /** To be taken once and kept: it is there, at 0, from then on. */
    readonly cell: (counter: Counter, label?: string) => Cell;
    readonly value: (counter: Counter, label?: string) => number;
    readonly read: () => ReadonlyArray<Count>;
    /** Says how a gauge is read; the last one that says so counts. */
    readonly gauge: (gauge: Gauge, read: () => number) => void;
    readonly gauges: () => ReadonlyArray<readonly [gauge: Gauge, value: number]>;
    /** To be taken once and kept, as a cell. */
    readonly histogram: (timing: Timing, label?: string) => Histogram;
    readonly histograms: () => ReadonlyArray<Histogram>;
  }
}

/** The one of a name and label, made when it is first asked for. */
const table = <Name extends string, A>(make: (name: Name, label: string) => A) => {
  const all = new Map<Name, Map<string, A>>();
  return {
    find: (name: Name, label: string): A | undefined => all.get(name)?.get(label),
    get: (name: Name, label: string): A => {
      let labels = all.get(name);
      if (labels === undefined) all.set(name, (labels = new Map()));
      let found = labels.get(label);
      if (found === undefined) labels.set(label, (found = make(name, label)));
      return found;
    },
    values: (): Array<A> => [...all.values()].flatMap((labels) => [...labels.values()]),
  };
};

export class Metrics extends Context.Tag("nameq/Metrics")<Metrics, Metrics.Service>() {
  /** A fresh set, all at 0. */
  static readonly layer: Layer.Layer<Metrics> = Layer.sync(Metrics, () => {
    const cells = table((counter: Counter, label): Cell => ({ counter, label, value: 0 }));
    const histograms = table((timing: Timing, label) => new Histogram(timing, label));
    const gauges = new Map<Gauge, () => number>();
    return {
      add: (counter, label = "", n = 1) => {
        cells.get(counter, label).value += n;
      },
      cell: (counter, label = "") => cells.get(counter, label),
      value: (counter, label = "") => cells.find(counter, label)?.value ?? 0,
      read: () => cells.values().map((each) => ({ ...each })),
      gauge: (gauge, read) => {
        gauges.set(gauge, read);
      },
      gauges: () => [...gauges].map(([gauge, read]) => [gauge, read()] as const),
      histogram: (timing, label = "") => histograms.get(timing, label),
      histograms: histograms.values,
    };
  });
}
