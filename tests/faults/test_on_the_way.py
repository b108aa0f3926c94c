"""Who is between cogkit and its builder: plain text is told of, TLS is verified, and nothing goes to a stranger."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.dialer import TcpDialer
from tests.conftest import RunCogkit
from tests.faults.hostile_daemon import HostileDaemon, Script
from tests.real.certificates import Certificates, make_certificates

pytestmark = pytest.mark.one_release_is_enough

WARNING = "is not encrypted"


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine that another one could use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as looking:
        try:
            looking.connect(("192.0.2.1", 9))  # sends nothing
        except OSError as error:
            pytest.skip(f"this machine has no address but loopback's: {error.strerror}")
        return str(looking.getsockname()[0])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    key, chain = certificates.server_key.read_bytes(), certificates.server_cert.read_bytes()
    return grpc.ssl_server_credentials([(key, chain)])


@pytest.mark.parametrize("mode", ["plain", "quiet"])
def test_plain_text_to_another_machine_is_warned_of_once(
    run_cogkit: RunCogkit, project: Path, own_address: str, mode: str
) -> None:
    with HostileDaemon(Script, host=own_address) as daemon:
        done = run_cogkit("build", project, "--addr", daemon.address, "--progress", mode, "-t", "x")
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if WARNING in line]
    assert warning.startswith("warning: ") and daemon.address in warning and "--tlscacert" in warning


def test_the_warning_is_an_event_in_raw_json(run_cogkit: RunCogkit, project: Path, own_address: str) -> None:
    with HostileDaemon(Script, host=own_address) as daemon:
        done = run_cogkit("build", project, "--addr", daemon.address, "--progress", "rawjson", "-t", "x")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines()]
    shorts = [warning["short"] for event in events for warning in event.get("warnings", [])]
    assert len(shorts) == 1


def test_the_library_warns_by_its_log(own_address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def connect(address: str) -> None:
        await (await AsyncClient.connect(address)).aclose()

    with HostileDaemon(Script, host=own_address) as daemon, caplog.at_level(logging.WARNING):
        asyncio.run(connect(daemon.address))
    assert [record.name for record in caplog.records if WARNING in record.message] == ["cogkit.buildkit.client"]


def test_this_machine_itself_is_not_warned_of(run_cogkit: RunCogkit, project: Path) -> None:
    for host in (None, "127.0.0.1", "localhost"):
        with HostileDaemon(Script, host=host) as daemon:
            done = run_cogkit("build", project, "--addr", daemon.address, "--progress", "plain", "-t", "x")
        assert done.returncode == 0 and WARNING not in done.stderr


@pytest.mark.parametrize(
    ("host", "resolved", "warns"),
    [
        ("127.0.0.1", None, False),
        ("127.9.9.9", None, False),
        ("::1", None, False),
        ("::ffff:127.0.0.1", None, False),
        ("0.0.0.0", None, False),
        ("10.0.0.1", None, True),
        ("::ffff:10.0.0.1", None, True),
        ("builder", ["127.0.1.1"], False),
        ("builder", ["127.0.1.1", "10.0.0.1"], True),
        ("builder", ["fe80::1%eth0"], True),
        ("builder", [], True),
    ],
)
def test_a_name_counts_as_what_it_resolves_to(
    host: str, resolved: list[str] | None, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(name: str, port: int, **_: Any) -> list[tuple[object, ...]]:
        if resolved is not None and not resolved:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in resolved or [name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = asyncio.run(TcpDialer(Address("tcp", host=host, port=1234), None).is_far())
    assert found is warns


def test_tls_verifies_unless_nothing_else_is_said_and_is_not_warned_of(
    run_cogkit: RunCogkit, project: Path, certificates: Certificates, tmp_path: Path
) -> None:
    """Every TLS option turns verification on; there is none that turns it off."""
    asked: list[bytes] = []

    class Listens(Script):
        async def info(self) -> Any:
            asked.append(b"info")
            return await super().info()

    strangers = make_certificates(tmp_path / "strangers")
    with HostileDaemon(Listens, host="127.0.0.1", credentials=server_credentials(certificates)) as daemon:
        address = daemon.address.replace("127.0.0.1", "localhost")
        build = ("build", project, "--addr", address, "--progress", "plain", "-t", "x")
        for flags in (
            ("--tlscacert", strangers.ca),
            ("--tlscacert", certificates.ca, "--tlsservername", "elsewhere.example"),
            ("--tlsservername", "localhost"),
            ("--tlscert", certificates.client_cert, "--tlskey", certificates.client_key),
        ):
            done = run_cogkit(*build, *flags)
            assert done.returncode == 3 and "its TLS certificate cannot be trusted" in done.stderr, done.stderr
        assert asked == []
        done = run_cogkit(*build, "--tlscacert", certificates.ca)
    assert done.returncode == 0, done.stderr
    assert asked and WARNING not in done.stderr


def test_tls_to_another_machine_is_not_warned_of(
    run_cogkit: RunCogkit, project: Path, certificates: Certificates, own_address: str
) -> None:
    with HostileDaemon(Script, host=own_address, credentials=server_credentials(certificates)) as daemon:
        flags = ("--tlscacert", certificates.ca, "--tlsservername", "localhost")
        done = run_cogkit("build", project, "--addr", daemon.address, "--progress", "plain", "-t", "x", *flags)
    assert done.returncode == 0, done.stderr
    assert WARNING not in done.stderr
