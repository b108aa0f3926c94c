"""``cogkit exec`` against a real buildkitd: output, input, exit codes, ports, files that come back, and its ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry

LIMIT = 120


@pytest.fixture
def project(tmp_path: Path, run_cogkit: RunCogkit, base_images: Registry) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    assert run_cogkit("init", cwd=folder).returncode == 0
    return folder


def test_a_command_gives_its_output_and_its_exit_code(project: Path, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("exec", "echo", "hello", "world", cwd=project)
    assert (done.stdout, done.returncode) == ("hello world\n", 0), done.stderr
    done = run_cogkit("exec", "-e", "NAME=value", "sh", "-c", "echo $NAME $PWD; echo oh >&2; exit 7", cwd=project)
    assert (done.stdout, done.returncode) == ("value /src\n", 7), done.stderr
    assert done.stderr.endswith("oh\n")


def test_standard_input_reaches_the_command(project: Path, run_cogkit: RunCogkit) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    done = run_cogkit("exec", "cat", cwd=project, input=text)
    assert (done.stdout == text, done.returncode) == (True, 0), done.stderr
    done = run_cogkit("exec", "echo", "not read", cwd=project, input=text)
    assert (done.stdout, done.returncode) == ("not read\n", 0), done.stderr


def test_what_the_command_changes_comes_back(project: Path, run_cogkit: RunCogkit) -> None:
    (project / "kept.txt").write_text("as it was\n")
    script = (
        "mkdir -p out/deep && echo made > out/deep/file && echo more >> run.py && ln -s deep/file out/link"
        " && echo no > .cog/mine; chmod +x out/deep/file; rm kept.txt"
    )
    before = (project / "run.py").read_text()
    done = run_cogkit("exec", "sh", "-c", script, cwd=project)
    assert done.returncode == 0, done.stderr
    assert (project / "out/deep/file").read_text() == "made\n"
    assert (project / "out/deep/file").stat().st_mode & 0o111
    assert os.readlink(project / "out/link") == "deep/file"
    assert (project / "run.py").read_text() == before + "more\n"
    assert (project / "kept.txt").read_text() == "as it was\n"
    assert not (project / ".cog/mine").exists()

    done = run_cogkit("exec", "--no-sync-back", "sh", "-c", "echo x > never", cwd=project)
    assert done.returncode == 0, done.stderr
    assert not (project / "never").exists()


def test_a_file_that_changed_on_both_sides_is_kept_beside(project: Path, start_cogkit: StartCogkit) -> None:
    (project / "both").write_text("before\n")
    script = "echo ready; read line; echo there > both; echo there > new"
    process = start_cogkit("exec", "sh", "-c", script, cwd=project, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    (project / "both").write_text("here\n")
    _, error = process.communicate(b"go\n", timeout=LIMIT)
    assert process.returncode == 0, error
    assert (project / "both").read_text() == "here\n"
    assert (project / "both.from-builder").read_text() == "there\n"
    assert (project / "new").read_text() == "there\n"
    assert b"both changed here and on the builder" in error


def test_a_command_that_is_not_there(project: Path, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("exec", "no-such-command", cwd=project)
    assert done.returncode == 127
    assert "no-such-command" in done.stderr
    assert "Traceback" not in done.stderr


TICKING = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.1)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command(number: signal.Signals, project: Path, start_cogkit: StartCogkit) -> None:
    process = start_cogkit("exec", "python", "-c", TICKING, cwd=project)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, error


def _beating(project: Path, start_cogkit: StartCogkit) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A command on the builder that holds a connection to the socket, which ends when the command does."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT)
    code = (
        "import socket, time, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"connection = socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}))\n"
        "while True: time.sleep(0.1)"
    )
    process = start_cogkit("exec", "python", "-c", code, cwd=project)
    connection = listener.accept()[0]
    listener.close()
    connection.settimeout(LIMIT)
    return process, connection


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGSTOP])
def test_nothing_keeps_running_when_cogkit_ends(number: int, project: Path, start_cogkit: StartCogkit) -> None:
    """Killed, interrupted or frozen: what it started on the builder ends."""
    process, connection = _beating(project, start_cogkit)
    with connection:
        process.send_signal(number)
        assert connection.recv(1) == b""
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}.get(signal.Signals(number), 1)


def test_a_port_of_the_container_is_reached(
    project: Path, start_cogkit: StartCogkit, eventually: Callable[..., None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import http.server, os; os.chdir('/src')\n"
        f"http.server.ThreadingHTTPServer(('0.0.0.0', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    process = start_cogkit("exec", "-p", str(port), "python", "-c", code, cwd=project)
    answer = b""

    def answers() -> bool:
        nonlocal answer
        assert process.poll() is None
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
                connection.sendall(b"GET /cog.yaml HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return False
        return b"200 OK" in answer

    eventually(answers, within=LIMIT)
    assert (project / "cog.yaml").read_bytes() in answer
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)


def test_a_builder_that_dies_ends_it_with_one_sentence(
    context_tree: MakeTree, start_cogkit: StartCogkit, private_buildkitd: Buildkitd
) -> None:
    project = context_tree({"Dockerfile": "FROM python:3.11-slim\n"}, name="p")
    environment = {"BUILDKIT_HOST": private_buildkitd.address}
    process = start_cogkit("exec", "python", "-c", TICKING, cwd=project, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    private_buildkitd.kill()
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 3, error
    assert b"lost the builder at" in error
    assert b"Traceback" not in error
