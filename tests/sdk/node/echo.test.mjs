// Laravel Echo with its pusher and its reverb connector.
import assert from "node:assert/strict";
import { test } from "node:test";
import EchoModule from "laravel-echo";
import { application, cleaner, clients, env, server, unique, until } from "./lib.mjs";

const Echo = EchoModule.default ?? EchoModule;

function echo(t, broadcaster, gateway, app, user) {
  const [wsHost, wsPort] = env.gateways[gateway % env.gateways.length].split(":");
  const e = new Echo({
    broadcaster, Pusher: clients[0].Pusher, key: env.key, wsHost, wsPort: Number(wsPort), cluster: "",
    forceTLS: false, enabledTransports: ["ws"], disableStats: true,
    authEndpoint: `${app.url}/pusher/auth`, auth: { params: { user } },
  });
  t.after(() => e.disconnect());
  return e;
}

for (const broadcaster of ["pusher", "reverb"]) {
  test(`${broadcaster}: channel, private channel, whisper, presence`, async (t) => {
    const done = cleaner(t);
    const app = await application((p) => ({ user_id: p.get("user"), user_info: { id: p.get("user"), name: p.get("user") } }));
    done(app.close);
    const ann = echo(t, broadcaster, 0, app, "ann");
    const ben = echo(t, broadcaster, 1, app, "ben");

    const orders = unique("orders.");
    const got = [];
    await new Promise((ok, fail) => ann.channel(orders).listen("OrderShipped", (e) => got.push(e)).subscribed(ok).error(fail));
    await server().trigger(orders, "App\\Events\\OrderShipped", { id: 7 });
    await until(() => got.length === 1, "OrderShipped");
    assert.deepEqual(got[0], { id: 7 });

    const chat = unique("chat.");
    const whispers = [];
    await new Promise((ok, fail) => ann.private(chat).listenForWhisper("typing", (e) => whispers.push(e)).subscribed(ok).error(fail));
    await new Promise((ok, fail) => ben.private(chat).subscribed(ok).error(fail));
    ben.private(chat).whisper("typing", { name: "ben" });
    await until(() => whispers.length === 1, "whisper");
    assert.deepEqual(whispers[0], { name: "ben" });

    const room = unique("room.");
    const log = [];
    ann.join(room).here((m) => log.push(["here", m.map((x) => x.name)])).joining((m) => log.push(["join", m.name])).leaving((m) => log.push(["leave", m.name]));
    await until(() => log.length === 1, "here");
    await new Promise((ok, fail) => ben.join(room).here(ok).error(fail));
    await until(() => log.length === 2, "joining");
    ben.leave(room);
    await until(() => log.length === 3, "leaving");
    assert.deepEqual(log, [["here", ["ann"]], ["join", "ben"], ["leave", "ben"]]);
  });
}
