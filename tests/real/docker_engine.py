"""A Docker engine of a test's own: dockerd with its data, its socket and its containerd in folders that go with it.

It has no bridge and no firewall rules, so nothing of this machine's network is touched; containers run with
``--network none``.  A Docker engine that the machine may have is never asked for anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.real.buildkitd import overlay_works, remove_with_processes
from tests.real.process import ServerProcess, wait_until_listening
from tests.real.registry import Registry
from tests.real.tools import TOOLS, built, installed

_PATIENCE = 120.0


class DockerEngine:
    """An engine that is running when the constructor returns.

    Args:
        directory: Its log and configuration are made there.
        registry: Serves docker.io's names.
        containerd_store: Keep images in containerd's store, as new engines do; else in the classic one.
    """

    def __init__(self, directory: Path, registry: Registry, *, containerd_store: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._binaries = built(TOOLS / "docker" / "dockerd").parent
        # The sockets of dockerd and its containerd need short paths.
        self._folder = Path(tempfile.mkdtemp(prefix="cogkit-", dir="/tmp"))
        self.socket = self._folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.log_path = directory / "dockerd.log"
        overlay = overlay_works(self._folder / "data")
        driver = ("overlayfs" if overlay else "native") if containerd_store else ("overlay2" if overlay else "vfs")
        config: dict[str, Any] = {
            "userland-proxy": False,
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
            "registry-mirrors": [f"http://{registry.host}"],
            "insecure-registries": [registry.host],
            "features": {"containerd-snapshotter": containerd_store},
            "storage-driver": driver,
        }
        config_path = directory / "daemon.json"
        config_path.write_text(json.dumps(config))
        arguments = [
            *(str(self._binaries / "dockerd"), "--config-file", str(config_path), "--host", self.host),
            *("--data-root", str(self._folder / "data"), "--exec-root", str(self._folder / "exec")),
            *("--pidfile", str(self._folder / "dockerd.pid")),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        environment["PATH"] = os.pathsep.join([str(self._binaries), environment.get("PATH", ""), "/usr/sbin:/sbin"])
        self._server = ServerProcess(arguments, self.log_path, environment)
        try:
            wait_until_listening(self.socket, self._server, "dockerd", _PATIENCE)
            self._wait_until_serving()
        except BaseException:
            self.remove()
            raise

    def docker(self, *arguments: str, input: bytes | None = None, check: bool = True) -> str:
        """Run docker's client; returns what it printed."""
        done = subprocess.run(
            [installed("docker"), "--host", self.host, *arguments], input=input, capture_output=True, timeout=_PATIENCE
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)} failed: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode().strip()

    def remove(self) -> None:
        """End it with all its containers, and take away its data; the log stays."""
        if self._server.running:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                if containers := self.docker("ps", "--all", "--quiet").split():
                    self.docker("rm", "--force", "--volumes", *containers)
        self._server.stop(patience=60)
        remove_with_processes(self._folder)

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self.docker("version", "--format", "{{.Server.APIVersion}}", check=False):
            self._server.require_running("dockerd")
            if time.monotonic() > deadline:
                raise TimeoutError(f"dockerd does not answer; see {self.log_path}")
            time.sleep(0.05)
