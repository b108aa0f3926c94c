"""A Cog project as a build: its configuration, what is staged in ``.cog/build``, and the labels of its image.

Cog builds an image, starts a container to see what is installed, then builds twice more to add labels and files.
Here that is one solve: `label_image` is the frontend of the build, has ``dockerfile.v0`` make the image and its list of
installed packages from one graph, and puts the labels into the image's config before it is exported.  This file must
not open connections or render anything.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit import __version__
from cogkit.build.observer import BuildObserver
from cogkit.build.options import BuildOptions
from cogkit.dockerfile import FREEZE_FILE, FREEZE_STAGE, Generated, GenerateOptions, generate, stage
from cogkit.project.config import Config, config_json, default_image_name, load_config
from cogkit.project.discover import Project
from cogkit.project.dotcog import DotCog, ReadOnlyProjectError

if TYPE_CHECKING:
    from cogkit.buildkit.gateway import Gateway, GatewayResult
    from cogkit.project.lock import LockWait

BUILD_FOLDER = "build"
DOCKERFILE = "Dockerfile"

LABEL_NAMESPACE = "run.cog."
"""Cog's namespace of image labels (Cog ``pkg/global/global.go``)."""


@dataclass(frozen=True, slots=True)
class CogBuild:
    """A Cog project, read and ready to be staged."""

    project: Project
    config: Config
    generated: Generated

    @property
    def image_name(self) -> str:
        """The image's name without tags of the user's: its ``image`` or ``model``, else made from the folder's name."""
        return self.config.image or self.config.model or default_image_name(self.project.root)

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*(str(warning) for warning in self.config.warnings), *self.generated.warnings)


def read_cog_build(project: Project, options: BuildOptions, environ: Mapping[str, str] | None = None) -> CogBuild:
    """Read the configuration and generate the Dockerfile.

    Raises:
        ConfigError: the configuration, or a file it names, cannot be used.
    """
    assert project.config_path is not None
    config = load_config(project.config_path, project_dir=project.root)
    generate_options = GenerateOptions.from_environment(
        os.environ if environ is None else environ,
        uv_image=options.uv_image or "",
        config_filename=config.filename,
        working_dir=Path.cwd(),
        pip_freeze=True,
    )
    return CogBuild(project, config, generate(config, generate_options))


@asynccontextmanager
async def staged(build: CogBuild, options: BuildOptions, observer: BuildObserver) -> AsyncIterator[Path]:
    """Hold the project's lock with the Dockerfile and its files staged in ``.cog/build``; gives that folder.

    A project on a read-only file system is staged in a temporary folder instead.

    Raises:
        LockNotAcquiredError: another process kept the lock for longer than the user wants to wait.
    """
    with _open_dotcog(build.project.root) as dotcog, await dotcog.alock(options.lock_timeout, _announce(observer)):
        folder = dotcog.temp_path(BUILD_FOLDER)
        dotcog.write_file(build.generated.dockerfile.encode(), BUILD_FOLDER, DOCKERFILE)
        stage(build.generated.files, folder)
        dotcog.settle(BUILD_FOLDER)
        yield folder


def _open_dotcog(root: Path) -> DotCog:
    try:
        return DotCog.open(root)
    except ReadOnlyProjectError:
        return DotCog.open_temp()


def _announce(observer: BuildObserver) -> Callable[[LockWait], None]:
    def on_wait(wait: LockWait) -> None:
        holder = wait.holder
        if holder is None:
            observer.on_lock_wait("another process", None)
        else:
            since = datetime.fromtimestamp(holder.since).astimezone()
            observer.on_lock_wait(f"process {holder.pid} ({holder.command})", since)

    return on_wait


def label_image(build: CogBuild, attrs: Mapping[str, str], *, target: str | None) -> Callable[[Gateway], object]:
    """The frontend of the build: the image that ``dockerfile.v0`` makes, with the labels of a Cog image.

    Args:
        build: The project.
        attrs: What ``dockerfile.v0`` is told.
        target: The stage that the user asked for; only a whole image gets the labels.
    """

    async def frontend(gateway: Gateway) -> GatewayResult:
        result = await gateway.solve("dockerfile.v0", attrs)
        if target is not None:
            return result
        return result.with_labels({**await _cog_labels(build, gateway, attrs, result), **_user_labels(attrs)})

    return frontend


async def _cog_labels(
    build: CogBuild, gateway: Gateway, attrs: Mapping[str, str], result: GatewayResult
) -> dict[str, str]:
    return {
        f"{LABEL_NAMESPACE}version": __version__,
        f"{LABEL_NAMESPACE}config": config_json(build.config),
        f"{LABEL_NAMESPACE}pip_freeze": await _pip_freeze(gateway, attrs, result),
        f"{LABEL_NAMESPACE}has_init": "true",
    }


async def _pip_freeze(gateway: Gateway, attrs: Mapping[str, str], result: GatewayResult) -> str:
    """What is installed in the image; of several platforms, in the first."""
    freeze_attrs = {**attrs, "target": FREEZE_STAGE}
    if result.refs:
        freeze_attrs["platform"] = next(iter(result.refs))
    freeze = await gateway.solve("dockerfile.v0", freeze_attrs)
    ref = freeze.ref or next(iter(freeze.refs.values()))
    assert ref is not None, "the freeze stage has a file, so it has a filesystem"
    return (await ref.read_file(FREEZE_FILE)).decode("utf-8", "replace").strip()


def _user_labels(attrs: Mapping[str, str]) -> dict[str, str]:
    prefix = "label:"
    return {key.removeprefix(prefix): value for key, value in attrs.items() if key.startswith(prefix)}
