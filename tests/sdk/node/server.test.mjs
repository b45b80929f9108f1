// The official Node server SDK.
import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { application, cleaner, clients, connect, env, event, server, subscribe, unique, until } from "./lib.mjs";

const { Pusher: Client } = clients[0];
const who = (p) => ({ user_id: p.get("user"), user_info: { name: p.get("user") } });

test("trigger and triggerBatch answer {} exactly", async () => {
  for (const res of [
    await server().trigger(unique("c-"), "e", { a: 1 }),
    await server().triggerBatch([{ channel: unique("c-"), name: "e", data: { a: 1 } }, { channel: unique("c-"), name: "e", data: "x" }]),
  ]) {
    assert.equal(res.status, 200);
    assert.deepEqual(await res.json(), {});
  }
});

test("a batch reaches its channels in order", async (t) => {
  const client = await connect(t, Client, { gateway: 1 });
  const name = unique("batch-");
  const channel = await subscribe(client, name);
  const got = [];
  channel.bind("n", (d) => got.push(d));
  await server().triggerBatch(Array.from({ length: 10 }, (_, i) => ({ channel: name, name: "n", data: i })));
  await until(() => got.length === 10, "ten events");
  assert.deepEqual(got, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("one trigger reaches a hundred channels", async (t) => {
  const client = await connect(t, Client);
  const names = Array.from({ length: 100 }, () => unique("many-"));
  const last = await Promise.all([names[0], names[99]].map((n) => subscribe(client, n)));
  const got = last.map((c) => event(c, "e"));
  await server().trigger(names, "e", "all");
  assert.deepEqual(await Promise.all(got), ["all", "all"]);
  const tooMany = server().post({ path: "/events", body: { name: "e", data: "", channels: [...names, "x"] } });
  await assert.rejects(tooMany, (e) => e.status === 400 && /100/.test(e.body));
});

test("a retry with the same idempotency key changes nothing", async (t) => {
  const client = await connect(t, Client, { gateway: 1 });
  for (const name of [unique("idem-"), unique("cache-idem-")]) {
    const channel = await subscribe(client, name);
    const got = [];
    channel.bind("e", (d) => got.push(d));
    const key = unique("key-");
    for (let n = 0; n < 3; n++) {
      const res = await server().post({ path: "/events", body: { name: "e", channels: [name], data: JSON.stringify("once"), idempotency_key: key } });
      assert.deepEqual(await res.json(), {});
    }
    await server().trigger(name, "e", "last");
    await until(() => got.includes("last"), "the last event");
    assert.deepEqual(got, ["once", "last"]);
  }
});

test("channels, channel info and users", async (t) => {
  const done = cleaner(t);
  const app = await application(who);
  done(app.close);
  const prefix = unique("presence-q-");
  const a = await connect(t, Client, { gateway: 0, app, user: "a" });
  const b = await connect(t, Client, { gateway: 1, app, user: "b" });
  await subscribe(a, `${prefix}-1`);
  await subscribe(b, `${prefix}-1`);
  await subscribe(b, `${prefix}-2`);

  await until(async () => {
    const res = await server().get({ path: "/channels", params: { filter_by_prefix: prefix, info: "user_count" } });
    const { channels } = await res.json();
    return channels[`${prefix}-1`]?.user_count === 2 && channels[`${prefix}-2`]?.user_count === 1 && Object.keys(channels).length === 2;
  }, "both channels with their counts");

  const one = await (await server().get({ path: `/channels/${prefix}-1`, params: { info: "user_count,subscription_count" } })).json();
  assert.deepEqual(one, { occupied: true, user_count: 2, subscription_count: 2 });
  const users = await (await server().get({ path: `/channels/${prefix}-1/users` })).json();
  assert.deepEqual(users.users.map((u) => u.id).sort(), ["a", "b"]);
  const empty = await (await server().get({ path: `/channels/${unique("presence-none-")}` })).json();
  assert.equal(empty.occupied, false);
});

test("a wrong secret is refused with 401 and says why", async () => {
  const bad = server({ secret: "wrong" });
  await assert.rejects(bad.trigger("c", "e", 1), (e) => e.status === 401 && /signature/i.test(e.body));
});

test("webhooks arrive signed, for what happened on any gateway", async (t) => {
  const done = cleaner(t);
  const sdk = server();
  const events = [];
  const listener = http.createServer((req, res) => {
    let rawBody = "";
    req.on("data", (d) => (rawBody += d));
    req.on("end", () => {
      const hook = sdk.webhook({ headers: req.headers, rawBody });
      res.writeHead(hook.isValid() ? 200 : 401).end();
      assert.ok(hook.isValid(), `invalid webhook ${rawBody}`);
      events.push(...hook.getEvents());
    });
  });
  const [host, port] = env.hooks.split(":");
  await new Promise((ok) => listener.listen({ host, port }, ok));
  done(() => new Promise((ok) => { listener.close(ok); listener.closeAllConnections(); }));

  const app = await application(who);
  done(app.close);
  const name = unique("presence-hook-");
  const a = await connect(t, Client, { gateway: 0, app, user: "a" });
  const b = await connect(t, Client, { gateway: 1, app, user: "b" });
  const channel = await subscribe(a, name);
  await subscribe(b, name);
  channel.trigger("client-wave", { hi: true });
  // Nobody listened while the scripts before this one ran: the endpoint may be
  // given a rest of 15 s before it is asked again.
  await until(() => events.some((e) => e.name === "client_event" && e.channel === name), "client_event");
  b.disconnect();
  a.disconnect();
  const count = (n) => events.filter((e) => e.channel === name && e.name === n).length;
  // Webhooks keep no order among themselves.
  await until(() => count("channel_vacated") > 0 && count("member_removed") > 1, "all have left");

  const mine = events.filter((e) => e.channel === name);
  assert.deepEqual(
    [count("channel_occupied"), count("member_added"), count("client_event"), count("member_removed"), count("channel_vacated")],
    [1, 2, 1, 2, 1], JSON.stringify(mine));
  const client = mine.find((e) => e.name === "client_event");
  assert.equal(client.event, "client-wave");
  assert.equal(client.user_id, "a");
  assert.deepEqual(JSON.parse(client.data), { hi: true });

  const miss = unique("cache-hook-");
  const c = await connect(t, Client);
  c.subscribe(miss);
  await until(() => events.some((e) => e.name === "cache_miss" && e.channel === miss), "cache_miss");
});
