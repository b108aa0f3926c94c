"""The Auth service: proves to registries who the user is, so that the daemon need not know.

The daemon first asks for a *token authority*, a public key of this client for a registry.  It keeps tokens under that
key, and lets whoever shows the private key use them again; the key follows from the daemon's salt, a random seed of
this user and whether there is a login (BuildKit ``session/auth/authprovider``).  Tokens themselves are fetched here
(`registry.token`), so the password stays here.  Only a registry that wants the password itself (HTTP Basic) makes the
daemon ask for `Credentials`.

What may be asked for is what the user's Docker config has a login for; for all other registries there is an empty one.
Set ``BUILDKIT_NO_CLIENT_TOKEN=1`` to let the daemon fetch tokens, as with BuildKit's own client.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import secrets
import ssl
import time
from collections.abc import Callable, Mapping

from cogkit._proto import auth_pb2
from cogkit.buildkit.blocking import Crew, in_thread
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.services.unary import answered, receive_request
from cogkit.buildkit.shared_key import kept_random
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.go_bool import go_bool
from cogkit.registry.docker_config import CredentialHelperMissingError, DockerConfig, RegistryLogin

LOGIN_LIFE = 290.0
"""Seconds that a login is used before it is looked up again; some helpers give out tokens of five minutes."""

MAX_REGISTRIES = 200
"""Registries that one build may ask about: for each a credential helper may be run, and its answer is kept."""

MAX_FETCHES = 8
"""Tokens that are fetched at a time."""

MAX_WANTED = 16 << 10
"""Characters of all that a token is asked for with."""

_MAX_SAID = 500

SEED_NAME = "token-seed"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")

_log = logging.getLogger(__name__)


class Auth:
    """The session's service for registry logins.

    Args:
        config: The user's logins.
        warn: Told of what the user should know, each thing once.
        announce: Told of each use of a login, once for each: ``sharing credentials for HOST``,
            ``REPOSITORY:pull token for HOST``.
        tls: For token services; the platform's certificate authorities if None.
    """

    def __init__(
        self,
        config: DockerConfig,
        *,
        warn: Callable[[str], None] = _log.warning,
        announce: Callable[[str], None] = _log.debug,
        tls: ssl.SSLContext | None = None,
    ):
        self._config = config
        self._warn = warn
        self._announce = announce
        self._tls = tls
        self._logins: dict[str, tuple[float, RegistryLogin]] = {}
        self._said: set[str] = set()
        self._seed: bytes | None = None
        self._asking = asyncio.Lock()
        # One at a time: credential helpers are programs that may ask the user.
        self._helper = Crew(1)
        self._fetching = Crew(MAX_FETCHES)

    def methods(self) -> Mapping[str, Handler]:
        prefix = "/moby.filesync.v1.Auth/"
        return {
            f"{prefix}Credentials": self._credentials,
            f"{prefix}FetchToken": self._fetch_token,
            f"{prefix}GetTokenAuthority": self._get_token_authority,
            f"{prefix}VerifyTokenAuthority": self._verify_token_authority,
        }

    # ---------------------------------------------------------------- the calls

    async def _credentials(self, stream: ServerStream) -> None:
        request = await receive_request(stream, auth_pb2.CredentialsRequest)
        login = await self._login(request.Host)
        if login.secret:
            self._say_once(self._announce, f"sharing credentials for {request.Host}")
        response = auth_pb2.CredentialsResponse(Username=_text(login.user), Secret=_text(login.secret))
        await stream.send(response.SerializeToString())

    async def _fetch_token(self, stream: ServerStream) -> None:
        # With its HTTP client a twentieth of the time of an unchanged build, which fetches none.
        from cogkit.registry.token import Token, TokenRequest, fetch_token

        request = await receive_request(stream, auth_pb2.FetchTokenRequest)
        if sum(map(len, (request.Realm, request.Service, *request.Scopes))) + 100 * len(request.Scopes) > MAX_WANTED:
            raise CallError(StatusCode.INVALID_ARGUMENT, "no token is asked for with so many words")
        login = await self._login(request.Host)
        wanted = TokenRequest(request.Host, request.Realm, request.Service, tuple(request.Scopes))
        if login.registry_token:
            token = Token(login.registry_token)
        else:
            if login.secret:
                self._say_once(self._announce, f"{wanted.subject} token for {wanted.host}")
            token = await answered(self._fetching.run(fetch_token, wanted, login, tls=self._tls))
        response = auth_pb2.FetchTokenResponse(Token=token.value, ExpiresIn=token.expires_in, IssuedAt=token.issued_at)
        await stream.send(response.SerializeToString())

    async def _get_token_authority(self, stream: ServerStream) -> None:
        request = await receive_request(stream, auth_pb2.GetTokenAuthorityRequest)
        seed = await self._authority_seed(request.Host, request.Salt)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        await stream.send(auth_pb2.GetTokenAuthorityResponse(PublicKey=key).SerializeToString())

    async def _verify_token_authority(self, stream: ServerStream) -> None:
        request = await receive_request(stream, auth_pb2.VerifyTokenAuthorityRequest)
        seed = await self._authority_seed(request.Host, request.Salt)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        # NaCl's crypto_sign: the signature, then the message.
        signed = Ed25519PrivateKey.from_private_bytes(seed).sign(request.Payload) + request.Payload
        await stream.send(auth_pb2.VerifyTokenAuthorityResponse(Signed=signed).SerializeToString())

    # ---------------------------------------------------------------- what they are made of

    async def _authority_seed(self, host: str, salt: bytes) -> bytes:
        """The seed of the key that this user has for a registry at this daemon."""
        if go_bool(os.environ.get("BUILDKIT_NO_CLIENT_TOKEN", "")):
            raise CallError(StatusCode.UNAVAILABLE, "client side tokens disabled")
        mac = hmac.new(salt, digestmod=hashlib.sha256)
        if (await self._login(host)).secret:
            mac.update(await self._user_seed(host))
        return mac.digest()

    async def _user_seed(self, host: str) -> bytes:
        """A secret of this user's for one registry, so that a daemon cannot make the key by itself.

        BuildKit keeps a random one for each registry (``.token_seed``); these all follow from a single one, which is
        never written again and so needs no lock.
        """
        if self._seed is None:
            self._seed = (await in_thread(kept_random, SEED_NAME) or secrets.token_hex(16)).encode()
        return hmac.new(self._seed, host.encode(), hashlib.sha256).digest()

    async def _login(self, host: str) -> RegistryLogin:
        if len(host) > 300 or not _HOST.fullmatch(host):
            raise CallError(StatusCode.INVALID_ARGUMENT, "the host is not a registry's name")
        async with self._asking:
            looked_up, login = self._logins.get(host, (-LOGIN_LIFE, RegistryLogin()))
            if time.monotonic() - looked_up < LOGIN_LIFE:
                return login
            if host not in self._logins and len(self._logins) >= MAX_REGISTRIES:
                raise CallError(StatusCode.RESOURCE_EXHAUSTED, "one build does not use so many registries")
            login = await answered(self._look_up(host))
            self._logins[host] = (time.monotonic(), login)
            return login

    async def _look_up(self, host: str) -> RegistryLogin:
        try:
            return await self._helper.run(self._config.login, host)
        except CredentialHelperMissingError as missing:
            # Docker fails here, even for public images; without a login those can still be pulled.
            self._say_once(self._warn, f"{missing.message}; going on without a login: {missing.hint}")
            return RegistryLogin()

    def _say_once(self, say: Callable[[str], None], text: str) -> None:
        if text not in self._said and len(self._said) < _MAX_SAID:
            self._said.add(text)
            say(text)


def _text(secret: str) -> str:
    """Text that a message may hold, whatever bytes the config's base64 had."""
    return secret.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
