"""A program whose standard input and output are the two ends of one stream to a daemon.

The program gets one end of a socket pair and we keep the other, so that whoever uses the stream sees a socket as any
other.  It cannot outlive this process: it is told when its input ends, and on Linux the kernel ends it besides.  This
file must not know what the program is.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

_KEPT = 8 << 10
_POLL = 0.01
_PATIENCE = 0.5


class ChildProcess:
    """See `start`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], stream: socket.socket, errors: int) -> None:
        self.name = name
        self.stream = stream
        """Our end, non-blocking.  Whoever takes it closes it."""
        self._process = process
        self._errors = errors
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(errors, self._read_errors)

    @classmethod
    def start(cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Self:
        """Start a program from PATH; the loop must be running, in a thread that lives as long as the program.

        Raises:
            FileNotFoundError: there is no such program.
            OSError: it cannot be started.
        """
        name = arguments[0]
        path = shutil.which(name)
        if path is None:
            raise FileNotFoundError(name)
        ours, theirs = socket.socketpair()
        errors, errors_in = os.pipe()
        try:
            process = subprocess.Popen(
                [*_ended_with_us(), path, *arguments[1:]],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors_in,
                env=environment,
                # An interrupt from the terminal is for us: the build ends in order first.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
            os.close(errors_in)
        ours.setblocking(False)
        os.set_blocking(errors, False)
        return cls(name, process, ours, errors)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """The end of what it wrote to its standard error."""
        return self._said.decode(errors="replace")

    async def outcome(self, patience: float) -> int | None:
        """Its exit code, with all that it said; None if it still runs after ``patience`` seconds."""
        deadline = self._loop.time() + patience
        while (code := self._process.poll()) is None:
            if self._loop.time() >= deadline:
                return None
            await asyncio.sleep(_POLL)
        self._read_errors()
        return code

    async def end(self) -> None:
        """End it, and wait until it has.  Idempotent."""
        self._forget_errors()
        if self._process.poll() is None:
            if self.name == "ssh":
                self._process.terminate()  # it ends its own helpers, such as a ProxyCommand
            else:
                # docker's clients take no notice of a polite word, and have nothing to put in order.
                self._process.kill()
            if await self.outcome(_PATIENCE) is None:
                self._process.kill()
                await self.outcome(_PATIENCE)

    def _read_errors(self) -> None:
        while self._errors >= 0:
            try:
                data = os.read(self._errors, _KEPT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._forget_errors()
                return
            self._said = (self._said + data)[-_KEPT:]

    def _forget_errors(self) -> None:
        if self._errors >= 0:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._errors)
            os.close(self._errors)
            self._errors = -1


def _ended_with_us() -> Sequence[str]:
    """What to put before a command so that the kernel ends it with the thread that starts it; nothing if it cannot."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return () if setpriv is None or _is_busybox(setpriv) else (setpriv, "--pdeathsig", "KILL", "--")


def _is_busybox(path: str) -> bool:
    # Its setpriv does not know --pdeathsig.
    return os.path.basename(os.path.realpath(path)) == "busybox"
