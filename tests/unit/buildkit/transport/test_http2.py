"""The rules of RFC 9113 that a server keeps, one by one, as bytes."""

from __future__ import annotations

from collections.abc import Iterable

import hpack
import pytest

from cogkit.buildkit.transport.http2 import (
    CHUNK_SIZE,
    ConnectionFailed,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    Http2Connection,
    Limits,
    LocalProtocolError,
    RequestEnded,
    RequestReceived,
    StreamReset,
)
from tests.unit.http2_wire import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_HEADER_LIST,
    MAX_STREAMS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    ServerOutput,
    data,
    frame,
    headers,
    literal_block,
    opening,
    rst_stream,
    settings,
    split_frames,
    window_update,
)

STATUS = ((b":status", b"200"),)


class Peer:
    """A connection past its opening, with what it said and sent."""

    def __init__(self, *pairs: tuple[int, int], limits: Limits | None = None):
        self.connection = Http2Connection(limits)
        self.events: list[Event] = []
        self.feed(opening(*pairs))
        self.opening = self.sent()
        self.events.clear()

    def feed(self, *pieces: bytes) -> list[Event]:
        """The events that these bytes cause."""
        events = [event for piece in pieces for event in self.connection.receive(piece)]
        self.events += events
        return events

    def sent(self) -> list[Frame]:
        """The frames that the server has for us now."""
        chunks = []
        while chunk := self.connection.data_to_send():
            assert len(chunk) <= CHUNK_SIZE
            chunks.append(chunk)
        return list(split_frames(b"".join(chunks)))

    def sent_of(self, kind: int) -> list[Frame]:
        return [sent for sent in self.sent() if sent.kind == kind]


def assert_connection_error(peer: Peer, code: ErrorCode) -> None:
    failure = peer.events[-1]
    assert isinstance(failure, ConnectionFailed), peer.events
    assert failure.code == code, failure
    assert peer.connection.failed
    last = peer.sent()[-1]
    assert last.kind == GOAWAY and last.code == code
    assert peer.feed(frame(PING, payload=bytes(8))) == [] and peer.sent() == [], "a failed connection answers nothing"


def assert_stream_error(peer: Peer, stream_id: int, code: ErrorCode) -> None:
    assert not peer.connection.failed, peer.events
    resets = peer.sent_of(RST_STREAM)
    assert [(reset.stream_id, reset.code) for reset in resets] == [(stream_id, code)]
    assert not peer.connection.is_open(stream_id)


# ------------------------------------------------------------------------------------------------- opening


def test_server_speaks_settings_before_anything_comes_in() -> None:
    first, second = split_frames(Http2Connection().data_to_send())
    assert first.kind == SETTINGS and not first.flags
    assert {first.payload[i + 1] for i in range(0, len(first.payload), 6)} == {
        MAX_STREAMS,
        INITIAL_WINDOW,
        MAX_FRAME,
        MAX_HEADER_LIST,
    }
    assert second.kind == WINDOW_UPDATE and second.stream_id == 0


def test_settings_of_the_peer_are_acknowledged() -> None:
    acknowledgements = [sent for sent in Peer().opening if sent.kind == SETTINGS and sent.flags & ACK]
    assert len(acknowledgements) == 1 and acknowledgements[0].payload == b""


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"X", b"\x00"])
def test_connection_without_the_preface_is_refused(start: bytes) -> None:
    connection = Http2Connection()
    assert [type(event) for event in connection.receive(start)] == [ConnectionFailed]


def test_first_frame_must_be_settings() -> None:
    connection = Http2Connection()
    (failure,) = connection.receive(PREFACE + frame(PING, payload=bytes(8)))
    assert isinstance(failure, ConnectionFailed) and failure.code == ErrorCode.PROTOCOL_ERROR


def test_settings_acknowledgement_does_not_count_as_the_first_settings() -> None:
    connection = Http2Connection()
    (failure,) = connection.receive(PREFACE + frame(SETTINGS, ACK))
    assert isinstance(failure, ConnectionFailed) and failure.code == ErrorCode.PROTOCOL_ERROR


# ------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, 0x77])
def test_frame_larger_than_announced_is_refused_before_it_has_come(kind: int) -> None:
    peer = Peer()
    peer.feed((16_385).to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1)))
    assert_connection_error(peer, ErrorCode.FRAME_SIZE_ERROR)


def test_frame_of_the_largest_size_is_taken() -> None:
    peer = Peer()
    peer.feed(headers(1))
    assert peer.feed(data(1, bytes(16_384))) == [DataReceived(1, bytes(16_384))]


def test_unknown_frames_are_ignored() -> None:
    peer = Peer()
    assert peer.feed(frame(0x0A, 0xFF, 0, b"altsvc"), frame(0x77, 0xFF, 99, bytes(100))) == []
    assert peer.sent() == []


