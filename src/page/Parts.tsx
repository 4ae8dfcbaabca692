/** Small parts that several views share. */
import type { JSX } from "preact";
import type { Node, NodeState, Store } from "./Store.js";
import { type Token, visible } from "./Text.js";

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
    class={`mark ${state ?? "unknown"}`}
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

/** A name from the network, with nothing hidden in it. */
export const Name = ({ text }: { readonly text: string }): JSX.Element => <bdi>{visible(text)}</bdi>;
