/** How `nameq top` looks: lines for a terminal of any size, from what is known. Pure. */
import type { Change, Known, Model, Second } from "./TopModel.js";
import { count, duration, offset } from "./StatusReport.js";
import { byText } from "./Tree.js";
import { clean, cut, width } from "./Width.js";

export type Style = "bold" | "dim" | "reverse" | "red" | "yellow" | "green";

/** Text of one look. */
export interface Span {
  readonly text: string;
  readonly style?: Style;
}

/** Never wider than the terminal. */
export type Line = ReadonlyArray<Span>;

export const sorts = ["address", "heard", "state", "features"] as const;

/** What the user chose. */
export interface Choices {
  readonly sort: (typeof sorts)[number];
  readonly filter: string;
  /** The filter is being typed. */
  readonly typing: boolean;
  readonly help: boolean;
  /** Nodes that are scrolled past. */
  readonly scroll: number;
}

export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /** It shows nothing else. */
  readonly ascii: boolean;
}

/** How the node is reached. */
export type Link =
  | { readonly _tag: "Opening" }
  | { readonly _tag: "Live" }
  | { readonly _tag: "Lost"; readonly message: string; readonly sinceMs: number };

/** A picture, and how far it can be scrolled. */
export interface Picture {
  readonly lines: ReadonlyArray<Line>;
  readonly maxScroll: number;
  /** Nodes on one page. */
  readonly page: number;
}

const span = (text: string, style?: Style): Span => (style === undefined ? { text } : { text, style });

/** Cuts a line to the terminal's width, with a mark when something is missing. */
const fit = (line: Line, { ascii, columns }: Terminal): Line => {
  let left = columns;
  const out: Array<Span> = [];
  for (const [at, each] of line.entries()) {
    const wide = width(each.text);
    const more = line.slice(at + 1).some(({ text }) => text.trim() !== "");
    if (wide <= left && !(wide === left && more)) {
      out.push(each);
      left -= wide;
      continue;
    }
    if (left > 0) out.push({ ...each, text: `${cut(each.text, left - 1)}${ascii ? "~" : "…"}` });
    break;
  }
  return out;
};

const pad = (text: string, columns: number): string => text + " ".repeat(Math.max(0, columns - width(text)));

// --- parts ----------------------------------------------------------------------------------------------------------

const blocks = { ascii: " .:-=+*#", utf8: "▁▂▃▄▅▆▇█" };

/** The last `columns` seconds up to `nowMs` (the node's clock); a second of which nothing was told had nothing. */
export const sparkline = (
  seconds: ReadonlyArray<Second>,
  nowMs: number,
  columns: number,
  ascii: boolean,
): { readonly text: string; readonly most: number } => {
  const counts = Array.from({ length: Math.max(0, columns) }, () => 0);
  for (const { atMs, received, sent } of seconds) {
    const at = columns - 1 - Math.floor((nowMs - atMs) / 1_000);
    if (at >= 0 && at < columns) counts[at] = counts[at]! + received + sent;
  }
  const most = Math.max(0, ...counts);
  const marks = ascii ? blocks.ascii : blocks.utf8;
  const text = counts
    // what is not nothing is to be seen
    .map((n) =>
      n === 0
        ? " "
        : marks[Math.min(marks.length - 1, Math.max(ascii ? 1 : 0, Math.ceil((n / most) * marks.length) - 1))]!,
    )
    .join("");
  return { text, most };
};

/** Of the last ten seconds. */
const rates = (seconds: ReadonlyArray<Second>, nowMs: number) => {
  const recent = seconds.filter(({ atMs }) => nowMs - atMs < 10_000);
  const sum = (of: (second: Second) => number): number => recent.reduce((total, second) => total + of(second), 0);
  const rate = (of: (second: Second) => number): string => (sum(of) / 10).toFixed(1);
  const latencies = recent
    .flatMap(({ latencyMs }) => (latencyMs === null ? [] : [latencyMs]))
    .toSorted((a, b) => a - b);
  return {
    received: rate(({ received }) => received),
    sent: rate(({ sent }) => sent),
    dropped: sum(({ dropped }) => dropped),
    latencyMs: latencies[Math.floor((latencies.length - 1) / 2)],
  };
};

const stateStyles: Readonly<Record<string, Style>> = { silent: "yellow", left: "dim", forgotten: "dim" };
const stateOrder: Readonly<Record<string, number>> = { silent: 0, forgotten: 1, left: 2, alive: 3 };

