"""What version control says of a build's sources, as the attributes that buildx sends (``build/git.go``).

git is asked beside everything else that happens before a solve, with a time limit; a folder without a ``.git`` above it
costs a few looks at the disk.  ``BUILDX_GIT_INFO``, ``BUILDX_GIT_LABELS`` and ``BUILDX_GIT_CHECK_DIRTY`` mean what they
mean with buildx.  This file must not change anything.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cogkit.fast_dataclass import dataclass

TIMEOUT = 5.0
"""Seconds that git may take."""

REVISION_LABEL = "label:org.opencontainers.image.revision"
SOURCE_LABEL = "label:org.opencontainers.image.source"
DOCKERFILE_LABEL = "label:com.docker.image.source.entrypoint"

_MASK = "xxxxx"
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_NO_COMMIT = re.compile(r"unknown revision or path not in the working tree|bad revision", re.IGNORECASE)
_QUESTIONS = {
    # Of a repository without a commit it prints the first line and fails.
    "head": ("rev-parse", "--show-toplevel", "HEAD", "--symbolic-full-name", "HEAD"),
    "remotes": ("remote", "-v"),
    "tracked": ("config", "--get-regexp", r"^branch\..*\.remote$"),
}


@dataclass(frozen=True, slots=True)
class VcsAnswer:
    """What git said.

    Attributes:
        attrs: The frontend's attributes.
        problem: Why nothing is known although there is a repository.
    """

    attrs: Mapping[str, str]
    problem: str | None = None


class VcsQuestions:
    """Questions about a folder that were asked; git answers meanwhile."""

    def __init__(self, folder: Path, environ: Mapping[str, str]):
        self._folder = folder
        self._environ = environ
        self._asked = {name: self._ask(*question) for name, question in _QUESTIONS.items()}

    def _ask(self, *question: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["git", "-C", str(self._folder), "--no-optional-locks", "-c", "log.showSignature=false", *question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self._environ, "LC_ALL": "C"},
        )

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        for process in self._asked.values():
            if process.poll() is None:
                process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()

    def answer(self, mounts: Mapping[str, Path], dockerfile: Path | None) -> VcsAnswer:
        """Wait for the answers.  Blocks; call it in a thread.

        Args:
            mounts: The folders that the build reads, by the names of their mounts.
            dockerfile: The Dockerfile.
        """
        try:
            said = {name: _outcome(process) for name, process in self._asked.items()}
        except subprocess.TimeoutExpired:
            self.abandon()
            return VcsAnswer({}, f"git did not answer within {TIMEOUT:g} seconds")
        head, trouble = said["head"]
        root, commit, branch = (*head.splitlines(), "", "", "")[:3]
        if not root:
            return VcsAnswer({}, trouble.splitlines()[0] if trouble else None)
        info = _flag(self._environ, "BUILDX_GIT_INFO", usually=True)
        labels = self._environ.get("BUILDX_GIT_LABELS") == "full" or _flag(self._environ, "BUILDX_GIT_LABELS")
        attrs: dict[str, str] = {}
        problem = None
        if not _COMMIT.fullmatch(commit):
            problem = None if _NO_COMMIT.search(trouble) else trouble
            commit = branch = ""
        if commit and _flag(self._environ, "BUILDX_GIT_CHECK_DIRTY") and self._is_dirty():
            commit += "-dirty"
        source = _remote_url(said["remotes"][0], said["tracked"][0], branch)
        for label, key, value in (
            (REVISION_LABEL, "vcs:revision", commit),
            (SOURCE_LABEL, "vcs:source", redacted(source)),
        ):
            if value and labels:
                attrs[label] = value
            if value and info:
                attrs[key] = value
        if labels and dockerfile is not None and (place := _below(root, dockerfile)) is not None:
            attrs[DOCKERFILE_LABEL] = place
        if info:
            for name, folder in mounts.items():
                if (place := _below(root, Path(os.path.realpath(folder)))) is not None:
                    attrs[f"vcs:localdir:{name}"] = place
        return VcsAnswer(attrs, problem)

    def _is_dirty(self) -> bool:
        process = self._ask("status", "--porcelain", "--ignored")
        try:
            text, trouble = _outcome(process)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        return bool(text or trouble)


def ask_vcs(folder: Path, environ: Mapping[str, str]) -> VcsQuestions | None:
    """Ask about a folder; None if it is in no repository, nothing is wanted, or there is no git."""
    wants_labels = environ.get("BUILDX_GIT_LABELS") == "full" or _flag(environ, "BUILDX_GIT_LABELS")
    if not wants_labels and not _flag(environ, "BUILDX_GIT_INFO", usually=True):
        return None
    real = Path(os.path.realpath(folder))
    if not any(os.path.lexists(place / ".git") for place in (real, *real.parents)):
        return None
    try:
        return VcsQuestions(real, environ)
    except OSError:
        return None


def redacted(url: str) -> str:
    """A remote's URL without the credentials in it, as BuildKit's ``RedactCredentials`` writes it."""
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        return url
    if not parts.scheme or user is None:
        return url
    shown = _MASK if user else ""
    if password is not None:
        shown += f":{_MASK}"
    return parts._replace(netloc=f"{shown}@{parts.netloc.rpartition('@')[2]}").geturl()


def _outcome(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """The output, and what git complained of if it failed."""
    out, complaint = process.communicate(timeout=TIMEOUT)
    said = complaint.decode("utf-8", "replace").strip() if process.returncode else ""
    return out.decode("utf-8", "surrogateescape").strip("\n"), said


def _remote_url(remotes: str, tracked: str, branch: str) -> str:
    """The URL of the branch's remote, else of ``origin``, else of ``upstream``."""
    urls: dict[str, str] = {}
    for line in remotes.splitlines():
        name, _, url = line.partition("\t")
        if url.endswith(" (fetch)"):
            urls[name] = url.removesuffix(" (fetch)")
    own = dict(line.split(" ", 1) for line in tracked.splitlines() if " " in line)
    usual = own.get(f"branch.{branch.removeprefix('refs/heads/')}.remote", "")
    return next((urls[name].replace("'", "") for name in (usual, "origin", "upstream") if name in urls), "")


def _below(root: str, path: Path) -> str | None:
    """A path relative to the repository; None if it is elsewhere."""
    place = os.path.relpath(path, os.path.realpath(root))
    return None if place.startswith("..") else place


def _flag(environ: Mapping[str, str], name: str, *, usually: bool = False) -> bool:
    value = environ.get(name, "")
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    return usually
