"""From what the user asked for to one solve request.

`plan_frontend` says what the Dockerfile frontend is told and which folders it may read; `plan_exports` says where the
result goes.  Both are plain functions from data to data: this file must not connect, build or write anything.  Facts
on attribute names are from BuildKit's ``frontend/dockerui/config.go`` and ``frontend/dockerui/attr.go``, and from
buildx's ``build/opt.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from cogkit.building.definition import CONTEXT_MOUNT, DOCKERFILE_MOUNT, context_mount
from cogkit.building.options import BuildOptions, NamedContext, OutputSpec
from cogkit.building.remote_context import GIT_QUERY_CAPABILITY, has_git_query
from cogkit.building.values import LAYOUT_SCHEME, split_layout_address
from cogkit.buildkit.destinations import real_path
from cogkit.buildkit.exports import PROTECTED_NAMES, Export
from cogkit.buildkit.identity import new_id
from cogkit.buildkit.layouts import DEFAULT_TAG, resolve_image
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.shared_key import shared_key
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.content_store import LayoutError
from cogkit.output_file import OutputFile
from cogkit.project.dotcog import DOTCOG_NAME
from cogkit.project.names import COG_BUILD_CONTEXT, COG_WEIGHTS_CONTEXT, SOURCE_DATE_EPOCH
from cogkit.project.weights.layers import NO_WEIGHTS, WeightLayers

FRONTEND = "dockerfile.v0"

ATTEST_PREFIX = "attest:"
VCS_PREFIX = "vcs:"
NAMED_CONTEXTS_CAPABILITY = "moby.buildkit.frontend.contexts+forward"
STREAM_TYPES = frozenset({"oci", "docker", "tar"})
IMAGE_TYPES = frozenset({"image", "oci", "docker"})


@dataclass(frozen=True, slots=True)
class FrontendPlan:
    """What ``dockerfile.v0`` is told, and what it may ask for.

    Attributes:
        attrs: The frontend's attributes.
        mounts: Folders.
        shared_key: Names the project's folder.
        oci_layouts: Folders with images, by the names that stand for them.
        entitlements: Rights of the steps.
    """

    attrs: Mapping[str, str]
    mounts: tuple[LocalMount, ...]
    shared_key: str
    oci_layouts: Mapping[str, Path] = field(default_factory=dict)
    entitlements: tuple[str, ...] = ()

    @property
    def for_the_builder(self) -> dict[str, str]:
        """Those of `attrs` that the builder itself, beside the frontend, wants to know."""
        return {key: value for key, value in self.attrs.items() if key.startswith((ATTEST_PREFIX, VCS_PREFIX))}


def plan_frontend(
    options: BuildOptions,
    *,
    context: LocalMount | str,
    dockerfile: LocalMount | None,
    filename: str,
    staged: Path | None = None,
    weights: WeightLayers = NO_WEIGHTS,
) -> FrontendPlan:
    """The frontend's attributes and mounts for one build.

    Args:
        options: The user's wishes.
        context: The project context, or the address at which the builder finds it.
        dockerfile: The Dockerfile and its ignore file, and nothing else of their folder; None if the Dockerfile is in
            the context that has an address.
        filename: The Dockerfile's name there.
        staged: ``.cog/build`` of a Cog project, offered as `COG_BUILD_CONTEXT`.
        weights: What the project context lacks and `COG_WEIGHTS_CONTEXT` has.

    Raises:
        UsageError: a named context that cannot be used.
    """
    attrs, mounts, key = {"filename": filename}, [], ""
    root: Path | None = None
    caps: set[str] = set()
    if isinstance(context, str):
        attrs["context"] = context
        if has_git_query(context):
            caps.add(GIT_QUERY_CAPABILITY)
        if dockerfile is not None:
            attrs["dockerfilekey"] = dockerfile.name
    else:
        mounts.append(replace(context, exclude_patterns=weights.without_patterns))
        if context.files is None:
            root, key = context.root, shared_key(context.root, CONTEXT_MOUNT)
    if dockerfile is not None:
        mounts.append(dockerfile)
    if options.target:
        attrs["target"] = options.target
    attrs |= options.vcs
    attrs |= {f"build-arg:{name}": value for name, value in options.build_args.items()}
    attrs |= {f"label:{name}": value for name, value in options.labels.items()}
    if options.timestamp is not None:
        attrs[f"build-arg:{SOURCE_DATE_EPOCH}"] = str(options.timestamp)
    if options.platforms:
        attrs["platform"] = ",".join(options.platforms)
    if options.no_cache:
        attrs["no-cache"] = ""
    if options.pull:
        attrs["image-resolve-mode"] = "pull"
    attrs |= _step_attrs(options)

    named = list(options.build_contexts)
    own = [] if root is None else _own_contexts(root, staged, weights)
    for mount in own:
        if any(entry.name == mount.name for entry in named):
            raise UsageError(
                f"--build-context {mount.name}=… is not possible: a context of cogkit's own has that name",
                hint="choose another name for the context",
            )
        attrs[f"context:{mount.name}"] = f"local:{mount.name}"
        attrs[f"sharedkey:localdir:{mount.name}"] = shared_key(root or mount.root, mount.name)
        mounts.append(mount)
    layouts: dict[str, Path] = {}
    for entry in named:
        if entry.value.startswith(LAYOUT_SCHEME) and not entry.local:
            attrs[f"context:{entry.name}"] = _plan_layout_context(entry, layouts)
            continue
        value, local = _plan_named_context(entry)
        attrs[f"context:{entry.name}"] = value
        if local is None and has_git_query(value):
            caps.add(f"{GIT_QUERY_CAPABILITY}+forward")
        if local is not None:
            attrs[f"sharedkey:localdir:{entry.name}"] = shared_key(local.root, CONTEXT_MOUNT)
            mounts.append(local)
    if named or own:
        caps.add(NAMED_CONTEXTS_CAPABILITY)
    if caps:
        attrs["frontend.caps"] = ",".join(sorted(caps))
    entitlements = options.allow
    if options.network == "host":
        entitlements = tuple(dict.fromkeys((*entitlements, "network.host")))
    return FrontendPlan(
        attrs=attrs,
        mounts=tuple(mounts),
        shared_key=key,
        oci_layouts=layouts,
        entitlements=entitlements,
    )


def _own_contexts(context: Path, staged: Path | None, weights: WeightLayers) -> list[LocalMount]:
    """The contexts that generated Dockerfiles copy from, beside the project's."""
    mounts = [] if staged is None else [LocalMount(name=COG_BUILD_CONTEXT, root=staged)]
    if weights:
        mounts.append(
            LocalMount(
                name=COG_WEIGHTS_CONTEXT,
                root=context,
                hidden=frozenset({DOTCOG_NAME}),
                exclude_patterns=weights.only_patterns,
            )
        )
    return mounts


