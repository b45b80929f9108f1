"""The official Python server SDK against a running Carillon."""

import json
import os
import time

import pusher
import pytest

host, port = os.environ["CARILLON_API"].split(":")


def client(**changes):
    settings = dict(
        app_id=os.environ["CARILLON_APP_ID"],
        key=os.environ["CARILLON_KEY"],
        secret=os.environ["CARILLON_SECRET"],
        host=host,
        port=int(port),
        ssl=False,
    )
    return pusher.Pusher(**{**settings, **changes})


def test_trigger_answers_an_empty_object():
    assert client().trigger("py-channel", "event", {"some": "data"}) == {}
    assert client().trigger(["py-one", "py-two"], "event", "text", "123.456") == {}


def test_batch():
    batch = [{"channel": "py-channel", "name": "event", "data": {"n": n}} for n in range(10)]
    assert client().trigger_batch(batch) == {}


def test_channels_although_the_sdk_signs_a_body_md5_on_get():
    assert "channels" in client().channels_info("presence-", ["user_count"])
    info = client().channel_info("py-nobody-is-here", ["subscription_count"])
    assert info["occupied"] is False
    assert client().users_info("presence-py-nobody") == {"users": []}


def test_terminate_although_the_sdk_leaves_out_the_app():
    assert client().terminate_user_connections("py-nobody") == {}


def test_send_to_user():
    assert client().send_to_user("py-nobody", "event", {"a": 1}) == {}


def test_a_wrong_secret_is_told():
    with pytest.raises(pusher.errors.PusherBadAuth) as e:
        client(secret="wrong").trigger("c", "e", 1)
    assert "ignature" in str(e.value)


def test_webhooks_validate():
    body = json.dumps({"time_ms": int(time.time() * 1000), "events": []})
    import hashlib
    import hmac

    secret = os.environ["CARILLON_SECRET"]
    sig = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    assert client().validate_webhook(os.environ["CARILLON_KEY"], sig, body)["events"] == []
