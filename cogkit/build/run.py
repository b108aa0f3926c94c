"""Runs a build from the user's options to its result.

The order is the one of ``docs/architecture.md``: find the project, check what can be checked without a builder,
connect, lock and stage, solve, finish.  What goes into the solve is decided in `plan` and `cog`, what is written
afterwards in `finish`; this file only puts them in order and must not know protocols or flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cogkit.build.attachables import open_attachables
from cogkit.build.cog import DOCKERFILE, FRONTEND, CogBuild, CogFrontend, Staging, read_cog_build, staged
from cogkit.build.finish import ResultFiles
from cogkit.build.observer import BuildObserver
from cogkit.build.options import BuildOptions
from cogkit.build.plan import plan_exports, plan_frontend
from cogkit.buildkit.exports import Export, check_exports
from cogkit.buildkit.request import SolveRequest, SolveResult
from cogkit.project.discover import Project, ProjectKind, resolve_project


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A build that succeeded.

    Attributes:
        ref: The build's name at the builder.
        names: The names that the image has.
        digest: Digest of the image's manifest or index; None if no image was made.
        image_id: What ``docker`` calls the image ID: the config's digest, else `digest`.
        metadata: What ``--metadata-file`` gets.
    """

    ref: str
    names: tuple[str, ...]
    digest: str | None
    image_id: str | None
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a build would use, found out without a builder."""

    project: Project
    dockerfile: str
    warnings: tuple[str, ...] = ()


def preview(options: BuildOptions) -> Preview:
    """The Dockerfile that `build` would use.

    Raises:
        ConfigError: there is no project, or its files cannot be used.
    """
    project = resolve_project(options.context, options.file)
    if project.kind is ProjectKind.COG:
        cog = read_cog_build(project, options)
        return Preview(project, cog.generated.dockerfile, cog.warnings)
    return Preview(project, _dockerfile_of(project).read_bytes().decode("utf-8", "surrogateescape"))


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
    project = resolve_project(options.context, options.file)
    cog = read_cog_build(project, options) if project.kind is ProjectKind.COG else None
    for warning in cog.warnings if cog else ():
        observer.on_warning(warning)
    exports = _exports(options, project, cog)
    if not exports:
        observer.on_warning(
            "no output was asked for: the result stays in the builder's cache;"
            " name it with -t, or send it somewhere with -o"
        )
    check_exports(exports)
    files = ResultFiles(options.iidfile, options.metadata_file)
    files.check()
    services = open_attachables(options, observer)

    # Only now, because it costs a tenth of a second to import: mistakes above show without it.
    from cogkit.buildkit.client import BuildKitClient

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await BuildKitClient.connect(options.address, tls=options.tls))
        files.forget()
        if cog is None:
            request, frontend = _dockerfile_request(options, project, exports), None
        else:
            staging = await stack.enter_async_context(staged(cog, options, observer))
            request, frontend = _cog_request(options, cog, staging, exports, observer)
        solved = await client.solve(request, services=services, on_status=observer.on_status, build=frontend)
        result = _result(solved)
        files.write(result.image_id, result.metadata)
    return result


def _exports(options: BuildOptions, project: Project, cog: CogBuild | None) -> tuple[Export, ...]:
    names = options.tags or ((cog.image_name,) if cog else ())
    wants_image = bool(names or options.iidfile or options.metadata_file)
    return plan_exports(options, names=names, default_image=wants_image, project_root=project.root)


def _dockerfile_of(project: Project) -> Path:
    assert project.dockerfile_path is not None
    return project.dockerfile_path


def _dockerfile_request(options: BuildOptions, project: Project, exports: tuple[Export, ...]) -> SolveRequest:
    plan = plan_frontend(options, context=project.root, dockerfile=_dockerfile_of(project))
    return SolveRequest(
        frontend=FRONTEND,
        frontend_attrs=plan.attrs,
        mounts=plan.mounts,
        exports=exports,
        entitlements=options.allow,
        shared_key=plan.shared_key,
    )


def _cog_request(
    options: BuildOptions, cog: CogBuild, staging: Staging, exports: tuple[Export, ...], observer: BuildObserver
) -> tuple[SolveRequest, CogFrontend]:
    folder = staging.folder
    plan = plan_frontend(options, context=cog.project.root, dockerfile=folder / DOCKERFILE, staged=folder)
    request = SolveRequest(mounts=plan.mounts, exports=exports, entitlements=options.allow, shared_key=plan.shared_key)
    return request, CogFrontend(cog, staging, plan.attrs, options, observer)


def _result(solved: SolveResult) -> BuildResult:
    return BuildResult(
        ref=solved.ref,
        names=solved.image_names,
        digest=solved.digest,
        image_id=solved.config_digest or solved.digest,
        metadata={**solved.metadata(), "cogkit.build.ref": solved.ref},
    )
