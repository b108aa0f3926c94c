"""Which CUDA, cuDNN, torch and TensorFlow go together, and which base image carries them.

The facts live in ``data/*.json`` (``scripts/update_compat.py`` regenerates them); the rules that pick among them are
Cog's.  Everything here is a pure function of its arguments and those files, which are read on first use only, since
most projects need none of them.

This file must not know ``cog.yaml``: it takes versions and requirement lines, and returns versions, lines and
warnings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.requirements import Requirement, local_artifact, package_name, parse_pin, versions

MINIMUM_CUDA_MAJOR = 11
_DEFAULT_CUDA = "11.8"
_TORCH_INDEX = "https://download.pytorch.org/whl/{build}/"
_BASE_MINIMUM_CUDA = "11.6"
_BASE_MINIMUM_PYTHON = "3.10"
_BASE_MINIMUM_TORCH = "1.13.1"


class Version(NamedTuple):
    """A version of at most three numbers and a local part (``2.7.1+cu128``); ``patch`` is None if it was left out."""

    major: int
    minor: int
    patch: int | None
    local: str

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version, or None if the text is not of this form (``2.7.0rc1``, ``2.7.*``)."""
        number, _, local = text.partition("+")
        parts = number.split(".")
        if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
            return None
        numbers = [int(part) for part in parts]
        return cls(numbers[0], numbers[1] if len(numbers) > 1 else 0, numbers[2] if len(numbers) > 2 else None, local)

    @property
    def release(self) -> tuple[int, int, int]:
        """The three numbers, a missing patch counting as 0."""
        return (self.major, self.minor, self.patch or 0)

    def matches(self, other: Version) -> bool:
        """Whether both name the same version as far as both say it: ``12.8`` matches ``12.8.1``."""
        if (self.major, self.minor) != (other.major, other.minor):
            return False
        return self.patch is None or other.patch is None or self.patch == other.patch


def _matches(left: str, right: str) -> bool:
    a, b = Version.parse(left), Version.parse(right)
    return a is not None and b is not None and a.matches(b)


def _same_minor(left: str, right: str) -> bool:
    a, b = Version.parse(left), Version.parse(right)
    return a is not None and b is not None and (a.major, a.minor) == (b.major, b.minor)


def _order(text: str) -> tuple[int, int, int]:
    version = Version.parse(text)
    return version.release if version else (-1, -1, -1)


def at_least(text: str, minimum: str) -> bool:
    """Whether a version is this one or newer; text that is not a version is not."""
    return _order(text) >= _order(minimum)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """One build of a torch release: for the CPU (``cuda`` is None) or for one CUDA version."""

    torch: str
    torchvision: str
    cuda: str | None
    index_url: str
    pythons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorFlowRelease:
    """A TensorFlow release with the CUDA (major.minor) and cuDNN (major) its GPU wheel was built for."""

    version: str
    cuda: str
    cudnn: str
    pythons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CudaImage:
    """One ``nvidia/cuda`` development image with cuDNN."""

    cuda: str
    cudnn: str
    ubuntu: str
    tag: str


def _facts(name: str, key: str) -> Any:
    # Not importlib.resources: importing that takes longer than all else here.
    return json.loads((Path(__file__).parent / "data" / name).read_bytes())[key]


@cache
def cuda_images() -> tuple[CudaImage, ...]:
    """All known CUDA images, oldest CUDA first."""
    return tuple(
        CudaImage(row["cuda"], row["cudnn"], ubuntu, f"{row['cuda']}-{row['flavor']}-devel-ubuntu{ubuntu}")
        for row in _facts("cuda.json", "images")
        for ubuntu in row["ubuntu"]
    )


@cache
def tensorflow_releases() -> tuple[TensorFlowRelease, ...]:
    """All known TensorFlow releases."""
    return tuple(
        TensorFlowRelease(
            row["tensorflow"],
            ".".join(row["cuda"].split(".")[:2]),
            row["cudnn"].split(".")[0],
            tuple(row["python"]),
        )
        for row in _facts("tensorflow.json", "releases")
    )


