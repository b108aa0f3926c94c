"""Our receiver against fsutil: its sender sends us random trees, and its receiver shows what becomes of a directory.

Where the result differs on purpose (owner, setuid of strangers, attributes that give power, device nodes) the
difference is written down here, in `as_received`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import random
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogkit.buildkit.exports import Export
from cogkit.buildkit.fsutil.stat import MODE_DIR, MODE_NAMED_PIPE, MODE_SETGID, MODE_SETUID, MODE_TYPE
from cogkit.buildkit.session.services.filesend import MULTI_PLATFORM, FileSend
from tests.conformance import generate
from tests.oracle.oracle import Oracle
from tests.unit.service_call import OneByOne

Entry = dict[str, Any]
PIPE = asyncio.subprocess.PIPE


class _Sender(OneByOne):
    """A call whose other end is ``oracle serve-send``."""

    method = "/moby.filesync.v1.FileSend/DiffCopy"
    takes_gzip = False
    metadata: Mapping[str, tuple[bytes, ...]] = {MULTI_PLATFORM: (b"1",)}

    def __init__(self, process: asyncio.subprocess.Process):
        assert process.stdin is not None and process.stdout is not None
        self._reader, self._writer = process.stdout, process.stdin

    async def receive(self) -> bytes | None:
        try:
            head = await self._reader.readexactly(4)
            return await self._reader.readexactly(int.from_bytes(head, "big"))
        except asyncio.IncompleteReadError:
            return None

    async def send(self, message: bytes) -> None:
        await self.send_many([message])

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        raise NotImplementedError("what this service sends is small")

    async def send_many(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self._writer.write(len(message).to_bytes(4, "big") + message)
        await self._writer.drain()


def receive(binary: Path, source: Path, destination: Path, **attrs: str) -> None:
    """Export ``source`` with fsutil as the sender and cogkit as the receiver."""

    async def play() -> None:
        service = FileSend([Export("local", {"allow-git": "true", **attrs}, directory=destination)])
        process = await asyncio.create_subprocess_exec(binary, "serve-send", source, stdin=PIPE, stdout=PIPE)
        try:
            await asyncio.wait_for(service.methods()[_Sender.method](_Sender(process)), 60)
            assert await asyncio.wait_for(process.wait(), 10) == 0, "the sender is content too"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    asyncio.run(play())


def reference(binary: Path, source: Path, destination: Path, *options: str) -> None:
    """The same with fsutil at both ends."""
    down, up = os.pipe(), os.pipe()
    sender = subprocess.Popen([binary, "serve-send", source], stdin=up[0], stdout=down[1])
    receiver = subprocess.Popen([binary, "receive", *options, destination], stdin=down[0], stdout=up[1])
    for end in (*down, *up):
        os.close(end)
    assert (sender.wait(60), receiver.wait(60)) == (0, 0)


def entries(oracle: Oracle, root: Path) -> list[Entry]:
    """All entries as fsutil sees them, with the contents of files."""
    answer = oracle.walk(os.fsencode(root))
    assert "error" not in answer, answer
    found: list[Entry] = answer["stats"]
    return found


def make_tree(root: Path, rng: random.Random, *, plain: bool = False) -> None:
    """A random tree without device nodes, which we refuse."""
    generate.make_tree(root, rng, entries=60, plain=plain)
    for top, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                os.unlink(path)


def as_received(entry: Entry) -> Entry:
    """What the receiver is to make of an entry of the source, whose owner fsutil's sender resets to root."""
    mode = entry["mode"]
    kind = mode & MODE_TYPE
    if os.geteuid() != 0:
        mode &= ~MODE_SETUID
    if os.getegid() != 0:
        mode &= ~MODE_SETGID
    wanted = {**entry, "mode": mode}
    if kind == MODE_NAMED_PIPE:
        wanted["linkname"] = ""  # a second name of a pipe becomes a second pipe, with fsutil too
    attributes = {name: value for name, value in entry.get("xattrs", {}).items() if name.startswith("user.")}
    wanted.pop("xattrs", None)
    if attributes and kind in (0, MODE_DIR):
        wanted["xattrs"] = attributes
    return wanted


def without_metadata(found: list[Entry]) -> list[tuple[object, ...]]:
    """What is where: for trees that one receiver wrote over another, where modes and times differ on purpose."""
    return [(each["path"], each["mode"] & MODE_TYPE, each["linkname"], each["content"]) for each in found]


def without_old_attributes(entry: Entry) -> Entry:
    """A directory that was there keeps attributes that the tree does not have, with fsutil too."""
    return {key: value for key, value in entry.items() if key != "xattrs" or not entry["mode"] & MODE_DIR}


def test_the_tree_on_disk_is_the_tree_sent(oracle: Oracle, oracle_binary: Path, cases: float, tmp_path: Path) -> None:
    for seed in range(int(40 * cases)):
        source, destination = tmp_path / f"{seed}", tmp_path / f"{seed}-received"
        make_tree(source, random.Random(seed))
        receive(oracle_binary, source, destination)
        wanted = [as_received(entry) for entry in entries(oracle, source)]
        assert entries(oracle, destination) == wanted, seed
        receive(oracle_binary, source, destination)
        assert entries(oracle, destination) == wanted, f"{seed}, once more"
        owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in destination.rglob("*")}
        assert owners <= {(os.geteuid(), os.getegid())}


def test_a_tree_over_another_is_what_fsutil_makes_of_it(
    oracle: Oracle, oracle_binary: Path, cases: float, tmp_path: Path
) -> None:
    """Few names, so that files, directories and links stand in each other's way all the time."""
    for seed in range(int(30 * cases)):
        rng = random.Random(seed)
        sources = [tmp_path / f"{seed}-{number}" for number in range(3)]
        ours, theirs = tmp_path / f"{seed}-ours", tmp_path / f"{seed}-theirs"
        theirs.mkdir()
        for source in sources:
            make_tree(source, rng, plain=True)
            receive(oracle_binary, source, ours)
            reference(oracle_binary, source, theirs, "-merge")
            assert without_metadata(entries(oracle, ours)) == without_metadata(entries(oracle, theirs)), seed


def test_a_mirror_over_another_is_the_tree_sent(
    oracle: Oracle, oracle_binary: Path, cases: float, tmp_path: Path
) -> None:
    for seed in range(int(20 * cases)):
        rng = random.Random(1000 + seed)
        destination = tmp_path / f"{seed}-received"
        for number in range(2):
            source = tmp_path / f"{seed}-{number}"
            make_tree(source, rng, plain=True)
            receive(oracle_binary, source, destination, mode="delete")
            wanted = [without_old_attributes(as_received(entry)) for entry in entries(oracle, source)]
            assert [without_old_attributes(entry) for entry in entries(oracle, destination)] == wanted, seed


def test_thousands_of_files_and_a_large_one(oracle: Oracle, oracle_binary: Path, tmp_path: Path) -> None:
    """More than the sender takes requests for at once, and more than is held in memory."""
    source, destination = tmp_path / "source", tmp_path / "received"
    for number in range(3000):
        path = source / f"{number % 150:03}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * (number % 50))
    (source / "large").write_bytes(random.Random(0).randbytes(40 << 20))
    receive(oracle_binary, source, destination)
    assert entries(oracle, destination) == entries(oracle, source)
