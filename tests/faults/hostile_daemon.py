"""A daemon that says what a test tells it: gRPC to the outside, and over the session whatever bytes it likes.

For what a real buildkitd will not do.  `HostileDaemon` runs a `Script` in a thread; a script overrides the calls that
it wants to answer in its own way.  It shares no protocol code with cogkit: gRPC is grpcio's, and HTTP/2 on the session
is python-hyper's ``h2`` (`Caller`) or bytes made by hand.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from cogkit._proto import control_pb2

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"

if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _Handler = grpc.GenericRpcHandler

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Refused(Exception):
    """Ends a call with a gRPC status.

    Args:
        code: The status.
        text: Its message.
        trailers: Trailing metadata.
    """

    def __init__(self, code: grpc.StatusCode, text: str, trailers: Sequence[tuple[str, str | bytes]] = ()) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.trailers = tuple(trailers)


class Raw:
    """What goes in place of a message, as it is.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        return self.data


class Gone(Exception):
    """cogkit has ended the session."""


class Link:
    """The session's bytes.

    Attributes:
        headers: What cogkit introduced the session with.
    """

    def __init__(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.headers = [(key, value) for key, value in context.invocation_metadata()]
        self._requests = requests
        self._context = context

    async def read(self) -> bytes:
        """The next bytes of cogkit, ``b""`` at the end."""
        try:
            async for message in self._requests:
                return control_pb2.BytesMessage.FromString(message).data
        except grpc.aio.UsageError:
            pass  # the call is over
        return b""

    async def write(self, data: bytes) -> None:
        try:
            await self._context.write(control_pb2.BytesMessage(data=data).SerializeToString())
        except grpc.aio.UsageError:
            raise Gone from None
        except Exception as error:
            if type(error).__name__ != "ExecuteBatchError":
                raise
            raise Gone from None

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return b"".join(parts)


class Script:
    """What the daemon does.  As it stands: it answers, opens no call on the session and ends every build well."""

    def __init__(self) -> None:
        self.link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        """Set when the Solve call has ended."""

    async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        return control_pb2.SolveResponse()

    async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
        await self.over.wait()
        nothing: list[control_pb2.StatusResponse] = []
        for response in nothing:
            yield response

    async def session(self, link: Link) -> None:
        self.link.set_result(link)
        await self.over.wait()

    async def bridge(self, method: str, request: bytes) -> bytes:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"no {method}")

    async def info(self) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse()

    async def control(self, method: str, request: bytes) -> bytes:
        """Any other call of the control API."""
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"no {method}")


