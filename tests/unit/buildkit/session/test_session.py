"""The session joined to a byte stream: calls, backpressure, and an end in bounded time whatever happens."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from cogkit.buildkit.errors import BuildError, SessionProtocolError
from cogkit.buildkit.session import session as session_module
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.session import Session
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.buildkit.transport.http2 import ErrorCode, Limits
from tests.unit import http2_wire as wire
from tests.unit.http2_wire import Frame

METHOD = "/pkg.Service/Method"
HEALTH = "/grpc.health.v1.Health/Check"


class OneMethod:
    """A service with one handler."""

    def __init__(self, handler: Handler, method: str = METHOD):
        self._methods = {method: handler}

    def methods(self) -> Mapping[str, Handler]:
        return self._methods


class Pipe:
    """A `ByteStream` whose other end is the test."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.outgoing = bytearray()
        self.writable = asyncio.Event()
        self.writable.set()
        self.closed = False

    async def read(self) -> bytes:
        piece = await self.incoming.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def write(self, data: bytes) -> None:
        await self.writable.wait()
        self.outgoing += data

    async def close(self) -> None:
        self.closed = True


class Daemon:
    """The far end of a session: speaks frames, and waits for what comes back."""

    def __init__(self, *services: OneMethod, pipe: Pipe | None = None, **options: Any):
        self.pipe = pipe or Pipe()
        self.session = Session(services, **options)
        self.running = asyncio.create_task(self.session.run(self.pipe))
        self.output = wire.ServerOutput()
        self.frames: list[Frame] = []
        self._fields: dict[int, dict[str, str]] = {}
        self._read = 0
        self.say(wire.opening())

    def say(self, *pieces: bytes) -> None:
        self.pipe.incoming.put_nowait(b"".join(pieces))

    def call(
        self, stream_id: int, *messages: bytes, method: str = METHOD, ends: bool = True, timeout: str = ""
    ) -> None:
        fields = [(key, method if key == ":path" else value) for key, value in wire.CALL]
        if timeout:
            fields.append(("grpc-timeout", timeout))
        body = b"".join(map(wire.grpc_message, messages))
        self.say(wire.headers(stream_id, fields), wire.data(stream_id, body, wire.END_STREAM if ends else 0))

    def parse(self) -> None:
        stream = bytes(self.pipe.outgoing)
        frames = list(wire.split_frames(stream))
        for sent in frames[len(self.frames) :]:
            if sent.kind == wire.HEADERS:
                fields = self.output.fields(sent)
                self._fields.setdefault(sent.stream_id, {}).update(fields)
        self.frames = frames

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.parse()
            if condition():
                return
            assert time.monotonic() < deadline, f"did not happen; sent so far: {self.frames[-5:]}"
            await asyncio.sleep(0.002)

    async def status(self, stream_id: int) -> tuple[int, str]:
        """The status and message that the call ended with."""
        await self.until(lambda: "grpc-status" in self._fields.get(stream_id, {}))
        fields = self._fields[stream_id]
        return int(fields["grpc-status"]), fields.get("grpc-message", "")

    def body(self, stream_id: int) -> bytes:
        return b"".join(f.payload for f in self.frames if f.kind == wire.DATA and f.stream_id == stream_id)

    async def begun(self, stream_id: int) -> None:
        """Wait until the call's handler has sent its first message."""
        await self.until(lambda: self.body(stream_id) != b"")

    async def hang_up(self) -> None:
        self.say(b"")
        await asyncio.wait_for(self.running, 5)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def echo(stream: ServerStream) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


async def forever(stream: ServerStream) -> None:
    await stream.send(b"begun")
    await asyncio.Event().wait()


def raising(error: Exception) -> Handler:
    async def handler(stream: ServerStream) -> None:
        raise error

    return handler


# ------------------------------------------------------------------------------------------------- introduction


def test_session_id_looks_like_buildkits() -> None:
    identities = {Session([]).id for _ in range(200)}
    assert len(identities) == 200
    assert all(re.fullmatch("[0-9a-z]{25}", identity) for identity in identities)


