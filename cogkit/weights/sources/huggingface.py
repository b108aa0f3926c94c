"""Models of the Hugging Face Hub: a commit's list of files, with the digests that the Hub keeps of large ones.

Facts are from Cog (``pkg/model/weightsource/huggingface.go``) and the Hub's API.  ``HF_ENDPOINT`` names another server,
``HF_TOKEN`` is shown to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urljoin

from cogkit.errors import CogkitError, ConfigError, Interrupted
from cogkit.oci.digest import digest_of, is_digest
from cogkit.registry.transport import TransportError
from cogkit.weights.inventory import Inventory, InventoryFile, by_path, check_allowed
from cogkit.weights.sources import Intake
from cogkit.weights.sources.web import DownloadError, Web
from cogkit.weights.transfer import in_parallel

HUB = "https://huggingface.co"
MAX_INLINE = 256 << 20
_URI = re.compile(r"(?:hf|huggingface)://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<ref>.+))?")
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next')
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HuggingFaceSource:
    """A model's repository at a branch, tag or commit.

    Raises:
        ConfigError: the URI is none.
    """

    def __init__(self, uri: str, environ: Mapping[str, str] = os.environ, web: Web | None = None):
        match = _URI.fullmatch(uri)
        if match is None:
            raise ConfigError(f"invalid hf:// URI {uri!r}", hint="write hf://ORG/REPO or hf://ORG/REPO@REVISION")
        self._repo, self._ref = match["repo"], match["ref"] or "main"
        self._hub = (environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._web = web or Web(headers=headers, explain=_explained)
        self._commit = ""

    def inventory(self, intake: Intake) -> Inventory:
        self._commit = self._resolve(intake)
        entries = self._tree(intake)
        large: list[InventoryFile] = []
        small: list[tuple[str, int]] = []
        for entry in entries:
            path, size, lfs = str(entry.get("path", "")), entry.get("size", 0), entry.get("lfs") or {}
            check_allowed(path, f"hf://{self._repo}")
            if lfs.get("oid"):
                digest = f"sha256:{lfs['oid']}"
                if not is_digest(digest):
                    raise DownloadError(f"the Hub gives {path} of {self._repo} a digest that is none")
                large.append(InventoryFile(path, int(lfs.get("size", size)), digest))
            else:
                small.append((path, int(size)))
        read = in_parallel(lambda one: self._inline(*one, intake), small, intake.stop, intake.workers)
        return Inventory(by_path([*large, *read]), f"commit:{self._commit}")

    def fetch(self, files: Sequence[InventoryFile], intake: Intake) -> None:
        store = intake.store
        assert store is not None

        def fetch(file: InventoryFile) -> None:
            if not store.has(file.digest, file.size):
                self._web.download(
                    self._address(file.path),
                    store,
                    intake,
                    digest=file.digest,
                    size=file.size,
                    moved=intake.progress.moved,
                )

        in_parallel(fetch, files, intake.stop, intake.workers)

    def _resolve(self, intake: Intake) -> str:
        url = f"{self._hub}/api/models/{quote(self._repo)}/revision/{quote(self._ref, safe='')}"
        document, _ = self._web.json(url, intake.stop)
        commit = document.get("sha") if isinstance(document, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise DownloadError(f"the Hub does not say which commit {self._ref} of {self._repo} is")
        return commit

    def _tree(self, intake: Intake) -> list[dict[str, Any]]:
        url = f"{self._hub}/api/models/{quote(self._repo)}/tree/{self._commit}?recursive=true"
        found: list[dict[str, Any]] = []
        for _ in range(10_000):
            page, response = self._web.json(url, intake.stop)
            if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
                raise DownloadError(f"the Hub's list of {self._repo} makes no sense")
            found += [entry for entry in page if entry.get("type") == "file"]
            following = _NEXT.search(response.header("Link"))
            if following is None:
                break
            url = urljoin(url, following[1])
        return found

    def _inline(self, path: str, size: int, intake: Intake) -> InventoryFile:
        """A small file, which the Hub keeps no digest of."""
        if intake.stop.is_set():
            raise Interrupted("interrupted")
        retry = self._web.backoff.start()
        limit = size if size > 0 else MAX_INLINE
        while True:
            with self._web.ask(self._address(path), intake.stop, retry=retry) as response:
                try:
                    content = response.body(limit)
                    break
                except TransportError as error:
                    self._web.wait(
                        retry, intake.stop, f"{path} of {self._repo}: {error.reason}", permanent=error.permanent
                    )
        if size > 0 and len(content) != size:
            raise DownloadError(f"{path} of {self._repo} has {len(content)} bytes, the Hub says {size}")
        file = InventoryFile(path, len(content), digest_of(content))
        if intake.store is not None and not intake.store.has(file.digest, file.size):
            intake.store.put(file.digest, file.size, [content])
        return file

    def _address(self, path: str) -> str:
        return f"{self._hub}/{quote(self._repo)}/resolve/{self._commit or self._ref}/{quote(path)}"


def _explained(status: int, url: str) -> CogkitError | None:
    if status == 401:
        return DownloadError(f"authentication failed for {url} (HTTP 401)", hint="set HF_TOKEN")
    if status == 403:
        return DownloadError(f"access denied for {url} (HTTP 403)", hint="check repo visibility and token permissions")
    if status == 404:
        hint = "check the name and the revision; set HF_TOKEN if it is private"
        return DownloadError(f"not found: {url} (HTTP 404)", hint=hint)
    return None
