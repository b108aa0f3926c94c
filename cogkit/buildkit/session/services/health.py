"""``grpc.health.v1.Health``: the daemon asks every 5 s whether the session lives, and gives up after two misses.

Behaves as grpc-go's health server, which BuildKit's own sessions use: the server as a whole ("") is SERVING, and names
of services that nobody registered are NOT_FOUND.  The two messages have one field each, so they are coded by hand here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from cogkit.buildkit.protobuf_wire import BYTES, WireError, fields
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.transport.grpc_status import StatusCode

CHECK: Final = "/grpc.health.v1.Health/Check"

_SERVING: Final = b"\x08\x01"  # HealthCheckResponse{status: SERVING}
_SERVICE_UNKNOWN: Final = b"\x08\x03"  # HealthCheckResponse{status: SERVICE_UNKNOWN}, sent by Watch only

_FIELDS: Final = 100
"""Most fields of a request, which has one."""


class Health:
    """The health service.

    Args:
        services: Names besides "" that are SERVING, as ``moby.filesync.v1.FileSync``.
    """

    def __init__(self, services: Iterable[str] = ()):
        self._known = frozenset(services) | {""}

    def methods(self) -> Mapping[str, Handler]:
        return {CHECK: self._check, "/grpc.health.v1.Health/Watch": self._watch}

    async def _check(self, stream: ServerStream) -> None:
        if await _requested_service(stream) not in self._known:
            raise CallError(StatusCode.NOT_FOUND, "unknown service")
        await stream.send(_SERVING)

    async def _watch(self, stream: ServerStream) -> None:
        """Tells the state once; it never changes while the session lives, so the rest is waiting to be cancelled."""
        known = await _requested_service(stream) in self._known
        await stream.send(_SERVING if known else _SERVICE_UNKNOWN)
        await asyncio.Event().wait()


async def _requested_service(stream: ServerStream) -> str:
    """The ``service`` field (1, string) of a HealthCheckRequest; the last one counts, unknown fields are skipped."""
    message = await stream.receive()
    if message is None:
        raise CallError(StatusCode.INTERNAL, "the call has no request message")
    service = b""
    try:
        for field, wire, _, chunk in fields(memoryview(message), _FIELDS):
            if field == 1 and wire == BYTES:
                service = bytes(chunk)
        return service.decode()
    except (WireError, UnicodeDecodeError) as error:
        raise CallError(StatusCode.INTERNAL, "the request message cannot be decoded") from error
