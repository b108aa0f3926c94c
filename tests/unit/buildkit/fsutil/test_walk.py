"""Reading trees: what is sent of them, and what happens when they change or cannot be read."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from cogkit.buildkit.fsutil import own_directory, walk
from cogkit.buildkit.fsutil.filter import TreeFilter
from cogkit.buildkit.fsutil.follow import follow_links
from cogkit.buildkit.fsutil.stat import (
    MODE_CHAR_DEVICE,
    MODE_DEVICE,
    MODE_DIR,
    MODE_NAMED_PIPE,
    MODE_SETGID,
    MODE_SETUID,
    MODE_STICKY,
    MODE_SYMLINK,
    Stat,
    device_number,
    go_mode,
)
from cogkit.buildkit.fsutil.walk import BATCH, FIRST_BATCH, ContentReader, MountError, Tree, unreadable
from cogkit.buildkit.mounts import LocalMount
from tests.described import entries_of

NOBODY = 65534


def paths(root: Path, *, exclude: Sequence[str] = (), include: Sequence[str] | None = None) -> list[bytes]:
    return [entry.path for entry in entries(root, exclude=exclude, include=include)]


def entries(root: Path, *, exclude: Sequence[str] = (), include: Sequence[str] | None = None) -> list[Stat]:
    with Tree(LocalMount("context", root)) as tree:
        return entries_of(tree.walk(TreeFilter(include, exclude)))


def read(tree: Tree, path: bytes, chunk: int = 100) -> bytes:
    reader = ContentReader(tree)
    try:
        return b"".join(reader.read(path, chunk))
    finally:
        reader.close()


@pytest.fixture
def shared_root() -> Iterator[Path]:
    """A directory that also another user can get to, which ``tmp_path`` is not."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    yield root
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o700)
    shutil.rmtree(root)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Whoever runs the tests, permissions hold in here."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# ---- what is sent


def test_directories_come_before_what_is_in_them_and_names_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    for name in (b"b", b"a.b", b"a/z", b"a/y/x", b"a-b", b"B", "é".encode(), b"\xff", "\U0001f600".encode()):
        where = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "wb"):
            pass
    names = [b"B", b"a", b"a/y", b"a/y/x", b"a/z", b"a-b", b"a.b", b"b", "é".encode(), "\U0001f600".encode(), b"\xff"]
    assert paths(tmp_path) == names


@pytest.mark.parametrize(
    ("st_mode", "mode"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFREG | 0o7755, 0o755 | MODE_SETUID | MODE_SETGID | MODE_STICKY),
        (stat.S_IFDIR | 0o1777, MODE_DIR | 0o777 | MODE_STICKY),
        (stat.S_IFLNK | 0o777, MODE_SYMLINK | 0o777),
        (stat.S_IFIFO | 0o600, MODE_NAMED_PIPE | 0o600),
        (stat.S_IFBLK | 0o660, MODE_DEVICE | 0o660),
        (stat.S_IFCHR | 0o666, MODE_DEVICE | MODE_CHAR_DEVICE | 0o666),
        (stat.S_IFSOCK | 0o755, 0o755),
    ],
)
def test_modes_are_those_of_go(st_mode: int, mode: int) -> None:
    assert go_mode(st_mode) == mode


def test_device_numbers_are_cut_as_fsutil_cuts_them() -> None:
    assert device_number(os.makedev(8, 1)) == (8, 1)
    assert device_number(os.makedev(259, 70000)) == (259, 70000)


