// The broker itself as the source of a site's parts, by its listener for WebSockets. Nothing is
// published. Who has to sign in does so on the page; what they type is kept nowhere.

import { byId } from "./dom.js";
import { SiteView } from "./view.js";

const PAUSE_MS = 250; // What changes more often is not read but flickers.
const AGES_MS = 1000; // Devices get stale though nothing is heard.
// Mosquitto's listener (libwebsockets) sends 4 kB when anything wakes it, else ten times a second.
const WAKING_MS = { every: 5, quiet: 500, longest: 10_000 };
const NO_RIGHT_TO_CONNECT = [4, 5];
const NO_RIGHT_TO_HEAR = 128;
const OPTIONS = {
  protocolVersion: 4, clean: true, resubscribe: false, reconnectPeriod: 1000, connectTimeout: 10_000,
  // Browsers wake a page in the background once a minute; a connection that is closed is noticed at once.
  keepalive: 180, timerVariant: "native",
};

export async function fromBroker(source, take) {
  const broker = source.broker || ownHost();
  if (location.protocol === "https:" && broker.startsWith("ws:")) {
    throw new Error(`a page that came by https may not speak to ${broker}; it has to be wss://`);
  }
  if (!globalThis.mqtt) await loaded("static/vendor/mqtt.min.js");
  new BrokerClient({ ...source, broker }, take).connect({});
}

class BrokerClient {
  constructor(source, take) {
    this.url = source.broker;
    this.view = new SiteView(source);
    this.hasNews = true;
    let shown_ms = 0;
    setInterval(() => {
      if (!this.hasNews && Date.now() - shown_ms < AGES_MS) return;
      [this.hasNews, shown_ms] = [false, Date.now()];
      const parts = { ...this.view.parts(shown_ms / 1000), ...this.refused };
      this.refused = {};
      if (Object.keys(parts).length) take(parts);
    }, PAUSE_MS);
    byId("sign-in").hidden = false;
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.connect({ username: byId("user").value, password: byId("password").value });
      byId("password").value = "";
      byId("sign-in").open = false;
    });
  }

  connect(credentials) {
    this.client?.end(true);
    this.refused = { refusal: "" };
    const clientId = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
    const client = mqtt.connect(this.url, { ...OPTIONS, ...credentials, clientId });
    this.client = client;
    const on = (event, act) => client.on(event, (...told) => {
      if (client !== this.client) return; // An earlier one that ends.
      act(...told);
      this.hasNews = true;
    });
    on("connect", () => {
      this.view.connected();
      this.subscribe();
      this.wake(client);
    });
    on("message", (topic, payload, { retain }) => {
      this.heard_ms = Date.now();
      this.view.receive(topic, payload, { retained: retain, now_s: this.heard_ms / 1000 });
    });
    on("close", () => this.view.disconnected(this.whyGone()));
    on("error", ({ code }) => NO_RIGHT_TO_CONNECT.includes(code) && this.refuse(credentials.username));
  }

  // Keeps the broker awake until what it has retained has come.
  wake(client) {
    const start_ms = this.heard_ms = Date.now();
    const waking = setInterval(() => {
      const now_ms = Date.now();
      const isOver = now_ms - this.heard_ms > WAKING_MS.quiet || now_ms - start_ms > WAKING_MS.longest;
      if (isOver || !client.connected) clearInterval(waking);
      else client.sendPing();
    }, WAKING_MS.every);
  }

  subscribe() {
    this.client.subscribe(this.view.filters, { qos: 1 }, (error, granted) => {
      const deaf = granted?.filter(({ qos }) => qos === NO_RIGHT_TO_HEAR).map(({ topic }) => topic) ?? [];
      if (deaf.length) this.askWho(`The broker does not let this page hear ${deaf.join(", ")}.`);
    });
  }

  refuse(username) {
    this.client.end(true);
    this.client = null;
    this.askWho(username ? `The broker refused ${username}: a wrong name or password, or no right to connect.`
      : "The broker asks who you are.");
    byId(username ? "password" : "user").focus();
  }

  askWho(why) {
    this.refused = { refusal: why };
    this.hasNews = true;
    byId("sign-in").open = true;
  }

  whyGone() {
    return `nothing at ${this.url} answers as a broker's listener for WebSockets does`
      + (this.url.startsWith("wss:") ? ", or this browser does not trust its certificate" : "");
  }
}

// A broker that serves this page, too.
function ownHost() {
  if (!location.host) throw new Error("it was written without the address of a broker: write it with --direct ws://HOST:PORT");
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/mqtt`;
}

function loaded(path) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: path, onload: done, onerror: () => failed(new Error(`${path} cannot be had`)) });
    document.head.append(script);
  });
}
