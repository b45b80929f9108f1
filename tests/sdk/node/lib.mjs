// What the tests share: where the servers are, an application that
// authorizes, clients that are closed at the end, and waiting for events.
import http from "node:http";
import { createRequire } from "node:module";
import Pusher from "pusher";

const require = createRequire(import.meta.url);

/** The environment that the Go side of the tests sets. */
export const env = {
  gateways: need("CARILLON_GATEWAYS").split(","), // host:port, one or more
  balancer: need("CARILLON_BALANCER"), // host:port, before all gateways
  api: need("CARILLON_API"), // host:port
  appId: need("CARILLON_APP_ID"),
  key: need("CARILLON_KEY"),
  secret: need("CARILLON_SECRET"),
  hooks: need("CARILLON_HOOKS"), // host:port, where the app's webhooks go
};

/**
 * How long, in ms, an event or a condition is waited for: far longer than
 * anything takes on a busy machine, because only a test that fails waits that
 * long.
 */
export const patience = 30_000;

function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests with make e2e`);
  return value;
}

/** pusher-js in its newest and in an old major version. */
export const clients = [
  { name: "pusher-js 8", Pusher: load("pusher-js") },
  { name: "pusher-js 7", Pusher: load("pusher-js-7") },
];

function load(name) {
  const m = require(name);
  return m.Pusher ?? m.default ?? m;
}

export const masterKey = Buffer.alloc(32, 7).toString("base64");

/** The official Node server SDK, as an application would use it. */
export function server(extra = {}) {
  const [host, port] = env.api.split(":");
  return new Pusher({
    appId: env.appId, key: env.key, secret: env.secret, host, port, useTLS: false,
    encryptionMasterKeyBase64: masterKey, ...extra,
  });
}

let names = 0;
/** A name that no other test uses. */
export const unique = (prefix) => `${prefix}${process.pid}-${++names}`;

/** An application's auth endpoints: POST /pusher/auth and /pusher/user-auth.
 *  user(params) says who asks; null refuses; with signedIn the application
 *  leaves it to the sign-in to say who a presence member is. */
export async function application(user = () => ({ user_id: "anon" })) {
  const app = server();
  const listener = http.createServer((req, res) => {
    let body = "";
    req.on("data", (d) => (body += d));
    req.on("end", () => {
      const p = new URLSearchParams(body);
      const who = user(p, req);
      res.setHeader("Access-Control-Allow-Origin", "*");
      res.setHeader("Content-Type", "application/json");
      if (!who) return res.writeHead(403).end("{}");
      const answer = req.url.startsWith("/pusher/user-auth")
        ? app.authenticateUser(p.get("socket_id"), { id: who.user_id, user_info: who.user_info, watchlist: who.watchlist })
        : app.authorizeChannel(p.get("socket_id"), p.get("channel_name"),
          p.get("channel_name").startsWith("presence-") && !who.signedIn ? { user_id: who.user_id, user_info: who.user_info } : undefined);
      res.end(JSON.stringify(answer));
    });
  });
  await new Promise((ok) => listener.listen(0, "127.0.0.1", ok));
  const url = `http://127.0.0.1:${listener.address().port}`;
  return { url, close: () => new Promise((ok) => { listener.close(ok); listener.closeAllConnections(); }) };
}

/** Collects what has to be closed when a test ends. */
export function cleaner(t) {
  const list = [];
  t.after(async () => { for (const close of list.reverse()) await close(); });
  return (close) => list.push(close);
}

/** A connected pusher-js client on gateway number `gateway`. */
export async function connect(t, Client, { gateway = 0, app, user, ...options } = {}) {
  const [wsHost, wsPort] = env.gateways[gateway % env.gateways.length].split(":");
  const client = new Client(env.key, {
    wsHost, wsPort: Number(wsPort), forceTLS: false, disableStats: true, enabledTransports: ["ws"], cluster: "",
    channelAuthorization: { endpoint: `${app?.url}/pusher/auth`, transport: "ajax", params: { user } },
    userAuthentication: { endpoint: `${app?.url}/pusher/user-auth`, transport: "ajax", params: { user } },
    ...options,
  });
  t.after(() => client.disconnect());
  await event(client.connection, "connected");
  return client;
}

/** Resolves with the arguments of the next `name` event. */
export function event(emitter, name, accept = () => true, ms = patience) {
  return new Promise((ok, fail) => {
    const timer = setTimeout(() => { emitter.unbind(name, on); fail(new Error(`no event ${name} within ${ms} ms`)); }, ms);
    function on(data, meta) {
      if (!accept(data, meta)) return;
      clearTimeout(timer);
      emitter.unbind(name, on);
      ok(data);
    }
    emitter.bind(name, on);
  });
}

/** Subscribes and waits for the server's word. */
export async function subscribe(client, name) {
  const channel = client.subscribe(name);
  if (!channel.subscribed) {
    await Promise.race([
      event(channel, "pusher:subscription_succeeded"),
      event(channel, "pusher:subscription_error").then((e) => { throw new Error(`subscription error: ${JSON.stringify(e)}`); }),
    ]);
  }
  return channel;
}

/** Waits until check() returns something true. */
export async function until(check, what, ms = patience) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((ok) => setTimeout(ok, 20));
  }
}
