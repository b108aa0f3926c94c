"""The kinds of project that can be built, and how each becomes one solve: a recipe for each kind.

A recipe knows what can be known without a builder; `Recipe.prepared` stages it under the project's lock and gives what
a solve needs beside its exports.  `build` exports what comes of it; a command that runs the image on the builder makes
the same image through the gateway (`Prepared.make_image`) and exports nothing.  This file must not connect, export or
render anything.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.definition import (
    CONTEXT_MOUNT,
    DOCKERFILE_MOUNT,
    EMPTY_CONTEXT,
    IGNORE_NAME,
    Definition,
    IgnoreFile,
    context_mount,
    find_ignore_file,
    ignored_links,
    read_definition,
)
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.plan import FRONTEND, FrontendPlan, plan_frontend
from cogkit.building.policy import check_policy
from cogkit.building.remote_context import is_http_url, is_remote_url
from cogkit.building.standard_input import (
    fetch_dockerfile,
    is_standard_input,
    read_piped_context,
    read_piped_dockerfile,
    read_piped_llb,
)
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.request import SolveRequest
from cogkit.errors import CogkitError, ConfigError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import (
    DOCKERFILE_NAME,
    Project,
    ProjectKind,
    is_stream,
    resolve_dockerfile,
    resolve_folder,
    resolve_project,
)

if TYPE_CHECKING:
    from cogkit.building.cog import CogBuild
    from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
    from cogkit.buildkit.session.service import Service
    from cogkit.buildkit.solve import BuildCallback


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a solve of a project needs, beside its exports; only while the recipe is prepared.

    Attributes:
        request: The request.  Its frontend is empty where cogkit is the frontend, which then is `make_image`.
        attrs: What ``dockerfile.v0`` is told.
        make_image: Makes the image through the gateway, whatever the recipe.
        services: Services of the session that the recipe itself needs.
    """

    request: SolveRequest
    attrs: Mapping[str, str]
    make_image: BuildCallback
    services: tuple[Service, ...] = ()

    @property
    def frontend(self) -> BuildCallback | None:
        """The callback that the request needs; None if the daemon runs the frontend, or there is LLB to build."""
        return None if self.request.frontend or self.request.definition is not None else self.make_image

    @property
    def asked(self) -> str:
        """The frontend that answers questions about the project."""
        return self.request.frontend or FRONTEND


class Recipe(ABC):
    """How one kind of project becomes a solve.

    Attributes:
        project: The project.
        warnings, notes: What the user should know before the build, and what only an interested one wants to.
        default_names: The image's names if the user gives none; empty: then no image is made.
        one_at_a_time: What is staged may change while a builder makes the image, so no two may do it at once.
    """

    def __init__(self, project: Project):
        self.project = project
        self.warnings: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.default_names: tuple[str, ...] = ()
        self.one_at_a_time = False

    def check_default_names(self) -> None:  # noqa: B027  # most have none
        """Refuses default names that are not names; for when they are used.

        Raises:
            ConfigError: one is not.
        """

    @property
    def dockerfile_name(self) -> str | None:
        """What the user would call the Dockerfile; None for a generated one."""
        return None

    @property
    def ignoring(self) -> tuple[Path | None, IgnoreFile | None]:
        """The context, if it is a folder, and the Dockerfile's own ignore file, if it has one."""
        return self.project.root, None

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of the user's that a build reads, by the names of their mounts."""
        return {CONTEXT_MOUNT: self.project.root}

    def explained(self, problem: CogkitError, options: BuildOptions) -> CogkitError:
        """A failure of the build, with the line of an ignore file that it is about, if it is about one."""
        from cogkit.building.ignore_patterns import explained_refusal

        return explained_refusal(problem, _ignore_files(*self.ignoring, options))

    def completed(self, options: BuildOptions) -> BuildOptions:
        """The options with what a project of this kind decides where the user does not."""
        return options

    @abstractmethod
    def dockerfile(self, options: BuildOptions) -> str:
        """Text of the Dockerfile that a build uses; bytes that are not UTF-8 are surrogates."""

    @abstractmethod
    def prepared(self, options: BuildOptions, observer: BuildObserver) -> AbstractAsyncContextManager[Prepared]:
        """Stage the project, under its lock if it has one.

        Raises:
            LockNotAcquiredError: another process kept the lock for longer than the user wants to wait.
            UsageError: options that cannot be planned.
        """