@pytest.mark.parametrize(
    "interruption",
    [
        frame(PING, payload=bytes(8)),
        frame(0x77),
        headers(3),
        data(1, b"x"),
        frame(CONTINUATION, END_HEADERS, 3, b""),
        settings(),
    ],
)
def test_nothing_may_come_inside_a_header_block(interruption: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1, flags=0), interruption)
    assert_connection_error(peer, ErrorCode.PROTOCOL_ERROR)


def test_header_block_may_come_in_continuations() -> None:
    peer = Peer()
    block = literal_block(CALL)
    pieces = [block[:10], block[10:11], b"", block[11:]]
    events = peer.feed(
        frame(HEADERS, END_STREAM, 1, pieces[0]),
        frame(CONTINUATION, 0, 1, pieces[1]),
        frame(CONTINUATION, 0, 1, pieces[2]),
        frame(CONTINUATION, END_HEADERS, 1, pieces[3]),
    )
    fields = tuple((name.encode(), value.encode()) for name, value in CALL)
    assert events == [RequestReceived(1, fields), RequestEnded(1, ())]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (data(0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (headers(0), ErrorCode.PROTOCOL_ERROR),
        (headers(2), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05abcd"), ErrorCode.PROTOCOL_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (settings((ENABLE_PUSH, 2)), ErrorCode.PROTOCOL_ERROR),
        (settings((INITIAL_WINDOW, 2**31)), ErrorCode.FLOW_CONTROL_ERROR),
        (settings((MAX_FRAME, 16_383)), ErrorCode.PROTOCOL_ERROR),
        (settings((MAX_FRAME, 2**24)), ErrorCode.PROTOCOL_ERROR),
        (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
        (window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (window_update(1, 1), ErrorCode.PROTOCOL_ERROR),
        (window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (data(1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, b"\xfe"), ErrorCode.COMPRESSION_ERROR),
        (frame(PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_fault_of_the_connection_ends_it(bad: bytes, code: ErrorCode) -> None:
    peer = Peer()
    peer.feed(bad)
    assert_connection_error(peer, code)


@pytest.mark.parametrize(
    "harmless", [(9, 2**32 - 1), (0xFFFF, 1), (MAX_STREAMS, 0), (MAX_HEADER_LIST, 0), (ENABLE_PUSH, 1)]
)
def test_settings_that_do_not_concern_a_server_are_taken(harmless: tuple[int, int]) -> None:
    peer = Peer()
    assert peer.feed(settings(harmless)) == []
    assert [sent.kind for sent in peer.sent()] == [SETTINGS]


def test_ping_is_answered_ahead_of_queued_data() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(30_000)])
    peer.feed(frame(PING, payload=b"estimate"))
    assert [sent.kind for sent in peer.sent()] == [HEADERS, PING, DATA, DATA]


def test_ping_acknowledgement_is_not_answered() -> None:
    peer = Peer()
    peer.feed(frame(PING, ACK, payload=bytes(8)))
    assert peer.sent() == []


def test_goaway_of_the_peer_leaves_open_streams_alone() -> None:
    peer = Peer()
    peer.feed(headers(1))
    events = peer.feed(frame(GOAWAY, payload=bytes(4) + (2).to_bytes(4, "big") + b"bye"), data(1, b"on"))
    assert events == [GoAwayReceived(2, 0, b"bye"), DataReceived(1, b"on")]


def test_after_our_goaway_new_streams_are_refused_and_open_ones_go_on() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.go_away()
    peer.connection.go_away()
    assert peer.feed(headers(3), data(1, b"on")) == [DataReceived(1, b"on")]
    goaway, reset = peer.sent()
    assert goaway.kind == GOAWAY and goaway.payload == (1).to_bytes(4, "big") + bytes(4)
    assert (reset.kind, reset.stream_id, reset.code) == (RST_STREAM, 3, ErrorCode.REFUSED_STREAM)


def test_last_stream_of_a_second_goaway_does_not_grow() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.go_away()
    peer.feed(headers(3), frame(PUSH_PROMISE, 0, 1))
    assert [sent.payload[:4] for sent in peer.sent_of(GOAWAY)] == [b"\0\0\0\1", b"\0\0\0\1"]


# ------------------------------------------------------------------------------------------------- stream states


def test_request_comes_as_headers_data_trailers() -> None:
    peer = Peer()
    trailers = headers(1, [("checksum", "7")], END_HEADERS | END_STREAM)
    events = peer.feed(headers(1), data(1, b"ab"), data(1, b"c"), trailers)
    assert [type(event) for event in events] == [RequestReceived, DataReceived, DataReceived, RequestEnded]
    assert events[-1] == RequestEnded(1, ((b"checksum", b"7"),))


def test_stream_numbers_must_grow() -> None:
    peer = Peer()
    peer.feed(headers(5), headers(3))
    assert_connection_error(peer, ErrorCode.PROTOCOL_ERROR)


def test_stream_numbers_may_skip_and_the_skipped_are_closed() -> None:
    peer = Peer()
    peer.feed(headers(5), window_update(3, 1), rst_stream(1))
    assert not peer.connection.failed


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")], END_HEADERS | END_STREAM)])
def test_half_closed_stream_takes_nothing_more(late: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1, flags=END_HEADERS | END_STREAM), late)
    assert isinstance(peer.events[-1], StreamReset) and not peer.events[-1].by_peer
    assert_stream_error(peer, 1, ErrorCode.STREAM_CLOSED)


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")], END_HEADERS | END_STREAM)])
def test_frames_on_a_finished_stream_are_a_fault_of_the_connection(late: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1, flags=END_HEADERS | END_STREAM))
    peer.connection.send_headers(1, STATUS, end_stream=True)
    peer.feed(late)
    assert_connection_error(peer, ErrorCode.STREAM_CLOSED)


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")], END_HEADERS | END_STREAM)])
def test_frames_after_the_peers_own_reset_are_a_fault(late: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1), rst_stream(1), late)
    assert_connection_error(peer, ErrorCode.STREAM_CLOSED)


def test_frames_that_cross_our_reset_are_ignored() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    trailers = headers(1, [("a", "b")], END_HEADERS | END_STREAM)
    assert peer.feed(data(1, bytes(16_384)), window_update(1, 5), trailers, rst_stream(1)) == []
    assert not peer.connection.failed


def test_data_that_crosses_our_reset_is_bounded_by_the_window() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.reset_stream(1, ErrorCode.CANCEL)
    peer.feed(*[data(1, bytes(16_000))] * 4)
    assert not peer.connection.failed
    peer.feed(data(1, bytes(16_000)))
    assert_connection_error(peer, ErrorCode.FLOW_CONTROL_ERROR)


def test_reset_of_the_peer_drops_what_was_queued() -> None:
    peer = Peer((INITIAL_WINDOW, 10))
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(1_000_000)])
    peer.sent()
    assert peer.feed(rst_stream(1, 8)) == [StreamReset(1, 8, True, "reset by the peer (CANCEL)")]
    assert peer.connection.backlog(1) == 0 and peer.connection.open_streams == 0
    peer.feed(window_update(1, 100))
    assert peer.sent() == []


def test_reset_with_an_unknown_code_is_a_reset() -> None:
    peer = Peer()
    peer.feed(headers(1))
    assert peer.feed(rst_stream(1, 0xABCD)) == [StreamReset(1, 0xABCD, True, "reset by the peer (0xabcd)")]


def test_streams_beyond_the_limit_are_refused_and_free_places_are_given_again() -> None:
    peer = Peer(limits=Limits(max_concurrent_streams=2))
    peer.feed(headers(1), headers(3))
    assert peer.feed(headers(5)) == []
    assert [(sent.stream_id, sent.code) for sent in peer.sent_of(RST_STREAM)] == [(5, ErrorCode.REFUSED_STREAM)]
    assert len(peer.feed(rst_stream(1), headers(7))) == 2


def test_priority_is_checked_and_otherwise_ignored() -> None:
    peer = Peer()
    peer.feed(headers(3))
    assert peer.feed(*(frame(PRIORITY, 0, stream_id, bytes(5)) for stream_id in (1, 3, 99))) == []
    assert peer.sent() == []


@pytest.mark.parametrize("before", [b"", rst_stream(1)])
@pytest.mark.parametrize(
    ("payload", "code"), [(bytes(4), ErrorCode.FRAME_SIZE_ERROR), (b"\0\0\0\1\0", ErrorCode.PROTOCOL_ERROR)]
)
def test_bad_priority_resets_the_stream_open_or_closed(before: bytes, payload: bytes, code: ErrorCode) -> None:
    peer = Peer()
    peer.feed(headers(1), before, frame(PRIORITY, 0, 1, payload))
    assert_stream_error(peer, 1, code)


def test_headers_may_carry_priority_and_padding() -> None:
    peer = Peer()
    payload = b"\x03" + b"\0\0\0\0\x10" + literal_block(CALL) + bytes(3)
    (event,) = peer.feed(frame(HEADERS, END_HEADERS | PRIORITY_FLAG | PADDED, 1, payload))
    assert isinstance(event, RequestReceived) and len(event.headers) == len(CALL)


def test_request_that_depends_on_itself_is_reset() -> None:
    peer = Peer()
    peer.feed(frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0\1\x10" + literal_block(CALL)))
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)


# ------------------------------------------------------------------------------------------------- header lists


def replaced(name: str, value: str | None) -> Iterable[tuple[str, str]]:
    for key, old in CALL:
        if key != name:
            yield key, old
        elif value is not None:
            yield key, value


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*CALL, (":path", "/twice")], id="pseudo field twice"),
        pytest.param([("a", "b"), *CALL], id="pseudo field after a regular one"),
        pytest.param([(":status", "200"), *CALL], id="pseudo field of a response"),
        pytest.param([(":protocol", "websocket"), *CALL], id="unknown pseudo field"),
        pytest.param(list(replaced(":method", None)), id="no method"),
        pytest.param(list(replaced(":scheme", None)), id="no scheme"),
        pytest.param(list(replaced(":path", None)), id="no path"),
        pytest.param(list(replaced(":path", "")), id="empty path"),
        pytest.param(list(replaced(":path", "relative")), id="relative path"),
        pytest.param(list(replaced(":path", "/a\r\nx: y")), id="newline in the path"),
        pytest.param(list(replaced(":method", "CONNECT")), id="connect with a path"),
        pytest.param([(":method", "CONNECT")], id="connect without an authority"),
        pytest.param([*CALL, ("Upper", "x")], id="upper case"),
        pytest.param([*CALL, ("", "x")], id="empty name"),
        pytest.param([*CALL, ("a b", "x")], id="blank in a name"),
        pytest.param([*CALL, ("a:b", "x")], id="colon in a name"),
        pytest.param([*CALL, ("a\x00", "x")], id="NUL in a name"),
        pytest.param([*CALL, ("a", "x\x00")], id="NUL in a value"),
        pytest.param([*CALL, ("a", "x\ny")], id="newline in a value"),
        pytest.param([*CALL, ("connection", "close")], id="connection"),
        pytest.param([*CALL, ("keep-alive", "1")], id="keep-alive"),
        pytest.param([*CALL, ("proxy-connection", "x")], id="proxy-connection"),
        pytest.param([*CALL, ("transfer-encoding", "chunked")], id="transfer-encoding"),
        pytest.param([*CALL, ("upgrade", "h2c")], id="upgrade"),
        pytest.param(list(replaced("te", "gzip")), id="te other than trailers"),
        pytest.param([*CALL, ("host", "elsewhere")], id="host differs from authority"),
        pytest.param([*CALL, ("content-length", "x")], id="content-length is not a number"),
        pytest.param([*CALL, ("content-length", "-1")], id="negative content-length"),
        pytest.param([*CALL, ("content-length", "9" * 5_000)], id="endless content-length"),
        pytest.param([*CALL, ("content-length", "1"), ("content-length", "2")], id="two content-lengths"),
    ],
)
def test_malformed_request_resets_its_stream_only(fields: list[tuple[str, str]]) -> None:
    peer = Peer()
    assert peer.feed(headers(1, fields)) == []
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)
    assert len(peer.feed(headers(3))) == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*CALL, ("host", "LOCALHOST")], id="host equals authority"),
        pytest.param(list(replaced(":authority", None)), id="no authority"),
        pytest.param([(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")], id="options *"),
        pytest.param([(":method", "CONNECT"), (":authority", "a:1")], id="connect"),
        pytest.param([*CALL, ("a", "")], id="empty value"),
        pytest.param([*CALL, ("followpaths", " a name ")], id="blanks around a value, as grpc-go sends metadata"),
        pytest.param([*CALL, ("content-length", "3"), ("content-length", "3")], id="the same content-length twice"),
    ],
)
def test_unusual_request_is_taken(fields: list[tuple[str, str]]) -> None:
    peer = Peer()
    assert [type(event) for event in peer.feed(headers(1, fields))] == [RequestReceived]


@pytest.mark.parametrize(
    "trailers",
    [
        headers(1, [("a", "b")], END_HEADERS),
        headers(1, [(":path", "/")], END_HEADERS | END_STREAM),
        headers(1, [("connection", "x")], END_HEADERS | END_STREAM),
        frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY_FLAG, 1, b"\0\0\0\1\0"),
    ],
)
def test_malformed_trailers_reset_their_stream(trailers: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1), trailers)
    assert isinstance(peer.events[-1], StreamReset)
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "body",
    [
        (data(1, b"abcd"),),
        (data(1, b"ab", END_STREAM),),
        (data(1, b"ab"), headers(1, [("a", "b")], END_HEADERS | END_STREAM)),
    ],
)
def test_body_must_be_as_long_as_content_length_says(body: tuple[bytes, ...]) -> None:
    peer = Peer()
    peer.feed(headers(1, [*CALL, ("content-length", "3")]), *body)
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)


