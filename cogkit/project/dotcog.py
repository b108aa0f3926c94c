"""The ``.cog/`` folder: the one place where cogkit keeps state inside a project.

    with DotCog.open(project) as dotcog, dotcog.lock(on_wait=show):
        build = dotcog.temp_path("build")
        dotcog.write_file(dockerfile, "build", "Dockerfile")
        dotcog.settle("build")
        ...

Two rules hold here, and whoever changes this file keeps them: everything below ``.cog/`` is reached through
`cogkit.project.nofollow`, never by a path that could lead through a link; and whatever changes ``.cog/`` needs the
lock.  Only the creation of the folder itself (and of the lock file) does not.

This file knows nothing of builds, configuration or the command line, and it prints nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from cogkit.errors import CogkitError, ConfigError, LockNotAcquiredError
from cogkit.project.lock import (
    HOLDER_NAME,
    LOCK_NAME,
    KernelLock,
    LockHolder,
    LockWait,
    current_task,
    lock_held_here,
    read_holder,
)
from cogkit.project.nofollow import (
    DIR_FLAGS,
    Explained,
    explain,
    mode_at,
    open_or_make,
    owner_note,
    remove,
    remove_path,
    settle,
    unusable,
    write_at,
)
from cogkit.temporary_folder import TemporaryFolder

__all__ = ["DOTCOG_NAME", "DotCog", "HeldLock", "LockHolder", "LockWait", "ReadOnlyProjectError"]

DOTCOG_NAME = ".cog"

WAIT_NOTICE_SECONDS = 5.0
"""How often a waiting `DotCog.lock` calls ``on_wait`` again."""

_IGNORE_NAME = ".gitignore"
_OWN_NAMES = frozenset({LOCK_NAME, HOLDER_NAME, _IGNORE_NAME})
_FIRST_DELAY, _LONGEST_DELAY = 0.01, 0.1


class ReadOnlyProjectError(ConfigError):
    """The project's folder cannot be written, so it can have no ``.cog/``; `DotCog.open_temp` is the way out."""


