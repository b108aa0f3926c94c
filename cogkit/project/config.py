"""``cog.yaml`` as typed data: every key of Cog 0.22's reference, checked, completed, with the place of each mistake.

The data are frozen dataclasses.  A validating library (pydantic, msgspec) would import for 20 ms and more on every
start of the command line and knows nothing of lines and columns, so `cogkit.project.config_reader` walks over the
positioned tree of `cogkit.project.yaml` and says ``cog.yaml:4:3`` for each mistake it finds.  All mistakes are
reported at once; things that work but should change are returned as `ConfigWarning`, never printed.

This file reads the config file and the requirements file it names, nothing else, and writes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cogkit.errors import ConfigError
from cogkit.project import compat
from cogkit.project import yaml as positioned
from cogkit.project.config_model import (
    COG_VERSION,
    DEFAULT_CONFIG_FILENAME,
    Build,
    Config,
    ConfigWarning,
    RunCommand,
    SecretMount,
    Weight,
    WeightSource,
)
from cogkit.project.config_reader import SUPPORTED_PYTHONS, ConfigReader
from cogkit.project.requirements import Requirement, read_requirements

__all__ = [
    "COG_VERSION",
    "DEFAULT_CONFIG_FILENAME",
    "Build",
    "Config",
    "ConfigWarning",
    "RunCommand",
    "SecretMount",
    "Weight",
    "WeightSource",
    "config_json",
    "default_image_name",
    "load_config",
    "parse_config",
]


def load_config(path: Path, *, project_dir: Path | None = None) -> Config:
    """Reads, checks and completes a config file.

    Args:
        path: The file.
        project_dir: The project's folder; the file's own by default.

    Raises:
        ConfigError: The file is missing, is not YAML, or is not a valid Cog configuration.
    """
    directory = path.parent if project_dir is None else project_dir
    try:
        shown = path.relative_to(directory).as_posix()
    except ValueError:
        shown = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{shown} not found in {directory}", hint="Run 'cogkit init' to make one, or name the file with -f."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the config file: {error.strerror}", where=shown) from error
    return parse_config(content, filename=shown, project_dir=directory)


def parse_config(
    content: bytes | str, *, filename: str = DEFAULT_CONFIG_FILENAME, project_dir: Path = Path(".")
) -> Config:
    """Checks and completes a config that is already in memory; see `load_config`."""
    root = positioned.parse(content, filename)
    reader = ConfigReader(filename)
    config = reader.read(root, project_dir)
    reader.raise_problems()
    config = _complete(config)
    return replace(config, warnings=(*reader.warnings, *config.warnings))


def default_image_name(project_dir: Path) -> str:
    """The image name Cog gives a project without one: ``cog-`` and the folder's name, at most 30 characters.

    Where that is not a name, because it ends in a dash, it is ended before.
    """
    prefix = "cog-"
    name = re.sub(r"[^a-z0-9\-]+", "", project_dir.resolve().name.lower().replace(" ", "-"))
    name = name[: 30 - len(prefix)]
    name = (name if name.startswith(prefix) else prefix + name).rstrip("-")
    return name if name.startswith(prefix) else f"{prefix}model"


def config_json(config: Config) -> str:
    """The config as Cog writes it into the label ``run.cog.config``: its keys, its order, its escapes."""
    build = config.build
    document: dict[str, object] = {
        "build": _present(
            gpu=build.gpu,
            python_version=build.python_version,
            python_requirements=build.python_requirements,
            python_packages=list(build.python_packages),
            run=[
                _present(
                    command=run.command,
                    mounts=[_present(type="secret", id=mount.id, target=mount.target) for mount in run.mounts],
                )
                for run in build.run
            ],
            system_packages=list(build.system_packages),
            pre_install=list(build.pre_install),
            cuda=build.cuda,
            cudnn=build.cudnn,
            sdk_version=build.sdk_version,
        ),
        **_present(image=config.image, model=config.model, predict=config.run, train=config.train),
    }
    if config.concurrency_max is not None:
        document["concurrency"] = _present(max=config.concurrency_max)
    document |= _present(
        environment=[f"{name}={value}" for name, value in config.environment],
        weights=[{"name": one.name, "target": one.target, "source": _sources(one)} for one in config.weights],
    )
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _present(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value}


def _sources(weight: Weight) -> object:
    sources = [
        _present(uri=source.uri, include=list(source.include), exclude=list(source.exclude)) for source in weight.source
    ]
    return sources[0] if len(sources) == 1 else sources


def _complete(config: Config) -> Config:
    """Reads the requirements and, for a GPU build, chooses CUDA and cuDNN."""
    build = config.build
    if build.python_requirements:
        path = config.project_dir / build.python_requirements
        requirements = read_requirements(path, build.python_requirements)
    else:
        where = config.where("build.python_packages")
        requirements = tuple(Requirement(package, where) for package in build.python_packages)
    warnings: list[str] = []
    if build.gpu:
        chosen = _placed_errors(
            lambda: compat.choose_cuda(build.cuda, build.cudnn, requirements),
            config.places.get("build.cuda") or config.places.get("build.cudnn") or config.where("build.gpu"),
        )
        build = replace(build, cuda=chosen.cuda, cudnn=chosen.cudnn)
        warnings += chosen.warnings
    unset: tuple[ConfigWarning, ...] = ()
    if not build.python_version and "build" in config.places:
        python, reason = compat.choose_python(SUPPORTED_PYTHONS, requirements)
        build = replace(build, python_version=python)
        text = f'"build.python_version" is not set: using {python}, {reason}. Pin it: python_version: "{python}"'
        unset = (ConfigWarning(text, "build.python_version", config.where("build")),)
    if build.python_version:
        warnings += compat.python_warnings(build.python_version, requirements)
    key = "build.python_requirements" if build.python_requirements else "build.python_packages"
    return replace(
        config,
        build=build,
        requirements=requirements,
        warnings=(*unset, *(ConfigWarning(text, key, config.where(key)) for text in warnings)),
    )


def _placed_errors(act: Callable[[], compat.Cuda], where: str) -> compat.Cuda:
    try:
        return act()
    except ConfigError as error:
        error.where = error.where or where
        raise
