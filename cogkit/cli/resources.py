"""What the system lets a process have: limits so low that nothing can work, and what was lacking when something failed.

Native code (gRPC's, the C library's) ends the process without a word where it gets no thread, descriptor or memory; so
limits that lead there are refused first.  This file must not import anything that takes time: it is there from the
first moment on, for every command.
"""

from __future__ import annotations

import _thread
import errno
import resource
from collections.abc import Iterator

from cogkit.errors import CogkitError

LEAST_MEMORY = 256 << 20
"""Bytes of address space.  A small build needs 125 MiB (Linux, x86-64) once `prepare` has been called."""

LEAST_FILES = 32
"""Open files.  A small build needs 18."""

THREADS = 10
"""Threads of a small build, gRPC's included, which ends the process without a word if it gets none."""

_STACK = 1 << 20
_M_ARENA_MAX = -8


def prepare() -> None:
    """Make do with little address space where that is limited; before there are threads.

    For each thread glibc reserves 128 MiB for an instant and 64 MiB for ever, and a stack of 8 MiB.
    """
    if not _memory_limit():
        return
    import ctypes
    import threading

    threading.stack_size(_STACK)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def require_enough() -> None:
    """Refuse limits that a build cannot work with.

    Raises:
        CogkitError: one is too low.
    """
    flag, memory = _memory_limit() or ("", LEAST_MEMORY)
    if memory < LEAST_MEMORY:
        raise CogkitError(
            f"the limit on memory (ulimit {flag}) is {memory >> 20} MiB, and cogkit needs {LEAST_MEMORY >> 20}",
            hint=f"raise it: ulimit {flag} unlimited",
        )
    files = _limit(resource.RLIMIT_NOFILE)
    if files is not None and files < LEAST_FILES:
        raise CogkitError(
            f"the limit on open files (ulimit -n) is {files}, and cogkit needs {LEAST_FILES}",
            hint="raise it: ulimit -n 1024",
        )

    try:
        _try_threads()
    except RuntimeError as problem:
        raise _lack_of_threads() from problem


def _try_threads() -> None:
    """Start so many threads at once as a build has, for an instant (0.2 ms)."""
    gate = _thread.allocate_lock()

    def wait() -> None:
        with gate:
            pass

    with gate:
        for _ in range(THREADS):
            _thread.start_new_thread(wait, ())


def lack_of(problem: BaseException) -> CogkitError | None:
    """An error that says what was lacking, if a failure that nobody foresaw is due to that."""
    for each in _chain(problem):
        if isinstance(each, MemoryError) or _errno(each) == errno.ENOMEM or "failed to map segment" in str(each):
            return _lack_of_memory("there is not enough memory")
        if isinstance(each, RuntimeError) and "can't start new thread" in str(each):
            return _lack_of_threads()
        if _errno(each) == errno.EMFILE:
            files = _limit(resource.RLIMIT_NOFILE)
            return CogkitError(
                f"too many open files: the limit (ulimit -n) is {files}", hint="raise it: ulimit -n 1024"
            )
        if _errno(each) == errno.ENFILE:
            return CogkitError("the system has too many open files", hint="end other programs")
        if isinstance(each, BlockingIOError) and _limit(resource.RLIMIT_NPROC) is not None:
            return _lack_of_processes("no further process can be started")
    return None


def _lack_of_threads() -> CogkitError:
    said = "no further thread can be started"
    return _lack_of_memory(said) if _memory_limit() else _lack_of_processes(said)


def _lack_of_memory(said: str) -> CogkitError:
    limit = _memory_limit()
    if limit is None:
        return CogkitError(said, hint="end other programs, or raise the limit of the container")
    flag, memory = limit
    return CogkitError(
        f"{said}: the limit on memory (ulimit {flag}) is {memory >> 20} MiB", hint=f"raise it: ulimit {flag} unlimited"
    )


def _lack_of_processes(said: str) -> CogkitError:
    count = _limit(resource.RLIMIT_NPROC)
    if count is None:
        return CogkitError(said, hint="raise the limit on processes of the container or the user")
    return CogkitError(
        f"{said}: the limit on processes and threads of this user (ulimit -u) is {count}",
        hint="raise it, or end other programs",
    )


def _chain(problem: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending = [problem]
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        further = [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            further += each.exceptions
        pending += [error for error in further if error is not None]


def _errno(problem: BaseException) -> int | None:
    return problem.errno if isinstance(problem, OSError) else None


def _memory_limit() -> tuple[str, int] | None:
    """The lower of the limits on address space and on data, with its flag of ``ulimit``; None without any."""
    limits = {"-v": _limit(resource.RLIMIT_AS), "-d": _limit(resource.RLIMIT_DATA)}
    known = [(value, flag) for flag, value in limits.items() if value is not None]
    if not known:
        return None
    value, flag = min(known)
    return flag, value


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
