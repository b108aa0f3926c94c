"""Where build caches are read from and written to: ``--cache-from`` and ``--cache-to``, as buildx reads them.

Facts are from buildx (``util/buildflags/cache.go``, ``build/opt.go``).  The types are the builder's own (``registry``,
``inline``, ``local``, ``gha``, ``s3``, ``azblob``), and so are their attributes; what is added here are credentials
that the user's environment has for them.  This file must not show any of those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from cogkit.building.values import csv_fields
from cogkit.buildkit.layouts import resolve_local_import
from cogkit.buildkit.request import CacheEntry
from cogkit.errors import UsageError
from cogkit.go_bool import go_bool
from cogkit.oci.content_store import LayoutError

CACHE_FROM = "--cache-from"
CACHE_TO = "--cache-to"
_FOLDER_KEY = {CACHE_FROM: "src", CACHE_TO: "dest"}


def parse_caches(values: Iterable[str], *, flag: str) -> tuple[CacheEntry, ...]:
    """All values of `CACHE_FROM` or `CACHE_TO`: ``type=TYPE,KEY=VALUE…``, or images of a registry alone.

    Raises:
        UsageError: no type, or an attribute missing without which the type makes no sense.
    """
    entries: list[CacheEntry] = []
    for value in filter(None, values):
        if "=" in value:
            entries.append(_parse_cache(value, flag))
        else:
            entries += [CacheEntry("registry", {"ref": ref}) for ref in csv_fields(flag, value)]
    for entry in entries:
        _check(entry, flag)
    return tuple(entries)


def _parse_cache(value: str, flag: str) -> CacheEntry:
    kind, attrs = "", {}
    for field in csv_fields(flag, value):
        key, equals, text = field.partition("=")
        if not equals:
            # Not shown: it may be a part of a token.
            raise UsageError(f"{flag}: a field is not KEY=VALUE", hint=f"for example {_example(flag)}")
        if key.lower() == "type":
            kind = text
        else:
            attrs[key.lower()] = text
    if not kind:
        raise UsageError(f"{flag}: the type is missing", hint=f"for example {_example(flag)}")
    return CacheEntry(kind, attrs)


def _check(entry: CacheEntry, flag: str) -> None:
    wanted = {"registry": "ref", "local": _FOLDER_KEY[flag]}.get(entry.type)
    if wanted is not None and not entry.attrs.get(wanted):
        raise UsageError(f"{flag}: type={entry.type} needs {wanted}=", hint=f"for example {_example(flag)}")


def _example(flag: str) -> str:
    return f"{flag} type=local,{_FOLDER_KEY[flag]}=cache or {flag} type=registry,ref=REGISTRY/NAME:TAG"


def with_inline_cache(entries: tuple[CacheEntry, ...], build_args: Mapping[str, str]) -> tuple[CacheEntry, ...]:
    """``--build-arg BUILDKIT_INLINE_CACHE=1`` is the old way to write ``--cache-to type=inline``."""
    if go_bool(build_args.get("BUILDKIT_INLINE_CACHE", "")):
        return (*entries, CacheEntry("inline"))
    return entries


def with_credentials(entries: Iterable[CacheEntry], environ: Mapping[str, str] = os.environ) -> tuple[CacheEntry, ...]:
    """The entries with the credentials that the environment has for them.

    A GitHub Actions cache that there are none for is left out, as buildx does: the same command then works elsewhere.
    """
    found = []
    for entry in entries:
        if entry.type == "gha":
            entry = _with_github_token(entry, environ)
            if not entry.attrs.get("token") or not (entry.attrs.get("url") or entry.attrs.get("url_v2")):
                continue
        elif entry.type == "s3":
            entry = _with_aws_keys(entry, environ)
        found.append(entry)
    return tuple(found)


def _with_github_token(entry: CacheEntry, environ: Mapping[str, str]) -> CacheEntry:
    version = entry.attrs.get("version") or ("2" if go_bool(environ.get("ACTIONS_CACHE_SERVICE_V2", "")) else "")
    results = environ.get("ACTIONS_RESULTS_URL")
    known = {
        "token": environ.get("ACTIONS_RUNTIME_TOKEN"),
        "url_v2": results if version == "2" else None,
        "url": environ.get("ACTIONS_CACHE_URL", results),
    }
    added = {key: value for key, value in known.items() if value is not None}
    return replace(entry, attrs={**added, **entry.attrs})


def _with_aws_keys(entry: CacheEntry, environ: Mapping[str, str]) -> CacheEntry:
    """Keys of the environment, else of the shared credentials file; none beside keys that the user gave."""
    if {"access_key_id", "secret_access_key"} <= entry.attrs.keys():
        return entry
    keys = ("access_key_id", "secret_access_key", "session_token")
    known = {key: environ.get(f"AWS_{key.upper()}", "") for key in keys}
    if not (known["access_key_id"] and known["secret_access_key"]):
        profile = _aws_profile(environ)
        known = {key: profile.get(f"aws_{key}", "") for key in keys}
    return replace(entry, attrs={**{key: value for key, value in known.items() if value}, **entry.attrs})


def _aws_profile(environ: Mapping[str, str]) -> Mapping[str, str]:
    path = environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path(environ.get("HOME", ""), ".aws", "credentials")
    import configparser

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        return dict(parser[environ.get("AWS_PROFILE") or "default"])
    except (configparser.Error, KeyError, UnicodeDecodeError):
        # No keys here; the builder may have its own.
        return {}


def available_imports(entries: Iterable[CacheEntry], warn: Callable[[str], None]) -> tuple[CacheEntry, ...]:
    """The entries without local caches that are not there (yet), which are warned of: the first build has none."""
    found = []
    for entry in entries:
        if entry.type == "local":
            try:
                entry = resolve_local_import(entry)
            except LayoutError as missing:
                warn(f"{CACHE_FROM} type=local,src={entry.attrs['src']} is not used: {missing}")
                continue
        found.append(entry)
    return tuple(found)
