"""Platforms: what an image is for and what a worker runs.

`Platform` reads, normalizes and writes them as containerd's ``platforms`` package does, which all of BuildKit uses.
This file must not ask a daemon anything, and imports no protobuf.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit._proto import ops_pb2

_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?")
_PART = re.compile(r"[A-Za-z0-9_.-]+")

_SYSTEMS = frozenset(
    (
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    )
)
_ARCHITECTURES = frozenset(
    (
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "arm64",
        "arm64be",
        "armbe",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "mipsle",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    )
)
_ARM_OF_KERNEL = {"armv7l": "v7", "armv6l": "v6", "armv5tel": "v5", "armv8l": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An image's or a worker's platform; ``str()`` gives ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def from_proto(cls, platform: ops_pb2.Platform) -> Self:
        return cls(platform.OS, platform.Architecture, platform.Variant, platform.OSVersion, tuple(platform.OSFeatures))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``OS[(VERSION[+FEATURE]…)]/ARCHITECTURE[/VARIANT]``, or only the first or the second of these.

        Raises:
            UsageError: that is not a platform.
        """
        parts = text.split("/")
        first = _OS.fullmatch(parts[0])
        if first is None or len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts[1:]):
            raise UsageError(f"{text!r} is not a platform", hint="write OS/ARCHITECTURE, such as linux/arm64")
        system = _normal_os(first[1])
        if len(parts) == 1 and system not in _SYSTEMS:
            architecture, variant = _normal_architecture(parts[0], "")
            if architecture not in _ARCHITECTURES:
                raise UsageError(
                    f"{text!r} is neither an operating system nor an architecture",
                    hint="write OS/ARCHITECTURE, such as linux/arm64",
                )
            return cls("linux", architecture, "" if (architecture, variant) == ("arm", "v7") else variant)
        version = _unescaped(first[2] or "")
        features = tuple(_unescaped(each) for each in (first[3] or "").split("+") if each)
        if len(parts) == 1:
            here = cls.default()
            variant = "" if here.variant == "v7" else here.variant
            return cls(system, here.architecture, variant, version, features)
        architecture, variant = _normal_architecture(parts[1], parts[2] if len(parts) == 3 else "")
        if len(parts) == 2 and (architecture, variant) == ("arm", "v7"):
            variant = ""
        if len(parts) == 3 and (architecture, variant) == ("arm64", ""):
            variant = "v8"
        return cls(system, architecture, variant, version, features)

    @classmethod
    def default(cls) -> Self:
        """Linux on the processor of this machine, normalized.

        Builders run Linux wherever they run, so the operating system is not asked for.
        """
        machine = os.uname().machine
        architecture, variant = _normal_architecture(machine, "")
        if machine in _ARM_OF_KERNEL:
            architecture, variant = "arm", _ARM_OF_KERNEL[machine]
        return cls("linux", architecture, variant)

    def normalized(self) -> Self:
        """The same platform by its usual names: ``x86_64`` is ``amd64``, ``arm64/v8`` is ``arm64``."""
        architecture, variant = _normal_architecture(self.architecture, self.variant)
        return replace(
            self,
            os=_normal_os(self.os),
            architecture=architecture,
            variant=variant,
            os_features=tuple(sorted(set(self.os_features))),
        )

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _unescaped(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


def _normal_os(name: str) -> str:
    name = name.lower() or "linux"
    return "darwin" if name == "macos" else name


def _normal_architecture(name: str, variant: str) -> tuple[str, str]:
    name, variant = name.lower(), variant.lower()
    match name:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            if variant in ("8", "v8", "v8.0"):
                variant = ""
            elif variant in ("9", "9.0", "v9.0"):
                variant = "v9"
            return "arm64", variant
        case "armhf":
            return "arm", "v7"
        case "armel":
            return "arm", "v6"
        case "arm":
            if variant in ("", "7"):
                variant = "v7"
            elif variant in ("5", "6", "8"):
                variant = "v" + variant
    return name, variant
