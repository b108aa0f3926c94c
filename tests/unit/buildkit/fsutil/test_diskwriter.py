"""What a tree looks like on disk after the disk writer; attacks on it are in tests/faults/test_hostile_export.py."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat as stat_module
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cogkit.buildkit.fsutil import diskwriter
from cogkit.buildkit.fsutil.closed_directories import open_directory
from cogkit.buildkit.fsutil.diskwriter import DiskWriter
from cogkit.buildkit.fsutil.receiver import Chunk, Entry
from cogkit.buildkit.fsutil.stat import (
    MODE_DEVICE,
    MODE_DIR,
    MODE_NAMED_PIPE,
    MODE_SETGID,
    MODE_SETUID,
    MODE_STICKY,
    MODE_SYMLINK,
    Stat,
)
from cogkit.buildkit.fsutil.validator import RefusedTreeError, kind_of
from cogkit.errors import OutputError
from tests.open_files import open_below
from tests.without_privileges import without_privileges

MTIME = 1_600_000_000_987_654_321

Write = Callable[..., None]


@pytest.fixture(params=["unnamed files", "temporary names"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a file until it is whole; the second is for systems without O_TMPFILE."""
    if request.param == "temporary names":
        monkeypatch.setattr(diskwriter, "open_unnamed", lambda directory: None)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def entry(stat: Stat, id: int = 0) -> Entry:
    return Entry(id, kind_of(stat), stat, 0)


def export(root: Path, *tree: Stat | tuple[Stat, bytes], mirror: bool = False) -> None:
    """Write a whole tree; files are given with their contents, in two chunks."""
    disk = DiskWriter(root, mirror=mirror)
    files = disk.file_writer()
    for item in tree:
        stat, contents = item if isinstance(item, tuple) else (item, b"")
        one = entry(stat)
        disk.make(one)
        if isinstance(item, tuple):
            half = len(contents) // 2
            files.write(Chunk(one, [memoryview(contents)[:half]], last=False))
            files.write(Chunk(one, [memoryview(contents)[half:]], last=True))
    files.close()
    disk.finish()


def file(path: str, mode: int = 0o644, **facts: object) -> Stat:
    return Stat(path.encode(), mode, mod_time=MTIME, **facts)  # type: ignore[arg-type]


def folder(path: str, mode: int = 0o755) -> Stat:
    return Stat(path.encode(), MODE_DIR | mode, mod_time=MTIME)


def link(path: str, target: str) -> Stat:
    return Stat(path.encode(), MODE_SYMLINK | 0o777, mod_time=MTIME, linkname=target.encode())


def permissions(path: Path) -> int:
    return stat_module.S_IMODE(path.lstat().st_mode)


def tree_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_tree_with_everything_in_it(root: Path) -> None:
    export(
        root,
        folder("d", 0o750),
        (file("d/f", 0o640), b"contents"),
        folder("d/sub", 0o700),
        link("d/sub/l", "../f"),
        file("hard", linkname=b"d/f"),
        Stat(b"pipe", MODE_NAMED_PIPE | 0o620, mod_time=MTIME),
        (file("z"), b""),
    )
    assert tree_of(root) == ["d", "d/f", "d/sub", "d/sub/l", "hard", "pipe", "z"]
    assert (root / "d/f").read_bytes() == b"contents"
    assert os.readlink(root / "d/sub/l") == "../f"
    assert (root / "hard").samefile(root / "d/f") and (root / "z").read_bytes() == b""
    assert stat_module.S_ISFIFO((root / "pipe").stat().st_mode)
    wanted = {"d": 0o750, "d/f": 0o640, "d/sub": 0o700, "hard": 0o640, "pipe": 0o620, "z": 0o644}
    assert {name: permissions(root / name) for name in wanted} == wanted
    assert {path.lstat().st_mtime_ns for path in root.rglob("*")} == {MTIME}


def test_the_destination_is_made_with_its_parents_for_its_owner_alone(tmp_path: Path) -> None:
    export(tmp_path / "a" / "b", (file("f"), b"x"))
    assert permissions(tmp_path / "a" / "b") == 0o700


