"""A build without a project: a frontend that is named, or LLB that comes on standard input, as with ``buildctl build``.

The frontend gets its options and folders as they are given; what the command line says of steps and images in its own
words (``--target``, ``--build-arg`` …) is told to it in the words of the Dockerfile frontend, which others share.  This
file must not know any frontend.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.definition import context_mount
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.plan import check_folder, plan_frontend
from cogkit.building.recipes import Prepared, Recipe, solve_request
from cogkit.buildkit.shared_key import shared_key
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import Project, ProjectKind, resolve_folder

if TYPE_CHECKING:
    from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
    from cogkit.buildkit.mounts import LocalMount

_PROJECT_ATTRS = ("context", "filename")


class FrontendRecipe(Recipe):
    """A frontend with its options and folders, or LLB.

    Args:
        options: The user's wishes.
        llb: A marshalled definition, if there is no frontend.

    Raises:
        UsageError: something that makes sense for a project only, or a folder that cannot be offered.
    """

    def __init__(self, options: BuildOptions, llb: bytes | None = None):
        super().__init__(Project(ProjectKind.DOCKERFILE, resolve_folder()))
        self._llb = llb
        if llb is None and (options.context is not None or options.file is not None):
            given = (
                f"-f {options.file}" if options.file is not None else f"the context {os.fspath(options.context or '')}"
            )
            raise UsageError(
                f"a frontend knows no project, and so not what to do with {given}",
                hint="offer folders with --local context=DIR --local dockerfile=DIR, a name with --opt filename=FILE",
            )
        if llb is not None and options.call is not None:
            raise UsageError("LLB cannot be asked anything", hint="leave out --call and --check")
        for name, root in options.frontend_mounts.items():
            check_folder(root, f"--local {name}={root}")

    @property
    def folders(self) -> dict[str, Path]:
        return {}

    def dockerfile(self, options: BuildOptions) -> str:
        raise UsageError("only a project has a Dockerfile", hint="leave out --frontend, --opt and --local")

    @asynccontextmanager
    async def prepared(self, options: BuildOptions, observer: BuildObserver) -> AsyncIterator[Prepared]:
        plan = plan_frontend(options, context="", dockerfile=None, filename="")
        own = {key: value for key, value in plan.attrs.items() if key not in _PROJECT_ATTRS}
        attrs = {**(own if self._llb is None else {}), **options.frontend_opts}
        offered = tuple(_mount(name, root) for name, root in options.frontend_mounts.items())
        plan = replace(
            plan,
            mounts=(*(mount for mount in plan.mounts if mount.name not in options.frontend_mounts), *offered),
            shared_key=shared_key(offered[0].root, "frontend") if offered else "",
        )
        name = options.frontend or ""
        request = replace(solve_request(options, plan, frontend=name, attrs=attrs), definition=self._llb)
        yield Prepared(request, attrs, _Frontend(name, attrs, self._llb))


def _mount(name: str, root: Path) -> LocalMount:
    return replace(context_mount(root), name=name)


@dataclass(frozen=True, slots=True)
class _Frontend:
    """Makes the result through the gateway."""

    name: str
    attrs: Mapping[str, str]
    llb: bytes | None

    async def __call__(self, gateway: Gateway) -> GatewayResult:
        return await gateway.solve(self.name, self.attrs, definition=self.llb)
