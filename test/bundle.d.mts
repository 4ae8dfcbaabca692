import type { Plugin } from "esbuild";

export declare const bundle: (entry: string, plugins?: ReadonlyArray<Plugin>) => Promise<string>;
