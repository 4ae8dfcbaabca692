/**
 * A small S3 server in this process: path style, one bucket, PUT, GET, DELETE and ListObjectsV2 by pages. It checks
 * Signature V4 for real, and fails on purpose as the test's hook says. Its clock, region and objects are plain fields.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export interface FakeObject {
  readonly body: Buffer;
  readonly lastModifiedMs: number;
  readonly etag: string;
}

export interface FakeRequest {
  readonly method: string;
  /** Without the bucket. */
  readonly key: string;
  readonly query: URLSearchParams;
}

/** How one request goes wrong. A fault of `answer` is given after the signature was checked; the others at once. */
export type Fault =
  | { readonly kind: "silent" }
  | { readonly kind: "close" }
  /** Sends the head and `sent` of `length` bytes, then nothing more, or closes the connection. */
  | { readonly kind: "part"; readonly sent: string; readonly length: number; readonly close: boolean }
  | {
      readonly kind: "answer";
      readonly status: number;
      /** An S3 error document with this code, or the `body` as it is. */
      readonly code?: string;
      readonly body?: string | Buffer;
      readonly headers?: Readonly<Record<string, string>>;
    };

const hash = (data: Buffer | string): string => createHash("sha256").update(data).digest("hex");
const hmac = (key: Buffer | string, data: string): Buffer => createHmac("sha256", key).update(data).digest();