const orders: Readonly<Record<Choices["sort"], (a: Known, b: Known) => number>> = {
  address: () => 0,
  heard: (a, b) => a.heardAtMs - b.heardAtMs,
  state: (a, b) => (stateOrder[a.node.state] ?? 4) - (stateOrder[b.node.state] ?? 4),
  features: (a, b) => b.node.features - a.node.features,
};

const matches = (filter: string, ...texts: ReadonlyArray<string | null>): boolean =>
  texts.some((text) => text !== null && text.toLowerCase().includes(filter.toLowerCase()));

/** The nodes to be shown, in order. A filter is for address, state, version and the features that a node has. */
export const chosen = (model: Model, { filter, sort }: Choices): ReadonlyArray<Known> => {
  const having = new Set<string>();
  if (filter !== "") {
    for (const [feature, hosts] of model.offers)
      if (matches(filter, feature)) for (const host of hosts) having.add(host);
  }
  return [...model.nodes.values()]
    .filter(
      ({ node }) =>
        filter === "" || having.has(node.address) || matches(filter, node.address, node.state, node.version),
    )
    .toSorted((a, b) => orders[sort](a, b) || byText(a.order, b.order));
};

interface Column {
  readonly head: string;
  readonly sort?: Choices["sort"];
  readonly cell: (known: Known) => string;
}

const table = (shown: ReadonlyArray<Known>, choices: Choices, nowMs: number, terminal: Terminal) => {
  const columns: ReadonlyArray<Column> = [
    { head: "NODE", sort: "address", cell: ({ node }) => clean(node.address, terminal.ascii) },
    { head: "STATE", sort: "state", cell: ({ node }) => node.state },
    {
      head: "HEARD",
      sort: "heard",
      cell: ({ heardAtMs }) => (Number.isNaN(heardAtMs) ? "-" : `${duration(nowMs - heardAtMs)} ago`),
    },
    { head: "BY", cell: ({ node }) => node.source },
    { head: "CLOCK", cell: ({ node }) => (node.clockOffsetMs === null ? "-" : offset(node.clockOffsetMs)) },
    { head: "FEATURES", sort: "features", cell: ({ node }) => String(node.features) },
    {
      head: "VERSION",
      cell: ({ node }) => clean(node.version ?? (node.legacy ? "existing program" : "-"), terminal.ascii),
    },
  ];
  const mark = terminal.ascii ? "*" : "▾";
  const heads = columns.map(({ head, sort }) => (sort === choices.sort ? `${head}${mark}` : head));
  const rows = shown.map((known) => columns.map(({ cell }) => cell(known)));
  const widths = heads.map((head, at) => rows.reduce((most, row) => Math.max(most, width(row[at]!)), width(head)));
  const join = (cells: ReadonlyArray<string>): string => cells.map((cell, at) => pad(cell, widths[at]!)).join("  ");
  return {
    head: [span(pad(join(heads), terminal.columns), "reverse")],
    rows: rows.map((row, at): Line => [span(join(row), stateStyles[shown[at]!.node.state])]),
  };
};

const clockTime = (ms: number): string => (Number.isNaN(ms) ? "--:--:--" : new Date(ms).toTimeString().slice(0, 8));

const changeLine = ({ atMs, feature, host, value }: Change, offsetMs: number, { ascii }: Terminal): Line => [
  span(`${clockTime(atMs - offsetMs)}  `, "dim"),
  span(`${clean(feature, ascii)}  ${clean(host, ascii)}  `),
  value === undefined ? span("gone", "yellow") : span(clean(value, ascii)),
];

const helpLines: ReadonlyArray<readonly [string, string]> = [
  ["q, Ctrl-C", "quit"],
  ["s", "sort the nodes by address, when heard (the longest ago first), state, features"],
  ["/ or f", "show only nodes and changes with this text: address, feature, state, version"],
  ["Esc", "show all again"],
  ["arrows, j k", "scroll by a node; PageUp, PageDown, Home, End by more"],
  ["? or h", "this help, and back"],
];

const states = ["alive", "silent", "left", "forgotten"] as const;

/** Conditions that are shown when there is room. */
const maxConditions = 3;

