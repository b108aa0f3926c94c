"""The flags, each defined once: the same flag has the same form, help and place on every command.

Value syntax is in `cogkit.build.values`; this file must not read any value.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PROJECT = "What to build"
IMAGE = "The image"
RESULT = "Where the result goes"
BUILDER = "The builder"
SHOWN = "What is shown"


class ProgressMode(StrEnum):
    """The kinds of progress output, named as buildx names them."""

    AUTO = "auto"
    TTY = "tty"
    PLAIN = "plain"
    QUIET = "quiet"
    RAWJSON = "rawjson"


PathArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH", help="Folder to build, as --context; the current one if neither is given.", show_default=False
    ),
]
ContextFlag = Annotated[
    Path | None,
    typer.Option(
        "--context",
        metavar="DIR",
        help="Folder to build. The cog.yaml is looked for in it and upward from it.",
        rich_help_panel=PROJECT,
    ),
]
FileFlag = Annotated[
    str | None,
    typer.Option(
        "-f", "--file", metavar="FILE", help="Cog configuration or Dockerfile to use.", rich_help_panel=PROJECT
    ),
]
TargetFlag = Annotated[
    str | None, typer.Option("--target", metavar="STAGE", help="Stage to build.", rich_help_panel=PROJECT)
]
BuildArgFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--build-arg",
        metavar="NAME[=VALUE]",
        help="Value of an ARG; without VALUE it is taken from the environment.",
        rich_help_panel=PROJECT,
    ),
]
BuildContextFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--build-context",
        metavar="NAME=SOURCE",
        help="Further context: a folder, docker-image://IMAGE, a Git or HTTP(S) URL, or target:STAGE.",
        rich_help_panel=PROJECT,
    ),
]
SecretFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="id=ID[,src=FILE|,env=NAME]",
        help="Secret that steps with RUN --mount=type=secret,id=ID may read; may be given again.",
        rich_help_panel=PROJECT,
    ),
]
SshFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh",
        metavar="default|ID[=SOCKET|KEY[,KEY…]]",
        help="SSH agent or keys that steps with RUN --mount=type=ssh may use; may be given again.",
        rich_help_panel=PROJECT,
    ),
]
AllowFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="ENTITLEMENT",
        help="Extra right of the build's steps: network.host, security.insecure or device; may be given again.",
        rich_help_panel=PROJECT,
    ),
]
UvImageFlag = Annotated[
    str | None,
    typer.Option(
        "--uv-image",
        metavar="IMAGE",
        help="Take uv from this image instead of the package index.",
        rich_help_panel=PROJECT,
    ),
]
NoCacheFlag = Annotated[bool, typer.Option("--no-cache", help="Run every step again.", rich_help_panel=PROJECT)]
PullFlag = Annotated[
    bool, typer.Option("--pull", help="Ask the registries for newer base images.", rich_help_panel=PROJECT)
]

TagFlag = Annotated[
    list[str] | None,
    typer.Option(
        "-t", "--tag", metavar="NAME[:TAG]", help="Name of the image; may be given again.", rich_help_panel=IMAGE
    ),
]
LabelFlag = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Label to set.", rich_help_panel=IMAGE)
]
PlatformFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[,…]",
        help="Platforms to build for; the builder's own if not given.",
        rich_help_panel=IMAGE,
    ),
]

OutputFlag = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUTPUT",
        help=(
            "type=image|registry|oci|docker|tar|local with dest=PATH and further KEY=VALUE; a folder alone means"
            " type=local, - a tar on standard output. May be given again."
        ),
        rich_help_panel=RESULT,
    ),
]
PushFlag = Annotated[
    bool, typer.Option("--push", help="Push the image to the registries in its names.", rich_help_panel=RESULT)
]
MetadataFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--metadata-file", metavar="FILE", help="Write the result's metadata as JSON.", rich_help_panel=RESULT
    ),
]
IidFileFlag = Annotated[
    Path | None, typer.Option("--iidfile", metavar="FILE", help="Write the image ID.", rich_help_panel=RESULT)
]

AddrFlag = Annotated[
    str | None,
    typer.Option(
        "--addr",
        metavar="ADDRESS",
        help="unix:///SOCKET or tcp://HOST:PORT; else BUILDKIT_HOST, else the usual sockets.",
        rich_help_panel=BUILDER,
    ),
]
TlsCaFlag = Annotated[
    Path | None,
    typer.Option(
        "--tlscacert", metavar="FILE", help="CA certificate that the builder's must come from.", rich_help_panel=BUILDER
    ),
]
TlsCertFlag = Annotated[
    Path | None, typer.Option("--tlscert", metavar="FILE", help="Our certificate.", rich_help_panel=BUILDER)
]
TlsKeyFlag = Annotated[
    Path | None, typer.Option("--tlskey", metavar="FILE", help="Our private key.", rich_help_panel=BUILDER)
]
TlsServerNameFlag = Annotated[
    str | None,
    typer.Option(
        "--tlsservername",
        metavar="NAME",
        help="Name that the builder's certificate must bear.",
        rich_help_panel=BUILDER,
    ),
]
LockTimeoutFlag = Annotated[
    float | None,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        min=0,
        help="Longest wait for another build of the same project; for ever if not given.",
        rich_help_panel=BUILDER,
    ),
]

ProgressFlag = Annotated[
    ProgressMode,
    typer.Option(
        "--progress",
        envvar="BUILDKIT_PROGRESS",
        show_envvar=False,
        case_sensitive=False,
        help="tty: live view; plain: lines with all output; quiet: only the image ID; rawjson: events as JSON lines;"
        " auto: tty on a terminal, else plain.",
        rich_help_panel=SHOWN,
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document.", rich_help_panel=SHOWN)]


def _turn_on_debug(ctx: typer.Context, wanted: bool) -> bool:
    if wanted:
        ctx.find_root().obj.debug = True
    return wanted


DebugFlag = Annotated[
    bool,
    typer.Option("--debug", callback=_turn_on_debug, is_eager=True, help="Show tracebacks.", rich_help_panel=SHOWN),
]
