/** One thing in full: a value, a host or a feature. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { byAddress } from "./Matrix.js";
import type { Page } from "./Page.js";
import { Json, Name, sourceName, StateMark, stateNames, stateOf } from "./Parts.js";
import { ago, clock, count, offset, plural, pretty } from "./Text.js";
import type { Selection } from "./View.js";

/** Longest list in the details; the table has all. */
const maxListed = 100;

/** Copies where the browser gives a clipboard (a secure page), else by way of a selection. */
const copy = async (text: string): Promise<boolean> => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    // old, and the only way on a page that is served without TLS
    const done = document.execCommand("copy");
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
};

const Copy = ({ text }: { readonly text: string }): JSX.Element => {
  const [state, set] = useState("");
  useEffect(() => {
    if (state === "") return undefined;
    const timer = setTimeout(() => set(""), 2_000);
    return () => clearTimeout(timer);
  }, [state]);
  return (
    <button type="button" onClick={() => void copy(text).then((done) => set(done ? "Copied" : "Not allowed here"))}>
      <span aria-live="polite">{state || "Copy"}</span>
    </button>
  );
};

type Fact = readonly [string, ComponentChildren];

/** Those that are known. */
const Facts = ({ facts }: { readonly facts: ReadonlyArray<Fact> }): JSX.Element => (
  <dl class="facts">
    {facts
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
  </dl>
);

const List = ({
  entries,
  more,
}: {
  readonly entries: ReadonlyArray<{ key: string; href: string; name: ComponentChildren; text: string }>;
  readonly more: string;
}): JSX.Element => (
  <>
    <ul class="list">
      {entries.slice(0, maxListed).map(({ href, key, name, text }) => (
        <li key={key}>
          <a href={href}>{name}</a>
          <span class="text">{text}</span>
        </li>
      ))}
    </ul>
    {entries.length > maxListed && (
      <p class="nothing">
        And {count(entries.length - maxListed)} more: <a href={more}>show them in the table</a>
      </p>
    )}
  </>
);

const hostFacts = (page: Page, host: string): ReadonlyArray<Fact> => {
  const { self } = page.store;
  const node = page.store.nodes.get(host);
  const state = stateOf(page.store, host);
  const mark = (
    <>
      <StateMark state={state} /> {stateNames[state ?? "forgotten"]}
    </>
  );
  if (state === "self") {
    const started = Date.parse(self?.startedAt ?? "");
    const registryOffset = self?.registryClockOffsetMs;
    return [
      ["State", mark],
      ["Version", self?.version],
      ["UDP port", self?.port],
      ["Running since", Number.isNaN(started) ? undefined : new Date(started).toLocaleString("en-GB")],
      ["Registry", self?.registry],
      ["Clock against the registry", typeof registryOffset === "number" ? offset(registryOffset) : undefined],
      ["State directory", self?.stateDir],
    ];
  }
  if (node === undefined) return [["State", mark]];
  return [
    ["State", mark],
    ["Last word", ago(page.store.now() - node.heardAt)],
    ["Source", node.source === "udp" ? "UDP, from the node itself" : "the registry: no packet of it arrives here"],
    ["Version", node.legacy ? "the Go program" : node.version],
    ["Clock offset", node.clockOffsetMs === undefined ? undefined : `${offset(node.clockOffsetMs)} (ours less its)`],
  ];
};

const OfValue = ({ feature, host, page }: { page: Page; feature: string; host: string }): JSX.Element => {
  const cell = page.store.cells.get(feature)?.get(host);
  const tokens = useMemo(() => (cell === undefined ? [] : pretty(cell.json)), [cell?.json]);
  const node = page.store.nodes.get(host);
  const others = (page.store.cells.get(feature)?.size ?? 0) - (cell === undefined ? 0 : 1);
  return (
    <>
      {cell === undefined ? (
        <p class="nothing">
          This host does not offer this feature now. What it last offered is not kept; it comes back here when it does.
        </p>
      ) : (
        <>
          <div class="tools">
            <span class="quiet">{plural(cell.json.length, "character")}, exact text</span>
            <Copy text={cell.json} />
          </div>
          <Json tokens={tokens} />
        </>
      )}
      <Facts
        facts={[
          [
            "Changed",
            cell !== undefined && cell.changedAt > 0 ? clock(cell.changedAt) : "not since this page was opened",
          ],
          [
            "Host",
            <a href={page.href({ open: { host } })}>
              <StateMark state={stateOf(page.store, host)} /> {host}
            </a>,
          ],
          [
            "Last word",
            node === undefined ? undefined : `${ago(page.store.now() - node.heardAt)}, by ${sourceName(node)}`,
          ],
          [
            "Feature",
            <a href={page.href({ open: { feature } })}>
              {others === 0 ? "no other host offers it" : `${plural(others, "other host")} too`}
            </a>,
          ],
        ]}
      />
    </>
  );
};

const OfHost = ({ host, page }: { readonly page: Page; readonly host: string }): JSX.Element => {
  const offered = [...page.store.cells].flatMap(([feature, hosts]) => {
    const cell = hosts.get(host);
    return cell === undefined ? [] : [[feature, cell.preview] as const];
  });
  return (
    <>
      <Facts facts={hostFacts(page, host)} />
      <h3>{plural(offered.length, "feature")}</h3>
      <List
        entries={offered
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([feature, text]) => ({
            key: feature,
            href: page.href({ open: { feature, host } }),
            name: <Name text={feature} />,
            text,
          }))}
        more={page.href({ tab: "features", host, feature: "", value: "", open: undefined })}
      />
    </>
  );
};

