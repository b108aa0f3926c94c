"""Peers that try to exhaust the server: each flood ends, and memory stays below what `Limits` states."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from cogkit.buildkit.transport.grpc import CallStarted, GrpcServer
from cogkit.buildkit.transport.header_lists import segments
from cogkit.buildkit.transport.http2 import ConnectionFailed, ErrorCode, Http2Connection, Limits, RequestReceived
from tests.unit.http2_wire import (
    CALL,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    data,
    frame,
    grpc_message,
    headers,
    literal_block,
    opening,
    rst_stream,
    settings,
    split_frames,
    window_update,
)

SMALL = Limits(
    max_concurrent_streams=16,
    receive_budget=2 << 20,
    max_header_list=64 << 10,
    max_header_total=256 << 10,
    max_header_block=64 << 10,
)


def open_connection(*pairs: tuple[int, int], limits: Limits | None = None) -> Http2Connection:
    connection = Http2Connection(limits)
    assert list(connection.receive(opening(*pairs))) == []
    return connection


def failure_of(connection: Http2Connection, pieces: Iterator[bytes], *, reads: bool = True) -> ConnectionFailed:
    """The error that the flood ends with; ``reads`` says whether the peer reads what we answer."""
    for piece in pieces:
        for event in connection.receive(piece):
            if isinstance(event, ConnectionFailed):
                return event
        if reads:
            connection.data_to_send()
    raise AssertionError("the flood was endured to its end")


def repeat(piece: Callable[[int], bytes], times: int = 20_000) -> Iterator[bytes]:
    return (piece(number) for number in range(times))


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(lambda n: frame(PING, payload=bytes(8)), id="ping"),
        pytest.param(lambda n: frame(PING, 1, payload=bytes(8)), id="ping acknowledgements"),
        pytest.param(lambda n: settings(), id="settings"),
        pytest.param(lambda n: frame(SETTINGS, 1), id="settings acknowledgements"),
        pytest.param(lambda n: settings((INITIAL_WINDOW, n)), id="settings that change windows"),
        pytest.param(lambda n: frame(PRIORITY, 0, 1, bytes(5)), id="priority"),
        pytest.param(lambda n: frame(0x42, 0, 1, bytes(5)), id="unknown frames"),
        pytest.param(lambda n: headers(2 * n + 1) + rst_stream(2 * n + 1), id="rapid reset"),
        pytest.param(lambda n: headers(2 * n + 1), id="refused streams"),
        pytest.param(lambda n: headers(2 * n + 1, [*CALL, ("connection", "x")]), id="malformed requests"),
        pytest.param(lambda n: headers(2 * n + 1) + window_update(2 * n + 1, 0), id="made to reset"),
        pytest.param(lambda n: data(1, b"") if n else headers(1), id="empty data"),
        pytest.param(lambda n: data(1, b"\x05" + bytes(5), 0x8) if n else headers(1), id="only padding"),
        pytest.param(lambda n: rst_stream(1) if n else headers(1), id="resets of a closed stream"),
    ],
)
def test_flood_of_useless_frames_is_ended(piece: Callable[[int], bytes]) -> None:
    assert failure_of(open_connection(), repeat(piece)).code == ErrorCode.ENHANCE_YOUR_CALM


def test_answers_do_not_pile_up_when_the_peer_does_not_read() -> None:
    # Useful data pays for the pings, so that only the queue's own bound can end this.
    connection = open_connection(limits=Limits(max_control_backlog=4_096))
    list(connection.receive(headers(1)))
    failure = failure_of(connection, repeat(lambda n: frame(PING, payload=bytes(8)) + data(1, b"x")), reads=False)
    assert failure.code == ErrorCode.ENHANCE_YOUR_CALM
    assert len(connection.data_to_send()) < 5_000


def test_answers_pile_up_no_better_when_the_peer_reads_too_slowly() -> None:
    connection = open_connection(limits=Limits(max_control_backlog=4_096))
    list(connection.receive(headers(1)))
    for _ in range(300):
        pings = frame(PING, payload=bytes(8)) * 2
        events = list(connection.receive(pings + data(1, b"x")))
        connection.data_to_send(limit=1)
        if isinstance(events[-1], ConnectionFailed):
            return
    raise AssertionError("600 pings, half of them unanswered, were endured")


def test_health_checks_and_pings_for_half_a_day_are_no_flood() -> None:
    server = GrpcServer()
    list(server.receive(opening()))
    for number in range(8_640):
        stream_id = 2 * number + 1
        check = window_update(0, 7) + headers(stream_id) + data(stream_id, grpc_message(b""), END_STREAM)
        for event in server.receive(frame(PING, payload=bytes(8)) * 3 + check):
            assert not isinstance(event, ConnectionFailed)
            if isinstance(event, CallStarted):
                server.send_messages(event.call, [b"\x08\x01"])
                server.finish(event.call)
        server.data_to_send()


def test_continuations_must_end() -> None:
    connection = open_connection()
    pieces = repeat(lambda n: frame(CONTINUATION, 0, 1) if n else frame(HEADERS, 0, 1))
    assert failure_of(connection, pieces).code == ErrorCode.ENHANCE_YOUR_CALM


def test_header_block_is_bounded_in_bytes() -> None:
    connection = open_connection(limits=SMALL)
    pieces = repeat(lambda n: frame(CONTINUATION if n else HEADERS, 0, 1, bytes(16_000)), 100)
    assert failure_of(connection, pieces).code == ErrorCode.ENHANCE_YOUR_CALM


def test_header_list_that_explodes_from_few_bytes_is_ended() -> None:
    # One field of 4,000 bytes goes into the table, then one byte each repeats it: 16 KiB that mean 60 MiB.
    block = b"\x40\x01a\x7f\xa1\x1e" + bytes(4_000) + b"\xbe" * 12_000
    connection = open_connection()
    started = time.process_time()
    failure = failure_of(connection, iter([frame(HEADERS, END_HEADERS, 1, block)]))
    assert failure.code == ErrorCode.ENHANCE_YOUR_CALM
    assert time.process_time() - started < 1


def test_long_header_blocks_are_decoded_in_pieces_so_that_time_grows_linearly() -> None:
    block = literal_block([*CALL, *[("x", "y" * 10)] * 23_000])
    pieces = segments(block)
    assert b"".join(pieces) == block
    assert max(map(len, pieces)) < 5_000, "hpack copies what is left of a piece for each of its fields"
    frames = [block[i : i + 16_384] for i in range(0, len(block), 16_384)]
    connection = open_connection()
    assert list(connection.receive(frame(HEADERS, 0, 1, frames[0]))) == []
    for part in frames[1:]:
        assert list(connection.receive(frame(CONTINUATION, 0, 1, part))) == []
    (event,) = connection.receive(frame(CONTINUATION, END_HEADERS, 1, b""))
    assert isinstance(event, RequestReceived) and len(event.headers) == len(CALL) + 23_000


def test_header_lists_of_all_streams_are_bounded_together() -> None:
    connection = open_connection(limits=SMALL)
    large = [*CALL, *[("name", "v" * 64)] * 200]
    taken = sum(len(list(connection.receive(headers(2 * n + 1, large)))) for n in range(16))
    assert taken == (256 << 10) // (200 * (4 + 64 + 32) + 400)
    refused = [sent.code for sent in split_frames(connection.data_to_send()) if sent.kind == RST_STREAM]
    assert refused == [ErrorCode.REFUSED_STREAM] * (16 - taken)


def test_header_lists_of_ended_streams_do_not_count() -> None:
    connection = open_connection(limits=SMALL)
    large = [*CALL, *[("name", "v" * 64)] * 200]
    for number in range(100):
        stream_id = 2 * number + 1
        assert list(connection.receive(headers(stream_id, large)))
        list(connection.receive(rst_stream(stream_id)))
        connection.data_to_send()


def test_frame_full_of_window_changes_costs_no_more_than_one() -> None:
    connection = open_connection()
    for number in range(200):
        list(connection.receive(headers(2 * number + 1)))
    started = time.process_time()
    for _ in range(100):
        list(connection.receive(settings(*((INITIAL_WINDOW, n) for n in range(2_700)))))
        connection.data_to_send()
    assert time.process_time() - started < 2


def test_ten_thousand_streams_at_once_are_refused_in_bounded_memory() -> None:
    connection = open_connection(limits=SMALL)
    tracemalloc.start()
    try:
        failure = failure_of(connection, repeat(lambda n: headers(2 * n + 1), 10_000), reads=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert failure.code == ErrorCode.ENHANCE_YOUR_CALM
    assert peak < 2 << 20


def test_ten_thousand_streams_one_after_the_other_leave_nothing_behind() -> None:
    server = GrpcServer()
    list(server.receive(opening()))
    sizes = []
    tracemalloc.start()
    try:
        for number in range(10_000):
            stream_id = 2 * number + 1
            body = data(stream_id, grpc_message(bytes(100)), END_STREAM)
            request = window_update(0, 100) + headers(stream_id) + body
            for event in server.receive(request):
                if isinstance(event, CallStarted):
                    server.send_messages(event.call, [b"answer"])
                    server.finish(event.call)
            assert len(server.data_to_send()) > 20
            if number in (2_000, 9_999):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert server.idle
    assert sizes[1] - sizes[0] < 64 << 10


def test_window_that_never_opens_holds_only_what_the_application_queued() -> None:
    connection = open_connection((INITIAL_WINDOW, 0))
    for number in range(100):
        stream_id = 2 * number + 1
        list(connection.receive(headers(stream_id)))
        connection.send_headers(stream_id, [(b":status", b"200")])
        connection.send_data(stream_id, [bytes(1_000)])
    connection.data_to_send()
    for _ in range(300):
        list(connection.receive(frame(PING, payload=bytes(8))))
        assert {sent.kind for sent in split_frames(connection.data_to_send())} == {PING}
    assert sum(connection.backlog(2 * number + 1) for number in range(100)) == 100_000
    for number in range(100):
        list(connection.receive(rst_stream(2 * number + 1)))
    assert connection.open_streams == 0 and not connection.wants_write


def test_window_opened_a_byte_at_a_time_is_served_a_byte_at_a_time() -> None:
    connection = open_connection((INITIAL_WINDOW, 0))
    list(connection.receive(headers(1)))
    connection.send_headers(1, [(b":status", b"200")])
    connection.send_data(1, [b"abc"])
    connection.data_to_send()
    for expected in (b"a", b"b", b"c", b""):
        list(connection.receive(window_update(1, 1)))
        assert b"".join(sent.payload for sent in split_frames(connection.data_to_send())) == expected


@pytest.mark.parametrize(
    ("piece", "times"),
    [
        pytest.param(data(1, b"x"), 2_000, id="bytes one by one"),
        pytest.param(data(1, grpc_message(b"") * 1_000), 13, id="empty messages"),
        pytest.param(data(1, bytes(13_107)), 5, id="full frames"),
        pytest.param(data(1, grpc_message(bytes(100_000))[:16_000]), 4, id="the beginning of a message"),
    ],
)
def test_input_that_nobody_consumes_costs_its_bytes_and_little_more(piece: bytes, times: int) -> None:
    server = GrpcServer(limits=SMALL)
    list(server.receive(opening()))
    streams = range(1, 33, 2)
    tracemalloc.start()
    try:
        for stream_id in streams:
            list(server.receive(headers(stream_id)))
            own = piece[:5] + stream_id.to_bytes(4, "big") + piece[9:]
            for _ in range(times):
                assert not any(isinstance(event, ConnectionFailed) for event in server.receive(own))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = len(streams) * times * (len(piece) - 9)
    assert peak < held * 9 // 8 + (256 << 10)
    assert peak < SMALL.memory_bound


def test_header_lists_and_trailers_cost_a_few_times_their_size() -> None:
    server = GrpcServer(limits=SMALL)
    list(server.receive(opening()))
    many = [(f"name-{number}", "v") for number in range(300)]
    tracemalloc.start()
    try:
        for number in range(60):
            stream_id = 2 * number + 1
            list(server.receive(headers(stream_id, [*CALL, *many])))
            list(server.receive(headers(stream_id, many, END_HEADERS | END_STREAM)))
            server.data_to_send()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < SMALL.memory_bound


def test_stated_bound_is_known() -> None:
    assert SMALL.memory_bound < 8 << 20
    assert Limits().memory_bound < 128 << 20


@pytest.mark.parametrize(
    "bad",
    [
        {"max_concurrent_streams": 2_000},
        {"initial_window": 65_534},
        {"initial_window": 70_000, "max_window": 65_535, "max_concurrent_streams": 1},
        {"receive_budget": 2**31 - 1},
    ],
)
def test_limits_that_contradict_each_other_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(**bad)
