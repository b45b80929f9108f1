// The demo page: forms and lists around one Client. All text from outside goes in as text, never as markup.

import { Client } from './client.js';

const LOG_MAX = 500;

const HINTS = {
  '': 'Anybody may subscribe.',
  'private-': 'The application signs each subscription; here /demo/auth does.',
  'presence-': 'As private, and everybody sees who is there.',
  'private-encrypted-': 'The server only sees ciphertext; this page decrypts.',
  'cache-': 'New subscribers get the last event at once.',
  'private-cache-': 'Private, with the last event for new subscribers.',
  'presence-cache-': 'Presence, with the last event for new subscribers.',
  'private-encrypted-cache-': 'Encrypted, with the last event for new subscribers.',
};

const $ = (id) => document.getElementById(id);

// make builds an element; text is set as text.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function post(path, body) {
  const answer = await fetch(path, { method: 'POST', body });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${text.trim()}`);
  return text ? JSON.parse(text) : {};
}

// --- who this window is ---------------------------------------------------------------------------------------------

const start = new URLSearchParams(location.hash.slice(1));
const you = $('you').elements;
const anyone = ['ada', 'bela', 'cleo', 'dara', 'emil', 'fina'][Math.floor(Math.random() * 6)];
you.id.value = start.get('user') ?? sessionStorage.getItem('id') ?? `${anyone}-${Math.floor(Math.random() * 900 + 100)}`;
you.name.value = start.get('name') ?? sessionStorage.getItem('name') ?? '';
const remember = () => {
  sessionStorage.setItem('id', you.id.value);
  sessionStorage.setItem('name', you.name.value);
};
remember();
$('you').addEventListener('change', remember);

const identity = () => ({ user_id: you.id.value, user_name: you.name.value });

// --- connection -----------------------------------------------------------------------------------------------------

const app = await (await fetch('/demo/app')).json();
$('app-id').textContent = app.id;
$('app-key').textContent = app.key;

const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
const client = new Client({
  url: `${scheme}://${location.host}/app/${encodeURIComponent(app.key)}?protocol=7&client=carillon-demo&version=1`,
  authorize: (socketId, channel) => post('/demo/auth', new URLSearchParams({ socket_id: socketId, channel_name: channel, ...identity() })),
  authenticate: (socketId) => {
    const form = new URLSearchParams({ socket_id: socketId, ...identity() });
    for (const id of you.watch.value.split(',').map((s) => s.trim()).filter(Boolean)) form.append('watch', id);
    return post('/demo/user-auth', form);
  },
  listener: { state: showState, frame: showFrame, change: showChange },
});

function showState(state) {
  $('state').textContent = state;
  $('state').dataset.state = state;
  $('socket').textContent = client.socketId ?? '';
  $('connect').textContent = client.wanted ? 'Disconnect' : 'Connect';
}

$('connect').addEventListener('click', () => (client.wanted ? client.disconnect() : client.connect()));

$('window').addEventListener('click', () => {
  const hash = new URLSearchParams([...client.channels.keys()].map((name) => ['channel', name]));
  window.open(`/#${hash}`, '_blank', 'noopener');
});

$('you').addEventListener('submit', (event) => {
  event.preventDefault();
  remember();
  client.signIn();
});

// --- channels -------------------------------------------------------------------------------------------------------

const subscribe = $('subscribe').elements;

function showName() {
  $('full-name').textContent = subscribe.kind.value + subscribe.name.value;
  $('kind-hint').textContent = HINTS[subscribe.kind.value];
}
$('subscribe').addEventListener('input', showName);
showName();

$('subscribe').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = subscribe.kind.value + subscribe.name.value.trim();
  client.subscribe(name);
  $('publish').elements.channel.value = name;
});

function showChange() {
  const channels = [...client.channels.values()];
  $('channels').replaceChildren(...channels.map(channelItem));
  $('no-channels').hidden = channels.length > 0;
  $('known-channels').replaceChildren(...channels.map((c) => make('option', { value: c.name })));
  $('signed-in').textContent = client.user ? `Signed in as ${client.user.id}.` : '';
}

