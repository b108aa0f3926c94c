"""The process that looks after a user's private builder: starts buildkitd, keeps its log, ends it when it is idle.

``python -m cogkit.builders.supervisor`` with the settings as JSON in its argument and a pipe for its report as standard
output.  It leaves its parent behind at once, reports one line of JSON (``{"ready": ADDRESS}`` or ``{"error": …}``), and
lives as long as the daemon.

What keeps this sound:

- For its whole life it holds the kernel's lock on ``lock``.  Two supervisors never look after one folder: the second
  waits for the first to end.  A daemon whose ``lock`` nobody holds is not handed to anyone.
- A daemon that was left by a killed supervisor gets SIGTERM from the kernel (``PR_SET_PDEATHSIG``); the next one waits
  for the lock on the daemon's own folder, and ends what still runs in it.
- A client holds a shared lock on ``use`` from before it looks for the daemon until it is done.  An idle end takes that
  lock for itself, so nobody is handed a daemon that is about to end.
- Connections of other clients are counted where the kernel lists them (``/proc/net/unix``).

This file must import nothing but the standard library: its start is part of a first build.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

LOCK = "lock"
USE_LOCK = "use"
STATE = "state.json"
LOG = "buildkitd.log"
ROOT = "root"
SOCKET = "buildkitd.sock"
TRACE_SOCKET = "otel.sock"

_LOG_BYTES = 4 << 20
_OLD_LOGS = 2
_START_SECONDS = 60.0
_PREDECESSOR_SECONDS = 30.0
_STOP_SECONDS = 15.0
_TAIL_LINES = 10
_TRACE = ("\t", "main.", "runtime.", "github.com/")
"""How the lines of a Go stack begin, which buildkitd prints below the error."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_CONNECTED = "03"


class StartError(Exception):
    """The daemon cannot be started; the words are for the user."""


