"""The data that a ``cog.yaml`` becomes; see `cogkit.project.config`, which makes them and shows them to the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from cogkit.fast_dataclass import dataclass
from cogkit.project.requirements import Requirement

DEFAULT_CONFIG_FILENAME = "cog.yaml"

COG_VERSION = "0.22.0"
"""The release of Cog whose files, images and labels these are; Cog writes its own version where it is asked for."""


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something that works but should change: ``field`` is its key, ``where`` its ``file:line:column``."""

    message: str
    field: str
    where: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret that a `RunCommand` sees as a file at ``target``."""

    id: str
    target: str


@dataclass(frozen=True, slots=True)
class RunCommand:
    """One command of ``build.run``: a single line for the shell, and the secrets it may read."""

    command: str
    mounts: tuple[SecretMount, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """The ``build`` section; "" and () are "not set".

    With ``gpu``, ``cuda`` and ``cudnn`` are always set here: chosen from the frameworks when the user did not.
    ``weights_paths`` is cogkit's own key: glob patterns of what ``--separate-weights`` puts into layers of its own.
    """

    gpu: bool = False
    python_version: str = ""
    python_requirements: str = ""
    python_packages: tuple[str, ...] = ()
    run: tuple[RunCommand, ...] = ()
    system_packages: tuple[str, ...] = ()
    pre_install: tuple[str, ...] = ()
    cuda: str = ""
    cudnn: str = ""
    sdk_version: str = ""
    weights_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightSource:
    """Where a weight comes from (``hf://``, ``file://``, ``https://`` or a path) and which of its files are taken."""

    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Weight:
    """One entry of ``weights``: a directory mounted at ``target`` in the container."""

    name: str
    target: str
    source: tuple[WeightSource, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A whole ``cog.yaml``, valid and completed.

    Attributes:
        run: Reference to the runner, ``path.py:Name``; Cog's ``run`` or its older name ``predict``.
        concurrency_max: ``concurrency.max``, None if not set.
        environment: Names and values in the order they were written.
        requirements: The lines of ``build.python_requirements`` or ``build.python_packages``.
        project_dir: The folder that relative paths are relative to.
        warnings: What should be told to the user, once.
    """

    build: Build = Build()
    image: str = ""
    model: str = ""
    run: str = ""
    train: str = ""
    concurrency_max: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    weights: tuple[Weight, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    project_dir: Path = Path(".")
    filename: str = DEFAULT_CONFIG_FILENAME
    warnings: tuple[ConfigWarning, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def where(self, key: str) -> str:
        """The ``file:line:column`` of a key (``build.cuda``), or the file's name if the key is not there."""
        return self.places.get(key, self.filename)
