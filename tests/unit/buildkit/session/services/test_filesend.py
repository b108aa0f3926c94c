"""The FileSend service: which export a call means, archives from messages to files, and trees through all layers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cogkit.buildkit.exports import Export
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.filesend import EXPORTER_ID, FileSend
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import OutputError
from cogkit.output_file import OutputFile
from tests.scripted_sender import END_OF_TREE, ScriptedSender, blob, data, directory, number, stat

Metadata = Mapping[str, tuple[bytes, ...]]


async def call(service: FileSend, stream: ScriptedSender) -> None:
    await asyncio.wait_for(service.methods()[ScriptedSender.method](stream), 20)


def archive(*parts: bytes, id: int | None = None, metadata: Metadata | None = None) -> ScriptedSender:
    """A daemon that streams an archive and closes its half."""
    own = {} if id is None else {EXPORTER_ID: (b"%d" % id,)}
    messages = [blob(1, part) for part in parts]
    return ScriptedSender(messages, metadata={**own, **(metadata or {})}, hang_up=True)


def exports(root: Path) -> Sequence[Export]:
    return (
        Export("image", {"push": "true"}),
        Export("oci", file=OutputFile(root / "image.tar")),
        Export("local", directory=root / "tree"),
        Export("tar", file=OutputFile(root / "root.tar")),
    )


def test_archives_appear_when_the_build_has_succeeded_and_not_before(tmp_path: Path) -> None:
    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await call(service, archive(b"oci ", b"image", id=1))
        await call(service, archive(b"tar", id=3))
        assert list(tmp_path.iterdir()) == []
        await service.publish()

    asyncio.run(play())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "image.tar": b"oci image",
        "root.tar": b"tar",
    }


def test_archives_of_a_failed_build_do_not_appear(tmp_path: Path) -> None:
    """BuildKit closes the stream of an archive it failed to write just as that of a whole one."""
    (tmp_path / "image.tar").write_text("of the last build")

    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await call(service, archive(b"half an im", id=1))
        await service.discard()
        await service.discard()
        await service.publish()

    asyncio.run(play())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("image.tar", "of the last build")]


def test_an_empty_archive_is_a_file(tmp_path: Path) -> None:
    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await call(service, archive(id=1))
        await service.publish()

    asyncio.run(play())
    assert (tmp_path / "image.tar").read_bytes() == b""


def test_large_archives_arrive_byte_for_byte(tmp_path: Path) -> None:
    sent = [os.urandom(size) for size in (1, 32_768, 3 << 20, 0, 700_001)] * 5

    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await call(service, archive(*sent, id=1))
        await service.publish()

    asyncio.run(play())
    assert (tmp_path / "image.tar").read_bytes() == b"".join(sent)


def test_a_daemon_that_names_no_exporter_means_the_first(tmp_path: Path) -> None:
    """BuildKit before v0.13 knew one exporter only."""

    async def play() -> None:
        service = FileSend([Export("tar", file=OutputFile(tmp_path / "out"))])
        await call(service, archive(b"x"))
        await service.publish()

    asyncio.run(play())
    assert (tmp_path / "out").read_bytes() == b"x"


@pytest.mark.parametrize("id", [b"4", b"-1", b"99999999999999999999", b"", b"one", b"1.0", b"\xff"])
def test_an_exporter_that_was_not_offered_is_refused(tmp_path: Path, id: bytes) -> None:
    with pytest.raises(CallError, match="not found") as caught:
        asyncio.run(call(FileSend(exports(tmp_path)), archive(b"x", metadata={EXPORTER_ID: (id,)})))
    assert caught.value.code == StatusCode.NOT_FOUND
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_without_an_output_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="exporter 0 has no output here"):
        asyncio.run(call(FileSend(exports(tmp_path)), archive(b"x", id=0)))


def test_the_same_output_twice_is_an_error(tmp_path: Path) -> None:
    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await call(service, archive(b"one", id=1))
        with pytest.raises(CallError, match="twice"):
            await call(service, archive(b"two", id=1))
        await service.publish()

    asyncio.run(play())
    assert (tmp_path / "image.tar").read_bytes() == b"one"


def test_what_the_daemon_says_about_a_result_is_kept(tmp_path: Path) -> None:
    service = FileSend(exports(tmp_path))
    said = {"exporter-md-containerimage.digest": (b"sha256:1",), "exporter-md-list": (b"a", b"b"), "other": (b"x",)}

    async def play() -> None:
        await call(service, archive(b"x", id=1, metadata=said))
        await service.discard()

    asyncio.run(play())
    assert service.metadata == {1: {"containerimage.digest": "sha256:1", "list": "a,b"}}


def test_an_unwritable_output_fails_the_call_with_the_cause_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    service = FileSend([Export("tar", file=OutputFile(tmp_path / "f" / "out"))])
    with pytest.raises(CallError) as caught:
        asyncio.run(call(service, archive(b"x", id=0)))
    assert isinstance(caught.value.cause, OutputError)
    assert "f" in str(caught.value.cause)


def test_a_cancelled_archive_leaves_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        service = FileSend(exports(tmp_path))
        endless = ScriptedSender([blob(1, b"x" * 100_000)] * 30, metadata={EXPORTER_ID: (b"1",)})
        task = asyncio.ensure_future(call(service, endless))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.publish()

    asyncio.run(play())
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_though_nobody_reads_the_pipe_it_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    script = f"""
import asyncio
from cogkit.buildkit.exports import Export
from cogkit.output_file import OutputFile
from cogkit.buildkit.session.services.filesend import FileSend
from tests.scripted_sender import ScriptedSender, blob
async def play():
    service = FileSend([Export("tar", file=OutputFile({str(tmp_path / "pipe")!r}))])
    stream = ScriptedSender([blob(1, bytes(100_000))] * 100)
    await asyncio.wait_for(service.methods()[stream.method](stream), 0.5)
