"""What a fuzzer calls with arbitrary bytes: each target raises when something does not hold.

A target drives one state machine through its public interface.  Errors that it documents are its answer to bad input;
any other exception, and any broken promise that is checked here, is a finding.  Nothing here touches disk or network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from google.protobuf.message import DecodeError

from cogkit._proto import fsutil_pb2
from cogkit.buildkit import llb
from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.packet import PacketError, PacketType, decode_packet, encode_packet, encode_stat
from cogkit.buildkit.fsutil.patternmatcher.directory_states import MatchState, PreparedMatcher
from cogkit.buildkit.fsutil.patternmatcher.patterns import MatchInfo, PatternError, PatternMatcher, read_ignore_file
from cogkit.buildkit.fsutil.receiver import WINDOW, Chunk, Entry, Make, Receiver
from cogkit.buildkit.fsutil.sender import Finished, Sender, SenderError, Wanted
from cogkit.buildkit.fsutil.stat import MODE_DIR, MODE_TYPE, Stat
from cogkit.buildkit.fsutil.validator import Kind, TreeValidator
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.transport import grpc, http2
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.buildkit.transport.tunnel import Tunnel, TunnelError
from cogkit.errors import OutputError, UsageError
from cogkit.running import mux
from tests.described import batch_of
from tests.fuzz.input import Input
from tests.unit import http2_wire as wire

P = ParamSpec("P")
T = TypeVar("T")

LIMITS = http2.Limits(
    max_concurrent_streams=4,
    receive_budget=512 << 10,
    max_header_list=8_192,
    max_header_total=20_000,
    max_header_block=8_192,
    max_continuations=4,
    max_unproductive=50,
    max_control_backlog=2_048,
    low_water=10_000,
)


# -------------------------------------------------------------------------------------------------------------- session


def _pieces(source: Input) -> tuple[bytes, list[bytes]]:
    """A stream of the peer, and the same in pieces."""
    mode, size = source.number(4), source.number(256) + 1
    stream = source.rest()
    if mode:
        stream = wire.opening() + stream
    return stream, [stream[start : start + size] for start in range(0, len(stream), size)]


class _HttpApplication:
    """Answers each request, and consumes what comes in two steps, so that windows close and open."""

    def __init__(self) -> None:
        self.connection = http2.Http2Connection(LIMITS)
        self.events: list[http2.Event] = []
        self.sent = bytearray()
        self._held: dict[int, int] = {}

    def feed(self, piece: bytes) -> None:
        connection = self.connection
        for event in connection.receive(piece):
            assert not (self.events and isinstance(self.events[-1], http2.ConnectionFailed)), "news after the end"
            self.events.append(event)
            match event:
                case http2.RequestReceived():
                    connection.send_headers(event.stream_id, [(b":status", b"200")])
                    connection.send_data(event.stream_id, [b"x" * 3_000, b"", b"y" * 40_000])
                case http2.DataReceived():
                    held = self._held.get(event.stream_id, 0) + len(event.data)
                    if held > 20_000:
                        connection.consumed(event.stream_id, held)
                        held = 0
                    self._held[event.stream_id] = held
                case http2.RequestEnded() if connection.is_open(event.stream_id):
                    connection.end_stream(event.stream_id, [(b"grpc-status", b"0")])
                case http2.StreamReset():
                    self._held.pop(event.stream_id, None)

    def flush(self) -> None:
        while chunk := self.connection.data_to_send():
            assert len(chunk) <= http2.CHUNK_SIZE
            self.sent += chunk
        self.connection.take_drained()


def _check_output(sent: bytes) -> None:
    """Whole frames, and header blocks that a decoder of others understands."""
    output = wire.ServerOutput()
    for frame in wire.split_frames(sent):
        assert len(frame.payload) <= 65_536
        if frame.kind == wire.HEADERS:
            output.fields(frame)


def http2_peer(data: bytes) -> None:
    """Whatever a peer sends: the connection never raises, and how the bytes are cut changes nothing."""
    stream, pieces = _pieces(Input(data))
    whole, cut, flushed = _HttpApplication(), _HttpApplication(), _HttpApplication()
    whole.feed(stream)
    for piece in pieces:
        cut.feed(piece)
        flushed.feed(piece)
        flushed.flush()
    assert cut.events == whole.events, "events depend on the cut"
    for application in (whole, cut, flushed):
        application.flush()
        _check_output(bytes(application.sent))
    assert cut.sent == whole.sent, "output depends on the cut"


class _GrpcApplication:
    """Echoes each message, and ends a call when its peer has."""

    def __init__(self) -> None:
        self.server = grpc.GrpcServer(limits=LIMITS, max_message=100_000)
        self.events: list[grpc.Event] = []
        self.taken: list[tuple[int, bytes | None]] = []
        self.sent = bytearray()

    def feed(self, piece: bytes) -> None:
        for event in self.server.receive(piece):
            if isinstance(event, grpc.Readable):
                self._take(event.call)
            else:
                self.events.append(event)
                if isinstance(event, grpc.CallStarted) and event.method.endswith("Unknown"):
                    self.server.finish(event.call, StatusCode.UNIMPLEMENTED, "unknown method")

    def _take(self, call: int) -> None:
        server = self.server
        while server.is_open(call):
            try:
                message = server.take_message(call)
            except CallError as error:
                server.finish(call, error.code, error.message, details=b"\x08\x01")
                return
            if isinstance(message, grpc.Pending):
                return
            self.taken.append((call, message))
            if message is None:
                server.finish(call, metadata=[("key", "value"), ("key-bin", b"\0\xff")])
            else:
                assert len(message) <= 100_000
                server.send_messages(call, [message, b""])

    def flush(self) -> None:
        while chunk := self.server.data_to_send():
            self.sent += chunk
        self.server.take_drained()


def grpc_peer(data: bytes) -> None:
    """Whatever a peer sends: calls are told apart, messages come whole, and the cut changes nothing."""
    stream, pieces = _pieces(Input(data))
    whole, cut, flushed = _GrpcApplication(), _GrpcApplication(), _GrpcApplication()
    whole.feed(stream)
    for piece in pieces:
        cut.feed(piece)
        flushed.feed(piece)
        flushed.flush()
    assert (cut.events, cut.taken) == (whole.events, whole.taken), "events depend on the cut"
    for application in (whole, cut, flushed):
        application.flush()
        _check_output(bytes(application.sent))
    assert cut.sent == whole.sent, "output depends on the cut"
    started = [event.call for event in whole.events if isinstance(event, grpc.CallStarted)]
    assert len(started) == len(set(started))


class _TunnelApplication:
    """Takes what comes, and sends all that it may."""

    def __init__(self) -> None:
        self.tunnel = Tunnel("localhost", "/Control/Session", [("key", "value")])
        self.tunnel.send(b"x" * 30_000)
        self.got = bytearray()
        self.sent = bytearray()
        self.failure: str | None = None

    def feed(self, piece: bytes) -> None:
        while piece and self.failure is None and not self.tunnel.ended:
            part = piece[: len(self.tunnel.room)]
            piece = piece[len(part) :]
            self.tunnel.room[: len(part)] = part
            try:
                self.got += self.tunnel.received(len(part))
            except TunnelError as error:
                # What comes after the end of the call, in the same piece, is of no meaning.
                self.failure = "after the end" if self.tunnel.ended else str(error)

    def flush(self) -> None:
        while out := self.tunnel.data_to_send():
            self.sent += b"".join(out)


def tunnel_peer(data: bytes) -> None:
    """Whatever the server of a tunnel sends: `TunnelError` or bytes, the same however they are cut."""
    source = Input(data)
    mode, size = source.number(4), source.number(256) + 1
    stream = source.rest()
    if mode:
        response = ((":status", "200"), ("content-type", "application/grpc"))
        stream = wire.settings((wire.INITIAL_WINDOW, 1_000 * mode)) + wire.headers(1, response) + stream
    whole, cut, flushed = _TunnelApplication(), _TunnelApplication(), _TunnelApplication()
    whole.feed(stream)
    for start in range(0, len(stream), size):
        cut.feed(stream[start : start + size])
        flushed.feed(stream[start : start + size])
        flushed.flush()
    for application in (whole, cut, flushed):
        application.flush()
    assert whole.tunnel.ended == cut.tunnel.ended, "the end depends on the cut"
    assert whole.tunnel.ended or whole.failure == cut.failure, "the failure depends on the cut"
    if whole.failure is None:
        assert whole.got == cut.got and whole.tunnel.status == cut.tunnel.status, "what came depends on the cut"
    else:
        # What came in the same piece as a fault is not handed out.
        assert cut.got.startswith(whole.got)
    for application in (whole, cut, flushed):
        assert application.sent.startswith(wire.PREFACE)
        frames = list(wire.split_frames(bytes(application.sent[len(wire.PREFACE) :])))
        assert all(len(frame.payload) <= 65_536 for frame in frames)
        assert sum(len(frame.payload) for frame in frames if frame.kind == wire.DATA) <= 30_000 + 20


# --------------------------------------------------------------------------------------------------------------- fsutil


def packet(data: bytes) -> None:
    """A packet is read as protobuf's own runtime reads it, or refused; written again it means the same."""
    try:
        ours = decode_packet(data)
    except PacketError:
        ours = None
    try:
        theirs = fsutil_pb2.Packet.FromString(data)
    except DecodeError:
        theirs = None
    if ours is None:
        # We know no groups (wire types 3 and 4), nor fields of another type than they have.
        return
    if theirs is None:
        # Names of attributes are UTF-8 there, also one that the next replaces; on a disk they need not be.
        assert ours.stat is not None and ours.stat.xattrs and not data.isascii(), "protobuf refuses it"
        return
    assert (ours.type, ours.id, bytes(ours.data)) == (theirs.type, theirs.ID, theirs.data)
    assert (ours.stat is not None) == theirs.HasField("stat")
    if ours.stat is None:
        return
    stat = theirs.stat
    assert (ours.stat.path, ours.stat.linkname) == (stat.path, stat.linkname)
    numbers = (ours.stat.mode, ours.stat.uid, ours.stat.gid, ours.stat.size, ours.stat.mod_time)
    assert numbers == (stat.mode, stat.uid, stat.gid, stat.size, stat.modTime)
    assert (ours.stat.devmajor, ours.stat.devminor) == (stat.devmajor, stat.devminor)
    again = decode_packet(encode_stat(ours.stat)).stat
    assert again == ours.stat, "written again it is another entry"


