"""Marshalled LLB out of a file or standard input, and as text for people."""

from __future__ import annotations

from pathlib import Path

from cogkit.building.standard_input import is_standard_input, read_piped_llb
from cogkit.buildkit.llb.definition import Definition
from cogkit.errors import ConfigError, UsageError


def read_llb(file: str | None) -> bytes:
    """The content of a file, or of standard input.

    Raises:
        ConfigError, UsageError: it cannot be read, or is not LLB.
    """
    if file is None or is_standard_input(file):
        return read_piped_llb()
    try:
        content = Path(file).read_bytes()
    except OSError as problem:
        raise ConfigError(f"cannot read the LLB: {problem.strerror}", where=file) from problem
    except ValueError as problem:
        raise UsageError(f"not the name of a file: {file!r}") from problem
    Definition.from_bytes(content)
    return content


def dot_text(content: bytes) -> str:
    """The graph in Graphviz's language."""
    return Definition.from_bytes(content).dot()


def json_text(content: bytes) -> str:
    """One vertex a line, as JSON."""
    from cogkit.buildkit.llb_json import json_lines

    return json_lines(content)
