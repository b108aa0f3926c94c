"""The FileSend service: takes a build's results from the daemon and puts them where the user asked.

The daemon calls ``/moby.filesync.v1.FileSend/DiffCopy`` once per result (a local export of several platforms: once per
platform) and says in the metadata which exporter it means.  A tar, OCI or Docker archive then comes as a stream of
``BytesMessage``; a local export comes by the file-sync protocol, with the daemon as the sender (`fsutil.receiver`).

An archive that has arrived is kept, synced but not yet in its place, until the build is known to have succeeded:
BuildKit ends the stream of an archive it failed to write in the same way as a complete one.  So whoever runs the
solve calls `FileSend.publish` after it succeeded, or `FileSend.discard`.

Protocol state belongs to the event loop; everything that touches the disk happens in worker threads behind bounded
queues.  This file must not decide what may be written: that is `fsutil.validator` and `fsutil.diskwriter`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from cogkit.buildkit.blocking import Lane
from cogkit.buildkit.bytes_message import decode_bytes
from cogkit.buildkit.exports import Export
from cogkit.buildkit.fsutil.diskwriter import DiskWriter, FileWriter
from cogkit.buildkit.fsutil.receiver import PART_COST, Chunk, Entry, Make, Receiver
from cogkit.buildkit.fsutil.validator import Kind, TreeValidator
from cogkit.buildkit.protobuf_wire import WireError
from cogkit.buildkit.session.service import CallError, Handler, Metadata, ServerStream
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError, OutputError
from cogkit.output_file import OutputWriter

EXPORTER_ID = "buildkit-attachable-exporter-id"
"""Metadata key of the exporter's index; daemons before several exporters existed send none and mean 0."""

MULTI_PLATFORM = "buildkit-exporter-multi-platform"
"""Metadata key, ``1`` if one transfer holds the trees of all platforms; a mirror must not be written from a part."""

METADATA_PREFIX = "exporter-md-"

FILE_THREADS = 2
"""Threads that write the files of one tree (beside one for directories and links)."""

MAX_IN_FLIGHT = 8 << 20
"""Bytes that may wait for the disk before no more is read from the daemon."""

WRITE_SIZE = 1 << 20
"""Bytes of an archive that are gathered for one write."""

MAX_TRANSFERS = 4
"""Results received at a time; another one waits.  Each has threads of its own, and up to 40 MiB."""

BATCH = 128
"""Entries or files handed to a thread at once."""

FLUSH_SECONDS = 0.004
"""How long a batch that is not full waits for more: handing over every few packets costs a fifth more CPU."""

CLEANUP_TIMEOUT = 3.0
"""Seconds that a cancelled transfer waits for a disk that does not answer."""

_T = TypeVar("_T")


class FileSend:
    """Serves ``FileSend`` for the exports of one solve.

    Args:
        exports: All of the solve's exports; a place in this sequence is the exporter's id.
    """

    def __init__(self, exports: Sequence[Export]):
        self._exports = tuple(exports)
        self._archives: dict[int, tuple[Lane, OutputWriter]] = {}
        self._turns = asyncio.Semaphore(MAX_TRANSFERS)
        self.metadata: dict[int, dict[str, str]] = {}
        """What the daemon said about each result (``exporter-md-*``), by exporter id."""

    def add(self, exports: Sequence[Export]) -> None:
        """Take further exports, after those that there are."""
        self._exports += tuple(exports)

    def methods(self) -> Mapping[str, Handler]:
        return {"/moby.filesync.v1.FileSend/DiffCopy": self._diff_copy}

    async def publish(self) -> None:
        """The build succeeded: let the archives that have arrived appear in their places.

        Raises:
            OutputError: one could not; the others that could are there.
        """
        failure: OutputError | None = None
        while self._archives:
            _, (lane, writer) = self._archives.popitem()
            try:
                await lane.run(writer.publish)
            except OutputError as error:
                failure = failure or error
            finally:
                lane.close()
        if failure is not None:
            raise failure

    async def discard(self) -> None:
        """The build failed: leave the destinations of archives as they were.  Idempotent."""
        while self._archives:
            _, (lane, writer) = self._archives.popitem()
            await _cleanup(lane.run(writer.discard))
            lane.close()

    async def _diff_copy(self, stream: ServerStream) -> None:
        number, export = self._asked_for(stream.metadata)
        try:
            async with self._turns:
                if export.directory is not None and export.type == "local":
                    await self._receive_tree(stream, export)
                elif export.file is not None:
                    await self._receive_archive(stream, number, export)
                else:
                    raise CallError(StatusCode.NOT_FOUND, f"exporter {number} has no output here")
        except CogkitError as error:
            raise CallError(StatusCode.UNKNOWN, str(error), cause=error) from error

    def _asked_for(self, metadata: Metadata) -> tuple[int, Export]:
        value = metadata.get(EXPORTER_ID, (b"0",))[0]
        number = int(value) if value.isdigit() and len(value) < 10 else -1
        if not 0 <= number < len(self._exports):
            raise CallError(StatusCode.NOT_FOUND, f"exporter {value.decode('ascii', 'backslashreplace')} not found")
        self.metadata[number] = {
            key.removeprefix(METADATA_PREFIX): b",".join(values).decode("utf-8", "replace")
            for key, values in metadata.items()
            if key.startswith(METADATA_PREFIX)
        }
        return number, self._exports[number]

    async def _receive_archive(self, stream: ServerStream, number: int, export: Export) -> None:
        assert export.file is not None  # the caller has looked
        if number in self._archives:
            raise OutputError(f"the builder sent the output for '{export.file.path}' twice")
        lane, opened = Lane("cogkit-output"), list[OutputWriter]()
        try:
            await lane.run(_open_into, opened, export.file.open)
            (writer,) = opened
            await _copy(stream, lane, writer)
        except BaseException:
            # In the lane, after the opening, which goes on when this call is cancelled.
            await _cleanup(lane.run(lambda: [writer.discard() for writer in opened]))
            lane.close()
            raise
        self._archives[number] = (lane, writer)

    async def _receive_tree(self, stream: ServerStream, export: Export) -> None:
        if export.mirror and b"1" not in stream.metadata.get(MULTI_PLATFORM, ()):
            raise OutputError(
                "mode=delete of a local output needs a builder that sends all platforms at once",
                hint="use a newer BuildKit, or leave mode=delete out",
            )
        await _TreeTransfer(stream, export).run()


