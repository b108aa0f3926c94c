"""What a build is given beyond its context: ``--secret``, ``--ssh`` and ``--allow``, as buildx reads them.

Facts are from buildx (``util/buildflags/secrets.go``, ``ssh.go``, ``entitlements.go``).  This file must not read a
secret or open a socket.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.options import SshSpec
from cogkit.building.values import csv_fields
from cogkit.errors import UsageError
from cogkit.go_bool import go_bool

if TYPE_CHECKING:
    from cogkit.buildkit.session.services.secrets import SecretSource

SECRET_FORM = "for example --secret id=token,src=token.txt or --secret id=token,env=TOKEN"
ENTITLEMENTS = ("network.host", "security.insecure", "device")
LOCAL_DELETE = "buildx.local.delete"
"""What buildx calls the right to delete in a folder that ``type=local,mode=delete`` writes."""


def parse_secret(value: str, *, flag: str = "--secret", environ: Mapping[str, str] = os.environ) -> SecretSource:
    """One ``--secret id=ID[,src=FILE|,env=NAME][,type=file|env]``.

    Without a source it is the environment variable of the id's name, else the file of that name.

    Raises:
        UsageError: no id, an unknown key, or a value that makes no sense.
    """
    from cogkit.buildkit.session.services.secrets import SecretSource

    id = path = env = kind = ""
    for field in csv_fields(flag, value):
        key, equals, text = field.partition("=")
        key = key.lower()
        if not equals:
            # Not shown: it may be the secret itself.
            raise UsageError(f"{flag}: a field is not KEY=VALUE", hint=SECRET_FORM)
        match key:
            case "id":
                id = text
            case "src" | "source":
                path = text
            case "env":
                env = text
            case "type":
                kind = text
            case _:
                raise UsageError(f"{flag}: unknown key {key!r}", hint=SECRET_FORM)
    if kind not in ("", "file", "env"):
        raise UsageError(f"{flag}: type={kind} is neither file nor env", hint=SECRET_FORM)
    if not id:
        raise UsageError(f"{flag}: the id is missing", hint=SECRET_FORM)
    if kind == "env" and not env:
        path, env = "", path
    if not env and not path:
        if id in environ:
            env = id
        else:
            path = id
    return SecretSource(id, env=env) if env else SecretSource(id, path=Path(path))


def parse_secrets(values: Iterable[str], *, flag: str = "--secret") -> tuple[SecretSource, ...]:
    """All ``--secret``; the last one of an id counts, empty values are passed over."""
    return tuple(
        {secret.id: secret for secret in (parse_secret(value, flag=flag) for value in values if value)}.values()
    )


def parse_ssh(value: str, *, flag: str = "--ssh") -> SshSpec:
    """One ``--ssh default|ID[=SOCKET[,raw=true]|KEY[,KEY…]]``.

    Raises:
        UsageError: ``raw`` has a bad value, or there is not one socket for it.
    """
    id, _, paths = value.partition("=")
    raw = False
    places: list[Path] = []
    for part in filter(None, paths.split(",")):
        if not part.startswith("raw="):
            places.append(Path(part))
            continue
        said = go_bool(part.removeprefix("raw="))
        if said is None:
            raise UsageError(
                f"{flag} {value}: {part} is neither true nor false", hint=f"for example {id}=SOCKET,raw=true"
            )
        raw = said
    if raw and len(places) != 1:
        raise UsageError(f"{flag} {value}: raw=true takes exactly one socket", hint=f"for example {id}=SOCKET,raw=true")
    return SshSpec(id or "default", tuple(places), raw)


def parse_all_ssh(values: Iterable[str], *, flag: str = "--ssh") -> tuple[SshSpec, ...]:
    """All ``--ssh``; empty values are passed over.

    Raises:
        UsageError: two have the same id.
    """
    specs = tuple(parse_ssh(value, flag=flag) for value in values if value)
    ids = [spec.id for spec in specs]
    for id in ids:
        if ids.count(id) > 1:
            raise UsageError(f"{flag} {id} is given twice", hint=f"give all keys of one agent at once: {flag} {id}=A,B")
    return specs


def parse_entitlements(values: Iterable[str], *, flag: str = "--allow") -> tuple[tuple[str, ...], bool]:
    """All ``--allow``, and whether the last of them, `LOCAL_DELETE`, which is not the daemon's, is among them.

    Raises:
        UsageError: an unknown entitlement, or a value where none belongs.
    """
    allowed: list[str] = []
    local_delete = False
    for value in filter(None, values):
        name, equals, detail = value.partition("=")
        if name not in (*ENTITLEMENTS, LOCAL_DELETE):
            raise UsageError(
                f"{flag} {value}: unknown entitlement {name!r}",
                hint=f"there are {', '.join((*ENTITLEMENTS, LOCAL_DELETE))}",
            )
        if equals and name != "device":
            raise UsageError(f"{flag} {value}: {name} takes no value", hint=f"write {flag} {name}")
        if detail:
            _check_device(flag, value, detail)
        if name == LOCAL_DELETE:
            local_delete = True
        else:
            allowed.append(value)
    return tuple(dict.fromkeys(allowed)), local_delete


def _check_device(flag: str, value: str, detail: str) -> None:
    for field in csv_fields(flag, detail)[1:]:
        if not field.startswith("alias="):
            raise UsageError(
                f"{flag} {value}: {field!r} is not alias=NAME", hint=f"for example {flag} device=vendor.com/gpu=all"
            )
