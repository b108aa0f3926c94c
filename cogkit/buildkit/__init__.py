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
    from cogkit.buildkit.address import Address, TlsConfig
    from cogkit.buildkit.client import BuildKitClient
    from cogkit.buildkit.exports import Export, OutputFile
    from cogkit.buildkit.failure import RequestError, SolveError, SourceLocation
    from cogkit.buildkit.gateway import FileStat, Gateway, GatewayResult, ImageConfig, Ref
    from cogkit.buildkit.mounts import LocalMount
    from cogkit.buildkit.oci.content_store import ContentStore
    from cogkit.buildkit.records import (
        BuildRecord,
        DaemonVersion,
        GCPolicy,
        HistoryEvent,
        Platform,
        UsageRecord,
        WorkerInfo,
    )
    from cogkit.buildkit.registry.docker_config import DockerConfig, RegistryLogin
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
    from cogkit.buildkit.sync import SyncBuildKitClient

# gRPC's core writes what it finds remarkable to stderr, over any progress display; what matters of it is in its errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_HOME = {
    "address": ("Address", "TlsConfig"),
    "client": ("BuildKitClient",),
    "oci.content_store": ("ContentStore",),
    "registry.docker_config": ("DockerConfig", "RegistryLogin"),
    "exports": ("Export", "OutputFile"),
    "failure": ("RequestError", "SolveError", "SourceLocation"),
    "gateway": ("FileStat", "Gateway", "GatewayResult", "ImageConfig", "Ref"),
    "mounts": ("LocalMount",),
    "records": (
        "BuildRecord",
        "DaemonVersion",
        "GCPolicy",
        "HistoryEvent",
        "Platform",
        "UsageRecord",
        "WorkerInfo",
    ),
    "request": ("CacheEntry", "SolveRequest", "SolveResult"),
    "session.services.auth": ("Auth",),
    "session.services.secrets": ("SecretSource", "Secrets"),
    "session.services.ssh": ("FilteredAgent", "KeyAgent", "SocketTunnel", "Ssh", "open_agent"),
    "session.services.upload": ("Upload",),
    "status": (
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
    "sync": ("SyncBuildKitClient",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Address",
    "Auth",
    "BuildKitClient",
    "BuildRecord",
    "CacheEntry",
    "ContentStore",
    "DaemonVersion",
    "DockerConfig",
    "Export",
    "FileStat",
    "FilteredAgent",
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
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
