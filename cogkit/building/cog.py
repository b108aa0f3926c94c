"""A Cog project as a build: its configuration and schema, what is staged in ``.cog/build``, the labels of its image.

Cog builds an image, starts a container to see what is installed, then builds twice more to add labels and files.
Here that is one solve: `CogFrontend` is the frontend of the build, has ``dockerfile.v0`` make the image and its list of
installed packages from one graph, and puts the labels into the image's config before it is exported.  This file must
not open connections or render anything.
"""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.plan import ATTEST_PREFIX, FRONTEND
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.platforms import Platform
from cogkit.dockerfile import (
    FREEZE_FILE,
    FREEZE_STAGE,
    REGISTRY_HOST_VARIABLE,
    SCHEMA_ANSWERS,
    SCHEMA_QUESTIONS,
    SCHEMA_SCRIPT,
    SCHEMA_STAGE,
    Generated,
    GenerateOptions,
    cog_base_image,
    finishing_dockerfile,
    generate,
    stage,
)
from cogkit.dockerfile.wheels import SDK_WHEEL_VARIABLE, sdk_wheel
from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project import git
from cogkit.project.config import COG_VERSION, Config, config_json, default_image_name, load_config
from cogkit.project.discover import Project
from cogkit.project.dotcog import DOTCOG_NAME, DotCog, ReadOnlyProjectError
from cogkit.project.names import COG_BUILD_CONTEXT
from cogkit.project.weights.layers import NO_WEIGHTS, WeightLayers
from cogkit.project.weights.managed import MANIFEST_FILENAME, runtime_manifest

if TYPE_CHECKING:
    from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult, ImageConfig, Ref
    from cogkit.project.lock import LockWait
    from cogkit.project.schema.evaluation import Evaluation
    from cogkit.project.schema.inputs import Answers

T = TypeVar("T")

BUILD_FOLDER = "build"
DOCKERFILE = "Dockerfile"
FINISHING = "Dockerfile.cog"
"""Name of the Dockerfile that makes a Cog image of what the user's own Dockerfile makes."""

MAX_FREEZE = 4 << 20
"""Bytes read of the list of installed packages; a thousand packages have 30 KiB."""

OWN_IMAGE = "cog_own_image"
"""Name under which `FINISHING` knows that image."""

SCHEMA_FILE = "openapi_schema.json"

DEFAULT_PLATFORM = "linux/amd64"
"""The only platform that Cog builds for, whatever the builder's own is (Cog ``pkg/docker/buildkit.go``)."""

LABEL_NAMESPACE = "run.cog."
"""Cog's namespace of image labels (Cog ``pkg/global/global.go``)."""


@dataclass(frozen=True, slots=True)
class CogBuild:
    """A Cog project, read and ready to be staged.

    Attributes:
        config: The configuration, with the concurrency that the source declares.
        generate_options: What `generated` was made with.
        schema: The OpenAPI schema as JSON; empty for an image without one.
        base_image: Cog's base image to start from if it exists; None to start from Python's or NVIDIA's.
        evaluation: What the image has to evaluate before the schema is whole; None if it is.
        finishing: Text of `FINISHING`; empty if the Dockerfile is a generated one, which is whole.
        weights: What gets layers of its own.
        weights_manifest: What the server is told of managed weights, as JSON; empty without any.
        notices: What the user should know of the schema and the weights.
    """

    project: Project
    config: Config
    generate_options: GenerateOptions
    generated: Generated
    schema: bytes = b""
    base_image: str | None = None
    evaluation: Evaluation | None = None
    finishing: str = ""
    weights: WeightLayers = NO_WEIGHTS
    weights_manifest: bytes = b""
    notices: tuple[str, ...] = ()

    @property
    def image_name(self) -> str:
        """The image's name without tags of the user's: its ``image`` or ``model``, else made from the folder's name."""
        return self.config.image or self.config.model or default_image_name(self.project.root)

    def check_image_name(self) -> None:
        """Finds a name that no registry takes before the build, not at its end.

        Raises:
            ConfigError: ``image`` or ``model`` of the config is not an image's name.
        """
        from cogkit.oci.reference import parse_reference

        name = self.image_name
        try:
            parse_reference(name)
        except ValueError as problem:
            key = "image" if self.config.image else "model"
            without_scheme = name.partition("://")[2]
            raise ConfigError(
                f'invalid {key} "{name}": {problem}',
                where=self.config.where(key),
                hint=f"An image's name has no scheme: write {without_scheme}."
                if without_scheme
                else "Write registry/owner/name, in lower case.",
            ) from problem

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*(str(warning) for warning in self.config.warnings), *self.notices, *self.generated.warnings)

    def with_answers(self, data: bytes) -> CogBuild:
        """The same project with the schema that the image's answers make whole.

        Raises:
            ConfigError: the image could not evaluate something, or what came of it makes no schema.
        """
        from cogkit.project.schema import generate_schema
        from cogkit.project.schema.evaluation import read_answers

        assert self.evaluation is not None
        answers = read_answers(data, self.evaluation)
        made = generate_schema(self.config, self.project.root, sdk_version="", answers=answers)
        if not _is_of_the_last_build(made.json, self.project.root):
            _validate(made.openapi)
        return replace(self, schema=made.json)

    def on_base_image(self, base_image: str) -> CogBuild:
        """The same project, built on Cog's base image."""
        options = replace(self.generate_options, cog_base_image=base_image)
        return replace(self, generate_options=options, generated=generate(self.config, options))


