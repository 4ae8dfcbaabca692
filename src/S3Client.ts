/** The S3 requests that the registry needs, over the AWS SDK. The SDK is loaded when a client is made, not before. */
import type { Readable } from "node:stream";
import * as Clock from "effect/Clock";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Option from "effect/Option";
import * as Redacted from "effect/Redacted";
import type * as Scope from "effect/Scope";
import type { Backend, Failure, RegistryEntry, RegistryOperation, RegistryReason } from "./S3Registry.js";

/** Where the bucket is, and how long to wait for it. Only `region` and `bucket` are needed. */
export interface S3Options {
  readonly region: string;
  readonly bucket: string;
  /** Objects are `PREFIX/NAME`; a trailing slash is added. Defaults to none: `NAME`. */
  readonly prefix?: string;
  /** URL of an S3 server other than AWS, such as `http://10.0.0.5:9000`. */
  readonly endpoint?: string;
  /** Puts the bucket into the path, not into the host name. Defaults to false; most servers other than AWS want true. */
  readonly pathStyle?: boolean;
  /** Defaults to what the SDK finds: environment, shared files, container or instance role. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: Redacted.Redacted };
  /** For a connection to stand. Defaults to 2 seconds. */
  readonly connectTimeout?: Duration.DurationInput;
  /** For an answer's head, and for the longest silence within its body. Defaults to 10 seconds. */
  readonly requestTimeout?: Duration.DurationInput;
  /** For one put, get, remove or page of a listing, with all its tries. Defaults to 30 seconds. */
  readonly callTimeout?: Duration.DurationInput;
  /** For a whole listing. Defaults to 2 minutes. */
  readonly listTimeout?: Duration.DurationInput;
  /** Tries of one request in all; what failed for a passing reason is tried again after a short random wait. Defaults to 3. */
  readonly attempts?: number;
  /** Requests at a time; more wait. Defaults to 16. */
  readonly concurrency?: number;
}

/** Most pages of one listing (1,000 objects each, usually): more means a server that never ends, or a foreign bucket. */
const maxPages = 1000;

const reasonByName: Readonly<Record<string, RegistryReason>> = {
  InvalidBucketName: "NoBucket",
  NoSuchBucket: "NoBucket",
  AccessDenied: "Denied",
  CredentialsProviderError: "Denied",
  ExpiredToken: "Denied",
  InvalidAccessKeyId: "Denied",
  InvalidToken: "Denied",
  SignatureDoesNotMatch: "Denied",
  TokenProviderError: "Denied",
  AuthorizationHeaderMalformed: "Region",
  IllegalLocationConstraintException: "Region",
  IncorrectEndpoint: "Region",
  PermanentRedirect: "Region",
  TemporaryRedirect: "Region",
  RequestTimeTooSkewed: "ClockSkew",
  ServiceUnavailable: "Throttled",
  SlowDown: "Throttled",
  ThrottlingException: "Throttled",
  RequestTimeout: "Timeout",
  TimeoutError: "Timeout",
};

const reasonByStatus: Readonly<Record<number, RegistryReason>> = {
  301: "Region",
  307: "Region",
  401: "Denied",
  403: "Denied",
  404: "InvalidAnswer",
  408: "Timeout",
  429: "Throttled",
  503: "Throttled",
  504: "Timeout",
};

/** The first line, at most 300 printable characters: it may be a stranger's text. */
const oneLine = (text: string): string => (text.split("\n", 1)[0] ?? "").replaceAll(/\p{C}/gu, " ").slice(0, 300);

const textAt = (value: unknown, ...path: ReadonlyArray<string>): string | undefined => {
  let at: unknown = value;
  for (const name of path) {
    at = typeof at === "object" && at !== null ? (at as Record<string, unknown>)[name] : undefined;
  }
  return typeof at === "string" ? at : typeof at === "number" ? String(at) : undefined;
};

/**
 * What an error of the SDK means. Its text is picked out: the error itself holds the request, with its signature and
 * session token.
 */
const explain = (error: unknown): Failure => {
  // several addresses were tried: the first failure stands for all
  if (error instanceof AggregateError && error.errors.length > 0) return explain(error.errors[0]);
  const status = textAt(error, "$metadata", "httpStatusCode");
  const system = textAt(error, "code");
  // the SDK calls a lost connection a time-out too
  const name = system === "ECONNRESET" || system === "EPIPE" ? "Error" : (textAt(error, "name") ?? "Error");
  const message = textAt(error, "message") ?? "";
  const region = textAt(error, "$response", "headers", "x-amz-bucket-region") ?? textAt(error, "Region");
  const requestId = textAt(error, "$metadata", "requestId");
  const words =
    status !== undefined && textAt(error, "Code") === undefined
      ? ["not the answer of an S3 server"]
      : [name, message].filter((word) => !["Error", "UnknownError", ""].includes(word));
  const details = [
    words.join(": "),
    region !== undefined && `the bucket is in region ${region}`,
    status !== undefined && `HTTP ${status}`,
    requestId !== undefined && `request ${requestId}`,
  ];
  const byStatus = (status: number) => reasonByStatus[status] ?? (status < 300 ? "InvalidAnswer" : "Other");
  const byCode = system === undefined ? "Other" : "Unreachable";
  return {
    reason: reasonByName[name] ?? (status === undefined ? byCode : byStatus(Number(status))),
    cause: details
      .filter((detail) => typeof detail === "string")
      .map(oneLine)
      .join(", "),
  };
};

