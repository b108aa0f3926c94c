"""The reference of the command line says what the command line does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[3] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli", DOCS / "generate_cli.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    fresh = generator().reference()
    assert (DOCS / "cli.md").read_text("utf-8") == fresh, "run: python docs/generate_cli.py"


def test_the_reference_names_every_command_and_flag() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    for word in ("cogkit build", "cogkit init", "cogkit dockerfile", "cogkit context", "--lock-timeout", "--push"):
        assert word in text
