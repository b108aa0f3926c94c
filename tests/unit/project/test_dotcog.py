"""The ``.cog/`` folder within one process: paths, wiping, closing, links, permissions, threads and tasks."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import fasteners  # type: ignore[import-untyped]
import pytest

from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import CogkitError, ConfigError, LockNotAcquiredError
from cogkit.project import dotcog as dotcog_module
from cogkit.project.dotcog import DotCog, LockHolder, LockWait, ReadOnlyProjectError
from cogkit.project.lock import HOLDER_NAME, LOCK_NAME

PATIENCE = 30.0
"""Seconds after which a test gives up on something that should take milliseconds."""


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so that tests of permissions run as nobody; any other user is fine as it is."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def common_dir() -> Iterator[Path]:
    """A project that `unprivileged` code can reach (pytest's own folders are private) and, if root, does not own."""
    folder = Path(tempfile.mkdtemp(prefix="cogkit-test-"))
    folder.chmod(0o755)
    yield folder
    for below in folder.rglob("*"):
        if below.is_dir() and not below.is_symlink():
            below.chmod(0o700)
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def dotcog(tmp_path: Path) -> Iterator[DotCog]:
    with DotCog.open(tmp_path) as opened:
        yield opened


# Opening


def test_opening_makes_a_private_folder_that_git_ignores(tmp_path: Path) -> None:
    with DotCog.open(tmp_path) as dotcog:
        assert dotcog.root == tmp_path / ".cog"
        assert stat.S_IMODE(dotcog.root.stat().st_mode) == 0o700
        assert (dotcog.root / ".gitignore").read_text() == "*\n"
    assert os.listdir(tmp_path) == [".cog"]


def test_a_folder_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / ".cog"
    root.mkdir()
    root.chmod(0o755)
    (root / "openapi_schema.json").write_text("{}")
    with DotCog.open(tmp_path), DotCog.open(tmp_path) as again, again.lock():
        pass
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert sorted(os.listdir(root)) == ["cog.lock", "openapi_schema.json"]


def test_the_lock_file_is_private(dotcog: DotCog) -> None:
    with dotcog.lock():
        assert stat.S_IMODE((dotcog.root / LOCK_NAME).stat().st_mode) == 0o600
        assert stat.S_IMODE((dotcog.root / HOLDER_NAME).stat().st_mode) == 0o600


def test_a_project_reached_through_a_link_has_one_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with DotCog.open(tmp_path / "link") as dotcog:
        assert dotcog.root == tmp_path / "real" / ".cog"


def test_a_project_that_does_not_exist_is_a_clear_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="project folder does not exist"):
        DotCog.open(tmp_path / "nowhere")
    assert os.listdir(tmp_path) == []


