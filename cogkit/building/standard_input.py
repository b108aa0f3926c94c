"""A context or a Dockerfile that is not a file of the context: from standard input, a pipe, or the web.

- ``cogkit build -`` with an archive (tar, plain or compressed): the archive is the context and holds the Dockerfile.
- ``cogkit build -`` with anything else: that is the Dockerfile, and the context is empty.
- ``cogkit build -f - CONTEXT``: the Dockerfile comes on standard input.
- ``cogkit build -f URL CONTEXT``: the Dockerfile is fetched, by this machine.

Nothing of it is kept on disk: an archive the builder pulls through the session, a Dockerfile is offered from memory, so
that a build that is killed leaves nothing.  Facts are from buildx (``build/opt.go``, ``loadInputs``).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cogkit.building.definition import MAX_DOCKERFILE, check_is_text
from cogkit.building.options import BuildOptions
from cogkit.building.remote_context import is_http_url
from cogkit.building.stdin_stream import StdinStream
from cogkit.buildkit.errors import BuildError
from cogkit.errors import CogkitError, ConfigError, UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.session.services.upload import Readable

PIPE = "-"
_PEEK = 1024  # bytes by which a stream is known
_TAR_HINT = "for example: tar c . | cogkit build -"
_STANDARD_INPUT = frozenset({PIPE, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a]")  # what is in every vertex, and in no text
_LLB_HINT = "name a frontend with --frontend, or pipe LLB: COMMAND | cogkit build --local context=."
_FETCH_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class PipedContext:
    """What came on standard input in place of a context: one of an archive, a Dockerfile and LLB.

    Attributes:
        archive: The context, from its beginning, in a form that the builder knows; the Dockerfile is in it.
        dockerfile: A Dockerfile.
        llb: A marshalled definition.
    """

    archive: Readable | None = None
    dockerfile: bytes | None = None
    llb: bytes | None = None


def is_standard_input(name: str | os.PathLike[str] | None) -> bool:
    """Whether a context or a file of this name is what comes on standard input."""
    return name is not None and os.fspath(name) in _STANDARD_INPUT


def read_piped_context(options: BuildOptions, stdin: Readable | None = None) -> PipedContext:
    """Read what comes on standard input in place of a context, of an archive only the beginning.

    Blocks; call it in a thread.

    Raises:
        UsageError: nothing comes, or of what comes no context can be made.
        ConfigError: it is a Dockerfile that cannot be one.
    """
    # Of use here only, and not without cost.
    from cogkit.building.archive_streams import Rejoined, StreamKind, Wrapped, kind_of, unpacked

    if is_standard_input(options.file):
        raise UsageError(
            "the context and the Dockerfile cannot both come on standard input",
            hint="put the Dockerfile into the archive, or give the context's folder",
        )
    source = stdin or StdinStream()
    start = _read_start(source)
    match kind_of(start):
        case StreamKind.PASSED_ON:
            return PipedContext(archive=Rejoined(start, source))
        case StreamKind.WRAPPED:
            return PipedContext(archive=Wrapped(Rejoined(start, source)))
        case StreamKind.UNPACKED:
            return PipedContext(archive=unpacked(start, source))
    if options.file is not None:
        raise UsageError(
            f"standard input is not an archive, so it is a Dockerfile; but -f {options.file} names another",
            hint="leave out -f, or send an archive (tar) that holds it",
        )
    content = _read_whole(source, start, "standard input")
    if _is_llb(content):
        return PipedContext(llb=content)
    check_is_text(content, "standard input")
    return PipedContext(dockerfile=content)


def read_piped_dockerfile(stdin: Readable | None = None) -> bytes:
    """Read a Dockerfile that comes on standard input.  Blocks; call it in a thread.

    Raises:
        ConfigError, UsageError: nothing comes, or it cannot be a Dockerfile.
    """
    return _read_dockerfile(stdin or StdinStream(), b"", "standard input")


def read_piped_llb(stdin: Readable | None = None) -> bytes:
    """Read LLB that comes on standard input.  Blocks; call it in a thread.

    Raises:
        UsageError: it is not a marshalled definition.
    """
    from cogkit.buildkit.llb.definition import Definition

    content = _read_whole(stdin or StdinStream(), b"", "standard input")
    if not Definition.from_bytes(content).ops:
        raise UsageError("the definition on standard input is empty", hint=_LLB_HINT)
    return content


def fetch_dockerfile(url: str) -> bytes:
    """Fetch a Dockerfile from the web.  Blocks; call it in a thread.

    Raises:
        BuildError: it cannot be fetched.
        ConfigError, UsageError: it cannot be a Dockerfile.
    """
    import urllib.error
    import urllib.request
    from base64 import b64encode
    from http.client import HTTPException
    from urllib.parse import unquote, urlsplit

    assert is_http_url(url)
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(parts._replace(netloc=host, fragment="").geturl())
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=_FETCH_TIMEOUT) as answer:
            return _read_dockerfile(answer, b"", url)
    except urllib.error.HTTPError as problem:
        reason = f"{problem.code} {problem.reason}"
    except urllib.error.URLError as problem:
        reason = str(problem.reason)
    except (OSError, HTTPException, ValueError) as problem:
        reason = str(problem) or type(problem).__name__
    raise BuildError(
        f"the Dockerfile cannot be fetched from {host}: {reason}", hint="download it, and give its path with -f"
    )


def _read_start(source: Readable) -> bytes:
    start = b""
    try:
        while len(start) < _PEEK and (piece := source.read(_PEEK - len(start))):
            start += piece
    except OSError as problem:
        raise UsageError(f"standard input cannot be read: {problem.strerror}", hint=_TAR_HINT) from problem
    if not start:
        raise UsageError("nothing came on standard input", hint=_TAR_HINT)
    return start


def _read_dockerfile(source: Readable, start: bytes, where: str) -> bytes:
    content = _read_whole(source, start, where)
    check_is_text(content, where)
    return content


def _is_llb(content: bytes) -> bool:
    """Whether it is a marshalled definition: it begins with a vertex, and is not text."""
    if content[:1] != b"\x0a" or not _CONTROL.search(content):
        return False
    from cogkit.buildkit.llb.definition import Definition

    try:
        definition = Definition.from_bytes(content)
        return bool(definition.ops and any(definition.inputs()))
    except CogkitError:
        return False


def _read_whole(source: Readable, start: bytes, where: str) -> bytes:
    parts, size = [start], len(start)
    try:
        while piece := source.read(1 << 20):
            parts.append(piece)
            size += len(piece)
            if size > MAX_DOCKERFILE:
                raise UsageError(
                    f"what comes from {where} is too large for a Dockerfile, and no archive",
                    hint="send a tar, plain or compressed by gzip, bzip2, xz, zstd or lz4",
                )
    except OSError as problem:
        raise ConfigError(f"{where} cannot be read: {problem.strerror or problem}") from problem
    if not size:
        raise UsageError(f"nothing came from {where}", hint="for example: cogkit build -f - . < Dockerfile")
    return b"".join(parts)
