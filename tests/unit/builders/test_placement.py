"""Which node has a project, and what moves when nodes come and go."""

from __future__ import annotations

from collections import Counter

import pytest

from cogkit.builders.placement import natively, ranked, score
from cogkit.builders.records import Node

SCORE = 1.5511690247914185
PROJECTS = [f"project-{number}" for number in range(4000)]


def node(name: str, *platforms: str, weight: float = 1.0) -> Node:
    return Node(name, f"tcp://{name}:1", platforms=platforms, weight=weight)


def homes(nodes: list[Node]) -> dict[str, str]:
    return {project: ranked(nodes, project)[0].name for project in PROJECTS}


def test_a_project_has_the_same_node_whatever_the_order_of_the_list() -> None:
    nodes = [node(f"n{number}") for number in range(10)]
    assert homes(nodes) == homes(nodes[::-1])


def test_the_scores_stay_what_they_are() -> None:
    """Two releases of cogkit on one farm must agree."""
    nodes = [node("a"), node("b"), node("c")]
    assert [each.name for each in ranked(nodes, "project", ["linux/amd64"])] == ["c", "b", "a"]
    assert score(node("a"), "project", "linux/amd64") == pytest.approx(SCORE)


def test_nodes_get_their_share() -> None:
    found = Counter(homes([node("a"), node("b"), node("c", weight=2)]).values())
    assert abs(found["a"] / len(PROJECTS) - 0.25) < 0.03
    assert abs(found["b"] / len(PROJECTS) - 0.25) < 0.03
    assert abs(found["c"] / len(PROJECTS) - 0.5) < 0.03


def test_when_a_node_goes_only_its_own_projects_move() -> None:
    nodes = [node(f"n{number}") for number in range(8)]
    before, after = homes(nodes), homes(nodes[1:])
    moved = {project for project in PROJECTS if before[project] != after[project]}
    assert moved == {project for project in PROJECTS if before[project] == "n0"}
    assert len(Counter(after[project] for project in moved)) == 7


def test_platforms_of_one_project_go_to_different_nodes_of_a_farm_that_has_both() -> None:
    nodes = [node(f"n{number}") for number in range(8)]
    pairs = [
        (ranked(nodes, each, ["linux/amd64"])[0], ranked(nodes, each, ["linux/arm64"])[0]) for each in PROJECTS[:500]
    ]
    assert sum(first is second for first, second in pairs) < 150


def test_native_nodes_go_first_and_those_of_which_nothing_is_said_next() -> None:
    nodes = [node("emulates", "linux/amd64"), node("silent"), node("native", "linux/arm64/v8")]
    for project in PROJECTS[:50]:
        assert [each.name for each in ranked(nodes, project, ["linux/arm64"])] == ["native", "silent", "emulates"]


def test_what_is_native() -> None:
    both = node("both", "linux/amd64", "linux/arm64/v8")
    assert natively(both, ["linux/arm64", "linux/amd64"])
    assert not natively(both, ["linux/arm64", "linux/s390x"])
    assert not natively(node("silent"), ["linux/amd64"])
