"""Has version control tell the builder of a build's sources; see `cogkit.project.vcs`.

git answers beside the connection to the builder, so that an unchanged build does not wait for it.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.definition import CONTEXT_MOUNT
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.recipes import Recipe
from cogkit.buildkit.blocking import in_thread

if TYPE_CHECKING:
    from cogkit.project.vcs import VcsQuestions


def ask_about_sources(options: BuildOptions, recipe: Recipe, stack: AsyncExitStack) -> VcsQuestions | None:
    """Ask about the context; None if nothing is to be known.

    Args:
        options: The user's wishes.
        recipe: What is built.
        stack: What ends the questions, should nobody wait for the answers.
    """
    context = recipe.folders.get(CONTEXT_MOUNT)
    if context is None or options.call is not None:
        return None
    from cogkit.project.vcs import ask_vcs

    questions = ask_vcs(context, os.environ)
    if questions is not None:
        stack.callback(questions.abandon)
    return questions


async def with_answers(
    options: BuildOptions, recipe: Recipe, questions: VcsQuestions | None, observer: BuildObserver
) -> BuildOptions:
    """The options with what version control said."""
    if questions is None:
        return options
    folders = recipe.folders | {named.name: Path(named.value) for named in options.build_contexts if named.local}
    answer = await in_thread(questions.answer, folders, recipe.project.dockerfile_path)
    if answer.problem is not None:
        observer.on_warning(f"the commit is not recorded with the build: {answer.problem}")
    return replace(options, vcs=answer.attrs)
