"""What is staged: local packages from inside the project only, and bytes that are the same for everyone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cogkit.dockerfile import StagedFile, stage
from cogkit.dockerfile.staging import find_artifacts
from cogkit.errors import ConfigError
from cogkit.project.requirements import Requirement


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / "a-1.0-py3-none-any.whl").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b-1.0-py3-none-any.whl").write_bytes(b"secret")
    return folder


def find(project: Path, text: str) -> list[tuple[Path, str]]:
    found = find_artifacts([Requirement(text, "r.txt:1")], project_dir=project, relative_to=project)
    return [(artifact.source, artifact.relative) for artifact in found]


def test_a_wheel_in_the_project_is_found(project: Path) -> None:
    wheel = project / "dist" / "a-1.0-py3-none-any.whl"
    expected = [(wheel.resolve(), "dist/a-1.0-py3-none-any.whl")]
    assert find(project, "./dist/a-1.0-py3-none-any.whl") == expected
    assert find(project, str(wheel)) == expected
    assert find(project, "dist/../dist/a-1.0-py3-none-any.whl") == expected


def test_a_link_in_the_project_keeps_its_name_and_gives_the_file_behind_it(project: Path) -> None:
    (project / "b-2.0-py3-none-any.whl").symlink_to("dist/a-1.0-py3-none-any.whl")
    assert find(project, "./b-2.0-py3-none-any.whl") == [
        ((project / "dist" / "a-1.0-py3-none-any.whl").resolve(), "b-2.0-py3-none-any.whl")
    ]


def _parent(project: Path) -> str:
    return "../outside/b-1.0-py3-none-any.whl"


def _file_link(project: Path) -> str:
    (project / "c.whl").symlink_to("../outside/b-1.0-py3-none-any.whl")
    return "./c.whl"


def _folder_link(project: Path) -> str:
    (project / "linked").symlink_to("../outside")
    return "./linked/b-1.0-py3-none-any.whl"


def _absolute(project: Path) -> str:
    return str(project.parent / "outside" / "b-1.0-py3-none-any.whl")


@pytest.mark.parametrize("way", [_parent, _file_link, _folder_link, _absolute])
def test_no_way_leads_to_a_package_outside_of_the_project(project: Path, way: Callable[[Path], str]) -> None:
    with pytest.raises(ConfigError, match="must be inside the project directory") as caught:
        find(project, way(project))
    assert caught.value.where == "r.txt:1"


def test_a_project_reached_by_a_link_is_still_the_project(project: Path) -> None:
    link = project.parent / "link"
    link.symlink_to(project)
    found = find_artifacts(
        [Requirement("./dist/a-1.0-py3-none-any.whl", "r.txt:1")], project_dir=link, relative_to=link
    )
    assert [artifact.relative for artifact in found] == ["dist/a-1.0-py3-none-any.whl"]


def test_a_package_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        find(project, "./nowhere.whl")
    (project / "loop.whl").symlink_to("loop.whl")
    with pytest.raises(ConfigError, match="not found"):
        find(project, "./loop.whl")


def test_a_package_that_is_no_file_is_told(project: Path) -> None:
    (project / "folder.whl").mkdir()
    with pytest.raises(ConfigError, match="must be a regular file"):
        find(project, "./folder.whl")


# writing


@pytest.fixture
def build_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "build"
    folder.mkdir()
    return folder


def test_files_are_written_with_the_folders_they_need(build_dir: Path) -> None:
    stage([StagedFile("deep/er/a.txt", content=b"x"), StagedFile("b", content=b"")], build_dir)
    assert (build_dir / "deep/er/a.txt").read_bytes() == b"x"
    assert (build_dir / "b").read_bytes() == b""


def test_a_source_is_copied(project: Path, build_dir: Path) -> None:
    source = (project / "dist" / "a-1.0-py3-none-any.whl").resolve()
    stage(
        [StagedFile("w/a.whl", source=source, inside=project.resolve()), StagedFile("x.whl", source=source)], build_dir
    )
    assert (build_dir / "w/a.whl").read_bytes() == b"inside"
    assert (build_dir / "x.whl").read_bytes() == b"inside"


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_put_in_after_the_check_is_not_followed(project: Path, build_dir: Path, swapped: str) -> None:
    source = (project / "dist" / "a-1.0-py3-none-any.whl").resolve()
    file = StagedFile("a.whl", source=source, inside=project.resolve())
    source.unlink()
    if swapped == "file":
        source.symlink_to(project.parent / "outside" / "b-1.0-py3-none-any.whl")
    else:
        source.parent.rmdir()
        source.parent.symlink_to(project.parent / "outside")
        (project.parent / "outside" / source.name).write_bytes(b"secret")
    with pytest.raises(ConfigError, match="failed to stage"):
        stage([file], build_dir)


def test_a_source_outside_its_folder_is_refused(project: Path, build_dir: Path) -> None:
    outside = project.parent / "outside" / "b-1.0-py3-none-any.whl"
    with pytest.raises(ConfigError, match="outside the project directory"):
        stage([StagedFile("a.whl", source=outside, inside=project)], build_dir)


def test_a_fifo_put_in_the_place_of_a_source_does_not_hang(project: Path, build_dir: Path) -> None:
    source = (project / "dist" / "a-1.0-py3-none-any.whl").resolve()
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(ConfigError, match="must be a regular file"):
        stage([StagedFile("a.whl", source=source, inside=project.resolve())], build_dir)


def test_nothing_is_written_through_what_lies_there_already(tmp_path: Path, build_dir: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (build_dir / "requirements.txt").symlink_to(victim)
    with pytest.raises(FileExistsError):
        stage([StagedFile("requirements.txt", content=b"x")], build_dir)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", ""])
def test_a_path_cannot_leave_the_build_folder(build_dir: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path below the build folder"):
        stage([StagedFile(path, content=b"x")], build_dir)
