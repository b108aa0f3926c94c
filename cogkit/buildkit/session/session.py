"""A session: services that the daemon calls while it builds, over a byte stream that we opened to it.

The only place that joins the sans-IO core (`GrpcServer`) to an event loop.  All protocol state belongs to that loop:
one task reads, one task writes, each call runs as a task of its own, and nothing here is locked or safe to touch from
other threads (a worker thread hands its results to the handler's task, which sends them).  This file must not know any
service but Health, nor where the byte stream comes from.

Lifetimes: a call's task is cancelled when the daemon resets the call, when its deadline passes and when the session
ends.  A session ends when the stream ends, when the peer breaks the protocol, or by `Session.close`; whatever the
reason, `Session.run` returns in bounded time, even if a handler or the transport does not cooperate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from cogkit.buildkit.errors import SessionProtocolError
from cogkit.buildkit.identity import new_id
from cogkit.buildkit.session.service import CallError, Handler, Metadata, Service
from cogkit.buildkit.session.services.health import CHECK, Health
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
from cogkit.buildkit.transport.http2 import ConnectionFailed, Limits, error_name

READ_SIZE: Final = 256 * 1024
"""Most bytes that `SocketByteStream.read` returns."""

_DRAIN_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 3.5
_FLUSH_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 0.5
_ERRORS_KEPT: Final = 100

_log = logging.getLogger(__name__)


class ByteStream(Protocol):
    """A connection to the daemon, as bytes.  One task reads and one task writes, never two."""

    async def read(self) -> bytes:
        """Some bytes, as soon as there are any; ``b""`` at the end."""

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; returns when the connection takes more."""

    async def close(self) -> None:
        """End the connection in both directions; harmless if it has ended."""