/** For a rejected get or delete: none when there is no such object. */
const absentOrThrow = (error: unknown): undefined => {
  if (textAt(error, "name") !== "NoSuchKey") throw error;
};

const invalid = (cause: string): Failure => ({ reason: "InvalidAnswer", cause });

/** An entity tag without its quotes, which some answers leave out. */
const bareTag = (tag: string): string => tag.replaceAll('"', "");

/** The key as it is: answers carry it URL-encoded, for XML cannot hold every character. */
const decodeKey = (key: string): string => {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch {
    return key;
  }
};

/** All bytes of `body`, or none when they are more than `limit`: then the connection is dropped. */
const readBody = async (body: Readable, length: number | undefined, limit: number): Promise<Buffer | undefined> => {
  const chunks: Array<Buffer> = [];
  let size = length ?? 0;
  if (size <= limit) {
    size = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) break;
      chunks.push(chunk);
    }
  }
  if (size <= limit) return Buffer.concat(chunks, size);
  body.destroy();
  return undefined;
};

const isWebAddress = (endpoint: string): boolean => /^https?:\/\//i.test(endpoint) && URL.canParse(endpoint);

const operationOf: Readonly<Record<string, RegistryOperation>> = {
  PutObjectCommand: "put",
  ListObjectsV2Command: "list",
  GetObjectCommand: "get",
  DeleteObjectCommand: "delete",
};

