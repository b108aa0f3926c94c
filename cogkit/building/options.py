"""Everything the command line can say about a build, as data.

`BuildOptions` is what `cogkit.cli` hands to `cogkit.building.build`; a program may fill it itself.  This file must not
read files, ask the environment or know how a flag is spelt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cogkit.buildkit.connect.address import TlsConfig
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.building.call import CallSpec
    from cogkit.buildkit.request import CacheEntry
    from cogkit.buildkit.session.services.secrets import SecretSource

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
    """One ``--build-context NAME=VALUE``.

    Attributes:
        name: The name.
        value: A local folder, or a URL (``docker-image://…``, ``oci-layout://…``).
        local: Whether it is a folder.
    """

    name: str
    value: str
    local: bool


@dataclass(frozen=True, slots=True)
class SshSpec:
    """One ``--ssh ID[=PATH…]``: ``paths`` are an agent's socket or keys; none for the user's agent.

    With ``raw`` the one path is any socket, whose bytes go through as they are.
    """

    id: str
    paths: tuple[Path, ...] = ()
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CogOptions:
    """What only the build of a Cog project knows.

    Attributes:
        use_cog_base_image: Start from Cog's own base image if there is one; None leaves it to ``COG_REGISTRY_HOST``.
        use_cuda_base_image: For GPU builds, start from NVIDIA's image rather than from Python's.
        openapi_schema: File with the schema, in place of one made from the source.
        evaluate_schema: Have the image evaluate what of a schema the source alone cannot say.
        skip_schema_validation: Make an image without a schema.
        strip: Strip debug symbols from shared libraries.
        precompile: Compile Python files to bytecode.
        separate_weights: Put weight files into layers of their own.
        weights_paths: Patterns that say what a weight is, before those of the configuration and before guessing.
        dockerfile: A Dockerfile to build in place of the generated one.
        annotations: Labels that win over those that cogkit sets itself.
    """

    use_cog_base_image: bool | None = None
    use_cuda_base_image: bool = True
    openapi_schema: Path | None = None
    evaluate_schema: bool = True
    skip_schema_validation: bool = False
    strip: bool = False
    precompile: bool = False
    separate_weights: bool = False
    weights_paths: tuple[str, ...] = ()
    dockerfile: Path | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """A build as the user asked for it.

    Attributes:
        context: Folder to build, or one below the folder that holds ``cog.yaml``; None for the working directory.  Or
            a URL, or ``-`` for standard input.
        file: ``-f``: a Dockerfile or a Cog configuration file, relative to the working directory; None to find one.
            Or ``-`` for standard input, or a URL.
        tags: Image references, in order; the first is the image's main name.
        target: Stage to build; None for the last.
        build_args: Values of ``ARG``.
        labels: Image labels.
        annotations: Annotations of image exports, by the attributes that set them.
        platforms: Normalised ``os/arch[/variant]``; empty for the builder's own, or linux/amd64 for a Cog project.
        outputs: Where the result goes; empty for the builder's cache only (or the image store, with tags).
        push: Push the tags to their registries.
        load: Bring the image into a container engine of this machine: ``docker``, ``podman``, or ``auto`` for the one
            that is there; None for none.
        metadata_file: Where to write the result's metadata as JSON.
        iidfile: Where to write the image ID.
        ref_file: Where to write the build's ref.
        address: Builder address; None for `builder`, or what `cogkit.builders.choice` finds.
        tls: Files for getting there.
        builder: Name of a builder of the user's list, with labels that its node must have.
        compress: Whether what goes to the builder is compressed; None: if the builder is not on this machine.
        lock_timeout: Seconds to wait for another build of this project; None waits for ever.
        uv_image: Take uv from this image instead of the package index.
        secrets: What steps with ``--mount=type=secret`` may read.
        ssh: What steps with ``--mount=type=ssh`` may connect to.
        allow: Entitlements, such as ``network.host``.
        timestamp: Seconds since 1970 that stand for every time in the result, so that it is the same to the bit
            whenever it is made; None for the times of this build.
        cog: What only a Cog project knows; a Dockerfile does not care.
        allow_local_delete: Let a ``type=local,mode=delete`` output delete outside the working directory too.
        cache_from: Where to read the build cache from, beside the builder's own.
        cache_to: Where to write it.
        no_cache_filter: Stages to run again.
        attestations: Parameters of the attestations to make, by their types (``sbom``, ``provenance``).
        network: Network of the steps: ``host``, ``none``, or None for the builder's choice.
        hosts: Additional host names of the steps, ``NAME=IP``.
        ulimits: Limits of the steps, ``NAME=SOFT:HARD``.
        shm_size: Bytes of ``/dev/shm`` in the steps.
        cgroup_parent: Parent cgroup of the steps.
        resources: Limits of the steps, by the attributes that set them.
        proxy_network: Have the builder record what the steps fetch.
        policies_disabled: A Rego policy beside the Dockerfile does not count.
        source_policy: Marshalled ``sourcepolicy.Policy``.
        call: A question to the frontend, instead of a build.
        frontend: A frontend to build with in place of a project.
        frontend_opts: Its options.  With these or folders and no frontend, LLB comes on standard input.
        frontend_mounts: Folders that it, or the LLB, may read, by their names.
        vcs: What version control says of the sources, as attributes of the frontend.
    """

    context: str | Path | None = None
    file: str | None = None
    tags: tuple[str, ...] = ()
    target: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    build_contexts: tuple[NamedContext, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    push: bool = False
    load: str | None = None
    metadata_file: Path | None = None
    iidfile: Path | None = None
    ref_file: Path | None = None
    address: str | None = None
    builder: str | None = None
    tls: TlsConfig | None = None
    compress: bool | None = None
    lock_timeout: float | None = None
    uv_image: str | None = None
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSpec, ...] = ()
    allow: tuple[str, ...] = ()
    timestamp: int | None = None
    cog: CogOptions = CogOptions()
    allow_local_delete: bool = False
    cache_from: tuple[CacheEntry, ...] = ()
    cache_to: tuple[CacheEntry, ...] = ()
    no_cache_filter: tuple[str, ...] = ()
    attestations: Mapping[str, str] = field(default_factory=dict)
    network: str | None = None
    hosts: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    shm_size: int | None = None
    cgroup_parent: str | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    proxy_network: bool = False
    policies_disabled: bool = False
    source_policy: bytes | None = None
    call: CallSpec | None = None
    frontend: str | None = None
    frontend_opts: Mapping[str, str] = field(default_factory=dict)
    frontend_mounts: Mapping[str, Path] = field(default_factory=dict)
    vcs: Mapping[str, str] = field(default_factory=dict)