def test_the_owner_is_root_unless_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "d").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "a", 1000, 1001)
        os.chown(tmp_path / "d", 1000, 1001)
    owners = {(entry.uid, entry.gid) for entry in entries(tmp_path)}
    assert owners == {(0, 0)}
    with Tree(LocalMount("context", tmp_path, reset_owner=False)) as tree:
        owners = {(entry.uid, entry.gid) for entry in entries_of(tree.walk())}
    assert owners == {((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid)}


def test_hard_links_name_the_first_path_that_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for name in ("b", "c"):
        os.link(tmp_path / "a", tmp_path / name)
    assert [(entry.path, entry.linkname) for entry in entries(tmp_path)] == [(b"a", b""), (b"b", b"a"), (b"c", b"a")]
    assert [(entry.path, entry.linkname) for entry in entries(tmp_path, exclude=["a"])] == [(b"b", b""), (b"c", b"b")]


def test_times_before_1970_and_with_nanoseconds_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", ns=(0, -1_234_567_891))
    assert entries(tmp_path)[0].mod_time == -1_234_567_891


def test_many_entries_come_in_portions(tmp_path: Path) -> None:
    for number in range(BATCH * 3):
        (tmp_path / f"d{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"d{number % 2}" / f"{number}").touch()
        (tmp_path / f"empty{number}").mkdir()
    with Tree(LocalMount("context", tmp_path)) as tree:
        sizes = [len(batch) for batch in tree.walk()]
    assert sum(sizes) == BATCH * 6 + 2
    assert max(sizes) <= BATCH + 2


def test_an_unwanted_directory_is_sent_when_something_in_it_is_wanted(tmp_path: Path) -> None:
    for name in ("a/b/c/keep", "a/b/drop", "a/x/drop", "d/keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths(tmp_path, exclude=["a", "d", "!**/keep"]) == [b"a", b"a/b", b"a/b/c", b"a/b/c/keep", b"d", b"d/keep"]
    assert paths(tmp_path, include=["**/keep"]) == [b"a", b"a/b", b"a/b/c", b"a/b/c/keep", b"d", b"d/keep"]


def test_an_excluded_directory_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("node_modules/a", "keep/a", "src/node_modules/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    opened = []
    real_open = os.open

    def spy(path: bytes, *args: int, **kwargs: int) -> int:
        opened.append(path)
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    assert paths(tmp_path, exclude=["**/node_modules", "!keep/b"]) == [b"keep", b"keep/a", b"src"]
    assert b"node_modules" not in opened


# ---- what cannot be read


def test_an_unreadable_directory_is_named(shared_root: Path) -> None:
    (shared_root / "a" / "locked").mkdir(parents=True)
    (shared_root / "a" / "locked").chmod(0)
    with unprivileged(), pytest.raises(MountError, match="permission denied: cannot read 'a/locked'") as caught:
        paths(shared_root)
    assert caught.value.where == str(shared_root / "a" / "locked")
    assert caught.value.hint is not None and "chmod" in caught.value.hint and ".dockerignore" in caught.value.hint


def test_what_came_before_the_unreadable_directory_was_sent(shared_root: Path) -> None:
    (shared_root / "a").touch()
    (shared_root / "locked").mkdir(0)
    seen = []
    with unprivileged(), Tree(LocalMount("context", shared_root)) as tree, pytest.raises(MountError):
        for batch in tree.walk():
            seen += batch.paths
    assert seen == [b"a"]


def test_an_unreadable_directory_that_is_excluded_is_no_error(shared_root: Path) -> None:
    (shared_root / "a").touch()
    (shared_root / "locked").mkdir(0)
    with unprivileged():
        assert paths(shared_root, exclude=["locked"]) == [b"a"]
        assert paths(shared_root, exclude=["locked", "!a/x", "!other/*/x", "!*.py"]) == [b"a"]
        assert paths(shared_root, exclude=["*", "!a", "!loc"]) == [b"a"]
        assert paths(shared_root, include=["a"]) == [b"a"]
        assert paths(shared_root, include=["[a]"]) == [b"a"]


@pytest.mark.parametrize(
    ("exclude", "include"),
    [
        (["locked", "!locked/x"], None),
        (["*", "!locked/x"], None),
        (["*", "!lock*/deep/x"], None),
        (["*", "!**/*.py"], None),
        (["*/", "!locked/*"], None),
        (None, ["locked/x"]),
        (None, ["**/x"]),
    ],
)
def test_an_unreadable_directory_in_which_something_may_be_wanted_is_an_error(
    shared_root: Path, exclude: list[str] | None, include: list[str] | None
) -> None:
    (shared_root / "locked").mkdir(0)
    with unprivileged(), pytest.raises(MountError, match="permission denied: cannot read 'locked'"):
        paths(shared_root, exclude=exclude or (), include=include)


def test_the_hint_names_the_ignore_file_that_holds(shared_root: Path) -> None:
    (shared_root / "locked").mkdir(0)
    mount = LocalMount("context", shared_root, ignore_file=Path("x/prod.dockerignore"))
    with unprivileged(), Tree(mount) as tree, pytest.raises(MountError) as caught:
        list(tree.walk())
    assert caught.value.hint == "Make it readable (chmod), or leave it out of the build in x/prod.dockerignore."


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="no /proc here")
def test_no_chmod_is_advised_where_it_is_of_no_use() -> None:
    denied, odd = PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "Input/output error")
    words = "It is on a filesystem of type proc, which the kernel makes up: "
    for error in (denied, odd):
        whole = unreadable(LocalMount("x", Path("/"), ignore_file=Path("/.dockerignore")), b"proc/1/cwd", error)
        assert whole.hint == f"{words}leave it out of the build in /.dockerignore."
        assert unreadable(LocalMount("x", Path("/proc")), b"1/cwd", error).hint == f"{words}give another folder."


def test_root_is_not_told_to_make_things_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "filesystem_type", lambda path: "nfs4")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    error = unreadable(LocalMount("context", tmp_path), b"a", PermissionError(errno.EACCES, "Permission denied"))
    assert error.hint is not None and "nfs4" in error.hint and "chmod" not in error.hint


def test_a_directory_that_can_be_listed_but_not_searched_is_an_error(shared_root: Path) -> None:
    (shared_root / "d").mkdir()
    (shared_root / "d" / "a").touch()
    (shared_root / "d").chmod(0o744)
    with unprivileged(), pytest.raises(MountError, match="cannot read 'd/a'"):
        paths(shared_root)


def test_an_unreadable_file_is_named_when_it_is_asked_for(shared_root: Path) -> None:
    (shared_root / "a").write_text("secret")
    (shared_root / "a").chmod(0)
    with unprivileged(), Tree(LocalMount("context", shared_root)) as tree:
        assert [entry.path for entry in entries_of(tree.walk())] == [b"a"]
        with pytest.raises(MountError, match="permission denied: cannot read 'a' of the directory 'context'"):
            read(tree, b"a")


def test_names_in_errors_cannot_drive_a_terminal(shared_root: Path) -> None:
    name = os.path.join(os.fsencode(shared_root), b"a\x1b[31m\n\xff")
    os.mkdir(name, 0)
    with unprivileged(), pytest.raises(MountError) as caught:
        paths(shared_root)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.touch(), "is not a directory"),
        (lambda root: root.symlink_to(root.name), "is a loop of symbolic links"),
        (lambda root: root.symlink_to("nowhere"), "does not exist"),
    ],
    ids=["missing", "file", "loop", "dangling"],
)
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, make: object, message: str) -> None:
    assert callable(make)
    make(tmp_path / "root")
    with pytest.raises(MountError, match=message) as caught:
        Tree(LocalMount("context", tmp_path / "root"))
    assert caught.value.where == str(tmp_path / "root")
    assert caught.value.hint


