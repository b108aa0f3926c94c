"""The example projects: each is built, its server started on the builder, and asked over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import logged, succeeded
from tests.real import prediction
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

Ask = Callable[[str, dict[str, Any]], str]

SKIPPED = shutil.ignore_patterns(".cog")


@pytest.fixture
def ask(context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry) -> Ask:
    """Ask the model of an image in `base_images`: its own command is started in a step of a build on that image."""

    def asked(name: str, request: dict[str, Any]) -> str:
        command = base_images.config(name, "latest")["config"]["Cmd"]
        step = json.dumps(["python", "/ask/prediction.py", json.dumps(command), json.dumps(request)])
        image = f"{base_images.host}/{name}"
        folder = context_tree(
            {
                "Dockerfile": f"FROM {image}\nRUN --mount=type=bind,target=/ask {step}\n",
                "prediction.py": Path(prediction.__file__).read_text(),
            },
            name="ask",
        )
        return logged(succeeded(run_cogkit("build", folder, "--no-cache", "--pull", "--progress=rawjson"))).strip()

    return asked


@pytest.mark.one_release_is_enough
@pytest.mark.parametrize(
    ("example", "request_", "answer"),
    [
        ("hello", {"text": "moo"}, "moo"),
        ("hello-train", {"name": "you"}, "hello you"),
        ("streaming-text", {"hero": "cog", "words": 2}, '[ "Once ", "upon " ]'),
        ("hello-concurrency", {"seconds": 0}, "1"),
    ],
)
def test_an_example_answers_from_the_image_that_was_pushed(
    example: str,
    request_: dict[str, Any],
    answer: str,
    tmp_path: Path,
    run_cogkit: RunCogkit,
    base_images: Registry,
    ask: Ask,
) -> None:
    project = tmp_path / example
    shutil.copytree(REPOSITORY / "examples" / example, project, ignore=SKIPPED)
    pushed = succeeded(run_cogkit("push", f"{base_images.host}/{example}", cwd=project, timeout=900))
    digest = base_images.digest(example, "latest")
    assert f"Pushing to {base_images.host}/{example}..." in pushed.stderr
    assert f"  image  {base_images.host}/{example}@{digest}" in pushed.stderr
    assert answer in " ".join(ask(example, request_).split())

    labels = base_images.config(example, "latest")["config"]["Labels"]
    schema = json.loads(labels["run.cog.openapi_schema"])
    assert set(request_) <= set(schema["components"]["schemas"]["Input"]["properties"])
    assert ("/trainings" in schema["paths"]) == (example == "hello-train")
    variables = base_images.config(example, "latest")["config"]["Env"]
    assert ("COG_MAX_CONCURRENCY=4" in variables) == (example == "hello-concurrency")


@pytest.mark.one_release_is_enough
def test_a_new_project_of_cogkit_init_answers(
    tmp_path: Path, run_cogkit: RunCogkit, base_images: Registry, ask: Ask
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    succeeded(run_cogkit("init", cwd=project))
    image = f"{base_images.host}/started"
    succeeded(run_cogkit("build", "-t", image, "--push=true", cwd=project, timeout=900))
    assert ask("started", {"name": "Ada"}) == "Hello, Ada!"
