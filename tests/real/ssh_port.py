"""A real sshd that can be reached at a loopback port, for programs that bring an ssh of their own."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

from tests.real.tools import installed


class SshPort:
    """Listens until it is closed, and starts an sshd for each connection.  A context manager.

    Args:
        directory: Its keys and configuration are made there.
        public_key: The key that may come in, as root.

    Attributes:
        port: Where it listens, at 127.0.0.1.
    """

    def __init__(self, directory: Path, public_key: Path) -> None:
        directory.mkdir(parents=True)
        host = directory / "host"
        subprocess.run(
            [installed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", host], check=True, timeout=120
        )
        (directory / "authorized_keys").write_text(public_key.read_text())
        self._config = directory / "sshd_config"
        lines = [
            *(f"HostKey {host}", "PidFile none", "StrictModes no", "UsePAM no", "PasswordAuthentication no"),
            *(f"AuthorizedKeysFile {directory / 'authorized_keys'}", "KbdInteractiveAuthentication no"),
            *("PermitRootLogin yes", "PrintMotd no", "PrintLastLog no"),
        ]
        self._config.write_text("\n".join([*lines, ""]))
        self._log = directory / "sshd.log"
        # sshd wants it, also when it is not a service.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._started: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What waits in accept() is woken by this, and not by a mere close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _serve(self) -> None:
        command = [installed("sshd"), "-i", "-f", str(self._config), "-E", str(self._log)]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._started.append(subprocess.Popen(command, stdin=connection.fileno(), stdout=connection.fileno()))
