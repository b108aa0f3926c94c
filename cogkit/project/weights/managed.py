"""Managed weights: what ``weights:`` in ``cog.yaml`` declares and ``weights.lock`` pins.

The lock file is made by ``cog weights import`` (``pkg/weights/lockfile``); a build only compares it with the
configuration and tells the server in the image what to expect (``.cog/weights.json``).  This file must not fetch,
import or write anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.config_model import Config, Weight

LOCK_FILENAME = "weights.lock"
MANIFEST_FILENAME = "weights.json"
LOCK_VERSION = 1

IMPORT_HINT = "Run 'cog weights import' to update."


@dataclass(frozen=True, slots=True)
class LockedSource:
    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LockedWeight:
    """One entry of ``weights.lock``, as far as a build needs it."""

    name: str
    target: str
    set_digest: str
    sources: tuple[LockedSource, ...]


def runtime_manifest(config: Config) -> bytes:
    """What the server in the image is told of the managed weights; empty for a project without any.

    Raises:
        ConfigError: there is no lock file, it cannot be read, or it does not fit the configuration.
    """
    if not config.weights:
        return b""
    locked = _read_lock(config.project_dir / LOCK_FILENAME)
    drift = _drift(config.weights, locked or ())
    if drift:
        raise ConfigError(
            f"{LOCK_FILENAME} is out of sync with {config.filename}:\n" + "\n".join(f"  - {line}" for line in drift),
            where=config.where("weights"),
            hint=IMPORT_HINT,
        )
    entries = [{"name": one.name, "target": one.target, "setDigest": one.set_digest} for one in locked or ()]
    return json.dumps({"weights": entries}, indent=2, ensure_ascii=False).encode()


def _read_lock(path: Path) -> tuple[LockedWeight, ...] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ConfigError(f"cannot read it: {problem.strerror}", where=LOCK_FILENAME) from problem
    except ValueError as problem:
        raise ConfigError(f"not JSON: {problem}", where=LOCK_FILENAME, hint=IMPORT_HINT) from problem
    version = content.get("version") if isinstance(content, dict) else None
    if version != LOCK_VERSION:
        raise ConfigError(
            f"unsupported weights.lock version {version} (want {LOCK_VERSION})", where=LOCK_FILENAME, hint=IMPORT_HINT
        )
    try:
        locked = tuple(_locked_weight(entry) for entry in content.get("weights") or ())
    except (KeyError, TypeError, AttributeError) as problem:
        raise ConfigError(
            f"an entry lacks what an import writes: {problem}", where=LOCK_FILENAME, hint=IMPORT_HINT
        ) from problem
    _refuse_twins(locked)
    return locked


def _locked_weight(entry: dict[str, Any]) -> LockedWeight:
    sources = tuple(
        LockedSource(str(source["uri"]), tuple(source.get("include") or ()), tuple(source.get("exclude") or ()))
        for source in entry["sources"]
    )
    return LockedWeight(str(entry["name"]), str(entry["target"]), str(entry["setDigest"]), sources)


def _refuse_twins(locked: Sequence[LockedWeight]) -> None:
    for what, values in (
        ("name", [one.name for one in locked]),
        ("target", [os.path.normpath(one.target) for one in locked if one.target]),
    ):
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f'duplicate weight {what} "{value}"', where=LOCK_FILENAME, hint=IMPORT_HINT)


def _drift(weights: Sequence[Weight], locked: Sequence[LockedWeight]) -> list[str]:
    by_name = {one.name: one for one in locked}
    lines: list[str] = []
    for weight in weights:
        entry = by_name.pop(weight.name, None)
        if entry is None:
            lines.append(f'"{weight.name}": not imported yet')
        elif changes := _changes(weight, entry):
            lines.append(f'"{weight.name}": config changed ({"; ".join(changes)})')
    return lines + [f'"{name}": removed from cog.yaml but still in lockfile' for name in by_name]


def _changes(weight: Weight, entry: LockedWeight) -> list[str]:
    changes = [f"target: {entry.target} → {weight.target}"] if weight.target != entry.target else []
    sources = [
        LockedSource(_normal_uri(source.uri), _pattern_set(source.include), _pattern_set(source.exclude))
        for source in weight.source
    ]
    if len(sources) != len(entry.sources):
        return [*changes, f"source count: {len(entry.sources)} → {len(sources)}"]
    for index, (new, old) in enumerate(zip(sources, entry.sources, strict=True)):
        prefix = f"source[{index}]." if len(sources) > 1 else ""
        changes += [f"{prefix}uri: {old.uri} → {new.uri}"] if new.uri != old.uri else []
        for key, before, after in (("include", old.include, new.include), ("exclude", old.exclude, new.exclude)):
            changes += [f"{prefix}{key}: [{' '.join(before)}] → [{' '.join(after)}]"] if before != after else []
    return changes


def _pattern_set(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(pattern.strip() for pattern in patterns))


def _normal_uri(uri: str) -> str:
    """A source's URI as an import writes it (``pkg/model/weightsource``)."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        path = os.path.normpath(rest if separator else uri)
        return f"file://{path}" if path.startswith("/") else f"file://./{path}"
    if scheme in ("hf", "huggingface"):
        return f"hf://{rest.removesuffix('@main')}"
    return uri
