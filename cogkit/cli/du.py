"""``cogkit du``: what a builder's cache takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import takes
from cogkit.cli.builder_options import AskingFlags, CacheFilterFlag, VerboseFlag, chosen_builder, parse_duration
from cogkit.cli.flags import JsonFlag

if TYPE_CHECKING:
    from cogkit.builders.choice import Target
    from cogkit.buildkit.records import UsageRecord

EXAMPLES = """
\b
Examples:
  cogkit du                                       all records of the cache, the biggest last
  cogkit du --filter type==exec.cachemount        those of RUN --mount=type=cache
  cogkit du --json | jq 'map(.size) | add'        the sum, for a script
"""

UnusedForFlag = Annotated[
    str | None, typer.Option("--unused-for", metavar="DURATION", help="Only records not used for so long, such as 7d.")
]


@takes(AskingFlags, without=["compress"])
def du(
    flags: AskingFlags,
    filter: CacheFilterFlag = None,
    unused_for: UnusedForFlag = None,
    verbose: VerboseFlag = False,
    json: JsonFlag = False,
) -> None:
    """Show what a builder's cache takes of its disk; of a farm, on every node."""
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.state_view import usage_json, usage_text

    age = parse_duration(unused_for, flag="--unused-for")
    target = chosen_builder(flags)

    async def ask(target: Target) -> list[tuple[str, UsageRecord]]:
        from cogkit.builders.connecting import each_connected
        from cogkit.cli.ui.failure import say_warning

        found = []
        async for node, client in each_connected(target, warn=say_warning):
            found += [(node.name, each) for each in await client.disk_usage(filter or (), unused_for=age)]
        return found

    records = run(ask(target))
    several = len(target.builder.nodes) > 1
    sys.stdout.write(usage_json(records) if json else usage_text(records, several=several, verbose=verbose))
