"""The OCI layouts of one solve: which there are, under which names, and what their indexes name afterwards.

Images that are a context, local caches and a result that is a layout share one mechanism (``client/solve.go``):
the session serves their blobs, and when the build has succeeded the client writes the index.  Everything blocks; call
it in a thread.  This file must not serve anything.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from cogkit.buildkit.request import CacheEntry, SolveRequest
from cogkit.errors import CogkitError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.go_bool import go_bool
from cogkit.oci.content_store import ContentStore, Descriptor, LayoutError
from cogkit.oci.digest import split_digest

DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class SolveLayouts:
    """See the module.

    Attributes:
        request: The solve's request, with the digests of local caches found out.
        stores: What the session serves.
        caches: Layouts that a cache is exported to, each with its entry.
        result: The layout that the result goes to, or None.
        without_layers: The stores that no layer is to be sent to.
    """

    request: SolveRequest
    stores: Mapping[str, ContentStore] = field(default_factory=dict)
    caches: tuple[tuple[ContentStore, CacheEntry], ...] = ()
    result: ContentStore | None = None
    without_layers: frozenset[str] = frozenset()

    def publish(self, response: Mapping[str, str]) -> None:
        """The build succeeded: name what came of it in the indexes.

        Args:
            response: What the exporters said.

        Raises:
            OutputError: an index cannot be written.
            LayoutError: an index that was there makes no sense.
            CogkitError: the builder's word on its result makes no sense.
        """
        manifest = response.get("cache.manifest")
        for store, entry in self.caches:
            if manifest:
                store.put(_descriptor(manifest), tag=entry.attrs.get("tag", DEFAULT_TAG))
            if _flag(entry, "reset"):
                store.remove_unreferenced()
        described = response.get("containerimage.descriptor")
        if self.result is not None and described:
            names = [name for name in response.get("image.name", "").split(",") if name]
            entry_of_result = _descriptor(_unpacked(described))
            self.result.put(entry_of_result, images=names, tag=None if names else DEFAULT_TAG)


def open_layouts(request: SolveRequest) -> SolveLayouts:
    """Find the layouts of a request.

    Raises:
        UsageError: a local cache without a folder.
        LayoutError: a cache to import is not there.
    """
    stores = {f"oci:{name}": ContentStore(path) for name, path in request.oci_layouts.items()}
    imports = []
    for entry in request.cache_imports:
        if entry.type == "local":
            entry = resolve_local_import(entry)
            stores[f"local:{entry.attrs['src']}"] = ContentStore(Path(entry.attrs["src"]))
        imports.append(entry)
    caches = []
    for entry in request.cache_exports:
        if entry.type == "local":
            folder = entry.attrs.get("dest")
            if not folder:
                raise UsageError("a local cache export needs a folder", hint="add dest=FOLDER")
            _flag(entry, "reset")
            store = stores[f"local:{folder}"] = ContentStore(Path(folder), writable=True)
            caches.append((store, entry))
    result, without_layers = None, frozenset[str]()
    for export in request.exports:
        if export.is_layout and export.directory is not None:
            result = stores["export"] = ContentStore(export.directory, writable=True)
            without_layers = frozenset({"export"}) if export.without_layers else frozenset()
    return SolveLayouts(replace(request, cache_imports=tuple(imports)), stores, tuple(caches), result, without_layers)


def resolve_local_import(entry: CacheEntry) -> CacheEntry:
    """A local cache import with its digest, which the daemon wants to know.

    Raises:
        UsageError: no folder.
        LayoutError: the folder has no such cache.
    """
    folder = entry.attrs.get("src")
    if not folder:
        raise UsageError("a local cache import needs a folder", hint="add src=FOLDER")
    store = ContentStore(Path(folder))
    digest = entry.attrs.get("digest")
    if not digest:
        tag = entry.attrs.get("tag", DEFAULT_TAG)
        found = store.find(tag)
        if found is None:
            raise LayoutError(f"the cache in {folder} has nothing with the tag {tag!r}")
        digest = found.digest
    _require_blob(store, digest)
    return replace(entry, attrs={**entry.attrs, "digest": digest})


def resolve_image(folder: Path, *, tag: str, digest: str = "") -> str:
    """The digest of an image in a layout: the one that is given, the one with the tag, or the only one there is.

    Raises:
        LayoutError: there is no such image.
    """
    store = ContentStore(folder)
    if not digest:
        found = store.find(tag)
        if found is None:
            entries = store.index()
            if len(entries) != 1:
                raise LayoutError(
                    f"the OCI layout {folder} has {len(entries)} images and none with the tag {tag!r}",
                    hint="name one: oci-layout://FOLDER:TAG or oci-layout://FOLDER@DIGEST",
                )
            found = entries[0]
        digest = found.digest
    _require_blob(store, digest)
    return digest


def _require_blob(store: ContentStore, digest: str) -> None:
    try:
        found = store.info(digest)
    except ValueError as error:
        raise LayoutError(f"the OCI layout {store.root}: {error}") from None
    if found is None:
        raise LayoutError(f"the OCI layout {store.root} does not hold {digest}")


def _flag(entry: CacheEntry, key: str) -> bool:
    text = entry.attrs.get(key, "false")
    value = go_bool(text)
    if value is None:
        raise UsageError(f"a local cache has {key}={text}", hint=f"write {key}=true or {key}=false")
    return value


def _unpacked(described: str) -> str:
    try:
        return b64decode(described, validate=True).decode()
    except (Base64Error, ValueError):
        return ""


def _descriptor(text: str) -> Descriptor:
    try:
        content: Any = json.loads(text)
        found = Descriptor(content)
        split_digest(found.digest)
    except (ValueError, AttributeError, RecursionError):
        raise CogkitError("the builder's description of its result makes no sense") from None
    return found
