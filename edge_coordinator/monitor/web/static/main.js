// Begins: asks what this page is of, a site that is watched or runs that were recorded, and whether
// the page's server or the broker itself tells of the site.

import { fromBroker } from "./broker.js";
import { byId, trouble } from "./dom.js";
import { showRecorded } from "./recorded.js";
import { fromServer } from "./server.js";
import { Site } from "./site.js";

async function begin() {
  const written = byId("source"); // In a page that is one file.
  const source = written ? JSON.parse(written.textContent) : await (await fetch("source")).json();
  if (source.mode === "runs") {
    await showRecorded();
    return;
  }
  const site = new Site();
  const take = (news) => site.take(news);
  if (source.mode === "broker") await fromBroker(source, take);
  else fromServer(take);
}

begin().catch((error) => trouble(`This page cannot be shown: ${error.message}`));