async def open_recipe(options: BuildOptions) -> Recipe:
    """The recipe of the project that the options are about; reads standard input if anything of it comes there.

    Raises:
        BuildError: what is on the web cannot be fetched.
        ConfigError, UsageError: there is no project, or it cannot be used.
    """
    context, file = options.context, options.file
    if _has_frontend(options):
        return await _frontend_recipe(options)
    if is_standard_input(context):
        return await _piped_recipe(options)
    if context is not None and is_remote_url(os.fspath(context)) and not os.path.isdir(context):
        return await _remote_recipe(options, os.fspath(context))
    if is_standard_input(file) or (file is not None and is_http_url(file)):
        root = resolve_folder(context)
        given = await _given_dockerfile(file)
        return DockerfileRecipe(Project(ProjectKind.DOCKERFILE, root), given, context_mount(root), options)
    if file is not None and is_stream(Path(file)):
        return await in_thread(read_recipe, options)  # reading may wait for whoever writes
    return read_recipe(options)


def _has_frontend(options: BuildOptions) -> bool:
    return bool(options.frontend or options.frontend_opts or options.frontend_mounts)


async def _frontend_recipe(options: BuildOptions) -> Recipe:
    from cogkit.building.other_frontends import FrontendRecipe

    if options.frontend:
        return FrontendRecipe(options)
    return FrontendRecipe(options, await in_thread(read_piped_llb))


async def _given_dockerfile(file: str | None) -> Definition | None:
    """A Dockerfile that is not in the file system; None if it is."""
    if is_standard_input(file):
        return Definition(DOCKERFILE_NAME, await in_thread(read_piped_dockerfile), shown="stdin")
    if file is not None and is_http_url(file):
        return Definition(DOCKERFILE_NAME, await in_thread(fetch_dockerfile, file), shown=file)
    return None


async def _piped_recipe(options: BuildOptions) -> Recipe:
    project = Project(ProjectKind.DOCKERFILE, resolve_folder())
    piped = await in_thread(read_piped_context, options)
    if piped.llb is not None:
        from cogkit.building.other_frontends import FrontendRecipe

        return FrontendRecipe(options, piped.llb)
    if piped.dockerfile is not None:
        given = Definition(DOCKERFILE_NAME, piped.dockerfile, shown="stdin")
        return DockerfileRecipe(project, given, EMPTY_CONTEXT, options)
    from cogkit.buildkit.session.services.upload import Upload

    assert piped.archive is not None
    upload = Upload()
    address = upload.offer(piped.archive)
    return DockerfileRecipe(project, await _given_dockerfile(options.file), address, options, services=(upload,))


async def _remote_recipe(options: BuildOptions, url: str) -> Recipe:
    given, file = await _given_dockerfile(options.file), options.file
    if given is None and file is not None and os.path.isabs(file):
        given = await in_thread(read_definition, resolve_dockerfile(file))
    return DockerfileRecipe(Project(ProjectKind.DOCKERFILE, resolve_folder()), given, url, options)


def read_recipe(options: BuildOptions, *, only_to_show: bool = False) -> Recipe:
    """The recipe of a project on disk.

    Args:
        options: The user's wishes.
        only_to_show: Nothing will be built; see `cogkit.building.cog.read_cog_build`.
    """
    project = find_build_project(options)
    if project.kind is not ProjectKind.COG:
        assert project.dockerfile_path is not None
        given = read_definition(project.dockerfile_path)
        own = None if given.ignore is None else given.ignore.path
        return DockerfileRecipe(project, given, context_mount(project.root, own), options)
    # With YAML and the generator a tenth of the time of an unchanged build, of which plain Dockerfiles are spared.
    from cogkit.building.cog import read_cog_build

    return CogRecipe(project, read_cog_build(project, options, only_to_show=only_to_show), options)