def test_an_unreadable_root_is_refused(shared_root: Path) -> None:
    (shared_root / "root").mkdir(0)
    with unprivileged(), pytest.raises(MountError, match="permission denied: cannot read the directory 'context'"):
        Tree(LocalMount("context", shared_root / "root"))


def test_a_root_may_be_a_link_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    with Tree(LocalMount("context", Path("link"))) as tree:
        monkeypatch.chdir("/")
        assert [entry.path for entry in entries_of(tree.walk())] == [b"a"]


# ---- what changes while it is sent


def test_a_file_that_vanished_is_sent_as_empty(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("x")
    with Tree(LocalMount("context", tmp_path)) as tree:
        assert read(tree, b"d/a") == b"x"
        (tmp_path / "d" / "a").unlink()
        assert read(tree, b"d/a") == b""
        shutil.rmtree(tmp_path / "d")
        assert read(tree, b"d/a") == b""


def test_a_file_that_shrinks_or_grows_before_it_is_opened_is_sent_as_it_then_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("12345")
    with Tree(LocalMount("context", tmp_path)) as tree:
        list(tree.walk())
        (tmp_path / "a").write_text("12")
        assert read(tree, b"a") == b"12"
        (tmp_path / "a").write_text("1234567890" * 100)
        assert read(tree, b"a") == b"1234567890" * 100


def test_a_file_that_shrinks_while_it_is_read_ends_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    with Tree(LocalMount("context", tmp_path)) as tree:
        reader = ContentReader(tree)
        pieces = reader.read(b"a", 10)
        assert next(pieces) == b"x" * 10
        os.truncate(tmp_path / "a", 15)
        assert b"".join(pieces) == b"x" * 5
        reader.close()


def test_a_file_that_grows_for_ever_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100)
    with Tree(LocalMount("context", tmp_path)) as tree, (tmp_path / "log").open("ab", buffering=0) as log:
        reader = ContentReader(tree)
        received = 0
        for piece in reader.read(b"log", 10):
            received += len(piece)
            log.write(b"y" * 20)
        assert received == 100
        reader.close()


def test_files_that_say_they_are_empty_and_are_not_are_read(tmp_path: Path) -> None:
    with Tree(LocalMount("proc", Path("/proc/self"))) as tree:
        assert b"Name:" in read(tree, b"status")


