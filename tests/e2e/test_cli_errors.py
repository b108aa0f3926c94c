"""What a user can do wrong or suffer: one clear sentence, the place, what to do, the exit code, and never a hang."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY
from tests.real.buildkitd import Buildkitd
from tests.real.certificates import Certificates, make_certificates
from tests.real.process import free_port

BOUND = 30.0
"""Seconds after which the process has ended, whatever died: five are promised, the rest is for a busy machine."""

BIG = 1_500_000_000
"""Bytes of a context (a hole on the disk) that takes a while to send."""


class Errors:
    """The lines of an error on standard error, and that there is no traceback among them."""

    def __init__(self, text: str) -> None:
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        self.text = text
        lines = text.splitlines()
        starts = [index for index, line in enumerate(lines) if line.startswith("error: ")]
        assert len(starts) == 1, text
        self.message = lines[starts[0]].removeprefix("error: ")
        after = [line.strip() for line in lines[starts[0] + 1 :]]
        self.where = next((line.removeprefix("at: ") for line in after if line.startswith("at: ")), None)
        self.hint = next((line.removeprefix("hint: ") for line in after if line.startswith("hint: ")), None)


def failed(done: subprocess.CompletedProcess[str], code: int) -> Errors:
    """The errors of a process that had to end with ``code``."""
    assert done.returncode == code, done.stderr
    return Errors(done.stderr)


class Running:
    """A cogkit process whose standard error is read while it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def stderr(self) -> str:
        return self._seen.decode()

    def wait_for(self, pattern: str, within: float = 30.0) -> None:
        """Wait until its standard error holds something."""
        deadline = time.monotonic() + within
        while not re.search(pattern, self.stderr):
            assert self.process.poll() is None, f"it ended before {pattern!r}: {self.stderr}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {within} s: {self.stderr}"
            time.sleep(0.01)

    def end(self, within: float = BOUND) -> subprocess.CompletedProcess[str]:
        """Wait for its end, which has to come in time."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._reader.join()
            pytest.fail(f"it still runs after {within} s: {self.stderr}")
        self._reader.join()
        return subprocess.CompletedProcess(self.process.args, code, "", self.stderr)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What the terminal does at Ctrl-C."""
        os.killpg(self.process.pid, number)

    def _read(self) -> None:
        assert self.process.stderr is not None
        while piece := os.read(self.process.stderr.fileno(), 65536):
            self._seen += piece


Start = Callable[..., Running]


@pytest.fixture
def start(start_cogkit: StartCogkit) -> Start:
    return lambda *arguments, **options: Running(start_cogkit(*arguments, **options))


@contextmanager
def silent_listener(path: Path) -> Iterator[threading.Event]:
    """A unix socket that takes connections and never says anything; the event tells of the first."""
    connected = threading.Event()
    taken: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return
                connected.set()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield connected
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def sparse(path: Path, size: int = BIG) -> None:
    with path.open("wb") as file:
        file.truncate(size)


# --- no builder ---


def test_no_builder_at_a_socket(run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    done = run_cogkit("build", project, "--addr", f"unix://{tmp_path}/no.sock", timeout=BOUND + 2)
    errors = failed(done, 3)
    assert f"unix://{tmp_path}/no.sock" in errors.message
    assert errors.hint


def test_no_builder_at_a_port(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    address = f"tcp://127.0.0.1:{free_port()}"
    errors = failed(run_cogkit("build", project, env={"BUILDKIT_HOST": address}, timeout=BOUND + 2), 3)
    assert address in errors.message
    assert errors.hint


def test_a_builder_that_never_answers(run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    with silent_listener(tmp_path / "s") as connected:
        done = run_cogkit("build", project, "--addr", f"unix://{tmp_path}/s", timeout=BOUND + 5)
    assert connected.is_set(), done.stderr
    errors = failed(done, 3)
    assert f"unix://{tmp_path}/s" in errors.message


@pytest.mark.parametrize("address", ["nonsense", "unix://relative", "tcp://host", "tcp://host:port", "gopher://x:1"])
def test_an_address_that_is_none(run_cogkit: RunCogkit, context_tree: MakeTree, address: str) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    errors = failed(run_cogkit("build", project, "--addr", address), 2)
    assert address in errors.message
    assert errors.hint


# --- TLS ---


def tls_flags(certificates: Certificates, **other: Path) -> list[str]:
    files = {"tlscacert": certificates.ca, "tlscert": certificates.client_cert, "tlskey": certificates.client_key}
    return [part for name, path in {**files, **other}.items() for part in (f"--{name}", str(path))]


@pytest.fixture
def hello(context_tree: MakeTree) -> Path:
    return context_tree({"Dockerfile": "FROM scratch\nCOPY hello /\n", "hello": "hello"})


def test_the_right_certificates_build(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates
) -> None:
    done = run_cogkit("build", hello, "--addr", tls_buildkitd.address, *tls_flags(certificates))
    assert done.returncode == 0, done.stderr


def test_an_authority_that_did_not_sign_the_builders_certificate(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other")
    flags = tls_flags(certificates, tlscacert=other.ca)
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags, timeout=BOUND + 5), 3)
    assert tls_buildkitd.address in errors.message
    assert "certificate" in errors.text and errors.hint


def test_a_client_certificate_that_the_builder_does_not_accept(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other")
    flags = tls_flags(certificates, tlscert=other.client_cert, tlskey=other.client_key)
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags, timeout=BOUND + 5), 3)
    assert tls_buildkitd.address in errors.message
    assert "--tlscert" in (errors.hint or "")


def test_no_client_certificate_where_one_is_asked_for(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates
) -> None:
    flags = ["--tlscacert", str(certificates.ca)]
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags, timeout=BOUND + 5), 3)
    assert "--tlscert" in errors.text


