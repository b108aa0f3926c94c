"""The files a generated Dockerfile copies: what they are, which local packages may be among them, writing them.

Local packages come from inside the project, whatever links the way to them is made of.  Modes and times of what is
written are settled by its owner, `cogkit.project.dotcog.DotCog.settle`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.requirements import Requirement, local_artifact

ARTIFACTS_DIR = "local_package_artifacts"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file of ``.cog/build``.

    Attributes:
        path: Where, relative to ``.cog/build``, with forward slashes.
        content: What is in it, or None if it is a copy.
        source: The absolute path it is a copy of, without symlinks.
        inside: The folder that ``source`` must be in when it is read, None if it may lie anywhere.
    """

    path: str
    content: bytes | None = None
    source: Path | None = None
    inside: Path | None = None


def stage(files: Iterable[StagedFile], directory: Path) -> None:
    """Writes the files below a folder that is there and empty, normally ``.cog/build``.

    Raises:
        ConfigError: A source is gone, is not a regular file, or has come to lie outside of its project.
    """
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or PurePosixPath(file.path).is_absolute() or ".." in parts:
            raise ValueError(f"not a path below the build folder: {file.path!r}")
        target = directory.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive: whatever lies there already, a link perhaps, is not ours to write through.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            if file.source is None:
                output.write(file.content or b"")
            else:
                with _open_source(file.source, file.inside) as source:
                    while chunk := source.read(1 << 20):
                        output.write(chunk)


@contextmanager
def _open_source(source: Path, inside: Path | None) -> Iterator[BinaryIO]:
    """Opens a file by its path without symlinks, one folder at a time, so that a link put in meanwhile fails."""
    base = inside if inside is not None else source.parent
    try:
        parts = source.relative_to(base).parts
    except ValueError:
        parts = ()
    if not parts or ".." in parts:
        raise ConfigError(f"{source} is outside the project directory")
    descriptor = None
    try:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in parts[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        # Not blocking: a fifo put in the file's place must not hang us.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(parts[-1], flags, dir_fd=descriptor), "rb")
    except OSError as error:
        raise ConfigError(f"failed to stage {source}: {error.strerror}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
    with closing(file):
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigError(f"failed to stage {source}: source must be a regular file")
        yield file


@dataclass(frozen=True, slots=True)
class Artifact:
    """A wheel or source archive in the project that the requirements name.

    ``relative`` is its path from the project's folder under the name the requirement gives it: pip reads the
    package's name from there, so a link's own name counts, while the content is that of the file behind it.
    ``root`` is the project's folder without symlinks.
    """

    requirement: Requirement
    source: Path
    relative: str
    root: Path


def find_artifacts(
    requirements: Iterable[Requirement], *, project_dir: Path, relative_to: Path
) -> tuple[Artifact, ...]:
    """The local packages among these requirements.

    Args:
        requirements: The lines.
        project_dir: The folder that a package must be in.
        relative_to: The folder that relative paths start from, that of the requirements file.

    Raises:
        ConfigError: A package is not there, is not a file, or lies outside the project.
    """
    artifacts: list[Artifact] = []
    root = Path(os.path.realpath(project_dir))
    for requirement in requirements:
        named = local_artifact(requirement)
        if named is None:
            continue
        path = Path(os.path.abspath(relative_to / named))
        try:
            visible = path.parent.resolve(strict=True) / path.name
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f'local Python package artifact "{named}" not found',
                where=requirement.where,
                hint="The path is relative to the requirements file.",
            ) from error
        if not visible.is_relative_to(root) or not real.is_relative_to(root):
            raise ConfigError(
                f'local Python package artifact "{named}" must be inside the project directory',
                where=requirement.where,
                hint="Copy it into the project.",
            )
        if not real.is_file():
            raise ConfigError(
                f'local Python package artifact "{named}" must be a regular file', where=requirement.where
            )
        artifacts.append(Artifact(requirement, real, visible.relative_to(root).as_posix(), root))
    return tuple(artifacts)
