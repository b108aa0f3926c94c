"""The Python BuildKit client: builds, and everything else that a ``buildkitd`` can be asked for, over gRPC.

`BuildKitClient` is the asynchronous client, `SyncBuildKitClient` the same for programs without an event loop.  This
package knows nothing of Cog.  Names are loaded when they are first used, so that a program that only parses an address
does not pay for gRPC.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cogkit.buildkit.client import BuildKitClient
    from cogkit.buildkit.connect.address import Address, TlsConfig
    from cogkit.buildkit.errors import (
        BuildError,
        BuilderUnreachableError,
        BuildKitError,
        FloodError,
        RequestError,
        SessionProtocolError,
        SolveError,
        SourceLocation,
        UnreadableAnswerError,
    )
    from cogkit.buildkit.exports import Export
    from cogkit.buildkit.gateway.llb_bridge import FileStat, Gateway, GatewayResult, ImageConfig, Ref
    from cogkit.buildkit.mounts import LocalMount
    from cogkit.buildkit.platforms import Platform
    from cogkit.buildkit.records import (
        BuildRecord,
        DaemonVersion,
        GCPolicy,
        HistoryEvent,
        UsageRecord,
        WorkerInfo,
    )
    from cogkit.buildkit.request import CacheEntry, SolveRequest, SolveResult
    from cogkit.buildkit.session.services.auth import Auth
    from cogkit.buildkit.session.services.secrets import Secrets, SecretSource
    from cogkit.buildkit.session.services.ssh import FilteredAgent, KeyAgent, SocketTunnel, Ssh, open_agent
    from cogkit.buildkit.session.services.upload import Upload
    from cogkit.buildkit.status import (
        Instant,
        ProgressGroup,
        Range,
        SolveStatus,
        SourceInfo,
        Vertex,
        VertexLog,
        VertexStatus,
        VertexWarning,
        to_rawjson,
    )
    from cogkit.buildkit.sync_client import SyncBuildKitClient
    from cogkit.oci.content_store import ContentStore
    from cogkit.output_file import OutputFile
    from cogkit.registry.docker_config import DockerConfig, RegistryLogin

# gRPC's core writes what it finds remarkable to stderr, over any progress display; what matters of it is in its errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_HOME = {
    "cogkit.buildkit.connect.address": ("Address", "TlsConfig"),
    "cogkit.buildkit.client": ("BuildKitClient",),
    "cogkit.oci.content_store": ("ContentStore",),
    "cogkit.registry.docker_config": ("DockerConfig", "RegistryLogin"),
    "cogkit.buildkit.exports": ("Export",),
    "cogkit.output_file": ("OutputFile",),
    "cogkit.buildkit.errors": (
        "BuildError",
        "BuildKitError",
        "BuilderUnreachableError",
        "FloodError",
        "RequestError",
        "SessionProtocolError",
        "SolveError",
        "SourceLocation",
        "UnreadableAnswerError",
    ),
    "cogkit.buildkit.gateway.llb_bridge": ("FileStat", "Gateway", "GatewayResult", "ImageConfig", "Ref"),
    "cogkit.buildkit.mounts": ("LocalMount",),
    "cogkit.buildkit.platforms": ("Platform",),
    "cogkit.buildkit.records": (
        "BuildRecord",
        "DaemonVersion",
        "GCPolicy",
        "HistoryEvent",
        "UsageRecord",
        "WorkerInfo",
    ),
    "cogkit.buildkit.request": ("CacheEntry", "SolveRequest", "SolveResult"),
    "cogkit.buildkit.session.services.auth": ("Auth",),
    "cogkit.buildkit.session.services.secrets": ("SecretSource", "Secrets"),
    "cogkit.buildkit.session.services.ssh": ("FilteredAgent", "KeyAgent", "SocketTunnel", "Ssh", "open_agent"),
    "cogkit.buildkit.session.services.upload": ("Upload",),
    "cogkit.buildkit.status": (
        "Instant",
        "ProgressGroup",
        "Range",
        "SolveStatus",
        "SourceInfo",
        "Vertex",
        "VertexLog",
        "VertexStatus",
        "VertexWarning",
        "to_rawjson",
    ),
    "cogkit.buildkit.sync_client": ("SyncBuildKitClient",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Address",
    "Auth",
    "BuildError",
    "BuildKitClient",
    "BuildKitError",
    "BuildRecord",
    "BuilderUnreachableError",
    "CacheEntry",
    "ContentStore",
    "DaemonVersion",
    "DockerConfig",
    "Export",
    "FileStat",
    "FilteredAgent",
    "FloodError",
    "GCPolicy",
    "Gateway",
    "GatewayResult",
    "HistoryEvent",
    "ImageConfig",
    "Instant",
    "KeyAgent",
    "LocalMount",
    "OutputFile",
    "Platform",
    "ProgressGroup",
    "Range",
    "Ref",
    "RegistryLogin",
    "RequestError",
    "SecretSource",
    "Secrets",
    "SessionProtocolError",
    "SocketTunnel",
    "SolveError",
    "SolveRequest",
    "SolveResult",
    "SolveStatus",
    "SourceInfo",
    "SourceLocation",
    "Ssh",
    "SyncBuildKitClient",
    "TlsConfig",
    "UnreadableAnswerError",
    "Upload",
    "UsageRecord",
    "Vertex",
    "VertexLog",
    "VertexStatus",
    "VertexWarning",
    "WorkerInfo",
    "open_agent",
    "to_rawjson",
]


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
