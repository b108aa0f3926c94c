"""Arbitrary peers: nothing they send raises, breaks our output, or depends on how the bytes were cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.transport import grpc
from cogkit.buildkit.transport.grpc import PENDING, CallStarted, GrpcServer, Readable
from cogkit.buildkit.transport.http2 import ConnectionFailed, DataReceived, Http2Connection, Limits, RequestReceived
from tests.unit import http2_wire as wire

LIMITS = Limits(
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

stream_ids = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 2**31 - 1])
field_lists = st.lists(
    st.sampled_from(
        [
            *wire.CALL,
            (":method", "GET"),
            (":path", "bad"),
            ("te", "gzip"),
            ("content-length", "5"),
            ("content-length", "x"),
            ("grpc-timeout", "5S"),
            ("grpc-timeout", "oops"),
            ("grpc-encoding", "gzip"),
            ("x-bin", "AQI"),
            ("x-bin", "!"),
            ("Upper", "case"),
            ("connection", "close"),
            ("long", "v" * 3_000),
        ]
    ),
    max_size=6,
)
blocks = st.integers(0, 11).flatmap(
    lambda choice: (
        st.binary(max_size=40)
        if choice == 0
        else field_lists.map(wire.literal_block)
        if choice == 1
        else field_lists.map(lambda more: wire.literal_block([*wire.CALL, *more]))
        if choice == 2
        else st.just(wire.literal_block(wire.CALL))
    )
)
bodies = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=200).map(wire.grpc_message),
    st.lists(st.binary(max_size=20), max_size=20).map(lambda items: b"".join(map(wire.grpc_message, items))),
    st.integers(0, 16_384).map(bytes),
    st.integers(0, 2**32 - 1).map(lambda size: b"\0" + size.to_bytes(4, "big")),
)
wild_frames = st.one_of(
    st.builds(wire.frame, st.just(wire.HEADERS), st.sampled_from([4, 5, 0, 1, 4 | 8, 4 | 32, 63]), stream_ids, blocks),
    st.builds(wire.frame, st.just(wire.CONTINUATION), st.sampled_from([0, 4]), stream_ids, blocks),
    st.builds(wire.frame, st.just(wire.DATA), st.sampled_from([0, 1, 8]), stream_ids, bodies),
    st.builds(wire.window_update, stream_ids, st.sampled_from([0, 1, 2**31 - 1])),
    st.builds(wire.rst_stream, stream_ids, st.integers(0, 20)),
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 16_384, 65_535, 2**31 - 1, 2**32 - 1])), max_size=4
    ).map(lambda pairs: wire.settings(*pairs)),
    st.builds(wire.frame, st.integers(0, 12), st.integers(0, 255), stream_ids, st.binary(max_size=20)),
    st.binary(min_size=1, max_size=12),
)
window_settings = st.builds(
    lambda window, table: wire.settings((wire.INITIAL_WINDOW, window), (wire.HEADER_TABLE_SIZE, table)),
    st.sampled_from([0, 1, 1_000, 65_535, 1 << 20]),
    st.sampled_from([0, 100, 4_096, 2**32 - 1]),
)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """What a peer may send: in the main as it should be, with streams in every state, and now and then not."""
    out = [wire.opening()]
    newest = -1
    for action in draw(st.lists(st.integers(0, 19), min_size=10, max_size=60)):
        if newest < 0 or action < 4:
            newest += 2
            block = draw(blocks)
            middle = draw(st.integers(0, len(block)))
            end = draw(st.sampled_from([0, 0, 0, wire.END_STREAM]))
            if action % 2:
                out.append(wire.frame(wire.HEADERS, wire.END_HEADERS | end, newest, block))
            else:
                out.append(wire.frame(wire.HEADERS, end, newest, block[:middle]))
                out.append(wire.frame(wire.CONTINUATION, wire.END_HEADERS, newest, block[middle:]))
            continue
        stream_id = newest - 2 * draw(st.integers(0, min(3, newest // 2)))
        if action < 12:
            out.append(wire.data(stream_id, draw(bodies), draw(st.sampled_from([0] * 8 + [1, 1]))))
        elif action < 14:
            out.append(wire.window_update(draw(st.sampled_from([0, stream_id])), draw(st.sampled_from([1, 10_000]))))
        elif action == 14:
            out.append(draw(window_settings))
        elif action == 15:
            out.append(wire.frame(wire.PING, payload=bytes(8)))
        elif action == 16:
            out.append(wire.rst_stream(stream_id))
        elif action == 17:
            out.append(wire.frame(wire.PRIORITY, 0, stream_id, bytes(5)))
        elif action == 18:
            out.append(wire.headers(stream_id, draw(field_lists), wire.END_HEADERS | wire.END_STREAM))
        else:
            out.append(draw(st.one_of(st.just(b""), st.just(b""), wild_frames)))
    return b"".join(out)


def cut(stream: bytes, at: Iterable[int]) -> Iterator[bytes]:
    """The stream in pieces that end at these places."""
    start = 0
    for place in sorted({place % (len(stream) + 1) for place in at}):
        yield stream[start:place]
        start = place
    yield stream[start:]


class Application:
    """Answers every call at once, takes every message, and checks the server's output on the way."""

    def __init__(self) -> None:
        self.server = GrpcServer(limits=LIMITS, max_message=100_000)
        self.seen: list[grpc.Event] = []
        self.taken: list[tuple[int, bytes | None]] = []
        self.sent = bytearray()

    def feed(self, piece: bytes) -> None:
        for event in self.server.receive(piece):
            if isinstance(event, Readable):
                self.take(event.call)
                continue
            self.seen.append(event)
            if isinstance(event, CallStarted):
                self.server.send_messages(event.call, [b"x" * 5_000])

    def take(self, call: int) -> None:
        while self.server.is_open(call):
            try:
                message = self.server.take_message(call)
            except CallError as error:
                self.server.finish(call, error.code, error.message)
                return
            if message is PENDING:
                return
            assert not isinstance(message, grpc.Pending)
            self.taken.append((call, message))
            if message is None:
                self.server.finish(call)
            else:
                self.server.send_messages(call, [message])

    def flush(self) -> None:
        while chunk := self.server.data_to_send():
            self.sent += chunk
        self.server.take_drained()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(stream: bytes) -> None:
    for start in (b"", wire.PREFACE, wire.opening()):
        connection = Http2Connection()
        list(connection.receive(start + stream))
        list(wire.split_frames(connection.data_to_send()))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(conversations())
