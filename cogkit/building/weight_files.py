"""Finds a project's weights among the files that its build would send.

The patterns are those of ``.dockerignore``, read by the same matcher.  What is a weight is decided in
`cogkit.project.weights.layers`; this file must not decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cogkit.building.context_report import sent_files
from cogkit.building.options import CogOptions
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternError, PatternMatcher
from cogkit.errors import UsageError
from cogkit.project.config import Config
from cogkit.project.discover import Project
from cogkit.project.weights.layers import ProjectFile, WeightLayers, guess_weights, match_weights

WEIGHTS_PATH_FLAG = "--weights-path"


def find_weights(project: Project, config: Config, options: CogOptions) -> tuple[WeightLayers, tuple[str, ...]]:
    """The weights that get layers of their own, and what should be told of them.

    They are what the command line names, else what the configuration names, else what looks like weights.

    Raises:
        ConfigError: the context or a pattern of the configuration cannot be read.
        UsageError: a pattern of the command line cannot be read.
    """
    files = [ProjectFile(file.path, file.size) for file in sent_files(project)]
    patterns = options.weights_paths or config.build.weights_paths
    if not patterns:
        found = guess_weights(files)
        return found, () if found else ("no weights were found to separate; name them with --weights-path",)
    where = None if options.weights_paths else config.where("build.weights_paths")
    try:
        is_weight, unused = _matcher(patterns, [file.path for file in files])
    except PatternError as problem:
        if where is None:
            raise UsageError(
                f"{WEIGHTS_PATH_FLAG}: {problem.message}", hint="patterns are written as in .dockerignore"
            ) from problem
        problem.where = where
        raise
    name = WEIGHTS_PATH_FLAG if where is None else f"{where}: build.weights_paths"
    return match_weights(files, is_weight), tuple(f"{name}: {pattern!r} matches no file" for pattern in unused)


def _matcher(patterns: Sequence[str], paths: Sequence[str]) -> tuple[Callable[[str], bool], list[str]]:
    """A test for weights, and the patterns that no path matches."""
    cleaned = [pattern.removeprefix("./").removeprefix("/") for pattern in patterns]
    matcher = PatternMatcher(cleaned)
    unused = [
        pattern
        for pattern in cleaned
        if not pattern.startswith("!") and not any(map(PatternMatcher([pattern]).matches_or_parent_matches, paths))
    ]
    return matcher.matches_or_parent_matches, unused
