/** The registry: one small object per node, in an S3 bucket or in a directory. It is how nodes find each other. */
import * as Context from "effect/Context";
import * as Data from "effect/Data";
import type * as Effect from "effect/Effect";
import type * as Option from "effect/Option";

/** What went wrong; the message tells the user what to do. */
export type RegistryReason =
  | "Unreachable"
  | "Timeout"
  | "Denied"
  | "NoBucket"
  | "Region"
  | "Throttled"
  | "ClockSkew"
  | "TooLarge"
  | "InvalidAnswer"
  | "Storage"
  | "Other";

/** A registry operation failed. Never holds a secret. */
export class RegistryError extends Data.TaggedError("RegistryError")<{
  readonly reason: RegistryReason;
  readonly operation: "put" | "list" | "get" | "delete";
  /** The whole key or path, or the prefix for a list. */
  readonly key: string;
  readonly cause?: unknown;
}> {}

/** One listed object. */
export interface RegistryEntry {
  /** Name below the prefix: an address, if it is one of ours. Not validated. */
  readonly name: string;
  /** Unix time by the registry's clock, ms. */
  readonly lastModifiedMs: number;
  /** Opaque; changes with the content. */
  readonly etag: string;
  /** Bytes. */
  readonly size: number;
}

/** A whole listing: never a partial one. */
export interface Listing {
  readonly entries: ReadonlyArray<RegistryEntry>;
  /** The registry's own clock when it answered (S3: the Date header), Unix ms: ages are measured against it. */
  readonly nowMs: number;
}

/** One object, read. */
export interface RegistryObject {
  readonly body: string;
  readonly lastModifiedMs: number;
  readonly etag: string;
  readonly nowMs: number;
}

export declare namespace S3Registry {
  interface Service {
    /** For messages: `s3://bucket/prefix/` or the directory. */
    readonly description: string;
    /** Writes the object NAME (`application/json`), and gives its etag as a later list shows it. */
    readonly put: (name: string, body: string) => Effect.Effect<string, RegistryError>;
    /** Lists everything below the prefix, page by page. */
    readonly list: Effect.Effect<Listing, RegistryError>;
    /** Reads one object of at most 4 MiB; none when it is not there. */
    readonly get: (name: string) => Effect.Effect<Option.Option<RegistryObject>, RegistryError>;
    /** Removes one object; absent is fine. */
    readonly remove: (name: string) => Effect.Effect<void, RegistryError>;
  }
}

export class S3Registry extends Context.Tag("nameq/S3Registry")<S3Registry, S3Registry.Service>() {}