def check_named_contexts(options: BuildOptions) -> None:
    """Find out before a builder is asked what `plan_frontend` would refuse.

    Raises:
        UsageError: a named context that cannot be used.
    """
    for entry in options.build_contexts:
        if entry.value.startswith(LAYOUT_SCHEME) and not entry.local:
            _plan_layout_context(entry, {})
        else:
            _plan_named_context(entry)


def _step_attrs(options: BuildOptions) -> dict[str, str]:
    """What the frontend is told of how steps run and what is made of them."""
    if options.no_cache and options.no_cache_filter:
        raise UsageError("--no-cache and --no-cache-filter exclude each other", hint="give one of them")
    attrs = {f"{ATTEST_PREFIX}{kind}": parameters for kind, parameters in options.attestations.items()}
    told = {
        "no-cache": ",".join(options.no_cache_filter),
        "force-network-mode": options.network,
        "add-hosts": ",".join(options.hosts),
        "shm-size": options.shm_size and str(options.shm_size),
        "ulimit": ",".join(options.ulimits),
        "cgroup-parent": options.cgroup_parent,
    }
    return attrs | {key: value for key, value in told.items() if value} | dict(options.resources)


def _plan_layout_context(entry: NamedContext, layouts: dict[str, Path]) -> str:
    """The address of an image in an OCI layout; adds the layout's folder under a new name to ``layouts``."""
    folder, tag, digest = split_layout_address(entry.value)
    try:
        digest = resolve_image(folder, tag=tag or DEFAULT_TAG, digest=digest)
    except LayoutError as problem:
        raise UsageError(f"--build-context {entry.name}={entry.value}: {problem}", hint=problem.hint) from None
    name = new_id()
    layouts[name] = folder
    return f"{LAYOUT_SCHEME}{name}{f':{tag}' if tag else ''}@{digest}"


def _plan_named_context(entry: NamedContext) -> tuple[str, LocalMount | None]:
    if not entry.local:
        return entry.value, None
    root = Path(entry.value)
    check_folder(root, f"--build-context {entry.name}={entry.value}", "or a URL such as docker-image://NAME")
    # The session's own mounts have these two names; buildx evades them the same way.
    reserved = {CONTEXT_MOUNT, DOCKERFILE_MOUNT}
    mount_name = f"_{entry.name}" if entry.name in reserved else entry.name
    return f"local:{mount_name}", replace(context_mount(root), name=mount_name)