def test_headers_introduce_id_shared_key_and_methods() -> None:
    session = Session([OneMethod(echo)], shared_key="node:dir", session_id="abc")
    assert session.headers() == [
        ("x-docker-expose-session-uuid", "abc"),
        ("x-docker-expose-session-sharedkey", "node:dir"),
        ("x-docker-expose-session-grpc-method", "/grpc.health.v1.Health/Check"),
        ("x-docker-expose-session-grpc-method", "/grpc.health.v1.Health/Watch"),
        ("x-docker-expose-session-grpc-method", METHOD),
    ]


def test_two_services_cannot_answer_one_method() -> None:
    with pytest.raises(ValueError, match=METHOD):
        Session([OneMethod(echo), OneMethod(forever)])


# ------------------------------------------------------------------------------------------------- calls


def test_messages_come_back_in_order() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(echo))
        daemon.call(1, b"one", b"", b"three")
        assert await daemon.status(1) == (0, "")
        assert daemon.body(1) == b"".join(map(wire.grpc_message, (b"one", b"", b"three")))
        await daemon.hang_up()
        assert daemon.session.errors == []

    run(scenario)


def test_handler_sees_method_and_metadata() -> None:
    async def scenario() -> None:
        seen: list[tuple[str, object]] = []

        async def handler(stream: ServerStream) -> None:
            seen.append((stream.method, stream.metadata["content-type"]))

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        assert await daemon.status(1) == (0, "")
        assert seen == [(METHOD, (b"application/grpc",))]
        await daemon.hang_up()

    run(scenario)


def test_unknown_method_is_unimplemented_at_once() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.call(1, b"x", method="/moby.new.v9.Service/Call", ends=False)
        assert await daemon.status(1) == (12, "unknown method /moby.new.v9.Service/Call")
        await daemon.hang_up()

    run(scenario)


@pytest.mark.parametrize(
    ("service", "answer"), [(b"", (0, "")), (b"\x0a\x0bpkg.Service", (0, "")), (b"\x0a\x01x", (5, "unknown service"))]
)
def test_health_is_always_served(service: bytes, answer: tuple[int, str]) -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(echo))
        daemon.call(1, service, method=HEALTH)
        assert await daemon.status(1) == answer
        assert daemon.body(1) == (wire.grpc_message(b"\x08\x01") if not answer[0] else b"")
        await daemon.hang_up()

    run(scenario)


@pytest.mark.parametrize("bad", [b"\x0a\x05x", b"\xff", b"\x0a\xff", b"\x0b", b"\x0a\x01\xff", b"\xff" * 11])
def test_health_request_that_cannot_be_decoded_fails(bad: bytes) -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.call(1, bad, method=HEALTH)
        assert (await daemon.status(1))[0] == 13
        await daemon.hang_up()

    run(scenario)


def test_health_request_may_carry_fields_of_the_future() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.call(1, b"\x10\x96\x01\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x2a\x02hi\x0a\x00", method=HEALTH)
        assert await daemon.status(1) == (0, "")
        await daemon.hang_up()

    run(scenario)


def test_health_watch_tells_the_state_once_and_waits() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.call(1, b"", method="/grpc.health.v1.Health/Watch")
        daemon.call(3, b"\x0a\x01x", method="/grpc.health.v1.Health/Watch")
        await daemon.until(lambda: daemon.body(1) == wire.grpc_message(b"\x08\x01"))
        await daemon.until(lambda: daemon.body(3) == wire.grpc_message(b"\x08\x03"))
        await daemon.hang_up()

    run(scenario)


def test_call_error_becomes_the_status_and_its_cause_is_kept() -> None:
    async def scenario() -> None:
        cause = BuildError("no such mount")
        daemon = Daemon(OneMethod(raising(CallError(StatusCode.NOT_FOUND, "no access", cause=cause))))
        daemon.call(1)
        assert await daemon.status(1) == (5, "no access")
        await daemon.hang_up()
        assert daemon.session.errors == [cause]

    run(scenario)


