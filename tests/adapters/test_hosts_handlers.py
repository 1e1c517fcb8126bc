"""Handlers of the application on every host: what they are given, and what becomes of their answers and faults."""

from __future__ import annotations

import logging

import anyio
import pytest

from rtcore import CommandError, Message
from rtcore_transports import Sender

from .hosting import Host


@pytest.fixture(autouse=True)
def _forget_handlers(host: Host) -> None:
    host.realtime.driver.handlers.clear()


def test_an_answer_goes_to_the_id(host: Host) -> None:
    @host.realtime.on_message("order")
    async def order(message: Message, sender: Sender) -> Message:
        return {"got": message["item"], "from": [sender.connection_id, sender.user_id]}

    with host.client("user_id=ann") as client:
        client.say({"type": "order", "item": "tea", "id": 1})
        data = {"got": "tea", "from": [client.connection_id, "ann"]}
        assert client.hear() == {"type": "response", "id": 1, "ok": True, "data": data}
        client.say({"type": "order", "item": "tea"})
        assert client.ask("ping")["id"] == "ask-1"


def test_nothing_is_an_answer_too(host: Host) -> None:
    @host.realtime.on_message("order")
    async def order(message: Message, sender: Sender) -> None:
        host.realtime.driver.publish("orders", {"type": "ordered", "item": message["item"]})

    with host.client("channel=orders") as client:
        client.say({"type": "order", "item": "tea", "id": 1})
        assert client.hear()["item"] == "tea"
        assert client.hear() == {"type": "response", "id": 1, "ok": True, "data": {}}


def test_a_handler_takes_the_place_of_the_echo(host: Host) -> None:
    @host.realtime.on_message("text")
    async def shout(message: Message, sender: Sender) -> Message:
        return {"text": str(message["data"]).upper()}

    with host.client() as client:
        client.say({"type": "text", "data": "hello", "id": 1})
        assert client.hear()["data"] == {"text": "HELLO"}
        client.say("not a message at all")
        assert client.ask("ping")["ok"] is True


def test_a_refusal(host: Host) -> None:
    @host.realtime.on_message("order")
    async def order(message: Message, sender: Sender) -> None:
        raise CommandError("sold_out", "there is no tea left: come back tomorrow")

    with host.client() as client:
        client.say({"type": "order", "id": 1})
        message = "there is no tea left: come back tomorrow"
        assert client.hear() == {"type": "error", "id": 1, "code": "sold_out", "message": message}
        client.say({"type": "order"})
        assert client.hear() == {"type": "error", "code": "sold_out", "message": message}


def test_a_fault_is_logged_and_harms_nobody(host: Host, error_log: list[logging.LogRecord]) -> None:
    @host.realtime.on_message("order")
    async def order(message: Message, sender: Sender) -> Message:
        return {"each": 1 / int(str(message["count"]))}

    with host.client() as client:
        client.say({"type": "order", "count": 0, "id": 1})
        answer = client.hear()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, "internal_error")
        assert "division" not in answer["message"]
        client.say({"type": "order", "count": 2, "id": 2})
        assert client.hear()["data"] == {"each": 0.5}
    assert [record.getMessage() for record in error_log] == ["the handler for messages of type 'order' failed"]
    error_log.clear()


def test_an_answer_that_is_no_json(host: Host, error_log: list[logging.LogRecord]) -> None:
    @host.realtime.on_message("order")
    async def order(message: Message, sender: Sender) -> Message:
        return {"what": object()}

    with host.client() as client:
        client.say({"type": "order", "id": 1})
        answer = client.hear()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, "internal_error")
        assert client.ask("ping")["ok"] is True
    assert len(error_log) == 1
    error_log.clear()


def test_a_slow_handler_delays_its_own_client_only(host: Host) -> None:
    released: list[anyio.Event] = []

    @host.realtime.on_message("think")
    async def think(message: Message, sender: Sender) -> Message:
        event = anyio.Event()
        released.append(event)
        await event.wait()
        return {"thought": message["about"]}

    with host.client("channel=room") as client, host.client() as other:
        client.say({"type": "think", "about": "it", "id": 1})
        client.say({"type": "command", "command": "ping", "id": 2})
        host.wait_for(lambda: bool(released))
        # It hears what others say meanwhile.
        other.say({"type": "note", "channel": "room", "text": "done yet?"})
        assert client.hear()["text"] == "done yet?"
        assert other.ask("ping")["ok"] is True
        host.portal.call(released[0].set)
        assert client.hear()["data"] == {"thought": "it"}
        assert client.hear()["id"] == 2


def test_a_client_that_leaves_before_its_answer(host: Host) -> None:
    started: list[anyio.Event] = []

    @host.realtime.on_message("think")
    async def think(message: Message, sender: Sender) -> Message:
        event = anyio.Event()
        started.append(event)
        await event.wait()
        return {}

    with host.client() as client:
        client.say({"type": "think", "id": 1})
        host.wait_for(lambda: bool(started))
        client.websocket.socket.close()
    with host.client() as client:
        host.portal.call(started[0].set)
        assert client.ask("ping")["ok"] is True
