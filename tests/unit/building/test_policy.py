"""Rego policies are refused, not passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.policy import check_policy, parse_policies
from cogkit.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("values", "disabled"),
    [((), False), (("disabled=true",), True), (("disabled=1,strict=false",), True), (("log-level=debug",), False)],
)
def test_whether_policies_count(values: tuple[str, ...], disabled: bool) -> None:
    assert parse_policies(values) is disabled


def test_a_named_policy_counts_unless_disabled() -> None:
    with pytest.raises(UsageError, match="cannot evaluate Rego"):
        parse_policies(["filename=x.rego"])
    assert parse_policies(["disabled=true,filename=x.rego"])


@pytest.mark.parametrize("value", ["disabled", "disabled=maybe", "what=1", "filename="])
def test_what_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        parse_policies([value])


def test_a_policy_beside_the_dockerfile_stops_the_build(tmp_path: Path) -> None:
    dockerfile = tmp_path / "My.Dockerfile"
    check_policy(dockerfile, disabled=False)
    (tmp_path / "My.Dockerfile.rego").touch()
    with pytest.raises(ConfigError, match="Rego policy") as caught:
        check_policy(dockerfile, disabled=False)
    assert caught.value.where == str(tmp_path / "My.Dockerfile.rego")
    check_policy(dockerfile, disabled=True)
