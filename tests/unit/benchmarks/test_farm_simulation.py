"""The simulation of a farm shows what the ways of placing differ in, and the same every time."""

from __future__ import annotations

import random

from benchmarks.farm_simulation import MAX_BUILDS, PROJECTS_PER_NODE, Random, Rendezvous, RoundRobin, orders, simulate

NODES = 10
ORDERS = orders(NODES, NODES * PROJECTS_PER_NODE)


def test_projects_that_keep_their_node_are_warm_and_stay_when_others_go() -> None:
    ours = simulate(Rendezvous(ORDERS), NODES, seed=1)
    chance = simulate(Random(random.Random(2)), NODES, seed=1)
    turns = simulate(RoundRobin(), NODES, seed=1)
    assert ours.warm > max(chance.warm, turns.warm)
    assert ours.moved == 0
    assert min(chance.moved, turns.moved) > 0.5


def test_full_nodes_are_passed_over_where_there_is_room() -> None:
    ours = simulate(Rendezvous(ORDERS, MAX_BUILDS), NODES, seed=1)
    assert ours.most <= MAX_BUILDS < simulate(Rendezvous(ORDERS), NODES, seed=1).most


def test_the_same_seed_gives_the_same() -> None:
    assert simulate(Rendezvous(ORDERS), NODES, seed=3) == simulate(Rendezvous(ORDERS), NODES, seed=3)
    assert simulate(Rendezvous(ORDERS), NODES, seed=3) != simulate(Rendezvous(ORDERS), NODES, seed=4)
