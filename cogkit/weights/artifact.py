"""The documents of a weight in a registry: its config blob, its manifest, its tag, and its line in a model's index.

They are what Cog writes (``pkg/model/weights.go``, ``weight_manifest_v1.go``, ``index_factory.go``, ``tag.go``), to the
byte: the same layers under the same name give the same digest.  Pure: this file must not push anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cogkit.oci.media_types import OCI_INDEX, OCI_MANIFEST
from cogkit.project.weights.lockfile import LockedWeight, go_json

ARTIFACT_TYPE = "application/vnd.cog.weight.v1"
CONFIG_TYPE = "application/vnd.cog.weight.config.v1+json"
NAME = "run.cog.weight.name"
TARGET = "run.cog.weight.target"
SET_DIGEST = "run.cog.weight.set-digest"
SIZE_UNCOMPRESSED = "run.cog.weight.size.uncompressed"

_WEIGHT_TAG_PREFIX = "cog-weight."
_LONGEST_NAME = 104


def config_blob(weight: LockedWeight) -> bytes:
    """The index of a weight's files (specification, 2.3)."""
    files = sorted(weight.files, key=lambda file: file.path.encode())
    return go_json(
        {
            "name": weight.name,
            "target": weight.target,
            "setDigest": weight.set_digest,
            "files": [
                {"path": file.path, "layer": file.layer, "size": file.size, "digest": file.digest} for file in files
            ],
        }
    )


def manifest(weight: LockedWeight, config_digest: str, config_size: int) -> bytes:
    """The manifest of a weight (specification, 2.2)."""
    return go_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": config_size, "digest": config_digest},
            "layers": [
                {
                    "mediaType": layer.media_type,
                    "size": layer.size,
                    "digest": layer.digest,
                    "annotations": {SIZE_UNCOMPRESSED: str(layer.size_uncompressed)},
                }
                for layer in sorted(weight.layers, key=lambda layer: layer.digest)
            ],
            "annotations": {NAME: weight.name, SET_DIGEST: weight.set_digest, TARGET: weight.target},
        }
    )


def weight_tag(name: str, digest: str) -> str:
    """The tag of a weight's manifest: its name and twelve digits of the digest of its files."""
    segment = re.sub(r"-{2,}", "-", re.sub(r"[^a-zA-Z0-9_-]", "-", name)).strip("-") or "unnamed"
    segment = segment[:_LONGEST_NAME].rstrip("-") or "unnamed"
    return f"{_WEIGHT_TAG_PREFIX}{segment}.{short_digest(digest)}"


def short_digest(digest: str) -> str:
    """Twelve digits, for people."""
    return digest.partition(":")[2][:12]


def model_index(
    images: Sequence[Mapping[str, Any]], weights: Sequence[LockedWeight], manifest_sizes: Mapping[str, int]
) -> bytes:
    """A model's index: its images, then its weights (specification, 2.6).

    Args:
        images: Descriptors with their platforms.
        weights: What the model needs.
        manifest_sizes: The size of each weight's manifest, by the manifest's digest.
    """
    entries = [
        {
            "mediaType": OCI_MANIFEST,
            "size": manifest_sizes[weight.digest],
            "digest": weight.digest,
            "annotations": {
                NAME: weight.name,
                SET_DIGEST: weight.set_digest,
                SIZE_UNCOMPRESSED: str(weight.size),
            },
            "platform": {"architecture": "unknown", "os": "unknown"},
            "artifactType": ARTIFACT_TYPE,
        }
        for weight in weights
    ]
    return go_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*images, *entries]})