@cache
def torch_builds() -> tuple[TorchBuild, ...]:
    """All known torch builds for the CPU and for every CUDA that there is an image of."""
    builds: list[TorchBuild] = []
    for row in _facts("torch.json", "releases"):
        variants = [(name, None if name == "cpu" else f"{name[2:-1]}.{name[-1]}") for name in row["builds"]]
        if "pypi_cuda" in row:
            variants.insert(0, ("", row["pypi_cuda"]))
        for name, cuda in variants:
            if cuda is not None and not any(_matches(cuda, image.cuda) for image in cuda_images()):
                continue
            suffix = f"+{name}" if name else ""
            builds.append(
                TorchBuild(
                    torch=row["torch"] + suffix,
                    torchvision=row["torchvision"] + (suffix if row.get("torchvision_suffixed") else ""),
                    cuda=cuda,
                    index_url=_TORCH_INDEX.format(build=name) if name else "",
                    pythons=tuple(row["python"]),
                )
            )
    return tuple(builds)


def compatible_cudnns(cuda: str) -> tuple[str, ...]:
    """The cuDNN versions there are images of for a CUDA version, newest first."""
    found = {image.cudnn for image in cuda_images() if _matches(cuda, image.cuda)}
    return tuple(sorted(found, key=_order, reverse=True))


def latest_cudnn(cuda: str) -> str:
    """The newest cuDNN for a CUDA version.

    Raises:
        ConfigError: There is no image of this CUDA version.
    """
    cudnns = compatible_cudnns(cuda)
    if not cudnns:
        raise ConfigError(f"CUDA {cuda} is not supported by Cog", hint=f"Supported are {_known_cudas()}.")
    return cudnns[0]


def cuda_base_image(cuda: str, cudnn: str) -> str:
    """The ``nvidia/cuda`` image of a CUDA and cuDNN version: the newest patch on the newest Ubuntu.

    Raises:
        ConfigError: There is none.
    """
    images = [image for image in cuda_images() if _matches(cuda, image.cuda) and image.cudnn == cudnn]
    if not images:
        cudnns = compatible_cudnns(cuda)
        raise ConfigError(
            f"no matching base image for CUDA {cuda} and CuDNN {cudnn}",
            hint=f"CUDA {cuda} has CuDNN {', '.join(cudnns)}."
            if cudnns
            else f"Known CUDA versions are {_known_cudas()}.",
        )
    best = max(images, key=lambda image: (_order(image.cuda), image.ubuntu))
    return f"nvidia/cuda:{best.tag}"


def _known_cudas() -> str:
    minors = dict.fromkeys(".".join(image.cuda.split(".")[:2]) for image in cuda_images())
    return ", ".join(minors)


def torch_cudas(torch: str) -> tuple[str, ...]:
    """The CUDA versions a torch version has builds for, sorted as text; one only if it says which (``+cu118``)."""
    release, _, local = torch.partition("+")
    if local.startswith("cu") and len(local) >= 4:
        said = f"{local[2:-1]}.{local[-1]}"
        for build in torch_builds():
            if build.cuda == said and _matches(release, _release(build.torch)):
                return (said,)
        torch = release
    return tuple(
        sorted(build.cuda for build in torch_builds() if build.cuda and _matches(torch, _release(build.torch)))
    )


def tensorflow_release(version: str) -> TensorFlowRelease | None:
    """The facts of a TensorFlow release, or None if it is not known."""
    return next((release for release in tensorflow_releases() if release.version == version), None)


def _release(version: str) -> str:
    return version.partition("+")[0]


class Cuda(NamedTuple):
    """A CUDA and a cuDNN version chosen for a GPU build, and what the user should know about the choice."""

    cuda: str
    cudnn: str
    warnings: tuple[str, ...]


