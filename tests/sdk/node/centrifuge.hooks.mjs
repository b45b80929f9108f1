// centrifuge-js, against two gateways and an application that is asked over
// HTTP, gRPC and NATS; both encodings.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, apps, client, code, encodings, next, now, subscription, token } from "./centrifuge.mjs";
import { unique, until } from "./lib.mjs";

/** The answer of a connect hook that lets Ann in. */
const ann = (more) => ({ answer: { result: { user: "ann", info: { name: "Ann" }, data: { hello: 1 }, ...more } } });

for (const app of apps) for (const { encoding, encode, decode } of encodings) {
  const it = (what, run) => test(`${app}, ${encoding}: ${what}`, run);
  const open = (t, options) => client(t, { app, encoding, ...options });
  const signedIn = async (t, user = "ann") => {
    const c = open(t, { token: token({ sub: user, info: { name: user } }) });
    await next(c.said, "connected");
    return c;
  };
  const asked = async (c) => decode((await c.rpc("asked", encode({}))).data);

  it("the connect hook says who it is, and subscribes it", async (t) => {
    const channel = unique("news:");
    const c = open(t, { data: encode(ann({ subs: { [channel]: { data: { given: true } } } })) });
    const connected = await next(c.said, "connected");
    assert.deepEqual(decode(connected.data), { hello: 1 });
    const subscribed = await next(c.said, "subscribed");
    assert.deepEqual([subscribed.channel, decode(subscribed.data), subscribed.recoverable], [channel, { given: true }, true]);
    await api(app, "publish", { channel, data: { n: 1 } });
    const pub = await next(c.said, "publication");
    assert.deepEqual([pub.channel, decode(pub.data), pub.info], [channel, { n: 1 }, undefined]);
    assert.deepEqual(await asked(c), ["connect"]);
  });

  it("the connect hook refuses", async (t) => {
    const kicked = open(t, { data: encode({ answer: { disconnect: { code: 4501, reason: "no" } } }) });
    const gone = await next(kicked.said, "disconnected");
    assert.deepEqual([gone.code, gone.reason], [4501, "no"]);
    const unknown = open(t, { data: encode({}) });
    assert.equal((await next(unknown.said, "disconnected")).code, 3501);
    const refused = open(t, { data: encode({ answer: { error: { code: 1000, message: "closed today" } } }) });
    assert.equal((await next(refused.said, "disconnected")).code, 1000);
  });

  it("subscribe and publish hooks decide", async (t) => {
    const channel = unique("ask:");
    const [c, other] = [await signedIn(t), await signedIn(t, "ben")];
    const s = subscription(c, channel, { data: encode({ answer: { result: { info: { role: "host" }, data: { topic: "tea" } } } }) });
    assert.deepEqual(decode((await next(s.said, "subscribed")).data), { topic: "tea" });
    const o = subscription(other, channel);
    await next(o.said, "subscribed");
    await s.publish(encode({ text: "hi", answer: { result: { data: { text: "edited" } } } }));
    for (const one of [s, o]) {
      const pub = await next(one.said, "publication");
      assert.deepEqual([decode(pub.data), pub.info.user, decode(pub.info.connInfo), decode(pub.info.chanInfo)], [{ text: "edited" }, "ann", { name: "ann" }, { role: "host" }]);
    }
    assert.equal(await code(s.publish(encode({ answer: { error: { code: 1001, message: "too loud" } } }))), 1001);
    const refused = subscription(c, unique("ask:"), { data: encode({ answer: { error: { code: 1002, message: "members only" } } }) });
    const why = await next(refused.said, "unsubscribed");
    assert.deepEqual([why.code, why.reason], [1002, "members only"]);
    assert.deepEqual(await asked(c), ["subscribe", "publish", "publish", "subscribe"]);
    s.publish(encode({ answer: { disconnect: { code: 4502, reason: "out" } } })).catch(() => {});
    assert.equal((await next(c.said, "disconnected")).code, 4502);
  });

  it("calls reach the application and come back", async (t) => {
    const c = await signedIn(t);
    const data = { text: "<b>&\u2028 ünïcode 🎉</b>", n: 1 };
    const got = decode((await c.rpc("get:users/1", encode(data))).data);
    assert.deepEqual([got.user, got.method, got.data, got.transport, got.protocol, got.encoding], ["ann", "get:users/1", data, "websocket", encoding, "json"]);
    assert.equal(await code(c.rpc("x", encode({ answer: { error: { code: 404, message: "no such user" } } }))), 404);
    assert.equal(await code(c.rpc("x", encode({ answer: "nonsense" }))), 100);
    const all = await Promise.all(Array.from({ length: 20 }, (_, n) => c.rpc("n", encode({ answer: { result: { data: n } } }))));
    assert.deepEqual(all.map((r) => decode(r.data)), [...Array(20).keys()]);
    c.rpc("x", encode({ answer: { disconnect: { code: 4503, reason: "enough" } } })).catch(() => {});
    assert.equal((await next(c.said, "disconnected")).code, 4503);
  });

  it("refresh hooks lengthen or end a connection and a subscription", async (t) => {
    const later = { result: { expire_in: 3600 } }, over = { result: { expired: true } };
    const c = open(t, { data: encode(ann({ expire_in: 2, meta: { refresh: later, sub_refresh: later } })) });
    await next(c.said, "connected");
    const s = subscription(c, unique("ask:"), { data: encode({ answer: { result: { expire_in: 2 } } }) });
    await next(s.said, "subscribed");
    await until(async () => (await asked(c)).length >= 4, "both questions");
    assert.deepEqual((await asked(c)).sort(), ["connect", "refresh", "sub_refresh", "subscribe"]);
    assert.deepEqual([c.state, s.state, c.said, s.said], ["connected", "subscribed", [], []]);

    let connecting = 0;
    const short = open(t, { data: encode(ann({ expire_in: 2, meta: { refresh: over } })) });
    short.on("connecting", (ctx) => { connecting = ctx.code; });
    await next(short.said, "connected");
    await until(() => connecting === 3005, "the end of the connection");
  });

  it("who is there, across gateways", async (t) => {
    const channel = unique("chat:");
    const [a, b] = [await signedIn(t), await signedIn(t, "ben")];
    const s = subscription(a, channel, { joinLeave: true });
    await next(s.said, "subscribed");
    assert.equal((await next(s.said, "join")).info.user, "ann");
    const o = subscription(b, channel);
    await next(o.said, "subscribed");
    const joined = await next(s.said, "join");
    assert.deepEqual([joined.info.user, decode(joined.info.connInfo)], ["ben", { name: "ben" }]);
    assert.deepEqual(await s.presenceStats(), { numClients: 2, numUsers: 2 });
    const there = Object.values((await o.presence()).clients).map((i) => i.user).sort();
    assert.deepEqual(there, ["ann", "ben"]);
    assert.deepEqual(Object.values((await api(app, "presence", { channel })).presence).map((i) => i.user).sort(), there);
    o.unsubscribe();
    assert.equal((await next(s.said, "leave")).info.user, "ben");
    await until(async () => (await api(app, "presence_stats", { channel })).num_clients === 1, "one client");
  });

  it("history, and what was missed comes after a reconnect", async (t) => {
    const channel = unique("chat:");
    const c = await signedIn(t);
    const s = subscription(c, channel);
    await next(s.said, "subscribed");
    for (let n = 0; n < 5; n++) await api(app, "publish", { channel, data: { n }, tags: { kind: "count" } });
    for (let n = 0; n < 5; n++) {
      const pub = await next(s.said, "publication");
      assert.deepEqual([decode(pub.data), pub.tags], [{ n }, { kind: "count" }]);
    }
    const top = await s.history();
    assert.equal(top.publications.length, 0);
    const past = await s.history({ limit: 2, reverse: true });
    assert.deepEqual(past.publications.map((p) => decode(p.data)), [{ n: 4 }, { n: 3 }]);
    assert.equal(past.publications[0].offset, top.offset);
    c.disconnect();
    await next(c.said, "disconnected");
    for (let n = 5; n < 8; n++) await api(app, "publish", { channel, data: { n } });
    c.connect();
    const back = await next(s.said, "subscribed");
    assert.deepEqual([back.wasRecovering, back.recovered], [true, true]);
    for (let n = 5; n < 8; n++) assert.deepEqual(decode((await next(s.said, "publication")).data), { n });
  });

  it("tokens of subscriptions are fetched again before they expire", async (t) => {
    const channel = unique("closed:");
    const c = await signedIn(t);
    let fetched = 0;
    const s = subscription(c, channel, { getToken: async () => token({ sub: "ann", channel, exp: now() + (++fetched === 1 ? 2 : 600) }) });
    await next(s.said, "subscribed");
    await until(() => fetched === 2, "a second token");
    await api(app, "publish", { channel, data: 1 });
    assert.equal(decode((await next(s.said, "publication")).data), 1);
    assert.equal(fetched, 2);
    for (const claims of [{ sub: "ben", channel }, { sub: "ann", channel: unique("closed:") }]) {
      const wrong = await signedIn(t);
      subscription(wrong, channel, { token: token(claims) });
      assert.equal((await next(wrong.said, "disconnected")).code, 3500);
    }
  });

  it("the server subscribes, unsubscribes and disconnects users", async (t) => {
    const user = unique("user"), channel = unique("news:");
    const both = [await signedIn(t, user), await signedIn(t, user)];
    await api(app, "subscribe", { user, channel });
    for (const c of both) assert.equal((await next(c.said, "subscribed")).channel, channel);
    await api(app, "broadcast", { channels: [channel, unique("news:")], data: "all" });
    for (const c of both) assert.equal(decode((await next(c.said, "publication")).data), "all");
    await api(app, "unsubscribe", { user, channel });
    for (const c of both) assert.equal((await next(c.said, "unsubscribed")).channel, channel);
    await api(app, "disconnect", { user, disconnect: { code: 4504, reason: "bye" } });
    for (const c of both) assert.equal((await next(c.said, "disconnected")).code, 4504);
  });

  it("conditions and namespaces are kept to", async (t) => {
    const [a, b] = [await signedIn(t), await signedIn(t, "ben")];
    const channel = unique("ann:");
    const s = subscription(a, channel);
    await next(s.said, "subscribed");
    await s.publish(encode(1));
    assert.equal((await next(subscription(b, channel).said, "unsubscribed")).code, 103);
    assert.equal((await next(subscription(b, unique("nobody:knows-")).said, "unsubscribed")).code, 102);
    assert.equal((await next(subscription(b, unique("closed:")).said, "unsubscribed")).code, 103);
    assert.equal((await next(subscription(b, "x".repeat(300)).said, "unsubscribed")).code, 107);
    assert.equal(await code(b.publish(channel, encode(1))), 103);
    assert.equal(await code(b.history(unique("open:"))), 108);
    await b.publish(unique("open:"), encode(1));
    b.send(encode(1)).catch(() => {});
    assert.equal((await next(b.said, "disconnected")).code, 3508);
  });
}