class SocketByteStream:
    """A `ByteStream` over asyncio's streams: TCP, unix sockets, a hijacked HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(READ_SIZE)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        # What the peer did to the connection is for read and write to tell.
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Session:
    """One session of a client with a daemon.

    Args:
        services: What the daemon may call.  Health is always served as well.
        shared_key: Names the client's node and directory, so that the daemon finds what it kept of an earlier transfer.
        session_id: The session's id; a new one if None.
        limits: What the connection may cost; see `Limits`.
        on_heard: Called when something came that the daemon cannot have sent without hearing us: anything but its
            health checks, which it sends to whoever may still be there.
        compress: Let services compress what they send, where the daemon understands it.

    Raises:
        ValueError: two services answer the same method.
    """

    def __init__(
        self,
        services: Iterable[Service],
        *,
        shared_key: str = "",
        session_id: str | None = None,
        limits: Limits | None = None,
        on_heard: Callable[[], None] = lambda: None,
        compress: bool = False,
    ):
        self.id = session_id or new_id()
        self.shared_key = shared_key
        self.errors: list[BaseException] = []
        self.refusal = ""
        """What the daemon was told last when it asked for something that there is not (NOT_FOUND)."""
        self._handlers = _collect(services)
        self._on_heard = on_heard
        self._compress = compress
        limits = limits or Limits()
        self._core = GrpcServer(limits=limits)
        self._high_water = 2 * limits.low_water
        self._max_tasks = 2 * limits.max_concurrent_streams
        self._calls: dict[int, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._output = asyncio.Event()
        self._flushed = asyncio.Event()
        self._closing = asyncio.Event()
        self._ended = asyncio.Event()
        self._started = False
        self._failure: ConnectionFailed | None = None

    def headers(self) -> list[tuple[str, str]]:
        """The metadata of ``Control.Session`` that introduces the session: its id, its shared key, its methods."""
        methods = [("x-docker-expose-session-grpc-method", method) for method in sorted(self._handlers)]
        introduction = [
            ("x-docker-expose-session-uuid", self.id),
            ("x-docker-expose-session-sharedkey", self.shared_key),
        ]
        return introduction + methods

    async def run(self, transport: ByteStream) -> None:
        """Serve the stream until it ends or `close` is called.  Call it once.

        The causes of failed calls are in `errors` afterwards; they do not end the session.

        Raises:
            SessionProtocolError: the daemon broke the protocol.
            Exception: what ``transport.read`` or ``transport.write`` raised.
        """
        if self._started:
            raise RuntimeError("a session runs once")
        self._started = True
        reading = asyncio.create_task(self._read(transport), name="session reader")
        writing = asyncio.create_task(self._write(transport), name="session writer")
        closing = asyncio.create_task(self._closing.wait(), name="session closing")
        abandoned = True
        try:
            await asyncio.wait({reading, writing, closing}, return_when=asyncio.FIRST_COMPLETED)
            if self._closing.is_set() and not reading.done() and not writing.done():
                await self._drain()
            abandoned = False
        finally:
            await self._stop(transport, reading, writing, closing, abandoned=abandoned)
            failures = [failure for task in (writing, reading) if (failure := _outcome(task)) is not None]
        # A failed write is told before the failed read that usually comes with it.
        if failures:
            raise failures[0]
        if self._failure is not None:
            reason = f"{self._failure.reason} ({error_name(self._failure.code)})"
            raise SessionProtocolError(f"the builder broke the session's protocol: {reason}")

    async def close(self) -> None:
        """End the session: calls get a moment to finish, then they are cancelled.  Idempotent; bounded by seconds."""
        self._closing.set()
        if self._started:
            await self._ended.wait()

    # ---------------------------------------------------------------- the two directions

    async def _read(self, transport: ByteStream) -> None:
        while data := await transport.read():
            health_checks = other_events = 0
            for event in self._core.receive(data):
                if self._is_health_check(event):
                    health_checks += 1
                else:
                    other_events += 1
                match event:
                    case Readable():
                        if (call := self._calls.get(event.call)) is not None:
                            call.wake_receiver()
                    case CallStarted():
                        self._start(event)
                        if len(self._tasks) >= self._max_tasks // 2:
                            # Calls that were reset meanwhile end when their tasks get a turn.
                            await asyncio.sleep(0)
                    case CallReset():
                        self._cancel(event.call)
                    case PeerGoingAway():
                        _log.debug("the builder goes away: %s %r", error_name(event.code), event.debug)
                    case ConnectionFailed():
                        self._failure = event
                        self._wake_writer()
                        return
            # Acknowledgements are not events, and are heard.
            if other_events or not health_checks:
                self._on_heard()
            self._wake_writer()
            # A transport with bytes at hand returns at once; the writer and the handlers must get their turns.
            await asyncio.sleep(0)

    def _is_health_check(self, event: Event) -> bool:
        if isinstance(event, CallStarted):
            return event.method == CHECK
        call = self._calls.get(event.call) if isinstance(event, Readable | CallReset) else None
        return call is not None and call.method == CHECK

    async def _write(self, transport: ByteStream) -> None:
        while True:
            data = self._core.data_to_send()
            for number in self._core.take_drained():
                if (call := self._calls.get(number)) is not None:
                    call.below_high_water.set()
            if data:
                await transport.write(data)
                continue
            self._flushed.set()
            await self._output.wait()
            self._output.clear()
            self._flushed.clear()

    def _wake_writer(self) -> None:
        if self._core.wants_write:
            self._flushed.clear()
            self._output.set()

    # ---------------------------------------------------------------- calls

    def _start(self, event: CallStarted) -> None:
        handler = self._handlers.get(event.method)
        if handler is None:
            self._core.finish(event.call, StatusCode.UNIMPLEMENTED, f"unknown method {event.method}")
            return
        if len(self._tasks) >= self._max_tasks:
            self._core.finish(event.call, StatusCode.RESOURCE_EXHAUSTED, "too many calls are still being stopped")
            return
        takes_gzip = self._compress and event.takes_gzip
        if takes_gzip:
            self._core.use_gzip(event.call)
        call = _Call(event, self._core, self._high_water, self._wake_writer, takes_gzip)
        self._calls[event.call] = call
        call.task = asyncio.create_task(self._serve(call, handler), name=f"session call {event.method}")
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)
        if event.timeout is not None:
            call.timer = asyncio.get_running_loop().call_later(event.timeout, self._expire, call)

    async def _serve(self, call: _Call, handler: Handler) -> None:
        try:
            await handler(call)
            self._finish(call, StatusCode.OK, "")
        except asyncio.CancelledError:
            self._finish(call, StatusCode.CANCELLED, "the call was cancelled by the session")
            raise
        except Exception as error:
            self._fail(call, error)
        finally:
            self._calls.pop(call.number, None)
            call.end()

    def _fail(self, call: _Call, error: Exception) -> None:
        """End a call whose handler raised; of a task group's several errors the first `CallError` makes the status."""
        leaves = list(_leaves(error))
        for leaf in leaves:
            cause = leaf.cause if isinstance(leaf, CallError) else leaf
            if cause is not None:
                self._keep(cause)
        told = next((leaf for leaf in leaves if isinstance(leaf, CallError)), None)
        if told is not None:
            if told.code is StatusCode.NOT_FOUND:
                self.refusal = told.message
            self._finish(call, told.code, told.message)
        else:
            self._finish(call, StatusCode.INTERNAL, str(leaves[0]) or type(leaves[0]).__name__)

    def _finish(self, call: _Call, code: StatusCode, message: str) -> None:
        if self._core.is_open(call.number):
            self._core.finish(call.number, code, message)
            self._wake_writer()

    def _keep(self, error: BaseException) -> None:
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(error)

    def _cancel(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.end()
            call.task.cancel()

    def _expire(self, call: _Call) -> None:
        self._finish(call, StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")
        self._cancel(call.number)

    # ---------------------------------------------------------------- the end

    async def _drain(self) -> None:
        """The orderly end: no new calls, a moment for those that run, then for what is queued."""
        self._core.go_away()
        self._wake_writer()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_DRAIN_SECONDS)

    async def _stop(
        self,
        transport: ByteStream,
        reading: asyncio.Task[None],
        writing: asyncio.Task[None],
        closing: asyncio.Task[Any],
        *,
        abandoned: bool,
    ) -> None:
        """End reader, calls, writer and transport, in this order and in bounded time, with the last bytes let out.

        Who abandons the session (cancels `run`) does not care for those, or knows that nobody takes them.
        """
        connected = not abandoned and not writing.done() and (self._failure is not None or not reading.done())
        try:
            await self._cancel_all((reading, closing))
            await self._cancel_all(self._tasks)
            if connected:
                self._wake_writer()
                await _bounded(self._flushed.wait(), _FLUSH_SECONDS)
        finally:
            await self._cancel_all((writing,))
            for call in self._calls.values():
                call.end()
            try:
                await _bounded(transport.close(), _CLOSE_SECONDS)
            except Exception:
                # The session's outcome is known by now; how the connection took its end cannot change it.
                _log.debug("closing the session's connection failed", exc_info=True)
            self._ended.set()

    async def _cancel_all(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        pending = [task for task in tasks if not task.done()]
        for task in pending:
            task.cancel()
        if pending:
            _, stuck = await asyncio.wait(pending, timeout=_STOP_SECONDS)
            for task in stuck:
                self._keep(RuntimeError(f"{task.get_name()} did not stop within {_STOP_SECONDS:g} s"))


class _Call:
    """A `ServerStream`: one call in progress."""

    task: asyncio.Task[None]

    def __init__(
        self,
        event: CallStarted,
        core: GrpcServer,
        high_water: int,
        wake_writer: Callable[[], None],
        takes_gzip: bool,
    ):
        self.number = event.call
        self.takes_gzip = takes_gzip
        self.timer: asyncio.TimerHandle | None = None
        self.below_high_water = asyncio.Event()
        self._event = event
        self._core = core
        self._high_water = high_water
        self._wake_writer = wake_writer
        self._readable: asyncio.Future[None] | None = None
        self._over = False

    @property
    def method(self) -> str:
        return self._event.method

    @property
    def metadata(self) -> Metadata:
        return self._event.metadata

    async def receive(self) -> bytes | None:
        messages = await self.receive_many(1)
        return messages[0] if messages else None

    async def receive_many(self, limit: int = 256) -> list[bytes]:
        while True:
            self._check_open()
            messages = self._core.take_messages(self.number, limit)
            if messages is not PENDING:
                self._wake_writer()
                return messages or []
            if self._readable is not None:
                raise RuntimeError("two tasks receive from one call")
            self._wake_writer()
            self._readable = asyncio.get_running_loop().create_future()
            try:
                await self._readable
            finally:
                self._readable = None

    async def send(self, message: bytes) -> None:
        await self.send_many((message,))

    async def send_many(self, messages: Iterable[bytes]) -> None:
        self._check_open()
        self._core.send_messages(self.number, messages)
        await self._sent()

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        self._check_open()
        self._core.send_framed(self.number, pieces)
        await self._sent()

    async def _sent(self) -> None:
        self._wake_writer()
        while self._core.backlog(self.number) > self._high_water:
            self.below_high_water.clear()
            await self.below_high_water.wait()
            self._check_open()

    def wake_receiver(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def end(self) -> None:
        """Nothing can be sent or received any more; tasks of the handler that wait for it are woken and told so."""
        self._over = True
        if self.timer is not None:
            self.timer.cancel()
        self.wake_receiver()
        self.below_high_water.set()

    def _check_open(self) -> None:
        if self._over or not self._core.is_open(self.number):
            raise CallError(StatusCode.CANCELLED, "the call is over")


def _collect(services: Iterable[Service]) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    for service in services:
        for method, handler in service.methods().items():
            if method in handlers:
                raise ValueError(f"two services answer {method}")
            handlers[method] = handler
    health = Health({method.split("/")[1] for method in handlers})
    return handlers | dict(health.methods())


def _outcome(task: asyncio.Task[None]) -> BaseException | None:
    """What the task raised; None if it returned, was cancelled or still runs."""
    return task.exception() if task.done() and not task.cancelled() else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or all those inside a group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _bounded(work: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Await ``work``, but give it up after ``seconds``: for steps of the end that nothing depends on."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work
