/** Where a node's HTTP face is found. Light: commands use it too. */

/** Where a face listens. */
export interface Listen {
  /** An IP address of this host; `0.0.0.0` or `::` for all of them. */
  readonly host: string;
  /** 0 lets the system choose one. */
  readonly port: number;
}

/** The file in the state directory that tells local programs the URL, in one line, while the face is up. */
export const urlFile = ".http";

/** URL of a face; for this host itself when it listens on all addresses. */
export const urlOf = ({ host, port }: Listen): string => {
  const local = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `http://${local.includes(":") ? `[${local}]` : local}:${port}`;
};
