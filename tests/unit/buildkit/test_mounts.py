"""Guarantees 1 and 2: what a mount hides never leaves, whatever patterns, follow-paths and links ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.buildkit.fsutil.filter import TreeFilter, include_patterns
from cogkit.buildkit.fsutil.follow import follow_links
from cogkit.buildkit.fsutil.walk import ContentReader, Tree
from cogkit.buildkit.mounts import LocalMount
from tests.described import entries_of
from tests.real.tree import Symlink, write_tree

HIDDEN = frozenset({".cog"})


@pytest.fixture
def project(tmp_path: Path) -> LocalMount:
    root = write_tree(
        tmp_path / "project",
        {
            ".cog/secret": "secret",
            ".cog/build/Dockerfile": "FROM scratch",
            ".cog/inner": Symlink("../a"),
            ".cog-backup": "ordinary",
            "sub/.cog/file": "ordinary",
            "a": "a",
            "link": Symlink(".cog/secret"),
            "dir-link": Symlink(".cog"),
        },
    )
    return LocalMount("context", root, hidden=HIDDEN)


def sent(
    mount: LocalMount,
    *,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    follow: list[str] | None = None,
) -> list[str]:
    with Tree(mount) as tree:
        targets = follow_links(tree, follow) if follow is not None else None
        filter = TreeFilter(include_patterns(include, targets), mount.exclude_patterns, exclude or ())
        return [os.fsdecode(entry.path) for entry in entries_of(tree.walk(filter))]


def test_the_hidden_directory_is_not_sent_and_its_namesakes_are(project: LocalMount) -> None:
    assert sent(project) == [".cog-backup", "a", "dir-link", "link", "sub", "sub/.cog", "sub/.cog/file"]


@pytest.mark.parametrize(
    "asked",
    [
        {"exclude": ["*", "!.cog"]},
        {"exclude": ["*", "!.cog/**"]},
        {"exclude": ["**", "!**/secret", "!.cog/secret"]},
        {"include": [".cog"]},
        {"include": [".cog/secret"]},
        {"include": ["**/secret", ".cog/**", "./.cog", "a/../.cog"]},
        {"follow": [".cog"]},
        {"follow": [".cog/secret"]},
        {"follow": ["link"]},
        {"follow": ["dir-link/secret"]},
        {"follow": ["dir-link/*", ".c*/*", ".cog/*"]},
        {"include": [".cog"], "exclude": ["!.cog"], "follow": ["/.cog/./build"]},
    ],
    ids=repr,
)
def test_the_hidden_directory_is_not_sent_whatever_the_daemon_asks_for(
    project: LocalMount, asked: dict[str, list[str]]
) -> None:
    for path in sent(project, **asked):
        assert path != ".cog" and not path.startswith(".cog/"), path


def test_a_link_into_the_hidden_directory_is_sent_as_the_link_it_is(project: LocalMount) -> None:
    with Tree(project) as tree:
        links = {entry.path: entry.linkname for entry in entries_of(tree.walk()) if entry.linkname}
        reader = ContentReader(tree)
        assert links == {b"link": b".cog/secret", b"dir-link": b".cog"}
        for path in (b"link", b"dir-link/secret", b".cog/secret", b"sub/../.cog/secret"):
            assert list(reader.read(path, 100)) == []
        assert list(reader.read(b"sub/.cog/file", 100)) == [b"ordinary"]
        reader.close()


def test_links_in_the_hidden_directory_are_not_read_for_follow_paths(project: LocalMount) -> None:
    with Tree(project) as tree:
        assert follow_links(tree, [".cog/inner"]) == [".cog/inner"]
        assert follow_links(tree, [".cog/*"]) == [".cog/*"]
    with Tree(LocalMount("context", project.root)) as tree:
        assert follow_links(tree, [".cog/inner"]) == [".cog/inner", "a"]


def test_a_hidden_name_that_is_a_link_is_not_read_for_follow_paths(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {".cog": Symlink("a"), "a": "", "other": Symlink("a")})
    with Tree(LocalMount("context", root, hidden=HIDDEN)) as tree:
        assert follow_links(tree, [".cog"]) == [".cog"]
        assert follow_links(tree, [".c*"]) == [".c*"]
    with Tree(LocalMount("dockerfile", root, only=frozenset({"a"}))) as tree:
        assert follow_links(tree, ["other"]) == ["other"]
        assert follow_links(tree, ["oth*"]) == ["oth*"]


def test_the_hidden_directory_is_never_opened(project: LocalMount, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    real_open = os.open

    def spy(path: bytes, *args: int, **kwargs: int) -> int:
        opened.append(path)
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    sent(project, exclude=["!.cog"], follow=[".cog/*", "link", "dir-link/x", "a", "sub"], include=["**"])
    assert b"sub" in opened
    # The only ".cog" that was opened is the ordinary one in "sub", right after it.
    assert opened.count(b".cog") == 1 and opened[opened.index(b".cog") - 1] == b"sub"


def test_a_directory_swapped_for_a_link_to_the_hidden_one_leads_nowhere(project: LocalMount) -> None:
    with Tree(project) as tree:
        list(tree.walk())
        (project.root / "sub").rename(project.root / "old")
        (project.root / "sub").symlink_to(".cog")
        reader = ContentReader(tree)
        assert list(reader.read(b"sub/secret", 100)) == []
        reader.close()
    assert [path for path in sent(project) if path.startswith("sub")] == ["sub"]


def test_what_a_hidden_link_leads_to_is_hidden_too(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"store/secret": "x", "deep/er/secret": "x", "a": "", ".cog": Symlink("store")})
    assert sent(LocalMount("context", root, hidden=HIDDEN)) == ["a", "deep", "deep/er", "deep/er/secret"]
    (root / ".cog").unlink()
    (root / ".cog").symlink_to("deep/er")
    assert sent(LocalMount("context", root, hidden=HIDDEN)) == ["a", "deep", "store", "store/secret"]


def test_a_hidden_directory_moved_to_another_name_during_the_build_stays_hidden(project: LocalMount) -> None:
    with Tree(project) as tree:
        (project.root / ".cog").rename(project.root / "moved")
        paths = [entry.path for entry in entries_of(tree.walk())]
        reader = ContentReader(tree)
        assert list(reader.read(b"moved/secret", 100)) == []
        reader.close()
    assert b"moved/secret" not in paths


def test_the_dockerfile_mount_offers_its_files_and_nothing_else(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "Dockerfile": "",
            "Dockerfile.dockerignore": "",
            "Dockerfile.old": "old",
            "sub/Dockerfile": "other",
            "secret": "secret",
        },
    )
    mount = LocalMount("dockerfile", root, only=frozenset({"Dockerfile", "Dockerfile.dockerignore"}))
    assert sent(mount) == ["Dockerfile", "Dockerfile.dockerignore"]
    assert sent(mount, include=["secret", "sub/**"], follow=["secret", "sub/Dockerfile"]) == []
    assert sent(mount, exclude=["!secret"]) == ["Dockerfile", "Dockerfile.dockerignore"]
    assert sent(mount, follow=["Dockerfile", "dockerfile", "Dockerfile.dockerignore"]) == [
        "Dockerfile",
        "Dockerfile.dockerignore",
    ]
    with Tree(mount) as tree:
        reader = ContentReader(tree)
        assert list(reader.read(b"secret", 100)) == list(reader.read(b"sub/Dockerfile", 100)) == []
        reader.close()


def test_a_link_on_the_dockerfile_mount_does_not_lead_to_the_rest_of_the_folder(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"Dockerfile": Symlink("real"), "real": "FROM scratch", "dir/a": ""})
    mount = LocalMount("dockerfile", root, only=frozenset({"Dockerfile"}))
    assert sent(mount, follow=["Dockerfile"]) == ["Dockerfile"]


def test_patterns_of_the_mount_hold_beside_those_of_the_daemon(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a/keep": "", "a/drop": "", "b": "", "c": ""})
    mount = LocalMount("context", root, exclude_patterns=("a", "!a/keep", "b"))
    assert sent(mount) == ["a", "a/keep", "c"]
    assert sent(mount, exclude=["c", "!b", "!a/drop"]) == ["a", "a/keep"]
    assert sent(mount, include=["a/drop", "b", "c"]) == ["c"]
