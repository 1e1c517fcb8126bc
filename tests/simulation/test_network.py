"""The network does to connections what networks do, and no more."""

from __future__ import annotations

import pytest

from rtcore.simulation import Choices, Cut, Quality

from .ends import LATENCY, Pair

CAPACITY = Quality().capacity
# Longer than anybody waits for an acknowledgement.
LONG = 31.0


def test_bytes_arrive_after_the_latency_joined_and_in_order() -> None:
    pair = Pair.connected()
    assert [pair.near_socket.write(data) for data in (b"one ", b"two")] == [4, 3]
    pair.far_socket.write(b"hello")
    pair.pass_time(LATENCY / 2)
    assert pair.far.told == pair.near.told == []
    pair.pass_time(LATENCY)
    assert (pair.far.told, pair.near.told) == ([b"one two"], [b"hello"])


def test_what_comes_later_is_read_later() -> None:
    pair = Pair.connected()
    pair.near_socket.write(b"one ")
    pair.pass_time(LATENCY / 2)
    pair.near_socket.write(b"two")
    pair.pass_time(LATENCY)
    assert pair.far.told == [b"one ", b"two"]


def test_a_full_connection_takes_no_more_until_it_is_read() -> None:
    pair = Pair.connected()
    assert pair.near_socket.write(bytes(CAPACITY + 10)) == CAPACITY
    assert pair.near_socket.write(bytes(10)) == 0
    pair.pass_time(LATENCY)
    assert (len(pair.far.data), pair.near.told) == (CAPACITY, [])
    pair.pass_time(LATENCY)
    assert pair.near.told == ["writable"]
    assert pair.near_socket.write(bytes(10)) == 10


def test_a_frozen_writer_hears_of_room_when_it_thaws() -> None:
    pair = Pair.connected()
    pair.near_socket.write(bytes(CAPACITY + 1))
    pair.client.freeze()
    pair.pass_time(1.0)
    assert pair.near.told == []
    pair.client.thaw()
    pair.pass_time(0.0)
    assert pair.near.told == ["writable"]


def test_who_is_gone_hears_of_no_room() -> None:
    pair, other = Pair.connected(), Pair.connected()
    for each in (pair, other):
        each.near_socket.write(bytes(CAPACITY + 1))
        each.pass_time(LATENCY)
    pair.near_socket.abort()
    other.near_socket.close()
    for each in (pair, other):
        each.pass_time(1.0)
        assert each.near.told == []


def test_the_word_that_there_is_room_is_lost_on_a_dead_connection() -> None:
    pair = Pair.connected()
    pair.near_socket.write(bytes(CAPACITY + 1))
    pair.pass_time(LATENCY)
    pair.network.silence(pair.link)
    pair.pass_time(1.0)
    assert pair.near.told == []
    pair.pass_time(LONG)
    assert pair.near.told == ["reset"]


def test_a_frozen_reader_reads_when_it_thaws() -> None:
    pair = Pair.connected()
    pair.server.freeze()
    for data in (b"one ", b"two"):
        pair.near_socket.write(data)
        pair.pass_time(1.0)
    assert pair.far.told == []
    pair.server.thaw()
    pair.pass_time(0.0)
    assert pair.far.told == [b"one two"]


def test_a_stalled_connection_delivers_later() -> None:
    pair = Pair.connected()
    pair.network.stall(pair.link, 5.0)
    pair.network.stall(pair.link, 1.0)
    pair.near_socket.write(b"late")
    pair.pass_time(4.9)
    assert pair.far.told == []
    pair.pass_time(0.2)
    assert pair.far.told == [b"late"]


def test_jitter_keeps_the_order() -> None:
    pair = Pair.connected(seed=3)
    pair.link.quality = Quality(jitter=0.5)
    pair.world.faulty = True
    sent = [bytes([number]) for number in range(100)]
    for data in sent:
        pair.near_socket.write(data)
        pair.pass_time(0.001)
    assert len(pair.far.data) < 100
    pair.pass_time(1.0)
    assert pair.far.data == b"".join(sent)
    assert len(pair.far.told) > 1


