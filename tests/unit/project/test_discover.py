"""Which project `cogkit build [--context DIR] [-f FILE]` is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import ConfigError, UsageError
from cogkit.project.discover import Project, ProjectKind, find_project, resolve_project


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user stands in ``here``; its parent is the test's own folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    go(folder, monkeypatch)
    return folder


def go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def cog(root: Path, config: str = "cog.yaml") -> Project:
    return Project(ProjectKind.COG, root, config_path=root / config)


def dockerfile(root: Path, path: Path) -> Project:
    return Project(ProjectKind.DOCKERFILE, root, dockerfile_path=path)


def test_the_config_is_found_in_the_folder_itself(here: Path) -> None:
    make(here / "cog.yaml")
    assert resolve_project() == find_project() == cog(here)


def test_the_config_is_found_upward(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here / "cog.yaml")
    deep = here / "a" / "b"
    deep.mkdir(parents=True)
    go(deep, monkeypatch)
    assert resolve_project() == find_project() == cog(here)
    assert find_project(here / "a") == cog(here)


def test_the_nearest_config_wins(here: Path) -> None:
    make(here / "cog.yaml")
    make(here / "sub" / "cog.yaml")
    (here / "sub" / "deep").mkdir()
    assert find_project("sub/deep") == cog(here / "sub")


def test_no_config_anywhere_says_what_was_looked_for_and_what_to_do(here: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_project()
    assert caught.value.message == f"cog.yaml not found in {here} (or in any parent directories)"
    assert "cogkit init" in (caught.value.hint or "")


def test_a_config_of_another_name_is_searched_upward_too(here: Path) -> None:
    make(here / "cog-gpu.yaml")
    (here / "sub").mkdir()
    assert find_project("sub", "cog-gpu.yaml") == cog(here, "cog-gpu.yaml")


def test_upward_leads_through_the_link_that_the_user_came_by(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(here / "cog.yaml")
    elsewhere = tmp_path / "elsewhere" / "src"
    elsewhere.mkdir(parents=True)
    (here / "src").symlink_to(elsewhere)
    go(here / "src", monkeypatch)
    assert find_project() == cog(here)


def test_a_pwd_that_is_not_true_is_ignored(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here / "cog.yaml")
    for lie in (str(tmp_path), "/no/such/folder", "relative", ""):
        monkeypatch.setenv("PWD", lie)
        assert find_project() == cog(here)
    monkeypatch.delenv("PWD")
    assert find_project() == cog(here)


def test_a_current_folder_that_is_gone_is_a_clear_error(here: Path) -> None:
    here.rmdir()
    with pytest.raises(ConfigError, match="current folder does not exist"):
        find_project()


def test_a_config_that_is_a_folder_or_a_dangling_link_is_not_passed_by(here: Path) -> None:
    make(here / "cog.yaml")
    (here / "folder" / "cog.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="a folder and not a file") as caught:
        find_project("folder")
    assert caught.value.where == str(here / "folder" / "cog.yaml")
    (here / "link").mkdir()
    (here / "link" / "cog.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="a link to nowhere, which does not exist"):
        find_project("link")


def test_a_plain_dockerfile_is_built_when_there_is_no_config(here: Path) -> None:
    path = make(here / "Dockerfile")
    assert resolve_project() == dockerfile(here, path)
    assert resolve_project(here) == dockerfile(here, path)


def test_a_lower_case_dockerfile_serves_if_it_is_the_only_one(here: Path) -> None:
    lower = make(here / "dockerfile")
    assert resolve_project() == dockerfile(here, lower)
    upper = make(here / "Dockerfile")
    assert resolve_project() == dockerfile(here, upper)


def test_a_lower_case_dockerfile_serves_also_if_it_was_named(here: Path) -> None:
    lower = make(here / "docker" / "dockerfile")
    assert resolve_project(None, "docker/Dockerfile") == dockerfile(here, lower)
    make(here / "docker" / "other")
    with pytest.raises(ConfigError, match="does not exist"):
        resolve_project(None, "docker/Other")


def test_a_pipe_may_be_a_dockerfile_but_no_config(here: Path) -> None:
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "cog.yaml")
    assert resolve_project(None, "pipe") == dockerfile(here, here / "pipe")
    with pytest.raises(ConfigError, match="a special file and not a file"):
        resolve_project(None, "cog.yaml")


def test_a_config_above_wins_over_a_dockerfile_here(here: Path) -> None:
    make(here / "cog.yaml")
    make(here / "sub" / "Dockerfile")
    assert resolve_project("sub") == cog(here)


def test_a_dockerfile_above_is_not_found(here: Path) -> None:
    make(here / "Dockerfile")
    (here / "sub").mkdir()
    with pytest.raises(ConfigError) as caught:
        resolve_project("sub")
    for part in ("cog.yaml", "Dockerfile", str(here / "sub")):
        assert part in caught.value.message
    assert "cogkit init" in (caught.value.hint or "")


def test_a_yaml_file_makes_a_cog_project_relative_to_where_it_is_found(here: Path) -> None:
    make(here / "configs" / "gpu.yaml")
    make(here / "other.yml")
    assert resolve_project(None, "configs/gpu.yaml") == cog(here, "configs/gpu.yaml")
    assert resolve_project(None, "other.yml") == cog(here, "other.yml")


def test_a_yaml_file_is_searched_upward_like_the_usual_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here / "gpu.yaml")
    (here / "sub").mkdir()
    go(here / "sub", monkeypatch)
    assert resolve_project(None, "gpu.yaml") == cog(here, "gpu.yaml")


def test_an_absolute_yaml_file_belongs_to_its_own_folder_or_to_the_context(here: Path, tmp_path: Path) -> None:
    config = make(tmp_path / "elsewhere" / "x.yaml")
    assert resolve_project(None, str(config)) == cog(tmp_path / "elsewhere", "x.yaml")
    assert resolve_project(here, str(config)) == Project(ProjectKind.COG, here, config_path=config)
    with pytest.raises(ConfigError, match="does not exist"):
        resolve_project(None, str(tmp_path / "nowhere.yaml"))


def test_a_yaml_file_with_a_context_is_sought_here_and_then_in_the_context(here: Path) -> None:
    make(here / "context" / "gpu.yaml")
    assert resolve_project("context", "gpu.yaml") == cog(here / "context", "gpu.yaml")
    mine = make(here / "gpu.yaml")
    assert resolve_project("context", "gpu.yaml") == Project(ProjectKind.COG, here / "context", config_path=mine)


def test_a_missing_yaml_file_says_where_it_was_sought(here: Path) -> None:
    (here / "context").mkdir()
    with pytest.raises(ConfigError) as caught:
        resolve_project("context", "gpu.yaml")
    assert str(here / "gpu.yaml") in caught.value.message
    assert str(here / "context") in caught.value.message


def test_any_other_file_is_a_dockerfile_relative_to_where_the_user_stands(here: Path) -> None:
    make(here / "cog.yaml")
    path = make(here / "docker" / "Dockerfile.dev")
    (here / "context").mkdir()
    assert resolve_project(None, "docker/Dockerfile.dev") == dockerfile(here, path)
    assert resolve_project("context", "docker/Dockerfile.dev") == dockerfile(here / "context", path)
    with pytest.raises(ConfigError, match="Dockerfile does not exist") as caught:
        resolve_project("docker", "Dockerfile.dev")
    assert caught.value.where == str(here / "Dockerfile.dev")


@pytest.mark.parametrize("file", ["-", "", "https://example.com/Dockerfile", "https://example.com/cog.yaml", "a\0b"])
def test_files_of_another_kind_are_refused_by_name(file: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_project(None, file)
    assert exit_code_of(caught.value) == 2


@pytest.mark.parametrize(
    "context",
    [
        "-",
        "",
        "https://example.com/x.git",
        Path("https://example.com/x.git"),
        "git@example.com:x.git",
        "github.com/a/b",
    ],
)
def test_contexts_that_are_not_folders_of_this_machine_are_refused(context: str | Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_project(context)
    assert exit_code_of(caught.value) == 2


def test_a_folder_that_looks_like_a_url_is_a_folder(here: Path) -> None:
    path = make(here / "github.com" / "a" / "Dockerfile")
    assert resolve_project("github.com/a") == dockerfile(here / "github.com" / "a", path)


def test_a_context_that_is_missing_or_a_file_is_a_clear_error(here: Path) -> None:
    with pytest.raises(ConfigError, match="context folder does not exist"):
        resolve_project("nowhere")
    make(here / "file")
    with pytest.raises(ConfigError, match="context is not a folder"):
        resolve_project("file")


def test_finding_a_project_writes_nothing(here: Path) -> None:
    make(here / "cog.yaml")
    resolve_project()
    assert os.listdir(here) == ["cog.yaml"]


def test_a_project_that_is_not_there_is_told_in_cogs_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, name in ((None, "cog.yaml"), ("other.yaml", "other.yaml")):
        with pytest.raises(ConfigError) as caught:
            resolve_project(None, file)
        assert f"{name} not found in {tmp_path} (or in any parent directories)" in caught.value.message
