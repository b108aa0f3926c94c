"""Pushing what a Docker engine built itself, where its builder cannot.

With the containerd store the engine's builder pushes like any other.  With the classic store it ignores that it was
asked to, so the engine is asked for a push of each name afterwards, as buildx does it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.engine_api import EngineApi, EngineError
from cogkit.buildkit.errors import BuildError
from cogkit.oci.reference import Reference, parse_reference
from cogkit.registry.docker_config import HUB_KEY, DockerConfig


async def push_built(builder: Address, names: Sequence[str]) -> None:
    """See the module; ``builder`` is the engine, ``names`` are complete.

    Raises:
        BuildError: a registry refused.
        BuilderUnreachableError: the engine does not answer.
    """
    api = EngineApi(builder)
    try:
        if await api.is_containerd_store():
            return
        config = await in_thread(DockerConfig.load)
        for name in names:
            await _push(api, parse_reference(name), config)
    finally:
        await api.close()


async def _push(api: EngineApi, reference: Reference, config: DockerConfig) -> None:
    key = HUB_KEY if reference.domain == "docker.io" else reference.domain
    login = await in_thread(config.login, reference.domain)
    given = {"username": login.username, "password": login.password, "identitytoken": login.identity_token}
    auth = {name: value for name, value in given.items() if value} | {"serveraddress": key}
    header = {"X-Registry-Auth": urlsafe_b64encode(json.dumps(auth).encode()).decode()}
    path = f"/images/{quote(reference.name, safe='/:')}/push?tag={quote(reference.tag or 'latest')}"
    problem = ""
    try:
        for line in (await api.request("POST", path, headers=header)).splitlines():
            with suppress(ValueError):
                problem = str(json.loads(line).get("error") or problem)
    except EngineError as error:
        problem = error.message
    if problem:
        raise BuildError(
            f"the image was built, but the Docker engine could not push {reference}: {problem}",
            hint="log in with `cogkit login` or `docker login`, and check the name",
        )
