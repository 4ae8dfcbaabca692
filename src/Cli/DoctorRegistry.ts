/** The doctor's look at the registry: what this node may do there, its clock, who is in it, and what it costs. */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import * as Option from "effect/Option";
import * as Address from "../Address.js";
import * as RegistryObject from "../RegistryObject.js";
import * as S3Client from "../S3Client.js";
import { type Backend, type Failure, type Listing, maxObjectBytes, S3Registry } from "../S3Registry.js";
import { Metrics } from "../Metrics.js";
import { defaults, type Settings } from "../Settings.js";
import { fail, type Finding, ok, skip, some, warn } from "./DoctorFinding.js";
import type { S3Config } from "./ServeConfig.js";
import { duration } from "./StatusReport.js";

/** What is known of the registry in the end. */
export interface Registered {
  readonly findings: ReadonlyArray<Finding>;
  /** Nodes with an object that is not too old, the own one not among them. */
  readonly peers: ReadonlyArray<{ readonly address: Address.Address; readonly ageMs: number }>;
  /** The own object, if it is not too old. Undefined: there is none, as far as is known. */
  readonly own: RegistryObject.RegistryContent | "unreadable" | undefined;
  /** Whether the registry could be listed. */
  readonly listed: boolean;
}

// --- what went wrong ------------------------------------------------------------------------------------------------

type Operation = "list" | "put" | "get" | "delete";

/** What the policy must allow. */
const rights: Readonly<Record<Operation, string>> = {
  list: "s3:ListBucket",
  put: "s3:PutObject",
  get: "s3:GetObject",
  delete: "s3:DeleteObject",
};

/** Which check a failure belongs to, and what to do about it. Pure. */
export const judgeFailure = (operation: Operation, config: S3Config, { cause, reason }: Failure): Finding => {
  const detail = cause instanceof Error ? cause.message : typeof cause === "string" ? cause : reason;
  const place = `s3://${config.bucket}/${config.prefix}`;
  const where = config.endpoint ?? "AWS";
  switch (reason) {
    case "NoBucket":
      return fail("bucket", `there is no bucket ${config.bucket} (${detail})`, "create it, or correct --s3-bucket");
    case "Region": {
      const region = /\bregion ([a-z0-9-]+)/.exec(detail)?.[1];
      return fail(
        "region",
        `the bucket ${config.bucket} is not in ${config.region} (${detail})`,
        region === undefined || region === config.region ? "correct --s3-region" : `--s3-region ${region}`,
      );
    }
    case "ClockSkew":
      return fail(
        "clock",
        `this host's clock is too far from S3's (${detail})`,
        "set the clock (timedatectl, chronyc makestep)",
      );
    case "Unreachable":
      return fail(
        "registry",
        `${where} is out of reach (${detail})`,
        "check the network, DNS, TLS, a proxy and --s3-endpoint",
      );
    case "Timeout":
      return fail(
        "registry",
        `${where} does not answer (${detail})`,
        "a firewall may drop the packets: check the network and --s3-endpoint",
      );
    case "Throttled":
      return fail("registry", `${where} asks for fewer requests (${detail})`, "look for others that load the bucket");
    case "InvalidAnswer":
      return fail(
        "registry",
        `${where} does not answer as an S3 server (${detail})`,
        "check --s3-endpoint: it may be a proxy or a login page",
      );
    case "Denied":
      if (/CredentialsProviderError|TokenProviderError/.test(detail)) {
        return fail(
          "credentials",
          `no S3 credentials were found (${detail})`,
          "name a file with --s3-cred-file, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this host a role",
        );
      }
      if (/InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken/.test(detail)) {
        return fail(
          "credentials",
          `S3 does not accept the credentials (${detail})`,
          "correct the access key id and its secret key, or renew them",
        );
      }
      return fail(
        `s3-${operation}`,
        `this node may not ${operation} in ${place} (${detail})`,
        operation === "list"
          ? `its policy must allow ${rights.list} on arn:aws:s3:::${config.bucket}`
          : `its policy must allow ${rights[operation]} on arn:aws:s3:::${config.bucket}/${config.prefix === "" ? "" : config.prefix.replace(/[^/]$/, "$&/")}*`,
      );
    default:
      return fail(`s3-${operation}`, `cannot ${operation} in ${place} (${detail})`, "see the log of the S3 server");
  }
};

