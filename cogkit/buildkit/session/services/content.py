"""The Content service: lets the daemon read and add blobs of OCI layouts on this machine.

It serves images that are a named context (``oci:ID``), local caches (``local:PATH``) and a layout that the result goes
to (``export``).  The daemon names the store in the call's metadata and blobs by digest; a store that was not offered,
and a write to one that is only read, is refused.  A blob that is there already is said to be there before any of it
travels.

Facts are from containerd's ``plugins/services/content/contentserver`` and ``plugins/content/local``.  A blob appears
when it is complete (`oci.content_store`); of a write that breaks off nothing is kept, so each begins at its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator, Mapping

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from cogkit._proto import content_pb2 as pb
from cogkit.buildkit.blocking import Lane, in_thread
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.services.unary import answered, decode, receive_request
from cogkit.buildkit.transport.grpc import MAX_MESSAGE
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.fast_dataclass import dataclass
from cogkit.oci.content_store import (
    BlobExistsError,
    BlobInfo,
    BlobWriter,
    ContentStore,
    WrongBlobError,
)
from cogkit.oci.digest import split_digest

STORE_ID = "buildkit-attachable-store-id"
CHUNK = 1 << 20
LIST_BATCH = 100
MAX_BLOBS = 32
"""Blobs that are read at a time, and that are written; another one waits.  Each has a thread and a file."""

_LAYER_REF = "layer-"
"""How references of writes begin that bring a layer (containerd ``remotes.MakeRefKey``)."""

MAX_REF = 1_000
"""Characters of a write's reference, which is kept while it goes on; containerd's have about a hundred."""


class Content:
    """The session's service for OCI layouts.

    Args:
        stores: What may be asked for, by the daemon's name for it.
        without_layers: Names of stores that get no layers: the daemon is told that those are there.
    """

    def __init__(self, stores: Mapping[str, ContentStore], *, without_layers: Collection[str] = ()):
        self._stores = dict(stores)
        self._without_layers = frozenset(without_layers)
        self._writes: dict[tuple[str, str], _Write] = {}
        # Apart, for a daemon copies from one layout to another by reading in the middle of a write.
        self._read_turns, self._write_turns = asyncio.Semaphore(MAX_BLOBS), asyncio.Semaphore(MAX_BLOBS)

    def methods(self) -> Mapping[str, Handler]:
        prefix = "/containerd.services.content.v1.Content/"
        return {
            f"{prefix}Info": self._info,
            f"{prefix}Update": self._update,
            f"{prefix}List": self._list,
            f"{prefix}Delete": self._delete,
            f"{prefix}Read": self._in_turn(self._read_turns, self._read),
            f"{prefix}Status": self._status,
            f"{prefix}ListStatuses": self._list_statuses,
            f"{prefix}Write": self._in_turn(self._write_turns, self._write),
            f"{prefix}Abort": self._abort,
        }

    @staticmethod
    def _in_turn(turns: asyncio.Semaphore, handler: Handler) -> Handler:
        async def handle(stream: ServerStream) -> None:
            async with turns:
                await handler(stream)

        return handle

    # ---------------------------------------------------------------- reading

    async def _info(self, stream: ServerStream) -> None:
        _, store = self._chosen(stream)
        request = await receive_request(stream, pb.InfoRequest)
        _check_digest(request.digest)
        found = await answered(in_thread(store.info, request.digest))
        if found is None:
            raise _not_found(request.digest)
        await stream.send(pb.InfoResponse(info=_info_message(found)).SerializeToString())

    async def _list(self, stream: ServerStream) -> None:
        _, store = self._chosen(stream)
        request = await receive_request(stream, pb.ListContentRequest)
        if any(request.filters):
            raise CallError(StatusCode.UNIMPLEMENTED, "a list of blobs cannot be filtered")
        found = [_info_message(blob) for blob in await answered(in_thread(lambda: list(store.blobs())))]
        for start in range(0, len(found), LIST_BATCH):
            batch = found[start : start + LIST_BATCH]
            await stream.send(pb.ListContentResponse(info=batch).SerializeToString())

    async def _read(self, stream: ServerStream) -> None:
        _, store = self._chosen(stream)
        request = await receive_request(stream, pb.ReadContentRequest)
        _check_digest(request.digest)
        lane, opened = Lane("cogkit-blob"), contextlib.ExitStack()

        def open_blob() -> int | None:
            fd = store.open_blob(request.digest)
            if fd is not None:
                opened.callback(os.close, fd)
            return fd

        try:
            fd = await answered(lane.run(open_blob))
            if fd is None:
                raise _not_found(request.digest)
            await _send_blob(stream, lane, fd, max(request.offset, 0), request.size)
        finally:
            # After all that was begun: the number of a closed descriptor may be somebody else's next.
            lane.run(opened.close)
            lane.close()

    # ---------------------------------------------------------------- writing

    async def _write(self, stream: ServerStream) -> None:
        id, store = self._chosen(stream)
        request = await receive_request(stream, pb.WriteContentRequest, limit=MAX_MESSAGE)
        if not request.ref:
            raise CallError(StatusCode.INVALID_ARGUMENT, "first message must have a reference")
        if len(request.ref) > MAX_REF:
            raise CallError(StatusCode.INVALID_ARGUMENT, f"a reference of {len(request.ref):,} characters is too long")
        if not store.writable:
            raise CallError(StatusCode.PERMISSION_DENIED, f"store {id} is only read")
        if request.expected:
            _check_digest(request.expected)
            if id in self._without_layers and request.ref.startswith(_LAYER_REF):
                raise _exists(request.expected)
            await _check_new(store, request.expected)
        with self._reserved(id, request.ref) as write:
            write.expected, write.total = request.expected, request.total
            lane = Lane("cogkit-blob")
            try:
                await _Ingest(stream, store, lane, write).run(request)
            finally:
                lane.close()

    @contextlib.contextmanager
    def _reserved(self, id: str, ref: str) -> Iterator[_Write]:
        """One writer for one reference at a time; another is told to come again."""
        if (id, ref) in self._writes:
            raise CallError(StatusCode.UNAVAILABLE, f"ref {ref} locked: unavailable")
        write = self._writes[id, ref] = _Write(ref)
        try:
            yield write
        finally:
            del self._writes[id, ref]

    async def _status(self, stream: ServerStream) -> None:
        id, _ = self._chosen(stream)
        request = await receive_request(stream, pb.StatusRequest)
        write = self._writes.get((id, request.ref))
        if write is None:
            raise CallError(StatusCode.NOT_FOUND, f"could not get status for ref {request.ref!r}: not found")
        await stream.send(pb.StatusResponse(status=write.message()).SerializeToString())

    async def _list_statuses(self, stream: ServerStream) -> None:
        id, _ = self._chosen(stream)
        await receive_request(stream, pb.ListStatusesRequest)
        statuses = [write.message() for (store, _), write in self._writes.items() if store == id]
        await stream.send(pb.ListStatusesResponse(statuses=statuses).SerializeToString())

    async def _abort(self, stream: ServerStream) -> None:
        # A write that has ended left nothing, and one that goes on is its caller's to end.
        self._chosen(stream)
        await receive_request(stream, pb.AbortRequest)
        await stream.send(Empty().SerializeToString())

    async def _update(self, stream: ServerStream) -> None:
        self._chosen(stream)
        raise CallError(
            StatusCode.FAILED_PRECONDITION, "update not supported on immutable content store: failed precondition"
        )

    async def _delete(self, stream: ServerStream) -> None:
        # BuildKit never does; a layout may hold more than this build's blobs.
        id, _ = self._chosen(stream)
        raise CallError(StatusCode.PERMISSION_DENIED, f"nothing may be deleted from store {id}")

    def _chosen(self, stream: ServerStream) -> tuple[str, ContentStore]:
        values = stream.metadata.get(STORE_ID)
        if not values:
            raise CallError(StatusCode.INVALID_ARGUMENT, f'request lacks metadata "{STORE_ID}": invalid argument')
        id = values[0].decode("utf-8", "surrogateescape")
        store = self._stores.get(id)
        if store is None:
            raise CallError(StatusCode.NOT_FOUND, f"unknown store {_printable(id)}: not found")
        return id, store


@dataclass(slots=True)
class _Write:
    """A write in progress."""

    ref: str
    expected: str = ""
    total: int = 0
    offset: int = 0

    def message(self) -> pb.Status:
        return pb.Status(ref=self.ref, offset=self.offset, total=self.total, expected=self.expected)


class _Ingest:
    """One ``Write`` call: requests of the daemon, each with its answer, up to the commit."""

    def __init__(self, stream: ServerStream, store: ContentStore, lane: Lane, write: _Write):
        self._stream = stream
        self._store = store
        self._lane = lane
        self._write = write

    async def run(self, request: pb.WriteContentRequest) -> None:
        algorithm = split_digest(request.expected)[0] if request.expected else "sha256"
        opened = contextlib.ExitStack()

        def open_writer() -> BlobWriter:
            writer = self._store.writer(algorithm=algorithm)
            opened.callback(writer.close)
            return writer

        try:
            writer = await answered(self._lane.run(open_writer))
            while True:
                await self._answer(request, writer)
                if request.action == pb.COMMIT:
                    return
                message = await self._stream.receive()
                if message is None:
                    return
                request = decode(message, pb.WriteContentRequest)
                await self._take_expectations(request)
        finally:
            self._lane.run(opened.close)

    async def _take_expectations(self, request: pb.WriteContentRequest) -> None:
        if request.expected:
            _check_digest(request.expected)
            self._write.expected = request.expected
            await _check_new(self._store, request.expected)
        if request.total > 0:
            self._write.total = request.total

    async def _answer(self, request: pb.WriteContentRequest, writer: BlobWriter) -> None:
        response = pb.WriteContentResponse(action=request.action, offset=writer.offset)
        if request.action == pb.STAT:
            response.total = self._write.total
        elif request.action in (pb.WRITE, pb.COMMIT):
            response.offset = await self._append(request, writer)
            if request.action == pb.COMMIT:
                await self._commit(writer)
        response.digest = await self._lane.run(lambda: writer.digest)
        await self._stream.send(response.SerializeToString())

    async def _append(self, request: pb.WriteContentRequest, writer: BlobWriter) -> int:
        if request.offset > 0 and request.offset != writer.offset:
            raise CallError(
                StatusCode.OUT_OF_RANGE, f"write @{request.offset} must occur at current offset {writer.offset}"
            )
        if request.offset == 0 and writer.offset > 0:
            await answered(self._lane.run(writer.restart))
        if request.data:
            await answered(self._lane.run(writer.write, request.data))
        self._write.offset = writer.offset
        return writer.offset

    async def _commit(self, writer: BlobWriter) -> None:
        size, expected = self._write.total, self._write.expected
        try:
            await answered(self._lane.run(writer.commit, size=size, expected=expected))
        except WrongBlobError as error:
            raise CallError(StatusCode.FAILED_PRECONDITION, f"{error}: failed precondition") from None
        except BlobExistsError as error:
            raise CallError(StatusCode.ALREADY_EXISTS, f"content {error}: already exists") from None


async def _check_new(store: ContentStore, digest: str) -> None:
    if await answered(in_thread(store.info, digest)) is not None:
        raise _exists(digest)


def _exists(digest: str) -> CallError:
    return CallError(StatusCode.ALREADY_EXISTS, f"blob with expected digest {digest} exists: already exists")


async def _send_blob(stream: ServerStream, lane: Lane, fd: int, offset: int, size: int) -> None:
    """Send ``size`` bytes from ``offset``, or what there is; while one piece is sent the next one is read."""
    total = (await lane.run(os.fstat, fd)).st_size
    if offset > total:
        raise CallError(StatusCode.OUT_OF_RANGE, f"read past object length {total} bytes")
    end = total if size <= 0 else min(offset + size, total)
    sent = 0
    pending: asyncio.Future[bytes] = lane.run(os.pread, fd, min(CHUNK, end - offset), offset)
    while offset + sent < end:
        data = await pending
        if not data:
            raise CallError(StatusCode.DATA_LOSS, "the blob became shorter while it was read")
        position = offset + sent + len(data)
        pending = lane.run(os.pread, fd, min(CHUNK, end - position), position)
        await stream.send(pb.ReadContentResponse(offset=sent, data=data).SerializeToString())
        sent += len(data)


def _info_message(blob: BlobInfo) -> pb.Info:
    seconds, nanos = divmod(blob.modified, 1_000_000_000)
    when = Timestamp(seconds=seconds, nanos=nanos)
    return pb.Info(digest=blob.digest, size=blob.size, created_at=when, updated_at=when)


def _check_digest(digest: str) -> None:
    try:
        split_digest(digest)
    except ValueError:
        raise CallError(StatusCode.INVALID_ARGUMENT, f'"{_printable(digest)}" failed validation') from None


def _not_found(digest: str) -> CallError:
    return CallError(StatusCode.NOT_FOUND, f"content {digest}: not found")


def _printable(text: str) -> str:
    return text[:200].encode("ascii", "backslashreplace").decode()