def test_body_of_the_stated_length_is_taken() -> None:
    peer = Peer()
    peer.feed(headers(1, [*CALL, ("content-length", "3")]), data(1, b"ab"), data(1, b"c", END_STREAM))
    assert peer.events[-1] == RequestEnded(1, ())


def test_content_length_without_a_body_is_malformed() -> None:
    peer = Peer()
    peer.feed(headers(1, [*CALL, ("content-length", "3")], END_HEADERS | END_STREAM))
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)


def test_compression_state_survives_a_request_that_was_refused() -> None:
    encoder = hpack.Encoder()
    peer = Peer()
    bad = encoder.encode([*CALL, ("x-new", "remembered"), ("connection", "close")])
    good = encoder.encode([*CALL, ("x-new", "remembered")])
    peer.feed(frame(HEADERS, END_HEADERS, 1, bad))
    (event,) = peer.feed(frame(HEADERS, END_HEADERS, 3, good))
    assert isinstance(event, RequestReceived) and event.headers[-1] == (b"x-new", b"remembered")


def test_header_blocks_of_many_kilobytes_decode_as_in_one_piece() -> None:
    encoder = hpack.Encoder()
    patterns = [("exclude-patterns", f"some/folder-{number}/**/*.tmp") for number in range(4_000)]
    block = encoder.encode([*CALL, *patterns])
    assert len(block) > 64_000
    pieces = [block[i : i + 16_000] for i in range(0, len(block), 16_000)]
    frames = [frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:-1]]
    peer = Peer()
    (event,) = peer.feed(frame(HEADERS, 0, 1, pieces[0]), *frames, frame(CONTINUATION, END_HEADERS, 1, pieces[-1]))
    assert isinstance(event, RequestReceived)
    assert [value.decode() for name, value in event.headers if name == b"exclude-patterns"] == [v for _, v in patterns]


