"""Files of the web: downloads that go on where they broke, also in another process, and the source of a single file.

A strong ``ETag`` says whether a file is what it was; what is kept of a broken download is used only if that is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any
from urllib.parse import unquote, urlsplit

from cogkit.errors import CogkitError, ConfigError, Interrupted
from cogkit.fast_dataclass import dataclass
from cogkit.registry.backoff import TRANSIENT_STATUSES, Backoff, Retry, retry_after
from cogkit.registry.transport import MAX_REDIRECTS, Response, Transport, TransportError
from cogkit.weights.inventory import Inventory, InventoryFile, check_allowed
from cogkit.weights.sources import Intake
from cogkit.weights.store import WeightStore


class DownloadError(CogkitError):
    """A file of the web cannot be had."""


@dataclass(frozen=True, slots=True)
class Web:
    """How to ask for things of the web.

    Attributes:
        headers: Sent to the first host only, if one of them is ``Authorization``.
        backoff: How patient to be.
        explain: Turns a refusal's status into what to tell the user, None for nothing special.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    backoff: Backoff = Backoff()
    transport: Transport = field(default_factory=Transport)
    explain: Callable[[int, str], CogkitError | None] = lambda status, url: None

    def ask(
        self,
        url: str,
        stop: threading.Event,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        retry: Retry | None = None,
    ) -> Response:
        """An answer that is not a refusal.

        Raises:
            DownloadError: it is one, or there is none.
        """
        retry = retry or self.backoff.start()
        while True:
            if stop.is_set():
                raise Interrupted("interrupted")
            asked: float | None = None
            try:
                sent = {**self.headers, **(headers or {})}
                response = self.transport.request(method, url, sent, redirects=MAX_REDIRECTS)
            except TransportError as error:
                self.wait(retry, stop, f"{_shown(url)}: {error.reason}", permanent=error.permanent)
                continue
            if 200 <= response.status < 300 or response.status == 416:
                return response
            with response:
                asked = retry_after(response.header("Retry-After"), time.time())
            if response.status not in TRANSIENT_STATUSES:
                raise self.explain(response.status, _shown(url)) or DownloadError(
                    f"{_shown(url)} answers {response.status} {response.reason}".rstrip(), hint="check the address"
                )
            self.wait(retry, stop, f"{_shown(url)} answers {response.status} {response.reason}", asked=asked)

    def wait(
        self, retry: Retry, stop: threading.Event, why: str, *, asked: float | None = None, permanent: bool = False
    ) -> None:
        """Wait before something is tried again.

        Raises:
            DownloadError: that was long enough.
        """
        delay = None if permanent else retry.delay(asked)
        if delay is None:
            raise DownloadError(f"cannot download {why}", hint="check the network and the address")
        if stop.wait(delay):
            raise Interrupted("interrupted")

    def json(self, url: str, stop: threading.Event, limit: int = 64 << 20) -> tuple[Any, Response]:
        """A JSON document and the answer that it came with.

        Raises:
            DownloadError: there is none.
        """
        retry = self.backoff.start()
        while True:
            with self.ask(url, stop, retry=retry) as response:
                try:
                    return json.loads(response.body(limit)), response
                except TransportError as error:
                    self.wait(retry, stop, f"{_shown(url)}: {error.reason}", permanent=error.permanent)
                except (ValueError, RecursionError) as error:
                    raise DownloadError(f"{_shown(url)} answers with something that is not JSON") from error

    def download(
        self,
        url: str,
        store: WeightStore,
        intake: Intake,
        *,
        digest: str | None = None,
        size: int | None = None,
        version: str = "",
        moved: Callable[[int], None] = lambda count: None,
    ) -> tuple[str, int]:
        """Put a file into the store; returns its digest and size.

        Args:
            url: Where it is.
            store: Where it goes.
            intake: Who asks.
            digest: What it must be, if that is known.
            size: How many bytes it must have, if that is known.
            version: Names this version of the file; empty if that is not known and so a former part of it is no use.
            moved: Told the bytes that arrived.

        Raises:
            DownloadError: it cannot be had.
            WrongFileError: it is not what it must be.
        """
        name = hashlib.sha256(f"{url}\n{version or digest or time.time_ns()}".encode()).hexdigest()
        with store.partial(name) as fd:
            if fd is None:
                raise DownloadError(f"{_shown(url)} is being downloaded by another process", hint="wait for it")
            try:
                hashed, offset = _hash_of_part(fd)
                moved(offset)
                offset = self._receive(url, store, intake, fd, name, hashed, offset, size, moved)
                found = f"sha256:{hashed.hexdigest()}"
                store.keep_partial(name, fd, digest or found, offset if size is None else size, hashed)
            except BaseException:
                if not (version or digest):
                    store.drop_partial(name)
                raise
        return found, offset

    def _receive(
        self,
        url: str,
        store: WeightStore,
        intake: Intake,
        fd: int,
        name: str,
        hashed: Any,
        offset: int,
        size: int | None,
        moved: Callable[[int], None],
    ) -> int:
        retry = self.backoff.start()
        while size is None or offset < size:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            with self.ask(url, intake.stop, headers=headers, retry=retry) as response:
                if response.status == 416:
                    return offset  # there is no more than what we have
                skip = 0 if response.status == 206 or not offset else offset
                try:
                    for data in response.chunks():
                        if intake.stop.is_set():
                            raise Interrupted("interrupted")
                        if skip >= len(data):
                            skip -= len(data)
                            continue
                        data, skip = data[skip:] if skip else data, 0
                        store.append_partial(fd, data, name)
                        hashed.update(data)
                        offset += len(data)
                        moved(len(data))
                        retry.progressed()
                    if size is None or offset >= size:
                        return offset
                    raise TransportError("the answer ended too early")
                except TransportError as error:
                    self.wait(retry, intake.stop, f"{_shown(url)}: {error.reason}", permanent=error.permanent)
        return offset


