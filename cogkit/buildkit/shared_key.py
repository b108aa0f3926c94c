"""Under which key the daemon keeps the files of a folder between two builds.

buildkitd keeps what a client sent of a local mount and asks next time only for what changed.  It finds the kept copy by
``<mount name>:<hint>:<shared key of the session>`` (buildkit source/local/source.go), so the key must be the same for
the same folder on the same machine and differ for all others: two folders under one key evict each other's files.

buildx's key is the folder's *base name* and a node id (build/opt.go, util/confutil), so that ``a/app`` and ``b/app``
share one.  Ours is made from the whole path.  It is a keyed hash, so that the daemon, which may be somebody else's,
learns nothing of the path or of the node.

This file must not know what is in the folder, nor talk to anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from cogkit.atomic_file import create_whole, replace_whole

_NODE_ID = re.compile(r"[0-9a-f]{32}")


def node_id() -> str:
    """The identity of this user on this machine: 32 hexadecimal digits, random, kept in the user's config folder.

    The file is ``$XDG_CONFIG_HOME/cogkit/node-id`` (``~/.config`` by default).  Where it cannot be kept, the identity
    is derived from the machine's and the user's id: less private, as stable.  Never raises.
    """
    return kept_random("node-id") or _derived_id()


def kept_random(name: str) -> str | None:
    """32 random hexadecimal digits, the same ones every time, kept under ``name`` in the user's config folder.

    Only the user can read the file.  Returns None where nothing can be kept.  Never raises.
    """
    path = _config_path(name)
    if path is None:
        return None
    try:
        return _stored_id(path)
    except OSError:
        return None


def shared_key(directory: Path, role: str = "context") -> str:
    """The shared key of a folder, 32 hexadecimal digits.

    Args:
        directory: The folder; links in its path are resolved, so that every way to it has the same key.
        role: What the folder is for.  The session's own key is that of ``context``; a named context takes its name
            here, for the frontend attribute ``sharedkey:localdir:<name>``.
    """
    message = b"\0".join((role.encode("utf-8", "surrogateescape"), os.fsencode(os.path.realpath(directory))))
    return hmac.new(node_id().encode(), message, hashlib.sha256).hexdigest()[:32]


def node_id_path() -> Path | None:
    """Where the node id is kept; None if the user has no home."""
    return _config_path("node-id")


def _config_path(name: str) -> Path | None:
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(config):  # the XDG specification says to ignore a relative one
        return Path(config, "cogkit", name)
    home = os.path.expanduser("~")
    return Path(home, ".config", "cogkit", name) if os.path.isabs(home) else None


def _stored_id(path: Path) -> str | None:
    stored = _read_id(path)
    if stored is not None:
        return stored
    if _is_elses_home(path):
        return None
    for folder in (*reversed(path.parent.parents), path.parent):
        folder.mkdir(mode=0o700, exist_ok=True)  # as the XDG specification wants it, also ~/.config
    new = secrets.token_hex(16).encode() + b"\n"
    try:
        create_whole(path, new, 0o600)  # the first of several processes wins, and all read what it wrote
    except FileExistsError:
        if _read_id(path) is None:
            replace_whole(path, new, 0o600)
    return _read_id(path)


def _read_id(path: Path) -> str | None:
    """The id in the file; None if there is no file, or what is in it is not an id."""
    try:
        text = path.read_bytes()[:64].decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    return text if _NODE_ID.fullmatch(text) else None


def _is_elses_home(path: Path) -> bool:
    """Whether this is root in another user's home (sudo), who could not read or replace what root leaves there."""
    if os.geteuid() != 0:
        return False
    nearest = next(folder for folder in path.parents if folder.exists())
    return nearest.stat().st_uid != 0


def _derived_id() -> str:
    """An id from what the machine says of itself.  machine-id(5) asks that its value be used in a keyed hash only."""
    machine = b""
    for source in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            machine = machine or Path(source).read_bytes().strip()
    machine = machine or socket.gethostname().encode()
    return hmac.new(machine, f"cogkit node of user {os.getuid()}".encode(), hashlib.sha256).hexdigest()[:32]