@pytest.mark.parametrize("ending", [b"\x20", b"\x40", b"\x00\x7f\xff\xff\xff\xff\xff\xff", b"\x00\x05ab", b"\xbf\x80"])
def test_long_header_blocks_with_a_bad_end_are_compression_errors(ending: bytes) -> None:
    peer = Peer()
    filler = literal_block([*CALL, *[("name", "value" * 20)] * 100])
    peer.feed(frame(HEADERS, END_HEADERS, 1, filler + ending))
    assert_connection_error(peer, ErrorCode.COMPRESSION_ERROR)


def test_answers_obey_the_table_size_of_the_peer() -> None:
    peer = Peer((HEADER_TABLE_SIZE, 0))
    peer.feed(headers(1), headers(3))
    for stream_id in (1, 3):
        peer.connection.send_headers(stream_id, [(b":status", b"200"), (b"x-many", b"times")])
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    for sent in peer.sent_of(HEADERS):
        assert list(decoder.decode(sent.payload, raw=True))[-1] == (b"x-many", b"times")
        assert decoder.header_table.dynamic_entries == type(decoder.header_table.dynamic_entries)()


def test_answers_name_the_smallest_table_size_that_was_in_force() -> None:
    peer = Peer()
    peer.feed(headers(1), settings((HEADER_TABLE_SIZE, 0)), settings((HEADER_TABLE_SIZE, 4_096)))
    peer.connection.send_headers(1, STATUS)
    (sent,) = peer.sent_of(HEADERS)
    assert sent.payload[:1] == b"\x20" and sent.payload[1:4] == b"\x3f\xe1\x1f"


