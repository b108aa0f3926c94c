"""``weights.lock``: what an import found, packed and pushed, in the bytes that Cog writes (``pkg/weights/lockfile``).

A lock is checked into git and comes from other people, so nothing in it is trusted: a path that could leave a folder, a
digest that is none or a version that is newer than this file is refused when it is read.  This file must not look at a
registry or at the files that a lock is about.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import is_digest

LOCK_FILENAME = "weights.lock"
LOCK_VERSION = 1
IMPORT_HINT = "Run 'cogkit weights import' to update."

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
_HTML = {"&": "\\u0026", "<": "\\u003c", ">": "\\u003e", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class LockedSource:
    """Where files came from, and which of them were taken.

    Attributes:
        uri: In the form of `cogkit.project.weights.managed.normal_uri`.
        include: Sorted patterns.
        exclude: Sorted patterns.
        fingerprint: What the source was then: ``sha256:…``, ``commit:…`` or ``etag:…``.
    """

    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file of a weight, its content's digest, and the layer that it is in."""

    path: str
    size: int
    digest: str
    layer: str


@dataclass(frozen=True, slots=True)
class LockedLayer:
    """A layer; ``size`` is of the blob, ``size_uncompressed`` of the files in it."""

    digest: str
    media_type: str
    size: int
    size_uncompressed: int


@dataclass(frozen=True, slots=True)
class LockedWeight:
    """One entry of the lock.

    Attributes:
        digest: Of its manifest in the registry.
        set_digest: Of its files, however they are packed.
        size: Bytes of all files.
        size_compressed: Bytes of all layers.
    """

    name: str
    target: str
    set_digest: str
    sources: tuple[LockedSource, ...]
    imported_at: str = ""
    digest: str = ""
    size: int = 0
    size_compressed: int = 0
    files: tuple[LockedFile, ...] = ()
    layers: tuple[LockedLayer, ...] = ()

    def same_content(self, other: LockedWeight | None) -> bool:
        """Whether the other one differs at most in when it was imported."""
        return other is not None and replace(self, imported_at="") == replace(other, imported_at="")


@dataclass(frozen=True, slots=True)
class WeightsLock:
    """A whole ``weights.lock``.

    Attributes:
        envelope: Says how the layers were packed; other packing has another one.
        weights: In the order of ``cog.yaml``.
    """

    envelope: str = ""
    weights: tuple[LockedWeight, ...] = ()

    def find(self, name: str) -> LockedWeight | None:
        return next((weight for weight in self.weights if weight.name == name), None)

    def with_weight(self, weight: LockedWeight) -> WeightsLock:
        """The same with an entry added or replaced."""
        if self.find(weight.name) is None:
            return replace(self, weights=(*self.weights, weight))
        return replace(self, weights=tuple(weight if one.name == weight.name else one for one in self.weights))

    def only(self, names: Sequence[str]) -> WeightsLock:
        """The same without entries of other names."""
        return replace(self, weights=tuple(weight for weight in self.weights if weight.name in names))

    def serialize(self) -> bytes:
        """The file's bytes."""
        return go_json(
            {
                "version": LOCK_VERSION,
                "envelopeFormat": self.envelope,
                "weights": [_weight_json(weight) for weight in self.weights],
            },
            indent=True,
        )


