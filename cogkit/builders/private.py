"""The user's private builder: a buildkitd that cogkit starts, and finds again.

One for each user: its cache, its log and the locks are in cogkit's data folder, its socket (mode 0600) in the folder
for sockets.  The process that looks after it is `supervisor`; this file starts that one and asks for its daemon, from
any number of processes at once.

    with private.in_use(settings) as address:
        …connect to address…
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cogkit.builders import folders, supervisor
from cogkit.builders.programs import Programs, find_programs
from cogkit.builders.records import PrivateSettings
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass

CONFIG_NAME = "buildkitd.toml"
"""In cogkit's config folder: more of buildkitd's configuration, such as registry mirrors, by the user."""

_START_LOCK = "start"
_START_SECONDS = 100.0
_STOP_SECONDS = 60.0
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_NAMESPACES = re.compile(
    r"operation not permitted|user namespaces? .*(?:not|disabled)|newuidmap|newgidmap|unshare", re.IGNORECASE
)
_GC_CONFIG = """
[worker.oci]
  gc = true
  reservedSpace = "1GB"
  maxUsedSpace = "{used}"
  minFreeSpace = "{free}"
"""


@dataclass(frozen=True, slots=True)
class PrivateState:
    """The private builder as it is now.

    Attributes:
        folder: Its cache and log.
        address: Where it answers; None if it does not run.
        supervisor: Process that looks after it.
        buildkitd: Process of the daemon.
        started: When, in seconds since 1970.
    """

    folder: Path
    address: str | None = None
    supervisor: int | None = None
    buildkitd: int | None = None
    started: float | None = None

    @property
    def log(self) -> Path:
        """What its buildkitd prints."""
        return self.folder / supervisor.LOG


def folder() -> Path:
    """Where the private builder's files are, whether or not it has ever run."""
    return folders.data_folder() / "builder"


def state() -> PrivateState:
    """Whether the private builder runs, and how; starts nothing."""
    place = folder()
    said = supervisor.read_state(place)
    if said is None or supervisor.answering(place) is None:
        return PrivateState(place)
    return PrivateState(place, said["address"], said.get("supervisor"), said.get("buildkitd"), said.get("started"))


