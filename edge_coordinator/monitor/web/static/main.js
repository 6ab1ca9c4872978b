// Begins: asks what this page is of, a site that is watched or runs that were recorded.

import { byId, say } from "./dom.js";
import { showRecorded } from "./recorded.js";
import { watchSite } from "./site.js";

async function begin() {
  const { mode } = await (await fetch("/source")).json();
  await (mode === "runs" ? showRecorded() : watchSite());
}

begin().catch((error) => {
  byId("trouble").hidden = false;
  say(byId("trouble"), `This page cannot be shown: ${error.message}`);
});
