"""The reference in ``docs/reference`` names what there is."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from cogkit.buildkit import llb

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def _documented() -> set[str]:
    """The last parts of all names that the pages have, those of a whole module included."""
    names: set[str] = set()
    for page in PAGES.glob("*.md"):
        for identifier, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.read_text(), re.MULTILINE):
            members = re.search(r"members: \[(.*)\]", options)
            if members is not None:
                names |= set(members[1].split(", "))
                continue
            try:
                module = import_module(identifier)
            except ModuleNotFoundError:
                owner, _, name = identifier.rpartition(".")
                assert hasattr(import_module(owner), name), identifier
                names.add(name)
            else:
                names |= {name for name in vars(module) if not name.startswith("_")}
    return names


def test_all_that_graphs_are_made_of_is_in_the_reference() -> None:
    # Module-level actions are the methods of `FileAction`.
    actions = {"copy", "mkdir", "mkfile", "rm", "symlink"}
    assert set(llb.__all__) - _documented() - actions == set()
