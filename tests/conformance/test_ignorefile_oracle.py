"""`read_ignore_file` against patternmatcher's ``ignorefile.ReadAll``."""

from __future__ import annotations

import random

import pytest

from cogkit.buildkit.fsutil.gopath import to_bytes
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternError, read_ignore_file
from tests.conformance import generate
from tests.oracle.oracle import Oracle

LINES = [
    *generate.IGNORE_LINES,
    *generate.NAMES,
    b"# comment",
    b" # no comment",
    b"#",
    b"!",
    b"! ",
    b"!#",
    b"\xef\xbb\xbf",
]
ENDS = [b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b" \n", b"\t\r\n", b"\r", b""]


def _ours(content: bytes) -> list[bytes] | None:
    try:
        return [to_bytes(pattern) for pattern in read_ignore_file(content)]
    except PatternError:
        return None


def _upstream(oracle: Oracle, content: bytes) -> list[bytes] | None:
    answer = oracle.ignore(content)
    return None if isinstance(answer, str) else answer


def test_random_ignore_files_are_read_the_same(oracle: Oracle, cases: float) -> None:
    for seed in range(int(1500 * cases)):
        rng = random.Random(seed)
        content = b"\xef\xbb\xbf" if rng.random() < 0.2 else b""
        for _ in range(rng.randint(0, 12)):
            line = rng.choice(LINES) if rng.random() < 0.7 else generate.pattern(rng)
            content += line + rng.choice(ENDS)
        assert _ours(content) == _upstream(oracle, content), (seed, content)


@pytest.mark.parametrize("size", [65534, 65535, 65536, 65537, 131072])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nb\n"])
@pytest.mark.parametrize("start", [b"", b"x\n"])
def test_the_longest_line_is_the_same(oracle: Oracle, size: int, end: bytes, start: bytes) -> None:
    content = start + b"a" * size + end
    assert _ours(content) == _upstream(oracle, content)
