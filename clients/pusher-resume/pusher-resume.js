// Keeps the place of pusher-js clients in Carillon's durable channels: after a
// lost connection, on whatever gateway, a subscription goes on with what it
// missed. See README.md. No build step: a script tag (CarillonResume), require,
// and the import of bundlers and of Node take this file.
(function (root, make) {
  if (typeof module === "object" && module.exports) module.exports = make();
  else root.CarillonResume = make();
})(typeof self !== "undefined" ? self : this, function () {
  "use strict";

  const retryFirst = 500; // ms, until a subscription is tried again that is not possible now
  const retryMax = 15000;

  /**
   * Makes a Pusher instance keep its places. Call it right after `new Pusher`:
   * subscriptions that were made before have none until they are made again.
   *
   * options, all optional:
   *   channels(name)  whether to keep the place in a channel; all by default
   *   rewind          so many of the newest events for subscriptions without a
   *                   place, or a function of the channel's name
   *   places          what places() gave earlier, for example before a reload
   *
   * Returns { places(), forget(name) }.
   */
  return function resume(pusher, options) {
    options = options || {};
    const wanted = options.channels || (() => true);
    const rewind = (name) => (typeof options.rewind === "function" ? options.rewind(name) : options.rewind);
    const places = new Map(Object.entries(options.places || {}));
    const asked = new Map(); // channel -> whether its subscribe carried a place
    const retries = new Map(); // channel -> attempts in a row

    const sendEvent = pusher.send_event;
    pusher.send_event = function (event, data, channel) {
      if (event === "pusher:subscribe" && wanted(data.channel)) {
        data = Object.assign({}, data, { resume: wish(data.channel) });
      }
      return sendEvent.call(this, event, data, channel);
    };

    const unsubscribe = pusher.unsubscribe;
    pusher.unsubscribe = function (name) {
      forget(name);
      return unsubscribe.call(this, name);
    };

    function wish(name) {
      const place = places.get(name);
      asked.set(name, place !== undefined);
      const w = Object.assign({}, place);
      const n = rewind(name);
      if (n) w.rewind = n;
      return w;
    }

    function forget(name) {
      places.delete(name);
      asked.delete(name);
      retries.delete(name);
    }

    // The position of an event is in the raw message only. The listener comes
    // after pusher-js's own: an event counts once its handlers have run.
    function watch() {
      const transport = pusher.connection.connection && pusher.connection.connection.transport;
      if (!transport || transport.carillonResume) return;
      transport.carillonResume = true;
      transport.bind("message", (message) => {
        if (typeof message.data !== "string" || !message.data.includes('"position":"')) return;
        const m = JSON.parse(message.data); // valid: pusher-js has parsed it
        const place = places.get(m.channel);
        if (typeof m.position !== "string" || !place) return;
        place.position = m.position;
        place.socket_id = pusher.connection.socket_id;
      });
    }
    pusher.connection.bind("connected", watch);
    watch();

    pusher.connection.bind("message", (m) => {
      if (!m.channel || !asked.has(m.channel)) return;
      if (m.event === "pusher_internal:subscription_succeeded") succeeded(m.channel, m.data && m.data.resume);
      else if (m.event === "pusher:subscription_error") failed(m.channel, m.data || {});
    });

    function succeeded(name, answer) {
      const had = asked.get(name);
      retries.delete(name);
      if (!answer || answer.position === undefined) {
        places.delete(name);
        if (had) tell(name, "carillon:gap", { reason: (answer && answer.error) || "the server keeps no places" });
        return;
      }
      // What was missed comes now and moves the place: the connection may end before it is here.
      if (!had || !answer.recovered) {
        places.set(name, { position: answer.position, epoch: answer.epoch, socket_id: pusher.connection.socket_id });
      }
      if (answer.recovered) tell(name, "carillon:recovered", { position: answer.position });
      else if (had) tell(name, "carillon:gap", { reason: "what was missed is not kept any more", position: answer.position });
    }

    // pusher-js leaves a subscription that the server could not make for now.
    function failed(name, error) {
      const lost = error.type === "InvalidResume";
      if (!lost && error.status !== 503) return;
      if (lost) {
        const had = places.delete(name);
        if (had) tell(name, "carillon:gap", { reason: error.error });
        else return; // the rewind is wrong: again would be no better
      }
      const n = retries.get(name) || 0;
      retries.set(name, n + 1);
      setTimeout(() => {
        const channel = pusher.channel(name);
        if (channel && !channel.subscribed && pusher.connection.state === "connected") channel.subscribe();
      }, lost ? 0 : Math.min(retryFirst * 2 ** n, retryMax) * (0.5 + Math.random() / 2));
    }

    function tell(name, event, data) {
      const channel = pusher.channel(name);
      if (channel) channel.emit(event, data);
    }

    return {
      /** The places now, to be given to `places` of another instance. */
      places: () => Object.fromEntries([...places].map(([name, place]) => [name, Object.assign({}, place)])),
      /** The next subscription of the channel begins anew. */
      forget,
    };
  };
});
