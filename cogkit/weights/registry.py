"""A model's repository as the place of its weights: what is there, and how layers and manifests get there and back.

This file must not pack, unpack or keep anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cogkit.errors import CogkitError
from cogkit.oci.media_types import OCI_MANIFEST
from cogkit.oci.reference import parse_reference
from cogkit.project.weights.lockfile import LockedLayer, LockedWeight
from cogkit.registry.backoff import Backoff
from cogkit.registry.client import BlobSource, BytesSource, RegistryClient, UploadSessions
from cogkit.registry.docker_config import DockerConfig
from cogkit.weights import artifact

IMPORT_HINT = "run 'cogkit weights import'"


class WeightRepository:
    """A model's repository.

    Args:
        name: ``registry/repository``; a tag is not looked at.
        stop: Ends whatever goes on.
        sessions: Keeps unfinished uploads.
        connections: How many at once.
    """

    def __init__(
        self,
        name: str,
        *,
        stop: threading.Event | None = None,
        sessions: UploadSessions | None = None,
        connections: int = 8,
        backoff: Backoff | None = None,
    ):
        reference = parse_reference(name)
        self.host, self.path = reference.domain, reference.path
        login = DockerConfig.load().login(self.host)
        self.client = RegistryClient(
            self.host, login, stop=stop, sessions=sessions, connections=connections, backoff=backoff
        )

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    def close(self) -> None:
        self.client.close()

    def has_layer(self, digest: str) -> bool:
        """Whether a layer is there."""
        return self.client.blob_size(self.path, digest) is not None

    def manifest_size(self, weight: LockedWeight) -> int | None:
        """The size of a weight's manifest, None if it is not there.

        Raises:
            CogkitError: the lock does not say which it is, or the registry gives another.
        """
        if not weight.digest:
            raise CogkitError(f'weight "{weight.name}": missing manifest digest in lockfile', hint=IMPORT_HINT)
        found = self.client.head_manifest(self.path, weight.digest)
        if found is None:
            return None
        if found.digest != weight.digest:
            raise CogkitError(
                f'weight "{weight.name}": registry returned digest {found.digest} for requested {weight.digest}'
            )
        return found.size

    def push_layer(self, source: BlobSource, places: list[str], sent: Callable[[int], None]) -> str:
        """Upload a layer, or have the registry take it over from one of ``places`` (``registry/repository``)."""
        begin = f"{self.host}/"
        others = [place.removeprefix(begin) for place in places if place.startswith(begin)]
        return self.client.push_blob(self.path, source, mount_from=others, sent=sent)

    def push_manifest(self, weight: LockedWeight) -> str:
        """Push a weight's config and manifest, when its layers are there; returns the name that it has."""
        config = BytesSource(artifact.config_blob(weight))
        content = artifact.manifest(weight, config.digest, config.size)
        self.client.push_blob(self.path, config)
        tag = artifact.weight_tag(weight.name, weight.set_digest)
        self.client.put_manifest(self.path, tag, content, OCI_MANIFEST)
        return f"{self}:{tag}"

    def manifest_layers(self, weight: LockedWeight) -> dict[str, LockedLayer]:
        """The layers of a weight's manifest, by digest.

        Raises:
            CogkitError: there is no such manifest, or it makes no sense.
        """
        found = self.client.get_manifest(self.path, weight.digest) if weight.digest else None
        if found is None:
            raise CogkitError(
                f'weight "{weight.name}" not found in registry ({self}@{weight.digest})',
                hint=f"{IMPORT_HINT} to push it, or log in if the repository is private",
            )
        layers: Any = found.document().get("layers")
        try:
            listed = [LockedLayer(str(one["digest"]), str(one["mediaType"]), int(one["size"]), 0) for one in layers]
        except (TypeError, KeyError, ValueError) as error:
            raise CogkitError(f"the manifest {self}@{weight.digest} is not that of a weight") from error
        return {layer.digest: layer for layer in listed}
