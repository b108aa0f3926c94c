"""The name that ``cogkit push`` pushes under: from the argument, ``cog.yaml`` and the ``COG_MODEL`` variables.

Facts are from Cog (``pkg/cli/push.go``, ``pkg/model/resolve.go``).  This file must not read the environment, the clock
or a registry itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cogkit.dockerfile import DEFAULT_REGISTRY_HOST, REGISTRY_HOST_VARIABLE
from cogkit.errors import ConfigError, UsageError
from cogkit.oci.reference import Reference, parse_reference

MODEL = "COG_MODEL"
MODEL_REGISTRY = "COG_MODEL_REGISTRY"
MODEL_REPO = "COG_MODEL_REPO"
MODEL_TAG = "COG_MODEL_TAG"
RESERVED_TAG_PREFIX = "cog-"

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def push_target(
    image: str, model: str, argument: str | None, environ: Mapping[str, str], now: datetime | None = None
) -> str:
    """The name to push under.

    Args:
        image: ``image`` of ``cog.yaml``; empty if not set.
        model: ``model`` of ``cog.yaml``; empty if not set.
        argument: What the command line names.
        environ: For the variables.
        now: Time for a tag that nothing else gives; the present if None.

    Raises:
        UsageError: there is no name, or the sources contradict each other.
        ConfigError: a name is none.
    """
    resolved = resolve_model(model, environ, now or datetime.now(UTC))
    if resolved is not None:
        if image:
            raise UsageError(
                "'image' in cog.yaml cannot be combined with COG_MODEL* env vars",
                hint="remove 'image' from cog.yaml (use 'model' instead), or unset COG_MODEL, COG_MODEL_REGISTRY, "
                "COG_MODEL_REPO, COG_MODEL_TAG",
            )
        if argument is not None:
            raise UsageError(
                "positional image argument not supported with 'model' config",
                hint="use COG_MODEL to override the full reference, COG_MODEL_TAG to override just the tag",
            )
        return resolved
    target = argument or image
    if not target:
        raise UsageError(
            "To push images, you must either set the 'image' option in cog.yaml or pass an image name as an argument. "
            "For example, 'cogkit push registry.example.com/your-username/model-name'"
        )
    _checked(target, "the image to push")
    return target


def resolve_model(model: str, environ: Mapping[str, str], now: datetime) -> str | None:
    """The reference that ``model`` and the variables make together; None if they name no repository.

    Raises:
        ConfigError: a part is not one.
    """
    timestamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    if full := environ.get(MODEL):
        reference = _checked(full, f"invalid {MODEL} value")
        if reference.digest is not None:
            raise ConfigError(
                f"invalid {MODEL} value: the digest of {full} is known only after the build", hint="name a tag, or none"
            )
        return f"{reference.name}:{reference.tag or timestamp}"
    registry, repo, tag = (environ.get(name, "") for name in (MODEL_REGISTRY, MODEL_REPO, MODEL_TAG))
    if re.search(r"[/@]", registry):
        raise ConfigError(f'invalid {MODEL_REGISTRY} "{registry}": must be a bare host (no path, tag, or digest)')
    if re.search(r"[:@]", repo):
        raise ConfigError(f'invalid {MODEL_REPO} "{repo}": must be a bare repository path (no host, tag, or digest)')
    if tag.startswith(RESERVED_TAG_PREFIX):
        raise ConfigError(
            f'invalid {MODEL_TAG} "{tag}": "{RESERVED_TAG_PREFIX}" is a reserved prefix — choose a different tag'
        )
    if tag and not _TAG.fullmatch(tag):
        raise ConfigError(f'invalid {MODEL_TAG} "{tag}": must match OCI tag regex ^{_TAG.pattern}$')
    if model:
        base = _checked(model, "invalid 'model' in cog.yaml")
        registry, repo = registry or base.domain, repo or base.path
    if not repo:
        return None
    host = registry or environ.get(REGISTRY_HOST_VARIABLE) or DEFAULT_REGISTRY_HOST
    resolved = f"{host}/{repo}:{tag or timestamp}"
    _checked(resolved, "invalid resolved ref")
    return resolved


def _checked(text: str, what: str) -> Reference:
    try:
        return parse_reference(text)
    except ValueError as problem:
        raise ConfigError(f'{what} "{text}": {problem}') from problem
