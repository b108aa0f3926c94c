"""Lines of a pip requirements file, understood as far as a Cog build needs it.

Which package a line names, whether it is pinned to one version, whether it is a wheel or source archive that lies
in the project.  pip stays the one that installs them: a line that needs no change is passed on as it was written.

This file must not read or write anything but the requirements file it is given.
"""

from __future__ import annotations

import re
from pathlib import Path

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass

_EDITABLE_SELF = re.compile(r"-e\s+\.\Z")
_NAME = re.compile(r"([a-zA-Z0-9_\-.]+(?:\[[^\]]+\])?)")
_VERSIONS = re.compile(r"[<>=!~]=?\s*([^\s,;|]+)")
_URL_VERSION = re.compile(r"@\s*(\S+)")
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s,;#=]+)(?=\Z|[\s;])(.*)\Z")
_HOISTED = re.compile(r"(?:(?<=\s)|\A)(--find-links|-f|--extra-index-url)(?:=|\s+)(\S+)\s*")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LOCAL_OPTIONS = ("--find-links", "--requirement", "--constraint", "--editable", "-f", "-r", "-c", "-e")
_OPTION_HINTS = {
    "c": "Pin those versions in this file, or give an http(s) address.",
    "e": "Build a wheel of it and list its path, or give the address of a repository.",
}
# What pip takes on its command line and refuses in a requirements file.
_REFUSED = re.compile(
    r"\s+(?:-U|-I|--upgrade|--no-deps|--no-dependencies|--no-build-isolation|--force-reinstall|--ignore-installed"
    r"|--no-cache-dir|--use-pep517|--no-use-pep517|--user|--no-compile|--ignore-requires-python"
    r"|--no-warn-script-location|--break-system-packages)(?=\s|\Z)"
)
_DIRECTORY = re.compile(r"\.{1,2}(?=\Z|[\[;\s])")
_LIST_IT = "List the path of the wheel or source archive on a line of its own."


@dataclass(frozen=True, slots=True)
class Requirement:
    """One logical line: continuations joined, comments taken off; ``where`` is ``file:line`` for messages."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of the form ``name==version`` and what else stood on it.

    ``rest`` is what follows the version (markers, hashes), with the options that pip only takes on lines of their
    own moved to ``find_links`` and ``extra_index_urls``.
    """

    name: str
    version: str
    rest: str
    find_links: tuple[str, ...]
    extra_index_urls: tuple[str, ...]


