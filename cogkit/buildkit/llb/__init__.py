"""LLB, the graphs that BuildKit builds: made in Python, marshalled to the bytes that Go's ``client/llb`` makes.

    from cogkit.buildkit import llb

    tools = llb.image("alpine:3.20").run("apk add gcc musl-dev", name="install a compiler")
    built = tools.run(
        "gcc -o /out/hello hello.c",
        dir="/src",
        mounts=[llb.BindMount("/src", llb.local("source")), llb.BindMount("/out")],
    )
    definition = built.get_mount("/out").marshal()

This package knows no daemon and shows no protobuf; a `SolveRequest` takes the `Definition`.
"""

from __future__ import annotations

from cogkit.buildkit.llb.constraints import ConstraintOptions, LinuxResources, OpMetadata
from cogkit.buildkit.llb.definition import Definition, Location, SourceFile, Sources
from cogkit.buildkit.llb.file_actions import BoundActions, Chown, FileAction, copy, mkdir, mkfile, rm, symlink
from cogkit.buildkit.llb.mounts import (
    BindMount,
    CacheMount,
    CacheSharing,
    Device,
    Mount,
    NetworkMode,
    ProxyEnv,
    SecretEnv,
    SecretMount,
    SecurityMode,
    SSHMount,
    TmpfsMount,
    Ulimit,
)
from cogkit.buildkit.llb.resuming import state_of
from cogkit.buildkit.llb.source_maps import SourceLocation, SourceMap
from cogkit.buildkit.llb.sources import (
    Differ,
    GitBundle,
    ResolveMode,
    git,
    http,
    image,
    image_blob,
    local,
    oci_layout,
    oci_layout_blob,
    scratch,
)
from cogkit.buildkit.llb.state import ExecState, State, diff, merge
from cogkit.buildkit.platforms import Platform
from cogkit.buildkit.status import ProgressGroup, Range

__all__ = [
    "BindMount",
    "BoundActions",
    "CacheMount",
    "CacheSharing",
    "Chown",
    "ConstraintOptions",
    "Definition",
    "Device",
    "Differ",
    "ExecState",
    "FileAction",
    "GitBundle",
    "LinuxResources",
    "Location",
    "Mount",
    "NetworkMode",
    "OpMetadata",
    "Platform",
    "ProgressGroup",
    "ProxyEnv",
    "Range",
    "ResolveMode",
    "SSHMount",
    "SecretEnv",
    "SecretMount",
    "SecurityMode",
    "SourceFile",
    "SourceLocation",
    "SourceMap",
    "Sources",
    "State",
    "TmpfsMount",
    "Ulimit",
    "copy",
    "diff",
    "git",
    "http",
    "image",
    "image_blob",
    "local",
    "merge",
    "mkdir",
    "mkfile",
    "oci_layout",
    "oci_layout_blob",
    "rm",
    "scratch",
    "state_of",
    "symlink",
]
