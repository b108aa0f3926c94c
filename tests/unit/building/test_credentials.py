"""``--secret``, ``--ssh`` and ``--allow`` as buildx reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.credentials import parse_all_ssh, parse_entitlements, parse_secret, parse_secrets
from cogkit.building.options import SshSpec
from cogkit.buildkit.session.services.secrets import SecretSource
from cogkit.errors import UsageError


def file(id: str, path: str) -> SecretSource:
    return SecretSource(id, path=Path(path))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("id=a,src=b", file("a", "b")),
        ("id=a,source=b", file("a", "b")),
        ("ID=a,SRC=b", file("a", "b")),
        ("type=file,id=a,src=b", file("a", "b")),
        ("id=a,env=B", SecretSource("a", env="B")),
        ("id=a,type=env,src=B", SecretSource("a", env="B")),
        ("id=a,type=env,env=B", SecretSource("a", env="B")),
        ("id=a,src=b,env=C", SecretSource("a", env="C")),
        ("id=SET", SecretSource("SET", env="SET")),
        ("id=SET,type=env", SecretSource("SET", env="SET")),
        ("id=a", file("a", "a")),
        ('id=a,"src=b,c"', file("a", "b,c")),
    ],
)
def test_secret_is_a_file_or_a_variable(value: str, expected: SecretSource) -> None:
    assert parse_secret(value, environ={"SET": ""}) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("src=b", "the id is missing"),
        ("id=,src=b", "the id is missing"),
        ("id=a,type=vault", "neither file nor env"),
        ("id=a,mode=0400", "unknown key 'mode'"),
        ("a", "not KEY=VALUE"),
    ],
)
def test_secret_that_makes_no_sense_is_refused(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_secret(value)


def test_value_given_by_mistake_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_secret("id=token,s3cret")
    assert "s3cret" not in str(caught.value)


def test_last_secret_of_an_id_counts_and_empty_values_are_passed_over() -> None:
    assert parse_secrets(["id=a,src=1", "", "id=b,src=2", "id=a,src=3"]) == (file("a", "3"), file("b", "2"))


def test_ssh_is_an_id_with_sockets_or_keys() -> None:
    assert parse_all_ssh(["default", "", "a=/run/s", "b=k1,k2", "c="]) == (
        SshSpec("default"),
        SshSpec("a", (Path("/run/s"),)),
        SshSpec("b", (Path("k1"), Path("k2"))),
        SshSpec("c"),
    )


def test_two_agents_with_one_id_are_refused() -> None:
    with pytest.raises(UsageError, match="--ssh default is given twice"):
        parse_all_ssh(["default", "default=key"])


def test_entitlements_are_passed_on_and_that_of_local_deletion_is_told_apart() -> None:
    assert parse_entitlements(["network.host", "", "network.host", "device", "device=a.com/b=c,alias=x"]) == (
        ("network.host", "device", "device=a.com/b=c,alias=x"),
        False,
    )
    assert parse_entitlements(["buildx.local.delete"]) == ((), True)


@pytest.mark.parametrize(
    "value", ["network.none", "network.host=1", "buildx.local.delete=1", "device=a,b", "device=a,name=b", "Device"]
)
def test_unknown_entitlements_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--allow"):
        parse_entitlements([value])


def test_a_raw_socket_is_one_path() -> None:
    assert parse_all_ssh(["db=/run/db.sock,raw=true", "a=k1,raw=0,k2"]) == (
        SshSpec("db", (Path("/run/db.sock"),), raw=True),
        SshSpec("a", (Path("k1"), Path("k2"))),
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x=a,b,raw=true", "takes exactly one socket"),
        ("x=raw=true", "takes exactly one socket"),
        ("x=a,raw=maybe", "raw=maybe is neither true nor false"),
    ],
)
def test_a_raw_socket_is_refused(value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_all_ssh([value])
