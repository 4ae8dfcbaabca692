import { defineConfig } from "vitest/config";

/** Tests that take minutes, each with a command of its own: `npm run test:fleet` and `npm run test:image`. */
const long = { fleet: "test/e2e/Cluster.test.ts", image: "test/e2e/Image.test.ts" };
const chosen = long[process.env["NAMEQ_LONG_TEST"] as keyof typeof long] as string | undefined;

/** Tests that need root, Debian packages or a real S3 server; `.ci/run` runs them, `npm test` does not. */
export default defineConfig({
  test: {
    include: [chosen ?? "test/e2e/**/*.test.ts"],
    exclude: chosen === undefined ? Object.values(long) : [],
    testTimeout: 120_000,
    hookTimeout: 300_000,
    fileParallelism: false,
  },
});
