/** The page as a whole. */
import type { JSX } from "preact";
import { useLayoutEffect, useReducer, useRef } from "preact/hooks";
import { Announcer, Changes } from "./Changes.js";
import { Details } from "./Details.js";
import { Matrix } from "./Matrix.js";
import { Nodes } from "./Nodes.js";
import { Notices, TokenForm } from "./Notices.js";
import type { Page } from "./Page.js";
import { visible } from "./Text.js";
import { Vitals } from "./Vitals.js";
import { type Tab, tabs } from "./View.js";

/** Below this width details cover the page and columns are narrow; above the other the changes stand beside the table. */
const narrowWidth = 720;
const wideWidth = 1_180;

const tabNames: Readonly<Record<Tab, string>> = { features: "Features", nodes: "Nodes", changes: "Changes" };

const Wordmark = (): JSX.Element => (
  <span class="wordmark">
    <svg viewBox="0 0 10 15" aria-hidden="true">
      <circle cx="2.2" cy="2.2" r="2" />
      <circle cx="7.8" cy="2.2" r="2" />
      <circle cx="2.2" cy="7.5" r="2" />
      <circle cx="7.8" cy="7.5" r="2" />
      <circle class="tail" cx="7.8" cy="12.8" r="2" />
    </svg>
    nameq
  </span>
);

const linkNames = { connecting: "connecting", live: "live", lost: "not connected", token: "locked" } as const;

const Top = ({ page }: { readonly page: Page }): JSX.Element => {
  const { self } = page.store;
  const { state } = page.link;
  return (
    <header class="top">
      <h1>
        <Wordmark />
      </h1>
      {self !== undefined && (
        <p class="self">
          <a href={page.href({ open: { host: self.address } })}>{self.address}</a>
          {self.registry !== undefined && <span class="quiet registry">{visible(self.registry)}</span>}
          {self.version !== undefined && <span class="quiet">{visible(self.version)}</span>}
          {self.ready === false && <span class="starting">starting</span>}
        </p>
      )}
      <p class={`link ${state}`}>
        <i />
        {linkNames[state]}
      </p>
    </header>
  );
};

const Filter = ({
  label,
  name,
  page,
}: {
  readonly page: Page;
  readonly name: "feature" | "host" | "value";
  readonly label: string;
}): JSX.Element => (
  <label class="filter">
    <span>{label}</span>
    <input
      type="search"
      autoComplete="off"
      autocapitalize="off"
      spellcheck={false}
      placeholder={label}
      value={page.view[name]}
      onInput={(event) => page.go({ [name]: event.currentTarget.value }, true)}
    />
  </label>
);

/** What the tab would show, in place of it when that is nothing. */
const Emptiness = ({ page }: { readonly page: Page }): JSX.Element | undefined => {
  const { store, view } = page;
  const filtered = view.feature !== "" || view.host !== "" || view.value !== "";
  const directory = store.self?.featureDir;
  const option = directory == null || directory === "/etc/nameq/features" ? "" : ` --feature-dir ${directory}`;
  if (view.tab === "features" && store.cells.size === 0) {
    return (
      <div class="empty">
        <h2>No host offers anything yet</h2>
        <p>A feature is a name and a JSON value. Offer the first one from this host:</p>
        <pre tabIndex={0}>
          nameq feature{visible(option)} web '{"{"}"port":8080{"}"}'
        </pre>
        <p>It appears here, and on every other node, within a moment.</p>
      </div>
    );
  }
  if (view.tab === "nodes" && store.nodes.size === 0 && !filtered) {
    return (
      <div class="empty">
        <h2>This node is alone</h2>
        <p>
          Others appear when they have the same secret and the same registry
          {store.self?.registry === undefined ? "" : ` (${visible(store.self.registry)})`}. To ask what is in the way of
          one that should be here:
        </p>
        <pre tabIndex={0}>nameq doctor</pre>
      </div>
    );
  }
  return undefined;
};

const usesMedia = (query: string, redraw: () => void): boolean => {
  const media = useRef<MediaQueryList>(undefined);
  media.current ??= window.matchMedia(query);
  useLayoutEffect(() => {
    media.current?.addEventListener("change", redraw);
    return () => media.current?.removeEventListener("change", redraw);
  }, []);
  return media.current.matches;
};