def test_call_error_without_a_cause_is_the_daemons_business_only() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(raising(CallError(StatusCode.NOT_FOUND, "no access"))))
        daemon.call(1)
        assert (await daemon.status(1))[0] == 5
        await daemon.hang_up()
        assert daemon.session.errors == []
        assert daemon.session.refusal == "no access"

    run(scenario)


def test_unexpected_exception_is_internal_and_kept() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(raising(ZeroDivisionError("by zero"))))
        daemon.call(1)
        assert await daemon.status(1) == (13, "by zero")
        await daemon.hang_up()
        assert [type(error) for error in daemon.session.errors] == [ZeroDivisionError]

    run(scenario)


def test_call_error_inside_a_task_group_is_still_the_status() -> None:
    async def scenario() -> None:
        cause = BuildError("unreadable")

        async def handler(stream: ServerStream) -> None:
            async def fail() -> None:
                raise CallError(StatusCode.DATA_LOSS, "lost", cause=cause)

            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(10))
                group.create_task(fail())

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        assert await daemon.status(1) == (15, "lost")
        await daemon.hang_up()
        assert daemon.session.errors == [cause]

    run(scenario)


def test_errors_of_a_hostile_daemons_calls_are_not_kept_without_end() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(raising(RuntimeError("again"))))
        for number in range(300):
            daemon.call(2 * number + 1)
        assert (await daemon.status(599))[0] == 13
        await daemon.hang_up()
        assert len(daemon.session.errors) == 100

    run(scenario)


def test_malformed_message_fails_its_call_only() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(echo))
        daemon.say(wire.headers(1), wire.data(1, wire.grpc_message(b"x", compressed=1)))
        daemon.call(3, b"fine")
        assert (await daemon.status(1))[0] == 13
        assert (await daemon.status(3))[0] == 0
        await daemon.hang_up()

    run(scenario)


def test_two_tasks_cannot_receive_from_one_call() -> None:
    async def scenario() -> None:
        async def handler(stream: ServerStream) -> None:
            first = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            try:
                await stream.receive()
            finally:
                first.cancel()

        daemon = Daemon(OneMethod(handler))
        daemon.say(wire.headers(1))
        assert await daemon.status(1) == (13, "two tasks receive from one call")
        await daemon.hang_up()

    run(scenario)


# ------------------------------------------------------------------------------------------------- cancellation


def test_reset_of_the_daemon_cancels_the_handler() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def handler(stream: ServerStream) -> None:
            try:
                await stream.send(b"begun")
                await stream.receive()
            finally:
                ended.set()

        daemon = Daemon(OneMethod(handler))
        daemon.say(wire.headers(1))
        await daemon.begun(1)
        daemon.say(wire.rst_stream(1))
        await asyncio.wait_for(ended.wait(), 5)
        await daemon.hang_up()
        assert daemon.session.errors == []

    run(scenario)


def test_tasks_that_outlive_their_call_are_told_so() -> None:
    async def scenario() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def handler(stream: ServerStream) -> None:
            tasks.append(asyncio.create_task(stream.receive()))
            tasks.append(asyncio.create_task(stream.send(bytes(3 << 20))))
            await asyncio.Event().wait()

        daemon = Daemon(OneMethod(handler))
        daemon.say(wire.headers(1))
        await daemon.begun(1)
        daemon.say(wire.rst_stream(1))
        await asyncio.wait(tasks, timeout=5)
        for task in tasks:
            error = task.exception()
            assert isinstance(error, CallError) and error.code == StatusCode.CANCELLED
        await daemon.hang_up()

    run(scenario)


def test_request_and_reset_in_one_read_leave_nothing() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.say(wire.headers(1), wire.rst_stream(1), wire.headers(3), wire.rst_stream(3))
        daemon.call(5, b"", method=HEALTH)
        assert (await daemon.status(5))[0] == 0
        await daemon.hang_up()

    run(scenario)


def test_deadline_cancels_the_handler_and_is_told() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.call(1, timeout="20m")
        assert await daemon.status(1) == (4, "the call's deadline has passed")
        daemon.call(3, timeout="0S")
        assert (await daemon.status(3))[0] == 4
        await daemon.hang_up()

    run(scenario)


