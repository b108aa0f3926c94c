"""From a project's config to its schema: find the functions, read them, build the document.

This file joins the others; it must not look into syntax trees itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.config_model import COG_VERSION, Config, ConfigWarning
from cogkit.project.schema import document
from cogkit.project.schema.encoding import encode
from cogkit.project.schema.inputs import Answers, Input, Inputs, Question
from cogkit.project.schema.outputs import Outputs
from cogkit.project.schema.source import Project
from cogkit.project.schema.target import (
    Mode,
    PredictorInfo,
    Reference,
    Target,
    describe,
    find_target,
    streaming_decorator,
)
from cogkit.project.schema.types import Json, Stream

MINIMUM_SDK = (0, 17, 0)
"""The first SDK that serves a schema made without running the code (Cog ``pkg/schema/openapi/generate.go``)."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions about one function's parameters.

    Attributes:
        key: ``run`` or ``train``.
        path: The file that it stands in, relative to the project.
        owner: The class that it stands in; "" for none.
        function: Its name.
        asked: The questions.
    """

    key: str
    path: str
    owner: str
    function: str
    asked: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class SchemaResult:
    """A project's schema.

    Attributes:
        openapi: The document; keys are in the order that they are written in.
        json: The document as Cog writes it, byte for byte.
        info: The function that runs, or the one that trains if none runs.
        train: The function that trains, if there is one.
        inputs: The inputs of the function that ``info`` is of, in order.
        warnings: What works but should be told, with its place.
        questions: What has to be evaluated before the document is whole.
    """

    openapi: Json
    json: bytes
    info: PredictorInfo
    train: PredictorInfo | None
    inputs: tuple[Input, ...]
    warnings: tuple[ConfigWarning, ...] = ()
    questions: tuple[Questions, ...] = ()


def generate_schema(
    config: Config,
    project_dir: Path,
    *,
    version: str = COG_VERSION,
    sdk_version: str | None = None,
    answers: Mapping[str, Answers] | None = None,
) -> SchemaResult:
    """The schema of a project, from its source alone.

    Args:
        config: The config; its ``run`` and ``train`` are read.
        project_dir: The folder that those are relative to.
        version: What ``info.version`` says: the version of Cog.
        sdk_version: The version of the SDK that the image gets, where it is not ``build.sdk_version``; "" if unknown.
        answers: For ``run`` and ``train``, what is known of expressions that are not in the source; {} to be asked for
            them (`SchemaResult.questions`), None to refuse a default or choices that are not in the source.

    Raises:
        ConfigError: The source is not there, is not Python, or has something that a schema cannot say.
    """
    _check_sdk(config, config.build.sdk_version if sdk_version is None else sdk_version)
    project = Project(project_dir, config.build.python_version)
    references = _references(config)
    try:
        read = [_read(project, reference, answers) for reference in references]
        documents = [document.build(one.signature, version) for one in read]
        openapi = document.merge(*documents) if len(documents) == 2 else documents[0]
        encoded = encode(openapi, indent=len(documents) == 2)
    except RecursionError as error:
        raise ConfigError(
            "the types of the predictor are nested too deeply",
            where=references[0].where,
            hint="Use a dict for the inner ones, or Annotated[..., Opaque].",
        ) from error
    return SchemaResult(
        openapi=openapi,
        json=encoded,
        info=read[0].info,
        train=next((one.info for one in read if one.info.mode is Mode.TRAIN), None),
        inputs=read[0].signature.inputs,
        warnings=tuple(warning for one in read for warning in one.warnings),
        questions=tuple(one.questions for one in read if one.questions.asked),
    )


def read_predictor(config: Config, project_dir: Path) -> PredictorInfo:
    """Only what the function's signature and decorators say, for a build whose schema is given by a file.

    Raises:
        ConfigError: The function cannot be found, or its ``@cog.concurrent`` cannot be.
    """
    reference = _references(config)[0]
    return describe(find_target(Project(project_dir, config.build.python_version), reference), reference)


def concurrency_max(config: Config, info: PredictorInfo | None) -> int | None:
    """How many predictions run at once: ``concurrency.max``, else ``@cog.concurrent``, else None.

    Raises:
        ConfigError: More than one, but the function is not async or the Python too old.
    """
    declared = config.concurrency_max
    value = declared if declared is not None else info.concurrency_max if info is not None else None
    if value is None or value <= 1:
        return value
    where = config.where("concurrency.max") if declared is not None or info is None else info.where
    if info is not None and not info.is_async:
        raise ConfigError(
            "concurrency.max > 1 requires an async run() or predict() method",
            where=where,
            hint=f"Write async def {info.function} at {info.where}, or remove concurrency.",
        )
    match = re.match(r"3\.(\d+)", config.build.python_version)
    if match is not None and int(match[1]) < 11:
        raise ConfigError(
            "concurrency requires Python 3.11 or higher",
            where=where,
            hint=f"Set build.python_version to 3.11 or newer; it is {config.build.python_version}.",
        )
    return value


@dataclass(frozen=True, slots=True)
class _Read:
    info: PredictorInfo
    signature: document.Signature
    warnings: tuple[ConfigWarning, ...]
    questions: Questions


def _references(config: Config) -> list[Reference]:
    found = []
    if config.run:
        where = config.places.get("run") or config.where("predict")
        found.append(Reference("run", config.run, Mode.PREDICT, where))
    if config.train:
        found.append(Reference("train", config.train, Mode.TRAIN, config.where("train")))
    if not found:
        raise ConfigError(
            f"no predict or train reference found in {config.filename}",
            where=config.filename,
            hint="Name what runs, for instance run: run.py:Runner.",
        )
    return found


def _read(project: Project, reference: Reference, answers: Mapping[str, Answers] | None) -> _Read:
    target = find_target(project, reference)
    known = answers.get(reference.key, {}) if answers is not None else None
    reader = Inputs(target.module, target.function, target.is_method, reference.key, target.owner, known)
    inputs = reader.read()
    if answers is None:
        _refuse(reader)
    function = target.function
    if function.returns is None:
        raise target.module.error(
            f"missing return type annotation on {function.name}",
            function,
            f"Say what it returns: def {function.name}(...) -> str, for instance.",
        )
    output = Outputs(target.module).resolve(function.returns)
    info = describe(target, reference)
    if info.streaming and not isinstance(output.shape, Stream):
        raise _not_a_stream(target)
    signature = document.Signature(reference.mode, inputs, output, info.streaming)
    owner = target.owner.node.name if target.owner is not None else ""
    questions = Questions(reference.key, target.module.path, owner, function.name, tuple(reader.questions))
    return _Read(info, signature, (*target.warnings, *reader.warnings), questions)


def _refuse(reader: Inputs) -> None:
    """Without anybody to evaluate them, some expressions are refused and the others left out."""
    for question in reader.questions:
        if question.refusal is not None:
            raise question.refusal
        shown = question.text if len(question.text) <= 60 else question.text[:59] + "…"
        reader.warnings.append(
            ConfigWarning(
                f"parameter '{question.parameter}': {question.keyword} `{shown}` cannot be statically resolved and is "
                "left out of the schema",
                reader.key,
                question.where,
            )
        )
    reader.questions.clear()


def _not_a_stream(target: Target) -> ConfigError:
    decorator = streaming_decorator(target)
    return target.module.error(
        "@streaming requires Iterator[...], AsyncIterator[...], ConcatenateIterator[...] or "
        "AsyncConcatenateIterator[...] return type",
        target.function if decorator is None else decorator,
        "Return an iterator, or remove @streaming.",
    )


def _check_sdk(config: Config, sdk_version: str) -> None:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", sdk_version)
    if match is not None and tuple(map(int, match.groups())) < MINIMUM_SDK:
        minimum = ".".join(map(str, MINIMUM_SDK))
        raise ConfigError(
            f"SDK version {sdk_version} is not supported by static schema generation; use {minimum} or newer",
            where=config.where("build.sdk_version"),
            hint=f"Set build.sdk_version to {minimum} or newer, or give the schema with --openapi-schema.",
        )