def read_cog_build(
    project: Project,
    options: BuildOptions,
    environ: Mapping[str, str] | None = None,
    *,
    only_to_show: bool = False,
) -> CogBuild:
    """Read the configuration, make the schema and generate the Dockerfile.

    Args:
        project: A Cog project.
        options: The user's wishes.
        environ: The process's environment if None.
        only_to_show: Nothing will be built: a predictor that cannot be read and weights that are not imported are
            told as notices.

    Raises:
        ConfigError: the configuration, the predictor's source, or a file they name cannot be used.
    """
    assert project.config_path is not None
    environ = os.environ if environ is None else environ
    config = load_config(project.config_path, project_dir=project.root)
    manifest, schema, evaluation, notices = b"", b"", None, tuple[str, ...]()
    try:
        manifest = runtime_manifest(config)
        sdk_version = _sdk_version(config, environ)
        config, schema, evaluation, notices = _with_schema(config, project.root, options, sdk_version)
        if only_to_show and evaluation is not None:
            notices = (*notices, *(f"a build evaluates this in the image: {line}" for line in evaluation.told))
    except ConfigError as fault:
        if not only_to_show:
            raise
        notices = (f"a build would stop here: {fault}",)
    weights, no_weights = _with_weights(project, config, options)
    bundled = ((SCHEMA_FILE, schema or evaluation), (MANIFEST_FILENAME, manifest))
    bundle = tuple(name for name, data in bundled if data)
    generate_options = GenerateOptions.from_environment(
        environ,
        uv_image=options.uv_image or "",
        use_cuda_base_image=options.cog.use_cuda_base_image,
        strip=options.cog.strip,
        precompile=options.cog.precompile,
        config_filename=config.filename,
        weights=weights.layers,
        bundle=bundle,
        working_dir=Path.cwd(),
        architecture=_architecture(options.platforms),
        evaluate_schema=evaluation is not None,
        pip_freeze=True,
        reproducible=options.timestamp is not None,
    )
    own = options.cog.dockerfile
    if own is None:
        base_image, unavailable = _cog_base_image(config, options, environ)
        generated, finishing = generate(config, generate_options), ""
    else:
        base_image, unavailable = None, ()
        generated = Generated(_read_dockerfile(own), (), "", frozenset({COG_BUILD_CONTEXT}))
        finishing = finishing_dockerfile(config, OWN_IMAGE, bundle, evaluate_schema=evaluation is not None)
    return CogBuild(
        project=project,
        config=config,
        generate_options=generate_options,
        generated=generated,
        schema=schema,
        evaluation=evaluation,
        base_image=base_image,
        finishing=finishing,
        weights=weights,
        weights_manifest=manifest,
        notices=(*notices, *no_weights, *unavailable),
    )


def _architecture(platforms: Sequence[str]) -> str:
    """The architecture that a Dockerfile is made for; one for several platforms is made for Cog's own."""
    return (platforms[0] if len(platforms) == 1 else DEFAULT_PLATFORM).split("/")[1]