/** After these no further request can succeed. */
const hopeless = new Set(["bucket", "region", "registry", "credentials"]);

// --- clock ----------------------------------------------------------------------------------------------------------

/** Clocks that are off by this much deserve a look; peers drop announcements at `replayMs`. Ms. */
const doubtfulMs = 5_000;

/** This host's clock against another one, ms. Pure. */
export const judgeClock = (offsetMs: number, whose: string, settings: Settings = defaults): Finding => {
  const off = `this host's clock is ${(Math.abs(offsetMs) / 1_000).toFixed(1)} s ${offsetMs > 0 ? "ahead of" : "behind"} ${whose}`;
  const fix = "set the clock (timedatectl, chronyc makestep)";
  if (Math.abs(offsetMs) > settings.replayMs) {
    return fail("clock", `${off}: peers drop announcements beyond ${settings.replayMs / 1_000} s`, fix);
  }
  return Math.abs(offsetMs) > doubtfulMs ? warn("clock", off, fix) : ok("clock", off);
};

// --- cost -----------------------------------------------------------------------------------------------------------

/**
 * Prices of S3 Standard in us-east-1 for 1,000 requests, USD, as published in 2025; other regions ask up to twice that.
 * Storage and traffic of objects of a few hundred bytes cost nothing that counts.
 */
const usdPer1000 = { put: 0.005, list: 0.005 } as const;
const hoursAMonth = 730;
/** Objects on a page of a listing. */
const pageSize = 1_000;

const mean = ([least, most]: readonly [number, number]): number => (least + most) / 2;

/** Requests of one node an hour, and what a fleet of so many costs a month, USD. Estimates. Pure. */
export const cost = (
  nodes: number,
  settings: Settings = defaults,
): { readonly puts: number; readonly lists: number; readonly usd: number } => {
  // as Membership does: large fleets list less often
  const growth = Math.max(1, Math.min(nodes / settings.listFleet, settings.listLongestMs / mean(settings.listMs)));
  const puts = 3_600_000 / mean(settings.refreshMs);
  const lists = (3_600_000 / (mean(settings.listMs) * growth)) * Math.max(1, Math.ceil(nodes / pageSize));
  const usd = (nodes * hoursAMonth * (puts * usdPer1000.put + lists * usdPer1000.list)) / 1_000;
  return { puts, lists, usd };
};

const costFinding = (nodes: number): Finding => {
  const { lists, puts, usd } = cost(nodes);
  return ok(
    "cost",
    `about ${Math.round(puts)} puts and ${Math.round(lists)} list requests a node and hour, so about ${usd.toFixed(2)} USD a month for ${nodes} ${nodes === 1 ? "node" : "nodes"} (estimated by AWS's list price of 2025 for us-east-1)`,
  );
};

// --- who is there ---------------------------------------------------------------------------------------------------

/** An object is renewed after at most this long, and a bit. */
const lateMs = defaults.refreshMs[1] + 60_000;

const membersOf = (
  { entries, nowMs }: Listing,
  own: Address.Address | undefined,
): Pick<Registered, "peers" | "findings"> & { readonly ownAgeMs: number | undefined } => {
  const peers: Array<Registered["peers"][number]> = [];
  const odd: Array<string> = [];
  const late: Array<string> = [];
  let expired = 0;
  let ownAgeMs: number | undefined;
  for (const { lastModifiedMs, name } of entries) {
    const address = Address.parse(name);
    const ageMs = nowMs - lastModifiedMs;
    if (address === undefined || address !== name || !Address.mayBeNode(address))
      odd.push(JSON.stringify(name.slice(0, 64)));
    else if (address === own) ownAgeMs = ageMs;
    else if (ageMs > defaults.expiryMs) expired++;
    else {
      peers.push({ address, ageMs });
      if (ageMs > lateMs) late.push(`${address} (${duration(ageMs)})`);
    }
  }
  const findings: Array<Finding> = [
    ok(
      "members",
      `the registry has ${peers.length} other ${peers.length === 1 ? "node" : "nodes"}${expired === 0 ? "" : ` and ${expired} that ended long ago`}`,
    ),
  ];
  if (odd.length > 0) {
    findings.push(
      warn(
        "members",
        `${odd.length} ${odd.length === 1 ? "object is" : "objects are"} no node's: ${some(odd)}`,
        "remove them, or give nameq a prefix of its own",
      ),
    );
  }
  if (late.length > 0) {
    findings.push(
      warn(
        "members",
        `not renewed in time: ${some(late)}`,
        "see whether these nodes run (nameq status there) and reach the registry",
      ),
    );
  }
  return { peers, findings, ownAgeMs };
};

