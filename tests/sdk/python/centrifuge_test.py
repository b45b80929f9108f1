"""Centrifugo's Python client, against two gateways and an application that is
asked over HTTP, gRPC and NATS; both encodings."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
import time
import urllib.request

import centrifuge
import pytest

gateways = os.environ["CARILLON_GATEWAYS"].split(",")
apps = os.environ["CARILLON_APPS"].split(",")
patience = 30

numbers = itertools.count()
turns = itertools.count()


def unique(prefix):
    """A name that no other test uses."""
    return f"{prefix}py-{os.getpid()}-{next(numbers)}"


def token(**claims):
    """A token as an application signs it."""

    def part(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    signed = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + "." + part(json.dumps(claims).encode())
    secret = os.environ["CARILLON_TOKEN_SECRET"].encode()
    return signed + "." + part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


async def api(app, method, **params):
    """Calls the server API of an app and gives its result."""
    request = urllib.request.Request(
        f"http://{os.environ['CARILLON_API']}/api/{method}",
        data=json.dumps(params).encode(),
        headers={"X-API-Key": f"{os.environ['CARILLON_SERVER_KEY']}-{app}", "Content-Type": "application/json"},
    )

    def call():
        with urllib.request.urlopen(request, timeout=patience) as response:
            return json.load(response)

    return (await asyncio.to_thread(call))["result"]


class Said:
    """What an SDK's handlers were told, in order."""

    def __init__(self):
        self.events = asyncio.Queue()

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def handler(ctx):
            if name not in ("on_connecting", "on_subscribing"):
                await self.events.put((name, ctx))

        return handler

    async def next(self, name):
        """Takes the next thing said, which must be of that name."""
        got, ctx = await asyncio.wait_for(self.events.get(), patience)
        assert got == name, ctx
        return ctx


class World:
    """One app in one encoding."""

    def __init__(self, app, protobuf):
        self.app, self.protobuf, self.open = app, protobuf, []

    def encode(self, data):
        return json.dumps(data).encode() if self.protobuf else data

    def decode(self, data):
        return json.loads(data) if self.protobuf else data

    def client(self, data=None, **options):
        """A client that connects, on the gateways in turn, and what it is told."""
        said = Said()
        at = gateways[next(turns) % len(gateways)]
        if data is not None:
            options["data"] = self.encode(data)
        c = centrifuge.Client(
            f"ws://{at}/connection/websocket?app={self.app}", events=said, use_protobuf=self.protobuf, proxy=None, **options
        )
        self.open.append(c)
        return c, said

    async def signed_in(self, user="ann"):
        c, said = self.client(token=token(sub=user, info={"name": user}))
        await c.connect()
        await said.next("on_connected")
        return c, said

    async def subscribe(self, c, channel, data=None, **options):
        said = Said()
        if data is not None:
            options["data"] = self.encode(data)
        s = c.new_subscription(channel, events=said, **options)
        await s.subscribe()
        return s, said


@pytest.fixture(params=[(app, protobuf) for app in apps for protobuf in (False, True)], ids=lambda p: f"{p[0]}-{'protobuf' if p[1] else 'json'}")
def within(request):
    """Runs a test's coroutine in a world of its own."""

    def run(test):
        async def whole():
            world = World(*request.param)
            try:
                await test(world)
            finally:
                for c in world.open:
                    await c.disconnect()

        asyncio.run(whole())

    return run


def test_the_connect_hook_says_who_it_is_and_subscribes_it(within):
    async def test(world):
        channel = unique("news:")
        c, said = world.client({"answer": {"result": {"user": "ann", "data": {"hello": 1}, "subs": {channel: {"data": {"given": True}}}}}})
        await c.connect()
        assert world.decode((await said.next("on_connected")).data) == {"hello": 1}
        subscribed = await said.next("on_subscribed")
        assert (subscribed.channel, world.decode(subscribed.data), subscribed.recoverable) == (channel, {"given": True}, True)
        await api(world.app, "publish", channel=channel, data={"n": 1})
        got = await said.next("on_publication")
        assert (got.channel, world.decode(got.pub.data), got.pub.info) == (channel, {"n": 1}, None)

    within(test)


def test_who_is_refused_stays_away(within):
    async def test(world):
        c, said = world.client({"answer": {"disconnect": {"code": 4501, "reason": "no"}}})
        await c.connect()
        gone = await said.next("on_disconnected")
        assert (gone.code, gone.reason) == (4501, "no")
        c, said = world.client(token="bad")
        await c.connect()
        assert (await said.next("on_disconnected")).code == 3500

    within(test)


