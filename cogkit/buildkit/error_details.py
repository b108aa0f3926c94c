"""What the daemon's errors say, as errors of cogkit.

A failed call brings a gRPC status; BuildKit puts into its details which step failed and which lines of the Dockerfile
it came from (``solver/errdefs``, ``util/grpcerrors``).  This file reads them; it must not import grpc, and decides
nothing about retrying or closing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from cogkit.buildkit.session.service import StatusCode
from cogkit.buildkit.status import Range, SourceInfo
from cogkit.errors import BuildError, BuilderUnreachableError, CogkitError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from grpc.aio import AioRpcError

    from cogkit._proto import errdefs_pb2, rpc_status_pb2

_TYPE_URL = "github.com/moby/buildkit/{}+json"
_DETAILS_KEY = "grpc-status-details-bin"
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe", "GOAWAY", "Stream removed")  # gRPC's words for one thing
_MAX_DETAILS = 100
_MAX_DETAIL_BYTES = 8 << 20  # of all details together; they hold the Dockerfile
_MAX_DETAIL_PARTS = 50_000  # JSON of a few megabytes can have millions, each of which costs a hundred bytes
_MAX_RANGES = 100
_MAX_SHOWN = 200
_RPC_PREFIX = re.compile(r"rpc error: code = \w+ desc = ")

M = TypeVar("M", bound="Message")


class RequestError(CogkitError):
    """The daemon refused a request that is not a build, or could not answer it (exit code 1)."""


class UnreadableAnswerError(CogkitError):
    """The daemon answered with bytes that are not the answer (exit code 1)."""

    def __init__(self, address: object, method: str):
        super().__init__(
            f"the builder at {address} answered {method.rpartition('/')[2]} with something that cannot be read",
            hint="look at the log of buildkitd, and whether something between here and there changes what it says",
        )


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Lines of a source file, such as the instruction of a Dockerfile that failed."""

    info: SourceInfo
    ranges: tuple[Range, ...]

    @property
    def line(self) -> int:
        """The first of the lines, from 1; 0 if the frontend named none."""
        return min((span.start_line for span in self.ranges), default=0)

    def excerpt(self) -> str:
        """The lines with some around them, marked and numbered as buildctl prints them; empty without any."""
        lines = self.info.data.decode("utf-8", "replace").split("\n")
        first, last = self.line, max((max(span.start_line, span.end_line) for span in self.ranges), default=0)
        if not 1 <= first <= len(lines):
            return ""
        last = min(last, len(lines))
        around = 2 if first == last else 1
        rule = "-" * 20
        shown = range(max(1, first - around), min(len(lines), last + around) + 1)[:_MAX_SHOWN]
        body = [f" {n:3d} | {'>>>' if self._marks(n) else '   '} {lines[n - 1]}".rstrip() for n in shown]
        return "\n".join([f"{self.info.filename}:{first}", rule, *body, rule])

    def _marks(self, line: int) -> bool:
        return any(line in span for span in self.ranges)


class SolveError(BuildError):
    """A build that ran and failed, or a call of its gateway that did.

    Attributes:
        code: The gRPC status that the daemon gave.
        vertex: Digest of the step that failed, if one did.
        vertex_name: Its name, if the status stream showed it.
        log_tail: The last lines that it printed.
        sources: Where the step comes from, innermost file first; ``source`` is the first of them.
        process_exit_code: With which code a process of the build ended, if that is what failed.
        status: The whole status (a marshalled google.rpc.Status), to hand on.
    """

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode = StatusCode.UNKNOWN,
        vertex: str | None = None,
        sources: tuple[SourceLocation, ...] = (),
        process_exit_code: int | None = None,
        status: bytes = b"",
        hint: str | None = None,
    ):
        first = next((each for each in sources if each.line), None)
        super().__init__(
            message,
            where=f"{first.info.filename}:{first.line}" if first else None,
            hint=hint,
            detail="\n".join(text for each in sources if (text := each.excerpt())) or None,
        )
        self.code = code
        self.vertex = vertex
        self.vertex_name: str | None = None
        self.log_tail: tuple[str, ...] = ()
        self.sources = sources
        self.process_exit_code = process_exit_code
        self.status = status

    @property
    def source(self) -> SourceLocation | None:
        return self.sources[0] if self.sources else None


def clean(message: str) -> str:
    """The daemon's message without the ``rpc error: code = … desc = `` that each hop put in."""
    return _RPC_PREFIX.sub("", message).strip()


