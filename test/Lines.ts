import type { Readable } from "node:stream";

/** The lines of a stream as they come. */
export class Lines {
  readonly all: Array<string> = [];
  private rest = "";
  private waiting: (() => void) | undefined;

  constructor(stream: Readable) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      const parts = (this.rest + text).split("\n");
      this.rest = parts.pop()!;
      this.all.push(...parts);
      this.waiting?.();
    });
  }

  /** Waits until there are `count` lines, and gives them all. */
  async first(count: number): Promise<ReadonlyArray<string>> {
    while (this.all.length < count) {
      await new Promise<void>((resolve) => {
        this.waiting = resolve;
      });
    }
    return this.all;
  }
}