def has_local_project(options: BuildOptions) -> bool:
    """Whether the options are about a project in the file system."""
    context, file = options.context, options.file
    if _has_frontend(options):
        return False
    if is_standard_input(file) or (file is not None and is_http_url(file)):
        return False
    return context is None or not (
        is_standard_input(context) or (is_remote_url(os.fspath(context)) and not os.path.isdir(context))
    )


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


class DockerfileRecipe(Recipe):
    """A Dockerfile with its context: the daemon's own frontend builds it.

    Args:
        project: The project; only its root counts, if the Dockerfile is not in the file system.
        definition: The Dockerfile; None if it is in a context that has an address.
        context: The context, or the address at which the builder finds it.
        options: The user's wishes.
        services: Services of the session that the context needs.
    """

    def __init__(
        self,
        project: Project,
        definition: Definition | None,
        context: LocalMount | str,
        options: BuildOptions,
        *,
        services: tuple[Service, ...] = (),
    ):
        super().__init__(project)
        self._definition = definition
        self._context = context
        self._services = services
        self.warnings = _ignored_links(*self.ignoring, options)

    @property
    def ignoring(self) -> tuple[Path | None, IgnoreFile | None]:
        folder = None if isinstance(self._context, str) or self._context.files is not None else self._context.root
        return folder, None if self._definition is None else self._definition.ignore

    def explained(self, problem: CogkitError, options: BuildOptions) -> CogkitError:
        found = super().explained(problem, options)
        context = self._context
        if found.hint is None and isinstance(context, str) and "parse error" in found.message and not self._services:
            # What is not an archive is a Dockerfile to the builder, also a web page.
            found.hint = f"if {context} is a Git repository, its name must end in .git"
        return found

    @property
    def folders(self) -> dict[str, Path]:
        folder, path = self.ignoring[0], self.project.dockerfile_path
        found = {} if folder is None else {CONTEXT_MOUNT: folder}
        return found if path is None else {**found, DOCKERFILE_MOUNT: path.parent}

    @property
    def dockerfile_name(self) -> str | None:
        path = self.project.dockerfile_path
        if path is None:
            return None if self._definition is None else self._definition.shown
        near = os.path.relpath(path)
        return str(path) if near.startswith(os.pardir) else near

    def dockerfile(self, options: BuildOptions) -> str:
        assert self._definition is not None
        return self._definition.dockerfile.decode("utf-8", "surrogateescape")

    @asynccontextmanager
    async def prepared(self, options: BuildOptions, observer: BuildObserver) -> AsyncIterator[Prepared]:
        given = self._definition
        if self.project.dockerfile_path is not None:
            check_policy(self.project.dockerfile_path, disabled=options.policies_disabled)
        plan = plan_frontend(
            options,
            context=self._context,
            dockerfile=None if given is None else given.mount,
            filename=options.file or DOCKERFILE_NAME if given is None else given.filename,
        )
        request = solve_request(options, plan, frontend=FRONTEND, attrs=plan.attrs)
        yield Prepared(request, plan.attrs, DockerfileFrontend(plan.attrs), self._services)


