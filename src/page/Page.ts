/** The page's one state: what is known, what is shown, and when to draw. */
import { follow, type Link } from "./Feed.js";
import { Store } from "./Store.js";
import * as View from "./View.js";

/** Lists and figures are drawn anew at most this often; only the table's cells follow at once. */
const slowMs = 250;

export class Page {
  readonly store = new Store();
  view = View.parse(location.hash);
  link: Link = { state: "connecting" };
  /** Counts seconds, for ages. */
  second = 0;
  /** The store's versions as they were a moment ago, for what need not follow at once. */
  slow = { ...this.store.versions };
  /** Connects at once, with this token if there is one. */
  readonly retry: (token?: string) => void;
  private listener = (): void => {};
  private frame = 0;
  private slowTimer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.retry = follow(
      (events) => {
        for (const event of events) this.store.apply(event);
        // the first of what is known is shown whole at once
        if (this.slow.shape === 0) this.slow = { ...this.store.versions };
        else this.slowTimer ??= setTimeout(this.catchUp, slowMs);
        this.draw();
      },
      (link) => {
        if (link.state === this.link.state && link.state === "live") return;
        this.link = link;
        this.draw();
      },
    );
    window.addEventListener("hashchange", () => {
      this.view = View.parse(location.hash);
      this.draw();
    });
    setInterval(() => {
      this.second++;
      this.draw();
    }, 1_000);
  }

  private readonly catchUp = (): void => {
    this.slowTimer = undefined;
    this.slow = { ...this.store.versions };
    this.draw();
  };

  /** Whoever draws; one, called once a frame at most. */
  onDraw(listener: () => void): void {
    this.listener = listener;
  }

  private readonly draw = (): void => {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.listener();
    });
  };

  /** Shows something else. `replace`: without an entry of its own in the browser's history, as for typing. */
  go(change: Partial<View.View>, replace = false): void {
    const view = { ...this.view, ...change };
    const hash = View.format(view);
    if (hash === View.format(this.view)) return;
    this.view = view;
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    this.draw();
  }

  /** The address of what would be shown. */
  href(change: Partial<View.View>): string {
    return View.format({ ...this.view, ...change });
  }
}
