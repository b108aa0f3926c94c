"""The cases of ``tests/golden_schema``: one file each, with sources and what must come of them.

A case opens with its claim and with how it stands to Cog 0.22 (``same`` bytes, ``differs``, ``refuses``, ``accepts``),
then come files under ``-- name --`` lines; those under ``expected/`` are not part of the project.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cogkit.errors import ConfigError
from cogkit.project.config import load_config
from cogkit.project.schema import SchemaResult, generate_schema, validate_openapi

FOLDER = Path(__file__).parents[1] / "golden_schema"
EXPECTED = "expected/"
VERSION = "0.22.0"
BOILERPLATE = ("Request", "Response", "Status", "HTTPValidationError", "ValidationError")


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    claim: str
    cog: str
    files: dict[str, str]
    expected: dict[str, str]

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def read_case(path: Path) -> Case:
    head, *parts = re.split(r"^-- (.+?) --\n", path.read_text(encoding="utf-8"), flags=re.M)
    claim, cog = (line.removeprefix("# ") for line in head.splitlines())
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    expected = {name.removeprefix(EXPECTED): text for name, text in files.items() if name.startswith(EXPECTED)}
    project = {name: text for name, text in files.items() if not name.startswith(EXPECTED)}
    return Case(path.stem, claim, cog.removeprefix("cog: "), project, expected)


def outcome(folder: Path) -> dict[str, str]:
    """What comes of a project, as the files that a case expects: ``schema.json`` and ``warnings`` or ``error``.

    Of the document the parts that all have are left out; `test_schema_golden` checks whole documents too.
    """
    try:
        result = generate_schema(load_config(folder / "cog.yaml"), folder, version=VERSION)
    except ConfigError as error:
        text = f"{error}\n{error.detail}\n" if error.detail else f"{error}\n"
        return {"error": f"{text}hint: {error.hint}\n".replace(str(folder), "PROJECT")}
    validate_openapi(result.openapi)
    files = {"schema.json": json.dumps(summary(result), indent=2, ensure_ascii=False) + "\n"}
    if result.warnings:
        files["warnings"] = "".join(f"{one.where}: {one.message}\n" for one in result.warnings)
    return files


def summary(result: SchemaResult) -> dict[str, object]:
    """The components that differ between predictors, in their order, and what else a build learns."""
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
