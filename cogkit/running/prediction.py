"""One prediction or training, from a running container to its output.

This file must not parse what the user wrote, nor show anything but through what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogkit.errors import ProcessError
from cogkit.fast_dataclass import dataclass
from cogkit.running.command import SOURCE, model_env
from cogkit.running.model import SETUP_TIMEOUT, TRAINING_SERVER, ModelError, serving
from cogkit.running.outputs import Destination, Tell, deliver
from cogkit.running.sync_back import syncing_back

if TYPE_CHECKING:
    from cogkit.running.session import Running

ParseInputs = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From the model's schema to the inputs that the user gave, checked against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked for.

    Attributes:
        parse: Gives the inputs.
        inputs: The inputs, if they could be checked before; None to check them against the running model's schema.
        train: A training, in place of a prediction.
        as_json: The whole answer is wanted as JSON.
        destination: Where the output goes.
        context: What the model is told besides.
        env: Variables of the user's.
        setup_timeout: Seconds that the model may take to be ready.
        sync_back: The project's folder, for what the model changes in it; None: nothing comes back.
    """

    parse: ParseInputs
    destination: Destination
    inputs: dict[str, Any] | None = None
    train: bool = False
    as_json: bool = False
    context: Mapping[str, str]
    env: Mapping[str, str]
    setup_timeout: float = SETUP_TIMEOUT
    sync_back: Path | None = None


async def ask(running: Running, question: Question, environ: Mapping[str, str], *, tell: Tell, show: Tell) -> None:
    """Set the model up, ask it once and deliver its output.

    Raises:
        ModelError: it could not be set up, or the prediction failed.
        ProcessError: with ``as_json``, where the answer itself says why it failed.
        OutputError: the output cannot be written.
    """
    level = {"COG_LOG_LEVEL": "warning"}
    env = {**model_env(running, question.env, environ), **level}
    command: Sequence[str] = TRAINING_SERVER if question.train else ()
    args, cwd = running.image.args(command), running.image.working_dir
    async with (
        syncing_back(running.link, SOURCE, question.sync_back, running.began_ns, tell),
        serving(running.link, args, env, cwd) as model,
    ):
        await model.ready(question.setup_timeout)
        inputs = question.inputs
        if inputs is None:
            inputs = question.parse(await model.schema())
        tell("Running training..." if question.train else "Running prediction...")
        tell("")
        prediction = await model.predict(inputs, question.context, train=question.train)
        document = await model.schema()
    if prediction.status != "succeeded" and not question.as_json:
        raise ModelError(f'Prediction failed with status "{prediction.status}": {prediction.error}')
    deliver(
        prediction,
        document,
        question.destination,
        train=question.train,
        as_json=question.as_json,
        tell=tell,
        show=show,
    )
    if prediction.status != "succeeded":
        raise ProcessError(f'Prediction failed with status "{prediction.status}"', 1)