@contextmanager
def in_use(settings: PrivateSettings, *, on_start: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The address of the private builder, started if need be; it does not end for being idle while this is open.

    Args:
        settings: How it runs, if it is started now.
        on_start: Called before a start, which takes a moment.

    Raises:
        BuilderUnreachableError: it cannot be started; the message says why.
    """
    place = folder()
    with ExitStack() as stack:
        try:
            _make(place)
            held = stack.enter_context(
                supervisor.locked(place / supervisor.USE_LOCK, shared=True, patience=_START_SECONDS)
            )
            if not held:
                raise BuilderUnreachableError(
                    "the private builder is ending, and takes too long",
                    hint=f"look at its log: {_log()}",
                )
            address = supervisor.answering(place) or _started(place, settings, on_start)
        except OSError as error:
            raise _folder_error(error, place) from error
        yield address


def stop() -> bool:
    """End the private builder, and what it builds; returns whether it ran.

    Raises:
        CogkitError: it does not end.
    """
    place = folder()
    deadline = time.monotonic() + _STOP_SECONDS
    ran = False
    while place.exists():
        with supervisor.locked(place / supervisor.LOCK, patience=0) as ended:
            if ended:
                return ran
        ran = True
        said = supervisor.read_state(place)
        if said is not None and _is_supervisor(said.get("supervisor")):
            with suppress(ProcessLookupError):
                os.kill(said["supervisor"], signal.SIGTERM)
        if time.monotonic() > deadline:
            raise CogkitError("the private builder does not end", hint=f"look at its log: {_log()}")
        time.sleep(0.05)
    return ran


def remove() -> None:
    """End the private builder and delete its cache and logs.

    Raises:
        CogkitError: it does not end, or its folder cannot be deleted.
    """
    import shutil

    stop()
    place = folder()
    if not place.exists():
        return
    programs = find_programs() if os.geteuid() != 0 else None
    try:
        if programs is not None and programs.rootlesskit is not None:
            # Files of other users of the namespace can be deleted only from within it.
            subprocess.run([programs.rootlesskit, "rm", "-rf", place / supervisor.ROOT], check=False, timeout=600)
        shutil.rmtree(place)
    except OSError as error:
        raise CogkitError(
            f"the private builder's folder cannot be deleted: {error.strerror or error}", where=str(place)
        ) from error


# ------------------------------------------------------------------------------------------------------------ its start


def _started(place: Path, settings: PrivateSettings, on_start: Callable[[], None]) -> str:
    """Start it, unless another process is faster."""
    with supervisor.locked(place / _START_LOCK, patience=_START_SECONDS) as held:
        address = supervisor.answering(place)
        if address is not None:
            return address
        if not held:
            raise BuilderUnreachableError(
                "another process is starting the private builder, and takes too long",
                hint=f"look at its log: {_log()}",
            )
        programs = find_programs()
        config = _config(settings, place)
        on_start()
        return _launch(place, settings, programs, config)


def _launch(place: Path, settings: PrivateSettings, programs: Programs, config: str) -> str:
    sockets = folders.socket_folder()
    told = {
        "folder": str(place),
        "socket": str(sockets / supervisor.SOCKET),
        "command": _command(place, sockets, programs),
        "environment": _environment(place, sockets, programs),
        "config": config,
        "idle_seconds": settings.idle_seconds,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", supervisor.__name__, json.dumps(told)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        said = {"error": "the process that looks after it ended at once"}
    if "ready" in said:
        return str(said["ready"])
    raise _start_error(said, programs)


def _command(place: Path, sockets: Path, programs: Programs) -> list[str]:
    command = [] if programs.rootlesskit is None else [str(programs.rootlesskit)]
    return [
        *command,
        str(programs.buildkitd),
        *("--config", str(place / "buildkitd.toml")),
        *("--root", str(place / supervisor.ROOT)),
        *("--addr", f"unix://{sockets / supervisor.SOCKET}"),
        # The usual place is one for all daemons, and two that start at the same time fight for it.
        *("--otel-socket-path", str(sockets / supervisor.TRACE_SOCKET)),
        "--containerd-worker=false",
        *("--oci-worker-binary", str(programs.runtime)),
    ]


def _environment(place: Path, sockets: Path, programs: Programs) -> dict[str, str]:
    from cogkit.builders.programs import search_path

    # A notification socket is for the service that we may have been started by, not for the daemon.
    left_out = ("BUILDKIT_HOST", "NOTIFY_SOCKET", "LISTEN_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    environment["PATH"] = search_path()
    environment["TMPDIR"] = str(place / supervisor.ROOT / "tmp")
    if programs.rootlesskit is not None:
        # Without root, runc keeps its state here, and /run/user may belong to a session that ends before the builder.
        environment["XDG_RUNTIME_DIR"] = str(sockets)
    return environment


def _config(settings: PrivateSettings, place: Path) -> str:
    """The user's own buildkitd.toml, with garbage collection set unless the user says how the worker runs."""
    path = folders.config_folder() / CONFIG_NAME
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the private builder's configuration cannot be read: {error}", where=str(path)) from error
    if text and _sets_worker(text, path):
        return text
    gc = _GC_CONFIG.format(used=settings.max_used_space, free=settings.min_free_space)
    return f"{text}\n{gc}"


def _sets_worker(text: str, path: Path) -> bool:
    import tomllib

    from cogkit.builders.config_file import toml_error

    try:
        return "oci" in tomllib.loads(text).get("worker", {})
    except tomllib.TOMLDecodeError as error:
        raise toml_error(str(error), text, path) from None


def _start_error(said: dict[str, Any], programs: Programs) -> BuilderUnreachableError:
    reason, log = str(said.get("error", "")), str(said.get("log") or "")
    if _NO_SPACE.search(reason) or _NO_SPACE.search(log):
        return BuilderUnreachableError(
            "the private builder cannot start: no space is left on the disk",
            where=str(folder()),
            hint="free some space, or delete the builder's cache with `cogkit builder rm private`",
        )
    if programs.rootlesskit is not None and _NO_NAMESPACES.search(log):
        return BuilderUnreachableError(
            "the private builder cannot start: this system does not let users make user namespaces",
            hint="allow them, run as root, or use another builder (--addr, BUILDKIT_HOST)",
            detail=log or None,
        )
    return BuilderUnreachableError(
        f"the private builder cannot start: {reason}", hint=f"look at its log: {_log()}", detail=log or None
    )


def _folder_error(error: OSError, place: Path) -> BuilderUnreachableError:
    if _NO_SPACE.search(error.strerror or ""):
        return _start_error({"error": error.strerror}, Programs(Path(), Path()))
    return BuilderUnreachableError(
        f"the private builder's folder cannot be used: {error.strerror or error}",
        where=str(error.filename or place),
        hint="check its owner and permissions",
    )


def _make(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        raise BuilderUnreachableError(
            "the private builder's folder belongs to another user",
            where=str(place),
            hint="run as that user, or set XDG_DATA_HOME to a folder of your own",
        )


def _is_supervisor(pid: object) -> bool:
    """Whether a process is still the one that was noted, and not another that got its number."""
    if not isinstance(pid, int):
        return False
    try:
        return supervisor.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _log() -> Path:
    return folder() / supervisor.LOG