def sender(data: bytes) -> None:
    """Whatever a receiver asks for: each file that was described can be had once, and nothing else."""
    source, machine = Input(data), Sender()
    entries: list[tuple[bytes, bool, bool]] = []
    asked: set[int] = set()
    while source:
        match source.number(4):
            case 0:
                stats, withheld = [], set()
                for place in range(source.number(5)):
                    stats.append(Stat(source.short().replace(b"\0", b"-"), source.pick((0o644, MODE_DIR | 0o755))))
                    if source.number(4) == 0:
                        withheld.add(place)
                machine.add(batch_of(stats, withheld))
                for place, stat in enumerate(stats):
                    entries.append((stat.path, not stat.mode & MODE_TYPE, place in withheld))
                assert len(machine) == len(entries)
                continue
            case 1:
                message = encode_packet(PacketType.REQ, id=source.number(len(entries) + 2))
            case 2:
                message = encode_packet(source.pick(tuple(PacketType)), id=source.number(8), data=source.short())
            case _:
                message = source.short()
        try:
            event = machine.receive(message)
        except SenderError:
            return
        match event:
            case Wanted(id, path):
                name, is_file, withheld_too = entries[id]
                assert is_file and id not in asked, "a file that cannot be had"
                assert path == (None if withheld_too else name)
                asked.add(id)
            case Finished():
                with contextlib.suppress(SenderError):
                    machine.receive(message)
                    raise AssertionError("it goes on after the end")
                return


