"""What a user can do about a failure that the builder reports in its own words.

The words are recognised by their form; a failure that has a hint keeps it.  This file must not change messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cogkit.buildkit.errors import BuildError

_HINTS = (
    (
        re.compile(
            r"401 Unauthorized|403 Forbidden|authorization failed|insufficient_scope|no basic auth credentials"
            r"|access denied",
            re.IGNORECASE,
        ),
        "if that is a registry, log in to it (cogkit login HOST), and see that you may do this there",
    ),
    (
        # A unix socket's path has at most 107 bytes.
        re.compile(r"listen unix .*ssh_auth_sock: bind: invalid argument"),
        "the path of the builder's temporary folder is too long for sockets: start buildkitd with a shorter TMPDIR",
    ),
    (
        # What COPY and ADD say of a source that is not in the context (BuildKit ``cache/contenthash``).
        re.compile(r"failed to (?:calculate checksum|compute cache key).*not found", re.DOTALL),
        "see whether the file is there and .dockerignore lets it through: cogkit context lists what is sent",
    ),
    (
        # A Docker engine with the classic image store (moby ``builder-next/worker``).
        re.compile(r'exporter "(?:oci|docker)" could not be found'),
        "Docker's classic image store writes no archives: keep the image in that engine with -t and let `docker save`"
        " write it, or use another builder",
    ),
    (
        re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE),
        "the builder's disk is full: cogkit du shows what its cache takes, cogkit prune deletes what no build uses",
    ),
)


@contextmanager
def hinted() -> Iterator[None]:
    """Say what to do, for failures that are known."""
    try:
        yield
    except BuildError as error:
        if error.hint is None:
            error.hint = next((hint for form, hint in _HINTS if form.search(error.message)), None)
        raise
