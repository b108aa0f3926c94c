"""A registry's HTTP API (OCI distribution specification): manifests, blobs, and uploads that go on where they broke.

Looked at and not taken: ``oras-py`` (no ranges, no upload that goes on, ``requests`` below it), ``dxf`` (its own
logins, no retry), ``docker`` (needs an engine); no kept library does both halves.

- Every answer that another time may be different (429, 5xx, a connection that breaks) is waited for as `backoff` says.
- A download goes on at the byte where it broke, and is compared with its digest.
- An upload asks the registry how far it came and goes on there; a registry that forgot it gets it from the start.
- A login leaves only for the registry itself and for the token service that it names, and in clear text only to this
  machine.

Everything blocks; one client can be used by many threads.  This file must not know BuildKit, Cog or weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

from cogkit.errors import CogkitError, Interrupted
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import digest_of, is_digest, split_digest
from cogkit.oci.media_types import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from cogkit.registry.backoff import TRANSIENT_STATUSES, Backoff, Retry, retry_after
from cogkit.registry.docker_config import HUB_HOST, RegistryLogin
from cogkit.registry.token import Token, TokenError, TokenRequest, fetch_token
from cogkit.registry.transport import Response, Transport, TransportError, is_loopback

ACCEPTED_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
MAX_MANIFEST = 64 << 20
CHUNK_SIZE = 96 << 20
"""Bytes of an upload that are sent in one request if the registry does not say."""

SEND_SIZE = 1 << 20
"""Bytes that are read and sent at once."""

_HUB_NAMES = frozenset({"docker.io", "index.docker.io", HUB_HOST})
_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class RegistryError(CogkitError):
    """A registry cannot be reached, refuses, or does not do what its specification says."""


class RegistryRefusedError(RegistryError):
    """The registry wants a login, or does not let this one do it."""


class RegistryUnreachableError(RegistryError):
    """The registry does not answer, or went away and did not come back."""


class WrongContentError(RegistryError):
    """What arrived does not have the digest or the size that it should have."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as it is in the registry.

    Attributes:
        content: Its bytes.
        media_type: What the registry says it is, without parameters.
        digest: Of ``content``.
    """

    content: bytes
    media_type: str
    digest: str

    def document(self) -> dict[str, Any]:
        """The JSON object.

        Raises:
            RegistryError: it is none.
        """
        try:
            document = json.loads(self.content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise RegistryError(f"the manifest {self.digest} is not a JSON object")
        return document


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What the head of a manifest says; ``size`` is -1 if the registry does not say."""

    digest: str
    media_type: str
    size: int


