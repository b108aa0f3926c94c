"""Secrets: only those named, only while they are small, and in no message."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from cogkit._proto import secrets_pb2
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.secrets import MAX_SIZE, Secrets, SecretSource
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import UsageError
from tests.unit.service_call import FakeCall, ask, serve

METHOD = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
VALUE = b"\x00\xffs3cret\n"


async def secret(service: Secrets, id: str) -> bytes:
    request = secrets_pb2.GetSecretRequest(ID=id)
    return (await ask(service, METHOD, request, secrets_pb2.GetSecretResponse)).data


def refused(service: Secrets, id: str) -> CallError:
    with pytest.raises(CallError) as caught:
        asyncio.run(secret(service, id))
    return caught.value


def test_file_is_handed_out_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(VALUE)
    assert asyncio.run(secret(Secrets([SecretSource("t", path=tmp_path / "token")]), "t")) == VALUE


def test_environment_variable_is_handed_out_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"TOKEN", b"\xffs3cret")
    assert asyncio.run(secret(Secrets([SecretSource("t", env="TOKEN")]), "t")) == b"\xffs3cret"


@pytest.mark.parametrize("id", ["other", "", "HOME", "/etc/passwd", "../t"])
def test_id_that_was_not_named_is_not_found_whatever_this_machine_has_under_it(id: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(VALUE)
    error = refused(Secrets([SecretSource("t", path=tmp_path / "t")]), id)
    assert (error.code, error.cause) == (StatusCode.NOT_FOUND, None)


def test_file_is_read_once_so_that_a_pipe_can_be_a_secret_of_several_steps(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = SecretSource("t", path=tmp_path / "pipe")
    source.check()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(VALUE,), daemon=True).start()

    async def scenario() -> None:
        service = Secrets([source])
        first, second = await asyncio.gather(secret(service, "t"), secret(service, "t"))
        assert first == second == VALUE
        assert await secret(service, "t") == VALUE

    asyncio.run(scenario())


def test_largest_secret_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = SecretSource("t", path=path)
    path.write_bytes(b"x" * MAX_SIZE)
    source.check()
    assert len(asyncio.run(secret(Secrets([source]), "t"))) == MAX_SIZE
    path.write_bytes(b"x" * (MAX_SIZE + 1))
    with pytest.raises(UsageError, match="larger than 500 KiB"):
        source.check()
    assert "larger than 500 KiB" in refused(Secrets([source]), "t").message


def test_missing_sources_show_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    for source, message in (
        (SecretSource("t", path=tmp_path / "gone"), "secret t: cannot read .*gone: No such file"),
        (SecretSource("t", path=tmp_path), "is a folder"),
        (SecretSource("t", env="NOT_SET"), "NOT_SET is not set"),
    ):
        with pytest.raises(UsageError, match=message):
            source.check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_shows_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0)
    with pytest.raises(UsageError, match="Permission denied"):
        SecretSource("t", path=tmp_path / "token").check()


def test_file_that_goes_away_during_the_build_is_the_cause_the_user_sees(tmp_path: Path) -> None:
    error = refused(Secrets([SecretSource("t", path=tmp_path / "gone")]), "t")
    assert error.code is StatusCode.UNKNOWN
    assert "secret t: cannot read" in str(error.cause)


def test_last_of_two_sources_with_one_id_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    service = Secrets([SecretSource("t", path=tmp_path / name) for name in ("a", "b")])
    assert asyncio.run(secret(service, "t")) == b"b"


def test_value_is_in_no_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    source = SecretSource("t", env="TOKEN")
    service = Secrets([source])
    asyncio.run(secret(service, "t"))
    assert "s3cret" not in repr(source) + repr(service)


@pytest.mark.parametrize("messages", [[], [b"\xff\xff"]])
def test_call_without_a_request_is_an_error_and_no_crash(messages: list[bytes]) -> None:
    with pytest.raises(CallError) as caught:
        asyncio.run(serve(Secrets([]), FakeCall(METHOD, *messages)))
    assert caught.value.code is StatusCode.INTERNAL
