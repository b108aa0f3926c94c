"""The file-sync protocol as state machines: any receiver before our sender, and our two ends before each other.

That any sender may stand before our receiver is in `test_receiver`.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cogkit.buildkit.fsutil.packet import PacketType, decode_packet, encode_packet
from cogkit.buildkit.fsutil.receiver import Chunk, Entry, Make, Receiver
from cogkit.buildkit.fsutil.sender import END_OF_STATS, FIN, Finished, Sender, SenderError, Wanted, content
from cogkit.buildkit.fsutil.stat import MODE_DIR, MODE_SYMLINK, Stat
from cogkit.buildkit.fsutil.validator import Kind, TreeValidator
from tests.described import batch_of


def request(id: int) -> bytes:
    return encode_packet(PacketType.REQ, id=id)


# ---- any receiver, honest at times


class Requests(RuleBasedStateMachine):
    """Any receiver: each file that was described is given once, nothing else is, and the end is the end."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = Sender()
        self.entries: list[tuple[bytes, bool, bool]] = []
        """Path, whether it is a file, whether it is withheld."""
        self.asked: set[int] = set()
        self.over = False

    def receive(self, packet: bytes) -> Wanted | Finished | None:
        """What comes of a packet; an error is final for a receiver that is told of it."""
        was_over = self.over
        try:
            event = self.sender.receive(packet)
        except SenderError:
            return None
        assert not was_over, "it goes on after the end"
        return event

    @rule(
        entries=st.lists(
            st.tuples(
                st.binary(min_size=1, max_size=9), st.sampled_from([0, 0, MODE_DIR, MODE_SYMLINK]), st.booleans()
            ),
            max_size=5,
        )
    )
    def describe(self, entries: list[tuple[bytes, int, bool]]) -> None:
        stats = [Stat(name.replace(b"\0", b"-"), kind | 0o644) for name, kind, _ in entries]
        described = batch_of(stats, {place for place, (_, _, withheld) in enumerate(entries) if withheld})
        assert [decode_packet(packet).stat for packet in described.packets] == stats
        self.sender.add(described)
        for stat, (_, kind, withheld) in zip(stats, entries, strict=True):
            self.entries.append((stat.path, not kind, withheld))
        assert len(self.sender) == len(self.entries)

    @precondition(lambda self: self.entries)
    @rule(choice=st.integers(0, 40), beyond=st.integers(0, 12))
    def ask(self, choice: int, beyond: int) -> None:
        """Mostly for what there is."""
        id = choice % (len(self.entries) + (beyond == 0))
        may = id < len(self.entries) and self.entries[id][1] and id not in self.asked and not self.over
        event = self.receive(request(id))
        if not may:
            assert event is None, f"{id} was given"
            return
        path, _, withheld = self.entries[id]
        assert event == Wanted(id, None if withheld else path)
        self.asked.add(id)

    @rule(type=st.sampled_from([PacketType.STAT, PacketType.DATA]), id=st.integers(0, 9), data=st.binary(max_size=9))
    def say_what_only_a_sender_says(self, type: PacketType, id: int, data: bytes) -> None:
        assert self.receive(encode_packet(type, id=id, data=data)) is None

    @rule(packet=st.binary(max_size=12).filter(lambda packet: b"\x08\x01" not in packet and b"\x08\x03" not in packet))
    def say_noise(self, packet: bytes) -> None:
        """Neither a request nor the end."""
        assert self.receive(packet) is None

    @rule(chance=st.integers(0, 15))
    def finish(self, chance: int) -> None:
        if chance == 0:
            event = self.receive(encode_packet(PacketType.FIN))
            assert self.over or event == Finished()
            self.over = True


Requests.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRequests = Requests.TestCase


