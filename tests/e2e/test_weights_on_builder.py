"""Managed weights that a builder fetches from the registry itself."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cogkit.buildkit import Client, Export, SolveError, SolveRequest
from cogkit.project.weights.lockfile import read_lock
from cogkit.running.weights import explained, weight_folder
from tests.conftest import MakeTree, RunCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry

MODEL = "weights/on-builder"
COG_YAML = f"""\
build:
  python_version: "3.12"
run: "run.py:Runner"
model: {MODEL}
weights:
  - name: net
    target: /src/net
    source: {{uri: net}}
"""


def test_a_builder_unpacks_all_layers_of_a_weight(
    context_tree: MakeTree,
    run_cogkit: RunCogkit,
    buildkitd: Buildkitd,
    registry: Registry,
    tmp_path: Path,
) -> None:
    large = random.Random(1).randbytes(1 << 20) * 65
    files: dict[str, bytes] = {"net/model.safetensors": large, "net/sub/ü/config.json": b"{}" * 500, "net/a": b""}
    project = context_tree({"cog.yaml": COG_YAML, **files})
    env = {"COG_MODEL_REGISTRY": registry.host, "COG_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = run_cogkit("weights", "import", cwd=project, env=env)
    assert done.returncode == 0, done.stderr
    lock = read_lock(project / "weights.lock")
    assert lock is not None
    (weight,) = lock.weights
    assert len(weight.layers) == 2
    state = weight_folder(weight, f"{registry.host}/{MODEL}")
    folder = tmp_path / "unpacked"
    request = SolveRequest(definition=state, exports=(Export("local", directory=folder),))
    with Client.connect(buildkitd.address) as client:
        if os.environ.get("COGKIT_TEST_BUILDKITD") == "v0.13":
            with pytest.raises(SolveError) as caught:
                client.solve(request)
            assert "BuildKit 0.28 or newer is needed" in explained(caught.value).message
            return
        client.solve(request)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {path.removeprefix("net/"): content for path, content in files.items()}


def test_a_running_model_finds_its_weights_at_their_target_and_they_do_not_come_back(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry, tmp_path: Path
) -> None:
    config = COG_YAML.replace("3.12", "3.11").replace("on-builder", "running").replace("/src/net", "/src/weights/net")
    project = context_tree(
        {"cog.yaml": config, "run.py": "", ".dockerignore": "net\n", "net/words.json": '["hello"]', "net/sub/x": "y"}
    )
    env = {"COG_MODEL_REGISTRY": base_images.host, "COG_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = run_cogkit("weights", "import", cwd=project, env=env)
    assert done.returncode == 0, done.stderr
    script = "cat weights/net/words.json; ls weights/net/sub; touch weights/net/new || echo read-only; touch made"
    done = run_cogkit("exec", "sh", "-c", script, cwd=project, env=env)
    if os.environ.get("COGKIT_TEST_BUILDKITD") == "v0.13":
        assert done.returncode == 1
        assert "BuildKit 0.28 or newer is needed" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['["hello"]x', "read-only"] or done.stdout.split() == ['["hello"]', "x", "read-only"]
    assert (project / "made").exists()
    assert not (project / "weights").exists()