def test_deadline_is_told_even_if_the_handler_is_slow_to_stop() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def slow(stream: ServerStream) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await release.wait()

        daemon = Daemon(OneMethod(slow))
        daemon.call(1, timeout="10m")
        assert (await daemon.status(1))[0] == 4
        release.set()
        await daemon.hang_up()

    run(scenario)


def test_calls_that_are_slow_to_stop_do_not_pile_up() -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        started = 0

        async def slow(stream: ServerStream) -> None:
            nonlocal started
            started += 1
            try:
                await asyncio.Event().wait()
            finally:
                await release.wait()

        daemon = Daemon(OneMethod(slow), limits=Limits(max_concurrent_streams=4))
        for number in range(8):
            daemon.say(wire.headers(2 * number + 1))
            await daemon.until(lambda number=number: started > number)  # type: ignore[misc]
            daemon.say(wire.rst_stream(2 * number + 1))
        daemon.call(99)
        assert (await daemon.status(99))[0] == 8
        assert started == 8
        release.set()
        await daemon.hang_up()

    run(scenario)


def test_deadline_that_does_not_pass_does_nothing() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(echo))
        daemon.call(1, b"x", timeout="99999999H")
        assert await daemon.status(1) == (0, "")
        await daemon.hang_up()

    run(scenario)


def test_handler_that_cancels_itself_ends_its_call_only() -> None:
    async def scenario() -> None:
        async def handler(stream: ServerStream) -> None:
            raise asyncio.CancelledError

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        assert (await daemon.status(1))[0] == 1
        daemon.call(3, b"", method=HEALTH)
        assert (await daemon.status(3))[0] == 0
        await daemon.hang_up()

    run(scenario)


# ------------------------------------------------------------------------------------------------- backpressure


def test_sender_waits_until_the_daemon_reads() -> None:
    async def scenario() -> None:
        sent: list[int] = []

        async def handler(stream: ServerStream) -> None:
            for number in range(100):
                await stream.send_many([bytes(10_000)] * 5)
                sent.append(number)

        daemon = Daemon(OneMethod(handler))
        daemon.say(wire.settings((wire.INITIAL_WINDOW, 0)))
        daemon.call(1)
        await daemon.until(lambda: len(sent) >= 15)
        await asyncio.sleep(0.05)
        assert len(sent) <= 25, "about 1 MiB may wait for a window that does not open"
        daemon.say(wire.window_update(0, 10 << 20), wire.window_update(1, 10 << 20))
        assert (await daemon.status(1))[0] == 0
        assert len(daemon.body(1)) == 500 * 10_005
        await daemon.hang_up()

    run(scenario)


def test_limits_with_another_low_water_do_not_stall() -> None:
    async def scenario() -> None:
        async def handler(stream: ServerStream) -> None:
            for _ in range(50):
                await stream.send(bytes(100_000))

        for low_water in (1_000, 4 << 20):
            daemon = Daemon(OneMethod(handler), limits=Limits(low_water=low_water))
            daemon.say(wire.window_update(0, 100 << 20), wire.settings((wire.INITIAL_WINDOW, 100 << 20)))
            daemon.call(1)
            assert (await daemon.status(1))[0] == 0
            await daemon.hang_up()

    run(scenario)


def test_receiver_that_does_not_read_stops_the_daemon_not_the_session() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.say(wire.headers(1))
        await daemon.begun(1)
        daemon.say(*[wire.data(1, bytes(13_107))] * 5)
        daemon.call(3, b"", method=HEALTH)
        assert (await daemon.status(3))[0] == 0
        updates = [f for f in daemon.frames if f.kind == wire.WINDOW_UPDATE and f.stream_id == 1]
        assert updates == []
        await daemon.hang_up()

    run(scenario)


