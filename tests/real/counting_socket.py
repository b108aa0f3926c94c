"""A unix socket that leads to another one and counts the bytes that go there."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path


class CountingSocket:
    """Listens at ``path``; `sent` is what clients have sent so far."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.sent = 0
        self._target = target
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
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
            far.connect(str(self._target))
            for source, destination, counts in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._copy, args=(source, destination, counts), daemon=True).start()

    def _copy(self, source: socket.socket, destination: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(256 << 10):
                if counts:
                    with self._lock:
                        self.sent += len(data)
                destination.sendall(data)
        with suppress(OSError):
            destination.shutdown(socket.SHUT_WR)
