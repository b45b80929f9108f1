// pusher-js as browsers load it, in headless Chromium.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { createRequire } from "node:module";
import { test } from "node:test";
import { application, cleaner, env, server, unique } from "./lib.mjs";
import { browser } from "./chromium.mjs";

const require = createRequire(import.meta.url);
const script = (pkg) => path.join(path.dirname(require.resolve(`${pkg}/package.json`)), "dist/web/pusher.min.js");

async function site() {
  const pages = {
    "/": ["text/html", () => "<!doctype html><title>test</title><body></body>"],
    "/8.js": ["text/javascript", () => fs.readFileSync(script("pusher-js"))],
    "/7.js": ["text/javascript", () => fs.readFileSync(script("pusher-js-7"))],
    "/sockjs.js": ["text/javascript", () => fs.readFileSync(require.resolve("sockjs-client/dist/sockjs.min.js"))],
  };
  const listener = http.createServer((req, res) => {
    const page = pages[req.url];
    if (!page) return res.writeHead(404).end();
    res.writeHead(200, { "Content-Type": page[0] }).end(page[1]());
  });
  await new Promise((ok) => listener.listen(0, "127.0.0.1", ok));
  return { url: `http://127.0.0.1:${listener.address().port}`, close: () => new Promise((ok) => { listener.close(ok); listener.closeAllConnections(); }) };
}

for (const version of ["8", "7"]) {
  test(`chromium, pusher-js ${version}: public, private and presence channels in two windows`, async (t) => {
    const done = cleaner(t);
    const app = await application((p) => ({ user_id: p.get("user"), user_info: { name: p.get("user") } }));
    done(app.close);
    const pages = await site();
    done(pages.close);
    const context = await browser(t);
    const room = unique("presence-room-"), news = unique("news-");

    const open = async (user, gateway) => {
      const page = await context.newPage();
      await page.goto(pages.url);
      await page.addScriptTag({ url: `/${version}.js` });
      await page.evaluate(async ({ key, at, auth, user, room, news }) => {
        const [wsHost, wsPort] = at.split(":");
        const client = new Pusher(key, {
          wsHost, wsPort: Number(wsPort), forceTLS: false, enabledTransports: ["ws"], cluster: "", disableStats: true,
          channelAuthorization: { endpoint: `${auth}/pusher/auth`, transport: "ajax", params: { user } },
        });
        window.log = [];
        client.bind_global((name, data) => window.log.push([name, data]));
        window.room = client.subscribe(room);
        await new Promise((ok, fail) => { window.room.bind("pusher:subscription_succeeded", ok); window.room.bind("pusher:subscription_error", (e) => fail(new Error(JSON.stringify(e)))); });
        await new Promise((ok) => client.subscribe(news).bind("pusher:subscription_succeeded", ok));
      }, { key: env.key, at: env.gateways[gateway % env.gateways.length], auth: app.url, user, room, news });
      return page;
    };
    const ann = await open("ann", 0);
    const ben = await open("ben", 1);
    await ann.waitForFunction(() => window.room.members.count === 2);
    await server().trigger(news, "item", { html: "<i>&</i>" });
    for (const page of [ann, ben]) {
      await page.waitForFunction(() => window.log.some(([n]) => n === "item"));
      assert.deepEqual(await page.evaluate(() => window.log.find(([n]) => n === "item")[1]), { html: "<i>&</i>" });
    }
    await ben.evaluate(() => window.room.trigger("client-hi", { from: "ben" }));
    await ann.waitForFunction(() => window.log.some(([n]) => n === "client-hi"));
    await ben.close();
    await ann.waitForFunction(() => window.room.members.count === 1);
  });

  for (const transport of ["xhr_streaming", "xhr_polling", "sockjs"]) {
    test(`chromium, pusher-js ${version}, ${transport}: a page without WebSockets, each exchange with whichever gateway`, async (t) => {
      const done = cleaner(t);
      const app = await application((p) => ({ user_id: p.get("user"), user_info: { name: p.get("user") } }));
      done(app.close);
      const pages = await site();
      done(pages.close);
      const context = await browser(t);
      const room = unique("presence-room-"), news = unique("news-");
      const page = await context.newPage();
      await page.goto(pages.url);
      await page.addScriptTag({ url: "/sockjs.js" });
      await page.addScriptTag({ url: `/${version}.js` });
      await page.evaluate(async ({ key, at, auth, room, news, transport }) => {
        const [httpHost, httpPort] = at.split(":");
        const client = new Pusher(key, {
          httpHost, httpPort: Number(httpPort), forceTLS: false, enabledTransports: [transport], cluster: "", disableStats: true,
          channelAuthorization: { endpoint: `${auth}/pusher/auth`, transport: "ajax", params: { user: "ann" } },
        });
        window.log = [];
        window.client = client;
        client.bind_global((name, data) => window.log.push([name, data]));
        const subscribed = (name) => new Promise((ok, fail) => {
          const channel = client.subscribe(name);
          channel.bind("pusher:subscription_succeeded", () => ok(channel));
          channel.bind("pusher:subscription_error", (e) => fail(new Error(JSON.stringify(e))));
        });
        window.room = await subscribed(room);
        await subscribed(news);
      }, { key: env.key, at: env.balancer, auth: app.url, room, news, transport });
      assert.equal(await page.evaluate(() => window.room.members.count), 1);
      for (let i = 0; i < 50; i++) await server().trigger(news, "item", { i, html: "<i>&</i>" });
      await page.waitForFunction(() => window.log.filter(([n]) => n === "item").length >= 50);
      assert.deepEqual(await page.evaluate(() => window.log.filter(([n]) => n === "item").map(([, d]) => d.i)), [...Array(50).keys()]);
      assert.equal(await page.evaluate(() => window.room.trigger("client-hi", { from: "ann" })), true);
    });
  }
}
