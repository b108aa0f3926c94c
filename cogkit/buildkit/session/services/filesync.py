"""FileSync: sends local directories to the daemon (moby.filesync.v1.FileSync).

The daemon opens one DiffCopy call for a directory and says in the call's metadata what of it it wants.  One thread
walks the directory, others read the files that are asked for; they encode packets, frame them as messages (and compress
them, where the daemon is far away) and hand them over in bounded portions.  Protocol state (`Sender`) belongs to the
event loop.  However a call ends, its threads are told at once and end at their next step; the last of them closes what
is open on disk.

This file must not know patterns, packets or the disk themselves, only who does.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.batch import Batch
from cogkit.buildkit.fsutil.filter import TreeFilter, include_patterns
from cogkit.buildkit.fsutil.follow import follow_links
from cogkit.buildkit.fsutil.memory_tree import MemoryReader, MemoryTree
from cogkit.buildkit.fsutil.sender import (
    END_OF_STATS,
    FIN,
    Finished,
    Sender,
    SenderError,
    Wanted,
    content,
    error_packet,
)
from cogkit.buildkit.fsutil.walk import ContentReader, Tree, printable
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.session.service import CallError, Handler, Metadata, ServerStream
from cogkit.buildkit.transport.grpc_messages import Shrinker, frame_messages, prefix
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass
from cogkit.go_bool import go_bool

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
TAR_STREAM = "/moby.filesync.v1.FileSync/TarStream"

CHUNK = 128 * 1024
"""Bytes of content in one DATA packet; fsutil sends 32 KiB, its receiver takes up to 4 MiB."""

MAX_TRANSFERS = 32
"""Transfers at a time.  A build has one for each of its folders."""

_READERS = 4  # at most
_SECONDS_A_FILE, _BYTES_A_SECOND = 0.001, 256e6  # a reader that is slower than this waits for a disk
_TRIAL = 0.1  # seconds until that is judged
_PORTION = 256 * 1024  # bytes a reader collects before it hands them over
_PORTION_FILES = 64  # or so many files
_LARGE = 16 * 1024
_BACKLOG = 2 * 1024 * 1024  # bytes that may wait between the threads and the loop
_USUAL_BLOCK = 8 * 1024 * 1024  # see _keep_freed_memory
_SHARE = 32  # files that one reading thread takes at once
_ASKED = 4096  # files that may wait to be read before we stop listening to the receiver
_AHEAD = 2048  # the same, before the walk stops until half of them are sent


@dataclass(slots=True)
class MountProgress:
    """What was sent of one mount so far, over all calls for it.

    Attributes:
        entries: Files, directories and links described.
        files: Files of which the content was sent.
        bytes_sent: Content sent.
        active: Calls in progress.
    """

    entries: int = 0
    files: int = 0
    bytes_sent: int = 0
    active: int = 0


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What a DiffCopy call asks for in its metadata; a list that is not given is None."""

    dir_name: str
    include_patterns: list[str] | None
    exclude_patterns: list[str] | None
    follow_paths: list[str] | None


def sync_options(metadata: Metadata) -> SyncOptions:
    """Read a call's metadata as BuildKit's ``decodeOpts`` does.

    A key whose ``<key>-encoded`` is true holds query-escaped values, because metadata may only be ASCII; a value that
    cannot be unescaped counts as empty, as upstream.
    """

    def values(key: str) -> list[str] | None:
        given = metadata.get(key)
        if given is None:
            return None
        flag = metadata.get(f"{key}-encoded", ())
        if flag and go_bool(flag[0].decode("utf-8", "replace")):
            return [gopath.to_str(_query_unescape(value)) for value in given]
        return [gopath.to_str(value) for value in given]

    names = values("dir-name")
    return SyncOptions(
        dir_name=names[0] if names else "",
        include_patterns=values("include-patterns"),
        exclude_patterns=values("exclude-patterns"),
        follow_paths=values("followpaths"),
    )


_HEX = frozenset(b"0123456789abcdefABCDEF")