def test_a_project_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a folder"):
        DotCog.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("elsewhere"), r"\.cog is a symbolic link to elsewhere, and cogkit follows none"),
        (lambda path: path.symlink_to("nowhere"), r"\.cog is a symbolic link to nowhere, which does not exist"),
        (lambda path: path.symlink_to(".cog"), r"\.cog is a symbolic link to \.cog"),
        (lambda path: path.touch(), r"\.cog is a file and not a folder"),
        (lambda path: os.mkfifo(path), r"\.cog is a special file and not a folder"),
    ],
)
def test_what_cannot_be_the_folder_is_named_and_left_alone(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    make(tmp_path / ".cog")
    before = os.lstat(tmp_path / ".cog")
    with pytest.raises(ConfigError, match=message) as caught:
        DotCog.open(tmp_path)
    assert caught.value.where == str(tmp_path / ".cog")
    assert caught.value.hint
    assert os.lstat(tmp_path / ".cog") == before
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_project_that_cannot_be_written_says_so_and_a_temporary_folder_serves(common_dir: Path) -> None:
    common_dir.chmod(0o555)
    with unprivileged():
        with pytest.raises(ReadOnlyProjectError, match=r"cannot create \.cog .*: Permission denied") as caught:
            DotCog.open(common_dir)
        assert caught.value.hint
        with DotCog.open_temp() as dotcog, dotcog.lock():
            assert dotcog.temp_path("build").is_dir()
    assert os.listdir(common_dir) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_a_folder_of_another_user_names_the_owner(common_dir: Path) -> None:
    (common_dir / ".cog").mkdir(mode=0o755)
    with unprivileged(), pytest.raises(ConfigError, match=r"\.cog cannot be written by you \(it belongs to root\)"):
        DotCog.open(common_dir)
    (common_dir / ".cog").chmod(0o700)
    with unprivileged(), pytest.raises(ConfigError, match=r"Permission denied \(it belongs to root\)"):
        DotCog.open(common_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that belongs to somebody else")
def test_a_lock_file_of_another_user_names_the_owner(common_dir: Path) -> None:
    (common_dir / ".cog").mkdir()
    (common_dir / ".cog").chmod(0o777)
    (common_dir / ".cog" / LOCK_NAME).touch(mode=0o600)
    with (
        unprivileged(),
        DotCog.open(common_dir) as dotcog,
        pytest.raises(ConfigError, match=r"cannot open it: Permission denied \(it belongs to root\)"),
    ):
        dotcog.lock(timeout=0)


def test_ones_own_folder_without_write_permission_tells_its_mode(common_dir: Path) -> None:
    (common_dir / ".cog").mkdir()
    if os.geteuid() == 0:
        os.chown(common_dir / ".cog", 65534, 65534)
    (common_dir / ".cog").chmod(0o500)
    with unprivileged(), pytest.raises(ConfigError, match=r"cannot be written by you \(its mode is 0500\)"):
        DotCog.open(common_dir)


def test_a_read_only_file_system_is_told_from_a_lack_of_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mounting needs rights that a test cannot count on, so the two system calls that tell are answered here.
    (tmp_path / ".cog").mkdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(ReadOnlyProjectError, match="read-only file system"):
        DotCog.open(tmp_path)


def test_a_temporary_folder_is_gone_after_close() -> None:
    dotcog = DotCog.open_temp()
    assert dotcog.is_temporary
    (dotcog.path("cache") / "file").touch()
    dotcog.close()
    assert not dotcog.project_dir.exists()


def test_a_temporary_folder_behind_a_linked_tmpdir_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "link"))
    with DotCog.open_temp() as dotcog, dotcog.lock():
        dotcog.temp_path("build")
    assert os.listdir(tmp_path / "real") == []


# Paths


def test_paths_are_made_private_and_nested(dotcog: DotCog) -> None:
    with dotcog.lock():
        assert dotcog.path("cache/weights") == dotcog.root / "cache" / "weights"
        assert dotcog.path("cache", "weights").is_dir()
        assert stat.S_IMODE((dotcog.root / "cache").stat().st_mode) == 0o700
        file = dotcog.file_path("mounts", "a", "config.json")
        assert file.parent.is_dir()
        assert not file.exists()


@pytest.mark.parametrize(
    "parts",
    [
        (),
        ("",),
        (".",),
        ("..",),
        ("/etc",),
        ("build/",),
        ("a//b",),
        ("a/../b",),
        ("a", ".."),
        ("a\\b",),
        ("a\0b",),
        ("cog.lock",),
        ("cog.lock.holder",),
        (".gitignore",),
        ("cog.lock", "x"),
    ],
)
def test_names_that_lead_out_or_are_reserved_are_refused(dotcog: DotCog, parts: tuple[str, ...]) -> None:
    with dotcog.lock():
        for method in (dotcog.path, dotcog.file_path, dotcog.temp_path, dotcog.settle):
            with pytest.raises(ValueError, match="not a name"):
                method(*parts)
        with pytest.raises(ValueError, match="not a name"):
            dotcog.write_file(b"", *parts)


