"""Flags on how steps run and what is attested of them, as docker and buildx read them."""

from __future__ import annotations

import pytest

from cogkit.building.step_settings import (
    parse_attestations,
    parse_hosts,
    parse_network,
    parse_resources,
    parse_size,
    parse_ulimits,
)
from cogkit.errors import UsageError


def test_network_is_host_none_or_the_builders_own() -> None:
    assert [parse_network(value) for value in ("host", "none", "default", "", None)] == [
        "host",
        "none",
        None,
        None,
        None,
    ]
    with pytest.raises(UsageError, match="--network bridge"):
        parse_network("bridge")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("db:10.0.0.5", ("db=10.0.0.5",)),
        ("db=10.0.0.5", ("db=10.0.0.5",)),
        ("db:::1", ("db=::1",)),
        ("db=[::1]", ("db=::1",)),
        ("db=10.0.0.5,::1", ("db=10.0.0.5", "db=::1")),
        ("a:10.0.0.1,b:10.0.0.2", ("a=10.0.0.1", "b=10.0.0.2")),
        ('"db=10.0.0.5,10.0.0.6"', ("db=10.0.0.5", "db=10.0.0.6")),
    ],
)
def test_hosts_are_names_with_addresses(value: str, expected: tuple[str, ...]) -> None:
    assert parse_hosts([value]) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("db", "not NAME:IP"),
        ("10.0.0.5", "not NAME:IP"),
        (":10.0.0.5", "not NAME:IP"),
        ("db:elsewhere", "not an IP address"),
        ("db:", "not an IP address"),
        ("db:host-gateway", "Docker's own builder only"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_hosts([value])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("64", 64),
        ("64b", 64),
        ("64k", 64 << 10),
        ("64KB", 64 << 10),
        ("64KiB", 64 << 10),
        ("1.5g", 3 << 29),
        (".5m", 1 << 19),
        ("1 G", 1 << 30),
        ("0", None),
    ],
)
def test_sizes_have_binary_units(value: str, expected: int | None) -> None:
    assert parse_size(value, flag="--shm-size") == expected


@pytest.mark.parametrize("value", ["", "m", "-1", "1x", "1kk", "1kib2", "1e3", "9999999999p", "٣"])
def test_sizes_that_make_no_sense_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--shm-size"):
        parse_size(value, flag="--shm-size")


def test_ulimits_have_a_soft_and_a_hard_limit_and_the_last_of_a_name_counts() -> None:
    assert parse_ulimits(["nofile=1024", "nproc=1:2", "core=-1", "cpu=5:-1", "nofile=7:8"]) == (
        "nofile=7:8",
        "nproc=1:2",
        "core=-1:-1",
        "cpu=5:-1",
    )


@pytest.mark.parametrize(
    "value", ["nofile", "files=1", "nofile=", "nofile=a", "nofile=1:2:3", "nofile=2:1", "nofile=-1:5"]
)
def test_ulimits_that_make_no_sense_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--ulimit"):
        parse_ulimits([value])


def test_attestations_are_told_by_type_with_their_parameters() -> None:
    assert parse_attestations(
        ["type=sbom,generator=r.example.com/scan:1", "type=provenance,mode=max,builder-id=https://x"]
    ) == {
        "sbom": "type=sbom,generator=r.example.com/scan:1",
        "provenance": "type=provenance,builder-id=https://x,mode=max",
    }


@pytest.mark.parametrize(
    ("shorthand", "expected"),
    [
        ("true", {"sbom": "type=sbom"}),
        ("1", {"sbom": "type=sbom"}),
        ("false", {}),
        ("generator=x", {"sbom": "type=sbom,generator=x"}),
    ],
)
def test_shorthand_is_a_switch_or_parameters(shorthand: str, expected: dict[str, str]) -> None:
    assert parse_attestations([], sbom=shorthand) == expected


def test_first_word_on_a_type_counts_and_a_disabled_one_is_not_made() -> None:
    assert parse_attestations(["type=sbom,disabled=true", "type=sbom"], sbom="true") == {}
    assert parse_attestations(["type=provenance,mode=max"], provenance="mode=min") == {
        "provenance": "type=provenance,mode=max"
    }


def test_parameters_with_commas_stay_one_field() -> None:
    assert parse_attestations(['type=sbom,"scan=a,b"']) == {"sbom": 'type=sbom,"scan=a,b"'}


@pytest.mark.parametrize("value", ["sbom", "generator=x", "type=sbom,disabled=maybe"])
def test_attestations_that_make_no_sense_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--attest"):
        parse_attestations([value])


def test_resources_become_attributes() -> None:
    given = ["memory=2g", "memory-swap=-1", "cpu-shares=5", "cpu-quota=0", "cpuset-cpus=0-3", "cpuset-mems="]
    assert parse_resources(given) == {
        "memory": str(2 << 30),
        "memswap": "-1",
        "cpushares": "5",
        "cpusetcpus": "0-3",
    }


@pytest.mark.parametrize("value", ["memory", "memory=x", "cpus=1", "cpu-shares=x", "memory=-1"])
def test_resources_that_make_no_sense(value: str) -> None:
    with pytest.raises(UsageError):
        parse_resources([value])