export const App = ({ page }: { readonly page: Page }): JSX.Element => {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  useLayoutEffect(() => page.onDraw(() => redraw()), [page]);
  const narrow = usesMedia(`(max-width: ${narrowWidth}px)`, redraw);
  const wide = usesMedia(`(min-width: ${wideWidth}px)`, redraw);
  const coarse = usesMedia("(pointer: coarse)", redraw);
  const { link, store, view } = page;
  const errors = store.conditions.length;
  useLayoutEffect(() => {
    document.title = `${link.state === "lost" || errors > 0 ? "(!) " : ""}${store.self === undefined ? "" : `${store.self.address} – `}nameq`;
  });
  const { open } = view;
  const close = (): void => {
    page.go({ open: undefined });
    // back to where it was opened, if that is in sight
    const cell = document.querySelector<HTMLElement>(".grid [tabindex='0']");
    requestAnimationFrame(() => cell?.focus({ preventScroll: true }));
  };
  useLayoutEffect(() => {
    if (open === undefined) return undefined;
    const onKey = (event: KeyboardEvent): void => {
      if (event.key === "Escape") close();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [open]);
  if (link.state === "token") {
    return (
      <div class="page">
        <Top page={page} />
        <TokenForm page={page} refused={link.refused} />
      </div>
    );
  }
  const rowHeight = coarse ? 40 : 30;
  const known = store.since > 0;
  const covered = narrow && open !== undefined;
  const filtered = view.feature !== "" || view.host !== "" || view.value !== "";
  return (
    <div class={`page ${link.state}`}>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault();
          document.querySelector<HTMLElement>("#content")?.focus();
        }}
      >
        Skip to the content
      </a>
      <div class="front" inert={covered}>
        <Top page={page} />
        <Notices page={page} />
        {known && <Vitals page={page} />}
        <div class="bar">
          <nav aria-label="Views">
            {tabs.map((tab) => (
              <a
                key={tab}
                href={page.href({ tab, open: undefined, sort: "" })}
                data-text={tabNames[tab]}
                aria-current={view.tab === tab ? "page" : undefined}
              >
                {tabNames[tab]}
              </a>
            ))}
          </nav>
          <search class="filters" aria-label="Filters">
            <Filter page={page} name="feature" label="Feature" />
            <Filter page={page} name="host" label={view.tab === "nodes" ? "Host or state" : "Host"} />
            {view.tab !== "nodes" && <Filter page={page} name="value" label="Value" />}
            {filtered && (
              <button type="button" onClick={() => page.go({ feature: "", host: "", value: "" })}>
                Clear
              </button>
            )}
          </search>
        </div>
      </div>
      <div class="middle">
        <main id="content" tabIndex={-1} inert={covered} aria-label={tabNames[view.tab]}>
          {!known ? (
            <div class="empty waiting">
              <h2>{link.state === "lost" ? "No answer from this node" : "Asking the node…"}</h2>
              {link.state === "lost" && (
                <p>
                  The page goes on trying. Is the node running? <code>systemctl status nameq</code> or{" "}
                  <code>nameq status</code> on its host tells.
                </p>
              )}
            </div>
          ) : (
            (Emptiness({ page }) ??
            (view.tab === "features" ? (
              <Matrix page={page} rowHeight={rowHeight} narrow={narrow} />
            ) : view.tab === "nodes" ? (
              <Nodes page={page} rowHeight={rowHeight} narrow={narrow} />
            ) : (
              <div class="scroll" tabIndex={0} role="region" aria-label="Timeline">
                <Changes page={page} limit={200} />
              </div>
            )))
          )}
        </main>
        {open !== undefined ? (
          <aside aria-label="Details">
            <Details page={page} open={open} onClose={close} />
          </aside>
        ) : (
          wide &&
          known &&
          view.tab !== "changes" && (
            <aside aria-label="Last changes" class="rail">
              <h2>Last changes</h2>
              <div class="scroll" tabIndex={0} role="region" aria-label="Timeline">
                <Changes page={page} limit={60} />
              </div>
            </aside>
          )
        )}
      </div>
      <Announcer page={page} />
    </div>
  );
};