class BlobSource(Protocol):
    """Something to upload."""

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read_from(self, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` on; the same each time."""
        ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """A small blob that is in memory."""

    content: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def size(self) -> int:
        return len(self.content)

    def read_from(self, offset: int) -> Iterator[bytes]:
        if offset < len(self.content):
            yield self.content[offset:]


class UploadSessions(Protocol):
    """Where the address of an unfinished upload is kept, so that another process can go on with it."""

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, location: str) -> None: ...

    def drop(self, key: str) -> None: ...


class _Forgotten:
    """Keeps nothing: an upload goes on in this process only."""

    def get(self, key: str) -> str | None:
        return None

    def put(self, key: str, location: str) -> None:
        pass

    def drop(self, key: str) -> None:
        pass


class RegistryClient:
    """One registry.

    Args:
        host: ``HOST`` or ``HOST:PORT``; ``docker.io`` is Docker Hub.
        login: The user's, maybe empty.
        tls: For HTTPS; the platform's certificate authorities if None.
        backoff: How patient to be.
        stop: When it is set, whatever goes on ends with `Interrupted`.
        connections: How many are kept.
        sessions: Keeps unfinished uploads.
    """

    def __init__(
        self,
        host: str,
        login: RegistryLogin | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        backoff: Backoff | None = None,
        stop: threading.Event | None = None,
        connections: int = 8,
        sessions: UploadSessions | None = None,
    ):
        self.host = HUB_HOST if host in _HUB_NAMES else host
        self._login = login or RegistryLogin()
        self._tls = tls
        self._backoff = backoff or Backoff()
        self._stop = stop or threading.Event()
        self._sessions = sessions or _Forgotten()
        self._transport = Transport(tls=tls, connections=connections)
        self._lock = threading.Lock()
        self._address: str | None = None
        self._basic = False
        self._bearer: Mapping[str, str] | None = None
        self._tokens: dict[tuple[str, ...], tuple[Token, float]] = {}

    def close(self) -> None:
        self._transport.close()

    # ---------------------------------------------------------------- manifests

    def head_manifest(self, repository: str, reference: str) -> ManifestInfo | None:
        """Digest, type and size of what a tag or digest names; None if there is nothing.

        Raises:
            RegistryError: it cannot be found out.
        """
        headers = {"Accept": ACCEPTED_MANIFESTS}
        path = f"{repository}/manifests/{reference}"
        with self._get(path, repository, headers, method="HEAD") as response:
            if response.status == 404:
                return None
            self._expect(response, 200, f"{self._name(repository, reference)} cannot be looked up")
            digest = response.header("Docker-Content-Digest")
            size = response.header("Content-Length")
            kind = _media_type(response)
        if not is_digest(digest):
            found = self.get_manifest(repository, reference)
            return None if found is None else ManifestInfo(found.digest, found.media_type, len(found.content))
        return ManifestInfo(digest, kind, int(size) if size.isdigit() else -1)

    def get_manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest or index that a tag or digest names; None if there is none.

        Raises:
            WrongContentError: it does not have the digest that it was asked for by.
            RegistryError: it cannot be had.
        """
        name = self._name(repository, reference)
        retry = self._backoff.start()
        while True:
            path = f"{repository}/manifests/{reference}"
            with self._get(path, repository, {"Accept": ACCEPTED_MANIFESTS}, retry=retry) as response:
                if response.status == 404:
                    return None
                self._expect(response, 200, f"{name} cannot be read")
                kind = _media_type(response)
                try:
                    content = response.body(MAX_MANIFEST)
                except TransportError as error:
                    self._wait(retry, f"{name} cannot be read: {error.reason}", permanent=error.permanent)
                    continue
            break
        digest = digest_of(content)
        if is_digest(reference) and reference.startswith("sha256:") and digest != reference:
            raise WrongContentError(
                f"the registry {self.host} answers for {name} with something of another digest ({digest})"
            )
        return Manifest(content, kind or _own_media_type(content), digest)

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest.

        Raises:
            RegistryError: the registry does not take it.
        """
        path = f"{repository}/manifests/{reference}"
        headers = {"Content-Type": media_type}
        with self._ask("PUT", self._url(path), self._push_scopes(repository), headers, content) as response:
            self._expect(response, 201, f"{self._name(repository, reference)} cannot be pushed")
        return digest_of(content)

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, empty if there is none of that name.

        Raises:
            RegistryError: they cannot be listed.
        """
        found: list[str] = []
        url = self._url(f"{repository}/tags/list")
        for _ in range(1000):
            with self._ask("GET", url, self._pull_scopes(repository), redirects=5) as response:
                if response.status == 404:
                    return found
                self._expect(response, 200, f"the tags of {self.host}/{repository} cannot be listed")
                try:
                    names = json.loads(response.body(MAX_MANIFEST)).get("tags") or []
                except (TransportError, ValueError, AttributeError) as error:
                    raise RegistryError(
                        f"the registry {self.host} does not list the tags of {repository}: {error}"
                    ) from error
                found += [name for name in names if isinstance(name, str)]
                following = re.match(r'<([^>]*)>\s*;\s*rel="?next', response.header("Link"))
            if following is None:
                break
            url = urljoin(url, following[1])
        return found

    # ---------------------------------------------------------------- blobs

    def blob_size(self, repository: str, digest: str) -> int | None:
        """The size of a blob (-1 if the registry does not say it); None if it is not there.

        Raises:
            RegistryError: it cannot be found out.
        """
        split_digest(digest)
        with self._get(f"{repository}/blobs/{digest}", repository, method="HEAD") as response:
            if response.status == 404:
                return None
            self._expect(response, 200, f"{self._name(repository, digest)} cannot be looked up")
            size = response.header("Content-Length")
        return int(size) if size.isdigit() else -1

    def read_blob(
        self,
        repository: str,
        digest: str,
        size: int,
        *,
        start: int = 0,
        hashed: hashlib._Hash | None = None,
        verify: bool = True,
    ) -> Iterator[bytes]:
        """The bytes of a blob; a connection that breaks is made again, and reading goes on where it was.

        Args:
            repository: Where the blob is.
            digest: Its digest.
            size: Its bytes.
            start: Where to begin.
            hashed: The hash of the bytes before ``start``; needed unless that is 0.
            verify: False for who checks otherwise what arrives; then no hash is made.

        Raises:
            WrongContentError: all of it arrived and has another digest or size.
            RegistryError: it cannot be read.
        """
        algorithm, expected = split_digest(digest)
        if hashed is None:
            if start and verify:
                raise ValueError("a blob that is not read from its start needs the hash of what came before")
            hashed = hashlib.new(algorithm)
        name = self._name(repository, digest)
        retry = self._backoff.start()
        offset = start
        while not start or offset < size:
            try:
                for data in self._read_once(repository, digest, offset, size, retry):
                    offset += len(data)
                    if offset > size:
                        raise WrongContentError(f"{name} has more than its {size} bytes")
                    if verify:
                        hashed.update(data)
                    retry.progressed()
                    yield data
                if offset == size:
                    break
                raise TransportError("the answer ended too early")
            except TransportError as error:
                self._wait(retry, f"{name} cannot be read: {error.reason}", permanent=error.permanent)
        if verify and hashed.hexdigest() != expected:
            raise WrongContentError(f"{name} arrived with another digest: {algorithm}:{hashed.hexdigest()}")

    def _read_once(self, repository: str, digest: str, offset: int, size: int, retry: Retry) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-{size - 1}"} if offset else {}
        with self._get(f"{repository}/blobs/{digest}", repository, headers, retry=retry) as response:
            if response.status == 404:
                raise RegistryError(f"{self._name(repository, digest)} is not there")
            skip = 0
            if offset and response.status == 206:
                said = response.header("Content-Range")
                if not said.startswith(f"bytes {offset}-"):
                    raise RegistryError(f"the registry {self.host} answers with another range than asked: {said}")
            else:
                self._expect(response, 200, f"{self._name(repository, digest)} cannot be read")
                skip = offset  # a registry without ranges sends all of it again
            for data in response.chunks():
                if self._stop.is_set():
                    raise Interrupted("interrupted")
                if skip >= len(data):
                    skip -= len(data)
                    continue
                yield data[skip:] if skip else data
                skip = 0

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Have the registry take a blob over from another of its repositories; False if it does not.

        Raises:
            RegistryError: it cannot be asked.
        """
        return self._start_upload(repository, digest, source) is None

    def push_blob(
        self,
        repository: str,
        source: BlobSource,
        *,
        mount_from: Sequence[str] = (),
        sent: Callable[[int], None] = lambda count: None,
    ) -> str:
        """Upload a blob unless it is there.

        Args:
            repository: Where to.
            source: The blob.
            mount_from: Repositories of the same registry that may have it.
            sent: Told the bytes that were sent; a negative number if some have to be sent again.

        Returns:
            ``exists``, ``mounted`` or ``uploaded``.

        Raises:
            RegistryError: it did not get there.
        """
        if self.blob_size(repository, source.digest) is not None:
            return "exists"
        for other in mount_from:
            if other != repository and self._mount(repository, source.digest, other):
                return "mounted"
        _Upload(self, repository, source, sent).run()
        return "uploaded"

    def _mount(self, repository: str, digest: str, other: str) -> bool:
        try:
            return self.mount_blob(repository, digest, other)
        except RegistryRefusedError:
            return False  # not allowed to read there: then it is sent

    def _start_upload(self, repository: str, digest: str = "", source: str = "") -> Response | None:
        """Start an upload; None if the blob was mounted instead.  The response is closed."""
        scopes = self._push_scopes(repository)
        query = ""
        if source:
            query = f"?mount={quote(digest)}&from={quote(source)}"
            scopes = (*scopes, *self._pull_scopes(source))
        url = self._url(f"{repository}/blobs/uploads/{query}")
        with self._ask("POST", url, scopes, {"Content-Length": "0"}) as response:
            if source and response.status == 201:
                return None
            self._expect(response, 202, f"nothing can be uploaded to {self.host}/{repository}")
            if source and response.header("Location"):
                self._cancel(repository, response)
            return response

    def _cancel(self, repository: str, response: Response) -> None:
        """Tell the registry that an upload will not come; what it answers does not matter."""
        url = urljoin(response.url, response.header("Location"))
        with contextlib.suppress(TransportError, CogkitError):
            self._send_once("DELETE", url, self._push_scopes(repository), {}, None, 0).close()

    # ---------------------------------------------------------------- requests

    def _name(self, repository: str, reference: str) -> str:
        return f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"

    def _url(self, path: str) -> str:
        return f"{self._place()}/v2/{path}"

    def _pull_scopes(self, repository: str) -> tuple[str, ...]:
        return (f"repository:{repository}:pull",)

    def _push_scopes(self, repository: str) -> tuple[str, ...]:
        return (f"repository:{repository}:pull,push",)

    def _get(
        self,
        path: str,
        repository: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        retry: Retry | None = None,
    ) -> Response:
        return self._ask(
            method, self._url(path), self._pull_scopes(repository), headers or {}, redirects=5, retry=retry
        )

    def _ask(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        redirects: int = 0,
        retry: Retry | None = None,
    ) -> Response:
        """Send a request that can be repeated until there is an answer that will not change."""
        retry = retry or self._backoff.start()
        while True:
            try:
                response = self._send_once(method, url, scopes, headers or {}, body, redirects)
            except TransportError as error:
                self._wait(
                    retry, f"the registry {self.host} cannot be reached: {error.reason}", permanent=error.permanent
                )
                continue
            if response.status not in TRANSIENT_STATUSES:
                return response
            with response:
                asked = retry_after(response.header("Retry-After"), time.time())
                why = f"the registry {self.host} answers {_status(response)}"
            self._wait(retry, why, asked=asked)

    def _send_once(
        self,
        method: str,
        url: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        body: Any,
        redirects: int,
    ) -> Response:
        """Send a request, with a login if one is wanted.

        Raises:
            TransportError: no answer.
        """
        own = self._is_own(url)
        for attempt in range(3):
            if self._stop.is_set():
                raise Interrupted("interrupted")
            sent = dict(headers)
            if own and (authorization := self._authorization(scopes, renew=attempt > 1)):
                sent["Authorization"] = authorization
            response = self._transport.request(method, url, sent, body, redirects=redirects)
            repeatable = body is None or isinstance(body, bytes)
            if response.status != 401 or not own or attempt == 2 or not repeatable:
                return response
            with response:
                self._learn(response.header("WWW-Authenticate"))
        raise AssertionError("unreachable")

    def _wait(self, retry: Retry, why: str, *, asked: float | None = None, permanent: bool = False) -> None:
        """Wait before an operation is tried again.

        Raises:
            RegistryUnreachableError: that was long enough.
        """
        delay = None if permanent else retry.delay(asked)
        if delay is None:
            raise RegistryUnreachableError(why, hint="check the name, the network and whether the registry is up")
        if self._stop.wait(delay):
            raise Interrupted("interrupted")

    def _expect(self, response: Response, status: int, what: str) -> None:
        """Raise what a refusal means."""
        if response.status == status:
            return
        said = response.explanation()
        message = f"{what}: the registry {self.host} answers {_status(response)}" + (f" ({said})" if said else "")
        if response.status in (401, 403):
            again = "log in with another user" if self._login.secret else "log in"
            raise RegistryRefusedError(message, hint=f"{again}: cogkit login {self.host}")
        raise RegistryError(message)

    # ---------------------------------------------------------------- where it is, and who we are

    def _place(self) -> str:
        """Scheme and host; asked once."""
        with self._lock:
            if self._address is None:
                self._address = self._find()
            return self._address

    def _find(self) -> str:
        # As docker: a registry on this machine itself need not speak HTTPS.
        local = is_loopback(urlsplit(f"//{self.host}").hostname or "")
        retry = self._backoff.start()
        while True:
            problem = ""
            permanent = False
            for scheme in ("https", "http") if local else ("https",):
                try:
                    response = self._transport.request("GET", f"{scheme}://{self.host}/v2/")
                except TransportError as error:
                    problem, permanent = error.reason, error.permanent
                    continue
                with response:
                    if response.status in TRANSIENT_STATUSES:
                        asked = retry_after(response.header("Retry-After"), time.time())
                        why = f"the registry {self.host} answers {_status(response)}"
                        self._wait(retry, why, asked=asked)
                        break
                    if response.status == 401:
                        self._learn(response.header("WWW-Authenticate"))
                    return f"{scheme}://{self.host}"
            else:
                # Nothing was ever there: a long wait would only hide a mistyped name.
                enough = permanent or retry.waited > FIRST_PATIENCE
                self._wait(retry, f"the registry {self.host} cannot be reached: {problem}", permanent=enough)

    def _is_own(self, url: str) -> bool:
        place = urlsplit(self._place())
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (place.scheme, place.netloc)

    def _learn(self, challenge: str) -> None:
        """Take up what the registry wants to be shown (RFC 9110, ``WWW-Authenticate``)."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            self._bearer = dict(_PARAMETER.findall(rest))
        elif kind.lower() == "basic":
            self._basic = True

    def _authorization(self, scopes: tuple[str, ...], *, renew: bool) -> str:
        """The value of the header; empty for none."""
        login = self._login
        if self._bearer is not None:
            return f"Bearer {self._token(scopes, renew=renew).value}"
        if self._basic and login.secret:
            pair = f"{login.username}:{login.password}".encode("utf-8", "surrogateescape")
            return f"Basic {b64encode(pair).decode()}"
        return ""

    def _token(self, scopes: tuple[str, ...], *, renew: bool) -> Token:
        if self._login.registry_token:
            return Token(self._login.registry_token)
        with self._lock:
            token, until = self._tokens.get(scopes, (None, 0.0))
            if token is None or renew or time.monotonic() > until:
                token = self._new_token(scopes)
                # Half of its life: the rest is for a clock that runs differently and for a request on its way.
                self._tokens[scopes] = (token, time.monotonic() + token.expires_in / 2)
            return token

    def _new_token(self, scopes: tuple[str, ...]) -> Token:
        asked = self._bearer or {}
        wanted = TokenRequest(self.host, asked.get("realm", ""), asked.get("service", ""), scopes)
        retry = self._backoff.start()
        while True:
            try:
                return fetch_token(wanted, self._login, tls=self._tls)
            except TokenError as error:
                if not error.transient:
                    raise RegistryRefusedError(error.message, hint=error.hint) from error
                self._wait(retry, error.message)


FIRST_PATIENCE = 5.0
"""Seconds of waiting for a registry that never answered."""


class _Upload:
    """One blob on its way into a registry."""

    def __init__(self, client: RegistryClient, repository: str, source: BlobSource, sent: Callable[[int], None]):
        self._client = client
        self._repository = repository
        self._source = source
        self._tell = sent
        self._retry = client._backoff.start()
        self._key = f"{client.host}/{repository}@{source.digest}"
        self._location = ""
        self._offset = 0
        self._told = 0
        self._chunk = CHUNK_SIZE
        self._restarts = 0

    def run(self) -> None:
        kept = self._client._sessions.get(self._key)
        if kept and self._client._is_own(kept):
            self._location = kept
            self._ask_how_far()
        while True:
            try:
                if not self._location:
                    self._start()
                if self._step():
                    break
            except TransportError as error:
                self._client._wait(
                    self._retry,
                    f"the upload of {self._source.digest} to {self._client.host}/{self._repository} broke:"
                    f" {error.reason}",
                    permanent=error.permanent,
                )
                self._ask_how_far()
        self._client._sessions.drop(self._key)
        self._report(self._source.size)

    def _start(self) -> None:
        response = self._client._start_upload(self._repository)
        assert response is not None
        self._move(response)
        if not self._location:
            raise RegistryError(f"the registry {self._client.host} starts an upload without saying where")
        least, most = _number(response, "OCI-Chunk-Min-Length"), _number(response, "OCI-Chunk-Max-Length")
        self._chunk = max(min(CHUNK_SIZE, most) if most else CHUNK_SIZE, least)
        self._offset = 0
        self._report(0)

    def _move(self, response: Response) -> None:
        location = response.header("Location")
        if location:
            self._location = urljoin(response.url, location)
            self._client._sessions.put(self._key, self._location)

    def _step(self) -> bool:
        """Send the next piece; True when all is there."""
        size = self._source.size
        begin, end = self._offset, min(self._offset + self._chunk, size)
        last = end == size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - begin)}
        url, method = self._location, "PATCH"
        whole = last and begin == 0
        if whole or begin == size:
            # All in one request, or nothing left to send.
            method, url = "PUT", _with_digest(self._location, self._source.digest)
        else:
            headers["Content-Range"] = f"{begin}-{end - 1}"
        client = self._client
        response = client._send_once(
            method, url, client._push_scopes(self._repository), headers, self._body(begin, end), 0
        )
        with response:
            if response.status in TRANSIENT_STATUSES:
                asked = retry_after(response.header("Retry-After"), time.time())
                client._wait(self._retry, f"the registry {client.host} answers {_status(response)}", asked=asked)
                response.close()
                self._ask_how_far()
                return False
            if response.status == 401:
                client._learn(response.header("WWW-Authenticate"))
                client._authorization(client._push_scopes(self._repository), renew=True)
                self._count_restart(response)
                self._ask_how_far()
                return False
            if response.status in (400, 404, 416) and (method == "PATCH" or begin == size):
                # The registry lost it, or counts otherwise than we do.
                self._count_restart(response)
                self._forget()
                return False
            if method == "PUT":
                client._expect(response, 201, f"{self._source.digest} cannot be uploaded to {self._repository}")
                return True
            if response.status not in (201, 202, 204):
                client._expect(response, 202, f"{self._source.digest} cannot be uploaded to {self._repository}")
            self._offset = end
            self._report(end)
            self._retry.progressed()
            self._move(response)
            return False

    def _count_restart(self, response: Response) -> None:
        self._restarts += 1
        if self._restarts > 5:
            self._client._expect(response, 202, f"{self._source.digest} cannot be uploaded to {self._repository}")

    def _body(self, begin: int, end: int) -> Iterator[bytes]:
        left = end - begin
        if not left:
            return
        for data in self._source.read_from(begin):
            view = memoryview(data)[:left]
            while view:
                if self._client._stop.is_set():
                    raise Interrupted("interrupted")
                piece = view[:SEND_SIZE]
                yield bytes(piece) if len(piece) != len(data) else data
                left -= len(piece)
                self._report(end - left)
                view = view[SEND_SIZE:]
            if not left:
                return
        raise WrongContentError(f"{self._source.digest} changed while it was sent: {left} bytes are missing")

    def _report(self, offset: int) -> None:
        if offset != self._told:
            self._tell(offset - self._told)
            self._told = offset

    def _ask_how_far(self) -> None:
        """Go on where the registry says it is; from the start if it does not know of the upload."""
        client = self._client
        response = client._ask("GET", self._location, client._push_scopes(self._repository), retry=self._retry)
        with response:
            match = _RANGE.fullmatch(response.header("Range"))
            if response.status == 204 and match is not None:
                # "0-0" is what registries say of nothing, too.
                offset = int(match[1]) + 1 if int(match[1]) else 0
                if offset <= self._source.size:
                    if offset > self._offset:
                        self._retry.progressed()
                    self._offset = offset
                    self._report(offset)
                    self._move(response)
                    return
        self._forget()

    def _forget(self) -> None:
        self._location = ""
        self._offset = 0
        self._client._sessions.drop(self._key)


def _status(response: Response) -> str:
    return f"{response.status} {response.reason}".strip()


def _media_type(response: Response) -> str:
    return response.header("Content-Type").partition(";")[0].strip()


def _own_media_type(content: bytes) -> str:
    try:
        found = json.loads(content).get("mediaType", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def _number(response: Response, header: str) -> int:
    value = response.header(header)
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else 0


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if urlsplit(location).query else '?'}digest={quote(digest)}"
