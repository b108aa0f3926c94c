"""What a solve is asked for, and what it gives back: data only."""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import SupportsBytes

from cogkit.buildkit.exports import Export
from cogkit.buildkit.mounts import LocalMount
from cogkit.fast_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A place to import the build cache from or export it to, such as ``CacheEntry("registry", {"ref": …})``.

    ``local`` is an OCI layout on this machine: ``src`` or ``dest`` is its folder, ``tag`` (``latest`` by default) or
    ``digest`` say what of it; ``reset=true`` of an export deletes what is not of the newest caches.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """One build.

    Attributes:
        frontend: ``dockerfile.v0``, ``gateway.v0``, or empty with a ``definition`` or when the caller is the frontend.
        frontend_attrs: Its options, such as ``target``, ``build-arg:NAME``, ``platform``, ``context:NAME``.
        definition: What to build without a frontend: an `llb.State`, an `llb.Definition`, or the bytes of one.
        frontend_inputs: Marshalled LLB that the frontend gets as named inputs.
        mounts: Folders of this machine that the build may read, each under its name.
        exports: What to make of the result; none leaves it in the daemon's cache.
        cache_exports: Where to export the build cache to.
        cache_imports: Where to import it from.
        oci_layouts: Folders with OCI layouts that images of the build may come from, by the name that stands for the
            path in ``oci-layout://NAME@DIGEST``.
        entitlements: Extra rights of the build's steps, such as ``network.host``.
        shared_key: Same key, same folder: the daemon then reuses what it got the last time and only asks for changes.
        ref: The build's name at the daemon, a new one if None.
        source_policy: Marshalled ``sourcepolicy.Policy``.
        proxy_network: Have the daemon see and record what the steps fetch (BuildKit 0.31 and later).
        internal: Keep the build out of the daemon's history.
    """

    frontend: str = ""
    frontend_attrs: Mapping[str, str] = field(default_factory=dict)
    definition: SupportsBytes | None = None
    frontend_inputs: Mapping[str, SupportsBytes] = field(default_factory=dict)
    mounts: tuple[LocalMount, ...] = ()
    exports: tuple[Export, ...] = ()
    cache_exports: tuple[CacheEntry, ...] = ()
    cache_imports: tuple[CacheEntry, ...] = ()
    oci_layouts: Mapping[str, Path] = field(default_factory=dict)
    entitlements: tuple[str, ...] = ()
    shared_key: str = ""
    ref: str | None = None
    source_policy: bytes | None = None
    proxy_network: bool = False
    internal: bool = False


@dataclass(frozen=True, slots=True)
class SolveResult:
    """A build that succeeded.

    Attributes:
        ref: Its name at the daemon.
        exporter_response: What the exporters said, by keys such as ``containerimage.digest`` and ``image.name``.
    """

    ref: str
    exporter_response: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """Digest of the image's manifest or index; None if no image was exported."""
        return self.exporter_response.get("containerimage.digest")

    @property
    def config_digest(self) -> str | None:
        """Digest of the image's config, the one that ``docker images`` shows as ID; None if there is no single one."""
        return self.exporter_response.get("containerimage.config.digest")

    @property
    def image_names(self) -> tuple[str, ...]:
        """The names that the image was exported under."""
        names = self.exporter_response.get("image.name", "")
        return tuple(names.split(",")) if names else ()

    def metadata(self) -> dict[str, object]:
        """The response as ``--metadata-file`` has it; see `decoded_metadata`."""
        return decoded_metadata(self.exporter_response)


def decoded_metadata(response: Mapping[str, str]) -> dict[str, object]:
    """Values that are base64 of a JSON object, or of a list of objects, decoded, as buildx does it
    (``decodeExporterResponse``); the answer of a frontend that was only asked (``result.json``) is JSON already."""
    return {key: _decoded(key, value) for key, value in response.items()}


def _decoded(key: str, value: str) -> object:
    try:
        inner = json.loads(value if key == "result.json" else b64decode(value, validate=True))
    except (Base64Error, ValueError, RecursionError):
        return value
    objects = inner if isinstance(inner, list) else [inner]
    return inner if inner and all(isinstance(each, dict) for each in objects) else value
