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

export declare namespace Metrics {
  interface Service {
    readonly add: (counter: Counter, label?: string, n?: number) => void;
    readonly value: (counter: Counter, label?: string) => number;
    readonly read: () => ReadonlyArray<Count>;
  }
}

export class Metrics extends Context.Tag("nameq/Metrics")<Metrics, Metrics.Service>() {
  /** A fresh set of counters. Labels come from the program, never from the network, so their number is bounded. */
  static readonly layer: Layer.Layer<Metrics> = Layer.sync(Metrics, () => {
    const counts = new Map<string, { counter: Counter; label: string; value: number }>();
    return {
      add: (counter, label = "", n = 1) => {
        const key = `${counter}/${label}`;
        const count = counts.get(key);
        if (count === undefined) counts.set(key, { counter, label, value: n });
        else count.value += n;
      },
      value: (counter, label = "") => counts.get(`${counter}/${label}`)?.value ?? 0,
      read: () => [...counts.values()].map((count) => ({ ...count })),
    };
  });
}