def test_a_name_that_is_not_in_the_builders_certificate(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates
) -> None:
    flags = [*tls_flags(certificates), "--tlsservername", "elsewhere.example"]
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags, timeout=BOUND + 5), 3)
    assert "elsewhere.example" in errors.text


def test_plain_text_to_a_builder_with_tls(run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd) -> None:
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, timeout=BOUND + 5), 3)
    assert tls_buildkitd.address in errors.message
    assert "TLS" in errors.text


def test_a_certificate_file_that_is_missing_or_no_certificate(
    run_cogkit: RunCogkit, hello: Path, tls_buildkitd: Buildkitd, certificates: Certificates, tmp_path: Path
) -> None:
    for flag in ("tlscacert", "tlscert", "tlskey"):
        flags = tls_flags(certificates, **{flag: tmp_path / "missing.pem"})
        errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags), 2)
        assert f"{tmp_path}/missing.pem" in errors.text
    (tmp_path / "bad.pem").write_text("not a certificate")
    flags = tls_flags(certificates, tlscacert=tmp_path / "bad.pem")
    errors = failed(run_cogkit("build", hello, "--addr", tls_buildkitd.address, *flags), 2)
    assert f"{tmp_path}/bad.pem" in errors.text


# --- the project ---


def test_a_mistake_in_cog_yaml_is_shown_with_line_and_column(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"cog.yaml": 'build:\n  python_version: "3.11"\n  system_package:\n    - curl\n'})
    errors = failed(run_cogkit("build", project), 2)
    assert "system_package" in errors.message
    assert errors.where is not None and errors.where.endswith("cog.yaml:3:3")


def test_yaml_that_cannot_be_read_is_shown_with_line_and_column(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"cog.yaml": "build:\n  run: [a\n"})
    errors = failed(run_cogkit("build", project), 2)
    assert errors.where is not None and re.search(r"cog\.yaml:\d+:\d+$", errors.where)


def test_nothing_to_build(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"README": "hello"})
    errors = failed(run_cogkit("build", project), 2)
    assert "cog.yaml not found" in errors.message and "nor is there a Dockerfile" in errors.message
    assert "cogkit init" in (errors.hint or "")


