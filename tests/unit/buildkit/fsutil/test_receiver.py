"""The receiver's state machine, driven packet by packet; what a hostile sender may try is in tests/faults."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cogkit.buildkit.fsutil.packet import PacketType, decode_packet
from cogkit.buildkit.fsutil.receiver import (
    Chunk,
    Entry,
    Make,
    ProtocolViolation,
    Receiver,
    SenderFailed,
    _plain_data,
)
from cogkit.buildkit.fsutil.validator import Kind, TreeValidator
from cogkit.errors import CogkitError
from tests.scripted_sender import (
    END_OF_TREE,
    ERR,
    FIN,
    FIN_PACKET,
    REQ,
    data,
    directory,
    error,
    parse,
    stat,
    symlink,
)


def make(receiver: Receiver, packet: bytes) -> Entry:
    action = receiver.feed(packet)
    assert isinstance(action, Make)
    return action.entry


def ask(receiver: Receiver, *entries: Entry) -> list[int]:
    """Report the entries made, and the ids that the receiver then asks for."""
    receiver.made(len(entries), [entry for entry in entries if entry.kind is Kind.FILE])
    packets = [parse(packet) for packet in receiver.packets_to_send()]
    assert all(kind == REQ for kind, _, _ in packets)
    return [id for _, id, _ in packets]


def contents(chunk: object) -> bytes:
    assert isinstance(chunk, Chunk)
    return b"".join(chunk.parts)


def state(receiver: Receiver) -> tuple[bool, bool]:
    return receiver.complete, receiver.done


def test_a_whole_transfer() -> None:
    receiver = Receiver(TreeValidator())
    folder = make(receiver, directory(b"d"))
    file = make(receiver, stat(b"d/f", size=5))
    link = make(receiver, symlink(b"l", b"d/f"))
    assert ask(receiver, folder, file, link) == [1]
    assert receiver.feed(data(1, b"hel")) is None
    assert receiver.feed(END_OF_TREE) is None
    assert receiver.feed(data(1, b"lo")) is None
    assert state(receiver) == (False, False)
    last = receiver.feed(data(1))
    assert isinstance(last, Chunk) and last.last and contents(last) == b"hello" and last.entry is file
    assert state(receiver) == (True, False)
    assert parse(receiver.finish())[0] == FIN
    assert receiver.feed(FIN_PACKET) is None
    assert state(receiver) == (True, True)
    receiver.end_of_stream()


def test_an_empty_tree_is_complete_at_its_end() -> None:
    receiver = Receiver(TreeValidator())
    assert not receiver.complete
    receiver.feed(END_OF_TREE)
    assert receiver.complete


def test_files_are_asked_for_only_after_their_directory_is_made() -> None:
    receiver = Receiver(TreeValidator())
    folder = make(receiver, directory(b"d"))
    file = make(receiver, stat(b"d/f", size=1))
    assert receiver.packets_to_send() == []
    receiver.feed(END_OF_TREE)
    assert not receiver.complete
    assert ask(receiver, folder, file) == [1]


def test_only_files_are_asked_for() -> None:
    receiver = Receiver(TreeValidator())
    entries = [make(receiver, packet) for packet in (stat(b"a"), stat(b"b", linkname=b"a"), symlink(b"c", b"a"))]
    assert ask(receiver, *entries) == [0]


def test_no_more_than_the_window_is_asked_for_at_once() -> None:
    receiver = Receiver(TreeValidator(), window=2)
    entries = [make(receiver, stat(b"%d" % index, size=1)) for index in range(5)]
    assert ask(receiver, *entries) == [0, 1]
    receiver.feed(data(1, b"x"))
    assert receiver.packets_to_send() == []
    receiver.feed(data(1))
    assert [parse(packet)[1] for packet in receiver.packets_to_send()] == [2]


def test_requests_go_out_a_quarter_of_the_window_at_once() -> None:
    receiver = Receiver(TreeValidator(), window=8)
    entries = [make(receiver, stat(b"%02d" % index, size=1)) for index in range(13)]
    assert ask(receiver, *entries) == list(range(8))
    answered = []
    for id in range(8):
        receiver.feed(data(id, b"x"))
        receiver.feed(data(id))
        answered.append([parse(packet)[1] for packet in receiver.packets_to_send()])
    assert answered == [[], [8, 9], [], [10, 11], [12], [], [], []]


def test_large_files_come_in_chunks_of_the_agreed_size_and_in_order() -> None:
    receiver = Receiver(TreeValidator(), chunk_size=1000)
    sent = bytes(range(256)) * 40
    entry = make(receiver, stat(b"f", size=len(sent)))
    assert ask(receiver, entry) == [0]
    got = b""
    for start in range(0, len(sent), 300):
        chunk = receiver.feed(data(0, sent[start : start + 300]))
        if chunk is not None:
            assert isinstance(chunk, Chunk) and not chunk.last
            assert 1000 <= chunk.cost < 2000
            got += contents(chunk)
    got += contents(receiver.feed(data(0)))
    assert got == sent


def test_files_may_come_interleaved() -> None:
    receiver = Receiver(TreeValidator())
    entries = [make(receiver, stat(name, size=4)) for name in (b"a", b"b")]
    assert ask(receiver, *entries) == [0, 1]
    for packet in (data(1, b"bb"), data(0, b"aa"), data(1, b"BB"), data(0, b"AA")):
        assert receiver.feed(packet) is None
    assert contents(receiver.feed(data(1))) == b"bbBB"
    assert contents(receiver.feed(data(0))) == b"aaAA"


def test_a_file_that_the_sender_could_not_read_is_an_error_not_an_empty_file() -> None:
    """fsutil's sender answers with no data at all when it cannot open a file."""
    receiver = Receiver(TreeValidator())
    ask(receiver, make(receiver, stat(b"f", size=10)))
    with pytest.raises(ProtocolViolation, match="sent 0 bytes of 'f', which it said has 10"):
        receiver.feed(data(0))


