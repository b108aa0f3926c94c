"""Tokens from a token service on a real socket: what is sent where, and what is never sent."""

from __future__ import annotations

import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cogkit.registry import token as registry_token
from cogkit.registry.docker_config import RegistryLogin
from cogkit.registry.token import MAX_ANSWER, TokenError, TokenRequest, check_realm, fetch_token
from cogkit.registry.transport import is_loopback
from tests.real.certificates import Certificates
from tests.real.token_server import Answer, Asked, TokenServer

SECRET = "s3cret+with&characters="
ME = RegistryLogin("me", SECRET)
NOBODY = RegistryLogin()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    started = TokenServer(tmp_path, {"me": SECRET, "": ""})
    yield started
    started.stop()


@pytest.fixture
def wanted(server: TokenServer) -> TokenRequest:
    scopes = ("repository:team/app:pull,push", "repository:other:pull")
    return TokenRequest("registry.example.com", server.realm, "the service", scopes)


def answering(server: TokenServer, status: int, body: object = b"", **headers: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.answer = lambda asked: Answer(status, content, headers)


def test_login_is_posted_as_oauth_password_grant(server: TokenServer, wanted: TokenRequest) -> None:
    token = fetch_token(wanted, ME)
    (asked,) = server.asked
    assert (asked.method, asked.headers["content-type"].split(";")[0]) == ("POST", "application/x-www-form-urlencoded")
    assert asked.parameters == {
        "scope": ["repository:team/app:pull,push repository:other:pull"],
        "service": ["the service"],
        "client_id": ["buildkit-client"],
        "grant_type": ["password"],
        "username": ["me"],
        "password": [SECRET],
    }
    assert token.value.count(".") == 2
    assert token.expires_in == 120
    assert token.issued_at > 1_700_000_000


def test_identity_token_is_posted_as_refresh_token_without_a_user(server: TokenServer, wanted: TokenRequest) -> None:
    server.users[""] = "refresh"
    fetch_token(wanted, RegistryLogin("me", "pw", identity_token="refresh"))
    parameters = server.asked[0].parameters
    assert (parameters["grant_type"], parameters["refresh_token"]) == (["refresh_token"], ["refresh"])
    assert "username" not in parameters


@pytest.mark.parametrize("status", [401, 404, 405])
def test_service_without_post_is_asked_by_get(server: TokenServer, wanted: TokenRequest, status: int) -> None:
    server.post_status = status
    fetch_token(wanted, ME)
    post, get = server.asked
    assert (post.method, get.method) == ("POST", "GET")
    assert get.headers["authorization"] == f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"
    assert get.parameters == {"service": ["the service"], "scope": list(wanted.scopes)}


def test_identity_token_does_not_fall_back_where_post_is_not_allowed(server: TokenServer, wanted: TokenRequest) -> None:
    server.post_status = 405
    with pytest.raises(TokenError, match="405"):
        fetch_token(wanted, RegistryLogin(identity_token="refresh"))
    assert [asked.method for asked in server.asked] == ["POST"]


def test_without_a_login_the_token_is_asked_for_anonymously(server: TokenServer, wanted: TokenRequest) -> None:
    fetch_token(wanted, NOBODY)
    (asked,) = server.asked
    assert asked.method == "GET"
    assert "authorization" not in asked.headers


def test_query_of_the_realm_is_kept(server: TokenServer, wanted: TokenRequest) -> None:
    fetch_token(replace(wanted, realm=f"{wanted.realm}?tenant=a%26b"), NOBODY)
    assert server.asked[0].parameters["tenant"] == ["a&b"]


def test_answer_without_times_lives_a_minute(server: TokenServer, wanted: TokenRequest) -> None:
    answering(server, 200, {"token": "t", "expires_in": "soon", "issued_at": "yesterday"})
    token = fetch_token(wanted, NOBODY)
    assert (token.value, token.expires_in, token.issued_at) == ("t", 60, 0)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "not a token"),
        (200, b"[]", "not a token"),
        (200, {"token": ""}, "without a token"),
        (200, {"token": 1}, "without a token"),
        (200, b"[" * 100_000, "not a token"),
        (200, b" " * (MAX_ANSWER + 1), "more than 1 MiB"),
        (401, {"details": "incorrect username"}, r"says 401 .*\(incorrect username\)"),
        (403, {"errors": [{"code": "DENIED", "message": "not for you"}]}, r"says 403 .*\(not for you\)"),
        (500, b"oops", "says 500"),
    ],
)
def test_every_bad_answer_is_one_sentence_that_names_the_image_and_the_registry(
    server: TokenServer, wanted: TokenRequest, status: int, body: object, message: str
) -> None:
    answering(server, status, body)
    with pytest.raises(TokenError, match=message) as caught:
        fetch_token(wanted, NOBODY)
    assert "team/app:pull,push other:pull at registry.example.com" in caught.value.message
    assert "\n" not in caught.value.message
    assert (caught.value.hint == "log in: cogkit login registry.example.com") == (status in (401, 403))


