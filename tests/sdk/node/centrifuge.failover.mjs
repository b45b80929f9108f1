// centrifuge-js while one of two gateways is killed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, apps, client, encodings, next, subscription, token } from "./centrifuge.mjs";
import { env, unique, until } from "./lib.mjs";

const pids = process.env.CARILLON_GATEWAY_PIDS.split(",").map(Number);

test("what is published while clients change gateways is neither lost, doubled nor out of order", async (t) => {
  const app = apps[0], given = unique("news:"), asked = unique("chat:");
  const all = [];
  for (const { encoding, decode } of encodings) {
    const c = client(t, { app, encoding, at: env.balancer, token: token({ sub: "ann", channels: [given] }) });
    await next(c.said, "connected");
    await next(c.said, "subscribed");
    const s = subscription(c, asked);
    const heard = { name: encoding, given: [], asked: [], recovered: [] };
    c.on("publication", (p) => heard.given.push(decode(p.data)));
    c.on("subscribed", (ctx) => heard.recovered.push(ctx.recovered));
    s.on("publication", (p) => heard.asked.push(decode(p.data)));
    await next(s.said, "subscribed");
    s.on("subscribed", (ctx) => heard.recovered.push(ctx.recovered));
    all.push(heard);
  }
  let published = 0;
  const publish = async () => {
    await api(app, "broadcast", { channels: [given, asked], data: published, idempotency_key: `n${published}` });
    published++;
  };
  for (let i = 0; i < 20; i++) await publish();
  await until(() => all.every((h) => h.given.length > 5 && h.asked.length > 5), "some publications before");
  process.kill(pids[0], "SIGKILL");
  await until(async () => {
    await publish();
    return all.some((h) => h.recovered.length === 2);
  }, "somebody has come back");
  for (let i = 0; i < 5; i++) await publish();
  const want = Array.from({ length: published }, (_, n) => n);
  await until(() => all.every((h) => h.given.length >= published && h.asked.length >= published), "all publications");
  for (const heard of all) {
    assert.deepEqual([heard.given, heard.asked], [want, want]);
    assert.ok(heard.recovered.every((r) => r), `${heard.name}: recovered is ${heard.recovered}`);
  }
});