def _read_dockerfile(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as problem:
        raise ConfigError(f"Failed to read Dockerfile at {path}: {problem.strerror}") from problem


def _sdk_version(config: Config, environ: Mapping[str, str]) -> str:
    """The version of the SDK that the image gets, where that is said; else ""."""
    sdk = sdk_wheel(environ.get(SDK_WHEEL_VARIABLE, ""), config.build.sdk_version, relative_to=Path.cwd())
    return sdk.value if sdk.kind == "pypi" else ""


def _with_schema(
    config: Config, root: Path, options: BuildOptions, sdk_version: str
) -> tuple[Config, bytes, Evaluation | None, tuple[str, ...]]:
    """The config with the concurrency that the source declares, the schema, what it lacks, and what should be told."""
    from cogkit.project.schema import (
        concurrency_max,
        generate_schema,
        load_schema_file,
        read_predictor,
    )

    cog = options.cog
    if cog.openapi_schema is None and not cog.skip_schema_validation:
        answers: Mapping[str, Answers] | None = {} if cog.evaluate_schema else None
        made = generate_schema(config, root, sdk_version=sdk_version, answers=answers)
        config = replace(config, concurrency_max=concurrency_max(config, made.info))
        warnings = tuple(str(warning) for warning in made.warnings)
        if made.questions:
            from cogkit.project.schema.evaluation import ask

            return config, b"", ask(made), warnings
        if not _is_of_the_last_build(made.json, root):
            _validate(made.openapi)
        return config, made.json, None, warnings
    try:
        info = read_predictor(config, root)
    except ConfigError:
        # Whoever brings a schema or wants none has a source that cannot be read like this; cog.yaml alone counts then.
        info = None
    config = replace(config, concurrency_max=concurrency_max(config, info))
    if cog.skip_schema_validation or cog.openapi_schema is None:
        return config, b"", None, ()
    return config, load_schema_file(cog.openapi_schema).json, None, ()


def _validate(document: Mapping[str, object]) -> None:
    from cogkit.project.schema import validate_openapi

    try:
        validate_openapi(document, name="the schema of the source")
    except ConfigError as fault:
        hint = "That is a mistake of cogkit's; until it is mended, give a schema of your own with --openapi-schema."
        raise ConfigError(fault.message, where=fault.where, hint=hint) from fault


def _is_of_the_last_build(schema: bytes, root: Path) -> bool:
    """Whether this is the schema in ``.cog``, which was valid; validating takes as long as all the rest."""
    try:
        with open(root / DOTCOG_NAME / SCHEMA_FILE, "rb", opener=_without_waiting) as file:
            return file.read(len(schema) + 1) == schema
    except OSError:
        return False


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place does not hold us."""
    return os.open(path, flags | os.O_NONBLOCK)


def _with_weights(project: Project, config: Config, options: BuildOptions) -> tuple[WeightLayers, tuple[str, ...]]:
    if not options.cog.separate_weights and not options.cog.weights_paths:
        return NO_WEIGHTS, ()
    if options.cog.dockerfile is not None:
        return NO_WEIGHTS, ("weights are not separated: a Dockerfile of your own copies them as it likes",)
    # The walk and its matcher are imported only for a project that parts its weights.
    from cogkit.building.weight_files import find_weights

    return find_weights(project, config, options.cog)


def _cog_base_image(
    config: Config, options: BuildOptions, environ: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    """Cog's base image for a project, if it is wanted, and why it is not used although it is."""
    host = environ.get(REGISTRY_HOST_VARIABLE)
    wanted = options.cog.use_cog_base_image
    if wanted is False or (wanted is None and not host):
        return None, ()
    try:
        return cog_base_image(config, host) if host else cog_base_image(config), ()
    except ConfigError as reason:
        return None, (f"no Cog base image is used: {reason}",)


# ---- staging


@dataclass(frozen=True, slots=True)
class Staging:
    """``.cog/build`` while the lock is held."""

    dotcog: DotCog
    folder: Path

    def put(self, build: CogBuild) -> None:
        """Stage a build, in place of what is staged."""
        dockerfile = build.generated.dockerfile.encode("utf-8", "surrogateescape")
        self.dotcog.write_file(dockerfile, BUILD_FOLDER, DOCKERFILE)
        if build.finishing:
            self.dotcog.write_file(build.finishing.encode(), BUILD_FOLDER, FINISHING)
        stage(build.generated.files, self.folder)
        if build.evaluation is not None:
            from cogkit.project.schema.evaluation import script

            self.dotcog.write_file(script(), BUILD_FOLDER, SCHEMA_SCRIPT)
            self.dotcog.write_file(build.evaluation.questions, BUILD_FOLDER, SCHEMA_QUESTIONS)
        self._put_bundled(SCHEMA_FILE, build.schema)
        self._put_bundled(MANIFEST_FILENAME, build.weights_manifest)
        self.dotcog.settle(BUILD_FOLDER)

    def put_schema(self, build: CogBuild) -> None:
        """Stage a schema that was not known before."""
        self._put_bundled(SCHEMA_FILE, build.schema)
        self.dotcog.settle(BUILD_FOLDER)

    def _put_bundled(self, name: str, data: bytes) -> None:
        if data:
            self.dotcog.write_file(data, BUILD_FOLDER, name)
            # Also here, because a project that is mounted over /src hides the one in the image.
            self.dotcog.write_file(data, name)


@asynccontextmanager
async def staged(build: CogBuild, options: BuildOptions, observer: BuildObserver) -> AsyncIterator[Staging]:
    """Hold the project's lock with the Dockerfile and its files staged in ``.cog/build``.

    A project on a read-only file system is staged in a temporary folder instead.

    Raises:
        LockNotAcquiredError: another process kept the lock for longer than the user wants to wait.
    """
    with _open_dotcog(build.project.root) as dotcog, await dotcog.alock(options.lock_timeout, _announce(observer)):
        staging = Staging(dotcog, dotcog.temp_path(BUILD_FOLDER))
        staging.put(build)
        yield staging


def _open_dotcog(root: Path) -> DotCog:
    try:
        return DotCog.open(root)
    except ReadOnlyProjectError:
        return DotCog.open_temp()


def _announce(observer: BuildObserver) -> Callable[[LockWait], None]:
    def on_wait(wait: LockWait) -> None:
        holder = wait.holder
        if holder is None:
            observer.on_lock_wait("another process", None)
        else:
            since = datetime.fromtimestamp(holder.since).astimezone()
            observer.on_lock_wait(f"process {holder.pid} ({holder.command})", since)

    return on_wait


# ---- the frontend


@dataclass(frozen=True, slots=True)
class CogFrontend:
    """The frontend of a Cog build: the image that ``dockerfile.v0`` makes, with the labels of a Cog image.

    Attributes:
        attrs: What ``dockerfile.v0`` is told.
        options: The user's wishes; only a whole image, without ``target``, gets the labels.
    """

    build: CogBuild
    staging: Staging
    attrs: Mapping[str, str]
    options: BuildOptions
    observer: BuildObserver

    async def __call__(self, gateway: Gateway) -> GatewayResult:
        base = await self._find_base_image(gateway)
        build = self.build
        if base is not None:
            assert build.base_image is not None
            # Only the staged text changes; the daemon has not asked for it yet.
            build = build.on_base_image(build.base_image)
            self.staging.dotcog.temp_path(BUILD_FOLDER)
            self.staging.put(build)
        if self.options.target is not None:
            return await gateway.solve(FRONTEND, self.attrs)
        async with _beside(in_thread(git_labels, self.build.project.root, os.environ)) as of_git:
            build, result, installed = await self._solve(gateway, build)
            labels = {
                **cog_labels(build, installed),
                **(base_image_labels(self.build.base_image or "", base.config) if base is not None else {}),
                **await of_git,
                **self.options.cog.annotations,
                **self.options.labels,
            }
        return result.with_labels(labels)

    async def _solve(self, gateway: Gateway, build: CogBuild) -> tuple[CogBuild, GatewayResult, str]:
        """The project with its schema, the image, and the list of what is installed in it."""
        if build.finishing:
            attrs, inputs = finishing_inputs(self.attrs, await gateway.solve(FRONTEND, self.attrs))
            build = await self._evaluated(gateway, build, attrs, inputs)
            result = await gateway.solve(FRONTEND, attrs, inputs=inputs)
            return build, result, await _pip_freeze(gateway, attrs, result, inputs)
        build = await self._evaluated(gateway, build, self.attrs)
        async with _beside(_pip_freeze(gateway, self.attrs)) as listing:
            result = await gateway.solve(FRONTEND, self.attrs)
            # Of an image for several platforms it is asked again: the list of one of them is wanted.
            return build, result, await (_pip_freeze(gateway, self.attrs, result) if result.refs else listing)

    async def _evaluated(
        self,
        gateway: Gateway,
        build: CogBuild,
        attrs: Mapping[str, str],
        inputs: Mapping[str, bytes] = MappingProxyType({}),
    ) -> CogBuild:
        """The project with its schema, for which the model may have to be asked; then what is staged is renewed."""
        if build.evaluation is None:
            return build
        from cogkit.project.schema.evaluation import MAX_ANSWERS

        attrs = _of_a_stage(attrs, SCHEMA_STAGE)
        if "platform" in attrs:
            attrs["platform"] = attrs["platform"].partition(",")[0]
        ref = _only_ref(await gateway.solve(FRONTEND, attrs, inputs=inputs), "what its code says of the schema")
        build = build.with_answers(await ref.read_file(SCHEMA_ANSWERS, length=MAX_ANSWERS))
        # The daemon asks for the schema only now.
        self.staging.put_schema(build)
        return build

    async def _find_base_image(self, gateway: Gateway) -> ImageConfig | None:
        if self.build.base_image is None:
            return None
        try:
            platform = Platform.parse(self.options.platforms[0]) if self.options.platforms else None
            return await gateway.resolve_image_config(self.build.base_image, platform=platform)
        except BuildError as reason:
            self.observer.on_warning(
                f"the Cog base image {self.build.base_image} is not there, building without it ({reason})"
            )
            return None


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Work that goes on beside the body, and is wanted no longer than the body runs."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pip_freeze(
    gateway: Gateway,
    attrs: Mapping[str, str],
    result: GatewayResult | None = None,
    inputs: Mapping[str, bytes] = MappingProxyType({}),
) -> str:
    """What is installed in the image; if ``result`` is one of several platforms, in the first."""
    attrs = _of_a_stage(attrs, FREEZE_STAGE)
    if result is not None and result.refs:
        attrs["platform"] = next(iter(result.refs))
    ref = _only_ref(await gateway.solve(FRONTEND, attrs, inputs=inputs), "the list of installed packages")
    listed = await ref.read_file(FREEZE_FILE, length=MAX_FREEZE)
    return listed.decode("utf-8", "replace")


