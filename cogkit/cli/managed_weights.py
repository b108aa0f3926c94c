"""What commands that build do about managed weights: tell of those that are missing, pull them, push the whole model.

This file must not be imported by a command before it knows that there may be managed weights.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.building.options import BuildOptions
    from cogkit.project.config import Config
    from cogkit.project.weights.lockfile import LockedWeight
    from cogkit.weights.registry import WeightRepository


def weights_repository(config: Config) -> str:
    """The repository of a model's weights, without a tag.

    Raises:
        ConfigError: nothing says which it is.
    """
    from cogkit.building.model_reference import resolve_model
    from cogkit.oci.reference import parse_reference

    resolved = resolve_model(config.model, os.environ, datetime.now(UTC))
    if resolved is None:
        raise ConfigError(
            f"weight commands require a model ref: set 'model' in {config.filename}, or export COG_MODEL or"
            " COG_MODEL_REPO",
            hint="for example model: registry.example.com/you/model",
        )
    return parse_reference(resolved).name


def look_after_weights(options: BuildOptions, *, pull: bool, quiet: bool) -> None:
    """Before a build: pull its managed weights, or say which are not in the local store.

    The image does not hold them, so a build goes on without; what runs it later does not.

    Raises:
        CogkitError: they cannot be pulled.
    """
    from cogkit.building.push import managed_weights

    config = managed_weights(options)
    if config is None:
        return
    from cogkit.project.weights.lockfile import LOCK_FILENAME, read_lock
    from cogkit.weights.pulling import missing_files
    from cogkit.weights.store import WeightStore, store_folder

    lock = read_lock(config.project_dir / LOCK_FILENAME)
    if lock is None:
        return  # the build itself says what to do
    if pull:
        from cogkit.cli.interruptible import run_stoppable

        run_stoppable(lambda stop: pull_weights(config, [], verbose=False, stop=stop))
        return
    store = WeightStore(store_folder())
    missing = [weight.name for weight in lock.weights if missing_files(weight, store)]
    if missing and not quiet:
        from cogkit.cli.ui.failure import warning_line

        said = f"weights are not in the local store: {', '.join(missing)}; give --pull-weights to fetch them"
        print(warning_line(said, sys.stderr), file=sys.stderr)


def pull_weights(config: Config, names: list[str], *, verbose: bool, stop: threading.Event) -> None:
    """Fetch what ``weights.lock`` names and the store lacks, and show it.

    Raises:
        CogkitError: it cannot be had.
    """
    from cogkit.cli.ui.transfer_view import TransferView
    from cogkit.project.weights.lockfile import LOCK_FILENAME, read_lock
    from cogkit.weights.importing import chosen_weights
    from cogkit.weights.pulling import Puller, chosen_entries, format_size
    from cogkit.weights.registry import WeightRepository
    from cogkit.weights.store import WeightStore, store_folder
    from cogkit.weights.transfer import concurrency

    chosen_weights(config, [])
    lock = read_lock(config.project_dir / LOCK_FILENAME)
    if lock is None:
        raise ConfigError(f"{LOCK_FILENAME} not found", hint="run 'cogkit weights import' first")
    entries = chosen_entries(lock, names)
    workers = concurrency()
    store = WeightStore(store_folder())
    with ExitStack() as stack:
        view = stack.enter_context(TransferView(sys.stderr))
        stack.enter_context(store.in_use(config.project_dir))
        repository = WeightRepository(weights_repository(config), stop=stop, connections=workers)
        stack.callback(repository.close)
        detail = view.say if verbose else _nothing
        detail(f"Cache:    {store.root}")
        detail(f"Lockfile: {config.project_dir / LOCK_FILENAME}\n")
        puller = Puller(repository, store, progress=view, detail=detail, stop=stop, workers=workers)
        pulled = [puller.pull(entry) for entry in entries]
        cached = sum(one.was_cached for one in pulled)
        if cached == len(pulled):
            view.say(f"All {len(pulled)} weight(s) already cached.")
            return
        files, layers = sum(one.files for one in pulled), sum(one.layers for one in pulled)
        view.say(
            f"Pulled {format_size(sum(one.size for one in pulled))} across {files} file(s) / {layers} layer(s)"
            f" for {len(pulled) - cached} weight(s); {cached} already cached."
        )


def _nothing(line: str) -> None:
    """What is not verbose says nothing of this."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model whose weights are in the registry and whose image is about to be.

    Attributes:
        repository: Where both are.
        tag: The model's.
        weights: Its weights.
        manifest_sizes: Sizes of their manifests, by digest.
    """

    repository: WeightRepository
    tag: str
    weights: tuple[LockedWeight, ...]
    manifest_sizes: dict[str, int]

    def push(self, image_digest: str) -> str:
        """Push the index of the model; returns what to show of it."""
        from cogkit.weights.bundle import push_model

        digest = push_model(self.repository, self.tag, image_digest, self.weights, self.manifest_sizes)
        self.repository.close()
        width = max(len(weight.name) for weight in self.weights)
        lines = [
            f"  model   {self.repository}:{self.tag}@{digest}",
            f"  ├─ image   {self.repository}@{image_digest}",
            *(
                f"  {'└─' if weight is self.weights[-1] else '├─'} weight  {weight.name.ljust(width)}"
                f"  {self.repository}@{weight.digest}"
                for weight in self.weights
            ),
        ]
        return "\n".join(lines)


def open_bundle(options: BuildOptions) -> Bundle | None:
    """What is needed to push a model with managed weights, before its image is built; None for any other project.

    Raises:
        ConfigError: ``weights.lock`` does not fit ``cog.yaml``.
        CogkitError: a weight is not in the registry.
    """
    from cogkit.building.push import managed_weights

    config = managed_weights(options)
    if config is None:
        return None
    from cogkit.oci.reference import parse_reference
    from cogkit.project.weights.lockfile import LOCK_FILENAME, WeightsLock, read_lock
    from cogkit.project.weights.managed import runtime_manifest
    from cogkit.weights.bundle import require_weights
    from cogkit.weights.registry import WeightRepository
    from cogkit.weights.transfer import concurrency

    runtime_manifest(config)
    lock = read_lock(config.project_dir / LOCK_FILENAME) or WeightsLock()
    reference = parse_reference(options.tags[0])
    stop = threading.Event()
    repository = WeightRepository(reference.name, stop=stop)
    sizes = require_weights(repository, lock.weights, stop, concurrency())
    return Bundle(repository, reference.tag or "latest", lock.weights, sizes)