def test_the_senders_error_is_told() -> None:
    receiver = Receiver(TreeValidator())
    with pytest.raises(SenderFailed, match="failed while it sent the result: open /x: permission denied"):
        receiver.feed(error(b"open /x: permission denied"))


def test_nothing_is_taken_after_an_error() -> None:
    receiver = Receiver(TreeValidator())
    with pytest.raises(CogkitError):
        receiver.feed(data(3, b"x"))
    with pytest.raises(ProtocolViolation, match="is over"):
        receiver.feed(END_OF_TREE)
    assert receiver.packets_to_send() == []


def test_the_end_of_the_stream_is_an_error_before_fin() -> None:
    receiver = Receiver(TreeValidator())
    receiver.feed(END_OF_TREE)
    with pytest.raises(ProtocolViolation, match="before it was complete"):
        receiver.end_of_stream()


def test_giving_up_tells_the_sender_why() -> None:
    receiver = Receiver(TreeValidator())
    assert parse(receiver.abandon("no space left")) == (ERR, 0, b"no space left")
    with pytest.raises(ProtocolViolation):
        receiver.feed(END_OF_TREE)


def test_fin_before_the_transfer_is_complete_is_a_mistake_of_the_driver() -> None:
    with pytest.raises(RuntimeError, match="before the transfer is complete"):
        Receiver(TreeValidator()).finish()


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=20),
        st.binary(max_size=12).map(lambda rest: b"\x08\x02\x18" + rest),
        st.builds(data, st.integers(0, 1 << 33), st.binary(max_size=200)),
    )
)
def test_the_short_way_to_read_data_agrees_with_the_long_one(message: bytes) -> None:
    short = _plain_data(message)
    if short is not None:
        packet = decode_packet(message)
        assert (packet.type, packet.id, packet.stat) == (PacketType.DATA, short[0], None)
        assert packet.data == short[1]


def test_the_short_way_is_taken_for_what_fsutil_sends() -> None:
    for id in (1, 127, 128, 20_000, 1 << 21):
        for size in (0, 1, 127, 128, 32_768):
            assert _plain_data(data(id, b"x" * size)) == (id, memoryview(b"x" * size))


class Transfers(RuleBasedStateMachine):
    """Any sender, honest at times: every byte comes out once and in order, or the machine has failed for good."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 3
        self.receiver = Receiver(TreeValidator(), window=self.window, chunk_size=8)
        self.failed = False
        self.unmade: list[Entry] = []
        self.asked: set[int] = set()
        self.sent: dict[int, bytes] = {}
        self.got: dict[int, bytes] = {}
        self.whole: set[int] = set()
        self.count = 0

    def feed(self, packet: bytes) -> bool:
        """Whether it was taken."""
        try:
            action = self.receiver.feed(packet)
        except CogkitError:
            self.failed = True
            return False
        assert not self.failed, "an error is final"
        if isinstance(action, Make):
            self.unmade.append(action.entry)
        elif isinstance(action, Chunk):
            id = action.entry.id
            assert id not in self.whole
            self.got[id] = self.got.get(id, b"") + b"".join(action.parts)
            if action.last:
                self.whole.add(id)
                assert self.got[id] == self.sent.get(id, b"") and len(self.got[id]) == action.entry.stat.size
        return True

    @rule(size=st.integers(-1, 40), name=st.binary(min_size=1, max_size=2))
    def describe(self, size: int, name: bytes) -> None:
        self.feed(stat(b"%06d" % self.count + name.hex().encode(), size=size))
        self.count += 1

    @rule()
    def made(self) -> None:
        self.receiver.made(len(self.unmade), self.unmade)
        self.unmade = []
        for packet in self.receiver.packets_to_send():
            kind, id, _ = parse(packet)
            assert kind == REQ and id not in self.asked
            self.asked.add(id)

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 5), contents=st.binary(min_size=1, max_size=20))
    def answer(self, pick: int, contents: bytes) -> None:
        open_ids = [id for id in sorted(self.asked) if id not in self.whole]
        if open_ids:
            id = open_ids[pick % len(open_ids)]
            self.sent[id] = self.sent.get(id, b"") + contents
            self.feed(data(id, contents))

    @rule(id=st.integers(0, 6))
    def close(self, id: int) -> None:
        taken = self.feed(data(id))
        assert not taken or id in self.whole

    @rule(packet=st.binary(max_size=12))
    def noise(self, packet: bytes) -> None:
        """Only what cannot pass for a DATA packet: the model does not decode."""
        if packet and packet[:2] != b"\x08\x02" and 0x22 not in packet and 0x12 not in packet:
            self.feed(packet)

    @invariant()
    def never_more_than_the_window_is_open(self) -> None:
        if not self.failed:
            assert len(self.asked) - len(self.whole) <= self.window

    @invariant()
    def complete_means_complete(self) -> None:
        if self.receiver.complete and not self.failed:
            assert self.asked == self.whole and not self.unmade


Transfers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_transfers = Transfers.TestCase
