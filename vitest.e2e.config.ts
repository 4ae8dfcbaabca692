import { defineConfig } from "vitest/config";

/** Tests that need root, Debian packages or a real S3 server; `.ci/run` runs them, `npm test` does not. */
export default defineConfig({
  test: {
    include: ["test/e2e/**/*.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 300_000,
    fileParallelism: false,
  },
});