def choose_cuda(cuda: str, cudnn: str, requirements: Iterable[Requirement]) -> Cuda:
    """Chooses CUDA and cuDNN for a GPU build from what the user set ("" is not set) and the frameworks installed.

    TensorFlow's wheels need the CUDA they were built for; torch brings its own CUDA libraries, so another one only
    earns a warning.

    Raises:
        ConfigError: The versions exclude each other, or nothing is known about a framework's version.
    """
    if cuda and cudnn and cudnn not in compatible_cudnns(cuda):
        raise ConfigError(
            f"the specified CUDA version {cuda} is not compatible with CuDNN {cudnn}.\n"
            f"Compatible CuDNN versions are: {','.join(compatible_cudnns(cuda))}"
        )
    lines = tuple(requirements)
    tensorflow, torch = framework_version("tensorflow", lines), framework_version("torch", lines)
    if torch == "" and not cuda:
        raise ConfigError(
            "torch version must be specified when using CUDA",
            where=_where("torch", lines),
            hint="Pin it, for example torch==2.7.1.",
        )
    if tensorflow:
        return _cuda_for_tensorflow(cuda, cudnn, tensorflow)
    if torch:
        return _cuda_for_torch(cuda, cudnn, torch)
    warnings = (_unpinned_torch(cuda),) if torch == "" else ()
    cuda = cuda or _DEFAULT_CUDA
    return Cuda(cuda, cudnn or latest_cudnn(cuda), warnings)


def _unpinned_torch(cuda: str) -> str:
    warning = (
        f"torch has no version, so pip installs the newest, with the CUDA libraries it brings instead of CUDA {cuda}."
    )
    fitting = [_release(build.torch) for build in torch_builds() if build.cuda and _same_minor(build.cuda, cuda)]
    if not fitting:
        return f"{warning} Pin it."
    return f"{warning} Pin it; the newest that Cog knows for CUDA {cuda} is torch=={max(fitting, key=_order)}."


def _cuda_for_tensorflow(cuda: str, cudnn: str, tensorflow: str) -> Cuda:
    release = tensorflow_release(tensorflow)
    warnings: list[str] = []
    if not cuda:
        if release is None:
            raise ConfigError(
                f"cog doesn't know what CUDA version is compatible with tensorflow=={tensorflow}",
                hint="Set build.cuda in cog.yaml; https://www.tensorflow.org/install/source lists what fits.",
            )
        cuda = release.cuda
    elif release is not None and release.cuda.split(".")[0] != cuda.split(".")[0]:
        raise ConfigError(
            f"TensorFlow {tensorflow} is incompatible with CUDA {cuda}: TensorFlow {tensorflow} requires CUDA "
            f"{release.cuda}",
            hint=f'Set cuda: "{release.cuda}" or leave it out.',
        )
    elif release is None or not _same_minor(release.cuda, cuda):
        warnings.append(_doubt(f"CUDA {cuda}", f"Tensorflow {tensorflow}", release.cuda if release else None))
    if not cudnn:
        return Cuda(cuda, release.cudnn if release else latest_cudnn(cuda), tuple(warnings))
    if release is not None and release.cudnn != cudnn:
        raise ConfigError(
            f"the specified cuDNN version {cudnn} is not compatible with tensorflow=={tensorflow}.\n"
            f"Compatible cuDNN version is: {release.cudnn}"
        )
    return Cuda(cuda, cudnn, tuple(warnings))


def _cuda_for_torch(cuda: str, cudnn: str, torch: str) -> Cuda:
    known = torch_cudas(torch)
    warnings: list[str] = []
    if not cuda:
        if not known:
            raise ConfigError(
                f"cog doesn't know what CUDA version is compatible with torch=={torch}",
                hint="Set build.cuda in cog.yaml; https://pytorch.org/get-started/previous-versions/ lists what fits.",
            )
        cuda = max(known, key=_order)
    elif not any(_same_minor(one, cuda) for one in known):
        warnings.append(_doubt(f"CUDA {cuda}", f"PyTorch {torch}", known[-1] if known else None))
    return Cuda(cuda, cudnn or latest_cudnn(cuda), tuple(warnings))


def _doubt(what: str, framework: str, better: str | None) -> str:
    doubt = f"Cog doesn't know if {what} is compatible with {framework}. This might cause CUDA problems."
    return f"{doubt} Try {better} instead?" if better else doubt


