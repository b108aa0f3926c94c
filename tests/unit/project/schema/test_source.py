"""Reading sources: what is in the project and what is not, and code that means harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.errors import ConfigError
from cogkit.project.config import Build, Config
from cogkit.project.schema import Mode, concurrency_max, generate_schema, read_predictor
from cogkit.project.schema.literals import Scope, Unresolvable, evaluate, to_json
from cogkit.project.schema.source import Project

SOURCE = "class Runner:\n    def run(self, x: str) -> str: ...\n"


def refused(folder: Path, config: Config | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        generate_schema(config or Config(run="run.py:Runner"), folder)
    return caught.value


def value_of(tmp_path: Path, source: str) -> object:
    """What the last statement of a module, an expression, is."""
    (tmp_path / "m.py").write_text(source)
    module = Project(tmp_path).open("m.py")
    expression = module.tree.body[-1]
    return to_json(evaluate(expression.value, Scope(module)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["../run.py", "/etc/run.py", "a/../../run.py"])
def test_a_reference_out_of_the_project_is_refused(tmp_path: Path, path: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "run.py").write_text(SOURCE)
    assert "outside of the project" in refused(project, Config(run=f"{path}:Runner")).message


def test_a_link_out_of_the_project_is_refused_because_the_image_would_not_have_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "elsewhere.py").write_text(SOURCE)
    (project / "run.py").symlink_to("../elsewhere.py")
    assert "link out of the project" in refused(project).message


def test_a_link_inside_of_the_project_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.py").write_text(SOURCE)
    (tmp_path / "run.py").symlink_to("real.py")
    assert generate_schema(Config(run="run.py:Runner"), tmp_path).info.function == "run"


def test_an_import_by_a_link_out_of_the_project_is_external(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "outputs.py").write_text("from cog import BaseModel\nclass Output(BaseModel):\n    x: int\n")
    (project / "outputs.py").symlink_to("../outputs.py")
    (project / "run.py").write_text("from outputs import Output\ndef run() -> Output: ...\n")
    assert "imported from 'outputs'" in refused(project, Config(run="run.py:run")).message


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.py")
    assert "not a file" in refused(tmp_path).message
    os.mkfifo(tmp_path / "outputs.py")
    (tmp_path / "other.py").write_text("from outputs import Output\ndef run() -> Output: ...\n")
    assert "imported from 'outputs'" in refused(tmp_path, Config(run="other.py:run")).message


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "run.py").mkdir()
    assert "not a file" in refused(tmp_path).message


def test_relative_imports_stop_at_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "outputs.py").write_text("from cog import BaseModel\nclass Output(BaseModel):\n    x: int\n")
    (project / "run.py").write_text("from ...outputs import Output\ndef run() -> Output: ...\n")
    assert "imported from '...outputs'" in refused(project, Config(run="run.py:run")).message


def test_imports_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from b import Output\nfrom b import Runner\n")
    (tmp_path / "b.py").write_text("from a import Output\nfrom a import Runner\n")
    (tmp_path / "run.py").write_text(
        "from a import Output, Runner as Base\nclass Runner(Base):\n    def run(self) -> Output: ...\n"
    )
    assert "cannot resolve type 'Output'" in refused(tmp_path).message


def test_classes_that_inherit_from_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("class A(B): ...\nclass B(A): ...\nclass Runner(A): ...\n")
    assert "must define run()" in refused(tmp_path).message
    (tmp_path / "run.py").write_text("class A(B): ...\nclass B(A): ...\nclass Runner:\n    def run(self) -> A: ...\n")
    assert "no BaseModel" in refused(tmp_path).message


@pytest.mark.parametrize(
    "source",
    [
        b"def run(x: str) -> str\n",
        b"\xff\xfe\x00",
        b"x = '\x00'\n",
        b"# coding: no-such-thing\n",
        b"x = " + b"(" * 5000 + b")" * 5000,
        b"x = " + b"-" * 200_000 + b"1",
        b"x: int = 1 if\n",
    ],
)
def test_what_is_no_python_is_one_clear_error(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "run.py").write_bytes(source)
    error = refused(tmp_path)
    assert error.message.startswith("failed to parse Python source: ")
    assert error.where is not None and error.where.startswith("run.py")
    assert error.hint is not None and "cogkit reads sources as the image's Python does" in error.hint


def test_a_declared_encoding_and_a_byte_order_mark_are_understood(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_bytes("# coding: latin-1\ndef run(x: str = 'é') -> str: ...\n".encode("latin-1"))
    assert generate_schema(Config(run="run.py:run"), tmp_path).inputs[0].default == "é"
    (tmp_path / "run.py").write_bytes(b"\xef\xbb\xbfdef run(x: str = 'a') -> str: ...\n")
    assert generate_schema(Config(run="run.py:run"), tmp_path).inputs[0].default == "a"


def test_a_column_counts_characters(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("def run(ä: str, ö: tuple) -> str: ...\n")
    assert refused(tmp_path, Config(run="run.py:run")).where == "run.py:1:20"


@pytest.mark.parametrize("nested", ["list[" * 80 + "int" + "]" * 80, " | ".join(["int"] * 500)])
def test_annotations_that_nest_without_end_are_refused(tmp_path: Path, nested: str) -> None:
    (tmp_path / "run.py").write_text(f"def run() -> {nested}: ...\n")
    assert "nested too deeply" in refused(tmp_path, Config(run="run.py:run")).message


@pytest.mark.parametrize(
    "source",
    [
        "10 ** 10 ** 10",
        "1 << 10_000_000",
        "2 ** 1000 * 2 ** 1000 * 2 ** 1000",
        "A = [B, B]\nB = [A, A]\nA",
        "\n".join(f"x{i} = x{i + 1} + x{i + 1}" for i in range(40)) + "\nx40 = 'ab'\nx0",
        "\n".join(f"x{i} = [x{i + 1}, x{i + 1}]" for i in range(40)) + "\nx40 = [1]\nx0",
        "1 / 0",
        "1e999",
        "(-8) ** 0.5",
        "'\\ud800'",
        "b'bytes'",
        "+".join(["1"] * 500),
        "x",
        "x = 1\ndel x\nx",
        "x = [1]\nx += [2]\nx",
        "x = 1\nfor x in (2, 3): pass\nx",
        "{'a': print}",
        "f'{1:>10}'",
        "list({1, 2})",
    ],
)
def test_what_cannot_or_should_not_be_known_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(Unresolvable):
        value_of(tmp_path, source)


def test_records_that_nest_without_end_are_refused(tmp_path: Path) -> None:
    classes = "".join(f"class C{i}(BaseModel):\n    x: C{i + 1}\n" for i in range(1000))
    source = f"from cog import BaseModel\n{classes}class C1000(BaseModel): ...\ndef run() -> C0: ...\n"
    (tmp_path / "run.py").write_text(source)
    assert "nested too deeply" in refused(tmp_path, Config(run="run.py:run")).message


@pytest.mark.parametrize("default", [f"a{'.b' * 2000}", f"{'f(' * 90}1{')' * 90}"])
def test_a_default_of_any_depth_is_refused_in_one_sentence(tmp_path: Path, default: str) -> None:
    (tmp_path / "run.py").write_text(f"def run(x: int = {default}) -> str: ...\n")
    assert "cannot be statically resolved" in refused(tmp_path, Config(run="run.py:run")).message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("-1", -1),
        ("+1.5", 1.5),
        ("2 ** 32 - 1", 2**32 - 1),
        ("7 // 2 + 7 % 4 * 2", 9),
        ("1 / 4", 0.25),
        ("'a' 'b' + 'c'", "abc"),
        ("[*[1, 2], 3]", [1, 2, 3]),
        ("(1, None, True)", [1, None, True]),
        ("{**{'a': 1}, 'b': 2}", {"a": 1, "b": 2}),
        ("{1: 'x', None: 'y', 1.5: 'z', False: 'f'}", {"1": "x", "<nil>": "y", "1.5": "z", "false": "f"}),
        ("x = 3\ny = x\nf'{y} of {None}'", "3 of None"),
        ("D = {'b': print, 'a': 1}\nsorted(D) + list(D.keys())", ["a", "b", "b", "a"]),
        ("x: list[int] = [1]\nx", [1]),
    ],
)
def test_what_is_in_the_source_is_known(tmp_path: Path, source: str, value: object) -> None:
    assert value_of(tmp_path, source) == value


def test_no_reference_at_all_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, Config())
    assert error.message == "no predict or train reference found in cog.yaml"


def test_an_old_sdk_is_refused_because_it_does_not_serve_such_a_schema(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SOURCE)
    old = Config(run="run.py:Runner", build=Build(sdk_version="0.16.12"))
    assert "SDK version 0.16.12 is not supported" in refused(tmp_path, old).message
    assert generate_schema(old, tmp_path, sdk_version="0.17.0").info.function == "run"
    for fine in ("0.17.0", "0.18.0rc1", "prerelease", ""):
        generate_schema(Config(run="run.py:Runner", build=Build(sdk_version=fine)), tmp_path)


def test_a_predictor_is_described_without_its_types(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        "import cog\nclass Runner:\n    @cog.concurrent(max=3)\n    async def run(self, x: Whatever): ...\n"
    )
    info = read_predictor(Config(run="run.py:Runner"), tmp_path)
    assert (info.function, info.is_async, info.concurrency_max, info.mode) == ("run", True, 3, Mode.PREDICT)
    assert info.where == "run.py:4:5"
    assert concurrency_max(Config(), info) == 3


def test_the_configs_concurrency_comes_before_the_decorators(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("import cog\n@cog.concurrent(max=3)\nasync def run(x: str) -> str: ...\n")
    info = read_predictor(Config(run="run.py:run"), tmp_path)
    assert concurrency_max(Config(concurrency_max=8), info) == 8
    assert concurrency_max(Config(concurrency_max=1), info) == 1
    assert concurrency_max(Config(concurrency_max=8), None) == 8
    assert concurrency_max(Config(), None) is None


def test_several_at_once_need_an_async_function_and_a_new_python(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("def run(x: str) -> str: ...\nasync def arun(x: str) -> str: ...\n")
    info = read_predictor(Config(run="run.py:run"), tmp_path)
    assert concurrency_max(Config(concurrency_max=1), info) == 1
    with pytest.raises(ConfigError, match=r"concurrency.max > 1 requires an async run\(\) or predict\(\) method"):
        concurrency_max(Config(concurrency_max=2), info)
    info = read_predictor(Config(run="run.py:arun"), tmp_path)
    with pytest.raises(ConfigError, match=r"concurrency requires Python 3\.11 or higher"):
        concurrency_max(Config(concurrency_max=2, build=Build(python_version="3.10")), info)
    assert concurrency_max(Config(concurrency_max=2, build=Build(python_version="3.11")), info) == 2


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("X = {'a': [1, 2]}\nX['a'][-1]", 2),
        ("X = 'abc'\nX[1:]", "bc"),
        ("[k for k, v in {'a': 1, 'b': 2}.items() if v > 1]", ["b"]),
        ("{k: v for k, v in zip(['a', 'b'], range(2))}", {"a": 0, "b": 1}),
        ("sorted({'b', 'a', 'b'})", ["a", "b"]),
        ("sorted([3, 1, 2], reverse=True)", [3, 2, 1]),
        ("sorted(n.upper() for n in ('b', 'a'))", ["A", "B"]),
        ("dict(a=1, **{'b': 2})", {"a": 1, "b": 2}),
        ("', '.join(['a', 'b'])", "a, b"),
        ("1 if 'x' in {'x': 1} and not False else 2", 1),
        ("{'a': 1}.get('b', 3) + len('abc') + max([1, 2])", 8),
        ("[f'{i}-{n}' for i, n in enumerate(['a'])]", ["0-a"]),
        ("str(1) + 'x'", "1x"),
        ("a, (b, c) = 1, [2, 3]\n[c, b, a]", [3, 2, 1]),
        ("X = (1, 2)\na, b = X\nb", 2),
        ("X = [1]\nX = X + [2]\nX", [1, 2]),
        ("X = [1]\ndef f(X):\n    X.append(2)\nX", [1]),
        ("X = [1]\ndef f():\n    X = []\n    X.append(2)\nX", [1]),
        ("try:\n    import x as X\nexcept ImportError:\n    pass\nY = 1\nY", 1),
    ],
)
def test_what_is_simply_made_of_constants_is_known(tmp_path: Path, source: str, value: object) -> None:
    assert value_of(tmp_path, source) == value


@pytest.mark.parametrize(
    "source",
    [
        "X = [1]\nX.append(2)\nX",
        "X = {}\nX['a'] = 1\nX",
        "X = {'a': []}\nX['a'].append(1)\nX",
        "X = {}\nX.update(a=1)\nX",
        "X = [1]\ndef f():\n    X.append(2)\nX",
        "X = 1\ndef f():\n    global X\n    X = 2\nX",
        "X = [1]\nY = X\nY.clear()\nX",
        "X = Y = [1]\nY.clear()\nX",
        "X = 1\nglobals()['X'] = 2\nX",
        "X = 1\nexec('X = 2')\nX",
        "X = 1\nfrom somewhere import *\nX",
        "X = 1\n(X := 2)\nX",
        "X = 1\nwith open('f') as X: pass\nX",
        "X = 1\nmatch [2]:\n    case [X]: pass\nX",
        "X = 1\ntry: pass\nexcept E as X: pass\nX",
        "X = 1\nif a: X = 2\nX",
        "X = 1\nimport X\nX",
        "X = 1\ndef X(): pass\nX",
        "a, *b = 1, 2, 3\na",
        "a, b = {'x': 1, 'y': 2}\na",
        "sorted = 1\nsorted([2, 1])",
        "list(range(10 ** 5 + 1))",
        "[x for x in range(1000) for y in range(1000)]",
        "A = ', '.join(['aaaaaaaaaa'] + [str(i) for i in range(900)])\nB = ', '.join([A for i in range(90)])\n"
        "', '.join([B for i in range(9)])",
        "[x async for x in y]",
        "X: type = type",
        "lambda: 1",
    ],
)
def test_what_may_have_changed_is_not_known(tmp_path: Path, source: str) -> None:
    with pytest.raises(Unresolvable):
        value_of(tmp_path, source)


def test_a_type_alias_is_no_constant(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("type X = 5\ndef run(a: int = X) -> str: ...\n")
    assert "cannot be statically resolved" in refused(tmp_path, Config(run="run.py:run")).message
