/** The timeline: what has changed since the page was opened. */
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Page } from "./Page.js";
import { Name } from "./Parts.js";
import type { Change } from "./Store.js";
import { clock, count, plural } from "./Text.js";

const marks: Readonly<Record<Change["kind"], readonly [string, string]>> = {
  offered: ["+", "offered"],
  changed: ["~", "changed"],
  withdrawn: ["−", "withdrawn"],
  node: ["◦", "node"],
};

/** A change in words, for those who hear the page. */
const sentence = ({ feature, host, kind, text }: Change): string =>
  kind === "node" ? `${host} ${text}`.trim() : `${feature} ${kind} on ${host}`;

export const Changes = ({ limit, page }: { readonly page: Page; readonly limit: number }): JSX.Element => {
  const { store, view } = page;
  // held while somebody reads: lines that run away cannot be followed
  const [held, hold] = useState<ReadonlyArray<Change> | undefined>(undefined);
  const release = (): void => hold(undefined);
  const latest = useMemo(() => {
    const [feature, host, value] = [view.feature, view.host, view.value].map((text) => text.toLowerCase());
    return store.changes
      .filter(
        (change) =>
          change.feature.toLowerCase().includes(feature ?? "") &&
          change.host.includes(host ?? "") &&
          change.text.toLowerCase().includes(value ?? ""),
      )
      .slice(0, limit);
  }, [page.slow.changes, view.feature, view.host, view.value, limit]);
  const shown = held ?? latest;
  const first = shown[0]?.number ?? 0;
  const newer = held === undefined ? 0 : latest.filter(({ number }) => number > first).length;
  if (shown.length === 0) {
    return (
      <p class="nothing">
        {view.feature + view.host + view.value === ""
          ? `Nothing has changed since ${clock(store.since)}, when this page was opened. Changes come here as they happen.`
          : "None of the changes matches the filters."}
      </p>
    );
  }
  return (
    <ol
      class="changes"
      aria-label="Last changes, the newest first"
      onPointerEnter={() => hold(latest)}
      onPointerLeave={release}
      onFocusIn={() => hold(held ?? latest)}
      onFocusOut={release}
    >
      {newer > 0 && (
        <li class="newer">
          {newer >= limit ? `${count(limit)} and more` : count(newer)} newer, held back while you read
        </li>
      )}
      {shown.map((change) => {
        const { at, feature, host, kind, number, text } = change;
        const [mark, name] = marks[kind];
        return (
          <li key={number} class={kind}>
            <time dateTime={new Date(at).toISOString()}>{clock(at)}</time>
            <span class="sign" role="img" aria-label={name}>
              {mark}
            </span>
            <span class="what">
              {feature !== "" && (
                <a class="feature" href={page.href({ open: { feature, host } })}>
                  <Name text={feature} />
                </a>
              )}
              {host !== "" && (
                <a class="host" href={page.href({ open: { host } })}>
                  {host}
                </a>
              )}{" "}
              <span class="text">{text}</span>
            </span>
          </li>
        );
      })}
    </ol>
  );
};

/** Says changes to screen readers, in one sentence every five seconds at most. */
export const Announcer = ({ page }: { readonly page: Page }): JSX.Element => {
  const [said, say] = useState("");
  const last = useRef(0);
  useEffect(() => {
    const timer = setInterval(() => {
      const { changes } = page.store;
      const fresh = changes.filter(({ number }) => number > last.current);
      last.current = changes[0]?.number ?? last.current;
      if (fresh.length > 0) {
        say(
          fresh.length > 3
            ? `${plural(fresh.length, "change")} in the last seconds`
            : fresh.toReversed().map(sentence).join(". "),
        );
      }
    }, 5_000);
    return () => clearInterval(timer);
  }, []);
  return (
    <div class="unseen" aria-live="polite">
      {said}
    </div>
  );
};