def test_what_is_chopped_arrives_whole() -> None:
    pair = Pair.connected(seed=1)
    pair.link.quality = Quality(chopping=90)
    pair.world.faulty = True
    pair.near_socket.write(bytes(range(256)))
    pair.near_socket.finish()
    pair.pass_time(1.0)
    assert pair.far.data == bytes(range(256))
    assert pair.far.told[-1] == "eof"
    assert len(pair.far.told) > 3


def test_a_connection_that_does_not_last_breaks_within_what_arrives() -> None:
    pair = Pair.connected()
    pair.link.lasts = 8
    pair.world.faulty = True
    pair.far_socket.write(b"12345")
    pair.pass_time(LATENCY)
    assert pair.near.told == [b"12345"]
    pair.far_socket.write(b"67890")
    pair.pass_time(2.0)
    assert pair.near.data == b"12345678"
    assert pair.near.told[-1] in ("eof", "reset")
    assert pair.far.told == ["reset"]


def test_half_of_a_connection_ends() -> None:
    pair = Pair.connected()
    pair.near_socket.write(b"the last")
    pair.near_socket.finish()
    pair.near_socket.finish()
    pair.pass_time(LATENCY)
    assert pair.far.told == [b"the last", "eof"]
    pair.far_socket.write(b"an answer")
    pair.pass_time(LATENCY)
    assert pair.near.told == [b"an answer"]


def test_both_close() -> None:
    pair = Pair.connected()
    pair.near_socket.close()
    pair.pass_time(LATENCY)
    assert pair.far.told == ["eof"]
    pair.far_socket.close()
    pair.pass_time(LATENCY)
    assert pair.near.told == []
    assert pair.near_socket.broken
    assert pair.far_socket.broken
    assert pair.network.links() == []
    # It is gone: what is written is for nobody, and nobody says so.
    assert pair.near_socket.write(b"x") == 1
    pair.near_socket.finish()
    pair.near_socket.abort()
    pair.pass_time(LONG)
    assert (pair.near.told, pair.far.told) == ([], ["eof"])


def test_what_is_written_to_who_has_closed_is_answered_with_a_reset() -> None:
    pair = Pair.connected()
    pair.near_socket.close()
    pair.far_socket.write(b"x")
    pair.pass_time(1.0)
    assert pair.near.told == []
    assert pair.far.told == ["eof", "reset"]


def test_an_aborted_connection_is_reset() -> None:
    pair = Pair.connected()
    pair.near_socket.write(b"lost")
    pair.far_socket.write(b"lost")
    pair.near_socket.abort()
    # Before the word is there, it is not known.
    assert pair.far_socket.write(b"x") == 1
    pair.pass_time(1.0)
    assert pair.near.told == []
    assert pair.far.told[-1] == "reset"


def test_a_frozen_machine_hears_of_a_reset_when_it_thaws() -> None:
    pair = Pair.connected()
    pair.server.freeze()
    pair.near_socket.abort()
    pair.pass_time(1.0)
    assert pair.far.told == []
    pair.server.thaw()
    pair.pass_time(0.0)
    assert pair.far.told == ["reset"]


def test_who_has_closed_is_not_told_of_a_reset() -> None:
    pair = Pair.connected()
    pair.near_socket.close()
    pair.far_socket.abort()
    pair.pass_time(1.0)
    assert pair.near.told == []
    assert pair.near_socket.broken


# How they come about


def test_nobody_is_there() -> None:
    pair = Pair()
    pair.server.listening = False
    pair.pass_time(1.0)
    assert pair.near.told == ["reset"]
    assert pair.server.accepted == []