def test_pings_are_answered_while_data_waits_and_before_it() -> None:
    async def scenario() -> None:
        async def handler(stream: ServerStream) -> None:
            await stream.send(bytes(1 << 20))
            await asyncio.Event().wait()

        daemon = Daemon(OneMethod(handler))
        daemon.say(wire.window_update(0, 10 << 20), wire.settings((wire.INITIAL_WINDOW, 10 << 20)))
        daemon.pipe.writable.clear()
        daemon.call(1)
        await asyncio.sleep(0.02)
        daemon.say(wire.frame(wire.PING, payload=b"bdpprobe"))
        await asyncio.sleep(0.02)
        daemon.pipe.writable.set()
        await daemon.until(lambda: any(f.kind == wire.PING for f in daemon.frames))
        await daemon.until(lambda: len(daemon.body(1)) > 1 << 20)
        kinds = [f.kind for f in daemon.frames]
        assert kinds.count(wire.DATA) == 65
        assert kinds.index(wire.PING) < 40, "a ping waits for one chunk at most"
        await daemon.hang_up()

    run(scenario)


def test_many_small_messages_leave_in_large_chunks() -> None:
    async def scenario() -> None:
        chunks: list[int] = []

        class Counting(Pipe):
            async def write(self, data: bytes) -> None:
                chunks.append(len(data))
                await super().write(data)

        async def handler(stream: ServerStream) -> None:
            for _ in range(50):
                await stream.send_many([bytes(128)] * 1_000)

        daemon = Daemon(OneMethod(handler), pipe=Counting())
        daemon.say(wire.window_update(0, 100 << 20), wire.settings((wire.INITIAL_WINDOW, 100 << 20)))
        daemon.call(1)
        assert (await daemon.status(1))[0] == 0
        assert len(daemon.body(1)) == 50_000 * 133
        assert len(chunks) < 60 and max(chunks) <= 256 << 10
        await daemon.hang_up()

    run(scenario)


def test_health_checks_alone_are_no_sign_that_the_daemon_hears_us() -> None:
    async def scenario() -> None:
        heard: list[float] = []
        daemon = Daemon(OneMethod(echo), on_heard=lambda: heard.append(time.monotonic()))
        await daemon.until(lambda: len(heard) == 1)  # its SETTINGS
        for stream_id in (1, 3):
            daemon.call(stream_id, b"", method=HEALTH)
            assert (await daemon.status(stream_id))[0] == 0
        daemon.say(wire.headers(5, [(key, HEALTH if key == ":path" else value) for key, value in wire.CALL]))
        daemon.say(wire.rst_stream(5))
        daemon.call(7, b"", method=HEALTH)
        assert (await daemon.status(7))[0] == 0
        assert len(heard) == 1
        daemon.say(wire.window_update(0, 100))
        await daemon.until(lambda: len(heard) == 2)
        daemon.call(9, b"x")
        await daemon.until(lambda: len(heard) == 3)
        await daemon.hang_up()

    run(scenario)


# ------------------------------------------------------------------------------------------------- the end


def test_end_of_the_stream_ends_the_session_and_its_handlers() -> None:
    async def scenario() -> None:
        cancelled: list[str] = []

        async def handler(stream: ServerStream) -> None:
            try:
                await forever(stream)
            except asyncio.CancelledError:
                cancelled.append(stream.method)
                raise

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        await daemon.begun(1)
        await daemon.hang_up()
        assert cancelled == [METHOD] and daemon.pipe.closed

    run(scenario)


def test_broken_protocol_is_an_error_and_the_daemon_is_told() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.call(1)
        daemon.say(wire.data(0, b"x"))
        with pytest.raises(SessionProtocolError, match=r"DATA on stream 0 \(PROTOCOL_ERROR\)"):
            await asyncio.wait_for(daemon.running, 5)
        daemon.parse()
        assert daemon.frames[-1].kind == wire.GOAWAY and daemon.frames[-1].code == ErrorCode.PROTOCOL_ERROR
        assert daemon.pipe.closed

    run(scenario)


def test_broken_protocol_ends_even_if_nobody_reads_the_goaway() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.pipe.writable.clear()
        daemon.say(wire.data(0, b"x"))
        started = time.monotonic()
        with pytest.raises(SessionProtocolError):
            await asyncio.wait_for(daemon.running, 5)
        assert time.monotonic() - started < 30

    run(scenario)