class HeldLock:
    """The project's lock while it is held; made by `DotCog.lock` and `DotCog.alock` only."""

    def __init__(self, dotcog: DotCog, kernel_lock: KernelLock):
        self._dotcog = dotcog
        self._kernel_lock = kernel_lock

    @property
    def held(self) -> bool:
        """False once released, and in a forked child, which does not inherit the lock."""
        return self._kernel_lock.held

    def release(self) -> None:
        """Give the lock back, after the cleanups that were registered while it was held.  Idempotent.

        Raises:
            CogkitError: a cleanup failed; the others have run and the lock is released all the same.
        """
        self._dotcog._unwind(self._kernel_lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _finish(self.release, error)


class DotCog:
    """A project's ``.cog/`` folder.

    Make one with `open` or `open_temp`.  An object made by the constructor is not open yet: entering it with ``with``
    opens it, and closing it does nothing.  ``with`` blocks may be nested; the outermost one closes.

    An object may be shared by threads, and by the tasks of a loop; the lock keeps all of them apart.
    """

    def __init__(self, project_dir: str | os.PathLike[str]):
        self._project_dir = Path(os.path.realpath(project_dir))
        self._root_fd = -1
        self._pid = os.getpid()
        self._private = False
        self._closing = False
        self._closed = False
        self._depth = 0
        self._kernel_lock: KernelLock | None = None
        self._mutex = threading.RLock()
        self._cleanups: list[tuple[str, Callable[[], object]]] = []

    @classmethod
    def open(cls, project_dir: str | os.PathLike[str]) -> Self:
        """Open ``<project_dir>/.cog/`` and create it if need be (mode 0700, with a ``.gitignore`` that says ``*``).

        Raises:
            ReadOnlyProjectError: there is no ``.cog/`` and it cannot be made, or the file system is read-only.
            ConfigError: ``.cog`` is a link or a file, or it cannot be used by this user.
        """
        dotcog = cls(project_dir)
        dotcog._open()
        return dotcog

    @classmethod
    def open_temp(cls) -> Self:
        """Open a ``.cog/`` of its own in the system's temporary folder, which `close` removes.

        For a project that cannot be written, or a build without one.  Nobody else knows of it, so changing it needs no
        lock (taking it works all the same).
        """
        try:
            folder = TemporaryFolder()
        except OSError as error:
            raise CogkitError(
                f"cannot make a temporary folder: {error.strerror or error}",
                hint="Set TMPDIR to a folder that you can write.",
            ) from error
        dotcog = cls(folder.path)
        dotcog._private = True
        dotcog._cleanups.append((f"give {folder.path} up", folder.close))
        dotcog._cleanups.append((f"remove {folder.path}", lambda: remove_path(dotcog.project_dir)))
        try:
            dotcog._open()
        except BaseException as error:
            _finish(dotcog.close, error)
            raise
        return dotcog

    @property
    def root(self) -> Path:
        """The absolute path of the ``.cog`` folder itself."""
        return self._project_dir / DOTCOG_NAME

    @property
    def project_dir(self) -> Path:
        """The folder that holds ``.cog``, absolute and without symbolic links."""
        return self._project_dir

    @property
    def is_temporary(self) -> bool:
        """Whether this is a throw-away folder made by `open_temp`."""
        return self._private

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock now."""
        return self._kernel_lock is not None and self._kernel_lock.held

    # Paths and files

    def path(self, *parts: str) -> Path:
        """The folder ``.cog/<parts>``, which is created (this needs the lock) if it does not exist.

        Args:
            parts: Names, or relative paths with ``/``; without ``..``, empty names and the names cogkit uses itself.

        Raises:
            ValueError: a part is not such a name.
            ConfigError: something on the way is a symbolic link or a file.
        """
        names = _names(parts)
        with self._explained("use", names):
            os.close(self._open_dir(names, create=True))
        return self.root.joinpath(*names)

    def file_path(self, *parts: str) -> Path:
        """The path of a file ``.cog/<parts>``: its folder is created as in `path`, the file itself is not.

        Raises as `path`; also ConfigError when there is something at that place that is not a regular file.
        """
        names = _names(parts)
        with self._explained("use", names):
            parent = self._open_dir(names[:-1], create=True)
            try:
                mode = mode_at(parent, names[-1])
            finally:
                os.close(parent)
        if mode is not None and not stat.S_ISREG(mode):
            raise unusable(self.root.joinpath(*names), mode, "a file")
        return self.root.joinpath(*names)

    def temp_path(self, *parts: str) -> Path:
        """The folder ``.cog/<parts>``, empty: what is there is wiped first, links are removed and not followed.

        It is removed when the lock is released or on `close`, whichever comes first; if the process is killed, the next
        `temp_path` of that name wipes it.  Needs the lock.
        """
        names = _names(parts)
        self._require_lock()
        with self._explained("empty", names):
            parent = self._open_dir(names[:-1], create=True)
            try:
                remove(parent, names[-1])
                os.mkdir(names[-1], 0o700, dir_fd=parent)
            finally:
                os.close(parent)
        self.on_close(lambda: self._remove_temp(names), what=f"remove {self.root.joinpath(*names)}")
        return self.root.joinpath(*names)

    def write_file(self, data: bytes, *parts: str, executable: bool = False) -> Path:
        """Write ``.cog/<parts>`` whole or not at all, mode 0644 or 0755 whatever the umask.  Needs the lock.

        Its folder is created as in `path`.  Whole or not at all holds for readers and for a kill of this process; after
        a power failure too little may be there, as nothing in ``.cog/`` is worth the wait for the disk.
        """
        names = _names(parts)
        self._require_lock()
        with self._explained("write", names):
            parent = self._open_dir(names[:-1], create=True)
            try:
                write_at(parent, names[-1], data, 0o755 if executable else 0o644)
            finally:
                os.close(parent)
        return self.root.joinpath(*names)

    def settle(self, *parts: str) -> None:
        """Make modes and times below ``.cog/<parts>`` depend on content alone.  Needs the lock.

        What is copied from there into an image carries its mode and modification time into the layer, so these must
        not tell of this machine's umask and clock.  The modification time of a file is made from the SHA-256 of its
        content and not set to one fixed instant, because BuildKit asks again only for a file whose size, time or mode
        changed (fsutil's differ): under a fixed time an edit that keeps the size would never be sent.
        """
        names = _names(parts)
        self._require_lock()
        with self._explained("settle", names):
            folder = self._open_dir(names, create=False)
            try:
                settle(folder)
            finally:
                os.close(folder)

    # The lock

    def lock(self, timeout: float | None = None, on_wait: Callable[[LockWait], object] | None = None) -> HeldLock:
        """Take the project's lock; wait while another process, thread or task has it.

        Args:
            timeout: How long to wait at most, in seconds; 0 tries once, None waits for ever.
            on_wait: Called at once when there is something to wait for, and then every `WAIT_NOTICE_SECONDS`.

        Returns:
            The held lock: a context manager, with `HeldLock.release`.  `close` releases it too.

        Raises:
            LockNotAcquiredError: the time is over; the message names the holder.
            ConfigError: the file system has no locks, or the lock file cannot be used.
            KeyboardInterrupt: at once, when the user interrupts the wait.
            RuntimeError: this thread holds the lock already and would wait for itself for ever.
        """
        self._require_open()
        holder = lock_held_here(self._root_fd)
        if timeout is None and holder is not None and holder.thread == threading.get_ident():
            raise RuntimeError(f"this thread holds the lock of {self.root} already and would wait for itself for ever")
        with closing(self._acquisition(timeout, on_wait)) as acquisition:
            while True:
                try:
                    delay = next(acquisition)
                except StopIteration as done:
                    held: HeldLock = done.value
                    return held
                time.sleep(delay)

    async def alock(
        self, timeout: float | None = None, on_wait: Callable[[LockWait], object] | None = None
    ) -> HeldLock:
        """`lock` for a coroutine: the loop goes on while this waits, and cancelling it leaves at once."""
        self._require_open()
        holder = lock_held_here(self._root_fd)
        if timeout is None and holder is not None and holder.task is not None and holder.task is current_task():
            raise RuntimeError(f"this task holds the lock of {self.root} already and would wait for itself for ever")
        with closing(self._acquisition(timeout, on_wait)) as acquisition:
            while True:
                try:
                    delay = next(acquisition)
                except StopIteration as done:
                    held: HeldLock = done.value
                    return held
                await asyncio.sleep(delay)

    def holder(self) -> LockHolder | None:
        """Who holds the project's lock now, as far as can be told; None also when nobody does."""
        self._require_open()
        return read_holder(self._root_fd)

    def _acquisition(
        self, timeout: float | None, on_wait: Callable[[LockWait], object] | None
    ) -> Generator[float, None, HeldLock]:
        """The steps of taking the lock: yields seconds to sleep before the next step, returns the held lock."""
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must not be negative")
        begin = time.monotonic()
        next_notice, delay = begin, _FIRST_DELAY
        while True:
            held = self._try_lock()
            if held is not None:
                return held
            now = time.monotonic()
            waited = now - begin
            if timeout is not None and waited >= timeout:
                raise self._not_acquired(timeout)
            if on_wait is not None and now >= next_notice:
                next_notice = now + WAIT_NOTICE_SECONDS
                on_wait(LockWait(self.root / LOCK_NAME, self.holder(), waited, timeout))
            # Spread, so that many waiters do not keep knocking in step.
            pause = delay * random.uniform(0.5, 1.0)
            yield pause if timeout is None else min(pause, timeout - waited)
            delay = min(delay * 1.5, _LONGEST_DELAY)

    def _try_lock(self) -> HeldLock | None:
        self._require_open()
        self._follow_replaced_root()
        kernel_lock = KernelLock.try_acquire(self._root_fd, self.root)
        if kernel_lock is None:
            return None
        try:
            self.on_close(kernel_lock.release, what=f"release {self.root / LOCK_NAME}")
        except BaseException as error:
            _finish(kernel_lock.release, error)
            raise
        self._kernel_lock = kernel_lock
        return HeldLock(self, kernel_lock)

    def _not_acquired(self, timeout: float) -> LockNotAcquiredError:
        waited = f" after {timeout:g} s" if timeout else ""
        return LockNotAcquiredError(
            f"the project's lock is still held by {self.holder() or 'another process'}{waited}",
            where=str(self.root / LOCK_NAME),
            hint="Let that command finish or stop it, then run this one again.",
        )

    # Closing

    def on_close(self, cleanup: Callable[[], object], *, what: str = "clean up") -> None:
        """Have ``cleanup`` run on `close`, last registered first; what is registered under the lock, on its release.

        Args:
            what: What the cleanup does, for the message when it fails.
        """
        self._require_open()
        with self._mutex:
            if self._closing:
                raise RuntimeError(f"{self.root} is being closed")
            self._cleanups.append((what, cleanup))

    def close(self) -> None:
        """Run all cleanups, last registered first, and release the lock.  Idempotent; nothing if never opened.

        A forked child that inherited the object only forgets it: the folder and the lock stay the parent's.

        Raises:
            CogkitError: a cleanup failed; the others have run all the same.
        """
        with self._mutex:
            if self._closing:
                return
            self._closing = True
        try:
            self._unwind(None)
        finally:
            self._closed = True
            if self._root_fd >= 0:
                os.close(self._root_fd)
                self._root_fd = -1

    def _unwind(self, kernel_lock: KernelLock | None) -> None:
        """Run the cleanups down to the release of ``kernel_lock`` (all with None); then raise what went wrong."""
        with self._mutex:
            releases = [i for i, (_, cleanup) in enumerate(self._cleanups) if _releases(cleanup, kernel_lock)]
            start = 0 if kernel_lock is None else releases[0] if releases else len(self._cleanups)
            cleanups, self._cleanups[start:] = self._cleanups[start:], []
        if os.getpid() != self._pid:
            cleanups = [(what, cleanup) for what, cleanup in cleanups if _releases(cleanup, self._kernel_lock)]
        failures: list[tuple[str, BaseException]] = []
        for what, cleanup in reversed(cleanups):
            try:
                cleanup()
            except BaseException as error:
                failures.append((what, error))
        _raise_failures(failures)

    def _remove_temp(self, names: tuple[str, ...]) -> None:
        with self._explained("remove", names):
            try:
                parent = self._open_dir(names[:-1], create=False)
            except FileNotFoundError:
                return
            try:
                remove(parent, names[-1])
            finally:
                os.close(parent)

    def __enter__(self) -> Self:
        if self._root_fd < 0 and not self._closed:
            self._open()
        self._require_open()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            _finish(self.close, error)

    # Opening

    def _open(self) -> None:
        project = self._project_dir
        try:
            project_fd = os.open(project, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ConfigError("the project folder does not exist", where=str(project)) from error
        except NotADirectoryError as error:
            raise ConfigError("the project is not a folder", where=str(project)) from error
        except OSError as error:
            raise explain(error, "open", project) from error
        try:
            root_fd = self._open_root(project_fd)
        finally:
            os.close(project_fd)
        if self._root_fd < 0:
            self._root_fd = root_fd
        else:  # in place, because another thread may be about to use the number
            os.dup2(root_fd, self._root_fd, inheritable=False)
            os.close(root_fd)

    def _open_root(self, project_fd: int) -> int:
        try:
            root_fd, created = open_or_make(project_fd, DOTCOG_NAME)
        except OSError as error:
            raise self._cannot_open_root(error, project_fd) from error
        try:
            if created:
                with self._explained("write", (_IGNORE_NAME,)):
                    write_at(root_fd, _IGNORE_NAME, b"*\n", 0o644)
            else:
                self._check_writable(root_fd)
        except BaseException:
            os.close(root_fd)
            raise
        return root_fd

    def _cannot_open_root(self, error: OSError, project_fd: int) -> CogkitError:
        mode = mode_at(project_fd, DOTCOG_NAME)
        if mode is not None and not stat.S_ISDIR(mode):
            return unusable(self.root, mode, "a folder")
        if mode is None and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return ReadOnlyProjectError(
                f"cannot create {DOTCOG_NAME} in the project: {error.strerror}{owner_note(project_fd)}",
                where=str(self._project_dir),
                hint="Make the project's folder writable, or build from a copy of it.",
            )
        return explain(error, "open", self.root, project_fd, DOTCOG_NAME)

    def _check_writable(self, root_fd: int) -> None:
        # Effective ids only where they differ: that flag needs a system call that old container runtimes refuse.
        effective = os.getuid() != os.geteuid()
        if os.access(".", os.W_OK | os.X_OK, dir_fd=root_fd, effective_ids=effective):
            return
        if os.fstatvfs(root_fd).f_flag & os.ST_RDONLY:
            raise ReadOnlyProjectError(
                f"{DOTCOG_NAME} is on a read-only file system",
                where=str(self.root),
                hint="Mount it writable, or build from a copy of the project.",
            )
        mode = stat.S_IMODE(os.fstat(root_fd).st_mode)
        raise ConfigError(
            f"{DOTCOG_NAME} cannot be written by you{owner_note(root_fd) or f' (its mode is {mode:04o})'}",
            where=str(self.root),
            hint="Make it yours (chown, chmod u+rwx) or remove it: it can be made again.",
        )

    def _follow_replaced_root(self) -> None:
        """Open ``.cog`` anew if it was removed or replaced since we opened it."""
        try:
            there = os.stat(self.root, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        except OSError as error:
            raise explain(error, "open", self.root) from error
        if there is not None and os.path.samestat(there, os.fstat(self._root_fd)):
            return
        if self.locked:
            raise CogkitError(
                f"{DOTCOG_NAME} was removed or replaced while it was in use",
                where=str(self.root),
                hint=f"Run the command again, and leave {DOTCOG_NAME} alone while a build runs.",
            )
        self._open()

    # Below the root

    def _require_open(self) -> None:
        if self._closed or self._root_fd < 0:
            raise RuntimeError(f"{self.root} is not open")
        if self._pid != os.getpid():
            raise RuntimeError(f"{self.root} was opened by process {self._pid}; a forked child opens its own")

    def _require_lock(self) -> None:
        self._require_open()
        if not self._private and not self.locked:
            raise RuntimeError(f"changing {self.root} needs its lock: use `with dotcog.lock():`")

    def _open_dir(self, names: tuple[str, ...], *, create: bool) -> int:
        """A descriptor of ``.cog/<names>``, reached without following any link.

        Raises:
            FileNotFoundError: it does not exist and ``create`` is false.
        """
        self._require_open()
        fd = os.dup(self._root_fd)
        try:
            for depth in range(1, len(names) + 1):
                below = self._open_below(fd, names[:depth], create)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_below(self, parent_fd: int, names: tuple[str, ...], create: bool) -> int:
        try:
            return os.open(names[-1], DIR_FLAGS, dir_fd=parent_fd)
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            mode = mode_at(parent_fd, names[-1])
            if mode is not None and not stat.S_ISDIR(mode):
                raise unusable(self.root.joinpath(*names), mode, "a folder") from error
            raise
        self._require_lock()
        return open_or_make(parent_fd, names[-1])[0]

    def _explained(self, verb: str, names: tuple[str, ...]) -> Explained:
        return Explained(verb, self.root.joinpath(*names))


def _releases(cleanup: Callable[[], object], kernel_lock: KernelLock | None) -> bool:
    return kernel_lock is not None and cleanup == kernel_lock.release


def _names(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Split and check the names of a path below ``.cog``."""
    names = tuple(name for part in parts for name in part.split("/"))
    for name in names:
        if name in ("", ".", "..") or "\0" in name or "\\" in name:
            raise ValueError(f"not a name below {DOTCOG_NAME}: {'/'.join(parts)!r}")
    if not names or names[0] in _OWN_NAMES:
        raise ValueError(f"not a name that can be used below {DOTCOG_NAME}: {'/'.join(parts)!r}")
    return names


def _raise_failures(failures: list[tuple[str, BaseException]]) -> None:
    if not failures:
        return
    for _, error in failures:
        if not isinstance(error, Exception):  # an interrupt stays one, once the other cleanups have run
            raise error
    lines = [f"could not {what}: {error}" for what, error in failures]
    errors = [error for _, error in failures if isinstance(error, Exception)]
    if len(errors) == 1:
        raise CogkitError(lines[0], hint=getattr(errors[0], "hint", None)) from errors[0]
    cause = ExceptionGroup("cleanups failed", errors)
    raise CogkitError(f"{len(errors)} things could not be cleaned up", detail="\n".join(lines)) from cause


def _finish(cleanup: Callable[[], None], error: BaseException | None) -> None:
    """Run ``cleanup``; when it fails while ``error`` is on its way, the failure becomes a note of that error."""
    if error is None:
        cleanup()
        return
    try:
        cleanup()
    except Exception as failure:
        error.add_note(f"Also: {failure}")
