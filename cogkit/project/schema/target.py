"""The function that a reference such as ``run.py:Runner`` leads to, and what its decorators say.

Facts from Cog's ``pkg/schema/python/target.go`` and ``annotations.go``: of a class it is ``run`` or, older,
``predict``, own or inherited from a class of the project, and ``run`` wins wherever it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.config_model import ConfigWarning
from cogkit.project.schema.annotations import Words
from cogkit.project.schema.literals import Scope, Unresolvable, evaluate
from cogkit.project.schema.names import FunctionNode
from cogkit.project.schema.names import dotted_name as dotted
from cogkit.project.schema.source import Class, Module, Project, lineage


class Mode(Enum):
    """What the function is for."""

    PREDICT = "predict"
    TRAIN = "train"


@dataclass(frozen=True, slots=True)
class PredictorInfo:
    """What a build needs to know of a predictor beside its schema.

    Attributes:
        reference: ``path.py:Name`` as it stands in the config.
        mode: Whether it predicts or trains.
        function: Name of the function: ``run``, ``predict``, ``train`` or the user's own.
        is_async: It is an ``async def``.
        concurrency_max: ``max`` of ``@cog.concurrent``, 1 without one, None if it is not decorated so.
        streaming: It is decorated with ``@cog.streaming``.
        where: ``file:line:column`` of the function.
    """

    reference: str
    mode: Mode
    function: str
    is_async: bool
    concurrency_max: int | None
    streaming: bool
    where: str


@dataclass(frozen=True, slots=True)
class Target:
    """The function, the module and class it stands in, and whether its first parameter is the object."""

    module: Module
    function: FunctionNode
    is_method: bool
    owner: Class | None = None
    warnings: tuple[ConfigWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference from the config: ``key`` (``run`` or ``train``), its text, and its place in the config file."""

    key: str
    text: str
    mode: Mode
    where: str


def find_target(project: Project, reference: Reference) -> Target:
    """Find the function.

    Raises:
        ConfigError: There is no such file, class or function.
    """
    path, _, name = reference.text.partition(":")
    if not path or not name:
        raise ConfigError(
            f"invalid predict reference '{reference.text}'",
            where=reference.where,
            hint="Write file.py:ClassName or file.py:function_name.",
        )
    module = project.open(path, reference.where)
    if name in module.classes:
        return _method(Class(module, module.classes[name]), reference)
    if name in module.functions:
        return Target(module, module.functions[name], is_method=False)
    names = sorted({*module.classes, *module.functions})
    raise ConfigError(
        f"{name} not found in {module.path}",
        where=reference.where,
        hint=f"It defines {', '.join(names)}." if names else "It defines no class and no function.",
    )


def _method(cls: Class, reference: Reference) -> Target:
    name = cls.node.name
    if reference.mode is Mode.TRAIN:
        train = _lookup(cls, "train")
        if train is None:
            raise cls.module.error(f"{name}.train not found", cls.node, f"Define train() in {name}.")
        return train
    run, predict = _lookup(cls, "run"), _lookup(cls, "predict")
    if run is None and predict is None:
        raise cls.module.error(f"{name} must define run() or predict()", cls.node, f"Define run() in {name}.")
    if run is None:
        assert predict is not None
        message = f"{name}.predict() is deprecated; use run() instead"
    elif predict is not None:
        message = f"{name} must define either run() or predict(), not both; the image will not start"
    else:
        return run
    target = run or predict
    assert target is not None
    warning = ConfigWarning(message, reference.key, target.module.where(target.function))
    return replace(target, warnings=(warning,))


def _lookup(cls: Class, name: str) -> Target | None:
    for owner in lineage(cls):
        for statement in reversed(owner.node.body):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                decorators = {dotted(decorator) for decorator in statement.decorator_list}
                return Target(owner.module, statement, is_method="staticmethod" not in decorators, owner=owner)
    return None


def describe(target: Target, reference: Reference) -> PredictorInfo:
    """What the function's signature and decorators say.

    Raises:
        ConfigError: A ``@cog.concurrent`` that cannot be.
    """
    function = target.function
    is_async = isinstance(function, ast.AsyncFunctionDef)
    concurrency = _concurrency(target)
    if concurrency is not None and concurrency[0] > 1 and not is_async:
        raise target.module.error(
            "@concurrent(max > 1) requires an async run() or predict() method",
            concurrency[1],
            f"Write async def {function.name}, or remove max.",
        )
    return PredictorInfo(
        reference=reference.text,
        mode=reference.mode,
        function=function.name,
        is_async=is_async,
        concurrency_max=concurrency[0] if concurrency is not None else None,
        streaming=next(_decorators(target, "streaming"), None) is not None,
        where=target.module.where(function),
    )


def _decorators(target: Target, word: str) -> Iterator[ast.expr]:
    words = Words(target.module)
    for decorator in target.function.decorator_list:
        name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if name is not None and words.exact(name, "cog") == word:
            yield decorator


def streaming_decorator(target: Target) -> ast.expr | None:
    """The ``@cog.streaming`` of a function, if it has one."""
    return next(_decorators(target, "streaming"), None)


def _concurrency(target: Target) -> tuple[int, ast.expr] | None:
    module = target.module
    for decorator in _decorators(target, "concurrent"):
        if not isinstance(decorator, ast.Call) or not (decorator.args or decorator.keywords):
            return 1, decorator
        if decorator.args or len(decorator.keywords) != 1 or decorator.keywords[0].arg != "max":
            raise module.error(
                "@concurrent only supports literal integer max=... arguments", decorator, "Write @concurrent(max=4)."
            )
        node = decorator.keywords[0].value
        try:
            value = evaluate(node, Scope(module, constants=False))
        except Unresolvable:
            value = None
        if not isinstance(value, int) or isinstance(value, bool):
            raise module.error(
                "@concurrent max must be an integer literal", node, "Set COG_MAX_CONCURRENCY to choose it at run time."
            )
        if value < 1:
            raise module.error("@concurrent max must be at least 1", node, "Write @concurrent(max=4), for instance.")
        if value > 2**63 - 1:
            raise module.error("@concurrent max is too large", node, "Write @concurrent(max=4), for instance.")
        return value, node
    return None
