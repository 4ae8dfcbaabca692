/** A fleet without nodes, network or disk, for the tests of programs: what one host sets, all see at once. */
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Address from "./Address.js";
import type { FeatureName, FeatureValue } from "./Feature.js";
import { FeatureTable, type Held } from "./FeatureTable.js";
import type { TreeWatch } from "./TreeWatch.js";

/** Reads a table instead of a tree: whoever fills the table decides what is seen. */
export const watchTable = (table: FeatureTable): TreeWatch.Service => ({
  read: (only) => Effect.sync(() => table.tree(only === undefined ? undefined : new Set(only))),
  subscribe: (only) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const subscription = table.subscribe(only);
        table.cover(table.version);
        return subscription;
      }),
      (subscription) => Effect.sync(() => table.unsubscribe(subscription)),
    ),
});

/** Shared by the clients (`NameqClient.layerMemory`) of a test. Hosts come with what they set, and go with `leave`. */
export class MemoryFleet {
  private readonly hosts = new Map<Address.Address, Map<FeatureName, Held>>();
  private readonly tables = new Map<Address.Address, FeatureTable>();

  private show(host: Address.Address, feature: FeatureName, held: Held | undefined): void {
    for (const [at, table] of this.tables) table.set(feature, at === host ? Address.ownHost : host, held);
  }

  /** Sets what `host` offers as `feature`; undefined: nothing. */
  readonly set = (host: Address.Address, feature: FeatureName, value: FeatureValue | undefined): Effect.Effect<void> =>
    Effect.map(Clock.currentTimeMillis, (changedMs) => {
      const features = this.hosts.get(host) ?? new Map<FeatureName, Held>();
      this.hosts.set(host, features);
      if (features.get(feature)?.value === value) return;
      const held = value === undefined ? undefined : { value, changedMs };
      if (held === undefined) features.delete(feature);
      else features.set(feature, held);
      this.show(host, feature, held);
    });

  /** The host is gone, and with it what it offered. */
  readonly leave = (host: string): Effect.Effect<void> =>
    Effect.sync(() => {
      const address = Address.parse(host);
      if (address === undefined) return;
      for (const feature of this.hosts.get(address)?.keys() ?? []) this.show(address, feature, undefined);
      this.hosts.delete(address);
    });

  /** What a client at `host` sees; its own features are at 127.0.0.1, as in every tree. */
  tableAt(host: Address.Address): FeatureTable {
    let table = this.tables.get(host);
    if (table === undefined) {
      table = new FeatureTable();
      this.tables.set(host, table);
      for (const [other, features] of this.hosts) {
        const shown = other === host ? Address.ownHost : other;
        for (const [feature, held] of features) table.set(feature, shown, held);
      }
    }
    return table;
  }
}
