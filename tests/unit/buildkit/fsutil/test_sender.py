"""The sending side as a state machine."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from cogkit.buildkit.fsutil.packet import PacketType, decode_packet, encode_packet
from cogkit.buildkit.fsutil.sender import (
    END_OF_STATS,
    FIN,
    Finished,
    Sender,
    SenderError,
    Wanted,
    content,
    error_packet,
)
from cogkit.buildkit.fsutil.stat import MODE_DIR, MODE_NAMED_PIPE, MODE_SYMLINK, Stat
from tests.described import batch_of


def request(id: int) -> bytes:
    return encode_packet(PacketType.REQ, id=id)


def sender(*stats: Stat, withheld: Collection[int] = ()) -> Sender:
    made = Sender()
    made.add(batch_of(list(stats), withheld))
    return made


def test_a_file_is_sent_for_the_id_of_its_place() -> None:
    state = sender(Stat(b"a", MODE_DIR | 0o755), Stat(b"a/b", 0o644), Stat(b"a/c", 0o600))
    state.add(batch_of([Stat(b"d", 0o644)]))
    assert len(state) == 4
    assert state.receive(request(2)) == Wanted(2, b"a/c")
    assert state.receive(request(1)) == Wanted(1, b"a/b")
    assert state.receive(request(3)) == Wanted(3, b"d")


def test_requests_may_come_while_entries_are_still_described() -> None:
    state = sender(Stat(b"a", 0o644))
    assert state.receive(request(0)) == Wanted(0, b"a")
    state.add(batch_of([Stat(b"b", 0o644)]))
    assert state.receive(request(1)) == Wanted(1, b"b")


@pytest.mark.parametrize("mode", [MODE_DIR, MODE_SYMLINK, MODE_NAMED_PIPE])
def test_only_files_have_content(mode: int) -> None:
    with pytest.raises(SenderError, match=r"^invalid file id 0$"):
        sender(Stat(b"a", mode)).receive(request(0))


def test_an_id_that_was_not_described_is_refused() -> None:
    with pytest.raises(SenderError, match=r"^invalid file id 7$"):
        sender(Stat(b"a")).receive(request(7))
    with pytest.raises(SenderError, match=r"^invalid file id 4294967295$"):
        sender(Stat(b"a")).receive(request(2**32 - 1))


def test_a_file_can_be_asked_for_once() -> None:
    state = sender(Stat(b"a"))
    state.receive(request(0))
    with pytest.raises(SenderError, match=r"^invalid file id 0$"):
        state.receive(request(0))


def test_a_withheld_file_is_answered_without_its_content() -> None:
    state = sender(Stat(b"d", MODE_DIR), Stat(b"d/a"), Stat(b"d/b"), withheld={1})
    assert state.receive(request(1)) == Wanted(1, None)
    assert state.receive(request(2)) == Wanted(2, b"d/b")


def test_paths_are_found_in_many_portions_in_any_order() -> None:
    state = Sender()
    for portion in range(40):
        state.add(batch_of([Stat(b"%d/%d" % (portion, n)) for n in range(portion % 5)]))
    paths = [b"%d/%d" % (portion, n) for portion in range(40) for n in range(portion % 5)]
    for id in [*range(0, len(paths), 3), *range(1, len(paths), 3), *range(2, len(paths), 3)][::-1]:
        assert state.receive(request(id)) == Wanted(id, paths[id])


def test_fin_ends_it_and_nothing_may_follow() -> None:
    state = sender(Stat(b"a"))
    assert state.receive(encode_packet(PacketType.FIN)) == Finished()
    with pytest.raises(SenderError, match="after the end"):
        state.receive(request(0))


def test_an_error_of_the_receiver_is_raised_with_its_words() -> None:
    with pytest.raises(SenderError, match=r"^error from receiver: disk full �$"):
        Sender().receive(encode_packet(PacketType.ERR, data=b"disk full \xff"))


def test_packets_that_only_a_sender_sends_mean_nothing() -> None:
    assert Sender().receive(encode_packet(PacketType.DATA, id=1, data=b"x")) is None
    assert Sender().receive(b"\x08\x63") is None


def test_what_is_no_packet_is_refused() -> None:
    with pytest.raises(SenderError, match="cannot be read"):
        Sender().receive(b"\x08")


def test_content_ends_with_an_empty_packet() -> None:
    packets = [decode_packet(head + piece) for head, piece in content(300, iter([b"ab", b"cd", b"e"]))]
    assert [(packet.type, packet.id, bytes(packet.data)) for packet in packets] == [
        (PacketType.DATA, 300, b"ab"),
        (PacketType.DATA, 300, b"cd"),
        (PacketType.DATA, 300, b"e"),
        (PacketType.DATA, 300, b""),
    ]
    assert [bytes(decode_packet(head + piece).data) for head, piece in content(0, iter(()))] == [b""]


def test_the_other_packets() -> None:
    assert decode_packet(END_OF_STATS).type == PacketType.STAT and decode_packet(END_OF_STATS).stat is None
    assert decode_packet(FIN).type == PacketType.FIN
    failed = decode_packet(error_packet("no 'a\udcff'"))
    assert (failed.type, bytes(failed.data)) == (PacketType.ERR, b"no 'a?'")
