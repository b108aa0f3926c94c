"""``cogkit history``: the builds that a builder remembers."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.buildkit.errors import BuildError
from cogkit.cli.build_options import takes
from cogkit.cli.builder_options import AskingFlags, chosen_builder
from cogkit.cli.flags import JsonFlag, ProgressFlag, ProgressMode
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.builders.choice import Target
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.records import BuildRecord

HELP = """Show what a builder remembers of its builds, and delete it.

A build's REF is what `history ls` shows, or enough of its beginning.
"""

EXAMPLES = """
\b
Examples:
  cogkit history ls --limit 10           the newest builds
  cogkit history logs k2v9               the output of one, also of one that still runs
  cogkit history rm --all                forget all of them
"""

RefArgument = Annotated[str, typer.Argument(metavar="REF", help="A build's name.", show_default=False)]
RefsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="REF...", help="Names of builds.", show_default=False)
]
FilterFlag = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="FILTER", help="Such as status==error or startedAt>2026-01-02 (BuildKit 0.22)."),
]
LimitFlag = Annotated[int, typer.Option("--limit", metavar="NUMBER", min=0, help="Only the newest so many; 0 for all.")]
AllFlag = Annotated[bool, typer.Option("--all", help="All builds that have ended.")]


@takes(AskingFlags, without=["compress"])
def ls(
    flags: AskingFlags,
    filter: FilterFlag = None,
    limit: LimitFlag = 0,
    json: JsonFlag = False,
) -> None:
    """List builds, the newest first; of a farm, those of every node."""
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.state_view import history_json, history_text

    target = chosen_builder(flags)
    records = run(_all_records(target, filter or [], limit))
    records.sort(key=lambda found: found[1].created_at, reverse=True)
    records = records[:limit] if limit else records
    several = len(target.builder.nodes) > 1
    sys.stdout.write(history_json(records) if json else history_text(records, several=several))


@takes(AskingFlags, without=["compress"])
def logs(flags: AskingFlags, ref: RefArgument, progress: ProgressFlag = ProgressMode.PLAIN) -> None:
    """Show the output of a build, whoever ran it; one that still runs is followed to its end.

    The exit code is that of this command, not of the build.
    """
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.progress import open_progress, shown

    target = chosen_builder(flags)
    view = open_progress(progress, stream=sys.stdout)

    async def follow() -> None:
        async with aclosing(_found(target, ref)) as found:
            async for client, record in found:
                async with shown(view):
                    async for status in client.status(record.ref):
                        view.on_status(status)

    run(follow())


@takes(AskingFlags, without=["compress"])
def inspect(
    flags: AskingFlags,
    ref: RefArgument,
    json: JsonFlag = False,
) -> None:
    """Show what a builder knows of a build: what was asked for, what came of it, how long it took."""
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.state_view import record_json, record_text

    target = chosen_builder(flags)

    async def look() -> BuildRecord:
        async with aclosing(_found(target, ref)) as found:
            async for _, record in found:
                return record
        raise AssertionError("a build that is not found raises")

    record = run(look())
    sys.stdout.write(record_json(record) if json else record_text(record))


@takes(AskingFlags, without=["compress"])
def rm(
    flags: AskingFlags,
    refs: RefsArgument = None,
    all: AllFlag = False,
    json: JsonFlag = False,
) -> None:
    """Take builds out of the history; their images and the cache stay.

    The names of what was removed go to standard output.
    """
    from cogkit.cli.interruptible import run

    if all == bool(refs):
        raise UsageError("say which builds to remove", hint="give their names, or --all")
    target = chosen_builder(flags)

    async def remove() -> list[str]:
        return await (_remove_all(target) if all else _remove(target, refs or []))

    gone = run(remove())
    if json:
        import json as writer

        sys.stdout.write(writer.dumps(gone) + "\n")
    else:
        sys.stdout.write("".join(f"{ref}\n" for ref in gone))


async def _remove(target: Target, refs: list[str]) -> list[str]:
    gone = []
    for ref in refs:
        async with aclosing(_found(target, ref)) as found:
            async for client, record in found:
                if record.completed_at is None:
                    raise BuildError(f"the build {record.ref} still runs", hint="wait for its end, or interrupt it")
                await client.delete_history(record.ref)
                gone.append(record.ref)
    return gone


async def _remove_all(target: Target) -> list[str]:
    from cogkit.builders.connecting import each_connected
    from cogkit.cli.ui.failure import say_warning

    gone = []
    async for _, client in each_connected(target, warn=say_warning):
        for record in [event.record async for event in client.history()]:
            if record.completed_at is not None:
                await client.delete_history(record.ref)
                gone.append(record.ref)
    return gone


async def _all_records(target: Target, filters: list[str], limit: int) -> list[tuple[str, BuildRecord]]:
    from cogkit.builders.connecting import each_connected
    from cogkit.cli.ui.failure import say_warning

    found: list[tuple[str, BuildRecord]] = []
    async for node, client in each_connected(target, warn=say_warning):
        found += [(node.name, event.record) async for event in client.history(filters=filters, limit=limit)]
    return found


async def _found(target: Target, ref: str) -> AsyncGenerator[tuple[AsyncClient, BuildRecord], None]:
    """The one build whose name is, or begins with, ``ref``, and a client of the node that knows it.

    Raises:
        UsageError: there is none, or more than one.
    """
    from cogkit.builders.connecting import each_connected
    from cogkit.cli.ui.failure import say_warning

    async for _, client in each_connected(target, warn=say_warning):
        records = {event.record.ref: event.record async for event in client.history()}
        matching = (
            [records[ref]] if ref in records else [each for name, each in records.items() if name.startswith(ref)]
        )
        if len(matching) > 1:
            raise UsageError(f"{len(matching)} builds have names that begin with {ref!r}", hint="give more of the name")
        if matching:
            yield client, matching[0]
            return
    raise UsageError(f"the builder does not know a build {ref!r}", hint="`cogkit history ls` lists those it remembers")


SUBCOMMANDS = {"ls": (ls, None), "logs": (logs, None), "inspect": (inspect, None), "rm": (rm, None)}
