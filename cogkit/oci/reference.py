"""Image references: the grammar of ``[registry/]repository[:tag][@digest]``.

The rules are those of ``distribution/reference`` (``regexp.go``, ``normalize.go``), which every registry client shares;
what is better here is that a refusal says which part is wrong.  This file must not ask a registry anything.
"""

from __future__ import annotations

import re

from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import HEX_LENGTHS

DEFAULT_DOMAIN = "docker.io"
LEGACY_DEFAULT_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
PATH_MAX = 255
"""Longest repository path in characters (``RepositoryNameTotalLengthMax``)."""

_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference with its registry spelt out.

    Attributes:
        domain: Registry host, with its port if it has one; `DEFAULT_DOMAIN` when the text named none.
        path: Repository within the registry.
        tag: Tag, or None.
        digest: ``algorithm:hex``, or None.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The short form people write: without ``docker.io/`` and, right below it, ``library/``."""
        path = self.path
        if self.domain != DEFAULT_DOMAIN:
            path = self.name
        elif path.startswith(OFFICIAL_PREFIX) and "/" not in path.removeprefix(OFFICIAL_PREFIX):
            path = path.removeprefix(OFFICIAL_PREFIX)
        return path + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Read an image reference as ``docker`` reads one (``ParseNormalizedNamed``).

    Raises:
        ValueError: it is none; the message says which part is wrong and what is allowed, without repeating ``text``.
    """
    if not text:
        raise ValueError("the name is empty")
    if _IMAGE_ID.fullmatch(text):
        raise ValueError("64 hexadecimal digits are an image ID, not a name")
    domain, rest = _split_domain(text)
    rest, at, digest = rest.partition("@")
    path, colon, tag = rest.partition(":")
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"{domain!r} is not a registry host (HOST or HOST:PORT)")
    _check_path(path)
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(
            f"{tag!r} is not a tag: letters, digits, '_', '.' and '-', at most 128, the first not '.' or '-'"
        )
    if at:
        _check_digest(digest)
    return Reference(domain, path, tag if colon else None, digest if at else None)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL_PREFIX + text
    if first in (DEFAULT_DOMAIN, LEGACY_DEFAULT_DOMAIN):
        domain = DEFAULT_DOMAIN
    elif first == "localhost" or any(char in first for char in ".:") or first != first.lower():
        # A namespace of Docker Hub has none of these, so it must be a host.
        domain = first
    else:
        return DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL_PREFIX + rest
    return domain, rest


def _check_path(path: str) -> None:
    shown = path.removeprefix(OFFICIAL_PREFIX)
    if path != path.lower():
        raise ValueError(f"the repository {shown!r} must be lower-case")
    for component in path.split("/"):
        if not _PATH_COMPONENT.fullmatch(component):
            if not component:
                raise ValueError(f"the repository {shown!r} has an empty part")
            raise ValueError(
                f"{component!r} cannot be part of a repository: lower-case letters and digits, "
                "joined by '.', '_', '__' or dashes"
            )
    if len(path) > PATH_MAX:
        raise ValueError(f"the repository has {len(path)} characters, {PATH_MAX} are allowed")


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    length = HEX_LENGTHS.get(algorithm)
    if not _DIGEST.fullmatch(digest) or length is None:
        raise ValueError(f"{digest!r} is not a digest (sha256: and 64 hexadecimal digits)")
    if len(value) != length or value != value.lower():
        raise ValueError(f"a {algorithm} digest has {length} lower-case hexadecimal digits")