def test_huge_table_of_the_peer_is_not_used() -> None:
    peer = Peer((HEADER_TABLE_SIZE, 2**32 - 1))
    output = ServerOutput()
    for number in range(200):
        stream_id = 2 * number + 1
        peer.feed(headers(stream_id))
        peer.connection.send_headers(stream_id, [(b":status", b"200"), (b"x-%d" % number, bytes(200))], end_stream=True)
        peer.feed(rst_stream(stream_id))
        for sent in peer.sent_of(HEADERS):
            output.fields(sent)  # a decoder that allows 4,096 bytes would refuse more


# ------------------------------------------------------------------------------------------------- padding


def test_padding_is_removed_and_its_window_returned_at_once() -> None:
    peer = Peer()
    peer.feed(headers(1))
    padded = bytes((255,)) + b"data" + bytes(255)
    for _ in range(200):
        assert peer.feed(data(1, padded, PADDED)) == [DataReceived(1, b"data")]
    assert peer.sent_of(WINDOW_UPDATE)


@pytest.mark.parametrize("payload", [b"\x01", b"\x05abcd", b"\xff"])
def test_padding_longer_than_the_frame_is_a_fault(payload: bytes) -> None:
    peer = Peer()
    peer.feed(headers(1), data(1, payload, PADDED))
    assert_connection_error(peer, ErrorCode.PROTOCOL_ERROR)


# ------------------------------------------------------------------------------------------------- sending


