"""The walk over the positioned tree of a ``cog.yaml``: every key, its type, its rules, the place of each mistake.

What counts as valid is Cog's rule, and where a script may look for a message the words are Cog's.  Keys that Cog
would ignore in silence are mistakes here, with a suggestion (docs/cog-compatibility.md says why).

This file must not read anything: that a named file exists is all it asks of the file system.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cogkit.errors import ConfigError
from cogkit.project import compat
from cogkit.project import yaml as positioned
from cogkit.project.config_model import Build, Config, ConfigWarning, RunCommand, SecretMount, Weight, WeightSource
from cogkit.project.yaml import Entry, Mark, Node, Scalar, Sequence

MINIMUM_PYTHON = (3, 10)
MINIMUM_PYTHON_FOR_CONCURRENCY = (3, 11)
SUPPORTED_PYTHONS = ("3.10", "3.11", "3.12", "3.13")

_WEIGHT_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_REPOSITORY = re.compile(r"[a-z0-9_\-./]{2,255}\Z")
_REGISTRY = re.compile(r"([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?\Z")
_PYTHON_VERSION = re.compile(r"[0-9]+\.[0-9]+(\.[0-9A-Za-z]+)?\Z")

# Variables the build or the server sets itself; Cog refuses them too.
_RESERVED_VARIABLES = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "PYTHONUNBUFFERED",
    "R8_*",
    "REPLICATE_*",
    "LIBRARY_PATH",
    "CUDA_*",
    "NVIDIA_*",
    "NV_*",
    "PGET_*",
    "HF_ENDPOINT",
    "HF_HUB_ENABLE_HF_TRANSFER",
    "KUBERNETES_*",
)

_TOP_KEYS = ("build", "image", "model", "run", "predict", "train", "concurrency", "environment", "weights")
_BUILD_KEYS = (
    "gpu",
    "python_version",
    "python_requirements",
    "run",
    "system_packages",
    "cuda",
    "cudnn",
    "sdk_version",
    "python_packages",
    "pre_install",
    "weights_paths",
)
# Keys of earlier Cog versions that changed how an image was built, not what is in it.
_RETIRED_BUILD_KEYS = ("fast", "cog_runtime", "python_overrides")


class _Problem(NamedTuple):
    mark: Mark
    message: str
    hint: str | None


class _Placed(NamedTuple):
    """A text and where it stands."""

    text: str
    mark: Mark


class _Section:
    """One mapping of the file: hands out its values by type and notes what does not fit."""

    def __init__(self, reader: ConfigReader, path: str, node: positioned.Mapping | None, *, doubtful: bool = False):
        self._reader = reader
        self._path = path
        self._node = node
        self._doubtful = doubtful

    @property
    def mark(self) -> Mark:
        return self._node.mark if self._node is not None else Mark(1, 1)

    def path(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def entry(self, key: str) -> Entry | None:
        """The entry of a key that is there and not null."""
        entry = self._node.get(key) if self._node is not None else None
        if entry is None or (isinstance(entry.value, Scalar) and entry.value.is_null):
            return None
        self._reader.places[self.path(key)] = self._reader.place(entry.value.mark)
        return entry

    def text(self, key: str) -> _Placed | None:
        """A string; a number or boolean counts as the text it was written with, as Cog takes it."""
        entry = self.entry(key)
        return None if entry is None else self._reader.as_text(self.path(key), entry.value)

    def boolean(self, key: str) -> bool:
        entry = self.entry(key)
        if entry is None:
            return False
        value = entry.value.as_bool() if isinstance(entry.value, Scalar) else None
        if value is None:
            self._reader.problem(
                entry.value.mark,
                f"{self.path(key)} must be a boolean, not {_article(entry.value.kind)}",
                "Write true or false, without quotes.",
            )
        return bool(value)

    def integer(self, key: str) -> int | None:
        entry = self.entry(key)
        if entry is None:
            return None
        value = entry.value.as_int() if isinstance(entry.value, Scalar) else None
        if value is None:
            self._reader.problem(
                entry.value.mark,
                f"{self.path(key)} must be an integer, not {_article(entry.value.kind)}",
                "Write a whole number, without quotes.",
            )
        return value

    def list(self, key: str) -> tuple[Node, ...]:
        entry = self.entry(key)
        if entry is None:
            return ()
        if isinstance(entry.value, Sequence):
            return entry.value.items
        example = entry.value.text if isinstance(entry.value, Scalar) else "value"
        self._reader.problem(
            entry.value.mark,
            f"{self.path(key)} must be a list, not {_article(entry.value.kind)}",
            f'Write each element on a line of its own, as "- {example}".',
        )
        return ()

    def texts(self, key: str) -> tuple[_Placed, ...]:
        """A list of strings."""
        found = (self._reader.as_text(f"{self.path(key)}[{index}]", node) for index, node in enumerate(self.list(key)))
        return tuple(one for one in found if one is not None)

    def section(self, key: str) -> _Section:
        entry = self.entry(key)
        if entry is None:
            return _Section(self._reader, self.path(key), None)
        return self._reader.section(self.path(key), entry.value)

    def missing(self, mark: Mark, message: str, hint: str | None = None) -> None:
        """Notes that a key is missing, unless a misspelt one here may be what was meant to be it."""
        if not self._doubtful:
            self._reader.problem(mark, message, hint)

    def refuse_others(self, known: Iterable[str], retired: Iterable[str] = ()) -> None:
        """Notes every key that is not known, with the nearest known one."""
        known = tuple(known)
        for entry in self._node or ():
            if entry.key in known or (not self._path and entry.key.startswith("x-")):
                continue
            if entry.key in retired:
                self._reader.warn(self.path(entry.key), f'"{self.path(entry.key)}" has no effect', entry.mark)
                continue
            self._doubtful = True
            self._reader.problem(
                entry.mark,
                f'unknown key "{self.path(entry.key)}"',
                _suggestion(entry.key, known),
            )


class ConfigReader:
    """Walks the tree once and collects the config, the mistakes and the warnings."""

    def __init__(self, filename: str):
        self._filename = filename
        self._problems: list[_Problem] = []
        self.warnings: list[ConfigWarning] = []
        self.places: dict[str, str] = {}

    def place(self, mark: Mark) -> str:
        return f"{self._filename}:{mark.line}:{mark.column}"

    def problem(self, mark: Mark, message: str, hint: str | None = None) -> None:
        self._problems.append(_Problem(mark, message, hint))

    def warn(self, key: str, message: str, mark: Mark) -> None:
        self.warnings.append(ConfigWarning(message, key, self.place(mark)))

    def raise_problems(self) -> None:
        if not self._problems:
            return
        first, *others = sorted(self._problems, key=lambda problem: problem.mark.line * 1_000_000 + problem.mark.column)
        raise ConfigError(
            first.message,
            where=self.place(first.mark),
            hint=first.hint,
            detail="\n".join(f"{self.place(problem.mark)}: {problem.message}" for problem in others) or None,
        )

    def as_text(self, path: str, node: Node) -> _Placed | None:
        if isinstance(node, Scalar) and not node.is_null:
            return _Placed(node.text, node.mark)
        hint = "Quote the value if it holds ': '." if node.kind == "mapping" else None
        self.problem(node.mark, f"{path} must be a string, not {_article(node.kind)}", hint)
        return None

    def section(self, path: str, node: Node) -> _Section:
        if isinstance(node, positioned.Mapping):
            return _Section(self, path, node)
        self.problem(node.mark, f"{path or self._filename} must be a mapping, not {_article(node.kind)}")
        return _Section(self, path, None, doubtful=True)

    def read(self, root: Node | None, project_dir: Path) -> Config:
        empty = root is None or (isinstance(root, Scalar) and root.is_null)
        top = _Section(self, "", None) if root is None or empty else self.section("", root)
        top.refuse_others(_TOP_KEYS)
        build = self._build(top.section("build"), project_dir) if top.entry("build") else Build()
        image, model = top.text("image"), top.text("model")
        self._check_model(image, model)
        return Config(
            build=build,
            image=image.text if image else "",
            model=model.text if model else "",
            run=self._runner(top),
            train=self._reference(top, "train", "train.py:Trainer"),
            concurrency_max=self._concurrency(top, build),
            environment=self._environment(top),
            weights=self._weights(top, image, model),
            project_dir=project_dir,
            filename=self._filename,
            places=MappingProxyType(self.places),
        )

    # build

    def _build(self, section: _Section, project_dir: Path) -> Build:
        section.refuse_others(_BUILD_KEYS, _RETIRED_BUILD_KEYS)
        packages = section.texts("python_packages")
        requirements = section.text("python_requirements")
        if packages and requirements and requirements.text:
            self.problem(
                requirements.mark,
                "invalid build: only one of python_packages or python_requirements can be set, not both",
                "Move the packages into the requirements file.",
            )
        if requirements and requirements.text and not (project_dir / requirements.text).exists():
            self.problem(
                requirements.mark,
                f'invalid build.python_requirements "{requirements.text}": file does not exist',
                self._path_hint(requirements.text, project_dir),
            )
        pre_install = section.texts("pre_install")
        self._warn_deprecated(section, packages, pre_install)
        gpu = section.boolean("gpu")
        cuda = self._cuda(section)
        cuda_entry = section.entry("cuda")
        if cuda and not gpu and cuda_entry is not None:
            self.warn("build.cuda", '"build.cuda" chooses no CUDA image without "build.gpu: true"', cuda_entry.mark)
        run = (self._run_command(f"build.run[{index}]", node) for index, node in enumerate(section.list("run")))
        for placed in pre_install:
            self._check_command(placed)
        return Build(
            gpu=gpu,
            python_version=self._python_version(section),
            python_requirements=requirements.text if requirements else "",
            python_packages=_texts(packages),
            run=tuple(one for one in run if one is not None),
            system_packages=self._system_packages(section),
            pre_install=_texts(pre_install),
            cuda=cuda,
            cudnn=_text(section.text("cudnn")),
            sdk_version=self._word(section, "sdk_version"),
            weights_paths=_texts(section.texts("weights_paths")),
        )

    def _path_hint(self, path: str, project_dir: Path) -> str:
        folder = posixpath.dirname(self._filename)
        if not folder or posixpath.isabs(folder):
            return "The path is relative to the project's folder."
        hint = f"The path is relative to the project's folder, not to {folder}."
        beside = posixpath.join(folder, path)
        return f"{hint} Write {beside}." if (project_dir / beside).exists() else hint

    def _warn_deprecated(
        self, section: _Section, packages: tuple[_Placed, ...], pre_install: tuple[_Placed, ...]
    ) -> None:
        for key, values, instead in (
            ("python_packages", packages, "build.python_requirements"),
            ("pre_install", pre_install, "build.run"),
        ):
            entry = section.entry(key)
            if values and entry is not None:
                self.warn(f"build.{key}", f'deprecated field "build.{key}": use "{instead}" instead', entry.mark)

    def _python_version(self, section: _Section) -> str:
        placed = section.text("python_version")
        if placed is None:
            # Chosen when the requirements are known (`config._complete`).
            return ""
        if not placed.text.strip():
            section.missing(
                placed.mark,
                "invalid build.python_version: python_version is required. Add it to the build section of your "
                'cog.yaml, e.g. `python_version: "3.13"`',
                f"Supported are {', '.join(SUPPORTED_PYTHONS)}.",
            )
            return ""
        version = placed.text.strip()
        fault = _python_version_fault(version)
        if fault:
            self.problem(
                placed.mark,
                f'invalid build.python_version "{version}": {fault}',
                f"Supported are {', '.join(SUPPORTED_PYTHONS)}.",
            )
        return version

    def _cuda(self, section: _Section) -> str:
        placed = section.text("cuda")
        if placed is None or not placed.text:
            return ""
        parts = placed.text.split(".")
        if len(parts) < 2:
            fault = "must include both major and minor versions (e.g., '11.8')"
        elif not _is_number(parts[0]):
            fault = "invalid major version number"
        elif not _is_number(parts[1]):
            fault = "invalid minor version number"
        elif int(parts[0]) < compat.MINIMUM_CUDA_MAJOR:
            fault = f"minimum supported CUDA version is {compat.MINIMUM_CUDA_MAJOR}"
        else:
            return placed.text
        self.problem(placed.mark, f'invalid build.cuda "{placed.text}": {fault}', 'Write it as "12.8".')
        return ""

    def _word(self, section: _Section, key: str) -> str:
        """A value that ends up as one word of a command line."""
        placed = section.text(key)
        if placed is None:
            return ""
        if not re.fullmatch(r"[A-Za-z0-9.+_!-]*", placed.text):
            fault = f'invalid build.{key} "{placed.text}": must be a version'
            self.problem(placed.mark, fault, 'Write it as "0.22.0".')
        return placed.text

    def _system_packages(self, section: _Section) -> tuple[str, ...]:
        packages = section.texts("system_packages")
        for placed in packages:
            if not placed.text.strip() or "\n" in placed.text:
                self.problem(
                    placed.mark,
                    f"invalid build.system_packages {json.dumps(placed.text)}: must be the name of a package",
                    "Write one package to a line.",
                )
        return _texts(packages)

    def _run_command(self, path: str, node: Node) -> RunCommand | None:
        if isinstance(node, Scalar) and not node.is_null:
            self._check_command(_Placed(node.text, node.mark))
            return RunCommand(node.text)
        if not isinstance(node, positioned.Mapping):
            self.problem(
                node.mark,
                f"{path} must be a string or a mapping, not {_article(node.kind)}",
                "Write the command as text, or as 'command:' with 'mounts:'.",
            )
            return None
        section = self.section(path, node)
        section.refuse_others(("command", "mounts"))
        command = section.text("command")
        if command is None:
            section.missing(node.mark, f"{path}.command is required", "Add the command to run.")
            return None
        self._check_command(command)
        mounts = (self._mount(f"{path}.mounts[{index}]", mount) for index, mount in enumerate(section.list("mounts")))
        return RunCommand(command.text, tuple(mount for mount in mounts if mount is not None))

    def _check_command(self, command: _Placed) -> None:
        text = command.text.strip()
        if not text:
            self.problem(command.mark, "a command to run is empty", "Write the command, or remove the line.")
        elif "\n" in text:
            self.problem(
                command.mark,
                "One of the commands in 'run' contains a new line, which won't work. You need to create a new list "
                "item in YAML prefixed with '-' for each command.",
                f"This is the offending line: {text.splitlines()[0]} (use '>-' to fold long commands).",
            )
        elif (len(text) - len(text.rstrip("\\"))) % 2:
            self.problem(
                command.mark,
                "a command to run ends with a backslash, which would join it with what follows",
                "Remove the backslash.",
            )

    def _mount(self, path: str, node: Node) -> SecretMount | None:
        section = self.section(path, node)
        section.refuse_others(("type", "id", "target"))
        values: dict[str, str] = {}
        for key in ("type", "id", "target"):
            placed = section.text(key)
            if placed is None or not placed.text:
                section.missing(node.mark, f"{path}.{key} is required", "A secret mount needs type, id and target.")
                return None
            if re.search(r"[\s,\"'$`\\]", placed.text):
                self.problem(
                    placed.mark,
                    f'invalid {path}.{key} "{placed.text}": blanks, commas, quotes, "$" and backslashes cannot be '
                    "written in a mount",
                    "Choose a plain name.",
                )
            values[key] = placed.text
        if values["type"] != "secret":
            self.problem(
                node.mark,
                f'invalid {path}.type "{values["type"]}": must be "secret"',
                "Secrets are the only mounts a command can have.",
            )
        return SecretMount(values["id"], values["target"])

    # runner, model and the rest

    def _runner(self, top: _Section) -> str:
        run, predict = top.text("run"), top.text("predict")
        if run and run.text and predict and predict.text:
            self.problem(
                predict.mark,
                "invalid run: only one of run or predict can be set",
                "Remove predict; run is its new name.",
            )
            return run.text
        if predict and predict.text:
            entry = top.entry("predict")
            mark = entry.mark if entry is not None else predict.mark
            self.warn("predict", 'deprecated field "predict": use "run" instead', mark)
            return self._reference(top, "predict", "predict.py:Predictor")
        return self._reference(top, "run", "run.py:Runner")

    def _reference(self, top: _Section, key: str, example: str) -> str:
        placed = top.text(key)
        if placed is None or not placed.text:
            return ""
        if len(placed.text.split(".py:")) != 2:
            self.problem(
                placed.mark,
                f"invalid {key} \"{placed.text}\": must be in the form '{example}'",
                "Name the Python file, a colon, and the class or function in it.",
            )
        elif re.search(r"[\n\"\\$]", placed.text):
            self.problem(placed.mark, f'invalid {key} "{placed.text}": quotes, "$" and backslashes are not allowed')
        return placed.text

    def _concurrency(self, top: _Section, build: Build) -> int | None:
        entry = top.entry("concurrency")
        if entry is None:
            return None
        section = top.section("concurrency")
        section.refuse_others(("max",), ("default_target",))
        value, placed = section.integer("max"), section.entry("max")
        if placed is None:
            section.missing(entry.value.mark, "concurrency.max is required", "Add max, or remove concurrency.")
            return None
        self.warn(
            "concurrency.max", 'deprecated field "concurrency.max": use "@cog.concurrent(max=...)" instead', placed.mark
        )
        if value is None:
            return None
        if value < 1:
            self.problem(placed.value.mark, f'invalid concurrency.max "{value}": must be at least 1')
        python = _python_minor(build.python_version)
        if value > 1 and python is not None and python[0] == 3 and python < MINIMUM_PYTHON_FOR_CONCURRENCY:
            self.problem(
                placed.value.mark,
                f'invalid concurrency.max "{value}": concurrency requires Python 3.11 or higher',
                "Raise build.python_version.",
            )
        return value

    def _environment(self, top: _Section) -> tuple[tuple[str, str], ...]:
        variables: dict[str, str] = {}
        for placed in top.texts("environment"):
            name, equals, value = placed.text.partition("=")
            if not equals or not name:
                fault = f'environment variable "{placed.text}" is not in the KEY=VALUE format'
            elif not _ENVIRONMENT.match(name):
                fault = f'environment variable "{name}" must be a letter or "_" and then letters, digits and "_"'
            elif _is_reserved(name):
                fault = f'environment variable "{name}" is not allowed: reserved for internal use'
            elif name in variables:
                fault = f'environment variable "{name}" is already defined'
            elif "\n" in value or "\0" in value:
                fault = f'environment variable "{name}" has a line break in its value, which an image cannot hold'
            else:
                variables[name] = value
                continue
            self.problem(placed.mark, f"invalid environment: {fault}")
        return tuple(variables.items())

    def _check_model(self, image: _Placed | None, model: _Placed | None) -> None:
        if model is None or not model.text:
            return
        if image is not None and image.text:
            self.problem(model.mark, "invalid model: 'model' and 'image' cannot both be set", "Remove image.")
        fault = _repository_fault(model.text)
        if fault:
            self.problem(model.mark, f'invalid model "{model.text}": {fault}', "Write registry/owner/name.")

    # weights

    def _weights(self, top: _Section, image: _Placed | None, model: _Placed | None) -> tuple[Weight, ...]:
        nodes = top.list("weights")
        entry = top.entry("weights")
        if nodes and entry is not None and not (model and model.text):
            if image and image.text:
                self.problem(
                    image.mark, "invalid image: weights require 'model', not 'image' — rename 'image' to 'model'"
                )
            else:
                self.problem(
                    entry.mark,
                    "invalid model: weights require 'model' in cog.yaml — rename 'image' to 'model'",
                    "Add model: registry/owner/name.",
                )
        names: set[str] = set()
        targets: list[str] = []
        weights = (self._weight(f"weights[{index}]", node, names, targets) for index, node in enumerate(nodes))
        return tuple(weight for weight in weights if weight is not None)

    def _weight(self, path: str, node: Node, names: set[str], targets: list[str]) -> Weight | None:
        if not isinstance(node, positioned.Mapping):
            self.section(path, node)
            return None
        section = self.section(path, node)
        section.refuse_others(("name", "target", "source"))
        name, target = section.text("name"), section.text("target")
        if name is None or not name.text:
            section.missing(node.mark, f"invalid {path}.name: name is required")
        elif not _WEIGHT_NAME.match(name.text):
            self.problem(
                name.mark,
                f'invalid {path}.name "{name.text}": must contain only lowercase alphanumeric characters, hyphens, '
                'dots, or underscores (e.g. "my-model-weights")',
            )
        elif name.text in names:
            self.problem(name.mark, f'invalid {path}.name "{name.text}": duplicate weight name')
        else:
            names.add(name.text)
        if target is None or not target.text:
            section.missing(node.mark, f"invalid {path}.target: target is required")
        else:
            self._check_target(path, target, targets)
        source = section.entry("source")
        if source is None:
            section.missing(node.mark, f"invalid {path}.source: source is required", "Add source: with a uri.")
            return None
        many = isinstance(source.value, Sequence)
        nodes = source.value.items if isinstance(source.value, Sequence) else (source.value,)
        if not nodes:
            self.problem(source.value.mark, f"invalid {path}.source: source is required", "Add a source with a uri.")
        sources = (
            self._source(f"{path}.source[{index}]" if many and len(nodes) > 1 else f"{path}.source", one)
            for index, one in enumerate(nodes)
        )
        found = tuple(one for one in sources if one is not None)
        return Weight(_text(name), _text(target), found)

    def _check_target(self, path: str, target: _Placed, targets: list[str]) -> None:
        cleaned = posixpath.normpath(target.text)
        cleaned = "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned
        overlap = next((one for one in targets if cleaned.startswith(one + "/") or one.startswith(cleaned + "/")), None)
        if not target.text.startswith("/"):
            fault = "target must be an absolute path"
        elif cleaned == "/":
            fault = 'target must not be the container root "/"'
        elif cleaned in targets:
            fault = "duplicate weight target"
        elif overlap:
            fault = f'target overlaps with "{overlap}"; weight targets must be disjoint'
        else:
            targets.append(cleaned)
            return
        self.problem(target.mark, f'invalid {path}.target "{target.text}": {fault}')

    def _source(self, path: str, node: Node) -> WeightSource | None:
        section = self.section(path, node)
        section.refuse_others(("uri", "include", "exclude"))
        uri = section.text("uri")
        if isinstance(node, positioned.Mapping) and (uri is None or not uri.text):
            section.missing(
                node.mark, f"invalid {path}.uri: uri is required", "Use hf://, file://, https:// or a path."
            )
        include = self._patterns(section, f"{path}.include", "include")
        exclude = self._patterns(section, f"{path}.exclude", "exclude")
        return WeightSource(_text(uri), include, exclude)

    def _patterns(self, section: _Section, path: str, key: str) -> tuple[str, ...]:
        patterns = section.texts(key)
        for index, placed in enumerate(patterns):
            pattern = placed.text.strip()
            if not pattern:
                self.problem(placed.mark, f"invalid {path}[{index}]: pattern must not be empty")
            if pattern.startswith("!"):
                self.problem(
                    placed.mark,
                    f"invalid {path}[{index}] \"{pattern}\": negation patterns (starting with '!') are not supported",
                    "Put it into exclude without the '!'." if key == "include" else "Put it into include instead.",
                )
            if "\\" in pattern:
                self.problem(
                    placed.mark,
                    f'invalid {path}[{index}] "{pattern}": patterns must use forward slashes, not backslashes',
                )
        return _texts(patterns)


def _text(placed: _Placed | None) -> str:
    return placed.text if placed else ""


def _texts(placed: Iterable[_Placed]) -> tuple[str, ...]:
    return tuple(one.text for one in placed)


def _article(kind: str) -> str:
    if kind == "nothing":
        return kind
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _suggestion(key: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f'Did you mean "{near[0]}"?'
    return f"Allowed here: {', '.join(known)}."


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _python_minor(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    if len(parts) < 2 or not _is_number(parts[0]) or not _is_number(parts[1]):
        return None
    return int(parts[0]), int(parts[1])


def _python_version_fault(version: str) -> str | None:
    parts = version.split(".")
    if len(parts) < 2:
        return "must include major and minor version (e.g., '3.11')"
    if not _is_number(parts[0]):
        return "invalid major version number"
    if not _is_number(parts[1]):
        return "invalid minor version number"
    if (int(parts[0]), int(parts[1])) < MINIMUM_PYTHON:
        return f"minimum supported Python version is {MINIMUM_PYTHON[0]}.{MINIMUM_PYTHON[1]}"
    return None if _PYTHON_VERSION.match(version) else "must be major.minor or major.minor.patch"


def _is_reserved(name: str) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in _RESERVED_VARIABLES
    )


def _repository_fault(name: str) -> str | None:
    if _is_repository(name):
        return None
    bare = name.partition("@")[0]
    head, slash, last = bare.rpartition("/")
    bare = head + slash + last.partition(":")[0]
    if bare != name and _is_repository(bare):
        return "must be a bare repository — tags and digests are not allowed"
    first, slash, rest = name.partition("/")
    rest = rest if slash and ("." in first or ":" in first or first == "localhost") else name
    if not 2 <= len(rest) <= 255:
        return f"invalid repository: repository must be between 2 and 255 characters in length: {rest}"
    if not _REPOSITORY.match(rest):
        allowed = "abcdefghijklmnopqrstuvwxyz0123456789_-./"
        return f"invalid repository: repository can only contain the characters `{allowed}`: {rest}"
    return f"invalid repository: {first} is not the name of a registry"


def _is_repository(name: str) -> bool:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return bool(_REGISTRY.match(first)) and bool(_REPOSITORY.match(rest))
    return bool(_REPOSITORY.match(name))
