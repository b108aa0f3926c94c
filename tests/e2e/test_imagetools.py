"""Images that several machines pushed become one index, without a builder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.real.registry import Registry

pytestmark = pytest.mark.one_release_is_enough

PLATFORMS = ("linux/amd64", "linux/arm64/v8")
Push = Callable[[str, str], Path]


@pytest.fixture
def push(run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path) -> Push:
    """Push an image for a platform by its digest alone, as a machine of a matrix does; returns the metadata file."""

    def push_one(repository: str, platform: str) -> Path:
        name = platform.replace("/", "-")
        project = context_tree(
            {"Dockerfile": f"FROM scratch\nCOPY file /\nLABEL of={repository}\n", "file": name}, name
        )
        metadata = tmp_path / f"{name}.json"
        done = run_cogkit(
            *("build", "--context", project, "--platform", platform, "--metadata-file", metadata),
            *("-o", f"type=image,name={repository},push=true,push-by-digest=true,name-canonical=true"),
        )
        assert done.returncode == 0, done.stderr
        return metadata

    return push_one


def _digest(metadata: Path) -> str:
    return str(json.loads(metadata.read_text())["containerimage.digest"])


def test_digests_that_two_machines_pushed_are_joined_to_one_index(
    run_cogkit: RunCogkit, base_images: Registry, push: Push
) -> None:
    repository = f"{base_images.host}/imagetools/joined"
    files = [push(repository, platform) for platform in PLATFORMS]
    done = run_cogkit(
        *("imagetools", "create", "-t", f"{repository}:1", "-t", f"{repository}:latest"),
        *("--metadata", files[0], _digest(files[1]), "--annotation", "org.example.a=b", "--json"),
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    index = base_images.manifest("imagetools/joined", "1")
    assert index == base_images.manifest("imagetools/joined", "latest")
    assert index["annotations"] == {"org.example.a": "b"}
    assert made["digest"] == base_images.digest("imagetools/joined", "1")
    assert {entry["digest"] for entry in index["manifests"]} == {_digest(file) for file in files}
    platforms = {(each["platform"]["os"], each["platform"]["architecture"]) for each in index["manifests"]}
    assert platforms == {("linux", "amd64"), ("linux", "arm64")}

    shown = run_cogkit("imagetools", "inspect", f"{repository}:1")
    assert shown.returncode == 0, shown.stderr
    for file in files:
        assert f"{repository}@{_digest(file)}" in shown.stdout
    described = json.loads(run_cogkit("imagetools", "inspect", f"{repository}:1", "--json").stdout)
    assert described["digest"] == made["digest"]
    raw = run_cogkit("imagetools", "inspect", f"{repository}:1", "--raw")
    assert json.loads(raw.stdout) == index
    one = run_cogkit("imagetools", "inspect", f"{repository}@{_digest(files[0])}")
    assert "linux/" in one.stdout and "Layers:    1" in one.stdout


def test_images_of_another_repository_are_taken_over(run_cogkit: RunCogkit, base_images: Registry, push: Push) -> None:
    source, target = (f"{base_images.host}/imagetools/{name}" for name in ("here", "there"))
    names = [f"{source}@{_digest(push(source, platform))}" for platform in PLATFORMS]
    assert run_cogkit("imagetools", "create", "-t", f"{target}:1", *names).returncode == 0
    index = base_images.manifest("imagetools/there", "1")
    for entry in index["manifests"]:
        manifest = base_images.manifest("imagetools/there", entry["digest"])
        for blob in (manifest["config"], *manifest["layers"]):
            assert len(base_images.blob("imagetools/there", blob["digest"])) == blob["size"]
    again = run_cogkit("imagetools", "create", "-t", f"{target}:copy", f"{target}:1")
    assert again.returncode == 0
    assert base_images.digest("imagetools/there", "copy") == base_images.digest("imagetools/there", "1")


def test_what_is_appended_takes_the_place_of_its_platform(
    run_cogkit: RunCogkit, base_images: Registry, push: Push
) -> None:
    repository = f"{base_images.host}/imagetools/appended"
    first, second = (_digest(push(repository, platform)) for platform in PLATFORMS)
    other = _digest(push(f"{repository}-other", PLATFORMS[0]))
    create = ("imagetools", "create", "-t", f"{repository}:1")
    assert run_cogkit(*create, first).returncode == 0
    assert run_cogkit(*create, "--append", second).returncode == 0
    shown = run_cogkit(*create, "--append", "--dry-run", f"{repository}-other@{other}")
    assert {each["digest"] for each in json.loads(shown.stdout)["manifests"]} == {second, other}
    index = base_images.manifest("imagetools/appended", "1")
    assert {entry["digest"] for entry in index["manifests"]} == {first, second}


def test_what_cannot_be_joined_is_said(
    run_cogkit: RunCogkit, base_images: Registry, push: Push, tmp_path: Path
) -> None:
    repository = f"{base_images.host}/imagetools/wrong"
    one = _digest(push(repository, PLATFORMS[0]))
    other = _digest(push(f"{repository}-other", PLATFORMS[0]))
    (tmp_path / "empty.json").write_text("{}")
    target = ("-t", f"{repository}:1")
    for arguments, code, complaint in (
        ((one,), 2, "the index needs a name"),
        (target, 2, "there is nothing to join"),
        ((*target, "no such name!"), 2, "is not the name of an image"),
        ((*target, one, f"{repository}-other@{other}"), 2, "are both for linux/amd64"),
        ((*target, f"{repository}:nothing"), 1, "there is no"),
        ((*target, "--metadata", tmp_path / "empty.json"), 2, "there is no image in this metadata"),
        ((*target, "--metadata", tmp_path / "missing.json"), 2, "the metadata cannot be read"),
    ):
        done = run_cogkit("imagetools", "create", *arguments)
        assert done.returncode == code, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