def read_lock(path: Path) -> WeightsLock | None:
    """The lock of a project; None if there is none.

    Raises:
        ConfigError: it cannot be read or understood.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ConfigError(f"cannot read it: {problem.strerror}", where=LOCK_FILENAME) from problem
    return parse_lock(data)


def parse_lock(data: bytes) -> WeightsLock:
    """What a lock's bytes say.

    Raises:
        ConfigError: they make no sense, or are of another version.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"not JSON: {problem}", where=LOCK_FILENAME, hint=IMPORT_HINT) from problem
    version = content.get("version") if isinstance(content, dict) else None
    if version != LOCK_VERSION:
        newer = isinstance(version, int) and version > LOCK_VERSION
        hint = "It is from a newer version: use that, or import again." if newer else IMPORT_HINT
        raise ConfigError(
            f"unsupported weights.lock version {version} (want {LOCK_VERSION})", where=LOCK_FILENAME, hint=hint
        )
    try:
        weights = tuple(_locked_weight(entry) for entry in content.get("weights") or ())
        envelope = content.get("envelopeFormat") or ""
    except (KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(
            f"an entry lacks what an import writes: {problem}", where=LOCK_FILENAME, hint=IMPORT_HINT
        ) from problem
    except ValueError as problem:
        raise ConfigError(f"it was changed by hand: {problem}", where=LOCK_FILENAME, hint=IMPORT_HINT) from problem
    _refuse_twins(weights)
    return WeightsLock(str(envelope), weights)


def _locked_weight(entry: dict[str, Any]) -> LockedWeight:
    sources = tuple(
        LockedSource(
            str(source["uri"]),
            tuple(map(str, source.get("include") or ())),
            tuple(map(str, source.get("exclude") or ())),
            str(source.get("fingerprint") or ""),
        )
        for source in entry["sources"]
    )
    name = str(entry["name"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a weight's name")
    files = tuple(
        LockedFile(_path(file["path"]), _size(file["size"]), _digest(file["digest"]), _digest(file["layer"]))
        for file in entry.get("files") or ()
    )
    layers = tuple(
        LockedLayer(
            _digest(layer["digest"]),
            str(layer["mediaType"]),
            _size(layer["size"]),
            _size(layer.get("sizeUncompressed", 0)),
        )
        for layer in entry.get("layers") or ()
    )
    return LockedWeight(
        name,
        str(entry["target"]),
        str(entry["setDigest"]),
        sources,
        str(entry.get("importedAt") or ""),
        _digest(entry["digest"]) if entry.get("digest") else "",
        _size(entry.get("size", 0)),
        _size(entry.get("sizeCompressed", 0)),
        files,
        layers,
    )


def check_path(path: str) -> None:
    """Refuse what cannot be the path of a weight's file (specification, 1.4).

    Raises:
        ValueError: the message says why.
    """
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is not a path below a weight's folder")
    if _UNSAFE.search(path):
        raise ValueError(f"{path!r} has a backslash or a control character")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path!r} is not UTF-8") from None


def _path(value: Any) -> str:
    path = str(value)
    check_path(path)
    return path


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def _digest(value: Any) -> str:
    digest = str(value)
    if not is_digest(digest) or not digest.startswith("sha256:"):
        raise ValueError(f"{digest!r} is not a digest")
    return digest


def _refuse_twins(locked: Sequence[LockedWeight]) -> None:
    for what, values in (
        ("name", [one.name for one in locked]),
        ("target", [os.path.normpath(one.target) for one in locked if one.target]),
    ):
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f'duplicate weight {what} "{value}"', where=LOCK_FILENAME, hint=IMPORT_HINT)


def _weight_json(weight: LockedWeight) -> dict[str, Any]:
    return {
        "name": weight.name,
        "target": weight.target,
        "sources": [
            {
                "uri": source.uri,
                "fingerprint": source.fingerprint,
                "include": list(source.include),
                "exclude": list(source.exclude),
            }
            for source in weight.sources
        ],
        "importedAt": weight.imported_at,
        "digest": weight.digest,
        "setDigest": weight.set_digest,
        "size": weight.size,
        "sizeCompressed": weight.size_compressed,
        "files": [
            {"path": file.path, "size": file.size, "digest": file.digest, "layer": file.layer}
            for file in sorted(weight.files, key=lambda file: file.path.encode())
        ],
        "layers": [
            {
                "digest": layer.digest,
                "mediaType": layer.media_type,
                "size": layer.size,
                "sizeUncompressed": layer.size_uncompressed,
            }
            for layer in sorted(weight.layers, key=lambda layer: layer.digest)
        ],
    }


def go_json(value: Mapping[str, Any], *, indent: bool = False) -> bytes:
    """JSON as Go's ``encoding/json`` writes it, to the byte: three characters of HTML are escaped, others are not."""
    text = json.dumps(
        value, ensure_ascii=False, indent=2 if indent else None, separators=None if indent else (",", ":")
    )
    for char, escaped in _HTML.items():
        text = text.replace(char, escaped)
    return text.encode()
