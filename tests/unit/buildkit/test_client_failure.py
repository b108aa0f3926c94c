"""What is made of the daemon's errors, and of connections that fail."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc.aio import AioRpcError, Metadata

from cogkit._proto import rpc_status_pb2
from cogkit.buildkit.connect.address import Address, TlsConfig
from cogkit.buildkit.connect.diagnosis import diagnose
from cogkit.buildkit.error_details import clean, request_failure, solve_failure
from cogkit.buildkit.errors import BuildError, BuilderUnreachableError, RequestError, SolveError, SourceLocation
from cogkit.buildkit.status import Range, SourceInfo
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.cli.exit_codes import exit_code_of
from tests.real.certificates import Certificates, make_certificates

DOCKERFILE = "FROM scratch\nCOPY a /a\nLABEL x=y\nCOPY nope /b\nRUN z\n"
FOUR = {"start": {"line": 4}, "end": {"line": 4}}
ADDRESS = "unix:///b.sock"


def _detail(kind: str, value: object) -> AnyMessage:
    url = f"github.com/moby/buildkit/{kind}+json"
    return AnyMessage(type_url=url, value=json.dumps(value).encode())


def _rpc_error(message: str, *details: AnyMessage, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> AioRpcError:
    trailer = Metadata()
    if details:
        status = rpc_status_pb2.Status(code=code.value[0], message=message, details=details)
        trailer = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return AioRpcError(code, Metadata(), trailer, details=message, debug_error_string="")


def _source(ranges: object) -> AnyMessage:
    data = base64.b64encode(DOCKERFILE.encode()).decode()
    return _detail("errdefs.Source", {"info": {"filename": "Dockerfile", "data": data, "new": 1}, "ranges": ranges})


def test_a_failed_build_names_step_and_dockerfile_lines() -> None:
    error = solve_failure(
        _rpc_error(
            "it failed",
            _detail("errdefs.Vertex", {"digest": "sha256:v"}),
            _source([FOUR]),
            _detail("gatewayapi.ExitMessage", {"Code": 7}),
        ),
        ADDRESS,
    )
    assert isinstance(error, SolveError) and isinstance(error, BuildError)
    assert exit_code_of(error) == 1
    assert str(error) == "Dockerfile:4: failed to solve: it failed"
    assert (error.vertex, error.process_exit_code, error.code) == ("sha256:v", 7, StatusCode.UNKNOWN)
    assert error.source == SourceLocation(SourceInfo("Dockerfile", DOCKERFILE.encode()), (Range(4, 4),))
    assert error.detail == (
        "Dockerfile:4\n"
        "--------------------\n"
        "   2 |     COPY a /a\n"
        "   3 |     LABEL x=y\n"
        "   4 | >>> COPY nope /b\n"
        "   5 |     RUN z\n"
        "   6 |\n"
        "--------------------"
    )


@pytest.mark.parametrize(
    ("ranges", "shown", "marked"),
    [
        ([Range(1, 1)], "123", "1"),
        ([Range(2, 3)], "1234", "23"),
        ([Range(5, 5), Range(2, 2)], "123456", "25"),
        ([Range(6, 9)], "456", "6"),
        ([Range(3, 0)], "12345", "3"),
    ],
)
def test_an_excerpt_shows_the_lines_and_a_little_around_them(ranges: list[Range], shown: str, marked: str) -> None:
    lines = SourceLocation(SourceInfo("D", DOCKERFILE.encode()), tuple(ranges)).excerpt().split("\n")[2:-1]
    assert "".join(line[3] for line in lines) == shown
    assert "".join(line[3] for line in lines if ">>>" in line) == marked


@pytest.mark.parametrize("ranges", [[], [Range(0, 0)], [Range(7, 7)]])
def test_a_place_outside_the_file_has_no_excerpt(ranges: list[Range]) -> None:
    assert SourceLocation(SourceInfo("D", DOCKERFILE.encode()), tuple(ranges)).excerpt() == ""


def test_the_hops_of_a_message_are_cleaned_away() -> None:
    message = "failed: rpc error: code = Unknown desc = a: rpc error: code = NotFound desc = b: not found"
    assert clean(message) == "failed: a: b: not found"


def test_details_of_another_kind_or_form_do_not_hide_the_message() -> None:
    odd = AnyMessage(type_url="github.com/moby/buildkit/errdefs.Source+json", value=b"\xff{")
    error = solve_failure(
        _rpc_error("it failed", odd, _detail("Brand.New", {}), _detail("errdefs.Vertex", [1])), ADDRESS
    )
    assert isinstance(error, SolveError)
    assert error.message == "failed to solve: it failed"
    assert error.sources == ()


def test_a_status_can_be_handed_on_whole() -> None:
    error = solve_failure(_rpc_error("it failed", _detail("errdefs.Vertex", {"digest": "sha256:v"})), ADDRESS)
    assert isinstance(error, SolveError)
    status = rpc_status_pb2.Status.FromString(error.status)
    assert (status.message, len(status.details)) == ("it failed", 1)


def test_unavailable_without_details_is_a_broken_connection_and_with_them_the_daemons_word() -> None:
    broken = solve_failure(_rpc_error("Socket closed", code=grpc.StatusCode.UNAVAILABLE), ADDRESS)
    assert isinstance(broken, BuilderUnreachableError)
    assert exit_code_of(broken) == 3
    assert broken.message == f"lost the builder at {ADDRESS}: it closed the connection"
    said = solve_failure(
        _rpc_error("no disk", _detail("errdefs.Vertex", {}), code=grpc.StatusCode.UNAVAILABLE), ADDRESS
    )
    assert isinstance(said, SolveError)


def test_a_request_that_an_old_daemon_does_not_know_is_told_as_that() -> None:
    error = request_failure(_rpc_error("unknown method", code=grpc.StatusCode.UNIMPLEMENTED), ADDRESS, "prune")
    assert isinstance(error, RequestError)
    assert "cannot prune" in error.message
    assert error.hint and "0.13.2" in error.hint


# ---- diagnosis: real sockets that behave like what users point at by mistake

Behaviour = Callable[[socket.socket], None]


@contextmanager
def _server(behaviour: Behaviour) -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                behaviour(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Address("tcp", host="127.0.0.1", port=listener.getsockname()[1])
        thread.join(timeout=60)
        assert not thread.is_alive()


def _says(answer: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(answer)
        connection.recv(100)

    return behave


def _says_nothing(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (_says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it answers with HTTP/1, so it is not a buildkitd"),
        (_says(b"\x15\x03\x01\x00\x02\x02\x46"), "it wants TLS"),
        (_says(b"SSH-2.0-OpenSSH_9\r\n"), "it does not speak gRPC, so it is not a buildkitd"),
        (_says(b"\0\0\0\x04\0\0\0\0\0"), "gave up"),
        (_says_nothing, "it accepts connections but does not answer"),
        (lambda connection: None, "it closed the connection at once|it broke the connection"),
    ],
)
def test_what_answers_instead_of_a_daemon_is_recognised(behaviour: Behaviour, reason: str) -> None:
    with _server(behaviour) as address:
        error = diagnose(address, None, "gave up")
    error_text = str(error)
    assert exit_code_of(error) == 3
    assert error.hint
    with pytest.raises(BuilderUnreachableError, match=f"no builder answers at {address}: ({reason})"):
        raise error
    assert not error_text.endswith(".")


def test_a_missing_socket_a_plain_file_and_a_dead_socket_are_told_apart(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        return diagnose(Address("unix", path=str(path)), None, "?").message

    assert "there is no such socket" in reason(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "it is not a socket" in reason(tmp_path / "file")
    assert "not a directory" in reason(tmp_path / "file" / "x")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert "nothing listens on it" in reason(tmp_path / "dead")


def test_a_refused_port_and_an_unknown_host_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused = diagnose(Address("tcp", host="127.0.0.1", port=port), None, "?")
    assert "connection refused" in refused.message
    unknown = diagnose(Address("tcp", host="no-such-host.invalid", port=1), None, "?")
    assert "'no-such-host.invalid' cannot be resolved" in unknown.message


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_to_a_plain_port_is_recognised(certificates: Certificates) -> None:
    with _server(_says(b"\0\0\0\x04\0\0\0\0\0")) as address:
        error = diagnose(address, TlsConfig(ca=certificates.ca), "?")
    assert "it does not speak TLS" in error.message
