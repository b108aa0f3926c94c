"""Files that appear whole or not at all, where the system has files without names and where it has none."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cogkit import atomic_file
from cogkit.atomic_file import NewFile, create_whole, replace_whole, usual_mode


@pytest.fixture(params=["unnamed", "hidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "hidden":
        monkeypatch.setattr(atomic_file, "open_unnamed", lambda directory: None)
    return str(request.param)


def fails(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Let a call of ``os`` fail, as the kernel would."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def new_file(folder: Path) -> NewFile:
    return NewFile(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_is_created_with_the_mode_that_was_asked_for(tmp_path: Path, way: str) -> None:
    create_whole(tmp_path / "private", b"data", 0o640)
    create_whole(tmp_path / "usual", b"x" * 3_000_000)
    assert (tmp_path / "private").read_bytes() == b"data"
    assert (tmp_path / "usual").read_bytes() == b"x" * 3_000_000
    assert mode(tmp_path / "private") == 0o640
    assert mode(tmp_path / "usual") == usual_mode()
    assert sorted(os.listdir(tmp_path)) == ["private", "usual"]


def test_the_umask_is_read_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        assert usual_mode() == 0o640
        monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
        assert usual_mode() == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@pytest.mark.parametrize("there", ["file", "link to nothing", "folder"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, way: str, there: str) -> None:
    place = tmp_path / "place"
    match there:
        case "file":
            place.write_text("old")
        case "link to nothing":
            place.symlink_to("nowhere")
        case "folder":
            place.mkdir()
    before = place.lstat()
    opened = open_files()
    with pytest.raises(FileExistsError):
        create_whole(place, b"new")
    assert place.lstat() == before
    assert os.listdir(tmp_path) == ["place"]
    assert open_files() == opened


def test_a_file_is_replaced_and_a_link_to_it_is_not_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    replace_whole(tmp_path / "link", b"new", 0o600)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "rename"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, way: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")
    opened = open_files()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        fails(patch, call, errno.ENOSPC)
        replace_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    assert open_files() == opened


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_hard_links_is_fine(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, "link", number)
    create_whole(tmp_path / "file", b"data")
    with pytest.raises(FileExistsError):
        create_whole(tmp_path / "file", b"other")
    replace_whole(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_system_that_syncs_no_directories_is_fine(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_only(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", files_only)
    create_whole(tmp_path / "file", b"data")
    replace_whole(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_another_failure_of_a_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, "link", errno.EDQUOT)
    with pytest.raises(OSError, match="quota"):
        create_whole(tmp_path / "file", b"data")
    assert os.listdir(tmp_path) == []


def test_a_file_is_private_and_unseen_until_it_has_its_name(tmp_path: Path, way: str) -> None:
    file = new_file(tmp_path)
    assert stat.S_IMODE(os.fstat(file.fd).st_mode) == 0o600
    assert all(name.startswith(".cogkit-") for name in os.listdir(tmp_path))
    file.close()
    file.close()
    assert os.listdir(tmp_path) == []


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without names")
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from cogkit.atomic_file import NewFile\n"
            "file = NewFile(os.open(sys.argv[1], os.O_RDONLY))\n"
            "os.write(file.fd, b'half')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n",
            tmp_path,
        ],
        check=False,
    )
    assert killed.returncode == -9
    assert os.listdir(tmp_path) == []