def test_arbitrary_frames_never_raise_and_our_output_stays_well_formed(stream: bytes) -> None:
    application = Application()
    for piece in cut(stream, range(0, len(stream), 1_000)):
        application.feed(piece)
        application.flush()
    output = wire.ServerOutput()
    for sent in wire.split_frames(bytes(application.sent)):
        if sent.kind == wire.HEADERS:
            assert ":status" in (fields := output.fields(sent)) or "grpc-status" in fields
    failures = [event for event in application.seen if isinstance(event, ConnectionFailed)]
    assert len(failures) <= 1 and (not failures or application.seen[-1] is failures[0])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(conversations(), st.lists(st.integers(0, 100_000), max_size=30))
def test_events_do_not_depend_on_how_the_bytes_are_cut(stream: bytes, places: list[int]) -> None:
    whole, pieces = Application(), Application()
    whole.feed(stream)
    for piece in cut(stream, places):
        pieces.feed(piece)
    assert pieces.seen == whole.seen
    assert pieces.taken == whole.taken
    whole.flush()
    pieces.flush()
    assert pieces.sent == whole.sent


def test_events_do_not_depend_on_the_cut_even_byte_by_byte() -> None:
    stream = wire.opening((4, 100)) + wire.headers(1) + wire.data(1, wire.grpc_message(b"abc") * 3, 1) + wire.headers(2)
    whole, pieces = Application(), Application()
    whole.feed(stream)
    for octet in stream:
        pieces.feed(bytes((octet,)))
    assert [type(event) for event in whole.seen] == [CallStarted, ConnectionFailed]
    assert pieces.seen == whole.seen and pieces.taken == whole.taken


