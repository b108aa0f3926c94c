"""The fault suite's runs: how many, of which seed, and the count of how they ended.

    COGKIT_FAULTS=200 COGKIT_FAULTS_SEED=1 COGKIT_FAULTS_ONLY=17,30

Runs go on in threads while pytest waits for them in order, because most of them mostly wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.conftest import MakeTree
from tests.faults.attacked import Cogkit
from tests.faults.kinds import KINDS
from tests.faults.scene import Case, Lab, NotPermitted, run_case
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.registry import Registry
from tests.real.tools import BuildKitRelease

WORKERS = 3
"""Runs at a time: they wait for most of their time, and yet two processors have to be enough."""

_LABS: list[Lab] = []

_OF_OTHERS: list[str] = []
"""What processes that ran faults had to say at their end."""


def seed() -> int:
    return int(os.environ.get("COGKIT_FAULTS_SEED") or 1)


def cases() -> list[Case]:
    """The runs of the suite, every kind in its share, in an order that the seed decides."""
    count = int(os.environ.get("COGKIT_FAULTS") or 200)
    only = {int(number) for number in (os.environ.get("COGKIT_FAULTS_ONLY") or "").replace(",", " ").split()}
    rng = Random(seed())
    kinds: list[str] = []
    while len(kinds) < count:
        deck = [kind for kind, (share, _) in KINDS.items() for _ in range(share)]
        rng.shuffle(deck)
        kinds += deck
    found = [Case(seed(), number, kind) for number, kind in enumerate(kinds[:count])]
    return [case for case in found if not only or case.number in only]


class FaultRuns:
    """All runs of this session, each a `Future`."""

    def __init__(self, lab: Lab, selected: list[Case]) -> None:
        faults = {kind: fault for kind, (_, fault) in KINDS.items()}
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="fault")
        self._futures: dict[Case, Future[None]] = {
            case: self._pool.submit(partial(run_case, lab, case, faults)) for case in selected
        }

    def wait_for(self, case: Case) -> None:
        """Wait for one run and raise what did not hold in it."""
        self._futures[case].result()

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@pytest.fixture
def cogkit(tmp_path: Path, context_tree: MakeTree) -> Iterator[Cogkit]:
    """Builds a small project on a hostile daemon."""
    started = Cogkit(tmp_path, context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "1", "sub/b": "2"}))
    yield started
    started.end()


@pytest.fixture(scope="session")
def fault_runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    buildkitd: Buildkitd,
    base_images: Registry,
    buildkit_release: BuildKitRelease,
) -> Iterator[FaultRuns]:
    """Runs every fault that was selected, from now on, in threads."""
    lab = Lab(tmp_path_factory.mktemp("faults"), buildkitd, DaemonOptions(buildkit_release, base_images))
    _LABS.append(lab)
    items = (getattr(item, "callspec", None) for item in request.session.items)
    selected = [spec.params["fault_case"] for spec in items if spec is not None and "fault_case" in spec.params]
    lab.warm_up()
    runs = FaultRuns(lab, selected)
    yield runs
    runs.stop()
    lab.close()


def _summary() -> list[str]:
    """How the runs of this process ended, by kind; nothing if there were none."""
    lines: list[str] = []
    for lab in _LABS:
        for kind in sorted(lab.tallies):
            tally = lab.tallies[kind]
            ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
            slowest = f"; slowest end {tally.slowest:.1f} s after the fault" if tally.slowest else ""
            lines.append(f"{kind:22} {ends}{slowest}")
        total = sum(tally.ends.total() for tally in lab.tallies.values())
        lines.append(f"{total} builds met a fault; one again: make faults SEED={seed()} ONLY=NUMBER")
    return lines


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes the one that ran the faults hands the count to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = _summary()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _OF_OTHERS.extend(getattr(node, "workeroutput", {}).get("faults", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = _OF_OTHERS or _summary()
    if lines:
        terminalreporter.section(f"faults, seed {seed()}")
        for line in lines:
            terminalreporter.write_line(line)


__all__ = ["FaultRuns", "NotPermitted", "cases"]
