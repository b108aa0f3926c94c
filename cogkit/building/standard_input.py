"""A context or a Dockerfile that comes on standard input: ``cogkit build -`` and ``-f -``, as buildx has them.

- ``cogkit build -`` with an archive (tar, plain or compressed): the archive is the context and holds the Dockerfile.
- ``cogkit build -`` with anything else: that is the Dockerfile, and the context is empty.
- ``cogkit build -f - FOLDER``: the Dockerfile comes on standard input, the context is the folder.

Nothing of it is kept on disk: an archive the builder pulls through the session, a Dockerfile is offered from memory, so
that a build that is killed leaves nothing.  Facts are from buildx (``build/opt.go``,
``loadInputs``, and ``build/utils.go``, ``isArchive``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.definition import MAX_DOCKERFILE
from cogkit.building.options import BuildOptions
from cogkit.building.stdin_stream import StdinStream
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import resolve_folder

if TYPE_CHECKING:
    from cogkit.buildkit.session.services.upload import Readable

PIPE = "-"
_PEEK = 1024
_MAGIC = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")
"""bzip2, gzip and xz, which BuildKit unpacks by itself."""


@dataclass(frozen=True, slots=True)
class PipedInput:
    """What came on standard input: one of an archive and a Dockerfile.

    Attributes:
        archive: The context, from its beginning; the Dockerfile is in it.
        dockerfile: A Dockerfile.
        context: The context's folder; None if it is the archive, or empty.
    """

    archive: Readable | None = None
    dockerfile: bytes = b""
    context: Path | None = None


def is_piped(options: BuildOptions) -> bool:
    """Whether anything of the build comes on standard input."""
    return options.file == PIPE or options.context == Path(PIPE)


def read_piped(options: BuildOptions, stdin: Readable | None = None) -> PipedInput:
    """Read what comes on standard input, of an archive only the beginning.  Blocks; call it in a thread.

    Raises:
        UsageError: nothing comes, or it cannot be told which Dockerfile is meant.
        ConfigError: the context's folder does not exist.
    """
    source = stdin or StdinStream()
    from_pipe = options.context == Path(PIPE)
    if from_pipe and options.file == PIPE:
        raise UsageError(
            "the context and the Dockerfile cannot both come on standard input",
            hint="put the Dockerfile into the archive, or give the context's folder",
        )
    if not from_pipe:
        return PipedInput(dockerfile=_read_dockerfile(source, b""), context=resolve_folder(options.context))
    start = _read_start(source)
    if is_archive(start):
        return PipedInput(archive=_Rejoined(start, source))
    if options.file is not None:
        raise UsageError(
            f"standard input is no archive, so it is a Dockerfile; but -f {options.file} names another",
            hint="leave out -f, or send an archive (tar) that holds it",
        )
    return PipedInput(dockerfile=_read_dockerfile(source, start))


def is_archive(start: bytes) -> bool:
    """Whether a stream that begins so is an archive that BuildKit can unpack."""
    if start.startswith(_MAGIC):
        return True
    import tarfile

    try:
        tarfile.TarInfo.frombuf(start[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _read_start(source: Readable) -> bytes:
    start = b""
    while len(start) < _PEEK and (piece := source.read(_PEEK - len(start))):
        start += piece
    if not start:
        raise UsageError("nothing came on standard input", hint="for example: tar c . | cogkit build -")
    return start


def _read_dockerfile(source: Readable, start: bytes) -> bytes:
    parts, size = [start], len(start)
    while piece := source.read(1 << 20):
        parts.append(piece)
        size += len(piece)
        if size > MAX_DOCKERFILE:
            raise UsageError(
                "what comes on standard input is too large for a Dockerfile, and no archive",
                hint="send a tar, plain or compressed by gzip, bzip2 or xz",
            )
    if not size:
        raise UsageError("nothing came on standard input", hint="for example: cogkit build -f - . < Dockerfile")
    return b"".join(parts)


class _Rejoined:
    """A stream from its beginning, of which some was read already."""

    def __init__(self, start: bytes, rest: Readable):
        self._start = start
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._rest.read(size)
