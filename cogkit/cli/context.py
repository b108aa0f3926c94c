"""``cogkit context``: show what a build would send."""

from __future__ import annotations

import sys

from cogkit.cli.build_options import choose_context
from cogkit.cli.flags import ContextFlag, DebugFlag, FileFlag, JsonFlag, PathArgument

EXAMPLES = """
\b
Examples:
  cogkit context                                   what is sent, the biggest folders, what leaves out what
  cogkit context --json | jq -r '.files[].path'    every file that is sent
"""


def context(
    path: PathArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show what a build would send: files, sizes, the biggest folders, and what excluded what.

    Nothing is sent and no builder is needed. A build sends less if an earlier one has sent the same files, and only
    what its Dockerfile asks for.
    """
    from cogkit.building.context_report import report_context
    from cogkit.building.options import BuildOptions
    from cogkit.cli.ui.context_view import as_json, as_text
    from cogkit.cli.ui.failure import warning_line

    report = report_context(BuildOptions(context=choose_context(path, context), file=file))
    for warning in report.warnings:
        print(warning_line(warning, sys.stderr), file=sys.stderr)
    sys.stdout.write(as_json(report) if json else as_text(report))
