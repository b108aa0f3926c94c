"""The Dockerfile of a Cog project, statement by statement in Cog's order.

Three ways lead to an image: from a cog base image, from an NVIDIA CUDA image, from ``python:X-slim``.  Where the text
differs from what Cog 0.22 generates for the same config it does so on purpose; docs/cog-compatibility.md lists each
place with its reason.

`generate` is pure but for looking up the wheels and archives that the config and the options name: no network, no
clock, no environment variables (`GenerateOptions.from_environment` is for callers that want those).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from cogkit.dockerfile.cacert import CA_CERT_VARIABLE, read_ca_cert
from cogkit.dockerfile.staging import ARTIFACTS_DIR, Artifact, StagedFile, find_artifacts
from cogkit.dockerfile.statements import copy, environment, word
from cogkit.dockerfile.wheels import (
    COGLET_WHEEL_VARIABLE,
    MACHINES,
    MINIMUM_SDK_WITH_COGLET,
    SDK_WHEEL_VARIABLE,
    Wheel,
    coglet_wheel,
    sdk_wheel,
)
from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.compat import (
    at_least,
    cog_base_tag,
    cuda_base_image,
    framework_version,
    resolve_requirement,
    tensorflow_release,
)
from cogkit.project.config import DEFAULT_CONFIG_FILENAME, Config
from cogkit.project.names import COG_BUILD_CONTEXT, COG_WEIGHTS_CONTEXT, SOURCE_DATE_EPOCH
from cogkit.project.requirements import Requirement, local_artifact, package_name, without_refused_options

FREEZE_STAGE = "cog_pip_freeze"
FREEZE_FILE = "/cog-pip-freeze.txt"
SCHEMA_STAGE = "cog_schema"
SCHEMA_ANSWERS = "/cog-schema-answers.json"
SCHEMA_SCRIPT = "evaluate_schema.py"
SCHEMA_QUESTIONS = "schema_questions.json"
SCHEMA_SECONDS = 300
"""How long the image may take to evaluate the questions of one function, in each of two ways."""
UV_VERSION = "0.9.26"
DEFAULT_REGISTRY_HOST = "r8.im"
REGISTRY_HOST_VARIABLE = "COG_REGISTRY_HOST"

_UV_STAGE = "uv"
_MODEL_STAGE = "cog_model"
_APT_CACHE = "--mount=type=cache,target=/var/cache/apt,sharing=locked"
_APT_LISTS = "/var/lib/apt/lists/*"
_DATED = "/var/log/apt/* /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache"
"""What apt and ldconfig leave with the time in it."""
_UV_CACHE = "--mount=type=cache,target=/root/.cache/uv"
# Not the cache that Cog's steps use for the same path: it may hold wheels built with -S, which lack their modules.
_PIP_CACHE = "--mount=type=cache,id=cog-pip,target=/root/.cache/pip"
# Without Cog's -S: under it a compiler writes assembly, and pip installs an extension without its module.
_CFLAGS = 'ENV CFLAGS="-O3 -funroll-loops -fno-strict-aliasing -flto"'
_NO_CFLAGS = "ENV CFLAGS="
_STRIP = 'find / -type f -name "*python*.so" -not -name "*cpython*.so" -exec strip -S {} \\;'
_PRECOMPILE = (
    'RUN find / -type f -name "*.py[co]" -delete && '
    'find / -type f -name "*.py" -exec touch -t 197001010000 {} \\; && '
    'find / -type f -name "*.py" -printf "%h\\n" | sort -u | '
    "/usr/bin/python3 -m compileall --invalidation-mode timestamp -o 2 -j 0"
)
_LDCONFIG = 'RUN find / -type f -name "*python*.so" -printf "%h\\n" | sort -u > /etc/ld.so.conf.d/cog.conf && ldconfig'
_CERT_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_CERT_NAME = "cog-ca-cert.crt"
_PIP_FREEZE = f"RUN python -m pip freeze > {FREEZE_FILE}"
_ASKED = "/cog-schema"
_ASKED_MOUNTS = " ".join(
    f"--mount=type=bind,from={COG_BUILD_CONTEXT},source={name},target={_ASKED}/{name}"
    for name in (SCHEMA_SCRIPT, SCHEMA_QUESTIONS)
)
_EVALUATE = (
    f"RUN --network=none {_ASKED_MOUNTS} CUDA_VISIBLE_DEVICES= python {_ASKED}/{SCHEMA_SCRIPT} "
    f"{_ASKED}/{SCHEMA_QUESTIONS} {SCHEMA_ANSWERS} {SCHEMA_SECONDS}"
)
_HASH = re.compile(r"\s+--hash[=\s]\S+")

# What every cog base image has installed; asking apt for it again would only cost time.
_BASE_IMAGE_PACKAGES = frozenset(
    (
        *("build-essential", "cmake", "curl", "ffmpeg", "findutils", "g++", "gcc", "git", "libavcodec-dev"),
        *("libcairo2-dev", "libfontconfig1", "libgirepository1.0-dev", "libgl1", "libglx-mesa0", "libglib2.0-0"),
        *("libopencv-dev", "libsm6", "libsndfile1", "libssl-dev", "libunistring-dev", "libxext6", "libxrender1"),
        *("sox", "unzip", "wget", "zip", "zstd"),
    )
)


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """What a build decides besides ``cog.yaml``.

    Attributes:
        cog_base_image: Reference of the cog base image to start from (see `cog_base_image`); "" for none.
        use_cuda_base_image: For GPU builds, start from NVIDIA's image rather than ``python:X-slim``.
        uv_image: Image to take uv from instead of PyPI, for example ``ghcr.io/astral-sh/uv:0.9.26``.
        strip: Strip debug symbols from Python's shared libraries.
        precompile: Compile all Python files to bytecode.
        source: Copy the project into the image; without, it is meant to be mounted at /src.
        config_filename: The config file's path in the project; copied to /src/cog.yaml if it is called otherwise.
        weights: Project paths that become layers of their own, copied from the context ``cog_weights``.
        bundle: Names of files that the caller puts into ``.cog/build`` to be copied to /src/.cog.
        evaluate_schema: Add a stage that evaluates the questions of a schema in the finished model; the caller puts
            `SCHEMA_SCRIPT` and `SCHEMA_QUESTIONS` into ``.cog/build``.  Needs ``pip_freeze`` and ``source``.
        pip_freeze: Add a stage that writes what is installed to a file, for the build to read.
        reproducible: Leave nothing in the image that tells when it was built; takes the build argument
            SOURCE_DATE_EPOCH.
        cog_sdk_wheel: Value of COG_SDK_WHEEL.
        coglet_wheel: Value of COGLET_WHEEL.
        ca_cert: PEM certificates to trust from the first network access on.
        architecture: Of the image, in Go's words.
        working_dir: The folder that relative paths in the wheel options start from.
    """

    cog_base_image: str = ""
    use_cuda_base_image: bool = True
    uv_image: str = ""
    strip: bool = False
    precompile: bool = False
    source: bool = True
    config_filename: str = DEFAULT_CONFIG_FILENAME
    weights: tuple[str, ...] = ()
    bundle: tuple[str, ...] = ()
    evaluate_schema: bool = False
    pip_freeze: bool = False
    reproducible: bool = False
    cog_sdk_wheel: str = ""
    coglet_wheel: str = ""
    ca_cert: bytes = b""
    architecture: str = "amd64"
    working_dir: Path = Path(".")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **options: Any) -> GenerateOptions:
        """Options with COG_SDK_WHEEL, COGLET_WHEEL and COG_CA_CERT taken from an environment.

        Raises:
            ConfigError: COG_CA_CERT is set and no certificate.
        """
        from_variables: dict[str, Any] = {
            "cog_sdk_wheel": environ.get(SDK_WHEEL_VARIABLE, ""),
            "coglet_wheel": environ.get(COGLET_WHEEL_VARIABLE, ""),
            "ca_cert": read_ca_cert(
                environ.get(CA_CERT_VARIABLE, ""), relative_to=options.get("working_dir", Path("."))
            ),
        }
        return cls(**(from_variables | options))


@dataclass(frozen=True, slots=True)
class Generated:
    """A Dockerfile and what it needs.

    Attributes:
        dockerfile: The text.
        files: What has to be in ``.cog/build``; `cogkit.dockerfile.stage` puts it there.
        base_image: What the image starts from.
        contexts: The named contexts that the text copies from.
        warnings: For the user to see.
        notes: For the user who wants to see everything.
    """

    dockerfile: str
    files: tuple[StagedFile, ...]
    base_image: str
    contexts: frozenset[str]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def cog_base_image(config: Config, registry_host: str = DEFAULT_REGISTRY_HOST) -> str:
    """The reference of the cog base image for a config; whether it is really there is the caller's to find out.

    Args:
        config: The config.
        registry_host: Where base images are kept (``COG_REGISTRY_HOST``).

    Raises:
        ConfigError: Cog publishes none for this combination of versions.
    """
    python = ".".join(config.build.python_version.split(".")[:2])
    torch = framework_version("torch", config.requirements) or ""
    return f"{registry_host}/cog-base:{cog_base_tag(config.build.cuda, python, torch)}"


def generate(config: Config, options: GenerateOptions | None = None) -> Generated:
    """Generates the Dockerfile of a project.

    Args:
        config: The project's configuration.
        options: What else the build decides.

    Returns:
        The text and the files that have to be staged for it.

    Raises:
        ConfigError: A requirement, wheel or version cannot be used; the message says which.
    """
    return _Generator(config, options or GenerateOptions()).generate()


def finishing_dockerfile(config: Config, image: str, bundle: Sequence[str], *, evaluate_schema: bool = False) -> str:
    """The Dockerfile that makes a Cog image of one from a Dockerfile of the user's own.

    Args:
        config: The project's configuration.
        image: Name of the context that is that image.
        bundle: Names of files in ``.cog/build`` to be copied to .cog in the image's working directory, as Cog does it.

        evaluate_schema: Add the stage `SCHEMA_STAGE`; the project is taken to lie in the image's working directory.

    Returns:
        The text, with the stage `FREEZE_STAGE`.
    """
    lines = [f"FROM {image} AS {FREEZE_STAGE}", _PIP_FREEZE]
    lines += [f"FROM {image} AS {SCHEMA_STAGE}", _EVALUATE] if evaluate_schema else []
    lines.append(f"FROM {image}")
    lines += [f"ENV COG_MAX_CONCURRENCY={config.concurrency_max}"] if config.concurrency_max else []
    lines += [copy([name], ".cog/", stage=COG_BUILD_CONTEXT) for name in bundle]
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Generator:
    config: Config
    options: GenerateOptions
    files: dict[str, StagedFile] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def generate(self) -> Generated:
        base = self._base_image()
        installs = [*self._pip_installs(), *self._install_sdk()]
        environment_line = environment(dict(self.config.environment))
        if self.options.cog_base_image:
            setup = [
                *self._ca_cert(),
                environment_line,
                *self._apt_installs(),
                *self._install_uv(),
                *self._python_alias(),
                *installs,
                *([_PRECOMPILE] if self.options.precompile else []),
                *self._run_commands(),
            ]
        else:
            setup = [
                *_preamble(self.options.architecture, is_cuda=self._is_cuda),
                *self._ca_cert(),
                *self._install_tini(),
                environment_line,
                *self._apt_installs(),
                *(self._install_python() if self._is_cuda else self._install_uv()),
                *installs,
                *([_PRECOMPILE] if self.options.precompile else []),
                f"{_LDCONFIG} && rm -f {_DATED}" if self.options.reproducible else _LDCONFIG,
                *self._run_commands(),
            ]
        stages = [*self._weights_stage(), *self._uv_stage(base), *self._model_stages(base, setup), *self._model()]
        staged = self.files or self.options.bundle or self.options.evaluate_schema
        contexts = {COG_BUILD_CONTEXT} if staged else set()
        contexts |= {COG_WEIGHTS_CONTEXT} if self.options.weights else set()
        return Generated(
            dockerfile="\n".join(line for line in stages if line) + "\n",
            files=tuple(self.files.values()),
            base_image=base,
            contexts=frozenset(contexts),
            warnings=tuple(self.warnings),
            notes=tuple(self.notes),
        )

    # the base

    @property
    def _is_cuda(self) -> bool:
        return self.config.build.gpu and self.options.use_cuda_base_image and not self.options.cog_base_image

    def _base_image(self) -> str:
        build = self.config.build
        if not build.python_version:
            raise ConfigError(
                "invalid build.python_version: python_version is required. Add it to the build section of your "
                'cog.yaml, e.g. `python_version: "3.13"`',
                where=self.config.where("build"),
            )
        if self.options.cog_base_image:
            if build.python_version.count(".") > 1:
                minor = ".".join(build.python_version.split(".")[:2])
                self.warnings.append(f"Stripping patch version from Python version {build.python_version} to {minor}")
            return self.options.cog_base_image
        if self._is_cuda:
            try:
                return cuda_base_image(build.cuda, build.cudnn)
            except ConfigError as error:
                places = self.config.places
                error.where = places.get("build.cuda") or places.get("build.cudnn") or self.config.where("build.gpu")
                tensorflow = framework_version("tensorflow", self.config.requirements)
                release = tensorflow_release(tensorflow) if tensorflow else None
                if release is not None and "build.cudnn" not in places:
                    error.hint = (
                        f"tensorflow {tensorflow} asks for CuDNN {build.cudnn}. {error.hint} "
                        f'Set cuda: "{release.cuda}" or leave it out.'
                    )
                raise
        return self._python_image

    @property
    def _python_image(self) -> str:
        return f"python:{self.config.build.python_version}-slim"

    def _ca_cert(self) -> list[str]:
        """Trusts the extra certificate: to be placed before the first statement that needs the network."""
        if not self.options.ca_cert:
            return []
        self._stage(StagedFile(_CERT_NAME, content=self.options.ca_cert))
        return [
            copy([_CERT_NAME], f"/tmp/{_CERT_NAME}", stage=COG_BUILD_CONTEXT),
            # The bundle is put together here: update-ca-certificates would leave out a file with several certificates,
            # and would forget what the base image has in its bundle but not as a file.
            f"RUN cp /tmp/{_CERT_NAME} /usr/local/share/ca-certificates/{_CERT_NAME} && touch {_CERT_BUNDLE} && "
            f"cp {_CERT_BUNDLE} /tmp/cog-ca-before.crt && update-ca-certificates && "
            f"cat /tmp/cog-ca-before.crt /tmp/{_CERT_NAME} > {_CERT_BUNDLE} && rm /tmp/cog-ca-before.crt",
            f"ENV SSL_CERT_FILE={_CERT_BUNDLE}",
            f"ENV REQUESTS_CA_BUNDLE={_CERT_BUNDLE}",
        ]

    # uv and Python

    def _uv_stage(self, base: str) -> list[str]:
        """uv from PyPI, in a stage of its own: no other host is needed, and pip leaves nothing in the image."""
        if self.options.uv_image:
            return []
        # An image that has Python itself; NVIDIA's have none.
        image = self._python_image if self._is_cuda else base
        return [
            f"FROM {image} AS {_UV_STAGE}",
            *self._ca_cert(),
            f"RUN python3 -m pip install --no-cache-dir --no-deps --target /uv uv=={UV_VERSION}",
        ]

    def _install_uv(self) -> list[str]:
        image = self.options.uv_image
        binaries = ["/uv", "/uvx"] if image else ["/uv/bin/uv", "/uv/bin/uvx"]
        return [copy(binaries, "/usr/local/bin/", stage=image or _UV_STAGE), "ENV UV_SYSTEM_PYTHON=true"]

    def _install_python(self) -> list[str]:
        python = self.config.build.python_version
        return [
            f"RUN {_APT_CACHE} apt-get update -qq && apt-get install -qqy --no-install-recommends \\\n"
            f"\twget \\\n\tcurl \\\n\txz-utils \\\n\tgit \\\n\tca-certificates \\\n\t&& rm -rf {self._apt_leftovers}",
            *self._install_uv(),
            # Only NVIDIA's image needs a Python from elsewhere; --build-arg can say from where.
            "ARG UV_PYTHON_INSTALL_MIRROR",
            f"RUN uv python install {python} && \\\n"
            f"\tln -sf $(uv python find {python}) /usr/bin/python3 && \\\n"
            f"\tln -sf $(uv python find {python}) /usr/local/bin/python",
            f"ENV UV_PYTHON={python}",
            'ENV PATH="/usr/local/bin:$PATH"',
        ]

    def _python_alias(self) -> list[str]:
        if not at_least(self.config.build.cuda, "13.0"):
            return []
        return ["RUN ln -sf /usr/bin/python3 /usr/local/bin/python"]

    @property
    def _break_system_packages(self) -> str:
        """The flag that uv needs where Python was installed by uv, which marks it as externally managed (PEP 668)."""
        from_base = bool(self.options.cog_base_image) and at_least(self.config.build.cuda, "13.0")
        return "--break-system-packages " if self._is_cuda or from_base else ""

    # packages

    def _install_tini(self) -> list[str]:
        """An init as entry point: passes signals on and reaps what the model leaves behind.

        The image label ``run.cog.has_init`` says that it is there.  curl comes with it, as in Cog's images, where
        projects have come to count on it.
        """
        return [
            f"RUN {_APT_CACHE} set -eux; \\\n"
            "apt-get update -qq && \\\n"
            "apt-get install -qqy --no-install-recommends curl tini; \\\n"
            f"rm -rf {self._apt_leftovers}; \\\n"
            "ln -sf /usr/bin/tini /sbin/tini",
            'ENTRYPOINT ["/sbin/tini", "--"]',
        ]

    @property
    def _apt_leftovers(self) -> str:
        return f"{_APT_LISTS} {_DATED}" if self.options.reproducible else _APT_LISTS

    def _apt_installs(self) -> list[str]:
        packages = [
            package
            for package in self.config.build.system_packages
            if not (self.options.cog_base_image and package in _BASE_IMAGE_PACKAGES)
        ]
        if not packages:
            return []
        return [
            f"RUN {_APT_CACHE} apt-get update -qq && apt-get install -qqy {' '.join(packages)} "
            f"&& rm -rf {self._apt_leftovers}"
        ]

    def _pip_installs(self) -> list[str]:
        artifacts = self._artifacts()
        requirements = self._requirements(artifacts)
        if not requirements:
            return []
        lines: list[str] = []
        if artifacts:
            for artifact in artifacts:
                path = f"{ARTIFACTS_DIR}/{artifact.relative}"
                self._stage(StagedFile(path, source=artifact.source, inside=artifact.root))
            lines.append(copy([f"{ARTIFACTS_DIR}/"], f"/tmp/{ARTIFACTS_DIR}/", stage=COG_BUILD_CONTEXT))
        self._stage(StagedFile("requirements.txt", content=requirements.encode()))
        # uv's cache, too, holds times; Cog leaves it in the image.
        caches = f"{_PIP_CACHE} {_UV_CACHE}" if self.options.reproducible else _PIP_CACHE
        lines += [
            copy(["requirements.txt"], "/tmp/requirements.txt", stage=COG_BUILD_CONTEXT),
            *self._compiled(
                f"RUN {caches} uv run pip install {self._break_system_packages}--cache-dir /root/.cache/pip "
                "-r /tmp/requirements.txt"
            ),
        ]
        if artifacts:
            # A local package may have brought a cog of its own; ours is installed next.
            lines.append(f"RUN uv pip uninstall {self._break_system_packages}cog coglet")
        return lines

    def _artifacts(self) -> tuple[Artifact, ...]:
        build, project_dir = self.config.build, self.config.project_dir
        if not build.python_requirements:
            for requirement in self.config.requirements:
                if local_artifact(requirement) is not None:
                    raise ConfigError(
                        f"build.python_packages cannot name a file of the project: {requirement.text}",
                        where=requirement.where,
                        hint="List it in a requirements file that build.python_requirements names.",
                    )
            return ()
        return find_artifacts(
            self.config.requirements,
            project_dir=project_dir,
            relative_to=(project_dir / build.python_requirements).parent,
        )

    def _requirements(self, artifacts: tuple[Artifact, ...]) -> str:
        """The requirements file for the image: resolved for its CUDA, local paths as they are there."""
        build = self.config.build
        in_image = {artifact.requirement: f"/tmp/{ARTIFACTS_DIR}/{artifact.relative}" for artifact in artifacts}
        find_links: dict[str, None] = {}
        indexes: dict[str, None] = {}
        lines: list[str] = []
        rewritten = bool(artifacts)
        for requirement in self.config.requirements:
            if requirement in in_image:
                lines.append(in_image[requirement])
                continue
            text, refused = without_refused_options(requirement.text)
            if refused:
                self.warnings.append(
                    f"{requirement.where}: left out {', '.join(refused)}, which pip refuses in a requirements file."
                )
                requirement = Requirement(text, requirement.where)
            resolved = resolve_requirement(requirement, gpu=build.gpu, cuda=build.cuda)
            find_links |= dict.fromkeys(resolved.find_links)
            indexes |= dict.fromkeys(resolved.extra_index_urls)
            rewritten = rewritten or bool(resolved.extra_index_urls)
            if resolved.warning:
                self.warnings.append(resolved.warning)
            if not self._is_managed(Requirement(resolved.text, requirement.where)):
                lines.append(resolved.text)
        if not lines:
            return ""
        head = [f"--find-links {one}" for one in find_links] + [f"--extra-index-url {one}" for one in indexes]
        return "\n".join([*head, *self._hashes_kept_or_dropped(lines, rewritten), ""])

    def _hashes_kept_or_dropped(self, lines: list[str], rewritten: bool) -> list[str]:
        """The lines with their hashes if pip can check them: it wants one for every package, of the very file."""
        hashed = [_HASH.search(line) is not None for line in lines]
        packages = [not line.startswith("-") for line in lines]
        if not any(hashed) or (not rewritten and all(h for h, p in zip(hashed, packages, strict=True) if p)):
            return lines
        reason = "packages come from another index or the project" if rewritten else "some packages have none"
        self.warnings.append(f"The hashes in the requirements are not checked, because {reason}.")
        return [_HASH.sub("", line) for line in lines]

    def _is_managed(self, requirement: Requirement) -> bool:
        """Whether a line is about the packages that the build installs itself; says so if it is."""
        text = requirement.text.strip()
        name = package_name(text).partition("[")[0].lower()
        if text.startswith("-") or name not in ("cog", "coglet"):
            return False
        instead = self._sdk if name == "cog" else self._coglet
        variable = SDK_WHEEL_VARIABLE if name == "cog" else COGLET_WHEEL_VARIABLE
        self.warnings.append(
            f"'{text}' found in requirements — overriding with {instead}. Remove it from requirements and use "
            f"build.sdk_version in cog.yaml or {variable} to control the version."
        )
        return True

    # the SDK

    @property
    def _sdk(self) -> Wheel:
        try:
            return sdk_wheel(
                self.options.cog_sdk_wheel, self.config.build.sdk_version, relative_to=self.options.working_dir
            )
        except ConfigError as error:
            if not self.options.cog_sdk_wheel:
                error.where = error.where or self.config.where("build.sdk_version")
            raise

    @property
    def _coglet(self) -> Wheel:
        return coglet_wheel(
            self.options.coglet_wheel,
            architecture=self.options.architecture,
            relative_to=self.options.working_dir,
        )

    def _install_sdk(self) -> list[str]:
        sdk, coglet = self._sdk, self._coglet
        if sdk.latest_prerelease:
            self.warnings.append(
                'sdk_version "prerelease" installs the latest pre-release SDK. Pin to a specific version for '
                "reproducible production builds."
            )
        lines: list[str] = []
        # The SDK depends on coglet itself since 0.17; an older one has its own server, which coglet would replace.
        if coglet.is_exact and sdk.older_than(MINIMUM_SDK_WITH_COGLET):
            self.notes.append("Skipping coglet install for legacy SDK")
        elif coglet.is_exact:
            lines += self._install_wheel(coglet, prerelease=sdk.is_prerelease or coglet.is_prerelease)
        return [*lines, *self._install_wheel(sdk, prerelease=sdk.is_prerelease)]

    def _install_wheel(self, wheel: Wheel, *, prerelease: bool) -> list[str]:
        lines: list[str] = []
        uninstall = ""
        if wheel.kind == "pypi":
            what = wheel.requirement
        elif wheel.kind == "url":
            self.notes.append(f"Using {wheel.package} wheel from URL: {wheel.value}")
            what = word(wheel.value)
        else:
            self.notes.append(f"Using local {wheel.package} wheel: {wheel.value}")
            source = Path(wheel.value).resolve()
            name = Path(wheel.value).name
            self._stage(StagedFile(name, source=source))
            lines.append(copy([name], f"/tmp/{name}", stage=COG_BUILD_CONTEXT))
            what = word(f"/tmp/{name}")
        if wheel.package == "cog" and wheel.kind != "pypi" and "coglet" in wheel.value.rpartition("/")[2]:
            lines += self._coglet_as_sdk()
            uninstall = f"uv pip uninstall {self._break_system_packages}cog 2>/dev/null || true && "
        pre = "--pre " if wheel.kind == "pypi" and prerelease else ""
        flags = f"{self._break_system_packages}{pre}--no-cache"
        return [*lines, *self._compiled(f"RUN {_UV_CACHE} {uninstall}uv pip install {flags} {what}")]

    def _coglet_as_sdk(self) -> list[str]:
        """For a coglet wheel given as the SDK: it brings a ``cog`` of its own, which needs to be told about."""
        python = self.config.build.python_version
        if not re.fullmatch(r"\d+\.\d+", python):
            raise ConfigError(
                "Python version must be <major>.<minor> for coglet", where=self.config.where("build.python_version")
            )
        return ["ENV R8_COG_VERSION=coglet", f"ENV R8_PYTHON_VERSION={python}"]

    def _compiled(self, run: str) -> list[str]:
        return [_CFLAGS, f"{run} && {_STRIP}" if self.options.strip else run, _NO_CFLAGS]

    # the user's commands

    def _run_commands(self) -> list[str]:
        build = self.config.build
        lines: list[str] = []
        for run in build.run:
            mounts = "".join(f"--mount=type=secret,id={mount.id},target={mount.target} " for mount in run.mounts)
            lines.append(f"RUN {mounts}{run.command.strip()}")
        return lines + [f"RUN {command.strip()}" for command in build.pre_install]

    # the model

    def _weights_stage(self) -> list[str]:
        """A stage for the context of the same name to stand in for.

        Without it, every COPY has BuildKit fetch the context by itself, at the same time: the fetches take each
        other's copies of last time away, and send again what is there.
        """
        return [f"FROM scratch AS {COG_WEIGHTS_CONTEXT}"] if self.options.weights else []

    def _model_stages(self, base: str, setup: list[str]) -> list[str]:
        if self.options.reproducible:
            # In the steps' environment, Python's compiler goes by it: bytecode is checked by the source's hash then,
            # which also keeps it good when the exporter changes the source's time.
            setup = [f"ARG {SOURCE_DATE_EPOCH}", *setup]
        if not self.options.pip_freeze:
            return [f"FROM {base}", *setup]
        return [
            f"FROM {base} AS {_MODEL_STAGE}",
            *setup,
            f"FROM {_MODEL_STAGE} AS {FREEZE_STAGE}",
            # Before the source is copied: an edit of the source needs no second look at what is installed.
            _PIP_FREEZE,
            *self._schema_stage(),
            f"FROM {_MODEL_STAGE}",
        ]

    def _schema_stage(self) -> list[str]:
        if not self.options.evaluate_schema:
            return []
        return [f"FROM {_MODEL_STAGE} AS {SCHEMA_STAGE}", "WORKDIR /src", "COPY . /src", _EVALUATE]

    def _model(self) -> list[str]:
        weights = [copy([path], f"/src/{path}", stage=COG_WEIGHTS_CONTEXT, link=True) for path in self.options.weights]
        lines = [*weights, "WORKDIR /src", "EXPOSE 5000", *self._stubs(), 'CMD ["python", "-m", "cog.server.http"]']
        if self.options.source:
            lines.append("COPY . /src")
            name = self.options.config_filename
            if name != DEFAULT_CONFIG_FILENAME:
                lines.append(f"RUN cp {word(f'/src/{name}')} /src/cog.yaml")
        return lines + [copy([name], ".cog/", stage=COG_BUILD_CONTEXT) for name in self.options.bundle]

    def _stubs(self) -> list[str]:
        """What the server needs of cog.yaml, so that it need not read it."""
        config = self.config
        lines = [f'ENV COG_PREDICT_TYPE_STUB="{config.run}"'] if config.run else []
        lines += [f'ENV COG_TRAIN_TYPE_STUB="{config.train}"'] if config.train else []
        lines += [f"ENV COG_MAX_CONCURRENCY={config.concurrency_max}"] if config.concurrency_max else []
        return lines

    def _stage(self, file: StagedFile) -> None:
        known = self.files.setdefault(file.path, file)
        if known != file:
            raise ConfigError(
                f"{known.source or 'a generated file'} and {file.source or 'a generated file'} are both called "
                f"{file.path}",
                hint="Rename one of them.",
            )


def _preamble(architecture: str, *, is_cuda: bool) -> list[str]:
    # NVIDIA's images set the variable; Python's do not, and a reference to nothing would put the working directory
    # on the library path.
    before = "$LD_LIBRARY_PATH:" if is_cuda else ""
    machine = MACHINES.get(architecture, MACHINES["amd64"])
    return [
        "ENV DEBIAN_FRONTEND=noninteractive",
        "ENV PYTHONUNBUFFERED=1",
        f"ENV LD_LIBRARY_PATH={before}/usr/lib/{machine}-linux-gnu:/usr/local/nvidia/lib64:/usr/local/nvidia/bin",
        "ENV NVIDIA_DRIVER_CAPABILITIES=all",
    ]
