/** Nodes: who is there, how it is known, and when it was last heard. */
import type { JSX } from "preact";
import { useCallback, useMemo } from "preact/hooks";
import { type Column, Grid } from "./Grid.js";
import {
  addressWidth,
  Host,
  NothingLeft,
  rowClassOf,
  sourceName,
  stateNames,
  stateOf,
  type TableProps,
} from "./Parts.js";
import type { Node, Store } from "./Store.js";
import { addressKey, ago, count, offset, plural } from "./Text.js";
import type { View } from "./View.js";

/** Beyond this difference of clocks packets are refused: half of it is worth a look. Source: PROTOCOL, section 2. */
const clockWarningMs = 7_500;

const heads: ReadonlyArray<readonly [string, string, number]> = [
  ["address", "Address", 170],
  ["state", "State", 110],
  ["heard", "Last word", 100],
  ["source", "Source", 90],
  ["features", "Features", 90],
  ["version", "Version", 110],
  ["clock", "Clock offset", 120],
];

/** What nodes can be ordered by. */
const keys: Readonly<Record<string, (store: Store, host: string, node: Node | undefined) => string | number>> = {
  address: (_, host) => addressKey(host),
  state: (store, host) => stateOf(store, host) ?? "",
  heard: (_, __, node) => -(node?.heardAt ?? Number.POSITIVE_INFINITY),
  source: (_, __, node) => node?.source ?? "",
  features: (store, host) => -store.offersOf(host),
  version: (_, __, node) => node?.version ?? "",
  clock: (_, __, node) => -Math.abs(node?.clockOffsetMs ?? -1),
};

const select = (store: Store, view: View): Array<string> => {
  const wanted = view.host.toLowerCase();
  const feature = view.feature.toLowerCase();
  const offering =
    feature === ""
      ? undefined
      : new Set(
          [...store.cells].flatMap(([name, hosts]) => (name.toLowerCase().includes(feature) ? [...hosts.keys()] : [])),
        );
  const all = new Set([...(store.self === undefined ? [] : [store.self.address]), ...store.nodes.keys()]);
  const some = [...all].filter((host) => {
    if (offering?.has(host) === false) return false;
    const node = store.nodes.get(host);
    const words = [host, stateNames[stateOf(store, host) ?? "forgotten"], node?.version, node && sourceName(node)];
    return words.some((word) => word?.toLowerCase().includes(wanted));
  });
  const by = view.sort.replace(/^-/, "");
  const direction = view.sort.startsWith("-") ? -1 : 1;
  const key = keys[Object.hasOwn(keys, by) ? by : "address"];
  return some
    .map((host) => ({ host, key: key?.(store, host, store.nodes.get(host)) ?? "", address: addressKey(host) }))
    .toSorted((a, b) => (a.key < b.key ? -direction : a.key > b.key ? direction : a.address < b.address ? -1 : 1))
    .map(({ host }) => host);
};

export const Nodes = ({ narrow, page, rowHeight }: TableProps): JSX.Element => {
  const { store, view } = page;
  const { sort } = view;
  const hosts = useMemo(
    () => select(store, view),
    [page.slow.nodes, view.feature, view.host, sort, view.feature === "" ? 0 : page.slow.cells],
  );
  const first = addressWidth(hosts, narrow);
  const columns = useMemo(
    () =>
      heads.map(([key, label, width]): Column => {
        const by = sort === "" ? "address" : sort.replace(/^-/, "");
        const up = by === key && !sort.startsWith("-");
        return {
          key,
          width: key === "address" ? first : width,
          label: `Order by ${label.toLowerCase()}`,
          className: key === "features" || key === "clock" || key === "heard" ? "number" : "",
          sort: by === key ? (up ? "ascending" : "descending") : "none",
          header: () => (
            <span class="order">
              {label}
              <span class="arrow" aria-hidden="true">
                {by === key ? (up ? "↑" : "↓") : ""}
              </span>
            </span>
          ),
        };
      }),
    [sort, first],
  );
  const cell = useCallback((host: string, column: string) => {
    const node = store.nodes.get(host);
    const state = stateOf(store, host);
    switch (column) {
      case "address":
        return <Host store={store} host={host} />;
      case "state":
        return <span class={state === "silent" ? "off" : ""}>{stateNames[state ?? "forgotten"]}</span>;
      case "features":
        return count(store.offersOf(host));
      case "version":
        return state === "self" ? (
          store.self?.version
        ) : node?.legacy ? (
          <span class="quiet">Go program</span>
        ) : (
          node?.version
        );
    }
    if (state === "self" || node === undefined) return <span class="quiet">–</span>;
    switch (column) {
      case "heard":
        return ago(store.now() - node.heardAt);
      case "source":
        return sourceName(node);
      case "clock":
        return node.clockOffsetMs === undefined ? (
          <span class="quiet">–</span>
        ) : (
          <span class={Math.abs(node.clockOffsetMs) > clockWarningMs ? "off" : ""}>{offset(node.clockOffsetMs)}</span>
        );
    }
    return null;
  }, []);
  const version = useCallback((host: string) => `${page.second} ${page.slow.nodes} ${store.hostVersion(host)}`, []);
  const onOpen = useCallback(
    (host: string | undefined, column: string) => {
      if (host !== undefined) page.go({ open: { host } });
      else
        page.go({
          sort: page.view.sort === column || (page.view.sort === "" && column === "address") ? `-${column}` : column,
        });
    },
    [page],
  );
  if (hosts.length === 0) return <NothingLeft page={page} />;
  return (
    <Grid
      label={plural(hosts.length, "node")}
      rowHeight={rowHeight}
      headHeight={34}
      rows={hosts}
      columns={columns}
      version={version}
      cell={cell}
      rowClass={rowClassOf(store)}
      selected={{ row: view.open?.host, column: undefined }}
      onOpen={onOpen}
    />
  );
};