def test_secret_that_the_service_repeats_is_not_shown(server: TokenServer, wanted: TokenRequest) -> None:
    with pytest.raises(TokenError, match="wrong password") as caught:
        fetch_token(wanted, RegistryLogin("me", "mistyped"))
    assert "mistyped" not in str(caught.value)
    assert caught.value.hint == "log in again: cogkit login registry.example.com"


def test_service_that_is_not_there_is_one_sentence(wanted: TokenRequest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TokenError, match="cannot be reached"):
        fetch_token(replace(wanted, realm=f"http://127.0.0.1:{port}/token"), ME)


def test_service_that_falls_silent_is_given_up(wanted: TokenRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_token, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        realm = f"http://127.0.0.1:{listener.getsockname()[1]}/token"
        with pytest.raises(TokenError, match="timed out"):
            fetch_token(replace(wanted, realm=realm), ME)


@pytest.mark.parametrize(
    "realm",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "/token", "", "https://", "data:,x", "http://[::1", "http://a\nb/"],
)
def test_token_service_is_a_web_address_or_nothing(wanted: TokenRequest, realm: str) -> None:
    for login in (ME, NOBODY):
        with pytest.raises(TokenError, match="not a web address"):
            fetch_token(replace(wanted, realm=realm), login)


def test_secret_goes_to_another_machine_encrypted_or_not_at_all(wanted: TokenRequest) -> None:
    clear = replace(wanted, realm="http://auth.example.com/token")
    with pytest.raises(TokenError, match="not encrypted"):
        check_realm(clear, secret=True)
    check_realm(clear, secret=False)
    check_realm(replace(wanted, realm="https://auth.example.com/token"), secret=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_itself_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "example.com", "0.0.0.0", ""])
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_redirect_to_another_place_does_not_take_the_login_along(
    server: TokenServer, wanted: TokenRequest, tmp_path: Path
) -> None:
    elsewhere = TokenServer(tmp_path / "elsewhere", {"": ""})
    try:
        server.post_status = 404
        server.answer = lambda asked: (
            Answer(302, b"", {"Location": elsewhere.realm + "?service=x"}) if asked.method == "GET" else None
        )
        fetch_token(wanted, ME)
        (asked,) = elsewhere.asked
        assert "authorization" not in asked.headers
        assert SECRET not in str(asked)
    finally:
        elsewhere.stop()


def test_redirect_within_the_service_keeps_the_login(server: TokenServer, wanted: TokenRequest) -> None:
    def once(asked: Asked) -> Answer | None:
        if asked.method == "GET" and asked.path == "/token":
            return Answer(302, b"", {"Location": "/second?service=x"})
        return None

    server.post_status, server.answer = 404, once
    fetch_token(wanted, ME)
    assert [asked.path for asked in server.asked] == ["/token", "/token", "/second"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/token"])
def test_redirects_lead_to_web_addresses_and_end(server: TokenServer, wanted: TokenRequest, location: str) -> None:
    answering(server, 302, b"", Location=location)
    with pytest.raises(TokenError):
        fetch_token(wanted, NOBODY)
    assert len(server.asked) < 10


def test_https_service_is_verified_and_its_authority_can_be_given(certificates: Certificates, tmp_path: Path) -> None:
    server = TokenServer(tmp_path, {"me": SECRET}, certificates)
    wanted = TokenRequest("registry.example.com", server.realm, "s")
    try:
        with pytest.raises(TokenError, match="certificate verify failed"):
            fetch_token(wanted, ME)
        assert not server.asked
        assert fetch_token(wanted, ME, tls=ssl.create_default_context(cafile=certificates.ca)).value
    finally:
        server.stop()


def test_secret_does_not_leave_https_by_a_redirect(certificates: Certificates, tmp_path: Path) -> None:
    clear = TokenServer(tmp_path / "clear", {"": ""})
    server = TokenServer(tmp_path / "tls", {"me": SECRET}, certificates)
    answering(server, 302, b"", Location=clear.realm)
    try:
        with pytest.raises(TokenError, match="not encrypted"):
            fetch_token(
                TokenRequest("r.example.com", server.realm), ME, tls=ssl.create_default_context(cafile=certificates.ca)
            )
        assert not clear.asked
    finally:
        server.stop()
        clear.stop()


def test_proxy_of_the_environment_is_used_but_not_for_this_machine(
    server: TokenServer, wanted: TokenRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.realm.removesuffix("/token"))
    fetch_token(replace(wanted, realm="http://auth.example.com/by-proxy"), NOBODY)
    assert server.asked[0].headers["host"] == "auth.example.com"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    fetch_token(wanted, ME)


def test_no_token_is_in_a_repr(server: TokenServer, wanted: TokenRequest) -> None:
    token = fetch_token(wanted, NOBODY)
    assert token.value not in repr(token)
