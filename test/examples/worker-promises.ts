import { connect } from "nameq";

/** Offers itself as a worker while it runs, and tells of three changes of the others. */
export const main = async (say: (line: string) => void = console.log): Promise<void> => {
  const nameq = await connect({ stateDir: process.env.NAMEQ_STATE_DIR, featureDir: process.env.NAMEQ_FEATURE_DIR });
  try {
    await nameq.advertise("worker", { port: 7000 });
    let told = 0;
    for await (const peers of nameq.watch("worker")) {
      say(`workers: ${[...peers.values()].map(({ host, value }) => `${host} ${JSON.stringify(value)}`).join(", ")}`);
      if (++told === 3) break;
    }
  } finally {
    await nameq.close();
  }
};
