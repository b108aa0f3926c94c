"""Rego policies beside a Dockerfile, which cogkit cannot evaluate and therefore does not pass over.

buildx 0.31 and later enforce ``Dockerfile.rego`` (``build/opt.go``, ``util/buildflags/policy.go``).  Their rules call
functions of buildx's own (``docker``, ``git``, ``load_json`` …); no Rego engine on PyPI can be given functions, so such
a policy is refused rather than ignored: a project that denies an image must not build.  This file must not read Rego.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cogkit.building.values import csv_fields, parse_bool
from cogkit.errors import ConfigError, UsageError

SUFFIX = ".rego"
_KEYS = "filename, reset, disabled, strict and log-level"


def parse_policies(values: Iterable[str], *, flag: str = "--policy") -> bool:
    """All ``--policy``, as buildx reads them.

    Returns:
        Whether policies are disabled.

    Raises:
        UsageError: malformed, or a policy that would have to be evaluated.
    """
    disabled = False
    for value in values:
        named = []
        for field in csv_fields(flag, value):
            key, equals, text = field.partition("=")
            match key.strip().lower():
                case "filename" if text:
                    named.append(text)
                case "disabled" if equals:
                    disabled = parse_bool(flag, key, text)
                case "reset" | "strict" if equals:
                    parse_bool(flag, key, text)
                case "log-level" if text:
                    pass
                case _:
                    raise UsageError(f"{flag} {value}: {field!r} makes no sense there", hint=f"the keys are {_KEYS}")
        if named and not disabled:
            raise UsageError(
                f"{flag} {value}: cogkit cannot evaluate Rego policies",
                hint="build with buildx, or say what is denied with --source-policy-file",
            )
    return disabled


def check_policy(dockerfile: Path, *, disabled: bool) -> None:
    """Refuse to build a Dockerfile that has a policy beside it.

    Args:
        dockerfile: Where the user's Dockerfile is, as it was named.
        disabled: The user said that policies do not count.

    Raises:
        ConfigError: there is one.
    """
    policy = dockerfile.with_name(dockerfile.name + SUFFIX)
    if not disabled and policy.exists():
        raise ConfigError(
            "this project has a Rego policy, which cogkit cannot evaluate",
            where=str(policy),
            hint="build with buildx, or leave the policy out of account with --policy disabled=true",
        )