def test_many_pieces_share_a_frame() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [b"x" * 100] * 300)
    sizes = [len(sent.payload) for sent in peer.sent_of(DATA)]
    assert sizes == [16_384, 30_000 - 16_384]


def test_chunks_are_large_and_never_larger_than_the_limit() -> None:
    peer = Peer((INITIAL_WINDOW, 2**31 - 1))
    peer.feed(window_update(0, 2**30), headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(5 << 20)])
    sizes = []
    while chunk := peer.connection.data_to_send():
        sizes.append(len(chunk))
    assert max(sizes) <= CHUNK_SIZE and min(sizes[:-1]) > CHUNK_SIZE - 16_384 - 9


def test_data_waits_for_the_window_of_the_stream() -> None:
    peer = Peer((INITIAL_WINDOW, 10))
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(25)])
    assert [len(sent.payload) for sent in peer.sent_of(DATA)] == [10]
    peer.feed(window_update(1, 7))
    assert [len(sent.payload) for sent in peer.sent_of(DATA)] == [7]
    peer.feed(window_update(1, 100))
    assert [len(sent.payload) for sent in peer.sent_of(DATA)] == [8]
    assert peer.connection.backlog(1) == 0


def test_data_waits_for_the_window_of_the_connection_but_ends_do_not() -> None:
    peer = Peer((INITIAL_WINDOW, 100_000))
    for stream_id in (1, 3):
        peer.feed(headers(stream_id))
        peer.connection.send_headers(stream_id, STATUS)
    peer.connection.send_data(1, [bytes(70_000)])
    peer.sent()
    peer.connection.end_stream(3, [(b"grpc-status", b"0")])
    assert [(sent.kind, sent.stream_id) for sent in peer.sent()] == [(HEADERS, 3)]
    peer.feed(window_update(0, 70_000 - 65_535))
    assert sum(len(sent.payload) for sent in peer.sent_of(DATA)) == 70_000 - 65_535


def test_changed_initial_window_moves_open_streams_below_zero_and_back() -> None:
    peer = Peer((INITIAL_WINDOW, 100))
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(300)])
    assert sum(len(sent.payload) for sent in peer.sent_of(DATA)) == 100
    peer.feed(settings((INITIAL_WINDOW, 20)), window_update(1, 79))
    assert peer.sent_of(DATA) == []
    peer.feed(window_update(1, 3))
    assert sum(len(sent.payload) for sent in peer.sent_of(DATA)) == 2
    peer.feed(settings((INITIAL_WINDOW, 50)))
    assert sum(len(sent.payload) for sent in peer.sent_of(DATA)) == 30


def test_initial_window_that_overflows_an_open_stream_is_a_fault() -> None:
    peer = Peer()
    peer.feed(headers(1), window_update(1, 2**31 - 1 - 65_535), settings((INITIAL_WINDOW, 65_536)))
    assert_connection_error(peer, ErrorCode.FLOW_CONTROL_ERROR)


def test_window_update_that_overflows_a_stream_resets_it() -> None:
    peer = Peer()
    peer.feed(headers(1), window_update(1, 2**31 - 1))
    assert_stream_error(peer, 1, ErrorCode.FLOW_CONTROL_ERROR)


def test_window_update_of_zero_resets_the_stream() -> None:
    peer = Peer()
    peer.feed(headers(1), window_update(1, 0))
    assert_stream_error(peer, 1, ErrorCode.PROTOCOL_ERROR)


def test_larger_frames_are_sent_if_the_peer_takes_them() -> None:
    peer = Peer((MAX_FRAME, 40_000))
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(50_000)])
    assert [len(sent.payload) for sent in peer.sent_of(DATA)] == [40_000, 10_000]


def test_streams_take_turns() -> None:
    peer = Peer((INITIAL_WINDOW, 2**31 - 1))
    peer.feed(window_update(0, 2**30))
    for stream_id in (1, 3, 5):
        peer.feed(headers(stream_id))
        peer.connection.send_headers(stream_id, STATUS)
        peer.connection.send_data(stream_id, [bytes(16_384 * 3)])
    assert [sent.stream_id for sent in peer.sent_of(DATA)] == [1, 3, 5] * 3


def test_turns_are_kept_from_one_chunk_to_the_next() -> None:
    peer = Peer((INITIAL_WINDOW, 2**31 - 1))
    for stream_id in (1, 3, 5):
        peer.feed(headers(stream_id))
        peer.connection.send_headers(stream_id, STATUS)
    peer.sent()
    for stream_id in (1, 3, 5):
        peer.connection.send_data(stream_id, [bytes(9_000)])
    peer.feed(settings((INITIAL_WINDOW, 3_000)))
    order = []
    while chunk := peer.connection.data_to_send(limit=3_500):
        order += [sent.stream_id for sent in split_frames(chunk) if sent.kind == DATA]
        for stream_id in (1, 3, 5):
            peer.feed(window_update(stream_id, 3_000))
    assert order == [1, 3, 5] * 3


