// centrifuge-js without WebSockets: HTTP streaming and server-sent events, each
// request with whichever gateway the balancer picks.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { test } from "node:test";
import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import { env, patience, server, unique, until } from "./lib.mjs";

/** As much of EventSource as centrifuge-js uses. */
class EventSource {
  #stop = new AbortController();

  constructor(url) { this.#run(url); }

  async #run(url) {
    try {
      const res = await fetch(url, { signal: this.#stop.signal, headers: { Accept: "text/event-stream" } });
      if (res.status !== 200 || !res.headers.get("content-type").startsWith("text/event-stream")) throw new Error(`status ${res.status}`);
      this.onopen?.();
      let rest = "";
      for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
        const events = (rest + chunk).replaceAll("\r\n", "\n").split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const data = event.split("\n").filter((l) => l.startsWith("data: ")).map((l) => l.slice(6)).join("\n");
          if (data) this.onmessage?.({ data });
        }
      }
      this.onerror?.(new Error("the stream ended"));
    } catch (err) {
      if (!this.#stop.signal.aborted) this.onerror?.(err);
    }
  }

  close() { this.#stop.abort(); }
}

const text = new TextEncoder();
const ways = [
  { name: "HTTP streaming, JSON", Client: Centrifuge, transport: "http_stream", encode: (v) => v, decode: (v) => v },
  { name: "HTTP streaming, protobuf", Client: Binary, transport: "http_stream", encode: (v) => text.encode(JSON.stringify(v)), decode: (v) => JSON.parse(new TextDecoder().decode(v)) },
  { name: "server-sent events", Client: Centrifuge, transport: "sse", encode: (v) => v, decode: (v) => v },
];

/** A token as an application signs it. */
function token(claims) {
  const part = (v) => Buffer.from(JSON.stringify(v)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${crypto.createHmac("sha256", env.secret).update(signed).digest("base64url")}`;
}

/** Resolves with the next `name` event. */
const once = (emitter, name, ms = patience) => new Promise((ok, fail) => {
  const timer = setTimeout(() => fail(new Error(`no event ${name} within ${ms} ms`)), ms);
  emitter.once(name, (context) => { clearTimeout(timer); ok(context); });
});

async function connect(t, { Client, transport }, options = {}) {
  const c = new Client([{ transport, endpoint: `http://${env.balancer}/connection/${transport}` }], {
    emulationEndpoint: `http://${env.balancer}/emulation`, fetch, readableStream: ReadableStream, eventsource: EventSource, timeout: 20_000, ...options,
  });
  t.after(() => c.disconnect());
  const connected = once(c, "connected");
  c.connect();
  c.context = await connected;
  return c;
}

for (const way of ways) {
  const { name, transport, encode, decode } = way;

  test(`${name}: subscribe, publish, hear, unsubscribe`, async (t) => {
    const c = await connect(t, way, { token: token({ sub: "42" }) });
    assert.equal(c.context.transport, transport);
    const channel = unique("plain-");
    const s = c.newSubscription(channel);
    const got = [];
    s.on("publication", (p) => got.push(decode(p.data)));
    s.subscribe();
    await once(s, "subscribed");
    for (let n = 0; n < 30; n++) await server().trigger(channel, "said", { n });
    await until(() => got.length >= 30, "30 publications");
    assert.deepEqual(got.map((d) => d.n), [...Array(30).keys()]);
    s.unsubscribe();
    const log = c.newSubscription(unique(`centrifugo:log-${transport}-`));
    log.on("publication", (p) => got.push(decode(p.data)));
    log.subscribe();
    await once(log, "subscribed");
    for (let n = 0; n < 5; n++) await log.publish(encode({ log: n }));
    await until(() => got.length >= 35, "what the client has published");
    assert.deepEqual(got.slice(30), [0, 1, 2, 3, 4].map((n) => ({ log: n })));
    const history = await log.history({ limit: 10 });
    assert.equal(history.publications.length, 5);
  });

  test(`${name}: a client that was away recovers`, async (t) => {
    const c = await connect(t, way, { token: token({ sub: "43" }) });
    const s = c.newSubscription(unique(`centrifugo:log-${transport}-`));
    const got = [];
    s.on("publication", (p) => got.push(decode(p.data)));
    s.subscribe();
    await once(s, "subscribed");
    await s.publish(encode(1));
    await until(() => got.length === 1, "the first");
    c.disconnect();
    const other = await connect(t, way, { token: token({ sub: "44" }) });
    await other.publish(s.channel, encode(2));
    const again = once(s, "subscribed");
    c.connect();
    assert.ok((await again).recovered);
    await until(() => got.length === 2, "what was missed");
    assert.deepEqual(got, [1, 2]);
  });

  test(`${name}: a bad token is refused for good`, async (t) => {
    const c = new way.Client([{ transport, endpoint: `http://${env.balancer}/connection/${transport}` }], {
      emulationEndpoint: `http://${env.balancer}/emulation`, fetch, readableStream: ReadableStream, eventsource: EventSource, token: "nonsense",
    });
    t.after(() => c.disconnect());
    const gone = once(c, "disconnected");
    c.connect();
    assert.equal((await gone).code, 3500);
  });
}
