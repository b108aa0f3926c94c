"""Where the ``cog`` and ``coglet`` packages in the image come from: PyPI, an address, or a wheel file.

The values are those of ``COG_SDK_WHEEL``, ``COGLET_WHEEL`` and ``build.sdk_version``.  Looks at the file system only
to find the wheel that a value names.  Unlike Cog's own development builds, a ``dist`` folder that happens to lie
about is never used: what is installed is said, or it is the latest release.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.compat import at_least

SDK_WHEEL_VARIABLE = "COG_SDK_WHEEL"
COGLET_WHEEL_VARIABLE = "COGLET_WHEEL"
MINIMUM_SDK = "0.16.0"
MINIMUM_SDK_WITH_COGLET = "0.17.0"
PRERELEASE = "prerelease"

_BASE_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SEMVER_PRERELEASE = re.compile(r"-alpha(\d+)|-beta(\d+)|-rc(\d+)|-dev(\d*)")
_PEP440_PRERELEASE = re.compile(r"\d(a|b|rc|\.dev)\d")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Architectures in Go's words, and in those of Debian's folders and of wheels."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One source of a package: ``value`` is a version ("" is the latest), an address, or a path, by ``kind``."""

    package: str
    kind: Literal["pypi", "url", "file"] = "pypi"
    value: str = ""
    latest_prerelease: bool = False

    @property
    def is_prerelease(self) -> bool:
        """Whether pip has to be allowed pre-releases to install it."""
        if self.kind != "pypi":
            return False
        is_pre = _SEMVER_PRERELEASE.search(self.value) or _PEP440_PRERELEASE.search(self.value)
        return self.latest_prerelease or is_pre is not None

    @property
    def is_exact(self) -> bool:
        """Whether the source says which version is meant."""
        return self.kind != "pypi" or bool(self.value)

    @property
    def requirement(self) -> str:
        """What to hand to pip for a wheel from PyPI: ``cog`` or ``cog==0.22.0``."""
        return f"{self.package}=={_pep440(self.value)}" if self.value else self.package

    def older_than(self, minimum: str) -> bool:
        """Whether it is a release on PyPI that is known to be older than this one."""
        match = _BASE_VERSION.match(self.value)
        return self.kind == "pypi" and match is not None and not at_least(match[0], minimum)

    def __str__(self) -> str:
        if self.kind != "pypi":
            return self.value
        if self.value:
            return f"{self.package}=={self.value} from PyPI"
        return f"latest {'pre-release ' if self.latest_prerelease else ''}{self.package} from PyPI"


def sdk_wheel(value: str, sdk_version: str = "", *, relative_to: Path = Path(".")) -> Wheel:
    """The source of the ``cog`` package.

    Args:
        value: ``COG_SDK_WHEEL``: ``pypi``, ``pypi:VERSION``, an address, a wheel, or a folder with one; "" if not set.
        sdk_version: ``build.sdk_version``, used if the variable is not set.
        relative_to: The folder that a relative path in ``value`` starts from.

    Raises:
        ConfigError: The path is not there, no or several wheels fit, or the version is too old to work.
    """
    wheel = _parse("cog", value, SDK_WHEEL_VARIABLE, "", relative_to)
    if wheel is None and sdk_version == PRERELEASE:
        wheel = Wheel("cog", latest_prerelease=True)
    wheel = wheel or Wheel("cog", value=sdk_version)
    if wheel.older_than(MINIMUM_SDK):
        raise ConfigError(
            f"cog version {wheel.value} is below the minimum required version {MINIMUM_SDK}",
            hint=f"Set build.sdk_version to {MINIMUM_SDK} or newer, or leave it out for the latest.",
        )
    return wheel


def coglet_wheel(value: str, *, architecture: str = "amd64", relative_to: Path = Path(".")) -> Wheel:
    """The source of the ``coglet`` package; see `sdk_wheel`.

    Args:
        value: ``COGLET_WHEEL``, "" if not set.
        architecture: Of the image, in Go's words; picks the wheel in a folder that has several.
        relative_to: The folder that a relative path in ``value`` starts from.
    """
    return _parse("coglet", value, COGLET_WHEEL_VARIABLE, architecture, relative_to) or Wheel("coglet")


def _parse(package: str, value: str, variable: str, architecture: str, relative_to: Path) -> Wheel | None:
    value = value.strip()
    if not value:
        return None
    if value.lower() == "pypi":
        return Wheel(package)
    if value.lower().startswith("pypi:"):
        version = value[len("pypi:") :]
        if not re.fullmatch(r"[A-Za-z0-9.+_!-]*", version):
            raise ConfigError(f'{variable}: "{version}" is not a version', hint="Write it as pypi:0.22.0.")
        return Wheel(package, value=version)
    if value.startswith(("https://", "http://")):
        return Wheel(package, "url", value)
    return Wheel(package, "file", str(_find(package, relative_to / value, variable, architecture)))


def _find(package: str, path: Path, variable: str, architecture: str) -> Path:
    path = path.absolute()
    if not path.exists():
        raise ConfigError(f"{variable}: path not found: {path}", hint="Name a wheel file, or a folder that holds one.")
    if not path.is_dir():
        return path
    wheels = sorted(path.glob(f"{package}-*.whl"))
    if not wheels:
        raise ConfigError(f"{variable}: no wheel matching '{package}-*.whl' found in {path}")
    platform = MACHINES.get(architecture)
    if platform:
        others = len(wheels)
        wheels = [wheel for wheel in wheels if platform in wheel.name or "-none-any" in wheel.name]
        if not wheels:
            raise ConfigError(
                f"{variable}: no wheel for platform {architecture} found in {path} (found {others} for other platforms)"
            )
    if len(wheels) > 1:
        raise ConfigError(
            f"{variable}: multiple wheels matching '{package}-*.whl' in {path} — specify the exact file path"
        )
    return wheels[0]


def _pep440(version: str) -> str:
    """``0.22.0-alpha1`` as Python packages are numbered, ``0.22.0a1``."""
    for long, short in (("-alpha", "a"), ("-beta", "b"), ("-rc", "rc"), ("-dev", ".dev")):
        version = version.replace(long, short)
    return version
