"""Which trees the validator lets pass; the attacks on it are in tests/faults/test_hostile_export.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogkit.buildkit.fsutil.stat import MODE_CHAR_DEVICE, MODE_DEVICE, MODE_DIR, MODE_NAMED_PIPE, MODE_SYMLINK, Stat
from cogkit.buildkit.fsutil.validator import MAX_NAME, Kind, RefusedTreeError, TreeValidator, printable

NAMES = st.binary(min_size=1, max_size=4).filter(lambda name: b"/" not in name and b"\0" not in name)
ORDINARY_NAMES = NAMES.filter(lambda name: name not in (b".", b".."))


def walk_order(path: bytes) -> list[bytes]:
    """Sorting by this key is the order of a walk: names by bytes, a directory right before what is in it."""
    return path.split(b"/")


@st.composite
def trees(draw: st.DrawFn) -> list[Stat]:
    files = draw(st.lists(st.lists(ORDINARY_NAMES, min_size=1, max_size=4).map(b"/".join), max_size=20, unique=True))
    directories = {path.rsplit(b"/", depth)[0] for path in files for depth in range(1, path.count(b"/") + 1)}
    stats = [Stat(path, MODE_DIR | 0o755) for path in directories]
    stats += [Stat(path, 0o644) for path in files if path not in directories]
    return sorted(stats, key=lambda stat: walk_order(stat.path))


@settings(deadline=None)
@given(trees())
def test_every_tree_in_walk_order_is_accepted(tree: list[Stat]) -> None:
    validator = TreeValidator()
    for stat in tree:
        assert validator.check(stat) is (Kind.DIRECTORY if stat.is_dir else Kind.FILE)


@settings(deadline=None)
@given(trees().filter(lambda tree: len(tree) > 1), st.data())
def test_every_other_order_is_refused(tree: list[Stat], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(tree).filter(lambda order: order != tree))
    validator = TreeValidator()
    with pytest.raises(RefusedTreeError, match="out of order"):
        for stat in shuffled:
            validator.check(stat)


@settings(deadline=None)
@given(trees().filter(bool), st.data())
def test_an_entry_without_its_directory_is_refused(tree: list[Stat], data: st.DataObject) -> None:
    nested = [stat for stat in tree if b"/" in stat.path]
    if not nested:
        return
    orphan = data.draw(st.sampled_from(nested))
    parent = orphan.path.rsplit(b"/", 1)[0]
    validator = TreeValidator()
    with pytest.raises(RefusedTreeError, match="out of order"):
        for stat in tree:
            if stat.path != parent:
                validator.check(stat)


@settings(deadline=None)
@given(st.lists(st.one_of(NAMES, st.just(b""), st.just(b".."), st.just(b"a\0")), min_size=1, max_size=5))
def test_an_accepted_path_can_only_be_below_the_root(parts: list[bytes]) -> None:
    path = b"/".join(parts)
    validator = TreeValidator()
    try:
        for depth in range(1, len(parts) + 1):
            validator.check(Stat(b"/".join(parts[:depth]), MODE_DIR))
    except RefusedTreeError:
        return
    assert path and not path.startswith(b"/") and b"\0" not in path
    assert not {b"", b".", b".."} & set(path.split(b"/"))


@pytest.mark.parametrize(
    ("mode", "linkname", "kind"),
    [
        (0o644, b"", Kind.FILE),
        (MODE_DIR | 0o755, b"", Kind.DIRECTORY),
        (MODE_SYMLINK | 0o777, b"x", Kind.SYMLINK),
        (MODE_NAMED_PIPE | 0o644, b"", Kind.FIFO),
        (MODE_DEVICE | 0o644, b"", Kind.DEVICE),
        (MODE_DEVICE | MODE_CHAR_DEVICE | 0o644, b"", Kind.DEVICE),
        # fsutil names the first path of a pipe or device with two; upstream makes a second one, and so do we.
        (MODE_NAMED_PIPE | 0o644, b"first", Kind.FIFO),
    ],
)
def test_kind_comes_from_the_type_bits(mode: int, linkname: bytes, kind: Kind) -> None:
    assert TreeValidator().check(Stat(b"a", mode, linkname=linkname)) is kind


def test_hard_link_to_an_earlier_file_is_accepted_also_in_another_directory() -> None:
    validator = TreeValidator()
    validator.check(Stat(b"a", MODE_DIR))
    validator.check(Stat(b"a/x", 0o644))
    assert validator.check(Stat(b"b", 0o644, linkname=b"a/x")) is Kind.HARDLINK


def test_hard_link_to_a_hard_link_is_refused_as_fsutil_names_the_first_path() -> None:
    validator = TreeValidator()
    validator.check(Stat(b"a", 0o644))
    validator.check(Stat(b"b", 0o644, linkname=b"a"))
    with pytest.raises(RefusedTreeError, match="not a regular file of this tree"):
        validator.check(Stat(b"c", 0o644, linkname=b"b"))


def test_longest_names_are_accepted() -> None:
    validator = TreeValidator()
    validator.check(Stat(b"d" * MAX_NAME, MODE_DIR))
    validator.check(Stat(b"d" * MAX_NAME + b"/" + b"f" * MAX_NAME))


def test_refused_names_are_refused_at_any_depth_and_in_any_case() -> None:
    for path in (b"secret", b"Secret", b"a/SECRET"):
        validator = TreeValidator(refused_names=frozenset({b"secret"}))
        with pytest.raises(RefusedTreeError, match="not to be written here"):
            validator.check(Stat(b"a", MODE_DIR))
            validator.check(Stat(path))


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_printable_is_safe_in_a_terminal_and_short(path: bytes) -> None:
    text = printable(path)
    assert text.isprintable() and len(text) <= 300
