"""Podman with a storage of a test's own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.real.buildkitd import overlay_works, remove_with_processes
from tests.real.registry import Registry
from tests.real.tools import installed

_PATIENCE = 120.0


class Podman:
    """Configuration and storage; podman has no daemon.

    Args:
        directory: The configuration is made there.
        registry: May be pulled from.

    Attributes:
        environment: Variables that lead any podman to this storage.
    """

    def __init__(self, directory: Path, registry: Registry) -> None:
        self._registry = registry
        self._folder = Path(tempfile.mkdtemp(prefix="cogkit-", dir="/tmp"))
        storage, engine = directory / "storage.conf", directory / "containers.conf"
        driver = "overlay" if overlay_works(self._folder / "root") else "vfs"
        storage.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{self._folder}/root"\nrunroot = "{self._folder}/run"\n'
        )
        # Debian's crun wants more of cgroups than there may be; limits above our own could not be set.
        engine.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nlog_driver = "k8s-file"\n'
            f'[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'tmp_dir = "{self._folder}/tmp"\n'
        )
        policy, registries = directory / "policy.json", directory / "registries.conf"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        registries.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        self.environment = {
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(engine),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
        }

    def image(self, name: str) -> str:
        """What podman calls an image of the registry."""
        return f"{self._registry.host}/{name}"

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman; returns what it printed."""
        done = subprocess.run(
            [installed("podman"), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"podman {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout.strip()

    def remove(self) -> None:
        """End its containers and take away its storage."""
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        remove_with_processes(self._folder)
