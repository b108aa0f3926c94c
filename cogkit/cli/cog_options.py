"""From the flags of "A Cog project" to `CogOptions`, for every command that has them.

This file must not read a project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.cli.flags import CudaBaseImage
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.building.options import CogOptions

SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH"


def cog_options(
    *,
    use_cog_base_image: bool | None,
    use_cuda_base_image: CudaBaseImage | None,
    dockerfile: Path | None,
    openapi_schema: Path | None = None,
    skip_schema_validation: bool = False,
    strip: bool = False,
    precompile: bool = False,
    separate_weights: bool = False,
    weights_path: Sequence[str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> CogOptions:
    """The options; the arguments are the flags of the same names.

    Raises:
        UsageError: flags that exclude each other, in Cog's words (``pkg/cli/build.go``).
    """
    from cogkit.building.options import CogOptions

    given = {
        "--use-cog-base-image": use_cog_base_image,
        "--use-cuda-base-image": use_cuda_base_image,
        "--dockerfile": dockerfile,
    }
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(
            f"The flags {' and '.join(chosen)} are mutually exclusive: you can only set one of them.",
            hint="each of them says what the image is built from",
        )
    return CogOptions(
        use_cog_base_image=use_cog_base_image,
        use_cuda_base_image=use_cuda_base_image is not CudaBaseImage.FALSE,
        openapi_schema=openapi_schema,
        skip_schema_validation=skip_schema_validation,
        strip=strip,
        precompile=precompile,
        separate_weights=separate_weights,
        weights_paths=tuple(filter(None, weights_path or ())),
        dockerfile=dockerfile,
        annotations=dict(annotations or {}),
    )


def timestamp_of(
    flag: int | None, build_args: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> int | None:
    """The time that stands for all: ``--timestamp``, else ``SOURCE_DATE_EPOCH`` of the environment.

    A build argument of that name comes before the environment, and does what it does with buildx: it is not our
    timestamp.

    Raises:
        UsageError: the variable is no number of seconds.
    """
    if flag is not None:
        return flag if flag >= 0 else None
    text = environ.get(SOURCE_DATE_EPOCH, "")
    if not text or SOURCE_DATE_EPOCH in build_args:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"{SOURCE_DATE_EPOCH}={text} is no number of seconds since 1970",
            hint=f"for example {SOURCE_DATE_EPOCH}=$(git log -1 --format=%ct)",
        )
    return int(text)