def _hash_of_part(fd: int) -> tuple[Any, int]:
    hashed = hashlib.sha256()
    offset = 0
    while data := os.pread(fd, 1 << 20, offset):
        hashed.update(data)
        offset += len(data)
    os.lseek(fd, offset, os.SEEK_SET)
    return hashed, offset


def _shown(url: str) -> str:
    """A URL without its query, which may be a signature."""
    return url.partition("?")[0]


class WebSource:
    """A single file of the web; its name is the last part of the address.

    Raises:
        ConfigError: the address is none, or holds a password.
    """

    def __init__(self, uri: str, web: Web | None = None):
        try:
            parts = urlsplit(uri)
            secret = parts.username is not None or parts.password is not None
        except ValueError as error:
            raise ConfigError(f"{uri!r} is not a web address: {error}") from error
        if not parts.hostname:
            raise ConfigError(f"{uri!r} is not a web address")
        if secret:
            raise ConfigError(
                "HTTP URI must not embed credentials (user:pass@host)", hint="weights.lock would show them to everybody"
            )
        self._name = posixpath.basename(unquote(parts.path))
        if not self._name:
            raise ConfigError(f"HTTP URI {uri!r} has no filename in path")
        check_allowed(self._name, uri)
        self._uri = uri
        self._web = web or Web()

    def inventory(self, intake: Intake) -> Inventory:
        etag, size = self._head(intake)
        if intake.store is None:
            digest, size = self._hash(intake)
        else:
            intake.progress.start(f"Downloading {self._name}", size or 0)
            digest, size = self._web.download(
                self._uri, intake.store, intake, size=size, version=etag, moved=intake.progress.moved
            )
            intake.progress.finish()
        return Inventory((InventoryFile(self._name, size, digest),), f"etag:{etag}" if etag else digest)

    def _head(self, intake: Intake) -> tuple[str, int | None]:
        """Strong ``ETag`` and length, as far as the server says them."""
        try:
            with self._web.ask(self._uri, intake.stop, method="HEAD") as response:
                etag, size = response.header("ETag"), response.header("Content-Length")
        except DownloadError:
            return "", None  # many servers do not know HEAD
        return "" if etag.startswith("W/") else etag, int(size) if size.isdigit() else None

    def _hash(self, intake: Intake) -> tuple[str, int]:
        retry = self._web.backoff.start()
        while True:
            hashed = hashlib.sha256()
            size = 0
            with self._web.ask(self._uri, intake.stop, retry=retry) as response:
                try:
                    for data in response.chunks():
                        hashed.update(data)
                        size += len(data)
                    return f"sha256:{hashed.hexdigest()}", size
                except TransportError as error:
                    self._web.wait(retry, intake.stop, f"{_shown(self._uri)}: {error.reason}")

    def fetch(self, files: Sequence[InventoryFile], intake: Intake) -> None:
        assert intake.store is not None
        for file in files:
            self._web.download(
                self._uri, intake.store, intake, digest=file.digest, size=file.size, moved=intake.progress.moved
            )
