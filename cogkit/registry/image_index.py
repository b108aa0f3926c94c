"""One image index of images that are in registries already, such as those that several machines pushed.

Nothing is built and no layer travels: what is in another repository of the same registry is taken over from there, and
only from another registry are blobs copied.  This file must not know builders or files of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import digest_of, is_digest
from cogkit.oci.media_types import DOCKER_INDEX, DOCKER_MANIFEST, INDEX_TYPES, OCI_INDEX
from cogkit.oci.reference import Reference, parse_reference
from cogkit.registry.client import Manifest, RegistryClient, RegistryError
from cogkit.registry.docker_config import DockerConfig

_MAX_CONFIG = 8 << 20
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")
_SUBJECT = "vnd.docker.reference.digest"
"""The annotation with which an attestation names its image."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that was made.

    Attributes:
        names: The names that it has.
        content: Its bytes.
        media_type: OCI's or Docker's.
    """

    names: tuple[str, ...]
    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """Descriptors of what it names."""
        found: list[dict[str, Any]] = json.loads(self.content)["manifests"]
        return found


@dataclass(frozen=True, slots=True)
class _Source:
    reference: Reference
    manifest: Manifest
    entries: list[dict[str, Any]] = field(default_factory=list)


class Registries:
    """The registries that are met, each with its login, asked one after the other.  `close` it."""

    def __init__(self) -> None:
        self._config = DockerConfig.load()
        self._clients: dict[str, RegistryClient] = {}

    def at(self, host: str) -> RegistryClient:
        """The client of a registry."""
        if host not in self._clients:
            self._clients[host] = RegistryClient(host, self._config.login(host))
        return self._clients[host]

    def manifest(self, reference: Reference) -> Manifest:
        """What a name means.

        Raises:
            RegistryError: nothing, or it cannot be read.
        """
        found = self.at(reference.domain).get_manifest(reference.path, reference.digest or reference.tag or "latest")
        if found is None:
            raise RegistryError(f"there is no {reference.familiar} in its registry", hint="check its name, or push it")
        return found

    def close(self) -> None:
        """End the connections."""
        for client in self._clients.values():
            client.close()


def parse_image(text: str, *, beside: Reference | None = None) -> Reference:
    """An image that is in a registry; a digest alone is one in the repository of ``beside``.

    Raises:
        UsageError: it is no name of an image.
    """
    try:
        if beside is not None and is_digest(text):
            return Reference(beside.domain, beside.path, None, text)
        return parse_reference(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not the name of an image: {error}") from None


def create(
    registries: Registries,
    targets: Sequence[Reference],
    sources: Sequence[Reference],
    *,
    annotations: Mapping[str, str] | None = None,
    append: bool = False,
    dry_run: bool = False,
) -> Index:
    """Join images, and indexes of them, to one index, and give it its names.

    Args:
        registries: Where everything is.
        targets: The names; their repositories get what they lack of the sources.
        sources: What to join.  A single index is taken as it is, to the byte.
        annotations: Of the index.
        append: Add to what the first target names already; an image for a platform that is there takes its place.
        dry_run: Store nothing.

    Raises:
        UsageError: two sources are for one platform.
        RegistryError: a source is not there, or a registry refuses.
    """
    found = [_resolved(registries, reference) for reference in sources]
    only = found[0]
    if len(found) == 1 and not append and not annotations and only.manifest.media_type in INDEX_TYPES:
        content, media_type = only.manifest.content, only.manifest.media_type
    else:
        old = _entries_of(registries, targets[0]) if append else []
        entries = _joined(old, found)
        media_type = _index_type(entries, annotations)
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        if annotations:
            document["annotations"] = dict(annotations)
        content = json.dumps(document, indent=2).encode()
    if not dry_run:
        for target in targets:
            for source in found:
                _bring(registries, source, target)
            tag = target.tag or "latest"
            registries.at(target.domain).put_manifest(target.path, tag, content, media_type)
    return Index(tuple(str(each) for each in targets), content, media_type)


def _resolved(registries: Registries, reference: Reference) -> _Source:
    manifest = registries.manifest(reference)
    if manifest.media_type in INDEX_TYPES:
        return _Source(reference, manifest, _index_entries(manifest))
    entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.content)}
    platform = platform_of(registries, reference, manifest)
    return _Source(reference, manifest, [{**entry, "platform": platform} if platform else entry])


def platform_of(registries: Registries, reference: Reference, manifest: Manifest) -> dict[str, Any]:
    """The platform that an image's config names; empty if it has none."""
    config = manifest.document().get("config") or {}
    digest, size = config.get("digest"), config.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or not 0 <= size <= _MAX_CONFIG:
        raise RegistryError(f"{reference.familiar} is not an image")
    client = registries.at(reference.domain)
    try:
        content = json.loads(b"".join(client.read_blob(reference.path, digest, size)))
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: content[key] for key in _PLATFORM_KEYS if content.get(key)}