/** A bucket as a registry's backend. `onRequest` is told of every try that goes out. Fails on options that the SDK refuses. */
export const make = (
  options: S3Options,
  maxBytes: number,
  onRequest: (operation: RegistryOperation) => void,
): Effect.Effect<Backend, Failure, Scope.Scope> =>
  Effect.gen(function* () {
    if (options.endpoint !== undefined && !isWebAddress(options.endpoint)) {
      return yield* Effect.fail<Failure>({
        reason: "Other",
        cause: "the endpoint is no URL such as https://s3.example.com or http://10.0.0.5:9000",
      });
    }

    const sdk = yield* Effect.tryPromise({
      try: () => {
        // else it writes to stderr that it will want a later Node
        process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true";
        return import("@aws-sdk/client-s3");
      },
      catch: (cause): Failure => ({ reason: "Other", cause }),
    });

    const concurrency = options.concurrency ?? 16;
    const requestTimeout = Duration.toMillis(options.requestTimeout ?? "10 seconds");
    const callTimeout = Duration.decode(options.callTimeout ?? "30 seconds");
    const listTimeout = Duration.decode(options.listTimeout ?? "2 minutes");
    const { bucket: Bucket, credentials } = options;
    const prefix = (options.prefix ?? "").replace(/[^/]$/, "$&/");

    const client = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          new sdk.S3Client({
            region: options.region,
            forcePathStyle: options.pathStyle ?? false,
            ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
            ...(credentials !== undefined && {
              credentials: {
                accessKeyId: credentials.accessKeyId,
                secretAccessKey: Redacted.value(credentials.secretAccessKey),
              },
            }),
            maxAttempts: options.attempts ?? 3,
            retryMode: "standard",
            // servers other than AWS do not all know the newer checksum headers
            requestChecksumCalculation: "WHEN_REQUIRED",
            responseChecksumValidation: "WHEN_REQUIRED",
            requestHandler: {
              connectionTimeout: Duration.toMillis(options.connectTimeout ?? "2 seconds"),
              requestTimeout,
              throwOnRequestTimeout: true,
              socketTimeout: requestTimeout,
              httpAgent: { maxSockets: concurrency },
              httpsAgent: { maxSockets: concurrency },
            },
          }),
        catch: explain,
      }),
      (client) => Effect.sync(() => client.destroy()),
    );

    const dates = new WeakMap<object, number>();
    client.middlewareStack.add(
      (next, context) => async (args) => {
        onRequest(operationOf[context["commandName"] as string] ?? "open");
        const result = await next(args);
        if (result.output !== undefined) {
          dates.set(result.output, Date.parse(textAt(result.response, "headers", "date") ?? ""));
        }
        return result;
      },
      { step: "deserialize", priority: "high", name: "nameqWatch" },
    );
    /** The server's clock when it gave `answer`; ours when it does not say. */
    const serverTime = (answer: object): Effect.Effect<number> => {
      const date = dates.get(answer) ?? Number.NaN;
      return Number.isNaN(date) ? Clock.currentTimeMillis : Effect.succeed(date);
    };

    const permits = yield* Effect.makeSemaphore(concurrency);
    const call = <A>(request: (abort: { readonly abortSignal: AbortSignal }) => Promise<A>) =>
      Effect.tryPromise({ try: (abortSignal) => request({ abortSignal }), catch: explain }).pipe(
        Effect.timeoutFail({
          duration: callTimeout,
          onTimeout: (): Failure => ({ reason: "Timeout", cause: `not done within ${Duration.format(callTimeout)}` }),
        }),
        permits.withPermits(1),
      );

    const list: Backend["list"] = Effect.gen(function* () {
      const entries: Array<RegistryEntry> = [];
      const tokens = new Set<string>();
      let token: string | undefined;
      while (tokens.size < maxPages) {
        const page = new sdk.ListObjectsV2Command({
          Bucket,
          Prefix: prefix,
          Delimiter: "/",
          EncodingType: "url",
          ...(token !== undefined && { ContinuationToken: token }),
        });
        const answer = yield* call((abort) => client.send(page, abort));
        // an empty or foreign document with status 200 would read as an empty bucket
        if (answer.KeyCount === undefined || answer.IsTruncated === undefined) {
          return yield* Effect.fail(invalid("a list answer without KeyCount and IsTruncated"));
        }
        for (const { Key, LastModified, ETag, Size } of answer.Contents ?? []) {
          if (Key === undefined || LastModified === undefined || ETag === undefined) {
            return yield* Effect.fail(invalid("a listed object without Key, LastModified or ETag"));
          }
          const key = answer.EncodingType === "url" ? decodeKey(Key) : Key;
          const name = key.slice(prefix.length);
          if (name === "" || name.includes("/") || !key.startsWith(prefix)) continue;
          entries.push({ name, lastModifiedMs: LastModified.getTime(), etag: bareTag(ETag), size: Size ?? 0 });
        }
        if (!answer.IsTruncated) return { entries, nowMs: yield* serverTime(answer) };
        token = answer.NextContinuationToken;
        if (token === undefined || tokens.has(token)) {
          return yield* Effect.fail(invalid("a list answer that does not say how it goes on"));
        }
        tokens.add(token);
      }
      return yield* Effect.fail(invalid(`a listing of more than ${maxPages} pages`));
    }).pipe(
      Effect.timeoutFail({
        duration: listTimeout,
        onTimeout: (): Failure => ({ reason: "Timeout", cause: `not listed within ${Duration.format(listTimeout)}` }),
      }),
    );

    return {
      description: `s3://${Bucket}/${prefix}`,
      list,

      put: (name, body) =>
        call((abort) =>
          client.send(
            new sdk.PutObjectCommand({
              Bucket,
              Key: prefix + name,
              // of an empty string it would write to stderr that it is a stream
              Body: Buffer.from(body),
              ContentType: "application/json",
            }),
            abort,
          ),
        ).pipe(
          Effect.flatMap(({ ETag }) =>
            ETag === undefined ? Effect.fail(invalid("no ETag for what was put")) : Effect.succeed(bareTag(ETag)),
          ),
        ),

      get: (name) =>
        call(async (abort) => {
          const answer = await client
            .send(new sdk.GetObjectCommand({ Bucket, Key: prefix + name }), abort)
            .catch(absentOrThrow);
          return answer && { answer, bytes: await readBody(answer.Body as Readable, answer.ContentLength, maxBytes) };
        }).pipe(
          Effect.flatMap((read) => {
            if (read === undefined) return Effect.succeedNone;
            const { answer, bytes } = read;
            const { ETag, LastModified } = answer;
            if (bytes === undefined) return Effect.fail<Failure>({ reason: "TooLarge" });
            if (ETag === undefined || LastModified === undefined) {
              return Effect.fail(invalid("an object without ETag or Last-Modified"));
            }
            return Effect.map(serverTime(answer), (nowMs) =>
              Option.some({ bytes, lastModifiedMs: LastModified.getTime(), etag: bareTag(ETag), nowMs }),
            );
          }),
        ),

      remove: (name) =>
        Effect.asVoid(
          call((abort) =>
            client.send(new sdk.DeleteObjectCommand({ Bucket, Key: prefix + name }), abort).catch(absentOrThrow),
          ),
        ),
    };
  });
