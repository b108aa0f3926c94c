"""Private registries with the real daemon: Basic and token authentication, and where the password goes."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import events, succeeded
from tests.real.registry import Registry
from tests.real.token_server import TokenServer

USER, PASSWORD = "me", "s3cret-password"
SERVICE = "registry of the tests"


@pytest.fixture(scope="module")
def basic_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    started = Registry(tmp_path_factory.mktemp("basic-registry"), user=(USER, PASSWORD))
    yield started
    started.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    started = TokenServer(tmp_path / "tokens", {USER: PASSWORD})
    yield started
    started.stop()


@pytest.fixture
def token_registry(tmp_path: Path, tokens: TokenServer) -> Iterator[Registry]:
    started = Registry(tmp_path / "token-registry", auth=tokens.registry_config(SERVICE))
    yield started
    started.stop()


@pytest.fixture
def cogkit_env(cogkit_env: dict[str, str | None], tmp_path: Path) -> dict[str, str | None]:
    """With an empty Docker config of the test's own, and a config folder of its own."""
    return cogkit_env | {"DOCKER_CONFIG": str(tmp_path / "docker"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def log_in(tmp_path: Path, host: str, password: str = PASSWORD) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    auth = b64encode(f"{USER}:{password}".encode()).decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def steps(stderr: str) -> list[str]:
    return [str(vertex["name"]) for vertex in events(stderr, "vertexes")]


def push_then_pull(context_tree: MakeTree, run_cogkit: RunCogkit, image: str, *, rawjson: bool = True) -> str:
    """Build and push an image, then build on it without any cache of it; gives the progress of both."""
    progress = "--progress=rawjson" if rawjson else "--progress=plain"
    first = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": image}, name="first")
    pushed = succeeded(run_cogkit("build", first, "-t", image, "--push", progress))
    second = context_tree({"Dockerfile": f"FROM {image}\nCOPY file /second\n", "file": "2"}, name="second")
    pulled = succeeded(run_cogkit("build", second, "--pull", "-o", "type=tar,dest=/dev/null", progress))
    return pushed.stderr + pulled.stderr


def test_image_goes_to_a_registry_with_a_password_and_comes_back(
    context_tree: MakeTree, run_cogkit: RunCogkit, basic_registry: Registry, tmp_path: Path
) -> None:
    log_in(tmp_path, basic_registry.host)
    progress = push_then_pull(context_tree, run_cogkit, f"{basic_registry.host}/team/app")
    assert basic_registry.manifest("team/app", "latest")["layers"]
    assert f"[auth] sharing credentials for {basic_registry.host}" in steps(progress)
    assert PASSWORD not in progress


def test_wrong_and_missing_passwords_fail_the_push_and_nothing_else(
    context_tree: MakeTree, run_cogkit: RunCogkit, basic_registry: Registry, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    for password in (None, "wrong-password"):
        if password is not None:
            log_in(tmp_path, basic_registry.host, password)
        done = run_cogkit("build", project, "-t", f"{basic_registry.host}/refused", "--push")
        assert done.returncode == 1
        assert "error: " in done.stderr
        assert "401" in done.stderr or "authoriz" in done.stderr.lower() or "no basic auth" in done.stderr.lower()
        assert "hint: if that is a registry, log in to it" in done.stderr
        assert "wrong-password" not in done.stderr
        assert "Traceback" not in done.stderr


def test_password_of_a_token_registry_never_reaches_the_daemon(
    context_tree: MakeTree, run_cogkit: RunCogkit, token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    log_in(tmp_path, token_registry.host)
    progress = push_then_pull(context_tree, run_cogkit, f"{token_registry.host}/team/app")
    # The client asks with its own User-Agent and by POST first; the daemon would ask by GET, as containerd.
    agents = {asked.headers["user-agent"].partition("/")[0] for asked in tokens.asked}
    assert agents == {"cogkit"}
    assert {asked.method for asked in tokens.asked} == {"POST"}
    assert not any("sharing credentials" in name for name in steps(progress))
    assert f"[auth] team/app:pull,push token for {token_registry.host}" in steps(progress)
    assert PASSWORD not in progress


def test_daemon_fetches_the_token_itself_when_asked_to(
    context_tree: MakeTree,
    run_cogkit: RunCogkit,
    token_registry: Registry,
    tokens: TokenServer,
    tmp_path: Path,
    cogkit_env: dict[str, str | None],
) -> None:
    log_in(tmp_path, token_registry.host)
    cogkit_env["BUILDKIT_NO_CLIENT_TOKEN"] = "1"
    progress = push_then_pull(context_tree, run_cogkit, f"{token_registry.host}/team/app")
    assert not any(asked.headers["user-agent"].startswith("cogkit") for asked in tokens.asked)
    assert f"[auth] sharing credentials for {token_registry.host}" in steps(progress)


def test_refusal_of_the_token_service_is_what_the_user_reads(
    context_tree: MakeTree, run_cogkit: RunCogkit, token_registry: Registry, tmp_path: Path
) -> None:
    log_in(tmp_path, token_registry.host, "mistyped")
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    done = run_cogkit("build", project, "-t", f"{token_registry.host}/app", "--push")
    assert done.returncode == 1
    assert f"no access to app:pull,push at {token_registry.host}: the token service 127.0.0.1 says 401" in done.stderr
    assert f"hint: log in again: cogkit login {token_registry.host}" in done.stderr
    assert "mistyped" not in done.stderr


def test_credential_helper_is_asked_and_a_missing_one_is_a_warning(
    context_tree: MakeTree,
    run_cogkit: RunCogkit,
    basic_registry: Registry,
    tmp_path: Path,
    cogkit_env: dict[str, str | None],
) -> None:
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin" / "docker-credential-tests"
    helper.write_text(f"""#!/bin/sh\necho '{{"Username": "{USER}", "Secret": "{PASSWORD}"}}'\n""")
    helper.chmod(0o755)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"credsStore": "tests"}))
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    build = ("build", project, "-t", f"{basic_registry.host}/helped", "--push")
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    succeeded(run_cogkit(*build, env={"PATH": path}))
    helper.unlink()
    done = run_cogkit(*build, env={"PATH": path})
    assert done.returncode == 1
    assert "warning: the Docker config asks docker-credential-tests" in done.stderr


def test_docker_config_that_makes_no_sense_is_a_warning_that_names_its_place(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text("{\n  oops")
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    done = succeeded(run_cogkit("build", project))
    assert f"warning: a registry login is not used: {tmp_path}/docker/config.json:2:3: not JSON" in done.stderr