def framework_version(name: str, requirements: Iterable[Requirement]) -> str | None:
    """The first version given for a package by these lines: "" if it is not limited at all, None if it is not there."""
    line = _line(name, requirements)
    if line is None:
        return None
    found = versions(line.text)
    return found[0] if found else ""


def _line(name: str, requirements: Iterable[Requirement]) -> Requirement | None:
    for requirement in requirements:
        if package_name(requirement.text) == name and not _is_local(requirement):
            return requirement
    return None


def _where(name: str, requirements: Iterable[Requirement]) -> str | None:
    line = _line(name, requirements)
    return line.where if line else None


def _is_local(requirement: Requirement) -> bool:
    try:
        return local_artifact(requirement) is not None
    except ConfigError:
        # It is told where it matters, when the artifacts are staged; here it only must not pass for a package.
        return True


class Resolved(NamedTuple):
    """A requirement line for one build, and the pip options that must precede it in the file."""

    text: str
    find_links: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    warning: str | None = None


def resolve_requirement(requirement: Requirement, *, gpu: bool, cuda: str) -> Resolved:
    """The line to install in the image for a line of the user's.

    A pinned torch or torchvision gets the index its CPU or CUDA build comes from; everything else stays as it is.
    """
    if _is_local(requirement):
        return Resolved(requirement.text)
    pin = parse_pin(requirement.text)
    if pin is None:
        return Resolved(requirement.text)
    hoisted = pin.find_links or pin.extra_index_urls
    unchanged = Resolved(
        f"{pin.name}=={pin.version}{pin.rest}" if hoisted else requirement.text,
        pin.find_links,
        pin.extra_index_urls,
    )
    if pin.extra_index_urls or pin.name not in ("torch", "torchvision"):
        return unchanged
    if pin.name == "torch":
        build = _torch_gpu_build(pin.version, cuda) if gpu else _cpu_build("torch", pin.version)
        version = _release(build.torch) if build else ""
    else:
        build = _torchvision_gpu_build(pin.version, cuda) if gpu else _cpu_build("torchvision", pin.version)
        version = (_release(build.torchvision) if gpu else build.torchvision) if build else ""
    if build is None:
        doubt = _doubt(f"CUDA {cuda}", f"torchvision {pin.version}", None)
        return unchanged._replace(warning=doubt) if gpu and pin.name == "torchvision" else unchanged
    index = (build.index_url,) if build.index_url else ()
    return Resolved(f"{pin.name}=={version}{pin.rest}", pin.find_links, index)


def _cpu_build(name: str, version: str) -> TorchBuild | None:
    for build in torch_builds():
        if build.cuda is None and _release(build.torch if name == "torch" else build.torchvision) == version:
            return build
    return None


def _torch_gpu_build(version: str, cuda: str) -> TorchBuild | None:
    builds = [
        build
        for build in torch_builds()
        if build.cuda and _matches(_release(build.torch), version) and _order(build.cuda) <= _order(cuda)
    ]
    return max(builds, key=lambda build: (_order(build.cuda or ""), _order(build.torch)), default=None)


def _torchvision_gpu_build(version: str, cuda: str) -> TorchBuild | None:
    builds = [
        build
        for build in torch_builds()
        if build.cuda and _release(build.torchvision) == version and _order(build.cuda) <= _order(cuda)
    ]
    return max(builds, key=lambda build: _order(build.cuda or ""), default=None)