def test_trailers_come_after_the_data_and_close_the_stream() -> None:
    peer = Peer()
    output = ServerOutput()
    peer.feed(headers(1, flags=END_HEADERS | END_STREAM))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [b"body"])
    peer.connection.end_stream(1, [(b"grpc-status", b"0")])
    first, body, last = peer.sent()
    assert output.fields(first) == {":status": "200"}
    assert (body.kind, body.payload, body.flags) == (DATA, b"body", 0)
    assert last.flags == END_HEADERS | END_STREAM and output.fields(last) == {"grpc-status": "0"}
    assert peer.connection.open_streams == 0


def test_response_without_trailers_ends_with_an_empty_frame() -> None:
    peer = Peer()
    peer.feed(headers(1, flags=END_HEADERS | END_STREAM))
    peer.connection.send_headers(1, STATUS)
    peer.connection.end_stream(1)
    assert peer.sent()[-1] == Frame(DATA, END_STREAM, 1, b"")


def test_early_end_resets_the_rest_of_the_request_without_error() -> None:
    peer = Peer()
    peer.feed(headers(1))
    peer.connection.send_headers(1, STATUS, end_stream=True, reset=True)
    assert [(sent.kind, sent.stream_id) for sent in peer.sent()] == [(HEADERS, 1), (RST_STREAM, 1)]
    assert peer.feed(data(1, b"was on its way")) == []
    assert not peer.connection.failed and peer.connection.open_streams == 0


def test_long_headers_are_continued() -> None:
    peer = Peer()
    peer.feed(headers(1))
    value = bytes(range(32, 127)) * 500
    peer.connection.send_headers(1, [(b":status", b"200"), (b"x-long", value)])
    sent = peer.sent()
    assert [frame.kind for frame in sent] == [HEADERS] + [CONTINUATION] * (len(sent) - 1) and len(sent) > 2
    assert [bool(frame.flags & END_HEADERS) for frame in sent] == [False] * (len(sent) - 1) + [True]
    decoded = list(hpack.Decoder().decode(b"".join(frame.payload for frame in sent), raw=True))
    assert decoded[-1] == (b"x-long", value)


def test_stream_is_named_once_when_its_backlog_is_low_again() -> None:
    peer = Peer((INITIAL_WINDOW, 2**31 - 1), limits=Limits(low_water=100_000))
    peer.feed(window_update(0, 2**30), headers(1))
    peer.connection.send_headers(1, STATUS)
    peer.connection.send_data(1, [bytes(400_000)])
    peer.connection.data_to_send()
    assert peer.connection.take_drained() == set()
    peer.connection.data_to_send()
    assert peer.connection.take_drained() == {1}
    assert peer.connection.take_drained() == set()


def test_illegal_calls_of_our_side_raise_and_change_nothing() -> None:
    peer = Peer()
    peer.feed(headers(1), headers(3))
    connection = peer.connection
    with pytest.raises(LocalProtocolError):
        connection.send_headers(5, STATUS)
    with pytest.raises(LocalProtocolError):
        connection.send_data(1, [b"early"])
    with pytest.raises(LocalProtocolError):
        connection.end_stream(1)
    with pytest.raises(LocalProtocolError):
        connection.consumed(1, 1)
    connection.send_headers(1, STATUS)
    with pytest.raises(LocalProtocolError):
        connection.send_headers(1, STATUS)
    connection.end_stream(1)
    with pytest.raises(LocalProtocolError):
        connection.send_data(1, [b"late"])
    assert [(sent.kind, sent.stream_id) for sent in peer.sent()] == [(HEADERS, 1), (DATA, 1)]
    connection.send_headers(3, STATUS)
    assert [(sent.kind, sent.stream_id) for sent in peer.sent()] == [(HEADERS, 3)]


# ------------------------------------------------------------------------------------------------- receive windows


def test_window_reopens_only_when_the_application_consumed() -> None:
    peer = Peer()
    peer.feed(headers(1), *[data(1, bytes(16_000))] * 4)
    assert peer.sent_of(WINDOW_UPDATE) == []
    peer.connection.consumed(1, 64_000)
    (update,) = peer.sent_of(WINDOW_UPDATE)
    assert update.stream_id == 1 and update.increment >= 64_000


def test_window_updates_are_batched() -> None:
    peer = Peer()
    peer.feed(headers(1))
    for _ in range(1_000):
        peer.feed(data(1, bytes(1_000)))
        peer.connection.consumed(1, 1_000)
    assert len(peer.sent_of(WINDOW_UPDATE)) < 1_000_000 / 16_384


