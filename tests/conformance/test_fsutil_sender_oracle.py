"""The FileSync service against fsutil itself: its receiver takes what we send, its sender sends the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from cogkit.buildkit.fsutil.packet import PacketType, decode_packet, encode_packet
from cogkit.buildkit.fsutil.walk import Tree
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.filesync import DIFF_COPY, FileSync
from tests.conformance import generate
from tests.oracle.oracle import Oracle, Peer
from tests.unit.service_call import OneByOne, unframed


class PeerStream(OneByOne):
    """A call whose other end is a process that speaks length-prefixed packets."""

    method = DIFF_COPY
    takes_gzip = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, metadata: Mapping[str, list[bytes]]):
        self._reader = reader
        self._writer = writer
        self.metadata = {key: tuple(values) for key, values in metadata.items()}

    async def receive(self) -> bytes | None:
        try:
            head = await self._reader.readexactly(4)
            return await self._reader.readexactly(int.from_bytes(head, "big"))
        except asyncio.IncompleteReadError:
            return None

    async def send(self, message: bytes) -> None:
        await self.send_many([message])

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        await self.send_many(unframed(pieces))

    async def send_many(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            self._writer.write(len(message).to_bytes(4, "big") + message)
        await self._writer.drain()


@contextlib.asynccontextmanager
async def _receiver(
    binary: Path, destination: Path, metadata: Mapping[str, list[bytes]]
) -> AsyncIterator[tuple[PeerStream, asyncio.subprocess.Process]]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(binary, "receive", destination, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield PeerStream(process.stdout, process.stdin, metadata), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _transfer(binary: Path, mount: LocalMount, destination: Path, **metadata: list[bytes]) -> FileSync:
    service = FileSync([mount])
    given = {"dir-name": [mount.name.encode()], **{key.replace("_", "-"): value for key, value in metadata.items()}}
    async with _receiver(binary, destination, given) as (stream, process):
        await service.methods()[DIFF_COPY](stream)
        assert process.stdin is not None
        process.stdin.close()  # the end of the call
        _, complaint = await process.communicate()
        assert process.returncode == 0, complaint
    return service


def _reference(binary: Path, source: Path, destination: Path, exclude: Sequence[bytes] = ()) -> bool:
    """Let fsutil's receiver take what fsutil's sender sends (it drops attributes of links, for instance).

    False if the sender fails, over a pattern that cannot be used.
    """
    down, up = os.pipe(), os.pipe()
    options = [part for pattern in exclude for part in (b"-exclude", pattern)]
    sender = subprocess.Popen([binary, "serve-send", *options, source], stdin=up[0], stdout=down[1])
    receiver = subprocess.Popen([binary, "receive", destination], stdin=down[0], stdout=up[1])
    for end in (*down, *up):
        os.close(end)
    return (sender.wait(30), receiver.wait(30)) == (0, 0)


def _tree(oracle: Oracle, root: Path) -> list[object]:
    """All entries; without the times of directories, which a receiver that fills them does not keep."""
    entries = oracle.walk(os.fsencode(root))
    assert "error" not in entries, entries
    return [
        {key: value for key, value in entry.items() if key != "mtime" or not entry["mode"] >> 31}
        for entry in entries["stats"]
    ]


def test_what_fsutil_receives_is_the_tree(oracle: Oracle, oracle_binary: Path, cases: float, tmp_path: Path) -> None:
    for seed in range(int(25 * cases)):
        rng = random.Random(seed)
        source, destination, reference = (tmp_path / f"{seed}{end}" for end in ("", "-received", "-reference"))
        destination.mkdir()
        reference.mkdir()
        generate.make_tree(source, rng, entries=60)
        assert _reference(oracle_binary, source, reference)
        mount = LocalMount("context", source)
        service = asyncio.run(_transfer(oracle_binary, mount, destination))
        assert _tree(oracle, destination) == _tree(oracle, reference), seed
        first = service.progress["context"].bytes_sent
        again = asyncio.run(_transfer(oracle_binary, mount, destination)).progress["context"]
        assert again.bytes_sent <= first, "an unchanged tree is not sent again"
        assert _tree(oracle, destination) == _tree(oracle, reference), seed


def test_a_filtered_tree_arrives_as_it_is_filtered(
    oracle: Oracle, oracle_binary: Path, cases: float, tmp_path: Path
) -> None:
    for seed in range(int(25 * cases)):
        rng = random.Random(seed)
        source, destination, reference = (tmp_path / f"{seed}{end}" for end in ("", "-received", "-reference"))
        destination.mkdir()
        reference.mkdir()
        paths = generate.make_tree(source, rng, entries=60, plain=True)
        exclude = generate.readable_patterns(rng, paths)
        succeeds = _reference(oracle_binary, source, reference, exclude)
        expected = contextlib.nullcontext() if succeeds else pytest.raises(CallError, match="pattern")
        with expected:
            asyncio.run(_transfer(oracle_binary, LocalMount("context", source), destination, exclude_patterns=exclude))
        if succeeds:  # else what the receivers had got to by then is chance
            assert _tree(oracle, destination) == _tree(oracle, reference), (seed, exclude)


def test_large_and_many_files_arrive_whole(oracle: Oracle, oracle_binary: Path, tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "received"
    destination.mkdir()
    rng = random.Random(1)
    for number in range(3000):
        file = source / f"{number % 7}" / f"{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.randbytes(number % 300))
    for size in (131071, 131072, 131073, 262144, 10_000_000):
        (source / f"size-{size}").write_bytes(rng.randbytes(size))
    service = asyncio.run(_transfer(oracle_binary, LocalMount("context", source), destination))
    assert _tree(oracle, destination) == _tree(oracle, source)
    progress = service.progress["context"]
    assert progress.entries == 3000 + 7 + 5
    assert progress.files == 3000 + 5
    assert progress.bytes_sent == sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    assert progress.active == 0


def test_the_stat_packets_are_those_of_fsutil_byte_for_byte(oracle_binary: Path, cases: float, tmp_path: Path) -> None:
    compared = 0
    for seed in range(int(25 * cases)):
        source = tmp_path / f"{seed}"
        generate.make_tree(source, random.Random(seed), entries=60)
        peer = Peer(oracle_binary, "serve-send", os.fsencode(source))
        try:
            theirs = []
            while (packet := peer.receive()) is not None and decode_packet(packet).stat is not None:
                theirs.append(packet)
            peer.send(encode_packet(PacketType.FIN))
            assert decode_packet(peer.receive() or b"").type == PacketType.FIN
        finally:
            peer.kill()
        with Tree(LocalMount("context", source)) as tree:
            ours = [packet for batch in tree.walk() for packet in batch.packets]
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            stat = decode_packet(our).stat
            assert stat is not None
            if len(stat.xattrs or {}) > 1:  # Go writes a map in any order
                assert stat == decode_packet(their).stat, seed
            else:
                assert our == their, seed
                compared += 1
    assert compared > 100
