"""``weights.lock`` against ``cog.yaml``, and what the server is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cogkit.errors import ConfigError
from cogkit.project.config import Config, Weight, WeightSource
from cogkit.project.weights.managed import runtime_manifest

SOURCE = WeightSource("hf://org/repo@main", include=(" b", "a"))
WEIGHT = Weight("base", "/src/w", (SOURCE,))
LOCKED_SOURCE = {"uri": "hf://org/repo", "include": ["a", "b"], "exclude": []}
LOCKED = {"name": "base", "target": "/src/w", "setDigest": "sha256:1", "sources": [LOCKED_SOURCE]}


def config(tmp_path: Path, *weights: Weight, lock: Any = None) -> Config:
    if lock is not None:
        (tmp_path / "weights.lock").write_text(lock if isinstance(lock, str) else json.dumps(lock))
    return Config(weights=weights, project_dir=tmp_path)


def test_without_managed_weights_nothing_is_told_and_no_lock_is_read(tmp_path: Path) -> None:
    assert runtime_manifest(config(tmp_path, lock="broken")) == b""


def test_the_server_is_told_name_target_and_digest(tmp_path: Path) -> None:
    manifest = runtime_manifest(config(tmp_path, WEIGHT, lock={"version": 1, "weights": [LOCKED]}))
    assert manifest.decode() == (
        '{\n  "weights": [\n    {\n      "name": "base",\n      "target": "/src/w",\n      "setDigest": "sha256:1"\n'
        "    }\n  ]\n}"
    )


@pytest.mark.parametrize(
    ("uri", "locked"),
    [
        ("./w", "file://./w"),
        ("w/../v", "file://./v"),
        ("/data/w/", "file:///data/w"),
        ("file:///data/w", "file:///data/w"),
        ("huggingface://org/repo@v1", "hf://org/repo@v1"),
        ("https://example.com/w.bin", "https://example.com/w.bin"),
    ],
)
def test_a_source_is_compared_as_an_import_writes_it(uri: str, locked: str, tmp_path: Path) -> None:
    weight = Weight("base", "/src/w", (WeightSource(uri),))
    entry = LOCKED | {"sources": [{"uri": locked, "include": [], "exclude": []}]}
    assert runtime_manifest(config(tmp_path, weight, lock={"version": 1, "weights": [entry]}))


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        (None, '"base": not imported yet'),
        ({"version": 1, "weights": []}, '"base": not imported yet'),
        ({"version": 1, "weights": [LOCKED, LOCKED | {"name": "x", "target": "/x"}]}, '"x": removed from cog.yaml'),
        ({"version": 1, "weights": [LOCKED | {"target": "/old"}]}, "config changed (target: /old → /src/w)"),
        (
            {"version": 1, "weights": [LOCKED | {"sources": [LOCKED_SOURCE | {"include": []}]}]},
            "config changed (include: [] → [a b])",
        ),
        ({"version": 1, "weights": [LOCKED | {"sources": []}]}, "source count: 0 → 1"),
        ({"version": 2}, "unsupported weights.lock version 2"),
        ([], "unsupported weights.lock version None"),
        ("{", "not JSON"),
        ({"version": 1, "weights": [{"name": "base"}]}, "an entry lacks"),
        ({"version": 1, "weights": [LOCKED, LOCKED]}, 'duplicate weight name "base"'),
    ],
)
def test_a_lock_that_does_not_fit_ends_the_build_with_what_to_do(lock: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime_manifest(config(tmp_path, WEIGHT, lock=lock))
    assert message in caught.value.message
    newer = "It is from a newer version: use that, or import again."
    assert caught.value.hint == (newer if "version 2" in message else "Run 'cogkit weights import' to update.")
