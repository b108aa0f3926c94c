"""``cogkit build``: build the project, or a Dockerfile."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cogkit.cli.cog_options import cog_options, timestamp_of
from cogkit.cli.flags import (
    AddHostFlag,
    AddrFlag,
    AllowFlag,
    AttestFlag,
    BuildArgFlag,
    BuildContextFlag,
    CacheFromFlag,
    CacheToFlag,
    CallFlag,
    CgroupParentFlag,
    CheckFlag,
    CompressFlag,
    CompressMode,
    ContextFlag,
    DebugFlag,
    DockerfileFlag,
    FileFlag,
    IidFileFlag,
    LabelFlag,
    LockTimeoutFlag,
    MetadataFileFlag,
    NetworkFlag,
    NoCacheFilterFlag,
    NoCacheFlag,
    NoColorFlag,
    OpenApiSchemaFlag,
    OutputFlag,
    PathArgument,
    PlatformFlag,
    PrecompileFlag,
    ProgressFlag,
    ProgressMode,
    ProvenanceFlag,
    PullFlag,
    PushFlag,
    RegistryFlag,
    SbomFlag,
    SecretFlag,
    SeparateWeightsFlag,
    ShmSizeFlag,
    SkipSchemaValidationFlag,
    SshFlag,
    StripFlag,
    TagFlag,
    TargetFlag,
    TimestampFlag,
    TlsCaFlag,
    TlsCertFlag,
    TlsKeyFlag,
    TlsServerNameFlag,
    UlimitFlag,
    UseCogBaseImageFlag,
    UseCudaBaseImageFlag,
    UvImageFlag,
    WeightsPathFlag,
)
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.building.build import BuildResult
    from cogkit.building.call import CallSpec
    from cogkit.building.options import BuildOptions
    from cogkit.buildkit.connect.address import TlsConfig

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
    call: CallFlag = None,
    check: CheckFlag = False,
    uv_image: UvImageFlag = None,
    secret: SecretFlag = None,
    ssh: SshFlag = None,
    allow: AllowFlag = None,
    network: NetworkFlag = None,
    add_host: AddHostFlag = None,
    ulimit: UlimitFlag = None,
    shm_size: ShmSizeFlag = None,
    cgroup_parent: CgroupParentFlag = None,
    no_cache: NoCacheFlag = False,
    no_cache_filter: NoCacheFilterFlag = None,
    pull: PullFlag = False,
    cache_from: CacheFromFlag = None,
    cache_to: CacheToFlag = None,
    separate_weights: SeparateWeightsFlag = False,
    weights_path: WeightsPathFlag = None,
    use_cog_base_image: UseCogBaseImageFlag = None,
    use_cuda_base_image: UseCudaBaseImageFlag = None,
    openapi_schema: OpenApiSchemaFlag = None,
    skip_schema_validation: SkipSchemaValidationFlag = False,
    strip: StripFlag = False,
    precompile: PrecompileFlag = False,
    dockerfile: DockerfileFlag = None,
    registry: RegistryFlag = None,
    tag: TagFlag = None,
    label: LabelFlag = None,
    platform: PlatformFlag = None,
    timestamp: TimestampFlag = None,
    sbom: SbomFlag = None,
    provenance: ProvenanceFlag = None,
    attest: AttestFlag = None,
    output: OutputFlag = None,
    push: PushFlag = False,
    metadata_file: MetadataFileFlag = None,
    iidfile: IidFileFlag = None,
    addr: AddrFlag = None,
    tlscacert: TlsCaFlag = None,
    tlscert: TlsCertFlag = None,
    tlskey: TlsKeyFlag = None,
    tlsservername: TlsServerNameFlag = None,
    compress: CompressFlag = CompressMode.AUTO,
    lock_timeout: LockTimeoutFlag = None,
    progress: ProgressFlag = ProgressMode.AUTO,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Build an image from a Cog project or a Dockerfile.

    With a cog.yaml in the folder or above it, the Dockerfile is generated; with a Dockerfile, that is built.
    """
    from cogkit.building import caches, credentials, step_settings, values
    from cogkit.building.options import BuildOptions
    from cogkit.building.source_policy import read_source_policy

    question = "check" if check else call
    allowed, allow_local_delete = credentials.parse_entitlements(allow or ())
    build_args = values.parse_pairs(build_arg or (), flag="--build-arg", environ=os.environ)
    exported_caches = caches.parse_caches(cache_to or (), flag=caches.CACHE_TO)
    options = BuildOptions(
        context=choose_context(path, context),
        file=file,
        tags=values.parse_tags(tag or ()),
        target=target,
        build_args=build_args,
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
        tls=tls_config(tlscacert, tlscert, tlskey, tlsservername),
        compress=compress.choice,
        lock_timeout=lock_timeout,
        uv_image=None if uv_image is None else values.parse_image(uv_image, flag="--uv-image"),
        secrets=credentials.parse_secrets(secret or ()),
        ssh=credentials.parse_all_ssh(ssh or ()),
        allow=allowed,
        allow_local_delete=allow_local_delete,
        cache_from=caches.with_credentials(caches.parse_caches(cache_from or (), flag=caches.CACHE_FROM)),
        cache_to=caches.with_credentials(caches.with_inline_cache(exported_caches, build_args)),
        no_cache_filter=tuple(filter(None, no_cache_filter or ())),
        attestations=step_settings.parse_attestations(attest or (), sbom=sbom, provenance=provenance),
        network=step_settings.parse_network(network),
        hosts=step_settings.parse_hosts(add_host or ()),
        ulimits=step_settings.parse_ulimits(ulimit or ()),
        shm_size=step_settings.parse_size(shm_size, flag="--shm-size"),
        cgroup_parent=cgroup_parent,
        source_policy=read_source_policy(),
        call=_parse_call(question) if question else None,
        timestamp=timestamp_of(timestamp, build_args),
        cog=cog_options(
            use_cog_base_image=use_cog_base_image,
            use_cuda_base_image=use_cuda_base_image,
            dockerfile=dockerfile,
            openapi_schema=openapi_schema,
            skip_schema_validation=skip_schema_validation,
            strip=strip,
            precompile=precompile,
            separate_weights=separate_weights,
            weights_path=weights_path,
        ),
    )
    run_build(options, progress, notes=debug)


