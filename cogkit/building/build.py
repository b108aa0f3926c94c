"""Runs a build from the user's options to its result.

The order is the one of ``docs/architecture.md``: find the project, check what can be checked without a builder,
connect, lock and stage, solve, finish.  What kind of project it is, only its recipe knows (`recipes`); what is written
afterwards is decided in `result_files`; this file only puts them in order and must not know protocols or flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import field, replace
from typing import TYPE_CHECKING, Self

from cogkit.building.builder import builder_of, farm_of
from cogkit.building.caches import available_imports
from cogkit.building.destinations import check_destinations
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.plan import IMAGE_TYPES, check_named_contexts, plan_exports
from cogkit.building.recipes import Prepared, Recipe, as_request_of_our_own, open_recipe, read_recipe
from cogkit.building.result_files import ResultFiles
from cogkit.building.solving import solve_on
from cogkit.building.vcs_attributes import ask_about_sources, with_answers
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.exports import Export
from cogkit.buildkit.request import SolveResult, decoded_metadata
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import Project

if TYPE_CHECKING:
    from cogkit.builders.records import Builder
    from cogkit.building.call import CallFrontend, CallSpec
    from cogkit.building.metadata import FurtherMetadata
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.session.service import Service


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A build that succeeded.

    Attributes:
        ref: The build's name at the builder.
        names: The names that the image has.
        digest: Digest of the image's manifest or index; None if no image was made.
        image_id: What ``docker`` calls the image ID: the config's digest, else `digest`.
        metadata: What ``--metadata-file`` gets.
        answer: What the frontend said, if it was only asked (``--call``).
        dockerfile_name: What the user would call the Dockerfile; None for a generated one.
    """

    ref: str
    names: tuple[str, ...]
    digest: str | None
    image_id: str | None
    metadata: Mapping[str, object]
    answer: Mapping[str, str] = field(default_factory=dict)
    dockerfile_name: str | None = None

    def with_answer(self, answer: Mapping[str, str], dockerfile_name: str | None) -> Self:
        """The same with what the frontend said, which the metadata has too."""
        metadata = {**self.metadata, **decoded_metadata(answer)}
        return replace(self, metadata=metadata, answer=answer, dockerfile_name=dockerfile_name)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a build would use, found out without a builder."""

    project: Project
    dockerfile: str
    warnings: tuple[str, ...] = ()


def preview(options: BuildOptions) -> Preview:
    """The Dockerfile that `build` would use.

    Whether Cog's base image is there is not looked up: it is taken to be if it was asked for.  As in Cog, a predictor
    that cannot be read is no reason to show nothing.

    Raises:
        ConfigError: there is no project, or its cog.yaml cannot be used.
    """
    recipe = read_recipe(options, only_to_show=True)
    return Preview(recipe.project, recipe.dockerfile(options), recipe.warnings)


async def build(options: BuildOptions, observer: BuildObserver) -> BuildResult:
    """Build what ``options`` say.

    Cancelling the task cancels the build at the builder, removes what was staged and releases the lock.

    Raises:
        ConfigError, UsageError: the project or the options cannot be used; nothing was asked of the builder.
        BuilderUnreachableError: there is no builder, or it went away.
        LockNotAcquiredError: another build of the project went on for too long.
        BuildError: the build failed.
        OutputError: a result could not be written.
    """
    recipe = await open_recipe(options)
    options = recipe.completed(options)
    tell_of(recipe, observer)
    exports = _exports(options, recipe) if options.call is None else ()
    check_destinations(options, recipe.project, exports)
    files = ResultFiles(options.iidfile, options.metadata_file, options.ref_file)
    is_image = any(export.type in IMAGE_TYPES for export in exports)
    files.check(makes_image=is_image or options.load is not None or options.call is not None)
    farm = farm_of(options) if options.call is None else None
    if farm is not None:
        result = await _build_on_farm(farm, options, observer, recipe, exports, files)
        _tell_where_it_stays(options, exports, observer)
        await in_thread(files.write, result.image_id, result.metadata, result.ref)
        return result
    async with AsyncExitStack() as stack:
        questions = ask_about_sources(options, recipe, stack)
        options, client, services = await connected(options, observer, stack)
        _tell_where_it_stays(options, exports, observer)
        files.forget()
        options = await with_answers(options, recipe, questions, observer)
        prepared = await stack.enter_async_context(recipe.prepared(options, observer))
        asking: CallFrontend | None = None
        if options.call is not None:
            asking = _as_question(options.call, prepared)
            prepared = replace(prepared, request=as_request_of_our_own(prepared.request), make_image=asking)
        further = _further_metadata(options, observer)
        hear = observer.on_status if further is None else further.on_status
        result = _result(await solve_on(client, services, options, observer, recipe, prepared, exports, on_status=hear))
        if further is not None:
            found = await further.found(client, result.ref)
            result = replace(result, metadata={**result.metadata, **found})
        if asking is not None:
            result = result.with_answer(asking.answer, recipe.dockerfile_name)
        await in_thread(files.write, result.image_id, result.metadata, result.ref)
    return result


def _tell_where_it_stays(options: BuildOptions, exports: tuple[Export, ...], observer: BuildObserver) -> None:
    """Warn of a result that goes nowhere; only when there is a builder, beside whose lack it is no matter."""
    if not exports and not options.outputs and options.call is None and options.load is None:
        observer.on_warning(
            "no output was asked for: the result stays in the builder's cache;"
            " name it with -t, or send it somewhere with -o"
        )


def _further_metadata(options: BuildOptions, observer: BuildObserver) -> FurtherMetadata | None:
    if options.metadata_file is None or options.call is not None:
        return None
    from cogkit.building.metadata import FurtherMetadata

    return FurtherMetadata(observer)


async def _build_on_farm(
    farm: Builder,
    options: BuildOptions,
    observer: BuildObserver,
    recipe: Recipe,
    exports: tuple[Export, ...],
    files: ResultFiles,
) -> BuildResult:
    """The same on a farm, whose nodes are chosen when the project is ready to be sent."""
    from cogkit.building.farm import build_on_farm

    async with AsyncExitStack() as stack:
        options = await with_answers(options, recipe, ask_about_sources(options, recipe, stack), observer)
    options = checked(options, observer)
    files.forget()
    async with recipe.prepared(options, observer) as prepared:
        made = await build_on_farm(farm, options, observer, recipe, prepared, exports)
    if made.digest is None:
        return _result(made.solved)
    names = tuple(exports[0].attrs["name"].split(","))
    metadata = {
        "containerimage.digest": made.digest,
        "image.name": ",".join(names),
        "cogkit.build.refs": dict(made.refs),
    }
    return BuildResult(made.solved.ref, names, made.digest, made.digest, metadata)


def tell_of(recipe: Recipe, observer: BuildObserver) -> None:
    """Say what the user should know of a project before it is built."""
    for warning in recipe.warnings:
        observer.on_warning(warning)
    for note in recipe.notes:
        observer.on_note(note)


async def connected(
    options: BuildOptions, observer: BuildObserver, stack: AsyncExitStack
) -> tuple[BuildOptions, AsyncClient, tuple[Service, ...]]:
    """Check what can still be checked without a builder, then connect to it.

    Args:
        options: The user's wishes.
        observer: Hears warnings.
        stack: What closes the connection.

    Returns:
        The options with the caches that can be read, the client, and the session's services that every build has.
    """
    options = checked(options, observer)

    # Only now, because they cost a tenth of a second to import: mistakes above show without them.
    from cogkit.building.proxies import with_proxies
    from cogkit.building.session_services import docker_config, open_services

    config = docker_config(observer)
    options = replace(options, build_args=with_proxies(options.build_args, config.proxies, options.address or ""))
    services = open_services(options, observer, config)
    return options, await stack.enter_async_context(builder_of(options, observer)), services


def checked(options: BuildOptions, observer: BuildObserver) -> BuildOptions:
    """The options with the caches that can be read, when what they name on this machine is there.

    Raises:
        UsageError: something is not.
    """
    check_named_contexts(options)
    return replace(options, cache_from=available_imports(options.cache_from, observer.on_warning))


def _as_question(call: CallSpec, prepared: Prepared) -> CallFrontend:
    """The frontend only asked, as buildx does it: nothing is made."""
    from cogkit.building.call import CallFrontend, request_attrs

    return CallFrontend(request_attrs(prepared.attrs, call), prepared.asked)


def _exports(options: BuildOptions, recipe: Recipe) -> tuple[Export, ...]:
    names = options.tags or recipe.default_names
    wants_image = bool(names or options.iidfile or options.metadata_file)
    wants_image = wants_image and options.load is None
    exports = plan_exports(options, names=names, default_image=wants_image, project_root=recipe.project.root)
    is_default = names and not options.tags
    if is_default and (options.load or any(export.attrs.get("name") == ",".join(names) for export in exports)):
        recipe.check_default_names()
    return exports


def _result(solved: SolveResult) -> BuildResult:
    return BuildResult(
        ref=solved.ref,
        names=solved.image_names,
        digest=solved.digest,
        image_id=solved.config_digest or solved.digest,
        metadata={**solved.metadata(), "cogkit.build.ref": solved.ref},
    )
