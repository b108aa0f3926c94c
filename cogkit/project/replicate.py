"""Replicate's own way to log in at its registry: a token from its website instead of a user and a password.

Facts are from Cog (``pkg/provider/replicate/replicate.go``).  Everything blocks.  This file must not keep the token.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from cogkit.errors import CogkitError, UsageError
from cogkit.registry.transport import MAX_REDIRECTS, Transport, TransportError

TIMEOUT = 30.0
API_TOKEN_PREFIX = "r8_"
TOKEN_PAGE = "https://replicate.com/auth/token"


def token_page(host: str) -> str:
    """The web page where the user gets a token.

    Args:
        host: The registry, or its URL.

    Raises:
        CogkitError: the registry does not say, or is not Replicate's.
    """
    answer = _ask(host, "display-token-url", unknown=_not_replicate(host))
    return str(answer.get("url") or TOKEN_PAGE)


def user_of(host: str, token: str) -> str:
    """The user that a token is of.

    Args:
        host: The registry, or its URL.
        token: From `token_page`.

    Raises:
        UsageError: it is not a token for this.
        CogkitError: the registry does not know it.
    """
    if not token:
        raise UsageError("token is empty", hint=f"get one from {TOKEN_PAGE}")
    if token.startswith(API_TOKEN_PREFIX):
        raise UsageError(
            "that looks like a Replicate API token, not a CLI auth token. Please fetch a token from "
            f"{TOKEN_PAGE} to log in"
        )
    body = urlencode({"token": token}).encode()
    answer = _ask(host, "verify-token", body, unknown="user does not exist")
    user = answer.get("username")
    if not isinstance(user, str) or not user:
        raise CogkitError(f"{host} does not say whose token it is")
    return user


def _address(host: str) -> str:
    return host if "://" in host else f"https://{host}"


def _not_replicate(host: str) -> str:
    return f"{host} is not the Replicate registry"


def _ask(host: str, question: str, body: bytes | None = None, *, unknown: str) -> dict[str, Any]:
    url = f"{_address(host)}/cog/v1/{question}"
    method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/x-www-form-urlencoded"})
    try:
        with Transport(connections=1).request(
            method, url, headers, body, timeout=TIMEOUT, redirects=MAX_REDIRECTS, secret=body is not None
        ) as response:
            if response.status >= 300:
                what = unknown if response.status == 404 else f"{host} returned HTTP status {response.status}"
                raise CogkitError(what, hint=f"get a new token from {TOKEN_PAGE}")
            answer = json.loads(response.body(1 << 20))
    except TransportError as error:
        raise CogkitError(f"failed to log in to {host}: {error}", hint="check the network") from error
    except ValueError as error:
        raise CogkitError(_not_replicate(host), hint="give another registry with --registry") from error
    return answer if isinstance(answer, dict) else {}
