"""Little memory, few files, no threads: one sentence that names what is lacking, and no traceback."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cogkit.cli import resources
from cogkit.errors import CogkitError
from tests.real.cogkit_process import cogkit_environment

Done = subprocess.CompletedProcess[str]


def limited(limit: str, project: Path, script: str = "") -> Done:
    """A build with no builder under a limit of the shell's."""
    program = ["-c", script] if script else ["-m", "cogkit"]
    command = ["sh", "-c", f'ulimit {limit} && exec "$0" "$@"', sys.executable, *program, "build", "-t", "x", "."]
    environment = cogkit_environment({"BUILDKIT_HOST": "unix:///no/such/socket"})
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=project, env=environment
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_a_limit_that_is_too_low_is_refused(project: Path) -> None:
    done = limited("-n 20", project)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the limit on open files (ulimit -n) is 20, and cogkit needs 32\n"), (
        done.stderr
    )
    assert done.stderr.count("\n") == 2, "the sentence and its hint"


@pytest.mark.parametrize(
    ("which", "says"),
    [(resource.RLIMIT_AS, "(ulimit -v) is 195 MiB"), (resource.RLIMIT_DATA, "(ulimit -d) is 195 MiB")],
)
def test_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch, which: int, says: str) -> None:
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda each: (195 << 20 if each == which else unlimited, unlimited))
    with pytest.raises(CogkitError, match="and cogkit needs 256") as caught:
        resources.require_enough()
    assert says in caught.value.message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to limits on memory")
@pytest.mark.parametrize("limit", ["-v 600000", "-n 32"])
def test_a_low_limit_ends_in_no_traceback(project: Path, limit: str) -> None:
    done = limited(limit, project)
    assert done.returncode in (1, 3), done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert "internal error" not in done.stderr and "Traceback" not in done.stderr


NO_THREADS = """
import _thread, threading
def refuse(*_, **__): raise RuntimeError("can't start new thread")
_thread.start_new_thread = threading._start_new_thread = refuse
from cogkit.__main__ import entry
entry()
"""


def test_without_threads_there_is_one_sentence_too(project: Path) -> None:
    done = limited("-c 0", project, NO_THREADS)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no further thread can be started"), done.stderr
    assert done.stderr.count("\n") == 2, done.stderr


def test_an_error_that_cannot_be_shown_is_no_traceback(project: Path) -> None:
    script = (
        "from cogkit.cli import main\n"
        "def fail(*_): raise MemoryError\n"
        "main._exit_code_of = fail; main._invoke = fail\n"
        "def main_(args): raise MemoryError\n"
        "main.main = main_\n"
        "from cogkit.__main__ import entry\n"
        "entry()\n"
    )
    done = limited("-c 0", project, script)
    assert (done.returncode, done.stderr) == (1, "error: cogkit failed, and could not say why (MemoryError)\n")


def nested(problem: BaseException) -> BaseException:
    """As it arrives: the cause of something else."""
    try:
        try:
            raise problem
        except BaseException as cause:
            raise ValueError("something else") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (MemoryError(), "there is not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "there is not enough memory"),
        (RuntimeError("can't start new thread"), "no further thread can be started"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "too many open files: the limit"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "the system has too many open files"),
    ],
)
def test_what_is_lacking_is_found_below_what_failed(problem: BaseException, says: str) -> None:
    for each in (problem, nested(problem), BaseExceptionGroup("group", [nested(problem)])):
        found = resources.lack_of(each)
        assert isinstance(found, CogkitError)
        assert found.message.startswith(says)
        assert found.hint


def test_what_is_no_lack_is_left_alone() -> None:
    assert resources.lack_of(nested(OSError(errno.ENOENT, "no"))) is None
    circle = ValueError()
    circle.__context__ = other = ValueError()
    other.__context__ = circle
    assert resources.lack_of(circle) is None


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({resource.RLIMIT_AS: 300 << 20}, "(ulimit -v) is 300 MiB"),
        ({resource.RLIMIT_AS: 300 << 20, resource.RLIMIT_DATA: 200 << 20}, "(ulimit -d) is 200 MiB"),
        ({resource.RLIMIT_NPROC: 77}, "(ulimit -u) is 77"),
        ({}, "no further thread can be started"),
    ],
)
def test_the_limit_is_named(monkeypatch: pytest.MonkeyPatch, limits: dict[int, int], says: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits.get(which, resource.RLIM_INFINITY), 0))
    found = resources.lack_of(RuntimeError("can't start new thread"))
    assert found is not None and says in found.message