def _of_a_stage(attrs: Mapping[str, str], stage: str) -> dict[str, str]:
    # Nothing is to be attested of a stage that nobody gets.
    return {key: value for key, value in attrs.items() if not key.startswith(ATTEST_PREFIX)} | {"target": stage}


def _only_ref(result: GatewayResult, what: str) -> Ref:
    ref = result.ref or next(iter(result.refs.values()), None)
    if ref is None:
        raise BuildError(f"the builder gave no result for {what}")
    return ref


def finishing_inputs(attrs: Mapping[str, str], own: GatewayResult) -> tuple[dict[str, str], dict[str, bytes]]:
    """What ``dockerfile.v0`` is told to go on from an image that it made before, as buildx links its targets.

    Args:
        attrs: What it was told then.
        own: The image.

    Raises:
        BuildError: there is nothing in the image, or no config with it.
    """
    told = {key: value for key, value in attrs.items() if key != "target"} | {"filename": FINISHING}
    inputs: dict[str, bytes] = {}
    for platform, ref in own.refs.items() if own.refs else (("", own.ref),):
        if ref is None:
            raise BuildError("the Dockerfile makes an empty image", hint="a Cog image needs Python and the model")
        name = f"{OWN_IMAGE}::{platform}" if platform else OWN_IMAGE
        config = own.metadata.get(f"containerimage.config/{platform}" if platform else "containerimage.config")
        if config is None:
            raise BuildError("the builder gave no config with the image")
        told[f"context:{name}"] = f"input:{name}"
        told[f"input-metadata:{name}"] = json.dumps({"containerimage.config": b64encode(config).decode()})
        inputs[name] = ref.definition
    return told, inputs