class CogRecipe(Recipe):
    """A Cog project: cogkit generates the Dockerfile and is the frontend."""

    def __init__(self, project: Project, cog: CogBuild, options: BuildOptions):
        super().__init__(project)
        self.cog = cog
        self.warnings = (*cog.warnings, *_ignored_links(project.root, None, options), *_left_out_runners(cog))
        self.notes = cog.generated.notes
        self.default_names = (cog.image_name,)
        # Whether Cog's base image is there, and so which Dockerfile it is, is found out during the build; so is what
        # the image says of the schema.
        self.one_at_a_time = cog.base_image is not None or cog.evaluation is not None

    def check_default_names(self) -> None:
        self.cog.check_image_name()

    def completed(self, options: BuildOptions) -> BuildOptions:
        from cogkit.building.cog import DEFAULT_PLATFORM

        return options if options.platforms else replace(options, platforms=(DEFAULT_PLATFORM,))

    def dockerfile(self, options: BuildOptions) -> str:
        cog = self.cog
        if cog.base_image is not None and options.cog.use_cog_base_image:
            cog = cog.on_base_image(cog.base_image)
        return cog.generated.dockerfile

    @asynccontextmanager
    async def prepared(self, options: BuildOptions, observer: BuildObserver) -> AsyncIterator[Prepared]:
        from cogkit.building.cog import DOCKERFILE, FINISHING, CogFrontend, staged

        if options.cog.dockerfile is not None:
            check_policy(options.cog.dockerfile, disabled=options.policies_disabled)
        options = self.completed(options)
        async with staged(self.cog, options, observer) as staging:
            plan = plan_frontend(
                options,
                context=context_mount(self.project.root),
                dockerfile=LocalMount(DOCKERFILE_MOUNT, staging.folder, only=frozenset({DOCKERFILE, FINISHING})),
                filename=DOCKERFILE,
                staged=staging.folder,
                weights=self.cog.weights,
            )
            request = solve_request(options, plan, frontend="", attrs=plan.for_the_builder)
            yield Prepared(request, plan.attrs, CogFrontend(self.cog, staging, plan.attrs, options, observer))


def _ignored_links(folder: Path | None, own: IgnoreFile | None, options: BuildOptions) -> tuple[str, ...]:
    """Links in place of ignore files that the builder does not follow, also of named contexts."""
    found = [] if folder is None else list(ignored_links(folder, own))
    for named in options.build_contexts:
        if named.local:
            found += ignored_links(Path(named.value), None)
    return tuple(found)


def _ignore_files(folder: Path | None, own: IgnoreFile | None, options: BuildOptions) -> Iterator[IgnoreFile]:
    """All ignore files that hold for a build."""
    roots = [(folder, own), *((Path(named.value), None) for named in options.build_contexts if named.local)]
    for root, of_dockerfile in roots:
        found = None if root is None else find_ignore_file(root, of_dockerfile).file
        if found is not None:
            yield found


def _left_out_runners(cog: CogBuild) -> Iterator[str]:
    """What of the model's own code the ignore file leaves out, so that the image will not have it."""
    root = cog.project.root
    references = {"run": cog.config.run, "train": cog.config.train}
    if not any(references.values()) or not os.path.lexists(root / IGNORE_NAME):
        return
    from cogkit.building.ignore_patterns import what_leaves_out

    ignore = find_ignore_file(root, None).file
    for word, reference in references.items():
        path = os.path.normpath(reference.rpartition(":")[0] or reference)
        if ignore is None or not reference or not (root / path).is_file():
            continue
        try:
            found = what_leaves_out(ignore, path)
        except ConfigError:
            return  # the build ends with it
        if found is not None:
            line, pattern = found
            yield (
                f"{path}, the '{word}' of {cog.config.filename}, is left out by the pattern {pattern!r}"
                f" ({ignore.path}:{line}): the image will not have it"
            )


@dataclass(frozen=True, slots=True)
class DockerfileFrontend:
    """Has ``dockerfile.v0`` make the image through the gateway."""

    attrs: Mapping[str, str]

    async def __call__(self, gateway: Gateway) -> GatewayResult:
        return await gateway.solve(FRONTEND, self.attrs)


def solve_request(
    options: BuildOptions, plan: FrontendPlan, *, frontend: str, attrs: Mapping[str, str]
) -> SolveRequest:
    """A plan as a request that exports nothing yet."""
    return SolveRequest(
        frontend=frontend,
        frontend_attrs=attrs,
        mounts=plan.mounts,
        cache_imports=options.cache_from,
        cache_exports=options.cache_to,
        oci_layouts=plan.oci_layouts,
        entitlements=plan.entitlements,
        shared_key=plan.shared_key,
        source_policy=options.source_policy,
        proxy_network=options.proxy_network,
    )


def as_request_of_our_own(request: SolveRequest) -> SolveRequest:
    """The same request with cogkit as the frontend, whatever the recipe is, and not in the builder's history."""
    return replace(request, frontend="", frontend_attrs={}, internal=True)