const OfFeature = ({ feature, page }: { readonly page: Page; readonly feature: string }): JSX.Element => {
  const hosts = page.store.cells.get(feature) ?? new Map<string, never>();
  return (
    <>
      <h3>{plural(hosts.size, "host")}</h3>
      {hosts.size === 0 && <p class="nothing">No host offers it now.</p>}
      <List
        entries={byAddress(hosts.keys()).map((host) => ({
          key: host,
          href: page.href({ open: { feature, host } }),
          name: (
            <>
              <StateMark state={stateOf(page.store, host)} /> {host}
            </>
          ),
          text: page.store.cells.get(feature)?.get(host)?.preview ?? "",
        }))}
        more={page.href({ tab: "features", feature, host: "", value: "", open: undefined })}
      />
    </>
  );
};

export const Details = ({
  onClose,
  open,
  page,
}: {
  readonly page: Page;
  readonly open: Selection;
  readonly onClose: () => void;
}): JSX.Element => {
  const { feature, host } = open;
  const title = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => title.current?.focus({ preventScroll: true }), [feature, host]);
  return (
    <section class="details" aria-labelledby="details-title">
      <header>
        <div>
          <p class="kind">{feature === undefined ? "Host" : host === undefined ? "Feature" : "Value"}</p>
          <h2 id="details-title" ref={title} tabIndex={-1}>
            {feature !== undefined && <Name text={feature} />}
            {feature !== undefined && host !== undefined && <span class="quiet"> on </span>}
            {host !== undefined && <Name text={host} />}
          </h2>
        </div>
        <button type="button" class="close" aria-label="Close the details" onClick={onClose}>
          <svg viewBox="0 0 12 12" aria-hidden="true">
            <path d="m2 2 8 8M10 2l-8 8" />
          </svg>
        </button>
      </header>
      <div class="body">
        {feature !== undefined && host !== undefined ? (
          <OfValue page={page} feature={feature} host={host} />
        ) : feature !== undefined ? (
          <OfFeature page={page} feature={feature} />
        ) : (
          <OfHost page={page} host={host ?? ""} />
        )}
      </div>
    </section>
  );
};
