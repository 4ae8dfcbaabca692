/** The doctor's look at this host: address, port, keys, directories, limits of the kernel. */
import { createSecretKey, type KeyObject } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import * as fs from "node:fs";
import { networkInterfaces } from "node:os";
import * as path from "node:path";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import * as Address from "../Address.js";
import * as Feature from "../Feature.js";
import { isFileFault, readFile } from "../FeatureSource.js";
import type { SecretSource } from "../Secrets.js";
import { fail, type Finding, ok, skip, warn } from "./DoctorFinding.js";

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);

// --- address and port -----------------------------------------------------------------------------------------------

const socketOf = (address: Address.Address): Effect.Effect<Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      createSocket({ type: Address.family(address) === 6 ? "udp6" : "udp4", ipv6Only: Address.family(address) === 6 }),
    ),
    (socket) => Effect.async<void>((resume) => void socket.close(() => resume(Effect.void))),
  );

/** Binds a socket for a moment: the code of the failure, if it fails. */
export const bindFault = (address: Address.Address, port: number): Effect.Effect<string | undefined> =>
  Effect.scoped(
    Effect.flatMap(socketOf(address), (socket) =>
      Effect.async<string | undefined>((resume) => {
        socket.on("error", (cause) => resume(Effect.succeed(codeOf(cause))));
        socket.bind({ address, port, exclusive: true }, () => resume(Effect.succeed(undefined)));
      }),
    ),
  );

/** The address that the kernel takes for datagrams to `peer`, or the code of what it says instead. */
export const sourceFor = (peer: Address.Address): Effect.Effect<string> =>
  Effect.scoped(
    Effect.flatMap(socketOf(peer), (socket) =>
      Effect.async<string>((resume) => {
        socket.on("error", (cause) => resume(Effect.succeed(codeOf(cause))));
        // nothing is sent. Without a callback, which would be called for a failure too
        socket.on("connect", () => resume(Effect.succeed(socket.address().address)));
        socket.connect(9, peer);
      }),
    ),
  );

const interfaceOf = (address: Address.Address): string | undefined =>
  Object.entries(networkInterfaces()).find(([, all]) =>
    all?.some((each) => Address.parse(each.address) === address),
  )?.[0];

/** The address itself. `fault`: of a bind to any port of it. Pure. */
export const judgeAddress = (
  address: Address.Address,
  fault: string | undefined,
  on: string | undefined,
  dev: boolean,
): Finding => {
  if (fault === "EADDRNOTAVAIL") {
    return fail("address", `${address} is not an address of this host`, "name one that is with --addr (ip address)");
  }
  if (fault === "EAFNOSUPPORT") {
    return fail(
      "address",
      `this host has no IPv${Address.family(address)}`,
      "name an address of the other family with --addr",
    );
  }
  if (fault !== undefined) return fail("address", `a socket cannot be bound to ${address} (${fault})`, "check --addr");
  if (Address.isLoopback(address) && !dev) {
    return warn(
      "address",
      `${address} is a loopback address: only nodes of this host can be its peers`,
      "name the address that other hosts reach with --addr",
    );
  }
  return ok("address", `${address} is an address of this host${on === undefined ? "" : ` (${on})`}`);
};

/** Looks at the address. */
export const address = (own: Address.Address, dev: boolean): Effect.Effect<Finding> =>
  Effect.map(bindFault(own, 0), (fault) => judgeAddress(own, fault, interfaceOf(own), dev));

/** Whether datagrams to a peer leave from the node's address. Pure. */
export const judgeSource = (own: Address.Address, peer: Address.Address, source: string): Finding => {
  if (!Address.mayBePeer(peer, own) || (Address.isLoopback(own) && !Address.isLoopback(peer))) {
    return fail(
      "route",
      `${own} can have no peer at ${peer}`,
      "name an address that the other nodes reach with --addr",
    );
  }
  // on one host any loopback address reaches any other
  if (source === own || Address.isLoopback(own)) return ok("route", `datagrams to ${peer} leave from ${own}`);
  return source.startsWith("E")
    ? fail("route", `there is no way to ${peer} (${source})`, "check this host's routes (ip route get)")
    : warn(
        "route",
        `the kernel would send to ${peer} from ${source}, not from ${own}: answers may be lost on the way`,
        `name ${source} with --addr, or mend the routes (ip route get ${peer})`,
      );
};

