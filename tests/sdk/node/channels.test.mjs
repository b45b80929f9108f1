// pusher-js against every kind of channel; where it matters, the subscribers
// are on different gateways.
import assert from "node:assert/strict";
import { test } from "node:test";
import nacl from "tweetnacl";
import { application, cleaner, clients, connect, event, server, subscribe, unique, until } from "./lib.mjs";

const who = (p) => ({ user_id: p.get("user"), user_info: { name: `Name of ${p.get("user")}` } });

for (const { name, Pusher: Client } of clients) {
  test(`${name}: a public event reaches subscribers on all gateways, byte for byte`, async (t) => {
    const one = await connect(t, Client, { gateway: 0 });
    const two = await connect(t, Client, { gateway: 1 });
    const channel = unique("news-");
    const got = [await subscribe(one, channel), await subscribe(two, channel)].map((c) => event(c, "release"));
    const data = { text: "<b>&\u2028 ünïcode 🎉</b>", n: 1.0 };
    await server().trigger(channel, "release", data);
    for (const g of got) assert.deepEqual(await g, data);
  });

  test(`${name}: socket_id is excluded, on whatever gateway it is`, async (t) => {
    const one = await connect(t, Client, { gateway: 0 });
    const two = await connect(t, Client, { gateway: 1 });
    const channel = unique("excl-");
    const a = await subscribe(one, channel);
    const b = await subscribe(two, channel);
    const seen = [];
    a.bind("e", (d) => seen.push(d));
    const other = event(b, "e");
    await server().trigger(channel, "e", "first", { socket_id: one.connection.socket_id });
    assert.equal(await other, "first");
    const last = event(a, "e", (d) => d === "second");
    await server().trigger(channel, "e", "second");
    await last;
    assert.deepEqual(seen, ["second"]);
  });

  test(`${name}: a private channel needs the application's word`, async (t) => {
    const done = cleaner(t);
    const app = await application((p) => (p.get("user") === "mallory" ? null : who(p)));
    done(app.close);
    const ok = await connect(t, Client, { app, user: "alice" });
    const channel = await subscribe(ok, unique("private-"));
    const got = event(channel, "alert");
    await server().trigger(channel.name, "alert", { level: "red" });
    assert.deepEqual(await got, { level: "red" });

    const bad = await connect(t, Client, { app, user: "mallory" });
    await assert.rejects(subscribe(bad, channel.name), /subscription error/);
  });

  test(`${name}: a forged signature is refused and the connection lives`, async (t) => {
    const client = await connect(t, Client, {
      channelAuthorization: { customHandler: (_p, cb) => cb(null, { auth: `x:${"0".repeat(64)}` }) },
      authorizer: () => ({ authorize: (_s, cb) => cb(null, { auth: `x:${"0".repeat(64)}` }) }),
    });
    await assert.rejects(subscribe(client, unique("private-")), /AuthError/);
    await subscribe(client, unique("public-"));
  });

  test(`${name}: presence across gateways: members, joins and leaves once per user`, async (t) => {
    const done = cleaner(t);
    const app = await application(who);
    done(app.close);
    const name = unique("presence-room-");
    const alice = await connect(t, Client, { gateway: 0, app, user: "alice" });
    const room = await subscribe(alice, name);
    assert.equal(room.members.count, 1);
    assert.equal(room.members.me.id, "alice");

    const events = [];
    room.bind("pusher:member_added", (m) => events.push(`+${m.id}`));
    room.bind("pusher:member_removed", (m) => events.push(`-${m.id}`));
    const bob = await connect(t, Client, { gateway: 1, app, user: "bob" });
    const bobs = await subscribe(bob, name);
    assert.equal(bobs.members.count, 2);
    assert.deepEqual(bobs.members.get("alice").info, { name: "Name of alice" });
    const bobAgain = await connect(t, Client, { gateway: 0, app, user: "bob" });
    await subscribe(bobAgain, name);
    await until(() => events.length >= 1, "member_added");
    bob.disconnect();
    const carol = await connect(t, Client, { gateway: 1, app, user: "carol" });
    await subscribe(carol, name);
    await until(() => events.length >= 2, "carol's member_added");
    bobAgain.disconnect();
    await until(() => events.length >= 3, "member_removed");
    assert.deepEqual(events, ["+bob", "+carol", "-bob"]);
    assert.equal(room.members.count, 2);
  });

  test(`${name}: a client event reaches the others with the sender's user id`, async (t) => {
    const done = cleaner(t);
    const app = await application(who);
    done(app.close);
    const name = unique("presence-typing-");
    const alice = await connect(t, Client, { gateway: 0, app, user: "alice" });
    const bob = await connect(t, Client, { gateway: 1, app, user: "bob" });
    const a = await subscribe(alice, name);
    const b = await subscribe(bob, name);
    const own = [];
    a.bind("client-typing", (d) => own.push(d));
    const got = new Promise((ok) => b.bind("client-typing", (d, meta) => ok([d, meta?.user_id])));
    assert.equal(a.trigger("client-typing", { on: true, text: "<&>" }), true);
    assert.deepEqual(await got, [{ on: true, text: "<&>" }, "alice"]);
    assert.deepEqual(own, []);
  });

  test(`${name}: cache channels: a miss, then the last event`, async (t) => {
    const name = unique("cache-price-");
    const one = await connect(t, Client, { gateway: 0 });
    const channel = one.subscribe(name);
    await event(channel, "pusher:cache_miss");
    await server().trigger(name, "price", { usd: 1 });
    await server().trigger(name, "price", { usd: 2 });
    const two = await connect(t, Client, { gateway: 1 });
    assert.deepEqual(await event(two.subscribe(name), "price"), { usd: 2 });
    const info = await server().get({ path: `/channels/${name}`, params: { info: "cache" } });
    const body = await info.json();
    assert.equal(body.cache.data, JSON.stringify({ usd: 2 }));
    assert.ok(body.cache.ttl > 0);
  });

  for (const kind of ["private-cache-", "presence-cache-", "private-encrypted-cache-"]) {
    test(`${name}: ${kind} channels are cached and protected`, async (t) => {
      const done = cleaner(t);
      const app = await application((p) => (p.get("user") === "mallory" ? null : who(p)));
      done(app.close);
      const channel = unique(kind);
      const one = await connect(t, Client, { gateway: 0, app, user: "alice" });
      await event(one.subscribe(channel), "pusher:cache_miss");
      await server().trigger(channel, "score", { n: 1 });
      await server().trigger(channel, "score", { n: 2 });
      const two = await connect(t, Client, { gateway: 1, app, user: "bob" });
      assert.deepEqual(await event(two.subscribe(channel), "score"), { n: 2 });
      const bad = await connect(t, Client, { gateway: 1, app, user: "mallory" });
      await assert.rejects(subscribe(bad, channel), /subscription error/);
    });
  }

  test(`${name}: a signed-in user is the member of a presence channel`, async (t) => {
    const done = cleaner(t);
    const app = await application((p) => ({ ...who(p), signedIn: true }));
    done(app.close);
    const channel = unique("presence-signed-");
    const alice = await connect(t, Client, { gateway: 0, app, user: "alice" });
    alice.signin();
    await alice.user.signinDonePromise;
    const room = await subscribe(alice, channel);
    assert.deepEqual(Object.keys(room.members.members), ["alice"]);
    const joined = event(room, "pusher:member_added");
    const bob = await connect(t, Client, { gateway: 1, app, user: "bob" });
    bob.signin();
    await bob.user.signinDonePromise;
    await subscribe(bob, channel);
    assert.equal((await joined).id, "bob");
    assert.deepEqual((await joined).info, { name: "Name of bob" });
  });

  test(`${name}: subscription_count follows subscribers on all gateways`, async (t) => {
    const name = unique("counted-");
    const one = await connect(t, Client, { gateway: 0 });
    const channel = await subscribe(one, name);
    const two = await connect(t, Client, { gateway: 1 });
    const counted = event(channel, "pusher:subscription_count", (d) => d.subscription_count === 2);
    await subscribe(two, name);
    await counted;
    assert.equal(channel.subscriptionCount, 2);
  });

  test(`${name}: end-to-end encrypted channels`, async (t) => {
    const done = cleaner(t);
    const app = await application(who);
    done(app.close);
    const { default: withNacl } = await import(name.endsWith("8") ? "pusher-js/with-encryption" : "pusher-js-7/with-encryption").catch(() => ({}));
    const Encrypting = withNacl?.Pusher ?? withNacl ?? Client;
    const client = await connect(t, Encrypting, { gateway: 1, app, user: "alice", nacl });
    const channel = await subscribe(client, unique("private-encrypted-"));
    const got = event(channel, "secret");
    await server().trigger(channel.name, "secret", { eyes: "only" });
    assert.deepEqual(await got, { eyes: "only" });
  });

  test(`${name}: unsubscribe ends delivery, subscribe again resumes it`, async (t) => {
    const name = unique("again-");
    const client = await connect(t, Client);
    await subscribe(client, name);
    client.unsubscribe(name);
    const channel = await subscribe(client, name);
    const got = event(channel, "e");
    await server().trigger(name, "e", 1);
    assert.equal(await got, 1);
  });
}