def _parse_call(question: str) -> CallSpec | None:
    from cogkit.building.call import parse_call

    return parse_call(question)


def choose_context(path: Path | None, context: Path | None) -> Path | None:
    """The folder named by ``[PATH]`` or ``--context``; None without either."""
    if path is not None and context is not None:
        raise UsageError(f"two folders to build: {path} and --context {context}", hint="give one of them")
    return path if path is not None else context


def tls_config(ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None) -> TlsConfig | None:
    """What the flags of a TLS connection say together; None without any."""
    from cogkit.buildkit.connect.address import TlsConfig

    if not (ca or cert or key or server_name):
        return None
    return TlsConfig(ca=ca, cert=cert, key=key, server_name=server_name)


def run_build(options: BuildOptions, mode: ProgressMode, *, notes: bool = False) -> BuildResult:
    """Run a build with its progress on standard error and, in quiet mode, its image ID on standard output."""
    from cogkit.building import build as builder
    from cogkit.building.options import STDOUT
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.progress import open_progress, show_result, shown

    progress = open_progress(mode, notes=notes)

    async def work() -> BuildResult:
        async with shown(progress):
            return await builder.build(options, progress)

    result = run(work())
    if options.call is not None:
        _show_answer(options.call, result)
        return result
    show_result(result, mode, stdout_taken=any(output.dest == STDOUT for output in options.outputs))
    return result


def _show_answer(call: CallSpec, result: BuildResult) -> None:
    """Print what the frontend said; ends the command with the answer's status."""
    from cogkit.cli.ui import call_view

    sys.stdout.write(call_view.answer_text(call, result.answer, filename=result.dockerfile_name))
    error = call_view.answer_error(call, result.answer, filename=result.dockerfile_name)
    if error is not None:
        sys.stdout.flush()
        raise error
    if code := call_view.exit_code(call, result.answer):
        raise typer.Exit(code)
