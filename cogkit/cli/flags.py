"""The flags, each defined once: the same flag has the same form, help and place on every command.

Value syntax is in `cogkit.building.values`; this file must not read any value.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

PROJECT = "What to build"
STEPS = "What its steps get"
CACHE = "The cache"
IMAGE = "The image"
COG = "A Cog project"
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
    NONE = "none"


class CompressMode(StrEnum):
    """When what goes to the builder is compressed."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"

    @property
    def choice(self) -> bool | None:
        """For `BuildOptions.compress`."""
        return None if self is CompressMode.AUTO else self is CompressMode.ON


class EngineChoice(StrEnum):
    """A container engine of this machine."""

    DOCKER = "docker"
    PODMAN = "podman"


def named_file(value: str) -> Path | None:
    """A file that is named; an empty name, as an unset variable of a shell leaves it, names none, as in buildx."""
    return Path(value) if value else None


# Contexts are text: a Path has one slash less than a URL, and takes an empty text for the working directory.
PathArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help="What to build, as --context; the current folder if neither is given.",
        show_default=False,
    ),
]
ContextFlag = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="DIR|URL|-",
        help="Folder to build: the cog.yaml is looked for in it and upward from it. Or the URL of a Git repository"
        " (#REF:FOLDER), an archive or a Dockerfile; or - for standard input.",
        rich_help_panel=PROJECT,
    ),
]
FileFlag = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="Cog configuration or Dockerfile to use; - for standard input, or a URL.",
        rich_help_panel=PROJECT,
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
        help="Further context: a folder, docker-image://IMAGE, oci-layout://FOLDER[:TAG], or a Git or HTTP(S) URL.",
        rich_help_panel=PROJECT,
    ),
]
FrontendFlag = Annotated[
    str | None,
    typer.Option(
        "--frontend",
        metavar="NAME",
        help="Frontend to build with in place of a project: dockerfile.v0, or gateway.v0 with --opt source=IMAGE."
        " It gets what --opt and --local say.",
        rich_help_panel=PROJECT,
    ),
]
OptFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--opt",
        metavar="KEY=VALUE",
        help="Option of the frontend; may be given again.",
        rich_help_panel=PROJECT,
    ),
]
LocalFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--local",
        metavar="NAME=DIR",
        help="Folder that the frontend may read; may be given again. Without --frontend, LLB is read from standard"
        " input.",
        rich_help_panel=PROJECT,
    ),
]
SecretFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="id=ID[,src=FILE|,env=NAME]",
        help="Secret that steps with RUN --mount=type=secret,id=ID may read; may be given again.",
        rich_help_panel=STEPS,
    ),
]
SshFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh",
        metavar="default|ID[=SOCKET|KEY[,KEY…]]",
        help="SSH agent or keys that steps with RUN --mount=type=ssh may use; ID=SOCKET,raw=true: any unix socket."
        " May be given again.",
        rich_help_panel=STEPS,
    ),
]
ResourceFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=VALUE",
        help="Limit of the steps: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems;"
        " may be given again.",
        rich_help_panel=STEPS,
    ),
]
ProxyNetworkFlag = Annotated[
    bool,
    typer.Option(
        "--proxy-network",
        help="Have the builder see and record what the steps fetch (BuildKit 0.31 and later).",
        rich_help_panel=STEPS,
    ),
]
PolicyFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="disabled=true",
        help="Build although there is a Rego policy beside the Dockerfile, which cogkit cannot evaluate.",
        rich_help_panel=PROJECT,
    ),
]
SourcePolicyFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--source-policy-file",
        metavar="FILE",
        help="What the build may fetch, as JSON; else EXPERIMENTAL_BUILDKIT_SOURCE_POLICY names it.",
        rich_help_panel=PROJECT,
    ),
]
AllowFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="ENTITLEMENT",
        help="Extra right of the build's steps: network.host, security.insecure or device; may be given again.",
        rich_help_panel=STEPS,
    ),
]
NetworkFlag = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="default|host|none",
        help="Network of the steps; host also allows network.host.",
        rich_help_panel=STEPS,
    ),
]
AddHostFlag = Annotated[
    list[str] | None,
    typer.Option("--add-host", metavar="NAME:IP", help="Host name that the steps know.", rich_help_panel=STEPS),
]
UlimitFlag = Annotated[
    list[str] | None,
    typer.Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="Limit of the steps.", rich_help_panel=STEPS),
]
ShmSizeFlag = Annotated[
    str | None,
    typer.Option("--shm-size", metavar="BYTES", help="Size of /dev/shm in the steps, as 1g.", rich_help_panel=STEPS),
]
CgroupParentFlag = Annotated[
    str | None,
    typer.Option("--cgroup-parent", metavar="CGROUP", help="Parent cgroup of the steps.", rich_help_panel=STEPS),
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
NoCacheFlag = Annotated[bool, typer.Option("--no-cache", help="Run every step again.", rich_help_panel=CACHE)]
PullFlag = Annotated[
    bool, typer.Option("--pull", help="Ask the registries for newer base images.", rich_help_panel=CACHE)
]
NoCacheFilterFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--no-cache-filter", metavar="STAGE", help="Run the steps of this stage again.", rich_help_panel=CACHE
    ),
]
CacheFromFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-from",
        metavar="CACHE",
        help="Cache to read: type=registry|local|gha|s3|azblob with KEY=VALUE, or an image alone. May be given again.",
        rich_help_panel=CACHE,
    ),
]
CacheToFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-to",
        metavar="CACHE",
        help="Cache to write: type=inline|registry|local|gha|s3|azblob with KEY=VALUE. May be given again.",
        rich_help_panel=CACHE,
    ),
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
        help="Platforms to build for; the builder's own if not given, and linux/amd64 for a Cog project.",
        rich_help_panel=IMAGE,
    ),
]
AnnotationFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--annotation",
        metavar="[TYPE:]NAME=VALUE",
        help="Annotation to set; TYPE is manifest, index, manifest-descriptor or index-descriptor, with [PLATFORM] if"
        " it is for one. May be given again.",
        rich_help_panel=IMAGE,
    ),
]
SbomFlag = Annotated[
    str | None,
    typer.Option(
        "--sbom",
        metavar="true|PARAMETERS",
        help="List what is in the image; as --attest type=sbom.",
        rich_help_panel=IMAGE,
    ),
]
ProvenanceFlag = Annotated[
    str | None,
    typer.Option(
        "--provenance",
        metavar="true|PARAMETERS",
        help="Say how the image was made; as --attest type=provenance.",
        rich_help_panel=IMAGE,
    ),
]
AttestFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--attest",
        metavar="type=TYPE[,KEY=VALUE…]",
        help="Attestation to attach: sbom or provenance; may be given again.",
        rich_help_panel=IMAGE,
    ),
]


