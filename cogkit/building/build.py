"""Runs a build from the user's options to its result.

The order is the one of ``docs/architecture.md``: find the project, check what can be checked without a builder,
connect, lock and stage, solve, finish.  What goes into the solve is decided in `plan` and `cog`, what is written
afterwards in `result_files`; this file only puts them in order and must not know protocols or flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cogkit.building.caches import available_imports
from cogkit.building.hints import hinted
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.plan import FRONTEND, FrontendPlan, check_named_contexts, plan_exports, plan_frontend
from cogkit.building.result_files import ResultFiles
from cogkit.building.standard_input import PipedInput, is_piped, read_piped
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.exports import Export, check_exports
from cogkit.buildkit.request import SolveRequest, SolveResult
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import DOCKERFILE_NAME, Project, ProjectKind, resolve_project

if TYPE_CHECKING:
    from cogkit.building.call import CallFrontend, CallSpec
    from cogkit.building.cog import CogBuild, CogFrontend, Staging
    from cogkit.buildkit.session.service import Service
    from cogkit.buildkit.solve import BuildCallback


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
        metadata = {**self.metadata, **answer}
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
    project = find_build_project(options)
    if project.kind is ProjectKind.COG:
        from cogkit.building.cog import read_cog_build

        cog = read_cog_build(project, options, only_to_show=True)
        if cog.base_image is not None and options.cog.use_cog_base_image:
            cog = cog.on_base_image(cog.base_image)
        return Preview(project, cog.generated.dockerfile, cog.warnings)
    return Preview(project, _dockerfile_of(project).read_bytes().decode("utf-8", "surrogateescape"))


def find_build_project(options: BuildOptions) -> Project:
    """The project that the options are about.

    Raises:
        ConfigError: there is none.
        UsageError: options that make sense for a Cog project only.
    """
    project = resolve_project(options.context, options.file)
    if project.kind is ProjectKind.DOCKERFILE and options.cog.dockerfile is not None:
        raise UsageError(
            f"--dockerfile is for a Cog project, and there is no cog.yaml in {project.root} or above it",
            hint=f"build the Dockerfile alone with -f {options.cog.dockerfile}",
        )
    return project


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
    async with AsyncExitStack() as stack:
        piped = await in_thread(read_piped, options) if is_piped(options) else None
        project = find_build_project(options) if piped is None else stack.enter_context(piped.placed())
        return await _build(options, observer, project, piped)


async def _build(
    options: BuildOptions, observer: BuildObserver, project: Project, piped: PipedInput | None
) -> BuildResult:
    cog = _read_cog(options, project)
    for warning in cog.warnings if cog else ():
        observer.on_warning(warning)
    for note in cog.generated.notes if cog else ():
        observer.on_note(note)
    exports = _exports(options, project, cog) if options.call is None else ()
    if not exports and options.call is None:
        observer.on_warning(
            "no output was asked for: the result stays in the builder's cache;"
            " name it with -t, or send it somewhere with -o"
        )
    check_exports(exports)
    files = ResultFiles(options.iidfile, options.metadata_file)
    files.check()
    check_named_contexts(options)
    options = replace(options, cache_from=available_imports(options.cache_from, observer.on_warning))

    # Only now, because they cost a tenth of a second to import: mistakes above show without them.
    from cogkit.building.session_services import open_attachables
    from cogkit.buildkit.client import BuildKitClient

    services = open_attachables(options, observer)

    async with AsyncExitStack() as stack:
        connected = await BuildKitClient.connect(
            options.address, tls=options.tls, compress=options.compress, warn=observer.on_warning
        )
        client = await stack.enter_async_context(connected)
        files.forget()
        frontend: CogFrontend | None = None
        if cog is None:
            own, address = _offered(piped)
            services = (*services, *own)
            request = _dockerfile_request(options, project, exports, address)
        else:
            from cogkit.building.cog import staged

            staging = await stack.enter_async_context(staged(cog, options, observer))
            request, frontend = _cog_request(options, cog, staging, exports, observer)
        asking: CallFrontend | None = None
        if options.call is not None:
            request, asking = _as_question(options.call, request, frontend)
        callback: BuildCallback | None = asking or frontend
        with hinted():
            solved = await client.solve(request, services=services, on_status=observer.on_status, build=callback)
        result = _result(solved)
        if asking is not None:
            name = None if cog is not None else _shown_name(project, piped)
            result = result.with_answer(asking.answer, name)
        await in_thread(files.write, result.image_id, result.metadata)
    return result


def _offered(piped: PipedInput | None) -> tuple[tuple[Service, ...], str | None]:
    """The service for an archive that came on standard input, and the address at which the builder finds it there."""
    if piped is None or piped.archive is None:
        return (), None
    from cogkit.buildkit.session.services.upload import Upload

    upload = Upload()
    address = upload.offer(piped.archive)
    return (upload,), address


def _as_question(
    call: CallSpec, request: SolveRequest, frontend: CogFrontend | None
) -> tuple[SolveRequest, CallFrontend]:
    """The same request with the frontend only asked, as buildx does it: not in the builder's history, nothing made."""
    from cogkit.building.call import CallFrontend, request_attrs

    attrs = request.frontend_attrs if frontend is None else frontend.attrs
    asking = CallFrontend(request_attrs(attrs, call))
    return replace(request, frontend="", frontend_attrs={}, internal=True), asking