class Supervisor:
    """Looks after one daemon.

    Args:
        settings: ``folder``, ``socket``, ``command``, ``environment``, ``config``, ``idle_seconds``; see `private`.
        report: Called once with what became of the start.
    """

    def __init__(self, settings: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        self._folder = Path(settings["folder"])
        self._socket = Path(settings["socket"])
        self._command: list[str] = settings["command"]
        self._environment: dict[str, str] = settings["environment"]
        self._config: str = settings["config"]
        self._idle_seconds: float = settings["idle_seconds"]
        self._report = report
        self._stopping = False
        self._log: LogFile | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._wakes = -1

    def run(self) -> None:
        """Start the daemon, and return when it has ended and nothing of it is left."""
        with locked(self._folder / LOCK) as got:
            if not got:
                self._report({"error": "another process is starting or ending the private builder, and takes too long"})
                return
            self._wakes = _wake_on_signals()
            signal.signal(signal.SIGTERM, self._stop)
            try:
                self._start()
            except (StartError, OSError) as problem:
                self._end()
                self._report({"error": str(problem), "log": self._tail()})
                return
            self._report({"ready": f"unix://{self._socket}"})
            try:
                self._look_after()
            finally:
                self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    # ---------------------------------------------------------------- its start

    def _start(self) -> None:
        root = self._folder / ROOT
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(self._socket.parent)
        (root / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
        end_leftovers(root)
        self._await_root(root)
        with suppress(FileNotFoundError):
            self._socket.unlink()
        config = self._folder / "buildkitd.toml"
        config.write_text(self._config, encoding="utf-8")
        self._log = LogFile(self._folder / LOG)
        adopt_orphans()
        self._daemon = subprocess.Popen(
            self._command,
            cwd="/",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        assert self._daemon.stdout is not None
        os.set_blocking(self._daemon.stdout.fileno(), False)
        self._await_answer(self._daemon)
        self._socket.chmod(0o600)
        self._write_state(
            address=f"unix://{self._socket}",
            supervisor=os.getpid(),
            buildkitd=self._daemon.pid,
            started=time.time(),
        )

    def _await_root(self, root: Path) -> None:
        """Wait until no buildkitd, one left by a killed supervisor, works on the root any more."""
        with locked(root / "buildkitd.lock") as got:
            if not got:
                raise StartError(f"another buildkitd works on {root}")

    def _await_answer(self, daemon: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        pause = 0.005
        while not answers(self._socket):
            self._copy_log(pause)
            pause = min(pause * 1.5, 0.1)
            if self._stopping:
                raise StartError("the private builder was stopped before it had started")
            if daemon.poll() is not None:
                self._copy_log(0)
                raise StartError(f"buildkitd ended with code {daemon.returncode}")
            if time.monotonic() > deadline:
                raise StartError(f"buildkitd does not answer after {_START_SECONDS:g} seconds")

    # ---------------------------------------------------------------- its life

    def _look_after(self) -> None:
        assert self._daemon is not None
        tick = max(min(5.0, self._idle_seconds / 4), 0.05)
        used = time.monotonic()
        while not self._stopping and self._daemon.poll() is None:
            self._copy_log(tick)
            reap_orphans(self._daemon.pid)
            now = time.monotonic()
            if self._in_use():
                used = now
            elif now - used >= self._idle_seconds and self._end_unused():
                return

    def _in_use(self) -> bool:
        if connections(self._socket):
            return True
        with locked(self._folder / USE_LOCK, patience=0) as unused:
            return not unused

    def _end_unused(self) -> bool:
        """End the daemon unless somebody came; whoever comes now waits, and starts a new one."""
        with locked(self._folder / USE_LOCK, patience=0) as unused:
            if not unused or connections(self._socket):
                return False
            self._end()
            return True

    def _copy_log(self, seconds: float) -> None:
        """Take what the daemon prints, waiting for it up to ``seconds``; returns early for a signal."""
        assert self._daemon is not None and self._daemon.stdout is not None and self._log is not None
        deadline, output = time.monotonic() + seconds, self._daemon.stdout.fileno()
        while True:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([output, self._wakes], [], [], max(0.0, min(left, 1.0)))
            if output in ready:
                data = os.read(output, 65536)
                if not data:  # it closed its output, most likely because it has ended
                    with suppress(subprocess.TimeoutExpired):
                        self._daemon.wait(min(max(left, 0.01), 0.2))
                    return
                self._log.write(data)
            if left <= 0 or self._stopping or self._daemon.poll() is not None:
                return

    # ---------------------------------------------------------------- its end

    def _end(self) -> None:
        with suppress(FileNotFoundError):
            (self._folder / STATE).unlink()
        if self._daemon is not None:
            if self._daemon.poll() is None:
                self._daemon.terminate()
                deadline = time.monotonic() + _STOP_SECONDS
                while self._daemon.poll() is None and time.monotonic() < deadline:
                    self._copy_log(0.05)
                    # A signal that has come already keeps `_copy_log` from waiting.
                    time.sleep(0.01)
            with suppress(ProcessLookupError):
                os.killpg(self._daemon.pid, signal.SIGKILL)
            self._daemon.wait()
            self._daemon = None
        end_leftovers(self._folder / ROOT)
        for left in (self._socket, self._socket.with_name(TRACE_SOCKET)):
            with suppress(OSError):
                left.unlink()
        with suppress(OSError):  # unless something else is in it
            self._socket.parent.rmdir()

    def _write_state(self, **state: Any) -> None:
        new = self._folder / f"{STATE}.new"
        new.write_text(json.dumps(state), encoding="utf-8")
        new.replace(self._folder / STATE)

    def _tail(self) -> str:
        try:
            lines = (self._folder / LOG).read_bytes().decode(errors="replace").splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if line and not line.startswith(_TRACE)]
        return "\n".join(lines[-_TAIL_LINES:])


class LogFile:
    """A log that keeps the last of what is written, within a bound; older parts are ``NAME.1`` and ``NAME.2``."""

    def __init__(self, path: Path, limit: int = _LOG_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for as long as the log is

    def write(self, data: bytes) -> None:
        """Append, as far as the disk has room: what cannot be logged must not end the daemon."""
        with suppress(OSError):
            if self._file.tell() + len(data) > self._limit:
                self._rotate()
            self._file.write(data)

    def _rotate(self) -> None:
        for number in range(_OLD_LOGS, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            with suppress(FileNotFoundError):
                older.replace(self._path.with_name(f"{self._path.name}.{number}"))
        self._file.close()
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115


# ------------------------------------------------------------------------------------------ what a client looks at, too


@contextmanager
def locked(path: Path, *, shared: bool = False, patience: float = _PREDECESSOR_SECONDS) -> Iterator[bool]:
    """Hold the kernel's lock on a file; gives False, without it, when it cannot be had in ``patience`` seconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, patience)
    finally:
        os.close(fd)


def _lock(fd: int, kind: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


def read_state(folder: Path) -> dict[str, Any] | None:
    """What the last supervisor said of its daemon; None if there is none, or it ended in order."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and isinstance(state.get("address"), str) else None


def answering(folder: Path) -> str | None:
    """The address of the daemon that runs, if one answers; one whose supervisor was killed is about to end."""
    state = read_state(folder)
    if state is None:
        return None
    with locked(folder / LOCK, shared=True, patience=0) as nobody:
        if nobody:
            return None
    address: str = state["address"]
    return address if answers(Path(address.removeprefix("unix://"))) else None


def answers(path: Path, seconds: float = 2.0) -> bool:
    """Whether somebody speaks HTTP/2 on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
            connection.sendall(_HTTP2_HELLO)
            return bool(connection.recv(9))
        except OSError:
            return False


def connections(path: Path) -> int:
    """How many clients are connected to a socket of this network namespace."""
    needle = f" {path}"
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            return sum(line.rstrip("\n").endswith(needle) and line.split()[5] == _CONNECTED for line in table)
    except OSError:
        return 0


def check_private(folder: Path) -> None:
    """Make sure that nobody else can have put something into a folder.

    Raises:
        StartError: somebody can.
    """
    status = os.lstat(folder)
    if status.st_uid != os.getuid() or status.st_mode & 0o170000 != 0o040000:
        raise StartError(f"{folder} belongs to somebody else")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def end_leftovers(root: Path) -> None:
    """Kill the processes of steps that a killed daemon left: those whose own ``/`` is made of folders in ``root``."""
    deadline = time.monotonic() + 5.0
    while (found := _living_below(root)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        reap_orphans(None)


def _living_below(root: Path) -> list[int]:
    found = []
    needle = f"{root}/".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry.name}/mountinfo", "rb") as table:
                for line in table:
                    fields = line.split(b" ", 5)
                    if len(fields) > 5 and fields[4] == b"/":
                        if needle in line:
                            found.append(int(entry.name))
                        break
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def adopt_orphans() -> None:
    """Become the parent of what the daemon leaves behind when it dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(daemon: int | None) -> None:
    """Take note of the ends of adopted processes; the daemon's own end is left to who waits for it."""
    with suppress(ChildProcessError):
        while True:
            ended = _next_end()
            if ended is None or ended.si_pid == daemon:
                return
            os.waitpid(ended.si_pid, 0)


def _next_end() -> Any:
    """Which child has ended, without taking note of it; None for none, and where nothing is adopted anyway."""
    ended: Any = None
    if sys.platform != "darwin":
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended


def _wake_on_signals() -> int:
    """A pipe that can be read from once a signal has come, so that waiting for something else ends."""
    wakes, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    return wakes


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _detach() -> None:
    """Leave the parent, which does not have to wait for us, its terminal and its folder."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def main() -> NoReturn:
    """The process itself."""
    settings = json.loads(sys.argv[1])
    _detach()

    def report(said: dict[str, Any]) -> None:
        with suppress(OSError):
            os.write(1, json.dumps(said).encode() + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)

    try:
        Supervisor(settings, report).run()
    except BaseException as problem:
        report({"error": f"the supervisor of the private builder failed: {problem}"})
        raise
    os._exit(0)


if __name__ == "__main__":
    main()
