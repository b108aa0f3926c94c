"""Where the builders' files are: the XDG folders of this user, as platformdirs knows them.

This file must not create or read any of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

_LONGEST_SOCKET_NAME = len("/buildkitd.sock")
_MAX_SOCKET_PATH = 107  # sockaddr_un.sun_path without its closing NUL


def config_folder() -> Path:
    """For what the user says."""
    return platformdirs.user_config_path("cogkit", appauthor=False)


def data_folder() -> Path:
    """For programs and the cache of the private builder."""
    return platformdirs.user_data_path("cogkit", appauthor=False)


def state_folder() -> Path:
    """For logs."""
    return platformdirs.user_state_path("cogkit", appauthor=False)


def socket_folder() -> Path:
    """For the private builder's socket: a short path, in a folder that only this user may enter.

    ``$XDG_RUNTIME_DIR/cogkit`` where there is such a folder of this user, else a folder in the state folder; when that
    would be too long for a socket, one below the system's folder for temporary files.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = state_folder() / "run"
    candidates = [Path(runtime, "cogkit"), own] if _is_ours_alone(runtime) else [own]
    for folder in candidates:
        if len(os.fsencode(folder)) + _LONGEST_SOCKET_NAME <= _MAX_SOCKET_PATH:
            return folder
    mark = hashlib.sha256(os.fsencode(own)).hexdigest()[:8]
    return Path(tempfile.gettempdir(), f"cogkit-{os.getuid()}-{mark}")


def _is_ours_alone(folder: str) -> bool:
    if not os.path.isabs(folder):
        return False
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
