import { afterAll, assert, describe, it } from "@effect/vitest";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Redacted from "effect/Redacted";
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Cli from "../src/Cli.js";
import type { Environment } from "../src/Cli/Argv.js";
import type { ServeConfig } from "../src/Cli/ServeConfig.js";

const directory = mkdtempSync(join(tmpdir(), "nameq-cli-"));
afterAll(() => rmSync(directory, { recursive: true }));

const file = (name: string, content: string): string => {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
};
const secret = file("secret", "0123456789abcdef");
const other = file("other", "fedcba9876543210");
const credentials = file("credentials", "KEYID\nTOPSECRET\n");

/** The configuration that `nameq serve` hands to the node, or what is reported instead. */
const serve = (argv: ReadonlyArray<string>, environment: Environment = {}): Effect.Effect<ServeConfig | Cli.Report> =>
  Effect.gen(function* () {
    let config: ServeConfig | undefined;
    const line = ["serve", ...argv];
    const exit = yield* Effect.exit(
      Cli.run(line, {
        environment,
        version: "0.0.0",
        loadNode: () =>
          Promise.resolve({
            serve: (given) =>
              Effect.sync(() => {
                config = given;
              }),
          }),
      }),
    );
    return Exit.isFailure(exit) ? Cli.report(line, exit.cause) : config!;
  });

/** For comparison: chai cannot see into Redacted. */
const plain = (result: ServeConfig | Cli.Report): unknown =>
  "registry" in result && result.registry?._tag === "S3" && result.registry.credentials !== undefined
    ? { ...result, registry: { ...result.registry, credentials: plainKeys(result.registry.credentials) } }
    : result;

const plainKeys = (keys: { readonly accessKeyId: string; readonly secretAccessKey: Redacted.Redacted }) => [
  keys.accessKeyId,
  Redacted.value(keys.secretAccessKey),
];

const needed = ["--secret-file", secret, "--registry-dir", "/r"];
const s3 = ["--secret-file", secret, "--s3-bucket", "B", "--s3-region", "eu-west-1"];

const minimal = {
  port: 17106,
  features: { text: "{}", entries: new Map() },
  featureDir: "/etc/nameq/features",
  stateDir: "/run/nameq/state",
  secret: { mode: 0, from: { _tag: "File", path: secret } },
  acceptSecrets: [],
  registry: { _tag: "Directory", directory: "/r" },
  onExit: "withdraw",
  log: { format: "auto", debug: false },
};
const bucket = { _tag: "S3", region: "eu-west-1", bucket: "B", prefix: "", pathStyle: false };

