"""Where a build goes when something, or nothing, is said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogkit.builders import choice, programs
from cogkit.builders.choice import choose
from cogkit.builders.config_file import add_builder, add_node, choose_builder
from cogkit.builders.records import DEFAULT, PRIVATE
from cogkit.buildkit.connect.address import TlsConfig
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr(choice, "_DOCKER_SOCKETS", (str(tmp_path / "docker.sock"),))
    monkeypatch.setattr(programs, "find_programs", lambda: None)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="ck-") as folder:
        yield Path(folder)


@pytest.fixture
def listening(sockets: Path) -> Iterator[str]:
    """A socket that somebody listens on."""
    path = sockets / "buildkitd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield str(path)


def address_of(target: choice.Target) -> str:
    (node,) = target.builder.nodes
    return node.address


def test_an_address_goes_before_all(listening: str) -> None:
    target = choose("tcp://a:1", environ={"BUILDKIT_HOST": "tcp://b:1"}, system_socket=listening)
    assert address_of(target) == "tcp://a:1"


def test_a_name_goes_before_the_environment(listening: str) -> None:
    add_builder("team", {"address": "tcp://team:1"})
    target = choose(name="team", environ={"BUILDKIT_HOST": "tcp://b:1"}, system_socket=listening)
    assert (target.builder.name, address_of(target)) == ("team", "tcp://team:1")


def test_the_environment_goes_before_the_chosen_builder(listening: str) -> None:
    add_builder("team", {"address": "tcp://team:1"}, choose=True)
    target = choose(environ={"BUILDKIT_HOST": "tcp://b:1"}, system_socket=listening)
    assert (address_of(target), target.why) == ("tcp://b:1", "BUILDKIT_HOST")


def test_the_chosen_builder_goes_before_what_is_found(listening: str) -> None:
    add_builder("team", {"address": "tcp://team:1"}, choose=True)
    assert address_of(choose(environ={}, system_socket=listening)) == "tcp://team:1"
    assert address_of(choose(name=DEFAULT, environ={}, system_socket=listening)) == f"unix://{listening}"


def test_a_usual_socket_is_found(listening: str) -> None:
    assert address_of(choose(environ={}, system_socket=listening)) == f"unix://{listening}"


def test_the_socket_of_a_rootless_daemon_is_found(sockets: Path) -> None:
    folder = sockets / "buildkit"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "buildkitd.sock"))
        listener.listen()
        target = choose(environ={"XDG_RUNTIME_DIR": str(sockets)}, system_socket=str(sockets / "none"))
    assert address_of(target) == f"unix://{folder}/buildkitd.sock"


def test_a_docker_engine_goes_before_the_private_builder_and_after_buildkitd(
    sockets: Path, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_DOCKER_SOCKETS", (listening,))
    assert address_of(choose(environ={}, system_socket=str(sockets / "none"))) == f"docker://{listening}"
    assert address_of(choose(environ={}, system_socket=listening)) == f"unix://{listening}"


def test_a_docker_host_alone_counts(sockets: Path, listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = str(sockets / "none")
    named = {"DOCKER_HOST": f"unix://{listening}"}
    assert address_of(choose(environ=named, system_socket=nowhere)) == f"docker://{listening}"
    monkeypatch.setattr(choice, "_DOCKER_SOCKETS", (listening,))
    for host in (f"unix://{nowhere}", "ssh://elsewhere"):
        assert choose(environ={"DOCKER_HOST": host}, system_socket=nowhere).private is not None


def test_a_stale_socket_is_passed_over(sockets: Path) -> None:
    path = sockets / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    target = choose(environ={}, system_socket=str(path))
    assert target.builder.name == PRIVATE
    assert target.private is not None
    assert target.passed_over == (f"{path}: connection refused",)


def test_with_nothing_at_all_it_is_the_private_builder(sockets: Path) -> None:
    target = choose(environ={}, system_socket=str(sockets / "none"))
    assert target.private is not None
    assert target.passed_over == ()


def test_the_private_builder_can_be_named_and_chosen(listening: str) -> None:
    assert choose(name=PRIVATE, environ={}, system_socket=listening).private is not None
    choose_builder(PRIVATE)
    assert choose(environ={}, system_socket=listening).private is not None


def test_without_programs_there_is_no_builder(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise BuilderUnreachableError("there is no buildkitd", hint="get one")

    monkeypatch.setattr(programs, "find_programs", none)
    with pytest.raises(BuilderUnreachableError, match="no builder found: BUILDKIT_HOST is not set") as caught:
        choose(environ={}, system_socket=str(sockets / "none"))
    assert "there is no buildkitd" in caught.value.message
    assert caught.value.hint is not None
    assert "get one" in caught.value.hint


def test_labels_choose_among_the_nodes_of_a_farm() -> None:
    add_builder("farm", {"address": "tcp://a:1", "labels": {"gpu": "a100"}})
    add_node("farm", {"name": "b", "address": "tcp://b:1", "labels": {"gpu": "h100", "disk": "big"}})
    assert len(choose(name="farm", environ={}).builder.nodes) == 2
    assert address_of(choose(name="farm,gpu=h100,disk=big", environ={})) == "tcp://b:1"
    with pytest.raises(UsageError, match="no node of the builder 'farm' has gpu=none"):
        choose(name="farm,gpu=none", environ={})
    with pytest.raises(UsageError, match="'gpu' is not a label"):
        choose(name="farm,gpu", environ={})


def test_words_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="two builders are named"):
        choose("tcp://a:1", "team", environ={})
    with pytest.raises(UsageError, match="there is no builder 'team'"):
        choose(name="team", environ={})
    with pytest.raises(UsageError, match="is an address, not a builder's name"):
        choose(name="tcp://a:1", environ={})
    with pytest.raises(UsageError, match="has no scheme") as caught:
        choose(environ={"BUILDKIT_HOST": "nonsense"})
    assert caught.value.where == "BUILDKIT_HOST"


def test_tls_options_go_with_an_address_alone(listening: str) -> None:
    tls = TlsConfig(server_name="x")
    assert choose("tcp://a:1", tls=tls, environ={}).builder.nodes[0].tls == tls
    assert choose(environ={"BUILDKIT_HOST": "tcp://a:1"}, tls=tls).builder.nodes[0].tls == tls
    add_builder("team", {"address": "tcp://team:1"}, choose=True)
    with pytest.raises(UsageError, match="TLS options do not go with the builder 'team'"):
        choose(tls=tls, environ={})
    with pytest.raises(UsageError, match="TLS options do not go with a builder on this machine"):
        choose(name=DEFAULT, tls=tls, environ={}, system_socket=listening)


def test_a_broken_list_matters_only_when_it_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "cogkit"
    folder.mkdir(parents=True)
    (folder / "builders.toml").write_text("[")
    assert choose(environ={"BUILDKIT_HOST": "tcp://b:1"}).why == "BUILDKIT_HOST"
    with pytest.raises(ConfigError, match="not TOML"):
        choose(environ={})


def test_a_build_with_an_address_imports_nothing_of_this(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    script = (
        "import sys\nfrom cogkit.cli.main import main\n"
        f"assert main(['build', '-o', 'type=image,name=x', {str(tmp_path)!r}]) == 3\n"
        "print([name for name in sys.modules if name.startswith(('cogkit.builders', 'platformdirs', 'tom'))])"
    )
    environ = {**os.environ, "BUILDKIT_HOST": f"unix://{tmp_path}/none", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, timeout=120)
    assert done.stdout == "[]\n", done.stderr
