/**
 * `docker`, as far as the README's commands ask it, for machines without: images by buildah, containers by chroot in
 * namespaces, their command as process 1. It keeps everything in DOCKER_ROOT, where there are the base images too, and
 * gives DOCKER_ENV (NAME=VALUE, a line each) to every container.
 */
import { execFileSync, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";

const root = process.env.DOCKER_ROOT;
const storage = ["--root", `${root}/images`, "--runroot", `${root}/run`, "--storage-driver", "overlay"];
const buildah = (...args) =>
  execFileSync("buildah", [...storage, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, CONTAINERS_REGISTRIES_CONF: `${root}/registries.conf`, BUILDAH_ISOLATION: "chroot" },
  }).trim();
const [verb, ...words] = process.argv.slice(2);
const options = {
  name: `c${process.pid}`,
  volume: [],
  env: (process.env.DOCKER_ENV ?? "").split("\n").filter(Boolean),
};

/** Takes the options in front; gives what follows. */
const operands = () => {
  while (words[0]?.startsWith("-")) {
    const [, key, value] = /^--?([\w-]+)(?:=(.*))?$/.exec(words.shift());
    if (["rm", "detach", "d"].includes(key)) continue;
    const given = value ?? words.shift();
    if (key === "volume" || key === "env") options[key].push(given);
    else options[key] = given;
  }
  return words;
};

/** Its process 1, seen from here. */
const first = (pid) => Number(fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());

const inside = `set -eu
root=$1 user=$2; shift 2
while [ "$1" != -- ]; do
  [ -e "$root$2" ] || if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; touch "$root$2"; fi
  mount --bind "$1" "$root$2"; shift 2
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$user" "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
`;

if (verb === "build") {
  operands();
  buildah("build", "--pull-never", "--format=docker", "--network=host", "--tag", options.t, words[0]);
} else if (verb === "health") {
  // the image's check in a container: status 0 when it is healthy
  const { pid, image } = JSON.parse(fs.readFileSync(`${root}/containers/${words[0]}`, "utf8"));
  const { Test } = JSON.parse(buildah("inspect", "--type=image", image)).Docker.config.Healthcheck;
  const target = ["--target", String(first(pid)), "--mount", "--pid", "--root", "--wd=/"];
  const environment = fs
    .readFileSync(`/proc/${first(pid)}/environ`, "utf8")
    .split("\0")
    .filter(Boolean);
  execFileSync("nsenter", [...target, "env", "-i", ...environment, "sh", "-c", Test[1]], { stdio: "inherit" });
} else if (verb === "run") {
  const [image, ...args] = operands();
  const { config } = JSON.parse(buildah("inspect", "--type=image", image)).Docker;
  const container = buildah("from", "--pull-never", image);
  const tree = buildah("mount", container);
  const shared =
    options["volumes-from"] && JSON.parse(fs.readFileSync(`${root}/containers/${options["volumes-from"]}`));
  const mounts = shared ? shared.mounts : options.volume.map((volume) => volume.split(":"));
  for (const place of shared ? [] : Object.keys(config.Volumes)) {
    const volume = path.join(root, "volumes", options.name, place);
    fs.mkdirSync(path.dirname(volume), { recursive: true });
    execFileSync("cp", ["-a", path.join(tree, place), volume]);
    mounts.push([volume, place]);
  }
  const command = [...options.env, ...config.Entrypoint, ...args];
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child"];
  const child = spawn(
    "unshare",
    [...namespaces, "sh", "-c", inside, "sh", tree, options.user ?? "0:0", ...mounts.flat(), "--", ...command],
    { stdio: "inherit" },
  );
  fs.mkdirSync(`${root}/containers`, { recursive: true });
  fs.writeFileSync(`${root}/containers/${options.name}`, JSON.stringify({ pid: child.pid, image, mounts }));
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) {
    process.on(signal, () => process.kill(first(child.pid), signal));
  }
  child.on("exit", (status) => {
    buildah("rm", container);
    process.exitCode = status ?? 1;
  });
} else {
  throw new Error(`docker ${verb}: not here`);
}
