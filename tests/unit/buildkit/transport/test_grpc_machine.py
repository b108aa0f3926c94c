"""gRPC as two state machines in any order: a client of other authors, and the server's owner.

The client (python-hyper's ``h2``, with gRPC's framing made by hand) calls, sends messages in any pieces, stops, takes
calls back, and at times breaks gRPC's rules in one of its calls.  The owner takes messages and answers when it likes.
Whatever the order: messages come whole, once and in order in both directions, each call gets one end, and what one
call does costs no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.transport.grpc import CallReset, CallStarted, GrpcServer, Pending
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.buildkit.transport.http2 import ConnectionFailed
from tests.unit import http2_wire as wire
from tests.unit.buildkit.transport.test_http2_fuzz import LIMITS

MAX_MESSAGE = 100_000

messages = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 90_000).map(lambda size: b"m" * size))
breaches = {
    "compressed": (b"\1\0\0\0\1x", StatusCode.INTERNAL),
    "a flag that means nothing": (b"\2\0\0\0\1x", StatusCode.INTERNAL),
    "too large": (b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"), StatusCode.RESOURCE_EXHAUSTED),
}


@dataclass
class Call:
    """What both sides of one call did and saw."""

    number: int
    to_send: bytearray = field(default_factory=bytearray)
    said: list[bytes] = field(default_factory=list)
    """Messages that the client has sent, or will have when `to_send` is gone."""
    wants_end: bool = False
    breach: StatusCode | None = None
    client_ended: bool = False
    client_reset: bool = False

    taken: list[bytes] = field(default_factory=list)
    saw_end: bool = False
    answered: list[bytes] = field(default_factory=list)
    status: StatusCode | None = None
    server_cancelled: bool = False
    told_of_reset: bool = False

    body: bytearray = field(default_factory=bytearray)
    got_status: int | None = None
    got_reset: bool = False

    @property
    def open_at_client(self) -> bool:
        over = self.client_reset or self.got_reset or self.got_status is not None
        return not over and not self.client_ended

    @property
    def open_at_server(self) -> bool:
        return self.status is None and not self.server_cancelled and not self.told_of_reset

    def heard(self) -> list[bytes]:
        """The messages that the client has got."""
        found, at = [], 0
        while at + 5 <= len(self.body):
            size = int.from_bytes(self.body[at + 1 : at + 5], "big")
            if at + 5 + size > len(self.body):
                break
            found.append(bytes(self.body[at + 5 : at + 5 + size]))
            at += 5 + size
        return found


class Calls(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        limits = replace(LIMITS, max_unproductive=1_000, max_control_backlog=64 << 10)
        self.server = GrpcServer(limits=limits, max_message=MAX_MESSAGE)
        self.calls: dict[int, Call] = {}
        self.started: set[int] = set()

    # ---------------------------------------------------------------- the way between them

    def exchange(self) -> None:
        """Carry bytes both ways until both sides are silent."""
        while True:
            self._send_what_fits()
            out = self.client.data_to_send()
            for event in self.server.receive(out):
                assert not isinstance(event, ConnectionFailed), event
                if isinstance(event, CallStarted):
                    assert event.call not in self.started, "a call that starts twice"
                    assert event.metadata["key"] == (b"%d" % event.call,)
                    self.started.add(event.call)
                elif isinstance(event, CallReset):
                    assert self.calls[event.call].client_reset and event.by_peer
                    self.calls[event.call].told_of_reset = True
            back = self.server.data_to_send(limit=50_000)
            if not out and not back:
                return
            for received in self.client.receive_data(back):
                self._hear(received)

    def _hear(self, received: h2.events.Event) -> None:
        match received:
            case h2.events.ConnectionTerminated():
                raise AssertionError("the server has ended the connection")
            case h2.events.DataReceived():
                self.calls[received.stream_id or 0].body += received.data or b""
                self.client.acknowledge_received_data(received.flow_controlled_length or 0, received.stream_id or 0)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                fields = dict(received.headers or ())
                if b"grpc-status" in fields:
                    call = self.calls[received.stream_id or 0]
                    assert call.got_status is None, "two ends of one call"
                    call.got_status = int(fields[b"grpc-status"])
            case h2.events.StreamReset():
                self.calls[received.stream_id or 0].got_reset = True

    def _send_what_fits(self) -> None:
        for call in self.calls.values():
            while call.open_at_client and call.to_send:
                room = min(self.client.local_flow_control_window(call.number), 16_000, len(call.to_send))
                if not room:
                    break
                self.client.send_data(call.number, bytes(call.to_send[:room]))
                del call.to_send[:room]
            if call.open_at_client and call.wants_end and not call.to_send:
                self.client.end_stream(call.number)
                call.client_ended = True

    # ---------------------------------------------------------------- the client

    @precondition(lambda self: self.client.open_outbound_streams < LIMITS.max_concurrent_streams)
    @rule()
    def start(self) -> None:
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, [*wire.CALL, ("key", str(number))])
        self.calls[number] = Call(number)

    def pick(self, choice: int, *, at_client: bool) -> Call | None:
        calls = [
            call
            for call in self.calls.values()
            if (call.open_at_client if at_client else call.open_at_server and call.number in self.started)
        ]
        return calls[choice % len(calls)] if calls else None

    @rule(choice=st.integers(0, 7), message=messages)
    def say(self, choice: int, message: bytes) -> None:
        call = self.pick(choice, at_client=True)
        if call is not None and not call.wants_end and call.breach is None:
            call.said.append(message)
            call.to_send += wire.grpc_message(message)

    @rule(choice=st.integers(0, 7), kind=st.sampled_from(sorted(breaches)))
    def break_a_rule(self, choice: int, kind: str) -> None:
        call = self.pick(choice, at_client=True)
        if call is not None and not call.wants_end and call.breach is None:
            octets, call.breach = breaches[kind]
            call.to_send += octets

    @rule(choice=st.integers(0, 7))
    def stop_talking(self, choice: int) -> None:
        call = self.pick(choice, at_client=True)
        if call is not None:
            call.wants_end = True

    @rule(choice=st.integers(0, 7))
    def take_back(self, choice: int) -> None:
        self.exchange()
        call = self.pick(choice, at_client=True)
        if call is not None:
            self.client.reset_stream(call.number, 8)
            call.client_reset = True

    @rule(window=st.sampled_from([0, 1, 1_000, 65_535, 1_000_000]))
    def change_windows(self, window: int) -> None:
        self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})

    @rule()
    def carry(self) -> None:
        self.exchange()

    # ---------------------------------------------------------------- the owner of the server

    @rule(choice=st.integers(0, 7), most=st.integers(1, 5))
    def take(self, choice: int, most: int) -> None:
        call = self.pick(choice, at_client=False)
        if call is not None:
            self._take(call, most)

    def _take(self, call: Call, most: int) -> None:
        for _ in range(most):
            try:
                message = self.server.take_message(call.number)
            except CallError as error:
                assert call.breach is error.code, f"{error.message} ({call})"
                assert call.taken == call.said, "messages before the breach are lost"
                self._finish(call, error.code)
                return
            if isinstance(message, Pending):
                return
            if message is None:
                call.saw_end = True
                assert call.wants_end and call.taken == call.said and call.breach is None
                return
            call.taken.append(message)

    @rule(choice=st.integers(0, 7), batch=st.lists(messages, max_size=4))
    def answer(self, choice: int, batch: list[bytes]) -> None:
        call = self.pick(choice, at_client=False)
        if call is not None:
            self.server.send_messages(call.number, batch)
            call.answered += batch

    @rule(choice=st.integers(0, 7), code=st.sampled_from([StatusCode.OK, StatusCode.NOT_FOUND]))
    def finish(self, choice: int, code: StatusCode) -> None:
        call = self.pick(choice, at_client=False)
        if call is not None:
            self._finish(call, code)

    def _finish(self, call: Call, code: StatusCode) -> None:
        self.server.finish(call.number, code, "why")
        call.status = code

    @rule(choice=st.integers(0, 7))
    def cancel(self, choice: int) -> None:
        call = self.pick(choice, at_client=False)
        if call is not None:
            self.server.cancel(call.number)
            call.server_cancelled = True

    # ---------------------------------------------------------------- what holds

    @invariant()
    def messages_come_whole_and_in_order(self) -> None:
        for call in self.calls.values():
            assert call.taken == call.said[: len(call.taken)]
            heard = call.heard()
            assert heard == call.answered[: len(heard)]

    @invariant()
    def an_end_is_the_one_that_was_given(self) -> None:
        for call in self.calls.values():
            if call.got_status is not None:
                assert call.got_status == call.status

    @invariant()
    def open_calls_are_open(self) -> None:
        for number in self.started:
            assert self.server.is_open(number) == self.calls[number].open_at_server

    def teardown(self) -> None:
        """Every window opened and every call that is left brought to its end, all has arrived."""
        self.change_windows(1_000_000)
        self.exchange()
        for call in self.calls.values():
            if call.open_at_client:
                call.wants_end = True
        for _ in range(200):
            self.exchange()
            before = [(len(call.taken), call.status, call.saw_end) for call in self.calls.values()]
            for call in self.calls.values():
                if call.open_at_server and call.number in self.started:
                    self._take(call, 100)
                if call.open_at_server and call.saw_end:
                    self._finish(call, StatusCode.OK)
            if before == [(len(call.taken), call.status, call.saw_end) for call in self.calls.values()]:
                break
        self.exchange()
        for call in self.calls.values():
            if call.client_reset:
                continue
            assert call.number in self.started
            if call.server_cancelled:
                assert call.got_reset
            else:
                assert call.status is not None and call.got_status == call.status, call
                assert call.heard() == call.answered
        assert self.server.idle


Calls.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestCalls = Calls.TestCase
