"""`cogkit.buildkit.llb` against BuildKit's own ``client/llb``, byte for byte, on random graphs.

``make llb N=5000 SEED=7`` compares more of them, and others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from cogkit.buildkit import llb
from cogkit.errors import UsageError
from tests.conformance import llb_graphs
from tests.oracle_llb.oracle import LLBOracle, build

GRAPHS = int(os.environ.get("COGKIT_LLB_GRAPHS") or 600)
SEED = int(os.environ.get("COGKIT_LLB_SEED") or 1)


@pytest.fixture(scope="module")
def oracle() -> Iterator[LLBOracle]:
    process = LLBOracle(build())
    yield process
    process.close()


def _ours(graph: dict[str, object], record: llb_graphs.Record) -> bytes | str:
    try:
        return llb_graphs.build(graph, record).to_bytes()
    except UsageError as error:
        return str(error)


@pytest.mark.timeout(0)
def test_random_graphs_marshal_to_the_bytes_of_go(
    oracle: LLBOracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = llb_graphs.Record()
    same = refused = ops = 0
    for number in range(GRAPHS):
        graph = llb_graphs.random_graph(Random(f"{SEED} {number}"))
        theirs, ours = oracle.marshal(graph), _ours(graph, record)
        if isinstance(theirs, str) and isinstance(ours, str):
            refused += 1
            continue
        if theirs != ours:
            (tmp_path / "graph.json").write_text(json.dumps(graph, indent=1))
            shown = [each if isinstance(each, str) else llb.Definition.from_bytes(each) for each in (theirs, ours)]
            pytest.fail(
                f"graph {number} of seed {SEED} differs: Go {shown[0]!r}, ours {shown[1]!r}\n"
                f"the graph is in {tmp_path}/graph.json"
            )
        assert isinstance(theirs, bytes)
        definition = llb.Definition.from_bytes(theirs)
        assert definition.to_bytes() == theirs
        same += 1
        ops += len(definition.ops)
    with capsys.disabled():
        print(f"\n{same} definitions with {ops} ops are the same as Go's; both refused {refused} other graphs")
    assert same >= GRAPHS * 0.8
    if GRAPHS >= 600:
        assert llb_graphs.everything() - record.used == set()


def test_a_deep_graph_marshals_as_in_go(oracle: LLBOracle) -> None:
    steps: list[dict[str, object]] = [{"op": "image", "text": "busybox", "image": {}}]
    for number in range(3000):
        run = {"args": ["x", str(number)], "mounts": [], "add_later": False}
        steps.append({"op": "run", "state": number, "run": run})
    graph: dict[str, object] = {"steps": steps, "maps": [], "marshal": {}}
    assert _ours(graph, llb_graphs.Record()) == oracle.marshal(graph)
