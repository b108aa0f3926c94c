"""Whatever dies, breaks or fills up: a build ends in time with one clear sentence, or succeeds, and leaves nothing.

Each case is one run of a fault (`kinds`) with chances of its own.  After it: the exit code is right, there is no
traceback, an output is what it was or whole, no process, temporary file, socket or lock is left, and the next build
of the same project succeeds.

    make faults N=1000 SEED=7            runs that nobody has seen
    make faults N=1000 SEED=7 ONLY=421   one of them again
"""

from __future__ import annotations

import pytest

from tests.faults.conftest import FaultRuns, NotPermitted, cases
from tests.faults.scene import Case


@pytest.mark.parametrize("fault_case", cases(), ids=lambda case: case.id)
@pytest.mark.one_release_is_enough
def test_a_fault_costs_the_build_and_nothing_else(fault_case: Case, fault_runs: FaultRuns) -> None:
    try:
        fault_runs.wait_for(fault_case)
    except NotPermitted as reason:
        pytest.skip(str(reason))
