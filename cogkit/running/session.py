"""From a project or an image to a running container: the one order in which things are made, and undone.

One solve with cogkit as its frontend makes the image through the gateway, exports nothing, and stays open for as long
as the container runs.  The project's lock is held only until the image is made.  When `open_session` is left, however
that is, the link is closed, the container is released and the solve ends: nothing keeps running.  This file must not
know which command wants that, nor show anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from cogkit.building.build import connected, tell_of
from cogkit.building.hints import hinted
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.building.recipes import Recipe, as_request_of_our_own
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.request import SolveRequest
from cogkit.errors import CogkitError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.reference import parse_reference
from cogkit.running.image import Image
from cogkit.running.link import Link, Whereabouts
from cogkit.running.weights import ModelWeights, project_weights

if TYPE_CHECKING:
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.gateway.containers import Command, ContainerProcess, Mount
    from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult, Ref
    from cogkit.buildkit.session.service import Service
    from cogkit.buildkit.status import SolveStatus

T = TypeVar("T")

LINK_ID = "cogkit.link"
LINK_PATH = "/run/cogkit.link"
RELAY_ROOT = "/run/cogkit"
RELAY_FILES = ("mux.py", "changes.py", "relay.py")
HOST_NAME = "host.docker.internal"
"""What a container calls this machine: a port there that was asked for ends here (`Link.listen`)."""

NOT_TO_BE_KEPT = 3
"""How a step ends whose files nobody wants: as one that failed."""

STOP_SECONDS = 3.0
NEWS_SECONDS = 2.0
"""How long the solve may take to say why the link is gone."""
_SHOWN = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions:
    """What the container is like.

    Attributes:
        devices: CDI names of devices.
        hosts: Additional host names, with their addresses.
        weights: Managed weights that are mounted in it.
    """

    devices: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    weights: ModelWeights | None = None


PLAIN = ContainerOptions()


class Running:
    """A container that runs, with nothing of the user's in it yet.

    Attributes:
        image: What it was made of.
        link: The way to it.
        where: Where it is.
        began_ns: A moment before anything of this machine was read for it, nanoseconds since 1970.
    """

    def __init__(self, image: Image, link: Link, where: Whereabouts, began_ns: int, solving: asyncio.Task[Any]) -> None:
        self.began_ns = began_ns
        self.image = image
        self.link = link
        self.where = where
        self._solving = solving

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives, for as long as the container is there.

        Raises:
            CogkitError: why the container, or the builder, is gone.
        """
        task = asyncio.create_task(work)
        try:
            waited: set[asyncio.Future[Any]] = {task, self._solving, self.link.failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not isinstance(task.exception(), CogkitError):
                return task.result()
            if self.link.lost is not None and not self._solving.done():
                # Both end when a builder dies; only the solve knows that it did.
                await asyncio.wait({self._solving}, timeout=NEWS_SECONDS)
            if self._solving.done():
                self._solving.result()
            if task.done():
                return task.result()
            assert self.link.lost is not None
            raise self.link.lost
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


MakeImage = Callable[["Gateway"], Awaitable[Image]]


@asynccontextmanager
async def open_session(
    options: BuildOptions,
    observer: BuildObserver,
    recipe: Recipe | None,
    image_name: str = "",
    container: ContainerOptions = PLAIN,
    check: Callable[[Image], None] = lambda image: None,
) -> AsyncIterator[Running]:
    """A container with the image of a project, or of a registry.

    Args:
        options: The build.
        observer: Hears of it.
        recipe: The project; None to run ``image_name``.
        image_name: An image of a registry.
        container: What the container is like.
        check: Called with the image before anything is started; may refuse it by raising.

    Raises:
        CogkitError: as `cogkit.building.build.build`, and when the container cannot be started.
    """
    began_ns = time.time_ns()
    async with AsyncExitStack() as stack:
        if recipe is not None:
            tell_of(recipe, observer)
        options, client, services = await connected(options, observer, stack)
        staging = await stack.enter_async_context(AsyncExitStack())
        if recipe is None:
            request = SolveRequest(internal=True, source_policy=options.source_policy)
            make_image = _registry_image(image_name)
        else:
            container = replace(container, weights=project_weights(recipe.project))
            prepared = await staging.enter_async_context(recipe.prepared(options, observer))
            request = as_request_of_our_own(prepared.request)
            services = (*services, *prepared.services)
            made = prepared.make_image

            async def make_image(gateway: Gateway) -> Image:
                return Image.of_result(await made(gateway))

        async with _solved(client, request, services, observer, make_image, staging, container, check) as opened:
            yield Running(*opened[:3], began_ns, opened[3])


@asynccontextmanager
async def _solved(
    client: AsyncClient,
    request: SolveRequest,
    services: Sequence[Service],
    observer: BuildObserver,
    make_image: MakeImage,
    staging: AsyncExitStack,
    options: ContainerOptions,
    check: Callable[[Image], None],
) -> AsyncIterator[tuple[Image, Link, Whereabouts, asyncio.Task[None]]]:
    from cogkit.buildkit.gateway.llb_bridge import GatewayResult
    from cogkit.buildkit.session.services.ssh import Ssh

    link = Link()
    ready: asyncio.Future[tuple[Image, Mapping[str, Any]]] = asyncio.get_running_loop().create_future()
    finished = asyncio.Event()

    async def build(gateway: Gateway) -> GatewayResult:
        relay, image, weights = await asyncio.gather(
            _relay_files(gateway), make_image(gateway), _weights(gateway, options)
        )
        check(image)
        await image.ref.evaluate()
        await staging.aclose()  # the project may be built again while this runs
        async with _started(gateway, image, relay, weights, link, options) as greeting:
            ready.set_result((image, greeting))
            await finished.wait()
            link.close()
        return GatewayResult()

    def on_status(status: SolveStatus) -> None:
        if not ready.done():
            observer.on_status(status)

    async def solve() -> None:
        with hinted():
            own = Ssh({LINK_ID: link})
            await client.solve(request, services=(*services, own), on_status=on_status, build=build)

    solving = asyncio.create_task(solve(), name="run")
    try:
        waited: set[asyncio.Future[Any]] = {solving, ready}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            solving.result()
            raise BuildError("the builder ended the build before the container was there")
        image, greeting = ready.result()
        yield image, link, Whereabouts.of(greeting), solving
    finally:
        finished.set()
        link.close()
        await asyncio.wait({solving}, timeout=STOP_SECONDS if ready.done() else 0)
        solving.cancel()
        await asyncio.gather(solving, return_exceptions=True)


# ---------------------------------------------------------------- what goes into the container


def _registry_image(name: str) -> MakeImage:
    try:
        reference = parse_reference(name)
    except ValueError as problem:
        raise UsageError(f"{name!r} is not an image: {problem}", hint="the form is [HOST/]NAME[:TAG]") from None
    whole = str(reference if reference.tag or reference.digest else replace(reference, tag="latest"))

    async def make(gateway: Gateway) -> Image:
        import json

        from cogkit.buildkit import llb

        found = await gateway.resolve_image_config(whole)
        result = await gateway.solve(definition=bytes(llb.image(whole)))
        try:
            config = json.loads(found.config)
        except (ValueError, RecursionError):
            config = None
        if result.ref is None or not isinstance(config, dict):
            raise BuildError(f"the image {name} cannot be read: it has no usable config")
        return Image.of_config(result.ref, config)

    return make


async def _relay_files(gateway: Gateway) -> Ref:
    """A filesystem with the relay, which the builder makes once and keeps."""
    from cogkit.buildkit import llb

    folder = resources.files("cogkit.running")
    action = llb.mkdir("/cogkit/running", 0o755, parents=True)
    for name in RELAY_FILES:
        content = folder.joinpath(name).read_bytes()
        action = action.mkfile(f"/cogkit/running/{name}", content, 0o644)
    result = await gateway.solve(definition=bytes(llb.scratch().file(action, name="[internal] prepare the container")))
    assert result.ref is not None
    return result.ref


async def _weights(gateway: Gateway, options: ContainerOptions) -> Mapping[str, Ref]:
    return {} if options.weights is None else await options.weights.fetched(gateway)


def _relay_command(image: Image, code: int = 0) -> Command:
    """The first process, which ends with ``code``."""
    from cogkit.buildkit.gateway.containers import Command

    find = f"import sys; sys.path.insert(0, {RELAY_ROOT!r})"
    start = f"{find}; from cogkit.running.relay import main; main({LINK_PATH!r}, {code})"
    # Isolated: nothing that the image or its user has put into Python's way is looked at.
    return Command(["python", "-I", "-S", "-B", "-c", start], {"PATH": image.env["PATH"]}, user=image.user)


@asynccontextmanager
async def _started(
    gateway: Gateway, image: Image, relay: Ref, weights: Mapping[str, Ref], link: Link, options: ContainerOptions
) -> AsyncIterator[Mapping[str, Any]]:
    """The container with its relay, until it is left; gives what the relay says of itself."""
    from cogkit.buildkit.gateway.containers import Container, Mount

    mounts: list[tuple[Mount, Ref | None]] = [
        (Mount.bind("/", image.ref), image.ref),
        (Mount.bind(RELAY_ROOT, relay, readonly=True), relay),
        (Mount.tmpfs("/dev/shm"), None),
        (Mount.ssh(LINK_PATH, LINK_ID, mode=0o666), None),
        *((Mount.bind(target, ref, readonly=True), ref) for target, ref in weights.items()),
    ]
    hosts = {HOST_NAME: "127.0.0.1", **options.hosts}
    if options.devices:
        from cogkit.buildkit.gateway import device_run

        step = device_run.definition(_relay_command(image, NOT_TO_BE_KEPT), mounts, options.devices, hosts=hosts)
        running = asyncio.create_task(device_run.run(gateway, step))
        try:
            yield await _greeting(link, running)
        finally:
            link.close()
            await asyncio.wait({running}, timeout=STOP_SECONDS)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return
    async with await Container.create(gateway, [mount for mount, _ in mounts], hosts=hosts) as made:
        process = await made.start(_relay_command(image))
        watching = asyncio.create_task(_watched(process))
        try:
            yield await _greeting(link, watching)
        finally:
            link.close()
            # It ends by itself, and takes with it all that it started.
            await asyncio.wait({watching}, timeout=STOP_SECONDS)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _greeting(link: Link, running: asyncio.Task[None]) -> Mapping[str, Any]:
    """What the relay says when it is there."""
    up = asyncio.create_task(link.up())
    try:
        await asyncio.wait({up, running}, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            return up.result()
        running.result()
        raise BuildError("the container ended before anything could be started in it")
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)


async def _watched(process: ContainerProcess) -> None:
    """Until the relay ends; raises when it ended too early, with what it said."""
    said = b""
    async for _, data in process.output():
        said = (said + data)[-_SHOWN:]
    code = await process.wait()
    if code:
        raise BuildError(
            f"the container's first process ended with exit code {code}",
            hint="the image needs Python 3.7 or newer, as `python`: Cog's images have it",
            detail=said.decode("utf-8", "replace").strip() or None,
        )
