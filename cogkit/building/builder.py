"""Connects a build to its builder.

An address that is given, by the user or in ``BUILDKIT_HOST``, is all there is to know, and nothing is imported to
find that out.  This file must not know what is built.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.errors import CogkitError

if TYPE_CHECKING:
    from cogkit.builders.records import Builder
    from cogkit.buildkit.client import AsyncClient


def farm_of(options: BuildOptions) -> Builder | None:
    """The farm that a build goes to; None if it goes to a single daemon.

    Raises:
        BuilderUnreachableError, UsageError, ConfigError: see `builder_of`.
    """
    if _given_address(options):
        return None
    from cogkit.builders.choice import choose

    builder = choose(options.address, options.builder, tls=options.tls).builder
    return builder if builder.is_farm else None


@asynccontextmanager
async def builder_of(options: BuildOptions, observer: BuildObserver) -> AsyncIterator[AsyncClient]:
    """The daemon that a build goes to, started if it is the private one; of a farm, the project's node.

    Raises:
        BuilderUnreachableError: there is none, or it does not answer.
        UsageError, ConfigError: what names it cannot be used.
    """
    address = _given_address(options)
    if address:
        from cogkit.buildkit.connect.dialer import dial_ahead

        dialer = dial_ahead(address, options.tls)
        from cogkit.buildkit.client import AsyncClient

        connecting = AsyncClient.connect(
            options.address,
            tls=options.tls,
            compress=options.compress,
            warn=observer.on_warning,
            for_build=True,
            dialer=dialer,
        )
        async with await connecting as client:
            yield client
        return
    from cogkit.builders.choice import choose
    from cogkit.builders.connecting import connected

    target = choose(options.address, options.builder, tls=options.tls)
    if target.builder.is_farm:
        target = replace(target, builder=_for_project(target.builder, options))
    async with connected(
        target, compress=options.compress, warn=observer.on_warning, note=observer.on_note, for_build=True
    ) as client:
        yield client


def _for_project(farm: Builder, options: BuildOptions) -> Builder:
    """The farm with the node first that builds the project, and so has what it needs."""
    from cogkit.builders.placement import ranked
    from cogkit.building.farm import project_name
    from cogkit.building.recipes import find_build_project

    try:
        root = find_build_project(options).root
    except CogkitError:
        root = Path.cwd()  # the project comes on standard input
    return replace(farm, nodes=tuple(ranked(farm.nodes, project_name(root), options.platforms)))


def _given_address(options: BuildOptions) -> str | None:
    """The address, if it is known without looking anywhere."""
    if options.builder is not None:
        return None
    return options.address or os.environ.get("BUILDKIT_HOST") or None
