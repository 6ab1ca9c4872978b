// The page's server as the source of a site's parts.

import { trouble } from "./dom.js";

export function fromServer(take) {
  const events = new EventSource("events");
  events.addEventListener("message", ({ data }) => take(JSON.parse(data)));
  events.addEventListener("open", () => trouble(""));
  events.addEventListener("error", () =>
    trouble(`The page's server is out of reach since ${new Date().toLocaleTimeString()}; what is shown is old.`));
}
