"""The gRPC protocol of the session's server, as bytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable

import pytest

from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.transport.grpc import (
    PENDING,
    CallReset,
    CallStarted,
    Event,
    GrpcServer,
    PeerGoingAway,
    Readable,
)
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.buildkit.transport.http2 import ConnectionFailed, ErrorCode, Limits, LocalProtocolError
from tests.unit.http2_wire import (
    CALL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    ServerOutput,
    data,
    frame,
    grpc_message,
    headers,
    opening,
    rst_stream,
    split_frames,
)


class Peer:
    """A client of the server, past the opening."""

    def __init__(self, *, limits: Limits | None = None, max_message: int = 1 << 20):
        self.server = GrpcServer(limits=limits, max_message=max_message)
        self.output = ServerOutput()
        assert list(self.server.receive(opening())) == []
        self.sent()

    def feed(self, *pieces: bytes) -> list[Event]:
        return [event for piece in pieces for event in self.server.receive(piece)]

    def sent(self) -> list[Frame]:
        return list(split_frames(b"".join(iter(self.server.data_to_send, b""))))

    def call(self, *more: tuple[str, str]) -> CallStarted:
        """Start call 1 with these fields more."""
        (event,) = self.feed(headers(1, [*CALL, *more]))
        assert isinstance(event, CallStarted)
        return event

    def status(self) -> dict[str, str]:
        """The fields of the last HEADERS frame, which must end the stream."""
        ends = [sent for sent in self.sent() if sent.kind == HEADERS]
        fields = [self.output.fields(sent) for sent in ends]
        assert ends[-1].flags & END_STREAM
        return fields[-1]


def without(name: str) -> Iterable[tuple[str, str]]:
    return [(key, value) for key, value in CALL if key != name]


# ------------------------------------------------------------------------------------------------- requests


def test_call_names_its_method_and_metadata() -> None:
    event = Peer().call(("user-agent", "grpc-go/1.82"), ("key", "one"), ("key", "two"))
    assert event.method == "/pkg.Service/Method"
    assert event.timeout is None
    assert event.metadata == {
        "content-type": (b"application/grpc",),
        "user-agent": (b"grpc-go/1.82",),
        "key": (b"one", b"two"),
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("AQID", (b"\1\2\3",)),
        ("AQI=", (b"\1\2",)),
        ("AQI", (b"\1\2",)),
        ("", (b"",)),
        ("AQ,Ag==, Aw", (b"\1", b"\2", b"\3")),
    ],
)
def test_binary_metadata_is_decoded_padded_or_not(text: str, values: tuple[bytes, ...]) -> None:
    assert Peer().call(("trace-bin", text)).metadata["trace-bin"] == values


@pytest.mark.parametrize("text", ["A", "A!ID", "AQ=D"])
def test_binary_metadata_that_is_not_base64_fails_the_call(text: str) -> None:
    peer = Peer()
    assert peer.feed(headers(1, [*CALL, ("trace-bin", text)])) == []
    assert peer.status()["grpc-status"] == "13"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2H", 7200.0),
        ("3M", 180.0),
        ("15S", 15.0),
        ("250m", 0.25),
        ("10u", 1e-5),
        ("99999999n", 0.099999999),
        ("0S", 0.0),
    ],
)
def test_timeout_is_told_in_seconds(text: str, seconds: float) -> None:
    assert Peer().call(("grpc-timeout", text)).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1S "])
def test_malformed_timeout_fails_the_call(text: str) -> None:
    peer = Peer()
    assert peer.feed(headers(1, [*CALL, ("grpc-timeout", text)])) == []
    status = peer.status()
    assert (status["grpc-status"], status["grpc-message"]) == ("13", "malformed grpc-timeout")


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/grpc+proto", "application/grpc;x", "Application/GRPC"]
)
def test_content_types_of_grpc_are_taken(kind: str) -> None:
    (event,) = Peer().feed(headers(1, [*without("content-type"), ("content-type", kind)]))
    assert isinstance(event, CallStarted)


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/json", ""])
def test_other_content_types_are_answered_as_http(kind: str) -> None:
    peer = Peer()
    assert peer.feed(headers(1, [*without("content-type"), ("content-type", kind)])) == []
    head, body, _ = peer.sent()
    assert peer.output.fields(head)[":status"] == "415" and body.kind == DATA


def test_request_other_than_post_is_answered_as_http() -> None:
    peer = Peer()
    assert peer.feed(headers(1, [(":method", "GET"), *without(":method")], END_HEADERS | END_STREAM)) == []
    head, body, end = peer.sent()
    assert peer.output.fields(head)[":status"] == "405" and peer.output.fields(head)["allow"] == "POST"
    assert body.payload == b"gRPC calls are POST requests\n" and end.flags & END_STREAM
    assert peer.server.idle


def test_answer_to_head_has_no_body() -> None:
    peer = Peer()
    peer.feed(headers(1, [(":method", "HEAD"), *without(":method")], END_HEADERS | END_STREAM))
    (head,) = peer.sent()
    assert head.flags & END_STREAM and peer.output.fields(head)[":status"] == "405"


def test_body_of_a_refused_request_is_discarded_and_its_window_returned() -> None:
    peer = Peer()
    peer.feed(headers(1, [(":method", "PUT"), *without(":method")]))
    credit = 65_535
    for _ in range(1_000):
        assert peer.feed(data(1, bytes(16_000))) == []
        credit += sum(sent.increment for sent in peer.sent() if sent.kind == WINDOW_UPDATE and sent.stream_id) - 16_000
        assert credit >= 16_000


# ------------------------------------------------------------------------------------------------- messages in


def test_messages_are_taken_in_order_and_then_the_end() -> None:
    peer = Peer()
    peer.call()
    events = peer.feed(data(1, grpc_message(b"one") + grpc_message(b"")), data(1, grpc_message(b"three"), END_STREAM))
    assert set(events) == {Readable(1)}
    assert [peer.server.take_message(1) for _ in range(5)] == [b"one", b"", b"three", None, None]


def test_message_may_come_in_any_pieces() -> None:
    peer = Peer()
    peer.call()
    wire = grpc_message(b"hello")
    for octet in wire[:-1]:
        assert peer.feed(data(1, bytes((octet,)))) == []
        assert peer.server.take_message(1) is PENDING
    assert peer.feed(data(1, wire[-1:])) == [Readable(1)]
    assert peer.server.take_message(1) == b"hello"
    assert peer.server.take_message(1) is PENDING


def test_message_larger_than_the_window_gets_through() -> None:
    peer = Peer()
    peer.call()
    wire = grpc_message(bytes(900_000))
    credit = 65_535
    while wire:
        size = min(credit, 16_384, len(wire))
        assert size, "the server does not let the rest of its message in"
        peer.feed(data(1, wire[:size]))
        wire = wire[size:]
        credit += sum(sent.increment for sent in peer.sent() if sent.kind == WINDOW_UPDATE and sent.stream_id) - size
    assert peer.server.take_message(1) == bytes(900_000)


def test_message_too_large_is_refused_when_its_length_is_known() -> None:
    peer = Peer(max_message=1_000)
    peer.call()
    assert peer.feed(data(1, grpc_message(bytes(1_001))[:5])) == [Readable(1)]
    with pytest.raises(CallError) as caught:
        peer.server.take_message(1)
    assert caught.value.code == StatusCode.RESOURCE_EXHAUSTED


def test_large_messages_of_many_calls_share_a_budget() -> None:
    limits = Limits(max_concurrent_streams=8, receive_budget=3 << 20)
    peer = Peer(limits=limits)
    failed = []
    for stream_id in range(1, 17, 2):
        peer.feed(headers(stream_id), data(stream_id, grpc_message(bytes(1 << 20))[:5]))
        try:
            assert peer.server.take_message(stream_id) is PENDING
        except CallError as error:
            assert error.code == StatusCode.RESOURCE_EXHAUSTED
            failed.append(stream_id)
            peer.server.finish(stream_id, error.code, error.message)
    assert failed == [5, 7, 9, 11, 13, 15], "2 x 1 MiB fit beside 8 x 64 KiB"


def test_compressed_message_is_refused_with_what_is_spoken() -> None:
    peer = Peer()
    peer.call(("grpc-encoding", "gzip"))
    peer.feed(data(1, grpc_message(b"zipped", compressed=1)))
    with pytest.raises(CallError) as caught:
        peer.server.take_message(1)
    assert caught.value.code == StatusCode.UNIMPLEMENTED and "gzip" in caught.value.message
    peer.server.finish(1, caught.value.code, caught.value.message)
    assert peer.status()["grpc-accept-encoding"] == "identity"


def test_uncompressed_message_of_a_call_that_names_a_compression_is_taken() -> None:
    peer = Peer()
    peer.call(("grpc-encoding", "gzip"))
    peer.feed(data(1, grpc_message(b"plain")))
    assert peer.server.take_message(1) == b"plain"


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_flag_that_means_nothing_is_refused(flag: int) -> None:
    peer = Peer()
    peer.call()
    peer.feed(data(1, grpc_message(b"x", compressed=flag)))
    with pytest.raises(CallError) as caught:
        peer.server.take_message(1)
    assert caught.value.code == StatusCode.INTERNAL


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
def test_stream_that_ends_inside_a_message_fails_after_the_whole_ones(cut: int) -> None:
    peer = Peer()
    peer.call()
    peer.feed(data(1, grpc_message(b"whole") + grpc_message(b"cut")[:cut], END_STREAM))
    assert peer.server.take_message(1) == b"whole"
    with pytest.raises(CallError) as caught:
        peer.server.take_message(1)
    assert caught.value.code == StatusCode.INTERNAL


def test_window_reopens_when_messages_are_taken_not_when_they_come() -> None:
    peer = Peer()
    peer.call()
    peer.feed(*[data(1, grpc_message(bytes(995)))] * 60)
    assert peer.sent() == []
    for _ in range(60):
        peer.server.take_message(1)
    assert {sent.kind for sent in peer.sent()} == {WINDOW_UPDATE}


def test_prefixes_of_small_messages_return_their_window_too() -> None:
    peer = Peer()
    peer.call()
    credit = 65_535
    batch = data(1, grpc_message(b"x") * 2_000)
    for _ in range(110):
        credit -= len(batch) - 9
        assert credit >= 0, "the window has shrunk by what the prefixes took"
        peer.feed(batch)
        for _ in range(2_000):
            assert peer.server.take_message(1) == b"x"
        credit += sum(sent.increment for sent in peer.sent() if sent.kind == WINDOW_UPDATE and sent.stream_id)


def test_call_that_was_answered_lets_the_rest_of_its_request_in() -> None:
    peer = Peer()
    peer.call()
    peer.feed(*[data(1, bytes(13_107))] * 5)
    peer.server.send_messages(1, [bytes(100_000)])  # more than the peer's window, so the stream stays
    peer.server.finish(1)
    assert any(sent.kind == WINDOW_UPDATE and sent.stream_id == 1 for sent in peer.sent())


# ------------------------------------------------------------------------------------------------- messages out


def test_answer_is_headers_messages_trailers() -> None:
    peer = Peer()
    peer.call()
    peer.server.send_messages(1, [b"one", b""])
    peer.server.send_messages(1, [b"two"])
    peer.server.finish(1)
    head, body, end, reset = peer.sent()
    assert peer.output.fields(head) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity",
    }
    assert body.payload == grpc_message(b"one") + grpc_message(b"") + grpc_message(b"two")
    assert peer.output.fields(end) == {"grpc-status": "0"}
    assert (reset.kind, reset.code) == (RST_STREAM, ErrorCode.NO_ERROR), "the peer had not half-closed"


def test_answer_to_a_half_closed_call_is_not_reset() -> None:
    peer = Peer()
    peer.call()
    peer.feed(data(1, grpc_message(b""), END_STREAM))
    peer.server.send_messages(1, [b"x"])
    peer.server.finish(1)
    assert RST_STREAM not in [sent.kind for sent in peer.sent()]
    assert peer.server.idle


def test_failure_without_messages_is_one_header_list() -> None:
    peer = Peer()
    peer.call()
    peer.server.finish(1, StatusCode.NOT_FOUND, "no such file: ä%\n")
    status = peer.status()
    assert status[":status"] == "200" and status["content-type"] == "application/grpc"
    assert status["grpc-status"] == "5"
    assert status["grpc-message"] == "no such file: %C3%A4%25%0A"


def test_status_text_is_cut_to_what_every_peer_takes() -> None:
    peer = Peer()
    peer.call()
    peer.server.finish(1, StatusCode.UNKNOWN, "x" * 100_000)
    assert len(peer.status()["grpc-message"]) == 8_192


def test_lone_surrogates_of_file_names_can_be_told() -> None:
    peer = Peer()
    peer.call()
    peer.server.finish(1, StatusCode.UNKNOWN, "cannot read \udcff")
    assert peer.status()["grpc-message"] == "cannot read ?"


def test_details_and_metadata_travel_in_the_trailers() -> None:
    peer = Peer()
    peer.call()
    peer.server.send_initial_metadata(1, [("key", "value"), ("key-bin", b"\xff")])
    peer.server.finish(1, StatusCode.ABORTED, details=b"\x08\x0a", metadata=[("last-bin", b"\0\1")])
    head, end, _ = peer.sent()
    assert peer.output.fields(head)["key-bin"] == "/w"
    assert peer.output.fields(end) == {"grpc-status": "10", "grpc-status-details-bin": "CAo", "last-bin": "AAE"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("Upper", "x"), ("grpc-status", "0"), (":path", "/"), ("a", "new\nline"), ("a", b"x"), ("a-bin", "x"), ("", "x")],
)
def test_metadata_that_grpc_does_not_allow_raises_and_leaves_the_call_open(key: str, value: str | bytes) -> None:
    peer = Peer()
    peer.call()
    with pytest.raises(ValueError):
        peer.server.send_initial_metadata(1, [(key, value)])
    with pytest.raises(ValueError):
        peer.server.finish(1, metadata=[(key, value)])
    peer.server.finish(1)
    assert peer.status()["grpc-status"] == "0"


def test_calls_that_are_over_cannot_be_used() -> None:
    peer = Peer()
    peer.call()
    peer.server.finish(1)
    server = peer.server
    uses: tuple[Callable[[], object], ...] = (
        lambda: server.finish(1),
        lambda: server.send_messages(1, [b"x"]),
        lambda: server.send_initial_metadata(1),
        lambda: server.take_message(1),
        lambda: server.finish(3),
    )
    for use in uses:
        with pytest.raises(LocalProtocolError):
            use()
    server.cancel(1)
    assert peer.status()["grpc-status"] == "0", "cancelling what is over does not disturb its end"


def test_initial_metadata_is_sent_once() -> None:
    peer = Peer()
    peer.call()
    peer.server.send_messages(1, [b"x"])
    with pytest.raises(LocalProtocolError):
        peer.server.send_initial_metadata(1)


# ------------------------------------------------------------------------------------------------- ends


def test_reset_of_the_peer_ends_the_call() -> None:
    peer = Peer()
    peer.call()
    assert peer.feed(rst_stream(1)) == [CallReset(1, True, "reset by the peer (CANCEL)")]
    assert not peer.server.is_open(1)


def test_fault_of_the_stream_ends_the_call() -> None:
    peer = Peer()
    peer.call()
    (event,) = peer.feed(headers(1, [("a", "b")]))
    assert isinstance(event, CallReset) and not event.by_peer


def test_our_cancel_resets_the_stream() -> None:
    peer = Peer()
    peer.call()
    peer.server.cancel(1)
    assert [(sent.kind, sent.code) for sent in peer.sent()] == [(RST_STREAM, ErrorCode.CANCEL)]
    assert peer.feed(data(1, grpc_message(b"late"))) == []


def test_fault_of_the_connection_is_the_last_event() -> None:
    peer = Peer()
    peer.call()
    (event,) = peer.feed(data(0, b"x"))
    assert isinstance(event, ConnectionFailed)
    assert not peer.server.is_open(1)
    assert peer.feed(headers(3)) == []


def test_goaway_is_told_and_sent() -> None:
    peer = Peer()
    assert peer.feed(frame(GOAWAY, payload=bytes(8) + b"why")) == [PeerGoingAway(0, b"why")]
    peer.server.go_away()
    assert [sent.kind for sent in peer.sent()] == [GOAWAY]


def test_request_and_its_reset_in_one_read_is_a_call_that_ends_at_once() -> None:
    peer = Peer()
    events = peer.feed(
        headers(1, [(":method", "GET"), *without(":method")]) + rst_stream(1) + headers(3) + rst_stream(3)
    )
    assert [type(event) for event in events] == [CallStarted, CallReset]


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [("gzip", True), ("identity, gzip", True), ("snappy,GZIP", True), ("identity", False), ("", False)],
)
def test_a_call_says_whether_its_peer_takes_gzip(accepted: str, takes: bool) -> None:
    assert Peer().call(("grpc-accept-encoding", accepted)).takes_gzip is takes


def test_a_peer_that_says_nothing_takes_no_gzip() -> None:
    assert not Peer().call().takes_gzip


def test_framed_messages_leave_as_they_are_under_headers_that_name_gzip() -> None:
    peer = Peer()
    peer.call(("grpc-accept-encoding", "gzip"))
    peer.server.use_gzip(1)
    framed = grpc_message(b"plain") + grpc_message(gzip.compress(b"shrunk"), 1)
    peer.server.send_framed(1, [framed[:3], framed[3:]])
    answer, body = peer.sent()
    assert peer.output.fields(answer)["grpc-encoding"] == "gzip"
    assert body.payload == framed
    with pytest.raises(LocalProtocolError):
        peer.server.use_gzip(1)


def test_without_gzip_the_headers_name_no_encoding() -> None:
    peer = Peer()
    peer.call(("grpc-accept-encoding", "gzip"))
    peer.server.send_messages(1, [b"plain"])
    assert "grpc-encoding" not in peer.output.fields(peer.sent()[0])
