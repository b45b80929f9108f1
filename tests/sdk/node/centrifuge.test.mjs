// centrifuge-js, in both encodings.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { test } from "node:test";
import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { clients, connect as connectPusher, env, event, patience, server, subscribe as subscribePusher, unique, until } from "./lib.mjs";

const text = new TextEncoder();
const encodings = [
  { name: "JSON", Client: Centrifuge, encode: (v) => v, decode: (v) => v },
  { name: "protobuf", Client: Binary, encode: (v) => text.encode(JSON.stringify(v)), decode: (v) => JSON.parse(new TextDecoder().decode(v)) },
];

const now = () => Math.floor(Date.now() / 1000);

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

let gateway = 0;
async function connect(t, Client, options = {}) {
  const c = new Client(`ws://${env.gateways[gateway++ % env.gateways.length]}/connection/websocket`, { websocket: WebSocket, ...options });
  t.after(() => c.disconnect());
  c.connect();
  await once(c, "connected");
  return c;
}

/** A live subscription and what it got. */
async function subscribe(c, name, decode, options) {
  const s = c.newSubscription(name, options);
  const got = [];
  s.on("publication", (p) => got.push(decode(p.data)));
  s.subscribe();
  s.context = await once(s, "subscribed");
  return [s, got];
}

const document = (n) => ({ n, text: "ž and much that stays as it is, over and over again. ".repeat(5), list: [n, n + 1] });

