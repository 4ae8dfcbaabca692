/** Metrics as text in Prometheus's format 0.0.4. Pure. */
import type { Count, Counter, Gauge, Histogram, Metrics, Timing } from "../Metrics.js";
import type { NodeView } from "../NodeView.js";

/** The Content-Type of what `render` makes. */
export const contentType = "text/plain; version=0.0.4; charset=utf-8";

export type Labels = Readonly<Record<string, string>>;

/** One number of a family; `suffix` is `_bucket`, `_sum` or `_count` in a histogram or summary. */
export interface Sample {
  readonly suffix?: string;
  readonly labels?: Labels;
  readonly value: number;
}

/** All samples of one name. */
export interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram" | "summary";
  readonly help: string;
  readonly samples: ReadonlyArray<Sample>;
}

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');

const number = (value: number): string =>
  Number.isFinite(value) ? String(value) : Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";

const labelsText = (labels: Labels = {}): string => {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
};

/** The whole text. Families without a sample are left out. */
export const render = (families: ReadonlyArray<Family>): string =>
  families
    .filter(({ samples }) => samples.length > 0)
    .map(
      ({ help, name, samples, type }) =>
        `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${samples
          .map(({ labels, suffix = "", value }) => `${name}${suffix}${labelsText(labels)} ${number(value)}\n`)
          .join("")}`,
    )
    .join("");

interface Described {
  readonly name: string;
  readonly help: string;
  /** Names of the label's parts, which are separated by colons. */
  readonly labels?: ReadonlyArray<string>;
}

const counters: Readonly<Record<Counter, Described>> = {
  datagrams_received: { name: "nameq_datagrams_received_total", help: "Datagrams that arrived." },
  datagrams_received_bytes: { name: "nameq_datagrams_received_bytes_total", help: "Bytes of datagrams that arrived." },
  datagrams_dropped: {
    name: "nameq_datagrams_dropped_total",
    help: "Datagrams that changed nothing, by why.",
    labels: ["reason"],
  },
  datagrams_sent: { name: "nameq_datagrams_sent_total", help: "Datagrams that the kernel took." },
  datagrams_sent_bytes: { name: "nameq_datagrams_sent_bytes_total", help: "Bytes of datagrams that the kernel took." },
  datagrams_send_failed: {
    name: "nameq_datagrams_send_failed_total",
    help: "Datagrams that the kernel did not take, or that were answered by an error.",
  },
  announcements_sent: {
    name: "nameq_announcements_sent_total",
    help: "Announcements made: each goes to one or all peers.",
  },
  announcements_accepted: {
    name: "nameq_announcements_accepted_total",
    help: "Announcements of peers that were believed.",
  },
  registry_requests: {
    name: "nameq_registry_requests_total",
    help: "Requests to the registry by operation; on S3 each try counts.",
    labels: ["operation"],
  },
  registry_errors: {
    name: "nameq_registry_errors_total",
    help: "Operations on the registry that failed, by why.",
    labels: ["operation", "reason"],
  },
  tree_writes: { name: "nameq_tree_writes_total", help: "Files written in the state tree." },
  tree_removals: { name: "nameq_tree_removals_total", help: "Files removed from the state tree." },
  tree_errors: {
    name: "nameq_tree_errors_total",
    help: "File operations in the state tree that failed, by error code.",
    labels: ["code"],
  },
  feature_file_errors: {
    name: "nameq_feature_file_errors_total",
    help: "Own feature files that were not understood, by why.",
    labels: ["reason"],
  },
  log_lines_suppressed: {
    name: "nameq_log_lines_suppressed_total",
    help: "Log lines dropped because too many waited.",
  },
  http_requests: { name: "nameq_http_requests_total", help: "HTTP requests answered, by status.", labels: ["code"] },
  http_events_cut: {
    name: "nameq_http_events_cut_total",
    help: "Clients of the event stream that were cut off because they read too slowly.",
  },
  spans_dropped: {
    name: "nameq_spans_dropped_total",
    help: "Spans for OpenTelemetry that were dropped: too many waited, or the collector refused them.",
  },
};

const gauges: Readonly<Record<Gauge, Described>> = {
  datagrams_pending: { name: "nameq_datagrams_pending", help: "Datagrams received and not yet looked at." },
  registry_reads_pending: { name: "nameq_registry_reads_pending", help: "Reads of the registry that wait their turn." },
  log_lines_pending: { name: "nameq_log_lines_pending", help: "Log lines that wait to be written." },
  tree_hosts_pending: {
    name: "nameq_tree_hosts_pending",
    help: "Hosts whose files in the state tree are not yet what they should be.",
  },
  http_event_clients: { name: "nameq_http_event_clients", help: "Clients of the event stream." },
};

