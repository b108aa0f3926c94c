"""The programs that a private builder is made of, and where they are found.

`cogkit.builders.install` puts the pinned buildkitd into a folder of cogkit's own, and that one goes before any in
PATH.  This file must not start what it finds.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cogkit.builders import folders
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass

BUILDKIT_VERSION = "v0.32.2"
"""The release that `cogkit.builders.install` makes."""

_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_RUNTIMES = ("buildkit-runc", "runc", "crun")
_SUBORDINATE_IDS = (Path("/etc/subuid"), Path("/etc/subgid"))
_NAMESPACE_LIMITS = (
    Path("/proc/sys/user/max_user_namespaces"),
    Path("/proc/sys/kernel/unprivileged_userns_clone"),
)


@dataclass(frozen=True, slots=True)
class Programs:
    """What a private builder runs.

    Attributes:
        buildkitd: The daemon.
        runtime: What it runs steps with: runc or crun.
        rootlesskit: What lets it run without root; None for root.
    """

    buildkitd: Path
    runtime: Path
    rootlesskit: Path | None = None


def installed_buildkitd() -> Path:
    """Where cogkit's own buildkitd is, whether or not it is there."""
    return folders.data_folder() / "bin" / f"buildkitd-{BUILDKIT_VERSION}"


def search_path() -> str:
    """PATH, and the folders for administrators, which are not in everyone's."""
    given = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    return os.pathsep.join(dict.fromkeys([*given, *_SYSTEM_PATH]))


def find_buildkitd() -> Path | None:
    """The buildkitd to run; None if there is none."""
    own = installed_buildkitd()
    if os.access(own, os.X_OK):
        return own
    return _find("buildkitd")


def find_runtime() -> Path | None:
    """The program to run steps with; None if there is none."""
    return next(filter(None, map(_find, _RUNTIMES)), None)


def find_programs() -> Programs:
    """Everything that a private builder needs.

    Raises:
        BuilderUnreachableError: something is missing; the hint says how to get it.
    """
    if not _can_run_buildkitd():
        raise BuilderUnreachableError(
            "cogkit can start a builder of its own on Linux only",
            hint="say where a buildkitd listens with --addr or BUILDKIT_HOST, or start a Docker engine",
        )
    buildkitd = find_buildkitd()
    if buildkitd is None:
        raise BuilderUnreachableError(
            "there is no buildkitd on this machine that cogkit could start",
            hint="get one with `cogkit builder install`",
        )
    runtime = find_runtime()
    if runtime is None:
        raise BuilderUnreachableError(
            "the private builder needs runc to run the steps of a build, and there is none in PATH",
            hint="install it, for example with `apt-get install runc` or `dnf install runc`",
        )
    return Programs(buildkitd, runtime, _find_rootlesskit() if os.geteuid() != 0 else None)


def _can_run_buildkitd() -> bool:
    return sys.platform == "linux"


def _find_rootlesskit() -> Path:
    rootlesskit = _find("rootlesskit")
    if rootlesskit is None:
        raise _missing("rootlesskit")
    for program in ("newuidmap", "newgidmap"):
        if _find(program) is None:
            raise _missing(program)
    for limit in _NAMESPACE_LIMITS:
        if _content(limit) == "0":
            raise BuilderUnreachableError(
                "without root the private builder needs user namespaces, and this system does not allow them",
                where=str(limit),
                hint=f"allow them (`sysctl -w {'.'.join(limit.parts[3:])}=…`), run as root, or use another builder",
            )
    for table in _SUBORDINATE_IDS:
        if not _has_entry(table):
            raise BuilderUnreachableError(
                "without root the private builder needs subordinate ids, and this user has none",
                where=str(table),
                hint=f"add them as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {_user()}",
            )
    return rootlesskit


def _missing(program: str) -> BuilderUnreachableError:
    return BuilderUnreachableError(
        f"without root the private builder needs {program}, and there is none in PATH",
        hint="install rootlesskit and uidmap, for example with `apt-get install rootlesskit uidmap`, or run as root",
    )


def _find(program: str) -> Path | None:
    found = shutil.which(program, path=search_path())
    return Path(found) if found else None


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _has_entry(table: Path) -> bool:
    owners = {line.partition(":")[0] for line in _content(table).splitlines()}
    return bool(owners & {_user(), str(os.getuid())})


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def require_version(buildkitd: Path) -> str:
    """What a buildkitd says of its version, such as ``v0.32.2``.

    Raises:
        CogkitError: it cannot be run.
    """
    import subprocess

    try:
        done = subprocess.run([buildkitd, "--version"], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.split()[2]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise CogkitError(
            f"{buildkitd} cannot be run: {error}", hint="install it again with `cogkit builder install`"
        ) from error
