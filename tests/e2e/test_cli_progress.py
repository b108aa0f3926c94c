"""Progress of real builds: the same words as buildctl's, and a live view on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunBuildctl, RunCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.cogkit_process import cogkit_environment
from tests.unit.screen import Screen

BUILDCTL = ("build", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=.")

DOCKERFILE = """\
    FROM busybox AS one
    RUN for i in 1 2 3; do echo one $i; sleep 0.2; done
    FROM busybox AS two
    COPY file /
    RUN printf 'no line end'
    FROM scratch
    COPY --from=one /bin/true /one
    COPY --from=two /file /two
    """


@pytest.fixture
def project(context_tree: MakeTree) -> Path:
    return context_tree({"Dockerfile": DOCKERFILE, "file": "content"})


@pytest.fixture
def odd_project(context_tree: MakeTree) -> Path:
    """One that the linter of Dockerfiles has a warning for."""
    return context_tree({"Dockerfile": DOCKERFILE.replace("FROM busybox AS two", "from busybox AS two"), "file": ""})


def steps_of(plain: str) -> dict[str, list[str]]:
    """The lines of each step by its name, without numbers, times and sizes, which differ from run to run."""
    names: dict[str, str] = {}
    steps: dict[str, list[str]] = {}
    for line in plain.splitlines():
        found = re.fullmatch(r"(#\d+) (.*)", line)
        if found is None:
            assert line == "" or line.startswith("warning: "), line
            continue
        number, text = found.groups()
        if number not in names:
            names[number] = text
            steps[text] = []
        elif text not in (names[number], "..."):
            steps[names[number]].append(text)
    return {re.sub(r"^\[\w+ \d/\d\] FROM", "FROM", name): _settled(lines) for name, lines in steps.items()}


def _settled(lines: list[str]) -> list[str]:
    """Lines without what depends on when one looked: times, sizes, and transfers that had not ended."""
    lines = [re.sub(r"^\d+\.\d+ | \d+\.\d+s", "", line) for line in lines]
    lines = [re.sub(r"(transferring \w+:) [\d.]+k?B", r"\1", line) for line in lines]
    lines = [line for line in lines if f"{line} done" not in lines]
    # A step whose transfer had ended before it was known to be cached was shown to be done first.
    lines = [line for line in lines if line != "DONE" or "CACHED" not in lines]
    # What is told of a step after its end is printed after it.
    return sorted(dict.fromkeys(lines), key=lambda line: line in ("DONE", "CACHED"))


@pytest.mark.parametrize("arguments", [(), ("--no-cache",)], ids=["cached", "not cached"])
def test_plain_is_what_buildctl_prints(
    project: Path, buildctl: RunBuildctl, run_cogkit: RunCogkit, arguments: tuple[str, ...]
) -> None:
    buildctl(*BUILDCTL, cwd=project)
    theirs = buildctl(*BUILDCTL, "--progress=plain", *arguments, cwd=project)
    ours = run_cogkit("build", "--progress", "plain", *arguments, cwd=project)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == ""
    assert steps_of(ours.stderr) == steps_of(theirs.stderr)


def key_paths(value: object, path: str = "") -> Iterator[str]:
    """Every key of a document with the kind of its value, such as ``vertexes[].name:str``."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from key_paths(below, f"{path}.{re.sub('sha256:.*', 'DIGEST', key)}")
    elif isinstance(value, list):
        for below in value:
            yield from key_paths(below, f"{path}[]")
    else:
        yield f"{path}:{type(value).__name__}"


@pytest.mark.needs_newer_buildkit("warnings of the Dockerfile linter, nor one line for each event in buildctl")
def test_rawjson_has_the_shape_of_buildctls(odd_project: Path, buildctl: RunBuildctl, run_cogkit: RunCogkit) -> None:
    theirs = buildctl(*BUILDCTL, "--progress=rawjson", "--no-cache", cwd=odd_project)
    ours = run_cogkit("build", "--progress", "rawjson", "--no-cache", "-t", "named", cwd=odd_project)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == ""
    expected = {path for line in theirs.stderr.splitlines() for path in key_paths(json.loads(line))}
    found = {path for line in ours.stderr.splitlines() for path in key_paths(json.loads(line))}
    # What both runs are sure to have; a transfer's total, say, depends on when it is looked at.
    assert {path.split(".")[1].split("[")[0] for path in expected} == {"vertexes", "statuses", "logs", "warnings"}
    assert found - expected <= {".statuses[].total:int", ".vertexes[].cached:bool"}
    assert expected - found <= {".statuses[].total:int", ".vertexes[].cached:bool"}


