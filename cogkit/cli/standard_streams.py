"""Standard input, output and error, whatever state we were started in: closed, full, not blocking.

- A closed one is occupied before anything else is opened: else a file or connection of ours would get its number, and
  what is printed would go into it.
- What cannot be written to standard output is an error with one sentence.
- What cannot be written to standard error is lost, and changes nothing: neither the result nor the exit code.

This file must not import anything that takes time: it is there from the first moment on, for every command.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from cogkit.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def prepare() -> None:
    """Put the three streams in order; once, at the very start."""
    _occupy()
    sys.stdout = _writer(sys.stdout, _Output())
    sys.stderr = _writer(sys.stderr, _Error())
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")


def _occupy() -> None:
    """Fill the places of closed streams with what fails as a closed one does, but for errors, which may be lost."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            if number == 0:
                _occupy_input()
            else:
                # The lowest free number is the one that is closed.
                os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY)


def _occupy_input() -> None:
    """With a socket without a peer: a device could be read, also by its name ``/dev/stdin``."""
    import socket

    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach()


def _writer(before: TextIO | None, raw: io.FileIO) -> TextIO:
    """The stream that takes the place of Python's own, with the same text layer."""
    known = before if isinstance(before, io.TextIOWrapper) else None
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=known.encoding if known else "utf-8",
        errors=known.errors if known else "backslashreplace",
        line_buffering=known.line_buffering if known else True,
        write_through=known.write_through if known else False,
    )


class _Output(io.FileIO):
    """Standard output: what cannot be written is an error of ours."""

    def __init__(self) -> None:
        super().__init__(1, "w", closefd=False)
        self.name = "<stdout>"

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                done = super().write(data)
            except BrokenPipeError:
                raise  # a reader that has seen enough
            except OSError as error:
                raise OutputError(f"cannot write to standard output: {_reason(error)}") from error
            if done is not None:
                return done
            _wait_for(1)


class _Error(io.FileIO):
    """Standard error: what cannot be written is lost."""

    def __init__(self) -> None:
        super().__init__(2, "w", closefd=False)
        self.name = "<stderr>"

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (done := super().write(data)) is None:
                _wait_for(2)
        except OSError:
            return memoryview(data).nbytes
        return done


def _reason(error: OSError) -> str:
    return "it is closed" if error.errno == errno.EBADF else os.strerror(error.errno or 0)


def _wait_for(number: int) -> None:
    """Wait until a stream that was given to us as not blocking, as pipes of some programs are, takes something."""
    poller = select.poll()
    poller.register(number, select.POLLOUT)
    poller.poll()
