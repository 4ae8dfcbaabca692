/** The page in a real browser, before real nodes. */
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import type { Page } from "playwright-core";
import { run, start } from "../Program.js";
import { launch, watchFor } from "./Browser.js";

const port = 29_140;
const [first, second] = ["127.44.1.2", "127.44.1.3"];
const url = `http://${first}:${port}/`;

let browser: Awaited<ReturnType<typeof launch>>;
let directory: string;
let page: Page | undefined;
const running = new Set<ChildProcess>();

beforeAll(async () => {
  browser = await launch();
  directory = mkdtempSync(path.join(tmpdir(), "nameq-page-"));
});

afterEach(async () => {
  await page?.close();
  for (const child of running) await end(child);
});

afterAll(async () => {
  await browser?.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Starts a node whose face is up when this returns. */
const serve = async (address: string, ...more: ReadonlyArray<string>): Promise<ChildProcess> => {
  const own = ["--addr", address, "--port", String(port), "--http", `${address}:${port}`, ...more];
  const child = start(["serve", "--dev", "--dev-dir", directory, ...own]);
  running.add(child);
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (log += text));
  for (let waited = 0; waited < 200; waited++) {
    if (child.exitCode !== null) break;
    try {
      if ((await fetch(`http://${address}:${port}/healthz`)).ok) return child;
    } catch {
      // not yet
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the node does not start:\n${log}`);
};

const end = async (child: ChildProcess): Promise<void> => {
  running.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  await gone;
};

const offer = (address: string, feature: string, json: string): void => {
  const features = path.join(directory, address, "features");
  mkdirSync(path.join(features, ".tmp"), { recursive: true });
  writeFileSync(path.join(features, ".tmp", feature), json);
  renameSync(path.join(features, ".tmp", feature), path.join(features, feature));
};

const open = async (): Promise<{ readonly page: Page; readonly faults: ReadonlyArray<string> }> => {
  page = await browser.context.newPage();
  page.setDefaultTimeout(15_000);
  const faults = watchFor(page, url);
  await page.goto(url);
  return { page, faults };
};

describe("The page of a real node", () => {
  it("goes with it from nothing to a fleet of two, through a restart, without a fault", async () => {
    const node = await serve(first);
    const { faults, page } = await open();
    await page.getByText("No host offers anything yet").waitFor();
    // the command that the page tells works as it stands
    const command = (await page.locator(".empty pre").innerText()).split(" ");
    assert.include(command, path.join(directory, first, "features"));
    const told = await run([...command.slice(1, -1), command.at(-1)?.replaceAll("'", "") ?? ""]);
    assert.strictEqual(told.status, 0, told.stderr);
    const cell = (host: string, feature: string) => page.locator(`[data-row="${host}"][data-column="${feature}"]`);
    await cell(first, "web").getByText("port: 8080").waitFor();

    offer(second, "db", '{"id": 12345678901234567890, "share": 0.10}');
    const peer = await serve(second);
    await cell(second, "db").click();
    const shown = (await page.locator(".json").textContent()) ?? "";
    assert.strictEqual(shown.replaceAll(/\s/g, ""), '{"id":12345678901234567890,"share":0.10}');
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "Nodes", exact: true }).click();
    await cell(second, "state").getByText("alive").waitFor();
    await cell(second, "source").getByText("UDP").waitFor();
    assert.match(await cell(second, "version").innerText(), /^\d+\.\d+\.\d+/);
    assert.match(await cell(second, "clock").innerText(), /ms/);
    await end(peer);
    await cell(second, "state").getByText("left").waitFor();
    assert.deepStrictEqual(faults, []);

    await end(node);
    await page.getByRole("alert").getByText("Not connected").waitFor();
    offer(first, "cache", "true");
    await serve(first);
    await page.locator(".link.live").waitFor();
    await page.getByRole("link", { name: "Features", exact: true }).click();
    await cell(first, "cache").getByLabel("true").waitFor();
  });

  it("is let in with the node's token", async () => {
    const token = "a-token-of-some-length";
    const file = path.join(directory, "token");
    writeFileSync(file, `${token}\n`, { mode: 0o600 });
    offer(first, "web", "80");
    await serve(first, "--http-token-file", file);
    const { page } = await open();
    await page.getByLabel("Token").fill(token);
    await page.keyboard.press("Enter");
    await page.locator(`[data-row="${first}"][data-column="web"]`).getByText("80").waitFor();
  });
});
