"""``cogkit train``: run a training once, on the builder."""

from __future__ import annotations

from cogkit.cli.build_options import BuildFlags, takes
from cogkit.cli.run import ImageArgument, InputFlag, OutputFlag, run_model
from cogkit.cli.running_options import LEFT_OUT, EnvFlag, GpusFlag, NoSyncBackFlag, parse_env, say

EXAMPLES = """
\b
Example:
  cogkit train -i data=@photos.zip -o weights
"""


@takes(BuildFlags, without=LEFT_OUT)
def train(
    flags: BuildFlags,
    image: ImageArgument = None,
    input: InputFlag = None,
    output: OutputFlag = "weights",
    env: EnvFlag = None,
    gpus: GpusFlag = None,
    no_sync_back: NoSyncBackFlag = False,
) -> None:
    """Run a training on the builder: of the project, or of an image."""
    say("Command train is deprecated: the train command will be removed in a future version of Cog")
    run_model(
        flags,
        image=image,
        inputs=input or [],
        json_inputs=None,
        output=output or "",
        env=parse_env(env),
        gpus=gpus,
        setup_timeout=300,
        context={},
        sync_back=not no_sync_back,
        train=True,
    )
