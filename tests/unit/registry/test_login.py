"""Logging in: what a registry is asked, and where a login is kept."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cogkit.errors import CogkitError, ConfigError, OutputError, UsageError
from cogkit.project.replicate import token_page, user_of
from cogkit.registry.docker_config import (
    CredentialHelperError,
    CredentialHelperMissingError,
    DockerConfig,
    RegistryLogin,
)
from cogkit.registry.login import LoginRefusedError, check_login, keep_login, registry_key

LOGIN = RegistryLogin("me", "s3cret:word")
BASIC = "Basic " + base64.b64encode(b"me:s3cret:word").decode()


class FakeHost:
    """A web server with fixed answers: path → (status, headers, body); ``asked`` has what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        self.asked: list[tuple[str, str, str, bytes]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
                status, headers, answer = fake.answers.get(self.path.partition("?")[0], (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake() -> Iterator[FakeHost]:
    started = FakeHost()
    yield started
    started.stop()


# ---- the check


def test_basic_authentication_is_one_request(fake: FakeHost) -> None:
    fake.answers["/v2/"] = (200, {}, b"{}")
    check_login(fake.host, LOGIN)
    assert [asked[:3] for asked in fake.asked] == [("GET", "/v2/", BASIC)]


@pytest.mark.parametrize(("status", "words"), [(401, "refuses this user and password"), (500, "answers 500")])
def test_a_registry_that_does_not_take_the_login_says_so(status: int, words: str, fake: FakeHost) -> None:
    fake.answers["/v2/"] = (status, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
    with pytest.raises(LoginRefusedError, match=words) as caught:
        check_login(fake.host, LOGIN)
    assert "s3cret" not in str(caught.value)


def test_token_of_the_registrys_service_is_shown_to_the_registry(fake: FakeHost) -> None:
    challenge = f'Bearer realm="http://{fake.host}/token",service="the registry"'
    fake.answers["/v2/"] = (401, {"WWW-Authenticate": challenge}, b"")
    fake.answers["/token"] = (200, {}, b'{"access_token": "t0ken"}')
    with pytest.raises(LoginRefusedError):
        check_login(fake.host, LOGIN)  # this registry refuses the token, too
    assert fake.asked[-1][2] == "Bearer t0ken"
    fake.answers["/token"] = (401, {}, b"")
    with pytest.raises(LoginRefusedError, match="the token service"):
        check_login(fake.host, LOGIN)


def test_a_redirect_does_not_take_the_password_elsewhere(fake: FakeHost) -> None:
    fake.answers["/v2/"] = (302, {"Location": f"http://{fake.host}/elsewhere"}, b"")
    with pytest.raises(LoginRefusedError, match="answers 302"):
        check_login(fake.host, LOGIN)
    assert all(path != "/elsewhere" for _, path, _, _ in fake.asked)


def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(LoginRefusedError, match="cannot be reached"):
        check_login("127.0.0.1:1", LOGIN)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("localhost:5000/", "localhost:5000"),
        ("docker.io", "https://index.docker.io/v1/"),
        ("", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "https://index.docker.io/v1/"),
    ],
)
def test_a_registry_has_one_name(name: str, key: str) -> None:
    assert registry_key(name) == key


@pytest.mark.parametrize("name", ["a b", "ghcr.io/me", "x@y", "http://"])
def test_what_is_no_registry_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        registry_key(name)


# ---- keeping it


def test_a_new_config_is_private_and_is_what_we_read(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path / "new" / "docker"), "PATH": ""}
    place = keep_login("ghcr.io", LOGIN, environ)
    assert place == str(tmp_path / "new" / "docker" / "config.json")
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    assert DockerConfig.load(environ).login("ghcr.io") == LOGIN


def test_everything_else_in_the_config_stays_and_a_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text('{"psFormat": "ü", "auths": {"old": {"auth": "YTpi"}, "ghcr.io": {"auth": "Yzpk"}}}')
    (tmp_path / "config.json").symlink_to(real)
    keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})
    assert (tmp_path / "config.json").is_symlink()
    content = json.loads(real.read_text())
    assert content["psFormat"] == "ü"
    assert content["auths"]["old"] == {"auth": "YTpi"}
    assert content["auths"]["ghcr.io"] == {"auth": BASIC.removeprefix("Basic ")}


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}'])
def test_a_config_that_makes_no_sense_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})
    assert (tmp_path / "config.json").read_text() == text


def test_a_config_that_cannot_be_written_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"a": {"auth": "YTpi"}}}')

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError):
        keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert "ghcr.io" not in (tmp_path / "config.json").read_text()


def helper(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("config", [{"credsStore": "tests"}, {"credHelpers": {"ghcr.io": "tests"}, "credsStore": "no"}])
def test_a_credential_helper_keeps_it_and_the_file_does_not(
    config: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, f'echo "$1" > {tmp_path}/verb; cat > {tmp_path}/told', monkeypatch)
    (tmp_path / "config.json").write_text(json.dumps(config))
    place = keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})
    assert place == "docker-credential-tests"
    assert (tmp_path / "verb").read_text() == "store\n"
    assert json.loads((tmp_path / "told").read_text()) == {
        "ServerURL": "ghcr.io",
        "Username": "me",
        "Secret": "s3cret:word",
    }
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_a_helper_that_fails_or_is_missing_is_told_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, "cat; exit 3", monkeypatch)
    (tmp_path / "config.json").write_text('{"credsStore": "tests"}')
    with pytest.raises(CredentialHelperError) as caught:
        keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})
    assert "s3cret" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"credsStore": "absent"}')
    with pytest.raises(CredentialHelperMissingError):
        keep_login("ghcr.io", LOGIN, {"DOCKER_CONFIG": str(tmp_path)})


# ---- Replicate


def test_replicate_says_whose_token_it_is_and_where_to_get_one(fake: FakeHost) -> None:
    fake.answers["/cog/v1/verify-token"] = (200, {}, b'{"username": "me"}')
    fake.answers["/cog/v1/display-token-url"] = (200, {}, b'{"url": "https://example.com/token"}')
    address = f"http://{fake.host}"
    assert user_of(address, "a&b") == "me"
    assert fake.asked[-1][3] == b"token=a%26b"
    assert token_page(address) == "https://example.com/token"


@pytest.mark.parametrize(
    ("token", "status", "error", "words"),
    [
        ("", 200, UsageError, "token is empty"),
        ("r8_abc", 200, UsageError, "that looks like a Replicate API token"),
        ("t", 404, CogkitError, "user does not exist"),
        ("t", 500, CogkitError, "HTTP status 500"),
        ("t", 200, CogkitError, "does not say whose token it is"),
    ],
)
def test_a_bad_token_is_told_in_cogs_words(
    token: str, status: int, error: type[Exception], words: str, fake: FakeHost
) -> None:
    fake.answers["/cog/v1/verify-token"] = (status, {}, b"{}")
    with pytest.raises(error, match=words):
        user_of(f"http://{fake.host}", token)