try: asyncio.run(play())
except TimeoutError: print("timed out")
"""
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    os.close(reader)
    assert done.stdout == "timed out\n", done.stderr
    assert time.monotonic() - started < 80


def test_trees_and_archives_at_once(tmp_path: Path) -> None:
    tree = ScriptedSender(
        [directory(b"d"), stat(b"d/f", size=3), END_OF_TREE],
        {1: [data(1, b"abc"), data(1)]},
        metadata={EXPORTER_ID: (b"2",)},
    )

    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await asyncio.gather(
            call(service, archive(b"x" * 5_000_000, id=1)), call(service, tree), call(service, archive(b"y", id=3))
        )
        await service.publish()

    asyncio.run(play())
    assert (tmp_path / "tree/d/f").read_bytes() == b"abc"
    assert (tmp_path / "image.tar").stat().st_size == 5_000_000
    assert (tmp_path / "root.tar").read_bytes() == b"y"


def test_the_trees_of_several_platforms_go_into_one_directory(tmp_path: Path) -> None:
    """One transfer for each platform, at the same time, with the same exporter's id."""

    def platform(name: bytes) -> ScriptedSender:
        files = 300
        paths = [name + b"/%03d" % index for index in range(files)]
        packets = [directory(name), *(stat(path, size=len(path)) for path in paths), END_OF_TREE]
        answers = {index: [data(index, path), data(index)] for index, path in enumerate(paths, start=1)}
        return ScriptedSender(packets, answers, metadata={EXPORTER_ID: (b"2",)})

    async def play() -> None:
        service = FileSend(exports(tmp_path))
        await asyncio.gather(*(call(service, platform(name)) for name in (b"linux_amd64", b"linux_arm64")))

    asyncio.run(play())
    files = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    assert len(files) == 600
    assert all(path.read_text() == str(path.relative_to(tmp_path / "tree")) for path in files)


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff", number(1, 5), b"\x0a" + b"\xff" * 20])
def test_broken_messages_fail_the_call_and_leave_nothing(tmp_path: Path, message: bytes) -> None:
    stream = ScriptedSender([blob(1, b"ok"), message], metadata={EXPORTER_ID: (b"1",)}, hang_up=True)
    with pytest.raises(CallError, match="BytesMessage"):
        asyncio.run(call(FileSend(exports(tmp_path)), stream))
    assert list(tmp_path.iterdir()) == []