/** Draws everything. `nowMs`: this program's clock. */
export const view = (model: Model, choices: Choices, link: Link, terminal: Terminal, nowMs: number): Picture => {
  const { ascii, columns, rows } = terminal;
  const nodeNowMs = nowMs + model.offsetMs;
  const { self } = model;

  const title: Line = [
    span(`node ${clean(self?.address ?? "", ascii)}`, "bold"),
    span(
      self === undefined
        ? ""
        : ` port ${self.port}  ${self.ready ? "ready" : "starting"}  ${clean(self.version ?? "", ascii)}  `,
    ),
    link._tag === "Opening"
      ? span("connecting", "dim")
      : link._tag === "Live"
        ? span("live", "green")
        : span(`lost for ${duration(nowMs - link.sinceMs)}, trying again: ${clean(link.message, ascii)}`, "red"),
  ];
  const by = states
    .map((state) => [state, [...model.nodes.values()].filter(({ node }) => node.state === state).length] as const)
    .filter(([state, n]) => n > 0 || state === "alive");
  const offers = [...model.offers.values()].reduce((sum, hosts) => sum + hosts.size, 0);
  const counts: Line = [
    span("nodes "),
    ...by.map(([state, n], at) => span(`${at > 0 ? ", " : ""}${n} ${state}`, n > 0 ? stateStyles[state] : undefined)),
    span(`   ${count(model.offers.size, "feature")}, ${count(offers, "offer")}`),
  ];
  const { dropped, latencyMs, received, sent } = rates(model.seconds, nodeNowMs);
  const traffic: Line = [
    span(`packets ${received}/s in, ${sent}/s out`),
    span(`, ${dropped} dropped`, dropped > 0 ? "yellow" : undefined),
    span(latencyMs === undefined ? "" : `   news takes ${latencyMs.toFixed(1)} ms`),
  ];
  const spark = sparkline(model.seconds, nodeNowMs, Math.min(columns - 24, 120), ascii);
  const sparkLine: Line = [span(`${spark.text} `, "green"), span(`packets, at most ${spark.most}/s`, "dim")];

  const conditions = model.conditions
    .slice(0, model.conditions.length > maxConditions ? maxConditions - 1 : maxConditions)
    .map(({ message, severity, since }): Line => [
      span(
        `${severity}${since === null ? "" : ` for ${duration(nodeNowMs - Date.parse(since))}`}: ${clean(message, ascii)}`,
        severity === "error" ? "red" : "yellow",
      ),
    ]);
  const untold = model.conditions.length - conditions.length;
  if (untold > 0) conditions.push([span(`and ${untold} more: nameq status`, "yellow")]);

  const prompt: Line = choices.typing
    ? [span(`/${clean(choices.filter, ascii)}`), span(" ", "reverse"), span("  Enter keeps it, Esc shows all", "dim")]
    : [
        span(
          `q quit  s sort (${choices.sort})  / filter${choices.filter === "" ? "" : ` (${clean(choices.filter, ascii)})`}  ? help`,
          "dim",
        ),
      ];

  // what matters less goes first when there is little room
  const room = rows - 1;
  const head: Array<Line> = [];
  for (const [part, needs] of [
    [[title], 1],
    [[counts], 4],
    [conditions, 6],
    [[traffic], 9],
    [columns >= 40 ? [sparkLine] : [], 12],
  ] as const) {
    if (room >= needs) head.push(...part.slice(0, Math.max(0, room - head.length - 2)));
  }
  const rest = room - head.length;

  if (choices.help) {
    const lines = helpLines.map(([keys, what]): Line => [span(`  ${pad(keys, 13)}`, "bold"), span(what)]);
    const body = [[], ...lines].slice(0, Math.max(0, rest));
    const filled = [...head, ...body, ...Array.from({ length: rest - body.length }, (): Line => []), prompt];
    return { lines: filled.slice(-rows).map((line) => fit(line, terminal)), maxScroll: 0, page: 1 };
  }

  const { filter } = choices;
  const changes = model.changes.filter(
    ({ feature, host, value }) => filter === "" || matches(filter, feature, host, value ?? null),
  );
  const changeRows = rest < 10 ? 0 : Math.min(Math.floor(rest / 3), 12);
  const page = Math.max(0, rest - 1 - (changeRows === 0 ? 0 : changeRows + 1));
  const nodes = chosen(model, choices);
  const maxScroll = Math.max(0, nodes.length - page);
  const scroll = Math.min(choices.scroll, maxScroll);
  const shown = table(nodes.slice(scroll, scroll + page), choices, nodeNowMs, terminal);
  const body: Array<Line> = [shown.head, ...shown.rows];
  while (body.length < page + 1) body.push([]);
  if (changeRows > 0) {
    const below = nodes.length - scroll - page;
    body.push([span(pad(`CHANGES${below > 0 ? `   (${count(below, "node")} below)` : ""}`, columns), "reverse")]);
    for (let at = 0; at < changeRows; at++) {
      const change = changes[at];
      body.push(change === undefined ? [] : changeLine(change, model.offsetMs, terminal));
    }
  }
  const lines = [...head, ...body.slice(0, Math.max(0, rest)), prompt];
  return { lines: lines.slice(-rows).map((line) => fit(line, terminal)), maxScroll, page: Math.max(1, page) };
};
