"""Reading a Cog project for a build: when the schema made of its source is validated."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cogkit.building.build import build
from cogkit.building.cog import SCHEMA_FILE, CogBuild, read_cog_build
from cogkit.building.observer import SilentObserver
from cogkit.building.options import BuildOptions, CogOptions
from cogkit.building.recipes import CogRecipe
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import ConfigError
from cogkit.project import schema
from cogkit.project.discover import resolve_project

COG_YAML = 'run: run.py:Runner\nbuild:\n  python_version: "3.11"\n'
RUN_PY = "class Runner:\n    def run(self, text: str = 'hi') -> str:\n        return text\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cog.yaml").write_text(COG_YAML)
    (tmp_path / "run.py").write_text(RUN_PY)
    return tmp_path


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The documents that were validated."""
    seen: list[object] = []
    real = schema.validate_openapi

    def validate(document: object, *, name: str = "schema") -> None:
        seen.append(document)
        real(document, name=name)

    monkeypatch.setattr(schema, "validate_openapi", validate)
    return seen


def read(project: Path) -> CogBuild:
    return read_cog_build(resolve_project(project), BuildOptions(context=project), {})


def test_a_schema_is_validated_when_it_is_not_that_of_the_last_build(project: Path, validated: list[object]) -> None:
    made = read(project).schema
    assert len(validated) == 1
    (project / ".cog").mkdir()
    (project / ".cog" / SCHEMA_FILE).write_bytes(made)
    assert read(project).schema == made
    assert len(validated) == 1
    (project / "run.py").write_text(RUN_PY.replace("'hi'", "'other'"))
    assert read(project).schema != made
    assert len(validated) == 2


def test_an_invalid_schema_ends_the_build(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = schema.generate_schema

    def broken(*args: object, **settings: object) -> schema.SchemaResult:
        made: schema.SchemaResult = real(*args, **settings)  # type: ignore[arg-type]
        del made.openapi["paths"]
        return made

    monkeypatch.setattr(schema, "generate_schema", broken)
    with pytest.raises(ConfigError, match=r"not an OpenAPI 3\.0 document") as caught:
        read(project)
    assert caught.value.hint is not None and "--openapi-schema" in caught.value.hint


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere"])
def test_whatever_lies_in_the_place_of_the_last_schema_the_new_one_is_validated(
    project: Path, validated: list[object], kind: str
) -> None:
    place = project / ".cog" / SCHEMA_FILE
    place.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    read(project)
    assert len(validated) == 1


def test_what_the_source_does_not_say_is_a_stage_of_the_same_dockerfile(project: Path) -> None:
    (project / "run.py").write_text("import os\ndef run(text: str = os.sep) -> str: ...\n")
    (project / "cog.yaml").write_text(COG_YAML.replace("Runner", "run"))
    build = read(project)
    assert build.schema == b""
    assert build.evaluation is not None
    assert "AS cog_schema\n" in build.generated.dockerfile
    assert "RUN --network=none " in build.generated.dockerfile
    assert "COPY --from=cog_build openapi_schema.json .cog/" in build.generated.dockerfile
    whole = build.with_answers(b'{"run": {"text": {"default": "/"}}}')
    assert b'"default":"/"' in whole.schema
    with pytest.raises(ConfigError, match="cannot be evaluated in the image: NameError"):
        build.with_answers(b'{"run": {"text": {"error": "NameError"}}}')


def test_a_static_schema_asks_the_image_nothing(project: Path) -> None:
    (project / "run.py").write_text("import os\ndef run(text: str = os.sep) -> str: ...\n")
    (project / "cog.yaml").write_text(COG_YAML.replace("Runner", "run"))
    options = BuildOptions(context=project, cog=CogOptions(evaluate_schema=False))
    with pytest.raises(ConfigError, match="cannot be statically resolved"):
        read_cog_build(resolve_project(project), options, {})


def test_a_preview_says_what_would_be_evaluated(project: Path) -> None:
    (project / "run.py").write_text("import os\ndef run(text: str = os.sep) -> str: ...\n")
    (project / "cog.yaml").write_text(COG_YAML.replace("Runner", "run"))
    shown = read_cog_build(resolve_project(project), BuildOptions(context=project), {}, only_to_show=True)
    assert shown.warnings == ("a build evaluates this in the image: run.py:2:21: `os.sep` of parameter 'text'",)


def test_a_cog_project_is_built_for_cogs_platform_unless_another_is_said(project: Path) -> None:
    recipe = CogRecipe(resolve_project(project), read(project), BuildOptions())
    assert recipe.completed(BuildOptions()).platforms == ("linux/amd64",)
    assert recipe.completed(BuildOptions(platforms=("linux/arm64",))).platforms == ("linux/arm64",)


def test_the_libraries_of_an_arm_image_are_looked_for_where_they_are(project: Path) -> None:
    def line(*platforms: str) -> str:
        options = BuildOptions(context=project, platforms=platforms)
        text = read_cog_build(resolve_project(project), options, {}).generated.dockerfile
        return next(line for line in text.splitlines() if line.startswith("ENV LD_LIBRARY_PATH="))

    assert "/usr/lib/aarch64-linux-gnu:" in line("linux/arm64")
    assert "/usr/lib/x86_64-linux-gnu:" in line("linux/amd64")
    assert line() == line("linux/amd64") == line("linux/amd64", "linux/arm64")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("image: http://r8.im/foo/bar", "An image's name has no scheme: write r8.im/foo/bar."),
        ("image: r8.im/Foo/bar", "Write registry/owner/name, in lower case."),
        ("model: r8.im/foo//bar", "Write registry/owner/name, in lower case."),
    ],
)
def test_a_name_that_no_registry_takes_is_refused_before_the_build(project: Path, line: str, hint: str) -> None:
    (project / "cog.yaml").write_text(f"{line}\n{COG_YAML}")
    # Nothing listens there.
    options = BuildOptions(context=project, address=f"unix://{project}/socket")
    with pytest.raises(ConfigError) as caught:
        asyncio.run(build(options, SilentObserver()))
    assert caught.value.where == "cog.yaml:1:8"
    assert caught.value.hint == hint
    with pytest.raises(BuilderUnreachableError):
        asyncio.run(build(replace(options, tags=("me/fine",)), SilentObserver()))
