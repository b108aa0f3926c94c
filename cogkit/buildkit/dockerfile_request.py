"""`dockerfile`: the usual build, of a Dockerfile and a folder, as a request.

Attribute names are those of BuildKit's ``frontend/dockerui/config.go`` and ``attr.go``.  This file must not read
anything of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.request import SolveRequest
from cogkit.buildkit.shared_key import shared_key

FRONTEND = "dockerfile.v0"
"""The daemon's own Dockerfile frontend."""

_CONTEXT, _DOCKERFILE = "context", "dockerfile"
_NAMED_CONTEXTS = "moby.buildkit.frontend.contexts+forward"


def dockerfile(
    context: str | os.PathLike[str] = ".",
    *,
    file: str | os.PathLike[str] | None = None,
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    platforms: Sequence[str] = (),
    contexts: Mapping[str, str | os.PathLike[str]] | None = None,
    no_cache: bool = False,
    pull: bool = False,
    attrs: Mapping[str, str] | None = None,
) -> SolveRequest:
    """The request to build a Dockerfile; give it to `Client.build` together with what to make of the result.

    Args:
        context: The folder that it may copy from.  Its ``.dockerignore`` is obeyed.
        file: The Dockerfile, relative to the working directory; ``Dockerfile`` of the folder if None.
        target: Stage to build; the last if empty.
        build_args: Values of ``ARG``.
        labels: Labels of the image.
        platforms: Such as ``linux/arm64``; the daemon's own if empty.
        contexts: Further contexts by their names: folders (a `Path`, or a text that names a folder), or what
            ``docker-image://`` and URLs name.
        no_cache: Run every step again.
        pull: Ask the registries for newer base images.
        attrs: Further attributes of the frontend, as they are.
    """
    root = Path(context)
    path = root / "Dockerfile" if file is None else Path(file)
    told = {"filename": path.name}
    mounts = [
        LocalMount(_CONTEXT, root),
        LocalMount(_DOCKERFILE, path.parent, only=frozenset({path.name, f"{path.name}.dockerignore"})),
    ]
    if target:
        told["target"] = target
    told |= {f"build-arg:{name}": value for name, value in (build_args or {}).items()}
    told |= {f"label:{name}": value for name, value in (labels or {}).items()}
    if platforms:
        told["platform"] = ",".join(platforms)
    if no_cache:
        told["no-cache"] = ""
    if pull:
        told["image-resolve-mode"] = "pull"
    for name, source in (contexts or {}).items():
        if isinstance(source, str) and "://" in source:
            told[f"context:{name}"] = source
        else:
            told[f"context:{name}"] = f"local:{name}"
            mounts.append(LocalMount(name, Path(source)))
    if contexts:
        told["frontend.caps"] = _NAMED_CONTEXTS
    return SolveRequest(
        frontend=FRONTEND,
        frontend_attrs=told | dict(attrs or {}),
        mounts=tuple(mounts),
        shared_key=shared_key(root, _CONTEXT),
    )
