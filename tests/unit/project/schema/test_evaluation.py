"""Defaults that only the image can evaluate: what is asked, what the program in the image answers, what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cogkit.errors import ConfigError
from cogkit.project.config import Config
from cogkit.project.schema import SchemaResult, generate_schema
from cogkit.project.schema.evaluation import Evaluation, ask, read_answers, script

SDK = """\
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldInfo:
    default: Any = None
    description: Any = None
    ge: Any = None
    le: Any = None
    min_length: Any = None
    max_length: Any = None
    regex: Any = None
    choices: Any = None
    deprecated: Any = None
    accept: Any = None


def Input(default=None, **keywords):
    return FieldInfo(default=default, **keywords)
"""
CONFIG = Config(run="run.py:Runner")


def asked(folder: Path, source: str, config: Config = CONFIG) -> Evaluation:
    (folder / "run.py").write_text(source)
    evaluation = ask(generate_schema(config, folder, answers={}))
    assert evaluation is not None
    return evaluation


def evaluated(folder: Path, source: str, config: Config = CONFIG, **files: str) -> SchemaResult:
    """What comes of a source, with the answers of the program that runs in images, run by this Python."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    evaluation = asked(folder, source, config)
    return generate_schema(config, folder, answers=read_answers(answers(folder, evaluation), evaluation))


def answers(folder: Path, evaluation: Evaluation, seconds: int = 250) -> bytes:
    program, sdk = folder / "program", folder / "sdk"
    program.mkdir(exist_ok=True)
    sdk.mkdir(exist_ok=True)
    (sdk / "cog.py").write_text(SDK)
    (program / "evaluate.py").write_bytes(script())
    (program / "questions.json").write_bytes(evaluation.questions)
    files = [str(program / name) for name in ("evaluate.py", "questions.json", "answers.json")]
    command = [sys.executable, "-S", *files]
    environment = {"PYTHONPATH": str(sdk), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, str(seconds)], cwd=folder, env=environment, timeout=280, check=True, capture_output=True)
    return (program / "answers.json").read_bytes()


def runner(parameters: str, before: str = "", inside: str = "") -> str:
    return (
        f"import string\nfrom cog import Input\n{before}\n"
        f"class Runner:\n    {inside or 'pass'}\n    def run(self, {parameters}) -> str: ...\n"
    )


def properties(result: SchemaResult) -> dict[str, Any]:
    components: Any = result.openapi["components"]
    found: dict[str, Any] = components["schemas"]["Input"]["properties"]
    return found


def test_what_the_source_says_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(runner("a: str = Input(default='x', choices=list('xy'))", "X = 1"))
    assert ask(generate_schema(CONFIG, tmp_path, answers={})) is not None
    (tmp_path / "run.py").write_text(runner("a: str = Input(default='x', choices=['x', 'y'])"))
    assert ask(generate_schema(CONFIG, tmp_path, answers={})) is None


def test_only_what_is_not_known_is_asked_with_its_place(tmp_path: Path) -> None:
    source = runner("a: str = Input(default=string.digits, description='d'), b: int = 1, c: str = string.digits")
    evaluation = asked(tmp_path, source)
    assert json.loads(evaluation.questions) == [
        {"key": "run", "file": "run.py", "class": "Runner", "function": "run", "parameters": ["a", "c"]}
    ]
    assert evaluation.told == (
        "run.py:6:42: `string.digits` of parameter 'a'",
        "run.py:6:96: `string.digits` of parameter 'c'",
    )
    assert asked(tmp_path, source).questions == evaluation.questions


def test_the_answers_complete_what_the_source_says(tmp_path: Path) -> None:
    made = evaluated(
        tmp_path,
        runner(
            "a: str = Input(default=X[0], choices=X, description=f'{len(X)} letters'), b: int = Input(default=3, ge=L),"
            "c: str = string.digits, d: int = helper(2), e: str = Input(default=KEY), f: int = Input(**many())",
            "import helpers\nfrom helpers import *\nX = list(string.ascii_lowercase[:3])\nprint('noise')\n"
            "L = len(X) - 2\ndef many(): return dict(default=7, le=9)",
            "KEY = string.punctuation[0]",
        ),
        helpers="from cog import Input\nimport re\ndef helper(x):\n    if x: return Input(default=x, le=x * 2)\n",
    )
    found = properties(made)
    schemas: Any = made.openapi["components"]
    assert schemas["schemas"]["a"]["enum"] == ["a", "b", "c"]
    assert (found["a"]["default"], found["a"]["description"]) == ("a", "3 letters")
    assert (found["b"]["default"], found["b"]["minimum"]) == (3, 1)
    assert found["c"]["default"] == "0123456789"
    assert (found["d"]["default"], found["d"]["maximum"]) == (2, 4)
    assert found["e"]["default"] == "!"
    assert (found["f"]["default"], found["f"]["maximum"]) == (7, 9)
    assert made.questions == ()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("__import__('pathlib').PurePosixPath('/a/b')", "/a/b"),
        ("E.A", "member"),
        ("str(tuple('ab'))", "('a', 'b')"),
        ("C('text')", "text"),
    ],
)
def test_values_become_json(tmp_path: Path, expression: str, value: object) -> None:
    before = "import enum\nclass E(enum.Enum):\n    A = 'member'\nclass C(str): pass\n"
    assert properties(evaluated(tmp_path, runner(f"a: str = {expression}", before)))["a"]["default"] == value


