"""A real buildkitd with a root and a socket of its own.

It runs steps in the network of this machine, takes docker.io's images from a registry here, and is gone with all its
processes and mounts after `remove`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.real.certificates import Certificates
from tests.real.process import ServerProcess, free_port, log_tail, wait_until_listening
from tests.real.registry import Registry
from tests.real.tools import RELEASES, BuildKitRelease, installed


@dataclass(frozen=True)
class DaemonOptions:
    """How a buildkitd is started.

    Attributes:
        release: Which one.
        registry: Serves docker.io's names; without it docker.io is docker.io.
        certificates: Listen on TCP with mutual TLS instead of on a unix socket.
        tcp: Listen on plain TCP instead of on a unix socket.
        config: More of buildkitd.toml, put in front.
    """

    release: BuildKitRelease = RELEASES["current"]
    registry: Registry | None = None
    certificates: Certificates | None = None
    tcp: bool = False
    config: str = ""


class Buildkitd:
    """A daemon that is running when the constructor returns.

    Args:
        directory: Its root and log are made there.

    Attributes:
        address: ``unix:///…`` or ``tcp://127.0.0.1:PORT``.
        root: Its state.
        log_path: What it printed.
        buildctl: The client of the same release.
    """

    def __init__(self, directory: Path, options: DaemonOptions) -> None:
        self.options = options
        self.root = directory / "root"
        self.log_path = directory / "buildkitd.log"
        self.buildctl = options.release.buildctl
        self.certificates = options.certificates
        directory.mkdir(parents=True, exist_ok=True)
        # A unix socket's path has at most 107 bytes; a test's own folder can be longer.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="cogkit-", dir="/tmp"))
        self._target: Path | int
        if options.certificates is None and not options.tcp:
            self._target = self._socket_folder / "buildkitd.sock"
            self.address = f"unix://{self._target}"
        else:
            self._target = free_port()
            self.address = f"tcp://127.0.0.1:{self._target}"
        self._config = directory / "buildkitd.toml"
        self._config.write_text(options.config + _registry_config(options.registry))
        self.start()

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        """Start it (again, on the same root and address)."""
        # Debian's runc may sit in sbin, which is not in everyone's PATH.
        path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(installed("runc")).parent)])
        arguments = [
            *(str(self.options.release.buildkitd), "--config", str(self._config)),
            *("--root", str(self.root), "--addr", self.address),
            # The usual place is one for all daemons, and two that start at the same time fight for it.
            *("--otel-socket-path", str(self._socket_folder / "otel.sock")),
            *("--containerd-worker=false", "--oci-worker-net=host", "--oci-worker-gc=false"),
            f"--oci-worker-snapshotter={'overlayfs' if overlay_works(self.root) else 'native'}",
        ]
        if (tls := self.options.certificates) is not None:
            arguments += [
                "--tlscacert",
                str(tls.ca),
                "--tlscert",
                str(tls.server_cert),
                "--tlskey",
                str(tls.server_key),
            ]
        self._server = ServerProcess(arguments, self.log_path, {**os.environ, "PATH": path, "TMPDIR": self._tmpdir()})
        wait_until_listening(self._target, self._server, "buildkitd")
        self._wait_until_serving()

    def start_afresh(self) -> None:
        """Start it again after `kill` on the same address and with nothing on its root.

        A daemon that is killed between making a snapshot's folder and noting it in its database cannot make that
        snapshot any more ("failed to rename: file exists"); whoever wants a working one begins anew.
        """
        self._remove_root()
        self.start()

    def stop(self) -> None:
        """Ask it to end, as an administrator would."""
        self._server.stop()

    def kill(self) -> None:
        """Kill it and what it runs, at once."""
        self._server.kill()
        self._kill_containers()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered.  Returns when the last of its threads has stopped."""
        self._server.signal(signal.SIGSTOP)
        while self.running and not _has_stopped(self.pid):
            time.sleep(0.001)

    def resume(self) -> None:
        self._server.signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and take away its root, its mounts and its socket; the log stays."""
        self._server.stop()
        self._kill_containers()
        self._remove_root()
        shutil.rmtree(self._socket_folder)

    def _remove_root(self) -> None:
        for mountpoint in (*mounts_below(self.root), *mounts_below(self._socket_folder)):
            subprocess.run(["umount", "--lazy", mountpoint], check=True, capture_output=True)
        shutil.rmtree(self.root)

    def buildctl_arguments(self) -> list[str]:
        """buildctl and the options that lead it to this daemon."""
        arguments = [str(self.buildctl), "--addr", self.address]
        if (tls := self.options.certificates) is not None:
            arguments += ["--tlscacert", str(tls.ca), "--tlscert", str(tls.client_cert)]
            arguments += ["--tlskey", str(tls.client_key)]
        return arguments

    def log_size(self) -> int:
        return self.log_path.stat().st_size

    def log_since(self, position: int) -> str:
        return log_tail(self.log_path, since=position)

    def _tmpdir(self) -> str:
        # In the short folder: the sockets of steps that mount SSH agents are below it.
        folder = self._socket_folder / "tmp"
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            answer = subprocess.run(
                [*self.buildctl_arguments(), "debug", "workers"], capture_output=True, text=True, check=False
            )
            if answer.returncode == 0:
                return
            self._server.require_running("buildkitd")
            if time.monotonic() > deadline:
                raise TimeoutError(f"buildkitd does not answer: {answer.stderr}\n{log_tail(self.log_path)}")
            time.sleep(0.05)

    def _kill_containers(self) -> None:
        """Kill what still runs on one of its root file systems."""
        deadline = time.monotonic() + 10
        while survivors := _processes_living_below(self.root):
            for pid in survivors:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {survivors} of a build cannot be killed")
            time.sleep(0.02)


def _registry_config(registry: Registry | None) -> str:
    if registry is None:
        return ""
    return f"""
