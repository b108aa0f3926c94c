"""The client's half of HTTP/2 as a state machine, before a server of other authors (python-hyper's ``h2``).

Whatever the order in which both send, read, change windows and end: bytes arrive once and in order in both directions,
nobody breaks the other's rules, and the end is the one that the server gave.
"""

from __future__ import annotations

from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cogkit.buildkit.transport.tunnel import Tunnel
from tests.unit import http2_wire as wire


def framed(data: bytes) -> bytes:
    """A ``BytesMessage`` as gRPC carries it."""
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return wire.grpc_message(b"\x0a" + length + data)


def whole_frames(out: bytes) -> Iterator[bytes]:
    """One by one: ``h2`` looks at its settings only between two pieces of input."""
    if out.startswith(wire.PREFACE):
        yield wire.PREFACE
        out = out[len(wire.PREFACE) :]
    while out:
        size = 9 + int.from_bytes(out[:3], "big")
        yield out[:size]
        out = out[size:]


class AgainstServer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tunnel = Tunnel("localhost", "/pkg.Service/Method", [("key", "value")])
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.server = h2.connection.H2Connection(config)
        self.server.initiate_connection()
        self.called = self.answered = self.ended = self.finished = self.cancelled = False
        self.status: tuple[int, str] | None = None
        self.up_sent = bytearray()
        self.up_got = bytearray()
        self.down_sent = bytearray()
        self.down_got = bytearray()
        self.down_waits = bytearray()
        self.unacknowledged = 0
        self.reset_at_server = False

    # ---------------------------------------------------------------- the way between them

    def exchange(self, step: int = 100_000) -> None:
        """Carry bytes both ways, in pieces, until both sides are silent."""
        while True:
            out = b"".join(self.tunnel.data_to_send())
            for part in whole_frames(out):
                for event in self.server.receive_data(part):
                    self._hear(event)
            self._send_what_fits()
            back = self.server.data_to_send()
            if not out and not back:
                return
            while back and not self.tunnel.ended:
                piece, back = back[:step], back[step:]
                room = self.tunnel.room
                piece, back = piece[: len(room)], piece[len(room) :] + back
                room[: len(piece)] = piece
                self.down_got += self.tunnel.received(len(piece))

    def _hear(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                assert not self.called
                fields = dict(event.headers or ())
                assert (fields[b":path"], fields[b"key"]) == (b"/pkg.Service/Method", b"value")
                self.called = True
            case h2.events.DataReceived():
                self.up_got += event.data or b""
                self.unacknowledged += event.flow_controlled_length or 0
            case h2.events.StreamReset():
                assert self.cancelled, "it gave up by itself"
                self.reset_at_server = True
            case h2.events.ConnectionTerminated():
                raise AssertionError("it ended the connection")

    def _send_what_fits(self) -> None:
        while self.answered and self.down_waits and not self.ended and not self.reset_at_server:
            room = min(self.server.local_flow_control_window(1), 16_000, len(self.down_waits))
            if not room:
                return
            self.server.send_data(1, bytes(self.down_waits[:room]))
            del self.down_waits[:room]

    # ---------------------------------------------------------------- what happens

    @rule(size=st.one_of(st.integers(0, 200), st.integers(0, 400_000)))
    def tunnel_sends(self, size: int) -> None:
        if not self.tunnel.ended and not self.finished:
            data = bytes(number % 251 for number in range(min(size, 251))) * (size // 251 + 1)
            self.tunnel.send(data[:size])
            self.up_sent += data[:size]

    @precondition(lambda self: self.called and not self.answered and not self.reset_at_server)
    @rule()
    def server_answers(self) -> None:
        self.server.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        self.answered = True

    @precondition(lambda self: self.answered and not self.ended and not self.reset_at_server)
    @rule(data=st.one_of(st.binary(max_size=40), st.integers(0, 100_000).map(lambda size: b"d" * size)))
    def server_sends(self, data: bytes) -> None:
        self.down_waits += framed(data)
        self.down_sent += data

    @rule(share=st.integers(1, 4))
    def server_acknowledges(self, share: int) -> None:
        size = self.unacknowledged // share
        if size and not self.ended and not self.reset_at_server:
            self.server.acknowledge_received_data(size, 1)
            self.unacknowledged -= size

    @rule(window=st.sampled_from([0, 1, 1_000, 65_535, 1_000_000]), frame=st.sampled_from([16_384, 30_000, 1 << 20]))
    def server_changes_settings(self, window: int, frame: int) -> None:
        codes = h2.settings.SettingCodes
        self.server.update_settings({codes.INITIAL_WINDOW_SIZE: window, codes.MAX_FRAME_SIZE: frame})

    @rule()
    def server_pings(self) -> None:
        self.server.ping(b"12345678")

    @rule(step=st.sampled_from([1, 3, 10, 1_000, 100_000]))
    def carry(self, step: int) -> None:
        # One byte at a time only where there are few.
        self.exchange(step if len(self.down_waits) < 2_000 or step >= 1_000 else 1_000)

    @precondition(lambda self: self.answered and not self.ended and not self.reset_at_server)
    @rule(code=st.sampled_from([0, 5, 14]), chance=st.integers(0, 4))
    def server_ends(self, code: int, chance: int) -> None:
        self.exchange()
        if chance or self.down_waits or self.reset_at_server:
            return
        fields = [("grpc-status", str(code)), ("grpc-message", "so%20it%20is")]
        self.server.send_headers(1, fields, end_stream=True)
        self.status = (code, "so it is")
        self.ended = True

    @rule(chance=st.integers(0, 19), more=st.sampled_from([0, 0, 10]))
    def finish(self, chance: int, more: int) -> None:
        """The tunnel ends the call: well if all has left, else by taking it back."""
        if chance == 0 and not self.finished and not self.tunnel.ended:
            # `h2` does not bear an empty frame in a window that has become negative (RFC 9113, 6.9.1 allows it).
            self.server_changes_settings(1_000_000, 16_384)
            self.exchange()
            self._finish(more)

    def _finish(self, more: int) -> None:
        if not self.tunnel.ended:
            self.tunnel_sends(more)
            self.finished = True
            self.cancelled = not self.tunnel.finish()

    # ---------------------------------------------------------------- what holds

    @invariant()
    def bytes_come_in_order(self) -> None:
        assert bytes(self.down_sent).startswith(self.down_got)
        assert bytes(self.up_sent).startswith(self._read_up())

    def _read_up(self) -> bytes:
        """The bytes in the whole messages that the server has got."""
        found, at = bytearray(), 0
        while at + 5 <= len(self.up_got):
            size = int.from_bytes(self.up_got[at + 1 : at + 5], "big")
            if at + 5 + size > len(self.up_got):
                break
            message = self.up_got[at + 5 : at + 5 + size]
            start = 1
            while message[start] > 0x7F:
                start += 1
            found += message[start + 1 :]
            at += 5 + size
        return bytes(found)

    def teardown(self) -> None:
        """Every window opened: all has arrived that could."""
        for _ in range(100):
            if not self.ended and not self.reset_at_server:
                self.server_changes_settings(1_000_000, 16_384)
                self.server_acknowledges(1)
            self.exchange()
            if not self.unacknowledged:
                break
        if not self.cancelled:
            if not self.ended:
                assert self._read_up() == self.up_sent
            assert self.down_got == self.down_sent
        if self.ended:
            assert self.tunnel.ended and (self.cancelled or self.tunnel.status == self.status)


AgainstServer.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAgainstServer = AgainstServer.TestCase
