"""Defaults that have a value only when code runs: the image evaluates them within the one solve of the build."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import succeeded
from tests.real.registry import Registry

CONFIG = """\
build:
  python_version: "3.11"
run: run.py:Runner
"""
SOURCE = """\
import string

from cog import BaseRunner, Input

LETTERS = list(string.ascii_lowercase[:3])
print("what a module prints is no answer")


def made(top):
    if top > 5:
        return Input(default=top, le=top * 2, description="made")
    return Input(default=0)


class Runner(BaseRunner):
    KEYS = sorted(string.Formatter.__dict__.keys() & {"format", "vformat"})

    def run(
        self,
        letter: str = Input(default=LETTERS[0], choices=LETTERS, description=f"one of {len(LETTERS)}"),
        key: str = Input(default="format", choices=KEYS),
        count: int = made(8),
        plain: str = string.digits,
        known: int = Input(default=3, ge=1),
    ) -> str:
        return letter
"""
FOLDER = {"cog.yaml": CONFIG, "run.py": SOURCE}


def schema_of(registry: Registry, name: str) -> dict[str, Any]:
    labels = registry.config(name, "latest")["config"]["Labels"]
    found: dict[str, Any] = json.loads(labels["run.cog.openapi_schema"])["components"]["schemas"]
    return found


def file_of(registry: Registry, name: str, run_cogkit: RunCogkit, context_tree: MakeTree) -> str:
    """The schema that lies in an image."""
    dockerfile = f"FROM {registry.host}/{name} AS image\nFROM scratch\nCOPY --from=image /src/.cog/ /\n"
    folder = context_tree({"Dockerfile": dockerfile}, name="look")
    succeeded(run_cogkit("build", folder, "--pull", "-o", folder / "out"))
    return (folder / "out" / "openapi_schema.json").read_text()


@pytest.mark.one_release_is_enough
def test_the_image_says_what_the_source_alone_does_not(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree(FOLDER, name="evaluated-schema")
    succeeded(run_cogkit("push", f"{base_images.host}/evaluated-schema", cwd=project, timeout=900))
    schemas = schema_of(base_images, "evaluated-schema")
    properties = schemas["Input"]["properties"]
    assert schemas["letter"]["enum"] == ["a", "b", "c"]
    assert properties["letter"]["default"] == "a"
    assert properties["letter"]["description"] == "one of 3"
    assert schemas["key"]["enum"] == ["format", "vformat"]
    assert (properties["count"]["default"], properties["count"]["maximum"]) == (8, 16)
    assert properties["count"]["description"] == "made"
    assert properties["plain"]["default"] == "0123456789"
    assert properties["known"]["minimum"] == 1
    labels = base_images.config("evaluated-schema", "latest")["config"]["Labels"]
    assert "cog==" in labels["run.cog.pip_freeze"]
    assert (project / ".cog" / "openapi_schema.json").read_text() == labels["run.cog.openapi_schema"]

    # Another source gives another schema, and the image has that one.
    (project / "run.py").write_text(SOURCE.replace("[:3]", "[:4]"))
    succeeded(run_cogkit("push", f"{base_images.host}/evaluated-schema", cwd=project, timeout=900))
    assert schema_of(base_images, "evaluated-schema")["letter"]["enum"] == ["a", "b", "c", "d"]
    inside = file_of(base_images, "evaluated-schema", run_cogkit, context_tree)
    assert json.loads(inside)["components"]["schemas"]["letter"]["enum"] == ["a", "b", "c", "d"]


@pytest.mark.one_release_is_enough
def test_a_module_that_cannot_be_imported_is_read_in_parts_once_or_refused_with_its_error(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    broken = SOURCE.replace('print("', 'raise RuntimeError("no GPU here")\nprint("')
    broken = broken.replace("string.digits", "__import__('uuid').uuid4().hex")
    project = context_tree({**FOLDER, "run.py": broken}, name="evaluated-broken")
    succeeded(run_cogkit("build", project, timeout=900))
    made = (project / ".cog" / "openapi_schema.json").read_text()
    assert json.loads(made)["components"]["schemas"]["letter"]["enum"] == ["a", "b", "c"]

    # What came of the same source and packages is kept: the same random number again.
    succeeded(run_cogkit("build", project, timeout=900))
    assert (project / ".cog" / "openapi_schema.json").read_text() == made

    static = run_cogkit("build", project, "--schema", "static")
    assert static.returncode == 2
    assert "cannot be statically resolved" in static.stderr

    (project / "run.py").write_text(SOURCE.replace("string.digits", "1 / 0"))
    failed = run_cogkit("build", project, timeout=900)
    assert failed.returncode != 0
    assert "parameter 'plain': its default cannot be evaluated in the image: ZeroDivisionError" in failed.stderr
    assert "run.py:23:" in failed.stderr
