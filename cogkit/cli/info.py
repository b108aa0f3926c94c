"""``cogkit info``: what cogkit uses here."""

from __future__ import annotations

import sys

from cogkit.cli.build_options import takes
from cogkit.cli.builder_options import AskingFlags, chosen_builder
from cogkit.cli.flags import JsonFlag

EXAMPLES = """
\b
Examples:
  cogkit info             where a build would go, and what answers there
  cogkit info --json      for a script
"""


@takes(AskingFlags, without=["compress"])
def info(
    flags: AskingFlags,
    json: JsonFlag = False,
) -> None:
    """Show the versions, the files and the builder that a build would use. Nothing is started for it."""
    from cogkit.builders import private
    from cogkit.builders.inspection import look_at_all
    from cogkit.builders.records import PRIVATE, Node
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.state_view import info_json, info_text

    target = chosen_builder(flags)
    nodes = target.builder.nodes
    if target.private is not None:
        address = private.state().address
        nodes = (Node(PRIVATE, address),) if address else ()
    states = run(look_at_all(nodes))
    sys.stdout.write(info_json(target, states) if json else info_text(target, states))
