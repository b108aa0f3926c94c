"""A build on a farm: the node that has the project, another one when that does not answer, one for each platform.

- A project goes to its node (`cogkit.builders.placement`).  A node that does not answer soon, that is full, or that
  cannot build the platform though the list says so, is passed over, and the user is told.
- A node that goes away during the build is replaced once, unless something was being pushed by then.
- An image of several platforms that is pushed is built at the same time on a node for each, pushed by digest, and
  joined in the registry.
- A farm with a ``cache`` keeps the cache of every build there, so that a node that never saw the project is not cold.

This file must not know how a project becomes a solve.
"""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from cogkit.builders.connecting import connect
from cogkit.builders.placement import natively, ranked, usual
from cogkit.building.solving import solve_on
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.errors import BuildError, BuilderUnreachableError, SolveError
from cogkit.buildkit.request import CacheEntry, SolveRequest, SolveResult
from cogkit.buildkit.shared_key import shared_key
from cogkit.buildkit.status import CANCELED, Instant, SolveStatus, Vertex
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from cogkit.builders.records import Builder, Node
    from cogkit.building.observer import BuildObserver
    from cogkit.building.options import BuildOptions
    from cogkit.building.recipes import Prepared, Recipe
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.exports import Export

_CANNOT_RUN = "exec format error"
_PUSHING = "pushing"
_GIT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class FarmResult:
    """What came of a build on a farm.

    Attributes:
        solved: The one solve, or that of the first platform.
        digest: Of the index that joins several platforms; None for one solve.
        refs: The builds' names by their platforms, if there were several.
    """

    solved: SolveResult
    digest: str | None = None
    refs: tuple[tuple[str, str], ...] = ()


class _PassedOver(Exception):
    """A node is not the one for this build; the words say why."""


class _Full(_PassedOver):
    """It builds as much as it may."""


async def build_on_farm(
    farm: Builder,
    options: BuildOptions,
    observer: BuildObserver,
    recipe: Recipe,
    prepared: Prepared,
    exports: tuple[Export, ...],
) -> FarmResult:
    """Build on the nodes of a farm.

    Args:
        farm: The farm, with the nodes that may be taken.
        options: The user's wishes.
        observer: Hears of all nodes together.
        recipe: The project.
        prepared: The same, as it is sent.
        exports: Where the result goes.

    Raises:
        BuilderUnreachableError: no node can build it, or the second one went away, too.
        UsageError: several platforms are wanted that no node builds alone, and nothing is pushed.
        BuildError, OutputError: as of `cogkit.buildkit.client.AsyncClient.solve`.
    """
    project = await in_thread(project_name, recipe.project.root)
    build = _FarmBuild(farm, options, observer, recipe, project)
    platforms = options.platforms or _default_platform(farm.nodes)
    if len(options.platforms) < 2 or any(natively(node, platforms) for node in farm.nodes):
        return FarmResult(await build.solve(prepared, exports, platforms))
    if _can_be_joined(exports) and not prepared.services and options.load is None:
        return await _build_apart(build, prepared, exports[0], platforms)
    return FarmResult(await build.solve(prepared, exports, platforms))


