"""The Go oracle for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracle.oracle import Oracle, build


@pytest.fixture(scope="session")
def oracle_binary() -> Path:
    return build()


@pytest.fixture(scope="session")
def oracle(oracle_binary: Path) -> Iterator[Oracle]:
    process = Oracle(oracle_binary)
    yield process
    process.close()


@pytest.fixture(scope="session")
def cases() -> float:
    """A factor for the number of random cases: COGKIT_CASES=10 runs ten times as many, with other seeds."""
    return float(os.environ.get("COGKIT_CASES", "1"))