class AgainstH2(RuleBasedStateMachine):
    """A well-behaved client by other authors (python-hyper's ``h2``): it never sees an error, and all bytes arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.server = Http2Connection(replace(LIMITS, max_unproductive=1_000, max_control_backlog=64 << 10))
        self.opened: list[int] = []
        self.client_sent: dict[int, int] = {}
        self.server_got: dict[int, int] = {}
        self.server_sent: dict[int, int] = {}
        self.client_got: dict[int, int] = {}
        self.unacknowledged: dict[int, int] = {}
        self.consumable: dict[int, int] = {}
        self.server_ended: set[int] = set()
        self.client_ended: set[int] = set()
        self.ended_at_client: set[int] = set()

    def exchange(self) -> None:
        """Carry bytes both ways until both sides are silent."""
        while True:
            out = self.client.data_to_send()
            for event in self.server.receive(out):
                assert not isinstance(event, ConnectionFailed), event
                if isinstance(event, RequestReceived):
                    self.server.send_headers(event.stream_id, [(b":status", b"200")])
                elif isinstance(event, DataReceived):
                    self.server_got[event.stream_id] = self.server_got.get(event.stream_id, 0) + len(event.data)
                    self.consumable[event.stream_id] = self.consumable.get(event.stream_id, 0) + len(event.data)
            back = self.server.data_to_send(limit=50_000)
            if not out and not back:
                return
            for received in self.client.receive_data(back):
                assert not isinstance(received, h2.events.ConnectionTerminated | h2.events.StreamReset), received
                if isinstance(received, h2.events.DataReceived):
                    size = received.flow_controlled_length
                    assert received.stream_id is not None and size is not None
                    self.client_got[received.stream_id] = self.client_got.get(received.stream_id, 0) + size
                    self.unacknowledged[received.stream_id] = self.unacknowledged.get(received.stream_id, 0) + size
                elif isinstance(received, h2.events.StreamEnded):
                    assert received.stream_id is not None
                    self.ended_at_client.add(received.stream_id)

    def live(self) -> list[int]:
        return [number for number in self.opened if number not in self.client_ended | self.server_ended]

    @precondition(lambda self: self.client.open_outbound_streams < LIMITS.max_concurrent_streams)
    @rule()
    def open_stream(self) -> None:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, wire.CALL)
        self.opened.append(stream_id)

    @precondition(lambda self: self.live())
    @rule(pick=st.integers(0, 9), size=st.integers(0, 80_000))
    def client_sends(self, pick: int, size: int) -> None:
        stream_id = self.live()[pick % len(self.live())]
        padding = pick or None
        while size > 0:
            room = self.client.local_flow_control_window(stream_id) - (padding + 1 if padding else 0)
            step = min(size, room, 16_000)
            if step <= 0:
                return
            self.client.send_data(stream_id, bytes(step), pad_length=padding)
            self.client_sent[stream_id] = self.client_sent.get(stream_id, 0) + step
            size -= step

    @precondition(lambda self: self.live())
    @rule(pick=st.integers(0, 9), sizes=st.lists(st.integers(0, 40_000), max_size=5))
    def server_sends(self, pick: int, sizes: list[int]) -> None:
        self.exchange()
        stream_id = self.live()[pick % len(self.live())]
        self.server.send_data(stream_id, [bytes(size) for size in sizes])
        self.server_sent[stream_id] = self.server_sent.get(stream_id, 0) + sum(sizes)

    @rule(pick=st.integers(0, 9), part=st.integers(1, 4))
    def server_consumes(self, pick: int, part: int) -> None:
        for stream_id, held in self.consumable.items():
            if (stream_id + pick) % 3 == 0:
                self.server.consumed(stream_id, held // part)
                self.consumable[stream_id] -= held // part

    @rule(share=st.integers(1, 4))
    def client_acknowledges(self, share: int) -> None:
        for stream_id, size in self.unacknowledged.items():
            self.client.acknowledge_received_data(size // share, stream_id)
            self.unacknowledged[stream_id] -= size // share

    @rule(size=st.sampled_from([0, 1, 1_000, 65_535, 1_000_000]))
    def client_changes_windows(self, size: int) -> None:
        self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size})
        self.exchange()

    @rule()
    def client_pings(self) -> None:
        self.client.ping(b"12345678")

    @precondition(lambda self: self.live())
    @rule(pick=st.integers(0, 9))
    def both_end(self, pick: int) -> None:
        self.exchange()
        stream_id = self.live()[pick % len(self.live())]
        self.client.end_stream(stream_id)
        self.server.end_stream(stream_id, [(b"grpc-status", b"0")])
        self.client_ended.add(stream_id)
        self.server_ended.add(stream_id)

    @rule()
    def carry(self) -> None:
        self.exchange()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        for stream_id, size in self.server_got.items():
            assert size <= self.client_sent.get(stream_id, 0)
        for stream_id, size in self.client_got.items():
            assert size <= self.server_sent.get(stream_id, 0)

    def teardown(self) -> None:
        """Open every window: then all that was sent has arrived, and every ended stream has ended."""
        self.client_changes_windows(1_000_000)
        for _ in range(200):
            self.exchange()
            if not any(self.unacknowledged.values()):
                break
            self.client_acknowledges(1)
        assert self.server_got == {key: size for key, size in self.client_sent.items() if size}
        assert self.client_got == {key: size for key, size in self.server_sent.items() if size}
        assert self.server_ended <= self.ended_at_client


TestAgainstH2 = AgainstH2.TestCase
TestAgainstH2.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