async def _build_apart(build: _FarmBuild, prepared: Prepared, export: Export, platforms: Sequence[str]) -> FarmResult:
    """Each platform on a node of its own, all at the same time, and one index of what they pushed."""
    names = export.attrs["name"].split(",")
    by_digest = _pushed_by_digest(export, names)
    turn = asyncio.Semaphore(1 if build.recipe.one_at_a_time else len(platforms))

    async def solve(platform: str) -> SolveResult:
        async with turn:
            return await build.solve(_for_platform(prepared, platform), (by_digest,), (platform,), named=True)

    tasks = [asyncio.create_task(solve(platform)) for platform in platforms]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and task.exception() is not None:
                task.result()
        solved = [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    digests = {}
    for platform, result in zip(platforms, solved, strict=True):
        if result.digest is None:
            raise BuildError(f"the builder did not say which image it pushed for {platform}")
        digests[platform] = result.digest
    digest = await in_thread(_join, names, tuple(digests.values()))
    refs = tuple((platform, result.ref) for platform, result in zip(platforms, solved, strict=True))
    return FarmResult(solved[0], digest, refs)


def _join(names: Sequence[str], digests: Sequence[str]) -> str:
    """One index of images that are in the repository of each name; returns its digest."""
    from cogkit.oci.reference import Reference
    from cogkit.registry.image_index import Registries, create, parse_image

    targets = [parse_image(name) for name in names]
    sources = [Reference(targets[0].domain, targets[0].path, None, digest) for digest in digests]
    registries = Registries()
    try:
        return create(registries, targets, sources).digest
    finally:
        registries.close()


class _FarmBuild:
    def __init__(
        self, farm: Builder, options: BuildOptions, observer: BuildObserver, recipe: Recipe, project: str
    ) -> None:
        self.farm = farm
        self.options = options
        self.observer = observer
        self.recipe = recipe
        self.project = project

    async def solve(
        self, prepared: Prepared, exports: tuple[Export, ...], platforms: Sequence[str], *, named: bool = False
    ) -> SolveResult:
        """One solve on the first node that can do it, or on the second if that one goes away."""
        from cogkit.building.session_services import docker_config, open_services

        prepared = replace(prepared, request=self._with_cache(prepared.request, platforms))
        repeatable = not prepared.services
        candidates = _Candidates(self, platforms)
        while True:
            node, client = await candidates.next()
            watch = _Watch(self.observer, platforms[0] if named else None)
            services = open_services(self.options, self.observer, docker_config(self.observer))
            try:
                async with client:
                    return await solve_on(
                        client,
                        services,
                        self.options,
                        self.observer,
                        self.recipe,
                        prepared,
                        exports,
                        on_status=watch.on_status,
                    )
            except BuilderUnreachableError as error:
                if not repeatable or watch.pushed or not candidates.may_repeat(error):
                    raise
                self.observer.on_warning(
                    f"the node {node.name!r} went away during the build, which begins again on another: {error.message}"
                )
            except SolveError as error:
                if _CANNOT_RUN not in error.message and not any(_CANNOT_RUN in line for line in error.log_tail):
                    raise
                if not repeatable or watch.pushed or not candidates.may_repeat(error):
                    raise
                said = " and ".join(platforms) or "its own platform"
                self.observer.on_warning(
                    f"the node {node.name!r} says that it builds {said}, and cannot run its programs; the build"
                    " begins again on another"
                )
            watch.end()

    def _with_cache(self, request: SolveRequest, platforms: Sequence[str]) -> SolveRequest:
        """The farm's cache, unless the user says where caches are."""
        if self.farm.cache is None or self.options.no_cache:
            return request
        mark = hashlib.sha256(self.project.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        tag = "-".join([mark, *(usual(each).replace("/", "-") for each in platforms)])
        place = {"ref": f"{self.farm.cache}:{tag}"}
        if not self.options.cache_from:
            request = replace(request, cache_imports=(*request.cache_imports, CacheEntry("registry", place)))
        if not self.options.cache_to:
            # A cache that cannot be written costs time, later; it must not cost the build.
            entry = CacheEntry("registry", {**place, "mode": "max", "ignore-error": "true"})
            request = replace(request, cache_exports=(*request.cache_exports, entry))
        return request

    async def connect(self, node: Node, platforms: Sequence[str], *, full_too: bool) -> AsyncClient:
        """A client of a node that can build the platforms.

        Raises:
            BuilderUnreachableError: it does not answer.
            _PassedOver: it is not the one.
        """
        client = await connect(
            node,
            compress=self.options.compress,
            warn=self.observer.on_warning,
            timeout=self.farm.answer_seconds if len(self.farm.nodes) > 1 else None,
            for_build=True,
        )
        try:
            await self._check(node, client, platforms, full_too=full_too)
        except BaseException:
            await client.aclose()
            raise
        return client

    async def _check(self, node: Node, client: AsyncClient, platforms: Sequence[str], *, full_too: bool) -> None:
        if platforms:
            workers = await client.list_workers()
            known = {usual(str(platform)) for worker in workers for platform in worker.platforms}
            missing = [each for each in platforms if usual(each) not in known]
            if missing and natively(node, missing):
                raise _PassedOver(f"the list says that it builds {' and '.join(missing)}, and it says that it does not")
            if missing:
                raise _PassedOver(f"it does not build {' and '.join(missing)}")
        if node.max_builds is not None and not full_too:
            active = len([event async for event in client.history(active_only=True)])
            if active >= node.max_builds:
                raise _Full(f"it is full: {active} of {node.max_builds} builds run on it")


class _Candidates:
    """The nodes for one solve, one after the other; at the end those that were full."""

    def __init__(self, build: _FarmBuild, platforms: Sequence[str]) -> None:
        self._build = build
        self._platforms = platforms
        self._left = deque(ranked(build.farm.nodes, build.project, platforms))
        self._full: deque[Node] = deque()
        self._repeated = False
        self._failure: Exception | None = None

    def may_repeat(self, failure: Exception) -> bool:
        """Whether the build may begin again on the next node: once, and if there is one."""
        repeated, self._repeated = self._repeated, True
        self._failure = failure
        return not repeated and bool(self._left or self._full)

    async def next(self) -> tuple[Node, AsyncClient]:
        """The next node that can build, with a client of it.

        Raises:
            Exception: there is none: the failure of the last one that began to build, else why none can.
        """
        observer, reasons = self._build.observer, []
        while self._left or self._full:
            full_too = not self._left
            node = (self._full if full_too else self._left).popleft()
            try:
                client = await self._build.connect(node, self._platforms, full_too=full_too)
            except BuilderUnreachableError as error:
                reason = error.message
            except _Full as error:
                reason = str(error)
                self._full.append(node)
            except _PassedOver as error:
                reason = str(error)
            else:
                observer.on_note(f"builds on the node {node.name!r}")
                return node, client
            reasons.append(f"{node.name}: {reason}")
            observer.on_warning(f"the node {node.name!r} is passed over: {reason}")
        if self._failure is not None:
            raise self._failure
        what = " and ".join(self._platforms) or "now"
        farm = self._build.farm.name
        raise BuilderUnreachableError(
            f"no node of the builder {farm!r} can build {what}",
            hint=_hint(self._platforms, farm),
            detail="\n".join(reasons),
        )


def _hint(platforms: Sequence[str], farm: str) -> str:
    if len(platforms) > 1:
        return "push the image (--push), so that each platform can be built on a node of its own"
    return f"look at `cogkit builder inspect {farm}`"


class _Watch:
    """Hears the events of one solve, and passes them on; those of one platform among several bear its name."""

    def __init__(self, observer: BuildObserver, platform: str | None) -> None:
        self._observer = observer
        self._platform = platform
        self._open: dict[str, Vertex] = {}
        self.pushed = False

    def on_status(self, status: SolveStatus) -> None:
        """One event."""
        if any(each.id.startswith(_PUSHING) for each in status.statuses):
            self.pushed = True
        if self._platform is not None:
            status = replace(status, vertexes=tuple(map(self._named, status.vertexes)))
        for vertex in status.vertexes:
            if vertex.completed is None and vertex.started is not None:
                self._open[vertex.digest] = vertex
            else:
                self._open.pop(vertex.digest, None)
        self._observer.on_status(status)

    def end(self) -> None:
        """Nothing more comes: what still runs in the view has been given up."""
        if self._open:
            now = datetime.now().astimezone()
            ended = Instant.at(int(now.timestamp()), now.microsecond * 1000)
            given_up = (replace(vertex, completed=ended, error=CANCELED) for vertex in self._open.values())
            self._observer.on_status(SolveStatus(vertexes=tuple(given_up)))

    def _named(self, vertex: Vertex) -> Vertex:
        name = vertex.name
        name = f"[{self._platform} {name[1:]}" if name.startswith("[") else f"[{self._platform}] {name}"
        return replace(vertex, name=name)


def project_name(root: Path) -> str:
    """What a project is called on every machine alike: its place in a git repository, else its folder on this one."""
    place = _git(root, "rev-parse", "--show-prefix")
    remote = None if place is None else _git(root, "config", "--get", "remote.origin.url")
    return f"{remote}\0{place}" if remote else shared_key(root)


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout.strip()


def _default_platform(nodes: Sequence[Node]) -> tuple[str, ...]:
    """The platform of a build that names none, where the nodes differ: this machine's, else the first node's."""
    own = list(dict.fromkeys(usual(node.platforms[0]) for node in nodes if node.platforms))
    if len(own) < 2:
        return ()
    from cogkit.building.values import local_platform

    local = local_platform()
    return (local,) if local in own else (own[0],)


def _can_be_joined(exports: Sequence[Export]) -> bool:
    """Whether the only result is an image that goes to registries by its names."""
    if len(exports) != 1 or exports[0].type != "image":
        return False
    attrs = exports[0].attrs
    return attrs.get("push") == "true" and bool(attrs.get("name")) and "push-by-digest" not in attrs


def _pushed_by_digest(export: Export, names: Sequence[str]) -> Export:
    from cogkit.oci.reference import parse_reference

    repositories = dict.fromkeys(parse_reference(name).name for name in names)
    attrs = {**export.attrs, "name": ",".join(repositories), "push-by-digest": "true"}
    attrs.setdefault("oci-mediatypes", "true")
    return replace(export, attrs=attrs)


def _for_platform(prepared: Prepared, platform: str) -> Prepared:
    """The same project for one of its platforms."""
    attrs = {**prepared.attrs, "platform": platform}
    request = prepared.request
    if request.frontend:
        request = replace(request, frontend_attrs=attrs)
    # Frontends of ours are data classes with what they tell ``dockerfile.v0``.
    make_image = replace(cast(Any, prepared.make_image), attrs=attrs)
    return replace(prepared, request=request, attrs=attrs, make_image=make_image)
