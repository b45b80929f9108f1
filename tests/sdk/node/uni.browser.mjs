// Centrifugo's unidirectional transports as pages use them, without any SDK, in
// headless Chromium; from a page of another origin.
import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { browser } from "./chromium.mjs";
import { api, apps, token } from "./centrifuge.mjs";
import { cleaner, env, unique } from "./lib.mjs";

const app = apps[0];
const endpoint = (transport) => `${transport === "uni_websocket" ? "ws" : "http"}://${env.balancer}/connection/${transport}?app=${app}`;

/** The application's site: empty pages. */
async function site() {
  const listener = http.createServer((_, res) => res.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>test</title><body></body>"));
  await new Promise((ok) => listener.listen(0, "127.0.0.1", ok));
  return { url: `http://127.0.0.1:${listener.address().port}/`, close: () => new Promise((ok) => { listener.close(ok); listener.closeAllConnections(); }) };
}

/** Runs in the page: listens, and keeps what comes in `pushes`. */
function listen({ transport, url, request }) {
  const at = new URL(url);
  const take = (text) => {
    const push = JSON.parse(text);
    if (Object.keys(push).length > 0) window.pushes.push(push);
    return push;
  };
  window.pushes = [];
  window.ended = false;
  if (request !== undefined && transport !== "uni_http_stream") at.searchParams.append("cf_connect", typeof request === "string" ? request : JSON.stringify(request));
  if (transport === "uni_sse") {
    const events = new EventSource(at);
    events.onmessage = ({ data }) => {
      const { disconnect } = take(data);
      if (disconnect && !disconnect.reconnect) events.close(); // else the browser comes back for ever
    };
    events.onerror = () => { window.ended = events.readyState === EventSource.CLOSED; };
    window.isOver = () => events.readyState === EventSource.CLOSED;
    return;
  }
  window.isOver = () => window.ended;
  if (transport === "uni_websocket") {
    const socket = new WebSocket(at);
    socket.onmessage = ({ data }) => take(data);
    socket.onclose = ({ code }) => { window.ended = code; };
    return;
  }
  (async () => {
    const res = await fetch(at, { method: "POST", body: JSON.stringify(request) });
    let rest = "";
    for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      lines.forEach(take);
    }
    window.ended = true;
  })();
}

test("chromium", async (t) => {
  const done = cleaner(t);
  const pages = await site();
  done(pages.close);
  const context = await browser(t);
  const open = async (transport, request, url = endpoint(transport)) => {
    const page = await context.newPage();
    await page.goto(pages.url);
    await page.evaluate(listen, { transport, url, request });
    return page;
  };
  const next = async (page) => {
    await page.waitForFunction(() => window.pushes.length > 0);
    return page.evaluate(() => window.pushes.shift());
  };

  for (const transport of ["uni_sse", "uni_http_stream", "uni_websocket"]) await t.test(`${transport}: a page hears what its token and the backend subscribe it to`, async () => {
    const user = unique("ann-"), given = unique("chat:"), more = unique("news:");
    const page = await open(transport, { token: token({ sub: user, channels: [given] }), subs: { [more]: { recover: true } } });
    const { connect } = await next(page);
    assert.deepEqual(Object.keys(connect.subs), [given]);
    assert.equal(connect.ping, 25);
    await api(app, "publish", { channel: given, data: { html: "<i>&</i> 🎉\n" } });
    const { channel, pub } = await next(page);
    assert.deepEqual([channel, pub.data], [given, { html: "<i>&</i> 🎉\n" }]);
    await api(app, "publish", { channel: more, data: "not yet" });
    await api(app, "subscribe", { user, channel: more });
    assert.equal((await next(page)).subscribe.positioned, true);
    await api(app, "publish", { channel: more, data: 2 });
    assert.equal((await next(page)).pub.data, 2);
    await api(app, "disconnect", { user, disconnect: { code: 4500, reason: "go away" } });
    assert.deepEqual((await next(page)).disconnect, { code: 4500, reason: "go away" });
    await page.waitForFunction(() => window.isOver());
    if (transport === "uni_websocket") assert.equal(await page.evaluate(() => window.ended), 4500);
    await page.close();
  });

  await t.test("uni_sse: the browser comes back by itself, and goes on with the same URL", async () => {
    const user = unique("ben-"), given = unique("chat:");
    const page = await open("uni_sse", { token: token({ sub: user, channels: [given] }) });
    const first = await next(page);
    await api(app, "disconnect", { user, disconnect: { code: 3000, reason: "come back" } });
    assert.equal((await next(page)).disconnect.reconnect, true);
    const second = await next(page);
    assert.notEqual(second.connect.client, first.connect.client);
    await api(app, "publish", { channel: given, data: 1 });
    assert.equal((await next(page)).pub.data, 1);
    await page.close();
  });

  await t.test("uni_sse: a bad token is told, a malformed request ends it", async () => {
    const page = await open("uni_sse", { token: "nonsense" });
    assert.deepEqual((await next(page)).disconnect, { code: 3500, reason: "invalid token" });
    await page.waitForFunction(() => window.isOver());
    await page.close();
    const other = await open("uni_sse", "{");
    await other.waitForFunction(() => window.ended === true);
    await other.close();
  });
});
