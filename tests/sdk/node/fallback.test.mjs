// pusher-js without WebSockets: xhr_streaming and xhr_polling, each exchange
// with whichever gateway the balancer picks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { application, cleaner, clients, connect, env, event, server, subscribe, unique, until } from "./lib.mjs";

const [httpHost, httpPort] = env.balancer.split(":");

/** A connected client with one transport only. */
const over = (t, Client, transport, options = {}) =>
  connect(t, Client, { httpHost, httpPort: Number(httpPort), enabledTransports: [transport], ...options });

for (const { name, Pusher: Client } of clients) {
  for (const transport of ["xhr_streaming", "xhr_polling"]) {
    test(`${name}, ${transport}: events arrive in order, byte for byte, and nothing twice`, async (t) => {
      const client = await over(t, Client, transport);
      const channel = await subscribe(client, unique("news-"));
      const data = { text: "<b>&\u2028 ünïcode 🎉</b>\n", n: 1.0 };
      const first = event(channel, "release");
      await server().trigger(channel.name, "release", data);
      assert.deepEqual(await first, data);

      const seen = [];
      channel.bind("n", (n) => seen.push(n));
      for (let i = 0; i < 60; i++) await server().trigger(channel.name, "n", i);
      await until(() => seen.length >= 60, "60 events");
      assert.deepEqual(seen, [...Array(60).keys()]);
    });

    test(`${name}, ${transport}: socket_id is excluded`, async (t) => {
      const one = await over(t, Client, transport), two = await over(t, Client, transport);
      const channel = unique("excl-");
      const a = await subscribe(one, channel), b = await subscribe(two, channel);
      const seen = [];
      a.bind("e", (d) => seen.push(d));
      const other = event(b, "e", (d) => d === "second");
      await server().trigger(channel, "e", "first", { socket_id: one.connection.socket_id });
      await server().trigger(channel, "e", "second");
      await other;
      await until(() => seen.length > 0, "the second event");
      assert.deepEqual(seen, ["second"]);
    });

    test(`${name}, ${transport}: presence, client events and members that leave`, async (t) => {
      const done = cleaner(t);
      const app = await application((p) => ({ user_id: p.get("user"), user_info: { name: p.get("user") } }));
      done(app.close);
      const room = unique("presence-room-");
      const ann = await over(t, Client, transport, { app, user: "ann" });
      const ben = await connect(t, Client, { app, user: "ben" });
      const a = await subscribe(ann, room);
      const joined = event(a, "pusher:member_added");
      const b = await subscribe(ben, room);
      assert.equal((await joined).id, "ben");
      assert.equal(b.members.count, 2);

      const heard = event(b, "client-typing");
      assert.ok(a.trigger("client-typing", { in: "a" }));
      assert.deepEqual(await heard, { in: "a" });
      const back = event(a, "client-typing");
      assert.ok(b.trigger("client-typing", { in: "b" }));
      assert.deepEqual(await back, { in: "b" });

      const left = event(b, "pusher:member_removed", () => true);
      ann.disconnect(); // tells nobody: the exchange ends
      assert.equal((await left).id, "ann");
    });

    test(`${name}, ${transport}: a wrong key is refused for good`, async (t) => {
      const client = new Client("no-such-key", {
        httpHost, httpPort: Number(httpPort), forceTLS: false, disableStats: true, enabledTransports: [transport], cluster: "",
      });
      t.after(() => client.disconnect());
      const error = await event(client.connection, "error", (e) => e?.error?.data || e?.data);
      assert.equal((error.error ?? error).data.code, 4001);
    });

    test(`${name}, ${transport}: connections are terminated by the API`, async (t) => {
      const done = cleaner(t);
      const user = unique("user-");
      const app = await application(() => ({ user_id: user }));
      done(app.close);
      const client = await over(t, Client, transport, { app });
      if (!client.signin) return; // pusher-js 7 and older
      const signed = event(client, "pusher:signin_success").catch(() => null);
      client.signin();
      await signed;
      const gone = event(client.connection, "disconnected");
      await server().terminateUserConnections(user);
      await gone;
    });
  }

  test(`${name}, xhr_streaming: a stream of more than 256 KiB goes on with another exchange`, async (t) => {
    const client = await over(t, Client, "xhr_streaming");
    const id = client.connection.socket_id;
    const channel = await subscribe(client, unique("big-"));
    const seen = [];
    channel.bind("n", ({ n }) => seen.push(n));
    const pad = "x".repeat(8000);
    for (let n = 0; n < 100; n++) {
      await server().trigger(channel.name, "n", { n, pad });
      await until(() => seen.length === n + 1, `event ${n}`);
    }
    assert.deepEqual(seen, [...Array(100).keys()]);
    assert.equal(client.connection.socket_id, id, "the client had to connect anew");
  });
}
