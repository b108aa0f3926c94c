"""GPUs as the user names them, and as a builder knows them: CDI devices.

This file must not ask a builder which there are.
"""

from __future__ import annotations

from cogkit.errors import UsageError
from cogkit.running.session import PLAIN, ContainerOptions

NVIDIA = "nvidia.com/gpu"


def parse_gpus(value: str) -> tuple[str, ...]:
    """The CDI devices of one ``--gpus``: ``all``, a number of them, ``device=0,1`` as Docker has it, or CDI names.

    Raises:
        UsageError: it is none of these.
    """
    value = value.strip().strip('"')
    if value == "all":
        return (f"{NVIDIA}=all",)
    if value.isascii() and value.isdecimal() and len(value) < 4:
        return tuple(f"{NVIDIA}={number}" for number in range(int(value)))
    if value.startswith("device="):
        names = value.removeprefix("device=").split(",")
        if all(names):
            return tuple(f"{NVIDIA}={name}" for name in names)
    names = value.split(",")
    if all("/" in name and "=" in name for name in names):
        return tuple(names)
    raise UsageError(
        f"--gpus {value!r} names no devices",
        hint="give all, a number, device=ID, or a CDI name such as nvidia.com/gpu=all",
    )


def container_options(gpus: str | None) -> ContainerOptions:
    """What the container gets; without ``--gpus`` no device, because a builder without one would refuse."""
    if not gpus:
        return PLAIN
    return ContainerOptions(devices=parse_gpus(gpus))