/** The own object, when a node runs or should not. Pure. */
const judgeOwn = (own: Address.Address, ageMs: number | undefined, running: boolean): ReadonlyArray<Finding> => {
  if (!running) return [];
  if (ageMs === undefined) {
    return [
      fail(
        "own-object",
        `the node runs, but the registry has no object ${own}`,
        "see the node's log and nameq status: its puts fail, or it uses another bucket or prefix",
      ),
    ];
  }
  return ageMs > lateMs
    ? [
        fail(
          "own-object",
          `the node runs, but its object ${own} was not renewed for ${duration(ageMs)}`,
          "see the node's log and nameq status: its puts fail",
        ),
      ]
    : [ok("own-object", `the object ${own} is ${duration(ageMs)} old`)];
};

const none: Registered = { findings: [], peers: [], own: undefined, listed: false };

// --- S3 -------------------------------------------------------------------------------------------------------------

/** Looks at a bucket. `own`: the node's address; `running`: whether it runs. */
export const bucket = (
  config: S3Config,
  own: Address.Address | undefined,
  running: boolean,
): Effect.Effect<Registered> =>
  Effect.gen(function* () {
    const findings: Array<Finding> = [];
    const opened = yield* Effect.either(
      S3Client.make(
        { ...config, requestTimeout: "5 seconds", callTimeout: "12 seconds", attempts: 2 },
        maxObjectBytes,
        () => {},
      ),
    );
    if (Either.isLeft(opened)) return { ...none, findings: [judgeFailure("list", config, opened.left)] };
    const backend = opened.right;

    let listing = yield* Effect.either(backend.list);
    if (Either.isLeft(listing)) {
      const finding = judgeFailure("list", config, listing.left);
      findings.push(finding);
      if (hopeless.has(finding.check)) return { ...none, findings };
      // the SDK has learnt S3's time by that, and signs with it
      if (finding.check === "clock") listing = yield* Effect.either(backend.list);
    }
    let registered: Registered = { ...none, findings };
    if (Either.isRight(listing)) {
      const { entries, nowMs } = listing.right;
      const here = yield* Clock.currentTimeMillis;
      const place = backend.description;
      findings.unshift(
        ok("s3-list", `${place} can be listed (${entries.length} objects): bucket, region and credentials are right`),
      );
      if (!findings.some(({ check }) => check === "clock"))
        findings.push(judgeClock(here - nowMs, "S3's (to a second)"));
      const members = membersOf(listing.right, own);
      findings.push(...members.findings);
      if (own !== undefined) findings.push(...judgeOwn(own, members.ownAgeMs, running));
      const fresh = members.ownAgeMs !== undefined && members.ownAgeMs <= defaults.expiryMs;
      registered = {
        ...registered,
        peers: members.peers,
        listed: true,
        own: own !== undefined && fresh ? yield* readOwn(backend.get(own), ({ bytes }) => bytes.toString()) : undefined,
      };
    }
    findings.push(...(yield* probe(backend, config, own)));
    if (Either.isRight(listing)) findings.push(costFinding(registered.peers.length + 1));
    return { ...registered, findings };
  }).pipe(Effect.scoped);

/** What the own object says. `text`: of what was got. */
const readOwn = <A>(
  get: Effect.Effect<Option.Option<A>, unknown>,
  text: (got: A) => string,
): Effect.Effect<Registered["own"]> =>
  Effect.match(get, {
    onFailure: () => "unreadable",
    onSuccess: Option.match({
      onNone: () => undefined,
      onSome: (got) => RegistryObject.decode(text(got)) ?? "unreadable",
    }),
  });

