"""Managed weights on the builder: it fetches their layers from the registry itself, and unpacks them.

Nothing goes through this machine, and what the builder has fetched it keeps like any other result, under the digests of
the layers.  This file must not run anything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cogkit.building.model_reference import resolve_model
from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.reference import parse_reference
from cogkit.project.config import load_config
from cogkit.project.discover import Project
from cogkit.project.weights.lockfile import LOCK_FILENAME, LockedWeight, WeightsLock, read_lock
from cogkit.project.weights.managed import runtime_manifest

if TYPE_CHECKING:
    from cogkit.buildkit import llb
    from cogkit.buildkit.gateway.llb_bridge import Gateway, Ref

_BLOB_NAME = "layer"
_CAPABILITY = "source.imageblob"


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The weights of a project.

    Attributes:
        weights: Their entries in ``weights.lock``.
        repository: ``registry/repository``, where their layers are.
    """

    weights: tuple[LockedWeight, ...]
    repository: str

    async def fetched(self, gateway: Gateway) -> dict[str, Ref]:
        """Have the builder fetch them; their filesystems by where they are to be mounted.

        Raises:
            CogkitError: it cannot.
        """

        async def fetch(weight: LockedWeight) -> tuple[str, Ref]:
            try:
                result = await gateway.solve(definition=bytes(weight_folder(weight, self.repository)))
                assert result.ref is not None
                await result.ref.evaluate()
            except CogkitError as problem:
                better = explained(problem)
                if better is problem:
                    raise
                raise better from problem
            return weight.target, result.ref

        return dict(await asyncio.gather(*map(fetch, self.weights)))


def project_weights(project: Project, environ: Mapping[str, str] = os.environ) -> ModelWeights | None:
    """The managed weights of a project; None if it has none.

    Raises:
        ConfigError: ``weights.lock`` is missing or does not fit, or nothing says where the weights are.
    """
    if project.config_path is None:
        return None
    config = load_config(project.config_path, project_dir=project.root)
    if not config.weights:
        return None
    runtime_manifest(config)
    lock = read_lock(config.project_dir / LOCK_FILENAME) or WeightsLock()
    model = resolve_model(config.model, environ, datetime.now(UTC))
    if model is None:
        raise ConfigError("nothing says where the weights are", where=config.filename, hint="add model: REPOSITORY")
    return ModelWeights(_chosen(lock, [weight.name for weight in config.weights]), parse_reference(model).name)


def _chosen(lock: WeightsLock, names: Sequence[str]) -> tuple[LockedWeight, ...]:
    return tuple(weight for weight in lock.weights if weight.name in names)


def weight_folder(weight: LockedWeight, repository: str) -> llb.State:
    """A filesystem that has the files of a weight, to be mounted at its target, read-only.

    The builder must have BuildKit 0.28 or newer; see `explained`.

    Args:
        weight: Its entry in ``weights.lock``.
        repository: ``registry/repository``, where its layers are.

    Raises:
        CogkitError: the entry names no layers.
    """
    from cogkit.buildkit import llb

    if not weight.layers:
        raise CogkitError(f'weight "{weight.name}" has no layers in weights.lock', hint="run 'cogkit weights import'")
    unpacked = [_unpacked(f"{repository}@{layer.digest}", weight.name) for layer in weight.layers]
    return unpacked[0] if len(unpacked) == 1 else llb.merge(unpacked, name=f"weight {weight.name}")


def _unpacked(blob: str, name: str) -> llb.State:
    from cogkit.buildkit import llb

    # Layers hold different files, so each is unpacked alone and all at once.
    layer = llb.image_blob(blob, filename=_BLOB_NAME, name=f"weight {name}: fetch {blob}")
    return llb.scratch().file(llb.copy(layer, f"/{_BLOB_NAME}", "/", unpack=True), name=f"weight {name}: unpack")


def explained(problem: CogkitError) -> CogkitError:
    """The failure, in words that help where the builder is too old to fetch weights."""
    if _CAPABILITY not in problem.message:
        return problem
    return CogkitError(
        "the builder cannot fetch managed weights: BuildKit 0.28 or newer is needed",
        hint="use a newer builder, or run the image elsewhere",
        detail=problem.message,
    )