def test_window_grows_while_the_application_keeps_up() -> None:
    peer = Peer()
    peer.feed(headers(1))
    credit = 65_535
    while credit < 1 << 20:
        before = credit
        peer.feed(*[data(1, bytes(16_384))] * (credit // 16_384))
        credit %= 16_384
        peer.connection.consumed(1, before - credit)
        credit += sum(update.increment for update in peer.sent_of(WINDOW_UPDATE) if update.stream_id == 1)
        assert credit > before
    assert credit == 1 << 20


def test_data_beyond_the_window_of_a_stream_resets_it() -> None:
    peer = Peer()
    peer.feed(headers(1), *[data(1, bytes(16_384))] * 4)
    assert_stream_error(peer, 1, ErrorCode.FLOW_CONTROL_ERROR)
    assert isinstance(peer.events[-1], StreamReset)


def test_data_beyond_the_window_of_the_connection_is_a_fault() -> None:
    peer = Peer(limits=Limits(max_concurrent_streams=2, receive_budget=2 * 65_535))
    peer.feed(headers(1), data(1, bytes(10_000)), rst_stream(1))  # returned, but too little to be announced
    for stream_id in (3, 5):
        peer.feed(headers(stream_id), *[data(stream_id, bytes(13_107))] * 5)
    assert peer.connection.open_streams == 2 and peer.sent_of(WINDOW_UPDATE) == []
    peer.feed(data(5, bytes(16_384)))
    assert_connection_error(peer, ErrorCode.FLOW_CONTROL_ERROR)


def test_stalled_streams_do_not_starve_another_one() -> None:
    peer = Peer(limits=Limits(max_concurrent_streams=8, receive_budget=8 * 65_535))
    credit = 65_535 + sum(sent.increment for sent in peer.opening if sent.kind == WINDOW_UPDATE)
    for stream_id in range(1, 15, 2):
        peer.feed(headers(stream_id), *[data(stream_id, bytes(13_107))] * 5)
    credit -= 7 * 65_535
    assert credit >= 65_535, "the connection's window still has room for the whole window of one more stream"
    events = peer.feed(headers(15), data(15, b"health check"))
    assert [type(event) for event in events] == [RequestReceived, DataReceived]


@pytest.mark.parametrize("ended_by_peer", [True, False])
def test_windows_of_ended_streams_return_to_all(ended_by_peer: bool) -> None:
    peer = Peer()
    credit = 65_535 + sum(sent.increment for sent in peer.opening if sent.kind == WINDOW_UPDATE)
    first = credit
    for number in range(400):
        stream_id = 2 * number + 1
        peer.feed(headers(stream_id), *[data(stream_id, bytes(13_107))] * 5)
        credit -= 65_535
        if ended_by_peer:
            peer.feed(rst_stream(stream_id))
        else:
            peer.connection.reset_stream(stream_id, ErrorCode.CANCEL)
        credit += sum(sent.increment for sent in peer.sent() if sent.kind == WINDOW_UPDATE)
    assert credit > first * 0.9 and not peer.connection.failed


def test_budget_of_a_stream_that_ended_is_free_again() -> None:
    peer = Peer(limits=Limits(max_concurrent_streams=2, receive_budget=4 << 20))
    for number in range(20):
        stream_id = 2 * number + 1
        peer.feed(headers(stream_id), data(stream_id, bytes(5)))
        assert peer.connection.require(stream_id, 3 << 20)
        peer.feed(rst_stream(stream_id))


def test_large_message_gets_its_window_from_the_budget_and_returns_it() -> None:
    limits = Limits(max_concurrent_streams=2, receive_budget=4 << 20)
    peer = Peer(limits=limits)
    peer.feed(headers(1), headers(3), data(1, bytes(5)))
    assert peer.connection.require(1, 3 << 20)
    assert not peer.connection.require(3, 2 << 20), "the budget is spent"
    (update,) = [sent for sent in peer.sent_of(WINDOW_UPDATE) if sent.stream_id == 1]
    assert 65_535 - 5 + update.increment == 3 << 20
    peer.feed(*[data(1, bytes(16_384))] * (3 << 6))
    peer.connection.consumed(1, 5 + (3 << 20))
    assert peer.connection.require(3, 2 << 20)


def test_small_requirement_needs_no_update() -> None:
    peer = Peer()
    peer.feed(headers(1))
    assert peer.connection.require(1, 65_535)
    assert peer.sent_of(WINDOW_UPDATE) == []


def test_requirement_flushes_what_was_consumed_and_not_announced() -> None:
    peer = Peer()
    peer.feed(headers(1), *[data(1, bytes(16_000))] * 4)
    peer.connection.consumed(1, 10_000)
    assert peer.sent_of(WINDOW_UPDATE) == []
    assert peer.connection.require(1, 5_000)
    assert [update.increment for update in peer.sent_of(WINDOW_UPDATE)] == [10_000]
