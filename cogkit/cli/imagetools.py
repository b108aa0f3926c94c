"""``cogkit imagetools``: indexes of images that are in registries."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogkit.cli.flags import DebugFlag, JsonFlag, NoColorFlag
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.registry.image_index import Index

HELP = """Join images that several machines pushed to one index, and look at what a registry has.

No builder is needed, and no layer travels within a registry.
"""

EXAMPLES = """
\b
Examples:
  cogkit imagetools create -t example.com/app:1 example.com/app:1-amd64 example.com/app:1-arm64
  cogkit imagetools create -t example.com/app:1 --metadata amd64.json --metadata arm64.json
  cogkit imagetools inspect example.com/app:1
"""

SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGE...", help="NAME:TAG, NAME@DIGEST, or a DIGEST beside the first tag.", show_default=False
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="IMAGE", help="NAME:TAG or NAME@DIGEST.", show_default=False)]
TagFlag = Annotated[
    list[str] | None, typer.Option("-t", "--tag", metavar="NAME", help="The index's name; may be repeated.")
]
MetadataFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--metadata",
        metavar="FILE",
        help="One more image: what `cogkit build --push --metadata-file` wrote; may be repeated.",
    ),
]
AnnotationFlag = Annotated[
    list[str] | None, typer.Option("--annotation", metavar="KEY=VALUE", help="Of the index; may be repeated.")
]
AppendFlag = Annotated[bool, typer.Option("--append", help="Add to the index that is there.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print the index instead of storing it.")]
RawFlag = Annotated[bool, typer.Option("--raw", help="The manifest as it is.")]


def create(
    images: SourcesArgument = None,
    tag: TagFlag = None,
    metadata: MetadataFlag = None,
    annotation: AnnotationFlag = None,
    append: AppendFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make one index of images for several platforms; its names with its digest go to standard output."""
    from cogkit.building.values import parse_pairs
    from cogkit.buildkit.blocking import in_thread
    from cogkit.cli.interruptible import run
    from cogkit.registry.image_index import Registries, parse_image
    from cogkit.registry.image_index import create as join

    targets = [parse_image(name) for name in tag or ()]
    if not targets or any(target.digest for target in targets):
        raise UsageError("the index needs a name", hint="give one with -t NAME:TAG")
    names = [*(images or ()), *(_pushed_digest(path) for path in metadata or ())]
    if not names:
        raise UsageError("there is nothing to join", hint="name images that were pushed")
    sources = [parse_image(name, beside=targets[0]) for name in names]
    annotations = parse_pairs(annotation or (), flag="--annotation")

    def work() -> Index:
        registries = Registries()
        try:
            return join(registries, targets, sources, annotations=annotations, append=append, dry_run=dry_run)
        finally:
            registries.close()

    index = run(in_thread(work))
    if dry_run and not json:
        sys.stdout.write(index.content.decode() + "\n")
    elif json:
        shown = {"names": index.names, "digest": index.digest, "mediaType": index.media_type}
        sys.stdout.write(json_module.dumps({**shown, "manifests": index.manifests}) + "\n")
    else:
        sys.stdout.write("".join(f"{name}@{index.digest}\n" for name in index.names))


def inspect(
    image: NameArgument,
    raw: RawFlag = False,
    json: JsonFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show what a name in a registry means: an image, or an index with an image for each platform."""
    from cogkit.buildkit.blocking import in_thread
    from cogkit.cli.interruptible import run
    from cogkit.oci.media_types import INDEX_TYPES
    from cogkit.registry.image_index import Registries, parse_image, platform_of

    reference = parse_image(image)

    def work() -> tuple[bytes, dict[str, Any]]:
        registries = Registries()
        try:
            manifest = registries.manifest(reference)
            known: dict[str, Any] = {
                "name": str(reference),
                "mediaType": manifest.media_type,
                "digest": manifest.digest,
                "size": len(manifest.content),
            }
            document = manifest.document()
            if manifest.media_type in INDEX_TYPES:
                known["manifests"] = document.get("manifests") or []
            elif not raw:
                known["platform"] = platform_of(registries, reference, manifest)
                known["layers"] = document.get("layers") or []
            return manifest.content, known
        finally:
            registries.close()

    content, known = run(in_thread(work))
    if raw:
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(json_module.dumps(known) + "\n" if json else _text(known))


def _pushed_digest(path: Path) -> str:
    """The image that a metadata file tells of, by name and digest."""
    try:
        content = json_module.loads(path.read_bytes())
        digest, names = content["containerimage.digest"], content.get("image.name", "")
    except OSError as error:
        raise UsageError(f"the metadata cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "there is no image in this metadata", where=str(path), hint="write it with --metadata-file, and with --push"
        ) from error
    if not names:
        return str(digest)
    return f"{_repository(str(names).split(',')[0])}@{digest}"


def _repository(name: str) -> str:
    """A name without tag and digest."""
    above, slash, last = name.partition("@")[0].rpartition("/")
    return f"{above}{slash}{last.partition(':')[0]}"


def _text(known: dict[str, Any]) -> str:
    from cogkit.registry.image_index import is_attestation, platform_text

    repository = _repository(known["name"])
    lines = [f"Name:      {known['name']}", f"MediaType: {known['mediaType']}", f"Digest:    {known['digest']}"]
    for entry in known.get("manifests", ()):
        what = platform_text(entry.get("platform")) or "unknown"
        if is_attestation(entry):
            what = f"attestation of {entry['annotations']['vnd.docker.reference.digest']}"
        lines += ["", f"  Name:      {repository}@{entry.get('digest')}", f"  Platform:  {what}"]
    if "layers" in known:
        sizes = [layer.get("size", 0) for layer in known["layers"]]
        lines += [f"Platform:  {platform_text(known['platform']) or 'unknown'}"]
        lines += [f"Layers:    {len(sizes)}, {sum(sizes):,} bytes"]
    return "".join(f"{line}\n" for line in lines)


SUBCOMMANDS = {"create": (create, None), "inspect": (inspect, None)}
