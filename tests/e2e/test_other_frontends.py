"""Frontends by name and LLB on standard input, as ``buildctl build`` has them; LLB as text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cogkit.buildkit import llb
from tests.conftest import MakeTree, RunBuildctl, RunCogkit, StartCogkit
from tests.e2e.test_build import names_in, succeeded

STAGES = "ARG NAME=none\nFROM scratch AS first\nCOPY a /first\nFROM scratch\nCOPY . /\n"


def marshalled(*, name: str) -> bytes:
    """What copies a folder of this machine."""
    source = llb.local(name)
    return bytes(
        llb.scratch().file(llb.copy(source, "/", "/copied/", create_dest_path=True, contents_only=True)).marshal()
    )


def piped(start_cogkit: StartCogkit, data: bytes, *arguments: str | Path) -> tuple[int, str, str]:
    process = start_cogkit(*arguments, stdin=subprocess.PIPE)
    stdout, stderr = process.communicate(data, timeout=120)
    return process.returncode, stdout.decode(), stderr.decode()


def test_a_frontend_gets_its_options_and_folders(run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"a": "1", "b": "2", "Other": STAGES, ".cog/secret": "s", "Dockerfile": "FROM nonsense"})
    folders = ("--local", f"context={project}", "--local", f"dockerfile={project}")
    raw = ("build", "--frontend", "dockerfile.v0", "--opt", "filename=Other", *folders)
    succeeded(run_cogkit(*raw, "-o", f"type=tar,dest={tmp_path}/whole.tar"))
    assert names_in(tmp_path / "whole.tar") == {"a", "b", "Other", "Dockerfile"}
    for target in (("--opt", "target=first"), ("--target", "first")):
        succeeded(run_cogkit(*raw, *target, "-o", f"type=tar,dest={tmp_path}/first.tar"))
        assert names_in(tmp_path / "first.tar") == {"first"}
    shown = succeeded(run_cogkit(*raw, "--call", "targets"))
    assert "first" in shown.stdout


def test_a_frontend_in_an_image_is_one_too(run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"a": "1", "Dockerfile": STAGES})
    folders = ("--local", f"context={project}", "--local", f"dockerfile={project}")
    source = ("--frontend", "gateway.v0", "--opt", "source=docker/dockerfile:1")
    succeeded(run_cogkit("build", *source, *folders, "-o", f"type=tar,dest={tmp_path}/out.tar"))
    assert names_in(tmp_path / "out.tar") == {"a", "Dockerfile"}


def test_llb_on_standard_input_is_built(start_cogkit: StartCogkit, context_tree: MakeTree, tmp_path: Path) -> None:
    folder = context_tree({"a": "1", ".cog/x": ""})
    data = marshalled(name="src")
    for number, words in enumerate((("--local", f"src={folder}"), ("-", "--local", f"src={folder}"))):
        out = tmp_path / f"out-{number}.tar"
        code, _, stderr = piped(start_cogkit, data, "build", *words, "-o", f"type=tar,dest={out}")
        assert code == 0, stderr
        assert names_in(out) == {"copied", "copied/a"}


def test_llb_needs_no_folder(start_cogkit: StartCogkit, tmp_path: Path) -> None:
    data = bytes(llb.scratch().file(llb.mkfile("/made", b"content")).marshal())
    code, _, stderr = piped(start_cogkit, data, "build", "-", "-o", f"type=tar,dest={tmp_path}/out.tar")
    assert code == 0, stderr
    assert names_in(tmp_path / "out.tar") == {"made"}


@pytest.mark.parametrize(
    ("data", "words", "says"),
    [
        (b"", ("--local", "a=."), "nothing came from standard input"),
        (b"FROM scratch\n", ("--opt", "a=b"), "not a marshalled LLB definition"),
        (b"\n\n\nFROM scratch\n", ("--local", "a=."), "LLB"),
        (b"", ("--frontend", "dockerfile.v0", "."), "a frontend knows no project"),
        (b"", ("--frontend", "dockerfile.v0", "--local", "a=/nonexistent"), "no such folder"),
        (b"", ("--local", "a"), "not NAME=DIR"),
    ],
)
def test_what_makes_no_sense_is_told(start_cogkit: StartCogkit, data: bytes, words: tuple[str, ...], says: str) -> None:
    code, _, stderr = piped(start_cogkit, data, "build", *words)
    assert (code, says in stderr) == (2, True), stderr


def test_a_dockerfile_that_begins_with_empty_lines_stays_one(start_cogkit: StartCogkit) -> None:
    code, _, stderr = piped(start_cogkit, b"\n\n\nFROM scratch\n# " + b"x" * 300 + b"\n", "build", "-")
    assert code == 0, stderr


@pytest.mark.one_release_is_enough
def test_llb_is_shown_as_buildctl_shows_it(
    start_cogkit: StartCogkit, run_cogkit: RunCogkit, buildctl: RunBuildctl, tmp_path: Path
) -> None:
    ran = llb.image("busybox").run("echo <hi>", env={"A": "b"}, mounts=[llb.BindMount("/src", llb.local("src"))])
    made = llb.copy(ran.root, "/", "/x").mkfile("/m", b"hello", chown="1:user").rm("/gone", allow_not_found=True)
    data = bytes(llb.scratch().file(made).marshal())
    (tmp_path / "build.llb").write_bytes(data)
    shown = succeeded(run_cogkit("debug", "dump-llb", tmp_path / "build.llb")).stdout
    theirs = buildctl("debug", "dump-llb", tmp_path / "build.llb").stdout
    assert [json.loads(line) for line in shown.splitlines()] == [json.loads(line) for line in theirs.splitlines()]
    dot = ("debug", "dump-llb", "--dot")
    assert succeeded(run_cogkit(*dot, tmp_path / "build.llb")).stdout == buildctl(*dot, tmp_path / "build.llb").stdout
    code, stdout, stderr = piped(start_cogkit, data, *dot)
    assert (code, stdout.startswith("digraph {")) == (0, True), stderr


@pytest.mark.one_release_is_enough
def test_what_is_no_llb_cannot_be_shown(run_cogkit: RunCogkit, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("FROM scratch")
    for name, says in (("text", "not a marshalled LLB definition"), ("gone", "cannot read the LLB: No such file")):
        done = run_cogkit("debug", "dump-llb", name)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
