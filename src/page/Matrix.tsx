/** Features and hosts: who offers what. */
import type { JSX } from "preact";
import { useCallback, useMemo, useRef } from "preact/hooks";
import { type Column, Grid } from "./Grid.js";
import type { Page } from "./Page.js";
import {
  addressWidth,
  characterWidth,
  Host,
  Name,
  NothingLeft,
  rowClassOf,
  stateOf,
  type TableProps,
  Value,
} from "./Parts.js";
import type { Store } from "./Store.js";
import { addressKey, count, matches, plural } from "./Text.js";
import type { View } from "./View.js";

/** How long a change is marked, in ms; the style has the same. */
const freshMs = 2_000;

/** What stands around a cell's text, in pixels. */
const padding = 24;

export const byAddress = (addresses: Iterable<string>): Array<string> =>
  [...addresses]
    .map((address) => [addressKey(address), address] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([, address]) => address);

/** Hosts that are there, and such as have left features behind. */
const hostsOf = (store: Store): Set<string> => {
  const hosts = new Set<string>(store.self === undefined ? [] : [store.self.address]);
  for (const { address, state } of store.nodes.values())
    if (state === "alive" || state === "silent") hosts.add(address);
  for (const cells of store.cells.values()) for (const host of cells.keys()) hosts.add(host);
  return hosts;
};

/** What the filters leave. A value is looked for in the features and hosts that they leave, and thins both out. */
const select = (store: Store, view: View): { features: Array<string>; hosts: Array<string> } => {
  const wanted = {
    feature: view.feature.toLowerCase(),
    host: view.host.toLowerCase(),
    value: view.value.toLowerCase(),
  };
  const some = (host: string): boolean =>
    wanted.host === "" || host.includes(wanted.host) || stateOf(store, host) === wanted.host;
  const features = [...store.cells.keys()].filter((name) => name.toLowerCase().includes(wanted.feature)).toSorted();
  if (wanted.value === "") {
    // a feature's name asks for the hosts that have it
    const offering =
      wanted.feature === ""
        ? hostsOf(store)
        : new Set(features.flatMap((name) => [...(store.cells.get(name)?.keys() ?? [])]));
    return { features, hosts: byAddress([...offering].filter(some)) };
  }
  const hosts = new Set<string>();
  const hit = features.filter((feature) => {
    let found = false;
    for (const [host, { json }] of store.cells.get(feature) ?? []) {
      if (!some(host) || !matches(json, wanted.value)) continue;
      found = true;
      hosts.add(host);
    }
    return found;
  });
  return { features: hit, hosts: byAddress(hosts) };
};

export const Matrix = ({ narrow, page, rowHeight }: TableProps): JSX.Element => {
  const { store, view } = page;
  const widths = useRef(new Map<string, number>()).current;
  const { features, hosts } = useMemo(
    () => select(store, view),
    // the cells matter while a value or a feature is asked for
    [
      page.slow.shape,
      view.feature,
      view.host,
      view.value,
      view.value === "" && view.feature === "" ? 0 : page.slow.cells,
      view.host === "" ? 0 : page.slow.nodes,
    ],
  );
  const columns = useMemo((): ReadonlyArray<Column> => {
    const first: Column = {
      key: "",
      width: addressWidth(hosts, narrow),
      label: "Host",
      header: () => (
        <>
          <span class="name">Host</span>
          <span class="quiet">{count(hosts.length)}</span>
        </>
      ),
    };
    return [
      first,
      ...features.map((feature): Column => {
        let longest = Math.min(24, feature.length + 4);
        let looked = 0;
        for (const { preview } of store.cells.get(feature)?.values() ?? []) {
          longest = Math.max(longest, preview === "true" ? 0 : preview.length);
          if (++looked === 100) break;
        }
        const width = Math.max(
          widths.get(feature) ?? 0,
          Math.min(narrow ? 180 : features.length <= 3 ? 560 : 250, Math.round(longest * characterWidth()) + padding),
          64,
        );
        widths.set(feature, width);
        return { key: feature, width, label: feature, header: () => <Head page={page} feature={feature} /> };
      }),
    ];
  }, [features, hosts, narrow]);
  const wanted = view.value.toLowerCase();
  const cell = useCallback(
    (host: string, feature: string) => {
      if (feature === "") return <Host store={store} host={host} />;
      const found = store.cells.get(feature)?.get(host);
      return found === undefined ? null : <Value text={found.preview} />;
    },
    [wanted],
  );
  const cellClass = useCallback(
    (host: string, feature: string) => {
      const found = store.cells.get(feature)?.get(host);
      if (found === undefined) return "";
      const fresh = Date.now() - found.changedAt < freshMs ? `fresh${found.revision % 2}` : "";
      return wanted !== "" && !matches(found.json, wanted) ? `${fresh} miss` : fresh;
    },
    [wanted],
  );
  const version = useCallback((host: string) => store.hostVersion(host), []);
  const onOpen = useCallback(
    (host: string | undefined, feature: string) => {
      if (host === undefined && feature === "") return;
      page.go({ open: { ...(feature && { feature }), ...(host !== undefined && { host }) } });
    },
    [page],
  );
  if (hosts.length === 0 || features.length === 0) return <NothingLeft page={page} />;
  return (
    <Grid
      label={`Features of hosts: ${plural(hosts.length, "host")}, ${plural(features.length, "feature")}`}
      rowHeight={rowHeight}
      headHeight={44}
      rows={hosts}
      columns={columns}
      version={version}
      cell={cell}
      cellClass={cellClass}
      rowClass={rowClassOf(store)}
      selected={{ row: view.open?.host, column: view.open?.feature }}
      onOpen={onOpen}
    />
  );
};

const Head = ({ feature, page }: { readonly page: Page; readonly feature: string }): JSX.Element => (
  <>
    <span class="name">
      <Name text={feature} />
    </span>
    <span class="quiet">{count(page.store.cells.get(feature)?.size ?? 0)}</span>
  </>
);
