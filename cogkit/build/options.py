"""Everything the command line can say about a build, as data.

`BuildOptions` is what `cogkit.cli` hands to `cogkit.build.run`; a program may fill it itself.  This file must not read
files, ask the environment or know how a flag is spelt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cogkit.buildkit.address import TlsConfig

NO_ENTRIES: Mapping[str, str] = MappingProxyType({})
STDOUT = "-"
"""The destination that means standard output, for outputs and for files."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One ``--output``.

    Attributes:
        type: ``image``, ``registry``, ``oci``, ``docker``, ``tar`` or ``local``.
        dest: Path of a file or folder, `STDOUT`, or None for types that write nothing here.
        attrs: The exporter's own attributes, passed on as they are (``name``, ``push``, ``compression`` …).
    """

    type: str
    dest: str | None = None
    attrs: Mapping[str, str] = field(default_factory=lambda: NO_ENTRIES)


@dataclass(frozen=True, slots=True)
class NamedContext:
    """One ``--build-context NAME=VALUE``: ``value`` is a local folder or a URL (``docker-image://…``)."""

    name: str
    value: str
    local: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """A build as the user asked for it.

    Attributes:
        context: Folder to build, or one below the folder that holds ``cog.yaml``; None for the working directory.
        file: ``-f``: a Dockerfile or a Cog configuration file, relative to the working directory; None to find one.
        tags: Image references, in order; the first is the image's main name.
        target: Stage to build; None for the last.
        build_args: Values of ``ARG``.
        labels: Image labels.
        platforms: Normalised ``os/arch[/variant]``; empty for the builder's own.
        outputs: Where the result goes; empty for the builder's cache only (or the image store, with tags).
        push: Push the tags to their registries.
        metadata_file: Where to write the result's metadata as JSON.
        iidfile: Where to write the image ID.
        address: Builder address; None for ``BUILDKIT_HOST`` and then the usual sockets.
        lock_timeout: Seconds to wait for another build of this project; None waits for ever.
        uv_image: Take uv from this image instead of the package index.
    """

    context: Path | None = None
    file: str | None = None
    tags: tuple[str, ...] = ()
    target: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    build_contexts: tuple[NamedContext, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    push: bool = False
    metadata_file: Path | None = None
    iidfile: Path | None = None
    address: str | None = None
    tls: TlsConfig | None = None
    lock_timeout: float | None = None
    uv_image: str | None = None