def test_chance_may_refuse() -> None:
    # Of the qualities the first, and of fates a refusal.
    draws = iter([0, 94])
    pair = Pair()
    pair.pass_time(1.0)
    pair.world.choices = Choices(lambda limit: next(draws))
    pair.world.faulty = True
    pair.near.told.clear()
    pair.network.connect(pair.client, pair.server, pair.near)
    pair.pass_time(1.0)
    assert pair.near.told == ["reset"]
    assert len(pair.server.accepted) == 1


def test_chance_may_lose_the_request() -> None:
    draws = iter([0, 98])
    pair = Pair.connected()
    pair.world.choices = Choices(lambda limit: next(draws))
    pair.world.faulty = True
    pair.network.connect(pair.client, pair.server, pair.near)
    pair.pass_time(LONG)
    assert pair.near.told == []
    assert len(pair.server.accepted) == 1


def test_chance_may_let_it_break_soon() -> None:
    # The second of the ranges, and 7 bytes more than its least.
    draws = iter([0, 79, 1, 7])
    pair = Pair()
    pair.world.choices = Choices(lambda limit: next(draws))
    pair.world.faulty = True
    assert pair.network.connect(pair.client, pair.server, pair.near).link.lasts == 407
    # The least draw is the calmest.
    pair.world.choices = Choices(lambda limit: 0)
    assert pair.network.connect(pair.client, pair.server, pair.near).link.lasts is None


def test_a_frozen_server_takes_connections_when_it_thaws() -> None:
    pair = Pair()
    pair.server.freeze()
    pair.pass_time(1.0)
    assert pair.near.told == []
    pair.server.thaw()
    pair.pass_time(1.0)
    assert pair.near.told == ["connected"]


def test_who_gave_up_meanwhile_is_not_taken() -> None:
    pair = Pair()
    pair.server.freeze()
    pair.pass_time(1.0)
    pair.near_socket.abort()
    pair.server.thaw()
    pair.pass_time(1.0)
    assert (pair.server.accepted, pair.near.told) == ([], [])


def test_who_gave_up_at_once_is_not_taken() -> None:
    pair = Pair()
    pair.near_socket.abort()
    pair.pass_time(1.0)
    assert (pair.server.accepted, pair.near.told) == ([], [])


def test_a_frozen_client_is_connected_when_it_thaws() -> None:
    pair = Pair()
    pair.client.freeze()
    pair.pass_time(1.0)
    assert pair.network.links() == []
    pair.client.thaw()
    pair.pass_time(1.0)
    assert pair.near.told == ["connected"]


def test_who_gave_up_last_is_not_connected() -> None:
    pair = Pair()
    pair.pass_time(LATENCY * 1.5)
    pair.near_socket.abort()
    pair.pass_time(1.0)
    assert pair.near.told == []
    assert pair.far.told == ["reset"]


# How they end


@pytest.mark.parametrize("seed", range(10))
def test_cut_with_a_reset(seed: int) -> None:
    pair = Pair.connected(seed=seed)
    pair.network.cut(pair.link, Cut.RESET)
    pair.pass_time(1.0)
    assert (pair.near.told, pair.far.told) == (["reset"], ["reset"])
    assert pair.network.links() == []


@pytest.mark.parametrize("seed", range(10))
def test_cut_with_an_end(seed: int) -> None:
    pair = Pair.connected(seed=seed)
    pair.near_socket.write(b"part ")
    pair.near_socket.write(b"of this")
    pair.network.cut(pair.link, Cut.END)
    # There is no end of room nowhere.
    assert pair.near_socket.write(bytes(CAPACITY + 1)) == CAPACITY + 1
    pair.pass_time(1.0)
    assert pair.near.told == ["eof"]
    assert pair.far.told[-1] == "eof"
    assert b"part of this".startswith(pair.far.data)


@pytest.mark.parametrize("seed", range(10))
def test_cut_on_one_side(seed: int) -> None:
    pair = Pair.connected(seed=seed)
    pair.network.cut(pair.link, Cut.HALF)
    pair.pass_time(1.0)
    assert [pair.near.told, pair.far.told] in ([["eof"], []], [[], ["eof"]])
    ends = (pair.near_socket, pair.far_socket)
    assert [end.finished for end in ends] == [not told for told in (pair.near.told, pair.far.told)]


