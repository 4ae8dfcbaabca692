import { defineConfig } from "vitest/config";

/** Tests that need root, Debian packages or a real S3 server; `.ci/run` runs them, `npm test` does not. */
export default defineConfig({
  test: {
    // the real fleet takes four minutes: `npm run test:fleet`
    include: process.env["NAMEQ_REAL_FLEET"] ? ["test/e2e/Cluster.test.ts"] : ["test/e2e/**/*.test.ts"],
    exclude: process.env["NAMEQ_REAL_FLEET"] ? [] : ["test/e2e/Cluster.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 300_000,
    fileParallelism: false,
  },
});