class BothEnds(RuleBasedStateMachine):
    """Our sender and our receiver with a link between them: whatever the order, all arrives and both are done."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = Sender()
        self.receiver = Receiver(TreeValidator(), window=3, chunk_size=64)
        self.to_receiver: deque[bytes] = deque()
        self.to_sender: deque[bytes] = deque()
        self.contents: dict[bytes, bytes] = {}
        self.walking = True
        self.wanted: list[Wanted] = []
        self.unmade: list[Entry] = []
        self.got: dict[bytes, bytes] = {}
        self.made: list[bytes] = []
        self.names: list[bytes] = []
        self.finished = False

    @precondition(lambda self: self.walking)
    @rule(sizes=st.lists(st.integers(-1, 200), max_size=4))
    def walk(self, sizes: list[int]) -> None:
        """Describe some neighbours: a folder for -1, else a file of that size."""
        stats = []
        for size in sizes:
            name = b"%04d" % len(self.names)
            self.names.append(name)
            if size < 0:
                stats.append(Stat(name, MODE_DIR | 0o755))
            else:
                self.contents[name] = bytes(range(size))
                stats.append(Stat(name, 0o644, size=size))
        described = batch_of(stats)
        self.sender.add(described)
        self.to_receiver.extend(described.packets)

    @precondition(lambda self: self.walking)
    @rule(chance=st.integers(0, 9))
    def end_walk(self, chance: int) -> None:
        if chance == 0:
            self.walking = False
            self.to_receiver.append(END_OF_STATS)

    @rule(most=st.integers(1, 5))
    def deliver_to_receiver(self, most: int) -> None:
        for _ in range(min(most, len(self.to_receiver))):
            match self.receiver.feed(self.to_receiver.popleft()):
                case Make(entry):
                    self.unmade.append(entry)
                case Chunk(entry, parts, _):
                    self.got[entry.stat.path] = self.got.get(entry.stat.path, b"") + b"".join(parts)

    @rule()
    def make(self) -> None:
        self.made += [entry.stat.path for entry in self.unmade]
        self.receiver.made(len(self.unmade), [entry for entry in self.unmade if entry.kind is Kind.FILE])
        self.unmade = []
        self.to_sender.extend(self.receiver.packets_to_send())
        if self.receiver.complete and not self.finished:
            self.finished = True
            self.to_sender.append(self.receiver.finish())

    @rule(most=st.integers(1, 5))
    def deliver_to_sender(self, most: int) -> None:
        for _ in range(min(most, len(self.to_sender))):
            match self.sender.receive(self.to_sender.popleft()):
                case Wanted() as wanted:
                    self.wanted.append(wanted)
                case Finished():
                    self.to_receiver.append(FIN)

    @precondition(lambda self: self.wanted)
    @rule(choice=st.integers(0, 9), piece=st.integers(1, 70))
    def read_a_file(self, choice: int, piece: int) -> None:
        """Its packets come between those of others."""
        wanted = self.wanted.pop(choice % len(self.wanted))
        assert wanted.path is not None
        whole = self.contents[wanted.path]
        pieces = (whole[start : start + piece] for start in range(0, len(whole), piece))
        packets = deque(b"".join(parts) for parts in content(wanted.id, pieces))
        others = self.to_receiver
        self.to_receiver = deque()
        while packets or others:
            for queue in (packets, others):
                if queue:
                    self.to_receiver.append(queue.popleft())

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        for path, data in self.got.items():
            assert self.contents[path].startswith(data)
        assert self.made == self.names[: len(self.made)]

    def teardown(self) -> None:
        if self.walking:
            self.walking = False
            self.to_receiver.append(END_OF_STATS)
        for _ in range(1_000):
            if self.receiver.done:
                break
            self.deliver_to_receiver(100)
            self.make()
            self.deliver_to_sender(100)
            while self.wanted:
                self.read_a_file(0, 50)
        assert self.receiver.done
        assert {path: data for path, data in self.got.items() if data} == {p: d for p, d in self.contents.items() if d}
        assert self.made == self.names


BothEnds.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestBothEnds = BothEnds.TestCase