def _query_unescape(value: bytes) -> bytes:
    """Go's ``url.QueryUnescape``; empty if it refuses."""
    at = value.find(b"%")
    while at >= 0:
        digits = value[at + 1 : at + 3]
        if len(digits) < 2 or not _HEX.issuperset(digits):
            return b""
        at = value.find(b"%", at + 3)
    return unquote_to_bytes(value.replace(b"+", b" "))


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what is freed between one portion and the next, instead of giving it to the kernel.

    glibc's malloc takes the largest block that was freed so far for the usual size, and what is larger comes from the
    kernel, page by page, each time; that doubled the system time of a large file.  The block here is never touched,
    so it costs nothing.
    """
    bytes(_USUAL_BLOCK)  # a bytearray would be touched: it is filled with zeros


class FileSync:
    """The session's service for local directories.

    Args:
        mounts: What may be read; a daemon that asks for another name is refused.
    """

    def __init__(self, mounts: Iterable[LocalMount]):
        self._mounts = {mount.name: mount for mount in mounts}
        self.progress: dict[str, MountProgress] = {name: MountProgress() for name in self._mounts}
        """By mount name; written by the event loop only."""
        self._turns = asyncio.Semaphore(MAX_TRANSFERS)

    def methods(self) -> Mapping[str, Handler]:
        return {DIFF_COPY: self._diff_copy, TAR_STREAM: self._tar_stream}

    async def _tar_stream(self, stream: ServerStream) -> None:
        # BuildKit's client registers it too, and has no protocol for it either.
        raise CallError(StatusCode.UNIMPLEMENTED, "failed to negotiate protocol")

    async def _diff_copy(self, stream: ServerStream) -> None:
        options = sync_options(stream.metadata)
        mount = self._mounts.get(options.dir_name)
        if mount is None:
            raise CallError(StatusCode.NOT_FOUND, f"no access allowed to dir {_quoted(options.dir_name)}")
        _keep_freed_memory()
        progress = self.progress[mount.name]
        # Who asks for more at once waits: each transfer has threads and megabytes of its own.
        async with self._turns:
            progress.active += 1
            try:
                await _Transfer(stream, mount, options, progress).run()
            finally:
                progress.active -= 1


def _quoted(name: str) -> str:
    return f'"{printable(gopath.to_bytes(name))}"'


# ---- between the threads and the loop


@dataclass(frozen=True, slots=True)
class _Stats:
    """Neighbouring entries of the walk, and the messages that describe them."""

    batch: Batch
    framed: bytes


@dataclass(frozen=True, slots=True)
class _Content:
    """DATA packets as messages, in order for each file; ``files`` of them end here."""

    framed: list[bytes]
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class _WalkEnd:
    """All entries were described."""


@dataclass(frozen=True, slots=True)
class _ReceiverEnd:
    """The receiver said that it has everything."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A thread could not go on; before the first entry this is not part of the protocol yet."""

    error: BaseException
    set_up: bool = False


_Item: TypeAlias = _Stats | _Content | _WalkEnd | _ReceiverEnd | _Failure


class _Stopped(Exception):
    """The call is over; ends a thread."""


class _Pipe:
    """From the threads to one task of the loop, bounded by bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._changed = threading.Condition()
        self._items: deque[tuple[_Item, int]] = deque()
        self._size = 0
        self._stopped = False
        self._filled = asyncio.Event()

    def put(self, item: _Item, size: int = 0) -> None:
        """Called in a thread; waits while too much is waiting.

        Raises:
            _Stopped: nobody takes any more.
        """
        with self._changed:
            while self._size > _BACKLOG and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise _Stopped
            was_empty = not self._items
            self._items.append((item, size))
            self._size += size
        if was_empty:
            try:
                self._loop.call_soon_threadsafe(self._filled.set)
            except RuntimeError:  # the loop is closed, and with it the call
                raise _Stopped from None

    def put_from_loop(self, item: _Item) -> None:
        """Called on the loop; does not wait."""
        with self._changed:
            self._items.append((item, 0))
        self._filled.set()

    async def take(self) -> _Item:
        while True:
            with self._changed:
                if self._items:
                    item, size = self._items.popleft()
                    self._size -= size
                    if size and self._size <= _BACKLOG:
                        self._changed.notify_all()
                    return item
                self._filled.clear()
            await self._filled.wait()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class _Requests:
    """From the loop to the reading threads: files that the receiver wants."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[Wanted]] = queue.SimpleQueue()
        self._stopped = False

    def put(self, wanted: list[Wanted]) -> None:
        # In parts, for each of the threads to have something.
        for start in range(0, len(wanted), _SHARE):
            self._queue.put(wanted[start : start + _SHARE])

    def take(self, *, wait: bool) -> list[Wanted]:
        """The next files; none if one should not wait for them.

        Raises:
            _Stopped: nobody wants any more.
        """
        try:
            wanted = self._queue.get(block=wait)
        except queue.Empty:
            wanted = []
        if self._stopped:
            raise _Stopped
        return wanted

    def stop(self) -> None:
        self._stopped = True
        for _ in range(_READERS):
            self._queue.put([])  # wakes one that waits


