"""Every input of the corpus, without a fuzzer: what was found once is never found again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_nothing(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) >= 10, "a target without a corpus begins at nothing"
    for path in inputs:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_cut_and_joined_inputs_of_the_corpus_break_nothing(target: str) -> None:
    rng = random.Random(target)
    inputs = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for _ in range(150):
        first, second = rng.choice(inputs), rng.choice(inputs)
        joined = bytearray(first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :])
        for _ in range(rng.randrange(3)):
            if joined:
                joined[rng.randrange(len(joined))] = rng.randrange(256)
        TARGETS[target](bytes(joined))