/** What differs from `minimal` in the configuration of a command line. */
const cases: ReadonlyArray<{
  readonly what: string;
  readonly argv: ReadonlyArray<string>;
  readonly old?: ReadonlyArray<string>;
  readonly environment?: Environment;
  readonly config: object;
}> = [
  { what: "only what is needed", argv: needed, old: ["-secretfile", secret, "-registry-dir=/r"], config: {} },
  {
    what: "--addr",
    argv: [...needed, "--addr", "10.0.0.1"],
    old: [...needed, "-addr=10.0.0.1"],
    environment: { NAMEQ_ADDR: "10.0.0.1" },
    config: { address: "10.0.0.1" },
  },
  {
    what: "--addr in another spelling",
    argv: [...needed, "--addr=FD00:0::1"],
    config: { address: "fd00::1" },
  },
  {
    what: "--port",
    argv: [...needed, "--port", "1"],
    old: [...needed, "-port=1"],
    environment: { NAMEQ_PORT: "1" },
    config: { port: 1 },
  },
  {
    what: "--features",
    argv: [...needed, "--features", '{"b": 1e400, "a":true}'],
    old: [...needed, '-features={"b": 1e400, "a":true}'],
    environment: { NAMEQ_FEATURES: '{"b": 1e400, "a":true}' },
    config: {
      features: {
        text: '{"b": 1e400, "a":true}',
        entries: new Map([
          ["b", "1e400"],
          ["a", "true"],
        ]),
      },
    },
  },
  {
    what: "--feature-dir and --state-dir",
    argv: [...needed, "--feature-dir", "/f", "--state-dir", "/s"],
    old: [...needed, "-featuredir=/f", "-statedir", "/s"],
    environment: { NAMEQ_FEATURE_DIR: "/f", NAMEQ_STATE_DIR: "/s" },
    config: { featureDir: "/f", stateDir: "/s" },
  },
  {
    what: "--on-exit",
    argv: [...needed, "--on-exit", "keep"],
    environment: { NAMEQ_ON_EXIT: "keep" },
    config: { onExit: "keep" },
  },
  {
    what: "a secret's id",
    argv: ["--secret-file", `127:${secret}`, "--registry-dir", "/r"],
    old: ["-secretfile", `127:${secret}`, "-registry-dir", "/r"],
    environment: { NAMEQ_SECRET_FILE: `127:${secret}` },
    config: { secret: { mode: 127, from: { _tag: "File", path: secret } } },
  },
  {
    what: "--accept-secret-file twice",
    argv: [...needed, "--accept-secret-file", secret, "--accept-secret-file", `1:${other}`],
    environment: { NAMEQ_ACCEPT_SECRET_FILE: `${secret},1:${other}` },
    config: {
      acceptSecrets: [
        { mode: 0, from: { _tag: "File", path: secret } },
        { mode: 1, from: { _tag: "File", path: other } },
      ],
    },
  },
  {
    what: "a bucket",
    argv: s3,
    old: ["-secretfile", secret, "-s3bucket=B", "--s3region=eu-west-1"],
    environment: { NAMEQ_S3_BUCKET: "B", NAMEQ_S3_REGION: "eu-west-1", AWS_REGION: "us-east-2" },
    config: { registry: bucket },
  },
  {
    what: "a prefix",
    argv: [...s3, "--s3-prefix", "p/q"],
    old: [...s3, "-s3prefix=p/q"],
    environment: { NAMEQ_S3_BUCKET: "B", AWS_DEFAULT_REGION: "eu-west-1", NAMEQ_S3_PREFIX: "p/q" },
    config: { registry: { ...bucket, prefix: "p/q" } },
  },
  {
    what: "another server",
    argv: [...s3, "--s3-endpoint", "https://s3.example.net", "--s3-path-style"],
    environment: {
      NAMEQ_S3_BUCKET: "B",
      NAMEQ_S3_REGION: "eu-west-1",
      NAMEQ_S3_ENDPOINT: "https://s3.example.net",
      NAMEQ_S3_PATH_STYLE: "1",
    },
    config: { registry: { ...bucket, endpoint: "https://s3.example.net", pathStyle: true } },
  },
  {
    what: "a server without a name and a region",
    argv: ["--secret-file", secret, "--s3-bucket", "B", "--s3-endpoint", "http://[::1]:9000"],
    config: { registry: { ...bucket, region: "us-east-1", endpoint: "http://[::1]:9000", pathStyle: true } },
  },
  {
    what: "credentials in a file",
    argv: [...s3, "--s3-cred-file", credentials],
    old: [...s3, "-s3credfile", credentials],
    environment: {
      NAMEQ_S3_BUCKET: "B",
      NAMEQ_S3_REGION: "eu-west-1",
      NAMEQ_S3_CRED_FILE: credentials,
      AWS_ACCESS_KEY: "a",
      AWS_SECRET_KEY: "b",
    },
    config: { registry: { ...bucket, credentials: ["KEYID", "TOPSECRET"] } },
  },
  {
    what: "credentials in the environment",
    argv: s3,
    environment: { NAMEQ_S3_BUCKET: "B", NAMEQ_S3_REGION: "eu-west-1", AWS_ACCESS_KEY_ID: "", AWS_SECRET_KEY: "" },
    config: { registry: bucket },
  },
  {
    what: "--debug and --log-format",
    argv: [...needed, "--debug", "--log-format", "json"],
    old: [...needed, "-debug=true", "-log-format=json"],
    environment: { NAMEQ_DEBUG: "true", NAMEQ_LOG_FORMAT: "json" },
    config: { log: { format: "json", debug: true } },
  },
  {
    what: "--syslog over UDP",
    argv: [...needed, "--syslog", "127.0.0.1:9", "--syslog-net", "udp"],
    old: [...needed, "-syslog=127.0.0.1:9", "-syslognet=udp"],
    environment: { NAMEQ_SYSLOG: "127.0.0.1:9", NAMEQ_SYSLOG_NET: "udp" },
    config: { log: { format: "auto", debug: false, syslog: { _tag: "Udp", host: "127.0.0.1", port: 9 } } },
  },
  {
    what: "--syslog without a port",
    argv: [...needed, "--syslog", "::1", "--syslog-net", "udp"],
    config: { log: { format: "auto", debug: false, syslog: { _tag: "Udp", host: "::1", port: 514 } } },
  },
  {
    what: "--http",
    argv: [...needed, "--http", "127.0.0.9:80", "--http-token-file", secret],
    environment: { NAMEQ_HTTP: "127.0.0.9:80", NAMEQ_HTTP_TOKEN_FILE: secret },
    config: { http: { listen: { host: "127.0.0.9", port: 80 }, tokenFile: secret } },
  },
  {
    what: "--http with a port alone",
    argv: [...needed, "--http", "0"],
    config: { http: { listen: { host: "127.0.0.1", port: 0 } } },
  },
  {
    what: "--http with an IPv6 address",
    argv: [...needed, "--http", "[::]:17106"],
    config: { http: { listen: { host: "::", port: 17106 } } },
  },
  {
    what: "the URL that another node tells",
    argv: [...needed, "--http", "http://localhost:17106/"],
    config: { http: { listen: { host: "127.0.0.1", port: 17106 } } },
  },
  { what: "--http off", argv: [...needed, "--http", "off"], environment: { NAMEQ_HTTP: "off" }, config: {} },
  {
    what: "what the existing program takes for not given",
    argv: [...needed, "-secretfd=-1", "-s3credfd", "-1", "-syslognet", "tcp", "-s3prefix=", "-features="],
    config: {},
  },
];

