"""``Control.Session`` on a stream of its own.

The one place that joins the state machine `Tunnel` to a socket.  Which streams may be used for this, and so surely meet
the daemon that the build is sent to, is for the dialers to know; elsewhere the session shares the connection of
grpc.aio (`connection.SessionTransport`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

import cogkit
from cogkit.buildkit.transport.tunnel import Tunnel

_BUFFERS = 512  # for one sendmsg; the kernel takes 1024
_GOODBYE = 0.3
_ENDED = "it ended the session"


class DirectStream:
    """The bytes of one session (`cogkit.buildkit.session.session.ByteStream`).

    The call is made at once, in the event loop that must be running.

    Args:
        connection: A stream to the daemon, not blocking; it is ours from now on.
        method: The full method name.
        headers: Metadata of the call.
        on_room: Called when something could be sent that had to wait for the other end.
    """

    def __init__(
        self, connection: socket.socket, method: str, headers: Sequence[tuple[str, str]], on_room: Callable[[], None]
    ) -> None:
        self._socket = connection
        self._tunnel = Tunnel("localhost", method, (("user-agent", f"cogkit/{cogkit.__version__}"), *headers))
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._listening = False
        self._arrived = b""
        self._news: asyncio.Future[None] | None = None
        self._failure: ConnectionError | None = None
        self._unsent: deque[bytes | memoryview] = deque()
        self._full = False
        """The socket takes no more at the moment."""
        self._left = asyncio.Event()
        """Set when all that was written has left, or never will."""
        self._over = asyncio.Event()
        """Set when nothing more will come."""
        self._flush()

    async def read(self) -> bytes:
        """The next bytes; ``b""`` when the daemon has ended the stream.

        Raises:
            ConnectionError: the stream broke.
        """
        while not self._arrived or self._closed:
            if self._closed or self._tunnel.ended:
                return self._end()
            if self._failure is not None:
                raise self._failure
            self._resume()
            self._news = self._loop.create_future()
            await self._news
        data, self._arrived = self._arrived, b""
        return data

    def _end(self) -> bytes:
        code, text = self._tunnel.status
        if not self._closed and code:
            raise ConnectionError(text or _ENDED)
        return b""

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when the kernel has all of it.

        Raises:
            ConnectionError: the stream has ended.
        """
        self._require_open()
        self._left.clear()
        self._tunnel.send(data)
        self._flush()
        await self._left.wait()
        self._require_open()

    async def close(self) -> None:
        """End the stream in both directions.

        Waits a moment for the daemon to say that it knows, because on the other connection it could be asked for
        something else before it does.
        """
        self._closed = True
        self._tell()
        if self._is_connected and not self._full and self._tunnel.finish():
            self._flush()
            self._resume()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _GOODBYE)
        self._disconnect()

    # ---------------------------------------------------------------- the socket

    @property
    def _is_connected(self) -> bool:
        return self._socket.fileno() >= 0

    def _resume(self) -> None:
        if not self._listening and self._is_connected:
            self._listening = True
            self._loop.add_reader(self._socket.fileno(), self._receive)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._socket.fileno())

    def _receive(self) -> None:
        """Take in what has come.  While the session is busy with the last of it, the kernel keeps the next."""
        tunnel = self._tunnel
        if self._arrived and not self._closed:
            self._pause()
            return
        was_blocked = tunnel.blocked
        try:
            size = self._socket.recv_into(tunnel.room)
            if not size:
                raise ConnectionError("it closed the connection")
            self._arrived = tunnel.received(size)
        except BlockingIOError:
            return
        except OSError as error:
            self._failure = error if isinstance(error, ConnectionError) else ConnectionError(str(error))
            self._disconnect()
            return
        if was_blocked and not tunnel.blocked:
            self._on_room()
        self._flush()
        if tunnel.ended:
            self._pause()
            self._left.set()
            self._over.set()
        if self._arrived or tunnel.ended:
            self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _flush(self) -> None:
        """Give the socket what it takes; the rest follows when it takes more."""
        if self._full or not self._is_connected:
            return
        unsent = self._unsent
        while unsent or (data := self._tunnel.data_to_send()):
            if not unsent:
                unsent += data
            try:
                sent = self._socket.sendmsg(tuple(islice(unsent, _BUFFERS)))
            except BlockingIOError:
                self._full = True
                self._loop.add_writer(self._socket.fileno(), self._go_on)
                return
            except OSError:
                # What the daemon said before it left is still to be read, and the reader tells of the end.
                unsent.clear()
                self._full = True
                self._left.set()
                return
            _drop(unsent, sent)
        if not self._tunnel.backlog:
            self._left.set()

    def _go_on(self) -> None:
        self._full = False
        self._loop.remove_writer(self._socket.fileno())
        self._on_room()
        self._flush()

    def _require_open(self) -> None:
        if self._closed or self._tunnel.ended or not self._is_connected:
            raise ConnectionError(_ENDED)

    def _disconnect(self) -> None:
        if self._is_connected:
            self._pause()
            self._loop.remove_writer(self._socket.fileno())
            with suppress(OSError):
                self._socket.close()
        self._unsent.clear()
        self._tell()
        self._left.set()
        self._over.set()


def _drop(pieces: deque[bytes | memoryview], size: int) -> None:
    """Remove ``size`` bytes from the head of ``pieces``."""
    while size:
        length = len(pieces[0])
        if length > size:
            pieces[0] = memoryview(pieces[0])[size:]
            return
        pieces.popleft()
        size -= length