def read_requirements(path: Path, shown_as: str) -> tuple[Requirement, ...]:
    """Reads a requirements file.

    Args:
        path: The file.
        shown_as: Its name in messages.

    Raises:
        ConfigError: The file cannot be read or is not UTF-8; comments may be anything.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"cannot read the requirements file: {error.strerror}", where=shown_as) from error
    requirements = parse_requirements(text, shown_as)
    for requirement in requirements:
        if any("\ud800" <= character <= "\udfff" for character in requirement.text):
            raise ConfigError("the requirements file is not UTF-8", where=requirement.where, hint="Save it as UTF-8.")
    return requirements


def parse_requirements(text: str, filename: str) -> tuple[Requirement, ...]:
    """Splits a requirements file into its logical lines.

    Empty lines, comments and ``-e .`` (the project itself, which is not there yet when packages are installed) are
    left out, as Cog leaves them out.
    """
    requirements: list[Requirement] = []
    pending = ""
    first = 0
    for number, raw in enumerate([*text.split("\n"), ""], start=1):
        physical = raw.removesuffix("\r")
        first = first or number
        if physical.endswith("\\"):
            pending += physical[:-1]
            continue
        line = _without_comment((pending + physical).strip())
        if line and not _EDITABLE_SELF.match(line):
            requirements.append(Requirement(line, f"{filename}:{first}"))
        pending, first = "", 0
    return tuple(requirements)


def _without_comment(line: str) -> str:
    if line.startswith("#"):
        return ""
    position = line.find("#")
    while position >= 0:
        before = line[:position]
        # "#egg=" and "#subdirectory=" belong to a URL; pip wants a space before a comment there.
        if before[-1:].isspace() or not _is_remote(before):
            return before.strip()
        position = line.find("#", position + 1)
    return line


def package_name(text: str) -> str:
    """The name a line starts with, extras included (``torch[opt]``), or "" if it names none."""
    match = _NAME.match(text)
    return match[1] if match else ""


def versions(text: str) -> list[str]:
    """Every version a line mentions, in order, whatever the operator; a URL after ``@`` counts as one."""
    found = [match[1] for match in _VERSIONS.finditer(text)]
    url = _URL_VERSION.search(text)
    return [*found, url[1]] if url else found


def parse_pin(text: str) -> Pin | None:
    """The parts of a ``name==version`` line, or None if the line is anything else (a range, a URL, an option)."""
    options = [(match[1], match[2]) for match in _HOISTED.finditer(text)]
    match = _PIN.match(_HOISTED.sub("", text).strip() if options else text)
    if match is None:
        return None
    return Pin(
        name=match[1],
        version=match[2],
        rest=match[3],
        find_links=tuple(value for name, value in options if name != "--extra-index-url"),
        extra_index_urls=tuple(value for name, value in options if name == "--extra-index-url"),
    )


def without_refused_options(text: str) -> tuple[str, tuple[str, ...]]:
    """A line without the options behind its package that pip refuses in a file, and those options."""
    if text.startswith("-"):
        return text, ()
    refused = tuple(match[0].strip() for match in _REFUSED.finditer(text))
    return (_REFUSED.sub("", text), refused) if refused else (text, ())


def local_artifact(requirement: Requirement) -> str | None:
    """The path of the wheel or source archive a line names, or None if it names something else.

    Raises:
        ConfigError: The line is a local requirement in a form that cannot be installed while the image is built:
            a directory, a ``file:`` URL, ``name @ path``, or an archive with options, hashes, extras or markers.
    """
    line, where = requirement.text.strip(), requirement.where
    if not line:
        return None
    if line.lower().startswith("file:"):
        raise ConfigError(f"local file URL requirements are not supported: {line}", where=where, hint=_LIST_IT)
    _refuse_local_reference(line, where)
    if line.startswith("-"):
        option = _local_option(line)
        if option:
            raise ConfigError(
                f'local requirements option "{option}" is not supported: {line}',
                where=where,
                hint=_OPTION_HINTS.get(
                    option.lstrip("-")[0], "Write the requirements into this file, or give an http(s) address."
                ),
            )
        return None
    if _has_inline_option(line):
        raise ConfigError(
            f"local package artifact requirements do not support inline options or hashes: {line}",
            where=where,
            hint=_LIST_IT,
        )
    if _is_remote(line):
        return None
    base, semicolon, _ = line.partition(";")
    if semicolon and _is_artifact(base.strip()):
        raise ConfigError(
            f"environment markers are not supported on local package artifact requirements: {line}",
            where=where,
            hint=_LIST_IT,
        )
    base, bracket, _ = line.partition("[")
    if bracket and line.endswith("]") and _is_artifact(base.strip()):
        raise ConfigError(
            f"extras are not supported on local package artifact requirements: {line}", where=where, hint=_LIST_IT
        )
    if _DIRECTORY.match(line):
        raise ConfigError(
            f'the project itself cannot be a requirement: "{line}"',
            where=where,
            hint="Remove the line: the model runs in the project's folder; or list the path of a wheel.",
        )
    if not _is_path(line) and not _is_archive(line):
        return None
    if not _is_archive(line):
        raise ConfigError(
            f'local package requirement "{line}" is not a supported wheel or source archive',
            where=where,
            hint=f"Build it first; supported are {', '.join(_ARCHIVES)}.",
        )
    return line


def _refuse_local_reference(line: str, where: str) -> None:
    name, at, target = line.partition("@")
    if not at:
        return
    spaced = name != name.strip() or target != target.strip()
    name, target = name.strip(), target.strip()
    if not name or package_name(name) != name:
        return
    if target.lower().startswith("file:"):
        raise ConfigError(f"local file URL requirements are not supported: {line}", where=where, hint=_LIST_IT)
    if _is_path(target) or (spaced and _is_artifact(target)):
        raise ConfigError(
            "local direct reference requirements (`name @ path`) are not supported; "
            f"list the path directly instead: {line}",
            where=where,
            hint=_LIST_IT,
        )


def _local_option(line: str) -> str | None:
    for option in _LOCAL_OPTIONS:
        value = _option_value(line, option)
        if value and (value.lower().startswith("file:") or not _is_remote(value)):
            return option
    return None


def _option_value(line: str, option: str) -> str | None:
    if not line.startswith(option) or line == option:
        return None
    rest = line[len(option) :]
    if option.startswith("--"):
        if rest[0] not in "= \t":
            return None
        rest = rest[1:] if rest[0] == "=" else rest
    return rest.strip()


def _has_inline_option(line: str) -> bool:
    for position, character in enumerate(line):
        if character not in " \t" or not _is_artifact(line[:position].strip()):
            continue
        rest = line[position:].lstrip(" \t")
        if rest.startswith("--") or any(_option_value(rest, option) is not None for option in ("-f", "-r")):
            return True
    return False


def _is_artifact(path: str) -> bool:
    return not _is_remote(path) and (_is_path(path) or _is_archive(path))


def _is_remote(line: str) -> bool:
    return "://" in line or line.startswith("git+")


def _is_path(line: str) -> bool:
    return line.startswith(("/", "./", "../"))


def _is_archive(path: str) -> bool:
    return path.lower().endswith(_ARCHIVES)
