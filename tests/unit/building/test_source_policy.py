"""The source policy of the environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cogkit._proto.policy_pb2 import DENY, WILDCARD, Policy
from cogkit.building.source_policy import VARIABLE, read_source_policy
from cogkit.errors import ConfigError


def read(path: Path, content: bytes | str) -> Policy:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    marshalled = read_source_policy({VARIABLE: str(path)})
    assert marshalled is not None
    return Policy.FromString(marshalled)


def test_policy_is_json_as_buildx_has_it_or_the_message_itself(tmp_path: Path) -> None:
    rule = {"action": "DENY", "selector": {"identifier": "docker-image://*", "matchType": "WILDCARD"}}
    policy = read(tmp_path / "policy", json.dumps({"version": 1, "rules": [rule]}))
    assert (policy.rules[0].action, policy.rules[0].selector.match_type) == (DENY, WILDCARD)
    assert policy.rules[0].selector.identifier == "docker-image://*"
    assert read(tmp_path / "policy", policy.SerializeToString()) == policy
    by_go = {"rules": [{"action": 1, "selector": {"identifier": "x", "match_type": "WILDCARD"}}]}
    assert read(tmp_path / "policy", json.dumps(by_go)).rules[0].action == DENY


def test_no_variable_is_no_policy() -> None:
    assert read_source_policy({}) is None


@pytest.mark.parametrize(
    "content", [b"\xff\xff", b"{", b'{"rules": 1}', b'{"rules": [{"action": "MAYBE"}]}', b'{"rule": []}']
)
def test_policy_that_makes_no_sense_is_refused_with_its_place(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a source policy") as caught:
        read(tmp_path / "policy", content)
    assert caught.value.where == str(tmp_path / "policy")
    with pytest.raises(ConfigError, match="cannot read the source policy"):
        read_source_policy({VARIABLE: str(tmp_path / "gone")})
