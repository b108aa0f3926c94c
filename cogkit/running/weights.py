"""Managed weights on the builder: it fetches their layers from the registry itself, and unpacks them.

Nothing goes through this machine, and what the builder has fetched it keeps like any other result, under the digests of
the layers.  This file must not run anything.
"""

from __future__ import annotations

from cogkit.buildkit import llb
from cogkit.errors import CogkitError
from cogkit.project.weights.lockfile import LockedWeight

_BLOB_NAME = "layer"
_CAPABILITY = "source.imageblob"


def weight_folder(weight: LockedWeight, repository: str) -> llb.State:
    """A filesystem that has the files of a weight, to be mounted at its target, read-only.

    The builder must have BuildKit 0.28 or newer; see `explained`.

    Args:
        weight: Its entry in ``weights.lock``.
        repository: ``registry/repository``, where its layers are.

    Raises:
        CogkitError: the entry names no layers.
    """
    if not weight.layers:
        raise CogkitError(f'weight "{weight.name}" has no layers in weights.lock', hint="run 'cogkit weights import'")
    unpacked = [_unpacked(f"{repository}@{layer.digest}", weight.name) for layer in weight.layers]
    return unpacked[0] if len(unpacked) == 1 else llb.merge(unpacked, name=f"weight {weight.name}")


def _unpacked(blob: str, name: str) -> llb.State:
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
