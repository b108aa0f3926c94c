"""What stands of each weight: declared, imported, in the registry."""

from __future__ import annotations

import threading

from cogkit.errors import CogkitError, Interrupted
from cogkit.fast_dataclass import dataclass
from cogkit.project.config_model import Config
from cogkit.project.weights.lockfile import LockedLayer, LockedWeight, WeightsLock
from cogkit.project.weights.managed import weight_changes
from cogkit.weights.registry import WeightRepository
from cogkit.weights.transfer import in_parallel


@dataclass(frozen=True, slots=True)
class WeightStatus:
    """What stands of one weight.

    Attributes:
        status: ``ready``, ``incomplete``, ``stale``, ``pending`` or ``orphaned``.
        entry: Its entry in the lock, if there is one.
        layers: Its layers, and whether each is in the registry; empty if that was not asked.
    """

    name: str
    target: str
    status: str
    entry: LockedWeight | None = None
    layers: tuple[tuple[LockedLayer, bool], ...] = ()


def weights_status(
    config: Config, lock: WeightsLock, repository: WeightRepository, stop: threading.Event, workers: int
) -> tuple[WeightStatus, ...]:
    """The weights of a configuration in its order, then those that only the lock has.

    A registry that cannot be asked is not an error: what it would say is taken to be no.
    """
    found: list[WeightStatus] = []
    for weight in config.weights:
        entry = lock.find(weight.name)
        if entry is None:
            found.append(WeightStatus(weight.name, weight.target, "pending"))
        elif weight_changes(weight, entry):
            found.append(WeightStatus(weight.name, weight.target, "stale", entry))
        else:
            there = in_parallel(lambda layer: _is_there(repository, layer.digest), entry.layers, stop, workers)
            status = "ready" if all(there) else "incomplete"
            layers = tuple(zip(entry.layers, there, strict=True))
            found.append(WeightStatus(weight.name, weight.target, status, entry, layers))
    declared = {weight.name for weight in config.weights}
    orphans = (entry for entry in lock.weights if entry.name not in declared)
    return (*found, *(WeightStatus(entry.name, entry.target, "orphaned", entry) for entry in orphans))


def _is_there(repository: WeightRepository, digest: str) -> bool:
    try:
        return repository.has_layer(digest)
    except Interrupted:
        raise
    except CogkitError:
        return False
