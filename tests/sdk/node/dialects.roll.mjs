// One durable channel in every dialect: pusher-js, centrifuge-js in JSON,
// protobuf and by server-sent events, and plain clients of server-sent events,
// one of them unidirectional, hear the same in the same order, whoever publishes,
// while all gateways are restarted.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import Pusher from "pusher";
import { EventSource } from "eventsource";
import { api, apps, client, encodings, next, subscription, token } from "./centrifuge.mjs";
import { clients, env, event, unique, until } from "./lib.mjs";

const resume = createRequire(import.meta.url)("../../../clients/pusher-resume/pusher-resume.js");
const app = apps[0];
const [host, port] = env.balancer.split(":");

/** Has the gateways restarted, one after the other. */
const roll = () => fetch(process.env.CARILLON_CONTROL, { method: "POST" }).then((res) => assert.equal(res.status, 200));

async function pusherJS(t, channel, heard) {
  const { Pusher: Client } = clients[0];
  const pusher = new Client(`key-${app}`, { wsHost: host, wsPort: Number(port), forceTLS: false, disableStats: true, enabledTransports: ["ws"], cluster: "" });
  t.after(() => pusher.disconnect());
  resume(pusher);
  const c = pusher.subscribe(channel);
  for (const name of ["n", "message"]) c.bind(name, (data) => heard.push(data));
  await event(c, "pusher:subscription_succeeded");
}

async function centrifugeJS(t, channel, heard, options) {
  const c = client(t, { app, at: env.balancer, token: token({ sub: "ann" }), ...options });
  const { decode } = encodings.find((e) => e.encoding === options.encoding);
  const s = subscription(c, channel);
  await next(s.said, "subscribed");
  s.on("publication", (p) => heard.push(decode(p.data)));
  return c;
}

const bySSE = {
  encoding: "json", transports: [{ transport: "sse", endpoint: `http://${env.balancer}/connection/sse?app=${app}` }],
  emulationEndpoint: `http://${env.balancer}/emulation`, eventsource: EventSource, fetch,
};

/** What curl and a few lines of script would do: the channel comes with the
 *  token, and after a lost connection it asks for what follows. */
async function plainSSE(t, channel, heard, transport) {
  let place, ended = false, connected = false;
  const stop = new AbortController();
  t.after(() => { ended = true; stop.abort(); });
  const take = (pub) => {
    heard.push(pub.data);
    place.offset = pub.offset;
  };
  async function once() {
    const subs = place && { [channel]: { recover: true, ...place } };
    const request = { token: token({ sub: "ann", channels: [channel] }), subs };
    const first = JSON.stringify(transport === "uni_sse" ? request : { id: 1, connect: request });
    const res = await fetch(`http://${env.balancer}/connection/${transport}?app=${app}&cf_connect=${encodeURIComponent(first)}`, { signal: stop.signal });
    assert.equal(res.status, 200);
    let rest = "";
    for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines.filter((l) => l.startsWith("data: "))) {
        const message = JSON.parse(line.slice(6));
        const { connect, push = message } = message;
        if (connect) {
          const sub = connect.subs[channel];
          assert.ok(!place || sub.recovered, "the plain client was not given what it missed");
          place ??= { offset: sub.offset, epoch: sub.epoch };
          (sub.publications ?? []).forEach(take);
          connected = true;
        }
        if (push.pub && push.channel === channel) take(push.pub);
      }
    }
  }
  (async () => {
    while (!ended) {
      await once().catch((err) => { if (err instanceof assert.AssertionError) heard.push(err.message); });
      await new Promise((ok) => setTimeout(ok, 20)); // the balancer may have met a gateway that leaves
    }
  })();
  await until(() => connected, "the plain client");
}

test("all clients hear the same in the same order", async (t) => {
  const channel = unique("mixed-");
  const names = ["pusher-js", "centrifuge-js, JSON", "centrifuge-js, protobuf", "centrifuge-js, server-sent events", "plain server-sent events", "unidirectional server-sent events"];
  const heard = names.map(() => []);
  await pusherJS(t, channel, heard[0]);
  await centrifugeJS(t, channel, heard[1], { encoding: "json" });
  await centrifugeJS(t, channel, heard[2], { encoding: "protobuf" });
  await centrifugeJS(t, channel, heard[3], bySSE);
  await plainSSE(t, channel, heard[4], "sse");
  await plainSSE(t, channel, heard[5], "uni_sse");

  const publisher = client(t, { app, at: env.balancer, encoding: "protobuf", token: token({ sub: "ben" }) });
  const { encode } = encodings[1];
  const rest = new Pusher({ appId: app, key: `key-${app}`, secret: `secret-${app}`, host: env.api.split(":")[0], port: env.api.split(":")[1], useTLS: false });
  const publishers = {
    pusher: (data) => rest.trigger(channel, "n", data),
    api: (data) => api(app, "publish", { channel, data }),
    client: (data) => publisher.publish(channel, encode(data)),
  };
  let stop = false;
  const taken = new Set(), unsure = new Set(); // a publisher that lost its connection does not know
  const all = Object.entries(publishers).map(async ([by, publish]) => {
    for (let n = 0; !stop; n++) {
      await publish({ by, n }).then(() => taken.add(`${by} ${n}`), () => unsure.add(`${by} ${n}`));
      await new Promise((ok) => setTimeout(ok, 5));
    }
  });
  const more = async (n, what) => { const want = taken.size + n; await until(() => taken.size >= want, what); };
  await more(100, "publications before");
  await roll();
  await more(100, "publications after");
  stop = true;
  await Promise.all(all);
  await api(app, "publish", { channel, data: { by: "end", n: 0 } });

  await until(() => heard.every((h) => h.some((d) => d.by === "end")), `the end: ${heard.map((h) => h.length)}`);
  const as = (list) => list.map((d) => (d.by ? `${d.by} ${d.n}` : d));
  const first = as(heard[0]);
  for (const [i, list] of heard.entries()) assert.deepEqual(as(list), first, `${names[i]} heard something else than ${names[0]}`);
  assert.equal(new Set(first).size, first.length, "something came twice");
  const missing = [...taken].filter((n) => !first.includes(n));
  assert.deepEqual(missing, [], "what was taken is missing");
  assert.deepEqual(first.filter((n) => n !== "end 0" && !taken.has(n) && !unsure.has(n)), [], "nobody has published that");
  assert.ok(unsure.size < taken.size / 2, `${taken.size} publications were taken, ${unsure.size} may not have been`);
  for (const by of Object.keys(publishers)) {
    const of = heard[0].filter((d) => d.by === by).map((d) => d.n);
    assert.deepEqual(of, [...of].sort((a, b) => a - b), `the publications of ${by} came in another order`);
  }
});
