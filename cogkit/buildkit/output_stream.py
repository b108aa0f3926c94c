"""An archive that goes into an object of the program's own, such as a pipe, a socket's file or `io.BytesIO`.

Nothing is undone when the build fails: what the object got, it has.  This file must not know what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cogkit.errors import OutputError
from cogkit.output_file import OutputFile, OutputWriter, output_error


class Writable(Protocol):
    """The one method that is needed of a binary file object; it may block."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of the data."""


class OutputStream(OutputFile):
    """A file object as the destination of one stream; it is not closed.

    Args:
        stream: The object.
    """

    def __init__(self, stream: Writable):
        super().__init__(f"<{type(stream).__name__}>")
        self._stream = stream

    @property
    def place(self) -> str:
        return self.path

    def check(self, asked_by: str) -> None:
        if not callable(getattr(self._stream, "write", None)):
            raise OutputError(f"{asked_by} cannot write to {self.path}: it has no write method")

    def open(self) -> OutputWriter:
        return _ToStream(self._stream, self.path)


class _ToStream(OutputWriter):
    def __init__(self, stream: Writable, shown: str):
        super().__init__(-1, shown)
        self._stream = stream

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            for part in parts:
                self._stream.write(part)
                self.written += len(part)
        except OSError as error:
            raise output_error(error, self._shown, written=self.written) from error
        except ValueError as error:  # What Python's own files say when they are closed.
            raise OutputError(f"cannot write to {self._shown}: {error}") from error

    def finish(self) -> None:
        """Nothing to do: what durable means is the object's business."""

    def publish(self) -> None:
        """Nothing to do: it was there all the time."""

    def discard(self) -> None:
        """Nothing can be taken back."""