def _stat_of(source: Input) -> Stat:
    """An entry whose path is often one that may follow."""
    names = (b"a", b"b", b"c", b"..", b".", b"", b".git", b"a/b", b"\xff", b"z" * 300, b"/a", b"a\0b", b"A")
    path = b"/".join(source.pick(names) for _ in range(source.number(3) + 1)) if source.number(3) else source.short()
    kinds = (0, 0, 0, MODE_DIR, MODE_DIR, 1 << 27, 1 << 25, 1 << 26, 1 << 24, 1 << 19, MODE_DIR | 1 << 27)
    link = source.pick((b"", b"", b"a", b"a/b", b"../..", b"/etc/passwd", b"x\0"))
    size = source.pick((0, 1, 5, 300_000, -1, 2**63 - 1))
    return Stat(path, source.pick(kinds) | 0o644, size=size, linkname=link)


def _packets_for_receiver(source: Input, known: list[Stat]) -> Iterator[bytes]:
    while source:
        match source.number(8):
            case 0 | 1 | 2:
                stat = _stat_of(source)
                known.append(stat)
                yield encode_packet(PacketType.STAT, stat=stat)
            case 3:
                yield encode_packet(PacketType.STAT)
            case 4 | 5:
                id = source.number(len(known) + 1)
                size = known[id].size if id < len(known) and source.number(2) else source.number(400)
                yield encode_packet(PacketType.DATA, id=id, data=bytes(min(max(size, 0), 70_000)))
                if source.number(2):
                    yield encode_packet(PacketType.DATA, id=id)
            case 6:
                yield encode_packet(source.pick(tuple(PacketType)), id=source.number(4), data=source.short())
            case _:
                yield source.short()