def test_the_umask_does_not_count(root: Path) -> None:
    old = os.umask(0o077)
    try:
        export(root, folder("d", 0o777), (file("d/f", 0o666), b""), Stat(b"p", MODE_NAMED_PIPE | 0o666))
    finally:
        os.umask(old)
    assert [permissions(root / name) for name in ("d", "d/f", "p")] == [0o777, 0o666, 0o666]


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o444, 0o555])
def test_directories_that_nobody_may_write_are_filled_first(root: Path, mode: int) -> None:
    export(root, folder("d", mode), folder("d/e", mode), (file("d/e/f", mode), b"x"))
    assert permissions(root / "d") == mode
    os.chmod(root / "d", 0o755)
    assert permissions(root / "d/e") == mode
    os.chmod(root / "d/e", 0o755)
    assert permissions(root / "d/e/f") == mode


def test_an_export_into_the_result_of_the_last_one_replaces_and_keeps_what_is_not_in_it(root: Path) -> None:
    export(root, folder("d", 0o555), (file("d/f"), b"old"), (file("d/mine"), b"mine"), link("l", "d"))
    before = (root / "d/f").stat().st_ino
    export(root, folder("d", 0o750), (file("d/f", 0o600), b"new"), link("l", "d/f"))
    assert (root / "d/f").read_bytes() == b"new" and (root / "d/mine").read_bytes() == b"mine"
    assert (root / "d/f").stat().st_ino != before, "replaced, not overwritten"
    assert os.readlink(root / "l") == "d/f"
    assert permissions(root / "d") == 0o750 and (root / "d").stat().st_mtime_ns == MTIME


def test_a_reader_of_the_old_file_is_not_disturbed(root: Path) -> None:
    export(root, (file("f"), b"old contents"))
    with (root / "f").open("rb") as reader:
        export(root, (file("f"), b"new"))
        assert reader.read() == b"old contents"


def test_every_kind_replaces_every_other(tmp_path: Path) -> None:
    kinds: list[Stat | tuple[Stat, bytes]] = [
        (file("x"), b"file"),
        folder("x"),
        link("x", "target"),
        Stat(b"x", MODE_NAMED_PIPE | 0o644),
        file("x", linkname=b"a"),
    ]
    for first in kinds:
        for second in kinds:
            root = tmp_path / f"{id(first)}-{id(second)}"
            export(root, (file("a"), b"a"), first)
            export(root, (file("a"), b"b"), second)
            assert tree_of(root) == ["a", "x"]
            stat = second[0] if isinstance(second, tuple) else second
            assert (root / "x").is_symlink() == bool(stat.mode & MODE_SYMLINK)
            assert (root / "x").is_dir() == bool(stat.mode & MODE_DIR)


def test_a_full_directory_gives_way_to_a_file(root: Path) -> None:
    export(root, folder("x"), folder("x/deep"), (file("x/deep/f"), b""), link("x/l", "/"))
    export(root, (file("x"), b"file"))
    assert (root / "x").read_bytes() == b"file"
    assert tree_of(root) == ["x"]


def test_hard_links_made_again_leave_no_temporary_name(root: Path) -> None:
    tree = ((file("a"), b"x"), file("b", linkname=b"a"), file("c", linkname=b"a"))
    export(root, *tree)
    # POSIX: renaming one name of a file to another name of it does nothing, and leaves both
    disk = DiskWriter(root)
    disk.make(entry(tree[0][0]))
    for name in (b"b", b"c"):
        disk.make(entry(Stat(name, 0o644, linkname=b"a")))
    disk.finish()
    assert tree_of(root) == ["a", "b", "c"]
    assert (root / "a").stat().st_nlink == 3


def test_setuid_setgid_and_sticky_of_our_own_are_kept(root: Path) -> None:
    bits = MODE_SETUID | MODE_SETGID | MODE_STICKY
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    export(root, (file("f", bits | 0o755, **own), b""), Stat(b"g", MODE_DIR | MODE_STICKY | 0o777))
    assert permissions(root / "f") == 0o7755 and permissions(root / "g") == 0o1777


def test_user_attributes_are_kept_on_files_and_directories(root: Path) -> None:
    attributes = {"user.colour": b"blue\0", "user.empty": b""}
    export(root, Stat(b"d", MODE_DIR | 0o555, xattrs=attributes), (file("f", 0o400, xattrs=attributes), b"x"))
    for name in ("d", "f"):
        found = {key: os.getxattr(root / name, key) for key in os.listxattr(root / name)}
        assert found == attributes


def test_a_device_is_refused_by_name(root: Path) -> None:
    disk = DiskWriter(root)
    with pytest.raises(RefusedTreeError, match="device node 'dev/null'"):
        disk.make(entry(Stat(b"dev", MODE_DIR | 0o755)))
        disk.make(entry(Stat(b"dev/null", MODE_DEVICE | 0o666)))
    disk.abort()


