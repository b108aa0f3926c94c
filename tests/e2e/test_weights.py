"""Managed weights with a real registry and the real Cog: what either program imports, the other one pulls."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.real.registry import Registry
from tests.real.tools import TOOLS, built

pytestmark = pytest.mark.one_release_is_enough

COG_YAML = """\
build:
  python_version: "3.12"
run: "run.py:Runner"
model: {model}
weights:
  - name: small
    target: /src/weights/small
    source:
      uri: file://./small
      exclude: ["*.md"]
  - name: large
    target: /src/weights/large
    source:
      uri: ./large
"""
RUN_PY = "class Runner:\n    def run(self) -> str:\n        return ''\n"
SMALL = {
    "config.json": '{"a": "<&>"}' * 50,
    "README.md": "not taken",
    "sub/ünï/c.txt": "x" * 5000,
    f"sub/{'l' * 120}.txt": "a long name",
    f"{'d' * 60}/{'e' * 60}/f.txt": "a long path",
    "sub/a&b <c>.txt": "",
}
LARGE = 65 << 20
"""Bytes from which on a file has a layer of its own, and a bit."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    path.write_bytes(os.urandom(1 << 20) * 65)
    assert path.stat().st_size == LARGE
    return path


@pytest.fixture
def project(context_tree: MakeTree, large_file: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A project with both weights; its repository has the test's name in it."""

    def make(name: str) -> Path:
        model = f"weights/{request.node.name.replace('_', '-').partition('[')[0]}"
        files = {f"small/{path}": content for path, content in SMALL.items()}
        tree = context_tree({"cog.yaml": COG_YAML.format(model=model), "run.py": RUN_PY, **files}, name=name)
        (tree / "large").mkdir()
        os.link(large_file, tree / "large" / "model.safetensors")
        return tree

    return make


@pytest.fixture
def weights_env(registry: Registry, tmp_path: Path) -> Mapping[str, str]:
    """What both programs are told: the registry, and nothing of the user's."""
    return {
        "COG_MODEL_REGISTRY": registry.host,
        "COG_NO_UPDATE_CHECK": "1",
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def cogkit_weights(run_cogkit: RunCogkit, weights_env: Mapping[str, str], tmp_path: Path) -> Run:
    """``cogkit weights …`` in a project, with a store of the given name; anything but success fails the test."""

    def run(*arguments: str, cwd: Path, store: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_cogkit("weights", *arguments, cwd=cwd, env={**weights_env, "COG_CACHE_DIR": str(tmp_path / store)})
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def cog_weights(weights_env: Mapping[str, str], tmp_path: Path) -> Run:
    """``cog weights …``, the same."""

    def run(*arguments: str, cwd: Path, store: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [built(TOOLS / "bin" / "cog"), "weights", *arguments],
            cwd=cwd,
            env={**os.environ, **weights_env, "COG_CACHE_DIR": str(tmp_path / store)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


def lock_of(project: Path) -> list[dict[str, Any]]:
    lock = json.loads((project / "weights.lock").read_text())
    return list(lock["weights"])


def stored(store: Path) -> dict[str, int]:
    """The files of a store: digest and size."""
    return {path.name: path.stat().st_size for path in (store / "weights" / "files" / "sha256").glob("*/*")}


def test_cogkit_pulls_what_cog_imported(
    project: Callable[[str], Path], cog_weights: Run, cogkit_weights: Run, tmp_path: Path
) -> None:
    tree = project("project")
    cog_weights("import", cwd=tree, store="cogs")
    lock = (tree / "weights.lock").read_bytes()
    said = cogkit_weights("pull", "--verbose", cwd=tree, store="ours").stderr
    assert "Pulling small... done" in said
    assert "Pulled" in said
    assert stored(tmp_path / "ours") == stored(tmp_path / "cogs")
    assert "All 2 weight(s) already cached." in cogkit_weights("pull", cwd=tree, store="ours").stderr
    status = json.loads(cogkit_weights("status", "--json", cwd=tree, store="ours").stdout)
    assert [weight["status"] for weight in status["weights"]] == ["ready", "ready"]
    # An import of the same files keeps what Cog packed, to the byte.
    assert "sent 0B" in cogkit_weights("import", cwd=tree, store="ours").stderr
    assert (tree / "weights.lock").read_bytes() == lock


def test_cog_pulls_what_cogkit_imported(
    project: Callable[[str], Path], cog_weights: Run, cogkit_weights: Run, tmp_path: Path
) -> None:
    tree = project("project")
    cogkit_weights("import", cwd=tree, store="ours")
    cog_weights("pull", cwd=tree, store="cogs")
    assert stored(tmp_path / "cogs") == stored(tmp_path / "ours")
    status = json.loads(cog_weights("status", "--json", cwd=tree, store="cogs").stdout)
    assert [weight["status"] for weight in status["weights"]] == ["ready", "ready"]
    ours = cogkit_weights("status", "--json", cwd=tree, store="ours").stdout
    assert json.loads(ours) == status
    # One store serves both.
    assert "already cached" in cog_weights("pull", cwd=tree, store="ours").stderr


def test_both_import_the_same(
    project: Callable[[str], Path], cog_weights: Run, cogkit_weights: Run, registry: Registry
) -> None:
    """The same set digests; the same manifest where nothing is compressed; and the same tar where something is."""
    ours, theirs = project("ours"), project("theirs")
    cogkit_weights("import", cwd=ours, store="ours")
    cog_weights("import", cwd=theirs, store="cogs")
    (our_small, our_large), (small, large) = lock_of(ours), lock_of(theirs)
    assert our_large | {"importedAt": ""} == large | {"importedAt": ""}
    assert our_small["setDigest"] == small["setDigest"]
    assert [file["path"] for file in our_small["files"]] == [file["path"] for file in small["files"]]
    repository = "weights/test-both-import-the-same"
    our_tar, tar = (
        gzip.decompress(registry.blob(repository, entry["layers"][0]["digest"])) for entry in (our_small, small)
    )
    assert our_tar == tar
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert "README.md" not in opened.getnames()
    keys = ("schemaVersion", "mediaType", "artifactType", "annotations")
    our_manifest, manifest = (registry.manifest(repository, entry["digest"]) for entry in (our_small, small))
    assert [our_manifest[key] for key in keys] == [manifest[key] for key in keys]
    assert set(registry.tags(repository)) >= {f"cog-weight.small.{small['setDigest'][7:19]}"}


def test_the_plan_says_what_would_happen_and_nothing_does(
    project: Callable[[str], Path], cogkit_weights: Run, tmp_path: Path
) -> None:
    tree = project("project")
    said = cogkit_weights("import", "--dry-run", "--verbose", cwd=tree, store="ours").stderr
    assert "+ small  file://./small → /src/weights/small" in said
    assert "status: new" in said
    assert "- README.md (9B)" in said
    assert not (tree / "weights.lock").exists()
    assert not (tmp_path / "ours").exists()
    missing = cogkit_weights("status", cwd=tree, store="ours", code=1)
    assert "pending" in missing.stdout
    assert "cogkit weights import" in missing.stderr
    unknown = cogkit_weights("import", "nope", "typo", cwd=tree, store="ours", code=2)
    assert "nope" in unknown.stderr and "typo" in unknown.stderr


def test_gc_frees_what_no_project_uses(project: Callable[[str], Path], cogkit_weights: Run, tmp_path: Path) -> None:
    tree = project("project")
    cogkit_weights("import", "small", cwd=tree, store="ours")
    before = stored(tmp_path / "ours")
    assert "0B would be freed" in cogkit_weights("gc", "--dry-run", cwd=tree, store="ours").stderr
    (tree / "small" / "config.json").write_text("another")
    cogkit_weights("import", "small", cwd=tree, store="ours")
    assert "(1 file(s))" in cogkit_weights("gc", cwd=tree, store="ours").stderr
    after = stored(tmp_path / "ours")
    assert len(before.keys() - after.keys()) == 1
    assert "already cached" in cogkit_weights("pull", cwd=tree, store="ours").stderr


def test_a_push_of_a_model_is_an_index_of_its_image_and_its_weights(
    project: Callable[[str], Path],
    cogkit_weights: Run,
    run_cogkit: RunCogkit,
    weights_env: Mapping[str, str],
    registry: Registry,
    base_images: Registry,
    tmp_path: Path,
) -> None:
    tree = project("project")
    (tree / "cog.yaml").write_text((tree / "cog.yaml").read_text().replace("3.12", "3.11"))
    env = {**weights_env, "COG_CACHE_DIR": str(tmp_path / "ours"), "COG_MODEL_TAG": "v1"}
    repository = "weights/test-a-push-of-a-model-is-an-index-of-its-image-and-its-weights"
    refused = run_cogkit("push", cwd=tree, env=env)
    assert refused.returncode == 2
    assert "not imported yet" in refused.stderr
    cogkit_weights("import", cwd=tree, store="ours")
    elsewhere = run_cogkit("push", cwd=tree, env={**env, "COG_MODEL_REPO": "weights/not-there"})
    assert elsewhere.returncode == 1
    assert 'weight "small" not found in registry' in elsewhere.stderr or "large" in elsewhere.stderr
    pushed = run_cogkit("push", cwd=tree, env=env)
    assert pushed.returncode == 0, pushed.stderr
    assert "├─ image" in pushed.stderr and "└─ weight  large" in pushed.stderr
    index = registry.manifest(repository, "v1")
    image, small, large = index["manifests"]
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert image["platform"]["os"] == "linux"
    assert image["digest"] == registry.digest(repository, "cog-image.v1")
    assert [weight["digest"] for weight in (small, large)] == [entry["digest"] for entry in lock_of(tree)]
    assert small["artifactType"] == "application/vnd.cog.weight.v1"
    assert small["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert small["annotations"]["run.cog.weight.name"] == "small"
    assert large["annotations"]["run.cog.weight.size.uncompressed"] == str(LARGE)
    assert large["size"] == len(json.dumps(registry.manifest(repository, large["digest"]), separators=(",", ":")))


def test_a_build_says_which_weights_are_missing_or_fetches_them(
    project: Callable[[str], Path],
    cogkit_weights: Run,
    run_cogkit: RunCogkit,
    weights_env: Mapping[str, str],
    base_images: Registry,
    tmp_path: Path,
) -> None:
    tree = project("project")
    (tree / "cog.yaml").write_text((tree / "cog.yaml").read_text().replace("3.12", "3.11"))
    cogkit_weights("import", cwd=tree, store="ours")
    env = {**weights_env, "COG_CACHE_DIR": str(tmp_path / "cold")}
    built = run_cogkit("build", cwd=tree, env=env)
    assert built.returncode == 0, built.stderr
    assert "weights are not in the local store: small, large" in built.stderr
    fetched = run_cogkit("build", "--pull-weights", cwd=tree, env=env)
    assert fetched.returncode == 0, fetched.stderr
    assert "Pulled" in fetched.stderr
    assert stored(tmp_path / "cold") == stored(tmp_path / "ours")
    again = run_cogkit("build", cwd=tree, env=env)
    assert "local store" not in again.stderr


def test_cogs_own_case_of_pulling(context_tree: MakeTree, cogkit_weights: Run, tmp_path: Path) -> None:
    """``weights_pull.txtar`` of Cog's integration tests, step by step."""
    weights = "".join(
        f"  - {{name: {name}, target: /src/weights/{name}, source: {{uri: 'file://./weights-{name}'}}}}\n"
        for name in ("alpha", "beta")
    )
    head = COG_YAML.partition("model:")[0] + "model: weights/cogs-own-case\nweights:\n"
    files = {f"weights-{name}/model.bin": letter * 1024 for name, letter in (("alpha", "A"), ("beta", "B"))}
    tree = context_tree({"cog.yaml": head + weights, "run.py": RUN_PY, **files})
    cache = tmp_path / "cache" / "weights" / "files"
    imported = cogkit_weights("import", cwd=tree, store="cache").stderr
    assert "Download complete" in imported and "Pushing 2 weight" in imported
    shutil.rmtree(cache)
    cold = cogkit_weights("pull", cwd=tree, store="cache").stderr
    assert all(word in cold for word in ("Pulling alpha", "Pulling beta", "Download complete", "done", "Pulled"))
    assert (cache / "sha256").is_dir()
    assert "All 2 weight(s) already cached" in cogkit_weights("pull", cwd=tree, store="cache").stderr
    warm = cogkit_weights("pull", "--verbose", cwd=tree, store="cache").stderr
    assert all(word in warm for word in ("Cache:", "Lockfile:", "cached (1/1 files)"))
    next(cache.glob("sha256/*/*")).unlink()
    repaired = cogkit_weights("pull", "--verbose", cwd=tree, store="cache").stderr
    assert "missing / 1 total" in repaired
    assert re.search("  layer [0-9a-f]+", repaired)
    unknown = cogkit_weights("pull", "alpha", "nope", "typo", cwd=tree, store="cache", code=2).stderr
    assert "nope" in unknown and "typo" in unknown
    shutil.rmtree(cache)
    chosen = cogkit_weights("pull", "alpha", cwd=tree, store="cache").stderr
    assert "Pulling alpha" in chosen and "Pulling beta" not in chosen
