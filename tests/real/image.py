"""Images made by hand: layers as files, config and manifest as Docker's schema 2."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class Layer:
    """A gzipped tar.

    Attributes:
        digest: Of the file as it is.
        diff_id: Digest of the tar inside.
    """

    path: Path
    digest: str
    diff_id: str
    size: int


@dataclass(frozen=True)
class TarEntry:
    """One entry of a layer: a file with content, a link, or (neither) a directory."""

    name: str
    content: bytes | None = None
    link: str | None = None
    mode: int = 0o755


@dataclass(frozen=True)
class Image:
    """An image for this machine's platform."""

    MEDIA_TYPE: ClassVar[str] = "application/vnd.docker.distribution.manifest.v2+json"

    layers: tuple[Layer, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def config(self) -> bytes:
        config = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {
                "Env": [f"{name}={value}" for name, value in self.environment.items()],
                "Cmd": list(self.command) or None,
                "Entrypoint": list(self.entrypoint) or None,
                "Labels": dict(self.labels) or None,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created_by": layer.path.name} for layer in self.layers],
        }
        return json.dumps(config).encode()

    def manifest(self, config: bytes) -> bytes:
        manifest = {
            "schemaVersion": 2,
            "mediaType": self.MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": "sha256:" + hashlib.sha256(config).hexdigest(),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "digest": layer.digest,
                    "size": layer.size,
                }
                for layer in self.layers
            ],
        }
        return json.dumps(manifest).encode()


def layer_from_tar(tar: IO[bytes], path: Path) -> Layer:
    """Compress a tar into ``path`` and describe it."""
    diff_id = hashlib.sha256()
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0, filename="") as packed:
        while block := tar.read(1 << 20):
            diff_id.update(block)
            packed.write(block)
    with path.open("rb") as packed_file:
        digest = hashlib.file_digest(packed_file, "sha256")
    return Layer(path, "sha256:" + digest.hexdigest(), "sha256:" + diff_id.hexdigest(), path.stat().st_size)


def layer_from_entries(entries: Iterable[TarEntry], path: Path) -> Layer:
    """Make a layer of a few entries, all owned by root and dated at the epoch."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.mode = entry.mode
            if entry.content is not None:
                member.size = len(entry.content)
                tar.addfile(member, io.BytesIO(entry.content))
                continue
            member.type = tarfile.DIRTYPE if entry.link is None else tarfile.SYMTYPE
            member.linkname = entry.link or ""
            tar.addfile(member)
    buffer.seek(0)
    return layer_from_tar(buffer, path)
