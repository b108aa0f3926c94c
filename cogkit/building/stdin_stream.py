"""The bytes of standard input, whatever it is: closed, a folder, not blocking.

This file must not know what they are.
"""

from __future__ import annotations

import select
from io import FileIO

from cogkit.errors import UsageError


class StdinStream:
    """Read in a thread.

    It is not ``sys.stdin``: a thread that waits in the buffer of that would hold up the end of the process.

    Args:
        number: The file's number.
    """

    def __init__(self, number: int = 0):
        self._number = number
        self._file: FileIO | None = None

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end.

        Raises:
            UsageError: it is closed, or cannot be read.
        """
        try:
            if self._file is None:
                self._file = FileIO(self._number, closefd=False)
            while (data := self._file.read(size)) is None:
                # Nothing there yet, and the stream was given to us as not blocking.
                poller = select.poll()
                poller.register(self._number, select.POLLIN)
                poller.poll()
        except IsADirectoryError:
            raise UsageError("standard input is a folder", hint="give the folder by its name") from None
        except OSError as error:
            raise UsageError(
                "standard input is closed, or cannot be read",
                hint="give it a file or a pipe: < FILE, or a command before |",
            ) from error
        return data
