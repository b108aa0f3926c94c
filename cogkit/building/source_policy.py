"""The source policy of a build: rules that allow, deny or replace what it fetches.

buildx reads it from the file that ``EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`` names, as JSON or as the marshalled message
(buildx ``build/build.go``); so does this.  Unlike there, a field or a word that is not known is an error: a rule with a
slip in it would else allow what it is meant to deny.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cogkit.errors import ConfigError

VARIABLE = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"


def read_source_policy(environ: Mapping[str, str] = os.environ, file: Path | None = None) -> bytes | None:
    """The marshalled policy; None if there is none.

    Raises:
        ConfigError: the file cannot be read, or is not a policy.
    """
    name = environ.get(VARIABLE) if file is None else str(file)
    if not name:
        return None
    try:
        content = Path(name).read_bytes()
    except OSError as problem:
        reason = f"cannot read the source policy: {problem.strerror}"
        raise ConfigError(reason, where=name, hint=f"{VARIABLE} names it" if file is None else None) from problem
    from cogkit.buildkit.source_policy import parse_policy

    try:
        return parse_policy(content)
    except ValueError as problem:
        raise ConfigError(
            f"not a source policy: {problem}",
            where=name,
            hint='for example {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}',
        ) from None