def test_a_mirror_deletes_what_the_tree_does_not_have(root: Path) -> None:
    export(root, folder("d"), (file("d/old"), b""), folder("gone"), (file("gone/f"), b""), (file("top"), b""))
    export(root, folder("d"), (file("d/new"), b""), mirror=True)
    assert tree_of(root) == ["d", "d/new"]
    assert (root / "d").stat().st_mtime_ns == MTIME


def test_a_mirror_that_is_given_up_has_deleted_nothing(root: Path) -> None:
    export(root, (file("old"), b""))
    disk = DiskWriter(root, mirror=True)
    disk.make(entry(file("new")))
    disk.abort()
    assert tree_of(root) == ["old"]


def test_giving_up_leaves_whole_files_only_and_no_open_descriptors(root: Path) -> None:
    disk = DiskWriter(root)
    files = disk.file_writer()
    whole, half = entry(file("d/whole")), entry(file("d/half"))
    disk.make(entry(folder("d", 0o550)))
    files.write(Chunk(whole, [memoryview(b"whole")], last=True))
    files.write(Chunk(half, [memoryview(b"hal")], last=False))
    files.close()
    disk.abort()
    disk.abort()
    assert tree_of(root) == ["d", "d/whole"]
    assert permissions(root / "d") == 0o550
    assert open_below(root) == []


def test_nothing_is_seen_of_a_file_before_it_is_whole(root: Path, way: str) -> None:
    disk = DiskWriter(root)
    files = disk.file_writer()
    one = entry(file("f"))
    files.write(Chunk(one, [memoryview(b"half")], last=False))
    seen = tree_of(root)
    assert "f" not in seen
    if way == "unnamed files" and hasattr(os, "O_TMPFILE"):
        assert seen == [], "so even a killed process leaves nothing"
    files.write(Chunk(one, [memoryview(b" whole")], last=True))
    assert tree_of(root) == ["f"] and (root / "f").read_bytes() == b"half whole"
    files.close()
    disk.finish()


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    yield 10_000
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_cannot_be_written_whole_does_not_appear(root: Path, file_size_limit: int) -> None:
    with pytest.raises(OutputError, match=r"'.*/root/f' grew larger"):
        export(root, (file("f"), b"x" * (file_size_limit + 1)))
    # the export was not even cleaned up: only its temporary file can be there
    assert [name for name in tree_of(root) if not name.startswith(".cogkit-")] == []


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left on the device of '{root}/f'"),
        (errno.EDQUOT, "no space left on the device of '{root}/f'"),
        (errno.EROFS, "'{root}/f' is on a read-only file system"),
        (errno.EACCES, "no permission to write '{root}/f'"),
        (errno.EMFILE, "too many open files while writing '{root}/f'"),
        (errno.EIO, "cannot write '{root}/f': Input/output error"),
    ],
)
def test_errors_of_the_disk_name_the_file(root: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    disk = DiskWriter(root)
    files = disk.file_writer()
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", fail)
        with pytest.raises(OutputError) as caught:
            files.write(Chunk(entry(file("f")), [memoryview(b"x")], last=True))
    assert str(caught.value) == says.format(root=root)
    files.close()
    disk.abort()
    assert tree_of(root) == []


def test_a_destination_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match="/f'"):
        DiskWriter(tmp_path / "f")


def test_names_that_are_no_text_are_written_byte_for_byte(root: Path) -> None:
    name = bytes(set(range(1, 256)) - {ord("/")})[:250]
    export(root, (Stat(name, 0o644), b"x"), Stat(name + b"l", MODE_SYMLINK | 0o777, linkname=name))
    assert sorted(os.listdir(os.fsencode(root))) == [name, name + b"l"]
    assert os.readlink(os.fsencode(root) + b"/" + name + b"l") == name


@pytest.mark.parametrize("mtime", [0, -1, -(10**18), 4_102_444_800_000_000_001])
def test_times_before_and_far_after_the_epoch(root: Path, mtime: int) -> None:
    export(root, (Stat(b"f", 0o644, mod_time=mtime), b""))
    assert (root / "f").stat().st_mtime_ns == mtime


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another group")
def test_a_directory_that_passes_its_group_on_does_not_pass_it_to_the_export(root: Path) -> None:
    root.mkdir()
    os.chown(root, -1, 12345)
    root.chmod(0o2775)
    pipe = Stat(b"p", MODE_NAMED_PIPE | 0o644)
    export(root, folder("d"), (file("d/f"), b""), (file("f"), b""), link("l", "f"), pipe)
    assert {path.lstat().st_gid for path in root.rglob("*")} == {os.getegid()}


