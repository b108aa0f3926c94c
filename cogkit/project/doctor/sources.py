"""The files of a project that the checks look at, read once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Self

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project import yaml as positioned
from cogkit.project.config import Config, load_config
from cogkit.project.schema.grammar import FAILED, parse


@dataclass(frozen=True, slots=True)
class PythonSource:
    """A Python file that ``cog.yaml`` names; ``tree`` is None if it is not Python, then ``fault`` says why."""

    path: str
    data: bytes
    tree: ast.Module | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ProjectSources:
    """What there is of a project.

    Attributes:
        root: Its folder.
        filename: The configuration's name in it.
        config_data: Bytes of the configuration.
        config: The configuration; None if it cannot be used.
        syntax_error: Why it is not YAML.
        config_error: Why it is YAML and no configuration.
        python: The files of ``run`` and ``train`` that are there.
    """

    root: Path
    filename: str
    config_data: bytes
    config: Config | None
    syntax_error: ConfigError | None
    config_error: ConfigError | None
    python: tuple[PythonSource, ...]

    @classmethod
    def read(cls, root: Path, config_path: Path) -> Self:
        """Read a project's files as they are now.

        Raises:
            ConfigError: the configuration cannot be read at all.
        """
        try:
            filename, data = config_path.relative_to(root).as_posix(), config_path.read_bytes()
        except OSError as problem:
            raise ConfigError(f"cannot read it: {problem.strerror}", where=str(config_path)) from problem
        syntax_error = config_error = None
        config = None
        try:
            positioned.parse(data, filename)
        except ConfigError as problem:
            syntax_error = problem
        else:
            try:
                config = load_config(config_path, project_dir=root)
            except ConfigError as problem:
                config_error = problem
        references = (config.run, config.train) if config else ()
        paths = dict.fromkeys(reference_parts(reference)[0] for reference in references if reference)
        version = config.build.python_version if config else ""
        python = tuple(source for path in sorted(paths) if (source := _read_python(root, path, version)) is not None)
        return cls(root, filename, data, config, syntax_error, config_error, python)

    def source(self, path: str) -> PythonSource | None:
        """The file of that path, if ``cog.yaml`` names it and it is there."""
        return next((source for source in self.python if source.path == path), None)


def reference_parts(reference: str) -> tuple[str, str]:
    """File and name of ``file.py:Name``; the name is empty without a colon."""
    file, colon, name = reference.rpartition(":")
    return (file, name) if colon else (reference, "")


def _read_python(root: Path, path: str, version: str) -> PythonSource | None:
    try:
        data = (root / path).read_bytes()
    except OSError:
        return None
    try:
        return PythonSource(path, data, parse(data, path, version).tree)
    except ConfigError as problem:
        place = (problem.where or path).removeprefix(path).split(":")
        line = f"line {place[1]}: " if len(place) > 1 else ""
        return PythonSource(path, data, None, f"{line}{problem.message.removeprefix(FAILED)}")
