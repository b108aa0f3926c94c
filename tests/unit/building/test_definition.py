"""The Dockerfile and the ignore file that holds, as a build and ``cogkit context`` read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from cogkit.building.definition import (
    MAX_DOCKERFILE,
    Definition,
    find_ignore_file,
    ignored_links,
    read_definition,
)
from cogkit.errors import ConfigError
from tests.real.tree import Node, Symlink, write_tree

ALL = b"FROM scratch\nCOPY . /\n"


def files_of(definition: Definition) -> Mapping[str, bytes]:
    files = definition.mount.files
    assert files is not None
    return files


def test_nothing_of_the_folder_is_offered_but_the_dockerfile_and_its_ignore_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Dockerfile": ALL, "Dockerfile.dockerignore": "x", "secret": "s", ".dockerignore": "y"})
    definition = read_definition(tmp_path / "Dockerfile")
    assert files_of(definition) == {"Dockerfile": ALL, "Dockerfile.dockerignore": b"x"}
    assert definition.mount.name == "dockerfile"


def test_a_link_keeps_its_name_and_the_ignore_file_beside_it(tmp_path: Path) -> None:
    tree: dict[str, Node] = {
        "there/real": ALL,
        "there/real.dockerignore": "of the target",
        "project/link": Symlink("../there/real"),
        "project/link.dockerignore": "of the link",
        "project/bare": Symlink("../there/real"),
    }
    write_tree(tmp_path, tree)
    assert files_of(read_definition(tmp_path / "project/link")) == {"link": ALL, "link.dockerignore": b"of the link"}
    assert files_of(read_definition(tmp_path / "project/bare")) == {"bare": ALL}


def test_an_own_ignore_file_is_read_through_links_too(tmp_path: Path) -> None:
    write_tree(tmp_path, {"p/Dockerfile": ALL, "p/Dockerfile.dockerignore": Symlink("../shared"), "shared": "secret\n"})
    definition = read_definition(tmp_path / "p/Dockerfile")
    assert files_of(definition)["Dockerfile.dockerignore"] == b"secret\n"
    assert find_ignore_file(tmp_path / "p", definition.ignore).file == definition.ignore


def test_an_own_ignore_file_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Dockerfile": ALL, "Dockerfile.dockerignore": Symlink("gone")})
    with pytest.raises(ConfigError, match="link to gone, which does not exist") as caught:
        read_definition(tmp_path / "Dockerfile")
    assert caught.value.where == str(tmp_path / "Dockerfile.dockerignore")


def test_a_folder_or_a_pipe_is_no_ignore_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Dockerfile": ALL, ".dockerignore": "x\n", "other": ALL})
    (tmp_path / "Dockerfile.dockerignore").mkdir()
    os.mkfifo(tmp_path / "other.dockerignore")
    for name in ("Dockerfile", "other"):
        definition = read_definition(tmp_path / name)
        assert definition.ignore is None
        found = find_ignore_file(tmp_path, definition.ignore).file
        assert found is not None and found.path == tmp_path / ".dockerignore"


def test_an_empty_own_ignore_file_holds_for_every_frontend(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Dockerfile": ALL, "Dockerfile.dockerignore": "", ".dockerignore": "x\n"})
    definition = read_definition(tmp_path / "Dockerfile")
    assert files_of(definition)["Dockerfile.dockerignore"] != b""
    assert find_ignore_file(tmp_path, definition.ignore).file == definition.ignore


def test_a_dockerfile_in_small_letters_may_have_its_ignore_file_under_both_names(tmp_path: Path) -> None:
    write_tree(tmp_path, {"dockerfile": ALL, "Dockerfile.dockerignore": "x"})
    assert files_of(read_definition(tmp_path / "dockerfile")) == {"dockerfile": ALL, "dockerfile.dockerignore": b"x"}


def test_a_name_that_is_not_text_is_not_told_to_the_builder(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.write_bytes(ALL)
    Path(f"{path}.dockerignore").write_text("x")
    assert files_of(read_definition(path)) == {"Dockerfile": ALL, "Dockerfile.dockerignore": b"x"}


def test_what_is_too_large_is_no_dockerfile(tmp_path: Path) -> None:
    with open(tmp_path / "Dockerfile", "wb") as file:
        file.truncate(MAX_DOCKERFILE + 1)
    with pytest.raises(ConfigError, match="too large"):
        read_definition(tmp_path / "Dockerfile")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_another_encoding_is_refused_in_one_sentence(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "Dockerfile").write_bytes("FROM scratch\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"the Dockerfile is (text in UTF-16|not text)") as caught:
        read_definition(tmp_path / "Dockerfile")
    assert caught.value.where == str(tmp_path / "Dockerfile")


def test_a_mark_of_utf8_and_bytes_in_comments_are_the_parsers_business(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf# \xff\r\nFROM scratch\r\n"
    (tmp_path / "Dockerfile").write_bytes(content)
    assert read_definition(tmp_path / "Dockerfile").dockerfile == content


# ---- the context's own


def content_of(root: Path) -> bytes | None:
    found = find_ignore_file(root, None)
    assert (found.file is None) == bool(found.warnings) or not (root / ".dockerignore").exists()
    assert ignored_links(root, None) == (found.warnings if (root / ".dockerignore").is_symlink() else ())
    return None if found.file is None else found.file.content


@pytest.mark.parametrize(
    ("link", "tree"),
    [
        ("ignores/main", {"ignores/main": "found"}),
        ("./ignores/../ignores//main", {"ignores/main": "found"}),
        ("one", {"one": Symlink("two"), "two": Symlink("sub/three"), "sub/three": "found"}),
        ("folder/main", {"folder": Symlink("ignores"), "ignores/main": "found"}),
        ("/ignores/main", {"ignores/main": "found"}),
        ("../../main", {"main": "found"}),
    ],
)
def test_a_link_inside_the_context_is_followed_as_the_builder_does(
    tmp_path: Path, link: str, tree: Mapping[str, Node]
) -> None:
    root = write_tree(tmp_path / "p", {".dockerignore": Symlink(link), **tree})
    assert content_of(root) == b"found"


@pytest.mark.parametrize(
    ("link", "tree", "reason"),
    [
        ("../outside", {}, "leads out of the context"),
        ("gone", {}, "does not exist"),
        (".dockerignore", {}, "does not exist"),
        ("folder", {"folder/a": ""}, "is not a file that builds see"),
        (".", {"a": ""}, "is not a file that builds see"),
        (".cog/ignore", {".cog/ignore": "x"}, "is not a file that builds see"),
        ("ign[1]", {"ign[1]": "x"}, "is not a file that builds see"),
        ("folder/ignore", {"folder": Symlink("../far")}, "leads out of the context"),
    ],
)
def test_a_link_that_the_builder_cannot_follow_is_warned_of(
    tmp_path: Path, link: str, tree: Mapping[str, Node], reason: str
) -> None:
    write_tree(tmp_path, {"outside": "x", "far/ignore": "x"})
    root = write_tree(tmp_path / "p", {".dockerignore": Symlink(link), **tree})
    assert content_of(root) is None
    (warning,) = ignored_links(root, None)
    assert warning.startswith(f"{root / '.dockerignore'} is a link to {link}, which {reason}")


def test_an_absolute_link_is_taken_from_the_contexts_root(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "p", {"real": "x", ".dockerignore": Symlink(str(tmp_path / "p/real"))})
    assert content_of(root) is None
    assert "leads out of the context" in ignored_links(root, None)[0]


def test_the_dockerfiles_own_ignore_file_makes_the_link_not_matter(tmp_path: Path) -> None:
    write_tree(tmp_path, {"Dockerfile": ALL, "Dockerfile.dockerignore": "x", ".dockerignore": Symlink("../gone")})
    assert ignored_links(tmp_path, read_definition(tmp_path / "Dockerfile").ignore) == ()
