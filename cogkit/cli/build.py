"""``cogkit build``: build the project, or a Dockerfile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.cli.flags import (
    AddrFlag,
    AllowFlag,
    BuildArgFlag,
    BuildContextFlag,
    ContextFlag,
    DebugFlag,
    FileFlag,
    IidFileFlag,
    LabelFlag,
    LockTimeoutFlag,
    MetadataFileFlag,
    NoCacheFlag,
    OutputFlag,
    PathArgument,
    PlatformFlag,
    ProgressFlag,
    ProgressMode,
    PullFlag,
    PushFlag,
    SecretFlag,
    SshFlag,
    TagFlag,
    TargetFlag,
    TlsCaFlag,
    TlsCertFlag,
    TlsKeyFlag,
    TlsServerNameFlag,
    UvImageFlag,
)
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.build.options import BuildOptions
    from cogkit.build.run import BuildResult

EXAMPLES = """
\b
Examples:
  cogkit build -t my-model                               build the project around this folder
  cogkit build -t registry.example.com/my-model --push   build and push
  cogkit build -o type=oci,dest=model.tar                build into a file
  cogkit build -f Dockerfile.dev --target test docs/     build a stage of a Dockerfile
"""


def build(
    path: PathArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    target: TargetFlag = None,
    build_arg: BuildArgFlag = None,
    build_context: BuildContextFlag = None,
    secret: SecretFlag = None,
    ssh: SshFlag = None,
    allow: AllowFlag = None,
    uv_image: UvImageFlag = None,
    no_cache: NoCacheFlag = False,
    pull: PullFlag = False,
    tag: TagFlag = None,
    label: LabelFlag = None,
    platform: PlatformFlag = None,
    output: OutputFlag = None,
    push: PushFlag = False,
    metadata_file: MetadataFileFlag = None,
    iidfile: IidFileFlag = None,
    addr: AddrFlag = None,
    tlscacert: TlsCaFlag = None,
    tlscert: TlsCertFlag = None,
    tlskey: TlsKeyFlag = None,
    tlsservername: TlsServerNameFlag = None,
    lock_timeout: LockTimeoutFlag = None,
    progress: ProgressFlag = ProgressMode.AUTO,
    debug: DebugFlag = False,
) -> None:
    """Build an image from a Cog project or a Dockerfile.

    With a cog.yaml in the folder or above it, the Dockerfile is generated; with a Dockerfile, that is built.
    """
    from cogkit.build import grants, values
    from cogkit.build.options import BuildOptions
    from cogkit.buildkit.address import TlsConfig

    allowed, _ = grants.parse_entitlements(allow or ())
    tls = None
    if tlscacert or tlscert or tlskey or tlsservername:
        tls = TlsConfig(ca=tlscacert, cert=tlscert, key=tlskey, server_name=tlsservername)
    options = BuildOptions(
        context=choose_context(path, context),
        file=file,
        tags=values.parse_tags(tag or ()),
        target=target,
        build_args=values.parse_pairs(build_arg or (), flag="--build-arg", environ=os.environ),
        labels=values.parse_pairs(label or (), flag="--label"),
        platforms=values.parse_platforms(platform or ()),
        no_cache=no_cache,
        pull=pull,
        build_contexts=values.parse_build_contexts(build_context or ()),
        outputs=values.parse_outputs(output or ()),
        push=push,
        metadata_file=metadata_file,
        iidfile=iidfile,
        address=addr,
        tls=tls,
        lock_timeout=lock_timeout,
        uv_image=None if uv_image is None else values.parse_image(uv_image, flag="--uv-image"),
        secrets=grants.parse_secrets(secret or ()),
        ssh=grants.parse_all_ssh(ssh or ()),
        allow=allowed,
    )
    run_build(options, progress)


def choose_context(path: Path | None, context: Path | None) -> Path | None:
    """The folder named by ``[PATH]`` or ``--context``; None without either."""
    if path is not None and context is not None:
        raise UsageError(f"two folders to build: {path} and --context {context}", hint="give one of them")
    return path if path is not None else context


def run_build(options: BuildOptions, mode: ProgressMode) -> None:
    """Run a build with its progress on standard error and, in quiet mode, its image ID on standard output."""
    from cogkit.build import run as builder
    from cogkit.build.options import STDOUT
    from cogkit.cli.running import run
    from cogkit.cli.ui.progress import open_progress, show_result, shown

    progress = open_progress(mode)

    async def work() -> BuildResult:
        async with shown(progress):
            return await builder.build(options, progress)

    result = run(work())
    show_result(result, mode, stdout_taken=any(output.dest == STDOUT for output in options.outputs))
