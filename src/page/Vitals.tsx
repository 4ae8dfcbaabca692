/** The node's vital signs in one strip. */
import type { ComponentChildren, JSX } from "preact";
import { useMemo } from "preact/hooks";
import type { Page } from "./Page.js";
import { chartSeconds, type Figures } from "./Store.js";
import { count, milliseconds, plural } from "./Text.js";

const width = 120;
const height = 28;

/** One number a second for the last two minutes; seconds without news are `rest`. */
const series = (
  figures: ReadonlyArray<Figures>,
  end: number,
  pick: (figures: Figures) => number | null,
  rest: number | undefined,
): ReadonlyArray<number | undefined> => {
  const seconds = Array.from<number | undefined>({ length: chartSeconds }).fill(rest);
  for (const each of figures) {
    const place = chartSeconds - 1 - Math.round((end - each.at) / 1_000);
    if (place >= 0 && place < chartSeconds) seconds[place] = pick(each) ?? rest;
  }
  return seconds;
};

/** A line under which the area is tinted; gaps are left out. */
const Chart = ({
  label,
  values,
}: {
  readonly label: string;
  readonly values: ReadonlyArray<number | undefined>;
}): JSX.Element => {
  const highest = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const x = (index: number): string => ((index * width) / (values.length - 1)).toFixed(1);
  const y = (value: number): string => (height - 2 - (value / highest) * (height - 5)).toFixed(1);
  let line = "";
  let area = "";
  let last: number | undefined;
  values.forEach((value, index) => {
    if (value === undefined) return;
    const point = `${x(index)} ${y(value)}`;
    line += last === undefined ? `M${point}` : `L${point}`;
    area += last === undefined ? `M${x(index)} ${height}L${point}` : `L${point}`;
    last = index;
  });
  if (last !== undefined) area += `L${x(last)} ${height}Z`;
  return (
    <svg class="chart" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <path class="area" d={area} />
      <path class="line" d={line} />
    </svg>
  );
};

const Sign = ({
  chart,
  children,
  name,
  note,
}: {
  readonly name: string;
  readonly children: ComponentChildren;
  readonly note: ComponentChildren;
  readonly chart?: ComponentChildren;
}): JSX.Element => (
  <div class="sign">
    <dt>{name}</dt>
    <dd>
      <span class="figure">{children}</span>
      <span class="note">{note}</span>
      {chart}
    </dd>
  </div>
);

export const Vitals = ({ page }: { readonly page: Page }): JSX.Element => {
  const { store } = page;
  const states = useMemo(() => {
    const states = { alive: 0, silent: 0, left: 0, forgotten: 0 };
    for (const { address, state } of store.nodes.values()) if (address !== store.self?.address) states[state]++;
    return states;
  }, [page.slow.nodes]);
  const total = useMemo(() => store.total, [page.slow.cells, page.slow.shape]);
  const charts = useMemo(() => {
    // the last second that was told of, unless there has been nothing to tell for some
    const end = Math.max(store.figures.at(-1)?.at ?? 0, store.now() - 2_500);
    const packets = series(store.figures, end, ({ received, sent }) => received + sent, 0);
    const latency = series(store.figures, end, ({ latencyMs }) => latencyMs, undefined);
    return { packets, changes: series(store.figures, end, ({ changes }) => changes, 0), latency };
  }, [page.second]);
  const { changes, latency, packets } = charts;
  const recent = (values: ReadonlyArray<number | undefined>): number =>
    values.slice(-10).reduce<number>((sum, value) => sum + (value ?? 0), 0) / 10;
  const rate = (value: number): string => (value === 0 || value >= 9.95 ? count(Math.round(value)) : value.toFixed(1));
  const known = latency.filter((value) => value !== undefined).toSorted((a, b) => a - b);
  const median = known[known.length >> 1];
  const link = (word: string, n: number) =>
    n > 0 && (
      <a
        class={word === "silent" ? "off" : ""}
        href={page.href({ tab: "nodes", host: word, feature: "", value: "", open: undefined })}
      >
        {count(n)} {word}
      </a>
    );
  const others = [link("silent", states.silent), link("left", states.left)].filter(Boolean);
  const dropped = store.figures.reduce((sum, figures) => sum + figures.dropped, 0);
  return (
    <section aria-label="Vital signs">
      <dl class="vitals">
        <Sign name="Nodes" note={others.length > 0 ? others : states.alive === 0 ? "no peers" : "all heard"}>
          {count(states.alive + 1)}
          <span class="unit"> alive</span>
        </Sign>
        <Sign name="Features" note={`${plural(total, "offer")}`}>
          {count(store.cells.size)}
        </Sign>
        <Sign
          name="Packets"
          note={dropped > 0 ? <span class="off">{count(dropped)} dropped</span> : "in and out"}
          chart={<Chart label={`Packets a second over two minutes, ${rate(recent(packets))} now`} values={packets} />}
        >
          {rate(recent(packets))}
          <span class="unit"> /s</span>
        </Sign>
        <Sign
          name="Changes"
          note="10 s mean"
          chart={<Chart label={`Changes a second over two minutes, ${rate(recent(changes))} now`} values={changes} />}
        >
          {rate(recent(changes))}
          <span class="unit"> /s</span>
        </Sign>
        <Sign
          name="Propagation"
          note={median === undefined ? "no news yet" : "median"}
          chart={<Chart label="Time from a peer's change to its arrival here over two minutes" values={latency} />}
        >
          {median === undefined ? "–" : milliseconds(median).replace(/ (\S+)$/, "")}
          {median !== undefined && <span class="unit"> {milliseconds(median).split(" ")[1]}</span>}
        </Sign>
      </dl>
    </section>
  );
};
