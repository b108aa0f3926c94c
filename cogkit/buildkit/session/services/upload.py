"""The Upload service: streams that the daemon pulls once, such as a context that came on standard input.

The frontend is told an address, ``http://buildkit-session/ID``; a daemon that fetches it calls ``Pull`` here, with the
address in the metadata.  What is pulled is gone: a second call for it, and one for an address that was not given out,
is refused.  Facts are from BuildKit's ``session/upload``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cogkit._proto import upload_pb2
from cogkit.buildkit.blocking import Lane
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.identity import new_id
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError

HOST = "buildkit-session"
PATH_KEY = "urlpath"
PIECE = 256 * 1024


class Readable(Protocol):
    """Where the bytes come from; read in a thread."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, ``b""`` at the end."""


class Upload:
    """The session's service for streams."""

    def __init__(self) -> None:
        self._streams: dict[str, Readable] = {}

    def offer(self, stream: Readable) -> str:
        """Let the daemon pull ``stream``, once, by the address that is returned."""
        name = new_id()
        self._streams[name] = stream
        return f"http://{HOST}/{name}"

    def methods(self) -> Mapping[str, Handler]:
        return {"/moby.upload.v1.Upload/Pull": self._pull}

    async def _pull(self, stream: ServerStream) -> None:
        path = stream.metadata.get(PATH_KEY, (b"",))[0].decode("utf-8", "replace")
        name = path.rpartition("/")[2]
        source = self._streams.pop(name, None)
        if source is None:
            raise CallError(StatusCode.UNKNOWN, f"no http response from session for {name[:100]}")
        lane = Lane("cogkit-upload")
        try:
            pending = lane.run(source.read, PIECE)
            while data := await pending:
                # While one piece is sent the next one is read.
                pending = lane.run(source.read, PIECE)
                await stream.send(upload_pb2.BytesMessage(data=data).SerializeToString())
        except CogkitError as error:
            raise CallError(StatusCode.UNKNOWN, error.message, cause=error) from error
        except OSError as error:
            cause = BuildError(f"cannot read what is to be sent to the builder: {error.strerror or error}")
            raise CallError(StatusCode.UNKNOWN, cause.message, cause=cause) from error
        finally:
            lane.close()
