"""A link to a daemon that breaks when it is told to: carries bytes, counts them, and fails at a chosen one.

It stands between cogkit and a buildkitd on a unix socket, and listens on a unix socket or on TCP itself.  What it does
to the bytes are things a network does: nothing is changed in them.  This file must not know what they mean.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Listen = Literal["unix", "tcp"]

_PIECE = 1 << 16


class Way(Enum):
    """A direction, seen from cogkit."""

    UP = "up"
    DOWN = "down"


@dataclass
class _Lane:
    """One direction of the link, over all of its connections."""

    carried: int = 0
    marks: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    stalled: bool = False
    rate: float | None = None


class _Connection:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far

    def ends(self, way: Way) -> tuple[socket.socket, socket.socket]:
        """From where to where bytes go in that direction."""
        return (self.near, self.far) if way is Way.UP else (self.far, self.near)

    def break_off(self, *, reset: bool) -> None:
        """End both ends' connections; ``reset`` makes TCP say so with RST instead of FIN."""
        for end in (self.near, self.far):
            with suppress(OSError):
                if reset and end.family == socket.AF_INET:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it; what is sent is the close's RST
                    end.close()
                else:
                    # Not closed: a thread may be about to use it, and the number could be another file's by then.
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.near.close()
        self.far.close()


class Proxy:
    """A link from `address` to a daemon's socket.  A context manager; every method may be called by any thread.

    Args:
        backend: The daemon's socket.
        folder: For its own socket.
        listen: What it listens on.
        buffer: Bytes of each direction that the link itself takes and holds while it is slow (see `slow_down`).

    Attributes:
        address: What to give to ``--addr``.
    """

    def __init__(self, backend: Path, folder: Path, listen: Listen = "unix", *, buffer: int = _PIECE) -> None:
        self._backend = backend
        self._buffer = buffer
        self._lanes = {way: _Lane() for way in Way}
        self._changed = threading.Condition()
        self._connections: list[_Connection] = []
        self._broken: list[_Connection] = []
        self._closed = False
        if listen == "unix":
            path = folder / "proxy.sock"
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self.address = f"unix://{path}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def carried(self, way: Way) -> int:
        """Bytes that have gone through in a direction so far."""
        return self._lanes[way].carried

    # ---------------------------------------------------------------- what happens to the link

    def at(self, way: Way, byte: int, action: Callable[[], None]) -> None:
        """Call ``action`` when exactly ``byte`` bytes have gone through, before the next one does."""
        with self._changed:
            lane = self._lanes[way]
            lane.marks.append((byte, action))
            lane.marks.sort(key=lambda mark: mark[0])

    def cut(self, *, reset: bool = False, for_good: bool = False) -> None:
        """Break every connection; ``for_good`` lets no new one in."""
        if for_good:
            self._stop_listening()
        with self._changed:
            connections, self._connections = self._connections, []
            self._broken += connections
            self._changed.notify_all()
        for connection in connections:
            connection.break_off(reset=reset)

    def stall(self, *ways: Way) -> None:
        """Carry nothing any more in these directions; connections stay open, also new ones."""
        with self._changed:
            for way in ways or tuple(Way):
                self._lanes[way].stalled = True

    def half_close(self, way: Way, number: int | None = None) -> None:
        """Tell the receiver of that direction that its sender has ended; the other direction goes on.

        Args:
            way: The direction.
            number: Of the connection, in the order in which they came; None for all of them.
        """
        with self._changed:
            connections = list(self._connections)
        for connection in connections if number is None else [connections[number]]:
            with suppress(OSError):
                connection.ends(way)[1].shutdown(socket.SHUT_WR)

    def slow_down(self, bytes_per_second: float | None, *ways: Way) -> None:
        """Carry no more than this; the bytes that wait stand in the link's own buffer.  None takes it back."""
        with self._changed:
            for way in ways or tuple(Way):
                self._lanes[way].rate = bytes_per_second
            self._changed.notify_all()

    def close(self) -> None:
        """Break everything and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cut(for_good=True)
        for thread in self._threads:
            thread.join()
        for connection in self._broken:
            connection.close()

    # ---------------------------------------------------------------- threads

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._backend))
            except OSError:
                near.close()
                far.close()
                continue
            connection = _Connection(near, far)
            with self._changed:
                if self._closed:
                    connection.break_off(reset=False)
                    return
                self._connections.append(connection)
                for way in Way:
                    queue = _Queue(self._buffer)
                    for work in (self._take, self._give):
                        thread = threading.Thread(target=work, args=(connection, way, queue), daemon=True)
                        self._threads.append(thread)
                        thread.start()

    def _take(self, connection: _Connection, way: Way, queue: _Queue) -> None:
        """From the sender into the link's buffer."""
        source, _ = connection.ends(way)
        try:
            while data := source.recv(_PIECE):
                if not queue.put(data):
                    return
        except OSError:
            pass  # broken off, by us or by the sender: either way no more comes
        queue.end()

    def _give(self, connection: _Connection, way: Way, queue: _Queue) -> None:
        """From the link's buffer to the receiver, as fast as the link is."""
        _, sink = connection.ends(way)
        try:
            while (data := queue.get()) is not None:
                view = memoryview(data)
                while view:
                    if not self._wait_for_turn(connection, way):
                        return
                    rate = self._lanes[way].rate
                    piece = view if rate is None else view[: max(1, int(rate / 50))]
                    piece = self._up_to_mark(way, piece)
                    if not piece:
                        continue
                    sink.sendall(piece)
                    with self._changed:
                        self._lanes[way].carried += len(piece)
                    view = view[len(piece) :]
                    if rate is not None:
                        time.sleep(len(piece) / rate)
                self._up_to_mark(way, memoryview(b""))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the receiver is gone
        finally:
            queue.abandon()

    def _up_to_mark(self, way: Way, piece: memoryview) -> memoryview:
        """Do what is to be done at the place where the link is now; returns what may go before the next such place."""
        lane = self._lanes[way]
        while True:
            with self._changed:
                if not lane.marks or lane.marks[0][0] > lane.carried:
                    return piece[: lane.marks[0][0] - lane.carried] if lane.marks else piece
                _, action = lane.marks.pop(0)
            action()
            piece = piece[:0]  # the action may have changed the link: look at it again

    def _wait_for_turn(self, connection: _Connection, way: Way) -> bool:
        """Wait while the direction is stalled; False when the connection is over."""
        with self._changed:
            while self._lanes[way].stalled and connection in self._connections:
                self._changed.wait()
            return connection in self._connections


class _Queue:
    """Bytes in the link, bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._abandoned = False

    def put(self, data: bytes) -> bool:
        """Wait for room; False if nobody takes it."""
        with self._changed:
            while self._held >= self._limit and not self._abandoned:
                self._changed.wait()
            self._pieces.append(data)
            self._held += len(data)
            self._changed.notify_all()
            return not self._abandoned

    def get(self) -> bytes | None:
        """The next piece, None at the end."""
        with self._changed:
            while not self._pieces:
                if self._ended:
                    return None
                self._changed.wait()
            data = self._pieces.popleft()
            self._held -= len(data)
            self._changed.notify_all()
            return data

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
