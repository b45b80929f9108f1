// A real Masonite application doing the three things of its broadcasting
// guide: release notices on a public channel, alerts for admins on a private
// channel with the application's own authorization, and a presence channel.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { clients, connect, env, event, subscribe, until } from "./lib.mjs";

const { Pusher: Client } = clients[0];
const serve = fileURLToPath(new URL("../python/serve.py", import.meta.url));

async function shop(t) {
  const [host, port] = env.api.split(":");
  const child = spawn(process.env.CARILLON_PYTHON ?? "python3", ["-W", "ignore", serve], {
    env: {
      ...process.env, PUSHER_CLIENT: env.key, PUSHER_APP_ID: env.appId, PUSHER_SECRET: env.secret,
      PUSHER_HOST: host, PUSHER_PORT: port, NO_PROXY: "*", PYTHONDONTWRITEBYTECODE: "1",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.on("data", (d) => (errors += d));
  const exited = new Promise((ok) => child.on("exit", ok));
  t.after(async () => { child.kill(); await exited; });
  const line = await Promise.race([
    new Promise((ok) => createInterface({ input: child.stdout }).once("line", ok)),
    exited.then(() => { throw new Error(`the shop ended: ${errors}`); }),
  ]);
  const url = `http://127.0.0.1:${line}`;
  const post = async (path, customer, form) => {
    const res = await fetch(url + path, { method: "POST", headers: { "X-Customer": customer }, body: new URLSearchParams(form) });
    if (!res.ok) throw new Error(`${path}: ${res.status} ${errors.slice(-2000)}`);
    return res.json();
  };
  return { url, post };
}

const as = (customer, gateway) => (t, s) => connect(t, Client, {
  gateway,
  channelAuthorization: { endpoint: `${s.url}/pusher/auth`, transport: "ajax", headers: { "X-Customer": customer } },
});

test("masonite: release notices, admin alerts, presence", async (t) => {
  const s = await shop(t);
  const ada = await as("1", 0)(t, s);
  const bob = await as("2", 1)(t, s);

  const releases = await subscribe(bob, "releases");
  const seen = [event(releases, "NewRelease"), event(releases, "ReleaseNote")];
  await s.post("/releases", "1", { version: "2.0" });
  assert.deepEqual(await seen[0], { version: "2.0" });
  assert.deepEqual(await seen[1], { text: "<b>see</b> the notes" });

  const admins = await subscribe(ada, "private-admins");
  await assert.rejects(subscribe(bob, "private-admins"), /403/);
  const alert = event(admins, "low-stock");
  await s.post("/low-stock", "1", { product: "bells" });
  assert.deepEqual(await alert, { product: "bells", left: 3 });

  const lounge = await subscribe(ada, "presence-lounge");
  const joined = event(lounge, "pusher:member_added");
  const bobs = await subscribe(bob, "presence-lounge");
  assert.deepEqual((await joined).info, { name: "Bob" });
  assert.deepEqual(Object.keys(bobs.members.members).sort(), ["1", "2"]);
  const hello = event(bobs, "Greeting");
  await s.post("/greet", "1", { text: "hello" });
  assert.deepEqual(await hello, { text: "hello" });
  bob.unsubscribe("presence-lounge");
  await until(() => lounge.members.count === 1, "Bob has left");
});

test("masonite: the framework's own authorization route", async (t) => {
  const s = await shop(t);
  const client = await connect(t, Client, {
    gateway: 1, channelAuthorization: { endpoint: `${s.url}/broadcasting/authorize`, transport: "ajax" },
  });
  await subscribe(client, "private-anything");
});
