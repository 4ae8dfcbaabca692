/** The files that `nameq serve` is told of: the credentials are read, the secrets only looked at. */
import * as Effect from "effect/Effect";
import * as Either from "effect/Either";
import { accessSync, constants, fstatSync, readFileSync, statSync } from "node:fs";
import type { Environment } from "./Argv.js";
import type { ServeOptions } from "./Serve.js";
import { credentialSource, type ServeConfig, validate } from "./ServeConfig.js";
import { UsageError, usageError } from "./UsageError.js";

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "it is not there; check the path",
  EACCES: "this user may not read it; change its owner or mode",
  EISDIR: "it is a directory; name a file",
  EBADF: "it is not open; open it when you start the program, such as 3<FILE",
};

const problemWith = (source: string | number, cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
  return `${typeof source === "number" ? `file descriptor ${source}` : source} cannot be read: ${reasons[code] ?? code}`;
};

/** What is wrong with a secret's source, judged without reading it: a descriptor can be read only once. */
const secretProblem = (source: string | number): ReadonlyArray<string> => {
  try {
    if (typeof source === "string") accessSync(source, constants.R_OK);
    const stats = typeof source === "string" ? statSync(source) : fstatSync(source);
    if (stats.isDirectory()) return [problemWith(source, "EISDIR")];
    // Node has descriptors of its own, of kinds that nothing is read from
    const readable = stats.isFile() || stats.isFIFO() || stats.isSocket() || stats.isCharacterDevice();
    return readable ? [] : [problemWith(source, "EBADF")];
  } catch (cause) {
    return [problemWith(source, cause)];
  }
};

/** The configuration that the options and the files that they name make. */
export const resolve = (options: ServeOptions, environment: Environment): Effect.Effect<ServeConfig, UsageError> =>
  Effect.gen(function* () {
    const source = credentialSource(options);
    const credentials =
      source === undefined
        ? undefined
        : yield* Effect.try({
            try: () => readFileSync(source, "utf8"),
            catch: (cause) => usageError(`the S3 credentials: ${problemWith(source, cause)}`),
          });
    const config = yield* validate(options, environment, credentials).pipe(
      Either.match({ onLeft: Effect.fail, onRight: Effect.succeed }),
    );
    const problems = [...(config.secret === undefined ? [] : [config.secret]), ...config.acceptSecrets]
      .flatMap(({ from }) => secretProblem(from._tag === "File" ? from.path : from.fd))
      .map((problem) => `the secret: ${problem}`);
    const token = config.http === "off" ? undefined : config.http?.tokenFile;
    if (token !== undefined) problems.push(...secretProblem(token).map((problem) => `the HTTP token: ${problem}`));
    if (problems.length > 0) return yield* new UsageError({ problems });
    return config;
  });
