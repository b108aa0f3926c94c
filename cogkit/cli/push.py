"""``cogkit push``: build the project and push its image."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cogkit.cli.build import look_after_weights, run_build, say_notes
from cogkit.cli.build_options import BuildFlags, build_options, takes
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


@takes(BuildFlags, without=("push", "call", "check"))
def push(flags: BuildFlags, image: ImageArgument = None) -> None:
    """Build an image and push it to a registry, in one go.

    The name is IMAGE, else `image` of cog.yaml, else `model` with COG_MODEL, COG_MODEL_REGISTRY, COG_MODEL_REPO and
    COG_MODEL_TAG. The login is that of `cogkit login` or `docker login`. Names given with -t are pushed too.

    A model with managed weights is pushed as an index of its image and its weights, which must have been imported.
    """
    from cogkit.building.push import as_part_of_model, explained_push_failure, model_page, push_options
    from cogkit.cli.managed_weights import open_bundle

    options = build_options(flags)
    say_notes(flags)
    options = push_options(options, image)
    target = options.tags[0]
    look_after_weights(options, flags)
    bundle = open_bundle(options)
    if bundle is not None:
        options = as_part_of_model(options)
    if flags.talkative:
        typer.echo(f"Pushing to {target}...", err=True)
    try:
        result = run_build(options, flags.mode, notes=flags.debug)
    except CogkitError as problem:
        explained = explained_push_failure(problem, target)
        if explained is problem:
            raise
        raise explained from problem
    pushed = f"  image  {target}@{result.digest}"
    if bundle is not None and result.digest is not None:
        pushed = bundle.push(result.digest)
    if flags.talkative:
        typer.echo(pushed, file=sys.stderr)
        page = model_page(target)
        if page is not None:
            typer.echo(f"\nRun your model on Replicate:\n    {page}", err=True)
