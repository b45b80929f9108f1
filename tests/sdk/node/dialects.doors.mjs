// A channel that is protected is protected in every dialect: a list of channels
// and of ways to try to get into them.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { test } from "node:test";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { api, apps, client, next, now, subscription, token } from "./centrifuge.mjs";
import { clients, env, event, unique, until } from "./lib.mjs";

const app = apps[0];
const id = unique("");
const open = `plain-${id}`;
const shut = [
  ...["private-", "presence-", "private-cache-", "presence-cache-", "private-encrypted-"].map((p) => p + id),
  `shut-${id}`, `$${id}`, `$chat:${id}`, `closed:${id}`, `asked-refused-${id}`, `ask:refused-${id}`, `just-ann-${id}`, `ann:${id}`,
  `news#ann,${id}`, `chat:${id}#ann`, `#${id}`, `chat:#${id}`, `#server-to-user-${id}`, `private-${id}#ann`,
];
const mallory = { sub: "mallory", exp: now() + 600 };
const forged = (claims) => token(claims).replace(/[^.]+$/, crypto.randomBytes(32).toString("base64url"));
const http = (transport, encoding = "json") => ({
  encoding, transports: [{ transport, endpoint: `http://${env.balancer}/connection/${transport}?app=${app}` }],
  emulationEndpoint: `http://${env.balancer}/emulation`, eventsource: EventSource, fetch, readableStream: ReadableStream,
});

/** A client of Centrifugo's that tries; with a token of its own for each
 *  channel, if there is one. The token of another ends its connection. */
const centrifugo = (options, subscriptionToken) => async (t, heard) => {
  let c;
  const connected = async () => {
    if (c?.state === "connected") return;
    c = client(t, { app, token: token(mallory), ...options });
    await next(c.said, "connected");
  };
  await connected();
  return async (channel) => {
    await connected();
    const s = subscription(c, channel, subscriptionToken && { token: subscriptionToken(channel) });
    s.on("publication", () => heard.push(channel));
    await until(() => s.said.length > 0 || c.state === "disconnected", `an answer about ${channel}`);
    return s.said[0]?.[0] === "subscribed";
  };
};

/** A client of Pusher's that tries, with signatures that it made up, or none. */
const pusher = (Client, { signIn, unsigned } = {}) => async (t, heard) => {
  const auth = `key-${app}:${"0".repeat(64)}`, channel_data = JSON.stringify({ user_id: "ann" });
  const [wsHost, wsPort] = env.gateways[0].split(":");
  const p = new Client(`key-${app}`, {
    wsHost, wsPort: Number(wsPort), forceTLS: false, disableStats: true, enabledTransports: ["ws"], cluster: "",
    channelAuthorization: { customHandler: (_, done) => done(null, { auth, channel_data, shared_secret: Buffer.alloc(32).toString("base64") }) },
    authorizer: () => ({ authorize: (_, done) => done(null, { auth, channel_data, shared_secret: Buffer.alloc(32).toString("base64") }) }),
    userAuthentication: { customHandler: ({ socketId }, done) => {
      const user_data = JSON.stringify({ id: "mallory" });
      done(null, { user_data, auth: `key-${app}:${crypto.createHmac("sha256", `secret-${app}`).update(`${socketId}::user::${user_data}`).digest("hex")}` });
    } },
  });
  t.after(() => p.disconnect());
  await event(p.connection, "connected");
  if (signIn) {
    const done = event(p, "pusher:signin_success");
    p.signin();
    await done;
  }
  let refusals = 0;
  p.connection.bind("error", () => refusals++);
  p.connection.bind("message", ({ event: name }) => { if (name === "pusher:subscription_error") refusals++; });
  const inside = new Set();
  p.connection.bind("message", ({ event: name, channel }) => {
    if (name === "pusher_internal:subscription_succeeded") inside.add(channel);
    else if (channel && name !== "pusher:subscription_error") heard.push(channel);
  });
  return async (channel) => {
    const before = refusals;
    if (unsigned || channel.startsWith("#")) { // pusher-js itself refuses such names
      p.send_event("pusher:subscribe", { channel, ...(unsigned ? {} : { auth, channel_data }) });
      await until(() => inside.has(channel) || refusals > before, `an answer about ${channel}`);
      return inside.has(channel);
    }
    const c = p.subscribe(channel);
    await until(() => c.subscribed || refusals > before, `an answer about ${channel}`);
    return c.subscribed;
  };
};

/** A client that says at once that it was in the channel before. */
const claims = async (t, heard) => {
  const at = env.gateways[0];
  return (channel) => new Promise((ok, fail) => {
    const ws = new WebSocket(`ws://${at}/connection/websocket?app=${app}`);
    t.after(() => ws.terminate());
    ws.on("open", () => ws.send(JSON.stringify({ id: 1, connect: { token: token(mallory), subs: { [channel]: { recover: true, offset: 0, epoch: "" } } } })));
    ws.on("error", fail);
    ws.on("message", (raw) => {
      for (const line of String(raw).split("\n")) {
        const { connect, push } = JSON.parse(line);
        if (connect) ok(channel in (connect.subs ?? {}));
        if (push?.pub) heard.push(channel);
      }
    });
  });
};

/** A client that only listens, and says that it is in the channel: with its
 *  ConnectRequest, and after that. */
