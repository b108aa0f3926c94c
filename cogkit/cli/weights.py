"""``cogkit weights``: import, pull and look after managed weights; the words are those of Cog's commands."""

from __future__ import annotations

import json as json_module
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogkit.cli.flags import SHOWN, DebugFlag, FileFlag, JsonFlag, LockTimeoutFlag, NoColorFlag
from cogkit.errors import CogkitError

if TYPE_CHECKING:
    from cogkit.project.config import Config
    from cogkit.weights.importing import ImportPlan
    from cogkit.weights.status import WeightStatus


EXAMPLES = """
\b
Examples:
  cogkit weights import                 push what cog.yaml declares, and write weights.lock
  cogkit weights pull                   fetch what weights.lock names into the local store
  cogkit weights status --json          what is declared, imported, and in the registry
  cogkit weights gc --dry-run           what no project uses any more
"""

IMPORT_EXAMPLES = """
\b
Examples:
  cogkit weights import --dry-run       what would be imported
  cogkit weights import base            only the weight `base`
"""

PULL_EXAMPLES = """
\b
Examples:
  cogkit weights pull                   all weights of weights.lock
  cogkit weights pull base -v           one, with its layers and files
"""

STATUS_EXAMPLES = """
\b
Examples:
  cogkit weights status
  cogkit weights status --json | jq -r '.weights[].status'
"""

GC_EXAMPLES = """
\b
Examples:
  cogkit weights gc --dry-run           how much would be freed
  cogkit weights gc
"""

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Weights to take; all if none is given.", show_default=False),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Show what would happen without making changes.")]
VerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Show every file or layer.", rich_help_panel=SHOWN)]


