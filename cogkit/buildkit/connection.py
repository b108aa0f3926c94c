"""The gRPC channel to a daemon: opening it, calling over it, and noticing when nobody is at the other end any more.

This is the only file, with `solve` and `gateway`, that knows grpc.aio.  It hands out raw gRPC errors; what they mean is
said in `error_details`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

import cogkit
from cogkit._proto import control_pb2
from cogkit.buildkit.bounds import check_answer
from cogkit.buildkit.bytes_message import decode_bytes, encode_bytes
from cogkit.buildkit.connect.address import Address, TlsConfig
from cogkit.buildkit.connect.dialer import Dialer, dialer_for
from cogkit.buildkit.connect.private_socket import Bridge
from cogkit.buildkit.error_details import code_of, unreachable
from cogkit.buildkit.errors import BuilderUnreachableError, UnreadableAnswerError
from cogkit.buildkit.session.session import ByteStream
from cogkit.buildkit.transport.grpc_status import StatusCode

CONTROL = "/moby.buildkit.v1.Control/"
_SESSION = f"{CONTROL}Session"

T = TypeVar("T")
M = TypeVar("M", bound=Message)
MetadataPairs = Sequence[tuple[str, str | bytes]]

_MAX_MESSAGE = 16 << 20  # what buildkitd accepts and sends (containerd's defaults)
_MAX_METADATA = 16 << 20  # what grpc-go accepts, and so buildctl
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs
_LARGEST_PIECE = 256 << 10  # few messages cost gRPC least
_SMALLEST_PIECE = 16 << 10
_WAITED = 0.05  # a write that took so many seconds had to wait for room, that is, for the other end
_TOO_SLOW = 0.25
_SESSION_ENDED = "it ended the session"
_NO_REASON = "Internal error from Core"  # gRPC's words
_NO_BUILDKITD = "it speaks gRPC but is not a buildkitd"
_NO_ALPN = "missing selected ALPN property"  # gRPC's words
_DIAGNOSIS_SECONDS = 1.25
_ASK_EVERY = 1.0
_TICK = 0.25


class Connection:
    """A channel to one daemon.  Make it inside the event loop that will use it.

    Args:
        address: The daemon.
        tls: How to speak to it; plain text if None.
        silence_limit: Seconds without a sign of life after which a daemon counts as gone.
        compress: Sessions compress what they send.
        dialer: Leads there, and is closed with the connection; by default one that is made for the address.
    """

    def __init__(
        self,
        address: Address,
        tls: TlsConfig | None = None,
        *,
        silence_limit: float = 4.0,
        compress: bool = False,
        dialer: Dialer | None = None,
    ) -> None:
        self.address = address
        self.tls = tls
        self.compress = compress
        self.dialer = dialer or dialer_for(address, tls)
        self._silence_limit = silence_limit
        self._signs_of_life = 0
        self._bridge: Bridge | None = None
        self._options = _channel_options(address, tls)
        self._channel: Any = None
        """Made here where gRPC finds the way by itself, else by `check`."""
        if (target := address.grpc_target) is not None:
            if tls is None:
                self._channel = grpc.aio.insecure_channel(target, options=self._options)
            else:
                self._channel = grpc.aio.secure_channel(target, _credentials(tls), options=self._options)

    async def close(self) -> None:
        """End all calls and the connection."""
        if self._channel is not None:
            await self._channel.close(None)
        if self._bridge is not None:
            await self._bridge.close()
        await self.dialer.close()

    async def check(self, timeout: float | None = None, *, for_build: bool = False) -> None:
        """Make sure that a buildkitd answers within ``timeout`` seconds, by default those that the way there may take.

        Args:
            for_build: A session will follow; open its stream meanwhile.

        Raises:
            BuilderUnreachableError: none does; the message says why.
        """
        timeout = self.dialer.patience if timeout is None else timeout
        no_answer = f"no answer within {timeout:g} seconds"
        hello = asyncio.create_task(self._connect(timeout))
        silence: asyncio.Task[BuilderUnreachableError] | None = None
        try:
            if for_build:
                self.dialer.open_ahead()
            await asyncio.wait({hello}, timeout=max(timeout - _DIAGNOSIS_SECONDS, timeout / 2))
            if not hello.done():
                # Asked while there is still hope, so that the answer to why is not late.
                silence = asyncio.create_task(self.dialer.explain(no_answer))
            await hello
        except UnreadableAnswerError as error:
            raise await self.dialer.explain(_NO_BUILDKITD) from error
        except grpc.aio.AioRpcError as error:
            code = code_of(error)
            if code is StatusCode.DEADLINE_EXCEEDED and silence is not None:
                raise await silence from error
            if code is StatusCode.UNIMPLEMENTED:
                otherwise = _NO_BUILDKITD
            elif code is StatusCode.DEADLINE_EXCEEDED:
                otherwise = no_answer
            else:
                otherwise = (error.details() or code.name).rstrip(". ")
            raise await self.dialer.explain(otherwise) from error
        finally:
            tasks = [task for task in (hello, silence) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, timeout: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        if self._channel is None:
            await self._use_bridge()
        try:
            await self._say_hello(deadline)
        except grpc.aio.AioRpcError as error:
            if self.tls is None or _NO_ALPN not in (error.details() or ""):
                raise
            # gRPC refuses servers that do not confirm HTTP/2 in the TLS handshake, as buildkitd 0.13.  So TLS is done
            # by the dialer.
            await self._channel.close(None)
            await self._use_bridge()
            await self._say_hello(deadline)

    async def _use_bridge(self) -> None:
        """Have gRPC go through a private socket to a stream that the dialer opens."""
        self._bridge = await Bridge.open(self.dialer.open)
        self._channel = grpc.aio.insecure_channel(self._bridge.grpc_target, options=self._options)

    async def _say_hello(self, deadline: float) -> None:
        now = asyncio.get_running_loop().time
        info = control_pb2.InfoRequest()
        try:
            await self.unary(f"{CONTROL}Info", info, control_pb2.InfoResponse, timeout=deadline - now())
        except grpc.aio.AioRpcError as error:
            if code_of(error) is not StatusCode.UNIMPLEMENTED:
                raise
            workers = control_pb2.ListWorkersRequest()
            await self.unary(
                f"{CONTROL}ListWorkers", workers, control_pb2.ListWorkersResponse, timeout=deadline - now()
            )

    async def unary(
        self,
        method: str,
        request: Message,
        response_type: type[M],
        *,
        metadata: MetadataPairs = (),
        timeout: float | None = None,
        check: Callable[[bytes], None] | None = None,
    ) -> M:
        """Call and wait for the answer.

        Args:
            check: Called with the marshalled answer before it is read; may refuse it by raising.

        Raises:
            grpc.aio.AioRpcError: any status but OK.
            UnreadableAnswerError: the answer is no ``response_type``.
        """
        # Answers are decoded here: grpc.aio would log one that cannot be, and give None.
        call: Any = self._channel.unary_unary(method, request_serializer=_serialize, response_deserializer=bytes)
        answer: bytes = await call(request, metadata=metadata or None, timeout=timeout)
        return self._decoded(answer, method, response_type, check)

    async def stream(
        self,
        method: str,
        request: Message,
        response_type: type[M],
        *,
        metadata: MetadataPairs = (),
        check: Callable[[bytes], None] | None = None,
    ) -> AsyncGenerator[M, None]:
        """Call and yield the answers until the daemon ends them; leaving early cancels the call.

        Args:
            check: As in `unary`, for each answer.

        Raises:
            grpc.aio.AioRpcError: any status but OK.
            UnreadableAnswerError: an answer is no ``response_type``.
        """
        start: Any = self._channel.unary_stream(method, request_serializer=_serialize, response_deserializer=bytes)
        call = start(request, metadata=metadata or None)
        try:
            while (answer := await call.read()) is not _EOF:
                yield self._decoded(answer, method, response_type, check)
        finally:
            call.cancel()

    def duplex(self, method: str, response_type: type[M], *, metadata: MetadataPairs = ()) -> Duplex[M]:
        """Start a call in which both sides send as they like; to be closed."""
        start: Any = self._channel.stream_stream(method, request_serializer=_serialize, response_deserializer=bytes)

        def decoded(answer: bytes) -> M:
            return self._decoded(answer, method, response_type, None)

        return Duplex(start(metadata=metadata or None), decoded)

    def _decoded(self, answer: bytes, method: str, response_type: type[M], check: Callable[[bytes], None] | None) -> M:
        if check is not None:
            check(answer)
        check_answer(answer, response_type, method.rpartition("/")[2])
        try:
            return response_type.FromString(answer)
        except DecodeError as error:
            raise UnreadableAnswerError(self.address, method) from error

    async def session_stream(self, headers: Sequence[tuple[str, str]]) -> ByteStream:
        """Open ``Control.Session`` as a stream of bytes; ``headers`` name the session and its methods."""
        stream = await self.dialer.open_session(_SESSION, headers, self.note_sign_of_life)
        if stream is not None:
            return stream
        start: Any = self._channel.stream_stream(
            _SESSION, request_serializer=encode_bytes, response_deserializer=decode_bytes
        )
        return SessionTransport(start(metadata=headers), self.note_sign_of_life)

    async def guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, a call of this connection, for as long as the daemon shows that it lives.

        Raises:
            BuilderUnreachableError: it fell silent.
        """
        task, watch = asyncio.create_task(work), asyncio.create_task(self.watch())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else watch.result()
        finally:
            task.cancel()
            watch.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def watch(self) -> NoReturn:
        """Ask the daemon once a second whether it is there, until it does not say so for the silence limit.

        On a slow link the answer may have to wait behind what else is on its way, so other signs of life count as well
        (`note_sign_of_life`).  Only what the daemon cannot send without hearing us is one: a link that is dead in one
        direction still brings its health checks.  And a write of ours only if it had to wait for the other end: what
        the buffers on the way take at once shows nothing.

        This is not gRPC's keepalive: buildkitd has grpc-go's policy of one ping in five minutes and breaks connections
        that send more.  Time in which this very process did not run (stopped, asleep, busy) does not count.

        Raises:
            BuilderUnreachableError: it fell silent, or the connection broke.
        """
        loop = asyncio.get_running_loop()
        silent, since_asked, before = 0.0, 0.0, loop.time()
        seen = self._signs_of_life
        question: asyncio.Task[None] | None = None
        try:
            while silent < self._silence_limit:
                await asyncio.sleep(min(_TICK, self._silence_limit - silent))
                passed, before = min(loop.time() - before, 2 * _TICK), loop.time()
                silent, since_asked = silent + passed, since_asked + passed
                if seen != self._signs_of_life:
                    silent, seen = 0.0, self._signs_of_life
                if question is None:
                    if since_asked >= _ASK_EVERY:
                        question, since_asked = asyncio.create_task(self._ask()), 0.0
                elif question.done():
                    question.result()
                    question, silent = None, 0.0
        finally:
            if question is not None:
                question.cancel()
                await asyncio.gather(question, return_exceptions=True)
        raise unreachable(self.address, f"it has not answered for {self._silence_limit:g} seconds")

    def note_sign_of_life(self) -> None:
        """Something happened that shows that the daemon lives and hears us."""
        self._signs_of_life += 1

    async def _ask(self) -> None:
        try:
            await self.unary(f"{CONTROL}Info", control_pb2.InfoRequest(), control_pb2.InfoResponse)
        except UnreadableAnswerError:
            return
        except grpc.aio.AioRpcError as error:
            # Any answer of the daemon will do, also that it does not know the question.
            if code_of(error) in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
                raise unreachable(self.address, "it closed the connection") from error


