// A small client of the Pusher Channels protocol, version 7: enough to watch the protocol at work. Applications use pusher-js.

import { fromBase64, open } from './secretbox.js';

const PONG_TIMEOUT = 30_000;
const WAIT_MAX = 10_000;

// parsed returns what a data field means: JSON inside a string, or what it is.
const parsed = (data) => {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
};

// Channel is one subscription and what is known of it.
class Channel {
  constructor(name) {
    this.name = name;
    this.reset();
  }

  reset() {
    this.state = 'subscribing';
    this.reason = '';
    this.members = new Map(); // user id -> user info
    this.me = null;
    this.count = null;
    this.key = null; // of encrypted channels
  }

  get presence() { return this.name.startsWith('presence-'); }
  get encrypted() { return this.name.startsWith('private-encrypted-'); }
  get guarded() { return this.presence || this.name.startsWith('private-'); }
}

// Client keeps one connection, its subscriptions and its user. The listener gets:
//   state(text)             connection state: disconnected, connecting, connected, waiting
//   frame(direction, frame) every frame, 'in' or 'out'; or a note about the connection, 'note'
//   change()                channels, members or user have changed
export class Client {
  constructor({ url, authorize, authenticate, listener }) {
    Object.assign(this, { url, authorize, authenticate, listener });
    this.channels = new Map();
    this.state = 'disconnected';
    this.socketId = null;
    this.user = null; // signed in as
    this.wanted = false; // to be connected
    this.attempts = 0;
  }

  connect() {
    if (this.wanted) return;
    this.wanted = true;
    this.attempts = 0;
    this.#dial();
  }

  disconnect() {
    this.wanted = false;
    clearTimeout(this.retry);
    if (this.ws) this.ws.close(1000);
    else this.#become('disconnected');
  }

  subscribe(name) {
    if (this.channels.has(name)) return;
    const channel = new Channel(name);
    this.channels.set(name, channel);
    this.listener.change();
    if (this.socketId) this.#join(channel);
  }

  unsubscribe(name) {
    const channel = this.channels.get(name);
    if (!channel) return;
    this.channels.delete(name);
    if (this.socketId && channel.state === 'subscribed') this.#send('pusher:unsubscribe', { channel: name });
    this.listener.change();
  }

  // whisper sends a client event; the server passes it to the other subscribers.
  whisper(channel, event, data) {
    this.#send(event, data, channel);
  }

  // signIn makes this connection, and those that follow it, act as the user that authenticate vouches for.
  async signIn() {
    this.wantsUser = true;
    const socketId = this.socketId;
    if (!socketId) return;
    try {
      const answer = await this.authenticate(socketId);
      if (socketId === this.socketId) this.#send('pusher:signin', answer);
    } catch (err) {
      this.#note(`sign-in: ${err.message}`);
    }
  }

  #become(state) {
    this.state = state;
    this.listener.state(state);
  }

  #note(text) {
    this.listener.frame('note', { event: text });
  }

  #dial() {
    this.#become('connecting');
    const ws = new WebSocket(this.url);
    this.ws = ws;
    ws.onmessage = (message) => {
      this.#alive();
      let frame;
      try {
        frame = JSON.parse(message.data);
      } catch {
        this.#note(`not JSON: ${message.data}`);
        return;
      }
      this.#receive(frame);
    };
    ws.onclose = (close) => this.#closed(close);
  }

  #closed({ code, reason }) {
    clearTimeout(this.ping);
    this.ws = null;
    this.socketId = null;
    this.user = null;
    for (const channel of this.channels.values()) channel.reset();
    this.#note(`connection closed: ${code}${reason ? ` ${reason}` : ''}`);
    this.listener.change();
    // 4000-4099 asks not to come back, 4100-4199 to wait a second or more, 4200-4299 to come at once.
    if (!this.wanted || (code >= 4000 && code < 4100)) {
      this.wanted = false;
      this.#become('disconnected');
      return;
    }
    const least = code >= 4200 && code < 4300 && this.attempts === 0 ? 0 : 1000;
    const wait = Math.min(WAIT_MAX, least * 2 ** this.attempts++);
    this.#become('waiting');
    this.retry = setTimeout(() => this.#dial(), wait);
  }

  // alive restarts the watch over a silent connection.
  #alive() {
    clearTimeout(this.ping);
    if (!this.activityTimeout) return;
    this.ping = setTimeout(() => {
      this.#send('pusher:ping', {});
      this.ping = setTimeout(() => this.ws?.close(3000), PONG_TIMEOUT);
    }, this.activityTimeout);
  }

  #send(event, data, channel) {
    if (this.ws?.readyState !== WebSocket.OPEN) {
      this.#note(`not connected: ${event} was not sent`);
      return;
    }
    const frame = channel ? { event, channel, data } : { event, data };
    this.ws.send(JSON.stringify(frame));
    this.listener.frame('out', frame);
  }

  async #join(channel) {
    const socketId = this.socketId;
    const request = { channel: channel.name };
    if (channel.guarded) {
      try {
        const answer = await this.authorize(socketId, channel.name);
        request.auth = answer.auth;
        if (answer.channel_data) request.channel_data = answer.channel_data;
        if (answer.shared_secret) channel.key = fromBase64(answer.shared_secret);
      } catch (err) {
        channel.state = 'refused';
        channel.reason = err.message;
        this.listener.change();
        return;
      }
    }
    if (socketId !== this.socketId || this.channels.get(channel.name) !== channel) return;
    this.#send('pusher:subscribe', request);
  }

  #receive(frame) {
    const data = parsed(frame.data);
    const channel = this.channels.get(frame.channel);
    this.listener.frame('in', { ...frame, ...this.#opened(channel, frame, data) });
    switch (frame.event) {
      case 'pusher:connection_established':
        this.socketId = data.socket_id;
        this.activityTimeout = data.activity_timeout * 1000;
        this.attempts = 0;
        this.#alive();
        this.#become('connected');
        if (this.wantsUser) this.signIn();
        for (const c of this.channels.values()) this.#join(c);
        return;
      case 'pusher:ping':
        this.#send('pusher:pong', {});
        return;
      case 'pusher:signin_success':
        this.user = parsed(data.user_data);
        this.listener.change();
        return;
    }
    if (channel && this.#about(channel, frame.event, data)) this.listener.change();
  }

  // about takes what the server says about a channel; false for the application's own events.
  #about(channel, event, data) {
    switch (event) {
      case 'pusher_internal:subscription_succeeded':
        channel.state = 'subscribed';
        if (data?.presence) {
          channel.members = new Map(data.presence.ids.map((id) => [String(id), data.presence.hash[id]]));
        }
        if (data?.subscription_count !== undefined) channel.count = data.subscription_count;
        return true;
      case 'pusher:subscription_error':
        channel.state = 'refused';
        channel.reason = data?.error ?? data?.type ?? 'refused';
        return true;
      case 'pusher_internal:member_added':
        channel.members.set(String(data.user_id), data.user_info);
        return true;
      case 'pusher_internal:member_removed':
        channel.members.delete(String(data.user_id));
        return true;
      case 'pusher_internal:subscription_count':
        channel.count = data.subscription_count;
        return true;
      default:
        return false;
    }
  }

  // opened decrypts an application's event on an encrypted channel.
  #opened(channel, frame, data) {
    if (!channel?.encrypted || /^pusher(_internal)?:/.test(frame.event)) return {};
    const clear = channel.key && data?.ciphertext && open(fromBase64(data.ciphertext), fromBase64(data.nonce), channel.key);
    return { decrypted: clear ? new TextDecoder().decode(clear) : '(could not be decrypted)' };
  }
}
