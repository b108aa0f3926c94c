"""What must be text is text: values that are not UTF-8 are refused before anything is done with them.

A path may be any bytes, and Python carries them as lone surrogates.  Everything else of a build goes to the daemon as
a protobuf string, which must be UTF-8.  This file must not know what a value means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.building.options import BuildOptions

_FLAGS = {
    "tags": "--tag",
    "build_args": "--build-arg",
    "labels": "--label",
    "platforms": "--platform",
    "build_contexts": "--build-context",
    "outputs": "--output",
    "secrets": "--secret",
    "ssh": "--ssh",
    "cache_from": "--cache-from",
    "cache_to": "--cache-to",
    "no_cache_filter": "--no-cache-filter",
    "attestations": "--attest",
    "hosts": "--add-host",
    "ulimits": "--ulimit",
    "address": "--addr",
}
"""The flag of an option whose name is another."""
_PATHS = frozenset({"context", "file", "source_policy", "tls", "vcs"})
"""Options that are paths, or come from what may be."""


def check_text(options: BuildOptions) -> None:
    """Refuse what must be text and is not.

    Raises:
        UsageError: a value is not UTF-8; names the flag.
    """
    for name in type(options).__slots__:
        value = getattr(options, name)
        is_socket = name == "address" and str(value).startswith("unix:")
        if name not in _PATHS and not is_socket:
            for text in _texts(value):
                _check(_FLAGS.get(name, f"--{name.replace('_', '-')}"), text)


def _check(flag: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UsageError(
            f"{flag}: {shown!r} is not UTF-8", hint="write it in UTF-8; only paths may be other bytes"
        ) from None


def _texts(value: object) -> Iterator[str]:
    """Every text in a value that is not a path."""
    from cogkit.building.options import NamedContext, OutputSpec
    from cogkit.buildkit.request import CacheEntry

    match value:
        case str():
            yield value
        case Path() | bytes():
            return
        case OutputSpec():  # Its destination is a path.
            yield value.type
            yield from _texts(value.attrs)
        case NamedContext():
            yield value.name
            if not value.local:
                yield value.value
        case CacheEntry():
            folders = ("src", "dest") if value.type == "local" else ()
            yield value.type
            yield from _texts({key: text for key, text in value.attrs.items() if key not in folders})
        case Mapping():
            for key, each in value.items():
                yield from _texts(key)
                yield from _texts(each)
        case tuple() | frozenset():
            for each in value:
                yield from _texts(each)
        case _ if is_dataclass(value):
            for each in fields(value):
                yield from _texts(getattr(value, each.name))