def import_weights(
    names: NamesArgument = None,
    dry_run: DryRunFlag = False,
    file: FileFlag = None,
    lock_timeout: LockTimeoutFlag = None,
    verbose: VerboseFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Build and push weights to a registry.

    Packs the sources of `weights` in cog.yaml into layers, pushes those that the registry does not have, and writes
    weights.lock. The files are in the local store afterwards, so a pull has nothing to do.

    The repository is `model` of cog.yaml, changed by COG_MODEL, COG_MODEL_REGISTRY and COG_MODEL_REPO.
    """
    from cogkit.cli.interruptible import run_stoppable

    run_stoppable(lambda stop: _import(names or [], dry_run, file, lock_timeout, verbose, stop))


def _import(
    names: list[str], dry_run: bool, file: str | None, lock_timeout: float | None, verbose: bool, stop: threading.Event
) -> None:
    from cogkit.cli.managed_weights import weights_repository
    from cogkit.cli.ui.transfer_view import TransferView
    from cogkit.project.dotcog import DotCog
    from cogkit.project.weights.lockfile import LOCK_FILENAME, WeightsLock, read_lock
    from cogkit.weights.importing import Importer, chosen_weights, plan_import
    from cogkit.weights.pulling import format_size
    from cogkit.weights.registry import WeightRepository
    from cogkit.weights.store import StoredUploads, WeightStore, store_folder
    from cogkit.weights.transfer import concurrency

    config = _config(file)
    weights = chosen_weights(config, names)
    target = weights_repository(config)
    workers = concurrency()
    store = WeightStore(store_folder())
    with ExitStack() as stack:
        view = stack.enter_context(TransferView(sys.stderr))
        if not dry_run:
            dotcog = stack.enter_context(DotCog.open(config.project_dir))
            stack.enter_context(dotcog.lock(lock_timeout, on_wait=lambda wait: view.say(str(wait))))
            stack.enter_context(store.in_use(config.project_dir))
        repository = WeightRepository(target, stop=stop, sessions=StoredUploads(store), connections=workers)
        stack.callback(repository.close)
        importer = Importer(config, repository, store, progress=view, stop=stop, workers=workers)
        lock = read_lock(config.project_dir / LOCK_FILENAME) or WeightsLock()
        plans = []
        for weight in weights:
            plan = plan_import(weight, config, lock, importer.intake(store=not dry_run))
            plans.append(plan)
            _show_plan(plan, view.say, verbose=verbose)
        if dry_run:
            return
        view.say(f"Building {len(plans)} weight(s)...")
        for plan in plans:
            importer.fetch(plan)
        view.say(f"Pushing {len(plans)} weight(s) to {repository}...")
        imported = []
        for plan in plans:
            done = importer.run(plan)
            imported.append(done)
            view.say(f"  {done.entry.name}: {done.reference}@{done.entry.digest}")
        importer.prune()
        view.say(f"\nImported {len(imported)} weight artifact(s) to {repository}")
        total = format_size(sum(done.entry.size for done in imported))
        view.say(f"Total: {total}, sent {format_size(sum(done.sent for done in imported))}")


def _show_plan(plan: ImportPlan, say: Callable[[str], None], *, verbose: bool) -> None:
    from cogkit.weights.pulling import format_size

    icon = {"new": "+", "unchanged": "="}.get(plan.status, "~")
    if len(plan.sources) == 1:
        say(f"{icon} {plan.weight.name}  {plan.sources[0].uri} → {plan.weight.target}")
    else:
        say(f"{icon} {plan.weight.name}  → {plan.weight.target}")
        for index, source in enumerate(plan.sources):
            say(f"  source[{index}]: {source.uri}")
    say(f"  status: {plan.status}")
    for change in plan.changes:
        say(f"  changed: {change}")
    say(f"  files: {len(plan.files)}  size: {format_size(plan.size)}")
    if verbose:
        for sign, what, files in (("-", "excluded", plan.excluded), ("+", "included", plan.files)):
            if files:
                say(f"  {what} ({len(files)} files):")
            for file in files:
                say(f"    {sign} {file.path} ({format_size(file.size)})")
    say("")


def pull(
    names: NamesArgument = None,
    file: FileFlag = None,
    verbose: VerboseFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Populate the local weight store from the registry.

    Fetches the files that weights.lock names and the store lacks. An import fills the store too; a pull is for a fresh
    clone or another machine. The store is $HOME/.cache/cog/weights; COG_CACHE_DIR or XDG_CACHE_HOME move it.
    """
    from cogkit.cli.interruptible import run_stoppable
    from cogkit.cli.managed_weights import pull_weights

    config = _config(file)
    run_stoppable(lambda stop: pull_weights(config, names or [], verbose=verbose, stop=stop))


class WeightsNotReadyError(CogkitError):
    """`cogkit weights status` found weights that are not ready (exit code 1)."""


def status(
    json: JsonFlag = False,
    file: FileFlag = None,
    verbose: VerboseFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show the status of configured weights.

    ready: in the registry as declared. incomplete: layers are missing there. stale: cog.yaml has changed since the
    import. pending: not imported yet. orphaned: in weights.lock, no longer in cog.yaml. An import resolves each of
    them. The exit code is 0 if all weights are ready, else 1.
    """
    from cogkit.cli.interruptible import run_stoppable

    found = run_stoppable(lambda stop: _status(file, stop))
    sys.stdout.write(_status_json(found) if json else _status_table(found, verbose=verbose))
    late = [one.name for one in found if one.status != "ready"]
    if late:
        raise WeightsNotReadyError(f"not all weights are ready: {', '.join(late)}", hint="run 'cogkit weights import'")


def _status(file: str | None, stop: threading.Event) -> tuple[WeightStatus, ...]:
    from cogkit.cli.managed_weights import weights_repository
    from cogkit.project.weights.lockfile import LOCK_FILENAME, WeightsLock, read_lock
    from cogkit.weights.importing import chosen_weights
    from cogkit.weights.registry import WeightRepository
    from cogkit.weights.status import weights_status
    from cogkit.weights.transfer import concurrency

    config = _config(file)
    chosen_weights(config, [])
    lock = read_lock(config.project_dir / LOCK_FILENAME) or WeightsLock()
    repository = WeightRepository(weights_repository(config), stop=stop)
    try:
        return weights_status(config, lock, repository, stop, concurrency())
    finally:
        repository.close()


def _status_json(found: tuple[WeightStatus, ...]) -> str:
    entries: list[dict[str, Any]] = []
    for one in found:
        entry: dict[str, Any] = {"name": one.name, "target": one.target, "status": one.status}
        if one.entry is not None:
            numbers = {
                "size": one.entry.size,
                "sizeCompressed": one.entry.size_compressed,
                "layerCount": len(one.entry.layers),
                "fileCount": len(one.entry.files),
                "digest": one.entry.digest,
            }
            entry |= {key: value for key, value in numbers.items() if value}
            if one.entry.sources:
                first, more = one.entry.sources[0], len(one.entry.sources) - 1
                uri = f"{first.uri} (+{more} more)" if more else first.uri
                entry["source"] = {"uri": uri, "fingerprint": first.fingerprint}
        if one.layers:
            entry["layers"] = [
                {"digest": layer.digest, "size": layer.size, "status": "ready" if there else "missing"}
                for layer, there in one.layers
            ]
        entries.append(entry)
    return json_module.dumps({"weights": entries}, indent=2, ensure_ascii=False) + "\n"


def _status_table(found: tuple[WeightStatus, ...], *, verbose: bool) -> str:
    from cogkit.weights.artifact import short_digest
    from cogkit.weights.pulling import format_size

    rows = [("NAME", "TARGET", "STATUS", "SIZE", "LAYERS", "DIGEST")]
    for one in found:
        size = format_size(one.entry.size) if one.entry and one.entry.size else "-"
        layers = str(len(one.entry.layers)) if one.entry and one.entry.layers else "-"
        digest = f"sha256:{short_digest(one.entry.digest)}" if one.entry and one.entry.digest else "-"
        rows.append((one.name, one.target, one.status, size, layers, digest))
        for index, (layer, there) in enumerate(one.layers if verbose else ()):
            sign = "└─" if index == len(one.layers) - 1 else "├─"
            shown = f"sha256:{short_digest(layer.digest)}"
            rows.append((f"  {sign}", "", "ready" if there else "missing", format_size(layer.size), "", shown))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def gc(dry_run: DryRunFlag = False, no_color: NoColorFlag = False, debug: DebugFlag = False) -> None:
    """Remove weight files from the local store that no project uses.

    A project uses what its weights.lock names, and is known from its last import or pull. Downloads that nobody went
    on with for two weeks go too.
    """
    from cogkit.cli.ui.transfer_view import TransferView
    from cogkit.weights.collection import digests_of
    from cogkit.weights.pulling import format_size
    from cogkit.weights.store import WeightStore, store_folder

    store = WeightStore(store_folder())
    with TransferView(sys.stderr) as view:
        done = store.collect(lambda project: digests_of(project, view.say), dry_run=dry_run)
        verb = "would be freed" if dry_run else "freed"
        view.say(f"{format_size(done.size)} {verb} ({done.files} file(s)); {done.projects} project(s) use the store.")


# ---- what they share


def _config(file: str | None) -> Config:
    from cogkit.project.config import load_config
    from cogkit.project.discover import find_project

    project = find_project(config_name=file or "cog.yaml")
    assert project.config_path is not None
    return load_config(project.config_path, project_dir=project.root)


HELP = """Import, pull and look after managed weights.

Weights that `weights` of cog.yaml declares live in the registry as artifacts of their own, beside the image, and in a
local store that all projects share. The format is Cog's; either program can pull what the other has imported.
"""

SUBCOMMANDS = {
    "import": (import_weights, IMPORT_EXAMPLES),
    "pull": (pull, PULL_EXAMPLES),
    "status": (status, STATUS_EXAMPLES),
    "gc": (gc, GC_EXAMPLES),
}
