/** The page's entry. */
import { render } from "preact";
import { App } from "./App.js";
import { Page } from "./Page.js";

render(<App page={new Page()} />, document.querySelector("#page") as HTMLElement);
