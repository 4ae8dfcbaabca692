/** What a node takes when its options do not say: its address, and where `--dev` keeps everything. */
import * as os from "node:os";
import * as path from "node:path";
import * as Address from "./Address.js";

/** The first unicast, non-loopback address of the interfaces. */
export const guess = (): Address.Address | undefined =>
  Object.values(os.networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal }) => !internal)
    .map(({ address }) => Address.parse(address))
    .find((address) => address !== undefined && Address.mayBeNode(address) && !Address.isLoopback(address));

/** The development directory of this user. */
export const devDirectory = (): string => path.join(os.tmpdir(), `nameq-${os.userInfo().uid}`);
