"""Managed weights: what ``weights:`` in ``cog.yaml`` declares and ``weights.lock`` pins.

The lock file is made by `cogkit weights import` (see `cogkit.project.weights.lockfile`); a build only compares it with
the configuration and tells the server in the image what to expect (``.cog/weights.json``).  This file must not fetch,
import or write anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from cogkit.errors import ConfigError
from cogkit.project.config_model import Config, Weight
from cogkit.project.weights.lockfile import (
    IMPORT_HINT,
    LOCK_FILENAME,
    LockedSource,
    LockedWeight,
    WeightsLock,
    read_lock,
)

MANIFEST_FILENAME = "weights.json"


def runtime_manifest(config: Config) -> bytes:
    """What the server in the image is told of the managed weights; empty for a project without any.

    Raises:
        ConfigError: there is no lock file, it cannot be read, or it does not fit the configuration.
    """
    if not config.weights:
        return b""
    lock = read_lock(config.project_dir / LOCK_FILENAME) or WeightsLock()
    drift = lock_drift(config.weights, lock)
    if drift:
        raise ConfigError(
            f"{LOCK_FILENAME} is out of sync with {config.filename}:\n" + "\n".join(f"  - {line}" for line in drift),
            where=config.where("weights"),
            hint=IMPORT_HINT,
        )
    entries = [{"name": one.name, "target": one.target, "setDigest": one.set_digest} for one in lock.weights]
    return json.dumps({"weights": entries}, indent=2, ensure_ascii=False).encode()


def lock_drift(weights: Sequence[Weight], lock: WeightsLock) -> list[str]:
    """How a lock differs from what a configuration declares, a line for each weight."""
    by_name = {one.name: one for one in lock.weights}
    lines: list[str] = []
    for weight in weights:
        entry = by_name.pop(weight.name, None)
        if entry is None:
            lines.append(f'"{weight.name}": not imported yet')
        elif changes := weight_changes(weight, entry):
            lines.append(f'"{weight.name}": config changed ({"; ".join(changes)})')
    return lines + [f'"{name}": removed from cog.yaml but still in lockfile' for name in by_name]


def weight_changes(weight: Weight, entry: LockedWeight) -> list[str]:
    """How what is declared differs from what was imported."""
    changes = [f"target: {entry.target} → {weight.target}"] if weight.target != entry.target else []
    sources = declared_sources(weight)
    if len(sources) != len(entry.sources):
        return [*changes, f"source count: {len(entry.sources)} → {len(sources)}"]
    for index, (new, old) in enumerate(zip(sources, entry.sources, strict=True)):
        prefix = f"source[{index}]." if len(sources) > 1 else ""
        changes += [f"{prefix}uri: {old.uri} → {new.uri}"] if new.uri != old.uri else []
        for key, before, after in (("include", old.include, new.include), ("exclude", old.exclude, new.exclude)):
            changes += [f"{prefix}{key}: [{' '.join(before)}] → [{' '.join(after)}]"] if before != after else []
    return changes


def declared_sources(weight: Weight) -> tuple[LockedSource, ...]:
    """The sources of a weight as an import writes them down, but for what they held."""
    return tuple(
        LockedSource(normal_uri(source.uri), _pattern_set(source.include), _pattern_set(source.exclude))
        for source in weight.source
    )


def _pattern_set(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(pattern.strip() for pattern in patterns))


def normal_uri(uri: str) -> str:
    """A source's URI as an import writes it (``pkg/model/weightsource``)."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        path = os.path.normpath(rest if separator else uri)
        return f"file://{path}" if path.startswith("/") else f"file://./{path}"
    if scheme in ("hf", "huggingface"):
        return f"hf://{rest.removesuffix('@main')}"
    return uri
