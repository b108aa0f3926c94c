"""Runs in the image, not here: evaluates defaults of a predictor's parameters that have a value only when code runs.

    python evaluate_in_image.py QUESTIONS ANSWERS SECONDS

Whole modules are imported first, since only that surely gives what the server will see.  Where that fails (no GPU, no
network), the statements that a default needs are run alone.  Each way has a process of its own with a time limit.  The
answers are JSON; an expression that cannot be evaluated is answered by its error.  This file must run on any Python
that an image may have (3.8 and newer), and import nothing but its standard library.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib.util
import inspect
import json
import math
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Json = dict[str, Any]
    Way = Callable[[Json, list[str]], dict[str, Json]]
    Function = ast.FunctionDef | ast.AsyncFunctionDef

KEYWORDS = (
    "default",
    "description",
    "ge",
    "le",
    "min_length",
    "max_length",
    "regex",
    "choices",
    "deprecated",
    "accept",
)
TOO_LONG = "it took longer than {} seconds"


def main(arguments: list[str]) -> None:
    questions_path, answers_path, seconds = arguments
    with open(questions_path, encoding="utf-8") as file:
        questions = json.load(file)
    sys.path.insert(0, os.getcwd())
    answers: dict[str, dict[str, Json]] = {}
    for way in (from_module, from_statements):
        for question in questions:
            known = answers.setdefault(question["key"], {})
            left = [name for name in question["parameters"] if "error" in known.get(name, {"error": ""})]
            if left:
                found = in_a_process(way, question, left, int(seconds))
                # What the whole module said is of more use than what some of its statements did not find.
                for name, answer in found.items():
                    if "error" not in answer or name not in known:
                        known[name] = answer
    with open(answers_path, "w", encoding="utf-8") as file:
        json.dump(answers, file)


def in_a_process(way: Way, question: Json, names: list[str], seconds: int) -> dict[str, Json]:
    """The answers for some parameters, or the same error for each of them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            sys.stdout = sys.stderr
            try:
                found = way(question, names)
            except BaseException as problem:
                found = {name: {"error": told(problem)} for name in names}
            with os.fdopen(writer, "wb") as file:
                file.write(json.dumps(found).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    status = os.waitpid(child, 0)[1]
    if status == 0:
        known: dict[str, Json] = json.loads(data)
        return known
    ended = f"its process ended with status {status}"
    if os.WIFSIGNALED(status):
        ended = f"its process was ended by signal {os.WTERMSIG(status)}"
        if os.WTERMSIG(status) == signal.SIGALRM:
            ended = TOO_LONG.format(seconds)
    return {name: {"error": ended} for name in names}


def told(problem: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(problem), problem)).strip()


def from_module(question: Json, names: list[str]) -> dict[str, Json]:
    """Import the module as the server does, and look at the function's parameters."""
    name = os.path.splitext(os.path.basename(question["file"]))[0]
    spec = importlib.util.spec_from_file_location(name, question["file"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    owner = getattr(module, question["class"]) if question["class"] else module
    function = inspect.unwrap(getattr(owner, question["function"]))
    parameters = inspect.signature(function).parameters
    return {one: answer(functools.partial(getattr, parameters[one], "default")) for one in names}


def from_statements(question: Json, names: list[str]) -> dict[str, Json]:
    """Run only the statements of the module that a default needs, and then the default."""
    with open(question["file"], "rb") as file:
        tree = ast.parse(file.read())
    owner = None
    if question["class"]:
        owner = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == question["class"]][
            -1
        ]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = owner.body if owner is not None else tree.body
    function = [node for node in body if isinstance(node, functions) and node.name == question["function"]][-1]
    defaults = defaults_of(function)
    file_name = question["file"]
    return {name: answer(functools.partial(alone, tree, owner, function, defaults[name], file_name)) for name in names}


def defaults_of(function: Function) -> dict[str, ast.expr]:
    arguments = function.args
    positional = arguments.posonlyargs + arguments.args
    found = dict(zip([one.arg for one in reversed(positional)], reversed(arguments.defaults)))
    found.update((one.arg, value) for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults) if value)
    return found


def alone(tree: ast.Module, owner: ast.ClassDef | None, function: Function, default: ast.expr, name: str) -> object:
    needed = loaded(default)
    inner = wanted(owner.body, needed, function) if owner is not None else []
    outer = wanted(tree.body, needed, owner if owner is not None else function)
    module = types.ModuleType("cog_schema_part")
    module.__file__ = name
    run(outer, name, module.__dict__, module.__dict__)
    inside: dict[str, Any] = {}
    run(inner, name, module.__dict__, inside)
    return eval(compile(ast.Expression(default), name, "eval"), module.__dict__, inside)


def run(statements: list[ast.stmt], name: str, outside: dict[str, Any], inside: dict[str, Any]) -> None:
    exec(compile(ast.Module(statements, []), name, "exec"), outside, inside)


def loaded(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def wanted(body: list[ast.stmt], needed: set[str], end: ast.stmt) -> list[ast.stmt]:
    """The statements before ``end`` that bind a needed name or may change one; ``needed`` grows by what these need."""
    before = body[: body.index(end)] if end in body else body
    modules = {name for statement in before for name in imported(statement)}
    chosen: set[int] = set()
    grown = True
    while grown:
        grown = False
        for index, statement in enumerate(before):
            if index not in chosen and concerns(statement, needed, modules):
                chosen.add(index)
                needed |= loaded(statement)
                grown = True
    return [statement for index, statement in enumerate(before) if index in chosen]


def imported(statement: ast.AST) -> set[str]:
    """The names that imports in a statement bind."""
    parts = [part for part in ast.walk(statement) if isinstance(part, (ast.Import, ast.ImportFrom))]
    return {(alias.asname or alias.name).partition(".")[0] for part in parts for alias in part.names}


def concerns(statement: ast.stmt, needed: set[str], modules: set[str]) -> bool:
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        names = imported(statement)
        return "*" in names or bool(names & needed) or getattr(statement, "module", "") == "__future__"
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name in needed
    bound = imported(statement)
    for part in ast.walk(statement):
        if isinstance(part, ast.Name):
            # A module that is only used does not become another one.
            if not isinstance(part.ctx, ast.Load) or part.id not in modules:
                bound.add(part.id)
        elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(part.name)
        elif isinstance(part, ast.Attribute) and part.attr == "path" and loaded(part) == {"sys"}:
            return True  # where later imports look
    return bool(bound & needed)


def answer(evaluate: Callable[[], object]) -> Json:
    """What a default is as JSON: a keyword each for an ``Input(...)``, else ``default`` alone."""
    try:
        value = evaluate()
        if value is inspect.Parameter.empty:
            return {"error": "the parameter has no default"}
        if type(value).__name__ == "FieldInfo" and hasattr(value, "default") and hasattr(value, "choices"):
            return {key: plain(listed(key, getattr(value, key, None))) for key in KEYWORDS}
        return {"default": plain(value)}
    except BaseException as problem:
        return {"error": told(problem)}


def listed(key: str, value: Any) -> Any:
    """Choices may be anything that has an order, such as the keys of a dict."""
    if key != "choices" or value is None or isinstance(value, (str, set, frozenset)):
        return value
    return list(value)


def plain(value: Any) -> object:
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(one) for key, one in value.items()}
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"{repr(value)[:80]} has no form in JSON")


if __name__ == "__main__":
    main(sys.argv[1:])
