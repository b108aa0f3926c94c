"""A real sshd for ssh to talk to, without a port: ssh starts one for each connection and speaks to it over pipes.

Hosts are named in ssh's configuration here, one for each thing that can be wrong.  The folder `bin` has the ``ssh``
that reads this configuration, and must be first in PATH.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.real.tools import installed

HOSTS = ("builder", "locked", "changed", "unknown", "bare")
"""``builder`` is as it should be; ``locked`` takes no key that we have, ``changed`` has another key than is known,
``unknown`` has a key that is not known, ``bare`` has no buildctl."""


class SshServer:
    """Keys and configuration; nothing runs until somebody connects.

    Args:
        directory: Everything is made there.
        programs: The folder that is first in PATH of who comes in.
    """

    def __init__(self, directory: Path, programs: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name in ("host", "other", "user", "stranger"):
            self._make_key(name)
        # sshd wants it, also when it is not a service.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        empty = directory / "empty"
        empty.mkdir()
        rich, bare = self._server("builder", f"{programs}:$PATH"), self._server("bare", str(empty))
        public = {name: (directory / f"{name}.pub").read_text() for name in ("host", "other")}
        known = directory / "known_hosts"
        known.write_text("".join(f"{host} {public['host']}" for host in ("builder", "locked", "bare")))
        with known.open("a") as file:
            file.write(f"changed {public['other']}")
        config = [
            *("Host bare", f"  ProxyCommand {bare}"),
            *("Host builder locked changed unknown", f"  ProxyCommand {rich}"),
            *("Host locked", f"  IdentityFile {directory / 'stranger'}"),
            *("Host builder bare changed unknown", f"  IdentityFile {directory / 'user'}"),
            *("Host *", "  IdentitiesOnly yes", "  IdentityAgent none", "  StrictHostKeyChecking yes"),
            *(f"  UserKnownHostsFile {known}", "  GlobalKnownHostsFile /dev/null"),
        ]
        (directory / "ssh_config").write_text("\n".join([*config, ""]))
        client = self.bin / "ssh"
        client.write_text(f'#!/bin/sh\nexec {installed("ssh")} -F {directory / "ssh_config"} "$@"\n')
        client.chmod(0o755)

    def _make_key(self, name: str) -> None:
        command = [
            installed("ssh-keygen"),
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            name,
            "-f",
            str(self._directory / name),
        ]
        subprocess.run(command, check=True, capture_output=True)

    def _server(self, name: str, path: str) -> str:
        """The command that serves one connection."""
        (self._directory / "authorized_keys").write_text((self._directory / "user.pub").read_text())
        config = self._directory / f"sshd_config_{name}"
        lines = [
            *(f"HostKey {self._directory / 'host'}", "PidFile none", "StrictModes no", "UsePAM no"),
            *(f"AuthorizedKeysFile {self._directory / 'authorized_keys'}", "PasswordAuthentication no"),
            *("KbdInteractiveAuthentication no", "PermitRootLogin yes", "PrintMotd no", "PrintLastLog no"),
            # What the user's shell reads at its start may set PATH anew, so it is set after that.
            f'ForceCommand PATH="{path}"; export PATH; eval "$SSH_ORIGINAL_COMMAND"',
        ]
        config.write_text("\n".join([*lines, ""]))
        return f"{installed('sshd')} -i -f {config} -E {self._directory / 'sshd.log'}"
