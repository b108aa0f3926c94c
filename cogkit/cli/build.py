"""``cogkit build``: build the project, or a Dockerfile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from cogkit.cli.build_options import BuildFlags, build_options, takes
from cogkit.cli.flags import PathArgument, ProgressMode
from cogkit.errors import CogkitError

if TYPE_CHECKING:
    from cogkit.building.build import BuildResult
    from cogkit.building.call import CallSpec
    from cogkit.building.options import BuildOptions

EXAMPLES = """
\b
Examples:
  cogkit build -t my-model                               build the project around this folder
  cogkit build -t registry.example.com/my-model --push   build and push
  cogkit build -o type=oci,dest=model.tar                build into a file
  cogkit build -f Dockerfile.dev --target test docs/     build a stage of a Dockerfile
  cogkit build https://example.com/code.git#main:app     build a folder of a Git repository
"""


@takes(BuildFlags)
def build(flags: BuildFlags, path: PathArgument = None) -> None:
    """Build an image from a Cog project or a Dockerfile.

    With a cog.yaml in the folder or above it, the Dockerfile is generated; with a Dockerfile, that is built.
    """
    options = build_options(flags, path=path)
    say_notes(flags)
    look_after_weights(options, flags)
    run_build(options, flags.mode, notes=flags.debug)


def say_notes(flags: BuildFlags) -> None:
    """Tell what of the command line does nothing."""
    from cogkit.cli.ui.failure import say_warning

    for note in flags.notes():
        say_warning(note)


def look_after_weights(options: BuildOptions, flags: BuildFlags) -> None:
    """Pull the project's managed weights if that is wanted, or tell which are missing."""
    from cogkit.building.recipes import find_build_project, has_local_project
    from cogkit.project.weights.lockfile import LOCK_FILENAME

    if not has_local_project(options):
        return
    try:
        root = find_build_project(options).root
    except CogkitError:
        return  # the build says so
    if flags.pull_weights or (root / LOCK_FILENAME).exists():
        from cogkit.cli import managed_weights

        managed_weights.look_after_weights(options, pull=flags.pull_weights, quiet=not flags.talkative)


def run_build(options: BuildOptions, mode: ProgressMode, *, notes: bool = False) -> BuildResult:
    """Run a build with its progress on standard error and, in quiet mode, its image ID on standard output."""
    from cogkit.building import build as builder
    from cogkit.building.options import STDOUT
    from cogkit.cli.interruptible import run
    from cogkit.cli.ui.progress import open_progress, show_result, shown

    progress = open_progress(mode, notes=notes)

    async def work() -> BuildResult:
        async with shown(progress):
            return await builder.build(options, progress)

    result = run(work())
    if options.call is not None:
        _show_answer(options.call, result)
        return result
    show_result(result, mode, stdout_taken=any(output.dest == STDOUT for output in options.outputs))
    return result


def _show_answer(call: CallSpec, result: BuildResult) -> None:
    """Print what the frontend said; ends the command with the answer's status."""
    from cogkit.cli.ui import call_view

    sys.stdout.write(call_view.answer_text(call, result.answer, filename=result.dockerfile_name))
    error = call_view.answer_error(call, result.answer, filename=result.dockerfile_name)
    if error is not None:
        sys.stdout.flush()
        raise error
    if code := call_view.exit_code(call, result.answer):
        raise typer.Exit(code)
