/** What `nameq serve` is told, checked: a plain record. The rules here are pure; `Serve.ts` beside this reads the files. */
import { isIP } from "node:net";
import * as Either from "effect/Either";
import * as Redacted from "effect/Redacted";
import * as Address from "../Address.js";
import * as Feature from "../Feature.js";
import * as Json from "../Json.js";
import type { LogSettings } from "../Logging.js";
import type { SecretSource } from "../Secrets.js";
import type { SyslogTarget } from "../Syslog.js";
import type { Environment } from "./Argv.js";
import * as Defaults from "../Defaults.js";
import type { ServeOptions } from "./Serve.js";
import { UsageError, withoutPassword } from "./UsageError.js";

/** The S3 bucket in which the nodes find each other. */
export interface S3Config {
  readonly _tag: "S3";
  readonly region: string;
  readonly bucket: string;
  /** May be empty. */
  readonly prefix: string;
  /** URL of an S3 server other than AWS. */
  readonly endpoint?: string;
  readonly pathStyle: boolean;
  /** Absent: the SDK looks for them itself. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: Redacted.Redacted };
}

/** The registry of a node. */
export type RegistryConfig = S3Config | { readonly _tag: "Directory"; readonly directory: string };

/** Where a node answers HTTP. */
export interface HttpConfig {
  /** An IP address; a port of 0 lets the system choose one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly tokenFile?: string;
}

/** What is the same with and without `--dev`. */
interface Common {
  /** Absent: to be guessed from the interfaces (with `--dev`: the next free 127.0.0.x). */
  readonly address?: Address.Address;
  readonly port: number;
  /** The features of the command line. */
  readonly features: Feature.FeatureSet;
  readonly acceptSecrets: ReadonlyArray<SecretSource>;
  readonly onExit: "withdraw" | "keep";
  readonly log: LogSettings;
}

/** A node as it runs in production: complete. */
export interface NodeConfig extends Common {
  readonly dev?: undefined;
  readonly featureDir: string;
  readonly stateDir: string;
  readonly secret: SecretSource;
  readonly registry: RegistryConfig;
  /** Absent: it does not. */
  readonly http?: HttpConfig;
}

/** A node under `--dev`: what is absent belongs below the development directory. */
export interface DevConfig extends Common {
  /** `directory` is absent when the user did not name one. */
  readonly dev: { readonly directory?: string };
  readonly featureDir?: string;
  readonly stateDir?: string;
  readonly secret?: SecretSource;
  readonly registry?: RegistryConfig;
  /** `listen` is absent when the user did not name it. */
  readonly http: Partial<HttpConfig> | "off";
}

export type ServeConfig = NodeConfig | DevConfig;

/** Syslog's own port, for both networks. Source: RFC 5426, and what TCP servers commonly listen on. */
const syslogPort = 514;

/** Highest mode id of a secret: from 128 up they name formats of ours. */
const maxMode = 127;

/** `[ID:]REST` split; undefined when the id is none. A REST that starts with digits and a colon needs `./` or an id. */
const withMode = (text: string): { readonly mode: number; readonly rest: string } | undefined => {
  const match = /^(\d+):(.+)$/s.exec(text);
  if (match === null) return { mode: 0, rest: text };
  const mode = Number(match[1]);
  return mode <= maxMode ? { mode, rest: match[2]! } : undefined;
};

const isNatural = (text: string): boolean => /^\d{1,9}$/.test(text);

/** `undefined` also for -1, the existing program's "none". */
const descriptor = (text: string | undefined): string | undefined => (text === "-1" ? undefined : text);

const parsePort = (text: string): number | undefined =>
  isNatural(text) && Number(text) >= 1 && Number(text) <= 65_535 ? Number(text) : undefined;

/** HOST, HOST:PORT or [IPV6]:PORT. */
const parseHostPort = (text: string, port: number): { readonly host: string; readonly port: number } | undefined => {
  if (isIP(text) !== 0) return { host: text, port };
  const match = /^(?:\[([^\]]+)\]|([^:/\s]+))(?::(\d+))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const parsed = match?.[3] === undefined ? port : parsePort(match[3]);
  return host === undefined || parsed === undefined || (match?.[1] !== undefined && isIP(host) !== 6)
    ? undefined
    : { host, port: parsed };
};

/** PORT, IP:PORT or [IPV6]:PORT; `http://` and a slash around it, as in the URL that a node tells, do no harm. */
const parseListen = (text: string): HttpConfig["listen"] | undefined => {
  const [, bare = ""] = /^(?:http:\/\/)?([^/]*)\/?$/.exec(text) ?? [];
  const [, v6, name = "127.0.0.1", digits = ""] = /^(?:\[([^\]]*)\]:|([^:]*):)?(\d+)$/.exec(bare) ?? [];
  const host = v6 ?? (name === "localhost" ? "127.0.0.1" : name);
  const port = digits === "0" ? 0 : parsePort(digits);
  return isIP(host) === (v6 === undefined ? 4 : 6) && port !== undefined ? { host, port } : undefined;
};

