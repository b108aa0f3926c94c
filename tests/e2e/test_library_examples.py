"""The programs of ``examples/library``, as a user runs them, against a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conftest import MakeTree
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

EXAMPLES = REPOSITORY / "examples" / "library"


def run_example(
    daemon: Buildkitd, name: str, *arguments: str | Path, env: Mapping[str, str] | None = None, exit_code: int = 0
) -> str:
    """What the program prints, once it ended with ``exit_code``."""
    environ = {**os.environ, "BUILDKIT_HOST": daemon.address, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_all_examples_are_tested() -> None:
    tested = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested] == []


def test_build_with_secrets(buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree(
        {
            "Dockerfile": "FROM busybox\n"
            "RUN --mount=type=secret,id=token --mount=type=secret,id=key "
            'test "$(cat /run/secrets/token /run/secrets/key)" = "hush-example more"\n'
        }
    )
    (tmp_path / "key").write_text(" more")
    printed = run_example(buildkitd, "build_with_secrets.py", project, tmp_path / "key", env={"TOKEN": "hush-example"})
    assert printed.startswith("built ")


def test_show_progress(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo from-show-progress\n"})
    printed = run_example(buildkitd, "show_progress.py", project)
    assert "RUN echo from-show-progress" in printed
    assert ": from-show-progress\n" in printed


def test_show_progress_of_a_build_that_fails(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo so-it-ends && exit 3\n"})
    printed = run_example(buildkitd, "show_progress.py", project, exit_code=1)
    assert "failed  [2/2] RUN echo so-it-ends && exit 3" in printed
    assert "in Dockerfile, line 2" in printed
    assert "exit code 3, after: so-it-ends" in printed


def test_image_archive(buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY image-archive /\n", "image-archive": "12345"})
    printed = run_example(buildkitd, "image_archive.py", project, "example.test/image-archive:1", tmp_path)
    assert printed.startswith("example.test/image-archive:1 sha256:")
    assert "image-archive 5\n" in printed
    with tarfile.open(tmp_path / "oci.tar") as archive:
        assert "index.json" in archive.getnames()
    with tarfile.open(tmp_path / "docker.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["example.test/image-archive:1"]


def test_prune_old(private_buildkitd: Buildkitd, context_tree: MakeTree, eventually: Callable[..., None]) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo prune-old > /x\n"})
    run_example(private_buildkitd, "show_progress.py", project)
    printed = run_example(private_buildkitd, "prune_old.py", "2")
    assert "\n0 of " in f"\n{printed}"
    # The daemon lets go of what a build used some time after the build.
    eventually(lambda: "echo prune-old" in run_example(private_buildkitd, "prune_old.py", "0"), within=120)


def test_fifty_builds(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    tree = {}
    for number in range(20):
        tree[f"fifty-{number:02}/Dockerfile"] = "FROM scratch\nCOPY a /\n"
        tree[f"fifty-{number:02}/a"] = str(number)
    projects = context_tree(tree, name="projects")
    printed = run_example(buildkitd, "fifty_builds.py", projects)
    assert "20 of 20 built\n" in printed
    (projects / "fifty-07" / "Dockerfile").write_text("FROM scratch\nCOPY not-there /\n")
    printed = run_example(buildkitd, "fifty_builds.py", projects, exit_code=1)
    assert "fifty-07: " in printed and "not-there" in printed
    assert "19 of 20 built\n" in printed


def test_own_frontend(buildkitd: Buildkitd, registry: Registry, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": 'FROM busybox\nRUN echo 1.2.3 > /etc/release\nCMD ["true"]\n'})
    printed = run_example(buildkitd, "own_frontend.py", project, f"{registry.host}/own-frontend:1")
    assert "the image is of release 1.2.3" in printed
    config = registry.config("own-frontend", "1")
    assert config["config"]["Labels"]["org.example.release"] == "1.2.3"
    assert config["config"]["Cmd"] == ["true"]
    assert len(config["rootfs"]["diff_ids"]) == 3


def test_from_docker_py(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree(
        {"Dockerfile": "FROM busybox AS final\nARG A\nRUN echo from-docker-py $A\nFROM final\nRUN exit 1\n"}
    )
    printed = run_example(buildkitd, "from_docker_py.py", project, "example.test/from-docker-py")
    assert "from-docker-py 1\n" in printed
    assert printed.splitlines()[-1].startswith("sha256:")


def test_llb_build(buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path) -> None:
    source = context_tree({"a.txt": "2\n1\n", "b.txt": "z\ny\n", "not": "x"})
    printed = run_example(buildkitd, "llb_build.py", source, tmp_path / "out")
    assert "sort a.txt" in printed and "say who made it" in printed
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a.txt": "1\n2\n",
        "b.txt": "y\nz\n",
        "made-by": "llb_build.py\n",
    }