def test_changes_without_the_lock_are_programming_errors(dotcog: DotCog) -> None:
    for change in (
        lambda: dotcog.path("cache"),
        lambda: dotcog.file_path("cache", "x"),
        lambda: dotcog.temp_path("build"),
        lambda: dotcog.write_file(b"", "x"),
        lambda: dotcog.settle("build"),
    ):
        with pytest.raises(RuntimeError, match="needs its lock"):
            change()
    assert os.listdir(dotcog.root) == [".gitignore"]


def test_a_path_that_exists_can_be_looked_up_without_the_lock(dotcog: DotCog) -> None:
    with dotcog.lock():
        dotcog.path("cache")
    assert dotcog.path("cache").is_dir()
    assert dotcog.file_path("cache", "file").parent.is_dir()


@pytest.mark.parametrize("what", ["path", "file_path", "temp_path", "write_file"])
def test_a_link_on_the_way_is_not_followed(dotcog: DotCog, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    (dotcog.root / "cache").symlink_to(outside)
    with dotcog.lock(), pytest.raises(ConfigError, match="cache is a symbolic link to"):
        if what == "write_file":
            dotcog.write_file(b"x", "cache", "keep")
        else:
            getattr(dotcog, what)("cache", "below")
    assert os.listdir(outside) == ["keep"]
    assert (outside / "keep").read_text() == "kept"


def test_a_file_path_that_is_a_link_or_a_folder_is_refused(dotcog: DotCog, tmp_path: Path) -> None:
    (dotcog.root / "link").symlink_to(tmp_path / "outside")
    (dotcog.root / "folder").mkdir()
    with dotcog.lock():
        with pytest.raises(ConfigError, match="link is a symbolic link"):
            dotcog.file_path("link")
        with pytest.raises(ConfigError, match="folder is a folder and not a file"):
            dotcog.file_path("folder")


def test_writing_a_file_replaces_a_link_and_not_its_target(dotcog: DotCog, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    (dotcog.root / "schema.json").symlink_to(target)
    (dotcog.root / ".schema.json.tmp").symlink_to(target)
    with dotcog.lock():
        written = dotcog.write_file(b"new", "schema.json")
    assert target.read_text() == "kept"
    assert not written.is_symlink()
    assert written.read_bytes() == b"new"


def test_written_files_have_the_mode_asked_for_whatever_the_umask(dotcog: DotCog) -> None:
    before = os.umask(0o077)
    try:
        with dotcog.lock():
            plain = dotcog.write_file(b"", "a", "plain")
            program = dotcog.write_file(b"", "a", "program", executable=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(plain.stat().st_mode) == 0o644
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert sorted(os.listdir(plain.parent)) == ["plain", "program"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    dotcog: DotCog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dotcog.lock():
        dotcog.write_file(b"old", "d", "file")

        def no_rename(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "rename", no_rename)
        with pytest.raises(CogkitError, match="cannot write it: No space left on device") as caught:
            dotcog.write_file(b"new", "d", "file")
        monkeypatch.undo()
    assert caught.value.hint
    assert (dotcog.root / "d" / "file").read_bytes() == b"old"
    assert os.listdir(dotcog.root / "d") == ["file"]


# Wiping


def test_a_temp_path_starts_empty_and_is_gone_when_the_lock_is(dotcog: DotCog) -> None:
    (dotcog.root / "build" / "deep").mkdir(parents=True)
    (dotcog.root / "build" / "deep" / "stale").touch()
    with dotcog.lock():
        build = dotcog.temp_path("build")
        assert os.listdir(build) == []
        (build / "Dockerfile").touch()
    assert not build.exists()
    assert dotcog.root.is_dir()


def test_a_temp_path_is_gone_after_close_too(tmp_path: Path) -> None:
    dotcog = DotCog.open(tmp_path)
    dotcog.lock()
    build = dotcog.temp_path("build")
    dotcog.close()
    assert not build.exists()


def test_a_temp_path_that_is_a_link_is_unlinked_and_its_target_kept(dotcog: DotCog, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    (dotcog.root / "build").symlink_to(outside)
    with dotcog.lock():
        build = dotcog.temp_path("build")
        assert build.is_dir()
        assert not build.is_symlink()
    assert os.listdir(outside) == ["keep"]


def test_links_below_a_temp_path_are_removed_and_not_followed(dotcog: DotCog, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "keep").touch()
    inner = dotcog.root / "build" / "a" / "b"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent, inner.parent.parent):
        (folder / "link").symlink_to(outside)
        (folder / "dangling").symlink_to("nowhere")
    with dotcog.lock():
        assert os.listdir(dotcog.temp_path("build")) == []
    assert os.listdir(outside) == ["keep"]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755


def test_a_temp_path_that_is_a_file_or_a_pipe_is_replaced(dotcog: DotCog) -> None:
    with dotcog.lock():
        (dotcog.root / "build").touch()
        assert dotcog.temp_path("build").is_dir()
        os.mkfifo(dotcog.root / "pipe")
        assert dotcog.temp_path("pipe").is_dir()


def test_folders_that_were_made_unwritable_are_wiped_all_the_same(common_dir: Path) -> None:
    if os.geteuid() == 0:
        os.chown(common_dir, 65534, 65534)
    with unprivileged(), DotCog.open(common_dir) as dotcog, dotcog.lock():
        build = dotcog.temp_path("build")
        for name in ("0500", "0300", "0000"):
            folder = build / name / "deep" / "deeper"
            folder.mkdir(parents=True)
            (folder / "file").touch()
            for closed in (folder, folder.parent, folder.parent.parent):
                closed.chmod(int(name, 8))
        build.chmod(0)
        assert os.listdir(dotcog.temp_path("build")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_what_cannot_be_wiped_is_named_with_its_place(common_dir: Path) -> None:
    os.chown(common_dir, 65534, 65534)
    with unprivileged():
        DotCog.open(common_dir).close()
    theirs = common_dir / ".cog" / "build" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "file").touch()
    with unprivileged(), DotCog.open(common_dir) as dotcog, dotcog.lock():
        with pytest.raises(ConfigError, match=r"cannot empty it: (Permission|Operation not)") as caught:
            dotcog.temp_path("build")
        assert caught.value.where == str(dotcog.root / "build")
        assert caught.value.hint


def test_a_tree_of_any_depth_is_wiped(dotcog: DotCog) -> None:
    depth = 3000  # deeper than Python's stack, the usual number of descriptors, and PATH_MAX
    try:
        with dotcog.lock():
            fd = os.open(dotcog.temp_path("build"), os.O_RDONLY)
            for _ in range(depth):
                os.mkdir("deeper", dir_fd=fd)
                below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                fd = below
            os.close(fd)
            assert os.listdir(dotcog.temp_path("build")) == []
    finally:  # what a failure leaves is too deep for pytest's own tidying, in this run and all later ones
        subprocess.run(["rm", "-rf", dotcog.root / "build"], check=True)


# Settling


def _stamp(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_mtime_ns, stat.S_IMODE(info.st_mode)


def test_settled_files_depend_on_content_alone(tmp_path: Path) -> None:
    stamps = []
    for name, umask in (("a", 0o022), ("b", 0o077)):
        (tmp_path / name).mkdir()
        before = os.umask(umask)
        try:
            with DotCog.open(tmp_path / name) as dotcog, dotcog.lock():
                build = dotcog.temp_path("build")
                (build / "wheels").mkdir()
                (build / "wheels" / "x.whl").write_bytes(b"wheel")
                (build / "run.sh").write_bytes(b"#!/bin/sh\n")
                (build / "run.sh").chmod(0o700)
                (build / "link").symlink_to("run.sh")
                dotcog.settle("build")
                names = [build, build / "wheels", build / "wheels" / "x.whl", build / "run.sh", build / "link"]
                stamps.append([_stamp(path) for path in names])
        finally:
            os.umask(before)
    assert stamps[0] == stamps[1]
    assert [mode for _, mode in stamps[0]] == [0o755, 0o755, 0o644, 0o755, 0o777]


def test_an_edit_that_keeps_the_size_gets_another_time_so_that_it_is_sent(dotcog: DotCog) -> None:
    with dotcog.lock():
        dotcog.temp_path("build")
        times = set()
        for text in (b"numpy==1.26.4", b"numpy==1.26.5", b"numpy==1.26.4"):
            file = dotcog.write_file(text, "build", "requirements.txt")
            dotcog.settle("build")
            times.add(file.stat().st_mtime_ns)
    assert len(times) == 2


def test_settling_does_not_touch_what_links_point_to(dotcog: DotCog, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "file").touch(mode=0o600)
    before = _stamp(outside), _stamp(outside / "file")
    with dotcog.lock():
        build = dotcog.temp_path("build")
        (build / "folder").symlink_to(outside)
        (build / "file").symlink_to(outside / "file")
        dotcog.settle("build")
    assert (_stamp(outside), _stamp(outside / "file")) == before


# Closing


def test_cleanups_run_last_registered_first(tmp_path: Path) -> None:
    order: list[int] = []
    dotcog = DotCog.open(tmp_path)
    for number in (1, 2, 3):
        dotcog.on_close(lambda number=number: order.append(number))  # type: ignore[misc]
    dotcog.close()
    assert order == [3, 2, 1]


def test_all_cleanups_run_even_if_some_fail_and_every_failure_is_told(tmp_path: Path) -> None:
    order: list[int] = []

    def fail(number: int) -> Callable[[], None]:
        def cleanup() -> None:
            order.append(number)
            raise OSError(number, f"failure {number}")

        return cleanup

    dotcog = DotCog.open(tmp_path)
    dotcog.on_close(fail(1), what="do one")
    dotcog.on_close(lambda: order.append(2))
    dotcog.lock()
    dotcog.on_close(fail(3), what="do three")
    with pytest.raises(CogkitError, match="2 things could not be cleaned up") as caught:
        dotcog.close()
    assert order == [3, 2, 1]
    assert caught.value.detail is not None
    assert re.findall(r"could not (do \w+)", caught.value.detail) == ["do three", "do one"]
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    with DotCog.open(tmp_path) as again, again.lock(timeout=0):
        pass  # the lock was released in spite of the failures


def test_one_failing_cleanup_is_told_as_it_is(tmp_path: Path) -> None:
    dotcog = DotCog.open(tmp_path)
    dotcog.on_close(lambda: os.rmdir(tmp_path / "nowhere"), what="remove nowhere")
    with pytest.raises(CogkitError, match=r"could not remove nowhere: .*No such file") as caught:
        dotcog.close()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_an_interrupt_during_cleanup_waits_for_the_other_cleanups(tmp_path: Path) -> None:
    order: list[str] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    dotcog = DotCog.open(tmp_path)
    dotcog.on_close(lambda: order.append("last"))
    dotcog.on_close(interrupted)
    with pytest.raises(KeyboardInterrupt):
        dotcog.close()
    assert order == ["last"]


def test_a_failing_cleanup_does_not_hide_the_error_that_ended_the_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the real one") as caught, DotCog.open(tmp_path) as dotcog:
        dotcog.on_close(lambda: os.rmdir(tmp_path / "nowhere"), what="remove nowhere")
        raise ValueError("the real one")
    assert any("could not remove nowhere" in note for note in caught.value.__notes__)


def test_closing_twice_runs_cleanups_once(tmp_path: Path) -> None:
    calls: list[int] = []
    dotcog = DotCog.open(tmp_path)
    dotcog.on_close(lambda: calls.append(1))
    dotcog.close()
    dotcog.close()
    assert calls == [1]


def test_closing_what_was_never_opened_does_nothing(tmp_path: Path) -> None:
    dotcog = DotCog(tmp_path)
    dotcog.close()
    dotcog.close()
    assert os.listdir(tmp_path) == []


def test_closing_what_failed_to_open_does_nothing(tmp_path: Path) -> None:
    (tmp_path / ".cog").touch()
    dotcog = DotCog(tmp_path)
    with pytest.raises(ConfigError), dotcog:
        raise AssertionError("the block must not run")
    dotcog.close()


def test_nested_blocks_close_with_the_outermost(tmp_path: Path) -> None:
    with DotCog(tmp_path) as dotcog:
        with dotcog as inner:
            assert inner is dotcog
        with dotcog.lock():
            dotcog.path("still-open")
    with pytest.raises(RuntimeError, match="not open"):
        dotcog.path("still-open")


def test_after_close_nothing_works_and_nothing_is_left_open(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/dev/fd"))
    dotcog = DotCog.open(tmp_path)
    dotcog.lock()
    dotcog.temp_path("build")
    dotcog.close()
    for use in (lambda: dotcog.path("a"), lambda: dotcog.lock(timeout=0), dotcog.holder):
        with pytest.raises(RuntimeError, match="not open"):
            use()
    with pytest.raises(RuntimeError, match="not open"):
        dotcog.on_close(lambda: None)
    assert len(os.listdir("/dev/fd")) == descriptors


# The lock


def test_two_objects_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with DotCog.open(tmp_path) as one, DotCog.open(tmp_path) as two:
        with one.lock():
            with pytest.raises(LockNotAcquiredError) as caught:
                two.lock(timeout=0.05)
            assert (one.locked, two.locked) == (True, False)
        assert exit_code_of(caught.value) == 4
        assert f"process {os.getpid()} (" in caught.value.message
        with two.lock(timeout=0):
            assert (one.locked, two.locked) == (False, True)


def test_one_object_excludes_a_second_taker_too(dotcog: DotCog) -> None:
    with dotcog.lock(), pytest.raises(LockNotAcquiredError):
        dotcog.lock(timeout=0)
    dotcog.lock(timeout=0).release()


def test_waiting_for_oneself_for_ever_is_refused(dotcog: DotCog) -> None:
    with dotcog.lock(), DotCog.open(dotcog.project_dir) as again:
        with pytest.raises(RuntimeError, match="would wait for itself"):
            dotcog.lock()
        with pytest.raises(RuntimeError, match="would wait for itself"):
            again.lock()


def test_a_negative_timeout_is_refused(dotcog: DotCog) -> None:
    with pytest.raises(ValueError, match="negative"):
        dotcog.lock(timeout=-1)


def test_threads_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    overlaps: list[int] = []
    failures: list[BaseException] = []

    def work(shared: DotCog | None) -> None:
        try:
            dotcog = shared or DotCog.open(tmp_path)
            for _ in range(5):
                with dotcog.lock(timeout=PATIENCE):
                    inside.append(1)
                    if len(inside) > 1:
                        overlaps.append(1)
                    build = dotcog.temp_path("build")
                    (build / "mine").touch(exist_ok=False)
                    inside.pop()
            if shared is None:
                dotcog.close()
        except BaseException as error:
            failures.append(error)

    with DotCog.open(tmp_path) as shared:
        threads = [threading.Thread(target=work, args=(shared if i % 2 else None,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert overlaps == []


def test_tasks_take_turns_while_the_loop_goes_on(tmp_path: Path) -> None:
    inside = 0
    most = 0

    async def work(dotcog: DotCog) -> None:
        nonlocal inside, most
        with await dotcog.alock(timeout=PATIENCE):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    async def all_of_them() -> None:
        with DotCog.open(tmp_path) as one, DotCog.open(tmp_path) as two:
            await asyncio.gather(*(work(dotcog) for dotcog in (one, two) * 4))

    asyncio.run(all_of_them())
    assert most == 1


def test_a_task_that_waits_can_be_cancelled_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with DotCog.open(tmp_path) as holder, DotCog.open(tmp_path) as waiter:
            waits: list[LockWait] = []
            with holder.lock():
                task = asyncio.create_task(waiter.alock(on_wait=waits.append))
                while not waits:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with await waiter.alock(timeout=0):
                pass

    asyncio.run(scenario())


def test_a_task_does_not_wait_for_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        with DotCog.open(tmp_path) as dotcog, await dotcog.alock():
            with pytest.raises(RuntimeError, match="would wait for itself"):
                await dotcog.alock()
            with pytest.raises(LockNotAcquiredError):
                await dotcog.alock(timeout=0.02)

    asyncio.run(scenario())


def test_the_waiting_are_told_at_once_and_again(dotcog: DotCog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dotcog_module, "WAIT_NOTICE_SECONDS", 0.01)
    waits: list[LockWait] = []
    with dotcog.lock(), DotCog.open(dotcog.project_dir) as waiter, pytest.raises(LockNotAcquiredError):
        waiter.lock(timeout=0.3, on_wait=waits.append)
    assert len(waits) > 2
    assert waits[0].waited < waits[-1].waited <= 0.3
    assert waits[0].holder is not None
    assert waits[0].holder.pid == os.getpid()
    assert re.fullmatch(
        rf"waiting for {re.escape(str(dotcog.root))}/cog\.lock, "
        rf"held by process {os.getpid()} \(.+\) since [\d:]+ \(0 of at most 0 s\)",
        str(waits[0]),
    )


def test_a_free_lock_is_taken_without_a_word(dotcog: DotCog) -> None:
    waits: list[LockWait] = []
    with dotcog.lock(on_wait=waits.append):
        pass
    assert waits == []


def test_an_error_of_the_listener_ends_the_wait(dotcog: DotCog) -> None:
    def shout(_: LockWait) -> None:
        raise BrokenPipeError

    with DotCog.open(dotcog.project_dir) as other:
        with dotcog.lock(), pytest.raises(BrokenPipeError):
            other.lock(timeout=PATIENCE, on_wait=shout)
        other.lock(timeout=0).release()


def test_releasing_twice_is_harmless_and_does_not_free_the_next_holder(tmp_path: Path) -> None:
    with DotCog.open(tmp_path) as one, DotCog.open(tmp_path) as two:
        first = one.lock()
        first.release()
        with two.lock():
            first.release()
            with pytest.raises(LockNotAcquiredError):
                one.lock(timeout=0)
        second = one.lock()
        first.release()
        assert second.held


def test_only_the_holder_of_the_lock_leaves_a_record(dotcog: DotCog) -> None:
    assert dotcog.holder() is None
    with dotcog.lock():
        holder = dotcog.holder()
        assert holder is not None
        assert holder.pid == os.getpid()
    assert dotcog.holder() is None
    assert not (dotcog.root / HOLDER_NAME).exists()


def test_the_record_of_a_process_that_is_gone_does_not_mislead(dotcog: DotCog) -> None:
    me = LockHolder.this_process()
    gone = LockHolder(me.pid, "old", me.since, me.host, started="1", pid_namespace=me.pid_namespace)
    (dotcog.root / HOLDER_NAME).write_bytes(gone.serialize())
    assert dotcog.holder() is None


def test_a_holder_on_another_host_is_believed_and_named(dotcog: DotCog) -> None:
    away = LockHolder(1, "cogkit build", 0.0, "elsewhere", started="1", pid_namespace="pid:[1]")
    (dotcog.root / HOLDER_NAME).write_bytes(away.serialize())
    assert re.fullmatch(r"process 1 \(cogkit build\) on elsewhere since (19|20)[\d: -]+", str(dotcog.holder()))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 4000, b'{"pid": "x"}', LockHolder(-1, "c", 0, "elsewhere").serialize()],
)
def test_a_record_that_is_none_is_ignored(dotcog: DotCog, text: bytes) -> None:
    (dotcog.root / HOLDER_NAME).write_bytes(text)
    assert dotcog.holder() is None


def test_a_record_cannot_write_to_the_terminal(dotcog: DotCog) -> None:
    hostile = LockHolder(1, "\x1b[2Jcogkit\n" + "x" * 1000, 0.0, "else\x07where")
    (dotcog.root / HOLDER_NAME).write_bytes(hostile.serialize())
    assert (shown := str(dotcog.holder())).isprintable()
    assert len(shown) < 200


def test_arguments_that_may_be_secret_are_not_in_the_record(dotcog: DotCog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/cogkit", "build", "--build-arg", "TOKEN=secret"])
    with dotcog.lock():
        assert b"secret" not in (dotcog.root / HOLDER_NAME).read_bytes()
        assert "(cogkit build)" in str(dotcog.holder())


@pytest.mark.parametrize("name", [LOCK_NAME, HOLDER_NAME])
def test_a_link_in_place_of_the_lock_files_is_not_followed(dotcog: DotCog, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    (dotcog.root / name).symlink_to(target)
    if name == LOCK_NAME:
        with pytest.raises(ConfigError, match=r"cog\.lock is a symbolic link"):
            dotcog.lock(timeout=0)
    else:
        with dotcog.lock(timeout=0):
            assert not (dotcog.root / name).is_symlink()
    assert not target.exists()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_place_of_the_lock_file_is_a_clear_error(
    dotcog: DotCog, make: Callable[[Path], object]
) -> None:
    make(dotcog.root / LOCK_NAME)
    with pytest.raises(ConfigError, match=r"cog\.lock is a (folder|special file) and not a file"):
        dotcog.lock(timeout=0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_clear_error(
    dotcog: DotCog, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: fasteners.InterProcessLock) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fasteners.InterProcessLock, "trylock", refuse)
    with pytest.raises(ConfigError, match="file system does not support locks") as caught:
        dotcog.lock()
    assert caught.value.hint
    monkeypatch.undo()
    dotcog.lock(timeout=0).release()


def test_a_folder_that_was_removed_in_between_is_made_again(dotcog: DotCog) -> None:
    shutil.rmtree(dotcog.root)
    with dotcog.lock(timeout=0), DotCog.open(dotcog.project_dir) as other:
        assert dotcog.temp_path("build").is_dir()
        with pytest.raises(LockNotAcquiredError):
            other.lock(timeout=0)


def test_removing_the_folder_under_the_holder_is_noticed_by_the_next_lock(dotcog: DotCog) -> None:
    with dotcog.lock():
        shutil.rmtree(dotcog.root)
        with pytest.raises(CogkitError, match="removed or replaced while it was in use"):
            dotcog.lock(timeout=0)


def test_a_forked_child_neither_holds_the_lock_nor_cleans_up(dotcog: DotCog) -> None:
    held = dotcog.lock()
    build = dotcog.temp_path("build")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if not held.held and not dotcog.locked:
                dotcog.close()
                held.release()
                with DotCog.open(dotcog.project_dir) as own:
                    try:
                        own.lock(timeout=0)
                    except LockNotAcquiredError:
                        code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held.held
    assert build.is_dir()


def test_a_forked_child_can_take_the_lock_once_its_parent_has_released_it(dotcog: DotCog) -> None:
    held = dotcog.lock()
    ready, release = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.read(ready, 1)
            with DotCog.open(dotcog.project_dir) as own, own.lock(timeout=PATIENCE / 10):
                code = 0
        finally:
            os._exit(code)
    held.release()
    os.write(release, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(ready)
    os.close(release)


def test_a_lock_on_a_file_that_was_removed_meanwhile_does_not_count(
    dotcog: DotCog, monkeypatch: pytest.MonkeyPatch
) -> None:
    trylock = fasteners.InterProcessLock.trylock
    removals: list[int] = []

    def remove_then_lock(lock: fasteners.InterProcessLock) -> None:
        if not removals:
            removals.append(1)
            os.unlink(dotcog.root / LOCK_NAME)
        trylock(lock)

    monkeypatch.setattr(fasteners.InterProcessLock, "trylock", remove_then_lock)
    with pytest.raises(LockNotAcquiredError):
        dotcog.lock(timeout=0)
    with dotcog.lock(timeout=PATIENCE):
        assert (dotcog.root / LOCK_NAME).is_file()


def test_a_record_behind_a_link_is_not_read(dotcog: DotCog, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(LockHolder(1, "hostile", 0.0, "elsewhere").serialize())
    (dotcog.root / HOLDER_NAME).symlink_to(tmp_path / "elsewhere")
    assert dotcog.holder() is None
