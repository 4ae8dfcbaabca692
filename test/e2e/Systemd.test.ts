/** The unit under a real systemd, installed as the README says: readiness, restarts that nobody sees, the watchdog, the sandbox. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { FakeS3 } from "../FakeS3.js";
import * as Program from "../Program.js";
import { isPossible, Systemd } from "./Systemd.js";

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const block = (kind: string): string =>
  new RegExp(`<!-- run: ${kind} -->\\n\`\`\`sh\\n([\\s\\S]*?)\`\`\``).exec(readme)?.[1] ?? "";
const address = `127.46.${process.pid % 250}.2`;
const port = 26_000 + (process.pid % 400);

/** Of `systemd-analyze security`, 0 to 10. What it makes of a unit is a little different in each version of systemd. */
const exposure = 2;

describe.skipIf(!isPossible())("the unit", () => {
  let scope: Scope.CloseableScope;
  let fake: FakeS3;
  let systemd: Systemd;

  beforeAll(async () => {
    Program.ensureBuilt();
    scope = await Effect.runPromise(Scope.make());
    fake = await Effect.runPromise(Scope.extend(FakeS3.make, scope));
    systemd = await Systemd.start();
    // what a test host has besides: another place for the bucket, a loopback address, credentials in a file
    const settings = {
      ADDR: address,
      PORT: String(port),
      S3_ENDPOINT: fake.endpoint,
      S3_PATH_STYLE: "true",
      S3_REGION: fake.region,
      S3_BUCKET: fake.bucket,
      FEATURES: "'{\"web\":true}'",
      HTTP: `${address}:${port}`,
    };
    const lines = Object.entries(settings).map(([name, value]) => `NAMEQ_${name}=${value}`);
    await systemd.shell(`
mkdir -p /etc/systemd/system/nameq.service.d
mkdir /etc/nameq
umask 077
cat > /etc/nameq/s3creds <<'END'
${fake.accessKeyId} ${fake.secretAccessKey}
END
cat > /etc/systemd/system/nameq.service.d/test.conf <<'END'
[Service]
LoadCredential=s3creds:/etc/nameq/s3creds
Environment=NAMEQ_S3_CRED_FILE=%d/s3creds
WatchdogSec=2
RestartSec=100ms
END
umask 022
${block("unit").replace(/^printf .*$/m, `cat > /etc/nameq/environment <<'END'\n${lines.join("\n")}\nEND`)}`);
  });
  afterAll(async () => {
    await systemd?.stop();
    await Effect.runPromise(Scope.close(scope, Exit.void));
  });

  const show = (property: string): Promise<string> =>
    systemd.shell(`systemctl show --property=${property} --value nameq`).then((text) => text.trim());
  const log = (): Promise<string> => systemd.shell("journalctl --no-pager --output=cat --unit=nameq");
  const until = async (what: string, condition: () => Promise<boolean>): Promise<void> => {
    for (const end = Date.now() + 20_000; !(await condition()); await sleep(50)) {
      if (Date.now() > end) throw new Error(`not within 20 s: ${what}\n${await log()}`);
    }
  };
  /** The own feature's file: another inode would be another file, made anew. */
  const file = (): Promise<string> => systemd.shell("stat -c %i /run/nameq/state/features/web/127.0.0.1");
  const object = (): string => fake.objects.get(address)?.body.toString() ?? "";

  it("is one that systemd finds nothing wrong with", async () => {
    const { status, stderr, stdout } = await systemd.run([
      "systemd-analyze",
      "verify",
      "--man=no",
      "/etc/systemd/system/nameq.service",
    ]);
    assert.deepStrictEqual({ status, stdout, stderr }, { status: 0, stdout: "", stderr: "" });
  });

  it("is started when the node is ready, and shows how it is", async () => {
    assert.strictEqual(await show("ActiveState"), "active", await log());
    assert.strictEqual(await show("StatusText"), "0 other nodes alive, 0 silent");
    assert.include(await log(), "membership is known");
    assert.include(object(), '"web": true');
  });

  it("has a page, which nameq status finds", async () => {
    const text = await systemd.shell("nameq status");
    assert.include(text, `node ${address} port`, await log());
    assert.include(text, "nothing is wrong");
    const page = await fetch(`http://${address}:${port}/`);
    assert.include(await page.text(), "<!doctype html>");
  });

  it("is found to be well by nameq doctor", async () => {
    // the test's unit has it from a credential
    const text = await systemd.shell(`export NAMEQ_S3_CRED_FILE=/etc/nameq/s3creds\n${block("doctor")}`);
    assert.match(text, /^ok +/m);
    assert.notInclude(text, "FAIL");
  });

  it("has a tree that every user can read, of a node that no user can change", async () => {
    const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    assert.strictEqual(await systemd.shell(`${nobody} cat /run/nameq/state/features/web/127.0.0.1`), "true\n");
    assert.strictEqual(await systemd.shell("stat -c %U /run/nameq/state/features"), "nameq\n");
    for (const file of ["/etc/nameq/secret", "/run/credentials/nameq.service/secret"]) {
      assert.notStrictEqual((await systemd.run([...nobody.split(" "), "cat", file])).status, 0);
    }
  });

  it("is restarted without a flap: the tree stays, and the registry never hears of it", async () => {
    const before = await file();
    const pid = await show("MainPID");
    let looked = 0;
    const state = { isOver: false };
    const restart = systemd.shell("systemctl restart nameq").finally(() => {
      state.isOver = true;
    });
    while (!state.isOver) {
      assert.strictEqual(await file(), before);
      assert.include(object(), '"web": true');
      looked++;
    }
    await restart;
    assert.isAbove(looked, 5);
    assert.notStrictEqual(await show("MainPID"), pid);
    assert.strictEqual(await file(), before);
  });

  it("is reloaded without an end", async () => {
    const pid = await show("MainPID");
    await systemd.shell("systemctl reload nameq");
    await until("it is active again", async () => (await show("ActiveState")) === "active");
    assert.strictEqual(await show("MainPID"), pid);
  });

  it("is started again when its event loop hangs, and when it is killed", async () => {
    const before = await file();
    for (const [signal, result] of [
      ["STOP", "watchdog"],
      ["KILL", "signal"],
    ] as const) {
      const [pid, restarts] = [await show("MainPID"), Number(await show("NRestarts"))];
      await systemd.shell(`kill -${signal} ${pid}`);
      await until(`a new one after SIG${signal}`, async () => Number(await show("NRestarts")) > restarts);
      await until("it is ready", async () => (await show("ActiveState")) === "active");
      assert.strictEqual(await file(), before, result);
    }
  });

  it("changes its key by files beside it", async () => {
    await systemd.shell("umask 077; head -c 32 /dev/urandom > /etc/nameq/next");
    const before = await file();
    const accepts = block("key");
    const signs = accepts.replace(/^Environment.*$/m, (line) => {
      const swapped = "Environment=NAMEQ_SECRET_FILE=1:%d/next NAMEQ_ACCEPT_SECRET_FILE=0:%d/secret";
      return line.includes("1:%d/next") ? swapped : line;
    });
    assert.notStrictEqual(signs, accepts);
    for (const step of [accepts, signs]) {
      await systemd.shell(step);
      assert.strictEqual(await show("ActiveState"), "active", await log());
      assert.strictEqual(await file(), before);
    }
  });

  it("leaves when it is stopped", async () => {
    await systemd.shell("systemctl stop nameq");
    assert.strictEqual(await show("Result"), "success");
    assert.include(await log(), "left: peers and the registry know");
    assert.notInclude(object(), "features");
    assert.strictEqual(
      await systemd.shell("ls /run/nameq 2>&1 || true"),
      "ls: cannot access '/run/nameq': No such file or directory\n",
    );
  });

  it("is a closed one: systemd's own measure", async () => {
    const report = await systemd.shell("systemd-analyze security --no-pager nameq.service");
    const score = /exposure level for nameq.service: ([\d.]+)/.exec(report)?.[1];
    console.log(`exposure ${score} of 10`);
    assert.isAtMost(Number(score), exposure, report);
  });
});