const listens = (transport) => async (t, heard) => {
  const take = (text) => {
    const { connect, channel, subscribe, pub } = JSON.parse(text.replace(/^data: /, ""));
    if (pub) heard.push(channel);
    return connect ?? (subscribe && { subs: { [channel]: {} } });
  };
  return async (channel) => {
    const request = JSON.stringify({ token: token(mallory), subs: { [channel]: { recover: true, offset: 0, epoch: "", join_leave: true } } });
    const at = `${env.balancer}/connection/${transport}?app=${app}`;
    if (transport === "uni_websocket") {
      const ws = new WebSocket(`ws://${at}`);
      t.after(() => ws.terminate());
      const told = new Promise((ok, fail) => { ws.on("error", fail); ws.on("message", (raw) => { const connect = take(String(raw)); if (connect) ok(connect); }); });
      ws.on("open", () => {
        ws.send(request);
        ws.send(JSON.stringify({ id: 2, subscribe: { channel } }));
      });
      return channel in ((await told).subs ?? {});
    }
    const stop = new AbortController();
    t.after(() => stop.abort());
    const get = transport === "uni_sse";
    const res = await fetch(`http://${at}${get ? `&cf_connect=${encodeURIComponent(request)}` : ""}`, { method: get ? "GET" : "POST", body: get ? undefined : request, signal: stop.signal });
    return new Promise((ok, fail) => {
      (async () => {
        let rest = "";
        for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
          const lines = (rest + chunk).replaceAll("\r", "").split("\n");
          rest = lines.pop();
          for (const connect of lines.filter(Boolean).map(take).filter(Boolean)) {
            const { node, session } = connect;
            const sent = await fetch(`http://${env.balancer}/emulation`, { method: "POST", body: JSON.stringify({ node, session, data: JSON.stringify({ id: 2, subscribe: { channel } }) }) });
            if (sent.status !== 400) throw new Error(`a session that only listens takes a message: ${sent.status}`);
            ok(channel in (connect.subs ?? {}));
          }
        }
      })().catch((err) => (stop.signal.aborted ? undefined : fail(err)));
    });
  };
};

const doors = {
  "pusher-js 8": pusher(clients[0].Pusher), "pusher-js 7": pusher(clients[1].Pusher), 
  "pusher-js 8, signed in": pusher(clients[0].Pusher, { signIn: true }), "pusher-js 8, without signatures": pusher(clients[0].Pusher, { signIn: true, unsigned: true }),
  "WebSocket, JSON": centrifugo({ encoding: "json" }), "WebSocket, protobuf": centrifugo({ encoding: "protobuf" }),
  "HTTP streaming": centrifugo(http("http_stream")), "HTTP streaming, protobuf": centrifugo(http("http_stream", "protobuf")), "server-sent events": centrifugo(http("sse")),
  "a token of another channel": centrifugo({ encoding: "json" }, () => token({ ...mallory, channel: open })),
  "a token of another user": centrifugo({ encoding: "json" }, (channel) => token({ ...mallory, sub: "ann", channel })),
  "a token of nobody": centrifugo({ encoding: "json" }, (channel) => token({ channel })),
  "a token that is over": centrifugo({ encoding: "json" }, (channel) => token({ ...mallory, channel, exp: now() - 60 })),
  "a token that nobody signed": centrifugo({ encoding: "json" }, (channel) => forged({ ...mallory, channel })),
  "a connection token": centrifugo({ encoding: "json" }, () => token(mallory)),
  "a claim to have been there": claims,
  "a listener by WebSocket": listens("uni_websocket"), "a listener by server-sent events": listens("uni_sse"), "a listener by HTTP streaming": listens("uni_http_stream"),
};

for (const [name, door] of Object.entries(doors)) {
  test(`${name}: no way into a channel that is protected`, async (t) => {
    const heard = [];
    const enter = await door(t, heard);
    const inside = [];
    for (const channel of shut) if (await enter(channel)) inside.push(channel);
    assert.deepEqual(inside, []);
    // What is published there reaches nobody who knocked.
    const witness = client(t, { app, encoding: "json", token: token(mallory) });
    const w = subscription(witness, open);
    await next(w.said, "subscribed");
    for (const channel of shut) await api(app, "publish", { channel, data: { secret: true } });
    await api(app, "publish", { channel: open, data: 1 });
    await next(w.said, "publication");
    assert.deepEqual(heard, []);
  });
}

test("the doors are doors: an open channel is open, and the right key opens the others", async (t) => {
  for (const [name, door] of Object.entries(doors)) {
    if (name.startsWith("a ")) continue; // these ask with a token that is wrong anywhere, or for what there is not
    assert.ok(await (await door(t, []))(open), `${name} is shut for all`);
  }
  const right = await centrifugo({ encoding: "json" }, (channel) => token({ ...mallory, channel }))(t, []);
  for (const channel of [`private-${id}`, `shut-${id}`, `$${id}`, `$chat:${id}`, `closed:${id}`]) assert.ok(await right(channel), `${channel} stays shut`);
  const ann = client(t, { app, encoding: "protobuf", token: token({ sub: "ann" }) });
  for (const channel of [`just-ann-${id}`, `ann:${id}`, `news#ann,${id}`, `chat:${id}#ann`]) await next(subscription(ann, channel).said, "subscribed");
});

test("who is not in a channel can't read or publish there either", async (t) => {
  const c = client(t, { app, encoding: "json", token: token(mallory) });
  await next(c.said, "connected");
  const done = [];
  for (const channel of shut) {
    for (const [what, attempt] of [
      ["published", () => c.publish(channel, {})], ["read the history", () => c.history(channel, { limit: 10 })],
      ["read who is there", () => c.presence(channel)], ["counted who is there", () => c.presenceStats(channel)],
    ]) await attempt().then(() => done.push([channel, what]), () => {});
  }
  assert.deepEqual(done, []);
});
