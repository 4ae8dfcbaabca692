/** What is wrong, and what to do about it: the lost connection, the node's conditions, the token that is asked for. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Page } from "./Page.js";
import { age, ago, clock, visible } from "./Text.js";

/** Conditions that are shown before the others are folded away. */
const shownAtFirst = 2;

/** A message whose options and commands stand out, and do not break. */
const Message = ({ text }: { readonly text: string }): JSX.Element => (
  <>
    {visible(text)
      .split(/(`[^`]+`|(?<=[\s(])--[a-z][\w-]*)/)
      .map((part, index) => (index % 2 === 1 ? <code>{part.replaceAll("`", "")}</code> : part))}
  </>
);

const Mark = ({ severity }: { readonly severity: string }): JSX.Element => (
  <svg class="severity" viewBox="0 0 16 16" role="img" aria-label={severity}>
    {severity === "error" ? <path d="M5 1h6l4 4v6l-4 4H5l-4-4V5Z" /> : <path d="M8 1.2 15.4 14.5H.6Z" />}
    <path class="cut" d={severity === "error" ? "M8 4.2v4.6M8 11v1.2" : "M8 6v4M8 11.6v1.2"} />
  </svg>
);

export const Notices = ({ page }: { readonly page: Page }): JSX.Element => {
  const [unfolded, unfold] = useState(false);
  const { conditions } = page.store;
  const { link } = page;
  const rank = { error: 0, warning: 1, info: 2 };
  const ordered = conditions.toSorted((a, b) => rank[a.severity] - rank[b.severity]);
  const shown = unfolded ? ordered : ordered.slice(0, shownAtFirst);
  return (
    <div class="notices">
      <div role="alert">
        {link.state === "lost" && (
          <div class="notice lost">
            <Mark severity="error" />
            <p>
              <strong>Not connected:</strong> {link.why}.{" "}
              {page.store.since > 0 && <>What you see is of {clock(link.since)}. </>}
              <span aria-hidden="true">
                {link.retryAt > Date.now()
                  ? `Next try in ${age(Math.max(1_000, link.retryAt - Date.now()))}.`
                  : "Trying…"}
              </span>
            </p>
            <button type="button" onClick={() => page.retry()}>
              Try now
            </button>
          </div>
        )}
      </div>
      <div role="region" aria-label="Conditions" aria-live="polite" aria-relevant="additions">
        {shown.map(({ message, name, severity, since }, index) => (
          <div key={name} class={`notice ${severity}`}>
            <Mark severity={severity} />
            <p>
              <strong>{visible(name).replaceAll("-", " ")}</strong> <Message text={message} />
            </p>
            <time dateTime={since} title={since} aria-live="off">
              {ago(page.store.now() - Date.parse(since))}
            </time>
            {index === shownAtFirst - 1 && conditions.length > shownAtFirst && (
              <button type="button" class="fold" aria-expanded={unfolded} onClick={() => unfold(!unfolded)}>
                {unfolded ? "Fewer" : `${conditions.length - shownAtFirst} more`}
              </button>
            )}
          </div>
        ))}
      </div>
    </div>
  );
};

export const TokenForm = ({ page, refused }: { readonly page: Page; readonly refused: boolean }): JSX.Element => {
  const [token, set] = useState("");
  return (
    <main class="gate" id="content">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (token.trim() !== "") page.retry(token.trim());
        }}
      >
        <h1>This node asks for its token</h1>
        <p>
          It is the content of the file that the node's option <code>--http-token-file</code> names. It is kept until
          this tab is closed.
        </p>
        <label for="token">Token</label>
        <input
          id="token"
          type="password"
          autoComplete="off"
          spellcheck={false}
          value={token}
          aria-invalid={refused}
          aria-describedby="refused"
          onInput={(event) => set(event.currentTarget.value)}
        />
        <p id="refused" class="refused" role="alert">
          {refused ? "The node has refused that token. Is it this node's, and whole?" : ""}
        </p>
        <button type="submit" class="main">
          Open
        </button>
      </form>
    </main>
  );
};
