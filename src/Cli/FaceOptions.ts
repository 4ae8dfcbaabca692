/** How the commands for operators are told where a node's HTTP face is. */
import * as Tree from "./Tree.js";
import { value } from "./Spec.js";

export const faceOptions = {
  http: value(
    "http",
    "WHERE",
    "the node's HTTP face: a PORT of this host, ADDRESS:PORT or a URL\ndefault (and for off and port 0, which are the node's):\nwhat it wrote to DIR/.http of --state-dir",
  ),
  httpTokenFile: value("http-token-file", "PATH", "the token that it asks for"),
  stateDir: Tree.stateDir,
};
