"""One destination, one writer, and nothing that is read: told apart as the system does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from cogkit.buildkit.destinations import Destination, Extent, Source, check_apart, name_in
from cogkit.errors import UsageError

FILE, TREE, MIRROR, LAYOUT = Extent

Place = Callable[[str], str]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder with something in it, which is also where we are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("new")
    (tmp_path / "to-folder").symlink_to("folder")
    os.link(tmp_path / "file", tmp_path / "twin")
    return lambda name: f"{tmp_path}/{name}"


def refusal(one: tuple[str, Extent], other: tuple[str, Extent]) -> str:
    """What is said of both, in whatever order they come."""
    said = set()
    for pair in permutations([one, other]):
        with pytest.raises(UsageError) as caught:
            check_apart([Destination(f"<{path}>", path, extent) for path, extent in pair])
        assert caught.value.hint
        said.add(frozenset(str(caught.value).split()))
    assert len(said) == 1
    return str(caught.value)


def passes(*places: tuple[str, Extent]) -> None:
    for order in permutations(places):
        check_apart([Destination(f"<{path}>", path, extent) for path, extent in order])


@pytest.mark.parametrize(
    "names",
    [
        ("file", "file"),
        ("file", "link"),
        ("file", "twin"),
        ("link", "twin"),
        ("file", "folder/../file"),
        ("new", "new"),
        ("new", "./new"),
        ("new", "dangling"),
        ("folder/new", "to-folder/new"),
        ("folder/new/er", "to-folder/./new/er"),
    ],
)
def test_one_file_has_one_writer_however_it_is_spelt(at: Place, names: tuple[str, str]) -> None:
    one, other = names
    assert "go to the same place" in refusal((one, FILE), (other, FILE))
    assert "go to the same place" in refusal((at(one), FILE), (other, FILE))
    assert "go to the same place" in refusal((one, FILE), (at(other), TREE))


@pytest.mark.parametrize("extents", [(TREE, TREE), (TREE, MIRROR), (LAYOUT, LAYOUT), (LAYOUT, TREE), (MIRROR, LAYOUT)])
@pytest.mark.parametrize("names", [("folder", "to-folder"), ("folder", "."), ("new", "new/"), ("new", "folder/../new")])
def test_one_folder_has_one_writer(at: Place, names: tuple[str, str], extents: tuple[Extent, Extent]) -> None:
    one, other = names
    if other == ".":
        one, other = ".", "folder/.."
    assert "go to the same place" in refusal((one, extents[0]), (at(other), extents[1]))


def test_what_is_elsewhere_is_let_be(at: Place) -> None:
    passes(("file", FILE), ("other", FILE), ("folder", TREE), ("new", LAYOUT), ("new2", MIRROR))
    passes(("folder", TREE), ("folder/x.tar", FILE), ("folder/sub", TREE))
    passes(("folder", LAYOUT), ("folder/note", FILE))
    passes(("new", FILE), ("newer", FILE), ("new.d/x", FILE))


@pytest.mark.parametrize("inner", [FILE, TREE, MIRROR, LAYOUT])
@pytest.mark.parametrize("names", [("folder", "folder/x"), ("folder", "to-folder/x/y"), ("new", "new/x"), (".", "new")])
def test_nothing_is_written_where_the_rest_is_deleted(at: Place, names: tuple[str, str], inner: Extent) -> None:
    said = refusal((names[0], MIRROR), (at(names[1]), inner))
    assert said == f"<{names[0]}> deletes what the result does not have, and <{at(names[1])}> lies in it"


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blobs/sha256/x", "blobs"])
def test_nothing_is_written_among_the_files_of_a_layout(at: Place, name: str) -> None:
    assert "among the files of <folder>" in refusal(("folder", LAYOUT), (at(f"to-folder/{name}"), FILE))


def test_no_file_is_a_folder_for_another(at: Place) -> None:
    assert "needs a folder where <new> is a file" in refusal(("new", FILE), ("new/x", FILE))
    assert "needs a folder where <new> is a file" in refusal(("new", FILE), ("new/x", TREE))


def test_what_keeps_nothing_may_have_many_writers(at: Place) -> None:
    passes(("/dev/null", FILE), ("/dev/null", FILE), (os.path.realpath("/dev/null"), FILE))


def test_standard_output_is_the_file_that_it_was_sent_to(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from cogkit.buildkit.destinations import *\n"
        "from cogkit.errors import UsageError\n"
        "for name in ('out', '/dev/stdout', '/dev/fd/1', 'twin'):\n"
        "    try: check_apart([Destination('a', '-', Extent.FILE), Destination('b', name, Extent.FILE)])\n"
        "    except UsageError as error: sys.stderr.write(f'{name} ')\n"
        "check_apart([Destination('a', '-', Extent.FILE), Destination('b', 'other', Extent.FILE)])\n"
    )
    with (tmp_path / "out").open("wb") as out:
        os.link(tmp_path / "out", tmp_path / "twin")
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, cwd=tmp_path, check=True, timeout=120
        )
    assert done.stderr == b"out /dev/stdout /dev/fd/1 twin "


def test_a_second_output_on_standard_output_is_one_too_many(at: Place) -> None:
    assert "go to the same place" in refusal(("-", FILE), ("-", FILE))


@pytest.mark.parametrize("name", ["file", "link", "twin", "folder/../file"])
def test_what_is_read_is_not_overwritten(at: Place, name: str) -> None:
    with pytest.raises(UsageError, match=r"^-o would overwrite the Dockerfile$"):
        check_apart([Destination("-o", name, FILE)], [Source("the Dockerfile", at("file"))])
    check_apart([Destination("-o", "other", FILE)], [Source("the Dockerfile", at("file"))])
    check_apart([Destination("-o", "missing", FILE)], [Source("the Dockerfile", at("missing"))])


def test_what_is_read_is_not_deleted(at: Place) -> None:
    (Path(at("folder")) / "key").write_text("")
    for source in (at("folder/key"), at("folder")):
        with pytest.raises(UsageError, match=r"^-o would delete the key$"):
            check_apart([Destination("-o", "to-folder", MIRROR)], [Source("the key", source)])
        check_apart([Destination("-o", "to-folder", TREE)], [Source("the key", source)])
    check_apart([Destination("-o", "folder/sub", MIRROR)], [Source("the context", at("."))])


def test_what_is_read_from_a_pipe_may_be_written(at: Place) -> None:
    os.mkfifo("pipe")
    check_apart([Destination("-o", "pipe", FILE)], [Source("the secret", "pipe")])


def test_the_first_name_on_the_way_is_found(at: Place) -> None:
    assert name_in(at("."), "to-folder/a/b") == "folder"
    assert name_in(at("to-folder"), at("folder/a/b")) == "a"
    assert name_in(at("folder"), at("file")) is None
    assert name_in(at("folder"), "folder") is None
    assert name_in(at("folder"), "-") is None
