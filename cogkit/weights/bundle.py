"""A model with managed weights in a registry: an index of its image and its weights (specification, 2.6).

The image and the weights are there before; this file must not build or pack anything.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cogkit.errors import CogkitError
from cogkit.oci.media_types import INDEX_TYPES, OCI_INDEX
from cogkit.project.weights.lockfile import LockedWeight
from cogkit.registry.client import Manifest
from cogkit.weights.artifact import model_index
from cogkit.weights.registry import IMPORT_HINT, WeightRepository
from cogkit.weights.transfer import in_parallel

_MAX_CONFIG = 16 << 20


def require_weights(
    repository: WeightRepository, weights: Sequence[LockedWeight], stop: threading.Event, workers: int
) -> dict[str, int]:
    """The sizes of the weights' manifests, by digest.

    Raises:
        CogkitError: one of them is not in the registry, so a model with it could not run.
    """

    def size_of(weight: LockedWeight) -> tuple[str, int]:
        size = repository.manifest_size(weight)
        if size is None:
            raise CogkitError(
                f'weight "{weight.name}" not found in registry ({repository}@{weight.digest})',
                hint=f"{IMPORT_HINT} to push weights first",
            )
        return weight.digest, size

    return dict(in_parallel(size_of, weights, stop, workers))


def push_model(
    repository: WeightRepository,
    tag: str,
    image_digest: str,
    weights: Sequence[LockedWeight],
    manifest_sizes: Mapping[str, int],
) -> str:
    """Push the index of a model under its tag; returns its digest.

    Args:
        repository: Where image and weights are.
        tag: The model's.
        image_digest: The image, or an index of images for several platforms.
        weights: What the model needs.
        manifest_sizes: As `require_weights` gives them.

    Raises:
        CogkitError: the image is not there, or the registry does not take the index.
    """
    found = repository.client.get_manifest(repository.path, image_digest)
    if found is None:
        raise CogkitError(f"the image {repository}@{image_digest} is not in the registry")
    content = model_index(_image_entries(repository, found), weights, manifest_sizes)
    return repository.client.put_manifest(repository.path, tag, content, OCI_INDEX)


def _image_entries(repository: WeightRepository, found: Manifest) -> list[dict[str, Any]]:
    document = found.document()
    if found.media_type in INDEX_TYPES or "manifests" in document:
        return [dict(entry) for entry in document["manifests"]]
    entry = {
        "mediaType": found.media_type,
        "size": len(found.content),
        "digest": found.digest,
        "platform": _platform(repository, document),
    }
    return [entry]


def _platform(repository: WeightRepository, manifest: Mapping[str, Any]) -> dict[str, str]:
    try:
        config = manifest["config"]
        digest, size = str(config["digest"]), int(config["size"])
        if size > _MAX_CONFIG:
            raise ValueError(size)
        content = json.loads(b"".join(repository.client.read_blob(repository.path, digest, size)))
        platform = {"architecture": str(content["architecture"]), "os": str(content["os"])}
        if content.get("variant"):
            platform["variant"] = str(content["variant"])
    except (KeyError, TypeError, ValueError) as error:
        raise CogkitError(f"the image in {repository} does not say which platform it is for") from error
    return platform