/** `running`: whether the node runs; undefined: that cannot be seen. Pure. */
export const judgePort = (
  own: Address.Address,
  port: number,
  fault: string | undefined,
  running: boolean | undefined,
): Finding => {
  const where = `UDP port ${port} of ${own}`;
  if (fault === undefined) {
    return running
      ? fail("port", `a node runs, but ${where} is free`, "give the doctor the --addr and --port that the node has")
      : ok("port", `${where} is free: no node has it`);
  }
  if (fault === "EADDRINUSE") {
    if (running === undefined) {
      return skip(
        "port",
        `${where} is in use, by the node as it seems`,
        "run the doctor as the node's user or as root",
      );
    }
    return running
      ? ok("port", `the node has ${where}`)
      : fail(
          "port",
          `${where} is in use by a program that is not this node`,
          `stop it (ss -ulpn 'sport = :${port}' names it), or take another --port on all nodes`,
        );
  }
  if (fault === "EACCES" || fault === "EPERM") {
    return fail(
      "port",
      `no permission to open ${where}`,
      "take a --port above 1023 on all nodes, or give the node CAP_NET_BIND_SERVICE",
    );
  }
  return fail("port", `${where} cannot be opened (${fault})`, "check --addr and --port");
};

// --- keys -----------------------------------------------------------------------------------------------------------

/** Shorter keys can be guessed. Bytes. */
const leastKeyBytes = 16;

/** A key's bytes and its file's mode. The bytes are in no finding. Pure. */
export const judgeKey = (name: string, bytes: Buffer, mode: number | undefined): ReadonlyArray<Finding> => {
  if (bytes.length === 0) {
    return [
      fail(
        "secret",
        `${name} is empty: every host could forge announcements`,
        "put at least 16 random bytes there (head -c 32 /dev/urandom)",
      ),
    ];
  }
  const findings: Array<Finding> = [];
  if (bytes.length < leastKeyBytes) {
    findings.push(
      warn(
        "secret",
        `${name} has only ${bytes.length} bytes`,
        `use at least ${leastKeyBytes} random ones on all nodes (head -c 32 /dev/urandom)`,
      ),
    );
  }
  const last = bytes.at(-1);
  if (last === 10 || last === 13) {
    findings.push(
      warn(
        "secret",
        `${name} ends with a newline, which is a byte of the key`,
        "make sure that the file is the same to the last byte on all nodes (sha256sum)",
      ),
    );
  }
  if (mode !== undefined && (mode & 0o007) !== 0) {
    findings.push(
      warn(
        "secret",
        `every user of this host may use ${name} (mode ${(mode & 0o777).toString(8)})`,
        `chmod o= ${name}`,
      ),
    );
  }
  return findings.length > 0 ? findings : [ok("secret", `${name} can be read, and only by its owner and group`)];
};

/** A key that was read. */
export interface ReadKey {
  readonly mode: number;
  readonly secret: KeyObject;
}

/** Looks at one key, and gives it. */
export const key = ({ from, mode }: SecretSource): readonly [ReadKey | undefined, ReadonlyArray<Finding>] => {
  const name = from._tag === "File" ? from.path : `file descriptor ${from.fd}`;
  try {
    const source = from._tag === "File" ? from.path : from.fd;
    const bytes = fs.readFileSync(source);
    const fileMode = from._tag === "File" ? fs.statSync(from.path).mode : undefined;
    const usable = bytes.length === 0 ? undefined : { mode, secret: createSecretKey(bytes) };
    return [usable, judgeKey(name, bytes, fileMode)];
  } catch (cause) {
    return [
      undefined,
      [
        fail(
          "secret",
          `${name} cannot be read (${codeOf(cause)})`,
          "check the path, and that the node's user may read it",
        ),
      ],
    ];
  }
};

// --- directories ----------------------------------------------------------------------------------------------------

/** Room below which writing soon fails, bytes and files. */
const leastBytes = 1024 * 1024;
const fewBytes = 16 * 1024 * 1024;
const fewFiles = 1_000;

/** File systems of other hosts, by their number in `statfs`. Source: Linux, include/uapi/linux/magic.h, fs/smb/client. */
const remote: ReadonlyMap<number, string> = new Map([
  [0x6969, "NFS"],
  [0x517b, "SMB"],
  [0xfe534d42, "SMB"],
  [0xff534d42, "CIFS"],
  [0x01021997, "9P"],
  [0x5346414f, "AFS"],
  [0x00c36400, "Ceph"],
  [0x0bd00bd0, "Lustre"],
]);

