"""Bringing an image that was built elsewhere into a container engine of this machine, without the layers it has.

The builder gives the image's manifest and config, and keeps its layers.  What the engine has is known by the ids of
layer chains, which are digests of content, so only layers of other chains are read from the builder, and go straight
into the archive that the engine loads: nothing is stored here.  Whether that was right the engine tells: if it misses a
layer after all, because it keeps it in another compression, the rest follows.

``docs/loading.md`` says what was measured.  This file must not know projects or Dockerfiles.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions, OutputSpec
from cogkit.building.plan import plan_export
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.engine_api import EngineApi, EngineError
from cogkit.buildkit.connect.engine_endpoint import find_endpoint
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.exports import Export
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.content_store import ContentStore, LayoutError
from cogkit.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from cogkit.buildkit.client import AsyncClient

EngineName = Literal["docker", "podman"]

_MOST_IMAGES = 500
_BLOCK = 512
_SAID = 4_000


class LoadError(BuildError):
    """The image was built, and could not be loaded (exit code 1)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its blob, and the chain that ends with it."""

    digest: str
    size: int
    chain_id: str


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image of one platform whose layers are at the builder."""

    names: tuple[str, ...]
    manifest: bytes
    media_type: str
    config: bytes
    config_digest: str
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was sent.

    Attributes:
        engine: To whom.
        sent: The layers.
        layers: How many the image has.
    """

    engine: EngineName
    sent: tuple[Layer, ...]
    layers: int

    @property
    def size(self) -> int:
        """Bytes of the layers that were sent."""
        return sum(layer.size for layer in self.sent)


@dataclass(frozen=True, slots=True)
class Loading:
    """What a build does to have its image loaded; made by `plan_loading`.

    Attributes:
        engine: Where to.
        export: What the builder exports for it.
        folder: Where that goes; None if the engine builds the image itself.
    """

    engine: EngineName
    export: Export
    folder: TemporaryFolder | None

    def exports(self, others: tuple[Export, ...]) -> tuple[Export, ...]:
        """All that the builder has to export."""
        if self.folder is None and any(export.type == self.export.type for export in others):
            return others
        return (*others, self.export)

    async def finish(self, client: AsyncClient, names: Sequence[str], observer: BuildObserver) -> None:
        """The image is built: load it.

        Raises:
            LoadError: the engine did not take it.
            BuilderUnreachableError: the builder or the engine does not answer.
        """
        if self.folder is None:
            return
        loaded = await load_image(client, await in_thread(read_image, self.folder.path, names), self.engine)
        layers = f"{len(loaded.sent)} of {loaded.layers} layers"
        observer.on_note(f"loaded into {loaded.engine}: {layers} were sent, {loaded.size:,} bytes")

    def close(self) -> None:
        """Remove what was written on the way."""
        if self.folder is not None:
            self.folder.close()


def plan_loading(options: BuildOptions, names: tuple[str, ...], builder: Address, project_root: Path) -> Loading:
    """Decide how the image gets into the engine that ``options.load`` wishes for.

    Raises:
        UsageError: there is no engine, or the image is for several platforms.
    """
    engine = choose_engine(options.load or "auto")
    if is_own_engine(builder, engine):
        return Loading(engine, plan_export(OutputSpec("image"), options, names, project_root), None)
    if len(options.platforms) > 1:
        raise UsageError(
            "an image for several platforms cannot be loaded into a container engine",
            hint="load it for one platform, or push it",
        )
    folder = TemporaryFolder()
    spec = OutputSpec("docker", dest=str(folder.path), attrs={"tar": "false"})
    export = replace(plan_export(spec, options, names, project_root), without_layers=True)
    return Loading(engine, export, folder)


def choose_engine(wish: str) -> EngineName:
    """The engine to load into: the wished-for, else docker if there is one, else podman.

    Raises:
        UsageError: it is not there.
    """
    url = find_endpoint(Address("docker")).url
    has_docker = not url.startswith("unix://") or os.path.exists(url.removeprefix("unix://"))
    has_podman = shutil.which("podman") is not None
    if has_docker and wish in ("auto", "docker"):
        return "docker"
    if has_podman and wish in ("auto", "podman"):
        return "podman"
    missing = {"docker": f"no Docker engine at {url}", "podman": "no podman in PATH"}
    why = missing.get(wish) or " and ".join(missing.values())
    raise UsageError(
        f"there is no container engine to load the image into: {why}",
        hint="start Docker, set DOCKER_HOST, or write the image to a file with an output of type=docker,dest=image.tar",
    )


def is_own_engine(builder: Address, engine: EngineName) -> bool:
    """Whether the builder is the one within that engine, which keeps what it builds."""
    if not builder.is_engine or engine != "docker":
        return False
    return find_endpoint(builder).url == find_endpoint(Address("docker")).url


def read_image(directory: Path, names: Sequence[str]) -> BuiltImage:
    """The image of a layout without layers.

    Raises:
        LoadError: it is not an image for one platform.
    """
    store = ContentStore(directory)
    try:
        entry = store.index()[0]
        media_type, manifest = entry.media_type, _blob(store, entry.digest)
        described = json.loads(manifest)
        if "manifests" in described:
            # An image with its attestations, which an engine has no use for.
            (only,) = (each for each in described["manifests"] if not _is_attestation(each))
            media_type, manifest = str(only["mediaType"]), _blob(store, only["digest"])
            described = json.loads(manifest)
        config_digest = described["config"]["digest"]
        config = _blob(store, config_digest)
        diff_ids = json.loads(config)["rootfs"]["diff_ids"]
        blobs = described["layers"]
        if len(blobs) != len(diff_ids):
            raise ValueError("it has another number of layers than its config says")
        layers, chain = [], ""
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            chain = chain_id(chain, diff_id)
            layers.append(Layer(str(blob["digest"]), int(blob["size"]), chain))
    except (LookupError, ValueError, TypeError, AttributeError, LayoutError) as error:
        raise LoadError(
            f"the builder did not export an image that could be loaded: {error}",
            hint="an image for several platforms can be pushed but not loaded",
        ) from error
    return BuiltImage(tuple(names), manifest, media_type, config, config_digest, tuple(layers))


def _is_attestation(entry: dict[str, Any]) -> bool:
    return "vnd.docker.reference.type" in (entry.get("annotations") or {})


def chain_id(parent: str, diff_id: str) -> str:
    """The name of a layer with all below it (OCI image-spec, ``config.md``)."""
    return diff_id if not parent else f"sha256:{hashlib.sha256(f'{parent} {diff_id}'.encode()).hexdigest()}"


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """The names of all layers of an image."""
    found: list[str] = []
    for diff_id in diff_ids:
        found.append(chain_id(found[-1] if found else "", diff_id))
    return found


async def load_image(client: AsyncClient, image: BuiltImage, name: EngineName) -> Loaded:
    """Bring an image into an engine, and give it its names there.

    Raises:
        LoadError: the engine did not take it.
        BuilderUnreachableError: the builder or the engine does not answer.
    """
    engine: _Engine = _Docker() if name == "docker" else _Podman()
    try:
        have = await engine.chains({layer.chain_id for layer in image.layers})
        left_out = [layer for layer in image.layers if layer.chain_id in have]
        sent = [layer for layer in image.layers if layer.chain_id not in have]
        try:
            await engine.load(image, client, sent)
            complete = not left_out or await engine.is_complete(image)
        except LoadError:
            if not left_out:
                raise
            complete = False
        if not complete:
            # It has these layers in another form, or has lost them meanwhile.
            sent = list(image.layers)
            await engine.load(image, client, sent)
    except EngineError as error:
        raise LoadError(f"the image was built but could not be loaded into {name}: {error.message}") from error
    finally:
        await engine.close()
    return Loaded(name, tuple(sent), len(image.layers))


# -------------------------------------------------------------------------------------------------------------- engines


class _Engine(ABC):
    @abstractmethod
    async def chains(self, wanted: Collection[str]) -> set[str]:
        """Chains of layers that it has, of the wanted ones."""

    @abstractmethod
    async def load(self, image: BuiltImage, client: AsyncClient, layers: Sequence[Layer]) -> None:
        """Load the image, of whose layers only these are sent.

        Raises:
            LoadError: the engine did not take it.
        """

    @abstractmethod
    async def is_complete(self, image: BuiltImage) -> bool:
        """Whether it has everything of an image that it has just loaded."""

    @abstractmethod
    async def close(self) -> None: ...


class _Docker(_Engine):
    def __init__(self) -> None:
        self._api = EngineApi(Address("docker"))

    async def chains(self, wanted: Collection[str]) -> set[str]:
        have: set[str] = set()
        if await self._api.is_containerd_store() and not await self._tells_completeness():
            return have
        for image in (await self._api.get("/images/json"))[:_MOST_IMAGES]:
            try:
                described = await self._api.get(f"/images/{image['Id']}/json")
            except EngineError:
                continue  # gone meanwhile, or for another platform
            have.update(chain_ids((described.get("RootFS") or {}).get("Layers") or ()))
            if have.issuperset(wanted):
                break
        return have

    async def load(self, image: BuiltImage, client: AsyncClient, layers: Sequence[Layer]) -> None:
        body = _archive(image, client, layers, for_docker=True)
        headers = {"Content-Type": "application/x-tar"}
        answer = await self._api.request("POST", "/images/load?quiet=1", headers=headers, body=body)
        for line in answer.splitlines():
            told: Any = {}
            with suppress(ValueError):
                told = json.loads(line)
            problem = told.get("error") or ""
            if "Error unpacking image" in (said := str(told.get("stream") or "")):
                problem = said.strip()
            if problem:
                raise LoadError(f"the image was built but docker did not load it: {problem}")

    async def is_complete(self, image: BuiltImage) -> bool:
        if not await self._api.is_containerd_store():
            return True  # the classic store looks at each layer while it loads
        reference = image.names[0] if image.names else image.digest
        described = await self._api.get(f"/images/{quote(reference, safe='/:@')}/json?manifests=1")
        manifests = described.get("Manifests") or ()
        return bool(manifests) and all(each.get("Available") for each in manifests if each.get("Kind") == "image")

    async def close(self) -> None:
        await self._api.close()

    async def _tells_completeness(self) -> bool:
        version = str((await self._api.get("/version")).get("ApiVersion", "0.0"))
        major, _, minor = version.partition(".")
        return (int(major), int(minor)) >= (1, 48)


class _Podman(_Engine):
    async def chains(self, wanted: Collection[str]) -> set[str]:
        ids = (await self._run("images", "--quiet", "--no-trunc")).split()
        if not ids:
            return set()
        unique = list(dict.fromkeys(each.decode() for each in ids))[:_MOST_IMAGES]
        described = json.loads(await self._run("image", "inspect", *unique))
        return {each for image in described for each in chain_ids((image.get("RootFS") or {}).get("Layers") or ())}

    async def load(self, image: BuiltImage, client: AsyncClient, layers: Sequence[Layer]) -> None:
        await self._run("load", "--quiet", given=_archive(image, client, layers, for_docker=False))
        for name in image.names[1:]:
            await self._run("tag", image.names[0], name)

    async def is_complete(self, image: BuiltImage) -> bool:
        return True  # it takes no image of which it lacks a layer

    async def close(self) -> None:
        return

    async def _run(self, *arguments: str, given: AsyncIterator[bytes | memoryview] | None = None) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "podman",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            feeding = asyncio.create_task(_feed(process, given))
            assert process.stdout is not None and process.stderr is not None
            output, errors, _ = await asyncio.gather(process.stdout.read(), process.stderr.read(), feeding)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = errors.decode(errors="replace").strip().splitlines()
            raise LoadError(
                f"the image was built, but `podman {arguments[0]}` failed: {said[-1][:_SAID] if said else 'no words'}"
            )
        return output


async def _feed(process: asyncio.subprocess.Process, given: AsyncIterator[bytes | memoryview] | None) -> None:
    if given is None or process.stdin is None:
        return
    try:
        async for piece in given:
            process.stdin.write(piece)
            await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it has ended, and says why
    finally:
        process.stdin.close()


# -------------------------------------------------------------------------------------------------------------- archive


async def _archive(
    image: BuiltImage, client: AsyncClient, layers: Sequence[Layer], *, for_docker: bool
) -> AsyncGenerator[bytes, None]:
    """An OCI layout as a tar, that docker's classic store can read too, with only these layers in it."""
    yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield _file("index.json", _index(image, all_names=for_docker))
    if for_docker:
        entry = {
            "Config": _blob_path(image.config_digest),
            "RepoTags": list(image.names) or None,
            "Layers": [_blob_path(layer.digest) for layer in image.layers],
        }
        yield _file("manifest.json", json.dumps([entry]).encode())
    yield _file(_blob_path(image.config_digest), image.config)
    yield _file(_blob_path(image.digest), image.manifest)
    for layer in {layer.digest: layer for layer in layers}.values():
        yield _header(_blob_path(layer.digest), layer.size)
        size = 0
        async for piece in client.read_blob(layer.digest):
            size += len(piece)
            yield piece
        if size != layer.size:
            raise LoadError(f"the builder sent {size:,} bytes of {layer.digest}, which has {layer.size:,}")
        yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _index(image: BuiltImage, *, all_names: bool) -> bytes:
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
    names = image.names if all_names else image.names[:1]
    entries = [
        {**entry, "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}
        for name in names
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries or [entry]}).encode()


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _file(name: str, content: bytes) -> bytes:
    return b"".join((_header(name, len(content)), content, bytes(-len(content) % _BLOCK)))


def _blob(store: ContentStore, digest: str) -> bytes:
    fd = store.open_blob(digest)
    if fd is None:
        raise LookupError(f"there is no {digest}")
    with open(fd, "rb") as file:
        return file.read()
