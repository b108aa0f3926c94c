"""The files that ``cogkit init`` puts into a new project.

What exists is kept, whatever it is; nothing here may overwrite a user's file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cogkit.atomic_file import create_whole
from cogkit.errors import ConfigError, OutputError
from cogkit.fast_dataclass import dataclass

COG_YAML = """\
# What the image of this project is made of.  Reference: https://cog.run/yaml

build:
  # The Python of the image: "3.11", or to the patch level, "3.11.9".
  python_version: "3.11"

  # Python packages, one a line, in pip's format.
  python_requirements: requirements.txt

  # Debian packages that the code needs.
  # system_packages:
  #   - "ffmpeg"

  # Commands to run when the packages are in place.
  # run:
  #   - "echo ready"

# The class that does the work: file, colon, class.
run: "run.py:Runner"
"""

RUN_PY = '''\
from cog import BaseRunner, Input


class Runner(BaseRunner):
    def setup(self) -> None:
        """Runs once, before the first request: load a model into memory here."""
        self.greeting = "Hello"

    def run(self, name: str = Input(description="Whom to greet", default="world")) -> str:
        """Runs for every request."""
        return f"{self.greeting}, {name}!"
'''

REQUIREMENTS_TXT = """\
# Python packages of the image, one a line.  A pinned version keeps the next build like this one:
#
# numpy==2.2.6
"""

DOCKERIGNORE = """\
# What never goes into the image.  cogkit leaves .cog/ out by itself.

.git
.venv
venv
**/__pycache__
**/*.pyc
**/.DS_Store
.mypy_cache
.pytest_cache
.ruff_cache

# Secrets are for `--secret`, not for the image.
.env
"""

STARTER_FILES: Mapping[str, str] = MappingProxyType(
    {"cog.yaml": COG_YAML, "run.py": RUN_PY, "requirements.txt": REQUIREMENTS_TXT, ".dockerignore": DOCKERIGNORE}
)
"""Name and text of each file, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class InitFile:
    """One file of `init_project`: ``created`` now, or kept as it was."""

    path: Path
    created: bool


def init_project(directory: str | os.PathLike[str]) -> list[InitFile]:
    """Write the starter files into an existing folder; keep every file that is there.

    Returns:
        The files in the order of `STARTER_FILES`, each created or kept.

    Raises:
        ConfigError: the folder does not exist.
        OutputError: a file could not be written.  Those before it have been; running it again makes the rest.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ConfigError("there is no such folder to make a project in", where=str(folder))
    return [InitFile(folder / name, _create(folder / name, text)) for name, text in STARTER_FILES.items()]


def _create(path: Path, text: str) -> bool:
    """Create a file whole or not at all; False if there is something of that name (a dangling link counts)."""
    try:
        create_whole(path, text.encode())
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"cannot write it: {error.strerror or error}", where=str(path)) from error
    return True
