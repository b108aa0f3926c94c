"""Which project a command is about: a folder with a ``cog.yaml`` above where the user stands, or a plain Dockerfile.

It looks and does not read: what is in the files is `config`'s and the daemon's business.  Nothing is written.
"""

from __future__ import annotations

import enum
import os
import re
import stat
from pathlib import Path

from cogkit.errors import ConfigError, UsageError
from cogkit.fast_dataclass import dataclass

CONFIG_NAME = "cog.yaml"
DOCKERFILE_NAME = "Dockerfile"

SEARCH_DEPTH = 100
"""How many folders are looked at, counted from the first; Cog's own limit (pkg/config/load.go)."""

_YAML_SUFFIXES = (".yaml", ".yml")
# What buildx takes for a remote context (util/urlutil and moby's git reference); a Path has one slash less.
_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:/|git@[^/]+:|github\.com/)", re.IGNORECASE)


class ProjectKind(enum.Enum):
    COG = "cog"
    DOCKERFILE = "dockerfile"


@dataclass(frozen=True, slots=True)
class Project:
    """What is built.

    Attributes:
        root: The folder that is the build context and holds ``.cog/``; absolute, links as the user wrote them.
        config_path: The ``cog.yaml`` (or the file given in its place); None for a Dockerfile project.
        dockerfile_path: The Dockerfile; None for a Cog project, whose Dockerfile is generated.
    """

    kind: ProjectKind
    root: Path
    config_path: Path | None = None
    dockerfile_path: Path | None = None


def find_project(start: str | os.PathLike[str] | None = None, config_name: str = CONFIG_NAME) -> Project:
    """Find the Cog project that ``start`` lies in: the nearest folder upward that holds ``config_name``.

    Args:
        start: Where to begin; where the user stands if None.
        config_name: The config file's name, or a path relative to the project's folder, as Cog's ``--file`` has it.

    Raises:
        ConfigError: there is none, or it is there and no regular file.
    """
    begin = _absolute(start)
    found = _search_upward(begin, config_name)
    if found is None:
        raise ConfigError(
            f"{config_name} not found in {begin} (or in any parent directories)",
            hint=f"Run `cogkit init` to make a {CONFIG_NAME}, or give the project's folder with --context.",
        )
    return found


def resolve_project(context: str | os.PathLike[str] | None = None, file: str | None = None) -> Project:
    """The project that ``cogkit build [--context CONTEXT] [-f FILE]`` is about.

    Without ``file``: the Cog project found upward from the context, else the ``Dockerfile`` of the context.
    A YAML ``file`` is the config of a Cog project.  With a context, a file relative to where the user stands comes
    first and the context is the root, as buildx has it; else it is looked for upward as Cog does, and the folder that
    it is relative to is the root.  Any other ``file`` is a Dockerfile, relative to where the user stands.

    Args:
        context: The folder to build; where the user stands if None.
        file: A config file or a Dockerfile.

    Raises:
        UsageError: a context or file that is not in the file system (standard input, a URL).
        ConfigError: the folder or the file does not exist, or there is nothing to build.
    """
    root = resolve_folder(context)
    if file is None:
        return _default_project(root)
    if not file:
        raise UsageError("-f needs the name of a file")
    if file == "-":
        raise UsageError(
            "this command takes no Dockerfile from standard input", hint="Write it to a file, give it with -f."
        )
    if _REMOTE.match(file) and not os.path.exists(file):
        raise UsageError(f"the file {file} is not on this machine", hint="Download it and give its path with -f.")
    if file.endswith(_YAML_SUFFIXES):
        return _config_given(root if context is not None else None, file)
    return Project(ProjectKind.DOCKERFILE, root, dockerfile_path=resolve_dockerfile(file))


def resolve_dockerfile(file: str) -> Path:
    """The Dockerfile that ``-f`` names; absolute.

    Raises:
        ConfigError: there is none.
    """
    dockerfile = _with_its_letters(_absolute(file))
    return _require_file(dockerfile, "the Dockerfile does not exist", streams=True)


def resolve_folder(context: str | os.PathLike[str] | None = None) -> Path:
    """The folder that a context names; absolute.

    Raises:
        UsageError: a context of a kind that is not a folder here.
        ConfigError: there is no such folder.
    """
    if context is not None:
        _require_local(os.fspath(context))
    root = _absolute(context)
    _require_folder(root)
    return root


