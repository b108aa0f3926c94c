"""What version control says of a build's sources, with the real git."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cogkit.project.vcs import ask_vcs, redacted
from tests.real.web import git, git_environment


def repository(folder: Path, *, commit: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "app" / "docker").mkdir(parents=True)
    (folder / "app" / "Dockerfile").write_text("FROM scratch")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    if commit:
        git(folder, "commit", "--quiet", "--message=one")
    return folder


def answer(folder: Path, **environ: str) -> Mapping[str, str]:
    questions = ask_vcs(folder, git_environment() | environ)
    if questions is None:
        return {}
    said = questions.answer({"context": folder, "elsewhere": Path("/")}, folder / "Dockerfile")
    assert said.problem is None
    return said.attrs


def test_the_commit_the_remote_and_the_places_are_told(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository")
    commit = git(root, "rev-parse", "HEAD")
    assert answer(root) == {"vcs:revision": commit, "vcs:localdir:context": "."}
    git(root, "remote", "add", "upstream", "https://name:secret@example.com/up.git")
    assert answer(root / "app") == {
        "vcs:revision": commit,
        "vcs:source": "https://xxxxx:xxxxx@example.com/up.git",
        "vcs:localdir:context": "app",
    }
    git(root, "remote", "add", "origin", "git@example.com:x.git")
    assert answer(root)["vcs:source"] == "git@example.com:x.git"
    git(root, "remote", "add", "fork", "short:fork.git")
    git(root, "config", "url.https://example.org/.insteadOf", "short:")
    git(root, "config", "branch.main.remote", "fork")
    assert answer(root)["vcs:source"] == "https://example.org/fork.git"


def test_a_link_to_the_context_is_followed(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository")
    (tmp_path / "link").symlink_to(root / "app")
    assert answer(tmp_path / "link")["vcs:localdir:context"] == "app"


def test_without_a_repository_nothing_is_asked(tmp_path: Path) -> None:
    assert ask_vcs(tmp_path, git_environment()) is None


def test_without_a_commit_or_git_nothing_is_told(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository", commit=False)
    assert answer(root) == {"vcs:localdir:context": "."}
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / ".git").mkdir()
    questions = ask_vcs(tmp_path / "fake", git_environment())
    assert questions is not None
    said = questions.answer({}, None)
    assert said.attrs == {} and said.problem is not None and "not a git repository" in said.problem


def test_buildx_variables_mean_what_they_mean_there(tmp_path: Path) -> None:
    root = repository(tmp_path / "repository")
    git(root, "remote", "add", "origin", "https://example.com/x.git")
    commit = git(root, "rev-parse", "HEAD")
    assert answer(root, BUILDX_GIT_INFO="false") == {}
    labels = {
        "label:org.opencontainers.image.revision": commit,
        "label:org.opencontainers.image.source": "https://example.com/x.git",
        "label:com.docker.image.source.entrypoint": "app/Dockerfile",
    }
    assert answer(root / "app", BUILDX_GIT_INFO="0", BUILDX_GIT_LABELS="1") == labels
    both = answer(root / "app", BUILDX_GIT_LABELS="full")
    assert both == labels | {
        "vcs:revision": commit,
        "vcs:source": "https://example.com/x.git",
        "vcs:localdir:context": "app",
    }
    assert answer(root, BUILDX_GIT_CHECK_DIRTY="1")["vcs:revision"] == commit
    (root / "new").touch()
    assert answer(root, BUILDX_GIT_CHECK_DIRTY="1")["vcs:revision"] == f"{commit}-dirty"


def test_questions_that_nobody_waits_for_leave_no_process(tmp_path: Path) -> None:
    questions = ask_vcs(repository(tmp_path / "repository"), git_environment())
    assert questions is not None
    questions.abandon()
    questions.abandon()
    assert all(process.returncode is not None for process in questions._asked.values())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/x.git", "https://example.com/x.git"),
        ("https://name@example.com/x", "https://xxxxx@example.com/x"),
        ("https://:token@example.com/x", "https://:xxxxx@example.com/x"),
        ("ssh://git:pw@example.com:22/x", "ssh://xxxxx:xxxxx@example.com:22/x"),
        ("git@example.com:x", "git@example.com:x"),
        ("/srv/x.git", "/srv/x.git"),
        ("http://[", "http://["),
    ],
)
def test_credentials_are_not_sent(url: str, expected: str) -> None:
    assert redacted(url) == expected