def receiver(data: bytes) -> None:
    """Whatever a sender describes: what is accepted is a tree, inside, with each file as long as it was said."""
    source = Input(data)
    lazy = source.number(2)
    machine = Receiver(TreeValidator(refused_names=frozenset({b".git"}), max_entries=1_000))
    unmade: list[Entry] = []
    directories, paths, written = {b""}, set[bytes](), dict[int, int]()
    asked: set[int] = set()
    try:
        for message in _packets_for_receiver(source, []):
            action = machine.feed(message)
            match action:
                case Make(entry):
                    _check_entry(entry, directories, paths)
                    unmade.append(entry)
                case Chunk(entry, parts, last):
                    assert entry.id in asked, "content that was not asked for"
                    written[entry.id] = written.get(entry.id, 0) + sum(map(len, parts))
                    assert written[entry.id] <= entry.stat.size
                    if last:
                        assert written[entry.id] == entry.stat.size
                        asked.remove(entry.id)
            if not lazy or source.number(4) == 0:
                machine.made(len(unmade), [entry for entry in unmade if entry.kind is Kind.FILE])
                unmade.clear()
                for request in machine.packets_to_send():
                    asked.add(decode_packet(request).id)
            assert len(asked) <= WINDOW
            if machine.complete and not unmade and not asked and not machine.done and source.number(2):
                machine.finish()
    except OutputError:
        with contextlib.suppress(OutputError):
            machine.feed(encode_packet(PacketType.STAT))
            raise AssertionError("it goes on after an error") from None
    except RuntimeError as error:
        # Asking for FIN twice is this driver's mistake.
        if "finish() before" not in str(error):
            raise


def _check_entry(entry: Entry, directories: set[bytes], paths: set[bytes]) -> None:
    path = entry.stat.path
    parts = path.split(b"/")
    assert path and b"\0" not in path and not {b"", b".", b".."} & set(parts), f"{path!r} was accepted"
    assert b".git" not in {part.lower() for part in parts}
    assert path not in paths, f"{path!r} was accepted twice"
    assert path.rpartition(b"/")[0] in directories, f"{path!r} was accepted outside of a directory of the tree"
    paths.add(path)
    if entry.kind is Kind.DIRECTORY:
        directories.add(path)
    if entry.kind is Kind.HARDLINK:
        assert entry.stat.linkname in paths


# ------------------------------------------------------------------------------------------------------------- patterns


def patterns(data: bytes) -> None:
    """Walking a tree with prepared patterns gives what asking for every path gives; only `PatternError` is raised."""
    head, _, tail = data.partition(b"\0")
    try:
        matcher = PatternMatcher(gopath.to_str(line) for line in head.split(b"\n"))
    except PatternError:
        return
    for path in tail.split(b"\0")[:4]:
        parts = [part for part in path.split(b"/") if part not in (b"", b".", b"..")][:6]
        if parts:
            _compare(matcher, [gopath.to_str(part) for part in parts])


