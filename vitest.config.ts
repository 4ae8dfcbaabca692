import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  // the examples import the package as its users do
  resolve: {
    alias: [
      { find: /^nameq$/, replacement: new URL("src/index.ts", import.meta.url).pathname },
      { find: /^nameq\/testing$/, replacement: new URL("src/testing.ts", import.meta.url).pathname },
    ],
  },
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/e2e/**", "test/bench/**", "test/page/**"],
    testTimeout: 30_000,
    // one more than cores: many tests wait for processes and clocks (177 s with 2 on 2 cores, 128 s with 3)
    maxWorkers: availableParallelism() + 1,
    minWorkers: 1,
  },
});
