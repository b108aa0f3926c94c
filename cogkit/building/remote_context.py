"""Contexts that the builder fetches itself: Git repositories, and archives or Dockerfiles by HTTP.

Which text is what follows BuildKit (``frontend/dockerfile/dfgitutil``, ``util/gitutil``, ``frontend/dockerui``) and
buildx (``util/urlutil``).  This file only reads the text of URLs; it must not fetch anything.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

GIT_QUERY_CAPABILITY = "moby.buildkit.frontend.gitquerystring"
"""What a frontend must know to read ``?ref=…&subdir=…``; ``+forward`` asks it of a frontend in an image, too."""

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_GIT_SCHEMES = frozenset({"http", "https", "ssh", "git"})
_SCP_STYLE = re.compile(r"[a-zA-Z0-9_-]+@[a-zA-Z0-9-.]+:(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?")


def is_http_url(value: str) -> bool:
    """Whether it begins as an address on the web."""
    return value.startswith(("http://", "https://"))


def is_git_url(value: str) -> bool:
    """Whether it names a Git repository: of addresses on the web, those whose path ends in ``.git`` do."""
    if value.startswith(("./", "../")):
        return False
    if value.startswith("github.com/"):
        return True
    scheme = _SCHEME.match(value)
    if scheme is None:
        return _SCP_STYLE.fullmatch(value) is not None
    name = scheme[1].lower()
    if name in ("http", "https"):
        return _path(value).endswith(".git")
    return name in _GIT_SCHEMES


def is_remote_url(value: str) -> bool:
    """Whether the builder fetches it itself."""
    return is_http_url(value) or is_git_url(value)


def is_git_over_ssh(value: str) -> bool:
    """Whether Git reaches the repository by SSH."""
    scheme = _SCHEME.match(value)
    return is_git_url(value) and (scheme is None or scheme[1].lower() == "ssh") and not value.startswith("github.com/")


def has_git_query(value: str) -> bool:
    """Whether it says what of a Git repository is meant in the form of a query."""
    if not is_git_url(value):
        return False
    scp_style = None if _SCHEME.match(value) else _SCP_STYLE.fullmatch(value)
    if scp_style is not None:
        return bool(scp_style["query"])
    try:
        return bool(urlsplit(value).query)
    except ValueError:
        return False


def _path(value: str) -> str:
    try:
        return urlsplit(value).path
    except ValueError:
        return ""
