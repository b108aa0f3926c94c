"""Closed, full and unblocking standard streams: a clear sentence where something is lost, else nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cogkit.building.stdin_stream import StdinStream
from cogkit.errors import UsageError
from tests.real.cogkit_process import cogkit_environment

Done = subprocess.CompletedProcess[str]


def cogkit(redirected: str, *arguments: str, cwd: Path | None = None) -> Done:
    """``cogkit ARGUMENTS`` as a shell runs it with such a redirection."""
    command = ["sh", "-c", f'exec "$0" -m cogkit "$@" {redirected}', sys.executable, *arguments]
    environment = cogkit_environment({"BUILDKIT_HOST": "unix:///no/such/socket"})
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
    )


def one_sentence(done: Done, code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("error: ") == 1 and done.stderr.startswith("error: "), done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    return tmp_path


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("dockerfile",), ("context",)])
def test_what_cannot_be_printed_is_an_error_with_one_sentence(project: Path, arguments: tuple[str, ...]) -> None:
    closed = cogkit(">&-", *arguments, cwd=project)
    one_sentence(closed, 1, "cannot write to standard output: it is closed")
    if os.path.exists("/dev/full"):
        full = cogkit(">/dev/full", *arguments, cwd=project)
        one_sentence(full, 1, "cannot write to standard output: No space left on device")


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "1>&- 2>&-", "0>&- 1>&- 2>&-"])
def test_what_happens_to_standard_error_is_no_matter(project: Path, redirected: str) -> None:
    if "/dev/full" in redirected and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    assert cogkit(redirected, "build", "--no-such-flag", cwd=project).returncode == 2
    assert cogkit(redirected, "build", cwd=project).returncode == 3, "that of a builder that is not there"
    assert cogkit(redirected, "dockerfile", cwd=project).returncode == (1 if "1>" in redirected else 0)


def test_a_closed_stream_does_not_become_a_file_of_ours(project: Path) -> None:
    """What is printed on standard output goes nowhere, not into the first file that is opened."""
    before = {path: path.read_bytes() for path in project.iterdir()}
    cogkit("0>&- 1>&- 2>&-", "dockerfile", cwd=project)
    assert {path: path.read_bytes() for path in project.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("build", "-"), "standard input is closed"),
        (("build", "-f", "-", "."), "standard input is closed"),
        (("build", "-t", "x", "--secret", "id=x,src=/dev/stdin", "."), "secret x: /dev/stdin is a socket, or closed"),
        (("login", "--username", "me", "--password-stdin", "registry.example"), "cannot be read from standard input"),
    ],
)
def test_a_closed_input_is_told_before_the_build(project: Path, arguments: tuple[str, ...], says: str) -> None:
    one_sentence(cogkit("<&-", *arguments, cwd=project), 2, says)


@pytest.mark.parametrize("place", ["-", "type=tar,dest=/dev/stdout", "type=tar,dest=/dev/fd/1"])
def test_an_output_on_a_closed_stream_is_told_before_the_build(project: Path, place: str) -> None:
    one_sentence(cogkit(">&-", "build", "-o", place, cwd=project), 1, "is closed, or open for reading only")


def test_a_folder_on_standard_input_is_told(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match="standard input is a folder"):
            StdinStream(folder).read(1)
    finally:
        os.close(folder)


def test_an_input_that_does_not_block_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write() -> None:
        os.write(writing, b"one")
        os.close(writing)

    try:
        stream = StdinStream(reading)
        threading.Timer(0.2, write).start()
        assert stream.read(10) == b"one"
        assert stream.read(10) == b""
    finally:
        os.close(reading)


def test_a_number_that_is_not_open_is_told() -> None:
    with pytest.raises(UsageError, match="standard input is closed"):
        StdinStream(987_654).read(1)


def test_an_output_that_does_not_block_gets_everything() -> None:
    """Some programs give pipes that do not block; a large text must not end in the middle."""
    script = (
        "import os, sys\n"
        "from cogkit.cli.standard_streams import prepare\n"
        "os.set_blocking(1, False); os.set_blocking(2, False)\n"
        "prepare(); sys.stdout.write('x' * 1_000_000); sys.stdout.flush()\n"
        "sys.stderr.write('y' * 1_000_000); sys.stderr.flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "x" * 1_000_000
    assert done.stderr == "y" * 1_000_000