/** Listings of nodes stop at the slash: none sees what is below. */
const probeName = (own: Address.Address | undefined): string =>
  `nameq-doctor/${own ?? "unknown"}-${randomBytes(6).toString("hex")}`;

/** Puts, reads and deletes an object of the doctor's own. */
const probe = (
  backend: Backend,
  config: S3Config,
  own: Address.Address | undefined,
): Effect.Effect<ReadonlyArray<Finding>> =>
  Effect.gen(function* () {
    const name = probeName(own);
    const body = "{}\n";
    const key = `${backend.description}${name}`;
    const put = yield* Effect.either(backend.put(name, body));
    if (Either.isLeft(put)) {
      return [
        judgeFailure("put", config, put.left),
        skip("s3-get", "nothing was put that could be read", "first mend what failed"),
        skip("s3-delete", "nothing was put that could be deleted", "first mend what failed"),
      ];
    }
    const findings: Array<Finding> = [ok("s3-put", `${key} was put`)];
    const got = yield* Effect.either(backend.get(name)).pipe(
      // who waits no longer leaves nothing behind either
      Effect.onInterrupt(() => Effect.ignore(Effect.timeout(backend.remove(name), "2 seconds"))),
    );
    if (Either.isLeft(got)) findings.push(judgeFailure("get", config, got.left));
    else if (Option.isNone(got.right) || got.right.value.bytes.toString() !== body) {
      findings.push(
        fail("s3-get", `${key} does not read as it was put`, "use an S3 server that shows what was written at once"),
      );
    } else findings.push(ok("s3-get", "and read"));
    const removed = yield* Effect.either(backend.remove(name));
    if (Either.isLeft(removed)) {
      const finding = judgeFailure("delete", config, removed.left);
      findings.push({ ...finding, message: `${finding.message}; ${key} stays: nodes do not look there` });
    } else findings.push(ok("s3-delete", "and deleted"));
    return findings;
  });

// --- a directory ----------------------------------------------------------------------------------------------------

/** Looks at a directory that all nodes share. */
export const sharedDirectory = (
  place: string,
  own: Address.Address | undefined,
  running: boolean,
): Effect.Effect<Registered> =>
  Effect.gen(function* () {
    const wrong = (cause: unknown): Registered => ({
      ...none,
      findings: [
        fail(
          "registry",
          `${place} cannot be used (${cause instanceof Error ? cause.message : String(cause)})`,
          "make the directory for all nodes' users to write, on a file system with room, or name another with --registry-dir",
        ),
      ],
    });
    // it must not be made by the doctor: a mount may be missing
    if (!fs.existsSync(place)) return wrong("it is not there");
    const registry = yield* S3Registry;
    const listing = yield* Effect.either(registry.list);
    if (Either.isLeft(listing)) return wrong(listing.left);
    const findings: Array<Finding> = [];
    const members = membersOf(listing.right, own);
    findings.push(...members.findings);
    if (own !== undefined) findings.push(...judgeOwn(own, members.ownAgeMs, running));
    // names with a dot are no node's, and not looked at
    const name = path.join(place, `.nameq-doctor-${randomBytes(6).toString("hex")}`);
    try {
      fs.writeFileSync(`${name}.new`, "{}\n", { flag: "wx" });
      fs.renameSync(`${name}.new`, name);
      const body = fs.readFileSync(name, "utf8");
      fs.unlinkSync(name);
      findings.push(
        body === "{}\n"
          ? ok("registry", `a file can be put, read and deleted in ${place}`)
          : fail("registry", `a file in ${place} does not read as it was written`, "check the file system"),
      );
    } catch (cause) {
      findings.push(...wrong(cause).findings);
      // a full disk takes the file, but not what is in it
      fs.rmSync(`${name}.new`, { force: true });
    }
    const fresh = own !== undefined && members.ownAgeMs !== undefined && members.ownAgeMs <= defaults.expiryMs;
    return {
      findings,
      peers: members.peers,
      listed: true,
      own: fresh ? yield* readOwn(registry.get(own), ({ body }) => body) : undefined,
    };
  }).pipe(Effect.provide(S3Registry.layerDirectory({ directory: place })), Effect.provide(Metrics.layer));