def test_a_train_function_and_an_inherited_one_are_asked_where_they_stand(tmp_path: Path) -> None:
    config = Config(run="run.py:Runner", train="run.py:train")
    made = evaluated(
        tmp_path,
        "import string\nfrom base import Base\nclass Runner(Base): pass\n"
        "def train(steps: int = len(string.digits[:4])) -> str: ...\n",
        config,
        base="import string\nclass Base:\n    def run(self, a: str = string.digits) -> str: ...\n",
    )
    components: Any = made.openapi["components"]
    assert components["schemas"]["Input"]["properties"]["a"]["default"] == "0123456789"
    assert components["schemas"]["TrainingInput"]["properties"]["steps"]["default"] == 4


def test_a_module_that_cannot_be_imported_is_read_in_parts(tmp_path: Path) -> None:
    before = (
        "import os, sys\nsys.path.append('lib')\nimport inner\nX = inner.letters()\nX.append('z')\n"
        "if os.environ.get('NO_GPU', '1'):\n    raise RuntimeError('no GPU')\n"
    )
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "inner.py").write_text("def letters(): return ['x']\n")
    made = evaluated(tmp_path, runner("a: str = Input(default='z', choices=X)", before))
    schemas: Any = made.openapi["components"]
    assert schemas["schemas"]["a"]["enum"] == ["x", "z"]


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("a: str = undefined_name()", "NameError: name 'undefined_name' is not defined"),
        ("a: int = 1 // int(string.digits[0])", "ZeroDivisionError"),
        ("a: str = object()", "has no form in JSON"),
        ("a: str = Input(default='a', choices=set(string.digits))", "has no form in JSON"),
        ("a: float = float('nan')", "has no form in JSON"),
        ("a: str = __import__('os')._exit(3)", "its process ended with status"),
        ("a: str = __import__('os').abort()", "its process was ended by signal 6"),
        ("a: str = __import__('sys').exit(4)", "SystemExit: 4"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_error(tmp_path: Path, parameter: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="parameter 'a': its default cannot be evaluated in the image: ") as caught:
        evaluated(tmp_path, runner(parameter))
    assert reason in caught.value.message
    assert caught.value.where is not None and caught.value.where.startswith("run.py:6:")
    assert caught.value.hint is not None and "--openapi-schema" in caught.value.hint


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    evaluation = asked(tmp_path, runner("a: str = __import__('time').sleep(1000)"))
    with pytest.raises(ConfigError, match="it took longer than 1 seconds"):
        read_answers(answers(tmp_path, evaluation, seconds=1), evaluation)


def test_an_evaluated_default_is_checked_as_a_written_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="invalid default '0123456789': it must be a value of type int"):
        evaluated(tmp_path, runner("a: int = string.digits"))
    with pytest.raises(ConfigError, match="not one of the choices"):
        evaluated(tmp_path, runner("a: str = Input(default='?', choices=list(string.digits))"))


def test_none_for_a_call_counts_as_no_default(tmp_path: Path) -> None:
    made = evaluated(
        tmp_path,
        runner("a: str = h(''), b: str | None = h('x')", "def h(x):\n    if x: return Input()\n    return Input()\n"),
    )
    components: Any = made.openapi["components"]
    assert components["schemas"]["Input"]["required"] == ["a"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"run": 1}', b'{"run": {"a": 1}}', b"[" * 100_000])
def test_an_image_that_answers_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    evaluation = asked(tmp_path, runner("a: str = string.digits"))
    with pytest.raises(ConfigError, match="the image gave no answer"):
        read_answers(data, evaluation)


@pytest.mark.parametrize(
    "answer",
    [
        {"default": [1]},
        {"default": "a", "choices": "ab"},
        {"default": {"a": 1}},
        {"description": 1, "default": "a", "ge": "x", "deprecated": 3},
        {"default": "a", "regex": "("},
    ],
)
def test_answers_of_the_wrong_kind_are_errors_or_left_out(tmp_path: Path, answer: dict[str, object]) -> None:
    evaluation = asked(tmp_path, runner("a: str = h()"))
    known = read_answers(json.dumps({"run": {"a": answer}}).encode(), evaluation)
    try:
        generate_schema(CONFIG, tmp_path, answers=known)
    except ConfigError as error:
        assert error.where is not None and error.where.startswith("run.py:6:")


def test_without_the_image_a_default_is_refused_and_a_description_left_out(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(runner("a: str = string.digits"))
    with pytest.raises(ConfigError, match="cannot be statically resolved"):
        generate_schema(CONFIG, tmp_path)
    (tmp_path / "run.py").write_text(runner("a: str = Input(default='a', description=string.digits)"))
    assert "left out of the schema" in generate_schema(CONFIG, tmp_path).warnings[0].message
