"""From what the user asked for to one solve request.

`plan_frontend` says what the Dockerfile frontend is told and which folders it may read; `plan_exports` says where the
result goes.  Both are plain functions from data to data: this file must not connect, build or write anything.  Facts
on attribute names are from BuildKit's ``frontend/dockerui/config.go`` and ``frontend/dockerui/attr.go``, and from
buildx's ``build/opt.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cogkit.build.options import BuildOptions, NamedContext, OutputSpec
from cogkit.buildkit.exports import PROTECTED_NAMES, Export, OutputFile
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.node import shared_key
from cogkit.errors import UsageError
from cogkit.project.dotcog import DOTCOG_NAME

COG_BUILD_CONTEXT = "cog_build"
"""Name of the context on ``.cog/build``, from which generated Dockerfiles copy staged files."""

CONTEXT_MOUNT = "context"
DOCKERFILE_MOUNT = "dockerfile"
NAMED_CONTEXTS_CAPABILITY = "moby.buildkit.frontend.contexts+forward"
STREAM_TYPES = frozenset({"oci", "docker", "tar"})
IMAGE_TYPES = frozenset({"image", "oci", "docker"})


@dataclass(frozen=True, slots=True)
class FrontendPlan:
    """What ``dockerfile.v0`` is told, and the folders it may ask for."""

    attrs: Mapping[str, str]
    mounts: tuple[LocalMount, ...]
    shared_key: str


def plan_frontend(
    options: BuildOptions, *, context: Path, dockerfile: Path, staged: Path | None = None
) -> FrontendPlan:
    """The frontend's attributes and mounts for one build.

    Args:
        options: The user's wishes.
        context: The project context; its `.cog` does not exist for the daemon.
        dockerfile: The Dockerfile, wherever it lies; of its folder only it and ``<name>.dockerignore`` are offered.
        staged: ``.cog/build`` of a Cog project, offered as `COG_BUILD_CONTEXT`.

    Raises:
        UsageError: a named context that cannot be used.
    """
    attrs = {"filename": dockerfile.name}
    mounts = [
        LocalMount(name=CONTEXT_MOUNT, root=context, hidden=frozenset({DOTCOG_NAME})),
        LocalMount(
            name=DOCKERFILE_MOUNT,
            root=dockerfile.parent,
            only=frozenset({dockerfile.name, f"{dockerfile.name}.dockerignore"}),
        ),
    ]
    if options.target:
        attrs["target"] = options.target
    attrs |= {f"build-arg:{name}": value for name, value in options.build_args.items()}
    attrs |= {f"label:{name}": value for name, value in options.labels.items()}
    if options.platforms:
        attrs["platform"] = ",".join(options.platforms)
    if options.no_cache:
        attrs["no-cache"] = ""
    if options.pull:
        attrs["image-resolve-mode"] = "pull"

    named = list(options.build_contexts)
    if staged is not None:
        if any(entry.name == COG_BUILD_CONTEXT for entry in named):
            raise UsageError(
                f"--build-context {COG_BUILD_CONTEXT}=… is not possible: the name is that of the staged files",
                hint="choose another name for the context",
            )
        attrs[f"context:{COG_BUILD_CONTEXT}"] = f"local:{COG_BUILD_CONTEXT}"
        attrs[f"sharedkey:localdir:{COG_BUILD_CONTEXT}"] = shared_key(context, COG_BUILD_CONTEXT)
        mounts.append(LocalMount(name=COG_BUILD_CONTEXT, root=staged))
    for entry in named:
        value, mount = _plan_named_context(entry)
        attrs[f"context:{entry.name}"] = value
        if mount is not None:
            attrs[f"sharedkey:localdir:{entry.name}"] = shared_key(mount.root, CONTEXT_MOUNT)
            mounts.append(mount)
    if named or staged is not None:
        attrs["frontend.caps"] = NAMED_CONTEXTS_CAPABILITY
    return FrontendPlan(attrs=attrs, mounts=tuple(mounts), shared_key=shared_key(context, CONTEXT_MOUNT))


def _plan_named_context(entry: NamedContext) -> tuple[str, LocalMount | None]:
    if not entry.local:
        return entry.value, None
    root = Path(entry.value)
    if not root.is_dir():
        raise UsageError(
            f"--build-context {entry.name}={entry.value}: no such folder",
            hint="give an existing folder, or a URL such as docker-image://NAME",
        )
    if root.resolve().name == DOTCOG_NAME:
        # Reading the lock file would also drop the lock: the kernel releases it when any descriptor of it is closed.
        raise UsageError(
            f"--build-context {entry.name}={entry.value}: a project's own {DOTCOG_NAME} cannot be a context",
            hint=f"give a folder in it, or copy what the build needs out of {DOTCOG_NAME}",
        )
    # The session's own mounts have these two names; buildx evades them the same way.
    reserved = {CONTEXT_MOUNT, DOCKERFILE_MOUNT}
    mount_name = f"_{entry.name}" if entry.name in reserved else entry.name
    return f"local:{mount_name}", LocalMount(name=mount_name, root=root, hidden=frozenset({DOTCOG_NAME}))


def plan_exports(
    options: BuildOptions, *, names: tuple[str, ...], default_image: bool, project_root: Path
) -> tuple[Export, ...]:
    """Where the result goes.

    Args:
        options: The user's wishes.
        names: The image's names: the tags, or what ``cog.yaml`` says.
        default_image: Make an image when no output is asked for (its digest is wanted), instead of only filling the
            builder's cache.
        project_root: The project's folder, whose ``.cog`` no builder writes.

    Raises:
        UsageError: an output that lacks its destination, or a push without a name.
    """
    specs = list(options.outputs)
    is_image = [spec.type in ("image", "registry") for spec in specs]
    if (options.push and not any(is_image)) or (not specs and default_image):
        specs.append(OutputSpec("image"))
    return tuple(_plan_export(spec, options, names, project_root) for spec in specs)


def _plan_export(spec: OutputSpec, options: BuildOptions, names: tuple[str, ...], project_root: Path) -> Export:
    attrs = dict(spec.attrs)
    kind = spec.type
    if kind == "registry":
        kind, attrs["push"] = "image", "true"
    if kind in IMAGE_TYPES and names and "name" not in attrs:
        attrs["name"] = ",".join(names)
    if kind == "image":
        if spec.dest is not None:
            raise UsageError(f"--output type={spec.type} takes no dest", hint="use type=oci or type=docker for a file")
        if options.push:
            attrs["push"] = "true"
        if attrs.get("push") == "true" and "name" not in attrs:
            raise UsageError("cannot push an image without a name", hint="name it with -t REGISTRY/NAME:TAG")
        return Export(type=kind, attrs=attrs)
    if kind in STREAM_TYPES:
        if spec.dest is None:
            raise UsageError(f"--output type={kind} needs dest=FILE", hint=f"for example -o type={kind},dest=image.tar")
        return Export(type=kind, attrs=attrs, file=OutputFile(spec.dest))
    if kind == "local":
        if spec.dest is None:
            raise UsageError("--output type=local needs dest=FOLDER", hint="for example -o type=local,dest=out")
        return Export(
            type=kind,
            attrs=attrs,
            directory=Path(spec.dest),
            protected_names=_protected_names(Path(spec.dest), project_root),
        )
    return Export(type=kind, attrs=attrs)


def _protected_names(directory: Path, project_root: Path) -> frozenset[str]:
    """What a local export must not touch: in the project's own folder also the local state."""
    real, root = directory.resolve(), project_root.resolve()
    if real.is_relative_to(root / DOTCOG_NAME):
        raise UsageError(
            f"--output type=local cannot write into the project's own {DOTCOG_NAME}: {directory}",
            hint="give a folder of your own as dest",
        )
    return PROTECTED_NAMES | {DOTCOG_NAME} if real == root else PROTECTED_NAMES
