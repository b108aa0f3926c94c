"""Start a server process that cannot outlive us, and end it with everything it started.

Must not know what is started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class ServerProcess:
    """A server in a process group of its own, its output in a log file.

    Args:
        arguments: The command line.
        log_path: Standard output and error are appended here.
        environment: Its whole environment; ours when not given.
    """

    def __init__(self, arguments: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None) -> None:
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                # The kernel ends the server when we die in a way that runs no clean-up.
                ["setpriv", "--pdeathsig", "TERM", "--", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        self.log_path = log_path

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and everything in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self, patience: float = 10.0) -> None:
        """Ask the server to end, and kill its whole group if it has not after ``patience`` seconds."""
        if self.running:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """Kill the server and its process group at once."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def require_running(self, name: str) -> None:
        """Raise with the end of the log if the server has ended."""
        if not self.running:
            code, tail = self._process.returncode, log_tail(self.log_path)
            raise RuntimeError(f"{name} ended with code {code}; the end of {self.log_path}:\n{tail}")


def log_tail(path: Path, *, since: int = 0, lines: int = 40) -> str:
    """The last lines of a log, from byte ``since`` on."""
    with path.open("rb") as log:
        log.seek(since)
        return b"\n".join(log.read().splitlines()[-lines:]).decode(errors="replace")


def free_port() -> int:
    """A TCP port on the loopback address that nothing listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_listening(target: Path | int, server: ServerProcess, name: str, patience: float = 30.0) -> None:
    """Wait until a unix socket (path) or loopback TCP port (number) accepts connections."""
    deadline = time.monotonic() + patience
    while True:
        server.require_running(name)
        family = socket.AF_UNIX if isinstance(target, Path) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.connect(str(target) if isinstance(target, Path) else ("127.0.0.1", target))
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} does not listen after {patience:g} s; see {server.log_path}")
        time.sleep(0.02)
