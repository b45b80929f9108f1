// Clients without WebSockets, each exchange with whichever of two gateways the
// balancer picks, while the gateway that has their sessions is killed.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { EventSource } from "eventsource";
import { api, apps, client, encodings, next, subscription, token } from "./centrifuge.mjs";
import { clients, env, subscribe, unique, until } from "./lib.mjs";

const resume = createRequire(import.meta.url)("../../../clients/pusher-resume/pusher-resume.js");
const app = apps[0];
const [httpHost, httpPort] = env.balancer.split(":");

/** Has the test's other side do something to the cluster. */
async function order(what) {
  const res = await fetch(`${process.env.CARILLON_CONTROL}/${what}`, { method: "POST" });
  assert.equal(res.status, 200);
}

/** centrifuge-js by a transport, with what it has heard of a channel. */
async function centrifuge(t, transport, encoding, channel) {
  const c = client(t, {
    app, encoding, token: token({ sub: "ann" }), transports: [{ transport, endpoint: `http://${env.balancer}/connection/${transport}?app=${app}` }],
    emulationEndpoint: `http://${env.balancer}/emulation`, eventsource: EventSource, fetch, readableStream: ReadableStream,
  });
  const heard = { name: `${transport}, ${encoding}`, events: [], recovered: 0, lost: 0 };
  const { decode } = encodings.find((e) => e.encoding === encoding);
  const s = subscription(c, channel);
  s.on("publication", (p) => heard.events.push(decode(p.data)));
  await next(s.said, "subscribed");
  s.on("subscribed", ({ recovered }) => { if (recovered) heard.recovered++; else heard.lost++; });
  return heard;
}

/** pusher-js with the plug-in, in the same way. */
async function pusher(t, { name, Pusher }, transport, channel) {
  const p = new Pusher(`key-${app}`, { httpHost, httpPort: Number(httpPort), forceTLS: false, disableStats: true, enabledTransports: [transport], cluster: "" });
  t.after(() => p.disconnect());
  resume(p);
  const heard = { name: `${name}, ${transport}`, events: [], recovered: 0, lost: 0 };
  const c = await subscribe(p, channel);
  c.bind("message", (d) => heard.events.push(d));
  c.bind("carillon:recovered", () => heard.recovered++);
  c.bind("carillon:gap", () => heard.lost++);
  return heard;
}

test("the gateway that has the sessions is killed: nothing is lost, doubled or out of order", async (t) => {
  const channel = unique("mixed-"), all = [];
  for (const [transport, encoding] of [["http_stream", "json"], ["http_stream", "protobuf"], ["sse", "json"]]) {
    all.push(await centrifuge(t, transport, encoding, channel));
  }
  for (const Client of clients) for (const transport of ["xhr_streaming", "xhr_polling"]) all.push(await pusher(t, Client, transport, channel));
  await order("both"); // from here on exchanges reach either
  let published = 0;
  const publish = async () => {
    await api(app, "publish", { channel, data: published, idempotency_key: `n${published}` });
    published++;
  };
  for (let i = 0; i < 20; i++) await publish();
  await until(() => all.every((h) => h.events.length > 5), "some publications before");
  await order("kill");
  await until(async () => {
    await publish();
    return all.every((h) => h.recovered > 0);
  }, "all have come back", 60_000).catch((err) => { throw new Error(`${err.message}: ${JSON.stringify(all.map(({ name, recovered, lost }) => [name, recovered, lost]))}`); });
  for (let i = 0; i < 5; i++) await publish();
  const want = Array.from({ length: published }, (_, n) => n);
  await until(() => all.every((h) => h.events.length >= published), "all publications");
  for (const { name, events, lost } of all) assert.deepEqual({ name, events, lost }, { name, events: want, lost: 0 });
});