[registry."docker.io"]
  mirrors = ["{registry.host}"]
[registry."{registry.host}"]
  http = true
"""


def overlay_works(root: Path) -> bool:
    """Whether the kernel can lay an overlay over the file system that ``root`` is on."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as trial:
        folders = {name: Path(trial, name) for name in ("lower", "upper", "work", "merged")}
        for folder in folders.values():
            folder.mkdir()
        layers = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(folders["merged"])]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            return False
        subprocess.run(["umount", str(folders["merged"])], check=True)
        return True


def remove_with_processes(folder: Path, patience: float = 60.0) -> None:
    """Take away a folder that processes named in their command lines, with those that are left and all mounts below.

    Container engines leave helpers behind that clean up after them for a moment, so it is tried until it is done.
    """
    deadline = time.monotonic() + patience
    while True:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                is_ours = entry.name.isdigit() and int(entry.name) != os.getpid()
                if is_ours and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
        for mountpoint in sorted(mounts_below(folder), reverse=True):
            subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{folder} cannot be removed")
        time.sleep(0.1)


def mounts_below(root: Path) -> list[str]:
    """Mount points under ``root``, the innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split(" ")[4] for line in table]
    return [point for point in reversed(points) if point.startswith(f"{root}/")]


def _processes_living_below(root: Path) -> list[int]:
    """Processes whose own ``/`` is a mount made of directories under ``root``."""
    found = []
    needle = f"{root}/".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            lines = (entry / "mountinfo").read_bytes().splitlines()
        except OSError:
            continue  # it ended meanwhile
        if any(fields[4] == b"/" and needle in line for line in lines if len(fields := line.split(b" ")) > 4):
            found.append(int(entry.name))
    return found


def _has_stopped(pid: int) -> bool:
    """Whether every thread of a process is in the state that SIGSTOP leaves it in (proc(5): behind the name)."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state in "TtZX" for state in states)
