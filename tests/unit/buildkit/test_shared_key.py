"""The node's identity, and the key under which the daemon keeps a folder's files."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cogkit.buildkit.shared_key import node_id, node_id_path, shared_key


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def test_the_identity_is_made_once_and_private(config_dir: Path) -> None:
    first = node_id()
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert node_id() == first
    file = config_dir / "cogkit" / "node-id"
    assert file.read_text() == first + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["node-id"]


def test_two_nodes_have_two_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = node_id()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert node_id() != first


def test_processes_that_start_at_once_agree(config_dir: Path) -> None:
    code = "import sys; sys.stdin.read(1); from cogkit.buildkit.shared_key import node_id; print(node_id())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    ids = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert ids == {node_id()}
    assert os.listdir(config_dir / "cogkit") == ["node-id"]


@pytest.mark.parametrize("content", [b"", b"\n", b"not an id", b"\xff" * 40, b"a" * 5000])
def test_a_damaged_file_is_replaced(config_dir: Path, content: bytes) -> None:
    file = config_dir / "cogkit" / "node-id"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    identity = node_id()
    assert file.read_text().strip() == identity == node_id()
    assert os.listdir(file.parent) == ["node-id"]


def test_where_nothing_can_be_kept_the_identity_is_derived_and_stable(config_dir: Path) -> None:
    config_dir.write_text("a file in the way")
    identity = node_id()
    assert re.fullmatch("[0-9a-f]{32}", identity)
    assert node_id() == identity
    for source in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if os.path.exists(source):
            assert Path(source).read_text().strip() not in ("", identity)


def test_a_file_system_without_hard_links_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_link)
    assert node_id() == node_id()


def test_root_leaves_nothing_in_the_home_of_another_user(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_dir.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "stat", lambda _, **__: os.stat_result((0o40755, 0, 0, 0, 1000, 0, 0, 0, 0, 0)))
    assert node_id() == node_id()
    assert os.listdir(config_dir) == []


def test_the_config_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert node_id_path() == Path("/home/somebody/.config/cogkit/node-id")
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert node_id_path() == Path("/home/somebody/.config/cogkit/node-id")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg-of-mine")
    assert node_id_path() == Path("/etc/xdg-of-mine/cogkit/node-id")


def test_a_folder_has_one_key_by_whatever_way_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "link").symlink_to("project")
    monkeypatch.chdir(project)
    keys = {shared_key(path) for path in (project, tmp_path / "link", Path(), Path("../project"), Path("."))}
    assert len(keys) == 1
    assert re.fullmatch("[0-9a-f]{32}", keys.pop())


def test_two_folders_of_the_same_name_have_two_keys(tmp_path: Path) -> None:
    assert shared_key(tmp_path / "a" / "app") != shared_key(tmp_path / "b" / "app")


def test_roles_of_one_folder_have_their_own_keys(tmp_path: Path) -> None:
    assert len({shared_key(tmp_path), shared_key(tmp_path, "cog_build"), shared_key(tmp_path, "other")}) == 3
    assert shared_key(tmp_path) == shared_key(tmp_path, "context")


def test_two_nodes_have_two_keys_for_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shared_key(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert shared_key(tmp_path) != first


def test_a_key_tells_neither_the_path_nor_the_node(tmp_path: Path) -> None:
    key = shared_key(tmp_path / "secret-project")
    assert "secret" not in key
    assert node_id() not in key


def test_a_folder_whose_name_is_not_unicode_has_a_key(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    assert re.fullmatch("[0-9a-f]{32}", shared_key(Path(os.fsdecode(folder))))
