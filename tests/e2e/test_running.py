"""``cogkit run`` and ``train`` against a real buildkitd: inputs, outputs, images, and models that fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import RunCogkit
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

pytestmark = pytest.mark.one_release_is_enough

CONFIG = 'build:\n  python_version: "3.11"\nrun: "run.py:Runner"\n'
IMPORTS = "from cog import BaseRunner, Input, Path\nimport json, os, sys, time\n\n\nclass Runner(BaseRunner):\n"


@pytest.fixture
def project(tmp_path: Path, run_cogkit: RunCogkit, base_images: Registry) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    assert run_cogkit("init", cwd=folder).returncode == 0
    return folder


@pytest.fixture
def model(project: Path) -> Path:
    """A project whose run.py the test writes, with what `cogkit init` installs: those steps are in the cache."""
    (project / "run.py").write_text("")
    return project


def write(model: Path, body: str) -> None:
    (model / "run.py").write_text(IMPORTS + body)


def test_a_prediction_of_the_project(project: Path, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("run", "-i", "name=Ada", cwd=project)
    assert (done.stdout, done.returncode) == ("Hello, Ada!\n", 0), done.stderr
    assert "Building Docker image from environment in cog.yaml..." in done.stderr
    assert "Running prediction..." in done.stderr

    done = run_cogkit("predict", "--json", '{"name": "Ada"}', "-o", "answer.json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert '"cog predict" is deprecated, use "cog run"' in done.stderr
    answer = json.loads((project / "answer.json").read_text())
    assert (answer["status"], answer["output"]) == ("succeeded", "Hello, Ada!")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-i", "nope=1"], 'unknown input "nope"; valid inputs are: count, file, name'),
        ([], 'missing required input "name"'),
        (["-i", "name=x", "-i", "count=lots"], 'invalid input "count": expected integer, got string'),
        (["-i", "name=x", "-i", "count=0"], 'invalid input "count": number must be at least 1'),
        (["-i", "name=x", "-i", "file=@missing.txt"], 'input "file": failed to read file "missing.txt"'),
        (["-i", "name"], "Failed to parse input 'name', expected format is 'name=value'"),
        (["--json", "{"], "Failed to parse JSON"),
        (["--json", '{"name": null}'], "must not be null"),
        (["--json", "{}", "-i", "name=x"], "Must use one of --json or --input"),
        (["-i", "name=x", "-o", "no/such/folder/out"], "Output path is not writable"),
        (["--use-replicate-token", "-i", "name=x"], "Failed to find REPLICATE_API_TOKEN"),
        (["name=x"], "Did you forget `-i`?"),
    ],
)
def test_what_is_wrong_with_inputs_is_said_before_anything_is_built(
    arguments: list[str], words: str, model: Path, run_cogkit: RunCogkit
) -> None:
    write(
        model,
        "    def run(self, name: str, count: int = Input(ge=1, default=2), file: Path = None) -> str:\n"
        "        return name\n",
    )
    done = run_cogkit("run", *arguments, cwd=model, env={"BUILDKIT_HOST": "unix:///no/such/socket"})
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Building Docker image" not in done.stderr
    assert "Traceback" not in done.stderr


def test_files_go_in_and_come_out(model: Path, run_cogkit: RunCogkit) -> None:
    write(
        model,
        "    def run(self, file: Path, times: int) -> list[Path]:\n"
        "        open('/src/left-behind', 'w').write('x')\n"
        "        made = []\n"
        "        for each in range(times):\n"
        "            made.append(Path(f'/tmp/{each}.txt'))\n"
        "            made[-1].write_text(f'{each}: {file.read_text()}')\n"
        "        return made\n",
    )
    (model / "in.txt").write_text("given")
    done = run_cogkit("run", "-i", "file=@in.txt", "-i", "times=2", cwd=model)
    assert done.returncode == 0, done.stderr
    assert "Written output to: output.0.txt" in done.stderr
    assert [(model / f"output.{each}.txt").read_text() for each in range(2)] == ["0: given", "1: given"]
    assert (model / "left-behind").read_text() == "x"


def test_an_image_is_run_as_it_is(model: Path, run_cogkit: RunCogkit, base_images: Registry) -> None:
    write(model, "    def run(self, n: int = 3) -> dict[str, int]:\n        return {'twice': 2 * n}\n")
    image = f"{base_images.host}/test-an-image-is-run-as-it-is"
    assert run_cogkit("build", "-t", image, "--push", cwd=model).returncode == 0
    elsewhere = model.parent
    done = run_cogkit("run", image, "-i", "n=21", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"twice": 42}
    done = run_cogkit("run", image, "-i", "nope=1", cwd=elsewhere)
    assert done.returncode == 2
    assert 'unknown input "nope"' in done.stderr
    assert "Starting Docker image" not in done.stderr
    done = run_cogkit("run", f"{base_images.host}/library/busybox", cwd=elsewhere)
    assert done.returncode == 2, done.stderr
    assert "is not a model" in done.stderr


def test_models_that_fail_say_so(model: Path, run_cogkit: RunCogkit) -> None:
    cases = {
        "raise ValueError('out of luck')": ("Prediction failed with status", "out of luck"),
        "os._exit(3)": ("", ""),
    }
    for body, words in cases.items():
        write(model, f"    def run(self) -> str:\n        {body}\n")
        done = run_cogkit("run", cwd=model)
        assert done.returncode == 1, done.stderr
        assert all(word in done.stderr for word in words)
    run = "    def run(self) -> str:\n        return ''\n"
    write(model, f"    def setup(self) -> None:\n        raise ValueError('no weights')\n\n{run}")
    done = run_cogkit("run", cwd=model)
    assert done.returncode == 1, done.stderr
    assert "Model setup failed" in done.stderr
    assert "no weights" in done.stderr
    write(model, f"    def setup(self) -> None:\n        time.sleep(1000)\n\n{run}")
    done = run_cogkit("run", "--setup-timeout", "1", cwd=model)
    assert done.returncode == 1, done.stderr
    assert "not set up within 1 seconds" in done.stderr


def test_a_model_that_prints_very_much(model: Path, run_cogkit: RunCogkit) -> None:
    write(
        model,
        "    def run(self) -> float:\n"
        "        for _ in range(20): sys.stdout.write(('x' * 9_999 + '\\n') * 100)\n"
        "        return 1.5\n",
    )
    done = run_cogkit("run", cwd=model)
    assert (done.stdout, done.returncode) == ("1.5\n", 0), done.stderr[-2000:]


def test_a_training(tmp_path: Path, run_cogkit: RunCogkit, base_images: Registry) -> None:
    project = tmp_path / "hello-train"
    shutil.copytree(REPOSITORY / "examples" / "hello-train", project, ignore=shutil.ignore_patterns(".cog"))
    done = run_cogkit("train", "-i", "no-such=1", cwd=project)
    assert done.returncode == 2
    done = run_cogkit("train", "-i", "word=moo", "-o", "trained.json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "Running training..." in done.stderr
    assert (project / "weights.txt").read_text() == "moo"
    assert (project / "trained.json").exists()
