"""Images of several platforms, each pushed by itself, joined into one index in their registry.

This file must not build or copy anything: what an index names has to be in its repository already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cogkit.oci.digest import digest_of
from cogkit.oci.media_types import INDEX_TYPES, OCI_INDEX
from cogkit.oci.reference import parse_reference
from cogkit.registry.client import Manifest, RegistryClient, RegistryError
from cogkit.registry.docker_config import DockerConfig


def index_of(parts: Mapping[str, Manifest]) -> bytes:
    """The index of images by their platforms, ``os/arch[/variant]``.

    Of a part that is an index itself, with attestations for example, the entries are taken over.

    Raises:
        RegistryError: a part is not a manifest.
    """
    entries: list[dict[str, Any]] = []
    for platform, manifest in parts.items():
        if manifest.media_type in INDEX_TYPES:
            entries += _entries(manifest)
        else:
            entries.append(
                {
                    "mediaType": manifest.media_type,
                    "digest": manifest.digest,
                    "size": len(manifest.content),
                    "platform": _platform(platform),
                }
            )
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document, separators=(",", ":")).encode()


def join(names: Sequence[str], digests: Mapping[str, str]) -> str:
    """Make images that are in the repository of each name one image of that name; returns its digest.

    Args:
        names: References with tags.
        digests: Digests of the images by their platforms.

    Raises:
        RegistryError: one of them is not there, or the registry does not take the index.
    """
    index = b""
    for name in names:
        reference = parse_reference(name)
        client = RegistryClient(reference.domain, DockerConfig.load().login(reference.domain))
        try:
            parts = {platform: _found(client, reference.path, digest) for platform, digest in digests.items()}
            index = index_of(parts)
            client.put_manifest(reference.path, reference.tag or "latest", index, OCI_INDEX)
        finally:
            client.close()
    return digest_of(index)


def _found(client: RegistryClient, repository: str, digest: str) -> Manifest:
    manifest = client.get_manifest(repository, digest)
    if manifest is None:
        raise RegistryError(f"{client.host}/{repository}@{digest} is not in the registry, though a builder pushed it")
    return manifest


def _entries(manifest: Manifest) -> list[dict[str, Any]]:
    entries = manifest.document().get("manifests")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise RegistryError(f"the index {manifest.digest} has no list of manifests")
    return entries


def _platform(text: str) -> dict[str, str]:
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return {"architecture": architecture, "os": os, **({"variant": variant} if variant else {})}