def check_folder(root: Path, said: str, other: str = "") -> None:
    """Refuse what cannot be offered to the builder.

    Raises:
        UsageError: it is not a folder, or a project's own `.cog`.
    """
    if not root.is_dir():
        raise UsageError(f"{said}: no such folder", hint=f"give an existing folder{other and f', {other}'}")
    if root.resolve().name == DOTCOG_NAME:
        # Reading the lock file would also drop the lock: the kernel releases it when any descriptor of it is closed.
        raise UsageError(
            f"{said}: a project's own {DOTCOG_NAME} cannot be a context",
            hint=f"give a folder in it, or copy what the build needs out of {DOTCOG_NAME}",
        )


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
    # `type=cacheonly` asks for what happens without any output.
    asked = options.outputs
    specs = [spec for spec in asked if spec.type != "cacheonly"]
    is_image = [spec.type in ("image", "registry") for spec in specs]
    if (options.push and not any(is_image)) or (not asked and default_image):
        specs.append(OutputSpec("image"))
    return tuple(plan_export(spec, options, names, project_root) for spec in specs)


def plan_export(spec: OutputSpec, options: BuildOptions, names: tuple[str, ...], project_root: Path) -> Export:
    """One of them; see `plan_exports`."""
    attrs = dict(spec.attrs)
    kind = spec.type
    epoch = options.build_args.get(SOURCE_DATE_EPOCH) if options.timestamp is None else str(options.timestamp)
    if epoch and epoch.isascii() and epoch.isdecimal():
        # The daemon finds the build argument by itself, but not where the client is the frontend.  What is not a number
        # (``context``, a stage) only the frontend can resolve; it tells the exporter.
        attrs.setdefault("source-date-epoch", epoch)
    if options.timestamp is not None and kind in (*IMAGE_TYPES, "registry") and attrs.get("unpack") != "true":
        attrs.setdefault("rewrite-timestamp", "true")
    is_only_pushed = kind == "registry" or (kind == "image" and options.push)
    if kind == "registry":
        kind, attrs["push"] = "image", "true"
    if kind in IMAGE_TYPES:
        attrs |= options.annotations
    if kind in IMAGE_TYPES and names and (options.tags or "name" not in attrs):
        # As in buildx, -t goes before name=; a default name does not.
        attrs["name"] = ",".join(names)
    if kind == "image":
        if spec.dest is not None:
            raise UsageError(f"--output type={spec.type} takes no dest", hint="use type=oci or type=docker for a file")
        if options.push:
            attrs["push"] = "true"
        if is_only_pushed:
            # As in buildx: nothing runs it at the builder, so nobody needs its files there.
            attrs.setdefault("unpack", "false")
        if attrs.get("push") == "true" and "name" not in attrs:
            raise UsageError("cannot push an image without a name", hint="name it with -t REGISTRY/NAME:TAG")
        return Export(type=kind, attrs=attrs)
    if kind in STREAM_TYPES:
        if spec.dest is None:
            into_docker = "; --load brings the image into docker" if kind == "docker" else ""
            hint = f"for example -o type={kind},dest=image.tar{into_docker}"
            raise UsageError(f"--output type={kind} needs dest=FILE", hint=hint)
        layout = Export(type=kind, attrs=attrs, directory=Path(spec.dest))
        if layout.is_layout:
            _protected_names(Path(spec.dest), project_root)
            return layout
        return Export(type=kind, attrs=attrs, file=OutputFile(spec.dest))
    if kind == "local":
        if spec.dest is None:
            raise UsageError("--output type=local needs dest=FOLDER", hint="for example -o type=local,dest=out")
        local = Export(
            type=kind,
            attrs=attrs,
            directory=Path(spec.dest),
            protected_names=_protected_names(Path(spec.dest), project_root),
        )
        if local.mirror and not options.allow_local_delete:
            _check_deletion(Path(spec.dest))
        return local
    return Export(type=kind, attrs=attrs)


def _protected_names(directory: Path, project_root: Path) -> frozenset[str]:
    """What a local export must not touch: in the project's own folder also the local state."""
    real, root = real_path(directory), real_path(project_root)
    if real.is_relative_to(root / DOTCOG_NAME):
        raise UsageError(
            f"--output cannot write into the project's own {DOTCOG_NAME}: {directory}",
            hint="give a folder of your own as dest",
        )
    return PROTECTED_NAMES | {DOTCOG_NAME} if real == root else PROTECTED_NAMES


def _check_deletion(directory: Path) -> None:
    """Refuse to delete what the result lacks in a folder that is not below the working directory, as buildx does."""
    here, there = real_path(Path.cwd()), real_path(directory)
    if here == there or not there.is_relative_to(here):
        raise UsageError(
            f"--output type=local,mode=delete would delete in {directory}, which is not below the working directory",
            hint="allow it with --allow buildx.local.delete",
        )
