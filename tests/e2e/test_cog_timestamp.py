"""One timestamp for everything makes images that are the same to the bit, wherever and whenever they are built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import COG_YAML, succeeded
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.registry import Registry
from tests.real.tools import BuildKitRelease

SECONDS = 1_700_000_000
RUN_PY = "class Runner:\n    def run(self) -> str:\n        return 'hi'\n"


@pytest.fixture
def fresh_daemons(
    tmp_path: Path, base_images: Registry, buildkit_release: BuildKitRelease
) -> Iterator[tuple[Buildkitd, Buildkitd]]:
    """Two daemons that have built nothing yet."""
    options = DaemonOptions(buildkit_release, base_images)
    daemons = (Buildkitd(tmp_path / "one", options), Buildkitd(tmp_path / "two", options))
    yield daemons
    for daemon in daemons:
        daemon.remove()


@pytest.mark.one_release_is_enough
@pytest.mark.parametrize("how", ["--timestamp", "SOURCE_DATE_EPOCH"])
def test_two_fresh_daemons_make_the_same_image_to_the_bit(
    how: str,
    context_tree: MakeTree,
    run_cogkit: RunCogkit,
    base_images: Registry,
    fresh_daemons: tuple[Buildkitd, Buildkitd],
) -> None:
    project = context_tree(
        {
            "cog.yaml": COG_YAML + "  python_packages: [cowsay==6.1]\n  run:\n    - date > /made\n",
            "run.py": RUN_PY,
            "net.bin": b"w" * 1000,
        }
    )
    # What a step computes from the clock is its own; the tests' step must not.
    (project / "cog.yaml").write_text((project / "cog.yaml").read_text().replace("date > /made", "touch /made"))
    copies = [project, project.with_name("copy")]
    shutil.copytree(project, copies[1])
    os.utime(copies[1], (1, 1))
    flags = (f"--timestamp={SECONDS}",) if how == "--timestamp" else ()
    digests = []
    for number, (folder, daemon) in enumerate(zip(copies, fresh_daemons, strict=True)):
        environment = {"BUILDKIT_HOST": daemon.address}
        if not flags:
            environment["SOURCE_DATE_EPOCH"] = str(SECONDS)
        name = f"dated-{how.strip('-').lower()}-{number}"
        build = ("build", folder, "-t", f"{base_images.host}/{name}", "--push", "--weights-path", "net.bin", *flags)
        succeeded(run_cogkit(*build, env=environment, timeout=900))
        digests.append(base_images.digest(name, "latest"))
        config = base_images.config(name, "latest")
        assert config["created"] == "2023-11-14T22:13:20Z"
    assert digests[0] == digests[1]


def test_a_plain_dockerfile_gets_the_timestamp_as_well(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    image = f"{base_images.host}/dated-plain"
    digests = set()
    for offset in (0, 1000):
        os.utime(project / "file", (SECONDS + 100 + offset, SECONDS + 100 + offset))
        build = ("build", project, "-t", image, "--push", "--no-cache", "--timestamp", str(SECONDS))
        succeeded(run_cogkit(*build))
        digests.add(base_images.digest("dated-plain", "latest"))
    assert len(digests) == 1


def test_minus_one_gives_the_real_times_whatever_the_environment_says(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    environment = {"SOURCE_DATE_EPOCH": str(SECONDS)}
    build = ("build", project, "-t", f"{base_images.host}/undated", "--push", "--timestamp", "-1")
    succeeded(run_cogkit(*build, env=environment))
    assert base_images.config("undated", "latest")["created"] != "2023-11-14T22:13:20Z"