def _default_project(root: Path) -> Project:
    found = _search_upward(root, CONFIG_NAME)
    if found is not None:
        return found
    dockerfile = _dockerfile_in(root)
    if dockerfile is not None:
        return Project(ProjectKind.DOCKERFILE, root, dockerfile_path=dockerfile)
    raise ConfigError(
        # Cog's words up to the comma.
        f"{CONFIG_NAME} not found in {root} (or in any parent directories), nor is there a {DOCKERFILE_NAME}",
        hint=f"Run `cogkit init` to make a {CONFIG_NAME}, or give a Dockerfile with -f.",
    )


def _config_given(context: Path | None, file: str) -> Project:
    """The Cog project whose config file is ``file``."""
    here = _absolute(file)
    if context is not None and _is_there(here):
        return Project(ProjectKind.COG, context, config_path=_require_file(here))
    if os.path.isabs(file):
        return Project(ProjectKind.COG, here.parent, config_path=_require_file(here))
    start = context if context is not None else _absolute(None)
    found = _search_upward(start, file)
    if found is not None:
        return found
    nor_here = f", nor at {here}" if context is not None else ""
    raise ConfigError(
        f"{file} not found in {start} (or in any parent directories){nor_here}", hint="Check the path given with -f."
    )


def _search_upward(start: Path, name: str) -> Project | None:
    folder = start
    for _ in range(SEARCH_DEPTH):
        candidate = folder / name
        if _is_there(candidate):
            return Project(ProjectKind.COG, folder, config_path=_require_file(candidate))
        if folder == folder.parent:
            break
        folder = folder.parent
    return None


def _dockerfile_in(folder: Path) -> Path | None:
    """``Dockerfile``, or ``dockerfile`` if only that exists: exactly so named, also where case does not matter."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise ConfigError(f"cannot look into the folder: {error.strerror}", where=str(folder)) from error
    for name in (DOCKERFILE_NAME, DOCKERFILE_NAME.lower()):
        if name in names:
            return _require_file(folder / name)
    return None


def _with_its_letters(dockerfile: Path) -> Path:
    """``dockerfile`` where ``Dockerfile`` was asked for and only the other is there, as in buildx."""
    lower = dockerfile.with_name(DOCKERFILE_NAME.lower())
    is_usual = dockerfile.name == DOCKERFILE_NAME and not _is_there(dockerfile)
    return lower if is_usual and _is_there(lower) else dockerfile


def _is_there(path: Path) -> bool:
    """Whether there is an entry of that name, a dangling link too: that is a mistake to tell of, not to pass by."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(f"cannot look for {path.name}: {error.strerror}", where=str(path.parent)) from error
    except ValueError as error:
        raise UsageError(f"not the name of a file: {str(path)!r}") from error
    return True


def is_stream(path: Path) -> bool:
    """Whether it is a pipe or a terminal, such as ``/dev/stdin`` or what ``<(…)`` of a shell stands for."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _require_file(path: Path, missing: str = "the file does not exist", *, streams: bool = False) -> Path:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            missing = f"the file is a link to {os.readlink(path)}, which does not exist"
        raise ConfigError(missing, where=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot use the file: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UsageError(f"not the name of a file: {str(path)!r}") from error
    if not stat.S_ISREG(mode) and not (streams and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))):
        kind = "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise ConfigError(f"it is {kind} and not a file", where=str(path))
    return path


def _require_local(context: str) -> None:
    if not context:
        raise UsageError(
            "the context is an empty text",
            hint="Is a variable unset? Give a folder, or leave the argument out for the working directory.",
        )
    if context == "-":
        raise UsageError("this command takes no context from standard input", hint="Unpack it and give the folder.")
    if _REMOTE.match(context) and not os.path.isdir(context):
        raise UsageError(f"the context {context} is not on this machine", hint="Clone or download it, give the folder.")


def _require_folder(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ConfigError("the context folder does not exist", where=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot use the context folder: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UsageError(f"not the name of a folder: {str(path)!r}") from error
    if not stat.S_ISDIR(mode):
        raise ConfigError("the context is not a folder", where=str(path), hint="Give the file with -f.")


def _absolute(path: str | os.PathLike[str] | None) -> Path:
    return Path(os.path.normpath(os.path.join(_where_the_user_stands(), path or "")))


def _where_the_user_stands() -> str:
    """The current folder as the shell names it, so that "upward" leads through the links that the user came by.

    That is Go's os.Getwd and so Cog's meaning: ``$PWD`` if it is true, the kernel's name of the folder otherwise.
    """
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samestat(os.stat(named), os.stat(".")):
            return named
    except (OSError, ValueError):
        pass  # $PWD names nothing: not true, then
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError("the current folder does not exist any more", hint="Change into another folder.") from error
