"""The router: a channel's history page by page, and publications that were made before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.router import Deliver, Page, Publish, Published, Refused, Request, RouterConfig, Subscribe

from .node_talk import Routed, published

NOBODY = Request(None)


def text(n: int, channel: str = "chat") -> Message:
    return {"type": "text", "n": n, "channel": channel}


def history(number: int, *, size: int = 100, max_bytes: int = 2**20) -> Routed:
    """Return a router whose channel ``chat`` has said 1, 2 and so on up to `number`."""
    namespaces = Namespaces(default=Namespace(pattern="*", history_size=size, history_ttl=60.0))
    routed = Routed(RouterConfig(namespaces=namespaces, max_replay_bytes=max_bytes))
    for n in range(1, number + 1):
        routed.send(Publish("chat", text(n), NOBODY))
    return routed


def page(
    routed: Routed,
    *,
    epoch: str | None = None,
    after: int | None = None,
    before: int | None = None,
    limit: int = 100,
    channel: str = "chat",
) -> Page:
    found = routed.router.history(channel, epoch=epoch, after=after, before=before, limit=limit, now=routed.now)
    assert isinstance(found, Page)
    return found


def numbers(found: Page) -> list[int]:
    return [each.source.offset for each in found.publications if each.source is not None]


# Paging


def test_a_page_holds_publications_as_they_were_delivered() -> None:
    routed = history(2)
    said: list[Encoded] = [published(text(n), n, "e.1", n) for n in (1, 2)]
    assert page(routed) == Page("e.1", 2, said, more=False, complete=True)
    assert page(routed, epoch="e.1") == page(routed)


@pytest.mark.parametrize(
    ("bounds", "found", "more"),
    [
        *(({}, [5, 6, 7], True), ({"before": 5}, [2, 3, 4], True), ({"before": 4}, [1, 2, 3], False)),
        *(({"before": 2}, [1], False), ({"before": 1}, [], False), ({"before": 0}, [], False)),
        *(({"before": 99}, [5, 6, 7], True), ({"after": 0}, [1, 2, 3], True), ({"after": 3}, [4, 5, 6], True)),
        *(({"after": 4}, [5, 6, 7], False), ({"after": 6}, [7], False), ({"after": 7}, [], False)),
        ({"after": 99}, [], False),
    ],
)
def test_pages_in_both_directions(bounds: dict[str, int], found: list[int], more: bool) -> None:
    told = page(history(7), limit=3, **bounds)  # type: ignore[arg-type]
    assert (numbers(told), told.more, told.complete, told.offset) == (found, more, True, 7)


@pytest.mark.parametrize(
    ("bounds", "found", "more", "complete"),
    [
        # 1 to 4 are gone, 5 to 7 are held.
        *(({}, [6, 7], True, True), ({"limit": 3}, [5, 6, 7], False, True), ({"limit": 4}, [5, 6, 7], False, False)),
        *(({"before": 6}, [5], False, False), ({"before": 6, "limit": 1}, [5], False, True)),
        *(({"before": 5}, [], False, False), ({"before": 2}, [], False, False)),
        # There never was anything before the first.
        *(({"before": 1}, [], False, True), ({"before": 0}, [], False, True)),
        *(({"after": 0}, [5, 6], True, False), ({"after": 3}, [5, 6], True, False), ({"after": 4}, [5, 6], True, True)),
        *(({"after": 5}, [6, 7], False, True), ({"after": 7}, [], False, True)),
    ],
)
def test_pages_say_what_is_missing(bounds: dict[str, int], found: list[int], more: bool, complete: bool) -> None:
    told = page(history(7, size=3), **{"limit": 2, **bounds})  # type: ignore[arg-type]
    assert (numbers(told), told.more, told.complete) == (found, more, complete)


def test_what_is_too_old_is_on_no_page() -> None:
    routed = history(2)
    routed.now = 160.0
    assert page(routed) == Page("e.1", 2, [], more=False, complete=False)
    assert page(routed, after=2) == Page("e.1", 2, [], more=False, complete=True)


def test_a_page_has_so_many_bytes() -> None:
    size = len(published(text(1), 1, "e.1", 1).json)
    routed = history(5, max_bytes=2 * size)
    for bounds, found, more in [
        *(({}, [4, 5], True), ({"before": 4}, [2, 3], True), ({"before": 3}, [1, 2], False)),
        *(({"after": 0}, [1, 2], True), ({"after": 2}, [3, 4], True), ({"after": 3}, [4, 5], False)),
    ]:
        told = page(routed, **bounds)  # type: ignore[arg-type]
        assert (numbers(told), told.more, told.complete) == (found, more, True)


def test_a_page_has_one_publication_whatever_its_size() -> None:
    routed = history(3, max_bytes=1)
    assert (numbers(page(routed)), numbers(page(routed, after=1)), numbers(page(routed, before=3))) == ([3], [2], [2])
    assert page(routed, after=2).more is False
    assert page(routed, before=2).more is False


def test_bounds_of_another_life_mean_nothing() -> None:
    routed = history(1)
    refusal = Refusal("epoch_changed", "the channel's epoch is 'e.1' now: begin again without bounds", status=409)
    assert routed.router.history("chat", epoch="e.0", after=0, before=None, limit=1, now=100.0) == refusal


def test_a_channel_that_there_is_not_has_said_nothing() -> None:
    routed = history(0)
    assert page(routed, channel="unheard of") == Page("e.1", 0, [], more=False, complete=True)
    assert routed.router.empty


@given(st.integers(0, 12), st.integers(0, 6), st.integers(1, 5), st.booleans(), st.integers(1, 400))
def test_pages_make_up_the_whole(number: int, size: int, limit: int, backwards: bool, max_bytes: int) -> None:
    routed = history(number, size=size, max_bytes=max_bytes)
    held = list(range(max(0, number - size) + 1, number + 1))
    found: list[int] = []
    bound = number + 1 if backwards else max(0, number - size)
    while True:
        told = page(routed, before=bound, limit=limit) if backwards else page(routed, after=bound, limit=limit)
        offsets = numbers(told)
        found = offsets + found if backwards else found + offsets
        assert offsets == sorted(offsets)
        assert told.complete or (backwards and not told.more)
        if not told.more:
            break
        bound = offsets[0] if backwards else offsets[-1]
    assert found == held


# Publications that were made before


def publisher(window: float = 300.0, size: int = 1000, **options: object) -> Routed:
    namespaces = Namespaces((Namespace(pattern="chat", **options),))  # type: ignore[arg-type]
    routed = Routed(RouterConfig(namespaces=namespaces, idempotency_window=window, idempotency_size=size))
    routed.attach("c1", "ann", session="tab")
    return routed


def say(routed: Routed, connection_id: str, id: str | int | None, n: int = 1, channel: str = "chat") -> Published:
    receipt = routed.send(Publish(channel, text(n, channel), Request(connection_id, id)))[-1]
    assert isinstance(receipt, Published)
    return receipt


def test_a_repetition_is_answered_and_not_repeated() -> None:
    routed = publisher()
    routed.send(Subscribe("chat", Request("c1")))
    first = Published(Request("c1", "1"), "e-2", "chat", 1, "e.3")
    assert routed.send(Publish("chat", text(1), Request("c1", "1"))) == [
        Deliver(published(text(1), 1, "e.3", 2, "c1", "ann"), ("c1",)),
        first,
    ]
    repeated = Published(Request("c1", "1"), "e-2", "chat", 1, "e.3", repeated=True)
    assert routed.send(Publish("chat", text(1), Request("c1", "1"))) == [repeated]
    # Whatever else it says: the id says that it is the same.
    assert routed.send(Publish("news", text(2, "news"), Request("c1", "1"))) == [repeated]
    assert say(routed, "c1", 1) == Published(Request("c1", 1), "e-3", "chat", 2, "e.3")
    assert say(routed, "c1", None) == Published(Request("c1"), "e-4", "chat", 3, "e.3")
    assert say(routed, "c1", None) == Published(Request("c1"), "e-5", "chat", 4, "e.3")


def test_the_application_repeats_what_it_likes() -> None:
    routed = publisher()
    for offset in (1, 2):
        request = Request(None, "1")
        receipt = routed.send(Publish("chat", text(1), request))[-1]
        assert receipt == Published(request, f"e-{offset}", "chat", offset, "e.3")


def test_a_user_is_one_publisher_on_all_connections() -> None:
    routed = publisher()
    routed.attach("c2", "ann", session="other tab")
    routed.attach("c3", "bob", session="tab")
    assert [say(routed, name, "1").offset for name in ("c1", "c2", "c3")] == [1, 1, 2]


def test_who_was_answered_that_another_client_was_first_is_answered_so_again() -> None:
    routed = publisher(window=15.0)
    routed.attach("c2", "ann", session="other tab")
    routed.attach("c3", "ann", session="third tab")
    say(routed, "c1", "1")
    routed.wait_until(10.0)
    assert say(routed, "c2", "1").offset == 1
    # The user's ids may be used again by now, but not by those whose session has used them.
    routed.wait_until(200.0)
    assert [say(routed, name, "1").offset for name in ("c2", "c1", "c3")] == [1, 1, 2]


def test_the_anonymous_are_told_apart_by_session_or_by_connection() -> None:
    routed = publisher()
    for name, session in (("c2", "s2"), ("c3", "s2"), ("c4", None), ("c5", None)):
        routed.attach(name, session=session)
    assert [say(routed, name, "1").offset for name in ("c2", "c3", "c4", "c5", "c4")] == [1, 1, 2, 3, 2]


def test_a_repetition_on_the_next_connection_is_one() -> None:
    routed = publisher()
    assert say(routed, "c1", "1") == Published(Request("c1", "1"), "e-1", "chat", 1, "e.3")
    routed.detach("c1")
    routed.wait_until(399.0)
    assert routed.attach("c2", "ann", session="tab") == "e.1"
    assert say(routed, "c2", "1") == Published(Request("c2", "1"), "e-1", "chat", 1, "e.3", repeated=True)
    # The second life was that of the user.
    assert routed.attach("c3", "ann", session="other tab") == "e.3"
    assert routed.attach("c4", "ann") is None
    assert routed.attach("c5", "bob", session="tab") == "e.5"


def test_a_session_that_said_nothing_is_known() -> None:
    routed = publisher()
    routed.detach("c1")
    assert routed.attach("c1", "ann", session="tab") == "e.1"


def test_a_session_is_known_for_so_long() -> None:
    routed = publisher(window=50.0)
    say(routed, "c1", "1")
    routed.detach("c1")
    assert routed.router.next_timeout() == 150.0
    routed.wait_until(150.0)
    assert routed.attach("c2", "ann", session="tab") == "e.3"
    assert say(routed, "c2", "1").offset == 2


def test_a_session_knows_its_ids_for_as_long_as_it_lives() -> None:
    routed = publisher(window=50.0)
    routed.attach("c2", "ann")
    say(routed, "c1", "1")
    routed.wait_until(151.0)
    assert say(routed, "c1", "1").repeated
    # To another client of the same user the id is free again.
    assert not say(routed, "c2", "1").repeated


def test_so_many_are_remembered() -> None:
    routed = publisher(size=2)
    assert [say(routed, "c1", number).repeated for number in (1, 2, 3, 2, 3, 1)] == [
        *(False, False, False),
        *(True, True, False),
    ]


def test_what_was_refused_may_be_tried_again() -> None:
    routed = publisher(publish=Access.MEMBERS)
    request = Request("c1", "1")
    assert isinstance(routed.send(Publish("chat", text(1), request))[0], Refused)
    routed.send(Subscribe("chat", request))
    assert say(routed, "c1", "1").offset == 1


def test_what_was_published_is_acknowledged_even_to_who_may_no_longer() -> None:
    routed = publisher(publish=Access.MEMBERS)
    routed.send(Subscribe("chat", Request("c1")))
    say(routed, "c1", "1")
    routed.detach("c1")
    routed.attach("c2", "ann", session="tab")
    assert say(routed, "c2", "1").repeated