function channelItem(channel) {
  const item = make('li', {},
    make('span', { className: 'name', textContent: channel.name }),
    make('span', { className: channel.state === 'refused' ? 'hint bad' : 'hint', textContent: channelState(channel) }),
    make('button', {
      type: 'button', className: 'quiet', textContent: 'Leave', ariaLabel: `Leave ${channel.name}`,
      onclick: () => client.unsubscribe(channel.name),
    }),
  );
  if (channel.presence && channel.state === 'subscribed') {
    item.append(make('ul', { className: 'members', ariaLabel: 'members' }, ...[...channel.members].map(([id, info]) => make('li', {
      textContent: info?.name || id, title: id, className: id === you.id.value ? 'me' : '',
    }))));
  }
  return item;
}

function channelState(channel) {
  if (channel.state !== 'subscribed') return channel.reason ? `${channel.state}: ${channel.reason}` : channel.state;
  if (channel.presence) return channel.members.size === 1 ? '1 member' : `${channel.members.size} members`;
  if (channel.count !== null) return channel.count === 1 ? '1 subscriber' : `${channel.count} subscribers`;
  return 'subscribed';
}

// --- publishing -----------------------------------------------------------------------------------------------------

const publish = $('publish').elements;

$('publish').addEventListener('change', () => {
  const asClient = publish.as.value === 'client';
  $('not-me').hidden = asClient;
  const plain = publish.event.value.replace(/^client-/, '');
  publish.event.value = asClient ? `client-${plain}` : plain;
});

$('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  const { channel, data } = { channel: publish.channel.value.trim(), data: publish.data.value };
  if (publish.as.value === 'client') {
    client.whisper(channel, publish.event.value, json(data));
    return;
  }
  const body = { channel, event: publish.event.value, data };
  if (publish.exclude.checked && client.socketId) body.socket_id = client.socketId;
  const output = $('published');
  try {
    await post('/demo/publish', JSON.stringify(body));
    output.className = 'hint';
    output.textContent = `Accepted by the HTTP API at ${clock()}.`;
  } catch (err) {
    output.className = 'hint bad';
    output.textContent = err.message;
  }
});

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// --- log ------------------------------------------------------------------------------------------------------------

const ARROWS = { in: ['←', 'received'], out: ['→', 'sent'], note: ['·', 'note'] };
const clock = () => new Date().toTimeString().slice(0, 8);

function showFrame(direction, frame) {
  const [arrow, label] = ARROWS[direction];
  const what = make('span', { className: 'what' }, make('strong', { textContent: frame.event }));
  if (frame.channel) what.append(' ', make('span', { className: 'channel', textContent: frame.channel }));
  if (frame.user_id) what.append(' ', make('span', { className: 'channel', textContent: `by ${frame.user_id}` }));
  const item = make('li', {},
    make('time', { textContent: clock() }),
    make('span', { className: `arrow ${direction}`, textContent: arrow, title: label, ariaLabel: label }),
    what,
  );
  if (frame.data !== undefined) {
    item.append(make('span', { className: 'data', textContent: typeof frame.data === 'string' ? frame.data : JSON.stringify(frame.data) }));
  }
  if (frame.decrypted !== undefined) item.append(make('span', { className: 'data', textContent: `decrypted: ${frame.decrypted}` }));
  item.dataset.ping = /^pusher:p[io]ng$/.test(frame.event);
  applyFilter(item);
  $('log').prepend(item);
  while ($('log').childElementCount > LOG_MAX) $('log').lastElementChild.remove();
}

function applyFilter(item) {
  const wanted = $('filter').value.toLowerCase();
  const ping = item.dataset.ping === 'true' && !$('pings').checked;
  item.hidden = ping || !item.textContent.toLowerCase().includes(wanted);
}
const refilter = () => [...$('log').children].forEach(applyFilter);
$('filter').addEventListener('input', refilter);
$('pings').addEventListener('change', refilter);
$('clear').addEventListener('click', () => $('log').replaceChildren());

// --- start ----------------------------------------------------------------------------------------------------------

for (const name of start.getAll('channel')) client.subscribe(name);
if (start.has('signin')) client.signIn();
client.connect();
