// pusher-js with clients/pusher-resume, through a balancer in front of two
// gateways of which the clients' one is killed.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import net from "node:net";
import { test } from "node:test";
import { clients, env, event, server, subscribe, unique, until } from "./lib.mjs";

const resume = createRequire(import.meta.url)("../../../clients/pusher-resume/pusher-resume.js");
const pids = process.env.CARILLON_GATEWAY_PIDS.split(",").map(Number);

/** Forwards connections to the first gateway that takes them. */
async function balancer(t) {
  const open = new Set();
  const listener = net.createServer((down) => {
    open.add(down);
    down.on("error", () => down.destroy());
    const via = (i) => {
      if (i === env.gateways.length) return down.destroy();
      const [host, port] = env.gateways[i].split(":");
      const up = net.connect(Number(port), host);
      up.once("connect", () => { down.pipe(up).pipe(down); });
      up.on("error", () => (up.pending ? via(i + 1) : down.destroy()));
      up.on("close", (failed) => { if (!failed) down.destroy(); });
      down.on("close", () => up.destroy());
    };
    via(0);
  });
  await new Promise((ok) => listener.listen(0, "127.0.0.1", ok));
  t.after(() => { listener.close(); for (const s of open) s.destroy(); });
  return listener.address().port;
}

function client(t, Client, wsPort, options) {
  const pusher = new Client(env.key, {
    wsHost: "127.0.0.1", wsPort, forceTLS: false, disableStats: true, enabledTransports: ["ws"], cluster: "",
  });
  t.after(() => pusher.disconnect());
  return [pusher, resume(pusher, options)];
}

/** Keeps what a channel hears. */
function listen(channel) {
  const heard = { events: [], recovered: 0, gaps: 0 };
  channel.bind("n", (d) => heard.events.push(d));
  channel.bind("carillon:recovered", () => heard.recovered++);
  channel.bind("carillon:gap", () => heard.gaps++);
  return heard;
}

test("a client without a place hears nothing of it; with one it goes on", async (t) => {
  for (const { Pusher: Client } of clients) {
    const port = await balancer(t);
    const name = unique("durable-reload-");
    const [first, kept] = client(t, Client, port);
    const before = listen(first.subscribe(name));
    await event(first.channel(name), "pusher:subscription_succeeded");
    await server().trigger(name, "n", 1);
    await until(() => before.events.length === 1, "the first event");
    first.disconnect();
    await server().trigger(name, "n", 2);
    const [second] = client(t, Client, port, { places: kept.places() });
    const after = listen(second.subscribe(name));
    await until(() => after.events.length === 1, "the missed event");
    assert.deepEqual([before, after], [
      { events: [1], recovered: 0, gaps: 0 }, { events: [2], recovered: 1, gaps: 0 },
    ]);
  }
});

test("the place moves with what was missed, not with the answer that promises it", () => {
  const bound = {};
  const fake = {
    send_event: () => {}, unsubscribe: () => {}, channel: () => undefined,
    connection: { bind: (event, f) => { bound[event] = f; }, socket_id: "2.2" },
  };
  const kept = resume(fake, { places: { c: { position: "10", epoch: "e", socket_id: "1.1" } } });
  const answer = (recovered) => {
    fake.send_event("pusher:subscribe", { channel: "c" });
    bound.message({ event: "pusher_internal:subscription_succeeded", channel: "c", data: { resume: { recovered, position: "20", epoch: "e" } } });
    return kept.places().c;
  };
  assert.deepEqual(answer(true), { position: "10", epoch: "e", socket_id: "1.1" });
  assert.deepEqual(answer(false), { position: "20", epoch: "e", socket_id: "2.2" });
});

test("a lost place is told, and rewind gives the newest events", async (t) => {
  for (const { Pusher: Client } of clients) {
    const port = await balancer(t);
    const name = unique("durable-lost-");
    for (const n of [1, 2, 3]) await server().trigger(name, "n", n);
    for (const places of [{ [name]: { position: "5", epoch: "another" } }, { [name]: { position: "-5", epoch: "another" } }]) {
      const [pusher] = client(t, Client, port, { places, rewind: (n) => (n === name ? 2 : 0) });
      const heard = listen(pusher.subscribe(name));
      await until(() => heard.events.length === 2, "the newest two");
      assert.deepEqual(heard, { events: [2, 3], recovered: 0, gaps: 1 });
      await subscribe(pusher, unique("public-")); // a channel that keeps nothing is a channel all the same
    }
  }
});

test("the gateway is killed: nothing is lost, doubled or out of order", async (t) => {
  const port = await balancer(t);
  const names = [unique("long-kill-"), unique("long-kill-")];
  const all = [];
  for (const { Pusher: Client } of clients) {
    const [pusher] = client(t, Client, port);
    for (const name of names) {
      const heard = listen(await subscribe(pusher, name));
      all.push(heard);
    }
  }
  let published = 0;
  const publish = async () => {
    await server().triggerBatch(names.map((channel) => ({ channel, name: "n", data: published })));
    published++;
  };
  for (let i = 0; i < 20; i++) await publish();
  await until(() => all.every((h) => h.events.length > 5), "some events before");
  process.kill(pids[0], "SIGKILL");
  await until(async () => {
    await publish();
    return all.every((h) => h.recovered === 1);
  }, "all have come back");
  for (let i = 0; i < 5; i++) await publish();
  const want = Array.from({ length: published }, (_, n) => n);
  await until(() => all.every((h) => h.events.length >= published), "all events");
  for (const heard of all) assert.deepEqual(heard, { events: want, recovered: 1, gaps: 0 });
});
