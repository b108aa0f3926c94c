"""Under what conditions the build's steps run: network, hosts, limits; and the attestations made of them.

Value syntax is that of docker and buildx (``build/utils.go``, ``util/buildflags/attests.go``, docker/go-units).  Each
function turns flags into what the frontend is told.  This file must not know the frontend's attribute names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from cogkit.building.values import csv_fields, parse_bool
from cogkit.errors import UsageError
from cogkit.go_bool import go_bool

HOST_GATEWAY = "host-gateway"
ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
        *("rttime", "sigpending", "stack"),
    )
)
_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_MAX = (1 << 63) - 1


def parse_network(value: str | None, *, flag: str = "--network") -> str | None:
    """``--network``: ``host``, ``none``, or None for the builder's own choice."""
    if value in (None, "", "default"):
        return None
    if value not in ("host", "none"):
        raise UsageError(f"{flag} {value}: a builder has no such network", hint="there are default, host and none")
    return value


def parse_hosts(values: Iterable[str], *, flag: str = "--add-host") -> tuple[str, ...]:
    """All ``--add-host NAME:IP`` or ``NAME=IP[,IP…]``, as ``NAME=IP``.

    Raises:
        UsageError: no name, no address, or an address that depends on the builder's machine.
    """
    return tuple(host for value in values for host in _parse_host(value, flag))


def _parse_host(value: str, flag: str) -> list[str]:
    hosts: list[str] = []
    name = ""
    for field in csv_fields(flag, value):
        for part in field.split(","):
            # NAME=IP,IP: further addresses of the same name.
            own, address = _split_host(part)
            if not own and not name:
                raise UsageError(f"{flag} {value}: not NAME:IP", hint=f"for example {flag} db.internal:10.0.0.5")
            name = own or name
            if address == HOST_GATEWAY:
                raise UsageError(
                    f"{flag} {value}: {HOST_GATEWAY} is known to Docker's own builder only", hint="give the address"
                )
            hosts.append(f"{name}={_address(address, value, flag)}")
    return hosts


def _split_host(part: str) -> tuple[str, str]:
    if _is_address(part):
        return "", part
    name, separator, address = part.partition("=")
    if not separator:
        name, separator, address = part.partition(":")
    return (name, address) if separator else ("", part)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _address(text: str, value: str, flag: str) -> str:
    if not _is_address(text):
        raise UsageError(
            f"{flag} {value}: {text!r} is not an IP address", hint=f"for example {flag} db.internal:10.0.0.5"
        )
    return text.removeprefix("[").removesuffix("]")


def parse_size(value: str | None, *, flag: str) -> int | None:
    """A number of bytes with a binary unit, ``64m`` or ``1.5GiB``; None for none, or zero."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    size = int(float(match[1]) * 1024 ** _UNITS[(match[2] or "").lower()]) if match else -1
    if not 0 <= size <= _MAX:
        raise UsageError(f"{flag} {value}: not a size", hint="for example 64m or 1g")
    return size or None


def parse_ulimits(values: Iterable[str], *, flag: str = "--ulimit") -> tuple[str, ...]:
    """All ``--ulimit NAME=SOFT[:HARD]``, as ``NAME=SOFT:HARD``; the last one of a name counts."""
    return tuple(dict(_parse_ulimit(value, flag) for value in values).values())


def _parse_ulimit(value: str, flag: str) -> tuple[str, str]:
    name, equals, limits = value.partition("=")
    example = f"for example {flag} nofile=1024:2048"
    if not equals or name not in ULIMITS:
        raise UsageError(f"{flag} {value}: no such limit", hint=f"{example}; there are {', '.join(sorted(ULIMITS))}")
    soft, colon, hard = limits.partition(":")
    hard = hard if colon else soft
    if not _NUMBER.fullmatch(soft) or not _NUMBER.fullmatch(hard):
        raise UsageError(f"{flag} {value}: a limit is a number, -1 for none", hint=example)
    if int(hard) != -1 and (int(soft) == -1 or int(soft) > int(hard)):
        raise UsageError(f"{flag} {value}: the soft limit is above the hard one", hint=example)
    return name, f"{name}={int(soft)}:{int(hard)}"


def parse_attestations(
    attest: Iterable[str], *, sbom: str | None = None, provenance: str | None = None
) -> dict[str, str]:
    """What attestations to make: the parameters of each by its type; a disabled one is not there.

    Args:
        attest: ``type=sbom|provenance[,KEY=VALUE…][,disabled=true]``; the first of a type counts, but for the next two.
        sbom: ``true``, ``false``, or parameters of ``type=sbom``; None if not given.
        provenance: The same of ``type=provenance``.

    Raises:
        UsageError: a value without a type, or a field that is not KEY=VALUE.
    """
    found: dict[str, str | None] = {}
    for value in attest:
        kind, parameters = _parse_attestation(value, "--attest")
        found.setdefault(kind, parameters)
    for kind, shorthand in (("sbom", sbom), ("provenance", provenance)):
        if shorthand:
            found.setdefault(kind, _parse_shorthand(kind, shorthand))
    return {kind: parameters for kind, parameters in found.items() if parameters is not None}


def _parse_shorthand(kind: str, value: str) -> str | None:
    wanted = go_bool(value)
    if wanted is not None:
        return f"type={kind}" if wanted else None
    return _parse_attestation(f"type={kind},{value}", f"--{kind}")[1]


def _parse_attestation(value: str, flag: str) -> tuple[str, str | None]:
    kind, disabled = "", False
    attrs: dict[str, str] = {}
    for field in csv_fields(flag, value):
        key, equals, text = field.partition("=")
        if not equals:
            raise UsageError(f"{flag} {value}: {field!r} is not KEY=VALUE", hint="for example --attest type=sbom")
        match key.strip().lower():
            case "type":
                kind = text
            case "disabled":
                disabled = parse_bool(flag, "disabled", text)
            case _:
                attrs[key] = text
    if not kind:
        raise UsageError(f"{flag} {value}: the type is missing", hint="for example --attest type=sbom")
    if disabled:
        return kind, None
    return kind, ",".join(_csv_field(f"{key}={text}") for key, text in (("type", kind), *sorted(attrs.items())))


def _csv_field(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(char in text for char in ',"\r\n') else text


_RESOURCES = {
    "memory": "memory",
    "memory-swap": "memswap",
    "cpu-shares": "cpushares",
    "cpu-period": "cpuperiod",
    "cpu-quota": "cpuquota",
    "cpuset-cpus": "cpusetcpus",
    "cpuset-mems": "cpusetmems",
}


def parse_resources(values: Iterable[str], *, flag: str = "--resource") -> dict[str, str]:
    """All ``--resource NAME=VALUE``, as attributes of the frontend (buildx ``build/utils.go``).

    Raises:
        UsageError: an unknown name, or a value that is not of its kind.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = (part.strip() for part in value.partition("="))
        attr = _RESOURCES.get(name)
        if not equals or attr is None:
            raise UsageError(f"{flag} {value}: not a resource", hint=f"NAME=VALUE with {', '.join(_RESOURCES)}")
        if name.startswith("memory"):
            unlimited = name == "memory-swap" and text == "-1"
            size = -1 if unlimited else parse_size(text, flag=flag)
            found |= {attr: str(size)} if size else {}
        elif name.startswith("cpuset"):
            found |= {attr: text} if text else {}
        elif not _NUMBER.fullmatch(text):
            raise UsageError(f"{flag} {value}: not a number", hint=f"for example {flag} {name}=50000")
        elif int(text) > 0:
            found[attr] = text
    return found