def test_cut_what_is_half_closed() -> None:
    pair = Pair.connected()
    pair.near_socket.finish()
    pair.network.cut(pair.link, Cut.END)
    pair.pass_time(1.0)
    assert (pair.near.told, pair.far.told) == (["eof"], ["eof"])


@pytest.mark.parametrize(("how", "told"), [(Cut.END, ["eof", "reset"]), (Cut.RESET, ["reset"])])
def test_cut_what_one_side_has_dropped(how: Cut, told: list[str]) -> None:
    pair = Pair.connected()
    pair.far_socket.abort()
    pair.network.cut(pair.link, how)
    pair.pass_time(1.0)
    assert (pair.near.told, pair.far.told) == (told, [])


def test_cut_silently() -> None:
    pair = Pair.connected()
    pair.near_socket.write(b"lost")
    pair.network.cut(pair.link, Cut.SILENT)
    assert pair.network.haunted()
    assert pair.network.links() == []
    pair.pass_time(LONG - 2.0)
    assert (pair.near.told, pair.far.told) == ([], [])
    # Who has written finds out, and the other one with it.
    pair.pass_time(2.0)
    assert (pair.near.told, pair.far.told) == (["reset"], ["reset"])
    assert not pair.network.haunted()


def test_who_says_nothing_never_finds_out() -> None:
    pair = Pair.connected()
    pair.network.cut(pair.link, Cut.SILENT)
    pair.pass_time(1000.0)
    assert (pair.near.told, pair.far.told) == ([], [])
    pair.far_socket.write(b"x")
    pair.far_socket.write(b"y")
    pair.pass_time(LONG)
    assert (pair.near.told, pair.far.told) == (["reset"], ["reset"])


def test_what_is_written_after_the_end_of_a_dead_connection_is_found_out_too() -> None:
    pair = Pair.connected()
    pair.network.cut(pair.link, Cut.SILENT)
    pair.near_socket.finish()
    assert pair.near_socket.write(b"x") == 1
    pair.pass_time(LONG)
    assert pair.near.told == ["reset"]


def test_who_is_dead_is_not_connected() -> None:
    pair = Pair()
    pair.server.freeze()
    pair.pass_time(1.0)
    pair.network.silence(pair.link)
    pair.server.thaw()
    pair.pass_time(LONG)
    assert (pair.near.told, pair.server.accepted) == ([], [])


def test_a_machine_loses_all_its_connections() -> None:
    pair = Pair.connected()
    pair.network.disconnect(pair.server, silently=False)
    pair.network.disconnect(pair.server, silently=False)
    pair.pass_time(1.0)
    assert (pair.near.told, pair.far.told) == (["reset"], [])


def test_a_machine_that_is_gone_resets_what_it_does_not_know_once_it_is_back() -> None:
    pair = Pair.connected()
    pair.network.disconnect(pair.server, silently=True)
    pair.pass_time(1.0)
    assert pair.near.told == []
    assert pair.network.haunted()
    pair.near_socket.write(b"hello?")
    pair.pass_time(1.0)
    assert pair.near.told == ["reset"]


def test_a_machine_that_stays_away_is_found_out_by_the_silence() -> None:
    pair = Pair.connected()
    pair.network.disconnect(pair.server, silently=True)
    pair.server.listening = False
    pair.near_socket.write(b"hello?")
    pair.pass_time(LONG - 2.0)
    assert pair.near.told == []
    pair.pass_time(2.0)
    assert pair.near.told == ["reset"]


def test_connections_of_machines() -> None:
    pair = Pair.connected()
    assert pair.network.links() == [pair.link]
    assert pair.network.links(pair.server) == pair.network.links(pair.client, pair.server) == [pair.link]
    assert pair.network.links(Pair().client) == []
    assert not pair.network.haunted()