def _shown_name(project: Project, piped: PipedInput | None) -> str:
    """What the user would call the Dockerfile."""
    if piped is not None:
        return "stdin"
    path = _dockerfile_of(project)
    near = os.path.relpath(path)
    return str(path) if near.startswith(os.pardir) else near


def _read_cog(options: BuildOptions, project: Project) -> CogBuild | None:
    if project.kind is not ProjectKind.COG:
        return None
    # With YAML and the generator a tenth of the time of an unchanged build, of which plain Dockerfiles are spared.
    from cogkit.building.cog import read_cog_build

    return read_cog_build(project, options)


def _exports(options: BuildOptions, project: Project, cog: CogBuild | None) -> tuple[Export, ...]:
    names = options.tags or ((cog.image_name,) if cog else ())
    wants_image = bool(names or options.iidfile or options.metadata_file)
    return plan_exports(options, names=names, default_image=wants_image, project_root=project.root)


def _dockerfile_of(project: Project) -> Path:
    assert project.dockerfile_path is not None
    return project.dockerfile_path


def _dockerfile_request(
    options: BuildOptions, project: Project, exports: tuple[Export, ...], archive: str | None
) -> SolveRequest:
    plan = plan_frontend(options, context=project.root, dockerfile=_dockerfile_of(project))
    if archive is not None:
        plan = plan.with_archive(archive, options.file or DOCKERFILE_NAME)
    return _request(options, plan, exports, frontend=FRONTEND, attrs=plan.attrs)


def _cog_request(
    options: BuildOptions, cog: CogBuild, staging: Staging, exports: tuple[Export, ...], observer: BuildObserver
) -> tuple[SolveRequest, CogFrontend]:
    from cogkit.building.cog import DOCKERFILE, FINISHING, CogFrontend

    folder = staging.folder
    plan = plan_frontend(
        options,
        context=cog.project.root,
        dockerfile=folder / DOCKERFILE,
        further_dockerfiles=frozenset({FINISHING}) if cog.finishing else frozenset(),
        staged=folder,
        weights=cog.weights,
    )
    request = _request(options, plan, exports, frontend="", attrs=plan.attestations)
    return request, CogFrontend(cog, staging, plan.attrs, options, observer)


def _request(
    options: BuildOptions, plan: FrontendPlan, exports: tuple[Export, ...], *, frontend: str, attrs: Mapping[str, str]
) -> SolveRequest:
    return SolveRequest(
        frontend=frontend,
        frontend_attrs=attrs,
        mounts=plan.mounts,
        exports=exports,
        cache_imports=options.cache_from,
        cache_exports=options.cache_to,
        oci_layouts=plan.oci_layouts,
        entitlements=plan.entitlements,
        shared_key=plan.shared_key,
        source_policy=options.source_policy,
    )


def _result(solved: SolveResult) -> BuildResult:
    return BuildResult(
        ref=solved.ref,
        names=solved.image_names,
        digest=solved.digest,
        image_id=solved.config_digest or solved.digest,
        metadata={**solved.metadata(), "cogkit.build.ref": solved.ref},
    )
