"""The Auth service: what the daemon learns of the user's logins, and what it does not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cogkit._proto import auth_pb2
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services import auth as auth_module
from cogkit.buildkit.session.services.auth import Auth
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.registry.docker_config import (
    HUB_HOST,
    HUB_KEY,
    CredentialHelperError,
    CredentialHelperMissingError,
    DockerConfig,
    RegistryLogin,
)
from tests.real.token_server import TokenServer
from tests.unit.service_call import FakeCall, ask, serve

HOST = "registry.example.com"
SERVICE = "/moby.filesync.v1.Auth/"
SALT = b"of the daemon"

R = TypeVar("R")


@pytest.fixture(autouse=True)
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BUILDKIT_NO_CLIENT_TOKEN", raising=False)
    return tmp_path / "config" / "cogkit"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    started = TokenServer(tmp_path / "tokens", {"me": "pw", "": ""})
    yield started
    started.stop()


def config(**login: str) -> DockerConfig:
    return DockerConfig({HOST: RegistryLogin(**login)} if login else {})


def run(scenario: Callable[[], Coroutine[Any, Any, R]]) -> R:
    return asyncio.run(scenario())


async def credentials(auth: Auth, host: str = HOST) -> tuple[str, str]:
    request = auth_pb2.CredentialsRequest(Host=host)
    response = await ask(auth, f"{SERVICE}Credentials", request, auth_pb2.CredentialsResponse)
    return response.Username, response.Secret


async def authority(auth: Auth, host: str = HOST, salt: bytes = SALT) -> bytes:
    request = auth_pb2.GetTokenAuthorityRequest(Host=host, Salt=salt)
    return (await ask(auth, f"{SERVICE}GetTokenAuthority", request, auth_pb2.GetTokenAuthorityResponse)).PublicKey


async def signed(auth: Auth, payload: bytes, host: str = HOST, salt: bytes = SALT) -> bytes:
    request = auth_pb2.VerifyTokenAuthorityRequest(Host=host, Payload=payload, Salt=salt)
    return (await ask(auth, f"{SERVICE}VerifyTokenAuthority", request, auth_pb2.VerifyTokenAuthorityResponse)).Signed


async def token(auth: Auth, server: TokenServer, host: str = HOST) -> auth_pb2.FetchTokenResponse:
    request = auth_pb2.FetchTokenRequest(
        ClientID="buildkit-client", Host=host, Realm=server.realm, Service="s", Scopes=["repository:team/app:pull"]
    )
    return await ask(auth, f"{SERVICE}FetchToken", request, auth_pb2.FetchTokenResponse)


def test_credentials_are_those_of_the_host_and_empty_for_every_other() -> None:
    async def scenario() -> None:
        auth = Auth(config(username="me", password="pw"))
        assert await credentials(auth) == ("me", "pw")
        assert await credentials(auth, "other.example.com") == ("", "")

    run(scenario)


def test_docker_hub_is_asked_for_by_the_name_of_its_server() -> None:
    auth = Auth(DockerConfig({HUB_KEY: RegistryLogin("hub", "pw")}))
    assert run(lambda: credentials(auth, HUB_HOST)) == ("hub", "pw")


def test_identity_token_is_shared_without_a_user() -> None:
    assert run(lambda: credentials(Auth(config(username="me", identity_token="refresh")))) == ("", "refresh")


@pytest.mark.parametrize("host", ["", "a b", "a\nb", "https://r.example.com", "-a", "a/b", "a:port", "x" * 400])
def test_what_is_no_host_is_refused_before_any_helper_sees_it(host: str) -> None:
    def unexpected(self: DockerConfig, host: str) -> RegistryLogin:
        raise AssertionError(host)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CallError) as caught:
        patch.setattr(DockerConfig, "login", unexpected)
        run(lambda: credentials(Auth(config()), host))
    assert caught.value.code is StatusCode.INVALID_ARGUMENT


def test_authority_is_an_ed25519_key_that_signs_as_nacl_does() -> None:
    async def scenario() -> None:
        auth = Auth(config(username="me", password="pw"))
        key = await authority(auth)
        message = await signed(auth, b"payload")
        assert message[64:] == b"payload"
        Ed25519PublicKey.from_public_bytes(key).verify(message[:64], b"payload")
        other = Ed25519PublicKey.from_public_bytes(await authority(auth, salt=b"of another daemon"))
        with pytest.raises(InvalidSignature):
            other.verify(message[:64], b"payload")

    run(scenario)


def test_authority_stays_the_same_for_the_user_and_differs_by_host_user_and_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = DockerConfig({HOST: RegistryLogin("me", "pw"), "two.example.com": RegistryLogin("me", "pw")})
    first = run(lambda: authority(Auth(both)))
    assert run(lambda: authority(Auth(both))) == first
    assert run(lambda: authority(Auth(both), "two.example.com")) != first
    assert run(lambda: authority(Auth(config()))) != first
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert run(lambda: authority(Auth(both))) != first


def test_authority_without_a_login_is_the_same_for_everybody_so_that_public_tokens_are_shared() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = hmac.new(SALT, digestmod=hashlib.sha256).digest()
    expected = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert run(lambda: authority(Auth(config()))) == expected


def test_seed_is_kept_where_only_the_user_can_read_it(config_folder: Path) -> None:
    run(lambda: authority(Auth(config(username="me", password="pw"))))
    kept = config_folder / "token-seed"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert config_folder.stat().st_mode & 0o777 == 0o700


def test_authority_is_stable_within_a_session_even_where_no_seed_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))

    async def scenario() -> tuple[bytes, bytes]:
        auth = Auth(config(username="me", password="pw"))
        return await authority(auth), await authority(auth)

    first, second = run(scenario)
    assert first == second
    assert run(scenario)[0] != first


def test_tokens_can_be_left_to_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDKIT_NO_CLIENT_TOKEN", "true")
    with pytest.raises(CallError) as caught:
        run(lambda: authority(Auth(config())))
    assert caught.value.code is StatusCode.UNAVAILABLE


def test_token_is_fetched_here_with_the_login(server: TokenServer) -> None:
    response = run(lambda: token(Auth(config(username="me", password="pw")), server))
    assert response.Token.count(".") == 2
    assert response.ExpiresIn == 120
    assert server.asked[0].parameters["password"] == ["pw"]


def test_token_in_the_config_is_given_as_it_is(server: TokenServer) -> None:
    response = run(lambda: token(Auth(config(registry_token="bearer")), server))
    assert (response.Token, response.ExpiresIn, response.IssuedAt) == ("bearer", 60, 0)
    assert not server.asked


def test_login_of_one_registry_is_not_used_for_another(server: TokenServer) -> None:
    run(lambda: token(Auth(config(username="me", password="pw")), server, "other.example.com"))
    assert "authorization" not in server.asked[0].headers


def test_refused_token_reaches_the_user_whole_and_the_daemon_as_text(server: TokenServer) -> None:
    with pytest.raises(CallError, match=r"no access to team/app:pull at registry\.example\.com") as caught:
        run(lambda: token(Auth(config(username="me", password="wrong")), server))
    assert getattr(caught.value.cause, "hint", "") == f"log in again: cogkit login {HOST}"


def test_missing_helper_is_a_warning_once_and_public_images_can_still_be_pulled(server: TokenServer) -> None:
    warnings: list[str] = []
    auth = Auth(DockerConfig(store="gone"), warn=warnings.append)

    async def scenario() -> None:
        assert await credentials(auth) == ("", "")
        assert (await token(auth, server)).Token
        assert await credentials(auth, "other.example.com") == ("", "")

    run(scenario)
    assert len(warnings) == 2  # one for each registry that it was asked about
    assert "docker-credential-gone" in warnings[0]


def test_failing_helper_fails_the_call_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-bad"
    program.write_text("#!/bin/sh\necho locked; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CallError, match="locked") as caught:
        run(lambda: credentials(Auth(DockerConfig(store="bad"))))
    assert isinstance(caught.value.cause, CredentialHelperError)


def test_login_is_looked_up_once_in_five_minutes_and_by_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    running = 0

    def login(self: DockerConfig, host: str) -> RegistryLogin:
        nonlocal running
        running += 1
        assert running == 1
        time.sleep(0.02)
        looked_up.append(host)
        running -= 1
        return RegistryLogin("me", "pw")

    monkeypatch.setattr(DockerConfig, "login", login)

    async def scenario() -> None:
        auth = Auth(config())
        await asyncio.gather(*(credentials(auth, host) for host in (HOST, HOST, "b.example.com")))
        assert sorted(looked_up) == ["b.example.com", HOST]
        monkeypatch.setattr(auth_module, "LOGIN_LIFE", -1.0)
        await credentials(auth)
        assert len(looked_up) == 3

    run(scenario)


def test_each_use_of_a_login_is_announced_once_and_names_no_secret(server: TokenServer) -> None:
    announced: list[str] = []

    async def scenario() -> None:
        auth = Auth(config(username="me", password="pw"), announce=announced.append)
        for _ in range(2):
            await credentials(auth)
            await credentials(auth, "other.example.com")
            await token(auth, server)

    run(scenario)
    assert announced == [f"sharing credentials for {HOST}", f"team/app:pull token for {HOST}"]


@pytest.mark.parametrize("method", ["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"])
@pytest.mark.parametrize("messages", [[], [b"\xff\xff"]])
def test_call_without_a_request_is_an_error_and_no_crash(method: str, messages: list[bytes]) -> None:
    with pytest.raises(CallError) as caught:
        run(lambda: serve(Auth(config()), FakeCall(f"{SERVICE}{method}", *messages)))
    assert caught.value.code is StatusCode.INTERNAL


def test_missing_helper_error_is_of_its_own_kind() -> None:
    with pytest.raises(CredentialHelperMissingError):
        DockerConfig(store="gone").login(HOST)
