"""The golden schemas: what `cogkit.project.schema` makes of the project in each file under ``cases``.

Run ``python tests/golden_schema/regenerate.py`` after a change that is meant to change them, and read the diff.

A case opens with its claim and with how Cog 0.22 stands to it: ``same`` (the same bytes), ``differs``, ``refuses``, or
``accepts`` what we refuse.  Then come files, each under a ``-- name --`` line; those under ``expected/`` are not the
project's but what comes of it.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cogkit.errors import ConfigError
from cogkit.project.config import load_config
from cogkit.project.schema import SchemaResult, generate_schema, validate_openapi

CASES = Path(__file__).parent / "cases"
EXPECTED = "expected/"
BOILERPLATE = ("Request", "Response", "Status", "HTTPValidationError", "ValidationError")


@dataclass(frozen=True, slots=True)
class Case:
    """One file of ``cases``: texts by name, those of the project and those that are expected of it."""

    name: str
    claim: str
    cog: str
    project: dict[str, str]
    expected: dict[str, str]

    def write(self, folder: Path) -> None:
        for name, text in self.project.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def text(self) -> str:
        files = {**self.project, **{f"{EXPECTED}{name}": text for name, text in self.expected.items()}}
        parts = "".join(f"-- {name} --\n{text}" for name, text in files.items())
        return f"# {self.claim}\n# cog: {self.cog}\n{parts}"


def case_names() -> list[str]:
    """The cases, sorted."""
    return sorted(path.stem for path in CASES.glob("*.txt"))


def read_case(name: str) -> Case:
    """A case as its file has it."""
    head, *parts = re.split(r"^-- (.+?) --\n", (CASES / f"{name}.txt").read_text(encoding="utf-8"), flags=re.M)
    claim, cog = (line.removeprefix("# ") for line in head.splitlines())
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    expected = {one.removeprefix(EXPECTED): text for one, text in files.items() if one.startswith(EXPECTED)}
    project = {one: text for one, text in files.items() if not one.startswith(EXPECTED)}
    return Case(name, claim, cog.removeprefix("cog: "), project, expected)


def outcome(folder: Path) -> dict[str, str]:
    """What comes of a project: ``schema.json`` and perhaps ``warnings``, or ``error``."""
    try:
        result = generate_schema(load_config(folder / "cog.yaml"), folder)
    except ConfigError as error:
        text = f"{error}\n{error.detail}\n" if error.detail else f"{error}\n"
        return {"error": f"{text}hint: {error.hint}\n".replace(str(folder), "PROJECT")}
    validate_openapi(result.openapi)
    files = {"schema.json": json.dumps(_summary(result), indent=2, ensure_ascii=False) + "\n"}
    if result.warnings:
        files["warnings"] = "".join(f"{one.where}: {one.message}\n" for one in result.warnings)
    return files


def _summary(result: SchemaResult) -> dict[str, object]:
    """What differs between predictors: their own components, in order, and what else a build learns of them."""
    components = result.openapi["components"]
    assert isinstance(components, dict)
    info: dict[str, object] = {"function": result.info.function, "mode": result.info.mode.value}
    if result.info.is_async:
        info["async"] = True
    if result.info.streaming:
        info["streaming"] = True
    if result.info.concurrency_max is not None:
        info["concurrency_max"] = result.info.concurrency_max
    schemas = {name: one for name, one in components["schemas"].items() if not name.endswith(BOILERPLATE)}
    return {"info": info, "schemas": schemas}


def main() -> None:
    for name in case_names():
        case = read_case(name)
        with tempfile.TemporaryDirectory() as folder:
            case.write(Path(folder))
            expected = outcome(Path(folder))
        text = Case(name, case.claim, case.cog, case.project, expected).text()
        (CASES / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
