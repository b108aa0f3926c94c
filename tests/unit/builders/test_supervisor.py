"""The parts of the private builder's supervisor that need no daemon."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from cogkit.builders import folders, supervisor
from cogkit.builders.supervisor import LogFile, connections, locked


def test_a_log_stays_within_its_bound(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", limit=1000)
    for number in range(500):
        log.write(f"line {number:04}\n".encode())
    parts = sorted(tmp_path.iterdir())
    assert [part.name for part in parts] == ["log", "log.1", "log.2"]
    assert all(part.stat().st_size <= 1000 for part in parts)
    assert (tmp_path / "log").read_text().endswith("line 0499\n")


def test_a_log_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    LogFile(tmp_path / "log").write(b"first\n")
    LogFile(tmp_path / "log").write(b"second\n")
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_a_lock_is_had_by_one_and_shared_by_many(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first, locked(path, patience=0) as second:
        assert (first, second) == (True, False)
    with locked(path, shared=True) as first, locked(path, shared=True, patience=0) as second:
        assert (first, second) == (True, True)
        with locked(path, patience=0) as alone:
            assert not alone
    with locked(path, patience=0) as after:
        assert after


def test_connected_clients_are_counted() -> None:
    with tempfile.TemporaryDirectory(prefix="ck-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, "socket")
        listener.bind(str(path))
        listener.listen()
        assert connections(path) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            server, _ = listener.accept()
            with server:
                assert connections(path) == 1
        assert connections(Path(f"{path}x")) == 0


def test_a_state_that_is_not_one_is_none(tmp_path: Path) -> None:
    assert supervisor.read_state(tmp_path) is None
    for text in ("", "{", "[]", "{}", '{"address": 1}'):
        (tmp_path / supervisor.STATE).write_text(text)
        assert supervisor.read_state(tmp_path) is None


def test_a_folder_for_sockets_is_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    supervisor.check_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(supervisor.StartError, match="belongs to somebody else"):
        supervisor.check_private(link)


def test_a_socket_has_a_path_that_is_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("x" * 120)))
    folder = folders.socket_folder()
    assert len(os.fsencode(folder / supervisor.SOCKET)) <= 107
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("y" * 120)))
    assert folders.socket_folder() != folder


def test_a_runtime_folder_of_others_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="ck-") as short:
        runtime = Path(short, "run")
        runtime.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        monkeypatch.setenv("XDG_STATE_HOME", str(Path(short, "state")))
        assert folders.socket_folder() == runtime / "cogkit"
        runtime.chmod(0o777)
        assert folders.socket_folder() == Path(short, "state", "cogkit", "run")
