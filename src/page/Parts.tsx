/** Small parts that several views share. */
import type { JSX } from "preact";
import type { Page } from "./Page.js";
import type { Node, NodeState, Store } from "./Store.js";
import { type Token, visible } from "./Text.js";

/** What a table of the page is given. */
export interface TableProps {
  readonly page: Page;
  readonly rowHeight: number;
  readonly narrow: boolean;
}

let measured: number | undefined;

/** Width of a character of values and addresses in pixels: each system has another font for them. */
export const characterWidth = (): number => {
  if (measured === undefined) {
    const probe = document.createElement("span");
    probe.className = "value probe";
    probe.textContent = "0".repeat(50);
    document.body.append(probe);
    measured = probe.getBoundingClientRect().width / 50 || 7.6;
    probe.remove();
  }
  return measured;
};

/** The states of a node as the page says them. */
export const stateNames: Readonly<Record<NodeState | "self", string>> = {
  self: "this node",
  alive: "alive",
  silent: "silent",
  left: "left",
  forgotten: "forgotten",
};

export const stateOf = (store: Store, host: string): NodeState | "self" | undefined =>
  host === store.self?.address ? "self" : store.nodes.get(host)?.state;

/** A mark whose form tells the state, not its colour alone. */
export const StateMark = ({ state }: { readonly state: NodeState | "self" | undefined }): JSX.Element => (
  <svg
    class={`state ${state ?? "unknown"}`}
    viewBox="0 0 10 10"
    role="img"
    aria-label={stateNames[state ?? "forgotten"]}
  >
    {state === "self" ? (
      <path d="M5 .4 9.6 5 5 9.6.4 5Z" />
    ) : state === "alive" ? (
      <circle cx="5" cy="5" r="4" />
    ) : state === "silent" ? (
      <>
        <circle cx="5" cy="5" r="3.4" class="ring" />
        <path d="M5 1.6a3.4 3.4 0 0 0 0 6.8Z" />
      </>
    ) : (
      <circle cx="5" cy="5" r="3.4" class="ring" />
    )}
  </svg>
);

/** A value in a cell: `true` is a dot, so that a table of them can be taken in at a glance. */
export const Value = ({ text }: { readonly text: string }): JSX.Element =>
  text === "true" ? (
    <span class="dot" role="img" aria-label="true" />
  ) : (
    <span class={`value ${text === "false" || text === "null" ? "word" : ""}`}>{text}</span>
  );

/** Coloured JSON. */
export const Json = ({ tokens }: { readonly tokens: ReadonlyArray<Token> }): JSX.Element => (
  <pre class="json" tabIndex={0} aria-label="JSON value">
    {tokens.map(({ kind, text }) => (kind === "space" ? text : <span class={kind}>{text}</span>))}
  </pre>
);

/** Where news of a node comes from. */
export const sourceName = (node: Node): string => (node.source === "udp" ? "UDP" : "registry");

/** Where an address is cut if it must be: IPv6 addresses of a fleet differ at their ends. */
const tail = 9;

/** An address that is cut in its middle where it has too little room. */
const HostName = ({ host }: { readonly host: string }): JSX.Element => (
  <span class="address">
    {host.includes(":") && host.length > 2 * tail ? (
      <>
        <span class="head">{host.slice(0, -tail)}</span>
        <span>{host.slice(-tail)}</span>
      </>
    ) : (
      host
    )}
  </span>
);

/** What heads a host's row in a table. */
export const Host = ({ host, store }: { readonly store: Store; readonly host: string }): JSX.Element => (
  <>
    <StateMark state={stateOf(store, host)} />
    <HostName host={host} />
  </>
);

/** Width of the column of those heads, in pixels. */
export const addressWidth = (hosts: ReadonlyArray<string>, narrow: boolean): number => {
  const longest = hosts.reduce((length, host) => Math.max(length, host.length), 9);
  return Math.min(narrow ? 158 : 260, Math.round(longest * characterWidth()) + 52);
};

export const rowClassOf =
  (store: Store) =>
  (host: string): string =>
    `is-${stateOf(store, host) ?? "unknown"}`;

/** A name from the network, with nothing hidden in it. */
export const Name = ({ text }: { readonly text: string }): JSX.Element => <bdi>{visible(text)}</bdi>;

/** In place of a table of which the filters have left nothing. */
export const NothingLeft = ({ page }: { readonly page: Page }): JSX.Element => (
  <p class="nothing">
    Nothing here matches the filters. <a href={page.href({ feature: "", host: "", value: "" })}>Clear them</a>
  </p>
);
