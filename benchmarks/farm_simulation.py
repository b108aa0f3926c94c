"""How a farm spreads projects: rendezvous hashing, as cogkit does it, beside random and round-robin placement.

    python -m benchmarks.farm_simulation              the table of docs/farm.md
    python -m benchmarks.farm_simulation --seed 7     with other chances

Simulated is where builds go and whether a node has seen the project before (a *warm* build); nobody builds anything.
Projects are as popular as in a team: a few are built all day, most seldom (Zipf).  Two builds run on each node on the
mean, and ``max-builds`` is four.  Half way through, one node in ten goes, and comes back, with its disk, after a tenth
of all builds.  The same seed gives the same table everywhere.
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from cogkit.builders.placement import ranked
from cogkit.builders.records import Node

SIZES = (10, 100, 1000)
PROJECTS_PER_NODE = 20
BUILDS_PER_PROJECT = 10
KEPT_PROJECTS = 40
"""How many projects' caches a node's disk has room for; the one that was built longest ago goes first."""

MEAN_BUILDS = 2
"""Builds on each node at any time, on the mean."""
MAX_BUILDS = 4
"""Builds with which a node is full, where that is looked at."""

Place = Callable[[int, Sequence[bool], Sequence[int]], int]
"""Gives the node of a project, of the nodes that are up; with how many builds run on each."""


@dataclass(frozen=True)
class Outcome:
    """What a way of placing did.

    Attributes:
        warm: Share of builds on a node that had built the project before, and still had room for it.
        spread: Builds on the busiest node, as a multiple of the mean.
        most: Builds at the same time on one node.
        projects: Projects on the fullest node, as a multiple of the mean of those that were built.
        moved: Share of projects that got another home while the nodes were away, whose home was not one of them.
    """

    warm: float
    spread: float
    most: int
    projects: float
    moved: float


class Rendezvous:
    """As `cogkit.building.farm`: the first node in the project's order that is up, and not full if there is a limit."""

    def __init__(self, orders: Sequence[Sequence[int]], limit: int | None = None) -> None:
        self._orders = orders
        self._limit = limit

    def __call__(self, project: int, up: Sequence[bool], running: Sequence[int]) -> int:
        there = (node for node in self._orders[project] if up[node])
        first = next(there)
        if self._limit is None or running[first] < self._limit:
            return first
        return next((node for node in there if running[node] < self._limit), first)


class Random:
    """Any node."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, project: int, up: Sequence[bool], running: Sequence[int]) -> int:
        while not up[node := self._chance.randrange(len(up))]:
            pass
        return node


class RoundRobin:
    """The next node."""

    def __init__(self) -> None:
        self._last = -1

    def __call__(self, project: int, up: Sequence[bool], running: Sequence[int]) -> int:
        while True:
            self._last = (self._last + 1) % len(up)
            if up[self._last]:
                return self._last


def orders(nodes: int, projects: int) -> list[array[int]]:
    """The nodes for each project, in the order in which they are tried."""
    farm = [Node(str(number), f"tcp://node-{number}:1234") for number in range(nodes)]
    return [array("H", (int(node.name) for node in ranked(farm, f"project-{each}"))) for each in range(projects)]


def simulate(place: Place, nodes: int, seed: int) -> Outcome:
    """Send builds to nodes, and look how many were warm and how even it was."""
    projects = nodes * PROJECTS_PER_NODE
    builds = projects * BUILDS_PER_PROJECT
    chance = random.Random(seed)
    up = [True] * nodes
    away = set(chance.sample(range(nodes), nodes // 10))
    leaves, returns = builds // 2, builds // 2 + builds // 10
    caches: list[dict[int, None]] = [{} for _ in range(nodes)]
    load: Counter[int] = Counter()
    running = [0] * nodes
    begun: deque[int] = deque()
    first: dict[int, int] = {}
    warm = most = 0
    moved: set[int] = set()
    asked: set[int] = set()
    for number, project in enumerate(_popular(projects, builds, chance)):
        if number in (leaves, returns):
            up = [node not in away or number == returns for node in range(nodes)]
        if len(begun) == MEAN_BUILDS * nodes:
            running[begun.popleft()] -= 1
        node = place(project, up, running)
        begun.append(node)
        running[node] += 1
        load[node] += 1
        most = max(most, running[node])
        home = first.setdefault(project, node)
        if leaves <= number < returns and home not in away:
            asked.add(project)
            if node != home:
                moved.add(project)
        cache = caches[node]
        warm += project in cache
        cache.pop(project, None)
        cache[project] = None
        if len(cache) > KEPT_PROJECTS:
            del cache[next(iter(cache))]
    homes = Counter(first.values())
    return Outcome(
        warm / builds,
        max(load.values()) / (builds / nodes),
        most,
        max(homes.values()) / (len(first) / nodes),
        len(moved) / len(asked),
    )


def _popular(projects: int, builds: int, chance: random.Random) -> Iterator[int]:
    """Projects to build, one after the other; the n-th is wanted 1/n as often as the first."""
    shares = list(accumulate(1 / (rank + 1) for rank in range(projects)))
    order = list(range(projects))
    chance.shuffle(order)
    for _ in range(builds):
        yield order[bisect.bisect_left(shares, chance.random() * shares[-1])]


def table(seed: int, sizes: Sequence[int] = SIZES) -> str:
    """Markdown with a row for each way and size."""
    lines = [
        "| nodes | placement | warm builds | builds on the busiest node / mean | most at once | most projects / mean"
        " | moved without need |",
        "|---|---|---|---|---|---|---|",
    ]
    for nodes in sizes:
        of_projects = orders(nodes, nodes * PROJECTS_PER_NODE)
        ways: list[tuple[str, Place]] = [
            ("rendezvous, max-builds", Rendezvous(of_projects, MAX_BUILDS)),
            ("rendezvous", Rendezvous(of_projects)),
            ("random", Random(random.Random(seed + 1))),
            ("round-robin", RoundRobin()),
        ]
        for name, place in ways:
            found = simulate(place, nodes, seed)
            lines.append(
                f"| {nodes:,} | {name} | {found.warm:.1%} | {found.spread:.2f} | {found.most} | {found.projects:.2f}"
                f" | {found.moved:.1%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    sys.stdout.write(table(parser.parse_args().seed))


if __name__ == "__main__":
    main()
