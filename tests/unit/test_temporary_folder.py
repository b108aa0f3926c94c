"""Temporary folders of killed processes are removed by whoever makes the next one; those that are in use stay."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cogkit.temporary_folder import PREFIX, TemporaryFolder

as_root = os.geteuid() == 0

HOLD = """
import sys
from cogkit.temporary_folder import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "sub").mkdir()
(folder.path / "sub" / "file").write_text("secret")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is taken for the system's temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def hold() -> subprocess.Popen[str]:
    """A process that has a temporary folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert Path(process.stdout.readline().strip()).is_dir()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def test_it_is_private_and_gone_when_it_is_closed(folder: Path) -> None:
    with TemporaryFolder() as made:
        assert made.path.parent == folder
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
        (made.path / "file").touch()
    made.close()
    assert list(folder.iterdir()) == []


def test_that_of_a_killed_process_is_removed_by_the_next(folder: Path) -> None:
    end(hold())
    (left,) = folder.iterdir()
    with TemporaryFolder() as made:
        assert not left.exists()
        assert list(folder.iterdir()) == [made.path]


def test_that_of_a_running_process_stays(folder: Path) -> None:
    process = hold()
    try:
        (theirs,) = folder.iterdir()
        TemporaryFolder().close()
        assert (theirs / "sub" / "file").read_text() == "secret"
    finally:
        end(process)


def test_nothing_else_is_taken_for_one(folder: Path) -> None:
    precious = folder / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (folder / f"{PREFIX}link").symlink_to(precious)
    (folder / f"{PREFIX}file").touch()
    (folder / "cogkit-folder").mkdir()
    names = {"precious", f"{PREFIX}link", f"{PREFIX}file", "cogkit-folder"}
    if as_root:  # only root can give a folder to another user
        (folder / f"{PREFIX}theirs").mkdir()
        os.chown(folder / f"{PREFIX}theirs", 12345, 12345)
        names.add(f"{PREFIX}theirs")
    TemporaryFolder().close()
    assert set(os.listdir(folder)) == names
    assert (precious / "file").exists()


def test_those_who_make_and_remove_at_once_do_not_disturb_each_other(folder: Path) -> None:
    script = (
        "from cogkit.temporary_folder import TemporaryFolder\n"
        "for number in range(60):\n"
        "    with TemporaryFolder() as made:\n"
        "        for name in 'abc': (made.path / name).write_text(name)\n"
        "        assert sorted(p.name for p in made.path.iterdir()) == ['a', 'b', 'c']\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(4)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert ends == [(b"", 0)] * 4
    assert list(folder.iterdir()) == []


def test_a_socket_gets_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    with TemporaryFolder(for_socket=True) as made:
        assert made.path.parent == Path("/tmp")
