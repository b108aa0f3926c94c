"""Images of several platforms joined into one index."""

from __future__ import annotations

import json

import pytest

from cogkit.oci.digest import digest_of
from cogkit.oci.media_types import OCI_INDEX, OCI_MANIFEST
from cogkit.registry.client import Manifest, RegistryError
from cogkit.registry.indexes import index_of


def manifest(text: str, media_type: str = OCI_MANIFEST) -> Manifest:
    return Manifest(text.encode(), media_type, digest_of(text.encode()))


def test_images_become_entries_with_their_platforms() -> None:
    first, second = manifest('{"a": 1}'), manifest('{"b": 2}')
    index = json.loads(index_of({"linux/amd64": first, "linux/arm/v7": second}))
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    assert index["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": first.digest,
            "size": len(first.content),
            "platform": {"architecture": "amd64", "os": "linux"},
        },
        {
            "mediaType": OCI_MANIFEST,
            "digest": second.digest,
            "size": len(second.content),
            "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
        },
    ]


def test_the_entries_of_an_index_with_attestations_are_taken_over() -> None:
    entries = [{"digest": "sha256:1", "platform": {"os": "linux"}}, {"digest": "sha256:2", "annotations": {"x": "y"}}]
    part = manifest(json.dumps({"manifests": entries}), OCI_INDEX)
    assert json.loads(index_of({"linux/amd64": part}))["manifests"] == entries


@pytest.mark.parametrize("content", ["[]", "{}", '{"manifests": 1}', '{"manifests": [1]}', "x"])
def test_what_is_no_index_is_refused(content: str) -> None:
    with pytest.raises(RegistryError):
        index_of({"linux/amd64": manifest(content, OCI_INDEX)})
