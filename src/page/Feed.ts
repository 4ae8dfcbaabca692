/** The node's events, for as long as the page is there: read, lost, taken up again where they broke off. */
import { EventParser, type ServerEvent } from "./Sse.js";

/** How the page hangs together with its node. */
export type Link =
  | { readonly state: "connecting" }
  | { readonly state: "live" }
  /** `retryAt`: by the browser's clock, in ms. */
  | { readonly state: "lost"; readonly why: string; readonly since: number; readonly retryAt: number }
  | { readonly state: "token"; readonly refused: boolean };

/** The node sends at least a comment every 15 s; more than two of them missing is a dead connection. */
const patienceMs = 35_000;

/** Waits between attempts double from the first to the last of these, and vary by half. */
const backOffMs = { first: 500, last: 15_000 };

/** Where the token is kept: until the browser's tab is closed. */
const tokenKey = "nameq-token";

/** Uses that; where the browser forbids it, the page alone keeps the token. */
const stored = <A>(use: (storage: Storage) => A): A | undefined => {
  try {
    return use(sessionStorage);
  } catch {
    return undefined;
  }
};

class Refused extends Error {}

/**
 * Opens it. `onEvents` is called with what one piece of the stream completed, and may throw: the stream starts anew.
 * What it gives tries at once, or (with a token) tries that.
 */
export const follow = (
  onEvents: (events: ReadonlyArray<ServerEvent>) => void,
  onLink: (link: Link) => void,
): ((token?: string) => void) => {
  let token = stored((storage) => storage.getItem(tokenKey)) ?? undefined;
  let lastId = "";
  let attempt = 0;
  let lostAt = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let current = new AbortController();

  const read = async (abort: AbortController): Promise<never> => {
    // no node has another, and no header can hold it
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw new Refused();
    const headers = {
      accept: "text/event-stream",
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(lastId !== "" && { "last-event-id": lastId }),
    };
    let watchdog = setTimeout(() => abort.abort(new Error("no answer")), patienceMs);
    try {
      const response = await fetch("v1/events", { headers, cache: "no-store", signal: abort.signal });
      if (response.status === 401) throw new Refused();
      if (!response.ok || response.body === null) {
        const busy = response.status === 503 ? "too many pages are open on this node" : `status ${response.status}`;
        throw new Error(busy);
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const parser = new EventParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the node has ended the connection");
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(new Error("nothing heard for 35 s")), patienceMs);
        const events = parser.push(decoder.decode(value, { stream: true }));
        attempt = 0;
        lostAt = 0;
        if (events.length === 0) continue;
        onEvents(events);
        lastId = events.at(-1)?.id ?? lastId;
        onLink({ state: "live" });
      }
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  };

  const connect = (): void => {
    clearTimeout(timer);
    current.abort();
    const abort = new AbortController();
    current = abort;
    read(abort).catch((cause: unknown) => {
      // a newer attempt has taken its place
      if (current !== abort) return;
      if (cause instanceof Refused) {
        const refused = token !== undefined;
        token = undefined;
        stored((storage) => storage.removeItem(tokenKey));
        onLink({ state: "token", refused });
        return;
      }
      // what could not be read would come again
      if (cause instanceof SyntaxError) lastId = "";
      lostAt ||= Date.now();
      const wait = Math.min(backOffMs.last, backOffMs.first * 2 ** attempt++) * (0.75 + Math.random() / 2);
      const why = cause instanceof TypeError ? "the node does not answer" : cause instanceof Error ? cause.message : "";
      onLink({ state: "lost", why, since: lostAt, retryAt: Date.now() + wait });
      timer = setTimeout(connect, wait);
    });
  };

  const retry = (given?: string): void => {
    if (given !== undefined) {
      token = given;
      stored((storage) => storage.setItem(tokenKey, given));
    }
    attempt = 0;
    connect();
  };
  window.addEventListener("online", () => retry());
  onLink({ state: "connecting" });
  connect();
  return retry;
};