const timings: Readonly<Record<Timing, Described>> = {
  propagation: {
    name: "nameq_propagation_seconds",
    help: "From a peer's time of an announcement to its acceptance here; both clocks are in it.",
  },
  registry_request: {
    name: "nameq_registry_request_seconds",
    help: "Time of an operation on the registry, with all its tries.",
    labels: ["operation", "outcome"],
  },
  tree_write: { name: "nameq_tree_write_seconds", help: "Time of writing one file of the state tree." },
};

/** The label `get:Timeout` of (operation, reason) as labels. */
const partsOf = (label: string, names: ReadonlyArray<string> = []): Labels => {
  const parts = label.split(":");
  return Object.fromEntries(names.map((name, at) => [name, parts[at] ?? ""]));
};

const group = <A extends { readonly label: string }, K extends string>(
  all: ReadonlyArray<A>,
  keyOf: (each: A) => K,
): ReadonlyMap<K, ReadonlyArray<A>> => {
  const groups = new Map<K, Array<A>>();
  for (const each of all.toSorted((a, b) => (a.label < b.label ? -1 : 1))) {
    const found = groups.get(keyOf(each));
    if (found === undefined) groups.set(keyOf(each), [each]);
    else found.push(each);
  }
  return groups;
};

const countSamples = (described: Described, counts: ReadonlyArray<Count>): ReadonlyArray<Sample> =>
  counts.length === 0 && described.labels === undefined
    ? [{ value: 0 }]
    : counts.map(({ label, value }) => ({ labels: partsOf(label, described.labels), value }));

/** Buckets as the format wants them: each with all that is below it. */
export const histogramSamples = (labels: Labels, { bounds, counts, sum }: Histogram): ReadonlyArray<Sample> => {
  let below = 0;
  const buckets = [...bounds, Number.POSITIVE_INFINITY].map((bound, at): Sample => {
    below += counts[at]!;
    return { suffix: "_bucket", labels: { ...labels, le: number(bound) }, value: below };
  });
  return [...buckets, { suffix: "_sum", labels, value: sum }, { suffix: "_count", labels, value: below }];
};

/** All that `Metrics` has, in the order of the tables above. A counter without labels is there from the start, at 0. */
export const familiesOf = (metrics: Metrics.Service): ReadonlyArray<Family> => {
  const counted = group(metrics.read(), ({ counter }) => counter);
  const timed = group(metrics.histograms(), ({ timing }) => timing);
  const valued = new Map(metrics.gauges());
  return [
    ...(Object.keys(counters) as Array<Counter>).map((key): Family => {
      const { help, name } = counters[key];
      return { name, type: "counter", help, samples: countSamples(counters[key], counted.get(key) ?? []) };
    }),
    ...(Object.keys(gauges) as Array<Gauge>).map((key): Family => {
      const value = valued.get(key);
      return { ...gauges[key], type: "gauge", samples: value === undefined ? [] : [{ value }] };
    }),
    ...(Object.keys(timings) as Array<Timing>).map((key): Family => {
      const { help, labels, name } = timings[key];
      const samples = (timed.get(key) ?? []).flatMap((each) => histogramSamples(partsOf(each.label, labels), each));
      return { name, type: "histogram", help, samples };
    }),
  ];
};

/** What the node knows, as gauges. */
export const viewFamilies = (view: NodeView): ReadonlyArray<Family> => {
  const states = { alive: 0, silent: 0, left: 0, forgotten: 0 };
  for (const { state } of view.nodes()) states[state]++;
  const severities = { error: 0, warning: 0 };
  for (const { severity } of view.conditions()) severities[severity]++;
  let features = 0;
  for (const offered of view.features.values()) features += offered.size;
  const gauge = (name: string, help: string, samples: Family["samples"]): Family => ({
    name,
    type: "gauge",
    help,
    samples,
  });
  const by = (label: string, values: Readonly<Record<string, number>>) =>
    Object.entries(values).map(([name, value]) => ({ labels: { [label]: name }, value }));
  return [
    gauge("nameq_ready", "Whether membership is known and stands in the tree.", [{ value: view.ready ? 1 : 0 }]),
    gauge("nameq_nodes", "Other nodes, by state; forgotten ones for a while.", by("state", states)),
    gauge("nameq_features", "Features of all hosts, this one's too.", [{ value: features }]),
    gauge("nameq_own_features", "Features that this node offers.", [{ value: view.own.entries.size }]),
    gauge("nameq_conditions", "What is wrong now, by severity; /v1/nodes says what.", by("severity", severities)),
    {
      name: "nameq_changes_total",
      type: "counter",
      help: "Features of all hosts that came, changed or went.",
      samples: [{ value: view.sequence }],
    },
  ];
};
