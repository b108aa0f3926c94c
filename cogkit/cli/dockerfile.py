"""``cogkit dockerfile``: print the Dockerfile that a build would use."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cogkit.cli.build import choose_context
from cogkit.cli.cog_options import cog_options
from cogkit.cli.flags import (
    IMAGE,
    ContextFlag,
    DebugFlag,
    DockerfileFlag,
    FileFlag,
    NoColorFlag,
    OpenApiSchemaFlag,
    PathArgument,
    PrecompileFlag,
    RegistryFlag,
    SeparateWeightsFlag,
    SkipSchemaValidationFlag,
    StripFlag,
    TimestampFlag,
    UseCogBaseImageFlag,
    UseCudaBaseImageFlag,
    UvImageFlag,
    WeightsPathFlag,
)

EXAMPLES = """
\b
Examples:
  cogkit dockerfile > Dockerfile.generated
  cogkit dockerfile --separate-weights
"""

ImageNameFlag = Annotated[
    str | None,
    typer.Option(
        "--image-name",
        metavar="NAME",
        help="Taken as Cog takes it; no name is in a Dockerfile of cogkit.",
        rich_help_panel=IMAGE,
    ),
]


def dockerfile(
    path: PathArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    uv_image: UvImageFlag = None,
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
    image_name: ImageNameFlag = None,
    timestamp: TimestampFlag = None,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Print the Dockerfile that a build would use: the generated one, or the one that is there.

    No builder is asked, so with --use-cog-base-image Cog's base image is taken to be there. `cogkit debug` is the same
    command under Cog's name for it.
    """
    from cogkit.building import values
    from cogkit.building.build import preview
    from cogkit.building.options import BuildOptions
    from cogkit.cli.ui.failure import warning_line

    options = BuildOptions(
        context=choose_context(path, context),
        file=file,
        uv_image=None if uv_image is None else values.parse_image(uv_image, flag="--uv-image"),
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
    found = preview(options)
    for warning in found.warnings:
        typer.echo(warning_line(warning, sys.stderr), err=True)
    # A Dockerfile's bytes, whatever they are.
    sys.stdout.buffer.write(found.dockerfile.encode("utf-8", "surrogateescape"))
