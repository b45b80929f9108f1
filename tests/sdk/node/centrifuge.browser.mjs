// centrifuge-js as browsers load it, in headless Chromium, by each transport
// and with what it falls back to; from a page of another origin.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { createRequire } from "node:module";
import { test } from "node:test";
import { browser } from "./chromium.mjs";
import { api, apps, token } from "./centrifuge.mjs";
import { cleaner, env, unique, until } from "./lib.mjs";

const app = apps[0];
const dist = path.join(path.dirname(createRequire(import.meta.url).resolve("centrifuge")), "../dist");

/** The application's site, with the scripts as they are published. */
async function site() {
  const listener = http.createServer((req, res) => {
    const script = /^\/(centrifuge(?:\.protobuf)?\.js)$/.exec(req.url)?.[1];
    if (script) return res.writeHead(200, { "Content-Type": "text/javascript" }).end(fs.readFileSync(path.join(dist, script)));
    res.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>test</title><body></body>");
  });
  await new Promise((ok) => listener.listen(0, "127.0.0.1", ok));
  return { url: `http://127.0.0.1:${listener.address().port}/`, close: () => new Promise((ok) => { listener.close(ok); listener.closeAllConnections(); }) };
}

const at = (transport) => ({ transport, endpoint: `${transport === "websocket" ? "ws" : "http"}://${env.balancer}/connection/${transport}?app=${app}` });
const nowhere = { transport: "websocket", endpoint: `ws://${env.balancer}/nowhere` };
const ways = [
  { name: "WebSocket, JSON", script: "centrifuge.js", transports: [at("websocket")], used: "websocket" },
  { name: "WebSocket, protobuf", script: "centrifuge.protobuf.js", transports: [at("websocket")], used: "websocket" },
  { name: "HTTP streaming", script: "centrifuge.js", transports: [at("http_stream")], used: "http_stream" },
  { name: "HTTP streaming, protobuf", script: "centrifuge.protobuf.js", transports: [at("http_stream")], used: "http_stream" },
  { name: "server-sent events", script: "centrifuge.js", transports: [at("sse")], used: "sse" },
  { name: "HTTP streaming when WebSockets can't get through", script: "centrifuge.js", transports: [nowhere, at("http_stream"), at("sse")], used: "http_stream" },
];

/** Runs in the page: connects, subscribes, keeps what comes in `heard`. */
async function join({ transports, emulationEndpoint, token, channel, binary }) {
  const encode = (v) => (binary ? new TextEncoder().encode(JSON.stringify(v)) : v);
  const decode = (v) => (binary ? JSON.parse(new TextDecoder().decode(v)) : v);
  const c = new Centrifuge(transports, { emulationEndpoint, token, timeout: 15_000 });
  window.heard = [];
  window.sub = c.newSubscription(channel);
  window.sub.on("publication", (p) => window.heard.push(decode(p.data)));
  window.say = (v) => window.sub.publish(encode(v));
  window.call = (v) => c.rpc("echo", encode(v)).then((r) => decode(r.data));
  window.away = () => new Promise((ok) => { c.once("disconnected", ok); c.disconnect(); });
  window.back = () => new Promise((ok) => { window.sub.once("subscribed", (ctx) => ok(ctx.recovered)); c.connect(); });
  const connected = new Promise((ok) => c.once("connected", (ctx) => ok(ctx.transport)));
  const subscribed = new Promise((ok, fail) => { window.sub.once("subscribed", ok); window.sub.once("unsubscribed", (ctx) => fail(new Error(ctx.reason))); });
  window.sub.subscribe();
  c.connect();
  await subscribed;
  return connected;
}

test("chromium", async (t) => {
  const done = cleaner(t);
  const pages = await site();
  done(pages.close);
  const context = await browser(t);
  for (const { name, script, transports, used } of ways) await t.test(`${name}: two windows hear each other and the server`, async () => {
    const channel = unique("chat:");
    const open = async (user) => {
      const page = await context.newPage();
      await page.goto(pages.url);
      await page.addScriptTag({ url: `/${script}` });
      const transport = await page.evaluate(join, {
        transports, emulationEndpoint: `http://${env.balancer}/emulation`, token: token({ sub: user }), channel, binary: script.includes("protobuf"),
      });
      assert.equal(transport, used);
      return page;
    };
    const [ann, ben] = [await open("ann"), await open("ben")];
    await ben.evaluate(() => window.say({ html: "<i>&</i> 🎉" }));
    await api(app, "publish", { channel, data: 2 });
    for (const page of [ann, ben]) {
      await page.waitForFunction(() => window.heard.length >= 2);
      assert.deepEqual(await page.evaluate(() => window.heard), [{ html: "<i>&</i> 🎉" }, 2]);
    }
    assert.deepEqual((await ann.evaluate(() => window.call({ a: 1 }))).data, { a: 1 });
    await ann.evaluate(() => window.away());
    await api(app, "publish", { channel, data: 3 });
    assert.equal(await ann.evaluate(() => window.back()), true);
    await ann.waitForFunction(() => window.heard.length >= 3);
    assert.deepEqual(await ann.evaluate(() => window.heard), [{ html: "<i>&</i> 🎉" }, 2, 3]);
    await ben.close(); // the page tells nobody
    await until(async () => (await api(app, "presence_stats", { channel })).num_clients === 1, "only Ann is there");
    await ann.close();
  });
});
