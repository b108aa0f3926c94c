"""A connection to the builder that was chosen, be it one that has to be started first.

For whoever wants one daemon, whichever node of a farm that is; how a build is spread over a farm is not decided here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cogkit.buildkit.blocking import in_thread

if TYPE_CHECKING:
    from cogkit.builders.choice import Target
    from cogkit.builders.records import Node
    from cogkit.buildkit.client import AsyncClient


def _ignore(_: str) -> None:
    return


@asynccontextmanager
async def connected(
    target: Target,
    *,
    compress: bool | None = None,
    warn: Callable[[str], None] = _ignore,
    note: Callable[[str], None] = _ignore,
    for_build: bool = False,
) -> AsyncIterator[AsyncClient]:
    """A client of the target's daemon; of a farm that of the first node that answers.

    Args:
        target: What `choice.choose` gave.
        compress, warn, for_build: As of `AsyncClient.connect`.
        note: Told what was decided on the way.

    Raises:
        BuilderUnreachableError: nobody answers.
        UsageError: an address or a TLS file cannot be used.
    """
    from cogkit.buildkit.errors import BuilderUnreachableError

    async with AsyncExitStack() as stack:
        if target.private is not None:
            node = await stack.enter_async_context(private_node(target, warn=warn, note=note))
            yield await stack.enter_async_context(
                await connect(node, compress=compress, warn=warn, for_build=for_build)
            )
            return
        nodes = target.builder.nodes
        timeout = None if len(nodes) == 1 else target.builder.answer_seconds
        for node in nodes:
            try:
                client = await connect(node, compress=compress, warn=warn, timeout=timeout, for_build=for_build)
            except BuilderUnreachableError as error:
                if node is nodes[-1]:
                    raise
                warn(f"the node {node.name!r} is passed over: {error.message}")
                continue
            yield await stack.enter_async_context(client)
            return


async def connect(
    node: Node,
    *,
    compress: bool | None = None,
    warn: Callable[[str], None] = _ignore,
    timeout: float | None = None,
    for_build: bool = False,
) -> AsyncClient:
    """Connect to one node; see `AsyncClient.connect`."""
    from cogkit.buildkit.connect.dialer import dial_ahead

    dialer = dial_ahead(node.address, node.tls) if for_build else None
    from cogkit.buildkit.client import AsyncClient

    return await AsyncClient.connect(
        node.address, tls=node.tls, compress=compress, warn=warn, timeout=timeout, for_build=for_build, dialer=dialer
    )


@asynccontextmanager
async def private_node(
    target: Target, *, warn: Callable[[str], None] = _ignore, note: Callable[[str], None] = _ignore
) -> AsyncIterator[Node]:
    """The private builder as a node with an address, started if need be, and kept from ending while this is open.

    Raises:
        BuilderUnreachableError: it cannot be started.
    """
    from cogkit.builders import private
    from cogkit.builders.records import PRIVATE, Node

    assert target.private is not None
    for place in target.passed_over:
        warn(f"a builder was passed over, which does not answer: {place}")
    started: list[bool] = []
    use = private.in_use(target.private, on_start=lambda: started.append(True))
    address = await in_thread(use.__enter__)
    try:
        if started:
            note(f"started the private builder; its files are in {private.folder()}")
        yield Node(PRIVATE, address)
    finally:
        use.__exit__(None, None, None)


async def each_connected(
    target: Target, *, warn: Callable[[str], None] = _ignore
) -> AsyncGenerator[tuple[Node, AsyncClient], None]:
    """A client of each node of the target that answers, one after the other; those that do not are told to ``warn``.

    Raises:
        BuilderUnreachableError: none of them answers.
    """
    from cogkit.buildkit.errors import BuilderUnreachableError

    async with AsyncExitStack() as stack:
        nodes = target.builder.nodes
        if target.private is not None:
            nodes = (await stack.enter_async_context(private_node(target, warn=warn)),)
        answered, failure = False, None
        for node in nodes:
            try:
                client = await connect(node, warn=warn)
            except BuilderUnreachableError as error:
                failure = error
                if len(nodes) > 1:
                    warn(f"the node {node.name!r} is left out: {error.message}")
                continue
            answered = True
            async with client:
                yield node, client
        if not answered and failure is not None:
            raise failure
