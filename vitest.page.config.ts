import { defineConfig } from "vitest/config";

/** Tests of the page in a real browser: Debian's `chromium`, which `.ci/run` installs. `npm test` does not run them. */
export default defineConfig({
  test: {
    include: ["test/page/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // one browser at a time
    fileParallelism: false,
  },
});