/** What `statfs` tells. */
export interface Room {
  readonly type: number;
  readonly bsize: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
}

/** The file system of a directory. Pure. */
export const judgeRoom = (check: string, directory: string, room: Room): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = [];
  const bytes = room.bavail * room.bsize;
  const mb = `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
  if (bytes < leastBytes)
    findings.push(fail(check, `the file system of ${directory} is full (${mb} left)`, "make room there (df)"));
  else if (bytes < fewBytes)
    findings.push(warn(check, `the file system of ${directory} has only ${mb} left`, "make room there (df)"));
  // some file systems have no fixed number of them
  if (room.files > 0 && room.ffree === 0) {
    findings.push(
      fail(check, `the file system of ${directory} can hold no more files`, "remove some, or make it larger (df -i)"),
    );
  } else if (room.files > 0 && room.ffree < fewFiles) {
    findings.push(
      warn(
        check,
        `the file system of ${directory} can hold only ${room.ffree} more files`,
        "remove some, or make it larger (df -i)",
      ),
    );
  }
  const kind = remote.get(room.type >>> 0);
  if (kind !== undefined) {
    findings.push(
      warn(
        check,
        `${directory} is on ${kind}: programs on other hosts do not hear of changes there, and its lock holds on this host alone`,
        "use a local directory, best on tmpfs below /run",
      ),
    );
  }
  return findings;
};

/** The nearest directory above that is there. */
const ancestor = (directory: string): string => {
  const parent = path.dirname(directory);
  return parent === directory || fs.existsSync(parent) ? parent : ancestor(parent);
};

const accessFault = (place: string, mode: number): string | undefined => {
  try {
    fs.accessSync(place, mode);
    return undefined;
  } catch (cause) {
    return codeOf(cause);
  }
};

const { R_OK, W_OK, X_OK } = fs.constants;

/** Looks at a directory. `access` tells the code of what stands against a use of a place. */
export const directory = (
  check: "feature-dir" | "state-dir",
  place: string,
  access = accessFault,
): ReadonlyArray<Finding> => {
  const state = check === "state-dir";
  try {
    const stat = fs.statSync(place, { throwIfNoEntry: false });
    if (stat === undefined) {
      const above = ancestor(place);
      if (access(above, W_OK | X_OK) === undefined) {
        return [ok(check, `${place} is not there yet: it is made when it is needed`)];
      }
      return [
        fail(
          check,
          `${place} is not there, and this user cannot make it in ${above}`,
          `make it for the node's user (install -d -o USER ${place})`,
        ),
      ];
    }
    if (!stat.isDirectory()) return [fail(check, `${place} is no directory`, `name another with --${check}`)];
    const findings: Array<Finding> = [];
    const fault = access(place, state ? R_OK | W_OK | X_OK : R_OK | X_OK);
    if (fault !== undefined) {
      findings.push(
        fail(
          check,
          `this user may not ${state ? "write to" : "read"} ${place} (${fault})`,
          "run the doctor as the node's user, or change the owner or the mode",
        ),
      );
    }
    if ((stat.mode & 0o002) !== 0) {
      const harm = state ? "everybody may forge what it shows" : "everybody may set this host's features";
      findings.push(warn(check, `every user may write to ${place}: ${harm}`, `chmod o-w ${place}`));
    }
    if (state && (stat.mode & 0o005) !== 0o005) {
      findings.push(warn(check, `programs of other users cannot read ${place}`, `chmod o+rx ${place}, if they should`));
    }
    findings.push(...judgeRoom(check, place, fs.statfsSync(place)));
    return findings.length > 0
      ? findings
      : [ok(check, `${place} can be ${state ? "written" : "read"}, and its file system has room`)];
  } catch (cause) {
    return [fail(check, `${place} cannot be looked at (${codeOf(cause)})`, `name another with --${check}`)];
  }
};