def test_quiet_prints_the_image_id_alone(project: Path, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    done = run_cogkit("build", "--progress", "quiet", "-t", "named", "--iidfile", tmp_path / "iid", cwd=project)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert (tmp_path / "iid").read_text() == done.stdout.strip()
    assert done.stderr == ""


class TerminalSession:
    """cogkit on a terminal of its own, as its foreground process."""

    def __init__(self, cwd: Path, env: Mapping[str, str | None], *arguments: str, columns: int, rows: int) -> None:
        self.master, slave = os.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cogkit", *arguments],
            cwd=cwd,
            env=cogkit_environment(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.raw = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern: str, within: float = 60.0) -> str:
        """What it printed since the last call, as soon as that matches."""
        deadline, seen = time.monotonic() + within, ""
        while not re.search(pattern, seen):
            assert time.monotonic() < deadline, f"no {pattern!r}: {seen}"
            piece = self._read()
            assert piece is not None, f"it ended before {pattern!r}: {seen}"
            seen += piece
        return seen

    def read_until_quiet(self, seconds: float) -> str:
        """What it prints until it has printed nothing for ``seconds``."""
        seen = ""
        while piece := self._read(seconds):
            seen += piece
        return seen

    def read_to_end(self, within: float = 60.0) -> str:
        deadline, seen = time.monotonic() + within, ""
        while (piece := self._read()) is not None:
            seen += piece
            assert time.monotonic() < deadline, seen
        self.process.wait(60)
        os.close(self.master)
        return seen

    def _read(self, seconds: float = 0.1) -> str | None:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return ""
        try:
            return os.read(self.master, 65536).decode(errors="replace") or None
        except OSError:
            return None


@pytest.fixture
def terminal_env(buildkitd: Buildkitd) -> dict[str, str | None]:
    return {"BUILDKIT_HOST": buildkitd.address, "TERM": "xterm-256color"}


def uncolored(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_live_view_of_a_build_on_a_terminal(project: Path, terminal_env: dict[str, str | None]) -> None:
    session = TerminalSession(project, terminal_env, "build", "--no-cache", "-t", "named", columns=60, rows=30)
    text = session.read_to_end()
    assert session.process.returncode == 0, text
    assert "\x1b[34m" in text
    screen = Screen(60, 30)
    screen.feed(uncolored(text))
    lines = screen.text.split("\n")
    assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(\d+/\d+\) FINISHED", lines[0])
    steps = [line for line in lines if re.fullmatch(r" => \S.* \d+\.\ds", line)]
    assert all(len(line) == 60 for line in steps)
    assert any(line.startswith(" => [one 2/2] RUN for i in 1 2 3; do echo one") for line in steps)
    assert any(line.startswith(" => => transferring context: ") for line in steps)
    assert any(line.startswith(" => exporting to image") for line in steps)
    assert re.fullmatch(r"Image built as .*named.* \(sha256:\w+", "".join(lines[-2:-1]))
    assert screen.cursor_shown
    assert screen.scrolled == []


@pytest.mark.needs_newer_buildkit("warnings of the Dockerfile linter")
def test_the_live_view_shows_a_warning(odd_project: Path, terminal_env: dict[str, str | None]) -> None:
    session = TerminalSession(odd_project, terminal_env, "build", columns=60, rows=30)
    assert "\x1b[33m => WARN: " in session.read_to_end()


def test_the_live_view_shows_the_output_of_a_running_step(project: Path, terminal_env: dict[str, str | None]) -> None:
    session = TerminalSession(project, terminal_env, "build", "--no-cache", columns=100, rows=30)
    assert "=> => # one 1" in session.read_until("=> # one 2")
    session.read_to_end()


def test_a_failed_build_on_a_terminal_is_red_and_says_why(
    context_tree: MakeTree, terminal_env: dict[str, str | None]
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo because; exit 3\n"})
    text = TerminalSession(project, terminal_env, "build", "--no-cache", columns=60, rows=30).read_to_end()
    assert "\x1b[31m => ERROR [2/2] RUN echo because; exit 3" in text
    assert "\x1b[31merror:\x1b[0m failed to solve" in text
    screen = Screen(60, 40)
    screen.feed(uncolored(text))
    assert re.search(r"------\n > \[2/2\] RUN echo because; exit 3:\n\d\.\d+ because\n------\n", screen.text)
    assert "   2 | >>> RUN echo because; exit 3\n" in screen.text
    assert screen.cursor_shown


def test_no_color_is_honoured(project: Path, terminal_env: dict[str, str | None]) -> None:
    text = TerminalSession(project, terminal_env | {"NO_COLOR": "1"}, "build", columns=60, rows=30).read_to_end()
    assert "FINISHED" in text
    assert not re.search(r"\x1b\[[0-9;]*m", text)


def test_a_dumb_terminal_gets_plain_lines(project: Path, terminal_env: dict[str, str | None]) -> None:
    text = TerminalSession(project, terminal_env | {"TERM": "dumb"}, "build", columns=60, rows=30).read_to_end()
    assert "#1 [internal] load build definition" in text
    assert "\x1b" not in text


def test_a_window_that_changes_its_size_in_mid_build(
    context_tree: MakeTree, terminal_env: dict[str, str | None]
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1.5; echo some more; sleep 1\n"})
    session = TerminalSession(project, terminal_env, "build", "--no-cache", "-t", "named", columns=100, rows=50)
    screen = Screen(100, 50)
    # The rest of the drawing, which was made for the old width.
    screen.feed(uncolored(session.read_until("# begun") + session.read_until_quiet(0.04)))
    session.resize(40, 50)
    screen.resize(40)
    screen.feed(uncolored(session.read_to_end()))
    assert session.process.returncode == 0
    assert screen.lines[0].startswith("[+] Building")
    assert screen.text.count("Building") == 1


def test_ctrl_c_on_the_terminal_leaves_it_in_order(context_tree: MakeTree, terminal_env: dict[str, str | None]) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 60\n"})
    session = TerminalSession(project, terminal_env, "build", "--no-cache", columns=80, rows=30)
    text = session.read_until("=> # begun")
    os.write(session.master, b"\x03")
    text += session.read_to_end(within=60)
    assert session.process.returncode == 130
    screen = Screen(80, 30)
    screen.feed(uncolored(text))
    assert screen.cursor_shown
    assert screen.text.endswith("error: interrupted")


def test_a_terminal_that_closes_ends_the_build(context_tree: MakeTree, terminal_env: dict[str, str | None]) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 60\n"})
    session = TerminalSession(project, terminal_env, "build", "--no-cache", columns=80, rows=30)
    session.read_until("=> # begun")
    os.close(session.master)
    assert session.process.wait(60) == 130
