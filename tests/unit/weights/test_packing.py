"""How files become layers, and that a layer's bytes are tar that anyone reads."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from cogkit.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_TAR
from cogkit.weights import packing
from cogkit.weights.inventory import InventoryFile, by_path
from cogkit.weights.packing import LayerPlan, plan_layers, tar_size, tar_stream
from cogkit.weights.tar_reader import TarError, TarReader

CONTENTS = {
    "a.bin": b"a" * 700,
    "empty": b"",
    "sub/ü.txt": b"x" * 512,
    "sub/" + "l" * 120: b"long",
    "d" * 60 + "/" + "e" * 60 + "/f": b"deep",
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[tuple[InventoryFile, ...], packing.Open]:
    made = []
    for index, (path, content) in enumerate(CONTENTS.items()):
        (tmp_path / str(index)).write_bytes(content)
        made.append(InventoryFile(path, len(content), f"{index}"))
    return by_path(made), packing.opener(lambda file: tmp_path / file.digest)


def test_a_layer_is_tar_with_times_and_owners_of_nobody(
    files: tuple[tuple[InventoryFile, ...], packing.Open],
) -> None:
    plan = LayerPlan(files[0], OCI_LAYER_TAR)
    data = b"".join(tar_stream(plan, files[1]))
    assert len(data) == tar_size(plan)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert {member.name: tar.extractfile(member).read() for member in members if member.isfile()} == CONTENTS  # type: ignore[union-attr]
    assert [member.name for member in members if member.isdir()] == ["d" * 60, f"{'d' * 60}/{'e' * 60}", "sub"]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.mode == (0o755 if member.isdir() else 0o644)


def test_a_layer_can_be_read_from_anywhere(files: tuple[tuple[InventoryFile, ...], packing.Open]) -> None:
    plan = LayerPlan(files[0], OCI_LAYER_TAR)
    whole = b"".join(tar_stream(plan, files[1]))
    for start in (0, 1, 511, 512, 513, 1536, 3000, len(whole) - 1, len(whole)):
        assert b"".join(tar_stream(plan, files[1], start)) == whole[start:]


def test_compression_is_gzip_and_the_same_each_time(files: tuple[tuple[InventoryFile, ...], packing.Open]) -> None:
    plan = LayerPlan(files[0], OCI_LAYER_GZIP)
    once, twice = (b"".join(packing.compressed(tar_stream(plan, files[1]))) for _ in range(2))
    assert once == twice
    assert gzip.decompress(once) == b"".join(tar_stream(plan, files[1]))


def test_our_reader_reads_it_split_anywhere(files: tuple[tuple[InventoryFile, ...], packing.Open]) -> None:
    data = b"".join(tar_stream(LayerPlan(files[0], OCI_LAYER_TAR), files[1]))
    for step in (1, 7, 512, 100_000):
        pieces = (data[offset : offset + step] for offset in range(0, len(data), step))
        found = {}
        for entry in TarReader().entries(pieces):
            if entry.is_file:
                content = b"".join(entry.chunks())
                assert data[entry.offset : entry.offset + entry.size] == content
                found[entry.name] = content
        assert found == CONTENTS


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_our_reader_reads_what_others_write(form: int) -> None:
    written = io.BytesIO()
    names = ["short", f"{'a' * 90}/{'b' * 90}"]
    with tarfile.open(fileobj=written, mode="w", format=form) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    found = {entry.name: b"".join(entry.chunks()) for entry in TarReader().entries(iter([written.getvalue()]))}
    assert found == dict.fromkeys(names, b"abc")


@pytest.mark.parametrize("cut", [1, 511, 600, 1100, 1600])
def test_tar_that_ends_too_early_or_is_none_says_so(
    files: tuple[tuple[InventoryFile, ...], packing.Open], cut: int
) -> None:
    data = b"".join(tar_stream(LayerPlan(files[0], OCI_LAYER_TAR), files[1]))
    with pytest.raises(TarError):
        list(TarReader().entries(iter([data[:cut]])))
    with pytest.raises(TarError):
        list(TarReader().entries(iter([os.urandom(2048)])))


def test_small_files_go_together_large_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BUNDLE_FILE_MAX", 100)
    monkeypatch.setattr(packing, "BUNDLE_SIZE_MAX", 150)
    files = by_path(
        InventoryFile(name, size, name) for name, size in (("a", 60), ("b", 200), ("c", 60), ("d", 60), ("e.pt", 300))
    )
    for file in files:
        (tmp_path / file.digest).write_bytes(b"x" * file.size)
    plans = plan_layers(files, packing.opener(lambda file: tmp_path / file.digest))
    assert [[file.path for file in plan.files] for plan in plans] == [["a", "c"], ["d"], ["b"], ["e.pt"]]
    assert plans[-1].media_type == OCI_LAYER_TAR


def test_what_does_not_shrink_is_not_compressed(tmp_path: Path) -> None:
    (tmp_path / "random").write_bytes(os.urandom(2 << 20))
    (tmp_path / "text").write_bytes(b"words " * (1 << 19))
    opener = packing.opener(lambda file: tmp_path / file.digest)
    for name, kind in (("random", OCI_LAYER_TAR), ("text", OCI_LAYER_GZIP)):
        size = (tmp_path / name).stat().st_size
        (plan,) = plan_layers([InventoryFile(f"{name}.dat", size, name)], opener)
        assert plan.media_type == kind


def test_sizes_that_octal_digits_cannot_say_have_a_record() -> None:
    header = packing.file_header(InventoryFile("large.bin", 9 << 30, "x"))
    stream = iter([header])
    (entry,) = (next(iter(TarReader().entries(stream))),)
    assert entry.size == 9 << 30
