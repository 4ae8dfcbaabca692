/** The page in a real browser, before a node that does what a test asks for. */
import { afterAll, afterEach, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest";
import axe from "axe-core";
import type { BrowserContext, Page } from "playwright-core";
import { ensureBuilt } from "../Program.js";
import { launch, watchFor } from "./Browser.js";
import { addressOf, FakeNode } from "./FakeNode.js";

let browser: Awaited<ReturnType<typeof launch>>;
let context: BrowserContext;
let node: FakeNode;
let page: Page;
let faults: ReadonlyArray<string>;

beforeAll(async () => {
  ensureBuilt();
  browser = await launch();
  context = browser.context;
});

afterAll(() => browser?.close());

beforeEach(async () => {
  node = await new FakeNode("127.44.0.3").start();
});

afterEach(async () => {
  await page?.close();
  await node.stop();
});

/** Opens the page and waits for what it shows first. */
const open = async (hash = ""): Promise<void> => {
  page = await context.newPage();
  page.setDefaultTimeout(10_000);
  faults = watchFor(page, node.url);
  await page.goto(`${node.url}${hash}`);
  await page.locator(".grid, .empty:not(.waiting), .gate, .nothing").first().waitFor();
};

const cell = (host: string, feature: string) => page.locator(`[data-row="${host}"][data-column="${feature}"]`);
const details = () => page.locator(".details");
const shows = (text: string) => page.getByText(text).first().waitFor();
const focused = () =>
  page.evaluate(() => {
    const { column, row } = (document.activeElement as HTMLElement).dataset;
    return `${row ?? ""}/${column ?? ""}`;
  });
/** What the title and the focus are in the very turn in which something is drawn. To be called before that, and then. */
const drawn = {
  await: (selector: string) =>
    page.evaluate((wanted) => {
      const observer = new MutationObserver(() => {
        if (document.querySelector(wanted) === null) return;
        observer.disconnect();
        document.body.dataset["drawn"] = `${document.title}, ${document.activeElement?.id}`;
      });
      observer.observe(document.body, { subtree: true, childList: true });
    }, selector),
  told: () => page.evaluate(() => document.body.dataset["drawn"]),
};
const withoutFaults = () => assert.deepStrictEqual(faults, []);

describe("The page", () => {
  it("loads whole from the node: no errors, nothing refused, nothing from elsewhere", async () => {
    node.fleet(30);
    await open();
    await cell("10.0.0.2", "metrics").waitFor();
    assert.strictEqual(await page.title(), "10.0.0.1 – nameq");
    for (const tab of ["Nodes", "Changes", "Features"])
      await page.getByRole("link", { name: tab, exact: true }).click();
    await cell("10.0.0.2", "metrics").click();
    await details().waitFor();
    withoutFaults();
  });

  it("follows changes: new values, changed ones, such as go, and nodes", async () => {
    node.fleet(3);
    node.features.clear();
    await open();
    await shows("No host offers anything yet");
    node.set("db", "10.0.0.2", '{"port":5432}');
    await cell("10.0.0.2", "db").getByText("port: 5432").waitFor();
    node.set("db", "10.0.0.2", '{"port":5433}');
    await cell("10.0.0.2", "db").getByText("port: 5433").waitFor();
    node.set("web", "10.0.0.3", "true");
    await cell("10.0.0.3", "web").getByLabel("true").waitFor();
    node.set("db", "10.0.0.3", "1");
    await page.getByRole("columnheader", { name: "db 2" }).waitFor();
    node.remove("db", "10.0.0.2");
    await cell("10.0.0.2", "db").locator(".value").waitFor({ state: "detached" });
    const changes = page.getByRole("list", { name: /Last changes/ }).getByRole("listitem");
    await changes.nth(4).waitFor();
    assert.deepStrictEqual(
      (await changes.allInnerTexts()).map((text) => text.replaceAll(/\s+/g, " ").replace(/^[\d:]+ /, "")),
      [
        "− db 10.0.0.2",
        "+ db 10.0.0.3 1",
        "+ web 10.0.0.3 true",
        "~ db 10.0.0.2 port: 5433",
        "+ db 10.0.0.2 port: 5432",
      ],
    );
    node.node("10.0.0.9");
    node.node("10.0.0.9", { state: "silent" });
    await shows("has fallen silent");
    await page.getByRole("link", { name: "1 silent" }).click();
    await cell("10.0.0.9", "state").getByText("silent").waitFor();
    assert.strictEqual(await page.locator(".gridbody .row").count(), 1);
    node.forget("10.0.0.9");
    await shows("Nothing here matches the filters");
    withoutFaults();
  });

  it("shows every value's exact text", async () => {
    const json = '{"id":12345678901234567890,"share":0.10,"huge":1e400,"text":"\\u003cb\\u003e"}';
    node.node("10.0.0.2");
    node.set("db", "10.0.0.2", json);
    await open();
    await cell("10.0.0.2", "db").click();
    const shown = (await page.locator(".json").textContent()) ?? "";
    assert.strictEqual(shown.replaceAll(/\s/g, ""), json);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.getByRole("button", { name: "Copy" }).click();
    await shows("Copied");
    assert.strictEqual(await page.evaluate(() => navigator.clipboard.readText()), json);
    // as on a page that is served without TLS
    await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
    await page.getByRole("button", { name: "Copy", exact: true }).click();
    await shows("Copied");
    assert.strictEqual(await page.evaluate(() => document.activeElement?.textContent), "Copied");
    node.set("db", "10.0.0.2", "0.100");
    await page.locator(".json").getByText("0.100", { exact: true }).waitFor();
    node.remove("db", "10.0.0.2");
    await shows("does not offer this feature now");
    withoutFaults();
  });

  it("filters by feature, host and value", async () => {
    for (let i = 1; i < 30; i++) {
      node.node(addressOf(i));
      node.set("db", addressOf(i), `{"port":${5_400 + i}}`);
      if (i % 2 === 0) node.set("web", addressOf(i), "true");
    }
    await open();
    const count = async (rows: number, columns: number) => {
      await page.locator(`.grid[aria-rowcount="${rows + 1}"][aria-colcount="${columns + 1}"]`).waitFor();
    };
    await count(30, 2);
    await page.getByLabel("Feature", { exact: true }).fill("WEB");
    await count(14, 1);
    await page.getByLabel("Host", { exact: true }).fill("10.0.0.2");
    await count(5, 1);
    await page.getByRole("button", { name: "Clear" }).click();
    await page.getByLabel("Value", { exact: true }).fill("5417");
    await count(1, 1);
    await cell(addressOf(17), "db").waitFor();
    node.set("db", addressOf(3), '{"was":5417}');
    await count(2, 1);
    await page.getByLabel("Value", { exact: true }).fill("no such thing");
    await page.getByRole("link", { name: "Clear them" }).click();
    await count(30, 2);
    withoutFaults();
  });

  it("has what it shows in its address, which can be sent on, and goes back", async () => {
    node.fleet(60);
    node.set("db", addressOf(41), '"here"');
    await open(`#features?host=10.0.0.4&value=here&open=db@${addressOf(41)}`);
    await details().getByText('"here"').waitFor();
    assert.strictEqual(await page.getByLabel("Host", { exact: true }).inputValue(), "10.0.0.4");
    assert.strictEqual(await page.locator(".grid").getAttribute("aria-rowcount"), "2");
    await details()
      .getByRole("link", { name: addressOf(41) })
      .click();
    await details().getByText("Last word").waitFor();
    await page.goBack();
    await details().getByText('"here"').waitFor();
    await page.getByRole("link", { name: "Nodes", exact: true }).click();
    await page.getByRole("columnheader", { name: "Features" }).click();
    await page.waitForURL(/#nodes\?.*sort=features/);
    // what nothing can be ordered by leaves the order as it is
    await page.evaluate(() => location.assign("#nodes?sort=__proto__"));
    await page.locator('.grid[aria-label="60 nodes"]').waitFor();
    await cell("10.0.0.1", "address").waitFor();
    await page.goBack();
    await page.goBack();
    await page.goBack();
    await details().getByText('"here"').waitFor();
    withoutFaults();
  });

  it("brings what an address has open into sight, and the focus there when it is closed", async () => {
    node.fleet(1_000, ["a", "b", "c"]);
    const host = addressOf(700);
    await open(`#features?open=b@${host}`);
    const { height, y } = (await cell(host, "b").boundingBox()) ?? { height: 0, y: -1 };
    assert.isTrue(y > 200 && y + height <= 800, `it is at ${y}`);
    await page.keyboard.press("Escape");
    await page.waitForFunction((row) => (document.activeElement as HTMLElement).dataset["row"] === row, host);
    assert.strictEqual(await focused(), `${host}/b`);
    withoutFaults();
  });

  it("can be used with the keyboard alone, in tables of any size", async () => {
    node.fleet(1_000, ["a", "b", "c"]);
    await open();
    await page.keyboard.press("Tab");
    assert.strictEqual(await page.evaluate(() => document.activeElement?.textContent), "Skip to the content");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    assert.strictEqual(await focused(), "10.0.0.1/");
    for (const key of ["ArrowRight", "ArrowRight", "ArrowDown"]) await page.keyboard.press(key);
    assert.strictEqual(await focused(), "10.0.0.2/b");
    await page.keyboard.press("Control+End");
    assert.strictEqual(await focused(), `${addressOf(999)}/c`);
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Home");
    assert.strictEqual(await focused(), `${addressOf(998)}/`);
    // the cell that has the focus stays, although it is out of sight
    await page.locator(".grid").evaluate((grid) => grid.scrollTo(0, 0));
    await cell("10.0.0.1", "a").waitFor();
    assert.strictEqual(await focused(), `${addressOf(998)}/`);
    await page.keyboard.press("ArrowRight");
    assert.strictEqual(await focused(), `${addressOf(998)}/a`);
    await drawn.await(".details");
    await page.keyboard.press("Enter");
    await details().waitFor();
    assert.strictEqual(await drawn.told(), "10.0.0.1 – nameq, details-title");
    await page.keyboard.press("Escape");
    await details().waitFor({ state: "detached" });
    await page.waitForFunction(
      (host) => (document.activeElement as HTMLElement).dataset["row"] === host,
      addressOf(998),
    );
    await page.keyboard.press("Control+Home");
    await page.keyboard.press("ArrowUp");
    assert.strictEqual(await focused(), "/");
    withoutFaults();
  });

  it("keeps few cells in the document, whatever the size of the fleet", async () => {
    node.fleet(
      1_000,
      Array.from({ length: 200 }, (_, index) => `feature-${index}`),
    );
    await open();
    await cell("10.0.0.2", "feature-0").waitFor();
    assert.isBelow(await page.locator(".grid [role]").count(), 800);
    assert.strictEqual(await page.locator(".grid").getAttribute("aria-rowcount"), "1001");
    assert.strictEqual(await page.locator(".grid").getAttribute("aria-colcount"), "201");
    await page.locator(".grid").evaluate((grid) => grid.scrollTo(grid.scrollWidth, grid.scrollHeight));
    await cell(addressOf(999), "feature-99").waitFor();
    assert.isBelow(await page.locator(".grid [role]").count(), 800);
    withoutFaults();
  });

  it("holds no more memory after many changes than before", async () => {
    node.fleet(1_000);
    await open();
    const session = await context.newCDPSession(page);
    const heap = async () => {
      await session.send("HeapProfiler.collectGarbage");
      return (await session.send("Runtime.getHeapUsage")).usedSize;
    };
    // the timeline is soon full
    node.churn(500);
    await page.waitForTimeout(2_000);
    const before = await heap();
    await page.waitForTimeout(5_000);
    const growth = (await heap()) - before;
    assert.isBelow(growth, 5e6);
    withoutFaults();
  });

  it("says that it has lost the node, and takes up where it was when only the connection broke", async () => {
    node.fleet(5);
    await open();
    node.set("db", "10.0.0.2", '"first"');
    await cell("10.0.0.2", "db").getByText('"first"').waitFor();
    node.drop();
    node.set("db", "10.0.0.2", '"second"');
    await cell("10.0.0.2", "db").getByText('"second"').waitFor();
    await page.locator(".link.live").waitFor();
    assert.strictEqual(node.asked.length, 2);
    assert.match(node.asked[1] ?? "", /^a-\d+$/);
  });

  it("survives a restart of the node: it says so, keeps what it knew, and comes back with what is then", async () => {
    node.fleet(5, ["kept", "lost"]);
    await open();
    await cell("10.0.0.2", "lost").waitFor();
    await drawn.await("[role=alert]");
    await node.stop();
    await page.getByRole("alert").getByText("Not connected").waitFor();
    assert.match((await drawn.told()) ?? "", /^\(!\) 10\.0\.0\.1 – nameq, /);
    await cell("10.0.0.2", "lost").waitFor();
    const tried = page.waitForEvent("requestfailed");
    await page.getByRole("button", { name: "Try now" }).click();
    await tried;
    node.features.delete("lost");
    node.features.set("kept", new Map([["10.0.0.2", '"new"']]));
    await node.restart();
    await cell("10.0.0.2", "kept").getByText('"new"').waitFor();
    await page.getByRole("columnheader", { name: "lost" }).waitFor({ state: "detached" });
    await page.locator(".link.live").waitFor();
    assert.strictEqual(await page.getByText("Not connected").count(), 0);
    await shows("connected again");
  });

  it("asks for the token, says when it is wrong, and keeps it for the tab alone", async () => {
    node.fleet(3);
    node.token = "open-sesame-open-sesame";
    await open();
    // no header can hold the first of these
    for (const wrong of ["open→sesame", "wrong"]) {
      await page.getByLabel("Token").fill(wrong);
      await page.keyboard.press("Enter");
      await shows("refused that token");
      await page.reload();
      await page.getByLabel("Token").waitFor();
    }
    await page.getByLabel("Token").fill(node.token);
    await page.getByRole("button", { name: "Open" }).click();
    await cell("10.0.0.2", "metrics").waitFor();
    await page.reload();
    await cell("10.0.0.2", "metrics").waitFor();
    assert.notInclude(page.url(), "sesame");
    assert.deepStrictEqual(await context.cookies(), []);
    assert.strictEqual(await page.evaluate(() => localStorage.length), 0);
    await page.close();
    await open();
    await page.getByLabel("Token").waitFor();
  });

  it("goes without the browser's storage where that is forbidden", async () => {
    node.fleet(3);
    node.token = "open-sesame-open-sesame";
    page = await context.newPage();
    page.setDefaultTimeout(10_000);
    await page.addInitScript(() =>
      Object.defineProperty(window, "sessionStorage", {
        get: () => {
          throw new DOMException("denied", "SecurityError");
        },
      }),
    );
    await page.goto(node.url);
    await page.getByLabel("Token").fill(node.token);
    await page.keyboard.press("Enter");
    await cell("10.0.0.2", "metrics").waitFor();
  });

  it("shows what is wrong with the node, and what to do, until it is not", async () => {
    node.fleet(3);
    await open();
    const since = new Date(Date.now() - 300_000).toISOString();
    const message = "the registry does not answer: check the network, then run `nameq doctor`";
    node.condition({ name: "registry-out-of-reach", severity: "error", message, since });
    const conditions = page.getByRole("region", { name: "Conditions" });
    await conditions.getByText("nameq doctor").waitFor();
    await conditions.getByText("5 min ago").waitFor();
    assert.match(await page.title(), /^\(!\)/);
    const further = ["wrong-key", "clock-off"].map((name) => ({
      name,
      severity: "warning",
      message: `${name}!`,
      since,
    }));
    node.condition({ name: "registry-out-of-reach", severity: "error", message, since }, ...further);
    await conditions.getByRole("button", { name: "1 more" }).focus();
    await page.keyboard.press("Enter");
    await conditions.getByText("clock-off!").waitFor();
    assert.strictEqual(await page.evaluate(() => document.activeElement?.textContent), "Fewer");
    // an age that is read out each second would drown the rest
    assert.strictEqual(await conditions.locator("time").first().getAttribute("aria-live"), "off");
    node.condition();
    await conditions.getByText("nameq doctor").waitFor({ state: "detached" });
    withoutFaults();
  });

  it("shows hostile names and values as the text that they are", async () => {
    const long = "n".repeat(200);
    const markup = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>';
    const values = [
      JSON.stringify(markup),
      JSON.stringify("\u202egnp.exe\u2066"),
      JSON.stringify("x".repeat(65_536)),
      `${"[".repeat(60)}${"]".repeat(60)}`,
    ];
    for (const [index, json] of values.entries()) {
      node.node(addressOf(index + 1));
      node.set(long, addressOf(index + 1), json);
      node.set("__proto__", addressOf(index + 1), json);
    }
    node.self = { ...node.self, registry: markup, version: markup };
    node.condition({ name: markup, severity: "error", message: markup, since: markup });
    node.node("10.0.9.9", { version: markup });
    await open();
    for (const hash of ["#nodes", `#features?open=@${addressOf(1)}`, "#features?value=%3Cimg src=x"]) {
      await page.evaluate((to) => location.assign(to), hash);
      await page.locator(".grid").waitFor();
    }
    for (const [index, json] of values.entries()) {
      await page.evaluate((to) => location.assign(to), `#features?open=${long}@${addressOf(index + 1)}`);
      const shown = page.locator(".json");
      await page.waitForFunction(
        (length) => (document.querySelector(".json")?.textContent?.length ?? 0) >= length,
        json.length,
      );
      const text = ((await shown.textContent()) ?? "").replaceAll(/\n */g, "");
      assert.strictEqual(JSON.stringify(JSON.parse(text)), json);
      assert.notMatch(text, /[\u202a-\u202e\u2066-\u2069]/);
    }
    await page.evaluate(() => location.assign("#changes"));
    node.set("db", "10.0.0.2", JSON.stringify(markup));
    await page.getByRole("main").getByText("<img src=x").first().waitFor();
    assert.strictEqual(await page.locator("img, script:not([src])").count(), 0);
    assert.include(await page.title(), "nameq");
    // nothing is wider than the window
    assert.isTrue(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth));
    withoutFaults();
  });

  it("holds the timeline still while it is read", async () => {
    node.fleet(3);
    await open("#changes");
    for (let i = 0; i < 5; i++) node.set("db", "10.0.0.2", String(i));
    const first = page.getByRole("main").getByRole("listitem").first();
    await first.getByText("4", { exact: true }).waitFor();
    await first.hover();
    node.set("db", "10.0.0.2", "99");
    await shows("1 newer, held back while you read");
    await page.getByRole("heading", { name: "nameq" }).hover();
    await first.getByText("99").waitFor();
    withoutFaults();
  });

  for (const colorScheme of ["light", "dark"] as const) {
    it(`has no faults of accessibility that axe finds, in any view (${colorScheme})`, async () => {
      node.fleet(300);
      node.condition(
        { name: "clock-off", severity: "warning", message: "run `ntpd`, see --addr", since: new Date().toISOString() },
        { name: "wrong-key", severity: "error", message: "wrong key", since: new Date().toISOString() },
      );
      await open();
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      node.set("db", "10.0.0.2", '{"port":5432,"id":1.0,"on":true,"name":"x"}');
      node.remove("metrics", "10.0.0.3");
      node.stats(Date.now(), 10, 2, 1.5);
      const check = async (what: string) => {
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() =>
          (globalThis as unknown as { axe: { run: () => Promise<axe.AxeResults> } }).axe.run(),
        );
        const found = violations.flatMap(({ help, nodes }) =>
          nodes.map(({ html }) => `${help}: ${html.slice(0, 200)}`),
        );
        assert.deepStrictEqual(found, [], what);
      };
      for (const hash of [
        "#features",
        "#features?value=5432",
        "#features?open=db@10.0.0.2",
        "#nodes?open=@10.0.0.2",
        "#nodes?sort=-clock",
        "#changes?open=db",
        "#features?value=none",
      ]) {
        await page.evaluate((to) => location.assign(to), hash);
        await page.waitForTimeout(400);
        await check(hash);
      }
      await page.setViewportSize({ width: 360, height: 740 });
      for (const hash of ["#features", "#features?open=db@10.0.0.2"]) {
        await page.evaluate((to) => location.assign(to), hash);
        await page.waitForTimeout(400);
        await check(`${hash} on a phone`);
      }
    });
  }

  it("can be read on a phone: nothing is wider than the screen, details cover it, and what is below is out of the way", async () => {
    node.fleet(50);
    await open();
    await page.setViewportSize({ width: 360, height: 740 });
    for (const hash of ["#features", "#nodes", "#changes", "#features?open=db@10.0.0.2"]) {
      await page.evaluate((to) => location.assign(to), hash);
      await page.waitForTimeout(200);
      assert.isTrue(await page.evaluate(() => document.documentElement.scrollWidth <= 360), hash);
    }
    const box = await details().boundingBox();
    assert.deepStrictEqual([box?.x, box?.y, box?.width], [0, 0, 360]);
    assert.isTrue(await page.getByRole("main", { includeHidden: true }).evaluate((main: HTMLElement) => main.inert));
    await page.getByRole("button", { name: "Close the details" }).click();
    await details().waitFor({ state: "detached" });
    withoutFaults();
  });

  it("gives all rows more height as soon as a finger is what points", async () => {
    node.fleet(5);
    await open();
    const session = await context.newCDPSession(page);
    await session.send("Emulation.setTouchEmulationEnabled", { enabled: true });
    await page.locator('.gridbody[style*="height: 200px"]').waitFor();
    const at = async (index: number) => (await cell(addressOf(index), "").boundingBox())?.y ?? 0;
    assert.strictEqual((await at(4)) - (await at(0)), 4 * 40);
    withoutFaults();
  });

  it("tells screen readers of changes, many of them in one sentence", async () => {
    node.fleet(20);
    await open();
    const said = page.locator("[aria-live=polite].unseen");
    node.set("db", "10.0.0.2", "1");
    await said.getByText(/db (?:offered|changed) on 10\.0\.0\.2/).waitFor();
    for (let i = 0; i < 50; i++) node.set("db", "10.0.0.2", String(i + 2));
    await said.getByText(/50 changes/).waitFor();
    withoutFaults();
  });
});
