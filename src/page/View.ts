/** What the page shows, as the part of the URL after `#` says it, so that it can be sent to somebody else. Pure. */

/** The page's views, in the order of its tabs. */
export const tabs = ["features", "nodes", "changes"] as const;
export type Tab = (typeof tabs)[number];

/** What the details are of: a feature, a host, or one host's value of a feature. */
export interface Selection {
  readonly feature?: string;
  readonly host?: string;
}

export interface View {
  readonly tab: Tab;
  /** Parts of names and texts, any case; empty: all. */
  readonly feature: string;
  readonly host: string;
  readonly value: string;
  readonly open: Selection | undefined;
  /** What the nodes are ordered by; a minus in front: the other way round. */
  readonly sort: string;
}

export const start: View = { tab: "features", feature: "", host: "", value: "", open: undefined, sort: "" };

/** Longest filter that is read. */
const maxFilter = 300;

/** Reads it; what it does not know is left out. */
export const parse = (hash: string): View => {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const fields = new URLSearchParams(query);
  const field = (name: string): string => (fields.get(name) ?? "").slice(0, maxFilter);
  const open = fields.get("open");
  const at = open?.lastIndexOf("@") ?? -1;
  const feature = open?.slice(0, at === -1 ? undefined : at) ?? "";
  const host = at === -1 ? "" : (open?.slice(at + 1) ?? "");
  return {
    tab: tabs.find((tab) => tab === path) ?? "features",
    feature: field("feature"),
    host: field("host"),
    value: field("value"),
    open: feature === "" && host === "" ? undefined : { ...(feature && { feature }), ...(host && { host }) },
    sort: field("sort"),
  };
};

/** Writes it, shortest first: `#features`, `#nodes?host=10.0&open=@10.0.0.1`, `#features?open=db@10.0.0.1`. */
export const format = (view: View): string => {
  const fields = new URLSearchParams();
  for (const name of ["feature", "host", "value", "sort"] as const) if (view[name] !== "") fields.set(name, view[name]);
  if (view.open !== undefined) {
    const { feature = "", host } = view.open;
    fields.set("open", host === undefined ? feature : `${feature}@${host}`);
  }
  const query = String(fields).replaceAll("%40", "@").replaceAll("%3A", ":");
  return `#${view.tab}${query === "" ? "" : `?${query}`}`;
};
