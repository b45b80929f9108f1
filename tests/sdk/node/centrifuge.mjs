// What the tests of centrifuge-js with an application share.
import crypto from "node:crypto";
import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { env, until } from "./lib.mjs";

/** The apps, each named after how its hook is reached. */
export const apps = process.env.CARILLON_APPS.split(",");

const text = new TextEncoder();
export const encodings = [
  { encoding: "json", Client: Centrifuge, encode: (v) => v, decode: (v) => v },
  { encoding: "protobuf", Client: Binary, encode: (v) => text.encode(JSON.stringify(v)), decode: (v) => JSON.parse(new TextDecoder().decode(v)) },
];

export const now = () => Math.floor(Date.now() / 1000);

/** A token as an application signs it. */
export function token(claims) {
  const part = (v) => Buffer.from(JSON.stringify(v)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${crypto.createHmac("sha256", process.env.CARILLON_TOKEN_SECRET).update(signed).digest("base64url")}`;
}

/** Calls the server API of an app; resolves with its result. */
export async function api(app, method, params) {
  const res = await fetch(`http://${env.api}/api/${method}`, {
    method: "POST", headers: { "X-API-Key": `${process.env.CARILLON_SERVER_KEY}-${app}`, "Content-Type": "application/json" }, body: JSON.stringify(params),
  });
  const { result, error } = await res.json();
  if (error) throw Object.assign(new Error(`${method}: ${error.message}`), { code: error.code });
  return result;
}

/** What an emitter of the SDK said, in order, as [name, context]. */
export function listen(emitter, names) {
  const said = [];
  for (const name of names) emitter.on(name, (ctx) => said.push([name, ctx]));
  return said;
}

/** Takes the next thing said, which must be `name`, and gives its context. */
export async function next(said, name) {
  await until(() => said.length > 0, name);
  const [got, ctx] = said.shift();
  if (got !== name) throw new Error(`${got} came before ${name}: ${JSON.stringify(ctx)}`);
  return ctx;
}

export const clientEvents = ["connected", "disconnected", "subscribed", "unsubscribed", "publication", "join", "leave"];
export const subscriptionEvents = ["subscribed", "unsubscribed", "publication", "join", "leave"];

let turn = 0;
/** A client of an app, on the gateways in turn, with what it says in `said`. */
export function client(t, { app, encoding, at, transports, ...options }) {
  const { Client } = encodings.find((e) => e.encoding === encoding);
  const gateway = at ?? env.gateways[turn++ % env.gateways.length];
  const c = new Client(transports ?? `ws://${gateway}/connection/websocket?app=${app}`, { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 500, ...options });
  c.said = listen(c, clientEvents);
  t.after(() => c.disconnect());
  c.connect();
  return c;
}

/** A subscription, with what it says in `said`. */
export function subscription(c, channel, options) {
  const s = c.newSubscription(channel, options);
  s.said = listen(s, subscriptionEvents);
  s.subscribe();
  return s;
}

/** The code that a promise is rejected with. */
export const code = (promise) => promise.then(() => 0, (e) => e.code);