for (const { name, Pusher: Client } of clients) {
  test(`${name}: sign-in, server to user, watchlist, terminate`, async (t) => {
    const done = cleaner(t);
    const alice = unique("alice"), bob = unique("bob");
    const app = await application((p) => ({ user_id: p.get("user"), user_info: {}, watchlist: p.get("user") === alice ? [bob] : [] }));
    done(app.close);
    const a = await connect(t, Client, { gateway: 0, app, user: alice });
    const offline = event(a.user.watchlist, "offline", (d) => d.user_ids.includes(bob));
    a.signin();
    await a.user.signinDonePromise;
    await offline;

    const online = event(a.user.watchlist, "online", (d) => d.user_ids.includes(bob));
    const b = await connect(t, Client, { gateway: 1, app, user: bob });
    b.signin();
    await b.user.signinDonePromise;
    await online;

    const note = new Promise((ok) => b.user.bind("note", ok));
    await until(() => b.user.serverToUserChannel?.subscribed, "server-to-user subscription");
    await server().sendToUser(bob, "note", { hi: 1 });
    assert.deepEqual(await note, { hi: 1 });

    const gone = event(a.user.watchlist, "offline", (d) => d.user_ids.includes(bob));
    const closed = event(b.connection, "error", (e) => e?.data?.code === 4009);
    await server().terminateUserConnections(bob);
    await closed;
    await until(() => b.connection.state === "disconnected" || b.connection.state === "failed", "terminated client stays away");
    await gone;
  });
}
