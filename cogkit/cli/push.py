"""``cogkit push``: build the project and push its image."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cogkit.cli.build import choose_context, run_build, tls_config
from cogkit.cli.cog_options import cog_options, timestamp_of
from cogkit.cli.flags import (
    AddrFlag,
    BuildArgFlag,
    BuildContextFlag,
    CacheFromFlag,
    CacheToFlag,
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
    NoCacheFlag,
    NoColorFlag,
    OpenApiSchemaFlag,
    PlatformFlag,
    PrecompileFlag,
    ProgressFlag,
    ProgressMode,
    PullFlag,
    RegistryFlag,
    SecretFlag,
    SeparateWeightsFlag,
    SkipSchemaValidationFlag,
    SshFlag,
    StripFlag,
    TimestampFlag,
    TlsCaFlag,
    TlsCertFlag,
    TlsKeyFlag,
    TlsServerNameFlag,
    UseCogBaseImageFlag,
    UseCudaBaseImageFlag,
    UvImageFlag,
    WeightsPathFlag,
)
from cogkit.errors import CogkitError

EXAMPLES = """
\b
Examples:
  cogkit push registry.example.com/you/my-model           build and push to any registry
  cogkit push r8.im/you/my-model                          build and push to Replicate
  COG_MODEL_TAG=v2 cogkit push                            to `model` of cog.yaml, with this tag
"""

ImageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="IMAGE", help="Name to push under; `image` or `model` of cog.yaml if not given.", show_default=False
    ),
]


def push(
    image: ImageArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    build_arg: BuildArgFlag = None,
    build_context: BuildContextFlag = None,
    uv_image: UvImageFlag = None,
    secret: SecretFlag = None,
    ssh: SshFlag = None,
    no_cache: NoCacheFlag = False,
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
    label: LabelFlag = None,
    platform: PlatformFlag = None,
    timestamp: TimestampFlag = None,
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
    """Build an image and push it to a registry, in one go.

    The name is IMAGE, else `image` of cog.yaml, else `model` with COG_MODEL, COG_MODEL_REGISTRY, COG_MODEL_REPO and
    COG_MODEL_TAG. The login is that of `cogkit login` or `docker login`.
    """
    from cogkit.building import caches, credentials, values
    from cogkit.building.options import BuildOptions
    from cogkit.building.push import explained_push_failure, model_page, push_options

    build_args = values.parse_pairs(build_arg or (), flag="--build-arg", environ=os.environ)
    exported_caches = caches.parse_caches(cache_to or (), flag=caches.CACHE_TO)
    options = BuildOptions(
        context=choose_context(None, context),
        file=file,
        build_args=build_args,
        build_contexts=values.parse_build_contexts(build_context or ()),
        labels=values.parse_pairs(label or (), flag="--label"),
        platforms=values.parse_platforms(platform or ()),
        no_cache=no_cache,
        pull=pull,
        metadata_file=metadata_file,
        iidfile=iidfile,
        address=addr,
        tls=tls_config(tlscacert, tlscert, tlskey, tlsservername),
        compress=compress.choice,
        lock_timeout=lock_timeout,
        uv_image=None if uv_image is None else values.parse_image(uv_image, flag="--uv-image"),
        secrets=credentials.parse_secrets(secret or ()),
        ssh=credentials.parse_all_ssh(ssh or ()),
        cache_from=caches.with_credentials(caches.parse_caches(cache_from or (), flag=caches.CACHE_FROM)),
        cache_to=caches.with_credentials(caches.with_inline_cache(exported_caches, build_args)),
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
    options = push_options(options, image)
    (target,) = options.tags
    talkative = progress not in (ProgressMode.QUIET, ProgressMode.RAWJSON)
    if talkative:
        typer.echo(f"Pushing to {target}...", err=True)
    try:
        result = run_build(options, progress, notes=debug)
    except CogkitError as problem:
        explained = explained_push_failure(problem, target)
        if explained is problem:
            raise
        raise explained from problem
    if talkative:
        typer.echo(f"  image  {target}@{result.digest}", file=sys.stderr)
        page = model_page(target)
        if page is not None:
            typer.echo(f"\nRun your model on Replicate:\n    {page}", err=True)
