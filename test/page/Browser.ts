/** Debian's Chromium, driven over its own protocol. */
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const executable = process.env["NAMEQ_CHROMIUM"] ?? "/usr/bin/chromium";

/** Fails where there is no browser, and says what to do. */
export const requireChromium = (): void => {
  try {
    accessSync(executable, constants.X_OK);
  } catch {
    throw new Error(
      `the page's tests need Chromium, and ${executable} is none: \`apt-get install chromium\`, or name another with NAMEQ_CHROMIUM`,
    );
  }
};

/** A browser with a profile of its own, and a way to end it. */
export const launch = async (
  options: BrowserContextOptions = {},
): Promise<{ readonly context: BrowserContext; readonly close: () => Promise<void> }> => {
  requireChromium();
  const profile = mkdtempSync(path.join(tmpdir(), "nameq-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    headless: true,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    viewport: { width: 1_280, height: 800 },
    ...options,
  });
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
};

/** What a page did that it should not: errors, refusals of the content policy, requests to elsewhere. */
export const watchFor = (page: Page, origin: string): ReadonlyArray<string> => {
  const faults: Array<string> = [];
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(origin)) faults.push(`request: ${request.url()}`);
  });
  return faults;
};
