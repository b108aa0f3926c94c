"""The multiplexer alone: what it does with frames, right ones and wrong ones."""

from __future__ import annotations

import ast
import random
import struct
from pathlib import Path

import pytest

from cogkit.running import changes, mux, relay
from cogkit.running.mux import (
    CLIENT,
    DATA,
    END,
    HEADER,
    MAX_CHANNELS,
    MAX_PAYLOAD,
    OPEN,
    PING,
    RELAY,
    WINDOW,
    WINDOW_SIZE,
    Accepted,
    Data,
    Ended,
    Mux,
    MuxError,
    Opened,
    Pong,
    Reset,
    Room,
)


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, channel, len(payload)) + payload


@pytest.mark.parametrize("module", [changes, mux, relay])
def test_what_runs_in_containers_has_the_syntax_of_python_3_7(module: object) -> None:
    ast.parse(Path(str(getattr(module, "__file__", ""))).read_text(), feature_version=(3, 7))


def test_a_channel_from_its_opening_to_its_end() -> None:
    client, relay_ = Mux(CLIENT), Mux(RELAY)
    channel = client.open(b"what")
    assert relay_.feed(client.take()) == [Opened(channel, b"what")]
    relay_.accept(channel, b"yes")
    relay_.send(channel, b"out")
    relay_.end(channel)
    assert client.feed(relay_.take()) == [Accepted(channel, b"yes"), Data(channel, b"out"), Ended(channel)]
    assert client.is_open(channel)
    client.send(channel, b"in")
    client.end(channel)
    assert not client.is_open(channel)
    assert relay_.feed(client.take()) == [Data(channel, b"in"), Ended(channel)]
    assert not relay_.is_open(channel)


def test_frames_may_arrive_in_any_pieces() -> None:
    client, relay_ = Mux(CLIENT), Mux(RELAY)
    channel = client.open(b"request")
    client.send(channel, bytes(100_000))
    events = []
    for byte in client.take():
        events += relay_.feed(bytes((byte,)))
    assert events[0] == Opened(channel, b"request")
    assert b"".join(event.data for event in events if isinstance(event, Data)) == bytes(100_000)


def test_a_window_is_all_that_may_be_under_way() -> None:
    client, relay_ = Mux(CLIENT), Mux(RELAY)
    channel = client.open(b"")
    client.send(channel, bytes(WINDOW_SIZE))
    assert client.room(channel) == 0
    with pytest.raises(ValueError, match="no room"):
        client.send(channel, b"x")
    relay_.feed(client.take())
    relay_.consumed(channel, WINDOW_SIZE // 2)
    assert client.feed(relay_.take()) == [Room(channel)]
    assert client.room(channel) == WINDOW_SIZE // 2


def test_what_was_sent_before_a_reset_was_known_is_dropped() -> None:
    client, relay_ = Mux(CLIENT), Mux(RELAY)
    channel = client.open(b"")
    relay_.feed(client.take())
    client.send(channel, b"late")
    client.end(channel)
    relay_.reset(channel, "no")
    relay_.consumed(channel, 5)
    assert relay_.feed(client.take()) == []
    assert client.feed(relay_.take()) == [Reset(channel, "no")]
    client.reset(channel)
    assert client.take() == b""


def test_pings_are_answered() -> None:
    client, relay_ = Mux(CLIENT), Mux(RELAY)
    client.ping(b"now")
    assert relay_.feed(client.take()) == []
    assert client.feed(relay_.take()) == [Pong(b"now")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(99, 0), "unknown kind"),
        (HEADER.pack(DATA, 3, MAX_PAYLOAD + 1), "too long"),
        (frame(DATA, 3, b"x"), "nobody opened"),
        (frame(END, 2), "nobody opened"),
        (frame(OPEN, 2), "cannot be opened"),
        (frame(OPEN, 1), "cannot be opened"),
        (frame(OPEN, 5) + frame(OPEN, 3), "cannot be opened"),
        (frame(OPEN, 3) + frame(mux.ACCEPT, 3), "opened itself"),
        (frame(OPEN, 3) + frame(END, 3) + frame(END, 3), "ended twice"),
        (frame(OPEN, 3) + frame(END, 3, b"x"), "payload"),
        (frame(OPEN, 3) + frame(END, 3) + frame(DATA, 3, b"x"), "after the end"),
        (frame(OPEN, 3) + frame(DATA, 3, bytes(MAX_PAYLOAD)) * 17, "than there is room"),
        (frame(OPEN, 3) + frame(WINDOW, 3, b"x"), "window of 1"),
        (frame(OPEN, 3) + frame(WINDOW, 3, struct.pack(">I", 1)), "more room"),
        (b"".join(frame(OPEN, 3 + 2 * each) for each in range(MAX_CHANNELS + 1)), "too many"),
        (frame(PING, 0) * 1025, "more pings"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_not_heard_any_more(data: bytes, words: str) -> None:
    client = Mux(CLIENT)
    with pytest.raises(MuxError, match=words):
        client.feed(data)
    with pytest.raises(MuxError, match="failed before"):
        client.feed(frame(PING, 0))


def test_two_ends_agree_whatever_happens_between_them() -> None:
    """A random walk: streams arrive whole and in order, windows are kept, and every channel ends at both sides."""
    for seed in range(40):
        _walk(random.Random(seed))


def _walk(chance: random.Random) -> None:
    ends = (Mux(CLIENT), Mux(RELAY))
    wires = (bytearray(), bytearray())  # what each has sent and the other has not seen
    sent: dict[tuple[int, int], bytes] = {}
    heard: dict[tuple[int, int], bytes] = {}
    unread: dict[tuple[int, int], int] = {}
    known: tuple[set[int], set[int]] = (set(), set())
    was_reset: set[int] = set()

    def deliver(receiver: int, size: int) -> None:
        wire = wires[1 - receiver]
        piece, wire[:size] = bytes(wire[:size]), b""
        for event in ends[receiver].feed(piece):
            if isinstance(event, Opened):
                known[receiver].add(event.channel)
            elif isinstance(event, Data):
                key = (receiver, event.channel)
                heard[key] = heard.get(key, b"") + event.data
                unread[key] = unread.get(key, 0) + len(event.data)

    for _ in range(300):
        side = chance.randrange(2)
        end = ends[side]
        channels = sorted(known[side])
        match chance.choice(["open", "send", "send", "send", "end", "reset", "consume", "deliver", "deliver"]):
            case "open":
                known[side].add(end.open(b"r"))
            case "send" if channels:
                channel = chance.choice(channels)
                data = chance.randbytes(min(end.room(channel), chance.randrange(200_000)))
                if data:
                    end.send(channel, data)
                    sent[1 - side, channel] = sent.get((1 - side, channel), b"") + data
            case "end" if channels:
                end.end(chance.choice(channels))
            case "reset" if channels and chance.random() < 0.2:
                was_reset.add(channel := chance.choice(channels))
                end.reset(channel)
            case "consume" if unread:
                key = chance.choice(sorted(unread))
                ends[key[0]].consumed(key[1], unread.pop(key))
            case "deliver":
                deliver(side, chance.randrange(1, 300_000))
        wires[side].extend(end.take())
    while wires[0] or wires[1]:
        for side in (0, 1):
            deliver(side, 1_000_000)
            wires[side].extend(ends[side].take())
    for (side, channel), data in sent.items():
        got = heard.get((side, channel), b"")
        assert got == data or (channel in was_reset and data.startswith(got))
    for channel in known[0] | known[1]:
        assert ends[0].is_open(channel) == ends[1].is_open(channel)
