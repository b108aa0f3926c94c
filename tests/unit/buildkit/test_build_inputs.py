"""Plain values of a program become services of the session, and nothing that was not given is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cogkit.buildkit.build_inputs import MACHINE_LOGINS, services_for
from cogkit.buildkit.session.services.auth import Auth
from cogkit.buildkit.session.services.secrets import MAX_SIZE, Secrets, SecretSource
from cogkit.errors import UsageError
from cogkit.registry.docker_config import DockerConfig, RegistryLogin


def test_nothing_given_is_nothing_served() -> None:
    assert services_for(None, {}, {}) == ()


def test_secrets_come_from_bytes_text_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"of a file")
    monkeypatch.setenv("A_SECRET", "of the environment")
    (one,) = services_for(None, {"bytes": b"\0raw", "text": "w\u00f6rd", "file": tmp_path / "file"}, {})
    assert isinstance(one, Secrets)
    sources = one._sources
    assert {id: source.read() for id, source in sources.items()} == {
        "bytes": b"\0raw",
        "text": "w\u00f6rd".encode(),
        "file": b"of a file",
    }
    (other,) = services_for(None, {"e": SecretSource("", env="A_SECRET")}, {})
    assert isinstance(other, Secrets)
    assert other._sources["e"].read() == b"of the environment"


def test_a_value_is_not_shown() -> None:
    assert "hush" not in repr(SecretSource("x", value=b"hush"))


def test_what_is_not_there_or_too_large_is_refused_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="secret x: cannot read"):
        services_for(None, {"x": tmp_path / "missing"}, {})
    with pytest.raises(UsageError, match="secret x: it is larger than"):
        services_for(None, {"x": bytes(MAX_SIZE + 1)}, {})


def test_logins_are_those_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = RegistryLogin("me", "password")
    (service,) = services_for({"docker.io": login, "example.com:5000": login}, {}, {})
    assert isinstance(service, Auth)
    config = service._config
    assert config.login("registry-1.docker.io") == config.login("example.com:5000") == login
    assert config.login("example.com") == RegistryLogin()
    given = DockerConfig()
    (service,) = services_for(given, {}, {})
    assert isinstance(service, Auth) and service._config is given


def test_logins_are_those_of_this_machine_if_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"auths": {"example.com": {"username": "me", "password": "password"}}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    (service,) = services_for(MACHINE_LOGINS, {}, {})
    assert isinstance(service, Auth)
    assert service._config.login("example.com").username == "me"
