"""``cogkit prune``: delete what a builder keeps in its cache."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import takes
from cogkit.cli.builder_options import (
    AskingFlags,
    CacheFilterFlag,
    VerboseFlag,
    chosen_builder,
    parse_duration,
    parse_space,
)
from cogkit.cli.flags import JsonFlag

if TYPE_CHECKING:
    from cogkit.builders.choice import Target
    from cogkit.buildkit.records import UsageRecord

EXAMPLES = """
\b
Examples:
  cogkit prune                                    all that no build uses
  cogkit prune --all                              internal records and those of frontends, too
  cogkit prune --keep-duration 7d                 what was not used for a week
  cogkit prune --max-used-space 20GB              so much that 20 GB are left
"""

WHAT = "What stays"

AllFlag = Annotated[bool, typer.Option("-a", "--all", help="Internal records and those of frontends, too.")]
KeepDurationFlag = Annotated[
    str | None,
    typer.Option(
        "--keep-duration", metavar="DURATION", help="Records used within it, such as 48h.", rich_help_panel=WHAT
    ),
]
ReservedSpaceFlag = Annotated[
    str | None,
    typer.Option(
        "--reserved-space",
        "--keep-storage",
        metavar="SIZE",
        help="So much of the cache in any case.",
        rich_help_panel=WHAT,
    ),
]
MaxUsedSpaceFlag = Annotated[
    str | None,
    typer.Option("--max-used-space", metavar="SIZE", help="So much of the cache at most.", rich_help_panel=WHAT),
]
MinFreeSpaceFlag = Annotated[
    str | None,
    typer.Option(
        "--min-free-space", metavar="SIZE", help="What leaves so much of the disk free.", rich_help_panel=WHAT
    ),
]


@takes(AskingFlags, without=["compress"])
def prune(
    flags: AskingFlags,
    filter: CacheFilterFlag = None,
    all: AllFlag = False,
    keep_duration: KeepDurationFlag = None,
    reserved_space: ReservedSpaceFlag = None,
    max_used_space: MaxUsedSpaceFlag = None,
    min_free_space: MinFreeSpaceFlag = None,
    verbose: VerboseFlag = False,
    json: JsonFlag = False,
) -> None:
    """Delete what a builder keeps in its cache and no build uses now; of a farm, on every node.

    Nothing is asked. What is deleted is made again when a build needs it.
    """
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.state_view import usage_json, usage_text

    keep = parse_duration(keep_duration, flag="--keep-duration")
    reserved = parse_space(reserved_space, flag="--reserved-space")
    most = parse_space(max_used_space, flag="--max-used-space")
    free = parse_space(min_free_space, flag="--min-free-space")
    target = chosen_builder(flags)

    async def delete(target: Target) -> list[tuple[str, UsageRecord]]:
        from cogkit.builders.connecting import each_connected
        from cogkit.cli.ui.failure import say_warning

        gone = []
        async for node, client in each_connected(target, warn=say_warning):
            deleted = client.prune(
                filter or (),
                all=all,
                keep_duration=keep,
                reserved_space=reserved,
                max_used_space=most,
                min_free_space=free,
            )
            gone += [(node.name, record) async for record in deleted]
        return gone

    records = run(delete(target))
    several = len(target.builder.nodes) > 1
    sys.stdout.write(usage_json(records) if json else usage_text(records, several=several, verbose=verbose))