class Duplex(Generic[M]):
    """A call in which both sides send, made by `Connection.duplex`."""

    def __init__(self, call: Any, decoded: Callable[[bytes], M]) -> None:
        self._call = call
        self._decoded = decoded

    async def read(self) -> M | None:
        """The daemon's next message; None when it has ended the call well.

        Raises:
            grpc.aio.AioRpcError: it ended the call with an error.
            UnreadableAnswerError: the message cannot be decoded.
        """
        answer = await self._call.read()
        return None if answer is _EOF else self._decoded(answer)

    async def write(self, message: Message) -> None:
        """Send a message; returns when there is room for more.

        Raises:
            grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError: the call has ended.
        """
        await self._call.write(message)

    def close(self) -> None:
        """End the call."""
        self._call.cancel()


class SessionTransport:
    """``Control.Session`` as the byte stream that a session runs on (`cogkit.buildkit.session.session.ByteStream`)."""

    def __init__(self, call: Any, on_room: Callable[[], None]) -> None:
        """``on_room`` is called when a write that had to wait for the other end could go on."""
        self._call = call
        self._on_room = on_room
        self._piece = 64 << 10
        self._closed = False

    async def read(self) -> bytes:
        """The next bytes; ``b""`` when the daemon has ended the stream.

        Raises:
            ConnectionError: the stream broke.
        """
        try:
            while (data := await self._call.read()) is not _EOF:
                if data:
                    return bytes(data)
        except grpc.aio.AioRpcError as error:
            raise ConnectionError(_why(error)) from error
        except asyncio.CancelledError:
            # grpc.aio raises this in the reader when *we* ended the stream, too; the reader was not cancelled then.
            if not self._closed or _is_being_cancelled():
                raise
        return b""

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when gRPC has room for more.

        Raises:
            ConnectionError: the stream has ended.
        """
        try:
            if len(data) <= self._piece:
                await self._write_piece(data)
            else:
                view, start = memoryview(data), 0
                while start < len(view):
                    end = start + self._piece
                    await self._write_piece(view[start:end])
                    start = end
        except grpc.aio.AioRpcError as error:
            raise ConnectionError(_why(error)) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ConnectionError(_SESSION_ENDED) from error

    async def _write_piece(self, piece: bytes | memoryview) -> None:
        """One message.  Over a slow link they are small, so that one sees it move."""
        clock = asyncio.get_running_loop().time
        began = clock()
        await self._call.write(piece)
        took = clock() - began
        if took >= _WAITED:
            self._on_room()
        if took >= _TOO_SLOW:
            self._piece = max(self._piece // 2, _SMALLEST_PIECE)
        elif took < _WAITED and len(piece) >= self._piece:
            self._piece = min(self._piece * 2, _LARGEST_PIECE)

    async def close(self) -> None:
        """End the stream in both directions."""
        self._closed = True
        self._call.cancel()


def _why(error: grpc.aio.AioRpcError) -> str:
    """The daemon's reason, if it got here: of a write that meets the end of the stream, gRPC knows none."""
    details = error.details() or ""
    return _SESSION_ENDED if not details or details.startswith(_NO_REASON) else details


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _channel_options(address: Address, tls: TlsConfig | None) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = [
        ("grpc.max_send_message_length", _MAX_MESSAGE),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        # A failed build's status holds its Dockerfile; unless told otherwise, gRPC drops some of more than 8 KiB.
        ("grpc.max_metadata_size", _MAX_METADATA),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA),
        ("grpc.primary_user_agent", f"cogkit/{cogkit.__version__}"),
        # One client, one connection: closing it must not wait for, nor hurt, another client of this process.
        ("grpc.use_local_subchannel_pool", 1),
        # A call that failed has failed; a solve cannot be sent twice.
        ("grpc.enable_retries", 0),
    ]
    if address.is_loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    tls.context()
    return grpc.ssl_channel_credentials(
        root_certificates=tls.trusted() or None,
        private_key=tls.key.read_bytes() if tls.key else None,
        certificate_chain=tls.cert.read_bytes() if tls.cert else None,
    )
