"""A build that comes on standard input, and questions to the frontend, with the real daemon."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY, names_in, succeeded

DOCKERFILE = "FROM scratch\nCOPY . /\n"
OUTLINED = """\
# syntax=docker/dockerfile:1
ARG VERSION=1
# run the image that runs
FROM busybox AS run
ARG WHO=nobody
RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
FROM run AS test
"""


def tar_of(tree: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def piped(start_cogkit: StartCogkit, data: bytes, *arguments: str | Path) -> tuple[int, str]:
    process = start_cogkit(*arguments, stdin=subprocess.PIPE)
    _, stderr = process.communicate(data, timeout=120)
    return process.returncode, stderr.decode()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_archive_on_standard_input_is_the_context(start_cogkit: StartCogkit, tmp_path: Path, mode: str) -> None:
    content = tar_of({"Dockerfile": DOCKERFILE.encode(), "file": os.urandom(3_000_000)}, mode)
    code, stderr = piped(start_cogkit, content, "build", "-", "-o", f"type=tar,dest={tmp_path}/out.tar")
    assert code == 0, stderr
    assert names_in(tmp_path / "out.tar") == {"Dockerfile", "file"}


def test_dockerfile_in_an_archive_may_have_any_name(start_cogkit: StartCogkit, tmp_path: Path) -> None:
    content = tar_of({"sub/other": DOCKERFILE.encode(), "file": b"x"})
    code, stderr = piped(
        start_cogkit, content, "build", "-f", "sub/other", "-o", f"type=tar,dest={tmp_path}/out.tar", "-"
    )
    assert code == 0, stderr
    assert "file" in names_in(tmp_path / "out.tar")


def test_dockerfile_on_standard_input_has_an_empty_context(start_cogkit: StartCogkit, tmp_path: Path) -> None:
    text = b"FROM scratch\nCOPY . /all/\n"
    code, stderr = piped(start_cogkit, text, "build", "-", "-o", f"type=tar,dest={tmp_path}/out.tar")
    assert code == 0, stderr
    assert names_in(tmp_path / "out.tar") == {"all"}


def test_dockerfile_on_standard_input_is_built_in_a_folder(
    context_tree: MakeTree, start_cogkit: StartCogkit, tmp_path: Path
) -> None:
    project = context_tree({"kept": "k", "skipped": "s", ".dockerignore": "skipped\n", ".cog/secret": "s"})
    code, stderr = piped(
        start_cogkit, DOCKERFILE.encode(), "build", "-f", "-", project, "-o", f"type=tar,dest={tmp_path}/out.tar"
    )
    assert code == 0, stderr
    assert names_in(tmp_path / "out.tar") == {".dockerignore", "kept"}


def test_nothing_on_standard_input_is_a_usage_error(start_cogkit: StartCogkit) -> None:
    code, stderr = piped(start_cogkit, b"", "build", "-")
    assert (code, "nothing came on standard input" in stderr) == (2, True), stderr


def test_interrupt_while_waiting_for_standard_input_ends_at_once(start_cogkit: StartCogkit) -> None:
    process = start_cogkit("build", "-", stdin=subprocess.PIPE)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    # Standard input stays open all the while.
    assert process.wait(60) == 130
    assert time.monotonic() - began < 50
    assert process.stderr is not None
    assert process.stderr.read().decode().strip().endswith("error: interrupted")


@pytest.mark.needs_newer_buildkit("request to check a Dockerfile")
def test_check_prints_what_it_found_and_ends_with_one(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nmaintainer me\n"})
    done = run_cogkit("build", "--check", project)
    assert done.returncode == 1
    assert done.stdout.startswith("Check complete, 2 warnings have been found!\n\nWARNING: ")
    assert "MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/" in done.stdout
    assert (
        f"{project.name}/Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> maintainer me"
        in done.stdout
    )
    assert "error" not in done.stderr.lower()
    ignored = succeeded(run_cogkit("build", "--call", "check,ignorestatus=true", project))
    assert ignored.stdout == done.stdout


@pytest.mark.needs_newer_buildkit("request to check a Dockerfile")
def test_check_without_findings_succeeds(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    done = succeeded(run_cogkit("build", "--check", project))
    assert done.stdout == "Check complete, no warnings found.\n"
    assert "no output was asked for" not in done.stderr


@pytest.mark.needs_newer_buildkit("request to check a Dockerfile")
def test_check_of_a_broken_dockerfile_fails_with_its_place(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("build", "--check", context_tree({"Dockerfile": "FROM scratch\nCOPYY x /\n"}))
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "COPYY" in done.stderr
    assert "Traceback" not in done.stderr


def test_outline_tells_arguments_secrets_and_agents(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": OUTLINED})
    done = succeeded(run_cogkit("build", "--call", "outline", "--target", "test", project))
    assert "TARGET: test\n" in done.stdout
    assert "BUILD ARG   VALUE    DESCRIPTION\n" in done.stdout
    assert "SECRET   REQUIRED\ntoken    true\n" in done.stdout
    content = json.loads(succeeded(run_cogkit("build", "--call", "outline,format=json", project)).stdout)
    assert {argument["name"] for argument in content["args"]} == {"WHO"}


def test_targets_are_listed(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    done = succeeded(run_cogkit("build", "--call", "targets", context_tree({"Dockerfile": OUTLINED})))
    assert done.stdout.splitlines() == [
        "TARGET         DESCRIPTION",
        "run            the image that runs",
        "test (default) ",
    ]


@pytest.mark.needs_newer_buildkit("request to check a Dockerfile")
def test_generated_dockerfile_of_a_cog_project_is_checked_too(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    done = run_cogkit("build", "--check", project)
    assert done.stdout.startswith("Check complete, "), done.stderr
    assert not (project / ".cog" / "build").exists()


def test_question_makes_no_image_and_leaves_no_trace_in_the_history(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN touch /ran\n"})
    output = ("-o", f"type=tar,dest={tmp_path}/out.tar")
    done = succeeded(run_cogkit("build", "--call", "targets", *output, project, "--progress=rawjson"))
    assert not (tmp_path / "out.tar").exists()
    assert "touch /ran" not in done.stderr


def test_unknown_question_is_the_frontends_word(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("build", "--call", "weather", context_tree({"Dockerfile": DOCKERFILE}))
    assert (done.returncode, "frontend.weather" in done.stderr) == (1, True), done.stderr
