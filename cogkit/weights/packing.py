"""How files become layers: which go together, and the bytes of a layer, the same each time.

The tar headers are those of Go's ``archive/tar`` in PAX format with all times 0, as Cog writes them (``pkg/model/
packer.go``), so a layer that is not compressed has the same digest whoever packed it.  A compressed one has not: Go's
and zlib's deflate find other matches.  Where a sample does not shrink, nothing is compressed, as the specification
advises (1.2).

Pure but for reading the files; this file must not know a registry.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from cogkit.fast_dataclass import dataclass
from cogkit.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_TAR
from cogkit.weights.inventory import InventoryFile

BUNDLE_FILE_MAX = 64 << 20
"""Bytes from which on a file has a layer of its own."""

BUNDLE_SIZE_MAX = 256 << 20
INCOMPRESSIBLE = (".bin", ".gguf", ".onnx", ".parquet", ".pt", ".pth", ".safetensors")
GZIP_LEVEL = 6
SAMPLE = 64 << 10
WORTHWHILE = 0.9
"""A sample that shrinks to less than this part of itself is compressed."""

_REVISION = "cogkit-1"
"""Raise it when the same files would give other bytes than before."""

_BLOCK = 512
_CHUNK = 1 << 20
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

Open = Callable[[InventoryFile], BinaryIO]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The files of one layer, in their order, and the layer's media type."""

    files: tuple[InventoryFile, ...]
    media_type: str

    @property
    def size_uncompressed(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def is_compressed(self) -> bool:
        return self.media_type == OCI_LAYER_GZIP

    @property
    def key(self) -> str:
        """Names the bytes of the layer without making them."""
        said = [envelope(), self.media_type, *(f"{file.path}\0{file.digest}" for file in self.files)]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()


def envelope() -> str:
    """Says in ``weights.lock`` how layers are packed; Cog's layers have another one, so it packs such files anew."""
    settings = {
        "bundleFileMax": BUNDLE_FILE_MAX,
        "bundleSizeMax": BUNDLE_SIZE_MAX,
        "gzipLevel": GZIP_LEVEL,
        "incompressibleExts": INCOMPRESSIBLE,
        "revision": _REVISION,
    }
    return f"sha256:{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()}"


def plan_layers(files: Sequence[InventoryFile], open_file: Open) -> tuple[LayerPlan, ...]:
    """Part sorted files into layers: small ones in bundles, large ones alone."""
    bundles: list[list[InventoryFile]] = []
    room = 0
    large: list[InventoryFile] = []
    for file in files:
        if file.size >= BUNDLE_FILE_MAX:
            large.append(file)
            continue
        if not bundles or (room < BUNDLE_SIZE_MAX and file.size > room):
            bundles.append([])
            room = BUNDLE_SIZE_MAX
        bundles[-1].append(file)
        room -= file.size
    plans = [LayerPlan(tuple(bundle), _bundle_type(bundle, open_file)) for bundle in bundles]
    return (*plans, *(LayerPlan((file,), _file_type(file, open_file)) for file in large))


def _file_type(file: InventoryFile, open_file: Open) -> str:
    if file.path.lower().endswith(INCOMPRESSIBLE):
        return OCI_LAYER_TAR
    return OCI_LAYER_GZIP if _shrinks([file], open_file) else OCI_LAYER_TAR


def _bundle_type(files: Sequence[InventoryFile], open_file: Open) -> str:
    return OCI_LAYER_GZIP if _shrinks(files, open_file) else OCI_LAYER_TAR


def _shrinks(files: Sequence[InventoryFile], open_file: Open) -> bool:
    """Whether samples of the largest files say that compression is worth its time."""
    if sum(file.size for file in files) < _CHUNK:
        return True  # it costs nothing, and headers alone shrink
    total = expected = 0.0
    for file in sorted(files, key=lambda file: (-file.size, file.path))[:8]:
        before = after = 0
        with open_file(file) as opened:
            for offset in sorted({0, file.size // 2, max(file.size - SAMPLE, 0)}):
                opened.seek(offset)
                data = opened.read(SAMPLE)
                before += len(data)
                after += len(zlib.compress(data, 1))
        total += file.size
        expected += file.size * (after / max(before, 1))
    return expected < total * WORTHWHILE


# ---- the bytes of a layer


def tar_size(plan: LayerPlan) -> int:
    """Bytes of a layer before compression."""
    folders = sum(len(folder_header(name)) for name in folders_of(plan.files))
    return folders + sum(len(file_header(file)) + _padded(file.size) for file in plan.files) + 2 * _BLOCK


def tar_stream(plan: LayerPlan, open_file: Open, start: int = 0) -> Iterator[bytes]:
    """The bytes of a layer before compression, from ``start`` on.

    Raises:
        ValueError: a file does not have the size that it should have.
    """
    skip = start

    def rest(data: bytes) -> bytes:
        nonlocal skip
        dropped = min(skip, len(data))
        skip -= dropped
        return data[dropped:] if dropped else data

    for name in folders_of(plan.files):
        if data := rest(folder_header(name)):
            yield data
    for file in plan.files:
        if data := rest(file_header(file)):
            yield data
        begin = min(skip, file.size)
        skip -= begin
        if begin < file.size:
            yield from _content(file, open_file, begin)
        if data := rest(b"\0" * (_padded(file.size) - file.size)):
            yield data
    if data := rest(b"\0" * (2 * _BLOCK)):
        yield data


def _content(file: InventoryFile, open_file: Open, begin: int) -> Iterator[bytes]:
    left = file.size - begin
    with open_file(file) as opened:
        opened.seek(begin)
        while left:
            data = opened.read(min(left, _CHUNK))
            if not data:
                raise ValueError(f"{file.path} ended {left} bytes too early")
            left -= len(data)
            yield data


def compressed(stream: Iterator[bytes]) -> Iterator[bytes]:
    """A stream in gzip format without a name or a time."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    checksum = size = 0
    yield _GZIP_HEADER
    for data in stream:
        checksum = zlib.crc32(data, checksum)
        size += len(data)
        if packed := packer.compress(data):
            yield packed
    yield packer.flush() + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


# ---- tar headers as Go writes them


def folders_of(files: Sequence[InventoryFile]) -> list[str]:
    """All folders that the files are in, sorted."""
    found: set[str] = set()
    for file in files:
        parts = file.path.split("/")[:-1]
        found.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return sorted(found, key=str.encode)


def folder_header(name: str) -> bytes:
    return _entry(f"{name}/", 0, 0o755, b"5")


def file_header(file: InventoryFile) -> bytes:
    return _entry(file.path, file.size, 0o644, b"0")


def _entry(name: str, size: int, mode: int, kind: bytes) -> bytes:
    records = {"atime": "0", "ctime": "0"}
    if not name.isascii() or len(name) > 100:
        records["path"] = name
    if size >= 1 << 33:
        records["size"] = str(size)
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    folder, _, last = name.rpartition("/")
    extended = "/".join(part for part in (folder, "PaxHeaders.0", last) if part)
    padding = b"\0" * (_padded(len(data)) - len(data))
    header = _block(_ascii(extended)[:100].rstrip(b"/"), len(data), 0, b"x", extended=True)
    return header + data + padding + _block(_ascii(name), size if size < 1 << 33 else 0, mode, kind)


def _record(key: str, value: str) -> bytes:
    content = f" {key}={value}\n".encode()
    length = len(content)
    while len(str(length)) + len(content) != length:
        length = len(str(length)) + len(content)
    return str(length).encode() + content


def _block(name: bytes, size: int, mode: int, kind: bytes, *, extended: bool = False) -> bytes:
    if len(name) > 100 and name[99:100] == b"/":
        # A reader of old tar would take such a file for a folder.
        name = name[:99].rstrip(b"/")
    numbers = _octal(mode, 8) + _octal(0, 8) + _octal(0, 8) + _octal(size, 12) + _octal(0, 12)
    devices = b"\0" * 16 if extended else _octal(0, 8) * 2
    tail = kind + b"\0" * 100 + b"ustar\x0000" + b"\0" * 64 + devices
    block = (name[:100].ljust(100, b"\0") + numbers + b" " * 8 + tail).ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(value: int, width: int) -> bytes:
    return f"{value:0{width - 1}o}".encode() + b"\0"


def _ascii(name: str) -> bytes:
    return bytes(ord(char) for char in name if 0 < ord(char) < 128)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def opener(paths: Callable[[InventoryFile], str | os.PathLike[str]]) -> Open:
    """Opens files by where they are, without a buffer of Python's own."""
    return lambda file: open(paths(file), "rb", buffering=0)