def test_thousands_of_buffers_in_one_chunk(root: Path) -> None:
    disk = DiskWriter(root)
    files = disk.file_writer()
    parts = [memoryview(b"%d," % number) for number in range(5000)]
    files.write(Chunk(entry(file("f")), parts, last=True))
    files.close()
    disk.finish()
    assert (root / "f").read_bytes() == b"".join(parts)


# ------------------------------------------------------------------------- directories that keep their own owner out


@pytest.mark.parametrize("mode", [0o300, 0o000, 0o500, 0o400, 0o600, 0o333])
def test_a_directory_that_keeps_its_owner_out_is_written_again(root: Path, mode: int) -> None:
    def twice() -> None:
        for contents in (b"first", b"second"):
            export(root, folder("closed", mode), (file("closed/f"), contents), folder("closed/sub", mode))

    without_privileges(twice)
    assert permissions(root / "closed") == mode
    (root / "closed").chmod(0o700)
    assert permissions(root / "closed/sub") == mode
    assert (root / "closed/f").read_bytes() == b"second"
    (root / "closed/sub").chmod(0o700)


@pytest.mark.parametrize("mode", [0o300, 0o000, 0o500])
def test_a_directory_that_keeps_its_owner_out_gives_way(root: Path, mode: int) -> None:
    def replace_and_mirror() -> None:
        for name in ("a", "b"):
            export(root, folder(name, mode), folder(f"{name}/sub", mode), (file(f"{name}/sub/f"), b"old"))
        export(root, (file("a"), b"new"), mirror=True)

    without_privileges(replace_and_mirror)
    assert tree_of(root) == ["a"]
    assert (root / "a").read_bytes() == b"new"


@pytest.mark.parametrize("ending", ["finish", "abort"])
def test_a_destination_without_read_permission_stays_so(root: Path, ending: str) -> None:
    root.mkdir()
    root.chmod(0o300)

    def write() -> None:
        if ending == "finish":
            export(root, (file("f"), b"contents"))
        else:
            DiskWriter(root).abort()

    without_privileges(write)
    assert permissions(root) == 0o300
    root.chmod(0o700)
    assert tree_of(root) == (["f"] if ending == "finish" else [])


def test_what_is_protected_in_a_closed_directory_stays_and_so_does_its_mode(root: Path) -> None:
    (root / "a" / "sub" / ".git").mkdir(parents=True)
    (root / "a" / "sub").chmod(0o000)
    (root / "a").chmod(0o500)

    def replace() -> None:
        disk = DiskWriter(root, protected_names=frozenset({b".git"}))
        with pytest.raises(OutputError, match=r"'a/sub/\.git'|has 'a/sub/.git' in it"):
            disk.make(entry(link("a", "elsewhere")))
        disk.abort()

    without_privileges(replace)
    assert permissions(root / "a") == 0o500
    (root / "a").chmod(0o700)
    assert permissions(root / "a" / "sub") == 0o000
    (root / "a" / "sub").chmod(0o700)
    assert (root / "a" / "sub" / ".git").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_closed_directory_of_another_user_is_not_opened(root: Path) -> None:
    (root / "closed").mkdir(parents=True)
    (root / "closed").chmod(0o700)
    os.chown(root / "closed", 12345, 12345)

    def write() -> None:
        with pytest.raises(OutputError, match="no permission to write"):
            export(root, folder("closed"), (file("closed/f"), b"x"))

    without_privileges(write)
    assert permissions(root / "closed") == 0o700
    assert tree_of(root) == ["closed"]


def test_where_a_directory_cannot_be_held_it_is_opened_by_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    root.mkdir()
    (root / "closed").mkdir(mode=0)
    (root / "link").symlink_to("closed")
    monkeypatch.delattr(os, "O_PATH", raising=False)
    real = os.chmod

    def chmod(path: bytes | str, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        real(path, mode, dir_fd=dir_fd)  # Linux knows no other

    monkeypatch.setattr(os, "chmod", chmod)

    def open_them() -> None:
        parent = os.open(root, os.O_RDONLY)
        fd, before = open_directory(b"closed", parent)
        assert (before, permissions(root / "closed")) == (0, 0o700)
        assert os.path.samestat(os.fstat(fd), (root / "closed").stat())
        os.close(fd)
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            open_directory(b"link", parent)
        os.close(parent)

    without_privileges(open_them)
