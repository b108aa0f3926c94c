"""The fault suite's runs: how many, of which seed, and the count of how they ended.

    COGKIT_FAULTS=200 COGKIT_FAULTS_SEED=1 COGKIT_FAULTS_ONLY=17,30

Runs go on in threads while pytest waits for them in order, because most of them mostly wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from random import Random

import pytest

from tests.faults.kinds import KINDS
from tests.faults.scene import Case, Lab, NotPermitted, run_case
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.registry import Registry
from tests.real.tools import BuildKitRelease

WORKERS = 3
"""Runs at a time: they wait for most of their time, and yet two processors have to be enough."""

_LABS: list[Lab] = []


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for lab in _LABS:
        terminalreporter.section(f"faults, seed {seed()}")
        for kind in sorted(lab.tallies):
            tally = lab.tallies[kind]
            ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
            slowest = f"; slowest end {tally.slowest:.1f} s after the fault" if tally.slowest else ""
            terminalreporter.write_line(f"{kind:22} {ends}{slowest}")
        total = sum(tally.ends.total() for tally in lab.tallies.values())
        terminalreporter.write_line(f"{total} builds met a fault; one again: make faults SEED={seed()} ONLY=NUMBER")


__all__ = ["FaultRuns", "NotPermitted", "cases"]
