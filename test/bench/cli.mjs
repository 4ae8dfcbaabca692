// Whole processes, as a shell script would wait for them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const title = "a light command from its start to its end, as a process";

export const run = async (bench) => {
  const own = join(bench.directory, "own");
  const state = join(bench.directory, "state");
  mkdirSync(join(state, "features/web"), { recursive: true });
  mkdirSync(own);
  for (let n = 1; n <= 20; n++) writeFileSync(join(state, `features/web/10.0.0.${n}`), '{\n\t"port": 80\n}\n');
  const commands = {
    feature: ["feature", "--feature-dir", own, "web", '{"port":80}'],
    "find-features -timeout 0": ["find-features", "-statedir", state, "-timeout", "0", "web"],
    list: ["list", "--state-dir", state],
    "--version": ["--version"],
    "--help": ["--help"],
    "serve --help": ["serve", "--help"],
  };
  const timed = (args) => async () => {
    const start = performance.now();
    const child = spawn(process.execPath, args, { stdio: "ignore" });
    const [status] = await once(child, "exit");
    if (status !== 0) throw new Error(`${args.join(" ")} ended with status ${status}`);
    return performance.now() - start;
  };
  const numbers = await bench.turns(
    {
      floor: timed(["-e", "0"]),
      ...Object.fromEntries(Object.entries(commands).map(([name, args]) => [name, timed([bench.program, ...args])])),
    },
    { count: 10, rounds: 4, warmUp: 2 },
  );
  for (const name of Object.keys(commands)) {
    bench.row(name, numbers[name], { floor: numbers.floor, target: { ratio: 2.6 } });
  }
  bench.row("floor: node -e 0", numbers.floor);
};
