"""Images that stand for the public ones, made on this machine from Debian's packages.

``python:3.11-slim`` and ``debian:bookworm-slim`` are made by mmdebstrap, ``busybox`` of Debian's static busybox, and
``docker/dockerfile:1`` of the frontend that `make tools` builds.  What does not depend on the machine's settings is
kept in ``.cache/images`` under a name that follows from the recipe.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.real import host_settings
from tests.real.image import Image, Layer, TarEntry, layer_from_entries, layer_from_tar
from tests.real.registry import Registry
from tests.real.tools import CACHE, TOOLS, built, installed

PYTHON_NAMES = ("python:3.11-slim", "python:3.11", "python:3.11-slim-bookworm", "python:3.11-bookworm")
DEBIAN_NAMES = ("debian:bookworm-slim", "debian:bookworm", "debian:12-slim", "debian:12")
BUSYBOX_NAMES = ("busybox:latest", "busybox:stable")
FRONTEND_NAMES = ("docker/dockerfile:1", "docker/dockerfile:1.4", "docker/dockerfile:latest")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class _DebianRecipe:
    """What mmdebstrap is told; anything changed here makes another layer."""

    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        return [
            *("--variant=minbase", "--quiet"),
            *(f"--include={package}" for package in self.packages),
            # As the public slim images: no manuals, no documentation, no translations.
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")),
            *(f'--customize-hook=chroot "$1" sh -c {_quoted(command)}' for command in self.commands),
            *(host_settings.DEBIAN_RELEASE, "-", "-"),
        ]


_DEBIAN = _DebianRecipe(packages=("ca-certificates",))
_PYTHON = _DebianRecipe(
    packages=("ca-certificates", "python3", "python3-pip", "python3-venv"),
    commands=(
        # The public image has its Python in /usr/local, where pip may install.
        "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED",
        "for name in python python3 python3.11; do ln -sf /usr/bin/python3 /usr/local/bin/$name; done",
        "for name in pip pip3; do ln -sf /usr/bin/pip3 /usr/local/bin/$name; done",
        "mkdir -p /usr/local/lib/python3.11/dist-packages",
        "ln -s dist-packages /usr/local/lib/python3.11/site-packages",
    ),
)


def push_base_images(registry: Registry, directory: Path) -> None:
    """Put all of them into ``registry``; layers that depend on this machine are made in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    host = layer_from_entries(host_settings.files(), directory / "host-settings.tar.gz")
    environment = host_settings.environment()

    debian = Image((_debian_layer("debian", _DEBIAN), host), {"PATH": _PATH, **environment}, ("bash",))
    python_environment = {"PATH": _PATH, "LANG": "C.UTF-8", "PYTHON_VERSION": "3.11", **environment}
    python = Image((_debian_layer("python", _PYTHON), host), python_environment, ("python3",))
    busybox = Image((_busybox_layer(directory),), {"PATH": _PATH}, ("sh",))
    for image, names in ((debian, DEBIAN_NAMES), (python, PYTHON_NAMES), (busybox, BUSYBOX_NAMES)):
        registry.push(image, *(f"library/{name}" for name in names))
    registry.push(_dockerfile_frontend(directory), *FRONTEND_NAMES)


def _debian_layer(name: str, recipe: _DebianRecipe) -> Layer:
    sources = "\n".join([*host_settings.debian_sources(), ""])

    def make(path: Path) -> Layer:
        print(f"making the base image {name!r} from Debian's packages (once, about 20 s)", file=sys.stderr, flush=True)
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
            given.write(sources.encode())
            given.seek(0)
            command = [installed("mmdebstrap"), *recipe.arguments()]
            process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            layer = layer_from_tar(process.stdout, path)
            if process.wait() != 0:
                errors.seek(0)
                raise RuntimeError(f"mmdebstrap failed:\n{errors.read().decode(errors='replace')}")
        return layer

    return _cached(name, repr((recipe.arguments(), sources)), make)


def _busybox_layer(directory: Path) -> Layer:
    busybox = installed("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries = [TarEntry(name) for name in ("bin", "dev", "etc", "proc", "root", "sys", "usr", "var")]
    entries += [TarEntry("tmp", mode=0o1777), TarEntry("bin/busybox", Path(busybox).read_bytes())]
    entries += [TarEntry(f"bin/{applet}", link="busybox") for applet in applets if applet != "busybox"]
    entries += [TarEntry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", mode=0o644)]
    entries += [TarEntry("etc/group", b"root:x:0:\n", mode=0o644)]
    return layer_from_entries(entries, directory / "busybox.tar.gz")


def _dockerfile_frontend(directory: Path) -> Image:
    binary = built(TOOLS / "bin" / "dockerfile-frontend").read_bytes()
    entries = [TarEntry("bin"), TarEntry("bin/dockerfile-frontend", binary)]
    return Image(
        (layer_from_entries(entries, directory / "dockerfile-frontend.tar.gz"),),
        {"PATH": "/bin"},
        entrypoint=("/bin/dockerfile-frontend",),
        # Without the label BuildKit refuses it what a frontend needs.
        labels={
            "moby.buildkit.frontend.network.none": "true",
            "moby.buildkit.frontend.caps": "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,"
            "moby.buildkit.frontend.contexts",
        },
    )


def _cached(name: str, recipe: str, make: Callable[[Path], Layer]) -> Layer:
    """The layer a recipe makes, from the cache when it is there; one maker at a time."""
    folder = CACHE / "images"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    tar, description = folder / f"{stem}.tar.gz", folder / f"{stem}.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not description.exists():
            for stale in folder.glob(f"{name}-*"):
                stale.unlink()
            layer = make(tar)
            described = {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}
            description.write_text(json.dumps(described))
        return Layer(tar, **json.loads(description.read_text()))


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"
