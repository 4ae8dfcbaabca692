/** Counters of one node in one place: cheap enough for the datagram path, readable by tests and by the operator's views. */
import * as Context from "effect/Context";
import * as Layer from "effect/Layer";

/** What is counted; the label (if any) is named in brackets. */
export type Counter =
  | "datagrams_received"
  | "datagrams_dropped" // [reason]
  | "datagrams_sent"
  | "datagrams_send_failed"
  | "announcements_accepted"
  | "registry_requests" // [operation]
  | "registry_errors" // [operation:reason]
  | "tree_writes"
  | "tree_removals"
  | "tree_errors" // [code]
  | "feature_file_errors" // [reason]
  | "log_lines_suppressed";

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

export declare namespace Metrics {
  interface Service {
    readonly add: (counter: Counter, label?: string, n?: number) => void;
    /** To be taken once and kept: it is there, at 0, from then on. */
    readonly cell: (counter: Counter, label?: string) => Cell;
    readonly value: (counter: Counter, label?: string) => number;
    readonly read: () => ReadonlyArray<Count>;
  }
}

export class Metrics extends Context.Tag("nameq/Metrics")<Metrics, Metrics.Service>() {
  /** A fresh set of counters. Labels come from the program, never from the network, so their number is bounded. */
  static readonly layer: Layer.Layer<Metrics> = Layer.sync(Metrics, () => {
    const cells = new Map<Counter, Map<string, Cell>>();
    const cell = (counter: Counter, label = ""): Cell => {
      let labels = cells.get(counter);
      if (labels === undefined) cells.set(counter, (labels = new Map()));
      let found = labels.get(label);
      if (found === undefined) labels.set(label, (found = { counter, label, value: 0 }));
      return found;
    };
    return {
      add: (counter, label, n = 1) => {
        cell(counter, label).value += n;
      },
      cell,
      value: (counter, label = "") => cells.get(counter)?.get(label)?.value ?? 0,
      read: () => [...cells.values()].flatMap((labels) => [...labels.values()].map((each) => ({ ...each }))),
    };
  });
}
