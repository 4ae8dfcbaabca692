/**
 * A systemd of its own on this machine: the real program as the first process of namespaces, with this machine's /usr,
 * read only, and everything else empty. Needs root and systemd; ends with this process.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Lines } from "../Lines.js";

const dist = fileURLToPath(new URL("../../dist", import.meta.url));

/** Where the manager is, besides in the path that programs are looked for in. */
export const systemd = "/usr/lib/systemd/systemd";

/** In namespaces of its own: makes the root, and becomes systemd. $1: a directory, $2: Node, $3: dist. */
const boot = `
set -eu
mount --make-rprivate /
root=$1/root
mkdir $root
mount -t tmpfs -o mode=755 tmpfs $root
mkdir -p $root/usr $root/proc $root/sys $root/dev/pts $root/dev/shm $root/run $root/tmp $root/var/lib $root/var/log \\
  $root/root $root/etc/systemd/system $root/opt/nameq $root/old
mount --rbind /usr $root/usr
mount -o remount,bind,ro $root/usr
for link in bin sbin lib lib64; do ln -s usr/$link $root/$link; done
cp /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/login.defs /etc/nsswitch.conf /etc/ld.so.cache $root/etc/
test ! -d /etc/alternatives || cp -a /etc/alternatives $root/etc/
: > $root/etc/machine-id
mount -t tmpfs -o mode=755 tmpfs $root/usr/local
mkdir -p $root/usr/local/bin $root/usr/local/lib/node_modules/nameq/dist
touch $root/usr/local/bin/node
mount --bind "$2" $root/usr/local/bin/node
mount --bind "$3" $root/usr/local/lib/node_modules/nameq/dist
# npm, as far as an installation asks it
printf '#!/bin/sh\\ncase "$1" in\\nroot) echo /usr/local/lib/node_modules;;\\ninstall) ln -s ../lib/node_modules/nameq/dist/nameq.cjs /usr/local/bin/nameq;;\\n*) exit 1;;\\nesac\\n' > $root/usr/local/bin/npm
chmod 755 $root/usr/local/bin/npm
mount -t proc proc $root/proc
mount -t sysfs -o ro sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $root/dev
mkdir $root/dev/pts $root/dev/shm
mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
for device in null zero full random urandom tty; do
  touch $root/dev/$device
  mount --bind /dev/$device $root/dev/$device
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
printf '[Unit]\\nWants=systemd-journald.service\\n' > $root/etc/systemd/system/little.target
cd $root
pivot_root . old
umount -l /old
# as a manager has it that is no container: it passes credentials by mounts that spread
mount --make-rshared /
exec env -i container=unshare PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin ${systemd} --system --unit=little.target --show-status=0
`;

/** What a program wrote, and how it ended. */
export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const execute = (file: string, args: ReadonlyArray<string>, input = ""): Promise<Outcome> =>
  new Promise((resolve) => {
    const child = execFile(file, args, { encoding: "utf8" }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : typeof error.code === "number" ? error.code : 1, stdout, stderr });
    });
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  });

export class Systemd {
  private constructor(
    private readonly directory: string,
    private readonly unshare: ChildProcess,
    private readonly pid: number,
  ) {}

  /** Boots. */
  static async start(): Promise<Systemd> {
    const directory = mkdtempSync(join(tmpdir(), "nameq-systemd-"));
    const script = join(directory, "boot");
    writeFileSync(script, boot);
    const args = ["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child"];
    const child = spawn("unshare", [...args, "sh", script, directory, realpathSync(process.execPath), dist], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const said = new Lines(child.stderr);
    const started = Date.now();
    for (;;) {
      const pid = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim());
      if (pid > 0) {
        const manager = new Systemd(directory, child, pid);
        if ((await manager.run(["systemctl", "is-active", "little.target"])).status === 0) return manager;
      }
      if (child.exitCode !== null || Date.now() - started > 20_000) {
        child.kill("SIGKILL");
        throw new Error(`systemd does not come up:\n${said.all.join("\n")}`);
      }
      await sleep(50);
    }
  }

  /** Runs a program inside. */
  run(command: ReadonlyArray<string>, input = ""): Promise<Outcome> {
    const inside = ["--target", String(this.pid), "--mount", "--pid", "--cgroup", "--", "env", "-i"];
    return execute(
      "nsenter",
      [...inside, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", ...command],
      input,
    );
  }

  /** Runs a shell script inside, and gives what it wrote; fails when it does. */
  async shell(script: string): Promise<string> {
    const { status, stderr, stdout } = await this.run(["sh", "-euc", script]);
    if (status !== 0) {
      const journal = await this.run(["journalctl", "--no-pager", "--lines=20"]);
      throw new Error(`${script}\nended with status ${status}:\n${stdout}${stderr}\n${journal.stdout}`);
    }
    return stdout;
  }

  /** Ends it, and all that runs in it. */
  async stop(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.unshare.once("exit", () => resolve()));
    process.kill(this.pid, "SIGKILL");
    await ended;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Whether there can be one here. */
export const isPossible = (): boolean =>
  process.getuid?.() === 0 &&
  spawnSync(systemd, ["--version"]).status === 0 &&
  spawnSync("unshare", ["--mount", "--pid", "--fork", "--cgroup", "true"]).status === 0;
