/** The page's files as `build.mjs` made them, ready to be answered with. */
import * as Data from "effect/Data";
import * as Effect from "effect/Effect";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { gzipSync } from "node:zlib";

/** One answer. */
export interface PageFile {
  /** Content-Type. */
  readonly type: string;
  readonly body: Buffer;
  /** For clients that accept it. */
  readonly gzip: Buffer;
  /** Weak, because it names both bodies. */
  readonly etag: string;
  readonly cacheControl: string;
}

/** By request path: `/` and what it loads. */
export type PageFiles = ReadonlyMap<string, PageFile>;

/** The page is not there. */
export class PageFilesError extends Data.TaggedError("PageFilesError")<{
  readonly directory: string;
  readonly cause: unknown;
}> {
  override get message(): string {
    return `the page cannot be read from ${this.directory} (${String(this.cause)}): install nameq again, or \`npm run build\` in its sources`;
  }
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** `build.mjs` puts the directory of the running program here; sources have none. */
declare const NAMEQ_DIST: string | undefined;

/** Where the running program has its page; from the sources, the last build's. */
export const directory = (): string =>
  path.join(typeof NAMEQ_DIST === "string" ? NAMEQ_DIST : path.resolve("dist"), "page");

const read = (file: string, type: string): PageFile => {
  const body = fs.readFileSync(file);
  return {
    type,
    body,
    gzip: gzipSync(body, { level: 9 }),
    etag: `W/"${createHash("sha256").update(body).digest("hex").slice(0, 16)}"`,
    // all names but the first have the hash of their content
    cacheControl: type.startsWith("text/html") ? "no-cache" : "public, max-age=31536000, immutable",
  };
};

/** Reads and compresses them: a few files, some milliseconds, once a face. */
export const load = (from = directory()): Effect.Effect<PageFiles, PageFilesError> =>
  Effect.try({
    try: () => {
      const files = new Map<string, PageFile>();
      for (const name of fs.readdirSync(from)) {
        const type = types[path.extname(name)];
        // the build's temporary files start with a dot
        if (type === undefined || name.startsWith(".")) continue;
        files.set(name === "index.html" ? "/" : `/${name}`, read(path.join(from, name), type));
      }
      if (!files.has("/")) throw new Error("no index.html");
      return files;
    },
    catch: (cause) => new PageFilesError({ directory: from, cause }),
  });