class CudaBaseImage(StrEnum):
    """What ``--use-cuda-base-image`` takes, as Cog has it."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


PullWeightsFlag = Annotated[
    bool,
    typer.Option(
        "--pull-weights",
        help="Fetch the managed weights that the local store lacks first, as `cogkit weights pull` does.",
        rich_help_panel=COG,
    ),
]
SeparateWeightsFlag = Annotated[
    bool,
    typer.Option(
        "--separate-weights",
        help="Put weight files into layers of their own, which an edit of the code leaves as they are.",
        rich_help_panel=COG,
    ),
]
WeightsPathFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--weights-path",
        metavar="PATTERN",
        help="What is a weight, written as in .dockerignore; else build.weights_paths, else what looks like one."
        " Means --separate-weights. May be given again.",
        rich_help_panel=COG,
    ),
]
UseCogBaseImageFlag = Annotated[
    bool | None,
    typer.Option(
        "--use-cog-base-image",
        help="Start from Cog's own base image; by default if COG_REGISTRY_HOST says where those are.",
        rich_help_panel=COG,
    ),
]
UseCudaBaseImageFlag = Annotated[
    CudaBaseImage | None,
    typer.Option(
        "--use-cuda-base-image",
        case_sensitive=False,
        help="Start a GPU project from NVIDIA's image; false: from Python's, which is smaller.",
        rich_help_panel=COG,
    ),
]
OpenApiSchemaFlag = Annotated[
    Path | None,
    typer.Option(
        "--openapi-schema",
        metavar="FILE",
        envvar="COG_OPENAPI_SCHEMA",
        show_envvar=False,
        help="Take the schema from a file instead of making it; else COG_OPENAPI_SCHEMA.",
        rich_help_panel=COG,
    ),
]


class SchemaFrom(StrEnum):
    """How a schema is made, as words of ``--schema``."""

    AUTO = "auto"
    STATIC = "static"


SchemaFlag = Annotated[
    SchemaFrom,
    typer.Option(
        "--schema",
        help="Let the image evaluate defaults that the source alone cannot say (auto), or refuse them (static).",
        rich_help_panel=COG,
    ),
]
SkipSchemaValidationFlag = Annotated[
    bool, typer.Option("--skip-schema-validation", help="Make an image without a schema.", rich_help_panel=COG)
]
StripFlag = Annotated[
    bool, typer.Option("--strip", help="Strip debug symbols from shared libraries.", rich_help_panel=COG)
]
PrecompileFlag = Annotated[
    bool, typer.Option("--precompile", help="Compile all Python files to bytecode.", rich_help_panel=COG)
]
DockerfileFlag = Annotated[
    Path | None,
    typer.Option(
        "--dockerfile",
        metavar="FILE",
        help="Build this Dockerfile in place of the generated one; schema and labels are added.",
        rich_help_panel=COG,
    ),
]
TimestampFlag = Annotated[
    int | None,
    typer.Option(
        "--timestamp",
        metavar="SECONDS",
        min=-1,
        help="Seconds since 1970 that stand for every time in the image, so that it is the same to the bit whenever it"
        " is built; else SOURCE_DATE_EPOCH. -1: the real times.",
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
            " type=local, - a tar on standard output; type=oci,tar=false writes an OCI layout. May be given again."
        ),
        rich_help_panel=RESULT,
    ),
]
PushFlag = Annotated[
    bool, typer.Option("--push", help="Push the image to the registries in its names.", rich_help_panel=RESULT)
]
LoadFlag = Annotated[
    bool,
    typer.Option(
        "--load",
        help="Load the image into docker, or podman without docker; only the layers that are not there yet are sent.",
        rich_help_panel=RESULT,
    ),
]
LoadIntoFlag = Annotated[
    EngineChoice | None,
    typer.Option("--load-into", help="As --load, into the named engine.", rich_help_panel=RESULT),
]
MetadataFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--metadata-file",
        metavar="FILE",
        help="Write the result's metadata as JSON.",
        parser=named_file,
        rich_help_panel=RESULT,
    ),
]
IidFileFlag = Annotated[
    Path | None,
    typer.Option("--iidfile", metavar="FILE", help="Write the image ID.", parser=named_file, rich_help_panel=RESULT),
]
RefFileFlag = Annotated[
    Path | None,
    typer.Option(
        "--ref-file",
        metavar="FILE",
        help="Write the build's ref, which `cogkit history` takes, when the build has succeeded.",
        parser=named_file,
        rich_help_panel=RESULT,
    ),
]

AddrFlag = Annotated[
    str | None,
    typer.Option(
        "--addr",
        metavar="ADDRESS",
        help="unix:///SOCKET, tcp://HOST:PORT, ssh://HOST, docker-container://NAME, kube-pod://POD, docker:// …;"
        " else BUILDKIT_HOST, the chosen builder, or what is found here.",
        rich_help_panel=BUILDER,
    ),
]
BuilderFlag = Annotated[
    str | None,
    typer.Option(
        "--builder",
        metavar="NAME[,LABEL=VALUE…]",
        help="A builder of `cogkit builder ls`; of a farm, a node with these labels.",
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
TlsDirFlag = Annotated[
    Path | None,
    typer.Option(
        "--tlsdir",
        metavar="DIR",
        help="Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key), in place of the three.",
        parser=named_file,
        rich_help_panel=BUILDER,
    ),
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
CompressFlag = Annotated[
    CompressMode,
    typer.Option(
        "--transfer-compression",
        help="Compress what goes to the builder, where it shrinks; auto: if the builder is on another machine.",
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

CallFlag = Annotated[
    str | None,
    typer.Option(
        "--call",
        metavar="build|check|outline|targets",
        help="Ask the frontend instead of building: what is bad style, which arguments, secrets and stages there are;"
        " with ,format=json as JSON.",
        rich_help_panel=PROJECT,
    ),
]
CheckFlag = Annotated[bool, typer.Option("--check", help="As --call check.", rich_help_panel=PROJECT)]

ProgressFlag = Annotated[
    ProgressMode,
    typer.Option(
        "--progress",
        envvar="BUILDKIT_PROGRESS",
        show_envvar=False,
        case_sensitive=False,
        help="tty: live view; plain: lines with all output; quiet: only the image ID; rawjson: events as JSON lines;"
        " none: nothing; auto: tty on a terminal, else plain.",
        rich_help_panel=SHOWN,
    ),
]
QuietFlag = Annotated[bool, typer.Option("-q", "--quiet", help="As --progress quiet.", rich_help_panel=SHOWN)]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document.", rich_help_panel=SHOWN)]


def _turn_off_color(wanted: bool) -> bool:
    if wanted:
        os.environ["NO_COLOR"] = "1"
    return wanted


NoColorFlag = Annotated[
    bool,
    typer.Option(
        "--no-color", callback=_turn_off_color, is_eager=True, help="No colours; as NO_COLOR.", rich_help_panel=SHOWN
    ),
]


def _set_registry(host: str | None) -> str | None:
    if host:
        os.environ["COG_REGISTRY_HOST"] = host
    return host


RegistryFlag = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="HOST",
        callback=_set_registry,
        is_eager=True,
        help="Registry of Cog's base images, and the one to log in to; as COG_REGISTRY_HOST.",
        rich_help_panel=COG,
    ),
]


def _turn_on_debug(ctx: typer.Context, wanted: bool) -> bool:
    if wanted:
        ctx.find_root().obj.debug = True
    # Also said before the command, or by the environment.
    return wanted or getattr(ctx.find_root().obj, "debug", False)


DebugFlag = Annotated[
    bool,
    typer.Option(
        "-D",
        "--debug",
        callback=_turn_on_debug,
        is_eager=True,
        help="Show tracebacks and notes.",
        rich_help_panel=SHOWN,
    ),
]


def _hidden(name: str, *more: str) -> Any:
    return typer.Option(*more, name, hidden=True)


MemoryFlag = Annotated[str | None, _hidden("--memory", "-m")]
MemorySwapFlag = Annotated[str | None, _hidden("--memory-swap")]
CpuSharesFlag = Annotated[str | None, _hidden("--cpu-shares", "-c")]
CpuPeriodFlag = Annotated[str | None, _hidden("--cpu-period")]
CpuQuotaFlag = Annotated[str | None, _hidden("--cpu-quota")]
CpusetCpusFlag = Annotated[str | None, _hidden("--cpuset-cpus")]
CpusetMemsFlag = Annotated[str | None, _hidden("--cpuset-mems")]
DockerCompressFlag = Annotated[bool, _hidden("--compress")]
DockerRmFlag = Annotated[bool, _hidden("--rm")]
DockerForceRmFlag = Annotated[bool, _hidden("--force-rm")]
DockerSquashFlag = Annotated[bool, _hidden("--squash")]
DockerIsolationFlag = Annotated[str | None, _hidden("--isolation")]
DockerSecurityOptFlag = Annotated[list[str] | None, _hidden("--security-opt")]