describe("nameq serve", () => {
  for (const { argv, config, environment, old, what } of cases) {
    it.effect(`understands ${what}`, () =>
      Effect.gen(function* () {
        const expected = { ...minimal, ...config };
        assert.deepStrictEqual(plain(yield* serve(argv)), expected);
        if (old !== undefined) assert.deepStrictEqual(plain(yield* serve(old)), expected);
        if (environment !== undefined) {
          const base = { NAMEQ_SECRET_FILE: secret, ...("registry" in config ? {} : { NAMEQ_REGISTRY_DIR: "/r" }) };
          assert.deepStrictEqual(plain(yield* serve([], { ...base, ...environment })), expected);
        }
      }),
    );
  }

  it.effect(
    "takes the existing program's pair of variables for credentials, and leaves the standard pair to the SDK",
    () =>
      Effect.gen(function* () {
        const registry = Effect.fnUntraced(function* (environment: Environment) {
          const config = yield* serve(s3, environment);
          assert("registry" in config && config.registry?._tag === "S3");
          return config.registry.credentials && plainKeys(config.registry.credentials);
        });
        const expected = ["a", "b"];
        assert.deepStrictEqual(yield* registry({ AWS_ACCESS_KEY: "a", AWS_SECRET_KEY: "b" }), expected);
        assert.deepStrictEqual(yield* registry({ AWS_ACCESS_KEY_ID: "a", AWS_SECRET_KEY: "b" }), expected);
        assert.isUndefined(
          yield* registry({ AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_ACCESS_KEY: "c" }),
        );
      }),
  );

  it.effect("reads secrets from descriptors that are open", () =>
    Effect.gen(function* () {
      const fd = yield* Effect.acquireRelease(
        Effect.sync(() => openSync(secret, "r")),
        (fd) => Effect.sync(() => closeSync(fd)),
      );
      const expected = (mode: number) => ({ ...minimal, secret: { mode, from: { _tag: "Descriptor", fd } } });
      assert.deepStrictEqual<unknown>(yield* serve(["-secretfd", `${fd}`, "-registry-dir=/r"]), expected(0));
      assert.deepStrictEqual<unknown>(yield* serve(["--secret-fd", `5:${fd}`, "--registry-dir=/r"]), expected(5));
    }).pipe(Effect.scoped),
  );

  it.effect("reads credentials from a descriptor", () =>
    Effect.gen(function* () {
      const fd = yield* Effect.acquireRelease(
        Effect.sync(() => openSync(credentials, "r")),
        (fd) => Effect.sync(() => closeSync(fd)),
      );
      const config = yield* serve([...s3, "-s3credfd", `${fd}`]);
      assert("registry" in config && config.registry?._tag === "S3");
      assert.strictEqual(config.registry.credentials?.accessKeyId, "KEYID");
    }).pipe(Effect.scoped),
  );

  it.effect("needs nothing under --dev, and keeps what is given", () =>
    Effect.gen(function* () {
      const { featureDir: _, stateDir: __, secret: ___, registry: ____, ...bare } = minimal;
      assert.deepStrictEqual<unknown>(yield* serve(["--dev"]), { ...bare, dev: {}, http: {} });
      assert.deepStrictEqual<unknown>(yield* serve([], { NAMEQ_DEV: "1", NAMEQ_DEV_DIR: "/d" }), {
        ...bare,
        dev: { directory: "/d" },
        http: {},
      });
      assert.deepStrictEqual<unknown>(
        yield* serve(["--dev", ...needed, "--dev-dir=/d", "--feature-dir=/f", "--state-dir=/s"]),
        { ...minimal, featureDir: "/f", stateDir: "/s", dev: { directory: "/d" }, http: {} },
      );
      assert.deepStrictEqual<unknown>(yield* serve(["--dev", "--http=off"]), { ...bare, dev: {}, http: "off" });
      assert.deepStrictEqual<unknown>(yield* serve(["--dev", "--http=81", "--http-token-file", secret]), {
        ...bare,
        dev: {},
        http: { listen: { host: "127.0.0.1", port: 81 }, tokenFile: secret },
      });
      assert.deepStrictEqual<unknown>(yield* serve(["--dev", "--http-token-file", secret]), {
        ...bare,
        dev: {},
        http: { tokenFile: secret },
      });
    }),
  );

  it.effect("shows credentials nowhere", () =>
    Effect.gen(function* () {
      const config = yield* serve([...s3, "--s3-cred-file", credentials]);
      assert.notInclude(JSON.stringify(config), "TOPSECRET");
      assert.notInclude(String(config), "TOPSECRET");
      const broken = file("broken", "KEYID TOPSECRET more");
      assert.notInclude(JSON.stringify(yield* serve([...s3, "--s3-cred-file", broken])), "TOPSECRET");
    }),
  );

  const subdirectory = join(directory, "sub");
  mkdirSync(subdirectory);
  const without = (option: string, from: ReadonlyArray<string>): ReadonlyArray<string> => {
    const at = from.indexOf(option);
    return [...from.slice(0, at), ...from.slice(at + 2)];
  };
  const refusals: ReadonlyArray<
    readonly [argv: ReadonlyArray<string>, says: ReadonlyArray<string>, environment?: Environment]
  > = [
    [
      [...needed, "--addr", "host"],
      ["--addr", "host", "10.0.0.1"],
    ],
    [
      [...needed, "--addr", "127.0.0.1"],
      ["--addr", "127.0.0.2"],
    ],
    [
      [...needed, "--addr", "224.0.0.1"],
      ["--addr", "unicast"],
    ],
    [
      [...needed, "--addr", "fe80::1%eth0"],
      ["--addr", "fe80::1%eth0"],
    ],
    ...[
      "",
      ":80",
      "host:80",
      "1.2.3:80",
      "::1:80",
      "[127.0.0.1]:80",
      "127.0.0.1",
      "80x",
      "65536",
      "-1",
      "http://x/y",
    ].map(
      (text) =>
        [
          [...needed, `--http=${text || " "}`],
          ["--http", "ADDR:PORT", "off"],
        ] as const,
    ),
    [
      [...needed, "--http-token-file", secret],
      ["--http-token-file", "--http ADDR:PORT"],
    ],
    [
      [...needed, "--http=off", "--http-token-file", secret],
      ["--http-token-file", "--http ADDR:PORT"],
    ],
    [
      [...needed, "--http=80", "--http-token-file", join(directory, "none")],
      ["the HTTP token", "it is not there"],
    ],
    [
      [...needed, "--port", "0"],
      ["--port", "1 to 65535"],
    ],
    [
      [...needed, "--port", "65536"],
      ["--port", "1 to 65535"],
    ],
    [
      [...needed, "--port", "1e3"],
      ["--port", "1 to 65535"],
    ],
    [
      [...needed, "--features", "{"],
      ["--features", "not JSON at character 2"],
    ],
    [
      [...needed, "--features", "[]"],
      ["--features", "not JSON at character 1"],
    ],
    [
      [...needed, "--features", '{"a b":1}'],
      ["--features", '"a b"', "A-Z a-z 0-9 - _"],
    ],
    [
      [...needed, "--features", `{"a":${"[".repeat(70)}`],
      ["--features", "deeper than 64"],
    ],
    [
      [...needed, "--features", `{${Array.from({ length: 4097 }, (_, i) => `"f${i}":1`).join()}}`],
      ["--features", "more than 4096"],
    ],
    [["--registry-dir", "/r"], ["--secret-file PATH is needed"]],
    [[...needed, "--secret-fd", "3"], ["--secret-file and --secret-fd"]],
    [
      ["--secret-fd", "x", "--registry-dir", "/r"],
      ["--secret-fd", "3<FILE"],
    ],
    [
      ["--secret-fd", "999999", "--registry-dir", "/r"],
      ["999999", "not open"],
    ],
    [
      ["--secret-file", "128:/x", "--registry-dir", "/r"],
      ["--secret-file", "0 to 127"],
    ],
    [
      [...needed, "--accept-secret-file", "300:/x"],
      ["--accept-secret-file", "0 to 127"],
    ],
    [
      ["--secret-file", "/not/there", "--registry-dir", "/r"],
      ["/not/there", "not there"],
    ],
    [
      [...needed, "--accept-secret-file", subdirectory],
      [subdirectory, "is a directory"],
    ],
    [without("--registry-dir", needed), ["--s3-bucket NAME is needed", "--registry-dir"]],
    [[...needed, "--s3-bucket", "B"], ["--registry-dir and --s3-bucket"]],
    [without("--s3-region", s3), ["--s3-region NAME is needed"]],
    [
      [...s3, "--s3-region", "eu west"],
      ["--s3-region", "eu-west-1"],
    ],
    [
      [...s3, "--s3-bucket", "b/prefix"],
      ["--s3-bucket", "--s3-prefix"],
    ],
    [
      [...s3, "--s3-endpoint", "s3.example.net:9000"],
      ["--s3-endpoint", "https://"],
    ],
    [
      [...s3, "--s3-endpoint", "https://name:word@s3.example.net"],
      ["--s3-endpoint: name and password", "--s3-cred-file"],
    ],
    [
      [...s3, "--s3-cred-file", "/not/there"],
      ["/not/there", "not there"],
    ],
    [
      [...s3, "--s3-cred-file", subdirectory],
      [subdirectory, "is a directory"],
    ],
    [
      [...s3, "--s3-cred-file", secret],
      ["--s3-cred-file", "two words"],
    ],
    [[...s3, "--s3-cred-file", credentials, "--s3-cred-fd", "3"], ["--s3-cred-file and --s3-cred-fd"]],
    [
      [...s3, "--s3-cred-fd", "x"],
      ["--s3-cred-fd", "3<FILE"],
    ],
    [
      [...s3, "--s3-cred-fd", "999999"],
      ["999999", "not open"],
    ],
    [s3, ["AWS_SECRET_KEY", "missing"], { AWS_ACCESS_KEY: "a" }],
    [s3, ["AWS_ACCESS_KEY", "missing"], { AWS_SECRET_KEY: "b" }],
    [
      [...needed, "--on-exit", "leave"],
      ["--on-exit", "withdraw, keep"],
    ],
    [
      [...needed, "--log-format", "xml"],
      ["--log-format", "auto, pretty, logfmt, json"],
    ],
    [
      [...needed, "--syslog", "host:1"],
      ["--syslog", "--syslog-net udp"],
    ],
    [
      [...needed, "--syslog", "host:x", "--syslog-net", "udp"],
      ["--syslog", "HOST:PORT"],
    ],
    [
      [...needed, "--syslog", "host", "--syslog-net", "quic"],
      ["--syslog-net", "tcp, udp"],
    ],
    [
      [...needed, "--dev-dir", "/d"],
      ["--dev-dir", "--dev"],
    ],
    [[...needed, "operand"], ["operand"]],
    [[...needed, "--colour"], ["--colour"]],
    [needed, ["NAMEQ_DEBUG", "maybe"], { NAMEQ_DEBUG: "maybe" }],
  ];
  for (const [argv, says, environment] of refusals) {
    const line = argv
      .filter((arg) => !needed.includes(arg) && !s3.includes(arg))
      .join(" ")
      .slice(0, 60);
    it.effect(`refuses ${line || "what is not enough"} and says ${says[0]}`, () =>
      Effect.gen(function* () {
        const report = yield* serve(argv, environment);
        assert("status" in report);
        assert.strictEqual(report.status, 2);
        for (const word of says) assert.include(report.text, word);
        assert.match(report.text, /^(nameq serve: .*\n)+Usage: nameq serve .*\nTry: nameq serve --help\n$/);
      }),
    );
  }

  it.effect("refuses a secret that this user may not read", (context) =>
    Effect.gen(function* () {
      if (process.getuid?.() === 0) return context.skip("root may read everything");
      const closed = file("closed", "x");
      chmodSync(closed, 0);
      const report = yield* serve(["--secret-file", closed, "--registry-dir", "/r"]);
      assert("status" in report);
      assert.include(report.text, "may not read it");
    }),
  );

  it.effect("reports all problems at once", () =>
    Effect.gen(function* () {
      const report = yield* serve(["--port", "x", "--addr", "y"]);
      assert("text" in report);
      for (const word of ["--port", "--addr", "--secret-file", "--s3-bucket"]) assert.include(report.text, word);
    }),
  );
});

describe("report", () => {
  it("names the command, and gives a failure status 1", () => {
    assert.deepStrictEqual(Cli.report(["serve"], Cause.fail(new Error("the disk is full"))), {
      status: 1,
      text: "nameq serve: the disk is full\n",
    });
  });

  it("tells of a defect without its stack", () => {
    assert.deepStrictEqual(Cli.report(["feature"], Cause.die(new TypeError("x is not a function"))), {
      status: 1,
      text: "nameq feature: x is not a function\n",
    });
  });

  it("takes a signal for the end of a node, and for a failure of other commands", () => {
    const interrupted = Effect.runSync(Effect.fiberIdWith((id) => Effect.succeed(Cause.interrupt(id))));
    assert.deepStrictEqual(Cli.report(["serve"], interrupted), { status: 0, text: "" });
    assert.deepStrictEqual(Cli.report(["feature"], interrupted), { status: 130, text: "" });
  });
});