def test_failed_read_is_the_sessions_error() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        daemon.pipe.incoming.put_nowait(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(daemon.running, 5)
        assert daemon.pipe.closed

    run(scenario)


def test_failed_write_is_the_sessions_error() -> None:
    async def scenario() -> None:
        class Broken(Pipe):
            async def write(self, data: bytes) -> None:
                raise BrokenPipeError("gone")

        daemon = Daemon(pipe=Broken())
        with pytest.raises(BrokenPipeError):
            await asyncio.wait_for(daemon.running, 5)

    run(scenario)


def test_close_of_a_session_without_calls_takes_no_time() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(echo))
        daemon.call(1, b"x")
        await daemon.status(1)
        started = time.monotonic()
        await daemon.session.close()
        assert time.monotonic() - started < 0.45, "nothing had to be waited for"
        await daemon.running

    run(scenario)


def test_close_lets_a_running_call_finish_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def handler(stream: ServerStream) -> None:
            await stream.send(b"begun")
            await release.wait()
            await stream.send(b"done")

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        await daemon.begun(1)
        closing = asyncio.create_task(daemon.session.close())
        await daemon.until(lambda: any(f.kind == wire.GOAWAY for f in daemon.frames))
        daemon.call(3)
        await daemon.until(lambda: any(f.kind == wire.RST_STREAM and f.stream_id == 3 for f in daemon.frames))
        release.set()
        await closing
        await daemon.running
        assert await daemon.status(1) == (0, "")
        assert daemon.body(1).endswith(b"done") and daemon.pipe.closed

    run(scenario)


def test_close_cancels_a_call_that_does_not_finish() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.call(1)
        await daemon.begun(1)
        started = time.monotonic()
        await daemon.session.close()
        assert time.monotonic() - started < 30
        assert await daemon.status(1) == (1, "the call was cancelled by the session")
        await daemon.running

    run(scenario)


def test_close_may_come_twice_before_the_run_and_after_it() -> None:
    async def scenario() -> None:
        session = Session([])
        await session.close()
        pipe = Pipe()
        await asyncio.wait_for(session.run(pipe), 5)
        assert pipe.closed
        await asyncio.gather(session.close(), session.close())

    run(scenario)


def test_session_runs_once() -> None:
    async def scenario() -> None:
        daemon = Daemon()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await daemon.session.run(Pipe())
        await daemon.hang_up()

    run(scenario)


def test_handler_that_refuses_to_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_STOP_SECONDS", 0.1)

    async def scenario() -> None:
        release = asyncio.Event()

        async def stubborn(stream: ServerStream) -> None:
            await stream.send(b"begun")
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        daemon = Daemon(OneMethod(stubborn))
        daemon.call(1)
        await daemon.begun(1)
        started = time.monotonic()
        await daemon.session.close()
        assert time.monotonic() - started < 30
        (error,) = daemon.session.errors
        assert "did not stop" in str(error)
        release.set()

    run(scenario)


@pytest.mark.parametrize("stuck", ["read", "write", "close"])
def test_transport_that_hangs_does_not_hang_the_close(stuck: str) -> None:
    async def scenario() -> None:
        async def hang(*arguments: object) -> bytes:
            await asyncio.Event().wait()
            return b""

        pipe = Pipe()
        setattr(pipe, stuck, hang)
        daemon = Daemon(pipe=pipe)
        await asyncio.sleep(0.01)
        started = time.monotonic()
        await daemon.session.close()
        await daemon.running
        assert time.monotonic() - started < 30

    run(scenario)


def test_cancelled_run_cleans_up() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def handler(stream: ServerStream) -> None:
            try:
                await forever(stream)
            finally:
                ended.set()

        daemon = Daemon(OneMethod(handler))
        daemon.call(1)
        await daemon.begun(1)
        daemon.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await daemon.running
        assert ended.is_set() and daemon.pipe.closed
        await daemon.session.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)


def test_no_task_is_left_when_a_session_has_ended() -> None:
    async def scenario() -> None:
        daemon = Daemon(OneMethod(forever))
        daemon.call(1, timeout="1H")
        daemon.call(3, b"", method="/grpc.health.v1.Health/Watch")
        await daemon.begun(1)
        await daemon.begun(3)
        await daemon.hang_up()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)