def test_a_dockerfile_that_is_not_there(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    errors = failed(run_cogkit("build", project, "-f", project / "Dockerfile.dev"), 2)
    assert errors.where == f"{project}/Dockerfile.dev"


def test_a_dockerfile_with_a_mistake(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n\nCOPPY a b\n"})
    errors = failed(run_cogkit("build", project), 1)
    assert "COPPY" in errors.message
    assert ">>> COPPY a b" in errors.text
    assert "Dockerfile:3" in errors.text


def test_a_file_to_copy_that_is_not_there(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY missing.txt /\n"})
    errors = failed(run_cogkit("build", project), 1)
    assert "missing.txt" in errors.message and "not found" in errors.message
    assert ">>> COPY missing.txt /" in errors.text
    assert "cogkit context" in errors.text
    assert errors.where == "Dockerfile:2"


@pytest.mark.parametrize("mode", ["plain", "quiet"])
def test_a_failing_run_shows_its_last_output_and_its_lines(
    run_cogkit: RunCogkit, context_tree: MakeTree, mode: str
) -> None:
    dockerfile = """\
        FROM busybox
        ENV A=1
        RUN seq 1 30 && \\
            echo the reason && \\
            exit 3
        RUN echo never
        """
    project = context_tree({"Dockerfile": dockerfile})
    done = run_cogkit("build", project, "--progress", mode, "--no-cache")
    errors = failed(done, 1)
    assert done.stdout == ""
    assert "exit code: 3" in errors.message
    assert errors.where == "Dockerfile:3"
    frame = errors.text[errors.text.index("------\n > [") :]
    assert re.search(r"\n\d\.\d{3} 30\n\d\.\d{3} the reason\n------\n", frame)
    excerpt = errors.text[errors.text.index("Dockerfile:3\n----") :]
    assert re.findall(r"\d+ \| >>> +(.*)", excerpt) == ["RUN seq 1 30 && \\", "echo the reason && \\", "exit 3"]
    assert "   2 |     ENV A=1\n" in excerpt and "   6 |     RUN echo never\n" in excerpt
    assert excerpt.index("exit 3") < excerpt.index("error: ")


@pytest.mark.one_release_is_enough
def test_a_failing_run_of_a_cog_project_shows_the_generated_lines(
    run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    project = context_tree({"cog.yaml": COG_YAML + "  run:\n    - echo the reason && exit 7\n", "run.py": RUN_PY})
    errors = failed(run_cogkit("build", project), 1)
    assert "exit code: 7" in errors.message
    assert ">>> RUN echo the reason && exit 7" in errors.text


def test_a_stage_that_is_not_there(run_cogkit: RunCogkit, hello: Path) -> None:
    errors = failed(run_cogkit("build", hello, "--target", "nowhere"), 1)
    assert "nowhere" in errors.message


# --- outputs ---


def test_an_output_that_cannot_be_written_is_told_before_the_build(
    run_cogkit: RunCogkit, hello: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for output in (
        f"type=tar,dest={tmp_path}/file/x.tar",
        f"type=oci,dest={tmp_path}/folder",
        f"type=local,dest={tmp_path}/file",
        "type=tar,dest=/proc/nothing/x.tar",
    ):
        done = run_cogkit("build", hello, "-o", output, "--addr", "unix:///nowhere.sock")
        errors = Errors(done.stderr)
        assert done.returncode in (1, 2), errors.text
        assert output.split("dest=")[1] in errors.text
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["tar", "oci", "docker", "local"])
def test_a_full_disk_leaves_what_was_there(
    run_cogkit: RunCogkit, context_tree: MakeTree, small_disk: Path, kind: str
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1_000_000)})
    dest = small_disk / "out"
    if kind != "local":
        dest.write_text("of an earlier build")
    errors = failed(run_cogkit("build", project, "-o", f"type={kind},dest={dest}", timeout=60), 1)
    assert "no space left" in errors.message and str(dest) in errors.message
    assert errors.hint
    left = sorted(path.name for path in small_disk.rglob("*") if path.is_file())
    assert left == ([] if kind == "local" else ["out"])
    if kind != "local":
        assert dest.read_text() == "of an earlier build"


def test_a_full_disk_behind_standard_output(start: Start, hello: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = start("build", hello, "-o", "-", stdout=full).end(within=30)
    errors = failed(done, 1)
    assert "no space left" in errors.message


def test_a_reader_of_standard_output_that_leaves(start: Start, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(1_000_000)})
    running = start("build", project, "-o", "-")
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.end(within=30).returncode == 1
    Errors(running.stderr)


# --- the builder goes away ---


@pytest.fixture
def private_env(private_buildkitd: Buildkitd) -> dict[str, str]:
    return {"BUILDKIT_HOST": private_buildkitd.address}


def test_a_builder_killed_in_mid_transfer(
    start: Start,
    run_cogkit: RunCogkit,
    context_tree: MakeTree,
    private_buildkitd: Buildkitd,
    private_env: dict[str, str],
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n"})
    sparse(project / "big")
    running = start("build", project, env=private_env)
    running.wait_for("transferring context")
    private_buildkitd.kill()
    errors = failed(running.end(), 3)
    assert private_buildkitd.address in errors.message
    assert errors.hint
    private_buildkitd.start_afresh()
    sparse(project / "big", 1000)
    assert run_cogkit("build", project, env=private_env).returncode == 0


def test_a_builder_killed_while_a_step_runs(
    start: Start, context_tree: MakeTree, private_buildkitd: Buildkitd, private_env: dict[str, str]
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun && sleep 60\n"})
    running = start("build", project, env=private_env)
    running.wait_for(r"#\d+ \d\.\d+ begun")
    private_buildkitd.kill()
    assert private_buildkitd.address in failed(running.end(), 3).message


def test_a_builder_killed_while_it_exports(
    start: Start, context_tree: MakeTree, private_buildkitd: Buildkitd, private_env: dict[str, str], tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(2_000_000)})
    # Nobody reads the pipe, so the export cannot end.
    running = start("build", project, "-o", "type=tar", env=private_env)
    running.wait_for("sending tarball")
    private_buildkitd.kill()
    assert private_buildkitd.address in failed(running.end(), 3).message


# --- Ctrl-C in every phase ---


def interrupted(running: Running, number: signal.Signals = signal.SIGINT) -> None:
    """Press Ctrl-C; it has to end in time, in silence."""
    running.interrupt(number)
    errors = failed(running.end(), 130)
    assert errors.message == "interrupted"


def test_ctrl_c_while_waiting_for_the_lock(
    start: Start, context_tree: MakeTree, buildkitd: Buildkitd, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    holder = textwrap.dedent(
        """
        import sys, time
        from cogkit.project.dotcog import DotCog
        with DotCog.open(sys.argv[1]) as dotcog, dotcog.lock():
            print("held", flush=True)
            time.sleep(60)
        """
    )
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(project)], stdout=subprocess.PIPE, cwd=repository
    ) as holding:
        assert holding.stdout is not None and holding.stdout.readline() == b"held\n"
        try:
            running = start("build", project)
            running.wait_for(rf"waiting for the lock held by .*\b{holding.pid}\b")
            interrupted(running)
            errors = failed(run_cogkit("build", project, "--lock-timeout", "0.2"), 4)
            assert str(holding.pid) in errors.text
        finally:
            holding.kill()


def test_ctrl_c_while_connecting(start: Start, hello: Path, tmp_path: Path) -> None:
    with silent_listener(tmp_path / "s") as connected:
        running = start("build", hello, "--addr", f"unix://{tmp_path}/s")
        assert connected.wait(60), running.stderr
        interrupted(running)


def test_ctrl_c_in_the_transfer(start: Start, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n"})
    sparse(project / "big")
    running = start("build", project)
    running.wait_for("transferring context")
    interrupted(running)


def test_ctrl_c_in_a_transfer_to_a_frozen_builder(
    start: Start, context_tree: MakeTree, private_buildkitd: Buildkitd, private_env: dict[str, str]
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n"})
    sparse(project / "big")
    running = start("build", project, env=private_env)
    running.wait_for("transferring context")
    private_buildkitd.pause()
    try:
        time.sleep(0.3)
        interrupted(running)
    finally:
        private_buildkitd.resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_a_step_runs_ends_the_step_too(
    start: Start, context_tree: MakeTree, eventually: Callable[..., None], number: signal.Signals
) -> None:
    marker = f"61.{os.getpid()}{number.value}"
    project = context_tree({"Dockerfile": f"FROM busybox\nRUN echo begun && sleep {marker}\n"})
    running = start("build", project)
    running.wait_for(r"#\d+ \d\.\d+ begun")
    assert processes_with(marker)
    interrupted(running, number)
    eventually(lambda: not processes_with(marker), within=60, what="the end of the step's process")


def test_ctrl_c_while_the_result_is_written(start: Start, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n", "big": os.urandom(2_000_000)})
    # Nobody reads the pipe, so the export cannot end.
    running = start("build", project, "-o", "type=tar", "-o", f"type=oci,dest={tmp_path}/image.tar")
    running.wait_for("sending tarball")
    interrupted(running)
    assert not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob(".cogkit-*"))


def test_ctrl_c_twice_ends_at_once(
    start: Start, context_tree: MakeTree, private_buildkitd: Buildkitd, private_env: dict[str, str]
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY big /\n"})
    sparse(project / "big")
    running = start("build", project, env=private_env)
    running.wait_for("transferring context")
    private_buildkitd.pause()
    try:
        running.interrupt()
        time.sleep(0.1)
        if running.process.poll() is None:
            running.interrupt()
        assert running.end(within=3.5).returncode == 130
    finally:
        private_buildkitd.resume()


def processes_with(argument: str) -> list[int]:
    """Processes that have ``argument`` on their command line as a word of its own."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in words:
                found.append(int(folder.name))
    return found