def code_of(error: AioRpcError) -> StatusCode:
    return StatusCode(error.code().value[0])


def is_broken_connection(error: AioRpcError) -> bool:
    """Whether the call failed under way rather than at the daemon, whose errors always carry details."""
    return code_of(error) is StatusCode.UNAVAILABLE and _status_details(error) is None


def unreachable(address: object, reason: str, *, hint: str | None = None) -> BuilderUnreachableError:
    """The error for a daemon that went away: ``reason`` is a clause such as ``it closed the connection``."""
    return BuilderUnreachableError(
        f"lost the builder at {address}: {reason}",
        hint=hint or "look at the log of buildkitd, start it again if it ended, and repeat the command",
    )


def solve_failure(error: AioRpcError, address: object) -> SolveError | BuilderUnreachableError:
    """What a failed Solve, or call of the gateway, means for the user."""
    if is_broken_connection(error):
        return unreachable(address, _reason(error))
    status = _status_details(error)
    code = code_of(error)
    message = clean(error.details() or "") or code.name.lower().replace("_", " ")
    if not message.startswith("failed to solve"):
        message = f"failed to solve: {message}"
    if status is None:
        return SolveError(message, code=code)
    return from_status(status, message)


def from_status(status: rpc_status_pb2.Status, message: str | None = None) -> SolveError:
    """Read a google.rpc.Status with BuildKit's details."""
    from cogkit._proto import errdefs_pb2, gateway_pb2

    vertexes = list(_details(status, "errdefs.Vertex", errdefs_pb2.Vertex))
    exits = list(_details(status, "gatewayapi.ExitMessage", gateway_pb2.ExitMessage))
    sources = tuple(_location(each) for each in _details(status, "errdefs.Source", errdefs_pb2.Source))
    return SolveError(
        message or clean(status.message),
        code=StatusCode(status.code) if 0 <= status.code <= 16 else StatusCode.UNKNOWN,
        vertex=vertexes[-1].digest if vertexes else None,
        sources=sources,
        process_exit_code=exits[-1].Code if exits else None,
        status=status.SerializeToString(),
    )


def request_failure(error: AioRpcError, address: object, doing: str) -> RequestError | BuilderUnreachableError:
    """What a failed call of the control API means; ``doing`` is what it was for, as in ``list its workers``."""
    if is_broken_connection(error):
        return unreachable(address, _reason(error))
    code = code_of(error)
    if code is StatusCode.UNIMPLEMENTED:
        return RequestError(
            f"the builder at {address} cannot {doing}: it does not know this request",
            hint="BuildKit 0.13.2 is the oldest version that is supported",
        )
    reason = clean(error.details() or "") or code.name.lower()
    return RequestError(f"the builder at {address} could not {doing}: {reason}")


def _reason(error: AioRpcError) -> str:
    text = (error.details() or "").rstrip(". ")
    if not text or any(sign in text for sign in _CLOSED):
        return "it closed the connection"
    return f"{text[:1].lower()}{text[1:]}"


def _status_details(error: AioRpcError) -> rpc_status_pb2.Status | None:
    from google.protobuf.message import DecodeError

    from cogkit._proto import rpc_status_pb2

    trailer: Any = error.trailing_metadata() or ()  # pairs, which grpc-stubs does not know
    for key, value in trailer:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return rpc_status_pb2.Status.FromString(value)
            except DecodeError:  # of a server that is no buildkitd; the plain message is all there is then
                return None
    return None


def _details(status: rpc_status_pb2.Status, name: str, kind: type[M]) -> Iterable[M]:
    from google.protobuf import json_format

    size = 0
    for detail in status.details[:_MAX_DETAILS]:
        size += len(detail.value)
        if size > _MAX_DETAIL_BYTES:
            return
        if detail.type_url == _TYPE_URL.format(name) and sum(map(detail.value.count, b"{[,")) <= _MAX_DETAIL_PARTS:
            try:
                yield json_format.Parse(detail.value, kind(), ignore_unknown_fields=True)
            except (json_format.ParseError, UnicodeDecodeError, RecursionError):
                # Details only decorate the message; one in a newer form must not hide it.
                continue


def _location(source: errdefs_pb2.Source) -> SourceLocation:
    ranges = tuple(Range.from_proto(each) for each in source.ranges[:_MAX_RANGES])
    return SourceLocation(SourceInfo.from_proto(source.info), ranges)
