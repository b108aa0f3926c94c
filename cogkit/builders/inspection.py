"""What builders say of themselves, many at once; nothing is started for that, and nobody is waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cogkit.builders.connecting import connect
from cogkit.builders.records import Node
from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.records import WorkerInfo


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it answers now.

    Attributes:
        node: As in the list of builders.
        version: Of its daemon; None if it does not answer, or does not tell.
        workers: As it says itself.
        active: Builds that run on it; None if it does not tell.
        error: Why nothing is known of it.
    """

    node: Node
    version: str | None = None
    workers: tuple[WorkerInfo, ...] = ()
    active: int | None = None
    error: CogkitError | None = None

    @property
    def platforms(self) -> tuple[str, ...]:
        """Those of its worker, its own one first."""
        return tuple(str(platform) for worker in self.workers[:1] for platform in worker.platforms)

    @property
    def misnamed_platforms(self) -> tuple[str, ...]:
        """Platforms that the list says it builds natively, and its worker cannot build at all."""
        said = set(self.platforms)
        return tuple(each for each in self.node.platforms if said and each not in said)


async def look_at(node: Node) -> NodeState:
    """Ask one node; never raises for what is wrong with it."""
    try:
        async with await connect(node) as client:
            workers = await client.list_workers()
            versions = [worker.version.version for worker in workers if worker.version.version]
            return NodeState(node, versions[0] if versions else None, workers, await _active_builds(client))
    except CogkitError as error:
        return NodeState(node, error=error)


async def look_at_all(nodes: Iterable[Node]) -> list[NodeState]:
    """Ask many nodes at the same time; in their order."""
    return list(await asyncio.gather(*(look_at(node) for node in nodes)))


async def _active_builds(client: AsyncClient) -> int | None:
    try:
        return len([event async for event in client.history(active_only=True)])
    except CogkitError:
        return None
