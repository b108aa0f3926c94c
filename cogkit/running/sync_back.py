"""Files that a command changed in the project on the builder, brought back into the project here.

They come as a tree of the file-sync protocol (`changes` sends it), through the same receiver, validator and disk writer
as ``--output type=local``: nothing lands outside the project, nothing is written through a link, and ``.cog`` is not
touched.  A file that changed on both sides is not overwritten: what comes is kept beside it.  Deletions do not come.
This file must not decide what may be written.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import stat
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from cogkit.buildkit.blocking import Lane
from cogkit.buildkit.exports import PROTECTED_NAMES
from cogkit.buildkit.fsutil.diskwriter import DiskWriter, FileWriter
from cogkit.buildkit.fsutil.receiver import Chunk, Entry, Make, Receiver
from cogkit.buildkit.fsutil.validator import Kind, RefusedTreeError, TreeValidator, printable
from cogkit.errors import CogkitError, OutputError
from cogkit.project.dotcog import DOTCOG_NAME
from cogkit.running.link import Channel, Link

BESIDE = b".from-builder"
"""Added to the name of a file that was changed here too."""

MARGIN_NS = 20_000_000
"""How far a file's time may lag behind the clock: kernels take the time of the last tick."""

_LENGTH = struct.Struct(">I")
_MAX_PACKET = 1 << 20


@contextlib.asynccontextmanager
async def syncing_back(
    link: Link, folder: str, project: Path | None, since_ns: int, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """Bring back what the body changes in a folder of the container.

    Also when the body fails; when it is cancelled there is no time for it.

    Args:
        link: The container.
        folder: The project's folder there.
        project: The one here; None: nothing comes back.
        since_ns: When this machine's files were sent, or before.
        warn: Told of what was kept beside a file that changed here too.
    """
    if project is None:
        yield
        return
    hidden, skipped = [DOTCOG_NAME], sorted(PROTECTED_NAMES)
    await link.open({"kind": "watch", "root": folder, "hidden": hidden, "skipped": skipped}).accepted()
    try:
        yield
    except CogkitError:
        with contextlib.suppress(CogkitError):
            await bring_back(link, project, since_ns)
        raise
    for name in await bring_back(link, project, since_ns):
        warn(f"{name.removesuffix(os.fsdecode(BESIDE))} changed here and on the builder: what comes is in {name}")


async def bring_back(link: Link, project: Path, since_ns: int) -> tuple[str, ...]:
    """Write what has changed; the names of what was kept beside a file that changed here too.

    Raises:
        OutputError: something cannot, or must not, be written.
    """
    channel = link.open({"kind": "changes"})
    lane = Lane("cogkit-sync-back")
    incoming = _Incoming(project, since_ns)
    try:
        buffer = bytearray()
        while not incoming.done:
            data = await channel.read()
            if not data:
                raise OutputError("what the command changed did not come back whole: the container's side ended it")
            buffer += data
            for packet in await lane.run(incoming.take, _packets(buffer)):
                await channel.write(_LENGTH.pack(len(packet)) + packet)
        return tuple(await lane.run(incoming.settle))
    finally:
        await lane.run(incoming.close)
        lane.close()
        _end(channel)


def _end(channel: Channel) -> None:
    with contextlib.suppress(CogkitError):
        channel.end()


def _packets(buffer: bytearray) -> list[bytes]:
    """Take the whole packets out of ``buffer``."""
    found = []
    at = 0
    while len(buffer) - at >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(buffer, at)
        if size > _MAX_PACKET:
            raise OutputError(f"the container's side sent a packet of {size:,} bytes")
        if len(buffer) - at - _LENGTH.size < size:
            break
        found.append(bytes(buffer[at + _LENGTH.size : at + _LENGTH.size + size]))
        at += _LENGTH.size + size
    del buffer[:at]
    return found


class _Incoming:
    """One transfer, from the packets to the disk.  Belongs to one thread."""

    def __init__(self, project: Path, since_ns: int) -> None:
        self._project = os.fsencode(project)
        self._since_ns = since_ns
        refused = frozenset(name.encode() for name in PROTECTED_NAMES)
        self._receiver = Receiver(TreeValidator(refused_names=refused))
        self._disk = DiskWriter(project, protected_names=refused | {DOTCOG_NAME.encode()})
        self._writer: FileWriter | None = None
        self._beside: list[tuple[bytes, bytes]] = []
        self._asked_to_finish = False

    @property
    def done(self) -> bool:
        return self._receiver.done

    def take(self, packets: list[bytes]) -> list[bytes]:
        """Write what came; what is to be sent back."""
        answers: list[bytes] = []
        for packet in packets:
            action = self._receiver.feed(packet)
            if isinstance(action, Make):
                self._make(action.entry)
            elif isinstance(action, Chunk):
                self._file_writer().write(action)
            answers.extend(self._receiver.packets_to_send())
            if self._receiver.complete and not self._asked_to_finish:
                self._asked_to_finish = True
                answers.append(self._receiver.finish())
        return answers

    def _file_writer(self) -> FileWriter:
        if self._writer is None:
            self._writer = self._disk.file_writer()
        return self._writer

    def _make(self, entry: Entry) -> None:
        path = entry.stat.path
        if path.split(b"/", 1)[0].lower() == DOTCOG_NAME.encode():
            raise RefusedTreeError(f"the container's side sent '{printable(path)}', which is this machine's own")
        if entry.kind is not Kind.DIRECTORY and self._changed_here(path):
            entry.stat.path = path + BESIDE
            self._beside.append((path, entry.stat.path))
        self._disk.make(entry)
        self._receiver.made(1, [entry] if entry.kind is Kind.FILE else [])

    def _changed_here(self, path: bytes) -> bool:
        try:
            status = os.lstat(os.path.join(self._project, path))
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) or status.st_ctime_ns >= self._since_ns - MARGIN_NS

    def settle(self) -> list[str]:
        """All is there; what is the same on both sides after all needs no second file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._disk.finish()
        kept = []
        for path, beside in self._beside:
            here, there = os.path.join(self._project, path), os.path.join(self._project, beside)
            if _is_same(here, there):
                os.unlink(there)
            else:
                kept.append(os.fsdecode(beside))
        return kept

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._disk.abort()


def _is_same(here: bytes, there: bytes) -> bool:
    try:
        if os.path.islink(here) or os.path.islink(there):
            return os.readlink(here) == os.readlink(there)
        return os.path.isfile(here) and filecmp.cmp(here, there, shallow=False)
    except OSError:
        return False
