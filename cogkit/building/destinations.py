"""What a build writes here and what it reads, under the names that the user gave them: one destination, one writer.

It is all checked before a builder is asked for anything.  How places are told apart is `cogkit.buildkit.destinations`'
business; this file must not write anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cogkit.building.options import BuildOptions
from cogkit.building.standard_input import PIPE, is_standard_input
from cogkit.building.values import LAYOUT_SCHEME, split_layout_address
from cogkit.buildkit.destinations import Destination, Extent, Source, check_apart, name_in
from cogkit.buildkit.exports import Export, check_cache_folder
from cogkit.errors import OutputError, UsageError
from cogkit.project.discover import Project
from cogkit.project.dotcog import DOTCOG_NAME

_IGNORE_FILE = ".dockerignore"


def check_destinations(options: BuildOptions, project: Project, exports: Sequence[Export]) -> None:
    """Find out before the build what would fail or destroy something after it.

    Args:
        options: The user's wishes; ``iidfile``, ``metadata_file`` and ``ref_file`` are checked by themselves elsewhere.
        project: What is built.
        exports: Where its result goes.

    Raises:
        OutputError: an export or a local cache cannot be written.
        UsageError: an output would be written or deleted by another, or is something that the build reads.
    """
    for export in exports:
        export.check()
    written = [*_destinations(options, exports)]
    for each in written:
        if name_in(str(project.root), each.path) == DOTCOG_NAME:
            raise UsageError(f"{each.said} goes into the project's own {DOTCOG_NAME}", hint="give a place of your own")
    check_apart(written, _sources(options, project))


def _destinations(options: BuildOptions, exports: Iterable[Export]) -> Iterator[Destination]:
    for export in exports:
        if export.extent is not None:
            yield Destination(f"-o type={export.type},dest={export.path}", export.path, export.extent)
    files = (
        ("--iidfile", options.iidfile),
        ("--metadata-file", options.metadata_file),
        ("--ref-file", options.ref_file),
    )
    for flag, file in files:
        if file is not None:
            yield Destination(f"{flag} {file}", str(file), Extent.FILE)
    if options.call is None:
        for entry in options.cache_to:
            folder = entry.attrs.get("dest")
            if entry.type == "local" and folder:
                said = f"--cache-to type=local,dest={folder}"
                _check_cache(folder, said)
                yield Destination(said, folder, Extent.LAYOUT)


def _check_cache(folder: str, said: str) -> None:
    try:
        check_cache_folder(Path(folder))
    except OutputError as problem:
        raise OutputError(f"{said}: {problem}", hint=problem.hint) from problem


def _sources(options: BuildOptions, project: Project) -> Iterator[Source]:
    named: list[tuple[str, Path | None]] = [
        ("the Dockerfile", project.dockerfile_path),
        (f"the project's {_IGNORE_FILE}", project.root / _IGNORE_FILE),
        ("the project's configuration", project.config_path),
        ("the Dockerfile", options.cog.dockerfile),
        ("the file of --openapi-schema", options.cog.openapi_schema),
        ("the context", project.root),
    ]
    if project.dockerfile_path is not None:
        path = project.dockerfile_path
        named.append(("the Dockerfile's ignore file", path.with_name(f"{path.name}{_IGNORE_FILE}")))
    named += [(f"the secret {secret.id}", secret.path) for secret in options.secrets]
    named += [(f"a key of --ssh {spec.id}", path) for spec in options.ssh for path in spec.paths]
    if options.tls is not None:
        files = (options.tls.ca, options.tls.cert, options.tls.key)
        named += [("a file of the TLS connection", path) for path in files]
    for context in options.build_contexts:
        if context.local:
            named.append((f"the context {context.name}", Path(context.value)))
        elif context.value.startswith(LAYOUT_SCHEME):
            named.append((f"the context {context.name}", split_layout_address(context.value)[0]))
    named += [
        ("a cache that is read", Path(entry.attrs["src"]))
        for entry in options.cache_from
        if entry.type == "local" and entry.attrs.get("src")
    ]
    yield from (Source(said, str(path)) for said, path in named if path is not None)
    if is_standard_input(options.context) or is_standard_input(options.file):
        yield Source("standard input", PIPE)