def platform_text(platform: Mapping[str, Any] | None) -> str:
    """``os/arch/variant``; empty for none."""
    if not platform:
        return ""
    return "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key))


def is_attestation(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of an index says something of another one."""
    annotations = entry.get("annotations")
    return isinstance(annotations, dict) and _SUBJECT in annotations


def _index_entries(manifest: Manifest) -> list[dict[str, Any]]:
    entries = manifest.document().get("manifests")
    well = isinstance(entries, list) and all(
        isinstance(each, dict) and is_digest(str(each.get("digest", ""))) for each in entries
    )
    if not well or not isinstance(entries, list):
        raise RegistryError(f"the index {manifest.digest} makes no sense")
    return entries


def _entries_of(registries: Registries, target: Reference) -> list[dict[str, Any]]:
    """What the target names already; nothing if there is none."""
    known = registries.at(target.domain).get_manifest(target.path, target.tag or "latest")
    return [] if known is None else _resolved(registries, target).entries


def _joined(old: list[dict[str, Any]], sources: Iterable[_Source]) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    owners: dict[str, str] = {}
    for source in sources:
        for entry in source.entries:
            platform = "" if is_attestation(entry) else platform_text(entry.get("platform"))
            other = owners.get(platform)
            if platform and other is not None and entry["digest"] not in entries:
                raise UsageError(
                    f"{other} and {source.reference.familiar} are both for {platform}",
                    hint="an index has one image for each platform; give one of them",
                )
            owners.setdefault(platform, source.reference.familiar)
            entries.setdefault(entry["digest"], entry)
    replaced = {
        entry["digest"]
        for entry in old
        if not is_attestation(entry) and platform_text(entry.get("platform")) in owners.keys() - {""}
    }
    kept = [
        entry
        for entry in old
        if entry["digest"] not in replaced | entries.keys()
        and (entry.get("annotations") or {}).get(_SUBJECT) not in replaced - entries.keys()
    ]
    return [*kept, *entries.values()]


def _index_type(entries: Sequence[Mapping[str, Any]], annotations: Mapping[str, str] | None) -> str:
    docker = entries and all(entry.get("mediaType") == DOCKER_MANIFEST for entry in entries)
    return DOCKER_INDEX if docker and not annotations else OCI_INDEX


# ----------------------------------------------------------------------------------------- into the target's repository


@dataclass(frozen=True, slots=True)
class _RemoteBlob:
    """A blob that is read from where it is (`cogkit.registry.client.BlobSource`)."""

    client: RegistryClient
    repository: str
    digest: str
    size: int

    def read_from(self, offset: int) -> Iterator[bytes]:
        return self.client.read_blob(self.repository, self.digest, self.size, start=offset)


def _bring(registries: Registries, source: _Source, target: Reference) -> None:
    """Have all of a source in the target's repository."""
    here, there = source.reference, target
    if (here.domain, here.path) == (there.domain, there.path):
        return
    if source.manifest.media_type not in INDEX_TYPES:
        _bring_manifest(registries, here, there, source.manifest)
        return
    for entry in source.entries:
        child = registries.manifest(Reference(here.domain, here.path, None, entry["digest"]))
        _bring_manifest(registries, here, there, child)


def _bring_manifest(registries: Registries, here: Reference, there: Reference, manifest: Manifest) -> None:
    target, source = registries.at(there.domain), registries.at(here.domain)
    if target.head_manifest(there.path, manifest.digest) is not None:
        return
    if manifest.media_type in INDEX_TYPES:
        for entry in _index_entries(manifest):
            child = registries.manifest(Reference(here.domain, here.path, None, entry["digest"]))
            _bring_manifest(registries, here, there, child)
    document = manifest.document()
    mounts = (here.path,) if here.domain == there.domain else ()
    blobs = [document.get("config"), *(document.get("layers") or ())]
    for blob in blobs if manifest.media_type not in INDEX_TYPES else ():
        try:
            digest, size = str(blob["digest"]), int(blob["size"])
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"the manifest {manifest.digest} makes no sense") from error
        target.push_blob(there.path, _RemoteBlob(source, here.path, digest, size), mount_from=mounts)
    target.put_manifest(there.path, manifest.digest, manifest.content, manifest.media_type)
