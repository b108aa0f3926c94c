"""``make demo`` shows what it promises, and says so when something failed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree
from tests.real.tools import REPOSITORY

pytestmark = pytest.mark.one_release_is_enough


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.real.demo", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture
def leaves_nothing_behind() -> Iterator[None]:
    """Whatever the demo did, its daemon's mounts and files are gone."""
    before = set(Path("/tmp").glob("cogkit-demo-*"))
    yield
    assert set(Path("/tmp").glob("cogkit-demo-*")) == before
    assert "/cogkit-demo-" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.usefixtures("leaves_nothing_behind")
def test_demo_shows_the_digest_and_what_the_image_answers() -> None:
    done = demo()
    assert done.returncode == 0, done.stderr
    assert re.search(r"the image is 127\.0\.0\.1:\d+/demo@sha256:[0-9a-f]{64}\n", done.stdout)
    assert "| hello from the builder |" in done.stdout
    assert "(oo)" in done.stdout


@pytest.mark.usefixtures("leaves_nothing_behind")
def test_demo_fails_when_the_build_fails(context_tree: MakeTree) -> None:
    done = demo(context_tree({"Dockerfile": "FROM busybox\nRUN exit 3\n"}), "{}")
    assert done.returncode == 1
    assert "failed: cogkit build exited with" in done.stdout


@pytest.mark.usefixtures("leaves_nothing_behind")
def test_demo_fails_when_the_image_s_command_fails(context_tree: MakeTree) -> None:
    dockerfile = """FROM python:3.11-slim\nCMD ["python", "-c", "raise SystemExit('no model here')"]\n"""
    done = demo(context_tree({"Dockerfile": dockerfile}), "{}")
    assert done.returncode == 1
    assert "the server ended with code 1\nno model here" in done.stderr