async def _copy(stream: ServerStream, lane: Lane, writer: OutputWriter) -> None:
    """The whole stream into the writer: gathered to large writes, one being written while the next is gathered."""
    parts: list[memoryview] = []
    size = 0
    pending: asyncio.Future[None] | None = None
    while messages := await stream.receive_many():
        for message in messages:
            if data := _data_of(message):
                parts.append(data)
                size += len(message) + PART_COST
        if size >= WRITE_SIZE:
            if pending is not None:
                await pending
            pending = lane.run(writer.write, parts)
            pending.add_done_callback(_notice)
            parts, size = [], 0
    if pending is not None:
        await pending
    await lane.run(writer.write, parts)
    await lane.run(writer.finish)


def _notice(write: asyncio.Future[None]) -> None:
    """A write that failed when the stream had failed already is nobody's to await."""
    if not write.cancelled():
        write.exception()


def _data_of(message: bytes) -> memoryview:
    try:
        return decode_bytes(message)
    except WireError as error:
        raise CallError(StatusCode.INVALID_ARGUMENT, f"the builder sent a broken BytesMessage: {error}") from None


class _TreeTransfer:
    """One local export: joins the stream, the protocol (`Receiver`) and the disk (`DiskWriter`)."""

    def __init__(self, stream: ServerStream, export: Export):
        assert export.directory is not None  # the caller has looked
        self._directory = export.directory
        self._mirror = export.mirror
        self._refused = frozenset(name.lower().encode() for name in export.refused_names)
        self._stream = stream
        self._receiver = Receiver(TreeValidator(refused_names=self._refused))
        self._tree_lane = Lane("cogkit-tree")
        self._file_lanes = [Lane(f"cogkit-files-{i}") for i in range(FILE_THREADS)]
        self._file_writers: list[FileWriter] = []
        self._makes: list[Entry] = []
        self._makes_size = 0
        self._chunks: list[list[Chunk]] = [[] for _ in self._file_lanes]
        self._chunks_size = [0 for _ in self._file_lanes]
        self._flush_scheduled = False
        self._in_flight = 0
        self._stopped = False
        self._failure: BaseException | None = None
        self._progress = asyncio.Event()
        """Set when a lane has done something, or the receiver may have something to send."""
        self._room = asyncio.Event()
        self._room.set()

    async def run(self) -> None:
        opened: list[DiskWriter] = []
        try:
            await self._tree_lane.run(
                _open_into,
                opened,
                lambda: DiskWriter(self._directory, mirror=self._mirror, protected_names=self._refused),
            )
            (disk,) = opened
            self._disk = disk
            self._file_writers = [disk.file_writer() for _ in self._file_lanes]
            await _both(self._read(), self._answer())
        except asyncio.CancelledError:
            await _cleanup(self._give_up(opened))
            raise
        except Exception as error:
            await _cleanup(self._give_up(opened))
            if isinstance(error, CogkitError):
                # The daemon reports this text as the reason; the stream may be gone already, which changes nothing.
                with contextlib.suppress(Exception):
                    packet = self._receiver.abandon(str(error))
                    await asyncio.wait_for(self._stream.send(packet), CLEANUP_TIMEOUT)
            raise
        finally:
            for lane in (self._tree_lane, *self._file_lanes):
                lane.close()

    async def _give_up(self, opened: list[DiskWriter]) -> None:
        """Stop the lanes, then clean up: a descriptor must not be closed under a thread that uses it."""
        self._stopped = True
        await self._close_file_writers()
        # In the lane, after the opening, which goes on when this call is cancelled.
        for disk in await self._tree_lane.run(lambda: tuple(opened)):
            await self._tree_lane.run(disk.abort)

    async def _close_file_writers(self) -> None:
        # None before the tree is open.
        pairs = zip(self._file_lanes, self._file_writers, strict=False)
        await asyncio.gather(*(lane.run(writer.close) for lane, writer in pairs))

    # ---- from the daemon to the lanes

    async def _read(self) -> None:
        receiver = self._receiver
        while not receiver.done:
            message = await self._stream.receive()
            if message is None:
                receiver.end_of_stream()
                return
            action = receiver.feed(message)
            if action is not None:
                self._collect(action)
            if receiver.wants_attention:
                self._progress.set()
            if self._in_flight > MAX_IN_FLIGHT:
                self._room.clear()
                await self._room.wait()

    def _collect(self, action: Make | Chunk) -> None:
        """Batch what the messages bring; it goes to the threads when a batch is full or the first of it is old."""
        if isinstance(action, Make):
            self._makes.append(action.entry)
            self._makes_size += action.entry.cost
            if len(self._makes) >= BATCH:
                self._flush_makes()
        else:
            number = action.entry.id % len(self._file_lanes)
            chunks = self._chunks[number]
            chunks.append(action)
            self._chunks_size[number] += action.cost
            if len(chunks) >= BATCH or self._chunks_size[number] >= WRITE_SIZE:
                self._flush_chunks(number)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._stopped:
            return
        self._flush_makes()
        for number in range(len(self._file_lanes)):
            self._flush_chunks(number)

    def _flush_makes(self) -> None:
        entries, size = self._makes, self._makes_size
        if entries:
            self._makes, self._makes_size = [], 0
            self._submit(self._tree_lane, size, self._made, self._make, entries)

    def _flush_chunks(self, number: int) -> None:
        chunks, size = self._chunks[number], self._chunks_size[number]
        if chunks:
            self._chunks[number], self._chunks_size[number] = [], 0
            self._submit(self._file_lanes[number], size, self._written, self._write, number, chunks)

    def _submit(self, lane: Lane, size: int, then: Callable[[Any], None], work: Callable[..., Any], *args: Any) -> None:
        self._in_flight += size

        def finished(future: asyncio.Future[Any]) -> None:
            self._in_flight -= size
            if self._in_flight <= MAX_IN_FLIGHT // 2:
                self._room.set()
            if not future.cancelled():
                error = future.exception()
                if error is None:
                    then(future.result())
                elif self._failure is None:
                    self._failure = error
                    self._room.set()
            self._progress.set()

        lane.run(work, *args).add_done_callback(finished)

    # ---- in the lanes

    def _make(self, entries: list[Entry]) -> tuple[int, list[Entry]]:
        files = []
        for entry in entries:
            if self._stopped:
                break
            self._disk.make(entry)
            if entry.kind is Kind.FILE:
                files.append(entry)
        return len(entries), files

    def _write(self, number: int, chunks: list[Chunk]) -> None:
        writer = self._file_writers[number]
        try:
            for chunk in chunks:
                if self._stopped:
                    break
                writer.write(chunk)
        except BaseException:
            # At once, not when the loop hears of it: the next chunk of this file must not be appended to a torn one.
            self._stopped = True
            raise

    # ---- from the lanes to the daemon

    def _made(self, result: tuple[int, list[Entry]]) -> None:
        self._receiver.made(*result)

    def _written(self, _: None) -> None:
        pass

    async def _answer(self) -> None:
        while True:
            await self._progress.wait()
            self._progress.clear()
            if self._failure is not None:
                raise self._failure
            packets = self._receiver.packets_to_send()
            if packets:
                await self._stream.send_many(packets)
            if self._receiver.complete and not self._busy():
                break
        await self._close_file_writers()
        await self._tree_lane.run(self._disk.finish)
        await self._stream.send(self._receiver.finish())

    def _busy(self) -> bool:
        return bool(self._in_flight or self._makes or any(self._chunks))


async def _both(*work: Awaitable[None]) -> None:
    """Both to their end, or the first failure of either, with the other stopped."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _open_into(opened: list[_T], open_it: Callable[[], _T]) -> None:
    """Open something where whoever cleans up finds it, also when nobody waits for it any more."""
    opened.append(open_it())


async def _cleanup(work: Awaitable[Any]) -> None:
    """Clean up after a failure that is being reported: neither a second failure nor a dead disk may hide it."""
    with contextlib.suppress(OutputError, OSError, TimeoutError):
        await asyncio.wait_for(work, CLEANUP_TIMEOUT)
