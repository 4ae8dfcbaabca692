/** A state directory that a test writes as the node does. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class StateDirectory {
  readonly path = mkdtempSync(join(tmpdir(), "nameq-state-"));

  constructor(offers: Readonly<Record<string, string>> = {}) {
    mkdirSync(join(this.path, "features"));
    for (const [place, text] of Object.entries(offers)) this.set(place, text);
  }

  /** `place` is FEATURE/HOST. `atS`: the file's time, Unix seconds. */
  set(place: string, text: string, atS?: number): void {
    const [feature = ""] = place.split("/");
    mkdirSync(join(this.path, "features", feature), { recursive: true });
    const temporary = join(this.path, ".new");
    writeFileSync(temporary, `${text}\n`);
    if (atS !== undefined) utimesSync(temporary, atS, atS);
    renameSync(temporary, join(this.path, "features", place));
  }

  remove(place: string): void {
    unlinkSync(join(this.path, "features", place));
  }

  dispose(): void {
    rmSync(this.path, { recursive: true });
  }
}
