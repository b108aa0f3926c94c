"""Files that come back, with a relay that runs here, and with a peer that means harm."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cogkit.buildkit.fsutil.packet import PacketType, encode_packet
from cogkit.buildkit.fsutil.stat import MODE_DIR, MODE_SYMLINK, Stat
from cogkit.errors import OutputError
from cogkit.running.sync_back import MARGIN_NS, _Incoming, syncing_back
from tests.unit.running.linked import Linked, linked

LIMIT = 120


def with_relay(test: Callable[[Linked], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with TemporaryDirectory() as folder:
            async with linked(Path(folder)) as there, asyncio.timeout(LIMIT):
                await test(there)

    asyncio.run(run())


def after_all_of(*folders: Path) -> int:
    """A moment after which nothing in the folders has changed, and so long after that no margin reaches back."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    newest = max(path.lstat().st_ctime_ns for path in paths)
    while time.time_ns() <= newest + 5 * MARGIN_NS:
        time.sleep(0.01)
    return time.time_ns()


def test_what_changed_comes_and_nothing_else(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/old").write_text("old")
        (folder / "gone").write_text("gone")
        (folder / "moved").mkdir()
        (folder / "moved/inner").write_text("inner")
    warned: list[str] = []
    since = after_all_of(there, here)

    async def test(relay: Linked) -> None:
        async with syncing_back(relay.link, str(there), here, since, warned.append):
            (there / "sub/new").write_bytes(os.urandom(300_000))
            (there / "sub/old").write_text("changed")
            (there / "empty").mkdir()
            (there / "gone").unlink()
            (there / "moved").rename(there / "elsewhere")
            (there / ".cog").mkdir()
            (there / ".cog/secret").write_text("x")
            (there / "sub/.git").mkdir()
            (there / "sub/.git/config").write_text("x")
            (there / "link").symlink_to("/etc/passwd")

    with_relay(test)
    assert (here / "sub/new").read_bytes() == (there / "sub/new").read_bytes()
    assert (here / "sub/old").read_text() == "changed"
    assert (here / "empty").is_dir()
    assert (here / "gone").exists()
    assert (here / "elsewhere/inner").read_text() == "inner"
    assert os.readlink(here / "link") == "/etc/passwd"
    assert not (here / ".cog").exists()
    assert not (here / "sub/.git").exists()
    assert warned == []


def test_both_sides_keep_what_they_have(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
        (folder / "both").write_text("before")
        (folder / "same").write_text("before")
    warned: list[str] = []
    since = after_all_of(there, here)

    async def test(relay: Linked) -> None:
        async with syncing_back(relay.link, str(there), here, since, warned.append):
            (there / "both").write_text("there")
            (there / "same").write_text("agreed")
            (here / "both").write_text("here")
            (here / "same").write_text("agreed")

    with_relay(test)
    assert (here / "both").read_text() == "here"
    assert (here / "both.from-builder").read_text() == "there"
    assert not (here / "same.from-builder").exists()
    assert warned == ["both changed here and on the builder: what comes is in both.from-builder"]


def stat_packet(path: bytes, mode: int = 0o644, **more: Any) -> bytes:
    return encode_packet(PacketType.STAT, stat=Stat(path, mode, **more))


@pytest.mark.parametrize(
    "packets",
    [
        [stat_packet(b"../out")],
        [stat_packet(b"/etc/passwd")],
        [stat_packet(b".cog", MODE_DIR | 0o755)],
        [stat_packet(b".COG", MODE_DIR | 0o755)],
        [stat_packet(b".git", MODE_DIR | 0o755)],
        [stat_packet(b"link", MODE_SYMLINK | 0o777, linkname=b"/tmp"), stat_packet(b"link/file")],
        [encode_packet(PacketType.DATA, id=5, data=b"x")],
        [b"\xff\xff"],
    ],
)
def test_a_peer_that_means_harm_writes_nothing(packets: list[bytes], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    incoming = _Incoming(project, time.time_ns())
    try:
        with pytest.raises(OutputError):
            incoming.take(packets)
    finally:
        incoming.close()
    assert [path.name for path in project.iterdir() if not path.is_symlink()] == []
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_a_packet_that_is_too_long_is_not_waited_for() -> None:
    from cogkit.running.sync_back import _packets

    with pytest.raises(OutputError, match="packet of"):
        _packets(bytearray(struct.pack(">I", 1 << 30)))
