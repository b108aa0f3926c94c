"""Which pattern leaves a file out, and which cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.definition import IgnoreFile
from cogkit.building.ignore_patterns import explained_refusal, numbered_patterns, what_leaves_out
from cogkit.buildkit.errors import BuildError
from cogkit.errors import ConfigError


def ignore(text: str) -> IgnoreFile:
    return IgnoreFile(Path("x/.dockerignore"), text.encode())


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("", "run.py", None),
        ("*.py\n", "run.py", (1, "*.py")),
        ("*.py\n", "sub/run.py", None),
        ("# comment\n\nsub\n", "sub/deep/run.py", (3, "sub")),
        ("*\n!run.py\n", "run.py", None),
        ("*\n!sub\n**/run.py\n", "sub/run.py", (3, "**/run.py")),
        ("*\n!other\n", "sub/run.py", (1, "*")),
        ("\ufeffrun.py\n", "run.py", (1, "run.py")),
    ],
)
def test_the_last_pattern_that_matches_leaves_out(text: str, path: str, expected: tuple[int, str] | None) -> None:
    assert what_leaves_out(ignore(text), path) == expected


def test_a_mark_counts_at_the_beginning_only() -> None:
    assert numbered_patterns(ignore("\ufeffa\n\ufeffb\n")) == [(1, "a"), (2, "\ufeffb")]


@pytest.mark.parametrize("bad", ["[a-", "a[", "!"])
def test_the_builders_refusal_gets_its_line(bad: str) -> None:
    refused = BuildError("failed to solve: syntax error in pattern")
    explained = explained_refusal(refused, [ignore("ok\n"), ignore(f"fine\n{bad}\n")])
    assert isinstance(explained, ConfigError)
    assert explained.where == "x/.dockerignore:2"
    assert repr(bad) in explained.message


def test_other_failures_stay_as_they_are() -> None:
    failed = BuildError("no such file")
    assert explained_refusal(failed, [ignore("[a-\n")]) is failed
    unclear = BuildError("syntax error in pattern")
    assert explained_refusal(unclear, [ignore("ok\n")]) is unclear