class HostileDaemon(_Handler):
    """A `Script` behind a unix socket, in a thread of its own.  A context manager.

    Args:
        make_script: Makes the script, inside the daemon's event loop.
        compression: Of what the daemon sends.
        host: Listen there on TCP, with TLS if there are ``credentials``; on a unix socket without.
        credentials: The server's.

    Attributes:
        address: For ``--addr``.
        failures: What the script raised that it did not mean to say.
    """

    def __init__(
        self,
        make_script: Callable[[], Script],
        *,
        compression: grpc.Compression = grpc.Compression.NoCompression,
        host: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._make_script = make_script
        self._compression = compression
        self._host = host
        self._credentials = credentials
        self._folder = Path(tempfile.mkdtemp(prefix="cogkit-", dir="/tmp"))
        self.address = f"unix://{self._folder}/daemon.sock"
        self.failures: list[BaseException] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the script does not end"
        shutil.rmtree(self._folder)
        if error is None:
            assert not self.failures, f"the script failed: {self.failures!r}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.script = self._make_script()
        server = grpc.aio.server(handlers=[self], options=UNLIMITED, compression=self._compression)
        target = self.address.replace("unix://", "unix:") if self._host is None else f"{self._host}:0"
        if self._credentials is None:
            port = server.add_insecure_port(target)
        else:
            port = server.add_secure_port(target, self._credentials)
        if self._host is not None:
            self.address = f"tcp://{self._host}:{port}"
        await server.start()
        self._listening.set()
        await self._stop.wait()
        await server.stop(0)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        script = self.script
        if method == f"{CONTROL}Session":
            return grpc.stream_stream_rpc_method_handler(self._session)
        if method == f"{CONTROL}Status":
            return grpc.unary_stream_rpc_method_handler(self._status)
        if method == f"{CONTROL}Solve":
            return grpc.unary_unary_rpc_method_handler(self._solve)
        if method == f"{CONTROL}Info":
            return self._unary(lambda _: script.info())
        if method.startswith(BRIDGE):
            return self._unary(lambda request: script.bridge(method.removeprefix(BRIDGE), request))
        if method.startswith(CONTROL):
            return self._unary(lambda request: script.control(method.removeprefix(CONTROL), request))
        return None

    def _unary(self, answer: Callable[[bytes], Awaitable[Any]]) -> Any:
        async def call(request: bytes, context: Any) -> bytes:
            response = await self._guarded(answer(request), context)
            return response if isinstance(response, bytes) else bytes(response.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(call)

    async def _solve(self, request: bytes, context: Any) -> bytes:
        try:
            work = self.script.solve(control_pb2.SolveRequest.FromString(request))
            return bytes((await self._guarded(work, context)).SerializeToString())
        finally:
            self.script.over.set()

    async def _status(self, request: bytes, context: Any) -> None:
        async def send() -> None:
            async for response in self.script.status(control_pb2.StatusRequest.FromString(request)):
                await context.write(response.SerializeToString())

        await self._guarded(send(), context)

    async def _session(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._guarded(self.script.session(Link(requests, context)), context)

    async def _guarded(self, work: Awaitable[Any], context: Any) -> Any:
        try:
            return await work
        except Refused as refusal:
            context.set_trailing_metadata(refusal.trailers)
            await context.abort(refusal.code, refusal.text)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except BaseException as error:
            # What is written to a client that has gone fails; that is no news.
            if not context.cancelled() and type(error).__name__ not in ("ExecuteBatchError", "Gone"):
                self.failures.append(error)
            # Not raised on: gRPC would log it with its lines, and Python 3.11 does not bear two threads that parse.
            await context.abort(grpc.StatusCode.INTERNAL, f"the script failed: {error!r}")


@dataclass
class Answer:
    """What came back from a call on the session.  ``code`` is None as long as it has not ended."""

    code: int | None = None
    text: str = ""
    messages: list[bytes] = field(default_factory=list)
    reset: bool = False
    body: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> None:
        self.body += data
        while len(self.body) >= 5 and len(self.body) >= 5 + (size := int.from_bytes(self.body[1:5], "big")):
            self.messages.append(bytes(self.body[5 : 5 + size]))
            del self.body[: 5 + size]


class Caller:
    """Calls cogkit's services over a session as a gRPC client does.

    Args:
        link: The session.
        window: How much cogkit may send on a stream before more is allowed; more is allowed as it comes, if ``reads``.
    """

    def __init__(self, link: Link, *, window: int = 1 << 20, reads: bool = True) -> None:
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self._link = link
        self._reads = reads
        self._answers: dict[int, Answer] = {}
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self.over = False

    async def open(self) -> None:
        """Begin the conversation."""
        self._h2.initiate_connection()
        if self._reads:
            self._h2.increment_flow_control_window(1 << 30)
        await self._flush()
        self._reading = asyncio.create_task(self._read())

    async def start(
        self,
        method: str,
        *messages: bytes,
        metadata: Iterable[tuple[str, str]] = (),
        ends: bool = True,
        compressed: bool = False,
    ) -> tuple[int, Answer]:
        """Call a method; returns the stream's number and the answer that fills up."""
        number = self._h2.get_next_available_stream_id()
        answer = self._answers[number] = Answer()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        ]
        self._h2.send_headers(number, fields)
        flag = bytes((compressed,))
        body = b"".join(flag + len(message).to_bytes(4, "big") + message for message in messages)
        await self._flush()
        await self.pour(number, body, ends=ends)
        return number, answer

    async def call(
        self,
        method: str,
        *messages: bytes,
        metadata: Iterable[tuple[str, str]] = (),
        ends: bool = True,
        compressed: bool = False,
    ) -> Answer:
        """Call a method and wait for the end."""
        _, answer = await self.start(method, *messages, metadata=metadata, ends=ends, compressed=compressed)
        await self.until(lambda: answer.code is not None or answer.reset)
        return answer

    async def send(self, number: int, message: bytes) -> None:
        """One more message on a call."""
        self._h2.send_data(number, b"\0" + len(message).to_bytes(4, "big") + message)
        await self._flush()

    async def pour(self, number: int, body: bytes | memoryview, *, ends: bool = False) -> None:
        """Bytes on a call, as fast as cogkit takes them; what it resets takes no more."""
        body, answer = memoryview(body), self._answers[number]
        while body and not self.over and answer.code is None and not answer.reset:
            room = min(self._h2.local_flow_control_window(number), 16_384, len(body))
            if not room:
                self._news.clear()
                async with asyncio.timeout(10):
                    await self._news.wait()
                continue
            self._h2.send_data(number, bytes(body[:room]))
            body = body[room:]
            await self._flush()
        if ends and answer.code is None and not answer.reset and not self.over:
            self._h2.end_stream(number)
            await self._flush()

    async def reset(self, number: int) -> None:
        """Take a call back; one that cogkit has ended by itself is over."""
        with suppress(h2.exceptions.StreamClosedError):
            self._h2.reset_stream(number, 8)
            await self._flush()

    async def until(self, holds: Callable[[], bool], within: float = 10.0) -> None:
        """Wait for something that comes over the session."""
        async with asyncio.timeout(within):
            while not holds() and not self.over:
                self._news.clear()
                await self._news.wait()

    async def _flush(self) -> None:
        async with self._writing:
            if data := self._h2.data_to_send():
                await self._link.write(data)

    async def _read(self) -> None:
        with suppress(Gone):
            while data := await self._link.read():
                for event in self._h2.receive_data(data):
                    self._take(event)
                await self._flush()
                self._news.set()
        self.over = True
        self._news.set()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                fields = dict(event.headers or ())
                if b"grpc-status" in fields:
                    answer = self._answers[event.stream_id or 0]
                    answer.code, answer.text = int(fields[b"grpc-status"]), fields.get(b"grpc-message", b"").decode()
            case h2.events.DataReceived():
                self._answers[event.stream_id or 0].take(event.data or b"")
                if self._reads and event.flow_controlled_length:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
            case h2.events.StreamReset():
                answer = self._answers[event.stream_id or 0]
                answer.reset = answer.code is None
