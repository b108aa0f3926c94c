"""Source policies: rules that allow, deny or replace what a build fetches (BuildKit ``sourcepolicy/pb/policy.proto``).

This file must not read files or know where a policy comes from.
"""

from __future__ import annotations


def parse_policy(content: bytes) -> bytes:
    """A policy as JSON, or as the marshalled message, to the marshalled message.

    Unlike in Go, a field or a word that is not known is an error: a rule with a slip in it would else allow what it is
    meant to deny.

    Raises:
        ValueError: neither; says what is wrong with it as JSON.
    """
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    from cogkit._proto.policy_pb2 import Policy

    try:
        policy = json_format.Parse(content, Policy())
    except (json_format.ParseError, UnicodeDecodeError) as not_json:
        try:
            policy = Policy.FromString(content)
        except DecodeError:
            raise ValueError(" ".join(str(not_json).split())[:200]) from None
    return policy.SerializeToString()
