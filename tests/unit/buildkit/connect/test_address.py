"""Builder addresses and TLS files: what is understood, and what is said about the rest."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cogkit.buildkit.connect.address import SCHEMES, Address, TlsConfig
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import UsageError
from tests.real.certificates import Certificates, make_certificates


@pytest.mark.parametrize(
    ("text", "expected", "target"),
    [
        ("unix:///run/b.sock", Address("unix", path="/run/b.sock"), "unix:/run/b.sock"),
        (" unix:///run/b.sock\n", Address("unix", path="/run/b.sock"), "unix:/run/b.sock"),
        ("unix:///run/a b%25.sock", Address("unix", path="/run/a b%25.sock"), "unix:/run/a%20b%2525.sock"),
        ("tcp://localhost:1234", Address("tcp", host="localhost", port=1234), "dns:///localhost:1234"),
        ("tcp://10.0.0.7:1234/", Address("tcp", host="10.0.0.7", port=1234), "dns:///10.0.0.7:1234"),
        ("tcp://[::1]:1234", Address("tcp", host="::1", port=1234), "dns:///[::1]:1234"),
    ],
)
def test_unix_and_tcp_addresses_are_understood(text: str, expected: Address, target: str) -> None:
    assert Address.parse(text) == expected
    assert expected.grpc_target == target
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no scheme"),
        ("/run/b.sock", "has no scheme"),
        ("http://x:1", "unknown scheme 'http'"),
        ("unix://relative.sock", "absolute path"),
        ("unix:///" + "a" * 107, "longer than 107 bytes"),
        ("tcp://host", "names no port"),
        ("tcp://:1234", "names no host"),
        ("tcp://host:99999", "malformed"),
        ("tcp://host:abc", "malformed"),
        ("tcp://[::1:1234", "malformed"),
        ("tcp://user@host:1", "more than a host and a port"),
        ("tcp://host:1/path", "more than a host and a port"),
    ],
)
def test_a_wrong_address_is_a_usage_error_with_the_right_form_as_hint(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        Address.parse(text)
    assert exit_code_of(caught.value) == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://builder", Address("ssh", host="builder")),
        ("ssh://Me@Builder:2222/run/b.sock", Address("ssh", "/run/b.sock", "Builder", 2222, "Me")),
        ("ssh://[::1]:22/", Address("ssh", host="::1", port=22)),
        ("docker-container://builder_1", Address("docker-container", host="builder_1")),
        ("docker-container://b?context=far away", Address("docker-container", host="b", context="far away")),
        ("podman-container://b.1", Address("podman-container", host="b.1")),
        ("nerdctl-container://b?namespace=k8s.io", Address("nerdctl-container", host="b", namespace="k8s.io")),
        ("kube-pod://b-0", Address("kube-pod", host="b-0")),
        (
            "kube-pod://b-0?context=me@cluster&namespace=ci&container=buildkitd",
            Address("kube-pod", host="b-0", context="me@cluster", namespace="ci", container="buildkitd"),
        ),
        ("docker://", Address("docker")),
        ("docker:///", Address("docker")),
        ("docker:///run/docker.sock", Address("docker", "/run/docker.sock")),
        ("docker://?context=desktop-linux", Address("docker", context="desktop-linux")),
    ],
)
def test_addresses_that_need_more_than_a_socket_are_understood(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected
    assert expected.grpc_target is None
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ssh://", "names no host"),
        ("ssh://me:secret@builder", "a password in it"),
        ("ssh://builder?x=1", "more than a host"),
        ("ssh://-oProxyCommand=id", "no host and user that ssh could take"),
        ("ssh://-l@builder", "no host and user that ssh could take"),
        ("ssh://builder:port", "malformed"),
        ("docker-container://", "names no container"),
        ("docker-container://--help", "not the name of a container"),
        ("docker-container://a/b", "not the name of a container"),
        ("podman-container://b?context=x", "unknown parameter 'context'"),
        ("kube-pod://under_score", "not the name of a pod"),
        ("kube-pod://b?context=--help", "not the name of a context"),
        ("kube-pod://b?namespace=A", "not the name of a namespace"),
        ("docker://builder", "wrong form"),
        ("docker:///run/docker.sock?context=x", "wrong form"),
    ],
)
def test_what_is_wrong_in_such_an_address_is_said(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        Address.parse(text)
    assert exit_code_of(caught.value) == 2
    assert "secret" not in str(caught.value)


def test_an_unknown_scheme_is_told_which_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse("http://builder:1234")
    assert caught.value.hint
    for scheme in SCHEMES:
        assert f"{scheme}://" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:///x", True),
        ("tcp://localhost:1", True),
        ("tcp://127.0.0.9:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://10.0.0.1:1", False),
        ("tcp://builder:1", False),
        ("ssh://localhost", True),
        ("ssh://builder", False),
        ("docker-container://b", True),
        ("kube-pod://b", False),
    ],
)
def test_only_addresses_of_this_very_machine_go_past_a_proxy(address: str, local: bool) -> None:
    assert Address.parse(address).is_loopback is local


def _socket_at(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return str(path)


def test_buildkit_host_goes_before_the_usual_sockets(tmp_path: Path) -> None:
    system = _socket_at(tmp_path / "system.sock")
    chosen = Address.default({"BUILDKIT_HOST": "tcp://there:1"}, system)
    assert chosen == Address("tcp", host="there", port=1)


def test_a_wrong_buildkit_host_is_named_as_the_culprit() -> None:
    with pytest.raises(UsageError) as caught:
        Address.default({"BUILDKIT_HOST": "nonsense"})
    assert str(caught.value).startswith("BUILDKIT_HOST: ")


def test_the_system_socket_goes_before_the_rootless_one(tmp_path: Path) -> None:
    system = _socket_at(tmp_path / "system.sock")
    _socket_at(tmp_path / "run/buildkit/buildkitd.sock")
    assert Address.default({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, system).path == system


def test_the_rootless_socket_serves_where_the_system_has_none(tmp_path: Path) -> None:
    rootless = _socket_at(tmp_path / "run/buildkit/buildkitd.sock")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert Address.default(environ, str(tmp_path / "none.sock")).path == rootless


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket")
def test_a_socket_that_this_user_may_open_goes_before_one_that_it_may_not(tmp_path: Path) -> None:
    system = _socket_at(tmp_path / "system.sock")
    os.chmod(system, 0)
    rootless = _socket_at(tmp_path / "run/buildkit/buildkitd.sock")
    assert Address.default({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, system).path == rootless


def test_without_any_socket_the_error_names_the_places_and_the_ways_out(tmp_path: Path) -> None:
    none = tmp_path / "none.sock"
    with pytest.raises(BuilderUnreachableError) as caught:
        Address.default({"XDG_RUNTIME_DIR": "/run/user/7"}, str(none))
    assert exit_code_of(caught.value) == 3
    assert f"no socket at {none} or /run/user/7/buildkit/buildkitd.sock" in caught.value.message
    assert caught.value.hint and "BUILDKIT_HOST" in caught.value.hint


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_good_tls_files_make_a_context_that_verifies(certificates: Certificates) -> None:
    config = TlsConfig(ca=certificates.ca, cert=certificates.client_cert, key=certificates.client_key)
    context = config.context()
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert config.trusted() == certificates.ca.read_bytes()


def test_a_missing_tls_file_is_named(certificates: Certificates, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    for config in (
        TlsConfig(ca=gone),
        TlsConfig(cert=gone, key=certificates.client_key),
        TlsConfig(cert=certificates.client_cert, key=gone),
    ):
        with pytest.raises(UsageError, match="cannot be read: No such file") as caught:
            config.context()
        assert caught.value.where == str(gone)


def test_a_file_that_is_no_certificate_is_named(certificates: Certificates, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("hello\n")
    with pytest.raises(UsageError, match="no certificate in PEM form") as caught:
        TlsConfig(ca=rubbish).context()
    assert caught.value.where == str(rubbish)
    with pytest.raises(UsageError, match="not in PEM form") as caught:
        TlsConfig(cert=rubbish, key=certificates.client_key).context()
    assert caught.value.where == str(rubbish)


def test_a_key_of_another_certificate_is_noticed(certificates: Certificates) -> None:
    with pytest.raises(UsageError, match="does not belong to the certificate") as caught:
        TlsConfig(cert=certificates.client_cert, key=certificates.server_key).context()
    assert caught.value.where == str(certificates.server_key)


def test_an_encrypted_key_is_refused_and_not_asked_for(certificates: Certificates, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="is encrypted"):
        TlsConfig(cert=certificates.client_cert, key=locked).context()


def test_certificate_and_key_go_together(certificates: Certificates) -> None:
    with pytest.raises(UsageError, match="certificate was given without its key"):
        TlsConfig(cert=certificates.client_cert).context()
    with pytest.raises(UsageError, match="key was given without its certificate"):
        TlsConfig(key=certificates.client_key).context()
