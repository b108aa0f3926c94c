"""The Exporter service: the client says where the result goes when there is one.

The daemon asks once, after the build, and tells the result's metadata and the names of its filesystems (which can be
read through the gateway meanwhile).  Facts are from BuildKit's ``session/exporter``.  This file must not write
anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from cogkit._proto import exporter_pb2
from cogkit.buildkit.exports import Export
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.services.unary import answered, receive_request
from cogkit.buildkit.transport.grpc_status import StatusCode

MAX_METADATA = 8 << 20
"""Bytes of a result's metadata: the images' configs among others."""

ChooseExports = Callable[[Mapping[str, bytes], Sequence[str]], Awaitable[Sequence[Export]]]
"""Gets the result's metadata and the ids of its filesystems, gives what to make of it."""


class Exporter:
    """The session's service for exports that are chosen after the build.

    Args:
        choose: Asked once; its error fails the build.

    Attributes:
        asked: Whether the daemon has asked; one that does not know the service never does.
    """

    def __init__(self, choose: ChooseExports):
        self._choose = choose
        self.asked = False

    def methods(self) -> Mapping[str, Handler]:
        return {"/moby.exporter.v1.Exporter/FindExporters": self._find_exporters}

    async def _find_exporters(self, stream: ServerStream) -> None:
        request = await receive_request(stream, exporter_pb2.FindExportersRequest, limit=MAX_METADATA)
        if self.asked:
            raise CallError(StatusCode.FAILED_PRECONDITION, "the exports are chosen already")
        self.asked = True
        exports = await answered(self._choose(dict(request.metadata), tuple(request.refs)))
        chosen = [exporter_pb2.ExporterRequest(Type=each.type, Attrs=each.attrs) for each in exports]
        await stream.send(exporter_pb2.FindExportersResponse(exporters=chosen).SerializeToString())