const parseUrl = (text: string): URL | undefined => {
  try {
    const url = new URL(text);
    // these would not be used, but shown in messages
    const bare = url.username === "" && url.password === "";
    return /^https?:$/.test(url.protocol) && url.hostname !== "" && bare ? url : undefined;
  } catch {
    return undefined;
  }
};

/** The path or descriptor that holds the S3 credentials, if an option names one that counts. */
export const credentialSource = (options: ServeOptions): string | number | undefined => {
  if (options.s3Bucket === undefined || options.registryDir !== undefined) return undefined;
  const fd = descriptor(options.s3CredFd);
  return options.s3CredFile ?? (fd !== undefined && isNatural(fd) ? Number(fd) : undefined);
};

/**
 * Checks the options of `nameq serve` and puts the defaults in. `credentials` is the content of the S3 credentials file
 * or descriptor, undefined when none is named. All problems are reported at once.
 */
export const validate = (
  options: ServeOptions,
  environment: Environment,
  credentials: string | undefined,
): Either.Either<ServeConfig, UsageError> => {
  const problems: Array<string> = [];
  /** Notes a problem; its value is only used when there is none. */
  const problem = (text: string): undefined => {
    problems.push(text);
  };

  const parseAddress = (text: string): Address.Address | undefined => {
    const address = Address.parse(text);
    if (address === undefined) {
      return problem(`--addr: "${text}" is no IP address; give one such as 10.0.0.1 or fd00::1`);
    }
    if (address === Address.ownHost) {
      return problem(
        "--addr: 127.0.0.1 is the name of own features in every tree; on one machine take 127.0.0.2 and so on",
      );
    }
    return Address.mayBeNode(address)
      ? address
      : problem(`--addr: ${address} can be no host's own address; give a unicast address that is not link-local`);
  };

  const parseFeatures = (text: string): Feature.FeatureSet => {
    const parsed = Feature.parseSet(text);
    if (parsed === "too-many") {
      problem(`--features: more than ${Feature.maxFeatures} of them; give fewer`);
    } else if (Json.isFault(parsed)) {
      problem(
        parsed.reason === "depth"
          ? `--features: nested deeper than ${Json.maxDepth} at character ${parsed.offset + 1}; make it flatter`
          : `--features: not JSON at character ${parsed.offset + 1}; give an object such as '{"web":true}'`,
      );
    } else if (parsed.refused.length > 0) {
      const names = parsed.refused.map((name) => JSON.stringify(name)).join(", ");
      problem(`--features: the name ${names} is not allowed; use 1 to 255 of A-Z a-z 0-9 - _`);
    } else {
      return parsed.set;
    }
    return Feature.empty;
  };

  const secretFile = (flag: string, text: string): SecretSource | undefined => {
    const split = withMode(text);
    return split === undefined
      ? problem(`${flag}: the id in "${text}" is above ${maxMode}; give [ID:]PATH with an id from 0 to ${maxMode}`)
      : { mode: split.mode, from: { _tag: "File", path: split.rest } };
  };

  const secretFd = (text: string): SecretSource | undefined => {
    const split = withMode(text);
    return split === undefined || !isNatural(split.rest)
      ? problem(`--secret-fd: "${text}" is no file descriptor; give [ID:]NUMBER such as 3, and open it (3<FILE)`)
      : { mode: split.mode, from: { _tag: "Descriptor", fd: Number(split.rest) } };
  };

  const parseSecret = (): SecretSource | undefined => {
    const fd = descriptor(options.secretFd);
    if (options.secretFile !== undefined && fd !== undefined) {
      return problem("--secret-file and --secret-fd: only one of them names the secret; leave the other out");
    }
    if (options.secretFile !== undefined) return secretFile("--secret-file", options.secretFile);
    if (fd !== undefined) return secretFd(fd);
    return options.dev ? undefined : problem("--secret-file PATH is needed: the key that all nodes share");
  };

  const parseCredentials = (): S3Config["credentials"] => {
    if (credentials !== undefined) {
      const [accessKeyId, secret, ...more] = credentials.trim().split(/\s+/);
      if (!accessKeyId || secret === undefined || more.length > 0) {
        return problem(
          `${options.s3CredFile === undefined ? "--s3-cred-fd" : "--s3-cred-file"}: it must hold two words, an access key id and a secret key, separated by white space`,
        );
      }
      return { accessKeyId, secretAccessKey: Redacted.make(secret) };
    }
    const standard = [environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]];
    const accessKeyId = standard[0] || environment["AWS_ACCESS_KEY"];
    const secret = standard[1] || environment["AWS_SECRET_KEY"];
    // the standard pair may belong with a session token: the SDK knows
    if ((!accessKeyId && !secret) || (standard[0] && standard[1])) return undefined;
    if (accessKeyId && secret) return { accessKeyId, secretAccessKey: Redacted.make(secret) };
    return problem(
      `${accessKeyId ? "AWS_SECRET_KEY" : "AWS_ACCESS_KEY"} is missing beside ${accessKeyId ? "the access key id" : "the secret key"} in the environment; set both or none`,
    );
  };

  const parseRegistry = (): RegistryConfig | undefined => {
    if (options.registryDir !== undefined) {
      return options.s3Bucket === undefined
        ? { _tag: "Directory", directory: options.registryDir }
        : problem("--registry-dir and --s3-bucket: only one of them is the registry; leave the other out");
    }
    if (options.s3Bucket === undefined) {
      return options.dev
        ? undefined
        : problem("--s3-bucket NAME is needed (or --registry-dir DIR for nodes that share a directory)");
    }
    if (options.s3CredFile !== undefined && descriptor(options.s3CredFd) !== undefined) {
      problem("--s3-cred-file and --s3-cred-fd: only one of them names the credentials; leave the other out");
    } else if (!isNatural(descriptor(options.s3CredFd) ?? "0")) {
      problem(
        `--s3-cred-fd: "${options.s3CredFd}" is no file descriptor; give a number such as 3, and open it (3<FILE)`,
      );
    }
    if (!/^[A-Za-z0-9._-]+$/.test(options.s3Bucket)) {
      problem(`--s3-bucket: "${options.s3Bucket}" is no bucket's name; put what is below the bucket into --s3-prefix`);
    }
    const url = options.s3Endpoint === undefined ? undefined : parseUrl(options.s3Endpoint);
    if (options.s3Endpoint !== undefined && url === undefined) {
      problem(
        options.s3Endpoint.includes("@")
          ? "--s3-endpoint: name and password do not belong there; name a file that holds them with --s3-cred-file"
          : `--s3-endpoint: "${options.s3Endpoint}" is no URL; give one such as https://s3.example.net`,
      );
    }
    // servers other than AWS commonly do not care which region is signed for
    const region = options.s3Region ?? (url === undefined ? undefined : "us-east-1");
    if (region === undefined) {
      problem("--s3-region NAME is needed: where the bucket is, such as eu-west-1");
    } else if (!/^[A-Za-z0-9-]+$/.test(region)) {
      problem(`--s3-region: "${region}" is no region; give one such as eu-west-1`);
    }
    const found = parseCredentials();
    // a bucket's name cannot stand before an IP address
    const bare =
      url !== undefined && (url.hostname === "localhost" || isIP(url.hostname.replace(/^\[(.*)\]$/, "$1")) !== 0);
    return {
      _tag: "S3",
      region: region ?? "",
      bucket: options.s3Bucket,
      prefix: options.s3Prefix ?? "",
      pathStyle: options.s3PathStyle || bare,
      ...(options.s3Endpoint !== undefined && { endpoint: options.s3Endpoint }),
      ...(found !== undefined && { credentials: found }),
    };
  };

  const parseSyslog = (): SyslogTarget | undefined => {
    const { syslog: address, syslogNet: net } = options;
    if (address === undefined) return undefined;
    if (net === undefined) {
      if (address.startsWith("/")) return { _tag: "Local", path: address };
      return address.includes(":")
        ? problem(
            `--syslog: "${withoutPassword(address)}" is a remote server; say --syslog-net udp or --syslog-net tcp`,
          )
        : { _tag: "Local" };
    }
    const parsed = parseHostPort(address, syslogPort);
    return parsed === undefined
      ? problem(
          `--syslog: "${withoutPassword(address)}" is no server; give HOST:PORT such as logs.example.net:${syslogPort}`,
        )
      : { _tag: net === "tcp" ? "Tcp" : "Udp", ...parsed };
  };

  const parseHttp = (): Partial<HttpConfig> | "off" | undefined => {
    const off = options.http === "off";
    const tokenFile = options.httpTokenFile;
    if (tokenFile !== undefined && (off || (options.http === undefined && !options.dev))) {
      return problem("--http-token-file: only with --http ADDR:PORT; add that or leave this out");
    }
    if (off) return "off";
    const listen = options.http === undefined ? undefined : parseListen(options.http);
    if (options.http !== undefined && listen === undefined) {
      return problem(
        `--http: "${withoutPassword(options.http)}" is nowhere to listen; give ADDR:PORT with an IP address of this host, such as 127.0.0.1:17106, or off`,
      );
    }
    return { ...(listen !== undefined && { listen }), ...(tokenFile !== undefined && { tokenFile }) };
  };

  const port = parsePort(options.port ?? String(Defaults.port));
  if (port === undefined) problem(`--port: "${options.port}" is no port; give a number from 1 to 65535`);
  if (options.devDir !== undefined && !options.dev) problem("--dev-dir: only with --dev; add that or leave this out");

  const address = options.addr === undefined ? undefined : parseAddress(options.addr);
  const features = options.features === undefined ? Feature.empty : parseFeatures(options.features);
  const secret = parseSecret();
  const acceptSecrets = options.acceptSecretFile.flatMap((text) => secretFile("--accept-secret-file", text) ?? []);
  const registry = parseRegistry();
  const http = parseHttp() ?? "off";
  const syslog = parseSyslog();
  if (problems.length > 0) return Either.left(new UsageError({ problems }));

  const common: Common = {
    port: port ?? Defaults.port,
    features,
    acceptSecrets,
    onExit: options.onExit === "keep" ? "keep" : "withdraw",
    log: {
      format: (options.logFormat ?? "auto") as LogSettings["format"],
      debug: options.debug,
      ...(syslog !== undefined && { syslog }),
    },
    ...(address !== undefined && { address }),
  };
  if (!options.dev && secret !== undefined && registry !== undefined) {
    return Either.right({
      ...common,
      featureDir: options.featureDir ?? Defaults.featureDir,
      stateDir: options.stateDir ?? Defaults.stateDir,
      secret,
      registry,
      ...(http !== "off" && http.listen !== undefined && { http: { ...http, listen: http.listen } }),
    });
  }
  return Either.right({
    ...common,
    dev: options.devDir === undefined ? {} : { directory: options.devDir },
    http,
    ...(options.featureDir !== undefined && { featureDir: options.featureDir }),
    ...(options.stateDir !== undefined && { stateDir: options.stateDir }),
    ...(secret !== undefined && { secret }),
    ...(registry !== undefined && { registry }),
  });
};