/** RFC 3986, as Signature V4 wants it. */
const encode = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
const xml = (text: string): string => text.replaceAll(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export class FakeS3 {
  readonly bucket = "fake-bucket";
  readonly accessKeyId = "AKFAKE";
  readonly secretAccessKey = "a-secret/that+must=never-be-seen";
  region = "us-east-1";
  pageSize = 1000;
  /** Server's clock minus the host's. */
  clockOffsetMs = 0;
  fault: (request: FakeRequest) => Fault | undefined = () => undefined;
  readonly objects = new Map<string, FakeObject>();
  readonly requests: Array<FakeRequest> = [];
  /** Connections that the client ended before it had its answer. */
  aborted = 0;

  private readonly server = http.createServer((request, response) => {
    const chunks: Array<Buffer> = [];
    response.on("close", () => {
      if (!response.writableFinished) this.aborted++;
    });
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => this.handle(request, Buffer.concat(chunks), response));
  });

  /** A server on a free port of 127.0.0.1, ended with the scope. */
  static readonly make: Effect.Effect<FakeS3, never, Scope.Scope> = Effect.acquireRelease(
    Effect.async<FakeS3>((resume) => {
      const fake = new FakeS3();
      fake.server.listen(0, "127.0.0.1", () => resume(Effect.succeed(fake)));
    }),
    (fake) => Effect.sync(() => fake.stop()),
  );

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  put(key: string, content: string | Buffer): FakeObject {
    const body = Buffer.from(content);
    const etag = createHash("md5").update(body).digest("hex");
    const object = { body, etag, lastModifiedMs: Date.now() + this.clockOffsetMs };
    this.objects.set(key, object);
    return object;
  }

  private handle(request: http.IncomingMessage, body: Buffer, response: http.ServerResponse): void {
    response.setHeader("date", new Date(Date.now() + this.clockOffsetMs).toUTCString());
    const url = new URL(request.url ?? "/", "http://fake");
    const [, bucket = "", ...rest] = url.pathname.split("/");
    const asked = { method: request.method ?? "", key: decodeURIComponent(rest.join("/")), query: url.searchParams };
    this.requests.push(asked);
    const fail = (status: number, code: string, extra = "", headers: Readonly<Record<string, string>> = {}) =>
      response
        .writeHead(status, { "content-type": "application/xml", "x-amz-request-id": "fake-request", ...headers })
        .end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>as told</Message>${extra}</Error>`);

    const fault = this.fault(asked);
    if (fault?.kind === "silent") return;
    if (fault?.kind === "close") return void request.socket.destroy();
    if (fault?.kind === "part") {
      response.writeHead(200, {
        "content-length": fault.length,
        etag: '"part"',
        "last-modified": new Date().toUTCString(),
      });
      return void response.write(fault.sent, () => fault.close && request.socket.destroy());
    }
    const refusal = this.refusal(request, url, body);
    if (refusal === "AuthorizationHeaderMalformed") {
      return void fail(400, refusal, `<Region>${this.region}</Region>`, { "x-amz-bucket-region": this.region });
    }
    if (refusal !== undefined) return void fail(403, refusal, `<StringToSign>${this.secretAccessKey}</StringToSign>`);
    if (fault !== undefined) {
      if (fault.code !== undefined) return void fail(fault.status, fault.code, "", fault.headers);
      return void response.writeHead(fault.status, fault.headers).end(fault.body);
    }
    if (bucket !== this.bucket) return void fail(404, "NoSuchBucket");

    switch (asked.method) {
      case "PUT":
        return void response
          .setHeader("etag", `"${this.put(asked.key, body).etag}"`)
          .writeHead(200)
          .end();
      case "DELETE":
        this.objects.delete(asked.key);
        return void response.writeHead(204).end();
      case "GET": {
        if (asked.key === "") return void response.writeHead(200).end(this.list(asked.query));
        const object = this.objects.get(asked.key);
        if (object === undefined) return void fail(404, "NoSuchKey");
        return void response
          .writeHead(200, {
            etag: `"${object.etag}"`,
            "last-modified": new Date(object.lastModifiedMs).toUTCString(),
            "content-length": object.body.length,
          })
          .end(object.body);
      }
      default:
        return void fail(405, "MethodNotAllowed");
    }
  }

  /** ListObjectsV2: one page from after the continuation token, which here is the last key or common prefix shown. */
  private list(query: URLSearchParams): string {
    const prefix = query.get("prefix") ?? "";
    const delimiter = query.get("delimiter") ?? "";
    const after = Buffer.from(query.get("continuation-token") ?? "", "base64url").toString();
    const shown = query.get("encoding-type") === "url" ? (text: string) => encode(text).replaceAll("%20", "+") : xml;
    const rows = new Map<string, FakeObject | undefined>();
    for (const key of [...this.objects.keys()].toSorted()) {
      if (!key.startsWith(prefix)) continue;
      const cut = delimiter === "" ? -1 : key.indexOf(delimiter, prefix.length);
      const row = cut === -1 ? key : key.slice(0, cut + 1);
      if (row > after) rows.set(row, cut === -1 ? this.objects.get(key) : undefined);
    }
    const page = [...rows].slice(0, this.pageSize);
    const truncated = rows.size > page.length;
    return [
      '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
      `<Name>${this.bucket}</Name><Prefix>${shown(prefix)}</Prefix><KeyCount>${page.length}</KeyCount>`,
      `<MaxKeys>${this.pageSize}</MaxKeys><IsTruncated>${truncated}</IsTruncated>`,
      query.has("encoding-type") ? "<EncodingType>url</EncodingType>" : "",
      truncated
        ? `<NextContinuationToken>${Buffer.from(page.at(-1)?.[0] ?? "").toString("base64url")}</NextContinuationToken>`
        : "",
      ...page.map(([key, object]) =>
        object === undefined
          ? `<CommonPrefixes><Prefix>${shown(key)}</Prefix></CommonPrefixes>`
          : `<Contents><Key>${shown(key)}</Key><LastModified>${new Date(object.lastModifiedMs).toISOString()}</LastModified>` +
            `<ETag>&quot;${object.etag}&quot;</ETag><Size>${object.body.length}</Size></Contents>`,
      ),
      "</ListBucketResult>",
    ].join("");
  }

  /** The code of the error with which S3 would refuse this request, if any. */
  private refusal(request: http.IncomingMessage, url: URL, body: Buffer): string | undefined {
    const match =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
        request.headers.authorization ?? "",
      );
    if (match === null) return "AccessDenied";
    const [, accessKeyId = "", day = "", region = "", names = "", signature = ""] = match;
    const header = (name: string) => String(request.headers[name] ?? "").trim();
    const date = header("x-amz-date");
    const payload = header("x-amz-content-sha256");
    if (accessKeyId !== this.accessKeyId) return "InvalidAccessKeyId";
    if (region !== this.region) return "AuthorizationHeaderMalformed";
    const sentMs = Date.parse(date.replace(/^(....)(..)(..T..)(..)(..Z)$/, "$1-$2-$3:$4:$5"));
    if (!(Math.abs(sentMs - Date.now() - this.clockOffsetMs) <= 15 * 60_000)) return "RequestTimeTooSkewed";
    if (payload !== "UNSIGNED-PAYLOAD" && payload !== hash(body)) return "XAmzContentSHA256Mismatch";
    if (!["host", "x-amz-date", "x-amz-content-sha256"].every((name) => names.split(";").includes(name))) {
      return "AccessDenied";
    }
    const canonical = [
      request.method,
      url.pathname,
      [...url.searchParams]
        .map(([name, value]) => `${encode(name)}=${encode(value)}`)
        .toSorted()
        .join("&"),
      ...names.split(";").map((name) => `${name}:${header(name)}`),
      "",
      names,
      payload,
    ].join("\n");
    const scope = `${day}/${region}/s3/aws4_request`;
    const key = scope.split("/").reduce<Buffer | string>(hmac, `AWS4${this.secretAccessKey}`);
    const expected = hmac(key, `AWS4-HMAC-SHA256\n${date}\n${scope}\n${hash(canonical)}`);
    return timingSafeEqual(expected, Buffer.from(signature, "hex")) ? undefined : "SignatureDoesNotMatch";
  }
}
