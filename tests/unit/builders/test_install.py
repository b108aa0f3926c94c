"""Getting buildkitd, with a Go that only notes what it is asked to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cogkit.builders import install as module
from cogkit.builders.install import install
from cogkit.builders.programs import BUILDKIT_VERSION, find_buildkitd, installed_buildkitd
from cogkit.errors import CogkitError

GO = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
with open(os.environ["NOTES"], "a") as notes:
    print(*words, file=notes)
if words[0] == "env":
    print({{"GOVERSION": os.environ["VERSION"], "GOTOOLCHAIN": os.environ["TOOLCHAIN"]}}[words[1]])
elif words[0] == os.environ.get("FAILS"):
    sys.exit("the reason\\n")
elif words[0] == "build":
    made = words[words.index("-o") + 1]
    with open(made, "w") as file:
        file.write("#!/bin/sh\\necho buildkitd github.com/moby/buildkit " + os.environ["MADE"] + " 0\\n")
    os.chmod(made, 0o755)
"""


class Go:
    """A Go in PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes = folder / "notes"
        folder.mkdir()
        program = folder / "go"
        program.write_text(GO)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        for name, value in (("VERSION", "go1.26.6"), ("TOOLCHAIN", "local"), ("MADE", BUILDKIT_VERSION)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NOTES", str(self.notes))

    def calls(self) -> list[list[str]]:
        """What it was asked to do, but for questions."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line.split() for line in lines if not line.startswith("env")]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return Go(tmp_path / "bin", monkeypatch)


def silent(_: str) -> None:
    return


def test_buildkitd_is_built_as_a_tool_of_a_module_of_ours(go: Go) -> None:
    said: list[str] = []
    place = install(said.append)
    assert place == installed_buildkitd() == find_buildkitd()
    assert os.access(place, os.X_OK)
    got, built = go.calls()
    assert got == ["get", "-tool", f"github.com/moby/buildkit/cmd/buildkitd@{BUILDKIT_VERSION}"]
    assert built[0] == "build" and built[-1] == "github.com/moby/buildkit/cmd/buildkitd"
    assert any("building buildkitd" in each for each in said)


def test_it_is_built_once_unless_asked_again(go: Go) -> None:
    install(silent)
    install(silent)
    assert len(go.calls()) == 2
    install(silent, again=True)
    assert len(go.calls()) == 4


def test_a_failure_shows_the_end_of_what_go_said(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "get")
    with pytest.raises(CogkitError, match="ended with code 1") as caught:
        install(silent)
    assert caught.value.detail is not None
    assert caught.value.detail.strip() == "the reason"
    assert caught.value.hint is not None and "install Go" in caught.value.hint
    assert not installed_buildkitd().exists()


def test_another_version_than_asked_for_is_refused(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE", "v0.1.0")
    with pytest.raises(CogkitError, match=r"says it is v0\.1\.0"):
        install(silent)
    assert not installed_buildkitd().exists()


@pytest.mark.parametrize(
    ("version", "toolchain", "taken"),
    [
        ("go1.26.3", "local", True),
        ("go1.27rc1", "local", True),
        ("go1.25.9", "local", False),
        ("go1.25.9", "auto", True),
        ("go1.20", "auto", False),
        ("", "", False),
    ],
)
def test_a_go_that_cannot_build_it_is_not_taken(
    go: Go, monkeypatch: pytest.MonkeyPatch, version: str, toolchain: str, taken: bool
) -> None:
    monkeypatch.setenv("VERSION", version)
    monkeypatch.setenv("TOOLCHAIN", toolchain)
    assert (module._machines_go() is not None) == taken


def test_without_go_and_without_pip_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(CogkitError, match="no Go on this machine") as caught:
        install(silent)
    assert caught.value.hint is not None and "install Go" in caught.value.hint