def test_a_file_that_became_a_fifo_or_a_directory_is_not_opened_for_long(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    with Tree(LocalMount("context", tmp_path)) as tree:
        assert read(tree, b"fifo") == b""
        assert read(tree, b"dir") == b""


def test_entries_that_vanish_during_the_walk_are_left_out(tmp_path: Path) -> None:
    for number in range(FIRST_BATCH + 10):
        (tmp_path / f"{number:04}").touch()
    (tmp_path / "zdir").mkdir()
    with Tree(LocalMount("context", tmp_path)) as tree:
        batches = tree.walk()
        first = next(batches)
        for number in (FIRST_BATCH + 3, FIRST_BATCH + 5):
            (tmp_path / f"{number:04}").unlink()
        (tmp_path / "zdir").rmdir()
        rest = [entry.path for entry in entries_of(batches)]
    assert len(first) == FIRST_BATCH
    assert rest == [
        b"%04d" % n for n in range(FIRST_BATCH, FIRST_BATCH + 10) if n not in (FIRST_BATCH + 3, FIRST_BATCH + 5)
    ]


def test_a_directory_that_becomes_a_link_during_the_walk_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "z").mkdir(parents=True)
    (root / "z" / "secret").write_text("mine")
    for number in range(FIRST_BATCH):
        (root / f"a{number:04}").touch()
    with Tree(LocalMount("context", root)) as tree:
        batches = tree.walk()
        next(batches)
        (root / "z").rename(tmp_path / "old")
        (root / "z").symlink_to(outside)
        assert [entry.path for entry in entries_of(batches)] == []


def test_a_directory_that_becomes_a_link_after_the_walk_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("secret")
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "a").write_text("mine")
    with Tree(LocalMount("context", root)) as tree:
        list(tree.walk())
        assert read(tree, b"d/e/a") == b"mine"
        (root / "d" / "e").rename(tmp_path / "old")
        (root / "d" / "e").symlink_to(outside)
        assert read(tree, b"d/e/a") == b""
        (root / "d").rename(tmp_path / "older")
        (root / "d").symlink_to(tmp_path / "old")
        assert read(tree, b"d/a") == b""


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("mine")
    with Tree(LocalMount("context", root)) as tree:
        list(tree.walk())
        (root / "a").unlink()
        (root / "a").symlink_to(tmp_path / "secret")
        assert read(tree, b"a") == b""


def test_a_directory_replaced_while_the_walk_is_deep_below_it_is_given_up(tmp_path: Path) -> None:
    root = tmp_path / "root"
    deep = root
    for _ in range(80):  # more than the walk keeps open
        deep = deep / "d"
    deep.mkdir(parents=True)
    (root / "d" / "z").write_text("mine")
    (root / "z").write_text("mine")
    for number in range(BATCH):
        (deep / f"{number:04}").touch()
    with Tree(LocalMount("context", root)) as tree:
        batches = tree.walk()
        next(batches)
        (root / "d").rename(tmp_path / "old")
        (root / "d").mkdir()
        (root / "d" / "z").write_text("another's")
        rest = [entry.path for entry in entries_of(batches)]
    assert rest[-1] == b"z"
    assert b"d/z" not in rest


def _user_attributes_or_skip(path: Path) -> None:
    try:
        os.setxattr(path, "user.test", b"")
        os.removexattr(path, "user.test")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(f"the file system of {path} has no user attributes")


@pytest.mark.parametrize("in_own_thread", [False, True])
def test_attributes_come_from_the_walked_directory_even_if_another_takes_its_path(
    tmp_path: Path, in_own_thread: bool
) -> None:
    _user_attributes_or_skip(tmp_path)
    root, other = tmp_path / "root", tmp_path / "other"
    for directory, value in ((root / "d", b"mine"), (other, b"secret")):
        directory.mkdir(parents=True)
        for number in range(BATCH):
            (directory / f"{number:04}").touch()
            os.setxattr(directory / f"{number:04}", "user.of", value)

    def walk() -> list[Stat]:
        with Tree(LocalMount("context", root)) as tree:
            batches = tree.walk(in_own_thread=in_own_thread)
            next(batches)
            (root / "d").rename(tmp_path / "moved")
            (root / "d").symlink_to(other)
            return entries_of(batches)

    rest = _in_a_thread(walk)
    assert len(rest) > BATCH / 2
    assert {entry.xattrs["user.of"] for entry in rest if entry.xattrs} == {b"mine"}
    assert all(entry.xattrs for entry in rest)


T = TypeVar("T")


