"""Where the real programs are that `make tools` builds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".tools"
CACHE = REPOSITORY / ".cache"


@dataclass(frozen=True)
class BuildKitRelease:
    """One BuildKit release, built from source."""

    name: str
    bin: Path

    @property
    def buildkitd(self) -> Path:
        return built(self.bin / "buildkitd")

    @property
    def buildctl(self) -> Path:
        return built(self.bin / "buildctl")


RELEASES = {
    "current": BuildKitRelease("current", TOOLS / "bin"),
    "v0.13": BuildKitRelease("v0.13", TOOLS / "v0.13"),
}


def built(path: Path) -> Path:
    """``path``, or an error that says how to make it."""
    if not path.exists():
        raise FileNotFoundError(f"{path.relative_to(REPOSITORY)} is missing; `make tools` builds it")
    return path


def installed(command: str) -> str:
    """The path of a program from a Debian package, or an error that says how to get it."""
    found = shutil.which(command, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise FileNotFoundError(f"{command} is not installed; `make tools` installs it")
    return found
