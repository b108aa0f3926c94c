"""What the daemon's errors say, as errors of cogkit.

A failed call brings a gRPC status; BuildKit puts into its details which step failed and which lines of the Dockerfile
it came from (``solver/errdefs``, ``util/grpcerrors``).  This file reads them; it must not import grpc, and decides
nothing about retrying or closing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from cogkit.buildkit.errors import BuilderUnreachableError, RequestError, SolveError, SourceLocation
from cogkit.buildkit.status import Range, SourceInfo
from cogkit.buildkit.transport.grpc_status import StatusCode

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
        address=address,
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
            except DecodeError:  # of a server that is not a buildkitd; the plain message is all there is then
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