/** Looks at this host's own features, as the node reads them. */
export const features = (place: string): ReadonlyArray<Finding> => {
  let names: ReadonlyArray<string>;
  try {
    names = fs.readdirSync(place).filter((name) => !name.startsWith("."));
  } catch {
    // told of the directory
    return [];
  }
  const findings: Array<Finding> = [];
  let good = 0;
  for (const name of names) {
    const file = path.join(place, name);
    try {
      const stat = fs.statSync(file, { bigint: true, throwIfNoEntry: false });
      if (stat === undefined || stat.isDirectory()) continue;
      if (!Feature.isFeatureName(name)) {
        findings.push(
          warn("features", `${file} is no feature: its name is not allowed`, "use 1 to 255 of A-Z a-z 0-9 - _"),
        );
        continue;
      }
      const content = readFile(file, stat);
      if (isFileFault(content)) {
        const fix = `nameq feature --feature-dir ${place} ${name} VALUE`;
        findings.push(fail("features", `${file} is not offered: ${content.message}`, fix));
      } else if (content !== null) good++;
    } catch (cause) {
      findings.push(fail("features", `${file} cannot be looked at (${codeOf(cause)})`, "let the node's user read it"));
    }
  }
  if (good > Feature.maxFeatures) {
    const most = `a node offers at most ${Feature.maxFeatures}, the first by name`;
    findings.push(fail("features", `${good} in ${place}: ${most}`, "remove some"));
  }
  return findings.length > 0 ? findings : [ok("features", `${good} in ${place}, all of them JSON`)];
};

// --- inotify --------------------------------------------------------------------------------------------------------

/** What the kernel allows one user to watch, and what this user does. */
export interface Watching {
  readonly maxWatches: number;
  readonly maxInstances: number;
  readonly watches: number;
  readonly instances: number;
}

/** `need`: watches that one more reader of the tree takes. Pure. */
export const judgeWatching = (
  { instances, maxInstances, maxWatches, watches }: Watching,
  need: number,
): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = [];
  const late = "changes are seen about a second late then";
  if (watches + need > maxWatches) {
    findings.push(
      (need > maxWatches ? fail : warn)(
        "inotify",
        `a reader of the tree takes ${need} watches; ${watches} of ${maxWatches} are taken: ${late}`,
        `sysctl fs.inotify.max_user_watches=${Math.max(65_536, 2 ** Math.ceil(Math.log2(4 * (watches + need))))}`,
      ),
    );
  }
  if (instances + 1 > maxInstances) {
    findings.push(
      fail(
        "inotify",
        `all ${maxInstances} instances of this user are taken: ${late}`,
        `sysctl fs.inotify.max_user_instances=${Math.max(1_024, 4 * maxInstances)}`,
      ),
    );
  } else if (instances * 10 > maxInstances * 8) {
    findings.push(
      warn(
        "inotify",
        `${instances} of the ${maxInstances} instances of this user are taken`,
        `sysctl fs.inotify.max_user_instances=${Math.max(1_024, 4 * maxInstances)}`,
      ),
    );
  }
  return findings.length > 0
    ? findings
    : [
        ok(
          "inotify",
          `${watches} of ${maxWatches} watches and ${instances} of ${maxInstances} instances are taken, a reader takes ${need}`,
        ),
      ];
};

/** What is taken by the processes of this user that can be seen. */
const watching = (): Watching => {
  const limit = (name: string): number => Number(fs.readFileSync(`/proc/sys/fs/inotify/${name}`, "utf8"));
  let watches = 0;
  let instances = 0;
  const uid = process.getuid?.();
  for (const pid of fs.readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (fs.statSync(`/proc/${pid}`).uid !== uid) continue;
      for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
        if (fs.readlinkSync(`/proc/${pid}/fd/${fd}`) !== "anon_inode:inotify") continue;
        instances++;
        watches += fs.readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8").split("\ninotify ").length - 1;
      }
    } catch {
      // it has ended since
    }
  }
  return { maxWatches: limit("max_user_watches"), maxInstances: limit("max_user_instances"), watches, instances };
};

/** Looks at the kernel's limits for watches. */
export const inotify = (stateDir: string): ReadonlyArray<Finding> => {
  try {
    const tree = path.join(stateDir, "features");
    const directories = fs.existsSync(tree) ? fs.readdirSync(tree).length : 0;
    return judgeWatching(watching(), directories + 2);
  } catch (cause) {
    return [warn("inotify", `the kernel's limits cannot be read (${codeOf(cause)})`, "see that /proc is mounted")];
  }
};
