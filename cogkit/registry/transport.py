"""HTTP, for everything that is not the builder: registries, token services, model hubs.

One place decides what every request obeys: only HTTP(S); proxies of the environment, but none to this machine itself;
certificates are checked; a redirect takes a secret neither to another host nor out of HTTPS; silence ends after a time.
Bodies are streamed both ways, so memory stays flat.

Importing this file imports urllib3, so import it where a request is made.  This file must not retry (`backoff` does),
know logins, or know what a registry is.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, ProxyError, SSLError, TimeoutError

from cogkit import __version__

TIMEOUT = 60.0
"""Seconds that the other side may be silent."""

CONNECT_TIMEOUT = 30.0
CHUNK = 1 << 18
"""Bytes that are read at once."""

MAX_REDIRECTS = 5
_WORTH_READING = 16 << 10
"""Bytes that are read for nothing rather than making a new connection."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Body = bytes | Iterable[bytes] | None


class TransportError(Exception):
    """The other side could not be reached, or the conversation broke.

    Attributes:
        reason: Why, in a few words, without any secret.
        permanent: Asking again would bring the same: a wrong certificate, a redirect that is not followed.
    """

    def __init__(self, reason: str, *, permanent: bool = False):
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


class Response:
    """An answer, its body not yet read; close it, best as a context manager.

    Attributes:
        status: HTTP status.
        reason: The words next to it.
        url: Where it came from, after redirects.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str):
        self._raw = raw
        self.status = raw.status
        self.reason = raw.reason or ""
        self.url = url

    def header(self, name: str) -> str:
        """A header's value; empty if there is none."""
        return self._raw.headers.get(name) or ""

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            TransportError: it ended too early.
        """
        try:
            while data := self._raw.read1(CHUNK, decode_content=False):
                yield data
        except (HTTPError, OSError) as error:
            raise _transport_error(error) from error

    def body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            TransportError: it ended too early, or is longer than ``limit`` bytes.
        """
        parts: list[bytes] = []
        size = 0
        for data in self.chunks():
            size += len(data)
            if size > limit:
                raise TransportError(f"the answer has more than {limit >> 20} MiB", permanent=True)
            parts.append(data)
        return b"".join(parts)

    def explanation(self) -> str:
        """What a refusal says: ``errors`` of the distribution specification, ``details`` of Docker Hub; maybe empty."""
        try:
            content = json.loads(self.body(64 << 10))
            said = content.get("details") or content.get("error_description")
            said = said or content["errors"][0].get("message") or content["errors"][0].get("code")
        except (TransportError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return ""
        return " ".join(said.split())[:400] if isinstance(said, str) else ""

    def close(self) -> None:
        """Let go of it; a connection whose answer was read, or nearly, is used again.  Idempotent."""
        left = self._raw.length_remaining
        if left is not None and left <= _WORTH_READING:
            self._raw.drain_conn()
        else:
            self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """Connections to any number of hosts, used by any number of threads.

    Args:
        tls: For HTTPS; the platform's certificate authorities if None.
        connections: How many to one host are kept.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, connections: int = 8):
        self._tls = tls
        self._connections = connections
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.clear()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        timeout: float = TIMEOUT,
        redirects: int = 0,
        secret: bool = False,
    ) -> Response:
        """Send a request and wait for the head of the answer.

        Args:
            method: HTTP method.
            url: An ``http`` or ``https`` address.
            headers: Of the request; ``Content-Length`` must be there for a body that is not bytes.
            body: What to send.
            timeout: Seconds of silence after which it is given up.
            redirects: How many to follow at most; a redirect beyond that is an answer like any other.
            secret: The request holds a secret, so it must not be redirected out of HTTPS.

        Raises:
            TransportError: no answer.
        """
        sent = {"User-Agent": f"cogkit/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        while True:
            response = self._send(method, url, sent, body, timeout)
            location = response.header("Location")
            if response.status not in _REDIRECTS or not location or redirects <= 0:
                return response
            if response.status in (307, 308) and method not in ("GET", "HEAD"):
                return response
            redirects -= 1
            response.close()
            secret = secret or "Authorization" in sent
            target = _redirected(url, location, secret=secret)
            if method not in ("GET", "HEAD"):
                method, body = "GET", None
                sent = {name: value for name, value in sent.items() if not name.startswith("Content-")}
            if _origin(url) != _origin(target):
                sent.pop("Authorization", None)
            url = target

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body, timeout: float) -> Response:
        try:
            raw = self._pool(url).request(
                method,
                url,
                body=body,
                headers=headers,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(timeout, CONNECT_TIMEOUT), read=timeout),
            )
        except (HTTPError, OSError, ValueError) as error:
            raise _transport_error(error) from error
        return Response(raw, url)

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        with self._lock:
            pool = self._pools.get(proxy)
            if pool is None:
                pool = self._pools[proxy] = self._new_pool(proxy)
            return pool

    def _new_pool(self, proxy: str) -> urllib3.PoolManager:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        settings: dict[str, Any] = {"maxsize": self._connections, "ssl_context": self._tls}
        if not proxy:
            return urllib3.PoolManager(**settings)
        login = urlsplit(proxy)
        if login.username:
            pair = f"{login.username}:{login.password or ''}"
            settings["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=pair)
        return urllib3.ProxyManager(proxy, **settings)


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy(url: str) -> str:
    """The proxy to a place, empty for none: as Go's ``http.ProxyFromEnvironment``, none to this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return ""
    proxy = getproxies().get(parts.scheme, "")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _redirected(url: str, location: str, *, secret: bool) -> str:
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_web = False
    if not is_web:
        raise TransportError("it redirects to something that is not a web address", permanent=True)
    if secret and urlsplit(url).scheme == "https" and parts.scheme != "https":
        raise TransportError("it redirects to an address that is not encrypted", permanent=True)
    return target


def _transport_error(error: Exception) -> TransportError:
    if isinstance(error, ProxyError):
        inner = _transport_error(error.original_error)
        return TransportError(f"the proxy: {inner.reason}", permanent=inner.permanent)
    if isinstance(error, SSLError):
        cause = error.args[0] if error.args else error
        return TransportError(str(cause), permanent="certificate" in str(cause).lower())
    if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        return TransportError("timed out")
    cause = error.__cause__ or error.__context__
    if isinstance(error, NewConnectionError) and isinstance(cause, OSError):
        return TransportError(cause.strerror or str(cause))
    if isinstance(error, ProtocolError):
        lost = next((argument for argument in error.args if isinstance(argument, OSError)), None)
        return TransportError((lost and lost.strerror) or "the connection was lost")
    if isinstance(error, OSError):
        return TransportError(error.strerror or str(error) or type(error).__name__)
    return TransportError(str(error) or type(error).__name__, permanent=True)