for (const { name: encoding, Client, encode, decode } of encodings) {
  const name = (kind) => unique(`centrifugo:${kind}-${encoding}-`);

  test(`${encoding}: publications reach all protocols`, async (t) => {
    const c = await connect(t, Client);
    const channel = unique("plain-");
    const [s] = await subscribe(c, channel, decode);
    const said = once(s, "publication");
    await server().trigger(channel, "said", { a: 1 });
    const pub = await said;
    assert.deepEqual([decode(pub.data), pub.tags], [{ a: 1 }, { event: "said" }]);
    const open = unique("open-");
    const pusher = await subscribePusher(await connectPusher(t, clients[0].Pusher), open);
    const heard = event(pusher, "message");
    await c.publish(open, encode({ b: 2 }));
    assert.deepEqual(await heard, { b: 2 });
  });

  test(`${encoding}: a client gets what it publishes before the answer`, async (t) => {
    const c = await connect(t, Client, { token: token({ sub: "42", info: { name: "A" } }) });
    const [s, got] = await subscribe(c, name("log"), decode);
    assert.ok(s.context.positioned && s.context.recoverable);
    for (let n = 0; n < 5; n++) {
      await s.publish(encode(n));
      assert.equal(got.length, n + 1);
    }
    const h = await s.history({ limit: 10 });
    assert.deepEqual(h.publications.map((p) => decode(p.data)), [0, 1, 2, 3, 4]);
    assert.equal(h.publications[0].info.user, "42");
    const back = await s.history({ limit: 2, reverse: true });
    assert.deepEqual(back.publications.map((p) => decode(p.data)), [4, 3]);
    const rest = await s.history({ limit: 10, since: { offset: h.publications[2].offset, epoch: h.epoch } });
    assert.deepEqual(rest.publications.map((p) => decode(p.data)), [3, 4]);
  });

  for (const delta of [undefined, "fossil"]) {
    test(`${encoding}: what was missed is recovered${delta ? ", by differences" : ""}`, async (t) => {
      const channel = name("log");
      const [c, publisher] = [await connect(t, Client), await connect(t, Client)];
      const [s, got] = await subscribe(c, channel, decode, { delta });
      const want = [];
      const publish = async (n) => {
        for (const last = want.length + n; want.length < last;) {
          want.push(document(want.length));
          await publisher.publish(channel, encode(want.at(-1)));
        }
      };
      await publish(3);
      await until(() => got.length === 3, "three publications");
      for (let round = 0; round < 2; round++) {
        c.disconnect();
        await publish(4);
        c.connect();
        const context = await once(s, "subscribed");
        assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
        await publish(3);
        await until(() => got.length === want.length, "all publications");
        assert.deepEqual(got, want);
      }
    });
  }

  test(`${encoding}: a subscription begins with the last value`, async (t) => {
    const channel = name("last");
    const c = await connect(t, Client);
    await c.publish(channel, encode("old"));
    await c.publish(channel, encode("new"));
    const [, got] = await subscribe(c, channel, decode);
    await until(() => got.length > 0, "the last value");
    assert.deepEqual(got, ["new"]);
  });

  test(`${encoding}: presence, join and leave`, async (t) => {
    const channel = name("room");
    const c = await connect(t, Client, { token: token({ sub: "42", info: { name: "A" } }) });
    const s = c.newSubscription(channel, { joinLeave: true });
    const [joins, leaves] = [[], []];
    s.on("join", (x) => joins.push(x.info.user));
    s.on("leave", (x) => leaves.push(x.info.user));
    s.subscribe();
    await once(s, "subscribed");
    const other = await connect(t, Client, { token: token({ sub: "43" }) });
    await subscribe(other, channel, decode);
    await until(() => joins.length === 2, "both joins");
    const stats = await s.presenceStats();
    assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
    const members = Object.values((await s.presence()).clients).map((m) => m.user).sort();
    assert.deepEqual(members, ["42", "43"]);
    other.disconnect();
    await until(() => leaves.length === 1, "the leave");
    assert.deepEqual([joins, leaves], [["42", "43"], ["43"]]);
  });

  test(`${encoding}: tokens of subscriptions`, async (t) => {
    const c = await connect(t, Client, { token: token({ sub: "42" }) });
    const channel = `$${name("x")}`;
    await subscribe(c, channel, decode, { getToken: async () => token({ sub: "42", channel, exp: now() + 100 }) });
    const none = c.newSubscription(`$${name("x")}`);
    none.subscribe();
    assert.equal((await once(none, "unsubscribed")).code, 103);
    const refused = c.newSubscription(channel.slice(1) + "#43");
    refused.subscribe();
    assert.equal((await once(refused, "unsubscribed")).code, 103);
  });

  test(`${encoding}: tokens of connections`, async (t) => {
    const bad = new Client(`ws://${env.gateways[0]}/connection/websocket`, { websocket: WebSocket, token: "bad" });
    bad.connect();
    assert.equal((await once(bad, "disconnected")).code, 3500);
    let fetched = 0;
    const c = await connect(t, Client, {
      token: token({ sub: "42", exp: 1 }),
      getToken: async () => { fetched++; return token({ sub: "42", exp: now() + (fetched === 1 ? 2 : 100) }); },
    });
    assert.equal(fetched, 1);
    await until(() => fetched === 2, "a refresh");
    assert.equal(c.state, "connected");
  });

  test(`${encoding}: subscriptions of the server`, async (t) => {
    const channel = name("log");
    const c = await connect(t, Client, { token: token({ sub: "42", channels: [channel, name("room")] }) });
    const got = [];
    c.on("publication", (p) => got.push(decode(p.data)));
    const publisher = await connect(t, Client);
    await publisher.publish(channel, encode(1));
    await until(() => got.length === 1, "the publication");
    c.disconnect();
    await publisher.publish(channel, encode(2));
    c.connect();
    await until(() => got.length === 2, "what was missed");
    assert.deepEqual(got, [1, 2]);
  });

  test(`${encoding}: filters`, async (t) => {
    const channel = unique("tags-");
    const c = await connect(t, Client);
    const [, got] = await subscribe(c, channel, decode, { tagsFilter: { key: "event", cmp: "eq", val: "said" } });
    await server().trigger(channel, "other", 1);
    await server().trigger(channel, "said", 2);
    await until(() => got.length > 0, "the publication");
    assert.deepEqual(got, [2]);
  });

  test(`${encoding}: errors`, async (t) => {
    const c = await connect(t, Client);
    const code = (promise) => promise.then(() => 0, (e) => e.code);
    assert.equal(await code(c.rpc("m", encode({}))), 108);
    assert.equal(await code(c.publish("plain-x", encode(1))), 103);
    assert.equal(await code(c.history("plain-x")), 108);
    assert.equal(await code(c.presence("plain-x")), 108);
    assert.equal(await code(c.history(name("log"), { limit: 1, since: { offset: 1, epoch: "no" } })), 112);
  });
}
