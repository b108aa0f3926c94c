"""Bearer tokens of registries: asking a token service for one, with the user's password staying on this machine.

The protocol is the registry's token authentication (distribution ``docs/spec/auth/token`` and ``oauth``) in the order
that BuildKit's client follows: an OAuth POST with a login, a GET where POST is not known or there is no login
(``session/auth/authprovider``, containerd's ``core/remotes/docker/auth/fetch.go``).

The service's address comes from the registry by way of the daemon, so it is checked here: only HTTP(S), and a secret
leaves in clear text to this machine itself only.  Everything blocks; call it in a thread.  This file must not know
where logins come from.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass
from cogkit.registry.backoff import TRANSIENT_STATUSES
from cogkit.registry.docker_config import RegistryLogin
from cogkit.registry.transport import MAX_REDIRECTS, Response, Transport, TransportError, is_loopback

CLIENT_ID = "buildkit-client"
TIMEOUT = 30.0
"""Seconds that a token service may be silent."""

MAX_ANSWER = 1 << 20
"""Bytes; a token is a few kilobytes."""

DEFAULT_LIFE = 60
"""Seconds that a token lives if its service does not say."""


class TokenError(CogkitError):
    """No token: the service refuses, does not answer, or is not one to send a secret to.

    Attributes:
        transient: Another time there may be one.
    """

    transient = False


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a token is wanted for, as the registry's challenge said it.

    Attributes:
        host: The registry, ``HOST`` or ``HOST:PORT``.
        realm: URL of the token service.
        service: The registry's name at the service.
        scopes: Such as ``repository:library/alpine:pull``.
    """

    host: str
    realm: str
    service: str = ""
    scopes: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What it is about, for people: the scopes without ``repository:``, else the registry."""
        return " ".join(scope.removeprefix("repository:") for scope in self.scopes) or self.host


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token.

    Attributes:
        value: The token.
        expires_in: Seconds that it is valid, from ``issued_at``.
        issued_at: Seconds since the epoch; 0 if the service does not say.
    """

    value: str = field(repr=False)
    expires_in: int = DEFAULT_LIFE
    issued_at: int = 0


def fetch_token(wanted: TokenRequest, login: RegistryLogin, *, tls: ssl.SSLContext | None = None) -> Token:
    """Get a token, with the login if there is one, else anonymously.

    Args:
        wanted: What it is for.
        login: The user's login at the registry, maybe empty.
        tls: For HTTPS; the platform's certificate authorities if None.

    Raises:
        TokenError: there is none; the message says why, without any secret.
    """
    check_realm(wanted, secret=bool(login.secret))
    exchange = _Exchange(wanted, login, tls)
    if not login.secret:
        return exchange.get()
    try:
        return exchange.post()
    except _Refused as refusal:
        # Registries without POST say 404, 405 or, as Artifactory, 401.
        if refusal.status in (401, 404) or (refusal.status == 405 and login.user):
            return exchange.get()
        raise


def check_realm(wanted: TokenRequest, *, secret: bool) -> None:
    """Refuse a token service that is not a web address, or that a secret would reach in clear text.

    Raises:
        TokenError: see above.
    """
    try:
        parts = urlsplit(wanted.realm)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or any(char <= " " for char in wanted.realm):
        raise TokenError(
            f"the registry {wanted.host} names a token service that is not a web address: {wanted.realm!r}"
        )
    if parts.scheme == "http" and secret and not is_loopback(host):
        raise TokenError(
            f"the login for {wanted.host} was not sent: the registry's token service is not encrypted ({wanted.realm})",
            hint=f"log out of {wanted.host}, or have its token service speak https",
        )


class _Refused(TokenError):
    def __init__(self, status: int, message: str, *, hint: str | None = None):
        super().__init__(message, hint=hint)
        self.status = status
        self.transient = status in TRANSIENT_STATUSES


class _Exchange:
    def __init__(self, wanted: TokenRequest, login: RegistryLogin, tls: ssl.SSLContext | None):
        self._wanted = wanted
        self._login = login
        self._transport = Transport(tls=tls, connections=1)

    def post(self) -> Token:
        wanted, login = self._wanted, self._login
        form = [("scope", " ".join(wanted.scopes))] if wanted.scopes else []
        form += [("service", wanted.service), ("client_id", CLIENT_ID)]
        if login.user:
            form += [("grant_type", "password"), ("username", login.user), ("password", login.secret)]
        else:
            form += [("grant_type", "refresh_token"), ("refresh_token", login.secret)]
        body = urlencode(form, errors="surrogateescape").encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        answer = self._send("POST", wanted.realm, headers, body)
        return self._token(answer, ("access_token",))

    def get(self) -> Token:
        wanted, login = self._wanted, self._login
        parts = urlsplit(wanted.realm)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if wanted.service:
            query.append(("service", wanted.service))
        query += [("scope", scope) for scope in wanted.scopes]
        headers = {}
        if login.secret:
            pair = f"{login.user}:{login.secret}".encode("utf-8", "surrogateescape")
            headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
        url = urlunsplit(parts._replace(query=urlencode(query), fragment=""))
        return self._token(self._send("GET", url, headers), ("access_token", "token"))

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> dict[str, Any]:
        secret = bool(self._login.secret)
        try:
            with self._transport.request(
                method, url, headers, body, timeout=TIMEOUT, redirects=MAX_REDIRECTS, secret=secret
            ) as response:
                if response.status >= 300:
                    raise self._refusal(response)
                content = response.body(MAX_ANSWER)
        except TransportError as error:
            place = self._place
            if error.permanent and "the answer" in error.reason:
                raise self._failure(f"{place}: {error.reason}") from None
            failure = self._failure(f"{place} cannot be reached: {error.reason}")
            failure.transient = not error.permanent
            raise failure from None
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failure(f"{self._place} answered with something that is not a token")
        return answer

    def _token(self, answer: Mapping[str, Any], names: tuple[str, ...]) -> Token:
        value = next((answer[name] for name in names if isinstance(answer.get(name), str) and answer[name]), None)
        if value is None:
            raise self._failure(f"{self._place} answered without a token")
        expires_in = answer.get("expires_in")
        life = int(expires_in) if isinstance(expires_in, int | float) and 0 < expires_in < 1 << 40 else DEFAULT_LIFE
        return Token(value, life, _seconds(answer.get("issued_at")))

    @property
    def _place(self) -> str:
        return f"the token service {urlsplit(self._wanted.realm).hostname}"

    def _failure(self, reason: str) -> TokenError:
        return TokenError(f"no access to {self._wanted.subject} at {self._wanted.host}: {self._harmless(reason)}")

    def _refusal(self, response: Response) -> _Refused:
        reason = f"{self._place} says {response.status} {response.reason}"
        if said := response.explanation():
            reason += f" ({said})"
        hint = None
        if response.status in (401, 403):
            again = " again" if self._login.secret else ""
            hint = f"log in{again}: cogkit login {self._wanted.host}"
        return _Refused(response.status, self._failure(reason).message, hint=hint)

    def _harmless(self, text: str) -> str:
        """``text`` in one line, and without the secret if the service should have repeated it."""
        if self._login.secret:
            text = text.replace(self._login.secret, "…")
        return " ".join(text.split())[:400]


def _seconds(issued_at: object) -> int:
    """An RFC 3339 time as seconds since the epoch; 0 if it is none."""
    if not isinstance(issued_at, str):
        return 0
    try:
        moment = datetime.fromisoformat(issued_at)
        return max(int(moment.timestamp()), 0) if moment.tzinfo else 0
    except (ValueError, OverflowError):
        return 0