# ---- labels


def cog_labels(build: CogBuild, pip_freeze: str) -> dict[str, str]:
    """The labels by which Cog's tools know an image (Cog ``pkg/image/build.go``)."""
    return {
        f"{LABEL_NAMESPACE}version": COG_VERSION,
        f"{LABEL_NAMESPACE}config": config_json(build.config),
        f"{LABEL_NAMESPACE}openapi_schema": build.schema.decode("utf-8"),
        f"{LABEL_NAMESPACE}pip_freeze": pip_freeze,
        f"{LABEL_NAMESPACE}has_init": "true",
    }


def base_image_labels(name: str, config: bytes) -> dict[str, str]:
    """What an image says of the Cog base image under it: its name, and where its layers end.

    Args:
        name: The base image's reference.
        config: Its OCI image config (JSON).

    Raises:
        BuildError: the image has no layers.
    """
    try:
        diff_ids = [str(each) for each in json.loads(config)["rootfs"]["diff_ids"] or ()]
    except (ValueError, TypeError, LookupError, RecursionError):
        diff_ids = []
    if not diff_ids:
        raise BuildError(f"the Cog base image {name} has no layers", hint="build with --use-cog-base-image=false")
    return {
        f"{LABEL_NAMESPACE}cog-base-image-name": name,
        f"{LABEL_NAMESPACE}cog-base-image-last-layer-sha": diff_ids[-1],
        f"{LABEL_NAMESPACE}cog-base-image-last-layer-idx": str(len(diff_ids) - 1),
    }


def git_labels(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The OCI labels for the commit and the tag, as far as there are any."""
    found = {
        "org.opencontainers.image.revision": git.revision(root, environ),
        "org.opencontainers.image.version": git.version(root, environ),
    }
    return {name: value for name, value in found.items() if value is not None}