def python_warnings(python: str, requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """A warning if TensorFlow is pinned to a version that has no wheels for this Python version.

    None about torch: what is known is the Pythons of Cog's base images, and torch has wheels for others.
    """
    lines = tuple(requirements)
    warnings: list[str] = []
    minor = ".".join(python.split(".")[:2])
    tensorflow = framework_version("tensorflow", lines)
    release = tensorflow_release(tensorflow) if tensorflow else None
    if release and minor not in release.pythons:
        warnings.append(
            f"tensorflow {tensorflow} has no wheels for Python {minor}; it has them for {_list(release.pythons)}."
        )
    return tuple(warnings)


def choose_python(supported: Sequence[str], requirements: Iterable[Requirement]) -> tuple[str, str]:
    """The Python for a project that names none, and why: the newest that the tables know for its pinned frameworks.

    Args:
        supported: The Pythons to choose from, oldest first.
        requirements: What is installed.
    """
    lines = tuple(requirements)
    for name in ("torch", "tensorflow"):
        version = _pinned(name, lines)
        if not version:
            continue
        known = _known_pythons(name, version)
        fitting = [python for python in supported if python in known]
        if fitting:
            return fitting[-1], f"the newest that Cog knows for {name} {version}"
    return supported[-1], "the newest that Cog knows"


def _pinned(name: str, requirements: Iterable[Requirement]) -> str:
    line = _line(name, requirements)
    pin = parse_pin(line.text) if line else None
    return pin.version if pin else ""


def _known_pythons(name: str, version: str) -> set[str]:
    if name == "tensorflow":
        release = tensorflow_release(version)
        return set(release.pythons) if release else set()
    builds = (build for build in torch_builds() if _release(build.torch) == _release(version))
    return {python for build in builds for python in build.pythons}


def _list(pythons: Iterable[str]) -> str:
    return ", ".join(sorted(pythons, key=_order))


@dataclass(frozen=True, slots=True)
class BaseConfiguration:
    """One combination a cog base image exists for; "" is without."""

    cuda: str
    python: str
    torch: str


@cache
def base_configurations() -> tuple[BaseConfiguration, ...]:
    """Every combination of CUDA, Python and torch that Cog publishes a base image of."""
    found: list[BaseConfiguration] = []
    pythons: dict[str, None] = {}
    cudas: dict[str, None] = {}
    minimum = _order(_BASE_MINIMUM_TORCH)
    for build in torch_builds():
        # A local part makes what is otherwise the minimum itself fall below it: there is no 1.13.1+cu117 image.
        if _order(build.torch) < minimum or (_order(build.torch) == minimum and "+" in build.torch):
            continue
        for python in build.pythons:
            if not at_least(python, _BASE_MINIMUM_PYTHON):
                continue
            if build.cuda is None:
                found.append(BaseConfiguration("", python, build.torch))
            elif at_least(build.cuda, _BASE_MINIMUM_CUDA):
                found.append(BaseConfiguration(build.cuda, python, build.torch))
                pythons[python] = cudas[build.cuda] = None
    found += [BaseConfiguration(cuda, python, "") for python in pythons for cuda in cudas]
    found += [BaseConfiguration("", python, "") for python in pythons]
    return tuple(found)


def cog_base_tag(cuda: str, python: str, torch: str) -> str:
    """The tag of the cog base image for these versions ("" is without), for example ``cuda12.8-python3.12-torch2.7.1``.

    A torch version without an image of its own gets the image without torch.

    Raises:
        ConfigError: Cog publishes no image of this combination.
    """
    fitting = _fitting(cuda, python, torch) or _fitting(cuda, python, "")
    if not fitting:
        raise ConfigError(
            f"unsupported base image configuration: CUDA: {cuda or '(none)'} / Python: {python or '(none)'} / "
            f"Torch: {torch or '(none)'}"
        )
    newest = max((one.torch for one in fitting), key=_order)
    parts = [f"cuda{_minor(cuda)}"] if cuda else []
    parts += [f"python{_minor(python)}"] if python else []
    parts += [f"torch{_release(newest)}"] if newest else []
    return "-".join(parts)


def _fitting(cuda: str, python: str, torch: str) -> list[BaseConfiguration]:
    return [
        one
        for one in base_configurations()
        if _fits(one.cuda, cuda) and _fits(one.python, python) and _fits(one.torch, torch)
    ]


def _fits(known: str, wanted: str) -> bool:
    return known == wanted if not known or not wanted else _matches(wanted, known)


def _minor(version: str) -> str:
    parsed = Version.parse(version)
    return f"{parsed.major}.{parsed.minor}" if parsed else version