def _compare(matcher: PatternMatcher, parts: list[str]) -> None:
    state: MatchState = PreparedMatcher(matcher).root
    info = MatchInfo()
    for depth, name in enumerate(parts, 1):
        path = "/".join(parts[:depth])
        expected = _answer(matcher.matches_using_parent_results, path, info)
        if depth == len(parts):
            assert _answer(state.file, name, path) == _first(expected), path
            assert _answer(state.direct, name, path) == _answer(matcher.matches_or_parent_matches, path), path
            return
        entered = _answer(state.enter, name, path)
        assert _first(entered) == _first(expected), path
        if isinstance(expected, str) or isinstance(entered, str):
            return
        info, state = expected[1], entered[1]


def _answer(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | str:
    """What it gives, or the words of its `PatternError`."""
    try:
        return ask(*args, **kwargs)
    except PatternError as error:
        return error.message


def _first(answer: tuple[bool, object] | str) -> bool | str:
    return answer if isinstance(answer, str) else answer[0]


def dockerignore(data: bytes) -> None:
    """A file is read or refused; its line ends do not matter; what is read are patterns, or refused as such."""
    try:
        found = read_ignore_file(data)
    except PatternError:
        return
    if b"\r" not in data and all(len(line) < 60_000 for line in data.split(b"\n")):
        assert read_ignore_file(data.replace(b"\n", b"\r\n")) == found
    for pattern in found:
        assert pattern and "\n" not in pattern
    with contextlib.suppress(PatternError):
        matcher = PatternMatcher(found)
        for path in ("a", "a/b", ".cog", "a/b/c.txt"):
            matcher.matches_or_parent_matches(path)


# -------------------------------------------------------------------------------------------------------------- running


def mux_peer(data: bytes) -> None:
    """Whatever the other end of a link says, memory is bounded and what is on its way out stays readable."""
    source = Input(data)
    side = source.pick((mux.CLIENT, mux.RELAY))
    end, other = mux.Mux(side), mux.Mux(1 - side)
    held: dict[int, int] = {}
    mine = [end.open(b"mine")] if source.number(2) else []
    while source:
        try:
            kind, size = source.number(12), source.number(1 << 16)
            if source.number(2):
                frame = mux.HEADER.pack(kind, source.number(8), min(size, 300)) + source.take(min(size, 300))
            else:
                frame = source.short()
            events = end.feed(frame)
        except mux.MuxError:
            break
        for event in events:
            if isinstance(event, mux.Data):
                held[event.channel] = held.get(event.channel, 0) + len(event.data)
                assert held[event.channel] <= mux.WINDOW_SIZE, "more than a window is held"
                if len(event.data) % 2:
                    end.consumed(event.channel, held.pop(event.channel))
            elif isinstance(event, mux.Opened):
                mine.append(event.channel)
        for channel in mine:
            if room := min(end.room(channel), source.number(3)):
                end.send(channel, bytes(room))
        try:
            other.feed(end.take())
        except mux.MuxError as error:
            # The other end does not know what the fuzzer has opened in its name.
            assert "nobody opened" in str(error) or "opened itself" in str(error), error
            other = mux.Mux(1 - side)
            break


# ---- graphs


def llb_definition(data: bytes) -> None:
    try:
        definition = llb.Definition.from_bytes(data)
    except UsageError:
        return
    again = llb.Definition.from_bytes(definition.to_bytes())
    assert again.to_bytes() == definition.to_bytes(), "what was written is not read as the same"
    assert again.digests == definition.digests
    with contextlib.suppress(UsageError):
        definition.dot()
    with contextlib.suppress(UsageError):
        resumed = llb.state_of(definition).marshal()
        assert resumed.head == definition.head


TARGETS: dict[str, Callable[[bytes], None]] = {
    "http2": http2_peer,
    "grpc": grpc_peer,
    "tunnel": tunnel_peer,
    "packet": packet,
    "sender": sender,
    "receiver": receiver,
    "patterns": patterns,
    "dockerignore": dockerignore,
    "mux": mux_peer,
    "llb": llb_definition,
}