def _in_a_thread(work: Callable[[], T]) -> T:
    """Not one of a pool: its working directory may be changed."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("possible", [True, False])
def test_a_walk_in_a_directory_of_its_own_sees_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, possible: bool
) -> None:
    """Directories left and entered again, also one that was closed meanwhile, and attributes here and there."""
    _user_attributes_or_skip(tmp_path)
    deep = tmp_path.joinpath(*["d"] * 80)
    deep.mkdir(parents=True)
    for place, directory in enumerate((tmp_path, tmp_path / "d", *(tmp_path / f"e{n}" for n in range(200)), deep)):
        directory.mkdir(exist_ok=True)
        for name in ("a", "z"):
            (directory / name).write_text(name)
            os.setxattr(directory / name, "user.of", b"%d" % place)
    if not possible:
        monkeypatch.setattr(own_directory, "separate", lambda: False)

    def walk(in_own_thread: bool) -> list[Stat]:
        with Tree(LocalMount("context", tmp_path)) as tree:
            return entries_of(tree.walk(in_own_thread=in_own_thread))

    usual = walk(False)
    before = os.getcwd()
    assert _in_a_thread(lambda: walk(True)) == usual
    assert os.getcwd() == before
    assert sum(entry.xattrs is not None for entry in usual) == 2 * 203


def test_a_directory_that_cannot_be_searched_matters_in_a_directory_of_its_own_only_if_it_is_wanted(
    shared_root: Path,
) -> None:
    for number in range(FIRST_BATCH * 2):
        (shared_root / f"{number:04}").touch()
    (shared_root / "z").mkdir()
    (shared_root / "z" / "a").touch()
    (shared_root / "z").chmod(0o744)

    def walk(exclude: Sequence[str]) -> list[Stat] | MountError:
        with Tree(LocalMount("context", shared_root)) as tree:
            try:
                return entries_of(tree.walk(TreeFilter(None, exclude), in_own_thread=True))
            except MountError as error:
                return error

    with unprivileged():
        seen = _in_a_thread(lambda: walk(["z/a"]))
        refused = _in_a_thread(lambda: walk([]))
    assert isinstance(seen, list) and seen[-1].path == b"z"
    assert isinstance(refused, MountError) and "z/a" in str(refused)


def test_a_thread_has_its_working_directory_alone(tmp_path: Path) -> None:
    def work() -> str | None:
        if not own_directory.separate():
            return None
        os.chdir(tmp_path)
        return os.getcwd()

    before = os.getcwd()
    there = _in_a_thread(work)
    if there is None:
        pytest.skip("unshare(2) is not permitted here")
    assert there == str(tmp_path)
    assert os.getcwd() == before


def test_a_path_too_long_for_the_kernel_is_walked_by_its_directories(tmp_path: Path) -> None:
    _user_attributes_or_skip(tmp_path)
    name = "d" * 200
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = entries(tmp_path)
    assert len(found) == 26
    assert found[-1].path == os.fsencode("/".join([name] * 25 + ["file"]))
    with Tree(LocalMount("context", tmp_path)) as tree:
        assert read(tree, found[-1].path) == b""


# ---- follow-paths


def test_follow_paths_never_look_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").symlink_to("root/found")
    root = tmp_path / "root"
    root.mkdir()
    (root / "found").touch()
    (root / "up").symlink_to("../outside")
    with Tree(LocalMount("context", root)) as tree:
        # Read from outside, the link would say "found".
        assert follow_links(tree, ["../outside"]) == ["../outside"]
        # As in a container, ".." ends at the root.
        assert follow_links(tree, ["up"]) == ["outside", "up"]


def test_a_follow_path_that_cannot_be_looked_up_is_named(shared_root: Path) -> None:
    (shared_root / "locked").mkdir()
    (shared_root / "locked" / "a").touch()
    (shared_root / "locked").chmod(0)
    with unprivileged(), Tree(LocalMount("context", shared_root)) as tree:
        with pytest.raises(MountError, match="cannot read 'locked/a'"):
            follow_links(tree, ["locked/a"])
        with pytest.raises(MountError, match="cannot read 'locked'"):
            follow_links(tree, ["locked/*"])
        with pytest.raises(MountError, match="Invalid argument"):
            follow_links(tree, ["a\0b"])


def test_a_long_chain_of_links_is_followed(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}").symlink_to(f"{number + 1}")
    with Tree(LocalMount("context", tmp_path)) as tree:
        assert len(follow_links(tree, ["0"]) or ()) == 3001


def test_follow_paths_do_not_see_what_the_mount_excludes(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "link").symlink_to("../a")
    (tmp_path / "a").touch()
    with Tree(LocalMount("context", tmp_path, exclude_patterns=("private",))) as tree:
        assert follow_links(tree, ["private/link", "private/*"]) == ["private/*", "private/link"]
