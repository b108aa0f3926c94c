"""A cogkit process that is watched from its start to its end, and what of it may be left.

Knows what a process promises however it ends: a bounded end, one clear sentence, nothing left behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path

from tests.real.cogkit_process import start_cogkit

BOUND = 5.0
"""Seconds in which a process ends, whatever died: the promise to the user.

What the kernel made it wait for a processor meanwhile is not counted: many builds run here at once.
"""

PATIENCE = 90.0
"""Seconds after which a build that nothing happened to is given up; it takes about one."""

BY_SIGNAL = -signal.SIGKILL


class Running:
    """A cogkit process whose standard error is read while it runs.

    Attributes:
        fault_at: When (`time.monotonic`) something happened after which it has to end in time; None until then.

    Args:
        arguments: Of cogkit.
        cwd: Where it runs.
        env: Variables to set, or with None to take away.
        daemon_is_here: What it speaks with runs in this very process, which may be kept waiting too.
    """

    def __init__(
        self, *arguments: str | Path, cwd: Path, env: Mapping[str, str | None], daemon_is_here: bool = False
    ) -> None:
        self.process = start_cogkit(*arguments, cwd=cwd, env=env, stdout=subprocess.DEVNULL)
        self.fault_at: float | None = None
        self._signals = 0
        self._pids = (self.process.pid, os.getpid()) if daemon_is_here else (self.process.pid,)
        self._kept_waiting = 0.0
        self._seen = bytearray()
        self._news = threading.Condition()
        self._reads = threading.Event()
        self._reads.set()
        self._ended_at: float | None = None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._wait)]
        for thread in self._threads:
            thread.start()

    @property
    def stderr(self) -> str:
        return bytes(self._seen).decode(errors="replace")

    @property
    def last_words(self) -> str:
        """The end of what it said, for messages."""
        text = self.stderr
        return text if len(text) < 4_000 else f"…{text[-4_000:]}"

    @property
    def ended(self) -> bool:
        return self._ended_at is not None

    def mark(self) -> None:
        """The fault happens now."""
        with self._news:
            if self.fault_at is None:
                self.fault_at = time.monotonic()
                self._kept_waiting = _kept_waiting(*self._pids)
            self._news.notify_all()

    def interrupt(self, number: signal.Signals) -> None:
        """What the terminal does at Ctrl-C, or a service manager that stops it; nothing if it has ended."""
        self.mark()
        with suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                self._signals += 1

    def wait_for(self, pattern: str) -> bool:
        """Wait until its standard error holds something; False if it ended without."""
        with self._news:
            while not re.search(pattern, self.stderr):
                if self.ended:
                    return False
                assert self._news.wait(PATIENCE), f"no {pattern!r}: {self.stderr}"
            return True

    def wait_for_seconds(self, seconds: float) -> bool:
        """Let it run for a while; False if it ended meanwhile."""
        with self._news:
            return not self._news.wait_for(lambda: self.ended, seconds)

    def stop_reading(self) -> None:
        """Leave what it writes on standard error where it is, as a pager does that shows its first page."""
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    def wait_until_it_takes_signals(self) -> None:
        """Wait until it is cogkit's code that decides what a signal does, not the interpreter's start."""
        deadline = time.monotonic() + PATIENCE
        while not self.ended and not self._catches(signal.SIGTERM):
            assert time.monotonic() < deadline, "it never takes signals"
            time.sleep(0.002)

    def _catches(self, number: signal.Signals) -> bool:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return True
        found = re.search(r"^SigCgt:\t([0-9a-f]+)$", status, re.MULTILINE)
        return found is None or bool(int(found[1], 16) >> (number - 1) & 1)

    def end(self, codes: Container[int], patience: float = PATIENCE) -> tuple[int, float | None]:
        """Wait for its end, which has to come in time and with one of ``codes``.

        Args:
            codes: Exit codes that it may end with.
            patience: Seconds that it may take as long as there was no fault.

        Returns:
            The exit code, and the seconds from the fault to the end; None if it ended before the fault.
        """
        began = time.monotonic()
        with self._news:
            while not self.ended:
                limit = patience - (time.monotonic() - began)
                if self.fault_at is not None:
                    lost = _kept_waiting(*self._pids) - self._kept_waiting
                    limit = min(limit, self.fault_at + BOUND + max(lost, 0.0) - time.monotonic())
                if limit <= 0:
                    break
                self._news.wait(limit)
        if not self.ended:
            self.kill()
            raise AssertionError(f"still running {self._since()}, with this on standard error:\n{self.last_words}")
        for thread in self._threads:
            thread.join()
        code = self.process.returncode
        self._require_clear_words(code)
        assert code in codes, f"exit code {code}, wanted one of {codes}:\n{self.last_words}"
        self._require_no_process_left()
        assert self._ended_at is not None
        fault_at = self.fault_at
        return code, None if fault_at is None or fault_at > self._ended_at else self._ended_at - fault_at

    def kill(self) -> None:
        """End it for sure."""
        self.read_on()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join()

    def _since(self) -> str:
        if self.fault_at is None:
            return f"after {PATIENCE:g} s without a fault"
        return f"{BOUND:g} s after the fault"

    def _require_clear_words(self, code: int) -> None:
        text = self.stderr
        for word in ("Traceback", "internal error", "Exception ignored", "Task exception", "Fatal Python"):
            assert word not in text, f"{word!r} on standard error (exit code {code}):\n{self.last_words}"
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        wanted = 0 if code in (0, BY_SIGNAL) else 1
        # Who interrupts before there is anything to say, or is in a hurry, may get silence.
        enough = len(errors) == wanted or (code == 130 and not errors and (not text or self._signals > 1))
        assert enough, f"{len(errors)} errors on standard error, wanted {wanted} (exit code {code}):\n{self.last_words}"
        for line in errors:
            assert len(line) > len("error: ") + 8 or line == "error: interrupted", f"no clear sentence: {line!r}"

    def _require_no_process_left(self) -> None:
        deadline = time.monotonic() + BOUND
        while left := processes_of_session(self.process.pid):
            assert time.monotonic() < deadline, f"processes left behind: {left}"
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stderr is not None
        while self._reads.wait() and (piece := os.read(self.process.stderr.fileno(), 65536)):
            with self._news:
                self._seen += piece
                self._news.notify_all()
        self.process.stderr.close()

    def _wait(self) -> None:
        self.process.wait()
        with self._news:
            self._ended_at = time.monotonic()
            self._news.notify_all()


def _kept_waiting(*pids: int) -> float:
    """Seconds that threads of processes were ready to run and had no processor (kernel's sched-stats)."""
    total = 0
    for pid in pids:
        threads = Path(f"/proc/{pid}/task")
        with suppress(OSError):  # it has ended
            for thread in os.listdir(threads):
                with suppress(OSError):  # so has this one, or this kernel does not say
                    total += int((threads / thread / "schedstat").read_bytes().split()[1])
    return total / 1e9


def processes_of_session(leader: int) -> list[int]:
    """Processes of the session that a process began."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == leader and fields[0] != b"Z":
            found.append(int(stat.parent.name))
    return found


def processes_with(text: str) -> list[int]:
    """Processes that have ``text`` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended meanwhile
    return found
