"""What `cogkit init` writes, and that it overwrites nothing."""

from __future__ import annotations

import ast
import errno
import os
import stat
from pathlib import Path

import pytest
import yaml

from cogkit.atomic_file import NewFile
from cogkit.errors import ConfigError, OutputError
from cogkit.project.init import STARTER_FILES, init_project

NAMES = ["cog.yaml", "run.py", "requirements.txt", ".dockerignore"]


def test_an_empty_folder_gets_all_four_files(tmp_path: Path) -> None:
    files = init_project(tmp_path)
    assert [(file.path, file.created) for file in files] == [(tmp_path / name, True) for name in NAMES]
    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)
    for name in NAMES:
        assert (tmp_path / name).read_text() == STARTER_FILES[name]


def test_what_exists_is_kept_byte_for_byte_and_told(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_bytes(b"mine\r\n")
    (tmp_path / ".dockerignore").mkdir()
    (tmp_path / "requirements.txt").symlink_to("nowhere")
    files = init_project(tmp_path)
    assert [file.created for file in files] == [True, False, False, False]
    assert (tmp_path / "run.py").read_bytes() == b"mine\r\n"
    assert not (tmp_path / "nowhere").exists()
    assert len(os.listdir(tmp_path)) == 4


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    init_project(tmp_path)
    (tmp_path / "cog.yaml").write_text("edited")
    assert [file.created for file in init_project(tmp_path)] == [False] * 4
    assert (tmp_path / "cog.yaml").read_text() == "edited"


def test_the_umask_decides_on_modes_as_for_any_file_of_the_user(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        init_project(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cog.yaml").stat().st_mode) == 0o640


def test_somebody_faster_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = NewFile.create

    def slow(file: NewFile, name: str) -> None:
        (tmp_path / name).write_text("faster")
        create(file, name)

    monkeypatch.setattr(NewFile, "create", slow)
    assert [file.created for file in init_project(tmp_path)] == [False] * 4
    assert {(tmp_path / name).read_text() for name in NAMES} == {"faster"}
    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)


def test_a_file_system_without_hard_links_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_link)
    assert [file.created for file in init_project(tmp_path)] == [True] * 4
    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        init_project(tmp_path)
    assert caught.value.where == str(tmp_path / "cog.yaml")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        init_project(tmp_path / "nowhere")


def test_the_config_names_the_files_and_the_class_that_are_written() -> None:
    config = yaml.safe_load(STARTER_FILES["cog.yaml"])
    assert config["build"]["python_version"] == "3.11"
    assert config["build"]["python_requirements"] in STARTER_FILES
    file, _, name = config["run"].partition(":")
    tree = ast.parse(STARTER_FILES[file])
    (runner,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert runner.name == name
    assert [node.name for node in runner.body if isinstance(node, ast.FunctionDef)] == ["setup", "run"]


def test_the_requirements_ask_for_nothing_by_default() -> None:
    lines = STARTER_FILES["requirements.txt"].splitlines()
    assert all(line.startswith("#") for line in lines)


def test_the_ignore_file_leaves_the_project_itself_in() -> None:
    patterns = {line for line in STARTER_FILES[".dockerignore"].splitlines() if line and not line.startswith("#")}
    assert not patterns & {"*", "**", ".", "cog.yaml", "run.py", "requirements.txt"}
