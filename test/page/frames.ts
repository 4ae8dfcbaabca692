/**
 * Measures the page with 1,000 nodes x 10 features while 100 values a second change: what its main thread does in each
 * frame, and what memory it holds. `npx vite-node test/page/frames.ts [SECONDS A VIEW] [CHANGES A SECOND]`
 */
import type { Page } from "playwright-core";
import { launch } from "./Browser.js";
import { FakeNode } from "./FakeNode.js";

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly ts: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly args: { readonly name?: string };
}

const seconds = Number(process.argv[2] ?? 10);
const perSecond = Number(process.argv[3] ?? 100);
const frameUs = 1e6 / 60;

const trace = async (page: Page, work: () => Promise<void>): Promise<ReadonlyArray<TraceEvent>> => {
  const session = await page.context().newCDPSession(page);
  const events: Array<TraceEvent> = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...(value as unknown as Array<TraceEvent>)));
  const complete = new Promise<void>((resolve) => session.once("Tracing.tracingComplete", () => resolve()));
  await session.send("Tracing.start", {
    transferMode: "ReportEvents",
    traceConfig: { includedCategories: ["toplevel", "devtools.timeline"] },
  });
  await work();
  await session.send("Tracing.end");
  await complete;
  return events;
};

const scripts = new Set([
  "FunctionCall",
  "RunMicrotasks",
  "EvaluateScript",
  "FireAnimationFrame",
  "TimerFire",
  "V8.GC",
]);

/** Time of each frame that these events take, outermost ones only, in ms. */
const perFrame = (events: ReadonlyArray<TraceEvent>, wanted: (name: string) => boolean): ReadonlyArray<number> => {
  const start = Math.min(...events.map(({ ts }) => ts));
  const frames = Array.from({ length: Math.ceil((seconds * 1e6) / frameUs) }, () => 0);
  let until = 0;
  for (const { dur = 0, name, ts } of events.toSorted((a, b) => a.ts - b.ts)) {
    if (!wanted(name) || ts < until) continue;
    until = ts + dur;
    const frame = Math.floor((ts - start) / frameUs);
    if (frame < frames.length) frames[frame] = (frames[frame] ?? 0) + dur / 1_000;
  }
  return frames.toSorted((a, b) => a - b);
};

const quantiles = (sorted: ReadonlyArray<number>): string =>
  [0.5, 0.95, 0.99, 1]
    .map(
      (q) =>
        `${q === 1 ? "max" : `p${q * 100}`} ${(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0).toFixed(1)}`,
    )
    .join(", ");

const heap = async (page: Page): Promise<string> => {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return `${(usedSize / 1e6).toFixed(1)} MB`;
};

const node = await new FakeNode("127.44.0.4").start();
node.fleet(
  1_000,
  ["api", "cache", "db", "edge", "mail", "metrics", "queue", "search", "web", "worker"].map((name) => `${name}-x`),
);
const browser = await launch();
const page = await browser.context.newPage();
await page.goto(node.url);
await page.locator(".grid .cell").first().waitFor();
console.log(`heap at the start: ${await heap(page)}`);
node.churn(perSecond);
for (const [what, hash] of [
  ["features", "#features"],
  ["features, a value asked for", "#features?value=1"],
  ["nodes", "#nodes"],
  ["changes", "#changes"],
] as const) {
  await page.evaluate((to) => location.assign(to), hash);
  await page.waitForTimeout(1_000);
  const events = await trace(page, () => page.waitForTimeout(seconds * 1_000));
  // the page's thread is the busiest of those that run pages
  const [mine = []] = events
    .filter(({ args, name }) => name === "thread_name" && args.name === "CrRendererMain")
    .map((main) => events.filter(({ ph, pid, tid }) => ph === "X" && pid === main.pid && tid === main.tid))
    .toSorted((a, b) => b.length - a.length);
  console.log(`${what}: script ms a frame: ${quantiles(perFrame(mine, (name) => scripts.has(name)))}`);
  console.log(`${what}: all of the main thread: ${quantiles(perFrame(mine, (name) => name.endsWith("RunTask")))}`);
  console.log(`${what}: heap ${await heap(page)}`);
}
await browser.close();
await node.stop();
process.exit(0);
