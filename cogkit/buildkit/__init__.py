"""The Python BuildKit client: builds, and everything else that a ``buildkitd`` can be asked for, over gRPC.

    from cogkit.buildkit import Client, dockerfile, image

    with Client.connect() as client:
        print(client.build(dockerfile("."), image("registry.example.com/app", push=True)).digest)

`Client` blocks, `AsyncClient` is the same for event loops.  `cogkit.buildkit.llb` makes builds without a Dockerfile.
This package knows nothing of Cog.  Names are loaded when they are first used, so that a program that only parses an
address does not pay for gRPC.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cogkit.buildkit.build import AsyncBuild, Build
    from cogkit.buildkit.build_inputs import MACHINE_LOGINS, AuthInput, SecretInput, SshInput
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.connect.address import Address, TlsConfig
    from cogkit.buildkit.dockerfile_request import dockerfile
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
    from cogkit.buildkit.exports import Export, docker, image, local, oci, tar
    from cogkit.buildkit.gateway.llb_bridge import FileStat, Gateway, GatewayResult, ImageConfig, Ref
    from cogkit.buildkit.mounts import LocalMount
    from cogkit.buildkit.output_stream import OutputStream
    from cogkit.buildkit.platforms import Platform
    from cogkit.buildkit.records import BuildRecord, DaemonVersion, GCPolicy, HistoryEvent, UsageRecord, WorkerInfo
    from cogkit.buildkit.request import CacheEntry, SolveRequest, SolveResult
    from cogkit.buildkit.session.service import CallError, Service
    from cogkit.buildkit.session.services.auth import Auth
    from cogkit.buildkit.session.services.secrets import Secrets, SecretSource
    from cogkit.buildkit.session.services.ssh import FilteredAgent, KeyAgent, SocketTunnel, Ssh, open_agent
    from cogkit.buildkit.session.services.upload import Upload
    from cogkit.buildkit.solve import BuildCallback, StatusCallback
    from cogkit.buildkit.ssh.key import load_key
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
    from cogkit.buildkit.sync_client import Client
    from cogkit.buildkit.transport.grpc_status import StatusCode
    from cogkit.errors import CogkitError, ConfigError, OutputError, UsageError
    from cogkit.oci.content_store import ContentStore
    from cogkit.output_file import OutputFile
    from cogkit.registry.docker_config import DockerConfig, RegistryLogin

# gRPC's core writes what it finds remarkable to stderr, over any progress display; what matters of it is in its errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_HOME = {
    "cogkit.buildkit.build": (
        "AsyncBuild",
        "Build",
    ),
    "cogkit.buildkit.build_inputs": (
        "AuthInput",
        "MACHINE_LOGINS",
        "SecretInput",
        "SshInput",
    ),
    "cogkit.buildkit.client": ("AsyncClient",),
    "cogkit.buildkit.connect.address": (
        "Address",
        "TlsConfig",
    ),
    "cogkit.buildkit.dockerfile_request": ("dockerfile",),
    "cogkit.buildkit.errors": (
        "BuildError",
        "BuilderUnreachableError",
        "BuildKitError",
        "FloodError",
        "RequestError",
        "SessionProtocolError",
        "SolveError",
        "SourceLocation",
        "UnreadableAnswerError",
    ),
    "cogkit.buildkit.exports": (
        "docker",
        "Export",
        "image",
        "local",
        "oci",
        "tar",
    ),
    "cogkit.buildkit.gateway.llb_bridge": (
        "FileStat",
        "Gateway",
        "GatewayResult",
        "ImageConfig",
        "Ref",
    ),
    "cogkit.buildkit.mounts": ("LocalMount",),
    "cogkit.buildkit.output_stream": ("OutputStream",),
    "cogkit.buildkit.platforms": ("Platform",),
    "cogkit.buildkit.records": (
        "BuildRecord",
        "DaemonVersion",
        "GCPolicy",
        "HistoryEvent",
        "UsageRecord",
        "WorkerInfo",
    ),
    "cogkit.buildkit.request": (
        "CacheEntry",
        "SolveRequest",
        "SolveResult",
    ),
    "cogkit.buildkit.session.service": (
        "CallError",
        "Service",
    ),
    "cogkit.buildkit.session.services.auth": ("Auth",),
    "cogkit.buildkit.session.services.secrets": (
        "Secrets",
        "SecretSource",
    ),
    "cogkit.buildkit.session.services.ssh": (
        "FilteredAgent",
        "KeyAgent",
        "open_agent",
        "SocketTunnel",
        "Ssh",
    ),
    "cogkit.buildkit.session.services.upload": ("Upload",),
    "cogkit.buildkit.solve": (
        "BuildCallback",
        "StatusCallback",
    ),
    "cogkit.buildkit.ssh.key": ("load_key",),
    "cogkit.buildkit.status": (
        "Instant",
        "ProgressGroup",
        "Range",
        "SolveStatus",
        "SourceInfo",
        "to_rawjson",
        "Vertex",
        "VertexLog",
        "VertexStatus",
        "VertexWarning",
    ),
    "cogkit.buildkit.sync_client": ("Client",),
    "cogkit.buildkit.transport.grpc_status": ("StatusCode",),
    "cogkit.errors": (
        "CogkitError",
        "ConfigError",
        "OutputError",
        "UsageError",
    ),
    "cogkit.oci.content_store": ("ContentStore",),
    "cogkit.output_file": ("OutputFile",),
    "cogkit.registry.docker_config": (
        "DockerConfig",
        "RegistryLogin",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "MACHINE_LOGINS",
    "Address",
    "AsyncBuild",
    "AsyncClient",
    "Auth",
    "AuthInput",
    "Build",
    "BuildCallback",
    "BuildError",
    "BuildKitError",
    "BuildRecord",
    "BuilderUnreachableError",
    "CacheEntry",
    "CallError",
    "Client",
    "CogkitError",
    "ConfigError",
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
    "OutputError",
    "OutputFile",
    "OutputStream",
    "Platform",
    "ProgressGroup",
    "Range",
    "Ref",
    "RegistryLogin",
    "RequestError",
    "SecretInput",
    "SecretSource",
    "Secrets",
    "Service",
    "SessionProtocolError",
    "SocketTunnel",
    "SolveError",
    "SolveRequest",
    "SolveResult",
    "SolveStatus",
    "SourceInfo",
    "SourceLocation",
    "Ssh",
    "SshInput",
    "StatusCallback",
    "StatusCode",
    "TlsConfig",
    "UnreadableAnswerError",
    "Upload",
    "UsageError",
    "UsageRecord",
    "Vertex",
    "VertexLog",
    "VertexStatus",
    "VertexWarning",
    "WorkerInfo",
    "docker",
    "dockerfile",
    "image",
    "load_key",
    "local",
    "oci",
    "open_agent",
    "tar",
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