def test_publish_presence_and_history(within):
    async def test(world):
        channel = unique("chat:")
        a, _ = await world.signed_in()
        b, _ = await world.signed_in("ben")
        s, said = await world.subscribe(a, channel, join_leave=True)
        await said.next("on_subscribed")
        assert (await said.next("on_join")).info.user == "ann"
        o, heard = await world.subscribe(b, channel)
        await heard.next("on_subscribed")
        assert (await said.next("on_join")).info.user == "ben"

        text = {"text": "<b>&\u2028 ünïcode 🎉</b>", "n": 1}
        await o.publish(world.encode(text))
        for each in (said, heard):
            pub = (await each.next("on_publication")).pub
            assert (world.decode(pub.data), pub.info.user, world.decode(pub.info.conn_info)) == (text, "ben", {"name": "ben"})
        await api(world.app, "publish", channel=channel, data=2, tags={"kind": "count"})
        pub = (await said.next("on_publication")).pub
        assert (world.decode(pub.data), pub.tags) == (2, {"kind": "count"})

        stats = await s.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)
        assert sorted(i.user for i in (await s.presence()).clients.values()) == ["ann", "ben"]
        past = await s.history(limit=10)
        assert [world.decode(p.data) for p in past.publications] == [text, 2]
        back = await s.history(limit=1, reverse=True)
        assert [world.decode(p.data) for p in back.publications] == [2]
        await o.unsubscribe()
        assert (await said.next("on_leave")).info.user == "ben"

    within(test)


def test_what_was_missed_comes_after_a_reconnect(within):
    async def test(world):
        channel = unique("chat:")
        c, said = await world.signed_in()
        _, heard = await world.subscribe(c, channel)
        await heard.next("on_subscribed")
        await api(world.app, "publish", channel=channel, data={"n": 0})
        await heard.next("on_publication")
        await c.disconnect()
        for n in range(1, 4):
            await api(world.app, "publish", channel=channel, data={"n": n})
        await c.connect()
        back = await heard.next("on_subscribed")
        assert (back.was_recovering, back.recovered) == (True, True)
        for n in range(1, 4):
            assert world.decode((await heard.next("on_publication")).pub.data) == {"n": n}

    within(test)


def test_differences_add_up(within):
    async def test(world):
        channel = unique("delta:")
        c, _ = await world.signed_in()
        _, heard = await world.subscribe(c, channel, delta=centrifuge.DeltaType.FOSSIL)
        await heard.next("on_subscribed")
        document = {"title": "same " * 100, "n": 0}
        differences = 0
        for n in range(6):
            if n == 3:
                await c.disconnect()
            document = {**document, "n": n}
            await api(world.app, "publish", channel=channel, data=document)
            if n == 3:
                await c.connect()
                assert (await heard.next("on_subscribed")).recovered
            pub = (await heard.next("on_publication")).pub
            assert world.decode(pub.data) == document
            differences += pub.delta
        assert differences > 0

    within(test)


def test_hooks_decide_and_answer_calls(within):
    async def test(world):
        channel = unique("ask:")
        c, said = await world.signed_in()
        s, heard = await world.subscribe(c, channel, {"answer": {"result": {"info": {"role": "host"}, "data": {"topic": "tea"}}}})
        assert world.decode((await heard.next("on_subscribed")).data) == {"topic": "tea"}
        await s.publish(world.encode({"answer": {"result": {"data": {"text": "edited"}}}}))
        pub = (await heard.next("on_publication")).pub
        assert (world.decode(pub.data), world.decode(pub.info.chan_info)) == ({"text": "edited"}, {"role": "host"})
        with pytest.raises(centrifuge.ReplyError) as refused:
            await s.publish(world.encode({"answer": {"error": {"code": 1001, "message": "too loud"}}}))
        assert (refused.value.code, refused.value.message) == (1001, "too loud")

        got = world.decode((await c.rpc("get:users/1", world.encode({"fields": ["name"]}))).data)
        assert (got["user"], got["method"], got["data"]) == ("ann", "get:users/1", {"fields": ["name"]})
        assert world.decode((await c.rpc("asked", world.encode({}))).data) == ["subscribe", "publish", "publish", "rpc"]

    within(test)


def test_tokens_of_subscriptions_are_fetched_again(within):
    async def test(world):
        channel = unique("closed:")
        c, _ = await world.signed_in()
        fetched = asyncio.Queue()

        async def fetch(_):
            await fetched.put(True)
            return token(sub="ann", channel=channel, exp=int(time.time()) + (2 if fetched.qsize() == 1 else 600))

        _, heard = await world.subscribe(c, channel, get_token=fetch)
        await heard.next("on_subscribed")
        for _ in range(2):
            await asyncio.wait_for(fetched.get(), patience)
        await api(world.app, "publish", channel=channel, data=1)
        assert world.decode((await heard.next("on_publication")).pub.data) == 1

        other, heard = await world.signed_in("ben")
        await world.subscribe(other, channel, token=token(sub="ann", channel=channel))
        assert (await heard.next("on_disconnected")).code == 3500

    within(test)


def test_the_server_subscribes_and_disconnects_a_user(within):
    async def test(world):
        user, channel = unique("user"), unique("news:")
        _, said = await world.signed_in(user)
        await api(world.app, "subscribe", user=user, channel=channel)
        assert (await said.next("on_subscribed")).channel == channel
        await api(world.app, "publish", channel=channel, data="x")
        assert world.decode((await said.next("on_publication")).pub.data) == "x"
        await api(world.app, "unsubscribe", user=user, channel=channel)
        assert (await said.next("on_unsubscribed")).channel == channel
        await api(world.app, "disconnect", user=user, disconnect={"code": 4504, "reason": "bye"})
        assert (await said.next("on_disconnected")).code == 4504

    within(test)