class _SharedTree:
    """The `Tree` that a call and its threads use; the last of them closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 1
        self._tree: Tree | MemoryTree | None = None

    def acquire(self) -> None:
        with self._lock:
            self._users += 1

    def abandon(self) -> None:
        """The call is over: walking on is of no use."""
        if self._tree is not None:
            self._tree.abandon()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._tree is not None:
                self._tree.close()

    def open(self, mount: LocalMount) -> Tree | MemoryTree:
        self._tree = Tree(mount) if mount.files is None else MemoryTree(mount.files)
        return self._tree

    @property
    def tree(self) -> Tree | MemoryTree:
        assert self._tree is not None, "files are read only after they were described"
        return self._tree


# ---- one call


class _Transfer:
    """One DiffCopy call: its threads and its state."""

    def __init__(self, stream: ServerStream, mount: LocalMount, options: SyncOptions, progress: MountProgress):
        self._stream = stream
        self._mount = mount
        self._options = options
        self._progress = progress
        self._sender = Sender()
        self._pipe = _Pipe(asyncio.get_running_loop())
        self._requests = _Requests()
        self._shared = _SharedTree()
        self._readers = 0
        self._enough_readers = _READERS if stream.takes_gzip else 1
        """One, as threads that find everything in memory only wait for each other; more where they compress, or wait
        for a disk or a network."""
        self._unanswered = 0
        """Files asked for whose content was not sent to its end."""
        self._answered = asyncio.Event()
        self._may_walk = threading.Event()
        """Not set while the receiver waits for many files.  It keeps a stack and a file for each, and the walk, being
        faster than the reading, would have it wait for hundreds of thousands."""
        self._may_walk.set()
        self._failure: CallError | None = None

    async def run(self) -> None:
        """Send everything; returns after the last packet."""
        try:
            await self._transfer()
        except (CallError, asyncio.CancelledError):
            # The daemon, told of our failure, may hang up at any time after that: the failure is the cause.
            if self._failure is not None:
                raise self._failure from None
            raise

    async def _transfer(self) -> None:
        self._start("walk", self._walk)
        tasks = (asyncio.create_task(self._send()), asyncio.create_task(self._listen()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    await task  # raises what it raised
            await self._stream.send(FIN)
        finally:
            self._pipe.stop()
            self._requests.stop()
            self._may_walk.set()
            self._shared.abandon()
            self._shared.release()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- on the loop

    async def _listen(self) -> None:
        """Take the receiver's packets up to its FIN."""
        while messages := await self._stream.receive_many():
            wanted: list[Wanted] = []
            for message in messages:
                try:
                    event = self._sender.receive(message)
                except SenderError as error:
                    raise CallError(StatusCode.UNKNOWN, str(error)) from None
                if isinstance(event, Finished):
                    self._pipe.put_from_loop(_ReceiverEnd())
                    return
                if event is not None:
                    wanted.append(event)
            self._count_unanswered(len(wanted))
            while self._readers < min(self._enough_readers, self._unanswered):
                self._readers += 1
                self._start(f"read-{self._readers}", self._read)
            self._requests.put(wanted)
            while self._unanswered >= _ASKED:
                self._answered.clear()
                await self._answered.wait()
        raise CallError(StatusCode.CANCELLED, "the receiver ended the transfer before it had everything")

    def _count_unanswered(self, more: int) -> None:
        self._unanswered += more
        if self._unanswered >= _AHEAD:
            self._may_walk.clear()
        elif self._unanswered <= _AHEAD // 2:
            self._may_walk.set()

    async def _send(self) -> None:
        """Send what the threads produce until all of it was sent and the receiver has it."""
        stream = self._stream
        progress = self._progress
        walk_ended = receiver_ended = False
        while not (walk_ended and receiver_ended and not self._unanswered):
            match await self._pipe.take():
                case _Stats(batch, framed):
                    self._sender.add(batch)
                    progress.entries += len(batch)
                    await stream.send_framed((framed,))
                case _Content(pieces, files, size):
                    await stream.send_framed(pieces)
                    progress.files += files
                    progress.bytes_sent += size
                    self._count_unanswered(-files)
                    self._answered.set()
                case _WalkEnd():
                    walk_ended = True
                    await stream.send(END_OF_STATS)
                case _ReceiverEnd():
                    receiver_ended = True
                case _Failure(error, set_up):
                    await self._fail(error, tell=not set_up)

    async def _fail(self, error: BaseException, *, tell: bool) -> None:
        """End the call over the failure of a thread."""
        if not isinstance(error, CogkitError):
            raise error
        # Without the place, which is a path of this machine: that is for the user alone.
        self._failure = CallError(StatusCode.UNKNOWN, error.message, cause=error)
        if tell:
            await self._stream.send(error_packet(error.message))
        raise self._failure

    # ---- in threads

    def _start(self, name: str, work: Callable[[], None]) -> None:
        self._shared.acquire()
        # A daemon thread: one that hangs in a dead network file system must not keep the process.
        threading.Thread(target=self._run, args=(work,), name=f"cogkit-{name}", daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _Stopped:
            pass
        except BaseException as error:
            with contextlib.suppress(_Stopped):
                self._pipe.put(_Failure(error))
        finally:
            self._shared.release()

    def _walk(self) -> None:
        try:
            tree = self._shared.open(self._mount)
            if isinstance(tree, MemoryTree):
                entries = tree.walk()
            else:
                entries = tree.walk(_filter(tree, self._options), in_own_thread=True)
        except CogkitError as error:
            self._pipe.put(_Failure(error, set_up=True))
            return
        with contextlib.closing(entries) as batches:
            for batch in batches:
                framed = frame_messages(batch.packets)
                self._may_walk.wait()
                self._pipe.put(_Stats(batch, framed), len(framed))
        self._pipe.put(_WalkEnd())

    def _read(self) -> None:
        reader = self._shared.tree.reader()
        shrinker = Shrinker() if self._stream.takes_gzip else None
        portion = _Portion(self._pipe, reader, shrinker)
        files, seconds = 0, 0.0
        try:
            while True:
                wanted = self._requests.take(wait=True)
                while wanted:
                    began = time.monotonic() - portion.waited
                    for id, path in wanted:
                        pieces = reader.read(path, CHUNK) if path is not None else iter(())
                        if shrinker is not None:
                            shrinker.begin(posixpath.splitext(path or b"")[1])
                        for head, piece in content(id, pieces):
                            portion.add(head, piece)
                        portion.end_file()
                    files += len(wanted)
                    seconds += time.monotonic() - portion.waited - began
                    if seconds > _TRIAL + files * _SECONDS_A_FILE + reader.bytes_read / _BYTES_A_SECOND:
                        self._enough_readers = _READERS
                    wanted = self._requests.take(wait=False)
                portion.hand_over()
        finally:
            reader.close()


class _Portion:
    """Collects packets of one reading thread, as messages, until it is worth handing them over."""

    def __init__(self, pipe: _Pipe, reader: ContentReader | MemoryReader, shrinker: Shrinker | None):
        self._pipe = pipe
        self._reader = reader
        self._shrinker = shrinker
        self.waited = 0.0
        """Seconds, over all portions, until they could be handed over."""
        self._reset()

    def _reset(self) -> None:
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._start = self._reader.bytes_read
        self.files = 0
        """Files that end in this portion."""

    def add(self, head: bytes, piece: bytes) -> None:
        """Add a packet: what stands before its content, and the content."""
        if self._waiting >= _PORTION:
            self.hand_over()
        shrunk = self._shrinker.shrink(head, piece) if self._shrinker is not None else None
        if shrunk is None:
            head = prefix(len(head) + len(piece)) + head
        else:
            head, piece = prefix(len(shrunk), compressed=True), shrunk
        self._pieces += (head, piece)
        self._waiting += len(head) + len(piece)

    def end_file(self) -> None:
        """All packets of a file were added."""
        self.files += 1
        if self.files >= _PORTION_FILES:
            self.hand_over()

    def hand_over(self) -> None:
        """Let what was collected be sent."""
        if not self._pieces:
            return
        # What is large is not copied, what is small is not left to the loop piece by piece.
        pieces = self._pieces if self._waiting > _LARGE * len(self._pieces) else [b"".join(self._pieces)]
        began = time.monotonic()
        self._pipe.put(_Content(pieces, self.files, self._reader.bytes_read - self._start), self._waiting)
        self.waited += time.monotonic() - began
        self._reset()


def _filter(tree: Tree, options: SyncOptions) -> TreeFilter:
    targets = follow_links(tree, options.follow_paths) if options.follow_paths is not None else None
    return TreeFilter(
        include_patterns(options.include_patterns, targets),
        tree.mount.exclude_patterns,
        options.exclude_patterns or (),
    )
