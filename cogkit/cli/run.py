"""``cogkit run`` (and ``predict``): ask a model once, on the builder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogkit.cli.build_options import BuildFlags, takes
from cogkit.cli.running_options import (
    LEFT_OUT,
    RUN,
    EnvFlag,
    GpusFlag,
    NoSyncBackFlag,
    parse_env,
    run_options,
    say,
    say_building,
    started,
)
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.running.image import Image

EXAMPLES = """
\b
Examples:
  cogkit run -i prompt="a photo of a cat"           build the project around this folder, and ask it
  cogkit run -i image=@photo.jpg -o output.png      a file as input, and one for the output
  cogkit run registry.example.com/model -i n=3      ask an image of a registry
  echo '{"prompt": "a cat"}' | cogkit run --json @-
"""

ImageArgument = Annotated[
    str | None,
    typer.Argument(metavar="[IMAGE]", help="Image of a model to run; else the project is built.", show_default=False),
]
InputFlag = Annotated[
    list[str] | None,
    typer.Option("-i", "--input", metavar="NAME=VALUE", help="Input; NAME=@FILE for a file.", rich_help_panel=RUN),
]
JsonFlag = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="JSON", help="Inputs as a JSON object; @FILE or @- to read it there.", rich_help_panel=RUN
    ),
]
OutputFlag = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where the output goes.", rich_help_panel=RUN),
]
SetupTimeoutFlag = Annotated[
    int,
    typer.Option(
        "--setup-timeout",
        metavar="SECONDS",
        min=1,
        help="How long the model may take to be ready.",
        rich_help_panel=RUN,
    ),
]
ReplicateTokenFlag = Annotated[
    bool,
    typer.Option(
        "--use-replicate-token", help="Give the model REPLICATE_API_TOKEN of this environment.", rich_help_panel=RUN
    ),
]


@takes(BuildFlags, without=LEFT_OUT)
def run(
    flags: BuildFlags,
    ctx: typer.Context,
    image: ImageArgument = None,
    input: InputFlag = None,
    json: JsonFlag = None,
    output: OutputFlag = None,
    env: EnvFlag = None,
    gpus: GpusFlag = None,
    setup_timeout: SetupTimeoutFlag = 300,
    use_replicate_token: ReplicateTokenFlag = False,
    no_sync_back: NoSyncBackFlag = False,
) -> None:
    """Run a prediction on the builder: of the project, or of an image.

    Inputs are checked before anything is built. Outputs that are files are written to -o, or to output.EXTENSION.
    """
    if ctx.info_name == "predict":
        say('⚠ "cog predict" is deprecated, use "cog run"')
    if json is not None and input:
        raise UsageError("Must use one of --json or --input to provide model inputs", hint="leave out one of them")
    context = {}
    if use_replicate_token:
        token = os.environ.get("REPLICATE_API_TOKEN", "")
        if not token:
            raise UsageError(
                "Failed to find REPLICATE_API_TOKEN in the current environment when called with --use-replicate-token",
                hint="set it, or leave out the flag",
            )
        context["replicate_api_token"] = token
    run_model(
        flags,
        image=image,
        inputs=input or [],
        json_inputs=json,
        output=output or "",
        env=parse_env(env),
        gpus=gpus,
        setup_timeout=setup_timeout,
        context=context,
        sync_back=not no_sync_back,
    )


def run_model(
    flags: BuildFlags,
    *,
    image: str | None,
    inputs: list[str],
    json_inputs: str | None,
    output: str,
    env: Mapping[str, str],
    gpus: str | None,
    setup_timeout: float,
    context: Mapping[str, str],
    sync_back: bool,
    train: bool = False,
) -> None:
    """Ask a model once; the arguments are the flags of those names."""
    from cogkit.cli.interruptible import run as run_to_end
    from cogkit.running.inputs import has_inputs, input_component, parse_inputs, parse_json
    from cogkit.running.outputs import choose_destination

    if image is not None and "=" in image and "@" not in image:
        raise UsageError(f"Invalid image name '{image}'. Did you forget `-i`?", hint=f"cogkit run -i {image}")
    as_json = json_inputs is not None
    destination = choose_destination(output, as_json=as_json)
    if as_json and not destination.path.endswith(".json"):
        say(f"⚠ --output value does not have a .json suffix: {Path(destination.path).name}")

    def parse(document: Mapping[str, Any]) -> dict[str, Any]:
        component = input_component(document, train=train)
        if json_inputs is not None:
            return parse_json(json_inputs, component, document)
        return parse_inputs(inputs, component, document)

    async def work() -> None:
        from cogkit.building.recipes import CogRecipe, open_recipe
        from cogkit.running.devices import container_options
        from cogkit.running.prediction import Question, ask

        options = run_options(flags)
        recipe = await open_recipe(options) if image is None else None
        checked: dict[str, Any] | None = None
        if isinstance(recipe, CogRecipe) and recipe.cog.schema:
            import json as json_format

            checked = parse(json_format.loads(recipe.cog.schema))

        def check(made: Image) -> None:
            nonlocal checked
            if recipe is None and not made.is_of_cog:
                raise UsageError(
                    f"{image} is not a model: it was not built by Cog, or cogkit",
                    hint="build one with cogkit build -t NAME",
                )
            if checked is None and made.schema is not None and has_inputs(made.schema, train=train):
                checked = parse(made.schema)
            if flags.talkative:
                say()
                say("Starting Docker image and running setup()...")

        if recipe is not None and flags.talkative:
            say_building(recipe)
        container = container_options(gpus)
        async with started(flags, options, recipe, image or "", container, check) as running:
            question = Question(
                parse=parse,
                inputs=checked,
                destination=destination,
                train=train,
                as_json=as_json,
                context=context,
                env=env,
                setup_timeout=setup_timeout,
                sync_back=recipe.project.root if isinstance(recipe, CogRecipe) and sync_back else None,
            )
            await running.run(ask(running, question, os.environ, tell=say, show=typer.echo))

    run_to_end(work())
