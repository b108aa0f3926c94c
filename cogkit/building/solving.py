"""One solve of a prepared project on one daemon, and what has to be done with its image while the daemon is there.

This file must not choose a daemon, nor stage anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from cogkit.building.hints import hinted
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.exports import Export
from cogkit.buildkit.request import SolveResult
from cogkit.errors import CogkitError

if TYPE_CHECKING:
    from cogkit.building.image_loading import Loading
    from cogkit.building.recipes import Prepared, Recipe
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.session.service import Service
    from cogkit.buildkit.solve import StatusCallback


async def solve_on(
    client: AsyncClient,
    services: Sequence[Service],
    options: BuildOptions,
    observer: BuildObserver,
    recipe: Recipe,
    prepared: Prepared,
    exports: tuple[Export, ...],
    *,
    on_status: StatusCallback | None = None,
) -> SolveResult:
    """Solve, load the image if that is wanted, and have a Docker engine push it.

    Args:
        client: The daemon.
        services: Services of the session that every build has.
        options: The user's wishes.
        observer: Hears what happens, but for the solve's events if ``on_status`` is given.
        recipe: The project, which knows what some failures mean.
        prepared: The same, as it is sent.
        exports: Where the result goes, beside an engine that it is loaded into.
        on_status: Hears the solve's events.

    Raises:
        BuildKitError, OutputError, CogkitError: as of `cogkit.buildkit.client.AsyncClient.solve`.
    """
    async with AsyncExitStack() as stack:
        loading: Loading | None = None
        if options.load is not None and options.call is None:
            from cogkit.building.image_loading import plan_loading

            names = options.tags or recipe.default_names
            loading = await in_thread(plan_loading, options, names, client.address, recipe.project.root)
            stack.callback(loading.close)
            exports = loading.exports(exports)
        try:
            with hinted():
                solved = await client.solve(
                    replace(prepared.request, exports=exports),
                    services=(*services, *prepared.services),
                    on_status=on_status or observer.on_status,
                    build=prepared.frontend,
                )
        except CogkitError as problem:
            explained = recipe.explained(problem, options)
            if explained is problem:
                raise
            raise explained from problem
        if client.address.is_engine and any(export.attrs.get("push") == "true" for export in exports):
            from cogkit.building.engine_push import push_built

            await push_built(client.address, solved.image_names)
        if loading is not None:
            await loading.finish(client, solved.image_names, observer)
        return solved
