"""Registry logins from the Docker config, credential stores and helpers."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from cogkit.registry.docker_config import (
    HUB_HOST,
    CredentialHelperError,
    CredentialHelperMissingError,
    DockerConfig,
    RegistryLogin,
    ask_helper,
    config_path,
)

PASSWORD = "s3cret:with colon"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DOCKER_CONFIG, and a PATH with nothing but this machine's shell and what the test writes."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def auth(user: str = "me", password: str = PASSWORD) -> str:
    return b64encode(f"{user}:{password}".encode()).decode()


def write_config(folder: Path, content: Any) -> None:
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))


def write_helper(folder: Path, name: str, script: str) -> None:
    program = folder / "bin" / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_auths_are_base64_of_user_and_password(folder: Path) -> None:
    write_config(folder, {"auths": {"registry.example.com:5000": {"auth": auth()}}})
    assert DockerConfig.load().login("registry.example.com:5000") == RegistryLogin("me", PASSWORD)


def test_host_without_an_entry_gets_an_empty_login(folder: Path) -> None:
    write_config(folder, {"auths": {"registry.example.com": {"auth": auth()}}})
    assert DockerConfig.load().login("registry.example.com:5000") == RegistryLogin()
    assert DockerConfig.load().login("example.com") == RegistryLogin()


@pytest.mark.parametrize("host", [HUB_HOST, "docker.io", "index.docker.io"])
def test_docker_hub_is_kept_under_its_old_url(folder: Path, host: str) -> None:
    write_config(folder, {"auths": {"https://index.docker.io/v1/": {"auth": auth()}}})
    assert DockerConfig.load().login(host).username == "me"


def test_registries_of_docker_take_the_login_of_docker_hub_unless_they_have_their_own(folder: Path) -> None:
    entries = {"https://index.docker.io/v1/": {"auth": auth()}}
    write_config(folder, {"auths": entries})
    assert DockerConfig.load().login("dhi.io").username == "me"
    write_config(folder, {"auths": {**entries, "dhi.io": {"auth": auth("other")}}})
    assert DockerConfig.load().login("dhi.io").username == "other"


@pytest.mark.parametrize("name", ["https://old.example.com/v1/", "http://old.example.com", "old.example.com/v2/"])
def test_old_files_have_urls_as_names(folder: Path, name: str) -> None:
    write_config(folder, {"auths": {name: {"auth": auth()}}})
    assert DockerConfig.load().login("old.example.com").username == "me"


def test_identity_token_stands_for_user_and_password(folder: Path) -> None:
    write_config(folder, {"auths": {"r.example.com": {"auth": auth(), "identitytoken": "refresh"}}})
    login = DockerConfig.load().login("r.example.com")
    assert (login.user, login.secret) == ("", "refresh")


def test_registry_token_is_kept_even_beside_a_helper(folder: Path) -> None:
    write_helper(folder, "one", """echo '{"Username": "me", "Secret": "pw"}'""")
    write_config(folder, {"credsStore": "one", "auths": {"r.example.com": {"registrytoken": "bearer"}}})
    assert DockerConfig.load().login("r.example.com") == RegistryLogin("me", "pw", registry_token="bearer")


def test_missing_and_empty_config_is_no_login(folder: Path) -> None:
    assert DockerConfig.load() == DockerConfig()
    write_config(folder, " \n")
    assert DockerConfig.load() == DockerConfig()


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ('{\n "auths": {,}}', ":2:", "not JSON"),
        ("[]", "", "object is wanted"),
        ('{"auths": [1]}', "", "auths must be an object"),
        ('{"auths": {"a": 1}}', "", "login for a must be an object"),
        ('{"auths": {"a": {"auth": 1}}}', "", "not text"),
        ('{"auths": {"a": {"auth": "cGFzc3dvcmQ="}}}', "", "not the base64 of USER:PASSWORD"),
        ('{"auths": {"a": {"auth": "password!"}}}', "", "not the base64 of USER:PASSWORD"),
        ('{"credsStore": {}, "credHelpers": {"a": 1}}', "", "must name programs"),
        ("[" * 100_000, "", "nested too deeply"),
    ],
)
def test_config_that_makes_no_sense_is_warned_of_with_its_place(
    folder: Path, content: str, place: str, message: str
) -> None:
    write_config(folder, content)
    (fault,) = DockerConfig.load().warnings
    assert message in fault.message
    assert fault.where is not None
    assert fault.where.startswith(f"{folder}/config.json{place}")
    assert "password" not in str(fault).lower().replace("user:password", "")


@pytest.mark.parametrize(
    ("odd", "warned"),
    [
        ('"x.io": null', False),
        ('"x.io": {"auth": "not base64"}', True),
        ('"x.io": 5', True),
        ('"x.io": {"identitytoken": 5}', True),
        ('"x.io": {"auth": "\\ud800"}', True),
    ],
)
def test_an_odd_entry_costs_no_other_login(folder: Path, odd: str, warned: bool) -> None:
    write_config(folder, f'{{"auths": {{{odd}, "good.io": {{"auth": "{auth()}"}}}}}}')
    config = DockerConfig.load()
    assert config.login("good.io") == RegistryLogin("me", PASSWORD)
    assert config.login("x.io") == RegistryLogin()
    assert [("x.io" in fault.message) for fault in config.warnings] == [True] * warned


def test_the_file_is_read_as_go_reads_json(folder: Path) -> None:
    encoded = auth()
    broken = f"{encoded[:6]}\\r\\n{encoded[6:]}"
    write_config(folder, f'{{"Auths": {{"good.io": {{"AUTH": "{broken}"}}}}, "CredHelpers": {{"h.io": "x"}}}} more }}')
    config = DockerConfig.load()
    assert config.login("good.io") == RegistryLogin("me", PASSWORD)
    assert (config.helpers, config.warnings) == ({"h.io": "x"}, ())


def test_bytes_that_are_not_utf_8_spoil_only_their_own_value(folder: Path) -> None:
    content = b'{"auths": {"good.io": {"auth": "%b"}, "b\xff.io": {}}}' % auth().encode()
    (folder / "config.json").write_bytes(content)
    assert DockerConfig.load().login("good.io") == RegistryLogin("me", PASSWORD)


def test_a_variable_that_cannot_be_read_leaves_the_logins_of_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(folder, {"auths": {"good.io": {"auth": auth()}}})
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{")
    config = DockerConfig.load()
    assert config.login("good.io").username == "me"
    assert [fault.where for fault in config.warnings] == ["DOCKER_AUTH_CONFIG:1:2"]
    write_config(folder, "{")
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"good.io": {"auth": auth("env")}}}))
    config = DockerConfig.load()
    assert config.login("good.io").username == "env"
    assert len(config.warnings) == 1


def test_helper_is_asked_on_standard_input_by_the_name_of_the_registry(folder: Path) -> None:
    write_helper(folder, "asks", 'printf \'{"Username":"me","Secret":"%s %s"}\' "$1" "$(cat)"')
    write_config(folder, {"credHelpers": {"r.example.com": "asks"}, "auths": {"other.example.com": {"auth": auth()}}})
    config = DockerConfig.load()
    assert config.login("r.example.com").password == "get r.example.com"
    assert config.login("other.example.com").password == PASSWORD


def test_a_registrys_own_helper_comes_before_the_store_and_the_store_before_the_file(folder: Path) -> None:
    for name in ("own", "store"):
        write_helper(folder, name, f"""echo '{{"Username": "{name}", "Secret": "x"}}'""")
    entries = {"a.example.com": {"auth": auth()}, "b.example.com": {"auth": auth()}}
    write_config(folder, {"auths": entries, "credsStore": "store", "credHelpers": {"a.example.com": "own"}})
    config = DockerConfig.load()
    assert [config.login(host).username for host in entries] == ["own", "store"]


def test_helper_without_the_login_means_none(folder: Path) -> None:
    write_helper(folder, "empty", "echo 'credentials not found in native keychain'; exit 1")
    assert ask_helper("empty", "r.example.com") == RegistryLogin()


def test_user_token_of_a_helper_means_an_identity_token(folder: Path) -> None:
    write_helper(folder, "token", """echo '{"Username": "<token>", "Secret": "refresh"}'""")
    assert ask_helper("token", "r.example.com") == RegistryLogin(identity_token="refresh")


def test_helper_that_is_not_installed_is_named(folder: Path) -> None:
    with pytest.raises(CredentialHelperMissingError, match=r"docker-credential-gone.*r\.example\.com"):
        ask_helper("gone", "r.example.com")


def test_name_of_a_helper_cannot_lead_out_of_path(folder: Path) -> None:
    write_helper(folder, "x", """echo '{"Username": "me", "Secret": "pw"}'""")
    with pytest.raises(CredentialHelperMissingError):
        ask_helper("x/../docker-credential-x", "r.example.com")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'the keychain is locked'; exit 2", "the keychain is locked"),
        ("echo 'broken' >&2; exit 2", "broken"),
        ("exit 7", "exit code 7"),
        ("echo hello", "not a login"),
        ("echo '{\"Username\": 1}'", "not a login"),
        ("echo '[]'", "not a login"),
    ],
)
def test_helper_that_fails_says_why(folder: Path, script: str, message: str) -> None:
    write_helper(folder, "bad", script)
    with pytest.raises(CredentialHelperError, match=message):
        ask_helper("bad", "r.example.com")


def test_answer_that_is_no_login_is_not_shown(folder: Path) -> None:
    write_helper(folder, "bad", f"echo 'Secret: {PASSWORD}'")
    with pytest.raises(CredentialHelperError) as caught:
        ask_helper("bad", "r.example.com")
    assert PASSWORD not in f"{caught.value} {caught.value.hint} {caught.value.detail}"


def test_helper_that_does_not_answer_is_ended(folder: Path) -> None:
    write_helper(folder, "slow", "exec sleep 60")
    with pytest.raises(CredentialHelperError, match="did not answer"):
        ask_helper("slow", "r.example.com", timeout=0.2)


def test_default_store_is_used_only_when_the_config_says_nothing_of_logins(folder: Path) -> None:
    write_helper(folder, "secretservice", """echo '{"Username": "kept", "Secret": "x"}'""")
    write_config(folder, {"currentContext": "x"})
    assert DockerConfig.load().login("r.example.com").username == "kept"
    write_config(folder, {"auths": {"other.example.com": {"auth": auth()}}})
    assert DockerConfig.load().login("r.example.com") == RegistryLogin()


def test_logins_of_the_environment_come_first_and_others_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder, {"auths": {name: {"auth": auth("file")} for name in ("a.example.com", "b.example.com")}})
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"a.example.com": {"auth": auth("env")}}}))
    config = DockerConfig.load()
    assert [config.login(host).username for host in ("a.example.com", "b.example.com")] == ["env", "file"]


def test_config_is_in_the_home_folder_unless_docker_config_says_otherwise(tmp_path: Path) -> None:
    assert config_path({"HOME": "/home/me"}) == Path("/home/me/.docker/config.json")
    assert config_path({"HOME": "/home/me", "DOCKER_CONFIG": "/elsewhere"}) == Path("/elsewhere/config.json")


def test_no_secret_is_in_a_repr(folder: Path) -> None:
    login = RegistryLogin("me", "pw-secret", "refresh-secret", "bearer-secret")
    config = DockerConfig({"a": login}, environment={"b": login})
    assert "secret" not in repr(login) + repr(config)
