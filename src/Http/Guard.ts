/** What is refused before anything is looked up: wrong methods, bodies, foreign host names, wrong tokens. Pure. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";

/** A refusal, or any other answer that is an error. */
export interface Refusal {
  readonly status: number;
  readonly code: string;
  /** What is wrong, and what to do. */
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface GuardOptions {
  /** Undefined: none is needed. */
  readonly token: () => string | undefined;
  /** Paths that need none. */
  readonly isOpen: (path: string) => boolean;
  /**
   * Names that this host goes by; undefined: every name is let in. A page of the Web can give its own name our address
   * (DNS rebinding), and would then read what is said here.
   */
  readonly hostNames: ReadonlySet<string> | undefined;
}

export interface Asked {
  readonly method: string;
  /** As it was sent. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** The host of a Host header, without its port. */
const hostOf = (header: string): string =>
  /^\[([^\]]*)\](?::\d+)?$/.exec(header)?.[1] ?? header.replace(/:\d*$/, "").toLowerCase();

/** The path as it was sent, without what follows `?`. */
export const pathOf = (url: string): string => {
  const end = url.search(/[?#]/);
  return end === -1 ? url : url.slice(0, end);
};

/** Compares in a time that tells nothing of where they differ. The key makes both digests unknown to who asks. */
const key = randomBytes(32);
const digest = (text: string): Buffer => createHmac("sha256", key).update(text).digest();
const sameSecret = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b));

const hasBody = (headers: IncomingHttpHeaders): boolean =>
  headers["transfer-encoding"] !== undefined || !/^0*$/.test(headers["content-length"] ?? "");

/** Makes the check: undefined lets a request in. */
export const make =
  ({ hostNames, isOpen, token }: GuardOptions) =>
  ({ headers, method, url }: Asked): Refusal | undefined => {
    if (method !== "GET" && method !== "HEAD") {
      return {
        status: 405,
        code: "method-not-allowed",
        message: "everything here is read-only: use GET or HEAD",
        headers: { allow: "GET, HEAD" },
      };
    }
    // as browsers and clients send it; what proxies are sent names a host that we would have to check, too
    if (!url.startsWith("/")) {
      return { status: 400, code: "bad-path", message: "a path starts with /: see /openapi.json for what there is" };
    }
    const { host } = headers;
    if (hostNames !== undefined && host !== undefined) {
      const name = hostOf(host);
      if (isIP(name) === 0 && !hostNames.has(name)) {
        return {
          status: 421,
          code: "unknown-host-name",
          message:
            "this node does not go by that name: use its IP address or localhost, or give it a token (--http-token-file), which allows every name",
        };
      }
    }
    if (hasBody(headers)) {
      return { status: 400, code: "body", message: "a request here has no body: leave it out" };
    }
    const wanted = token();
    if (wanted === undefined || isOpen(pathOf(url))) return undefined;
    const given = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? "")?.[1];
    if (given !== undefined && sameSecret(given, wanted)) return undefined;
    return {
      status: 401,
      code: given === undefined ? "token-needed" : "wrong-token",
      message: "send the header Authorization: Bearer TOKEN, with the token of the node's --http-token-file",
      headers: { "www-authenticate": 'Bearer realm="nameq"' },
    };
  };
