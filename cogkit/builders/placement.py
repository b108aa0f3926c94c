"""Which node of a farm builds a project: rendezvous hashing of project and platform.

Each node has a score for each project, from a hash of both; the highest one has the project.  So a project always goes
to the same node, whoever builds it, and its files and its cache are there.  When a node goes, only its own projects
move, each to the node with its next score, and they come back when it does.  The scores are weighted so that a node of
weight 2 gets twice the projects of one of weight 1.  This file must not ask anybody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from cogkit.builders.records import Node

_VARIANTS = {"linux/arm64/v8": "linux/arm64", "linux/amd64/v1": "linux/amd64"}


def score(node: Node, project: str, platform: str = "") -> float:
    """How much a node wants a project: a number above 0 that no other score has to do with."""
    key = "\0".join((node.name, project, platform))
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    # In the open interval from 0 to 1: half a step up, of 2^53 that a float can tell apart.
    fraction = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / (1 << 53)
    return -node.weight / math.log(fraction)


def ranked(nodes: Iterable[Node], project: str, platforms: Sequence[str] = ()) -> list[Node]:
    """The nodes in the order in which to try them.

    First those of which the list says that they build all of the platforms natively, then those of which it says
    nothing, then the others, which may emulate them; each kind by its scores.

    Args:
        nodes: The farm.
        project: What the project is called, on every machine alike.
        platforms: What is built; empty for the node's own platform.
    """
    mark = ",".join(map(usual, platforms))
    return sorted(nodes, key=lambda node: (_distance(node, platforms), -score(node, project, mark), node.name))


def natively(node: Node, platforms: Sequence[str]) -> bool:
    """Whether the list says that a node builds all of the platforms natively."""
    own = {usual(each) for each in node.platforms}
    return all(usual(each) in own for each in platforms)


def usual(platform: str) -> str:
    """A platform without a variant that goes without saying."""
    return _VARIANTS.get(platform, platform)


def _distance(node: Node, platforms: Sequence[str]) -> int:
    if not platforms or natively(node, platforms):
        return 0
    return 2 if node.platforms else 1
