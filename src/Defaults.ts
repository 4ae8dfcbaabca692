/** Defaults that the program and the library share. Source: PROTOCOL, section 6. */

/** UDP port of all nodes. */
export const port = 17_106;

/** Where the node looks for this host's own features. */
export const featureDir = "/etc/nameq/features";

/** Where the node keeps the tree. */
export const stateDir = "/run/nameq/state";
